"""Fit L(N, D) = E + A/N^alpha + B/D^beta to a table of runs: global start, then damped Newton, many fits at once.

Enters: N, D, loss of each run (one entry per run), optional weights. Leaves: `Fit` (point fit and how far to trust it)
and, for bootstraps, `LossLaw`s whose fields are arrays.
The one decision worth knowing: the objective is the SUM over runs of huber_delta(log loss - log law) unless another is
asked for, solved in centred logarithms, so that a tolerance means the same for every table.

Source: Hoffmann et al. 2022, equation 3 (objective); the start is variable projection, linear in E, A, B.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from speechscale.errors import DataError
from speechscale.scaling.fitting.newton import Kind, Objective, descend, refine
from speechscale.scaling.fitting.solve import Frame, SumModel, flatness, log_terms, make_frame, projection_starts
from speechscale.scaling.laws import LossLaw

LOSSES = (1e-6, 1e6)
"""What a loss in nats per token may be; anything else is another column."""
MIN_RUNS = 6
"""One more than the five constants of the law."""
_FIRST_STEPS = 60  # of a replicate, before it is tried through easier problems
_CHUNK = 30_000  # runs times replicates of a batch: its working set stays in the processor's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A point fit.

    Args:
        objective: the sum at the optimum. minimized: what it is a sum of.
        residuals: log loss minus log law, one per run.
        start_objectives: what each start ended at; starts_agree: how many of them within 1e-6 (relative) of the best.
        second_basin: objective of the best other optimum found, None when all starts agree.
        converged: the predicted decrease of a further step is below 1e-10 of the objective.
        at_bounds: constants that ended on the border of the search box (then they are not measured).
        flatness: smallest eigenvalue of the scaled curvature; near 0 = some direction is hardly determined.
        notes: plain sentences on what weakens the fit.
    """

    law: LossLaw
    objective: float
    minimized: Objective
    runs: int
    residuals: Float[np.ndarray, " runs"]
    start_objectives: tuple[float, ...]
    starts_agree: int
    second_basin: float | None
    converged: bool
    at_bounds: tuple[str, ...]
    flatness: float
    notes: tuple[str, ...]
    theta: Float[np.ndarray, " 5"] = field(repr=False)
    frame: Frame = field(repr=False)
    log_loss: Float[np.ndarray, " runs"] = field(repr=False)

    @property
    def targets(self) -> Float[np.ndarray, " runs"]:
        """What the law is fitted to: log losses, or losses under a raw objective."""
        return np.exp(self.log_loss) if self.minimized.raw else self.log_loss

    @property
    def model(self) -> SumModel:
        return SumModel(self.frame, self.minimized.raw)

    @property
    def trouble(self) -> str:
        """Why the constants must not be quoted, "" if they may."""
        if self.at_bounds:
            return f"{', '.join(self.at_bounds)} ended on the border of the search"
        return "" if self.converged else "the fit did not converge"

    @property
    def residual_sd(self) -> float:
        """Standard deviation of the log residuals, five constants counted."""
        return float(np.sqrt(np.sum(self.residuals**2) / max(1, self.runs - 5)))


def fit_loss_law(
    N: Float[np.ndarray, " runs"],
    D: Float[np.ndarray, " runs"],
    loss: Float[np.ndarray, " runs"],
    *,
    delta: float = 1e-3,
    weights: Float[np.ndarray, " runs"] | None = None,
    objective: Kind = "log-huber",
) -> Fit:
    """Fit the law, from the three best starts of a global grid.

    Example: on runs drawn from LossLaw(E=1.8, A=480, B=2100, alpha=.35, beta=.37) it returns these constants.

    Args:
        N: parameters, D: tokens, loss: nats per token; one entry per run.
        delta: Huber threshold in log loss (nats if raw). weights: how often each run counts, default 1.
        objective: a key of `newton.KINDS`.

    Raises:
        DataError: arrays of different lengths, NaN, infinite or non-positive numbers, fewer than six runs, one size,
            one token count, or tokens that are a fixed multiple of parameters.
    """
    N, D, loss = _checked_runs(N, D, loss)
    runs = len(loss)
    w = np.ones(runs) if weights is None else np.asarray(weights, float)
    if w.shape != loss.shape or not np.all(np.isfinite(w)) or w.min() < 0 or w.sum() <= 0:
        raise DataError(f"weights: need {runs} finite numbers >= 0, one per run, not all 0")
    minimized = Objective(kind=objective, delta=delta)
    frame, y = make_frame(N, D, loss), np.log(loss)
    theta = projection_starts(frame, loss, w)
    copies = (len(theta), runs)
    targets = np.broadcast_to(loss if minimized.raw else y, copies)
    theta, objectives, converged = descend(
        theta, SumModel(frame, minimized.raw), targets, np.broadcast_to(w, copies), minimized, patient=True
    )
    objectives = objectives / minimized.unit
    best = int(np.argmin(objectives))
    scale = max(objectives[best], 1e-12)
    agree = objectives - objectives[best] < 1e-6 * scale
    others = objectives[~agree]
    residuals = y - log_terms(theta[best : best + 1], frame)[0][0]
    at_bounds = frame.at_bounds(theta[best])
    return Fit(
        law=frame.law(theta[best]),
        objective=float(objectives[best]),
        minimized=minimized,
        runs=runs,
        residuals=residuals,
        start_objectives=tuple(float(x) for x in objectives),
        starts_agree=int(agree.sum()),
        second_basin=float(others.min()) if len(others) else None,
        converged=bool(converged[best]),
        at_bounds=at_bounds,
        flatness=flatness(theta[best], frame, w),
        notes=_notes(N, D, at_bounds, int(agree.sum()), len(objectives)),
        theta=theta[best],
        frame=frame,
        log_loss=y,
    )


