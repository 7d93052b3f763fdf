"""Damped Newton for many small fits at once: robust sums of residuals, parameters in a box.

Enters: a `Model`, targets y and run weights of each replicate. Leaves: parameter vectors theta.
The one decision worth knowing: no replicate ever loops in Python; a replicate that has converged leaves the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float

from speechscale.errors import DataError

Kind = Literal["log-huber", "lad", "mse", "raw-huber", "raw-mse"]
KINDS: dict[Kind, str] = {
    "log-huber": "sum of Huber losses of log loss minus log law (Hoffmann et al. 2022, equation 3)",
    "lad": "sum of absolute values of log loss minus log law",
    "mse": "half the sum of squares of log loss minus log law",
    "raw-huber": "sum of Huber losses of loss minus law, in nats",
    "raw-mse": "half the sum of squares of loss minus law, in nats",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What a fit minimizes: a SUM over runs, never a mean (a mean with default tolerances stops after two steps).

    Args:
        delta: threshold of Huber losses, in log loss or nats; not used by "lad" and "mse".
    """

    kind: Kind = "log-huber"
    delta: float = 1e-3

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"objective '{self.kind}': allowed are {', '.join(KINDS)}")
        if not (np.isfinite(self.delta) and self.delta > 0):
            raise DataError(f"delta {self.delta}: must be above 0 (in log loss; nats for raw objectives)")

    @property
    def raw(self) -> bool:
        return self.kind.startswith("raw")

    @property
    def stages(self) -> tuple[float, ...]:
        """Huber thresholds, the wanted one last; absolute values are the limit of small ones."""
        if self.kind.endswith("mse"):
            return (_QUADRATIC,)
        if self.kind == "lad":
            return (3e-2, 3e-3, 3e-4, 3e-5, 3e-6, 3e-7, _ABSOLUTE)
        return (30 * self.delta, 3 * self.delta, self.delta)

    @property
    def unit(self) -> float:
        """What the solver's sum is divided by: a Huber loss of a tiny threshold is that much times |residual|."""
        return _ABSOLUTE if self.kind == "lad" else 1.0

    def score(self, predicted: Float[np.ndarray, " runs"], loss: Float[np.ndarray, " runs"]) -> float:
        """The sum that any law's predictions have on these losses."""
        residual = loss - predicted if self.raw else np.log(loss / predicted)
        return float(self.of_residuals(residual).sum())

    def of_residuals(self, residual: Float[np.ndarray, "*runs"]) -> Float[np.ndarray, "*runs"]:
        """What each residual adds to the sum."""
        if self.kind == "lad":
            return np.abs(residual)
        return huber(residual, self.stages[-1])


STEPS = 100
"""Of one replicate and stage; 8 are usual."""
MOST_STEPS = 4000
_QUADRATIC = 1e6  # a Huber threshold that no residual reaches
_ABSOLUTE = 3e-9  # and one that every residual passes


