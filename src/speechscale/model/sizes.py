"""Sizes by name, and a rule that gives any other number of parameters a shape, in any family.

Enters: a name such as "20M", "pythia-160m", "0.3M" or "opt:0.2M". Leaves: a `Size`.
The one decision worth knowing: "opt:0.2M" has depth, width and heads of "0.2M", and only its feed-forward network makes
up for what the family adds or lacks, so that families are compared at one shape and one count.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from typing import cast

from speechscale.errors import DataError
from speechscale.model.families import TRAITS, Family
from speechscale.model.ladders import SIZES
from speechscale.model.shape import ParamCount, Size, params

__all__ = ["SIZES", "ParamCount", "Size", "get_size", "params", "size_by_rule"]

SIZE_NAME = re.compile(r"(?:([a-z0-9_]+):)?(\d+(?:\.\d+)?)([MB])")
POSITIONS = 2048
"""Learned positions of an OPT made by rule, as in the released ones."""
WINDOW = {"gemma2": 4096, "gemma3": 512}
"""Windows of those made by rule, as in the released ones."""


def get_size(name: str) -> Size:
    """Look up a size; a number of parameters that is not in SIZES gets a shape by `size_by_rule`.

    Args:
        name: of SIZES, or a number such as "0.3M" or "7M", after a family and a colon if it is not "llama".

    Raises:
        DataError: neither a known name nor a number of parameters from 0.02M to 100B, nor a known family.
    """
    if name in SIZES:
        return SIZES[name]
    match = SIZE_NAME.fullmatch(name)
    wanted = float(match[2]) * {"M": 1e6, "B": 1e9}[match[3]] if match else 0.0
    if match and 2e4 <= wanted <= 1e11:
        if match[1] is None:
            return size_by_rule(name, round(wanted))
        if match[1] in TRAITS:
            llama = get_size(name.partition(":")[2])
            if match[1] == "llama":
                return dataclasses.replace(llama, name=name)
            count = params(llama, 0).non_embedding if llama.name in SIZES else round(wanted)
            return in_family(llama, match[1], count, name)
    near = difflib.get_close_matches(name, SIZES, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise DataError(
        f"size '{name}' is unknown; {hint}allowed: {', '.join(SIZES)}, or any number of parameters without embeddings "
        f"from 0.02M to 100B, such as 0.3M, or that number in a family ({', '.join(TRAITS)}), such as opt:0.3M"
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
    heads = dim // head_dim(dim)
    return Size(name=name, layers=layers, dim=dim, heads=heads, kv_heads=heads, ffn=ffn(dim, layers))


def in_family(llama: Size, family: str, params_non_embedding: int, name: str) -> Size:
    """Give the depth, width and heads of a Llama to another family, and the feed-forward width that meets the count.

    Example: SIZES["0.2M"] in "opt", 201_280 -> ffn 256 instead of 176, because there are biases but no gate
    """
    traits = TRAITS[family]
    shape = dataclasses.replace(
        llama,
        name=name,
        family=cast(Family, family),
        tied=traits.tied,
        ffn=0,
        positions=POSITIONS if traits.learned_positions else 0,
        window=WINDOW.get(family),
    )
    per_unit = shape.layers * ((3 if traits.gated else 2) * shape.dim + (1 if traits.biases == "all" else 0))
    step = 8 if shape.dim >= 64 else 4  # at width 32 a step of 8 would be 8 % of the count
    units = (params_non_embedding - params(shape, 0).non_embedding) / per_unit
    return dataclasses.replace(shape, ffn=round(units / step) * step)
