"""Power of a planned sweep: how wide its intervals will be, before any of it is trained.

Enters: an assumed law, a grid of runs, the noise of a run. Leaves: `Power`: per quantity the expected width, the spread
of the estimates, bias and coverage over simulated sweeps.
The one decision worth knowing: each simulated sweep is fitted and bootstrapped by the same functions as a real one, so
the width is that of the interval that will be printed, not that of an ideal estimator.

Noise is independent and log-normal around the law; a real law is not quite a sum of two powers and a real run is not
quite tuned, so true sweeps are wider, never narrower.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.progress import Progress, Watch
from speechscale.scaling.fitting.bootstrap import bootstrap_law
from speechscale.scaling.fitting.fit import Fit
from speechscale.scaling.intervals import LEVEL
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.planning.simulate import SPREAD, Grid, simulate, spread_grid

NOISE = 0.005
"""Standard deviation of log loss between a law and a run, where nothing better is known."""
EXTRAPOLATION = 100.0
"""Compute of the target over that of the most expensive run, unless told."""
SETTLES = 0.8
"""A sweep settles a question if at least this share of its repetitions would answer it."""
PLAIN = ("exp_params", "exp_tokens", "alpha", "beta", "E", "loss_target")
"""Quantities whose interval has a width."""
FACTORS = ("params_opt", "tokens_opt")
"""Quantities at the target whose interval is a factor, high / low."""
QUANTITIES = (*PLAIN, *FACTORS)
_VANISHED = 0.01  # of the lowest loss: an E below has been lost to the power terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What sweeps say of one quantity.

    Args:
        truth: under the assumed law. factor: then width, spread and bias are of the logarithm, given as factors >= 1
            (1 = nothing) but bias (1 = none, 0.5 = half the truth).
        width: median of high - low over the sweeps (high / low if a factor). width_se: standard error of that median,
            from the number of sweeps. low, high: medians of the ends.
        spread: standard deviation of the estimates over the sweeps. bias: their median minus (over) the truth.
        coverage: share of intervals that hold the truth; coverage_se: its binomial standard error.
    """

    name: str
    truth: float
    width: float
    width_se: float
    low: float
    high: float
    spread: float
    bias: float
    coverage: float
    coverage_se: float
    factor: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What a grid can be expected to measure.

    Args:
        expected: by quantity, see `QUANTITIES`. target_flops: compute at which optima and the loss are asked for.
        unidentified: share of sweeps whose point fit did not converge, ended on a border, or lost E.
        replicates_converged: share of bootstrap replicates that converged.
        side_settled: share of sweeps whose interval of exp_params excludes 0.5, on the right side.
        cost_flops: of the whole grid. by: what the bootstrap resampled.
    """

    law: LossLaw
    what: str
    runs: int
    noise: float
    sweeps: int
    replicates: int
    seed: int
    target_flops: float
    expected: dict[str, Expected]
    unidentified: float
    replicates_converged: float
    side_settled: float
    cost_flops: float
    by: str

    def gpu_hours(self, gpu_flops: float) -> float:
        """Hours of one device that does `gpu_flops` useful FLOPs a second. Example: power.gpu_hours(4e14)"""
        if not (np.isfinite(gpu_flops) and gpu_flops > 0):
            raise DataError(f"{gpu_flops:g} FLOPs per second of a GPU: must be above 0, e.g. 4e14")
        return self.cost_flops / gpu_flops / 3600


def power(
    law: LossLaw,
    *,
    budgets: tuple[float, float, int] = (1e18, 1e20, 5),
    sizes: int = 8,
    spread: float = SPREAD,
    grid: Grid | None = None,
    noise: float = NOISE,
    sweeps: int = 100,
    replicates: int = 300,
    target_flops: float | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Power:
    """Simulate sweeps of a grid under a law and say what their intervals would be.

    Example: power(LAWS["cuervo-speech"].law).expected["exp_params"].width -> 0.24

    Args:
        law: assumed to be true. budgets, sizes, spread: see `spread_grid`. grid: any other grid instead of these.
        noise: standard deviation of log loss around the law. sweeps: simulated. replicates: of each bootstrap.
        target_flops: default 100 times the most expensive run.
        watch: called after every sweep.

    Raises:
        DataError: see `simulate`; fewer than 20 sweeps or replicates.
    """
    for name, count in (("sweeps", sweeps), ("replicates", replicates)):
        if count < 20:
            raise DataError(f"{count} {name}: need at least 20 to speak of intervals")
    grid = spread_grid(law, budgets, sizes, spread=spread) if grid is None else grid
    target = EXTRAPOLATION * float(grid.flops.max()) if target_flops is None else float(target_flops)
    if not (np.isfinite(target) and target > 0):
        raise DataError(f"target of {target:g} FLOPs: must be above 0")
    began = time.monotonic()
    points, ends, converged = [], [], []
    by = ""
    fits = simulate(law, grid, noise=noise, sweeps=sweeps, seed=seed)
    for done, fit in enumerate(fits, start=1):
        boot = bootstrap_law(fit, replicates=replicates, seed=seed + done)
        by = boot.method
        points.append(quantities(fit.law, target))
        ends.append(_percentiles(quantities(boot.law, target)))
        converged.append(boot.converged)
        if watch is not None:
            watch(Progress(items_done=done, items_total=sweeps, wall_s=time.monotonic() - began))
    truth = quantities(law, target)
    expected = {
        name: _expected(name, truth[i], np.array([p[i] for p in points]), np.array([e[:, i] for e in ends]))
        for i, name in enumerate(QUANTITIES)
    }
    exponent = np.array([e[:, 0] for e in ends])
    beyond = exponent[:, 0] > 0.5 if law.exp_params > 0.5 else exponent[:, 1] < 0.5
    lowest = float(np.min(law.predict(grid.params, grid.tokens)))
    return Power(
        law=law,
        what=grid.what,
        runs=len(grid),
        noise=noise,
        sweeps=sweeps,
        replicates=replicates,
        seed=seed,
        target_flops=target,
        expected=expected,
        unidentified=float(np.mean([_unidentified(fit, lowest) for fit in fits])),
        replicates_converged=float(np.mean(converged)),
        side_settled=0.0 if law.exp_params == 0.5 else float(np.mean(beyond)),
        cost_flops=grid.cost_flops,
        by=by,
    )


def quantities(law: LossLaw, target: float) -> Float[np.ndarray, "..."]:
    """QUANTITIES of laws, one row each, factors as logarithms; an optimum beyond all numbers is infinite."""
    with np.errstate(over="ignore", divide="ignore"):
        best = law.optimum(target)
        logs = np.log(best.params_opt), np.log(best.tokens_opt)
    plain: tuple[Any, ...] = (law.exp_params, law.exp_tokens, law.alpha, law.beta, law.E, best.loss)
    return np.stack(np.broadcast_arrays(*plain, *logs)).astype(float)


def _percentiles(values: Float[np.ndarray, "quantities replicates"]) -> Float[np.ndarray, "2 quantities"]:
    tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    ends: np.ndarray = np.quantile(values, tails, axis=1, method="inverted_cdf")
    return ends


def _expected(
    name: str, truth: float, points: Float[np.ndarray, " sweeps"], ends: Float[np.ndarray, "sweeps 2"]
) -> Expected:
    low, high = ends.T
    held = float(np.mean((low <= truth) & (truth <= high)))
    width = np.where(np.isfinite(low) & np.isfinite(high), high, np.inf) - np.where(np.isfinite(low), low, 0.0)
    shape: Callable[[Any], float] = _grown if name in FACTORS else float
    return Expected(
        name=name,
        truth=shape(truth),
        width=shape(np.median(width)),
        width_se=shape(_median_error(width)),
        low=shape(np.median(low)),
        high=shape(np.median(high)),
        spread=shape(np.std(points, ddof=1)) if np.isfinite(points).all() else float("inf"),
        bias=shape(np.median(points) - truth),
        coverage=held,
        coverage_se=float(np.sqrt(held * (1 - held) / len(points))),
        factor=name in FACTORS,
    )


def _median_error(x: Float[np.ndarray, " sweeps"]) -> float:
    """Standard error of the median from the order statistics one binomial deviation around it."""
    ordered, step = np.sort(x), np.sqrt(len(x)) / 2
    low, high = (ordered[round((len(x) - 1) / 2 + sign * step)] for sign in (-1, 1))
    return float((high - low) / 2) if np.isfinite(high) else float("inf")


def _grown(log: Any) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(log))


def _unidentified(fit: Fit, lowest: float) -> bool:
    return not fit.converged or bool(fit.at_bounds) or float(fit.law.E) < _VANISHED * lowest