def refit(
    fit: Fit,
    *,
    weights: Float[np.ndarray, "replicates runs"] | None = None,
    log_loss: Float[np.ndarray, "replicates runs"] | None = None,
    thorough: bool = False,
) -> tuple[LossLaw, Bool[np.ndarray, " replicates"]]:
    """Refit many replicates of one table at once, warm-started from its point fit.

    Give run weights (bootstrap by run or cluster), perturbed log losses (residual bootstrap), or both.

    Args:
        thorough: solve every replicate a second time through easier problems, not only the doubtful ones. A resample
            with two basins (1 of 4,000 on Epoch's table) then ends in the lower one, at three times the price.

    Returns:
        A law whose fields have one entry per replicate, and which replicates converged.
    """
    assert weights is not None or log_loss is not None
    count = len(weights) if weights is not None else len(log_loss)  # type: ignore[arg-type]
    w = np.broadcast_to(1.0, (count, fit.runs)) if weights is None else weights
    logs = np.broadcast_to(fit.log_loss, (count, fit.runs)) if log_loss is None else log_loss
    y = np.exp(logs) if fit.minimized.raw else logs
    theta = np.tile(fit.theta, (count, 1))
    objective = np.empty(count)
    converged = np.zeros(count, bool)
    last = fit.minimized.stages[-1]
    batch = max(1, min(128, _CHUNK // fit.runs))
    for first in range(0, count, batch):
        part = slice(first, first + batch)
        theta[part], objective[part], converged[part] = refine(
            theta[part], fit.model, y[part], w[part], last, steps=_FIRST_STEPS
        )
    # A warm start can end in a worse basin. Replicates that stopped short or lie far above the rest are solved again
    # through easier problems (a wide Huber is nearly quadratic) and keep the better end.
    doubtful = np.flatnonzero(~converged | (objective > np.median(objective) * 1.6) | thorough)
    for first in range(0, len(doubtful), batch):
        rows = doubtful[first : first + batch]
        again, value, done = descend(np.tile(fit.theta, (len(rows), 1)), fit.model, y[rows], w[rows], fit.minimized)
        better = (value < objective[rows]) | (done & ~converged[rows] & (value <= objective[rows] * (1 + 1e-6)))
        theta[rows[better]], objective[rows[better]] = again[better], value[better]
        converged[rows[better]] = done[better]
    return fit.frame.law(theta), converged


def strange_losses(loss: Float[np.ndarray, " runs"]) -> str:
    """Say which losses cannot be nats per token, "" if all can. Example: strange_losses(np.array([2.1, 2.0])) -> "" """
    strange = np.flatnonzero((loss < LOSSES[0]) | (loss > LOSSES[1]))
    if not len(strange):
        return ""
    return (
        f"loss of run {strange[0]} is {loss[strange[0]]:.3g} ({len(strange)} such runs): no loss in nats per token "
        f"lies outside {LOSSES[0]:g} to {LOSSES[1]:g}; check which column it is"
    )


def _checked_runs(N: np.ndarray, D: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    N, D, loss = np.asarray(N, float), np.asarray(D, float), np.asarray(loss, float)
    if not (N.ndim == 1 and N.shape == D.shape == loss.shape):
        raise DataError(f"N, D, loss: need one number per run each, got shapes {N.shape}, {D.shape}, {loss.shape}")
    for name, values in (("N", N), ("D", D), ("loss", loss)):
        bad = np.flatnonzero(~np.isfinite(values) | (values <= 0))
        if len(bad):
            raise DataError(
                f"{name} of run {bad[0]} is {values[bad[0]]} ({len(bad)} such runs): must be finite and above 0; "
                "drop diverged runs first and say how many"
            )
    if strange := strange_losses(loss):
        raise DataError(strange)
    if len(loss) < MIN_RUNS:
        raise DataError(f"{len(loss)} runs: a law of five constants needs at least {MIN_RUNS}; add runs")
    for name, values in (("sizes", N), ("token counts", D)):
        if len(np.unique(values)) < 2:
            raise DataError(
                f"all runs have one value {values[0]:g} of the {name}: need at least 2 different; widen the grid"
            )
    if np.ptp(np.log(D / N)) < 1e-3:
        raise DataError(
            f"every run has the same {D[0] / N[0]:.3g} tokens per parameter: alpha, beta, E are not separable"
        )
    return N, D, loss


def _notes(N: np.ndarray, D: np.ndarray, at_bounds: tuple[str, ...], agree: int, starts: int) -> tuple[str, ...]:
    notes = []
    correlation = float(np.corrcoef(np.log(N), np.log(D))[0, 1])
    if abs(correlation) > 0.9:
        notes.append(f"log N and log D are correlated ({correlation:+.2f}): alpha, beta and E are hardly separable")
    if at_bounds:
        notes.append(f"{', '.join(at_bounds)} ended on the border of the search: not measured by these runs")
    if agree < starts:
        notes.append(f"only {agree} of {starts} starts reached the best optimum")
    if len(np.unique(N)) < 4:
        notes.append(f"only {len(np.unique(N))} sizes")
    return tuple(notes)
