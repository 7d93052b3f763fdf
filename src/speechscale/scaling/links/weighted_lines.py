"""Weighted straight lines through points that come in runs: fit, test of the slope, resamples.

Enters: `Points`. Leaves: slopes and intercepts. The one decision worth knowing: the slope's test takes the largest of
three standard errors (of the points, of their scatter, clustered by run), so it errs towards "cannot tell".

Source: Cameron & Miller 2015, "A practitioner's guide to cluster-robust inference" (CR1, Student's t with G - 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtr, stdtrit

from speechscale.scaling.intervals import LEVEL, Estimate, estimate, run_weights
from speechscale.scaling.lines import fit_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Points of one mixture.

    Args:
        weights: 1 / se^2; all 1 where no standard error is known (`known` False).
        runs: number of the run each point is of.
    """

    loss: Float[np.ndarray, " points"]
    accuracy: Float[np.ndarray, " points"]
    weights: Float[np.ndarray, " points"]
    runs: Int[np.ndarray, " points"]
    known: bool

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def run_count(self) -> int:
        return int(self.runs.max()) + 1

    def of_runs(self) -> Points:
        """One point per run, the mean of its points; on a line if they are."""
        count = np.bincount(self.runs)

        def mean(values: np.ndarray) -> np.ndarray:
            return np.bincount(self.runs, values) / count

        loss, accuracy, weights = map(mean, (self.loss, self.accuracy, self.weights))
        return replace(self, loss=loss, accuracy=accuracy, weights=weights, runs=np.arange(len(count)))


def points_of(
    loss: Float[np.ndarray, " points"],
    accuracy: Float[np.ndarray, " points"],
    se: Float[np.ndarray, " points"],
    runs: Sequence[str],
) -> tuple[Points, tuple[str, ...]]:
    """Points with weights, and what to say of them."""
    known = np.isfinite(se) & (se > 0)
    notes: tuple[str, ...] = ()
    if known.any() and not known.all():
        notes = (f"{int((~known).sum())} points without a standard error weigh as the median one",)
    usual = float(np.median(se[known])) if known.any() else 1.0
    _, numbers = np.unique(np.asarray(runs, str), return_inverse=True)
    points = Points(
        loss=loss,
        accuracy=accuracy,
        weights=1 / np.where(known, se, usual) ** 2,
        runs=numbers.reshape(-1),
        known=bool(known.any()),
    )
    return points, notes


def line(points: Points) -> tuple[float, float, float]:
    """Weighted least squares: slope, intercept, R2."""
    w = points.weights / points.weights.sum()
    x, y = points.loss - w @ points.loss, points.accuracy - w @ points.accuracy
    slope = float((w * x) @ y / (w @ x**2))
    total = float(w @ y**2)
    r2 = 1 - float(w @ (y - slope * x) ** 2) / total if total > 0 else 0.0
    return slope, float(w @ points.accuracy - slope * (w @ points.loss)), r2


def slope_p(points: Points) -> float:
    """Two-sided p of a slope of zero, Student's t with two degrees less than there are runs."""
    slope, intercept, _ = line(points)
    w, n, count = points.weights, len(points), points.run_count
    x = points.loss - (w @ points.loss) / w.sum()
    residuals = points.accuracy - intercept - slope * points.loss
    information = float(w @ x**2)
    scatter = float(w @ residuals**2) / max(1, n - 2) / information
    sums = np.bincount(points.runs, w * x * residuals)
    clustered = count / (count - 1) * (n - 1) / max(1, n - 2) * float(sums @ sums) / information**2
    se = np.sqrt(max(scatter, clustered, 1 / information if points.known else 0.0))
    if se <= 1e-12 * abs(slope):
        return float(slope == 0)
    return float(2 * stdtr(count - 2, -abs(slope) / se))


def drawn_lines(points: Points, replicates: int, seed: int) -> Float[np.ndarray, "replicates 2"]:
    """Slope and intercept of resamples of whole runs; those of one loss only, which have no slope, are drawn anew."""
    drawn = run_weights(points.run_count, 2 * replicates, seed)[:, points.runs] * points.weights
    slopes, heights, widths = fit_lines(points.loss, points.accuracy, drawn)
    usable = np.flatnonzero(widths > 1e-9 * np.ptp(points.loss) ** 2)[:replicates]
    return np.stack([slopes[usable], heights[usable]], axis=1)


def widening(runs: int) -> float:
    """What a bootstrap of few runs falls short by: two constants were fitted, and Student's t is wider than normal."""
    return float(np.sqrt(runs / (runs - 2)) * stdtrit(runs - 2, 0.5 + LEVEL / 2) / 1.959964)


def widened(value: float, drawn: Float[np.ndarray, " replicates"], runs: int) -> Estimate:
    """A value with the interval of its resamples, widened for few runs."""
    method = f"{len(drawn)} bootstrap replicates by run, widened x{widening(runs):.2f} for few runs"
    return estimate(value, value + widening(runs) * (drawn - np.median(drawn)), method=method)
