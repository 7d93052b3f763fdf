"""Does the law predict what it was not fitted to? The largest compute is left out, predicted, compared.

Enters: a `RunTable`. Leaves: `HeldOut`.
The one decision worth knowing: the interval is of a single further run: constants drawn from the replicates and a
residual drawn from the fit, so that about 95 % of the runs should lie in theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import binom

from speechscale.errors import DataError
from speechscale.scaling.fitting.bootstrap import bootstrap_law
from speechscale.scaling.fitting.fit import fit_loss_law
from speechscale.scaling.fitting.form_bootstrap import bootstrap_form
from speechscale.scaling.fitting.forms import FORMS
from speechscale.scaling.fitting.general import fit_form
from speechscale.scaling.fitting.newton import Kind
from speechscale.scaling.intervals import LEVEL, Estimate, estimate
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.tables.budgets import budgets_of, runs_of
from speechscale.scaling.tables.columns import columns_of
from speechscale.scaling.tables.run_table import RunTable

TOP_SHARE = 0.05
LEAST = 5
"""The largest budgets are left out until at least this many runs are, or this share of all: fewer decide nothing."""
CAUGHT = 0.01
"""Below this chance of so few covered runs the law is said to miss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """One left-out run. covered: its loss lies in the interval. error: seen over predicted, minus 1."""

    params: float
    tokens: float
    flops: float
    seen: float
    predicted: Estimate
    covered: bool
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The check as a whole.

    Args:
        status: "refused" when the other runs do not determine a law; then only `message` says anything.
        extrapolation: compute of the largest left-out run over that of the largest fitted one.
        mean_error: of seen over predicted, minus 1; above 0: the law promises too much.
    """

    status: str
    message: str
    fitted: int = 0
    runs: tuple[Predicted, ...] = ()
    covered: int = 0
    extrapolation: float | None = None
    mean_error: float | None = None

    @property
    def missed(self) -> bool:
        """Whether so few runs lie in their intervals that chance does not explain it."""
        return self.status == "missed"


@dataclass(frozen=True, slots=True)
class _Forecast:
    """What a fit of the rest says of the left-out runs. logs: log losses. constants: how many were fitted."""

    point: Float[np.ndarray, " runs"]
    logs: Float[np.ndarray, "replicates runs"]
    residuals: Float[np.ndarray, " rest"]
    constants: int


def held_out(
    table: RunTable,
    *,
    replicates: int = 1000,
    seed: int = 0,
    objective: Kind = "log-huber",
    delta: float = 1e-3,
    law: str = "chinchilla",
    base: LossLaw | None = None,
) -> HeldOut:
    """Fit all but the largest budget, or the runs of the largest compute where there are no budgets, and predict them.

    Example: held_out(table).message -> "of 8 runs at 1e+20 FLOPs (3.2 times beyond) 8 lie in their intervals ..."

    Args:
        law: "chinchilla" or another form. base: its five-term law, held; see `fit_form`.
    """
    table = table.with_loss()
    assert table.loss is not None
    budgets = budgets_of(table)
    out = _largest(table.flops if budgets is None else budgets)
    names = runs_of(table)
    # a run that is left out is left out with all its checkpoints
    gone = out if names is None else np.isin(names, [name for name, o in zip(names, out, strict=True) if o])
    rest, left = table.subset(~gone), table.subset(out)
    if len(rest) == 0 or rest.flops.max() >= left.flops.max():
        return HeldOut(status="refused", message="no held-out check: there is no larger budget to leave out")
    try:
        if law == "chinchilla":
            said = _by_law(rest, left, replicates, seed, objective, delta)
        else:
            said = _by_form(rest, left, replicates, seed, objective, delta, law, base)
    except DataError as error:
        return HeldOut(status="refused", message=f"no held-out check: without the largest budget, {error}")
    return _judged(_compared(left, said, seed), len(rest), float(left.flops.max() / rest.flops.max()))


def _by_law(rest: RunTable, left: RunTable, replicates: int, seed: int, objective: Kind, delta: float) -> _Forecast:
    assert rest.loss is not None
    fit = fit_loss_law(rest.params, rest.tokens, rest.loss, objective=objective, delta=delta)
    boot = bootstrap_law(fit, replicates=replicates, seed=seed, clusters=runs_of(rest))
    logs = np.log(
        boot.law.E[:, None]
        + boot.law.A[:, None] / left.params ** boot.law.alpha[:, None]
        + boot.law.B[:, None] / left.tokens ** boot.law.beta[:, None]
    )
    return _Forecast(fit.law.predict(left.params, left.tokens), logs, fit.residuals, 5)


def _by_form(
    rest: RunTable,
    left: RunTable,
    replicates: int,
    seed: int,
    objective: Kind,
    delta: float,
    law: str,
    base: LossLaw | None,
) -> _Forecast:
    wanted = FORMS[law].columns
    fit = fit_form(law, columns_of(rest, wanted), rest.loss, objective=objective, delta=delta, base=base)
    boot = bootstrap_form(fit, replicates=replicates, seed=seed, clusters=runs_of(rest))
    columns = columns_of(left, wanted)
    return _Forecast(fit.predict(columns), np.log(boot.predict(columns)), fit.residuals, fit.free)


def _compared(left: RunTable, said: _Forecast, seed: int) -> list[Predicted]:
    assert left.loss is not None
    runs = len(said.residuals)
    widening = np.sqrt(runs / max(1, runs - said.constants))
    residuals = (said.residuals - np.median(said.residuals)) * widening
    drawn = np.exp(said.logs + np.random.default_rng(seed).choice(residuals, size=said.logs.shape))
    method = f"{len(drawn)} replicates of the law, each with a residual of the fit"
    found = []
    for i, seen in enumerate(map(float, left.loss)):
        predicted = estimate(float(said.point[i]), drawn[:, i], method=method)
        assert predicted.low is not None
        assert predicted.high is not None
        found.append(
            Predicted(
                params=float(left.params[i]),
                tokens=float(left.tokens[i]),
                flops=float(left.flops[i]),
                seen=seen,
                predicted=predicted,
                covered=predicted.low <= seen <= predicted.high,
                error=seen / predicted.value - 1,
            )
        )
    return found


def _largest(budgets: np.ndarray) -> np.ndarray:
    """The runs of the largest budgets, as many budgets as it takes; at most half of the runs, but at least a budget."""
    wanted = max(LEAST, round(TOP_SHARE * len(budgets)))
    out = np.zeros(len(budgets), bool)
    for budget in np.unique(budgets)[::-1]:
        more = out | (budgets == budget)
        if out.any() and more.sum() > len(budgets) / 2:
            break
        out = more
        if out.sum() >= wanted:
            break
    return out


def _judged(found: list[Predicted], fitted: int, extrapolation: float) -> HeldOut:
    covered = sum(run.covered for run in found)
    error = float(np.mean([run.error for run in found]))
    # Errors of one budget go together, so few covered runs are less of a surprise than independent ones would be.
    missed = float(binom.cdf(covered, len(found), LEVEL)) < CAUGHT
    highest = max(run.flops for run in found)
    rare = binom.cdf(covered, len(found), LEVEL) < 0.2
    ruling = "missed, do not extrapolate" if missed else "fewer than there should be" if rare else "as it should be"
    where = f"{len(found)} run(s) up to {highest:.3g} FLOPs, {extrapolation:.2g} times beyond the {fitted} fitted ones"
    share = f"{covered} of {len(found)} lie in their 95 % intervals"
    return HeldOut(
        status="missed" if missed else "held",
        message=f"largest compute left out ({where}): {share}, seen over predicted {100 * error:+.2g} %: {ruling}",
        fitted=fitted,
        runs=tuple(found),
        covered=covered,
        extrapolation=extrapolation,
        mean_error=error,
    )
