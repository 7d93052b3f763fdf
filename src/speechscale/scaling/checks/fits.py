"""Checks of a fitted law: whether the runs determine it, and what its intervals leave out.

Enters: a `Fit`, the runs behind it, its bootstrap. Leaves: a `Caution` or None per check.
The one decision worth knowing: a law from elsewhere is held to the optimum of these runs under the same sum, so an
early stop shows whichever of sum or mean was minimized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speechscale.errors import DataError
from speechscale.scaling.checks.caution import Caution, caution
from speechscale.scaling.fitting.bootstrap import LawBootstrap
from speechscale.scaling.fitting.fit import Fit, fit_loss_law
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.optima.approaches import Approaches
from speechscale.scaling.optima.held_out import HeldOut
from speechscale.scaling.tables.run_table import RunTable

STOPPED_SHORT = 0.01
LOW_FLOOR = 0.05
FLAT = 1e-4
NEAR_BASIN = 0.01
DROPPED_SHARE = 0.02
MOVED = 0.02
LEAST_MOVE = 0.005
AB_SUM = 0.03
FAR, TOO_FAR = 10.0, 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FitCase:
    """What the checks of a fit look at. exponents: a and b, fitted separately."""

    table: RunTable
    fit: Fit
    boot: LawBootstrap | None = None
    exponents: tuple[float, float] | None = None
    targets_flops: Sequence[float] = ()
    approaches: Approaches | None = None
    held_out: HeldOut | None = None


def early_stop(case: FitCase) -> Caution | None:
    """The solver did not converge."""
    if case.fit.converged:
        return None
    return caution("early-stop", "refuse", "the fit did not converge: its constants are where the solver gave up")


def check_against(
    law: LossLaw, table: RunTable, *, name: str = "these constants", delta: float = 1e-3
) -> Caution | None:
    """Score a law on a table against the optimum of that table.

    Example: Hoffmann's constants on Epoch's 240 runs -> "4.0 times the optimum of this table ..."

    Raises:
        DataError: the table cannot be fitted.
    """
    table = table.with_loss()
    assert table.loss is not None
    fit = fit_loss_law(table.params, table.tokens, table.loss, delta=delta)
    reached = fit.minimized.score(law.predict(table.params, table.tokens), table.loss)
    excess = reached / max(fit.objective, 1e-15) - 1
    if excess < STOPPED_SHORT:
        return None
    share = f"{reached / fit.objective:.1f} times" if excess > 1 else f"{excess:.1%} above"
    text = (
        f"{name}: log-Huber sum {reached:.6g}, {share} the optimum of this table, {fit.objective:.6g}: an early stop, "
        "another objective or other runs"
    )
    return caution("early-stop", "warn", text, numbers={"reached": reached, "optimum": fit.objective})


def constants_at_bounds(case: FitCase) -> Caution | None:
    """Constants on the border of the search."""
    if not case.fit.at_bounds:
        return None
    text = f"{', '.join(case.fit.at_bounds)} ended on the border of the search: not measured by these runs"
    return caution("constants-at-bounds", "refuse", text)


def floor_near_zero(case: FitCase) -> Caution | None:
    """E below a twentieth of the lowest loss."""
    lowest = float(np.exp(case.fit.log_loss.min()))
    floor = float(case.fit.law.E)
    if floor >= LOW_FLOOR * lowest:
        return None
    text = f"E = {floor:.3g} is near 0 (lowest loss {lowest:.4g}): the floor is not determined"
    return caution("floor-near-zero", "warn", text, numbers={"E": floor, "lowest": lowest})


def floor_above_lowest(case: FitCase) -> Caution | None:
    """E above the lowest loss."""
    lowest = float(np.exp(case.fit.log_loss.min()))
    floor = float(case.fit.law.E)
    if floor < lowest:
        return None
    text = f"E = {floor:.4g} is not below the lowest loss, {lowest:.4g}: the law cannot hold there"
    return caution("floor-above-lowest", "refuse", text, numbers={"E": floor, "lowest": lowest})


def flat_direction(case: FitCase) -> Caution | None:
    """A direction of the constants that hardly changes the fit."""
    if case.fit.flatness >= FLAT:
        return None
    text = f"smallest scaled curvature {case.fit.flatness:.2g}: some constants trade off; quote predictions, not them"
    return caution("flat-direction", "warn", text, numbers={"curvature": case.fit.flatness})


def second_basin(case: FitCase) -> Caution | None:
    """Another optimum within 1 % of the best."""
    second, best = case.fit.second_basin, case.fit.objective
    if second is None or second > (1 + NEAR_BASIN) * best:
        return None
    text = f"another optimum is {second / max(best, 1e-300) - 1:.2%} above the best: look at the profiles"
    return caution("second-basin", "warn", text, numbers={"best": best, "second": second})


def outliers_removed_sensitivity(case: FitCase) -> Caution | None:
    """The exponent moves by more than a standard error (a quarter of its interval; .02 without one) when the highest
    2 % or 4 % of losses go."""
    table, runs = case.table, len(case.table)
    count = max(1, round(DROPPED_SHARE * runs))
    assert table.loss is not None
    found = {0: float(case.fit.law.exp_params)}
    order = np.argsort(-table.loss, kind="stable")
    for dropped in (count, 2 * count):
        keep = np.sort(order[dropped:])
        try:
            minimized = case.fit.minimized
            law = fit_loss_law(
                table.params[keep],
                table.tokens[keep],
                table.loss[keep],
                delta=minimized.delta,
                objective=minimized.kind,
            ).law
        except DataError:
            return None
        found[dropped] = float(law.exp_params)
    allowed = MOVED
    if case.boot is not None:
        interval = case.boot.of(lambda law: law.exp_params)
        assert interval.low is not None
        assert interval.high is not None
        allowed = max((interval.high - interval.low) / 4, LEAST_MOVE)
    moved = max(abs(value - found[0]) for value in found.values()) > allowed
    if not moved:
        return None
    text = "a = " + ", ".join(f"{value:.3f} ({dropped} dropped)" for dropped, value in found.items())
    numbers = {f"a_without_{dropped}": value for dropped, value in found.items()}
    return caution("outliers-removed-sensitivity", "warn", f"without the highest losses {text}", numbers=numbers)


def seed_noise_only_intervals(case: FitCase) -> Caution | None:
    """Intervals from residuals."""
    if case.boot is None or case.boot.method != "residuals":
        return None
    text = "intervals hold the scatter around the law only, neither other sizes and budgets nor another form of law"
    return caution("seed-noise-only-intervals", "note", text)


def check_exponents(a: float, b: float) -> Caution | None:
    """Ask whether exponents of N_opt and D_opt that were fitted apart add up to 1, as C = 6 N D wants.

    Example: check_exponents(0.367, 0.579).message -> "a + b = 0.367 + 0.579 = 0.946, not 1: ..."
    """
    total = a + b
    if abs(total - 1) <= AB_SUM:
        return None
    text = f"a + b = {a:.3f} + {b:.3f} = {total:.3f}, not 1: C is not 6 N D of these N and D, or one fit is off"
    return caution("ab-sum", "warn", text, numbers={"a": a, "b": b})


def ab_sum(case: FitCase) -> Caution | None:
    """Exponents of N and D fitted separately do not add up to 1."""
    return None if case.exponents is None else check_exponents(*case.exponents)


def extrapolation_beyond_10x(case: FitCase) -> Caution | None:
    """A target beyond ten times the largest measured compute."""
    if not len(case.targets_flops):
        return None
    factor = max(case.targets_flops) / float(case.table.flops.max())
    if factor <= FAR:
        return None
    text = (
        f"{max(case.targets_flops):.3g} FLOPs is {factor:.3g} times the largest run: give the interval, not the value"
    )
    severity = "refuse" if factor > TOO_FAR else "warn"
    return caution("extrapolation-beyond-10x", severity, text, numbers={"factor": factor})  # type: ignore[arg-type]


def approaches_disagree(case: FitCase) -> Caution | None:
    """Two approaches give exponents that lie outside each other's intervals."""
    if case.approaches is None or not case.approaches.disagreements:
        return None
    return caution("approaches-disagree", "warn", "; ".join(case.approaches.disagreements))


def held_out_missed(case: FitCase) -> Caution | None:
    """The law, fitted without the largest budget, does not predict it."""
    if case.held_out is None or not case.held_out.missed:
        return None
    return caution("held-out-missed", "warn", case.held_out.message)
