"""Unit tables on disk: Parquet, one row per utterance, verified on reading.

Enters: a `UnitTable` and the fingerprint of its tokenizer. Leaves: one file, or the same table again. The one decision
worth knowing: a hash over the decoded columns and the header sits in the file's metadata, so that a table read back is
exactly the one written, by the tokenizer the reader expects.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speechscale.errors import DataError
from speechscale.files import complete_file
from speechscale.records import UnitTable

FORMAT = "speechscale units"
FORMAT_VERSION = 1
METADATA_KEY = b"speechscale"
ROWS_PER_GROUP = 10_000
REMEDY = "encode the corpus again"

TEXT_COLUMNS = {"id": "ids", "speaker": "speakers", "split": "splits", "text": "texts"}
UNIT_COLUMNS = {"units": "units", "durations_frames": "durations_frames"}
WORD_COLUMNS = {"word_start_frames": "word_start_frames", "word_end_frames": "word_end_frames"}
TYPES = {"units": "int16", "durations_frames": "int32", "word_start_frames": "int32", "word_end_frames": "int32"}


def write_units(path: str | Path, table: UnitTable, tokenizer_sha: str) -> None:
    """Write the table; the file is complete or absent. `tokenizer_sha` is the tokenizer's fingerprint."""
    path = Path(path)
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tokenizer_sha256": tokenizer_sha,
        "frame_rate_hz": table.frame_rate_hz,
        "num_units": table.num_units,
        "rows": len(table),
    }
    columns: dict[str, Any] = {
        name: pa.array(getattr(table, field), pa.string()) for name, field in TEXT_COLUMNS.items()
    }
    for name, field in UNIT_COLUMNS.items():
        columns[name] = _lists(table.unit_offsets, pa.array(getattr(table, field), TYPES[name]))
    columns["words"] = _lists(table.word_offsets, pa.array(table.words, pa.string()))
    for name, field in WORD_COLUMNS.items():
        columns[name] = _lists(table.word_offsets, pa.array(getattr(table, field), TYPES[name]))
    header["content_sha256"] = content_sha256(table, header)
    arrow = pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(header, sort_keys=True).encode()})
    with complete_file(path) as draft:
        pq.write_table(arrow, draft, compression="zstd", row_group_size=ROWS_PER_GROUP, write_page_checksum=True)


def read_units(path: str | Path, expect_sha: str | None = None) -> UnitTable:
    """Read a table and verify its checksum and, if `expect_sha` is given, the tokenizer that made it.

    Raises:
        DataError: the file is missing, damaged, no unit file, or of another tokenizer; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"units {path}: no such file; {REMEDY}")
    try:
        arrow = pq.read_table(path, page_checksum_verification=True)
        header = json.loads((arrow.schema.metadata or {}).get(METADATA_KEY, b"{}"))
        if header.get("format") != FORMAT or header.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"units {path}: format {header.get('format')!r} version {header.get('format_version')!r}, "
                f"this package reads {FORMAT!r} version {FORMAT_VERSION}; {REMEDY}"
            )
        _check_columns(arrow)
        table = _from_arrow(arrow, header)
        stated = header.pop("content_sha256")
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError) as error:
        raise DataError(f"units {path}: damaged, not readable ({type(error).__name__}: {error}); {REMEDY}") from error
    if content_sha256(table, header) != stated:
        raise DataError(f"units {path}: the content does not match its checksum, the file was altered; {REMEDY}")
    if expect_sha is not None and header["tokenizer_sha256"] != expect_sha:
        raise DataError(
            f"units {path}: made by tokenizer {header['tokenizer_sha256'][:12]}, expected {expect_sha[:12]}; {REMEDY}"
        )
    return table


def content_sha256(table: UnitTable, header: dict[str, Any]) -> str:
    """Hash the header and every column, with lengths, so that nothing can move from one field to the next."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in (*TEXT_COLUMNS.values(), "words"):
        digest.update(json.dumps(getattr(table, name)).encode())
    for name in (*UNIT_COLUMNS, "unit_offsets", *WORD_COLUMNS, "word_offsets"):
        column = np.ascontiguousarray(getattr(table, name), "<i8")
        digest.update(len(column).to_bytes(8, "little"))
        digest.update(column.tobytes())
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


def _check_columns(arrow: Any) -> None:
    strings = {name: pa.string() for name in TEXT_COLUMNS}
    lists = {name: pa.list_(getattr(pa, kind)()) for name, kind in TYPES.items()}
    wanted = {**strings, **lists, "words": pa.list_(pa.string())}
    found = {entry.name: entry.type for entry in arrow.schema}
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
    if not all(np.array_equal(left, right) for left, right in same) or len(arrow) != header["rows"]:
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
