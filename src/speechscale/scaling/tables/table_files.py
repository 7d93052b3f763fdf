"""Files of runs as texts in columns: CSV, TSV, Parquet, JSON, JSON lines, compressed or not.

Enters: a path. Leaves: `RawTable`: every cell as text, "" where there is none.
The one decision worth knowing: cells stay texts until their column's role is known, so an empty cell, a "nan" that a
diverged run wrote and "20.7M" are still told apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechscale.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json")


@dataclass(slots=True, kw_only=True)
class RawTable:
    """Cells as texts. rows: number of each row in the file, from 1. skipped: (row, reason). notes: to be echoed."""

    frame: pd.DataFrame
    rows: list[int]
    skipped: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_cells(path: Path) -> pd.DataFrame:
    """Read one file as texts.

    Raises:
        DataError: missing, of another kind, or not readable as what its name says.
    """
    import pandas as pd

    kind = next((s for s in SUFFIXES if path.name.lower().removesuffix(".gz").endswith(s)), None)
    if kind is None:
        raise DataError(
            f"{path}: unknown kind of table; give {', '.join(SUFFIXES)} (or .gz), a trackio .db or a folder"
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a table of runs")
    try:
        if kind in (".csv", ".tsv"):
            frame = _separated(path, "\t" if kind == ".tsv" else ",")
        elif kind == ".parquet":
            frame = _texts(pd.read_parquet(path))
        else:
            frame = records_frame(_json_rows(path, kind))
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:  # pandas' and pyarrow's own errors are ValueErrors
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a readable {kind} table: {str(error)[:200]}") from error
    frame.columns = [str(name).strip() for name in frame.columns]
    repeated = sorted(frame.columns[frame.columns.duplicated()])
    if repeated:
        raise DataError(f"{path}: two columns are called '{repeated[0]}'; rename one")
    return frame


def _separated(path: Path, separator: str) -> pd.DataFrame:
    """The heading is read as a row: pandas would rename a repeated one and hide a column too many."""
    import pandas as pd

    frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", header=None)
    frame = frame.fillna("")
    heading, frame = frame.iloc[0], frame.iloc[1:].reset_index(drop=True)
    frame.columns = pd.Index(heading)
    return frame


def records_frame(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Lay out records, nested ones flattened with dots, as texts."""
    import pandas as pd

    flat = [{name: _text(value) for name, value in flatten(record).items()} for record in records]
    return pd.DataFrame(flat, dtype=object).fillna("")


def flatten(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Example: {"a": {"b": 1}} -> {"a.b": 1}"""
    found: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _json_rows(path: Path, kind: str) -> list[Mapping[str, Any]]:
    import gzip

    data = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
    text = data.decode("utf-8")
    if kind == ".json":
        rows = json.loads(text)
        if isinstance(rows, Mapping):  # {"runs": [...]}
            rows = next((value for value in rows.values() if isinstance(value, list)), [rows])
    else:
        rows = []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except ValueError as error:
                    raise DataError(f"{path}, line {number}: not JSON ({error})") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"{path}, row {number}: {str(row)[:40]!r} is not an object; need one per run")
    return list(rows)


def _texts(frame: pd.DataFrame) -> pd.DataFrame:
    """A NaN of a column of floats stays "nan": Parquet does not tell a missing number from one."""
    import pandas as pd

    columns = {}
    for name in frame.columns:
        column = frame[name]
        if pd.api.types.is_float_dtype(column):
            columns[name] = column.astype(float).map(repr).astype(object)
        else:
            columns[name] = column.map(_text).astype(object)
    return pd.DataFrame(columns)


def _text(value: Any) -> str:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return repr(float(value)) if isinstance(value, float) else str(value)
