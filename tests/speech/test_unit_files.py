"""Catches unit files that read back differently, or at all although they were damaged or belong to other units."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.records import NO_TIME, UnitTable, UnitTableBuilder, concat_tables, dedup
from speechscale.speech import unit_files
from speechscale.speech.unit_files import iter_units, write_unit_tables
from speechscale.speech.units import read_units, write_units

ARRAYS = ("units", "durations_frames", "unit_offsets", "word_start_frames", "word_end_frames", "word_offsets")
LISTS = ("ids", "speakers", "splits", "texts", "words")


def assert_same(left: UnitTable, right: UnitTable) -> None:
    for name in ARRAYS:
        assert getattr(left, name).dtype == getattr(right, name).dtype, name
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), name)
    for name in LISTS:
        assert getattr(left, name) == getattr(right, name)
    assert (left.frame_rate_hz, left.num_units) == (right.frame_rate_hz, right.num_units)


def make_table(rows: int, seed: int = 0, num_units: int = 50) -> UnitTable:
    rng = np.random.default_rng(seed)
    builder = UnitTableBuilder(frame_rate_hz=12.5, num_units=num_units)
    for row in range(rows):
        units, durations = dedup(rng.integers(num_units, size=rng.integers(1, 40)))
        words = [f"word{i}" for i in range(rng.integers(0, 4))]
        borders = np.sort(rng.integers(0, durations.sum() + 1, 2 * len(words))).reshape(-1, 2)
        borders[rng.random(len(words)) < 0.2] = NO_TIME
        builder.add(
            id=f"u{row}",
            speaker="s\u00e9",
            split="train",
            text=" ".join(words),
            units=units,
            durations_frames=durations,
            words=words,
            word_frames=borders,
        )
    return builder.build()


@given(rows=st.integers(0, 12), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: int, seed: int) -> None:
    path = tmp_path_factory.mktemp("units") / "units.parquet"
    table = make_table(rows, seed)
    write_units(path, table, "abc")
    assert_same(read_units(path, "abc"), table)
    assert_same(read_units(path), table)


def test_round_trip_over_many_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_files, "ROWS_PER_GROUP", 7)
    table = make_table(100)
    write_units(tmp_path / "u.parquet", table, "abc")
    assert pq.ParquetFile(tmp_path / "u.parquet").num_row_groups == 15
    assert_same(read_units(tmp_path / "u.parquet"), table)


def test_equal_tables_make_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_units(tmp_path / name, make_table(20), "abc")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_columns_are_plain_parquet(tmp_path: Path) -> None:
    table = make_table(5)
    write_units(tmp_path / "u.parquet", table, "abc")
    frame = pq.read_table(tmp_path / "u.parquet").to_pylist()
    assert [row["id"] for row in frame] == table.ids
    assert frame[3]["units"] == table.row_units(3).tolist()
    assert frame[3]["durations_frames"] == table.row_durations(3).tolist()
    assert frame[3]["words"] == table.row_words(3)
    assert pq.read_schema(tmp_path / "u.parquet").field("units").type == pa.list_(pa.int16())


def test_flipped_bytes_never_change_what_is_read(tmp_path: Path) -> None:
    """Bytes that carry nothing (row statistics, who wrote it) may flip; then the table is still the written one."""
    path = tmp_path / "units.parquet"
    table = make_table(40)
    write_units(path, table, "abc")
    content = path.read_bytes()
    refused = 0
    for position in np.linspace(0, len(content) - 1, 300).astype(int):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        try:
            read = read_units(path, "abc")
        except DataError:
            refused += 1
        else:
            assert_same(read, table)
    assert refused > 150


def test_any_change_of_content_is_found(tmp_path: Path) -> None:
    path = tmp_path / "units.parquet"
    table = make_table(10)
    write_units(path, table, "abc")
    metadata = pq.read_metadata(path).metadata
    moved = table.units.copy()
    moved[3] = (moved[3] + 1) % 50
    for changed in (
        replace(table, units=moved),
        replace(table, texts=["?", *table.texts[1:]]),
        replace(table, durations_frames=table.durations_frames[::-1].copy()),
    ):
        write_units(path, changed, "abc")
        pq.write_table(
            pq.read_table(path).replace_schema_metadata({unit_files.METADATA_KEY: metadata[unit_files.METADATA_KEY]}),
            path,
        )
        with pytest.raises(DataError, match=r"units\.parquet: the content does not match its checksum"):
            read_units(path)


@pytest.mark.parametrize(
    ("old", "new"), [(b'"tokenizer_sha256": "abc"', b'"tokenizer_sha256": "xyz"'), (b"12.5", b"50.0")]
)
def test_altered_header_is_found(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "units.parquet"
    write_units(path, make_table(4), "abc")
    arrow = pq.read_table(path)
    header = pq.read_metadata(path).metadata[unit_files.METADATA_KEY]
    assert old in header
    pq.write_table(arrow.replace_schema_metadata({unit_files.METADATA_KEY: header.replace(old, new)}), path)
    with pytest.raises(DataError, match="does not match its checksum"):
        read_units(path)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "units.parquet"
    with pytest.raises(DataError, match=r"units\.parquet: no such file; encode the corpus again"):
        read_units(path)
    write_units(path, make_table(4), "abc")
    with pytest.raises(DataError, match="made by tokenizer abc, expected def"):
        read_units(path, "def")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="damaged"):
        read_units(path)
    path.write_text("no parquet at all")
    with pytest.raises(DataError, match="damaged"):
        read_units(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(DataError, match="format None version None"):
        read_units(path)


def test_streaming_gives_the_groups_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches rows lost, doubled or mixed at the borders of groups, also after another tool regrouped them."""
    monkeypatch.setattr(unit_files, "ROWS_PER_GROUP", 7)
    table, path = make_table(24), tmp_path / "u.parquet"
    write_units(path, table, "abc")
    parts = list(iter_units(path, "abc"))
    assert [len(part) for part in parts] == [7, 7, 7, 3]
    assert_same(concat_tables(parts), table)
    metadata = {unit_files.METADATA_KEY: pq.read_metadata(path).metadata[unit_files.METADATA_KEY]}
    pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path, row_group_size=10)
    assert [len(part) for part in iter_units(path)] == [7, 7, 7, 3]
    assert_same(read_units(path), table)
    pq.write_table(pq.read_table(path)[:20].replace_schema_metadata(metadata), path)
    with pytest.raises(DataError, match="6 rows left where 7 should be"):
        read_units(path)


