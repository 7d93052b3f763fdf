"""Intervals: resampling weights, percentiles, and every derived number pushed through the replicates.

Enters: a `Fit`, or replicates of any number. Leaves: `Estimate`s (value with its interval and how it was made).
The one decision worth knowing: intervals are percentiles of replicates; a quantity derived from a law (an exponent, an
optimum, a loss) is computed per replicate, never by a delta formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from speechscale.errors import DataError
from speechscale.scaling.fit import Fit, refit
from speechscale.scaling.laws import LossLaw

LEVEL = 0.95
SMALL_TABLE = 20
"""Below this many runs a resample often lacks a whole size, so "auto" resamples residuals instead of runs."""
CONSTANTS = ("E", "A", "B", "alpha", "beta", "exp_params", "exp_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its interval; low and high are None when nothing measured its uncertainty (`method` says why)."""

    value: float
    low: float | None
    high: float | None
    method: str
    level: float = LEVEL

    def excludes(self, x: float) -> bool:
        """Tell whether the whole interval lies on one side of x. Example: [0.4, 0.7] excludes 1 -> True"""
        return self.low is not None and self.high is not None and (self.low > x or self.high < x)


def estimate(
    value: float, replicates: Float[np.ndarray, " replicates"], *, method: str, level: float = LEVEL
) -> Estimate:
    """Attach the percentile interval of the replicates to a value.

    Raises:
        DataError: fewer than 20 replicates, or NaN among them.
    """
    if len(replicates) < 20 or np.isnan(replicates).any():
        raise DataError(
            f"{len(replicates)} replicates, {int(np.isnan(replicates).sum())} NaN: need at least 20, none NaN"
        )
    # "inverted_cdf" picks an existing replicate: it neither averages infinite ones nor warns about them
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Estimate(value=float(value), low=float(low), high=float(high), method=method, level=level)


def run_weights(
    runs: int, replicates: int, seed: int, *, clusters: Sequence[Any] | None = None
) -> Int[np.ndarray, "replicates runs"]:
    """Draw how often each run occurs in each resample; runs of one cluster are drawn together.

    Example: run_weights(3, 2, 0).sum(axis=1) -> [3, 3]

    Args:
        clusters: one label per run (its budget, size or seed group); None makes every run its own cluster.
    """
    rng = np.random.default_rng(seed)
    if clusters is None:
        return rng.multinomial(runs, np.full(runs, 1.0 / runs), size=replicates)
    if len(clusters) != runs:
        raise DataError(f"{len(clusters)} cluster labels for {runs} runs: need one each")
    _, index = np.unique(np.asarray(clusters).astype(str), return_inverse=True)
    count = int(index.max()) + 1
    return rng.multinomial(count, np.full(count, 1.0 / count), size=replicates)[:, index]


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
