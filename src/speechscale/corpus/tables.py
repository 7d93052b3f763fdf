"""Utterances and items as Parquet.

Enters: records. Leaves: one file of one row per record, and the same records back. The one decision worth knowing: the
file carries the name and version of its kind, and a file of another kind is refused with its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Shaped

from speechscale.errors import DataError
from speechscale.files import complete_file
from speechscale.records import Item, Utterance, Word

_KIND_KEY = b"speechscale.kind"
_UTTERANCES, _ITEMS = b"utterances-2", b"items-2"
_WORD = pa.struct([("text", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64()), ("score", pa.float64())])
_UTTERANCE_FIELDS = tuple(f.name for f in fields(Utterance))
_UTTERANCE_TYPES = {
    "words": pa.list_(_WORD),
    "segments": pa.list_(pa.string()),
    "start_s": pa.float64(),
    "end_s": pa.float64(),
    "channel": pa.int32(),
}


def write_utterances(path: Path, utterances: Iterable[Utterance], *, group_rows: int = 5000) -> int:
    """Write utterances as they come, complete or not at all; return their number. Memory holds `group_rows`."""
    schema = pa.schema([(f.name, _UTTERANCE_TYPES.get(f.name, pa.string())) for f in fields(Utterance)])
    return _write(path, map(_row, utterances), schema, _UTTERANCES, group_rows)


def read_utterances(path: Path) -> Iterator[Utterance]:
    """Read utterances one by one, in the order written.

    Raises:
        DataError: missing, unreadable, or another kind of file.
    """
    for row in _read(path, _UTTERANCES, "utterance table"):
        yield _utterance(row)


def replace_splits(source: Path, target: Path, splits: Shaped[np.ndarray, " utterances"]) -> None:
    """Copy an utterance table with other splits, one per row; rows are not unpacked."""
    at = 0
    with _open(source, _UTTERANCES, "utterance table") as file, complete_file(target) as draft:
        column = file.schema_arrow.get_field_index("split")
        with pq.ParquetWriter(draft, file.schema_arrow, compression="zstd") as writer:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group)
                part = pa.array(splits[at : at + rows.num_rows].tolist(), pa.string())
                writer.write_table(rows.set_column(column, file.schema_arrow.field(column), part))
                at += rows.num_rows
    assert at == len(splits), f"{len(splits)} splits for {at} utterances"


def count_utterances(path: Path) -> int:
    """Rows of an utterance table, by its footer. Raises DataError: missing, unreadable, or another kind of file."""
    with _open(path, _UTTERANCES, "utterance table") as file:
        return int(file.metadata.num_rows)


def check_ids(path: Path) -> None:
    """Raises DataError: an id occurs twice, so that rows cannot be known by it."""
    ids = pq.read_table(path, columns=["id"]).column("id")
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    doubled = [entry["values"].as_py() for entry in pc.value_counts(ids) if entry["counts"].as_py() > 1]
    raise DataError(
        f"corpus {path}: {len(doubled)} ids occur more than once, the first is '{doubled[0]}'; "
        "import it again with ids that differ"
    )


def read_utterance_rows(path: Path, first: int, last: int) -> list[Utterance]:
    """Read rows [first, last) only; touches no other row group. Raises DataError as `read_utterances`."""
    with _open(path, _UTTERANCES, "utterance table") as file:
        found: list[Utterance] = []
        start = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if start < last and start + rows > first:
                part = file.read_row_group(group).slice(max(0, first - start), max(0, last - max(first, start)))
                found += [_utterance(row) for row in part.to_pylist()]
            start += rows
        return found


def pick_utterances(path: Path, rows: Sequence[int]) -> list[Utterance]:
    """Read these rows, in the order asked; each row group that holds one is read once. Raises as `read_utterances`."""
    picked: dict[int, Utterance] = {}
    with _open(path, _UTTERANCES, "utterance table") as file:
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            wanted = [row for row in rows if start <= row < end]
            if wanted:
                part = file.read_row_group(group).take([row - start for row in wanted])
                picked |= zip(wanted, map(_utterance, part.to_pylist()), strict=True)
            start = end
    return [picked[row] for row in rows]


def write_items(path: Path, items: Iterable[Item], *, group_rows: int = 5000) -> int:
    """Write items as they come, complete or not at all. Return their number."""
    numbers = ("good_cut_s", "bad_cut_s")
    schema = pa.schema([(f.name, pa.float64() if f.name in numbers else pa.string()) for f in fields(Item)])
    return _write(path, (asdict(item) for item in items), schema, _ITEMS, group_rows)


def read_items(path: Path) -> list[Item]:
    """Read items in the order written. Raises DataError: missing, unreadable, or another kind of file."""
    return [Item(**row) for row in _read(path, _ITEMS, "item table")]


def _write(path: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema, kind: bytes, group_rows: int) -> int:
    rows, written = iter(rows), 0
    schema = schema.with_metadata({_KIND_KEY: kind})
    with complete_file(Path(path)) as draft, pq.ParquetWriter(draft, schema, compression="zstd") as writer:
        while group := list(islice(rows, group_rows)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            written += len(group)
    return written


def _row(utterance: Utterance) -> dict[str, Any]:
    """`dataclasses.asdict`, twenty times faster."""
    row = {name: getattr(utterance, name) for name in _UTTERANCE_FIELDS}
    row["words"] = [
        {"text": word.text, "start_s": word.start_s, "end_s": word.end_s, "score": word.score}
        for word in utterance.words
    ]
    return row


def _utterance(row: dict[str, Any]) -> Utterance:
    words = tuple([Word(**word) for word in row["words"]])
    return Utterance(**{**row, "words": words, "segments": tuple(row["segments"])})


@contextmanager
def _open(path: Path, kind: bytes, what: str) -> Iterator[pq.ParquetFile]:
    if not Path(path).is_file():
        raise DataError(f"{what} {path}: no such file; run the step that makes it")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{what} {path}: not a readable Parquet file ({error}); run the step again") from error
    with file:
        found = (file.schema_arrow.metadata or {}).get(_KIND_KEY, b"none")
        if found != kind:
            raise DataError(
                f"{what} {path}: its kind is '{found.decode(errors='replace')}', expected '{kind.decode()}'; "
                f"give the right file or make it again with this version"
            )
        try:
            yield file
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{what} {path}: damaged ({error}); run the step again") from error


def _read(path: Path, kind: bytes, what: str) -> Iterator[dict[str, Any]]:
    with _open(path, kind, what) as file:
        for batch in file.iter_batches(batch_size=1000):
            yield from batch.to_pylist()
