"""The LXMERT model: three encoders, read from top to bottom.

Modules bear the reference library's names, so that its state dicts, and whoever freezes, hooks or adapts layers
by name, fit this model as they are. Two of them mislead: `encoder.layer` are the language layers, and
`visual_attention` attends both ways.

Shapes (see lxmert/batch.py): R rows, S sentences, I images, L tokens, N regions, D hidden size, H heads.
"packed" tensors hold real elements only, (T, D): no matrix product is spent on padding, which exists
inside attention alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lxmert.batch import Batch, Packing
from lxmert.casting import prepare, weights_in
from lxmert.config import LxmertConfig
from lxmert.outputs import LxmertModelOutput

log = logging.getLogger(__name__)

# BERT's value; PyTorch's default of 1e-5 would not reproduce the released weights' outputs.
LAYER_NORM_EPS = 1e-12

OUTPUTS = frozenset({"pooled", "language", "vision"})


def activation(name: str) -> nn.Module:
    """The activation module called `name` in the config."""
    return ACTIVATION_MODULES[name]()


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return x * torch.sigmoid(1.702 * x)


TANH_GELU = partial(nn.GELU, approximate="tanh")
ACTIVATION_MODULES: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU, "gelu_fast": TANH_GELU, "gelu_new": TANH_GELU, "gelu_python": nn.GELU,
    "gelu_pytorch_tanh": TANH_GELU, "leaky_relu": nn.LeakyReLU, "linear": nn.Identity, "mish": nn.Mish,
    "quick_gelu": QuickGELU, "relu": nn.ReLU, "relu6": nn.ReLU6, "sigmoid": nn.Sigmoid, "silu": nn.SiLU,
    "swish": nn.SiLU, "tanh": nn.Tanh,
}  # fmt: skip


class Embeddings(nn.Module):
    """Word + position + segment embeddings, layer norm, dropout (paper section 2.1)."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        # padding_idx=0 on all three, as in the original: entry 0 (also position 0 and segment 0) never
        # gets a gradient. Kept so that training follows the published one.
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size, padding_idx=0)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size, padding_idx=0)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, ids: Tensor, packing: Packing, types: Tensor | None = None, words: Tensor | None = None
    ) -> Tensor:
        """(S, L) ids -> (T, D) packed; `words` (S, L, D) replaces the word embeddings."""
        size, length = packing.mask.shape
        positions = torch.arange(length, device=packing.mask.device).expand(size, length)
        segments = torch.zeros_like(positions) if types is None else types
        word = self.word_embeddings(packing.pack(ids)) if words is None else packing.pack(words)
        position = self.position_embeddings(packing.pack(positions))
        segment = self.token_type_embeddings(packing.pack(segments))
        return self.dropout(self.LayerNorm(word + position + segment))


