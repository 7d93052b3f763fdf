"""Named warnings about a table and a fit.

Enters: a `RunTable`, a `Fit`. Leaves: `Caution`s, worst first.
The one decision worth knowing: a check is a plain function in a dict by name; none of them changes a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from speechscale.scaling.checks import design, fits, training
from speechscale.scaling.checks.caution import REFERENCES, Caution, Severity
from speechscale.scaling.checks.fits import FitCase, check_against, check_exponents
from speechscale.scaling.fitting.bootstrap import LawBootstrap
from speechscale.scaling.fitting.fit import Fit
from speechscale.scaling.optima.approaches import Approaches
from speechscale.scaling.optima.held_out import HeldOut
from speechscale.scaling.tables.run_table import RunTable

ARM_CHECKS: dict[str, Callable[[RunTable], Caution | None]] = {
    "few-runs": design.few_runs,
    "one-size": design.one_size,
    "narrow-size-range": design.narrow_size_range,
    "few-sizes-per-budget": design.few_sizes_per_budget,
    "edge-optimum": design.edge_optimum,
    "collinear-n-d": design.collinear_n_d,
    "duplicated-rows": design.duplicated_rows,
    "checkpoints-as-runs": training.checkpoints_as_runs,
    "cut-from-longer-schedule": training.cut_from_longer_schedule,
    "mixed-schedules": training.mixed_schedules,
    "warmup-too-long": training.warmup_too_long,
    "learning-rates-pooled": training.learning_rates_pooled,
    "embeddings-counted": training.embeddings_counted,
    "repeated-data": training.repeated_data,
}
"""Asked of every arm alone."""
TABLE_CHECKS: dict[str, Callable[[RunTable], Caution | None]] = {"unlike-tokenizers": training.unlike_tokenizers}
"""Asked of all arms together."""
FIT_CHECKS: dict[str, Callable[[FitCase], Caution | None]] = {
    "early-stop": fits.early_stop,
    "constants-at-bounds": fits.constants_at_bounds,
    "floor-near-zero": fits.floor_near_zero,
    "floor-above-lowest": fits.floor_above_lowest,
    "flat-direction": fits.flat_direction,
    "second-basin": fits.second_basin,
    "outliers-removed-sensitivity": fits.outliers_removed_sensitivity,
    "seed-noise-only-intervals": fits.seed_noise_only_intervals,
    "ab-sum": fits.ab_sum,
    "approaches-disagree": fits.approaches_disagree,
    "held-out-missed": fits.held_out_missed,
    "extrapolation-beyond-10x": fits.extrapolation_beyond_10x,
}
_WORST: tuple[Severity, ...] = ("refuse", "warn", "note")


def check_table(table: RunTable) -> tuple[Caution, ...]:
    """Check a table, each arm alone and all together; worst first.

    Example: [c.name for c in check_table(table)] -> ["narrow-size-range", "repeated-data"]
    """
    found: list[Caution] = [c for check in TABLE_CHECKS.values() if (c := check(table)) is not None]
    for name, arm in table.each_arm():
        places = [row for row, group in enumerate(table.groups) if group == name]
        for check in ARM_CHECKS.values():
            if (c := check(arm)) is not None:
                message = f"{name}: {c.message}" if len(table.arms) > 1 else c.message
                found.append(replace(c, message=message, rows=tuple(places[row] for row in c.rows)))
    return _sorted(found)


def check_fit(
    table: RunTable,
    fit: Fit,
    *,
    boot: LawBootstrap | None = None,
    approaches: Approaches | None = None,
    held_out: HeldOut | None = None,
    exponents: tuple[float, float] | None = None,
    targets_flops: Sequence[float] = (),
) -> tuple[Caution, ...]:
    """Check a fit of one arm; worst first.

    Args:
        table: the runs behind the fit, in its order. boot: its bootstrap. exponents: a and b fitted separately.
        approaches, held_out: of the same runs, where they were made.
        targets_flops: computes that will be predicted.
    """
    case = FitCase(
        table=table,
        fit=fit,
        boot=boot,
        exponents=exponents,
        targets_flops=targets_flops,
        approaches=approaches,
        held_out=held_out,
    )
    return _sorted(c for check in FIT_CHECKS.values() if (c := check(case)) is not None)


def _sorted(found: Iterable[Caution]) -> tuple[Caution, ...]:
    return tuple(sorted(found, key=lambda c: _WORST.index(c.severity)))


__all__ = [
    "ARM_CHECKS",
    "FIT_CHECKS",
    "REFERENCES",
    "TABLE_CHECKS",
    "Caution",
    "check_against",
    "check_exponents",
    "check_fit",
    "check_table",
]
