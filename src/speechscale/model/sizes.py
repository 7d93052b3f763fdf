"""Shapes of models, and how many parameters they have.

Enters: the name of a size. Leaves: `Size` (layers, width, heads ...) and `ParamCount`.
The one decision worth knowing: parameters are counted by formula, without torch, so that a study can be planned in an
instant; tests hold the formula equal to the transformers modules, parameter by parameter.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import Literal

from speechscale.errors import DataError

SIZE_NAME = re.compile(r"(\d+(?:\.\d+)?)([MB])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The shape of a Llama- or Qwen2-style decoder.

    Args:
        dim: width of the residual stream. ffn: width inside the gated feed-forward network.
        kv_heads: heads of keys and values (grouped-query attention when below `heads`).
        family: "qwen2" is "llama" plus biases on queries, keys and values.
        tied: the output head shares the rows of the embedding.
        text_vocab: rows of the released TextLM's embedding, padding included; 0 if there is no such model.
    """

    name: str
    layers: int
    dim: int
    heads: int
    kv_heads: int
    ffn: int
    family: Literal["llama", "qwen2"] = "llama"
    tied: bool = True
    rope_theta: float = 10_000.0
    text_vocab: int = 0

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.heads % self.kv_heads or self.head_dim % 2:
            raise DataError(
                f"size '{self.name}': {self.heads} heads of {self.kv_heads} key-value heads do not fit dim {self.dim}; "
                "dim must be a multiple of 2 x heads, heads a multiple of kv_heads"
            )

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def kv_dim(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def matmul_params(self) -> int:
        """Weights that multiply every token in the body: attention projections and feed-forward, all layers."""
        attention = 2 * self.dim * self.dim + 2 * self.dim * self.kv_dim
        return self.layers * (attention + 3 * self.dim * self.ffn)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamCount:
    """Parameters N under each counting rule; `total` = `non_embedding` + `embedding`, and `embedding` holds an untied
    head, too."""

    total: int
    non_embedding: int
    embedding: int


def params(size: Size, vocab: int) -> ParamCount:
    """Count the parameters of a size with `vocab` rows.

    Example: SIZES["20M"], 502 -> total 20_710_912
    """
    norms = (2 * size.layers + 1) * size.dim
    biases = size.layers * (size.dim + 2 * size.kv_dim) if size.family == "qwen2" else 0
    non_embedding = size.matmul_params + norms + biases
    embedding = vocab * size.dim * (1 if size.tied else 2)
    return ParamCount(total=non_embedding + embedding, non_embedding=non_embedding, embedding=embedding)


def _llama(name: str, layers: int, dim: int, heads: int, ffn: int) -> Size:
    return Size(name=name, layers=layers, dim=dim, heads=heads, kv_heads=heads, ffn=ffn)


def _qwen(name: str, layers: int, dim: int, heads: int, kv_heads: int, ffn: int, tied: bool, text_vocab: int) -> Size:
    return Size(
        name=name,
        layers=layers,
        dim=dim,
        heads=heads,
        kv_heads=kv_heads,
        ffn=ffn,
        family="qwen2",
        tied=tied,
        rope_theta=1e6,
        text_vocab=text_vocab,
    )


_MINIATURE = (
    _llama("0.02M", layers=2, dim=32, heads=2, ffn=64),
    _llama("0.05M", layers=2, dim=48, heads=3, ffn=112),
    _llama("0.1M", layers=2, dim=64, heads=4, ffn=176),
    _llama("0.2M", layers=4, dim=64, heads=4, ffn=176),
    _llama("0.5M", layers=4, dim=96, heads=3, ffn=304),
    _llama("1M", layers=5, dim=128, heads=4, ffn=352),
    _llama("3M", layers=7, dim=192, heads=6, ffn=496),
)
_CUERVO = (
    _llama("20M", layers=6, dim=512, heads=8, ffn=1536),
    _llama("85M", layers=12, dim=768, heads=12, ffn=2048),
    _llama("155M", layers=12, dim=1024, heads=16, ffn=2816),
    _llama("309M", layers=24, dim=1024, heads=16, ffn=2816),
    _llama("823M", layers=16, dim=2048, heads=32, ffn=5632),
)
_QWEN = (
    _qwen("qwen2.5-0.5B", 24, 896, 14, 2, 4864, tied=True, text_vocab=151_936),
    _qwen("qwen2.5-1.5B", 28, 1536, 12, 2, 8960, tied=True, text_vocab=151_936),
    _qwen("qwen2.5-3B", 36, 2048, 16, 2, 11_008, tied=True, text_vocab=151_936),
    _qwen("qwen2.5-7B", 28, 3584, 28, 4, 18_944, tied=False, text_vocab=152_064),
)
SIZES: dict[str, Size] = {size.name: size for size in (*_MINIATURE, *_CUERVO, *_QWEN)}
"""Miniatures are named by their parameters without embeddings; the shapes of Cuervo & Marxer (2024, Table 2) and of
Qwen2.5 by their published names, which count embeddings."""


def get_size(name: str) -> Size:
    """Look up a size; a name like "0.3M" or "7M" that is not in SIZES gets a shape by `size_by_rule`.

    Raises:
        DataError: neither a known name nor a number of parameters from 0.02M to 100B.
    """
    if name in SIZES:
        return SIZES[name]
    match = SIZE_NAME.fullmatch(name)
    wanted = float(match[1]) * {"M": 1e6, "B": 1e9}[match[2]] if match else 0.0
    if 2e4 <= wanted <= 1e11:
        return size_by_rule(name, round(wanted))
    near = difflib.get_close_matches(name, SIZES, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise DataError(
        f"size '{name}' is unknown; {hint}allowed: {', '.join(SIZES)}, or any number of parameters without embeddings "
        "from 0.02M to 100B, such as 0.3M"
    )


def size_by_rule(name: str, params_non_embedding: int) -> Size:
    """Choose a Llama shape with about this many parameters without embeddings (within 4 %).

    The rule: depth near dim / 32 + 1 up to 12 layers, then dim / 64; heads of 16 below dim 96, of 32 below 512, of 64
    below 4096, of 128 above; ffn near 8/3 dim. Of all shapes that meet the count, the one least off the rule.
    """

    def head_dim(dim: int) -> int:
        return next(head for head, limit in ((16, 96), (32, 512), (64, 4096), (128, 1 << 62)) if dim < limit)

    def natural_layers(dim: int) -> float:
        return max(2, min(dim / 32 + 1, 12), dim / 64)

    def ffn(dim: int, layers: int) -> int:
        return round((params_non_embedding / layers - 4 * dim * dim) / (3 * dim * 8)) * 8

    shapes = [
        (dim, layers)
        for dim in range(16, 16_384, 16)
        if dim % head_dim(dim) == 0
        for layers in range(max(2, int(natural_layers(dim) * 0.7)), int(natural_layers(dim) * 1.4) + 2)
        if 1.5 <= ffn(dim, layers) / dim <= 4
    ]

    def distance(shape: tuple[int, int]) -> float:
        dim, layers = shape
        return abs(math.log(ffn(dim, layers) / (dim * 8 / 3))) + abs(math.log(layers / natural_layers(dim)))

    dim, layers = min(shapes, key=distance)
    return _llama(name, layers=layers, dim=dim, heads=dim // head_dim(dim), ffn=ffn(dim, layers))