def test_stream_of_tables_is_written_without_holding_it(tmp_path: Path) -> None:
    """Catches a writer that collects its input: the generator sees each group on disk before the next is made."""
    path, sizes = tmp_path / "u.parquet", []

    def tables() -> Iterator[UnitTable]:
        for seed in range(5):
            sizes.append(max((p.stat().st_size for p in tmp_path.iterdir()), default=0))
            yield make_table(200, seed)

    rows = write_unit_tables(path, tables(), "abc", frame_rate_hz=12.5, num_units=50)
    assert rows == 1000
    assert sizes == sorted(set(sizes)), "each group is on disk before the next is made"
    assert_same(read_units(path), concat_tables([make_table(200, seed) for seed in range(5)]))


def test_a_failed_stream_leaves_no_file(tmp_path: Path) -> None:
    def tables() -> Iterator[UnitTable]:
        yield make_table(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_unit_tables(tmp_path / "u.parquet", tables(), "abc", frame_rate_hz=12.5, num_units=50)
    assert list(tmp_path.iterdir()) == []


def test_files_of_version_1_are_read(tmp_path: Path) -> None:
    """Studies made before the row groups had hashes of their own stay readable."""
    table, path = make_table(9), tmp_path / "u.parquet"
    write_units(path, table, "abc")
    header = {
        "format": unit_files.FORMAT,
        "format_version": 1,
        "tokenizer_sha256": "abc",
        "frame_rate_hz": table.frame_rate_hz,
        "num_units": table.num_units,
        "rows": len(table),
    }
    header["content_sha256"] = unit_files.content_sha256(table, header)
    metadata = {unit_files.METADATA_KEY: json.dumps(header).encode()}
    pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
    assert_same(read_units(path, "abc"), table)
    header["num_units"] = 51
    pq.write_table(
        pq.read_table(path).replace_schema_metadata({unit_files.METADATA_KEY: json.dumps(header).encode()}), path
    )
    with pytest.raises(DataError, match="does not match its checksum"):
        read_units(path)