class RegionEmbedding(nn.Module):
    """Mean of the layer-normed projections of a region's feature and of its box (paper section 2.1)."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.visn_fc = nn.Linear(config.visual_feat_dim, config.hidden_size)
        self.visn_layer_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.box_fc = nn.Linear(config.visual_pos_dim, config.hidden_size)
        self.box_layer_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, features: Tensor, boxes: Tensor, packing: Packing) -> Tensor:
        """(I, N, F) and (I, N, 4) -> (T, D) packed."""
        dtype = self.visn_layer_norm.weight.dtype  # features stay in float16 until here, on the device
        feature = self.visn_layer_norm(self.visn_fc(packing.pack(features).to(dtype)))
        box = self.box_layer_norm(self.box_fc(packing.pack(boxes).to(dtype)))
        return self.dropout((feature + box) / 2)


class Heads(nn.Module):
    """Multi-head attention up to the mixed values, before the output projection.

    Args:
        config: sizes.
        across: query and key read different inputs.
    """

    # While `weights_in` lasts: (3 D, D) weights and (3 D,) biases of query, key and value; across, those of the
    # query and those of the rest.
    joined: list[tuple[Tensor, Tensor]] | None = None

    def __init__(self, config: LxmertConfig, across: bool) -> None:
        super().__init__()
        self.across = across
        self.num_attention_heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def joins(self) -> list[list[nn.Linear]]:
        """Which layers read the same input."""
        return [[self.query], [self.key, self.value]] if self.across else [[self.query, self.key, self.value]]

    def forward(
        self,
        x: Tensor,
        packing: Packing,
        context: Tensor,
        context_packing: Packing,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """Packed x (Tx, D) looks at packed context (Tc, D) -> (Tx, D).

        With `maps` the probabilities (B, H, Lx, Lc) are computed openly and appended to it.
        """
        query, key, value = self._project(x, packing, context, context_packing)
        mask = context_packing.biased(query.dtype).bias  # (B, 1, 1, Lc)
        dropout = self.dropout.p if self.dropout.training else 0.0
        if maps is None:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        else:
            scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
            if mask is not None:
                scores = scores + mask
            probabilities = scores.softmax(-1)
            maps.append(probabilities)
            mixed = self.dropout(probabilities) @ value
        return packing.pack(mixed.transpose(1, 2).flatten(2))  # (Tx, D)

    def _project(
        self, x: Tensor, packing: Packing, context: Tensor, context_packing: Packing
    ) -> tuple[Tensor, ...]:
        """Query (B, H, Lx, D/H), key and value (B, H, Lc, D/H) of packed x and context.

        What reads the same input is one product where the weights are `joined`.
        """
        if self.joined is None:
            query = self._split(self.query(x), packing)
            key = self._split(self.key(context), context_packing)
            return *query, *key, *self._split(self.value(context), context_packing)
        if self.across:
            of_query, of_rest = self.joined
        elif x is context:
            return self._split(F.linear(x, *self.joined[0]), packing, 3)
        else:  # [CLS] alone looks at its sentence
            (weight, bias), size = self.joined[0], self.query.out_features
            of_query, of_rest = (weight[:size], bias[:size]), (weight[size:], bias[size:])
        query = self._split(F.linear(x, *of_query), packing)
        return *query, *self._split(F.linear(context, *of_rest), context_packing, 2)

    def _split(self, packed: Tensor, packing: Packing, parts: int = 1) -> tuple[Tensor, ...]:
        """(T, parts D) packed -> `parts` times (B, H, L, D/H)."""
        padded = packing.pad(packed)
        split = padded.chunk(parts, -1) if parts > 1 else (padded,)
        return tuple(each.unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2) for each in split)


class Output(nn.Module):
    """How every block ends: projection, dropout, residual, layer norm."""

    def __init__(self, config: LxmertConfig, inputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """(T, inputs) and (T, D) -> (T, D)."""
        return self.LayerNorm(residual + self.dropout(self.dense(hidden)))


class Attention(nn.Module):
    """Heads, projection, residual, layer norm.

    Args:
        config: sizes.
        heads: what the reference calls the heads: "self" within a sentence or an image, "att" across.
    """

    def __init__(self, config: LxmertConfig, heads: str) -> None:
        super().__init__()
        self.heads = heads
        self.add_module(heads, Heads(config, across=heads == "att"))
        self.output = Output(config, config.hidden_size)

    def forward(
        self,
        x: Tensor,
        packing: Packing,
        context: Tensor,
        context_packing: Packing,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """Packed x (Tx, D) looks at packed context (Tc, D) -> (Tx, D)."""
        mixed = getattr(self, self.heads)(x, packing, context, context_packing, maps)
        return self.output(mixed, x)


class Intermediate(nn.Module):
    """The wide half of a feed-forward block."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.intermediate_act_fn = activation(config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        """(T, D) -> (T, intermediate_size)."""
        return self.intermediate_act_fn(self.dense(x))


class SelfLayer(nn.Module):
    """A layer of a single-modality encoder: self-attention, feed-forward (paper section 2.2)."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.attention = Attention(config, "self")
        self.intermediate = Intermediate(config)
        self.output = Output(config, config.intermediate_size)

    def forward(self, x: Tensor, packing: Packing, maps: list[Tensor] | None = None) -> Tensor:
        """(T, D) packed -> (T, D)."""
        x = self.attention(x, packing, x, packing, maps)
        return self.output(self.intermediate(x), x)


