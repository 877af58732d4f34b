"""The LXMERT model in Keras: three encoders, read from top to bottom; lxmert/model.py is its twin in PyTorch.

Layers bear the reference's names, so that a variable's path tells its name in the reference's files
(`torch_name` of lxmert/weights/tf_h5.py). Each makes its variables in `build`: the config knows all sizes.

Shapes: R rows, L tokens, N regions, D hidden size, H heads. Padding is masked and not left out: shapes that
do not depend on the values of a batch are what XLA compiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from lxmert.config import LxmertConfig

Tensor = Any  # of whichever backend Keras runs on

# BERT's value; Keras' default of 1e-3 would not reproduce the released weights' outputs.
LAYER_NORM_EPS = 1e-12
# Far below any score, and finite: a row that sees nothing gets no NaN.
UNSEEN = -1e9


def normal(config: LxmertConfig) -> keras.Initializer:
    """How weights begin."""
    return keras.initializers.RandomNormal(stddev=config.initializer_range)


def dense(config: LxmertConfig, size: int, name: str) -> keras.layers.Dense:
    """A projection to `size` numbers."""
    return keras.layers.Dense(size, kernel_initializer=normal(config), name=name)


def layer_norm(name: str) -> keras.layers.LayerNormalization:
    """A layer norm with the epsilon of the released weights."""
    return keras.layers.LayerNormalization(epsilon=LAYER_NORM_EPS, name=name)


def activation(name: str, x: Tensor) -> Tensor:
    """The activation called `name` in the config."""
    return ACTIVATION_FUNCTIONS[name](x)


def _gelu(x: Tensor) -> Tensor:
    return ops.gelu(x, approximate=False)


def _tanh_gelu(x: Tensor) -> Tensor:
    return ops.gelu(x, approximate=True)


ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": _gelu, "gelu_fast": _tanh_gelu, "gelu_new": _tanh_gelu, "gelu_python": _gelu,
    "gelu_pytorch_tanh": _tanh_gelu, "leaky_relu": lambda x: ops.leaky_relu(x, negative_slope=0.01),
    "linear": lambda x: x, "mish": lambda x: x * ops.tanh(ops.softplus(x)),
    "quick_gelu": lambda x: x * ops.sigmoid(1.702 * x), "relu": ops.relu, "relu6": ops.relu6,
    "sigmoid": ops.sigmoid, "silu": ops.silu, "swish": ops.silu, "tanh": ops.tanh,
}  # fmt: skip


def zero_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    """(R, L, ...) with zeros where the (R, L) mask is False."""
    if mask is None:
        return x
    return ops.where(ops.reshape(mask, (*ops.shape(mask), *[1] * (len(x.shape) - 2))), x, ops.zeros_like(x))


class Embedding(keras.layers.Layer):
    """A table of vectors, of which entry 0 never gets a gradient by being looked up, as in the original."""

    def __init__(self, config: LxmertConfig, rows: int, variable: str, name: str) -> None:
        super().__init__(name=name)
        self.rows, self.width, self.variable, self.initializer = rows, config.hidden_size, variable, normal(config)

    def build(self) -> None:
        """Make the table."""
        self.table = self.add_weight((self.rows, self.width), initializer=self._beginning, name=self.variable)

    def _beginning(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        return ops.concatenate(
            [ops.zeros((1, shape[1]), dtype), self.initializer((shape[0] - 1, shape[1]), dtype)]
        )

    def call(self, ids: Tensor) -> Tensor:
        """(...) ids -> (..., D)."""
        found = ops.take(self.table, ids, axis=0)
        return ops.where(ops.equal(ids, 0)[..., None], ops.stop_gradient(found), found)


class Embeddings(keras.layers.Layer):
    """Word + position + segment embeddings, layer norm, dropout (paper section 2.1)."""

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        self.width = config.hidden_size
        self.word_embeddings = Embedding(config, config.vocab_size, "weight", "word_embeddings")
        self.position_embeddings = Embedding(
            config, config.max_position_embeddings, "embeddings", "position_embeddings"
        )
        self.token_type_embeddings = Embedding(
            config, config.type_vocab_size, "embeddings", "token_type_embeddings"
        )
        self.norm = layer_norm("LayerNorm")
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob, name="dropout")

    def build(self) -> None:
        """Make the tables and the norm."""
        for table in (self.word_embeddings, self.position_embeddings, self.token_type_embeddings):
            table.build()
        self.norm.build((None, self.width))

    def call(self, ids: Tensor | None, types: Tensor | None, words: Tensor | None, training: bool) -> Tensor:
        """(R, L) ids, or the (R, L, D) words in their place -> (R, L, D)."""
        if words is None:
            words = self.word_embeddings(ids)
        positions = ops.arange(ops.shape(words)[1], dtype="int32")
        segments = ops.zeros_like(positions) if types is None else types
        x = words + self.position_embeddings(positions) + self.token_type_embeddings(segments)
        return self.dropout(self.norm(x), training=training)


class RegionEmbedding(keras.layers.Layer):
    """Mean of the layer-normed projections of a region's feature and of its box (paper section 2.1)."""

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        self.width, self.feature_size, self.box_size = (
            config.hidden_size,
            config.visual_feat_dim,
            config.visual_pos_dim,
        )
        self.visn_fc = dense(config, self.width, "visn_fc")
        self.visn_layer_norm = layer_norm("visn_layer_norm")
        self.box_fc = dense(config, self.width, "box_fc")
        self.box_layer_norm = layer_norm("box_layer_norm")
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob, name="dropout")

    def build(self) -> None:
        """Make projections and norms."""
        self.visn_fc.build((None, self.feature_size))
        self.visn_layer_norm.build((None, self.width))
        self.box_fc.build((None, self.box_size))
        self.box_layer_norm.build((None, self.width))

    def call(self, features: Tensor, boxes: Tensor, training: bool) -> Tensor:
        """(R, N, F) and (R, N, 4) -> (R, N, D)."""
        feature = self.visn_layer_norm(self.visn_fc(features))
        box = self.box_layer_norm(self.box_fc(boxes))
        return self.dropout((feature + box) / 2, training=training)


