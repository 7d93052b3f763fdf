"""What is said of a fitted table, in reading order: the same sections in the terminal, in Markdown and on the page.

Enters: `Fitted`s. Leaves: `Section`s of sentences and rows of text.
The one decision worth knowing: a law that is not identified keeps its numbers but opens with "do not quote"; a number
without an interval says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speechscale.report.numbers import short_count, short_flops
from speechscale.scaling.checks import Caution
from speechscale.scaling.fitted import Fitted
from speechscale.scaling.intervals import Estimate
from speechscale.scaling.optima.approaches import NAMES

SYMBOLS = {
    "exp_params": "a (N_opt ~ C^a)",
    "exp_tokens": "b (D_opt ~ C^b)",
    "alpha": "alpha",
    "beta": "beta",
}
_FAR = 100.0
"""Beyond this extrapolation a single value is not given, only the interval."""
_PUBLISHED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, sentences, and a table (first row the head; none: no table). key: what its figure is found by."""

    title: str
    key: str
    said: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()


def number(value: float) -> str:
    """Four figures, scientific when far from 1. Example: 2143.4 -> '2143', 0.51390 -> '0.5139', 3.3e8 -> '3.3e+08'"""
    return f"{value:.4g}"


def interval(found: Estimate) -> str:
    """Example: '0.514 [0.481, 0.556]'; without one '0.514 (no interval: ...)'"""
    if found.low is None or found.high is None:
        return f"{number(found.value)} ({found.method})"
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def sections(fitted: Fitted) -> list[Section]:
    """All sections of one arm; those that have nothing to say are left out."""
    found = [
        _law(fitted),
        _predictions(fitted),
        _approaches(fitted),
        _envelope(fitted),
        _held_out(fitted),
        _profiles(fitted),
        _drops(fitted),
        _published(fitted),
        *_metrics(fitted),
        _cautions(fitted.cautions),
    ]
    return [section for section in found if section is not None]


def read_section(fitted: Sequence[Fitted]) -> Section:
    """How the table was understood, once for all arms."""
    table = fitted[0].table
    said = [f"{sum(one.runs for one in fitted)} runs in {len(fitted)} arm(s); {table.convention}."]
    said += [f"{line}." for line in table.echoes]
    if table.skipped:
        said.append(f"{table.rows_read} rows read, {len(table.skipped)} left out:")
        reasons = dict.fromkeys(row.reason for row in table.skipped)
        for reason in reasons:
            rows = [str(row.row) for row in table.skipped if row.reason == reason]
            shown = ", ".join(rows[:8]) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
            said.append(f"row {shown}: {reason}")
    return Section(title="What was read", key="read", said=tuple(said))


def _law(fitted: Fitted) -> Section:
    if fitted.fit is None:
        reason = fitted.reason or "the table has no losses"
        return Section(title="Law", key="law", said=(f"Not fitted: {reason}",))
    fit, said = fitted.fit, []
    if fitted.status == "not_identified":
        said.append(f"Do not quote these constants: {fitted.reason}.")
    agree = f"{fit.starts_agree} of {fit.starts if hasattr(fit, 'starts') else len(fit.start_objectives)} starts agree"
    ended = "converged" if fit.converged else "NOT converged"
    said.append(
        f"{fitted.law_name}, {fit.runs} runs from {short_flops(fitted.range_flops[0])} to "
        f"{short_flops(fitted.range_flops[1])} FLOPs; {fit.minimized.kind} (delta {fit.minimized.delta:g}), summed: "
        f"{fit.objective:.10g}, {ended}, {agree}."
    )
    said += [f"{note[0].upper()}{note[1:]}." for note in fit.notes]
    said.append(f"Intervals: {fitted.interval_method}; {100 * (fitted.replicates_converged or 0):.4g} % converged.")
    rows: list[tuple[str, ...]] = [("", "value [95 %]", *(["by budget [95 %]"] if fitted.by_cluster else []))]
    for name, found in fitted.constants.items():
        cells = (SYMBOLS.get(name, name), interval(found))
        other = fitted.by_cluster.get(name)
        rows.append((*cells, interval(other) if other is not None else "") if fitted.by_cluster else cells)
    if fitted.by_cluster and _wider(fitted):
        said.append("Whole budgets resampled give the wider interval of a: believe that one.")
    return Section(title="Law", key="law", said=tuple(said), table=tuple(rows))


def _wider(fitted: Fitted) -> bool:
    by_run, by_budget = fitted.constants["exp_params"], fitted.by_cluster["exp_params"]
    if None in (by_run.low, by_run.high, by_budget.low, by_budget.high):
        return False
    return by_budget.high - by_budget.low > by_run.high - by_run.low  # type: ignore[operator]


def _predictions(fitted: Fitted) -> Section | None:
    if not fitted.at:
        return None
    rows = [("C (FLOPs)", "N_opt", "D_opt", "tokens per parameter", "loss", "")]
    for at in fitted.at:
        far = at.extrapolation > _FAR
        where = "measured" if at.extrapolation <= 1 else f"extrapolates {at.extrapolation:.3g} times"
        rows.append(
            (
                short_flops(at.flops),
                _count(at.params_opt, far),
                _count(at.tokens_opt, far),
                "" if far else f"{at.tokens_opt.value / at.params_opt.value:.3g}",
                interval(at.loss),
                where,
            )
        )
    return Section(title="Optimum", key="optimum", table=tuple(rows))


