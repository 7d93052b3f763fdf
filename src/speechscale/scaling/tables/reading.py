"""Read a table of runs from any file: which column is what, in which unit, and which rows cannot be used.

Enters: a path and what the caller says of its columns. Leaves: a `RunTable` with echoes and skipped rows.
The one decision worth knowing: columns are recognized by a short list of names and every recognition is echoed; two
candidates for one role, or numbers that only make sense in another unit, are refused, never chosen between.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.files import complete_file
from speechscale.scaling.laws import FLOPS_PER_PARAM_TOKEN
from speechscale.scaling.tables.conventions import Counted, find_convention
from speechscale.scaling.tables.exports import read_raw
from speechscale.scaling.tables.quantities import read_column, read_unit
from speechscale.scaling.tables.reader import WHAT, Reader
from speechscale.scaling.tables.recognize import Choice, choose_columns
from speechscale.scaling.tables.run_table import TEXT_ROLES, Role, RunTable, Skipped
from speechscale.settings import nearest

_MOST_RATIO = 5.0
"""C and 6 N D may differ by convention up to this factor; beyond it a unit is wrong."""
_SAME = 0.02


def read_runs(
    path: str | Path,
    *,
    n: str | None = None,
    d: str | None = None,
    c: str | None = None,
    loss: str | None = None,
    metrics: Sequence[str] = (),
    group: str | None = None,
    columns: Mapping[Role, str] | Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    flops: str | None = None,
    drop_highest: int = 0,
    percent: bool | Literal["auto"] = "auto",
    checkpoints: bool = False,
) -> RunTable:
    """Read a table of runs.

    Example: read_runs("epoch.csv", n="Model Size", c="Training FLOP", drop_highest=5) -> 240 of 245 runs

    Args:
        path: CSV, TSV, Parquet, JSON, JSON lines (or .gz), trackio .db, or a folder of wandb histories.
        n, d, c, loss, metrics, group: names of columns; None: recognized where one name is known (see docs/tables.md).
        columns: further columns by role. units: of a column, by "N", "D", "C", role or name: "M", "B", "1e18".
        flops: a key of `conventions.CONVENTIONS` or a column of FLOPs; then N = C / (6 D) under it.
        drop_highest: keep losses below the K-th highest. percent: divide metrics by 100; "auto": where above 1.5.
        checkpoints: of logged steps, keep every row.

    Raises:
        DataError: names file, row and column, what came, what is allowed.
    """
    path = Path(path)
    raw = read_raw(path, checkpoints=checkpoints)
    rows_read = len(raw.frame) + len(raw.skipped)
    chosen = choose_columns(
        list(raw.frame.columns),
        str(path),
        n=n,
        d=d,
        c=c,
        loss=loss,
        metrics=metrics,
        group=group,
        columns=columns or {},
    )
    scales = {name: read_unit(text) for name, text in (units or {}).items()}
    reader = Reader(str(path), raw, scales, [*raw.notes, *chosen.notes])
    params, tokens, convention, flops_name = _sizes(reader, chosen, flops)
    with np.errstate(all="ignore"):
        flops_of = FLOPS_PER_PARAM_TOKEN * params * tokens
    reader.drop(~np.isfinite(flops_of) | (flops_of <= 0), "C = 6 N D is no number above 0 that a computer holds")
    losses = _losses(reader, chosen.loss)
    if drop_highest:
        _drop_highest(reader, losses, drop_highest)
    scores = {name: _metric(reader, name, percent) for name in chosen.metrics}
    extras: dict[Role, Any] = {role: _extra(reader, role, column) for role, column in chosen.extras.items()}
    _charge_alike(reader, chosen, extras, flops_of)
    unused = sorted(set(scales) - reader.used_units)
    if unused:
        raise DataError(
            f"{path}: --unit {unused[0]}=...: no numeric column in use has this name{nearest(unused[0], list(WHAT))}"
        )
    keep = np.array([position not in reader.reasons for position in range(len(raw.frame))])
    skipped = [*raw.skipped, *((raw.rows[position], why) for position, why in reader.reasons.items())]
    assert int(keep.sum()) + len(skipped) == rows_read, "every row is kept or skipped with a reason"
    if not keep.any():
        raise DataError(f"{path}: none of {rows_read} rows can be used; row {min(skipped)[0]}: {min(skipped)[1]}")
    if skipped:
        reader.echoes.append(f"{int(keep.sum())} of {rows_read} rows kept")
    groups = _groups(reader, chosen)
    return RunTable(
        name=path.name if path.name != "runs.csv" or not path.parent.name else f"{path.parent.name}/runs.csv",
        params=params[keep],
        tokens=tokens[keep],
        flops=flops_of[keep],
        loss=None if losses is None else losses[keep],
        metrics={name: v[keep] for name, v in scores.items() if np.isfinite(v[keep]).any()},
        groups=tuple(g for g, k in zip(groups, keep, strict=True) if k),
        extras={role: values[keep] for role, values in extras.items()},
        convention=convention,
        flops_name=flops_name,
        echoes=tuple(reader.echoes),
        skipped=tuple(Skipped(row=row, reason=why) for row, why in sorted(skipped)),
        rows_read=rows_read,
    )


def write_skips(path: Path, table: RunTable) -> None:
    """Write the rows that were left out, one JSON object {table, row, reason} per line; empty when none was."""
    with complete_file(Path(path)) as part:
        lines = (
            json.dumps({"table": table.name, "row": skip.row, "reason": skip.reason}, ensure_ascii=False) + "\n"
            for skip in table.skipped
        )
        with part.open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(lines)


def _groups(reader: Reader, chosen: Choice) -> list[str]:
    """Labels of the arms; a study's parts stand before them where there are several."""
    groups = reader.cells(chosen.group) if chosen.group else [""] * len(reader.raw.frame)
    parts = reader.cells(chosen.second_group) if chosen.second_group else []
    return [f"{part}: {name}" for part, name in zip(parts, groups, strict=True)] if len(set(parts)) > 1 else groups


