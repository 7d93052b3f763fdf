"""Our own unit files as one of the formats.

Enters, leaves: `units.parquet`. The one decision worth knowing: speaker, split, text and words travel as extras of the
record, and rows are written in groups, so that neither direction holds a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.files import read_json
from speechscale.records import NO_TIME, UnitTable, UnitTableBuilder
from speechscale.speech import unit_files
from speechscale.speech.unit_formats.base import (
    Problems,
    ReadOptions,
    UnitInfo,
    UnitRecord,
    UnitStream,
    WriteOptions,
    make_record,
)

TEXTS = ("speaker", "split", "text")
UNITS_PER_GROUP = 2_000_000
"""A group ends here or at `unit_files.ROWS_PER_GROUP` rows; about 12 MB."""


def read_parquet(path: Path, options: ReadOptions, problems: Problems) -> UnitStream:
    """Every row of a verified unit file, or of a folder of `units encode`, part by part.

    Extras: speaker, split, text, words, word_frames, where given.
    """
    files = _files(path)
    header = unit_files.unit_file_header(files[0])
    info = UnitInfo(
        has_durations=True,
        num_units=header["num_units"],
        frame_rate_hz=header["frame_rate_hz"],
        details={"tokenizer_sha256": header["tokenizer_sha256"]},
    )

    def records() -> Iterator[UnitRecord]:
        number = 0
        for table in chain.from_iterable(unit_files.iter_units(file, header["tokenizer_sha256"]) for file in files):
            for row in range(len(table)):
                number += 1
                problems.read += 1
                where = f"{path}, row {number}"
                texts = (table.speakers[row], table.splits[row], table.texts[row])
                extras: dict[str, Any] = {name: value for name, value in zip(TEXTS, texts, strict=True) if value}
                if words := table.row_words(row):
                    extras |= {"words": words, "word_frames": table.row_word_frames(row).tolist()}
                units, durations = table.row_units(row), table.row_durations(row)
                try:
                    record = make_record(where, table.ids[row], units, durations, info=info, extras=extras)
                except DataError as error:
                    problems.add(where, error)
                else:
                    yield record

    return UnitStream(info, records())


def _files(path: Path) -> list[Path]:
    """The file itself, or the parts that a folder's units.json names. Raises DataError: no such list."""
    if not path.is_dir():
        return [path]
    parts = read_json(path / "units.json", "units", "encode the corpus again").get("parts")
    if not isinstance(parts, dict) or not parts or any(Path(name).name != name for name in parts):
        raise DataError(f"units {path / 'units.json'}: names no parts; encode the corpus again")
    return [path / "parts" / name for name in sorted(parts)]


def write_parquet(path: Path, info: UnitInfo, records: Iterator[UnitRecord], options: WriteOptions) -> None:
    """Write in row groups; the number of units and the frame rate must be known."""
    if info.num_units is None or info.frame_rate_hz is None:
        missing = "--num-units" if info.num_units is None else "--frame-rate-hz"
        raise DataError(
            f"units {path}: a unit file states its units and frame rate, the input does not; give {missing}"
        )
    sha = str(info.details.get("tokenizer_sha256", options.tokenizer_sha256))
    unit_files.write_unit_tables(
        path,
        _tables(records, info.frame_rate_hz, info.num_units),
        sha,
        frame_rate_hz=info.frame_rate_hz,
        num_units=info.num_units,
    )


def _tables(records: Iterator[UnitRecord], frame_rate_hz: float, num_units: int) -> Iterator[UnitTable]:
    builder, rows, units = UnitTableBuilder(frame_rate_hz=frame_rate_hz, num_units=num_units), 0, 0
    for record in records:
        assert record.durations_frames is not None
        words, frames = _words(record)
        texts = {name: str(record.extras.get(name) or "") for name in TEXTS}
        builder.add(
            id=record.id,
            **texts,
            units=record.units,
            durations_frames=record.durations_frames,
            words=words,
            word_frames=frames,
        )
        rows, units = rows + 1, units + len(record.units)
        if rows == unit_files.ROWS_PER_GROUP or units >= UNITS_PER_GROUP:
            yield builder.build()
            builder, rows, units = UnitTableBuilder(frame_rate_hz=frame_rate_hz, num_units=num_units), 0, 0
    yield builder.build()


def _words(record: UnitRecord) -> tuple[list[str], np.ndarray]:
    """Words and their frame ranges [words, 2]; words without ranges get no time."""
    words = record.extras.get("words") or []
    found = record.extras.get("word_frames")
    try:
        frames = np.asarray(found, np.int32).reshape(-1, 2) if found else np.full((len(words), 2), NO_TIME, np.int32)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{record.where}: 'word_frames' are not pairs of frames ({error}); repair the line") from None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise DataError(f"{record.where}: 'words' is not a list of texts; repair the line")
    return words, frames
