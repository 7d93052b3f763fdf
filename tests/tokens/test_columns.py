"""Catches a column that gives back other numbers than were put in, forgets or invents a tail, or hides damage."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.tokens.columns import (
    INDEX_FILE,
    ColumnIndex,
    ColumnSetWriter,
    ColumnWriter,
    FolderLock,
    damage,
    open_column,
    verify_column,
)

SMALL = 16
"""Bytes per chunk, so that a few numbers make several."""
BLOCKS = st.lists(st.lists(st.integers(0, 65_535), max_size=20), max_size=6)


def write(path: Path, blocks: list[list[int]], known: ColumnIndex | None = None) -> ColumnIndex:
    writer = ColumnWriter(path, "<u2", known, chunk_bytes=SMALL)
    for block in blocks:
        writer.append(np.array(block, np.uint16))
    return writer.close(sync=False)


@settings(deadline=None)
@given(first=BLOCKS, torn=BLOCKS, second=BLOCKS)
def test_any_way_of_writing_gives_the_same_bytes_and_index(
    first: list[list[int]], torn: list[list[int]], second: list[list[int]]
) -> None:
    """Block by block, or in two goes with a killed one between them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grown, whole = folder / "grown.bin", folder / "whole.bin"
        index = write(grown, first)
        killed = ColumnWriter(grown, "<u2", index, chunk_bytes=SMALL)
        for block in torn:
            killed.append(np.array(block, np.uint16))
        killed.abort()
        old = open_column(grown, index)
        wanted = np.array([value for block in first for value in block], np.uint16)
        assert np.array_equal(old, wanted)
        verify_column(grown, index)
        both = write(grown, second, index)
        assert both == write(whole, [[value for block in first + second for value in block]])
        assert grown.read_bytes() == whole.read_bytes()
        assert np.array_equal(open_column(grown, index), wanted)  # a reader of the old index
        pieces = [whole.read_bytes()[at : at + SMALL] for at in range(0, both.bytes, SMALL)]
        assert both.chunks == tuple(hashlib.sha256(piece).hexdigest() for piece in pieces)


def test_maps_are_read_only_and_bytes_are_little_endian(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    writer = ColumnWriter(path, "<i4")
    writer.append(np.array([1, -2], ">i8"))
    index = writer.close()
    assert path.read_bytes() == b"\x01\x00\x00\x00\xfe\xff\xff\xff"
    found = open_column(path, index)
    assert isinstance(found, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 3
    empty = ColumnWriter(tmp_path / "b.bin", "<i8").close()
    assert open_column(tmp_path / "b.bin", empty).dtype == np.int64
    assert len(open_column(tmp_path / "b.bin", empty)) == len(empty.chunks) == 0


def test_numbers_that_do_not_fit_are_never_wrapped(tmp_path: Path) -> None:
    writer = ColumnWriter(tmp_path / "a.bin", "<u2")
    writer.append(np.array([65_535], np.int64))
    for bad in (65_536, -1):
        with pytest.raises(OverflowError, match="do not fit uint16"):
            writer.append(np.array([bad], np.int64))
    assert writer.close().length == 1


@pytest.mark.parametrize("byte", [0, 15, 16, 40])
def test_a_flipped_byte_is_found_and_its_chunk_named(tmp_path: Path, byte: int) -> None:
    path = tmp_path / "units.bin"
    index = write(path, [list(range(21))])
    data = bytearray(path.read_bytes())
    data[byte] ^= 4
    path.write_bytes(data)
    messages = list(damage(path, index))
    assert len(messages) == 1
    assert f"units.bin: chunk {byte // SMALL} (bytes {byte // SMALL * SMALL}.." in messages[0]
    with pytest.raises(DataError, match=r"its SHA-256 differs from meta\.json .*build the store anew"):
        verify_column(path, index)
    if byte == 40:  # the chunk that an append continues
        with pytest.raises(DataError, match=r"units\.bin: chunk 2: its SHA-256 differs"):
            ColumnWriter(path, "<u2", index)


def test_missing_truncated_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "units.bin"
    index = write(path, [[1, 2, 3]])
    with pytest.raises(DataError, match=r"units\.bin: holds <u2, <i8 is to be added; build"):
        ColumnWriter(path, "<i8", index)
    path.write_bytes(path.read_bytes()[:-1])
    for use in (open_column, verify_column):
        with pytest.raises(DataError, match=r"units\.bin: 5 bytes, meta\.json says 6 \(truncated\?\); build"):
            use(path, index)
    path.unlink()
    with pytest.raises(DataError, match=r"units\.bin: missing; build"):
        open_column(path, index)


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("units", {"dtype": ">u2"}, "has dtype '>u2', allowed"),
        ("units", {"dtype": "|O"}, "has dtype"),
        ("../units", {}, "column '../units'"),
        ("units", {"length": -1}, "column 'units'"),
        ("units", {"length": 100}, "1 checksums for 200 bytes"),
        ("units", {"chunks": None}, "is not described"),
        ("units", {"more": 1}, "is not described"),
    ],
)
def test_an_index_that_no_writer_makes_is_refused(
    tmp_path: Path, name: str, change: Mapping[str, object], why: str
) -> None:
    index = write(tmp_path / "units.bin", [[1, 2, 3]])
    saved = index.to_json()
    assert ColumnIndex.from_json("units", {**saved, "chunks": list(index.chunks)}, Path("meta.json")) == index
    with pytest.raises(DataError, match=r"meta\.json: ") as caught:
        ColumnIndex.from_json(name, {**saved, **change}, Path("meta.json"))
    assert why in str(caught.value)


