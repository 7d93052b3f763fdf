"""Every estimate of a fit as one CSV for a spreadsheet or a plot.

Enters: `Fitted`s. Leaves: text, one row per arm and number.
The one decision worth knowing: a number without an interval has empty ends and an empty level, and `method` says why;
scores of fits (sums, AICc, R2) are no estimates and stand in the JSON.
"""

from __future__ import annotations

import csv as csv_module
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from speechscale.scaling.fitted import Fitted
from speechscale.scaling.fitting.profiles import Profile
from speechscale.scaling.intervals import LEVEL, Estimate

HEAD = ("arm", "law", "status", "quantity", "at_flops", "at_params", "value", "low", "high", "level", "method")


@dataclass(frozen=True, slots=True)
class _Row:
    quantity: str
    found: Estimate
    flops: float | None = None
    params: float | None = None


def csv(fitted: Sequence[Fitted]) -> str:
    """Write one row per arm and number, with the columns of HEAD.

    `at_flops` is the compute of a prediction, `at_params` the size of a left-out run; both are empty elsewhere.

    Example: csv(fit_runs(table)).splitlines()[1] -> "runs.csv,chinchilla,fitted,E,,,1.81,1.76,1.86,0.95,..."
    """
    text = io.StringIO()
    writer = csv_module.writer(text, lineterminator="\n")
    writer.writerow(HEAD)
    for one in fitted:
        for row in _rows(one):
            found = row.found
            level = "" if found.low is None and found.high is None else found.level
            numbers = (
                "" if x is None else repr(x) for x in (row.flops, row.params, found.value, found.low, found.high)
            )
            writer.writerow([one.name, one.law_name, one.status, row.quantity, *numbers, level, found.method])
    return text.getvalue()


def _rows(one: Fitted) -> Iterator[_Row]:
    yield from _of_law(one)
    yield from _of_budgets(one)
    for law in one.metrics:
        if law.exponent is not None:
            yield _Row(f"gamma of {law.metric}, best runs", law.exponent.gamma)
        for fit in law.fits:
            for name, found in fit.constants.items():
                yield _Row(f"{name} of {law.metric}, {fit.curve} of {fit.of}", found)


def _of_law(one: Fitted) -> Iterator[_Row]:
    """Constants, what they say of a compute, and what weakens them."""
    for name, found in one.constants.items():
        yield _Row(name, found)
    for name, found in one.by_cluster.items():
        yield _Row(f"{name}, budgets resampled", found)
    for profile in one.profiles:
        yield _Row(f"{profile.name}, profile", _range(profile))
    for drop in one.drops:
        if drop.left_out:
            without = f"without the {drop.left_out} highest losses"
            yield _Row(f"exp_params {without}", _bare(drop.exp_params, "point fit"))
            for name in ("E", "alpha", "beta"):
                yield _Row(f"{name} {without}", _bare(float(getattr(drop.law, name)), "point fit"))
    for at in one.at:
        yield _Row("params_opt", at.params_opt, at.flops)
        yield _Row("tokens_opt", at.tokens_opt, at.flops)
        yield _Row("loss", at.loss, at.flops)
    for run in one.held_out.runs if one.held_out is not None else ():
        yield _Row("loss of a left-out run, predicted", run.predicted, run.flops, run.params)
        yield _Row("loss of a left-out run, seen", _bare(run.seen, "measured"), run.flops, run.params)


def _of_budgets(one: Fitted) -> Iterator[_Row]:
    """The other approaches, budget by budget and as exponents, and the lowest loss as a power of compute."""
    for approach in one.approaches.approaches if one.approaches is not None else ():
        if approach.exp_params is not None:
            yield _Row(f"exp_params by {approach.name}", approach.exp_params)
        for point in approach.points:
            if point.params_opt is not None:
                yield _Row(f"params_opt by {approach.name}", point.params_opt, point.flops)
    for form in one.envelope.forms if one.envelope is not None else ():
        for name, found in form.constants.items():
            yield _Row(f"{name} of the lowest loss, {form.name}", found)


def _bare(value: float, method: str) -> Estimate:
    return Estimate(value=value, low=None, high=None, method=method)


def _range(profile: Profile) -> Estimate:
    """The range in which the fit is as good; an end that the search did not reach is empty and said."""
    method = f"profile, objective within {100 * profile.rise:.2g} %"
    method += "" if profile.low is not None else f"; open below {profile.values[0]:.3g}"
    method += "" if profile.high is not None else f"; open above {profile.values[-1]:.3g}"
    return Estimate(value=profile.best, low=profile.low, high=profile.high, method=method, level=LEVEL)
