"""slamkit's features.jsonl (units and durations) and tokens.jsonl (`<Un3><Un49>`).

Enters, leaves: one JSON object per line. The one decision worth knowing: keys we do not know are kept as extras and
written back behind the known ones, so that a canonical file comes back byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.files import complete_file
from speechscale.speech.unit_formats.base import (
    Problems,
    ReadOptions,
    UnitInfo,
    UnitRecord,
    UnitStream,
    WriteOptions,
    check_utf8,
    make_record,
    text_lines,
)

_SPELLED = re.compile(r"(?:<Un\d{1,6}>)*", re.ASCII)
_UNIT = re.compile(r"\d+", re.ASCII)


def read_features(path: Path, options: ReadOptions, problems: Problems) -> UnitStream:
    """{"units": [...], "duration": [...], "file_name": "..."}: deduplicated, frames per unit."""
    info = UnitInfo(has_durations=True, num_units=options.num_units, frame_rate_hz=options.frame_rate_hz)

    def parse(where: str, row: dict[str, Any]) -> UnitRecord:
        units, durations = _take(where, row, "units", list), _take(where, row, "duration", list)
        name = _take(where, row, "file_name", str)
        return make_record(where, name, units, durations, info=info, differ=not options.merge_equal, extras=row)

    return UnitStream(info, _records(path, problems, parse))


def read_tokens(path: Path, options: ReadOptions, problems: Problems) -> UnitStream:
    """{"file_name": "...", "audio_repr": "<Un3><Un49>"}: units without durations."""
    info = UnitInfo(has_durations=False, num_units=options.num_units, frame_rate_hz=options.frame_rate_hz)

    def parse(where: str, row: dict[str, Any]) -> UnitRecord:
        name, spelled = _take(where, row, "file_name", str), _take(where, row, "audio_repr", str)
        if not _SPELLED.fullmatch(spelled):
            rest = spelled[_SPELLED.match(spelled).end() :]  # type: ignore[union-attr]
            raise DataError(f"{where}: '{rest[:30]}' is no unit <Un..>; only speech without text is read")
        units = np.array(_UNIT.findall(spelled) or [], np.int64)
        return make_record(where, name, units, info=info, extras=row)

    return UnitStream(info, _records(path, problems, parse))


def write_features(path: Path, info: UnitInfo, records: Iterator[UnitRecord], options: WriteOptions) -> None:
    """One object per line, keys in slamkit's order."""

    def row(record: UnitRecord) -> dict[str, Any]:
        assert record.durations_frames is not None
        known = {"units": record.units.tolist(), "duration": record.durations_frames.tolist(), "file_name": record.id}
        return {**known, **{key: value for key, value in record.extras.items() if key not in known}}

    _write(path, (row(record) for record in records))


def write_tokens(path: Path, info: UnitInfo, records: Iterator[UnitRecord], options: WriteOptions) -> None:
    """One object per line, keys in slamkit's order."""

    def row(record: UnitRecord) -> dict[str, Any]:
        spelled = "".join(f"<Un{unit}>" for unit in record.units.tolist())
        known = {"file_name": record.id, "audio_repr": spelled}
        return {**known, **{key: value for key, value in record.extras.items() if key not in known}}

    _write(path, (row(record) for record in records))


def _records(path: Path, problems: Problems, parse: Any) -> Iterator[UnitRecord]:
    for where, _, line in text_lines(path):
        if not line.strip():
            continue
        problems.read += 1
        try:
            check_utf8(where, line)
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not JSON ({error}); repair the line") from None
            if not isinstance(row, dict):
                raise DataError(f"{where}: a JSON {type(row).__name__}, an object is needed; repair the line")
            record = parse(where, row)
        except DataError as error:
            problems.add(where, error)
        else:
            yield record


def _take(where: str, row: dict[str, Any], key: str, kind: type) -> Any:
    value = row.pop(key, None)
    if not isinstance(value, kind):
        came = "is missing" if value is None else f"is a {type(value).__name__}"
        raise DataError(f"{where}: '{key}' {came}, a {kind.__name__} is needed; is it the format you named?")
    return value


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with complete_file(path) as draft, draft.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row) + "\n")
