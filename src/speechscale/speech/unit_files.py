"""Unit tables on disk: Parquet, one row per utterance, verified on reading.

Enters: a `UnitTable`, or a stream of them, and the fingerprint of their tokenizer. Leaves: one file, or the same tables
again. The one decision worth knowing: the file's metadata holds a hash over the decoded columns of every row group and
one over the header, so that what is read back, whole or group by group, is exactly what was written, by the tokenizer
the reader expects.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speechscale.errors import DataError
from speechscale.files import canonical_sha256, complete_file
from speechscale.records import UnitTable, UnitTableBuilder, concat_tables

FORMAT = "speechscale units"
FORMAT_VERSION = 2
METADATA_KEY = b"speechscale"
ROWS_PER_GROUP = 10_000
REMEDY = "encode the corpus again"

TEXT_COLUMNS = {"id": "ids", "speaker": "speakers", "split": "splits", "text": "texts"}
UNIT_COLUMNS = {"units": "units", "durations_frames": "durations_frames"}
WORD_COLUMNS = {"word_start_frames": "word_start_frames", "word_end_frames": "word_end_frames"}
TYPES = {"units": "int16", "durations_frames": "int32", "word_start_frames": "int32", "word_end_frames": "int32"}
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in TEXT_COLUMNS]
    + [(name, pa.list_(getattr(pa, TYPES[name])())) for name in UNIT_COLUMNS]
    + [("words", pa.list_(pa.string()))]
    + [(name, pa.list_(getattr(pa, TYPES[name])())) for name in WORD_COLUMNS]
)
_SETTINGS: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}


def write_units(path: str | Path, table: UnitTable, tokenizer_sha: str) -> None:
    """Write the table; the file is complete or absent. `tokenizer_sha` is the tokenizer's fingerprint."""
    write_unit_tables(
        path,
        (_rows(table, start, start + ROWS_PER_GROUP) for start in range(0, len(table), ROWS_PER_GROUP)),
        tokenizer_sha,
        frame_rate_hz=table.frame_rate_hz,
        num_units=table.num_units,
    )


def write_unit_tables(
    path: str | Path, tables: Iterable[UnitTable], tokenizer_sha: str, *, frame_rate_hz: float, num_units: int
) -> int:
    """Write tables of one tokenizer one after the other, each as a row group; return the rows.

    Only one table is held at a time. The file is complete or absent.
    """
    groups: list[list[Any]] = []
    with complete_file(Path(path)) as draft, pq.ParquetWriter(draft, _SCHEMA, **_SETTINGS) as writer:
        for table in tables:
            assert (table.frame_rate_hz, table.num_units) == (frame_rate_hz, num_units), "tables of two tokenizers"
            if len(table):
                writer.write_table(_to_arrow(table), row_group_size=len(table))
                groups.append([len(table), content_sha256(table, {})])
        header = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "tokenizer_sha256": tokenizer_sha,
            "frame_rate_hz": frame_rate_hz,
            "num_units": num_units,
            "rows": sum(rows for rows, _ in groups),
            "groups": groups,
        }
        header["content_sha256"] = canonical_sha256(header)
        writer.add_key_value_metadata({METADATA_KEY: json.dumps(header, sort_keys=True).encode()})
    return int(header["rows"])


def read_units(path: str | Path, expect_sha: str | None = None) -> UnitTable:
    """Read a table and verify its checksum and, if `expect_sha` is given, the tokenizer that made it.

    Raises:
        DataError: the file is missing, damaged, no unit file, or of another tokenizer; the message names it.
    """
    header = unit_file_header(path)
    tables = list(iter_units(path, expect_sha))
    if not tables:
        return UnitTableBuilder(frame_rate_hz=header["frame_rate_hz"], num_units=header["num_units"]).build()
    return tables[0] if len(tables) == 1 else concat_tables(tables)


def iter_units(path: str | Path, expect_sha: str | None = None) -> Iterator[UnitTable]:
    """Read a unit file table by table, as it was written; each is verified before it is given.

    Raises:
        DataError: as `read_units`; a damaged later part is found when it is reached.
    """
    path = Path(path)
    header = unit_file_header(path)
    if expect_sha is not None and header["tokenizer_sha256"] != expect_sha:
        raise DataError(
            f"units {path}: made by tokenizer {header['tokenizer_sha256'][:12]}, expected {expect_sha[:12]}; {REMEDY}"
        )
    with _damage_named(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        _check_columns(file.schema_arrow)
        for arrow, (_, stated) in zip(_cut(file, header["groups"]), header["groups"], strict=True):
            table = _from_arrow(arrow, header)
            content = {key: header[key] for key in header if key not in ("groups", "content_sha256")}
            if content_sha256(table, content if header["format_version"] == 1 else {}) != stated:
                raise DataError(
                    f"units {path}: the content does not match its checksum, the file was altered; {REMEDY}"
                )
            yield table


def unit_file_header(path: str | Path) -> dict[str, Any]:
    """The verified header of a unit file: tokenizer_sha256, frame_rate_hz, num_units, rows, groups.

    Raises:
        DataError: the file is missing, damaged, or no unit file of a version this package reads.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"units {path}: no such file; {REMEDY}")
    with _damage_named(path):
        header = json.loads((pq.read_metadata(path).metadata or {}).get(METADATA_KEY, b"{}"))
        version = header.get("format_version")
        if header.get("format") != FORMAT or version not in (1, FORMAT_VERSION):
            raise DataError(
                f"units {path}: format {header.get('format')!r} version {version!r}, "
                f"this package reads {FORMAT!r} version {FORMAT_VERSION}; {REMEDY}"
            )
        if version == 1:  # one hash over the whole table
            header["groups"] = [[header["rows"], header["content_sha256"]]]
        elif canonical_sha256({k: v for k, v in header.items() if k != "content_sha256"}) != header["content_sha256"]:
            raise DataError(f"units {path}: the header does not match its checksum, the file was altered; {REMEDY}")
    return dict(header)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes the libraries raise into one error that names it."""
    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError) as error:
        raise DataError(f"units {path}: damaged, not readable ({type(error).__name__}: {error}); {REMEDY}") from error


