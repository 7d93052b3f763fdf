"""Do two tables have the same exponents? Fit them with shared alpha and beta, and see how much worse that is.

Enters: two `Fit`s. Leaves: `EqualExponents`, with a p-value.
The one decision worth knowing: the null distribution is a wild bootstrap around the SHARED fit: every run keeps the
size of its own residual and draws its sign. Noise differs between runs of real tables: with residuals redrawn across
runs, 34 % of random halves of one table (Epoch AI's 240 runs) had p <= .05, with signs 10 %; of tables simulated with
even noise 6 to 8 %.

Source: Wu 1986 (wild bootstrap); Feng, He & Hu 2011 (signs are right for absolute values, too).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.scaling.fitting.fit import Fit
from speechscale.scaling.fitting.newton import Model, Objective, descend, refine
from speechscale.scaling.fitting.solve import SumModel
from speechscale.scaling.laws import LossLaw

MIN_REPLICATES = 99
"""Fewer cannot show a p-value of 0.01."""
# Where the parameters of each table stand in theta = (A1, B1, E1, A2, B2, E2, alpha, beta).
_PLACES = (np.array([0, 6, 1, 7, 2]), np.array([3, 6, 4, 7, 5]))
_CHUNK = 100
Labels = Sequence[Any] | np.ndarray


@dataclass(frozen=True, slots=True)
class SharedModel:
    """Two tables as one model of 8 parameters: alpha and beta are shared, A, B and E are each table's own."""

    models: tuple[SumModel, SumModel]
    runs: tuple[int, int]

    @property
    def low(self) -> Float[np.ndarray, " 8"]:
        return self._box("low", np.maximum)

    @property
    def high(self) -> Float[np.ndarray, " 8"]:
        return self._box("high", np.minimum)

    def _box(self, side: str, inner: np.ufunc) -> np.ndarray:
        one, two = (getattr(model, side) for model in self.models)
        return np.concatenate([one[[0, 2, 4]], two[[0, 2, 4]], inner(one[[1, 3]], two[[1, 3]])])

    def objective(self, theta: np.ndarray, y: np.ndarray, w: np.ndarray, delta: float) -> np.ndarray:
        """Sum of both tables' objectives; y and w hold the runs of the first table, then of the second."""
        cut = self.runs[0]
        parts = ((y[:, :cut], w[:, :cut]), (y[:, cut:], w[:, cut:]))
        values = [
            model.objective(theta[:, at], *part, delta)
            for model, at, part in zip(self.models, _PLACES, parts, strict=True)
        ]
        return values[0] + values[1]

    def derivatives(
        self, theta: np.ndarray, y: np.ndarray, w: np.ndarray, delta: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gradient (R, 8), curvature and majoriser (R, 8, 8): each table's, added where parameters are shared."""
        size, cut = 8, self.runs[0]
        gradient = np.zeros((len(theta), size))
        hessian, major = np.zeros((len(theta), size, size)), np.zeros((len(theta), size, size))
        parts = ((y[:, :cut], w[:, :cut]), (y[:, cut:], w[:, cut:]))
        for model, at, part in zip(self.models, _PLACES, parts, strict=True):
            g, h, m = model.derivatives(theta[:, at], *part, delta)
            gradient[:, at] += g
            hessian[:, at[:, None], at[None, :]] += h
            major[:, at[:, None], at[None, :]] += m
        return gradient, hessian, major


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualExponents:
    """Test of one alpha and one beta for both tables.

    Args:
        alpha, beta: the shared exponents. laws: each table's law with them.
        shared, separate: summed objectives; reduction: shared minus separate, the gain of own exponents.
        p_value: share of worlds with equal exponents whose relative reduction is at least this one's.
        converged: share of the null replicates of which all fits converged.
    """

    alpha: float
    beta: float
    laws: tuple[LossLaw, LossLaw]
    shared: float
    separate: float
    reduction: float
    p_value: float
    replicates: int
    converged: float

    @property
    def message(self) -> str:
        verdict = (
            "exponents differ"
            if self.p_value < 0.05
            else "exponents are not told apart, which does not make them equal"
        )
        return f"{verdict} (p {self.p_value:.2g}; shared alpha {self.alpha:.3f}, beta {self.beta:.3f})"


def equal_exponents(
    a: Fit,
    b: Fit,
    *,
    replicates: int = 400,
    seed: int = 0,
    clusters: tuple[Labels, Labels] | None = None,
) -> EqualExponents:
    """Test whether two tables can share alpha and beta.

    The statistic is the reduction of the summed objective by own exponents, relative to what remains, so that it does
    not depend on the size of the noise. Null worlds: the shared laws plus or minus each run's residual.

    Example: two tables drawn from laws with one alpha and one beta -> p_value is uniform between 0 and 1

    Args:
        clusters: one label per run of each table; runs of one label (checkpoints) share their sign.

    Raises:
        DataError: fewer than 99 replicates, or fits that minimize different objectives.
    """
    if replicates < MIN_REPLICATES:
        raise DataError(f"{replicates} replicates of the exponent test: at least {MIN_REPLICATES} are needed")
    if a.minimized != b.minimized:
        raise DataError(f"exponent test: one fit minimizes {a.minimized}, the other {b.minimized}; fit both alike")
    model = SharedModel((a.model, b.model), (a.runs, b.runs))
    theta, shared = _shared_fit(a, b, model)
    own = a.objective + b.objective
    rng = np.random.default_rng(seed)
    labels = [None, None] if clusters is None else list(clusters)
    logs = [
        _null_losses(fit, theta[at], replicates, rng, names)
        for fit, at, names in zip((a, b), _PLACES, labels, strict=True)
    ]
    null, converged = _null_statistics(a, b, model, theta, logs)
    # Exact tables leave nothing: below this sum any reduction is rounding.
    floor = 1e-16 * (a.runs + b.runs)
    statistic = max(0.0, shared - own) / max(own, floor)
    p_value = (1 + int(np.sum(null >= statistic * (1 - 1e-9)))) / (1 + replicates)
    return EqualExponents(
        alpha=float(theta[6]),
        beta=float(theta[7]),
        laws=(a.frame.law(theta[_PLACES[0]]), b.frame.law(theta[_PLACES[1]])),
        shared=shared,
        separate=own,
        reduction=max(0.0, shared - own),
        p_value=float(p_value),
        replicates=replicates,
        converged=converged,
    )


def _shared_fit(a: Fit, b: Fit, model: SharedModel) -> tuple[Float[np.ndarray, " 8"], float]:
    """Fit both tables with shared exponents, from several pairs of exponents; return theta and the objective."""
    one, two = a.theta, b.theta
    mean = (one + two) / 2
    pairs = [(x[1], y[3]) for x in (one, two, mean) for y in (one, two, mean)]
    starts = np.array([[*one[[0, 2, 4]], *two[[0, 2, 4]], alpha, beta] for alpha, beta in pairs])
    y = np.concatenate([a.targets, b.targets])
    copies = (len(starts), len(y))
    theta, objective, _ = descend(starts, model, np.broadcast_to(y, copies), np.ones(copies), a.minimized)
    best = int(objective.argmin())
    return theta[best], float(objective[best] / a.minimized.unit)


def _null_losses(
    fit: Fit, theta: np.ndarray, replicates: int, rng: np.random.Generator, names: Labels | None
) -> Float[np.ndarray, "replicates runs"]:
    """Draw log losses of a world in which the shared fit is true: its losses plus or minus each run's own residual."""
    log_law = np.log(fit.frame.law(theta).predict(*_runs(fit)))
    used = 4  # three constants of its own and half of the two shared ones
    residuals = (fit.log_loss - log_law) * np.sqrt(fit.runs / max(1, fit.runs - used))
    index = np.arange(fit.runs) if names is None else np.unique(np.asarray(names).astype(str), return_inverse=True)[1]
    signs = rng.choice([-1.0, 1.0], size=(replicates, int(index.max()) + 1))
    return log_law + residuals * signs[:, index]


def _runs(fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    frame = fit.frame
    return np.exp(frame.log_params + frame.mean_log_params), np.exp(frame.log_tokens + frame.mean_log_tokens)


def _null_statistics(
    a: Fit, b: Fit, model: SharedModel, theta: np.ndarray, logs: list[np.ndarray]
) -> tuple[Float[np.ndarray, " replicates"], float]:
    """Return the relative reduction in each null world, and in how many of them all fits converged."""
    minimized, cut = a.minimized, a.runs
    y = np.concatenate(logs, axis=1)
    y = np.exp(y) if minimized.raw else y
    statistics, done = np.empty(len(y)), np.zeros(len(y), bool)
    for first in range(0, len(y), _CHUNK):
        part = slice(first, first + _CHUNK)
        rows = y[part]
        w = np.ones_like(rows)
        start = np.tile(theta, (len(rows), 1))
        together, shared, done[part] = _solve(start, model, rows, w, minimized)
        own = np.zeros(len(rows))
        halves = (slice(0, cut), slice(cut, None))
        for fit, at, half in zip((a, b), _PLACES, halves, strict=True):
            # From the shared optimum, which is a point of the larger model too: the reduction is never negative.
            _, value, converged = _solve(together[:, at], fit.model, rows[:, half], w[:, half], minimized)
            own += value
            done[part] &= converged
        statistics[part] = np.maximum(0.0, shared - own) / np.maximum(own, 1e-300)
    return statistics, float(done.mean())


def _solve(
    theta: np.ndarray, model: Model, y: np.ndarray, w: np.ndarray, minimized: Objective
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Refine from a good start; absolute values have kinks and need the whole way through easier problems."""
    if minimized.kind == "lad":
        return descend(theta, model, y, w, minimized)
    return refine(theta, model, y, w, minimized.stages[-1])
