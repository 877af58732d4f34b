"""The page's example of fine-tuning, on made-up files of the release."""

import os
import re
import sys
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")  # read when Keras is imported
sys.path.append(str(Path(__file__).parents[1]))  # without its conftest nobody else adds it

from folders import WORDS, F, write_regions, write_rows, write_vocabulary

from lxmert import LxmertConfig, LxmertForQuestionAnswering

PAGE = Path(__file__).parents[2] / "docs" / "tensorflow.md"
SIZES = {
    "vocab_size": 5 + len(WORDS), "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12,
    "l_layers": 0, "r_layers": 0, "x_layers": 1, "visual_feat_dim": F,
}  # fmt: skip
SPLITS = {"train": "train", "valid": "minival", "test": "minival", "predict": "minival"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Data and weights, in the working directory."""
    monkeypatch.chdir(tmp_path)
    names = [f"COCO_val2014_{number:012d}" for number in range(1, 5)]
    for place, split in (("train", "train2014"), ("minival", "val2014")):
        split_names = [name.replace("val2014", split) for name in names]
        rows = [
            {"img_id": name, "question_id": i, "sent": "what is red ?", "label": {"dog": 1.0}}
            for i, name in enumerate(split_names)
        ]
        write_rows(tmp_path / "data" / "vqa" / f"{place}.json", rows)
        images = dict(zip(split_names, range(4), strict=True))
        write_regions(tmp_path / "data" / "mscoco_imgfeat" / f"{split}_obj36.tsv", images)
    write_rows(tmp_path / "data" / "vqa" / "trainval_label2ans.json", ["cat", "dog"])
    write_vocabulary(tmp_path / "data" / "vocab.txt")
    LxmertForQuestionAnswering(LxmertConfig(**SIZES)).save_pretrained(tmp_path / "weights")
    return tmp_path


def test_the_pages_example_trains_and_saves(folder):
    block = next(each for each in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "fit(" in each)
    changes = {
        "batch_size=32": f"batch_size=2, feature_dim={F}, **{SPLITS}",
        "LxmertConfig(": f"LxmertConfig(**{SIZES}, ",
        "unc-nlp/lxmert-base-uncased": "weights",
        "Adam(5e-5)": "Adam(0.01)",
        "model.fit(": "history = model.fit(",
        "metrics=[accuracy]": "metrics=[accuracy], jit_compile=False",
    }
    for old, new in changes.items():
        assert block.count(old) == 1, old
        block = block.replace(old, new)
    names: dict = {}
    exec(block, names)  # the page's own words
    losses = names["history"].history["loss"]
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert LxmertForQuestionAnswering.from_pretrained("vqa-keras").config.answers == ["cat", "dog"]
