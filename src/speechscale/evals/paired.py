"""The difference of two systems on the same items: estimate, interval, and how often chance alone gives as much.

Enters: per item the decision of b minus that of a, its pair and its phenomenon. Leaves: a `PairedDifference`.
The one decision worth knowing: pairs are the observations. They are drawn anew as wholes for the interval, within their
phenomenon where the mean is over phenomena, and whole pairs change sides in the test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest

from speechscale.evals.intervals import LEVEL, REPLICATES, Clusters, bootstrap, estimate, standard_error
from speechscale.evals.protocols import Aggregate

ENUMERATED = 13
"""Up to so many discordant pairs all 2^n ways to change sides are counted."""
FLIPS = 9_999
"""Random ways to change sides otherwise."""
_CHUNK = 2_000_000
"""Draws held at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """b minus a, of one mean.

    Args:
        estimate: of the aggregate. se: clustered on pairs. low, high: percentile interval, an exact bound where all
            pairs agree. None below two pairs (in a phenomenon, where the mean is over phenomena).
        p: two-sided, of the null hypothesis that a and b could be exchanged on any pair. test: how it was computed.
        items_better, items_worse: items on which b (a) does better. pairs_better, pairs_worse: of whole pairs.
    """

    estimate: float
    se: float | None
    low: float | None
    high: float | None
    p: float
    test: str
    n_items: int
    n_pairs: int
    items_better: int
    items_worse: int
    pairs_better: int
    pairs_worse: int


def paired_difference(
    difference: Float[np.ndarray, " items"],
    pairs: Sequence[str],
    phenomena: Sequence[str],
    aggregate: Aggregate,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = LEVEL,
) -> PairedDifference:
    """Aggregate item differences as a protocol does, with a paired interval and a test of no difference.

    Args:
        difference: decision of b minus decision of a, each in [0, 1], same items in the same order.
        aggregate: "item", "pair" (mean of pair means) or "macro" (mean over phenomena of that).

    Example: [1, 0, 0, -1, 1, 1] of pairs p p q q r r, "item" -> estimate 1/3

    Source: `intervals.bootstrap`; sign-flip test (Good 2005), which is the exact McNemar test where all pairs weigh
    the same.
    """
    assert len(difference) == len(pairs) == len(phenomena) > 0
    clusters = Clusters.of(difference.tolist(), pairs, phenomena)
    se = standard_error(clusters, aggregate)
    low = high = None
    if math.isfinite(se):
        low, high = _interval(clusters, aggregate, replicates, seed, (1 - level) / 2)
    parts = contributions(clusters, aggregate)
    p, test = sign_flip_test(parts, seed=seed)
    return PairedDifference(
        estimate=estimate(clusters, aggregate),
        se=se if math.isfinite(se) else None,
        low=low,
        high=high,
        p=p,
        test=test,
        n_items=len(difference),
        n_pairs=len(clusters),
        items_better=int((difference > 0).sum()),
        items_worse=int((difference < 0).sum()),
        pairs_better=int((parts > 0).sum()),
        pairs_worse=int((parts < 0).sum()),
    )


def _interval(clusters: Clusters, aggregate: Aggregate, replicates: int, seed: int, tail: float) -> tuple[float, float]:
    """Percentile interval. Where all pairs agree no sample can differ, and the exact bound on the share of pairs
    that do not stands in, those taken at their worst (-1) and best (+1)."""
    means = clusters.means
    if (means == means[0]).all():
        share = tail ** (1 / len(clusters))
        return float(share * means[0] - (1 - share)), float(share * means[0] + (1 - share))
    drawn = bootstrap(clusters, aggregate, replicates=replicates, seed=seed)
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def contributions(clusters: Clusters, aggregate: Aggregate) -> Float[np.ndarray, " pairs"]:
    """What each pair adds to the estimate; they sum to it."""
    if aggregate == "item":
        return clusters.sums / clusters.counts.sum()
    if aggregate == "pair":
        return clusters.means / len(clusters)
    sizes = np.bincount(clusters.strata)
    return clusters.means / sizes[clusters.strata] / len(sizes)


def sign_flip_test(parts: Float[np.ndarray, " pairs"], *, seed: int = 0) -> tuple[float, str]:
    """Two-sided p of sum(parts) when each part is as likely to have the other sign, and how it was computed.

    Example: six pairs better, one worse, all of one weight -> 0.125 (exact McNemar); no part at all -> 1.0
    """
    parts = parts[parts != 0]
    if not len(parts):
        return 1.0, "no discordant pair"
    sizes = np.abs(parts)
    if np.allclose(sizes, sizes[0], rtol=1e-9, atol=0):
        better = int((parts > 0).sum())
        return float(binomtest(better, len(parts)).pvalue), "exact McNemar test on pairs"
    reached = abs(parts.sum()) - 1e-9 * sizes.sum()
    if len(parts) <= ENUMERATED:
        bits = np.arange(2 ** len(parts))[:, None] >> np.arange(len(parts)) & 1
        return float((np.abs((1 - 2 * bits) @ parts) >= reached).mean()), "all sign flips of pairs"
    generator, count = np.random.default_rng(seed), 0
    step = max(1, _CHUNK // len(parts))
    for start in range(0, FLIPS, step):
        rows = min(step, FLIPS - start)
        signs = generator.integers(0, 2, (rows, len(parts)), dtype=np.int8)
        # sum(s x) with s = +-1 is sum(x) minus twice the parts that flip
        count += int((np.abs(parts.sum() - 2 * (signs @ parts)) >= reached).sum())
    return (1 + count) / (1 + FLIPS), f"{FLIPS:,} random sign flips of pairs"


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p values for their number. Example: [0.01, 0.04, 0.03] -> [0.03, 0.06, 0.06]

    Source: Holm 1979.
    """
    adjusted, running = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = running
    return adjusted