class Heads(keras.layers.Layer):
    """Multi-head attention up to the mixed values, before the output projection."""

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        self.num_heads, self.width = config.num_attention_heads, config.hidden_size
        self.query = dense(config, self.width, "query")
        self.key = dense(config, self.width, "key")
        self.value = dense(config, self.width, "value")
        self.dropout = keras.layers.Dropout(config.attention_probs_dropout_prob, name="dropout")

    def build(self) -> None:
        """Make the three projections."""
        for projection in (self.query, self.key, self.value):
            projection.build((None, self.width))

    def call(self, x: Tensor, context: Tensor, visible: Tensor | None, training: bool) -> tuple[Tensor, Tensor]:
        """(R, Lx, D) looks at (R, Lc, D), of which `visible` (R, Lc) says what it sees; None: all.

        Returns:
            (R, Lx, D), and the probabilities (R, H, Lx, Lc) before dropout.
        """
        query = self._split(self.query(x))  # (R, H, Lx, D/H)
        key = self._split(self.key(context))  # (R, H, Lc, D/H)
        value = self._split(self.value(context))
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / math.sqrt(self.width // self.num_heads)
        scores = ops.cast(scores, "float32")  # half precision has no number below all scores
        if visible is not None:
            scores = ops.where(visible[:, None, None, :], scores, UNSEEN)
        probabilities = ops.cast(ops.softmax(scores, axis=-1), value.dtype)
        mixed = ops.matmul(self.dropout(probabilities, training=training), value)
        mixed = ops.transpose(mixed, (0, 2, 1, 3))
        return ops.reshape(mixed, (-1, ops.shape(x)[1], self.width)), probabilities

    def _split(self, x: Tensor) -> Tensor:
        """(R, L, D) -> (R, H, L, D/H)."""
        x = ops.reshape(x, (-1, ops.shape(x)[1], self.num_heads, self.width // self.num_heads))
        return ops.transpose(x, (0, 2, 1, 3))


class Output(keras.layers.Layer):
    """How every block ends: projection, dropout, residual, layer norm."""

    def __init__(self, config: LxmertConfig, inputs: int, name: str) -> None:
        super().__init__(name=name)
        self.inputs, self.width = inputs, config.hidden_size
        self.dense = dense(config, self.width, "dense")
        self.norm = layer_norm("LayerNorm")
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob, name="dropout")

    def build(self) -> None:
        """Make projection and norm."""
        self.dense.build((None, self.inputs))
        self.norm.build((None, self.width))

    def call(self, hidden: Tensor, residual: Tensor, training: bool) -> Tensor:
        """(R, L, inputs) and (R, L, D) -> (R, L, D)."""
        return self.norm(residual + self.dropout(self.dense(hidden), training=training))


class Attention(keras.layers.Layer):
    """Heads, projection, residual, layer norm.

    Args:
        config: sizes.
        heads: what the reference calls the heads: "self" within a sentence or an image, "att" across.
        name: of the layer.
    """

    def __init__(self, config: LxmertConfig, heads: str, name: str) -> None:
        super().__init__(name=name)
        self.heads = Heads(config, heads)
        self.ending = Output(config, config.hidden_size, "output")  # a layer's `output` is Keras' own

    def build(self) -> None:
        """Make both parts."""
        self.heads.build()
        self.ending.build()

    def call(self, x: Tensor, context: Tensor, visible: Tensor | None, training: bool) -> tuple[Tensor, Tensor]:
        """As `Heads`."""
        mixed, probabilities = self.heads(x, context, visible, training=training)
        return self.ending(mixed, x, training=training), probabilities


class Intermediate(keras.layers.Layer):
    """The wide half of a feed-forward block."""

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        self.width, self.activation = config.hidden_size, config.hidden_act
        self.dense = dense(config, config.intermediate_size, "dense")

    def build(self) -> None:
        """Make the projection."""
        self.dense.build((None, self.width))

    def call(self, x: Tensor) -> Tensor:
        """(R, L, D) -> (R, L, intermediate_size)."""
        return activation(self.activation, self.dense(x))


class SelfLayer(keras.layers.Layer):
    """A layer of a single-modality encoder: self-attention, feed-forward (paper section 2.2)."""

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        self.attention = Attention(config, "self", "attention")
        self.intermediate = Intermediate(config, "intermediate")
        self.ending = Output(config, config.intermediate_size, "output")

    def build(self) -> None:
        """Make the three parts."""
        for part in (self.attention, self.intermediate, self.ending):
            part.build()

    def call(self, x: Tensor, visible: Tensor | None, training: bool) -> tuple[Tensor, Tensor]:
        """(R, L, D) -> the same, and the probabilities (R, H, L, L)."""
        x, probabilities = self.attention(x, x, visible, training=training)
        return self.ending(self.intermediate(x), x, training=training), probabilities


class CrossLayer(keras.layers.Layer):
    """A layer of the cross-modality encoder: cross-attention, self-attention, feed-forward.

    One cross-attention serves both directions, as in the original code.
    """

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        self.visual_attention = Attention(config, "att", "visual_attention")
        self.lang_self_att = Attention(config, "self", "lang_self_att")
        self.visn_self_att = Attention(config, "self", "visn_self_att")
        self.lang_inter = Intermediate(config, "lang_inter")
        self.lang_output = Output(config, config.intermediate_size, "lang_output")
        self.visn_inter = Intermediate(config, "visn_inter")
        self.visn_output = Output(config, config.intermediate_size, "visn_output")

    def build(self) -> None:
        """Make all parts."""
        for part in (
            self.visual_attention, self.lang_self_att, self.visn_self_att, self.lang_inter, self.lang_output,
            self.visn_inter, self.visn_output,
        ):  # fmt: skip
            part.build()

    def call(
        self,
        language: Tensor,
        vision: Tensor,
        words_visible: Tensor | None,
        regions_visible: Tensor | None,
        training: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(R, L, D) and (R, N, D) -> the same, and how words look at regions, (R, H, L, N)."""
        words, probabilities = self.visual_attention(language, vision, regions_visible, training=training)
        regions, _ = self.visual_attention(vision, language, words_visible, training=training)
        words, _ = self.lang_self_att(words, words, words_visible, training=training)
        regions, _ = self.visn_self_att(regions, regions, regions_visible, training=training)
        words = self.lang_output(self.lang_inter(words), words, training=training)
        regions = self.visn_output(self.visn_inter(regions), regions, training=training)
        return words, regions, probabilities


class Encoder(keras.layers.Layer):
    """The three encoders: region embedding, language, object-relationship, cross-modality layers."""

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        self.visn_fc = RegionEmbedding(config, "visn_fc")
        self.layer = [SelfLayer(config, f"layer_{i}") for i in range(config.l_layers)]
        self.r_layers = [SelfLayer(config, f"r_layers_{i}") for i in range(config.r_layers)]
        self.x_layers = [CrossLayer(config, f"x_layers_{i}") for i in range(config.x_layers)]

    def build(self) -> None:
        """Make all layers."""
        self.visn_fc.build()
        layers: list[Any] = [*self.layer, *self.r_layers, *self.x_layers]
        for layer in layers:
            layer.build()

    def call(
        self,
        language: Tensor,
        features: Tensor,
        boxes: Tensor,
        words_visible: Tensor | None,
        regions_visible: Tensor | None,
        training: bool,
    ) -> dict[str, tuple[Tensor, ...]]:
        """(R, L, D) embedded words, (R, N, F) and (R, N, 4) -> every layer's states and probabilities."""
        vision = self.visn_fc(features, boxes, training=training)
        states: dict[str, list[Tensor]] = {
            name: [] for name in ("language", "vision", "language_maps", "vision_maps", "cross_maps")
        }
        for layer in self.layer:
            language, probabilities = layer(language, words_visible, training=training)
            states["language"].append(language)
            states["language_maps"].append(probabilities)
        for layer in self.r_layers:
            vision, probabilities = layer(vision, regions_visible, training=training)
            states["vision"].append(vision)
            states["vision_maps"].append(probabilities)
        for layer in self.x_layers:
            language, vision, probabilities = layer(
                language, vision, words_visible, regions_visible, training=training
            )
            states["language"].append(language)
            states["vision"].append(vision)
            states["cross_maps"].append(probabilities)
        return {name: tuple(each) for name, each in states.items()}


class Pooler(keras.layers.Layer):
    """(R, L, D) last hidden states -> (R, D) pooled output, of [CLS]."""

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        self.width = config.hidden_size
        self.dense = dense(config, self.width, "dense")

    def build(self) -> None:
        """Make the projection."""
        self.dense.build((None, self.width))

    def call(self, language: Tensor) -> Tensor:
        """Dense, tanh."""
        return ops.tanh(self.dense(language[:, 0]))


class Lxmert(keras.layers.Layer):
    """LXMERT without heads: row r is sentence r and image r."""

    def __init__(self, config: LxmertConfig, name: str) -> None:
        super().__init__(name=name)
        self.embeddings = Embeddings(config, "embeddings")
        self.encoder = Encoder(config, "encoder")
        self.pooler = Pooler(config, "pooler")

    def build(self) -> None:
        """Make all parts."""
        for part in (self.embeddings, self.encoder, self.pooler):
            part.build()

    def call(
        self,
        input_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        token_type_ids: Tensor | None,
        visual_feats: Tensor,
        visual_pos: Tensor,
        words_visible: Tensor | None,
        regions_visible: Tensor | None,
        training: bool,
    ) -> dict[str, Any]:
        """Encode; arguments as TFLxmertModel explains them, masks (R, L) and (R, N) bool.

        Returns:
            "pooled" (R, D), and as tuples over layers "language" and "vision" (zero on padding), "language_maps",
            "vision_maps", "cross_maps".
        """
        language = self.embeddings(input_ids, token_type_ids, inputs_embeds, training=training)
        # Whatever stands on padding, NaN too, is multiplied by a probability of 0 and must be a number.
        features, boxes = (zero_padding(each, regions_visible) for each in (visual_feats, visual_pos))
        states = self.encoder(language, features, boxes, words_visible, regions_visible, training=training)
        pooled = self.pooler(states["language"][-1])
        states["language"] = tuple(zero_padding(each, words_visible) for each in states["language"])
        states["vision"] = tuple(zero_padding(each, regions_visible) for each in states["vision"])
        return {"pooled": pooled, **states}
