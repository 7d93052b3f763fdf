"""Auto-BLEU of a corpus: how much each text or unit sequence repeats itself.

Enters: transcripts, or unit sequences. Leaves: the mean over samples with its interval, and how many were too short.
The one decision worth knowing: a text without an n-gram has no Auto-BLEU: it is counted and left out of the mean, as
a model that says nothing would else look diverse; the mean with 0 for it, which others report, stands beside it.

Source: Lakhotia et al. 2021 (GSLM, arXiv 2102.01192), whose code (self_auto_bleu.py) takes means over n = 1..N and
leaves out occurrences that overlap the n-gram itself; Slam and SIMS (slamkit's code): n = 2, overlapping ones too.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from speechscale.errors import DataError
from speechscale.evals.generation.estimates import REPLICATES, Estimate, mean_of
from speechscale.tokens.repetition import auto_bleu

Orders = Literal["single", "geometric", "arithmetic"]
ORDERS: tuple[Orders, ...] = ("single", "geometric", "arithmetic")


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoBleu:
    """Auto-BLEU of a corpus.

    Args:
        mean: over the sequences that have at least one n-gram. values: of each sequence; None where there is none.
        empty: sequences without anything in them. short: those with fewer than n entries, the empty ones too.
        with_short_as_zero: the mean over all, where short ones count 0 (slamkit); None without any sequence.
    """

    n: int
    orders: Orders
    mean: Estimate
    values: tuple[float | None, ...]
    empty: int
    short: int
    with_short_as_zero: float | None

    def record(self) -> dict[str, Any]:
        """As plain JSON, without the single values."""
        return {
            "order": self.n,
            "orders": self.orders,
            **self.mean.record(),
            "empty": self.empty,
            "short": self.short,
            "with_short_as_zero": self.with_short_as_zero,
        }


def sequence_auto_bleu(sequence: Sequence[Hashable], n: int = 2, orders: Orders = "single") -> float | None:
    """Auto-BLEU of one sequence; None where it has no n-gram.

    Args:
        orders: "single" takes n alone, as slamkit; "geometric" and "arithmetic" the mean over 1..n with equal weights,
            as GSLM's code, to which an n-gram that only overlaps itself is no repeat.

    Example: "a b a b c", 2 -> 0.5; geometric: sqrt(4/5 x 1/2) = 0.632
    """
    if len(sequence) < n:
        return None
    if orders == "single":
        return auto_bleu(sequence, n)
    values = [auto_bleu(sequence, order, overlapping=False) for order in range(1, n + 1)]
    return math.prod(values) ** (1 / n) if orders == "geometric" else math.fsum(values) / n


def corpus_auto_bleu(
    sequences: Sequence[Sequence[Hashable]],
    n: int = 2,
    orders: Orders = "single",
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> AutoBleu:
    """Auto-BLEU of many sequences; words of transcripts are `split_words(text)`, as written.

    Raises:
        DataError: n below 1, or an unknown mean.
    """
    if n < 1 or orders not in ORDERS:
        raise DataError(f"auto-BLEU: n = {n}, orders '{orders}'; give n of at least 1 and one of {', '.join(ORDERS)}")
    values = [sequence_auto_bleu(sequence, n, orders) for sequence in sequences]
    scored = [value for value in values if value is not None]
    return AutoBleu(
        n=n,
        orders=orders,
        mean=mean_of(scored, replicates=replicates, seed=seed),
        values=tuple(values),
        empty=sum(len(sequence) == 0 for sequence in sequences),
        short=len(values) - len(scored),
        with_short_as_zero=math.fsum(scored) / len(values) if values else None,
    )
