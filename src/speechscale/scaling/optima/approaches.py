"""How the best size grows with compute, by every approach in use, side by side.

Enters: a `RunTable`, the fit of its law and its bootstrap. Leaves: `Approaches`.
The one decision worth knowing: the approaches disagree more than any of their intervals says (Kaplan's set-up gives
a = .82 to 1.21 on the same runs), so none is shown without the others, and a disagreement is a sentence.

Source: Hoffmann et al. 2022, Approaches 1 to 3; Porian et al. 2024 (Akima, weighted fit of N*(C)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Float

from speechscale.scaling.fitting.bootstrap import LawBootstrap, bootstrap_law
from speechscale.scaling.fitting.fit import Fit, fit_loss_law
from speechscale.scaling.intervals import Estimate, estimate
from speechscale.scaling.laws import FLOPS_PER_PARAM_TOKEN
from speechscale.scaling.optima.akima import LEAST_SIZES, akima_minima
from speechscale.scaling.optima.isoflop import HIGH, INTERIOR, LOW, STATUS, vertices
from speechscale.scaling.optima.size_line import MIN_BUDGETS, MOST_REFUSED, size_line
from speechscale.scaling.tables.budgets import budget_compute, budgets_of
from speechscale.scaling.tables.run_table import RunTable

CLOSE = 0.01
"""Exponents nearer than this agree: parabolas of an exact law are off by as much."""
Name = Literal["envelope", "parabola", "parabola-5", "akima", "law"]
NAMES: dict[Name, str] = {
    "envelope": "Approach 1: the size of the lowest loss of each budget",
    "parabola": "Approach 2: parabola in log N through all sizes of a budget",
    "parabola-5": "Approach 2: parabola in log N through the five sizes around the lowest loss",
    "akima": "Approach 2: Akima interpolation in log N",
    "law": "Approach 3: the fitted law",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The best size of one budget by one approach. status: see `isoflop`; params_opt: None unless "interior"."""

    flops: float
    status: str
    params_opt: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Approach:
    """N_opt ~ C^a and D_opt ~ C^b by one approach; a + b = 1, as C = 6 N D.

    Args:
        reason: why there are no exponents; then they are None. points: per budget, empty for the law.
        log_params, log_flops: a line's value and place, so that N_opt(C) = exp(log_params) (C / exp(log_flops))^a.
        drawn_*: the same in replicates.
    """

    name: Name
    reason: str = ""
    exp_params: Estimate | None = None
    exp_tokens: Estimate | None = None
    points: tuple[Point, ...] = ()
    log_flops: float = 0.0
    log_params: float = 0.0
    drawn_exponents: Float[np.ndarray, " replicates"] = field(default_factory=lambda: np.zeros(0), repr=False)
    drawn_params: Float[np.ndarray, " replicates"] = field(default_factory=lambda: np.zeros(0), repr=False)

    def params_opt(self, flops: float) -> Estimate | None:
        """The best size at C, None where there are no exponents."""
        if self.exp_params is None:
            return None
        away = np.log(flops) - self.log_flops
        value = float(np.exp(self.log_params + self.exp_params.value * away))
        if not len(self.drawn_params):
            return Estimate(value=value, low=None, high=None, method=self.exp_params.method)
        drawn = np.exp(self.drawn_params + self.drawn_exponents * away)
        return estimate(value, drawn, method=self.exp_params.method)

    def tokens_opt(self, flops: float) -> Estimate | None:
        """D_opt = C / (6 N_opt)."""
        found = self.params_opt(flops)
        if found is None:
            return None
        of = flops / FLOPS_PER_PARAM_TOKEN
        low, high = (None if end is None else of / end for end in (found.high, found.low))
        return Estimate(value=of / found.value, low=low, high=high, method=found.method)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approaches:
    """All approaches on one table. disagreements: sentences; empty when none lies outside another's interval."""

    approaches: tuple[Approach, ...]
    disagreements: tuple[str, ...]

    def of(self, name: Name) -> Approach:
        """One approach by name."""
        return next(approach for approach in self.approaches if approach.name == name)


