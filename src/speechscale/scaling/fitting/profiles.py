"""Profiles: how much worse the best fit gets when one constant is held elsewhere.

Enters: a `Fit` or a `FormFit`. Leaves: one `Profile` per constant.
The one decision worth knowing: a profile is always reported, not only when something looks wrong: two published
constants of the data-constrained law sit in a valley where one may change sixfold for 0.1 % of the objective.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.scaling.fitting.fit import Fit
from speechscale.scaling.fitting.form_fit import FormFit
from speechscale.scaling.fitting.forms import WithExtras
from speechscale.scaling.fitting.newton import Model, descend

POINTS = 31
CHI_SQUARE = 1.92
"""Half of the 95 % point of chi-square with one degree of freedom."""
WIDE = 10.0
"""A range wider than this factor is called flat."""
_FIVE = ("A", "alpha", "B", "beta", "E")
_SKIPPED = ("A", "B", "a", "b", "Nc", "Dc", "k")
"""Prefactors are only meaningful beside their exponent, whose profile is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The objective along one constant, all others fitted anew.

    Args:
        values: of the constant, ascending. objective: best at each.
        low, high: where the objective has risen by `rise` (a share); None where the search ended before.
        flat: the range is open or wider than a factor of 10: quote the range, not the constant.
    """

    name: str
    best: float
    values: Float[np.ndarray, " points"]
    objective: Float[np.ndarray, " points"]
    rise: float
    low: float | None
    high: float | None
    flat: bool

    @property
    def message(self) -> str:
        """One sentence. Example: "R_D 15.4: from 6.6 to beyond 1e+04 the fit is as good (flat)" """
        low = f"{self.low:.3g}" if self.low is not None else f"below {self.values[0]:.3g}"
        high = f"{self.high:.3g}" if self.high is not None else f"beyond {self.values[-1]:.3g}"
        return (
            f"{self.name} {self.best:.4g}: from {low} to {high} the fit is within {100 * self.rise:.2g} % as good"
            f"{' (flat: quote the range)' if self.flat else ''}"
        )


def profiles(fit: Fit | FormFit, *, points: int = POINTS) -> tuple[Profile, ...]:
    """Profile every fitted exponent, floor and extra constant.

    The range is where n log(S / S0) < 1.92 for sums of absolute residuals (most outside the Huber threshold), half of
    n log(S / S0) for sums of squares: what a likelihood ratio of 95 % would be if the residuals were so distributed.
    """
    fixed = fit.fixed if isinstance(fit, FormFit) else np.zeros(5, bool)
    names = fit.model.form.names if isinstance(fit, FormFit) else _FIVE
    return tuple(
        profile(fit, name, points=points) for i, name in enumerate(names) if not fixed[i] and name not in _SKIPPED
    )


def profile(fit: Fit | FormFit, name: str, *, points: int = POINTS) -> Profile:
    """Profile one constant; the range widens until the fit is clearly worse on both sides or the search box ends.

    Raises:
        DataError: the fit has no such constant, or it was held.
    """
    names = fit.model.form.names if isinstance(fit, FormFit) else _FIVE
    fixed = fit.fixed if isinstance(fit, FormFit) else np.zeros(5, bool)
    if name not in names or fixed[names.index(name)]:
        free = [n for n, held in zip(names, fixed, strict=True) if not held]
        raise DataError(f"profile of '{name}': the fit has {', '.join(free)}")
    index = names.index(name)
    rise = _rise(fit)
    low, high = fit.model.low[index], fit.model.high[index]
    at = float(fit.theta[index])
    ends = [_reach(fit, fixed, index, at, limit, rise) for limit in (low, high)]
    grid = np.unique(np.append(np.linspace(ends[0], ends[1], points), at))
    objective = _along(fit, fixed, index, grid)
    inside = np.flatnonzero(objective <= fit.objective * (1 + rise))
    left, right = (int(inside[0]), int(inside[-1])) if len(inside) else (0, len(grid) - 1)
    edges = (
        None if left == 0 else _crossing(grid, objective, left - 1, left, fit.objective * (1 + rise)),
        None if right == len(grid) - 1 else _crossing(grid, objective, right, right + 1, fit.objective * (1 + rise)),
    )
    outer = _outer(fit, index)
    shown = [None if edge is None else float(outer(edge)) for edge in edges]
    factor = np.inf if None in shown or not shown[0] else abs(shown[1] / shown[0])  # type: ignore[operator]
    return Profile(
        name=name,
        best=float(outer(at)),
        values=np.asarray(outer(grid)),
        objective=objective,
        rise=rise,
        low=shown[0],
        high=shown[1],
        flat=bool(factor > WIDE),
    )


def _rise(fit: Fit | FormFit) -> float:
    quadratic = fit.minimized.kind.endswith("mse") or (
        fit.minimized.kind != "lad" and float(np.median(np.abs(fit.residuals))) < fit.minimized.delta
    )
    return float(np.expm1(CHI_SQUARE * (2 if quadratic else 1) / fit.runs))


def _along(fit: Fit | FormFit, fixed: np.ndarray, index: int, values: np.ndarray) -> Float[np.ndarray, " points"]:
    """The best objective with the parameter held at each of the values, ascending or descending.

    Every point is solved from the fit, then from what its neighbors found: one start would leave teeth where a valley
    branches.
    """
    model: Model = fit.model
    y = np.broadcast_to(fit.targets, (len(values), fit.runs))
    held = fixed.copy()
    held[index] = True

    def solved(start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        start = start.copy()
        start[:, index] = values
        ends, objective, _ = descend(start, model, y, np.ones_like(y), fit.minimized, held=held, patient=True)
        return ends, objective

    theta, best = solved(np.tile(fit.theta, (len(values), 1)))
    for neighbor in (np.r_[0, np.arange(len(values) - 1)], np.r_[np.arange(1, len(values)), len(values) - 1]):
        again, objective = solved(theta[neighbor])
        better = objective < best
        theta[better], best[better] = again[better], objective[better]
    return best / fit.minimized.unit


def _reach(fit: Fit | FormFit, fixed: np.ndarray, index: int, at: float, limit: float, rise: float) -> float:
    """The nearest of ever wider distances at which the objective has risen twice as much as asked, or the limit."""
    distances = np.abs(limit - at) * np.geomspace(1e-3, 1.0, 12)
    values = at + np.sign(limit - at) * distances
    risen = np.flatnonzero(_along(fit, fixed, index, values) > fit.objective * (1 + 2 * rise))
    return float(values[risen[0]]) if len(risen) else float(limit)


def _crossing(grid: np.ndarray, objective: np.ndarray, left: int, right: int, level: float) -> float:
    share = (level - objective[left]) / (objective[right] - objective[left])
    return float(grid[left] + np.clip(share, 0.0, 1.0) * (grid[right] - grid[left]))


def _outer(fit: Fit | FormFit, index: int):  # type: ignore[no-untyped-def]
    """From theta's own scale to the constant's."""
    if isinstance(fit, FormFit):
        form = fit.model.form
        if isinstance(form, WithExtras) and index >= form.base:
            return form.extras[index - form.base].outer
        name = form.names[index]
    else:
        name = _FIVE[index]
    return np.exp if name == "E" else (lambda x: x)
