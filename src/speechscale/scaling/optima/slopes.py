"""Power laws of compute: how an envelope or a metric moves with C.

Enters: computes with losses or accuracies. Leaves: `PowerFit`, `Slope`.
The one decision worth knowing: points that scatter around the line more than their own noise widen the interval (Birge
ratio); a metric that never leaves chance is called a slope of noise.

Source: Cuervo & Marxer 2024, equation 7 (metric ~ C^gamma); SIMS, Figure 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

from speechscale.errors import DataError
from speechscale.scaling.intervals import LEVEL, Estimate, estimate
from speechscale.scaling.laws import PowerLaw


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerFit:
    """y = k C^gamma by least squares in logarithms, with the interval of gamma. points: how many C it rests on."""

    law: PowerLaw
    gamma: Estimate
    points: int


def fit_power_law(
    C: Float[np.ndarray, " points"],
    y: Float[np.ndarray, " points"],
    *,
    replicates: Float[np.ndarray, "replicates points"] | None = None,
) -> PowerFit:
    """Fit y = k C^gamma.

    With replicates of y the interval is their percentiles, widened by the Birge ratio when the points scatter around
    the line more than the replicates do. Without, it is Student's, from the scatter alone.

    Example: (2.13e18, .5756) ... (6.86e20, .6670) -> .190 C^.0263

    Raises:
        DataError: fewer than three different C, or numbers that are not finite and positive.
    """
    C, y = np.asarray(C, float), np.asarray(y, float)
    if C.shape != y.shape or not (np.all(np.isfinite(C) & (C > 0)) and np.all(np.isfinite(y) & (y > 0))):
        raise DataError("power law: C and y must be as many finite numbers above 0; drop failed runs first")
    if len(np.unique(C)) < 3:
        raise DataError(f"power law: {len(np.unique(C))} different computes; at least 3 are needed, add budgets")
    x = np.log(C) - np.log(C).mean()
    leverage = x / np.sum(x**2)
    gamma = float(leverage @ np.log(y))
    log_k = float(np.log(y).mean() - gamma * np.log(C).mean())
    residuals = np.log(y) - log_k - gamma * np.log(C)
    freedom = len(y) - 2
    scatter = float(np.sqrt(np.sum(residuals**2) / freedom))
    if replicates is None:
        half = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * scatter * float(np.sqrt(np.sum(leverage**2)))
        interval = Estimate(value=gamma, low=gamma - half, high=gamma + half, method=f"Student, {freedom} degree(s)")
    else:
        logs = np.log(np.maximum(replicates, 1e-12))
        drawn = logs @ leverage
        expected = float(np.sqrt(np.mean(logs.var(axis=0))))
        birge = max(1.0, scatter / expected) if expected > 0 else 1.0
        method = f"{len(drawn)} noise replicates, widened x{birge:.2f} for scatter around the line"
        interval = estimate(gamma, gamma + birge * (drawn - np.median(drawn)), method=method)
    return PowerFit(law=PowerLaw(k=float(np.exp(log_k)), gamma=gamma), gamma=interval, points=len(y))


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """Accuracy against compute. selection: how a budget's point was chosen. message: one sentence to print."""

    status: Literal["fitted", "at_chance", "too_few_budgets"]
    compute_flops: tuple[float, ...]
    accuracy: tuple[float, ...]
    accuracy_se: tuple[float, ...] | None
    selection: str
    message: str
    fit: PowerFit | None = None


def metric_slope(
    compute_flops: Float[np.ndarray, " runs"],
    accuracy: Float[np.ndarray, " runs"],
    *,
    se: Float[np.ndarray, " runs"] | None = None,
    items: Int[np.ndarray, " runs"] | None = None,
    chance: float = 0.5,
    replicates: int = 1000,
    seed: int = 0,
) -> Slope:
    """Fit accuracy ~ C^gamma through the best run of each compute.

    Accuracy is a share (0 to 1). Its noise is `se`, else binomial from `items`, else the scatter around the line.
    Picking the best of several runs favors luck; replicates pick anew, so their interval contains it.

    Raises:
        DataError: accuracy outside 0 to 1, NaN, or arrays of different lengths.
    """
    C, share = np.asarray(compute_flops, float), np.asarray(accuracy, float)
    if C.shape != share.shape or not np.all(np.isfinite(C) & (C > 0) & (share >= 0) & (share <= 1)):
        raise DataError("metric slope: need a compute above 0 and an accuracy in 0..1 per run; divide percent by 100")
    if se is None and items is not None:
        smoothed = (share * items + 1) / (np.asarray(items) + 2)  # an accuracy of 1.0 is not without error
        se = np.sqrt(smoothed * (1 - smoothed) / np.asarray(items))
    budgets = np.unique(C)
    groups = [np.flatnonzero(b == C) for b in budgets]
    best = np.array([rows[share[rows].argmax()] for rows in groups])
    most = max(len(rows) for rows in groups)
    selection = "one run per compute" if most == 1 else f"best of up to {most} runs per compute, picked by this metric"
    shown = tuple(map(float, share[best]))
    errors = None if se is None else tuple(map(float, np.asarray(se)[best]))
    base = Slope(
        status="too_few_budgets",
        compute_flops=tuple(map(float, budgets)),
        accuracy=shown,
        accuracy_se=errors,
        selection=selection,
        message=f"{len(budgets)} computes: a slope needs at least 3",
    )
    if len(budgets) < 3 or min(shown) <= 0:
        return base
    drawn = None
    if se is not None:
        noise = np.random.default_rng(seed).standard_normal((replicates, len(C)))
        noisy = np.clip(share + np.asarray(se) * noise, 1e-3, 1.0)
        drawn = np.stack([noisy[:, rows].max(axis=1) for rows in groups], axis=1)
    return _judged(base, fit_power_law(budgets, share[best], replicates=drawn), chance)


def _judged(base: Slope, fit: PowerFit, chance: float) -> Slope:
    """Word the slope; a metric that never leaves chance has no meaningful slope."""
    gamma = fit.gamma
    text = f"accuracy ~ C^{gamma.value:.3g} [{gamma.low:.3g}, {gamma.high:.3g}] ({base.selection})"
    errors = base.accuracy_se
    if errors is not None and all(abs(a - chance) < 2 * s for a, s in zip(base.accuracy, errors, strict=True)):
        where = f"within 2 standard errors of chance ({chance:g}) at every compute"
        return replace(base, status="at_chance", fit=fit, message=f"{where}: {text} is a slope of noise")
    verdict = "" if gamma.excludes(0.0) else "; the interval spans 0: cannot tell whether it grows"
    return replace(base, status="fitted", fit=fit, message=text + verdict)
