"""Intervals: a number with its interval, percentiles of replicates, and how often each run occurs in a resample.

Enters: replicates of any number. Leaves: `Estimate`s (value with its interval and how it was made).
The one decision worth knowing: intervals are percentiles of replicates, never a delta formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from speechscale.errors import DataError

LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its interval; low and high are None when nothing measured its uncertainty (`method` says why)."""

    value: float
    low: float | None
    high: float | None
    method: str
    level: float = LEVEL

    def excludes(self, x: float) -> bool:
        """Tell whether the whole interval lies on one side of x. Example: [0.4, 0.7] excludes 1 -> True"""
        return self.low is not None and self.high is not None and (self.low > x or self.high < x)


def estimate(
    value: float, replicates: Float[np.ndarray, " replicates"], *, method: str, level: float = LEVEL
) -> Estimate:
    """Attach the percentile interval of the replicates to a value.

    Raises:
        DataError: fewer than 20 replicates, or NaN among them.
    """
    if len(replicates) < 20 or np.isnan(replicates).any():
        raise DataError(
            f"{len(replicates)} replicates, {int(np.isnan(replicates).sum())} NaN: need at least 20, none NaN"
        )
    # "inverted_cdf" picks an existing replicate: it neither averages infinite ones nor warns about them
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Estimate(value=float(value), low=float(low), high=float(high), method=method, level=level)


def run_weights(
    runs: int, replicates: int, seed: int, *, clusters: Sequence[Any] | None = None
) -> Int[np.ndarray, "replicates runs"]:
    """Draw how often each run occurs in each resample; runs of one cluster are drawn together.

    Example: run_weights(3, 2, 0).sum(axis=1) -> [3, 3]

    Args:
        clusters: one label per run (its budget, size or seed group); None makes every run its own cluster.
    """
    rng = np.random.default_rng(seed)
    if clusters is None:
        return rng.multinomial(runs, np.full(runs, 1.0 / runs), size=replicates)
    if len(clusters) != runs:
        raise DataError(f"{len(clusters)} cluster labels for {runs} runs: need one each")
    _, index = np.unique(np.asarray(clusters).astype(str), return_inverse=True)
    count = int(index.max()) + 1
    return rng.multinomial(count, np.full(count, 1.0 / count), size=replicates)[:, index]
