"""Checks of the grid: which sizes, tokens and budgets the runs of one arm cover.

Enters: the `RunTable` of one arm. Leaves: a `Caution` or None per check.
The one decision worth knowing: budgets are those of `tables.budgets`; checks of budgets stay silent where the runs do
not come in budgets, fewer than half of them share one with another size, or budgets lie closer than a factor 1.2.
"""

from __future__ import annotations

import numpy as np

from speechscale.scaling.checks.caution import Caution, Severity, caution
from speechscale.scaling.fitting.bootstrap import SMALL_TABLE
from speechscale.scaling.fitting.fit import MIN_RUNS
from speechscale.scaling.tables.budgets import budgets_of, runs_of
from speechscale.scaling.tables.run_table import RunTable

SEPARATE = 1.2
"""Budgets of a planned sweep lie further apart; points read off a figure do not."""
MIN_SIZES = 5
MIN_RANGE = 8.0
MAX_CORRELATION = 0.9


def few_runs(table: RunTable) -> Caution | None:
    """Fewer than 20 runs (checkpoints of one run count once); fewer than six cannot be fitted."""
    names = runs_of(table)
    runs = len(table) if names is None else len(set(names))
    of = f"{runs} runs" if names is None else f"{runs} runs ({len(table)} rows, checkpoints counted)"
    if runs < MIN_RUNS:
        text = f"{of}: a law of five constants needs {MIN_RUNS}"
        severity: Severity = "refuse" if len(table) < MIN_RUNS else "warn"
        return caution("few-runs", severity, text, numbers={"runs": runs})
    if runs < SMALL_TABLE:
        source = "residuals and are only as good as the law" if names is None else f"resamples of {runs} runs: narrow"
        return caution("few-runs", "note", f"{of}: intervals come from {source}", numbers={"runs": runs})
    return None


def one_size(table: RunTable) -> Caution | None:
    """All runs of one size."""
    if len(np.unique(table.params)) > 1:
        return None
    return caution("one-size", "refuse", f"every run has N = {table.params[0]:.4g}: nothing about size was measured")


def narrow_size_range(table: RunTable) -> Caution | None:
    """Largest over smallest size below 8."""
    factor = float(table.params.max() / table.params.min())
    if factor >= MIN_RANGE or len(np.unique(table.params)) == 1:
        return None
    text = f"sizes span a factor {factor:.2g}, less than {MIN_RANGE:g}: exponents of size are hardly measured"
    return caution("narrow-size-range", "warn", text, numbers={"factor": factor})


def few_sizes_per_budget(table: RunTable) -> Caution | None:
    """Budgets with fewer than five sizes or a span of sizes below 8."""
    budgets = _swept(table)
    sizes = [np.unique(table.params[rows].round(-int(np.log10(table.params.min())) + 3)) for rows in budgets]
    poor = [len(s) < MIN_SIZES or s[-1] / s[0] < MIN_RANGE for s in sizes]
    if not any(poor):
        return None
    rows = [row for rows, bad in zip(budgets, poor, strict=True) if bad for row in rows]
    text = (
        f"{sum(poor)} of {len(budgets)} budgets have fewer than {MIN_SIZES} sizes or a span below {MIN_RANGE:g}: "
        "their best size is weakly determined"
    )
    return caution("few-sizes-per-budget", "warn", text, rows=_rows(rows), numbers={"budgets": sum(poor)})


def edge_optimum(table: RunTable) -> Caution | None:
    """Budgets whose lowest loss is at the smallest or largest size."""
    if table.loss is None:
        return None
    edges, swept = [], _swept(table, at_least=3)
    for rows in swept:
        sizes = np.unique(table.params[rows])
        means = [float(np.mean(table.loss[rows][table.params[rows] == size])) for size in sizes]
        if int(np.argmin(means)) in (0, len(sizes) - 1):
            edges.append(rows)
    if not edges:
        return None
    budgets = ", ".join(f"{np.median(table.flops[rows]):.2g}" for rows in edges[:6])
    text = f"{len(edges)} of {len(swept)} budgets have their lowest loss at an edge of the sizes: {budgets} FLOPs"
    return caution(
        "edge-optimum", "warn", text, rows=_rows(r for e in edges for r in e), numbers={"budgets": len(edges)}
    )


def collinear_n_d(table: RunTable) -> Caution | None:
    """Correlation of log N and log D above .9."""
    if len(table) < 3 or min(np.ptp(table.params), np.ptp(table.tokens)) == 0:
        return None
    with np.errstate(all="ignore"):
        r = float(np.corrcoef(np.log(table.params), np.log(table.tokens))[0, 1])
    if not abs(r) > MAX_CORRELATION:
        return None
    text = f"log N and log D are correlated ({r:+.3f}): alpha, beta and E are not separable; vary D at fixed N"
    return caution("collinear-n-d", "warn", text, numbers={"correlation": r})


def duplicated_rows(table: RunTable) -> Caution | None:
    """Rows equal in everything the table holds."""
    columns = [table.params, table.tokens, *([] if table.loss is None else [table.loss]), *table.metrics.values()]
    columns += [table.extras[role] for role in table.extras]
    seen: dict[tuple[str, ...], int] = {}
    copies = []
    for row, cells in enumerate(zip(table.groups or ("",) * len(table), *columns, strict=True)):
        key = tuple(map(str, cells))
        if key in seen:
            copies.append(row)
        seen.setdefault(key, row)
    if not copies:
        return None
    text = f"{len(copies)} rows repeat an earlier one in every column; they count twice"
    return caution("duplicated-rows", "warn", text, rows=_rows(copies), numbers={"copies": len(copies)})


def _swept(table: RunTable, at_least: int = 2) -> list[np.ndarray]:
    """Rows of each budget with several sizes; empty where the table is no iso-FLOP sweep."""
    labels = budgets_of(table)
    if labels is None:
        return []
    computes = np.unique(labels)
    if len(computes) > 1 and np.median(computes[1:] / computes[:-1]) < SEPARATE:
        return []
    groups = [np.flatnonzero(labels == label) for label in computes]
    swept = [rows for rows in groups if len(np.unique(table.params[rows])) >= 2]
    if 2 * sum(map(len, swept)) < len(table):
        return []
    return [rows for rows in swept if len(np.unique(table.params[rows])) >= at_least]


def _rows(rows: object) -> tuple[int, ...]:
    return tuple(sorted(int(row) for row in rows))  # type: ignore[attr-defined]
