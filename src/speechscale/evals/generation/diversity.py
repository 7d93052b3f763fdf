"""How varied generated speech is, how long and how fast, beside real speech.

Enters: unit sequences; seconds and counts of generated and reference speech. Leaves: `Diversity`, `Comparison`s. The
one decision worth knowing: what depends on the size of a corpus (pooled distinct-n, entropy, distinct rows) is kept
apart from means over sequences, and says over how many units it was taken: only equal sizes compare.

Source: distinct-n: Li et al. 2016 (arXiv 1510.03055). Standardized difference: Cohen 1988, pooled standard deviation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from speechscale.evals.generation.estimates import REPLICATES, Estimate, estimate, mean_of

ORDERS = (1, 2, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """Variety of unit sequences.

    Args:
        distinct: n -> mean over sequences of (different n-grams / n-grams); sequences shorter than n are left out.
        pooled_distinct: n -> the same over all sequences at once; falls as the corpus grows.
        entropy_bits: of the pooled unigram distribution, without correction for its size.
        longest_repeat: mean length of the longest run of units that occurs twice in its sequence.
        distinct_sequences: share of different sequences among the non-empty ones.
        sequences, empty, units: how many.
    """

    distinct: dict[int, Estimate]
    pooled_distinct: dict[int, float | None]
    entropy_bits: float | None
    longest_repeat: Estimate
    longest_repeat_most: int
    distinct_sequences: float | None
    sequences: int
    empty: int
    units: int

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            **{f"distinct_{n}": value.record() for n, value in self.distinct.items()},
            **{f"pooled_distinct_{n}": value for n, value in self.pooled_distinct.items()},
            "entropy_bits": self.entropy_bits,
            "longest_repeat": self.longest_repeat.record(),
            "longest_repeat_most": self.longest_repeat_most,
            "distinct_sequences": self.distinct_sequences,
            "sequences": self.sequences,
            "empty": self.empty,
            "units": self.units,
        }


def diversity(
    sequences: Sequence[Sequence[int] | Int[np.ndarray, " units"]], *, replicates: int = REPLICATES, seed: int = 0
) -> Diversity:
    """Measure the variety of unit sequences; deduplicate them first where a unit's length should not count."""
    rows = [tuple(int(unit) for unit in sequence) for sequence in sequences]
    filled = [row for row in rows if row]
    grams = {n: [_ngrams(row, n) for row in filled] for n in ORDERS}
    pooled = {n: sum(counts, Counter()) for n, counts in grams.items()}
    repeats = [longest_repeat(row) for row in filled]
    return Diversity(
        distinct={
            n: mean_of([len(c) / c.total() for c in grams[n] if c], replicates=replicates, seed=seed) for n in ORDERS
        },
        pooled_distinct={n: len(c) / c.total() if c else None for n, c in pooled.items()},
        entropy_bits=_entropy_bits(pooled[1]),
        longest_repeat=mean_of(repeats, replicates=replicates, seed=seed),
        longest_repeat_most=max(repeats, default=0),
        distinct_sequences=len(set(filled)) / len(filled) if filled else None,
        sequences=len(rows),
        empty=len(rows) - len(filled),
        units=sum(map(len, filled)),
    )


def longest_repeat(sequence: Sequence[int] | Int[np.ndarray, " units"]) -> int:
    """Length of the longest run that occurs at least twice, the two may overlap. Example: [1, 2, 9, 1, 2] -> 2

    A run that repeats has shorter ones that repeat, so the length is found by halving.
    """
    row = tuple(int(unit) for unit in sequence)
    low, high = 0, max(len(row) - 1, 0)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_ngrams(row, middle)) < len(row) - middle + 1:
            low = middle
        else:
            high = middle - 1
    return low


def _ngrams(row: tuple[int, ...], n: int) -> Counter[tuple[int, ...]]:
    return Counter(row[start : start + n] for start in range(len(row) - n + 1))


def _entropy_bits(counts: Counter[tuple[int, ...]]) -> float | None:
    total = counts.total()
    return -math.fsum(c / total * math.log2(c / total) for c in counts.values()) + 0.0 if total else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One quantity of generated against reference speech; sd: between samples, None below two.

    Args:
        difference: (mean generated - mean reference) / pooled standard deviation, with an interval by drawing both
            anew; None where a side has fewer than two samples or nothing varies.
    """

    generated: Estimate
    generated_sd: float | None
    reference: Estimate
    reference_sd: float | None
    difference: Estimate

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "generated": self.generated.record(),
            "generated_sd": self.generated_sd,
            "reference": self.reference.record(),
            "reference_sd": self.reference_sd,
            "standardized_difference": self.difference.record(),
        }


def compare(
    generated: Sequence[float], reference: Sequence[float], *, replicates: int = REPLICATES, seed: int = 0
) -> Comparison:
    """Compare a quantity (seconds, words per second, units per second) of two sets of speech.

    Example: [2, 4], [1, 3] -> means 3 and 2, sd 1.41 both, difference 0.71
    """
    sides = [np.asarray(values, np.float64) for values in (generated, reference)]
    means = [mean_of(side.tolist(), replicates=replicates, seed=seed) for side in sides]
    return Comparison(
        generated=means[0],
        generated_sd=_sd(sides[0]),
        reference=means[1],
        reference_sd=_sd(sides[1]),
        difference=estimate(*sides, statistic=_standardized, replicates=replicates, seed=seed),
    )


def _sd(values: Float[np.ndarray, " samples"]) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _standardized(a: Float[np.ndarray, " a"], b: Float[np.ndarray, " b"]) -> float:
    if len(a) < 2 or len(b) < 2:
        return math.nan
    squares = (len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)
    sd = math.sqrt(squares / (len(a) + len(b) - 2))
    return float((a.mean() - b.mean()) / sd) if sd > 0 else math.nan
