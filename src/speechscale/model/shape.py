"""Shapes of models, and how many parameters they have.

Enters: the name of a size. Leaves: `Size` (layers, width, heads ...) and `ParamCount`.
The one decision worth knowing: parameters are counted by formula, without torch, so that a study can be planned in an
instant; tests hold the formula equal to the transformers modules, parameter by parameter.
"""

from __future__ import annotations

from dataclasses import dataclass

from speechscale.errors import DataError
from speechscale.model.families import TRAITS, Family

OPT_EXTRA_POSITIONS = 2
"""Rows at the start of OPT's table of positions that are never used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The shape of a decoder.

    Args:
        dim: width of the residual stream. ffn: width inside the feed-forward network.
        kv_heads: heads of keys and values (grouped-query attention when below `heads`).
        tied: the output head shares the rows of the embedding.
        rope_theta: base of the rotary positions; Gemma 3 and OPT have their own way.
        text_vocab: rows of the released TextLM's embedding, padding included; 0 if there is no such model.
        own_head_dim: width of a head where it is not dim / heads (Qwen3, Gemma).
        own_row_dim: width of embedding and head where they are projected to dim (OPT-350m).
        positions: rows of a learned table of positions, a hard limit of the context; 0 where there is none.
        window: tokens that the windowed layers of Gemma 2 and 3 see.
        post_norm: norms behind each half of a block, and none at the end (OPT-350m).
    """

    name: str
    layers: int
    dim: int
    heads: int
    kv_heads: int
    ffn: int
    family: Family = "llama"
    tied: bool = True
    rope_theta: float = 10_000.0
    text_vocab: int = 0
    own_head_dim: int | None = None
    own_row_dim: int | None = None
    positions: int = 0
    window: int | None = None
    post_norm: bool = False

    def __post_init__(self) -> None:
        own = self.own_head_dim is not None
        if (not own and self.dim % self.heads) or self.heads % self.kv_heads or self.head_dim % 2:
            raise DataError(
                f"size '{self.name}': {self.heads} heads of {self.kv_heads} key-value heads do not fit dim {self.dim}; "
                "dim must be a multiple of 2 x heads, heads a multiple of kv_heads"
            )
        if (self.positions > 0) != TRAITS[self.family].learned_positions:
            raise DataError(f"size '{self.name}': learned positions belong to the family opt, and to no other")

    @property
    def head_dim(self) -> int:
        return self.own_head_dim or self.dim // self.heads

    @property
    def q_dim(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def row_dim(self) -> int:
        """Width of the rows of embedding and head."""
        return self.own_row_dim or self.dim

    @property
    def windowed_layers(self) -> int:
        """Layers that see `window` tokens only."""
        return self.layers - self.layers // TRAITS[self.family].full_every if self.window else 0

    @property
    def matmul_params(self) -> int:
        """Weights that multiply every token in the body: attention, feed-forward and projections of the rows."""
        attention = 2 * self.dim * (self.q_dim + self.kv_dim)
        feed_forward = (3 if TRAITS[self.family].gated else 2) * self.dim * self.ffn
        projections = 2 * self.dim * self.own_row_dim if self.own_row_dim else 0
        return self.layers * (attention + feed_forward) + projections

    @property
    def vector_params(self) -> int:
        """Norms and biases of the body."""
        traits = TRAITS[self.family]
        norm = self.dim * (2 if traits.norm_bias else 1)
        block = traits.norms * norm + (2 * self.head_dim if traits.qk_norm else 0)
        if traits.biases != "none":
            block += self.q_dim + 2 * self.kv_dim
        if traits.biases == "all":
            block += 2 * self.dim + self.ffn
        return self.layers * block + (0 if self.post_norm else norm)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamCount:
    """Parameters N under each counting rule; `total` = `non_embedding` + `embedding`, and `embedding` holds an untied
    head and learned positions, too."""

    total: int
    non_embedding: int
    embedding: int


def params(size: Size, vocab: int) -> ParamCount:
    """Count the parameters of a size with `vocab` rows.

    Example: SIZES["20M"], 502 -> total 20_710_912
    """
    non_embedding = size.matmul_params + size.vector_params
    embedding = vocab * size.row_dim * (1 if size.tied else 2)
    if TRAITS[size.family].head_bias:
        embedding += vocab
    if size.positions:
        embedding += (size.positions + OPT_EXTRA_POSITIONS) * size.dim
    return ParamCount(total=non_embedding + embedding, non_embedding=non_embedding, embedding=embedding)
