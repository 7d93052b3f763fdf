"""Bootstrap of a fitted form of law, and any quantity of its constants through it.

Enters: a `FormFit`. Leaves: a `FormBootstrap`.
The one decision worth knowing: every replicate is solved from the best optima of the point fit; from one of them alone
the intervals of a valley with several come out too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from speechscale.scaling.fitting.columns import Columns, Theta
from speechscale.scaling.fitting.form_fit import FormFit
from speechscale.scaling.fitting.newton import refine
from speechscale.scaling.intervals import Estimate, estimate, run_weights

_CHUNK = 10_000  # runs times replicates of a batch
_MOST_STEPS = 120
_ENDS = 4  # optima of the point fit that every replicate is solved from


@dataclass(frozen=True, slots=True, kw_only=True)
class FormBootstrap:
    """Replicates of a form. constants: arrays by name. converged: share of replicates that converged."""

    fit: FormFit
    constants: Mapping[str, Float[np.ndarray, " replicates"]] = field(repr=False)
    theta: Theta = field(repr=False)
    method: str
    converged: float

    def of(self, quantity: Callable[[Mapping[str, Any]], Any]) -> Estimate:
        """Estimate any quantity of the constants. Example: boot.of(lambda c: c["R_N"] / c["R_D"])"""
        method = f"{len(self.theta)} bootstrap replicates by {self.method}, percentiles"
        return estimate(float(quantity(self.fit.constants)), np.asarray(quantity(self.constants)), method=method)

    def estimates(self) -> dict[str, Estimate]:
        """Every fitted constant with its interval."""
        found: dict[str, Estimate] = {}
        for name, value in self.fit.constants.items():
            if name in self.fit.unmeasured:
                found[name] = Estimate(value=value, low=None, high=None, method="not measured: no run depends on it")
            elif name not in self.fit.held:
                found[name] = self.of(lambda c, name=name: c[name])  # type: ignore[misc]
        return found

    def predict(self, x: Columns) -> Float[np.ndarray, "replicates runs"]:
        """Losses of other runs under every replicate."""
        columns = {name: np.atleast_1d(np.asarray(x[name], float)) for name in self.fit.model.form.columns}
        return np.exp(self.fit.model.form.log_law(self.theta, columns))


def bootstrap_form(
    fit: FormFit, *, replicates: int = 500, seed: int = 0, clusters: Sequence[Any] | None = None
) -> FormBootstrap:
    """Bootstrap a form by run, or by cluster where labels are given.

    Every replicate is solved from the best optima of the point fit and keeps the better end.
    """
    weights = run_weights(fit.runs, replicates, seed, clusters=clusters).astype(float)
    theta, values = np.tile(fit.theta, (replicates, 1)), np.full(replicates, np.inf)
    converged = np.zeros(replicates, bool)
    batch = max(1, min(128, _CHUNK // fit.runs))
    for start in fit.ends[:_ENDS]:
        for first in range(0, replicates, batch):
            rows = np.arange(first, min(first + batch, replicates))
            w = weights[rows]
            begin, y = np.tile(start, (len(rows), 1)), np.broadcast_to(fit.targets, w.shape)
            ends, value, done = refine(
                begin, fit.model, y, w, fit.minimized.stages[-1], held=fit.fixed, steps=_MOST_STEPS
            )
            better = value < values[rows]
            theta[rows[better]], values[rows[better]], converged[rows[better]] = (
                ends[better],
                value[better],
                done[better],
            )
    return FormBootstrap(
        fit=fit,
        constants=fit.model.form.constants(theta),
        theta=theta,
        method="runs" if clusters is None else "clusters",
        converged=float(converged.mean()),
    )
