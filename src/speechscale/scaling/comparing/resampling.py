"""What is resampled when two tables are compared, and what weakens the result.

Enters: two `RunTable`s, their fits and replicates. Leaves: cluster labels, notes.
The one decision worth knowing: a cluster is resampled only where each table has at least four, several runs each.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from speechscale.errors import DataError
from speechscale.scaling.fitting.bootstrap import LawBootstrap
from speechscale.scaling.fitting.fit import Fit
from speechscale.scaling.tables.budgets import budgets_of, runs_of
from speechscale.scaling.tables.run_table import RunTable

By = Literal["auto", "run", "budget", "size"]
Ways = dict[str, tuple[np.ndarray, np.ndarray] | None]
"""Way of resampling -> one cluster label per row of each table, None for single rows."""
MIN_CLUSTERS = 4
"""Resamples of fewer budgets or sizes are mostly copies of one."""


def resamplings(a: RunTable, b: RunTable, by: By) -> Ways:
    """Choose the resamplings: way -> one cluster label per run of each table, None for single runs.

    Raises:
        DataError: the asked clusters are missing, or fewer than four.
    """
    sets = {"budget": (budgets_of(a), budgets_of(b)), "size": (a.params, b.params)}
    usable = {
        way: (one, two)
        for way, (one, two) in sets.items()
        if one is not None and two is not None and min(len(np.unique(one)), len(np.unique(two))) >= MIN_CLUSTERS
    }
    single: Ways = {"run": checkpoints(a, b)}
    if by == "run":
        return single
    if by in ("budget", "size"):
        if by not in usable:
            raise DataError(f"by='{by}': the tables need at least {MIN_CLUSTERS} {by}s each; use by='run'")
        return {by: usable[by]}
    # One run per cluster resamples the same thing twice.
    for way in usable:
        one, two = usable[way]
        if len(np.unique(one)) < len(a) and len(np.unique(two)) < len(b):
            return {**single, way: usable[way]}
    return single


def checkpoints(a: RunTable, b: RunTable) -> tuple[np.ndarray, np.ndarray] | None:
    """Checkpoints of one run are drawn together; None where every row is a run of its own."""
    names = [runs_of(table) for table in (a, b)]
    if names == [None, None]:
        return None
    one, two = (
        np.arange(len(table)) if runs is None else np.array(runs) for table, runs in zip((a, b), names, strict=True)
    )
    return one, two


def unlike_inventories(a: RunTable, b: RunTable) -> str:
    """Say how the units of the losses differ, "" where they do not or nobody told."""
    units = [sorted({word for word in table.words("tokenizer") if word}) for table in (a, b)]
    if not (units[0] and units[1]) or units[0] == units[1]:
        return ""
    return f"{a.name} counts {', '.join(units[0])}, {b.name} {', '.join(units[1])}"


def table_notes(a: RunTable, b: RunTable) -> tuple[str, ...]:
    """Say where the tables count compute differently."""
    if a.flops_name != b.flops_name:
        return (
            f"compute is counted differently: {a.name} {a.flops_name}, {b.name} {b.flops_name}; multipliers mix both",
        )
    return ()


def fit_notes(
    a: RunTable, b: RunTable, fits: list[Fit], boots: list[dict[str, LawBootstrap]], ways: Ways, by: By
) -> list[str]:
    """Say what weakens the fits, the replicates, and the intervals."""
    notes = []
    for table, fit, boot in zip((a, b), fits, boots, strict=True):
        notes += [f"{table.name}: {note}" for note in fit.notes]
        if "run" in boot and boot["run"].method == "residuals":
            notes.append(f"{table.name}: {fit.runs} runs are too few to resample; residuals are drawn instead")
        short = {way: 1 - found.converged for way, found in boot.items() if found.converged < 0.99}
        notes += [f"{table.name}: {100 * x:.1f} % of the replicates by {way} stopped short" for way, x in short.items()]
    if by == "auto" and len(ways) == 1:
        notes.append(
            f"only single runs were resampled (fewer than {MIN_CLUSTERS} budgets or sizes with several runs each): the "
            "interval may be too narrow"
        )
    return notes