def _sizes(reader: Reader, chosen: Choice, flops: str | None) -> tuple[np.ndarray, np.ndarray, str, str]:
    """N and D such that C = 6 N D, and what that C counts."""
    counted = None if flops is None else find_convention(flops, list(reader.raw.frame.columns), reader.path)
    if counted is not None and chosen.d is None:
        raise DataError(f"{reader.path}: --flops {flops} needs the tokens of each run; name their column with --d")
    n = None if counted is not None else chosen.n
    c = chosen.c if counted is None else counted.column if counted.is_flops else None
    if counted is not None and not counted.is_flops:
        n = counted.column
    if sum(column is not None for column in (n, chosen.d, c)) < 2:
        raise DataError(
            f"{reader.path}: two of N, D and C are needed; name them with --n, --d, --c. "
            f"Columns: {', '.join(map(str, reader.raw.frame.columns))[:600]}"
        )
    found = {name: _positive(reader, column, name) for name, column in (("N", n), ("D", chosen.d), ("C", c)) if column}
    if counted is not None:
        return *_counted(reader, found, counted), counted.name
    if len(found) == 3:
        assert c is not None
        assert n is not None
        return _all_three(reader, found, c, n)
    with np.errstate(all="ignore"):
        params = found["N"] if "N" in found else found["C"] / FLOPS_PER_PARAM_TOKEN / found["D"]
        tokens = found["D"] if "D" in found else found["C"] / FLOPS_PER_PARAM_TOKEN / found["N"]
    missing = next(iter({"N", "D", "C"} - set(found)))
    how = {"N": "N = C / (6 D)", "D": "D = C / (6 N)", "C": "C = 6 N D"}[missing]
    column = n if missing != "N" else c
    known = {"params_total": "6nd_total", "params_non_embedding": "6nd_non_embedding"}.get(column or "", "6nd")
    return params, tokens, f"{'N' if missing != 'N' else 'C'} of column '{column}', {how}", known


def _counted(reader: Reader, found: Mapping[str, np.ndarray], counted: Counted) -> tuple[np.ndarray, np.ndarray, str]:
    with np.errstate(all="ignore"):
        params = found["C"] / FLOPS_PER_PARAM_TOKEN / found["D"] if counted.is_flops else found["N"]
    reader.echoes.append(f"{counted.name}: C counts {counted.words}; read from '{counted.column}', N = C / (6 D)")
    return params, found["D"], f"C counts {counted.words} (column '{counted.column}'), N = C / (6 D)"


def _all_three(
    reader: Reader, found: Mapping[str, np.ndarray], c: str, n: str
) -> tuple[np.ndarray, np.ndarray, str, str]:
    with np.errstate(all="ignore"):
        ratio = found["C"] / (FLOPS_PER_PARAM_TOKEN * found["N"] * found["D"])
    good = ratio[np.isfinite(ratio)]
    low, middle, high = (float(x) for x in np.quantile(good, [0, 0.5, 1])) if len(good) else (1.0, 1.0, 1.0)
    if not 1 / _MOST_RATIO < middle < _MOST_RATIO:
        raise DataError(
            f"{reader.path}: C of column '{c}' is {middle:.3g} times 6 N D: a unit is wrong or one column is not what "
            "it is named for; give --unit, or leave out one of --n, --d, --c"
        )
    reader.echoes.append(f"C / (6 N D) is {middle:.3f} (from {low:.3f} to {high:.3f})")
    if max(abs(low - 1), abs(high - 1)) <= _SAME:
        return found["N"], found["D"], f"N of column '{n}', C = 6 N D (as column '{c}' within 2 %)", "6nd"
    with np.errstate(all="ignore"):
        params = found["C"] / FLOPS_PER_PARAM_TOKEN / found["D"]
    reader.echoes.append(f"N = C / (6 D) from '{c}', not column '{n}'; leave out --c to count N as the table does")
    return params, found["D"], f"C of column '{c}' ({middle:.3g} x 6 N D of '{n}'), N = C / (6 D)", c


