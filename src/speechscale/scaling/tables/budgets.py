"""Which runs belong together: of one budget, of one training run.

Enters: a `RunTable`. Leaves: labels, one per row.
The one decision worth knowing: neighbors in compute share a budget, and a table has budgets only if three of its runs
share one on average; every approach, check and resampling asks here.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from speechscale.scaling.tables.run_table import RunTable

SAME_BUDGET = 0.05
"""Gap in log compute below which neighbors share a budget, where no clearer division is seen."""
RUNS_PER_BUDGET = 3.0
"""Fewer on average: the runs do not come in budgets."""
WIDEST = 0.3
"""Log compute that such a chain of neighbors may span; a longer one is runs so dense that they touch."""
CLEAR = 3.0
"""Budgets met inexactly are clear if the smallest gap between them is this many times the largest within one."""
LEAST_APART = 0.3
"""And at least so far apart in log compute."""


def budgets_of(table: RunTable) -> Float[np.ndarray, " runs"] | None:
    """Name the budget of each run (its mean C), None where the runs do not come in budgets.

    `budget_flops` where the table has it for every run (and two runs share one, if compute shows any budgets: a column
    that repeats each run's own compute names none); else groups with clear gaps between them; else neighbors whose
    compute differs by less than 5 %, unless they make long chains.
    """
    named = table.numbers("budget_flops")
    known = len(table) > 0 and bool(np.all(np.isfinite(named) & (named > 0)))
    if known and len(np.unique(named)) < len(table):
        return named
    labels = _clear(table.flops)
    if labels is None:
        labels = compute_groups(table.flops)
        if _widest(table.flops, labels) > WIDEST:
            labels = table.flops
    if len(table) >= RUNS_PER_BUDGET * len(np.unique(labels)):
        return labels
    return named if known else None


def budget_compute(
    flops: Float[np.ndarray, " runs"], labels: Float[np.ndarray, " runs"]
) -> Float[np.ndarray, " budgets"]:
    """The mean C of each budget, in the order of its name: budgets may be named under another FLOP convention than C's.

    Example: a study's budget of 5e10 exact FLOPs in small models -> 3.5e10, its runs' mean 6 N D
    """
    _, group = np.unique(labels, return_inverse=True)
    return np.asarray(np.exp(np.bincount(group, np.log(flops)) / np.bincount(group)))


def compute_groups(flops: Float[np.ndarray, " runs"], gap: float = SAME_BUDGET) -> Float[np.ndarray, " runs"]:
    """The mean C of neighbors closer than a gap in log C. Example: [1, 1.01, 2] -> 1.005, 1.005, 2"""
    order = np.argsort(flops, kind="stable")
    logs = np.log(flops[order])
    group = np.concatenate([[0], np.cumsum(np.diff(logs) > gap)])
    labels = np.empty(len(flops))
    labels[order] = np.exp(np.bincount(group, logs) / np.bincount(group))[group]
    return labels


def _clear(flops: Float[np.ndarray, " runs"]) -> Float[np.ndarray, " runs"] | None:
    """Groups whose gaps are clearly larger than all others; None where no such division is seen."""
    most = int(len(flops) / RUNS_PER_BUDGET)
    gaps = np.sort(np.diff(np.sort(np.log(flops))))[::-1]
    if most < 2 or len(gaps) < 2:
        return None
    between = gaps[: min(most - 1, len(gaps) - 1)]
    within = gaps[1 : len(between) + 1]
    ratios = np.where(between >= LEAST_APART, between / np.maximum(within, 0.01), 0.0)
    best = int(ratios.argmax())
    if ratios[best] < CLEAR:
        return None
    labels = compute_groups(flops, float(np.sqrt(between[best] * max(within[best], 1e-6))))
    return labels if _widest(flops, labels) <= between[best] else None


def _widest(flops: Float[np.ndarray, " runs"], labels: Float[np.ndarray, " runs"]) -> float:
    """Log compute that the widest group spans."""
    names, group = np.unique(labels, return_inverse=True)
    logs, low, high = np.log(flops), np.full(len(names), np.inf), np.full(len(names), -np.inf)
    np.minimum.at(low, group, logs)
    np.maximum.at(high, group, logs)
    return float(np.max(high - low, initial=0.0))


def runs_of(table: RunTable) -> list[str] | None:
    """Name the training run of each row, None where every row is a run of its own (no checkpoints)."""
    names = [name or f"row {i}" for i, name in enumerate(table.words("run"))]
    return names if len(set(names)) < len(names) else None
