"""The LXMERT model: three encoders, read from top to bottom.

Shapes (see lxmert/batch.py): R rows, S sentences, I images, L tokens, N regions, D hidden size, H heads.
"packed" tensors hold real elements only, (T, D): no matrix product is spent on padding, which exists
inside attention alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lxmert.batch import Batch, Packing
from lxmert.checkpoint import Pretrained
from lxmert.config import LxmertConfig
from lxmert.outputs import LxmertModelOutput

# BERT's value; PyTorch's default of 1e-5 would not reproduce the released weights' outputs.
LAYER_NORM_EPS = 1e-12

READABLE = frozenset({"pooled", "language", "vision"})


def activation(name: str) -> nn.Module:
    """The activation module called `name` in the config."""
    return {"gelu": nn.GELU, "relu": nn.ReLU}[name]()


class Embeddings(nn.Module):
    """Word + position + segment embeddings, layer norm, dropout (paper section 2.1)."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        # padding_idx=0 on all three, as in the original: entry 0 (also position 0 and segment 0) never
        # gets a gradient. Kept so that training follows the published one.
        self.word = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size, padding_idx=0)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size, padding_idx=0)
        self.norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, ids: Tensor, at: Packing, types: Tensor | None = None, words: Tensor | None = None
    ) -> Tensor:
        """(S, L) ids -> (T, D) packed; `words` (S, L, D) replaces the word embeddings."""
        size, length = at.mask.shape
        positions = torch.arange(length, device=at.mask.device).expand(size, length)
        segments = torch.zeros_like(positions) if types is None else types
        word = self.word(at.pack(ids)) if words is None else at.pack(words)
        return self.dropout(
            self.norm(word + self.position(at.pack(positions)) + self.token_type(at.pack(segments)))
        )


class RegionEmbedding(nn.Module):
    """Mean of the layer-normed projections of a region's feature and of its box (paper section 2.1)."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.feature = nn.Linear(config.visual_feat_dim, config.hidden_size)
        self.feature_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.box = nn.Linear(config.visual_pos_dim, config.hidden_size)
        self.box_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, features: Tensor, boxes: Tensor, at: Packing) -> Tensor:
        """(I, N, F) and (I, N, 4) -> (T, D) packed."""
        dtype = self.feature.weight.dtype  # features stay in float16 until here, on the device
        feature = self.feature_norm(self.feature(at.pack(features).to(dtype)))
        box = self.box_norm(self.box(at.pack(boxes).to(dtype)))
        return self.dropout((feature + box) / 2)


class Attention(nn.Module):
    """Multi-head attention, output projection, residual, layer norm: self- or cross-attention."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.attention_dropout = config.attention_probs_dropout_prob
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)

    def forward(
        self, x: Tensor, at: Packing, context: Tensor, context_at: Packing, record: list[Tensor] | None = None
    ) -> Tensor:
        """Packed x (Tx, D) looks at packed context (Tc, D) -> (Tx, D).

        With `record` the probabilities (B, H, Lx, Lc) are computed openly and appended to it.
        """
        query = self._heads(self.query(x), at)  # (B, H, Lx, D/H)
        key = self._heads(self.key(context), context_at)  # (B, H, Lc, D/H)
        value = self._heads(self.value(context), context_at)
        mask = None if context_at.index is None else context_at.mask[:, None, None, :]  # (B, 1, 1, Lc)
        dropout = self.attention_dropout if self.training else 0.0
        if record is None:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        else:
            scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
            if mask is not None:
                scores = scores.masked_fill(~mask, -math.inf)
            probabilities = scores.softmax(-1)
            record.append(probabilities)
            mixed = F.dropout(probabilities, dropout) @ value
        mixed = at.pack(mixed.transpose(1, 2).flatten(2))  # (Tx, D)
        return self.norm(x + self.dropout(self.output(mixed)))

    def _heads(self, packed: Tensor, at: Packing) -> Tensor:
        return at.pad(packed).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two-layer perceptron, residual, layer norm."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = activation(config.hidden_act)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(T, D) -> (T, D)."""
        return self.norm(x + self.dropout(self.down(self.activation(self.up(x)))))


