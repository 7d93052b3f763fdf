"""Means over items that come in clusters, with standard errors and bootstrap intervals.

Enters: a value per item, the pair and the phenomenon it belongs to. Leaves: an estimate, its standard error, an
interval.
The one decision worth knowing: items of one pair share their texts, or are one sentence in several voices, so the pair
is the observation; whole pairs are drawn again, and a macro average draws them within each phenomenon.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from speechscale.evals.protocols import Aggregate

REPLICATES = 2000
LEVEL = 0.95
BLOCK = 2**22
"""Draws held at once."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """Sums, numbers and lowest values of the items of each pair, and the number of its phenomenon."""

    sums: Float[np.ndarray, " pairs"]
    counts: Float[np.ndarray, " pairs"]
    strata: Int[np.ndarray, " pairs"]
    lowest: Float[np.ndarray, " pairs"]

    @classmethod
    def of(cls, values: Sequence[float], pairs: Sequence[str], phenomena: Sequence[str]) -> Clusters:
        """Group items; a pair belongs to the phenomenon of its first item."""
        names: dict[str, int] = {}
        strata: dict[str, int] = {}
        which = np.array([names.setdefault(pair, len(names)) for pair in pairs], np.int64)
        first = np.unique(which, return_index=True)[1]
        kinds = np.array([strata.setdefault(phenomena[i], len(strata)) for i in first], np.int64)
        numbers = np.asarray(values, np.float64)
        lowest = np.full(len(names), np.inf)
        np.minimum.at(lowest, which, numbers)
        sums = np.bincount(which, numbers, minlength=len(names))
        return cls(sums, np.bincount(which, minlength=len(names)).astype(np.float64), kinds, lowest)

    def __len__(self) -> int:
        return len(self.sums)

    @property
    def means(self) -> Float[np.ndarray, " pairs"]:
        return self.sums / self.counts

    def values(self, aggregate: Aggregate) -> Float[np.ndarray, " pairs"]:
        """What each pair counts where pairs count alike."""
        return self.lowest if aggregate == "all" else self.means

    def phenomena(self) -> Iterator[Clusters]:
        """The clusters of each phenomenon."""
        for stratum in range(int(self.strata.max()) + 1):
            at = self.strata == stratum
            yield Clusters(self.sums[at], self.counts[at], np.zeros(int(at.sum()), np.int64), self.lowest[at])


def estimate(clusters: Clusters, aggregate: Aggregate) -> float:
    """Mean over items; over pairs of their means (all: of their lowest values); or over phenomena of the means."""
    if aggregate == "item":
        return float(clusters.sums.sum() / clusters.counts.sum())
    if aggregate != "macro":
        return float(clusters.values(aggregate).mean())
    return math.fsum(float(part.means.mean()) for part in clusters.phenomena()) / (int(clusters.strata.max()) + 1)


def standard_error(clusters: Clusters, aggregate: Aggregate) -> float:
    """Cluster-robust standard error; NaN below two pairs (for macro: in any phenomenon).

    With item errors e_i = x_i - mean, the variance over items is G / (G - 1) * sum over the G pairs of (sum of e_i in
    the pair)^2 / n^2; for pairs of equal size this is the standard error of the mean of pair means. It is 0 when all
    pairs agree, which is a statement about this sample only.

    Source: Liang and Zeger 1986 (cluster-robust variance of a mean).
    """
    if aggregate == "macro":
        parts = [standard_error(part, "pair") for part in clusters.phenomena()]
        return math.sqrt(math.fsum(part**2 for part in parts)) / len(parts)
    groups = len(clusters)
    if groups < 2:
        return math.nan
    mean = estimate(clusters, aggregate)
    if aggregate != "item":
        errors, size = clusters.values(aggregate) - mean, float(groups)
    else:
        errors, size = clusters.sums - mean * clusters.counts, float(clusters.counts.sum())
    return math.sqrt(groups / (groups - 1) * float((errors**2).sum())) / size


def bootstrap(
    clusters: Clusters, aggregate: Aggregate, *, replicates: int = REPLICATES, seed: int = 0
) -> Float[np.ndarray, " replicates"]:
    """Estimates of samples of pairs drawn with replacement.

    Equal pairs and seed are drawn alike, whatever the values: that makes replicates of two protocols or two models on
    the same items comparable one by one.
    """
    rng = np.random.default_rng(seed)
    if aggregate == "macro":
        parts = [bootstrap_of(part, "pair", replicates, rng) for part in clusters.phenomena()]
        found: np.ndarray = np.mean(parts, axis=0)
        return found
    return bootstrap_of(clusters, aggregate, replicates, rng)


def bootstrap_of(
    clusters: Clusters, aggregate: Aggregate, replicates: int, rng: np.random.Generator
) -> Float[np.ndarray, " replicates"]:
    """One stratum of `bootstrap`."""
    groups, parts = len(clusters), []
    block = max(1, BLOCK // groups)
    for first in range(0, replicates, block):
        drawn = rng.integers(groups, size=(min(block, replicates - first), groups))
        if aggregate == "item":
            parts.append(clusters.sums[drawn].sum(axis=1) / clusters.counts[drawn].sum(axis=1))
        else:
            parts.append(clusters.values(aggregate)[drawn].mean(axis=1))
    return np.concatenate(parts)


def share_interval(
    clusters: Clusters, aggregate: Aggregate, *, replicates: int = REPLICATES, seed: int = 0, level: float = LEVEL
) -> tuple[float, float]:
    """Percentile bootstrap interval of a share (values in [0, 1]); NaN below two pairs (for macro: in any phenomenon).

    Where all pairs say 0, or all 1, no sample can differ; there the exact one-sided bound for that many observations
    stands in (Clopper and Pearson 1934): 40 of 40 right is [.91, 1].
    """
    groups, tail = len(clusters), (1 - level) / 2
    smallest = min(map(len, clusters.phenomena())) if aggregate == "macro" else groups
    if smallest < 2:
        return math.nan, math.nan
    values = clusters.values(aggregate)
    if (values == 1).all():
        return float(tail ** (1 / groups)), 1.0
    if (values == 0).all():
        return 0.0, float(1 - tail ** (1 / groups))
    low, high = np.quantile(bootstrap(clusters, aggregate, replicates=replicates, seed=seed), [tail, 1 - tail])
    return float(low), float(high)
