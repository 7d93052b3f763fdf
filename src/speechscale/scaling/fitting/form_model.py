"""Any form of law on one table, as a model for `newton`.

Enters: a form and its columns. Leaves: the robust sum and its derivatives, for many replicates at once.
The one decision worth knowing: derivatives are central differences of the form's one formula, so no form can have a
wrong gradient; runs outside the Huber threshold pull but do not curve, as in `solve`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from speechscale.scaling.fitting.columns import Columns, Form, Theta
from speechscale.scaling.fitting.newton import huber

_STEP = 1e-5  # of central differences: errors near 1e-10 of a term
_FAR = 50.0  # a log loss that no run has


@dataclass(frozen=True, slots=True)
class FormModel:
    """A form on one table, for `newton`. raw: residuals are of the loss itself, in nats."""

    form: Form
    x: Columns
    raw: bool = False

    @property
    def low(self) -> Float[np.ndarray, " parameters"]:
        return self.form.low

    @property
    def high(self) -> Float[np.ndarray, " parameters"]:
        return self.form.high

    def value(self, theta: Theta) -> Float[np.ndarray, "replicates runs"]:
        """The law in the objective's terms: log loss, or loss if raw. Corners of the box overflow and fit nothing."""
        with np.errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"):
            logs = np.nan_to_num(self.form.log_law(theta, self.x), nan=_FAR, posinf=_FAR, neginf=-_FAR)
        return np.exp(logs) if self.raw else logs

    def objective(self, theta: np.ndarray, y: np.ndarray, w: np.ndarray, delta: float) -> np.ndarray:
        """Weighted sum of Huber losses, one per replicate."""
        return (w * huber(y - self.value(theta), delta)).sum(axis=1)

    def derivatives(
        self, theta: np.ndarray, y: np.ndarray, w: np.ndarray, delta: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gradient, Gauss-Newton curvature of the runs inside the threshold, and Huber majoriser."""
        jacobian = np.empty((*y.shape, theta.shape[1]))
        for index in range(theta.shape[1]):
            step = np.zeros(theta.shape[1])
            step[index] = _STEP
            jacobian[:, :, index] = (self.value(theta + step) - self.value(theta - step)) / (2 * _STEP)
        residual = y - self.value(theta)
        size = np.abs(residual)
        gradient = -np.einsum("rn,rnp->rp", w * np.clip(residual, -delta, delta), jacobian)
        across = jacobian.transpose(0, 2, 1)
        inside = w * (size < delta)
        pull = w * np.minimum(1.0, delta / np.maximum(size, 1e-300))
        return gradient, (across * inside[:, None, :]) @ jacobian, (across * pull[:, None, :]) @ jacobian
