"""What a run imports sooner or later, for the process that runs are forks of."""
# ruff: noqa: F401

import matplotlib.backends.backend_svg
import PIL.ImageDraw
import pybase64
import torch._dynamo
import torch.distributed
import torch.profiler

import datamodules.toy.modules
import lxmert.callbacks
import lxmert.objectives.answering
import lxmert.objectives.image_pair
import lxmert.objectives.masked_language
import lxmert.objectives.masked_region
import lxmert.objectives.matching
import lxmert.objectives.question_answering
import lxmert.runs.build
import train
