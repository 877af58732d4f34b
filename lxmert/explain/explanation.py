"""What each word and region of a batch's rows is to an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lxmert.batch import Batch
from lxmert.explain.rules import RULES, WITH_GRADIENTS, Maps
from lxmert.files import InputError
from lxmert.model import Lxmert
from lxmert.outputs import LxmertModelOutput

METHODS = tuple(RULES)


@dataclass
class Explanation:
    """What the words and regions of each row are to an answer.

    Args:
        method: one of METHODS.
        answers: (R,) int64, the answer that is explained.
        words: (R, L) float32, raw scores, 0 on padding.
        regions: (R, N) float32, the same.
        scores: (R, A) float32, the model's answer scores (logits); of rows that share an answer the same ones.
        word_mask: (R, L) bool, True on real tokens.
        region_mask: (R, N) bool.
    """

    method: str
    answers: Tensor
    words: Tensor
    regions: Tensor
    scores: Tensor
    word_mask: Tensor
    region_mask: Tensor

    @property
    def words_scaled(self) -> Tensor:
        """(R, L): each row's from 0 to 1, 0 on padding; all 0 where all are equal."""
        return scaled(self.words, self.word_mask)

    @property
    def regions_scaled(self) -> Tensor:
        """(R, N): the same of the regions."""
        return scaled(self.regions, self.region_mask)


def explain(
    model: nn.Module, batch: Batch, answers: Tensor | None = None, method: str = "relevancy"
) -> Explanation:
    """What each word and region is to an answer.

    The model computes as in evaluation, in the precision of its weights, and is left as it was: mode, parameters
    and their gradients. Callers may be within `torch.no_grad`, `torch.inference_mode` or `torch.autocast`; a
    compiled model is run as it was written.

    Args:
        model: LxmertForQuestionAnswering, LxmertForPreTraining with its answer head, or LxmertForVisualReasoning,
            of which the rows of an example share one answer; compiled or wrapped (DDP), too.
        batch: padded or not, on the model's device. Rows that share a sentence or an image are explained each for
            itself.
        answers: (R,) int64 label of each row's answer; None for each row's best.
        method: one of METHODS.

    Raises:
        InputError: a method or an answer that is not there, or a model without an answer head.
    """
    encoder, head = parts_of(model)
    return explain_head(encoder, head, batch, answers, method)


def parts_of(model: nn.Module) -> tuple[Lxmert, nn.Module]:
    """The encoders and the answer head of a model, which may be compiled or wrapped.

    Raises:
        InputError: it has no answer head.
    """
    model = unwrapped(model)
    head = getattr(model, "answer_head", None) or getattr(model, "pair_head", None)
    encoder = getattr(model, "lxmert", None)
    if head is None or encoder is None:
        raise InputError(
            f"{type(model).__name__} has no answer head, so that there is no answer to explain; take a model that "
            "was trained to answer: one of question answering or NLVR2, or of pre-training with task_qa"
        )
    return encoder, head


def explain_head(
    encoder: Lxmert,
    head: Callable[[Tensor], Tensor],
    batch: Batch,
    answers: Tensor | None = None,
    method: str = "relevancy",
) -> Explanation:
    """`explain`, of encoders and an answer head that are not one model.

    Args:
        encoder: the three encoders.
        head: (R, D) pooled outputs -> (R, A) scores, or (R / n, A) where n rows side by side are an example.
        batch: as for `explain`.
        answers: as for `explain`.
        method: as for `explain`.

    Raises:
        InputError: as of `explain`.
    """
    if method not in RULES:
        raise InputError(f"method={method!r}; expected one of {', '.join(METHODS)}")
    wants_gradients = method in WITH_GRADIENTS
    with (
        torch.inference_mode(False),
        torch.set_grad_enabled(wants_gradients),
        # Its copies of weights may have been made without gradients.
        torch.autocast(batch.region_features.device.type, enabled=False),
        as_written(encoder, head),
        evaluating(encoder, head),
    ):
        batch, embeds = one_each(encoder, batch, wants_gradients)
        encoded = encoder.encode(batch, {"pooled"}, output_attentions=True, inputs_embeds=embeds)
        scores = head(encoded.pooled_output)  # type: ignore[arg-type]  # (E, A)
        each = batch.num_rows // len(scores) if len(scores) else 1
        chosen = scores.detach().argmax(1) if answers is None else of_examples(answers, each, scores)
        attentions, gradients = maps_of(encoded, batch), None
        if wants_gradients:
            logits = scores.gather(1, chosen[:, None]).sum()
            gradients = attentions.like(torch.autograd.grad(logits, list(attentions))).visible()
        with torch.no_grad():
            found = RULES[method](attentions.visible(), gradients)
    return Explanation(
        method,
        chosen.repeat_interleave(each),
        found.words[:, 0],
        found.regions[:, 0],
        scores.detach().float().repeat_interleave(each, 0),
        batch.token_mask,
        batch.region_mask,
    )


