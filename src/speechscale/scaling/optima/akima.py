"""The best size of a budget by Akima interpolation, many noisy copies at once.

Enters: log sizes, losses of each replicate. Leaves: status codes as in `isoflop`, minima.
The one decision worth knowing: an interpolant goes through every loss, so it needs no choice of nearest sizes, and it
has a minimum only where a size on either side is worse.

Source: Porian et al. 2024, appendix on N*(C) (Akima instead of a parabola, whose vertex drifts on wide sweeps).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from speechscale.scaling.optima.isoflop import HIGH, INTERIOR, LOW

LEAST_SIZES = 4
_POINTS = 40  # per gap between two sizes


def akima_minima(
    x: Float[np.ndarray, " sizes"], losses: Float[np.ndarray, "replicates sizes"]
) -> tuple[Int[np.ndarray, " replicates"], Float[np.ndarray, " replicates"], Float[np.ndarray, " replicates"]]:
    """Find the lowest point of each interpolant; return status code, log size there, loss there.

    Args:
        x: log sizes, ascending, at least LEAST_SIZES.
    """
    from scipy.interpolate import Akima1DInterpolator

    assert len(x) >= LEAST_SIZES
    fine = np.unique(np.concatenate([np.linspace(a, b, _POINTS + 1) for a, b in pairwise(x)]))
    curve = Akima1DInterpolator(x, losses.T)(fine).T  # (replicates, points)
    best = curve.argmin(axis=1)
    rows = np.arange(len(losses))
    lowest = losses.argmin(axis=1)
    status = np.where(lowest == 0, LOW, np.where(lowest == len(x) - 1, HIGH, INTERIOR))
    status[(status == INTERIOR) & (best == 0)] = LOW
    status[(status == INTERIOR) & (best == len(fine) - 1)] = HIGH
    inside = status == INTERIOR
    at = np.where(inside, fine[best], x[lowest])
    return status, at, np.where(inside, curve[rows, best], losses[rows, lowest])
