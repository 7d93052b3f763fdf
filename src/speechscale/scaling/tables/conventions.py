"""Ways to count FLOPs, and the columns that hold them.

Enters: a convention's name and the columns of a table. Leaves: the column to read and the convention in words.
The one decision worth knowing: a convention fixes C, and N follows as C / (6 D): the size that this convention counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speechscale.errors import DataError
from speechscale.settings import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """flops: columns with C under it. params: columns with N under it, where C = 6 N D. words: what it counts."""

    words: str
    flops: tuple[str, ...]
    params: tuple[str, ...] = ()


CONVENTIONS: dict[str, Convention] = {
    "6nd_total": Convention(
        words="6 N D, N with embeddings", flops=("flops_6nd_total", "flops_6ND"), params=("params_total",)
    ),
    "6nd_non_embedding": Convention(
        words="6 N D, N without embeddings",
        flops=("flops_6nd_non_embedding", "flops_6N_nonemb_D"),
        params=("params_non_embedding",),
    ),
    "6nd_head": Convention(words="6 (N without embeddings + output head) D", flops=("flops_6nd_head",)),
    "6nd_attention": Convention(
        words="6 N D with embeddings, and attention", flops=("flops_6nd_attention", "flops_6ND_plus_attention")
    ),
    "exact": Convention(words="every matrix product of the model, counted", flops=("flops_exact",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The column behind a convention. is_flops: it holds C, else N."""

    name: str
    words: str
    column: str
    is_flops: bool


def find_convention(name: str, columns: Sequence[str], table: str) -> Counted:
    """Choose the column for a convention, or for a FLOP column named outright.

    Raises:
        DataError: an unknown convention, or the table has no column for it (then the ones it has).
    """
    if name in columns:
        known = next((key for key, c in CONVENTIONS.items() if name in c.flops), None)
        words = CONVENTIONS[known].words if known else f"as column '{name}' counts them"
        return Counted(name=known or name, words=words, column=name, is_flops=True)
    if name not in CONVENTIONS:
        raise DataError(
            f"{table}: --flops {name} is neither a convention nor a column{nearest(name, list(CONVENTIONS))}"
        )
    convention = CONVENTIONS[name]
    for wanted, is_flops in ((convention.flops, True), (convention.params, False)):
        for column in wanted:
            if column in columns:
                return Counted(name=name, words=convention.words, column=column, is_flops=is_flops)
    have = [key for key, c in CONVENTIONS.items() if any(column in columns for column in (*c.flops, *c.params))]
    wanted_text = " or ".join((*convention.flops, *convention.params))
    raise DataError(f"{table}: --flops {name} needs a column {wanted_text}; the table has {', '.join(have) or 'none'}")