def one_each(encoder: Lxmert, batch: Batch, wants_gradients: bool) -> tuple[Batch, Tensor]:
    """A batch with a sentence and an image for each row, and its word embeddings (R, L, D).

    Gradients of a map that rows share would be their sum. Where all parameters are frozen, it is embeddings and
    features from which there is a way through the maps.
    """
    types = batch.token_types
    rows = torch.arange(batch.num_rows, device=batch.row_sentence.device)
    alone = Batch(
        token_ids=batch.token_ids[batch.row_sentence],
        token_mask=batch.token_mask[batch.row_sentence],
        token_types=None if types is None else types[batch.row_sentence],
        region_features=batch.region_features[batch.row_image].requires_grad_(wants_gradients),
        region_boxes=batch.region_boxes[batch.row_image],
        region_mask=batch.region_mask[batch.row_image],
        row_sentence=rows,
        row_image=rows,
    )
    embeds = encoder.embeddings.word_embeddings(alone.token_ids).detach().requires_grad_(wants_gradients)
    return alone, embeds


def maps_of(encoded: LxmertModelOutput, batch: Batch) -> Maps:
    """The attentions of an output, without those of the last layer that nothing comes of."""
    assert encoded.vision_to_language_attentions is not None and encoded.cross_vision_attentions is not None
    return Maps(
        batch.token_mask,
        batch.region_mask,
        language=encoded.language_attentions or (),
        vision=encoded.vision_attentions or (),
        language_to_vision=encoded.cross_encoder_attentions or (),
        vision_to_language=encoded.vision_to_language_attentions[:-1],
        cross_language=encoded.cross_language_attentions or (),
        cross_vision=encoded.cross_vision_attentions[:-1],
    )


def of_examples(answers: Tensor, each: int, scores: Tensor) -> Tensor:
    """(R,) answers of rows as (E,) of examples of `each` rows.

    Raises:
        InputError: not one a row, not one for all rows of an example, or none of the model's.
    """
    examples, known = scores.shape
    if answers.shape != (examples * each,) or answers.is_floating_point():
        raise InputError(
            f"answers of shape {tuple(answers.shape)} and type {answers.dtype}; expected {(examples * each,)} "
            "labels"
        )
    answers = answers.to(scores.device, torch.long).view(examples, each)
    if (wrong := answers[(answers < 0) | (answers >= known)]).numel():
        raise InputError(f"answer {int(wrong[0])}: the model has the answers 0 to {known - 1}")
    if (answers != answers[:, :1]).any():
        raise InputError(
            f"the {each} rows of an example share one answer; expected the same label for each of them"
        )
    return answers[:, 0].clone()  # of a tensor of inference mode, too, autograd takes a copy alone


def scaled(scores: Tensor, mask: Tensor) -> Tensor:
    """(R, n) scores of the real places as 0 to 1 in each row."""
    least = scores.masked_fill(~mask, torch.inf).amin(1, keepdim=True)
    most = scores.masked_fill(~mask, -torch.inf).amax(1, keepdim=True)
    spread = most - least
    return torch.where(mask & (spread > 0), (scores - least) / spread, 0)


def unwrapped(model: Any) -> Any:
    """The model that torch.compile or a parallel wrapper has been given."""
    for name in ("_orig_mod", "module"):
        if isinstance(inner := getattr(model, name, None), nn.Module):
            return unwrapped(inner)
    return model


def as_written(*parts: Any) -> AbstractContextManager[Any]:
    """Compiled modules run uncompiled: what compiled code gives of its inside is on no way to the answer."""
    modules = [each for part in parts if isinstance(part, nn.Module) for each in part.modules()]
    if any(each._compiled_call_impl is not None or hasattr(each, "_orig_mod") for each in modules):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()


@contextmanager
def evaluating(*parts: Any) -> Iterator[None]:
    """Modules without dropout, each in its own mode again afterwards."""
    training = [each for part in parts if isinstance(part, nn.Module) for each in part.modules() if each.training]
    for each in training:
        each.training = False
    try:
        yield
    finally:
        for each in training:
            each.training = True