class CrossLayer(nn.Module):
    """A layer of the cross-modality encoder: cross-attention, self-attention, feed-forward.

    One cross-attention module serves both directions, as in the original code (the paper draws two;
    sharing was about 0.5 points better, the authors say).
    """

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.visual_attention = Attention(config, "att")
        self.lang_self_att = Attention(config, "self")
        self.visn_self_att = Attention(config, "self")
        self.lang_inter = Intermediate(config)
        self.lang_output = Output(config, config.intermediate_size)
        self.visn_inter = Intermediate(config)
        self.visn_output = Output(config, config.intermediate_size)

    def forward(
        self,
        language: Tensor,
        language_packing: Packing,
        vision: Tensor,
        vision_packing: Packing,
        needed: Collection[str] = OUTPUTS,
        maps: AttentionMaps | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Packed (Tl, D) and (Tv, D) -> the same, as far as `needed` asks for.

        With "pooled" but not "language" in `needed`, the language side is (R, D): [CLS] alone. A side
        that is not needed is None.
        """
        words = regions = None
        if "language" in needed or "pooled" in needed:
            crossed = self.visual_attention(
                language, language_packing, vision, vision_packing, maps and maps.language_to_vision
            )
            query, query_packing = crossed, language_packing
            if "language" not in needed:
                query = language_packing.first(crossed)
                query_packing = Packing(language_packing.mask[:, :1], None, full=True)
            words = self.lang_self_att(
                query, query_packing, crossed, language_packing, maps and maps.cross_language
            )
            words = self.lang_output(self.lang_inter(words), words)
        if "vision" in needed:
            crossed = self.visual_attention(
                vision, vision_packing, language, language_packing, maps and maps.vision_to_language
            )
            regions = self.visn_self_att(
                crossed, vision_packing, crossed, vision_packing, maps and maps.cross_vision
            )
            regions = self.visn_output(self.visn_inter(regions), regions)
        return words, regions


class Holder(nn.Module):
    """Modules under a name of the reference's, where they are one module that is called."""

    def register_forward_hook(self, *arguments: Any, **options: Any) -> Any:
        """As of every module, with a warning: nothing calls this one."""
        log.warning(
            "hooks on %s are never called: hook what is in it, or ask for output_hidden_states=True",
            type(self).__name__,
        )
        return super().register_forward_hook(*arguments, **options)


class Encoder(Holder):
    """The parts of the three encoders: region embedding, language, object-relationship, cross-modality layers."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.visn_fc = RegionEmbedding(config)
        self.layer = nn.ModuleList(SelfLayer(config) for _ in range(config.l_layers))
        self.r_layers = nn.ModuleList(SelfLayer(config) for _ in range(config.r_layers))
        self.x_layers = nn.ModuleList(CrossLayer(config) for _ in range(config.x_layers))


class Pooler(nn.Module):
    """(R, D) last hidden states of [CLS], or (R, L, D) of all words -> (R, D) pooled output."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        """Dense, tanh."""
        return torch.tanh(self.dense(first[:, 0] if first.ndim == 3 else first))


class AttentionMaps:
    """Attention probabilities of one forward pass, a list per kind of attention."""

    def __init__(self) -> None:
        self.language: list[Tensor] = []
        self.vision: list[Tensor] = []
        self.language_to_vision: list[Tensor] = []
        self.vision_to_language: list[Tensor] = []
        self.cross_language: list[Tensor] = []
        self.cross_vision: list[Tensor] = []


class Trace:
    """What a forward pass is to show of its inside.

    Args:
        attentions: note attention probabilities.
        hidden_states: note what each layer gives, and the embeddings, padded.
    """

    def __init__(self, attentions: bool = False, hidden_states: bool = False) -> None:
        self.maps = AttentionMaps() if attentions else None
        self.hidden_states = hidden_states
        self.language: list[Tensor] = []
        self.vision: list[Tensor] = []

    def note(self, states: list[Tensor], packed: Tensor, packing: Packing) -> Tensor:
        """Keep a layer's output among `language` or `vision`; returns what to go on with.

        What is kept is on the way to the outputs, so that it gets a gradient and may be changed.
        """
        if not self.hidden_states:
            return packed
        states.append(packing.pad(packed))
        return packing.pack(states[-1])

    def fill(self, output: LxmertModelOutput) -> None:
        """Put what was noted into the output's fields."""
        if self.hidden_states:
            output.language_embeddings, *language = self.language
            output.vision_embeddings, *vision = self.vision
            output.language_hidden_states, output.vision_hidden_states = tuple(language), tuple(vision)
        if self.maps is not None:
            output.language_attentions = tuple(self.maps.language)
            output.vision_attentions = tuple(self.maps.vision)
            output.cross_encoder_attentions = tuple(self.maps.language_to_vision)
            output.vision_to_language_attentions = tuple(self.maps.vision_to_language)
            output.cross_language_attentions = tuple(self.maps.cross_language)
            output.cross_vision_attentions = tuple(self.maps.cross_vision)


class Lxmert(nn.Module):
    """LXMERT without heads: encodes a Batch whose rows share sentences and images.

    `encode` does all of it. Its three steps are there for whoever scores many pairs: sentences and images are
    encoded once, and then paired again and again.

    Attributes:
        compute_dtype: while `computing_in` lasts, the type that is computed in; None: that of the weights.
    """

    compute_dtype: torch.dtype | None = None

    def __init__(self, config: LxmertConfig) -> None:
        nn.Module.__init__(self)  # LxmertModel has a second parent, with other arguments
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config)
        initialize(self, config.initializer_range)

    def encode(
        self,
        batch: Batch,
        outputs_needed: Collection[str],
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        inputs_embeds: Tensor | None = None,
    ) -> LxmertModelOutput:
        """Encode each distinct sentence and image once, then every row.

        Args:
            batch: the batch.
            outputs_needed: which outputs are wanted, of "pooled", "language", "vision"; the last layer computes
                nothing else (with only "pooled", 11 % of a training step).
            output_attentions: fill the attention fields; nothing is left out of the last layer then.
            output_hidden_states: fill the hidden-state fields; the same.
            inputs_embeds: (S, L, D) instead of the word embeddings of `batch.token_ids`.

        Returns:
            The outputs needed; the others are None.
        """
        if output_attentions or output_hidden_states:
            outputs_needed = OUTPUTS  # whoever looks inside wants the last layer whole
        trace = Trace(output_attentions, output_hidden_states)
        # Both are embedded before either is encoded: the order of dropout's draws decides what a seed trains.
        words = self._embed_sentences(batch, inputs_embeds)
        regions = self._embed_images(batch)
        sentences = self._encode_sentences(words, batch, trace)
        images = self._encode_images(regions, batch, trace)
        output = self.encode_rows(batch, sentences, images, outputs_needed, trace=trace)
        trace.fill(output)
        return output

    def encode_sentences(self, batch: Batch, *, inputs_embeds: Tensor | None = None) -> Tensor:
        """(S, L, D), zero on padding: the batch's sentences after the language layers.

        Reads `token_ids`, `token_types` and `token_packing` alone; `inputs_embeds` (S, L, D) replaces the word
        embeddings.
        """
        return self._encode_sentences(self._embed_sentences(batch, inputs_embeds), batch, Trace())

    def encode_images(self, batch: Batch) -> Tensor:
        """(I, N, D), zero on padding: the batch's images after the object-relationship layers.

        Reads `region_features`, `region_boxes` and `region_packing` alone.
        """
        return self._encode_images(self._embed_images(batch), batch, Trace())

    def _embed_sentences(self, batch: Batch, inputs_embeds: Tensor | None) -> Tensor:
        """(T, D) packed."""
        words = self.embeddings(batch.token_ids, batch.token_packing, batch.token_types, inputs_embeds)
        return words.to(self.compute_dtype or words.dtype)

    def _embed_images(self, batch: Batch) -> Tensor:
        """(T, D) packed."""
        return self._run(self.encoder.visn_fc, batch.region_features, batch.region_boxes, batch.region_packing)

    def _run(self, part: nn.Module, *inputs: Any) -> Any:
        """What a part of the model gives, computed in `compute_dtype`.

        With `config.gradient_checkpointing` its inside is forgotten, and computed again when gradients are.
        """
        if self.config.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(_compute, self.compute_dtype, part, *inputs, use_reentrant=False)
        return _compute(self.compute_dtype, part, *inputs)

    def _encode_sentences(self, language: Tensor, batch: Batch, trace: Trace) -> Tensor:
        """(T, D) packed -> (S, L, D)."""
        packing = batch.token_packing.biased(language.dtype)
        language = trace.note(trace.language, language, packing)
        for layer in self.encoder.layer:
            language = self._run(layer, language, packing, trace.maps and trace.maps.language)
            language = trace.note(trace.language, language, packing)
        return packing.pad(language)

    def _encode_images(self, vision: Tensor, batch: Batch, trace: Trace) -> Tensor:
        """(T, D) packed -> (I, N, D)."""
        packing = batch.region_packing.biased(vision.dtype)
        vision = trace.note(trace.vision, vision, packing)
        for layer in self.encoder.r_layers:
            vision = self._run(layer, vision, packing, trace.maps and trace.maps.vision)
            vision = trace.note(trace.vision, vision, packing)
        return packing.pad(vision)

    def encode_rows(
        self,
        batch: Batch,
        sentences: Tensor,
        images: Tensor,
        outputs_needed: Collection[str],
        *,
        trace: Trace | None = None,
    ) -> LxmertModelOutput:
        """The rows after the cross-modality layers.

        Args:
            batch: of which `row_sentence`, `row_image` and their packings are read: `batch.pair` makes one with
                other rows.
            sentences: (S, L, D) of `encode_sentences`.
            images: (I, N, D) of `encode_images`.
            outputs_needed: as for `encode`.
            trace: as `encode` makes it.

        Returns:
            The outputs needed; the others are None.
        """
        if not outputs_needed or not OUTPUTS.issuperset(outputs_needed):
            raise ValueError(f"outputs_needed={sorted(outputs_needed)}; expected some of {sorted(OUTPUTS)}")
        trace = trace or Trace()
        token_packing = batch.row_token_packing.biased(sentences.dtype)
        region_packing = batch.row_region_packing.biased(images.dtype)
        language = token_packing.pack(sentences.index_select(0, batch.row_sentence))
        vision = region_packing.pack(images.index_select(0, batch.row_image))
        for number, layer in enumerate(self.encoder.x_layers, 1):
            is_last = number == len(self.encoder.x_layers)
            needed = outputs_needed if is_last else OUTPUTS
            language, vision = self._run(
                layer, language, token_packing, vision, region_packing, needed, trace.maps
            )
            if trace.hidden_states:  # the last layer is whole then
                language = trace.note(trace.language, language, token_packing)
                vision = trace.note(trace.vision, vision, region_packing)

        output = LxmertModelOutput()
        if "pooled" in outputs_needed:
            whole = "language" in outputs_needed
            output.pooled_output = self._run(self.pooler, token_packing.first(language) if whole else language)
        if "language" in outputs_needed:
            output.language_output = token_packing.pad(language)
        if "vision" in outputs_needed:
            output.vision_output = region_packing.pad(vision)
        return output

    @contextmanager
    def computing_in(self, dtype: torch.dtype | None) -> Iterator[None]:
        """While it lasts, encode in `dtype`, with weights that stay as they are (lxmert/casting.py).

        None computes in the weights' own type. `prepare_casts` comes before the first time.
        """
        self.compute_dtype = dtype
        try:
            yield
        finally:
            self.compute_dtype = None

    def prepare_casts(self) -> None:
        """Note which weights `computing_in` casts together: those of a layer."""
        for part in (self.encoder.visn_fc, *self.encoder.layer, *self.encoder.r_layers, *self.encoder.x_layers):
            prepare(part)
        prepare(self.pooler)

    def unused_parameters(self, outputs_needed: Collection[str]) -> Iterator[nn.Parameter]:
        """Parameters that get no gradient when only `outputs_needed` is used.

        DDP would wait for them; freezing them spares it the search for unused parameters.
        """
        last = cast(CrossLayer, self.encoder.x_layers[-1])
        if "vision" not in outputs_needed:
            for part in (last.visn_self_att, last.visn_inter, last.visn_output):
                yield from part.parameters()
        if not {"language", "pooled"} & set(outputs_needed):
            for part in (last.lang_self_att, last.lang_inter, last.lang_output):
                yield from part.parameters()
        if "pooled" not in outputs_needed:
            yield from self.pooler.parameters()


def _compute(dtype: torch.dtype | None, part: nn.Module, *inputs: Any) -> Any:
    with weights_in(part, dtype):
        return part(*inputs)


def initialize(module: nn.Module, std: float) -> None:
    """BERT's initialisation of all layers in `module`."""
    for part in module.modules():
        initialize_layer(part, std)


def initialize_layer(layer: nn.Module, std: float) -> None:
    """BERT's initialisation: normal weights, zero biases, unit layer norms, zero padding embeddings."""
    if isinstance(layer, nn.Linear | nn.Embedding):
        nn.init.normal_(layer.weight, std=std)
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if isinstance(layer, nn.LayerNorm):
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
        nn.init.zeros_(layer.weight[layer.padding_idx].detach())