Index = dict[str, ColumnIndex]
TYPES = {"flat": np.dtype("<u2"), "offsets": np.dtype("<i8"), "rows": np.dtype("<i8")}


def write_set(
    folder: Path, parts: list[list[list[int]]], known: dict[str, ColumnIndex] | None = None
) -> dict[str, ColumnIndex]:
    lock = FolderLock(folder)
    writer = ColumnSetWriter(lock, TYPES, known, offsets=("offsets",), chunk_bytes=SMALL, sync=False)
    for part in parts:
        base = writer.length("offsets") - 1
        writer.append("flat", np.array([value for row in part for value in row], np.uint16))
        writer.append_offsets("offsets", np.cumsum([0, *map(len, part)]))
        writer.append("rows", np.array([i for i, row in enumerate(part) if row], np.int64) + base)
    index = writer.close()
    lock.close()
    return index


@settings(deadline=None, max_examples=50)
@given(parts=st.lists(BLOCKS, min_size=1, max_size=4))
def test_merging_parts_is_writing_them_in_one_go(parts: list[list[list[int]]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = write_set(folder / "whole", parts)
        lock = FolderLock(folder / "merged")
        writer = ColumnSetWriter(lock, TYPES, offsets=("offsets",), chunk_bytes=SMALL, sync=False)
        rows = 0
        for number, part in enumerate(parts):
            index = write_set(folder / str(number), [part])
            writer.copy(folder / str(number), index, shifts={"rows": rows})
            rows += len(part)
        assert writer.close() == whole
        lock.close()
        grown: Index | None = None
        for part in parts:
            grown = write_set(folder / "grown", [part], grown)
        assert grown == whole
        for name in TYPES:
            data = (folder / "whole" / f"{name}.bin").read_bytes()
            assert (folder / "merged" / f"{name}.bin").read_bytes() == data
            assert (folder / "grown" / f"{name}.bin").read_bytes() == data


def test_one_writer_at_a_time_and_other_columns_are_refused(tmp_path: Path) -> None:
    index = write_set(tmp_path, [[[1], [2, 3]]])
    lock = FolderLock(tmp_path)
    with pytest.raises(DataError, match="is being written by another run"):
        FolderLock(tmp_path)
    with pytest.raises(DataError, match=r"has the columns .*needed are"):
        ColumnSetWriter(lock, {"flat": np.dtype("<u2")}, index)
    writer = ColumnSetWriter(lock, TYPES, index, offsets=("offsets",))
    with pytest.raises(DataError, match="has the columns"):
        writer.copy(tmp_path, {"flat": index["flat"]}, shifts={})
    writer.abort()
    lock.close()
    FolderLock(tmp_path).close()


def test_beginning_anew_forgets_its_columns_and_leaves_other_files(tmp_path: Path) -> None:
    write_set(tmp_path, [[[1], [2, 3]]])
    (tmp_path / INDEX_FILE).write_text("{}")
    (tmp_path / "weights.bin").write_text("")
    write_set(tmp_path, [[[7]]])
    names = [".lock", "flat.bin", "offsets.bin", "rows.bin", "weights.bin"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert (tmp_path / "flat.bin").read_bytes() == b"\x07\x00"