def approaches(
    table: RunTable,
    *,
    replicates: int = 1000,
    seed: int = 0,
    fit: Fit | None = None,
    boot: LawBootstrap | None = None,
) -> Approaches:
    """Estimate the exponents of N_opt and D_opt by every approach.

    The law is resampled as `boot` was; the others redraw every loss within the scatter of the runs around the law (so
    what no smooth law can follow is in it) and pick or interpolate anew. Seeds of one size are averaged first. The
    size of a lowest loss is known to half a step of the sizes that were run: Approach 1 is drawn within it.

    Example: approaches(table).of("akima").exp_params.value -> 0.50

    Raises:
        DataError: the table's losses do not determine a law, see `fit_loss_law`.
    """
    table = table.with_loss()
    assert table.loss is not None
    fit = fit or fit_loss_law(table.params, table.tokens, table.loss)
    boot = boot or bootstrap_law(fit, replicates=replicates, seed=seed)
    found = [*_by_budget(table, fit, replicates, seed), _law(boot)]
    return Approaches(approaches=tuple(found), disagreements=tuple(_disagreements(found)))


@dataclass(frozen=True, slots=True)
class _Budget:
    flops: float
    sizes: Float[np.ndarray, " sizes"]
    losses: Float[np.ndarray, " sizes"]
    drawn: Float[np.ndarray, "replicates sizes"]
    jitter: Float[np.ndarray, " replicates"]  # uniform in -1..1


def _by_budget(table: RunTable, fit: Fit, replicates: int, seed: int) -> list[Approach]:
    names: tuple[Name, ...] = ("envelope", "parabola", "parabola-5", "akima")
    labels = budgets_of(table)
    if labels is None:
        reason = "the runs do not come in budgets (three runs or more at one compute)"
        return [Approach(name=name, reason=reason) for name in names]
    assert table.loss is not None
    rng, budgets = np.random.default_rng(seed), []
    for budget, flops in zip(np.unique(labels), budget_compute(table.flops, labels), strict=True):
        rows = labels == budget
        sizes, where = np.unique(table.params[rows], return_inverse=True)
        count = np.bincount(where)
        losses = np.bincount(where, table.loss[rows]) / count
        noise = fit.residual_sd / np.sqrt(count) * rng.standard_normal((replicates, len(sizes)))
        budgets.append(_Budget(float(flops), sizes, losses, losses * np.exp(noise), rng.uniform(-1, 1, replicates)))
    return [_line(name, budgets) for name in names]


_Minima = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _minima(name: Name, sizes: int) -> _Minima | None:
    """How an approach reads the best log size off each row of losses; None if it needs more sizes."""
    if name == "envelope":
        return _lowest
    if name == "akima":
        return None if sizes < LEAST_SIZES else (lambda x, rows: akima_minima(x, rows)[:2])
    if sizes < 3:
        return None
    nearest = sizes if name == "parabola" else 5
    return lambda x, rows: vertices(x, rows, nearest)[:2]


