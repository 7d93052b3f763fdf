"""Envelopes: the lowest loss that an arm reached at each budget, with the noise of its runs.

Enters: the runs of one arm. Leaves: `Sweep` (its grid, seeds averaged, with noise) and `Envelope`.
The one decision worth knowing: seeds are averaged before the best size is picked, so that an arm with more seeds gets
no better lowest loss by luck; every replicate picks anew, so the luck of picking is inside the intervals.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The grid of one arm: one cell per (size, budget), seeds averaged.

    Args:
        compute_flops: what a cell is charged; equals budget_flops unless other compute is added.
        loss_sd: noise of each cell, None when nothing measured it. noise: what it is made of.
        spread_measured: whether run-to-run spread is part of it (test-data sampling alone is too little).
    """

    arm: str
    params: Float[np.ndarray, " cells"]
    budget_flops: Float[np.ndarray, " cells"]
    compute_flops: Float[np.ndarray, " cells"]
    loss: Float[np.ndarray, " cells"]
    loss_sd: Float[np.ndarray, " cells"] | None
    noise: str
    spread_measured: bool
    runs: int

    @property
    def budgets(self) -> Float[np.ndarray, " budgets"]:
        return np.unique(self.budget_flops)

    def draw(self, replicates: int, rng: np.random.Generator) -> Float[np.ndarray, "replicates cells"]:
        """Draw losses within their noise (multiplicative, so that they stay positive)."""
        assert self.loss_sd is not None
        return self.loss * np.exp(self.loss_sd / self.loss * rng.standard_normal((replicates, len(self.loss))))


def make_sweep(
    arm: str,
    params: Float[np.ndarray, " runs"],
    budget_flops: Float[np.ndarray, " runs"],
    loss: Float[np.ndarray, " runs"],
    *,
    loss_se: Float[np.ndarray, " runs"] | None = None,
    compute_flops: Float[np.ndarray, " runs"] | None = None,
) -> Sweep:
    """Average the seeds of each (size, budget) and measure the noise.

    The noise of a cell is its standard error (sampling of the test data) combined in quadrature with the run-to-run
    spread: between seeds where there are any, else the misfit of a smooth surface of log loss over log N and log C.

    Raises:
        DataError: arrays of different lengths, no run, NaN or non-positive numbers.
    """
    given = {"params": params, "budget_flops": budget_flops, "loss": loss, "loss_se": loss_se, "compute": compute_flops}
    table = {name: np.asarray(values, float) for name, values in given.items() if values is not None}
    runs = len(table["loss"])
    if not runs or any(v.shape != (runs,) for v in table.values()):
        raise DataError(f"arm {arm}: need one number per run in each of {', '.join(table)}, and at least one run")
    for name, values in table.items():
        bad = np.flatnonzero(~np.isfinite(values) | (values < 0) | ((values == 0) & (name != "loss_se")))
        if len(bad):
            raise DataError(f"arm {arm}: {name} of run {bad[0]} is {values[bad[0]]}; drop diverged runs first")
    keys, cell = np.unique(np.stack([table["budget_flops"], table["params"]], axis=1), axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    count = np.bincount(cell)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(cell, values) / count

    means = mean(table["loss"])
    spread, source = _run_spread(table["loss"], cell, means, keys)
    parts, sd = [], np.zeros(len(means))
    if "loss_se" in table:
        # Seeds share one test set, so its sampling error does not shrink with more of them.
        sd, parts = np.sqrt(mean(table["loss_se"] ** 2)), ["measured standard errors"]
    if spread is not None:
        sd, parts = np.hypot(sd, spread * means / np.sqrt(count)), [*parts, f"{source} ({100 * spread:.2g} %)"]
    return Sweep(
        arm=arm,
        params=keys[:, 1],
        budget_flops=keys[:, 0],
        compute_flops=mean(table["compute"]) if "compute" in table else keys[:, 0],
        loss=means,
        loss_sd=sd if parts else None,
        spread_measured=spread is not None,
        noise=" combined with ".join(parts) if parts else "not measured (no standard errors, no seeds, too few runs)",
        runs=runs,
    )


def _run_spread(loss: np.ndarray, cell: np.ndarray, means: np.ndarray, keys: np.ndarray) -> tuple[float | None, str]:
    """Return the relative run-to-run spread and its source, None when there is nothing to measure it on."""
    freedom = len(loss) - len(means)
    if freedom > 0:
        return float(np.sqrt(np.sum(np.log(loss / means[cell]) ** 2) / freedom)), "spread between seeds"
    c, n = np.log(keys).T - np.log(keys).mean(axis=0)[:, None]
    surfaces = (([np.ones_like(n), n, c, n * n, n * c, c * c], 3), ([np.ones_like(n), n, c], 2))
    for columns, least_freedom in surfaces:
        design = np.stack(columns, axis=1)
        solution, _, rank, _ = np.linalg.lstsq(design, np.log(means), rcond=1e-9)
        if len(means) - rank >= least_freedom:
            misfit = np.log(means) - design @ solution
            spread = float(np.sqrt(np.sum(misfit**2) / (len(means) - rank)))
            return spread, "misfit of a smooth surface over (N, C)"
    return None, ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The lowest loss of each budget, ascending. replicate_*: the same for noisy losses, None without noise."""

    arm: str
    budget_flops: Float[np.ndarray, " budgets"]
    compute_flops: Float[np.ndarray, " budgets"]
    loss: Float[np.ndarray, " budgets"]
    params: Float[np.ndarray, " budgets"]
    replicate_loss: Float[np.ndarray, "replicates budgets"] | None = field(repr=False)
    replicate_compute: Float[np.ndarray, "replicates budgets"] | None = field(repr=False)
    noise: str


def envelope(sweep: Sweep, *, replicates: int = 1000, seed: int = 0) -> Envelope:
    """Pick the best size of each budget, once for the measured losses and again in every replicate."""
    budgets = sweep.budgets
    cells = [np.flatnonzero(sweep.budget_flops == b) for b in budgets]
    best = np.array([rows[sweep.loss[rows].argmin()] for rows in cells])
    noisy_loss = noisy_compute = None
    if sweep.loss_sd is not None:
        drawn = sweep.draw(replicates, np.random.default_rng(seed))
        picks = np.stack([rows[drawn[:, rows].argmin(axis=1)] for rows in cells], axis=1)  # (R, budgets)
        noisy_loss, noisy_compute = np.take_along_axis(drawn, picks, axis=1), sweep.compute_flops[picks]
    return Envelope(
        arm=sweep.arm,
        budget_flops=budgets,
        compute_flops=sweep.compute_flops[best],
        loss=sweep.loss[best],
        params=sweep.params[best],
        replicate_loss=noisy_loss,
        replicate_compute=noisy_compute,
        noise=sweep.noise,
    )