class Model(Protocol):
    """A law with its data: a box of parameters and the derivatives of its robust sum."""

    @property
    def low(self) -> Float[np.ndarray, " parameters"]: ...

    @property
    def high(self) -> Float[np.ndarray, " parameters"]: ...

    def objective(self, theta: np.ndarray, y: np.ndarray, w: np.ndarray, delta: float) -> np.ndarray:
        """Weighted sum of Huber losses, one per replicate."""

    def derivatives(
        self, theta: np.ndarray, y: np.ndarray, w: np.ndarray, delta: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gradient (R, P), curvature (R, P, P) and Huber majoriser (R, P, P)."""


def refine(
    theta: Float[np.ndarray, "replicates parameters"],
    model: Model,
    y: Float[np.ndarray, "replicates runs"],
    w: Float[np.ndarray, "replicates runs"],
    delta: float,
    *,
    steps: int = STEPS,
    tolerance: float = 1e-10,
    held: Bool[np.ndarray, " parameters"] | None = None,
) -> tuple[
    Float[np.ndarray, "replicates parameters"], Float[np.ndarray, " replicates"], Bool[np.ndarray, " replicates"]
]:
    """Run damped Newton on each replicate until a further step promises less than `tolerance` of the objective.

    The step solves (H + damping * M) s = -g with the curvature H of the model and the Huber majoriser M, a
    trust region that does not depend on the units of the parameters.

    Args:
        held: parameters that stay where they start (a profile).
    """
    theta = np.clip(theta, model.low, model.high)
    objective = model.objective(theta, y, w, delta)
    converged = np.zeros(len(theta), bool)
    damping = np.full(len(theta), 1e-3)
    floor = 1e-15 * min(delta, 1e-3) * w.sum(axis=1)  # of residuals near 1e-9: an exact table has nothing left to gain
    live = np.arange(len(theta))
    gradient, hessian, major = model.derivatives(theta, y, w, delta)
    for _ in range(steps):
        now = theta[live]
        step, gain = _newton_step(now, gradient, hessian, major, damping[live], model, held)
        # A step along which the model does not fall (gain <= 0) has indefinite curvature: damp more, do not stop.
        tiny = (gain >= 0) & (gain < tolerance * objective[live] + floor[live]) & (damping[live] <= 1.0)
        trial = np.clip(now + step, model.low, model.high)
        value = model.objective(trial, y[live], w[live], delta)
        accepted = (gain > 0) & (value <= objective[live])
        ratio = (objective[live] - value) / np.where(gain > 0, gain, 1.0)
        factor = np.where(accepted & (ratio > 0.7), 0.3, np.where(accepted & (ratio > 0.2), 1.0, 10.0))
        damping[live] = np.clip(damping[live] * factor, 1e-9, 1e12)
        theta[live[accepted]], objective[live[accepted]] = trial[accepted], value[accepted]
        converged[live[tiny]] = True
        stay = ~tiny & (damping[live] < 1e12)
        moved = accepted[stay]
        live = live[stay]
        if len(live) == 0:
            break
        gradient, hessian, major = gradient[stay], hessian[stay], major[stay]
        if moved.any():
            rows = live[moved]
            gradient[moved], hessian[moved], major[moved] = model.derivatives(theta[rows], y[rows], w[rows], delta)
    return theta, objective, converged


def descend(
    theta: Float[np.ndarray, "replicates parameters"],
    model: Model,
    y: Float[np.ndarray, "replicates runs"],
    w: Float[np.ndarray, "replicates runs"],
    objective: Objective,
    *,
    held: Bool[np.ndarray, " parameters"] | None = None,
    patient: bool = False,
) -> tuple[
    Float[np.ndarray, "replicates parameters"], Float[np.ndarray, " replicates"], Bool[np.ndarray, " replicates"]
]:
    """Refine through the objective's stages, easier problems first and not to their end.

    Args:
        patient: rows that did not converge go on for up to MOST_STEPS; for point fits and profiles.
    """
    *easier, last = objective.stages
    for stage, delta in enumerate(easier, start=1):
        tolerance = 1e-3 if stage < len(easier) else 1e-5
        theta, _, _ = refine(theta, model, y, w, delta, tolerance=tolerance, held=held)
    theta, value, done = refine(theta, model, y, w, last, held=held)
    if patient and not done.all():
        # In a flat valley with narrow thresholds the way leads over many kinks, each a step of its own.
        rows = np.flatnonzero(~done)
        theta[rows], value[rows], done[rows] = refine(
            theta[rows], model, y[rows], w[rows], last, held=held, steps=MOST_STEPS
        )
    return theta, value, done


def _newton_step(
    theta: np.ndarray,
    gradient: np.ndarray,
    hessian: np.ndarray,
    major: np.ndarray,
    damping: np.ndarray,
    model: Model,
    held: np.ndarray | None,
) -> tuple[Float[np.ndarray, "replicates parameters"], Float[np.ndarray, " replicates"]]:
    """Solve for the step and the decrease its model promises; parameters pushed into the box wall stay put."""
    blocked = ((theta <= model.low) & (gradient > 0)) | ((theta >= model.high) & (gradient < 0))
    if held is not None:
        blocked = blocked | held
    system = hessian + damping[:, None, None] * major
    system = np.where(blocked[:, :, None] | blocked[:, None, :], 0.0, system)
    index = np.arange(theta.shape[1])
    # The floor keeps the system regular where a term has vanished and no run feels its parameters.
    floor = 1e-12 * major[:, index, index].max(axis=1)[:, None] + 1e-300
    system[:, index, index] += np.where(blocked, 1.0, floor)
    free = np.where(blocked, 0.0, gradient)
    step = -_solved(system, free)
    step = np.clip(step, -2.0, 2.0)
    curvature = np.einsum("ri,rij,rj->r", step, hessian, step)
    return step, -(free * step).sum(axis=1) - 0.5 * curvature


def huber(residual: np.ndarray, delta: float) -> np.ndarray:
    size = np.abs(residual)
    inner = np.minimum(size, delta)
    return inner * (size - 0.5 * inner)


def _solved(system: np.ndarray, right: np.ndarray) -> Float[np.ndarray, "replicates parameters"]:
    """Solve each system; where one is singular to the last bit (a flat curve), the shortest least-squares solutions."""
    try:
        return np.asarray(np.linalg.solve(system, right[:, :, None])[:, :, 0])
    except np.linalg.LinAlgError:
        return np.asarray((np.linalg.pinv(system, hermitian=True) @ right[:, :, None])[:, :, 0])
