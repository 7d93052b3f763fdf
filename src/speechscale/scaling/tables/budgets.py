"""Which runs belong together: of one budget, of one training run.

Enters: a `RunTable`. Leaves: labels, one per row.
The one decision worth knowing: runs whose compute differs by less than 5 % share a budget, and a table has budgets only
if three of its runs share one on average; every approach, check and resampling asks here.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from speechscale.scaling.tables.run_table import RunTable

SAME_BUDGET = 0.05
"""Gap in log compute below which neighbors share a budget."""
RUNS_PER_BUDGET = 3.0
"""Fewer on average: the runs do not come in budgets."""
WIDEST = 0.3
"""Log compute that a chain of neighbors may span; a longer one is runs scattered so densely that they touch."""


def budgets_of(table: RunTable) -> Float[np.ndarray, " runs"] | None:
    """Name the budget of each run (its mean C), None where the runs do not come in budgets.

    `budget_flops` where the table has it for every run, else runs whose compute differs by less than 5 %, unless such
    neighbors make long chains.
    """
    named = table.numbers("budget_flops")
    if len(table) and np.all(np.isfinite(named)):
        return named
    labels = compute_groups(table.flops)
    names, group = np.unique(labels, return_inverse=True)
    logs = np.log(table.flops)
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    np.minimum.at(low, group, logs)
    np.maximum.at(high, group, logs)
    few = len(table) < RUNS_PER_BUDGET * len(names)
    return None if few or np.max(high - low, initial=0.0) > WIDEST else labels


def compute_groups(flops: Float[np.ndarray, " runs"]) -> Float[np.ndarray, " runs"]:
    """The mean C of neighbors within 5 % of each other. Example: [1, 1.01, 2] -> 1.005, 1.005, 2"""
    order = np.argsort(flops, kind="stable")
    logs = np.log(flops[order])
    group = np.concatenate([[0], np.cumsum(np.diff(logs) > SAME_BUDGET)])
    labels = np.empty(len(flops))
    labels[order] = np.exp(np.bincount(group, logs) / np.bincount(group))[group]
    return labels


def runs_of(table: RunTable) -> list[str] | None:
    """Name the training run of each row, None where every row is a run of its own (no checkpoints)."""
    names = [name or f"row {i}" for i, name in enumerate(table.words("run"))]
    return names if len(set(names)) < len(names) else None