class SelfLayer(nn.Module):
    """A layer of a single-modality encoder: self-attention, feed-forward (paper section 2.2)."""

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, at: Packing, record: list[Tensor] | None = None) -> Tensor:
        """(T, D) packed -> (T, D)."""
        return self.feed_forward(self.attention(x, at, x, at, record))


class CrossLayer(nn.Module):
    """A layer of the cross-modality encoder: cross-attention, self-attention, feed-forward.

    One cross-attention module serves both directions, as in the original code (the paper draws two;
    sharing was about 0.5 points better, the authors say).
    """

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.cross_attention = Attention(config)
        self.language_attention = Attention(config)
        self.vision_attention = Attention(config)
        self.language_feed_forward = FeedForward(config)
        self.vision_feed_forward = FeedForward(config)

    def forward(
        self,
        language: Tensor,
        language_at: Packing,
        vision: Tensor,
        vision_at: Packing,
        reads: Collection[str] = READABLE,
        record: Record | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Packed (Tl, D) and (Tv, D) -> the same, as far as `reads` asks for.

        With "pooled" but not "language" in `reads`, the language side is (R, D): [CLS] alone. A side
        that is not read is None.
        """
        words = regions = None
        if "language" in reads or "pooled" in reads:
            crossed = self.cross_attention(
                language, language_at, vision, vision_at, record and record.language_to_vision
            )
            query, query_at = crossed, language_at
            if "language" not in reads:
                query = crossed.index_select(0, language_at.first())
                query_at = Packing(language_at.mask[:, :1], None)
            words = self.language_attention(
                query, query_at, crossed, language_at, record and record.cross_language
            )
            words = self.language_feed_forward(words)
        if "vision" in reads:
            crossed = self.cross_attention(
                vision, vision_at, language, language_at, record and record.vision_to_language
            )
            regions = self.vision_attention(crossed, vision_at, crossed, vision_at, record and record.cross_vision)
            regions = self.vision_feed_forward(regions)
        return words, regions


class Record:
    """Attention probabilities of one forward pass, a list per kind of attention."""

    def __init__(self) -> None:
        self.language: list[Tensor] = []
        self.vision: list[Tensor] = []
        self.language_to_vision: list[Tensor] = []
        self.vision_to_language: list[Tensor] = []
        self.cross_language: list[Tensor] = []
        self.cross_vision: list[Tensor] = []


class LxmertModel(Pretrained):
    """LXMERT without heads.

    Call it as the reference library's model, one sentence and one image a row, or `encode` a Batch
    whose rows share sentences and images.
    """

    reference_prefix = "model."

    def __init__(self, config: LxmertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.region_embedding = RegionEmbedding(config)
        self.language_layers = nn.ModuleList(SelfLayer(config) for _ in range(config.l_layers))
        self.vision_layers = nn.ModuleList(SelfLayer(config) for _ in range(config.r_layers))
        self.cross_layers = nn.ModuleList(CrossLayer(config) for _ in range(config.x_layers))
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        initialize(self, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor | None = None,
        visual_feats: Tensor | None = None,
        visual_pos: Tensor | None = None,
        attention_mask: Tensor | None = None,
        visual_attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> LxmertModelOutput | tuple:
        """The reference's call: row r is sentence r and image r.

        Args:
            input_ids: (R, L) token ids, [CLS] first.
            visual_feats: (R, N, F) region features.
            visual_pos: (R, N, 4) boxes, x1 y1 x2 y2 as fractions of the image's sides.
            attention_mask: (R, L), non-zero on real tokens; default all.
            visual_attention_mask: (R, N), non-zero on real regions; default all.
            token_type_ids: (R, L) segments; default 0.
            inputs_embeds: (R, L, D) instead of `input_ids`.
            output_attentions: return all attentions.
            output_hidden_states: return all hidden states.
            return_dict: False returns a tuple.

        Returns:
            The output; positions whose mask is 0 are not computed and are zero.

        Raises:
            ValueError: an input is missing, of the wrong shape, or masks a row's [CLS] or all its regions.
        """
        output = self.encode_call(
            READABLE, input_ids, visual_feats, visual_pos, attention_mask, visual_attention_mask, token_type_ids,
            inputs_embeds, output_attentions, output_hidden_states,
        )  # fmt: skip
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def encode_call(
        self,
        reads: Collection[str],
        input_ids: Tensor | None,
        visual_feats: Tensor | None,
        visual_pos: Tensor | None,
        attention_mask: Tensor | None,
        visual_attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
    ) -> LxmertModelOutput:
        """`encode` for a call in the reference's style, whose arguments `forward` explains."""
        config = self.config
        batch = batch_from_call(
            config, input_ids, visual_feats, visual_pos, attention_mask, visual_attention_mask, token_type_ids,
            inputs_embeds,
        )  # fmt: skip
        if output_attentions is None:
            output_attentions = config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        return self.encode(
            batch,
            reads,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            inputs_embeds=inputs_embeds,
        )

    def encode(
        self,
        batch: Batch,
        reads: Collection[str],
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        inputs_embeds: Tensor | None = None,
    ) -> LxmertModelOutput:
        """Encode each distinct sentence and image once, then every row.

        Args:
            batch: the batch.
            reads: which outputs are wanted, of "pooled", "language", "vision"; the last layer computes
                nothing else (with only "pooled", 11 % of a training step).
            output_attentions: fill the attention fields; nothing is left out of the last layer then.
            output_hidden_states: fill the hidden-state fields; the same.
            inputs_embeds: (S, L, D) instead of the word embeddings of `batch.token_ids`.

        Returns:
            The outputs read; the others are None.
        """
        if not reads or not READABLE.issuperset(reads):
            raise ValueError(f"reads={sorted(reads)}; expected some of {sorted(READABLE)}")
        if output_attentions or output_hidden_states:
            reads = READABLE  # whoever looks inside wants the last layer whole
        record = Record() if output_attentions else None
        token_at, region_at = batch.token_packing, batch.region_packing
        language = self.embeddings(batch.token_ids, token_at, batch.token_types, inputs_embeds)
        vision = self.region_embedding(batch.region_features, batch.region_boxes, region_at)
        language_states, vision_states = [], []
        if output_hidden_states:
            language_states.append(token_at.pad(language))
            vision_states.append(region_at.pad(vision))

        for layer in self.language_layers:
            language = layer(language, token_at, record and record.language)
            if output_hidden_states:
                language_states.append(token_at.pad(language))
        for layer in self.vision_layers:
            vision = layer(vision, region_at, record and record.vision)
            if output_hidden_states:
                vision_states.append(region_at.pad(vision))

        row_token_at, row_region_at = batch.row_token_packing, batch.row_region_packing
        language = row_token_at.pack(token_at.pad(language).index_select(0, batch.row_sentence))
        vision = row_region_at.pack(region_at.pad(vision).index_select(0, batch.row_image))
        for number, layer in enumerate(self.cross_layers, 1):
            is_last = number == len(self.cross_layers)
            language, vision = layer(
                language, row_token_at, vision, row_region_at, reads if is_last else READABLE, record
            )
            if output_hidden_states:
                language_states.append(row_token_at.pad(language))
                vision_states.append(row_region_at.pad(vision))

        output = LxmertModelOutput()
        if "pooled" in reads:
            first = language.index_select(0, row_token_at.first()) if "language" in reads else language
            output.pooled_output = torch.tanh(self.pooler(first))
        if "language" in reads:
            output.language_output = row_token_at.pad(language)
        if "vision" in reads:
            output.vision_output = row_region_at.pad(vision)
        if output_hidden_states:
            output.language_embeddings, *language_states = language_states
            output.vision_embeddings, *vision_states = vision_states
            output.language_hidden_states = tuple(language_states)
            output.vision_hidden_states = tuple(vision_states)
        if record is not None:
            output.language_attentions = tuple(record.language)
            output.vision_attentions = tuple(record.vision)
            output.cross_encoder_attentions = tuple(record.language_to_vision)
            output.vision_to_language_attentions = tuple(record.vision_to_language)
            output.cross_language_attentions = tuple(record.cross_language)
            output.cross_vision_attentions = tuple(record.cross_vision)
        return output

    def unread_parameters(self, reads: Collection[str]) -> Iterator[nn.Parameter]:
        """Parameters that get no gradient when only `reads` is used.

        DDP would wait for them; freezing them spares it the search for unused parameters.
        """
        last = cast(CrossLayer, self.cross_layers[-1])
        if "vision" not in reads:
            yield from last.vision_attention.parameters()
            yield from last.vision_feed_forward.parameters()
        if not {"language", "pooled"} & set(reads):
            yield from last.language_attention.parameters()
            yield from last.language_feed_forward.parameters()
        if "pooled" not in reads:
            yield from self.pooler.parameters()


def batch_from_call(
    config: LxmertConfig,
    input_ids: Tensor | None,
    visual_feats: Tensor | None,
    visual_pos: Tensor | None,
    attention_mask: Tensor | None,
    visual_attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    inputs_embeds: Tensor | None,
) -> Batch:
    """The Batch of a call in the reference's style, checked; arguments as in `LxmertModel.forward`."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("pass either input_ids or inputs_embeds")
    if visual_feats is None or visual_pos is None:
        raise ValueError("LXMERT needs region features and boxes: pass visual_feats and visual_pos")
    shape = cast(Tensor, input_ids).shape if inputs_embeds is None else inputs_embeds.shape[:-1]
    if len(shape) != 2:
        raise ValueError(f"token shape {tuple(shape)}; expected (rows, tokens)")
    rows, length = shape
    if length > config.max_position_embeddings:
        raise ValueError(f"{length} tokens; the model has {config.max_position_embeddings} positions: truncate")
    regions = visual_feats.shape[1:2]
    for name, tensor, expected in (
        ("visual_feats", visual_feats, (rows, *regions, config.visual_feat_dim)),
        ("visual_pos", visual_pos, (rows, *regions, config.visual_pos_dim)),
        ("attention_mask", attention_mask, (rows, length)),
        ("visual_attention_mask", visual_attention_mask, (rows, *regions)),
        ("token_type_ids", token_type_ids, (rows, length)),
        ("inputs_embeds", inputs_embeds, (rows, length, config.hidden_size)),
    ):
        if tensor is not None and tuple(tensor.shape) != expected:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected {expected}")
    if not length or not regions[0]:
        raise ValueError(f"{length} tokens and {regions[0]} regions a row; a row needs at least one of each")
    device = visual_feats.device
    token_mask = (
        torch.ones(shape, dtype=torch.bool, device=device) if attention_mask is None else attention_mask != 0
    )
    region_mask = (
        torch.ones(visual_feats.shape[:2], dtype=torch.bool, device=device)
        if visual_attention_mask is None
        else visual_attention_mask != 0
    )
    if attention_mask is not None and not token_mask[:, 0].all():
        raise ValueError("attention_mask hides the first token ([CLS]) of a row; pad sentences on the right")
    if visual_attention_mask is not None and not region_mask.any(1).all():
        raise ValueError("visual_attention_mask hides all regions of a row; each row needs at least one")
    identity = torch.arange(rows, device=device)
    tokens, regions_at = Packing.of(token_mask), Packing.of(region_mask)
    return Batch(
        token_ids=torch.zeros(shape, dtype=torch.long, device=device) if input_ids is None else input_ids,
        token_mask=token_mask,
        token_types=token_type_ids,
        region_features=visual_feats,
        region_boxes=visual_pos,
        region_mask=region_mask,
        row_sentence=identity,
        row_image=identity,
        token_packing=tokens,
        row_token_packing=tokens,
        region_packing=regions_at,
        row_region_packing=regions_at,
    )


def initialize(module: nn.Module, std: float) -> None:
    """BERT's initialisation: normal weights, zero biases, unit layer norms, zero padding embeddings."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            nn.init.zeros_(part.weight[part.padding_idx].detach())