def _count(found: Estimate, far: bool) -> str:
    if found.low is None or found.high is None:
        return short_count(found.value)
    ends = f"[{short_count(found.low)}, {short_count(found.high)}]"
    if far and found.high / max(found.low, 1e-300) > 10:
        return f"{ends} (too wide for a value)"
    return f"{short_count(found.value)} {ends}"


def _approaches(fitted: Fitted) -> Section | None:
    if fitted.approaches is None:
        return None
    rows = [("approach", "a [95 %]", "N_opt at the highest C", "budgets")]
    for one in fitted.approaches.approaches:
        used = sum(point.status == "interior" for point in one.points)
        budgets = f"{used} of {len(one.points)}" if one.points else ""
        if one.exp_params is None:
            rows.append((NAMES[one.name], f"refused: {one.reason}", "", budgets))
            continue
        size = one.params_opt(fitted.range_flops[1])
        rows.append((NAMES[one.name], interval(one.exp_params), "" if size is None else _count(size, False), budgets))
    said = [f"{sentence[0].upper()}{sentence[1:]}." for sentence in fitted.approaches.disagreements]
    if not said:
        said = ["No approach lies outside another's interval."]
    return Section(
        title="How the best size grows: all approaches", key="approaches", said=tuple(said), table=tuple(rows)
    )


def _envelope(fitted: Fitted) -> Section | None:
    law = fitted.envelope
    if law is None:
        return None
    title = "Lowest loss as a power of compute"
    if law.reason:
        return Section(title=title, key="envelope", said=(f"Not fitted: {law.reason}.",))
    rows = [("form", "constants [95 %]", "AICc", "")]
    for form in law.forms:
        constants = "; ".join(f"{name} {interval(value)}" for name, value in form.constants.items())
        rows.append((form.name, constants, "" if form.aicc is None else f"{form.aicc:.1f}", form.reason))
    return Section(
        title=title, key="envelope", said=(f"{law.message[0].upper()}{law.message[1:]}.",), table=tuple(rows)
    )


def _held_out(fitted: Fitted) -> Section | None:
    if fitted.held_out is None:
        return None
    message = fitted.held_out.message
    return Section(title="Held-out check", key="held_out", said=(f"{message[0].upper()}{message[1:]}.",))


def _profiles(fitted: Fitted) -> Section | None:
    if not fitted.profiles:
        return None
    said = tuple(f"{profile.message}." for profile in fitted.profiles)
    return Section(title="Profiles", key="profiles", said=said)


def _drops(fitted: Fitted) -> Section | None:
    if len(fitted.drops) < 2:
        return None
    rows: list[tuple[str, ...]] = [("highest losses left out", "a", "E", "alpha", "beta")]
    for drop in fitted.drops:
        law = drop.law
        rows.append((str(drop.left_out), *(f"{x:.4g}" for x in (drop.exp_params, law.E, law.alpha, law.beta))))
    return Section(title="Without the highest losses", key="drops", table=tuple(rows))


def _published(fitted: Fitted) -> Section | None:
    """Only laws that come near: of another kind of loss they are far off and say nothing."""
    near = [scored for scored in fitted.published if scored.ratio < 100][:_PUBLISHED]
    if not near:
        return None
    rows = [("published law", "its sum on these runs", "over the optimum")]
    rows += [(one.name, f"{one.objective:.6g}", f"{one.ratio:.4g} times") for one in near]
    return Section(title="Published laws on these runs", key="published", table=tuple(rows))


def _metrics(fitted: Fitted) -> list[Section]:
    found = []
    unscored = [law.metric for law in fitted.metrics if not law.runs]
    if unscored:
        found.append(Section(title="Metrics without a score here", key="unscored", said=(", ".join(unscored) + ".",)))
    for law in (law for law in fitted.metrics if law.runs):
        rows = [("curve", "constants [95 %]", "R2", "AICc", "")]
        for fit in law.fits:
            constants = "; ".join(f"{name} {interval(value)}" for name, value in fit.constants.items())
            chosen = "chosen" if fit.curve == law.chosen else ""
            note = "; ".join(text for text in (chosen, fit.reason) if text)
            numbers = ("" if fit.r2 is None else f"{fit.r2:.3f}", "" if fit.aicc is None else f"{fit.aicc:.1f}")
            rows.append((f"{fit.curve} of {fit.of}", constants, *numbers, note))
        said = (f"{law.message}. {law.runs} runs, chance {law.chance:g}.",)
        title = f"Metric {law.metric}"
        found.append(Section(title=title, key=f"metric {law.metric}", said=said, table=tuple(rows)))
    return found


def _cautions(cautions: Sequence[Caution]) -> Section | None:
    if not cautions:
        return None
    said = tuple(f"{c.severity}: {c.name}: {c.message} ({c.reference})" for c in cautions)
    return Section(title="Cautions", key="cautions", said=said)
