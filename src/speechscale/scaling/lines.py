"""Weighted least squares of many straight lines at once.

Enters: one x, rows of y and of weights. Leaves: slope, height and width of each row's line.
The one decision worth knowing: x and y are centered by the row's own weights before anything is squared, so that
log computes around 50 lose no digits.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

Rows = Float[np.ndarray, " replicates"]


def fit_lines(
    x: Float[np.ndarray, " points"],
    y: Float[np.ndarray, "*replicates points"],
    weights: Float[np.ndarray, "replicates points"],
) -> tuple[Rows, Rows, Rows]:
    """Slope, height at x = 0, and width: the weighted mean square of x about its mean.

    A row without weight or width has no line: NaN.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        total = weights.sum(axis=1)
        mean_x, mean_y = weights @ x / total, (weights * y).sum(axis=1) / total
        away = weights * (x - mean_x[:, None])
        width = (away * (x - mean_x[:, None])).sum(axis=1) / total
        slope = (away * y).sum(axis=1) / total / width
    return slope, mean_y - slope * mean_x, width