def _positive(reader: Reader, column: str, name: str) -> Float[np.ndarray, " rows"]:
    values, cells = reader.numbers(column, name), reader.cells(column)
    reader.drop(
        ~np.isfinite(values) | (values <= 0),
        lambda at: f"{name} (column '{column}') is {cells[at] or 'empty'}: must be finite and above 0",
    )
    return values


def _losses(reader: Reader, column: str | None) -> Float[np.ndarray, " rows"] | None:
    if column is None:
        return None
    values, cells = reader.numbers(column, "loss"), reader.cells(column)
    reader.drop(
        ~np.isfinite(values) | (values <= 0),
        lambda at: f"loss (column '{column}') is {cells[at] or 'empty'}: must be finite and above 0",
    )
    return values


def _drop_highest(reader: Reader, losses: np.ndarray | None, count: int) -> None:
    """Keep losses below the K-th highest of the usable rows: the rule of Epoch's notebook."""
    if losses is None:
        raise DataError(f"{reader.path}: --drop-highest {count} needs losses; name their column with --loss")
    kept = np.array([position not in reader.reasons for position in range(len(losses))])
    if count >= kept.sum():
        raise DataError(f"{reader.path}: --drop-highest {count} of {int(kept.sum())} usable rows leaves none")
    limit = np.sort(losses[kept])[-count]
    with np.errstate(invalid="ignore"):
        reader.drop(
            kept & (losses >= limit),
            lambda at: f"loss {losses[at]:.6g} is not below the {count}. highest, {limit:.6g} (--drop-highest)",
        )


def _metric(reader: Reader, column: str, percent: bool | str) -> Float[np.ndarray, " rows"]:
    values, unit = reader.numbers(column, column), 1.0
    good = np.isfinite(values)
    highest, lowest = (values[good].max(), values[good].min()) if good.any() else (0.0, 0.0)
    if percent is True or (percent == "auto" and highest > 1.5):
        unit = 100.0
        reader.echoes.append(f"metric '{column}': up to {highest:g}, read as percent")
    if lowest < 0 or highest > unit:
        at = int(np.flatnonzero(good & ((values < 0) | (values > unit)))[0])
        raise DataError(
            f"{reader.path}, row {reader.raw.rows[at]}, metric '{column}': {values[at]:g} is not between 0 and "
            f"{unit:g}; give shares of right answers or percent"
        )
    return np.where(good, values, np.nan) / unit


def _charge_alike(reader: Reader, chosen: Choice, extras: dict[Role, Any], flops: np.ndarray) -> None:
    """A study counts its TextLM exactly: charge it as its share of the run's own exact compute, however C counts."""
    if chosen.extras.get("text_lm_flops") != "flops_text_lm_exact" or "flops_exact" not in reader.raw.frame:
        return
    exact = read_column(reader.cells("flops_exact"))[0]
    with np.errstate(all="ignore"):
        share = np.where(np.isfinite(exact) & (exact > 0), flops / exact, 1.0)
    extras["text_lm_flops"] = extras["text_lm_flops"] * share
    reader.echoes.append("flops_text_lm_exact is charged as its share of flops_exact, so that it counts as C does")


def _extra(reader: Reader, role: Role, column: str) -> np.ndarray:
    if role in TEXT_ROLES:
        return np.array([str(cell) for cell in reader.cells(column)], dtype=object)
    truths = {"true": "1", "yes": "1", "false": "0", "no": "0"}
    if role == "warm":
        cells = [truths.get(cell.strip().lower(), cell) for cell in reader.cells(column)]
        values, _, bad = read_column(cells)
        if bad:
            raise DataError(
                f"{reader.path}, row {reader.raw.rows[bad[0]]}, column '{column}': '{cells[bad[0]]}' is not 0 or 1"
            )
        return values
    numbers = reader.numbers(column, role)
    below = np.flatnonzero(numbers < 0)
    if len(below) and role != "seed":
        raise DataError(
            f"{reader.path}, row {reader.raw.rows[below[0]]}, column '{column}': {role} is {numbers[below[0]]:g} "
            f"({len(below)} such rows); must be 0 or more, leave it empty where it is not known"
        )
    return numbers
