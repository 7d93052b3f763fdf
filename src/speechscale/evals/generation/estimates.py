"""A number over samples with its uncertainty: standard error and bootstrap interval.

Enters: one value per sample, or one row of counts per sample. Leaves: `Estimate`s. The one decision worth knowing:
samples are drawn anew as wholes (a numerator never leaves its denominator), and a number that does not exist is None,
never NaN, so that one empty sample cannot spoil a corpus.

Apart from `evals.intervals`, whose means over clustered items have closed forms: here are ratios, exponents of means
and standardized differences of independent samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from speechscale.evals.intervals import LEVEL

REPLICATES = 1000
"""Fewer than of accuracies: each is a call of Python."""

Statistic = Callable[..., float]
"""From the rows of each group to a number; NaN where it does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A statistic of n samples.

    Args:
        estimate: None where no sample counts. se: standard error, the spread over bootstrap replicates (of a plain mean
            sd / sqrt(n)); None below two samples. low, high: percentile interval; None below two samples.
    """

    estimate: float | None
    se: float | None
    low: float | None
    high: float | None
    n: int

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        if self.estimate is None:
            return f"none (n = {self.n})"
        if self.se is None:
            return f"{self.estimate:.4g} (n = {self.n})"
        return f"{self.estimate:.4g} +- {self.se:.2g} [{self.low:.4g}, {self.high:.4g}] (n = {self.n})"


def estimate(
    *groups: Float[np.ndarray, "samples columns"], statistic: Statistic, replicates: int = REPLICATES, seed: int = 0
) -> Estimate:
    """A statistic of one or more independent groups of rows, with the interval of a bootstrap over the rows of each.

    Replicates in which the statistic does not exist (a denominator of 0) are left out of spread and interval.

    Source: Efron and Tibshirani 1993, percentile interval.
    """
    n = sum(map(len, groups))
    value = statistic(*groups) if n else math.nan
    if not math.isfinite(value):
        return Estimate(estimate=None, se=None, low=None, high=None, n=n)
    generator = np.random.default_rng(seed)
    drawn = np.array([statistic(*(_anew(group, generator) for group in groups)) for _ in range(replicates)])
    drawn = drawn[np.isfinite(drawn)]
    if n < 2 or len(drawn) < 2:
        return Estimate(estimate=value, se=None, low=None, high=None, n=n)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(estimate=value, se=float(drawn.std(ddof=1)), low=float(low), high=float(high), n=n)


def _anew(rows: Float[np.ndarray, "samples columns"], generator: np.random.Generator) -> np.ndarray:
    return rows[generator.integers(0, len(rows), len(rows))]


def mean_of(values: Sequence[float], *, replicates: int = REPLICATES, seed: int = 0) -> Estimate:
    """The mean of one value per sample. Example: [0, 1] -> 0.5, se 0.5, n 2"""
    column = np.asarray(values, np.float64).reshape(-1, 1)
    found = estimate(column, statistic=lambda rows: float(rows.mean()), replicates=replicates, seed=seed)
    se = None if found.se is None else float(column.std(ddof=1) / math.sqrt(len(column)))
    return Estimate(estimate=found.estimate, se=se, low=found.low, high=found.high, n=found.n)


def ratio_of(
    tops: Sequence[float], bottoms: Sequence[float], *, replicates: int = REPLICATES, seed: int = 0
) -> Estimate:
    """Sum of the tops over the sum of the bottoms, samples kept whole. Example: [1, 1], [2, 6] -> 0.25"""
    rows = np.stack([np.asarray(tops, np.float64), np.asarray(bottoms, np.float64)], axis=1)
    return estimate(rows, statistic=_ratio, replicates=replicates, seed=seed)


def _ratio(rows: Float[np.ndarray, "samples columns"]) -> float:
    top, bottom = rows.sum(axis=0)
    return float(top / bottom) if bottom else math.nan
