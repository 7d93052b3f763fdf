"""Grids of runs that might be trained, and losses that such runs would show under an assumed law.

Enters: a law, budgets, sizes, noise. Leaves: a `Grid` (N and D of each run, its price) and, per simulated sweep, a fit.
The one decision worth knowing: every sweep of a grid shares N and D, so one noise-free fit is the frame of all sweeps
and their point fits are one batch; each ends in a `Fit` like that of a real table, so that its intervals come from the
very bootstrap that a real table would get.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.scaling.fitting.fit import Fit, fit_loss_law, refit
from speechscale.scaling.fitting.solve import log_terms
from speechscale.scaling.laws import FLOPS_PER_PARAM_TOKEN, LossLaw
from speechscale.scaling.tables.run_table import RunTable

SPREAD = 8.0
"""Sizes of a budget reach from N_opt / SPREAD to N_opt * SPREAD."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Runs to be trained.

    Args:
        params: N, tokens: D, one entry per run, with C = 6 N D. what: the grid in words.
    """

    what: str
    params: Float[np.ndarray, " runs"]
    tokens: Float[np.ndarray, " runs"]

    def __len__(self) -> int:
        return len(self.params)

    @property
    def flops(self) -> Float[np.ndarray, " runs"]:
        return FLOPS_PER_PARAM_TOKEN * self.params * self.tokens

    @property
    def cost_flops(self) -> float:
        """FLOPs of all runs together."""
        return float(self.flops.sum())


def spread_grid(law: LossLaw, budgets: tuple[float, float, int], sizes: int, *, spread: float = SPREAD) -> Grid:
    """Lay `sizes` runs around the optimum of each budget, equally far apart in log N.

    Example: spread_grid(law, (1e18, 1e20, 5), 8) -> 40 runs, N from N_opt / 8 to 8 N_opt

    Args:
        budgets: lowest and highest in FLOPs, and how many, equally far apart in log C.

    Raises:
        DataError: budgets out of order or fewer than 2, fewer than 2 sizes, a spread not above 1.
    """
    low, high, count = budgets
    if not (np.isfinite([low, high]).all() and 0 < low < high and count >= 2):
        raise DataError(f"budgets {low:g} to {high:g}, {count} of them: need 0 < lowest < highest and at least 2")
    if sizes < 2 or not (np.isfinite(spread) and spread > 1):
        raise DataError(f"{sizes} sizes spread by {spread:g}: need at least 2 sizes and a spread above 1")
    compute = np.repeat(np.geomspace(low, high, count), sizes)
    params = law.optimum(compute).params_opt * np.tile(np.geomspace(1 / spread, spread, sizes), count)
    what = f"{count} budgets of {low:.3g} to {high:.3g} FLOPs x {sizes} sizes of N_opt/{spread:g} to {spread:g} N_opt"
    return Grid(what=what, params=params, tokens=compute / FLOPS_PER_PARAM_TOKEN / params)


def crossed_grid(sizes: Sequence[float], budgets: Sequence[float]) -> Grid:
    """Train every size at every budget. Example: crossed_grid([2e7, 8.5e7, 1.55e8], [1e18, 1e19]) -> 6 runs

    Args:
        sizes: parameters N. budgets: FLOPs.

    Raises:
        DataError: none of either, or one not finite and above 0.
    """
    for name, values in (("sizes", sizes), ("budgets", budgets)):
        if not len(values) or not all(np.isfinite(x) and x > 0 for x in values):
            raise DataError(f"{name} {list(values)}: need at least one, all finite and above 0")
    params, compute = np.tile(np.asarray(sizes, float), len(budgets)), np.repeat(np.asarray(budgets, float), len(sizes))
    what = f"{len(sizes)} sizes ({min(sizes):.3g} to {max(sizes):.3g} parameters) x {len(budgets)} budgets"
    return Grid(what=what, params=params, tokens=compute / FLOPS_PER_PARAM_TOKEN / params)


def table_grid(table: RunTable) -> Grid:
    """Repeat the sweep of a table: its own N and D. Losses are not used."""
    return Grid(what=f"the {len(table)} runs of {table.name}", params=table.params, tokens=table.tokens)


def noise_free_fit(law: LossLaw, grid: Grid) -> Fit:
    """Fit the law's own losses on a grid.

    Raises:
        DataError: a grid no law can be fitted to (fewer than six runs, one size, a fixed D / N).
    """
    return fit_loss_law(grid.params, grid.tokens, np.asarray(law.predict(grid.params, grid.tokens)))


def simulate(law: LossLaw, grid: Grid, *, noise: float, sweeps: int, seed: int = 0) -> list[Fit]:
    """Train the grid `sweeps` times: draw log-normal noise around the law's losses and fit each sweep.

    Example: [fit.law.exp_params for fit in simulate(law, grid, noise=0.005, sweeps=100)]

    Args:
        noise: standard deviation of log loss between the law and a run.

    Returns:
        Fits as `fit_loss_law` would return, but that warm starts from the truth replace its grid of starts (so
        `start_objectives`, `starts_agree`, `flatness` and `notes` are those of the noise-free grid).

    Raises:
        DataError: see `noise_free_fit`; noise not above 0; no sweeps.
    """
    if not (np.isfinite(noise) and noise > 0) or sweeps < 1:
        raise DataError(f"noise {noise:g}, {sweeps} sweeps: need noise above 0 (0.005 = 0.5 % of the loss) and a sweep")
    base = noise_free_fit(law, grid)
    rng = np.random.default_rng(seed)
    logs = np.log(np.asarray(law.predict(grid.params, grid.tokens)))
    logs = logs + noise * rng.standard_normal((sweeps, len(grid)))
    laws, converged = refit(base, log_loss=logs, thorough=True)
    theta = base.frame.theta(laws)
    residuals = logs - log_terms(theta, base.frame)[0]
    objective = base.minimized.of_residuals(residuals).sum(axis=1)
    return [
        replace(
            base,
            law=base.frame.law(theta[i]),
            objective=float(objective[i]),
            residuals=residuals[i],
            converged=bool(converged[i]),
            at_bounds=base.frame.at_bounds(theta[i]),
            theta=theta[i],
            log_loss=logs[i],
        )
        for i in range(sweeps)
    ]
