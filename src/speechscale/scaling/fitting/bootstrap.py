"""Bootstrap of a fitted loss law: by run, by cluster, or by residual, and any quantity of the law through it.

Enters: a `Fit`. Leaves: a `LawBootstrap`.
The one decision worth knowing: a quantity derived from a law (an exponent, an optimum, a loss) is computed per
replicate, never by a delta formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.scaling.fitting.fit import Fit, refit
from speechscale.scaling.intervals import Estimate, estimate, run_weights
from speechscale.scaling.laws import LossLaw

SMALL_TABLE = 20
"""Below this many runs a resample often lacks a whole size, so "auto" resamples residuals instead of runs."""
ENOUGH_CONVERGED = 0.9
"""Share of replicates below which a law is not identified."""
CONSTANTS = ("E", "A", "B", "alpha", "beta", "exp_params", "exp_tokens")


def unsettled(converged: float) -> str:
    """Why intervals must not be quoted, "" if enough replicates converged. Example: unsettled(0.97) -> "" """
    if converged >= ENOUGH_CONVERGED:
        return ""
    return f"only {converged:.0%} of the replicates converged, so its intervals are of a flat valley"


def residual_losses(fit: Fit, replicates: int, seed: int) -> Float[np.ndarray, "replicates runs"]:
    """Draw log losses around the fitted law from its own residuals, widened for the five constants it used up."""
    rng = np.random.default_rng(seed)
    widening = np.sqrt(fit.runs / max(1, fit.runs - 5))
    residuals = (fit.residuals - fit.residuals.mean()) * widening
    return (fit.log_loss - fit.residuals) + rng.choice(residuals, size=(replicates, fit.runs))


@dataclass(frozen=True, slots=True, kw_only=True)
class LawBootstrap:
    """Replicates of a fit, from which any quantity gets its interval.

    Args:
        law: the replicates; its fields are arrays. method: "runs", "clusters" or "residuals".
        converged: share of replicates that converged.
    """

    fit: Fit
    law: LossLaw
    method: str
    converged: float

    def of(self, quantity: Callable[[LossLaw], Any]) -> Estimate:
        """Estimate any quantity of the law. Example: boot.of(lambda law: law.optimum(1e18).params_opt)"""
        count = len(self.law.E)
        method = f"{count} bootstrap replicates by {self.method}, percentiles"
        return estimate(float(quantity(self.fit.law)), np.asarray(quantity(self.law)), method=method)

    def constants(self) -> dict[str, Estimate]:
        """Estimate E, A, B, alpha, beta and the exponents of N_opt and D_opt."""
        return {name: self.of(lambda law, name=name: getattr(law, name)) for name in CONSTANTS}  # type: ignore[misc]


def bootstrap_law(
    fit: Fit, *, replicates: int = 1000, seed: int = 0, by: str = "auto", clusters: Sequence[Any] | None = None
) -> LawBootstrap:
    """Bootstrap a fit: by run, by cluster, or by residual ("auto": residuals below 20 runs, else runs).

    Equal arguments give bit-equal results.

    Raises:
        DataError: `by` is none of auto, runs, clusters, residuals, or clusters are missing.
    """
    if by == "auto":
        by = "clusters" if clusters is not None else "residuals" if fit.runs < SMALL_TABLE else "runs"
    if by == "residuals":
        law, converged = refit(fit, log_loss=residual_losses(fit, replicates, seed))
    elif by == "runs" or (by == "clusters" and clusters is not None):
        labels = None if by == "runs" else clusters
        law, converged = refit(fit, weights=run_weights(fit.runs, replicates, seed, clusters=labels).astype(float))
    else:
        raise DataError(f"by='{by}': use auto, runs, residuals, or clusters together with one label per run")
    return LawBootstrap(fit=fit, law=law, method=by, converged=float(converged.mean()))