def _lowest(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The size of each row's lowest loss; the best of a budget may lie beyond its smallest and largest size."""
    at = rows.argmin(axis=1)
    return np.where(at == 0, LOW, np.where(at == len(x) - 1, HIGH, INTERIOR)), x[at]


def _line(name: Name, budgets: Sequence[_Budget]) -> Approach:
    """Read every budget, then a weighted line through log N_opt against log C."""
    points, values, drawn = [], [], []
    for budget in budgets:
        find = _minima(name, len(budget.sizes))
        if find is None:
            points.append(Point(flops=budget.flops, status="too_few_sizes", params_opt=None))
            continue
        x = np.log10(budget.sizes)
        codes, at = find(x, budget.losses[None])
        status = STATUS[int(codes[0])]
        if status != "interior":
            points.append(Point(flops=budget.flops, status=status, params_opt=None))
            continue
        noisy_codes, noisy = find(x, budget.drawn)
        if name == "envelope":
            noisy = noisy + budget.jitter * _half_step(x, noisy)
        noisy = np.where(noisy_codes == INTERIOR, noisy, np.nan)
        points.append(Point(flops=budget.flops, status=status, params_opt=_size(float(at[0]), noisy)))
        values.append((budget.flops, float(at[0])))
        drawn.append(noisy)
    if len(values) < MIN_BUDGETS:
        counts = {p.status: sum(q.status == p.status for q in points) for p in points if p.status != "interior"}
        why = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items()) or "no more were run"
        reason = f"{len(values)} budget(s) with a bracketed best size, a line needs {MIN_BUDGETS} ({why})"
        return Approach(name=name, reason=reason, points=tuple(points))
    line = size_line(np.array(values), np.stack(drawn, axis=1))
    return Approach(
        name=name,
        exp_params=line.exponent,
        exp_tokens=line.complement,
        points=tuple(points),
        log_flops=line.center,
        log_params=line.level,
        drawn_exponents=line.drawn_exponents,
        drawn_params=line.drawn_levels,
    )


def _half_step(x: np.ndarray, picked: Float[np.ndarray, " replicates"]) -> Float[np.ndarray, " replicates"]:
    """Half the mean distance of a picked log size to its neighbors."""
    if len(x) < 2:
        return np.zeros(len(picked))
    return (np.gradient(x) / 2)[np.searchsorted(x, picked)]


def _size(at: float, noisy: Float[np.ndarray, " replicates"]) -> Estimate:
    bracketed = noisy[np.isfinite(noisy)]
    if len(bracketed) < (1 - MOST_REFUSED) * len(noisy):
        share = 1 - len(bracketed) / len(noisy)
        return Estimate(
            value=10**at, low=None, high=None, method=f"no interval: {share:.0%} of replicates not bracketed"
        )
    return estimate(10**at, 10**bracketed, method=f"{len(bracketed)} noise replicates, percentiles")


def _law(boot: LawBootstrap) -> Approach:
    law, at_bounds = boot.fit.law, boot.fit.at_bounds
    if at_bounds:
        return Approach(name="law", reason=f"{', '.join(at_bounds)} ended on the border of the search")
    middle = float(np.exp(boot.fit.frame.mean_log_params + boot.fit.frame.mean_log_tokens) * FLOPS_PER_PARAM_TOKEN)
    return Approach(
        name="law",
        exp_params=boot.of(lambda x: x.exp_params),
        exp_tokens=boot.of(lambda x: x.exp_tokens),
        log_flops=float(np.log(middle)),
        log_params=float(np.log(law.optimum(middle).params_opt)),
        drawn_exponents=np.asarray(boot.law.exp_params),
        drawn_params=np.log(boot.law.optimum(middle).params_opt),
    )


def _disagreements(found: Sequence[Approach]) -> list[str]:
    said = []
    for one, other in combinations([a for a in found if a.exp_params is not None], 2):
        a, b = one.exp_params, other.exp_params
        assert a is not None
        assert b is not None
        if a.low is None or b.low is None or a.high is None or b.high is None or abs(a.value - b.value) < CLOSE:
            continue
        shown = f"a = {_shown(a)} by {one.name}, {_shown(b)} by {other.name}"
        if a.low > b.high or b.low > a.high:
            said.append(f"{shown}: the intervals exclude each other; at least one of them is too narrow")
        elif not (a.low <= b.value <= a.high) and not (b.low <= a.value <= b.high):
            said.append(f"{shown}: each lies outside the other's interval")
    return said


def _shown(a: Estimate) -> str:
    return f"{a.value:.3f} [{a.low:.3f}, {a.high:.3f}]"
