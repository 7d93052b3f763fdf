"""What a fit of any form of law leaves.

Enters: what `general` found. Leaves: `FormFit`, which predicts and says whether its constants may be quoted.
The one decision worth knowing: a constant that no run depends on is trouble, not a number that happens to be its start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from speechscale.scaling.fitting.columns import Columns
from speechscale.scaling.fitting.form_model import FormModel
from speechscale.scaling.fitting.newton import Objective
from speechscale.scaling.laws import LossLaw

_DEGENERATE = 1e-10  # a scaled curvature that is rounding only


@dataclass(frozen=True, slots=True, kw_only=True)
class FormFit:
    """A point fit of a form.

    Args:
        constants: by name. held: of them, those that were given and not fitted.
        basins: (objective, constants) of every distinct end of the starts, best first.
        starts_agree: starts that ended within 1e-6 of the best. at_bounds: constants on the border of the search.
        unmeasured: fitted constants that no run depends on; they stay where their start was.
        flatness: smallest eigenvalue of the scaled curvature of the fitted constants; near 0 = a flat valley.
        residuals: log loss minus log law.
    """

    name: str
    constants: Mapping[str, float]
    held: tuple[str, ...]
    objective: float
    minimized: Objective
    runs: int
    starts: int
    starts_agree: int
    basins: tuple[tuple[float, Mapping[str, float]], ...]
    converged: bool
    at_bounds: tuple[str, ...]
    unmeasured: tuple[str, ...]
    flatness: float
    residuals: Float[np.ndarray, " runs"] = field(repr=False)
    notes: tuple[str, ...]
    model: FormModel = field(repr=False)
    theta: Float[np.ndarray, " parameters"] = field(repr=False)
    fixed: Bool[np.ndarray, " parameters"] = field(repr=False)
    ends: Float[np.ndarray, "basins parameters"] = field(repr=False)
    log_loss: Float[np.ndarray, " runs"] = field(repr=False)

    @property
    def law(self) -> LossLaw | None:
        """The five-term law inside, None where the form has none."""
        if not self.model.form.base:
            return None
        return LossLaw(**{name: self.constants[name] for name in ("E", "A", "B", "alpha", "beta")})

    @property
    def targets(self) -> Float[np.ndarray, " runs"]:
        return np.exp(self.log_loss) if self.minimized.raw else self.log_loss

    @property
    def free(self) -> int:
        """Fitted constants."""
        return int((~self.fixed).sum())

    @property
    def residual_sd(self) -> float:
        """Standard deviation of the log residuals, fitted constants counted."""
        return float(np.sqrt(np.sum(self.residuals**2) / max(1, self.runs - self.free)))

    @property
    def trouble(self) -> str:
        """Why the constants must not be quoted, "" if they may."""
        if self.at_bounds:
            return f"{', '.join(self.at_bounds)} ended on the border of the search"
        if self.unmeasured:
            return f"no run depends on {', '.join(self.unmeasured)}"
        if not self.converged:
            return "the fit did not converge"
        return "some constants trade off exactly in these runs" if self.flatness < _DEGENERATE else ""

    @property
    def r2(self) -> float:
        """Share of the variance of the losses that the law explains; 0 where they do not vary."""
        loss = np.exp(self.log_loss)
        missed = loss - np.exp(self.log_loss - self.residuals)
        total = float(np.sum((loss - loss.mean()) ** 2))
        return 1 - float(np.sum(missed**2)) / total if total > 1e-24 * len(loss) else 0.0

    def predict(self, x: Columns) -> Float[np.ndarray, " runs"]:
        """Losses of other runs, given the form's columns."""
        columns = {name: np.atleast_1d(np.asarray(x[name], float)) for name in self.model.form.columns}
        return np.exp(self.model.form.log_law(self.theta[None], columns)[0])
