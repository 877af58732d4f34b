"""Copying weights into a model, and the report of what was loaded."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lxmert.files import InputError
from lxmert.weights.names import SIGHT, WORD_EMBEDDINGS, grouped, is_bert

log = logging.getLogger(__name__)


@dataclass
class LoadReport:
    """What loading did, in the reference's names.

    Args:
        source: where the weights came from.
        bert: the source is a BERT: what LXMERT adds to it is rightly missing.
        loaded: parameters taken over.
        missing: parameters that the source does not have; they keep their initial values.
        unexpected: what the source has and the model does not.
        reshaped: (name, shape in the source, shape in the model): left at their initial values.
    """

    source: str
    bert: bool = False
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)

    @property
    def unloaded_encoder(self) -> list[str]:
        """Encoder parameters that the source should have and were not loaded: they would be noise."""
        names = self.missing + [name for name, _, _ in self.reshaped]
        added = SIGHT if self.bert else ()
        return [name for name in names if name.startswith("lxmert.") and not name.startswith(added)]

    @property
    def other_vocabulary(self) -> str:
        """A sentence on the source's vocabulary where it is another than the model's, else nothing."""
        for name, there, here in self.reshaped:
            if name == WORD_EMBEDDINGS and len(there) == len(here) and there[0] != here[0]:
                return (
                    f"Its word embeddings are of another vocabulary, {there[0]} word pieces and not {here[0]}: "
                    "use the vocabulary the weights were trained with. "
                )
        return ""

    def __str__(self) -> str:
        kind = " (a BERT)" if self.bert else ""
        lines = [f"weights from {self.source}{kind}: {len(self.loaded)} tensors loaded"]
        if self.missing:
            lines.append(f"  {len(self.missing)} missing, left at their initial values: {grouped(self.missing)}")
        if self.reshaped:
            each = [f"{name} {list(there)} -> {list(here)}" for name, there, here in self.reshaped[:6]]
            if len(self.reshaped) > 6:
                each.append(f"... {len(self.reshaped) - 6} more")
            lines.append(
                f"  {len(self.reshaped)} of another shape, left at their initial values: {', '.join(each)}"
            )
        if self.unexpected:
            lines.append(f"  {len(self.unexpected)} not used: {grouped(self.unexpected)}")
        return "\n".join(lines)


def compare(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: str) -> LoadReport:
    """What of `weights` fits a model's parameters `own`; both under the reference's names.

    Raises:
        InputError: what the model would take over are no real numbers, and the model's are.
    """
    report = LoadReport(source, is_bert(weights))
    for name, tensor in own.items():
        if name not in weights:
            report.missing.append(name)
        elif tensor.is_floating_point() and not weights[name].is_floating_point():
            raise InputError(
                f"{source}: {name} is of type {weights[name].dtype}; expected floating-point numbers. Save the "
                "weights as such, or get the file again."
            )
        elif weights[name].shape != tensor.shape:
            report.reshaped.append((name, tuple(weights[name].shape), tuple(tensor.shape)))
        else:
            report.loaded.append(name)
    report.unexpected = sorted(set(weights) - set(own))
    return report


def load_weights(
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    source: str,
    allow_missing: bool = False,
    buffers: Collection[str] = (),
) -> LoadReport:
    """Copy `weights` into `own` where names and shapes agree, log one report and return it.

    A BERT fills the embeddings, the language layers, the pooler and the masked-language head; what sees
    keeps its initial values.

    Args:
        own: a model's parameters under the reference's names: `reference_state()` of a model or a learner.
        weights: under the same names, from `read_weights`.
        source: named in the report.
        allow_missing: go on when encoder weights are missing or of another shape.
        buffers: those of `own` that are no parameters and may be infinite, as a mask is.

    Raises:
        InputError: encoder weights are missing, of another shape or no numbers; nothing has been copied then.
    """
    report = compare(own, weights, source)
    if not allow_missing:
        refuse_unloaded(report)
    for name in report.loaded:
        if name in buffers:
            continue
        if not weights[name].sum(dtype=torch.float32).isfinite():  # a tenth of the time of looking at each
            raise InputError(
                f"{source}: {name} holds numbers that are not finite (NaN or infinite): the training that wrote "
                "it diverged, or the file is damaged. Use an earlier checkpoint, or get the file again."
            )
    with torch.no_grad():
        for name in report.loaded:
            own[name].copy_(weights[name])
    log.log(logging.WARNING if report.missing or report.reshaped else logging.INFO, "%s", report)
    return report


def refuse_unloaded(report: LoadReport, other_shapes: bool = True) -> None:
    """Raise InputError where encoder weights are missing or (with `other_shapes`) of another shape, or all are."""
    reshaped = {name for name, _, _ in report.reshaped}
    unloaded = [name for name in report.unloaded_encoder if other_shapes or name not in reshaped]
    if not report.loaded and not report.reshaped:
        raise InputError(f"{report}\nno weight has the name of one of the model's: the file is of another model.")
    if unloaded:
        raise InputError(
            f"{report}\n{len(unloaded)} encoder weights would keep random values: the file is "
            f"of another architecture or incomplete. {report.other_vocabulary}Use the sizes of the weights "
            "(model.* in a run, config= in Python), or get the file again. In Python allow_missing=True goes on "
            "without."
        )
