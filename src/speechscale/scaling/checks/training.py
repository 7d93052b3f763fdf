"""Checks of how the runs were trained and counted: schedules, rates, data, tokenizers.

Enters: a `RunTable`. Leaves: a `Caution` or None per check.
The one decision worth knowing: a check speaks only of columns that the table has; an absent column is silence, not a
pass, and `unknowns` lists what could not be checked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from speechscale.scaling.checks.caution import Caution, caution
from speechscale.scaling.tables.run_table import Role, RunTable

MAX_WARMUP = 0.1
EMBEDDED = 1.1
SMALL_MODEL = 1e8
FREE_EPOCHS, MANY_EPOCHS = 1.0, 4.0
_TOLERANCE = 1.01


def checkpoints_as_runs(table: RunTable) -> Caution | None:
    """Several rows of one training run."""
    names = [name for name in table.words("run") if name]
    if len(set(names)) == len(names):
        return None
    counts = Counter(names)
    rows = tuple(row for row, name in enumerate(table.words("run")) if counts[name] > 1)
    runs = sum(count > 1 for count in counts.values())
    text = f"{len(rows)} rows are of {runs} runs: resample by run, or keep the last row of each"
    return caution("checkpoints-as-runs", "warn", text, rows=rows)


def cut_from_longer_schedule(table: RunTable) -> Caution | None:
    """Tokens seen below the tokens of the schedule."""
    with np.errstate(invalid="ignore"):
        cut = table.numbers("planned_tokens") > _TOLERANCE * table.tokens
    if not cut.any():
        return None
    text = f"{int(cut.sum())} runs stop before their schedule ends: their losses are above those of finished runs"
    return caution("cut-from-longer-schedule", "warn", text, rows=_where(cut))


def mixed_schedules(table: RunTable) -> Caution | None:
    """More than one learning-rate schedule."""
    kinds = sorted({word for word in table.words("schedule") if word})
    if len(kinds) < 2:
        return None
    return caution("mixed-schedules", "warn", f"schedules {', '.join(kinds)} in one fit: fit each alone and compare")


def warmup_too_long(table: RunTable) -> Caution | None:
    """Warm-up above a tenth of the run or above N tokens."""
    warmup = table.numbers("warmup_tokens")
    with np.errstate(invalid="ignore"):
        long = (warmup > MAX_WARMUP * table.tokens) | (warmup > table.params)
    if not long.any():
        return None
    share = float(np.nanmax(warmup / table.tokens))
    text = f"{int(long.sum())} runs warm up for more than 10 % of their tokens or for more tokens than parameters"
    text += f" (up to {share:.0%}); short runs lose most by it"
    return caution("warmup-too-long", "warn", text, rows=_where(long), numbers={"largest_share": share})


def learning_rates_pooled(table: RunTable) -> Caution | None:
    """Several learning rates at the same size and tokens."""
    rates = table.numbers("learning_rate")
    cells: dict[tuple[object, ...], list[int]] = defaultdict(list)
    groups, units = table.groups or ("",) * len(table), table.words("tokenizer")
    for row in np.flatnonzero(np.isfinite(rates)):
        cells[groups[row], units[row], f"{table.params[row]:.4g}", f"{table.tokens[row]:.3g}"].append(int(row))
    mixed = [rows for rows in cells.values() if len(set(rates[rows])) > 1]
    if not mixed:
        return None
    text = f"{len(mixed)} pairs of size and tokens have runs at several learning rates: keep the best of each"
    return caution("learning-rates-pooled", "warn", text, rows=tuple(sorted(r for rows in mixed for r in rows)))


def embeddings_counted(table: RunTable) -> Caution | None:
    """Embeddings are more than a tenth of small models, or nobody said whether they are counted."""
    total, body = table.numbers("params_total"), table.numbers("params_non_embedding")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(body > 0, total / body, np.nan)
    if np.isfinite(ratio).any():
        largest = float(np.nanmax(ratio))
        if largest <= EMBEDDED:
            return None
        text = f"with embeddings N is up to {largest:.2f} times N without: fit under both (--flops) and report both"
        return caution("embeddings-counted", "warn", text, numbers={"largest_ratio": largest})
    if table.flops_name != "6nd" or table.params.min() >= SMALL_MODEL:
        return None
    text = f"the smallest N is {table.params.min():.3g} and the table does not say whether embeddings are counted"
    return caution("embeddings-counted", "note", text, numbers={"smallest": float(table.params.min())})


def repeated_data(table: RunTable) -> Caution | None:
    """Data seen more than once; more than four times is outside a single-epoch law."""
    epochs = table.numbers("epochs")
    unique = table.numbers("unique_tokens")
    with np.errstate(divide="ignore", invalid="ignore"):
        epochs = np.where(np.isfinite(epochs), epochs, np.where(unique > 0, table.tokens / unique, np.nan))
        repeated, many = epochs > FREE_EPOCHS * _TOLERANCE, epochs > MANY_EPOCHS
    if not repeated.any():
        return None
    most = float(np.nanmax(epochs))
    text = f"{int(repeated.sum())} runs see data more than once, up to {most:.3g} times"
    if many.any():
        text += f"; {int(many.sum())} above {MANY_EPOCHS:g} epochs: use the law of repeated data (--law repeat)"
    rows = _where(many if many.any() else repeated)
    return caution("repeated-data", "warn" if many.any() else "note", text, rows=rows, numbers={"epochs": most})


def unlike_tokenizers(table: RunTable) -> Caution | None:
    """Losses per token of several tokenizers in one table."""
    kinds = sorted({word for word in table.words("tokenizer") if word})
    if table.loss is None or len(kinds) < 2:
        return None
    text = f"losses count tokens of {', '.join(kinds)}: they are not comparable; use scores or nats per second"
    return caution("unlike-tokenizers", "warn", text)


_NEEDS: dict[str, Sequence[Role]] = {
    "checkpoints-as-runs": ("run",),
    "cut-from-longer-schedule": ("planned_tokens",),
    "mixed-schedules": ("schedule",),
    "warmup-too-long": ("warmup_tokens",),
    "learning-rates-pooled": ("learning_rate",),
    "repeated-data": ("epochs", "unique_tokens"),
    "unlike-tokenizers": ("tokenizer",),
}


def unknowns(table: RunTable) -> dict[str, str]:
    """Checks that the table has no column for. Example: {"warmup-too-long": "--col warmup_tokens=COLUMN"}"""
    return {
        name: " or ".join(f"--col {role}=COLUMN" for role in roles)
        for name, roles in _NEEDS.items()
        if not any(role in table.extras for role in roles)
    }


def _where(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(map(int, np.flatnonzero(mask)))
