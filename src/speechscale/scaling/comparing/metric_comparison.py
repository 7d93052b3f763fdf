"""Two arms by a metric: compute for the same score, and the score at the same compute.

Enters: a `MetricExponent` of each arm. Leaves: `MetricComparison`.
The one decision worth knowing: only scores and computes inside both arms' measured ranges are compared; a slope that
may be zero makes the needed compute infinite, an open end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from speechscale.scaling.comparing.law_multiplier import ratio_estimate
from speechscale.scaling.intervals import Estimate, estimate
from speechscale.scaling.laws import PowerLaw
from speechscale.scaling.links.metric_slopes import MetricExponent

SCORES = 7
"""Matched scores inside the common range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtCompute:
    """Score of both arms at one compute. difference: B minus A, above 0: B is better."""

    flops: float
    a: float
    b: float
    difference: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricComparison:
    """Two arms by one metric.

    Args:
        a, b: exponents of their best runs. multiplier: compute that B needs over that of A for the same score,
            geometric mean over `score_range`; None without a common range (`reason` says which).
        flops_a: compute of A over the common scores. at_compute: at the low end, the middle and the high end of the
            common compute. unreached: share of replicates in which a slope is not above 0 or not measured.
    """

    metric: str
    a: Estimate
    b: Estimate
    multiplier: Estimate | None
    score_range: tuple[float, float] | None
    flops_a: tuple[float, float] | None
    at_compute: tuple[AtCompute, ...]
    unreached: float
    reason: str


def compare_metric(a: MetricExponent, b: MetricExponent) -> MetricComparison:
    """Compare two arms by a metric that is better when higher.

    Example: B scores at three times the compute what A scores -> multiplier 3
    """
    ends = [np.asarray(x.law.predict(np.array([x.flops[0], x.flops[-1]]))) for x in (a, b)]
    low, high = max(e[0] for e in ends), min(e[1] for e in ends)
    multiplier = score_range = flops_a = None
    unreached, reason = 0.0, ""
    if a.law.gamma <= 0 or b.law.gamma <= 0:
        reason = f"{a.metric} does not rise with compute in {a.name if a.law.gamma <= 0 else b.name}"
    elif low >= high:
        reason = (
            f"no {a.metric} score lies in the measured range of both (they end at {high:.4g} and start at {low:.4g})"
        )
    else:
        scores = np.exp(np.linspace(np.log(low), np.log(high), SCORES))
        point = np.mean(_log_compute(b.law, scores) - _log_compute(a.law, scores))
        with np.errstate(invalid="ignore"):
            drawn = _log_compute(b.replicates, scores[:, None]) - _log_compute(a.replicates, scores[:, None])
            logs = drawn.mean(axis=0)
        unreached = float(np.mean(~np.isfinite(logs)))
        multiplier = ratio_estimate(float(point), logs, b.gamma.method)
        score_range = (float(low), float(high))
        flops_a = tuple(np.exp(_log_compute(a.law, np.array([low, high]))).tolist())
    return MetricComparison(
        metric=a.metric,
        a=a.gamma,
        b=b.gamma,
        multiplier=multiplier,
        score_range=score_range,
        flops_a=flops_a,
        at_compute=_at_compute(a, b),
        unreached=unreached,
        reason=reason,
    )


def _log_compute(law: PowerLaw, score: np.ndarray) -> np.ndarray:
    """Return log C at which the law reaches a score; inf where it does not rise, NaN where it is unknown."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        needed = np.log(score) / law.gamma - np.log(law.k) / law.gamma
    return np.where(np.isnan(law.gamma), np.nan, np.where(np.asarray(law.gamma) > 0, needed, np.inf))


def _at_compute(a: MetricExponent, b: MetricExponent) -> tuple[AtCompute, ...]:
    low, high = max(a.flops[0], b.flops[0]), min(a.flops[-1], b.flops[-1])
    if low > high:
        return ()
    rows = []
    known = np.isfinite(a.replicates.gamma) & np.isfinite(b.replicates.gamma)
    for C in dict.fromkeys((low, float(np.sqrt(low * high)), high)):
        at_a, at_b = float(a.law.predict(C)), float(b.law.predict(C))
        if known.sum() < 20:
            difference = Estimate(value=at_b - at_a, low=None, high=None, method=b.gamma.method)
        else:
            drawn = b.replicates.predict(C)[known] - a.replicates.predict(C)[known]
            difference = estimate(at_b - at_a, drawn, method=b.gamma.method)
        rows.append(AtCompute(flops=C, a=at_a, b=at_b, difference=difference))
    return tuple(rows)
