"""A line through the best sizes of several budgets: log N_opt against log C, weighted, with replicates.

Enters: best sizes per budget, and noisy copies of them. Leaves: `SizeLine`.
The one decision worth knowing: a budget weighs by the spread of its own replicates, but never more than the median
budget: a size that is picked from a grid and never moves is not known exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from speechscale.scaling.intervals import Estimate, estimate
from speechscale.scaling.lines import fit_lines

MIN_BUDGETS = 3
MOST_REFUSED = 0.2
"""If more of the replicates have no line, there is no interval: it would be of the lucky ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeLine:
    """log N_opt = level + exponent (log C - center). complement: 1 - exponent, that of D_opt = C / (6 N_opt)."""

    exponent: Estimate
    complement: Estimate
    center: float
    level: float
    drawn_exponents: Float[np.ndarray, " replicates"] = field(repr=False)
    drawn_levels: Float[np.ndarray, " replicates"] = field(repr=False)


def size_line(values: Float[np.ndarray, "budgets 2"], drawn: Float[np.ndarray, "replicates budgets"]) -> SizeLine:
    """Draw a weighted line through the best sizes of budgets.

    Args:
        values: FLOPs and log10 size of each budget, at least MIN_BUDGETS. drawn: log10 sizes of replicates; NaN where a
            replicate's best size was not bracketed.
    """
    x = np.log(values[:, 0])
    y, noisy = np.log(10) * values[:, 1], np.log(10) * drawn
    spread = np.array([np.nanstd(column) if np.isfinite(column).sum() > 1 else np.nan for column in noisy.T])
    typical = np.nanmedian(spread) if np.isfinite(spread).any() else 1.0
    # A size read off an envelope jumps or stays: no spread does not mean that it is known better than the others.
    weights = 1 / np.maximum(np.where(np.isfinite(spread), spread, typical), max(typical, 1e-6)) ** 2
    center = float(x @ weights / weights.sum())
    exponent, level, _ = _weighted_line(x - center, y[None], weights)
    exponents, levels, enough = _weighted_line(x - center, noisy, weights)
    share = 1 - enough.mean()
    method = f"{int(enough.sum())} noise replicates, percentiles, {len(x)} budgets"
    scatter = _scatter(x - center, y, weights, float(exponent[0]), float(level[0]), exponents[enough])
    if share > MOST_REFUSED:
        why = f"no interval: {share:.0%} of the replicates have fewer than {MIN_BUDGETS} bracketed budgets"
        a = Estimate(value=float(exponent[0]), low=None, high=None, method=why)
        b = Estimate(value=1 - a.value, low=None, high=None, method=why)
        exponents, levels = np.zeros(0), np.zeros(0)
    else:
        exponents = exponent[0] + scatter * (exponents[enough] - np.median(exponents[enough]))
        levels = level[0] + scatter * (levels[enough] - np.median(levels[enough]))
        method += f", widened x{scatter:.2f} for scatter around the line" if scatter > 1 else ""
        a = estimate(float(exponent[0]), exponents, method=method)
        b = estimate(1 - a.value, 1 - exponents, method=method)
    return SizeLine(
        exponent=a,
        complement=b,
        center=center,
        level=float(level[0]),
        drawn_exponents=exponents,
        drawn_levels=levels,
    )


def _weighted_line(
    x: np.ndarray, rows: Float[np.ndarray, "replicates budgets"], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope and value at 0 of each row's weighted line; NaN entries are left out; False where fewer than 3 remain."""
    there = np.isfinite(rows)
    enough = there.sum(axis=1) >= MIN_BUDGETS
    slope, level, _ = fit_lines(x, np.where(there, rows, 0.0), np.where(there, weights, 0.0))
    return np.where(enough, slope, np.nan), np.where(enough, level, np.nan), enough


def _scatter(x: np.ndarray, y: np.ndarray, weights: np.ndarray, slope: float, level: float, drawn: np.ndarray) -> float:
    """Birge ratio: by how much the budgets scatter around the line more than the replicates say, at least 1."""
    if len(x) <= 2 or len(drawn) < 2:
        return 1.0
    squares = float(weights @ (y - level - slope * x) ** 2) / (len(x) - 2)
    se = np.sqrt(squares / float(weights @ (x - x @ weights / weights.sum()) ** 2))
    expected = float(np.std(drawn))
    return max(1.0, se / expected) if expected > 0 else 1.0
