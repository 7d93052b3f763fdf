"""How a metric's best runs move with compute, with replicates that pick the best runs anew.

Enters: compute and metric of the runs of one arm. Leaves: `MetricExponent` (power law, its exponent, replicates).
The one decision worth knowing: with budgets the best run of each is taken, without them the runs that set a new
record as compute grows (the running-maximum envelope); resampling runs and picking anew keeps the luck of picking
inside the interval.

Source: Cuervo & Marxer 2024, equation 7 (Q ~ C^gamma, through the runs of the envelope).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from speechscale.errors import DataError
from speechscale.scaling.intervals import LEVEL, Estimate, estimate, run_weights
from speechscale.scaling.laws import PowerLaw
from speechscale.scaling.lines import fit_lines
from speechscale.scaling.tables.budgets import budget_compute, budgets_of, runs_of
from speechscale.scaling.tables.run_table import RunTable

FEW_POINTS = 8
"""Below this many points, each of one run, resampling runs leaves too few; residuals are drawn instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricExponent:
    """metric = k C^gamma through the best runs.

    Args:
        flops, values: the points. selection: how they were picked. replicates: laws of the resamples; NaN where a
            resample holds fewer than three computes (counted in `lost`).
    """

    name: str
    metric: str
    law: PowerLaw
    gamma: Estimate
    flops: tuple[float, ...]
    values: tuple[float, ...]
    selection: str
    lost: float
    replicates: PowerLaw = field(repr=False)


def metric_exponent(table: RunTable, metric: str, *, replicates: int = 2000, seed: int = 0) -> MetricExponent:
    """Fit metric ~ C^gamma through the best runs of an arm, with an interval by resampled runs.

    Example: metric_exponent(cuervo_runs, "tstorycloze").gamma.value -> 0.0252

    Raises:
        DataError: the metric is not in the table, or its best runs lie at fewer than three computes.
    """
    if metric not in table.metrics:
        raise DataError(f"table {table.name}: no metric '{metric}'; it has {', '.join(table.metrics) or 'none'}")
    scored = table.subset(np.isfinite(table.metrics[metric]) & (table.metrics[metric] > 0))
    if not len(scored):
        raise DataError(f"table {table.name}: no run has a {metric} above 0")
    budgets = budgets_of(scored)
    order = np.argsort(scored.flops, kind="stable")
    C, y = scored.flops[order], scored.metrics[metric][order]
    if budgets is None:
        selection = "runs that set a record as compute grows"
        values, counts = _records(y, np.ones((1, len(y)), int))
    else:
        selection = "best run of each budget"
        values, counts = _best(budgets[order], y, np.ones((1, len(y)), int))
        C = budget_compute(C, budgets[order])
    points = counts[0] > 0
    if len(np.unique(C[points])) < 3:
        raise DataError(
            f"table {table.name}: the best {metric} lies at {len(np.unique(C[points]))} compute(s); a slope needs 3"
        )
    from speechscale.scaling.optima.slopes import fit_power_law  # scipy.special

    law = fit_power_law(C[points], values[0, points]).law
    if budgets is not None and points.sum() == len(y) and len(y) < FEW_POINTS:
        drawn, method = _residual_laws(C, values[0], law, replicates, seed), "residuals"
    else:
        names = runs_of(scored)
        rows = None if names is None else [names[i] for i in order]
        weights = run_weights(len(y), replicates, seed, clusters=rows)
        if budgets is None:
            values_drawn, counts = _records(y, weights)
        else:
            values_drawn, counts = _best(budgets[order], y, weights)
        drawn, method = _weighted_laws(C, values_drawn, counts), "runs"
    if budgets is None or method == "residuals":
        drawn, factor = _widened(law, drawn, int(points.sum()), method)
        method += f", widened x{factor:.2f} for few points"
    known = np.isfinite(drawn.gamma)
    text = f"{replicates} bootstrap replicates by {method}; {selection}; percentiles"
    if known.sum() < 20:
        gamma = Estimate(value=float(law.gamma), low=None, high=None, method="no interval: resamples hold too few runs")
    else:
        gamma = estimate(float(law.gamma), drawn.gamma[known], method=text)
    return MetricExponent(
        name=table.name,
        metric=metric,
        law=law,
        gamma=gamma,
        flops=tuple(map(float, C[points])),
        values=tuple(map(float, values[0, points])),
        selection=selection,
        lost=float(1 - known.mean()),
        replicates=drawn,
    )


def _records(y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (replicates, runs) values and 0/1 counts: drawn runs that beat every drawn run before them."""
    seen = np.where(weights > 0, y, -np.inf)
    best_before = np.maximum.accumulate(
        np.concatenate([np.full((len(seen), 1), -np.inf), seen[:, :-1]], axis=1), axis=1
    )
    return np.broadcast_to(y, seen.shape), (seen > best_before).astype(float)


def _best(budgets: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the best drawn run of each budget, and how often the budget was drawn (1 on average)."""
    names = np.unique(budgets)
    groups = [np.flatnonzero(budgets == name) for name in names]
    values = np.stack([np.where(weights[:, rows] > 0, y[rows], -np.inf).max(axis=1) for rows in groups], axis=1)
    counts = np.stack([weights[:, rows].mean(axis=1) for rows in groups], axis=1)
    return np.where(counts > 0, values, 1.0), counts


def _weighted_laws(C: np.ndarray, values: np.ndarray, counts: np.ndarray) -> PowerLaw:
    """Fit a power law per replicate; NaN with fewer than three computes."""
    gamma, log_k, _ = fit_lines(np.log(C), np.log(values), counts)
    few = (counts > 0).sum(axis=1) < 3
    with np.errstate(over="ignore"):
        return PowerLaw(k=np.where(few, np.nan, np.exp(log_k)), gamma=np.where(few, np.nan, gamma))


def _residual_laws(C: np.ndarray, values: np.ndarray, law: PowerLaw, replicates: int, seed: int) -> PowerLaw:
    """Fit power laws to the points redrawn around the law, widened for the two constants it used."""
    rng = np.random.default_rng(seed)
    fitted = np.log(law.predict(C))
    residuals = (np.log(values) - fitted) * np.sqrt(len(C) / (len(C) - 2))
    drawn = np.exp(fitted + rng.choice(residuals, size=(replicates, len(C))))
    return _weighted_laws(C, drawn, np.ones_like(drawn))


def _widened(law: PowerLaw, drawn: PowerLaw, points: int, method: str) -> tuple[PowerLaw, float]:
    """Stretch replicates about the point fit: percentiles of few points of one run each are too narrow.

    The factor is Student's quantile over the normal one, and for resampled runs also sqrt(n / (n - 2)).
    """
    from scipy.special import stdtrit

    factor = float(stdtrit(max(1, points - 2), 0.5 + LEVEL / 2) / stdtrit(np.inf, 0.5 + LEVEL / 2))
    if method == "runs":
        factor *= float(np.sqrt(points / max(1, points - 2)))
    with np.errstate(over="ignore"):
        k = np.exp(np.log(law.k) + factor * (np.log(drawn.k) - np.log(law.k)))
    return PowerLaw(k=k, gamma=law.gamma + factor * (np.asarray(drawn.gamma) - law.gamma)), factor
