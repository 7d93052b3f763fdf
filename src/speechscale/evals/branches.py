"""Attention of rows in which several endings follow one opening, without a mask over the whole row.

Enters: rows of one batch, joined without padding. Leaves: an attention that transformers calls by name.
The one decision worth knowing: an opening is plain causal attention, an ending looks at the opening and at itself; a
mask over the row would compute all the squares between endings, which on a CPU costs 8 to 10 % of a whole pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from speechscale.evals.rows import Row

NAME = "speechscale-branches"


class Branches(NamedTuple):
    """Where a row lies in the joined batch: its first token, the length of its opening, those of its endings."""

    start: int
    shared: int
    endings: tuple[int, ...]


def branches_of(rows: Sequence[Row]) -> list[Branches]:
    """Places of rows that are joined in this order."""
    starts = np.cumsum([0, *(len(row.tokens) for row in rows)])
    return [
        Branches(int(start), row.shared, tuple(len(piece.ids) - row.shared for piece in row.pieces))
        for start, row in zip(starts, rows, strict=False)
    ]


def _attend(
    module: Any,
    query: Float[torch.Tensor, "1 heads S d"],
    key: Float[torch.Tensor, "1 kv_heads S d"],
    value: Float[torch.Tensor, "1 kv_heads S d"],
    attention_mask: Any,
    *,
    branches: Sequence[Branches],
    scaling: float | None = None,
    **_: Any,
) -> tuple[Float[torch.Tensor, "1 S heads d"], None]:
    """The attention transformers calls."""
    grouped = query.shape[1] != key.shape[1]
    output = torch.empty_like(query)
    for row in branches:
        opening = slice(row.start, row.start + row.shared)
        keys, values = key[:, :, opening], value[:, :, opening]
        output[:, :, opening] = scaled_dot_product_attention(
            query[:, :, opening], keys, values, is_causal=True, scale=scaling, enable_gqa=grouped
        )
        at = row.start + row.shared
        for length in row.endings:
            own, at = slice(at, at + length), at + length
            if length:
                output[:, :, own] = scaled_dot_product_attention(
                    query[:, :, own],
                    torch.cat([keys, key[:, :, own]], dim=2),
                    torch.cat([values, value[:, :, own]], dim=2),
                    attn_mask=torch.ones(length, row.shared + length, dtype=torch.bool).tril_(row.shared),
                    scale=scaling,
                    enable_gqa=grouped,
                )
    return output.transpose(1, 2), None


def _no_mask(*_: Any, **__: Any) -> None:
    """The branches say where a token may look."""


AttentionInterface.register(NAME, torch.compiler.disable(_attend))
AttentionMaskInterface.register(NAME, _no_mask)


@contextmanager
def attention_of_branches(body: Any) -> Iterator[None]:
    """Let a model attend along branches for as long as the context lasts."""
    chosen = body.config._attn_implementation
    body.config._attn_implementation = NAME
    try:
        yield
    finally:
        body.config._attn_implementation = chosen