def _cut(file: Any, groups: list[list[Any]]) -> Iterator[Any]:
    """The arrow tables as they were written, also if another tool regrouped the rows since."""
    waiting, index = file.schema_arrow.empty_table(), 0
    for rows, _ in groups:
        while len(waiting) < rows:
            if index == file.num_row_groups:
                raise ValueError(f"{len(waiting)} rows left where {rows} should be")
            waiting = pa.concat_tables([waiting, file.read_row_group(index)])
            index += 1
        yield waiting.slice(0, rows)
        waiting = waiting.slice(rows)
    if len(waiting) or index != file.num_row_groups:
        raise ValueError("more rows than the header says")


def content_sha256(table: UnitTable, header: dict[str, Any]) -> str:
    """Hash the header and every column, with lengths, so that nothing can move from one field to the next."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in (*TEXT_COLUMNS.values(), "words"):
        digest.update(json.dumps(getattr(table, name)).encode())
    for name in (*UNIT_COLUMNS, "unit_offsets", *WORD_COLUMNS, "word_offsets"):
        column = np.ascontiguousarray(getattr(table, name), "<i8")
        digest.update(len(column).to_bytes(8, "little"))
        digest.update(column.data)
    return digest.hexdigest()


def _lists(offsets: np.ndarray, values: Any) -> Any:
    assert offsets[-1] == len(values) <= np.iinfo(np.int32).max, f"offsets end at {offsets[-1]}, {len(values)} values"
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _flat(arrow: Any, name: str) -> tuple[np.ndarray, Any]:
    """Offsets from zero and the flat values of a list column."""
    chunks = [chunk for chunk in arrow.column(name).chunks if len(chunk)]
    lengths = [np.diff(chunk.offsets.to_numpy()) for chunk in chunks]
    offsets = np.concatenate([[0], *lengths]).cumsum().astype(np.int64)
    return offsets, pa.chunked_array([c.flatten() for c in chunks], type=arrow.schema.field(name).type.value_type)


def _to_arrow(table: UnitTable) -> Any:
    columns: dict[str, Any] = {
        name: pa.array(getattr(table, field), pa.string()) for name, field in TEXT_COLUMNS.items()
    }
    for name, field in UNIT_COLUMNS.items():
        columns[name] = _lists(table.unit_offsets, pa.array(getattr(table, field), TYPES[name]))
    columns["words"] = _lists(table.word_offsets, pa.array(table.words, pa.string()))
    for name, field in WORD_COLUMNS.items():
        columns[name] = _lists(table.word_offsets, pa.array(getattr(table, field), TYPES[name]))
    return pa.table(columns)


def _rows(table: UnitTable, start: int, stop: int) -> UnitTable:
    """Rows start..stop, without copying the units."""
    part = slice(start, stop)
    unit_offsets, word_offsets = (o[start : stop + 1] for o in (table.unit_offsets, table.word_offsets))
    units, words = (slice(int(o[0]), int(o[-1])) for o in (unit_offsets, word_offsets))
    return replace(
        table,
        **{name: getattr(table, name)[part] for name in TEXT_COLUMNS.values()},
        **{name: getattr(table, name)[units] for name in UNIT_COLUMNS},
        **{name: getattr(table, name)[words] for name in ("words", *WORD_COLUMNS)},
        unit_offsets=unit_offsets - unit_offsets[0],
        word_offsets=word_offsets - word_offsets[0],
    )


def _check_columns(schema: Any) -> None:
    found = {entry.name: entry.type for entry in schema}
    wanted = {entry.name: entry.type for entry in _SCHEMA}
    if found != wanted:
        raise ValueError(f"columns {found}, needed {wanted}")


def _from_arrow(arrow: Any, header: dict[str, Any]) -> UnitTable:
    texts = {field: arrow.column(name).to_pylist() for name, field in TEXT_COLUMNS.items()}
    word_offsets, words = _flat(arrow, "words")
    flats: dict[str, np.ndarray] = {}
    offsets: dict[str, np.ndarray] = {}
    for name in TYPES:
        offsets[name], values = _flat(arrow, name)
        flats[name] = values.to_numpy().astype(TYPES[name], copy=False)
    same = [(offsets["units"], offsets["durations_frames"])]
    same += [(word_offsets, offsets["word_start_frames"]), (word_offsets, offsets["word_end_frames"])]
    if not all(np.array_equal(left, right) for left, right in same):
        raise ValueError("columns of different lengths")
    return UnitTable(
        **texts,
        units=flats["units"],
        durations_frames=flats["durations_frames"],
        unit_offsets=offsets["units"],
        words=words.to_pylist(),
        word_start_frames=flats["word_start_frames"],
        word_end_frames=flats["word_end_frames"],
        word_offsets=word_offsets,
        frame_rate_hz=header["frame_rate_hz"],
        num_units=header["num_units"],
    )
