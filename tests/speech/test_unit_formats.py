"""Catches unit files that read wrong, lose something on the way, or whose faults are not named by line."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.records import dedup, dedup_many, expand
from speechscale.speech import unit_files
from speechscale.speech.kmeans import assign, fit_kmeans
from speechscale.speech.kmeans_stream import fit_kmeans_stream
from speechscale.speech.unit_files import read_units
from speechscale.speech.unit_formats import (
    FORMATS,
    Problems,
    ReadOptions,
    UnitInfo,
    UnitRecord,
    WriteOptions,
    convert_units,
    dedup_record,
    expand_record,
    open_units,
    read_features,
)

KNOWN = ReadOptions(num_units=500, frame_rate_hz=25.0)
IDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)


@st.composite
def tables(draw: st.DrawFn) -> list[UnitRecord]:
    """Deduplicated utterances with durations."""
    records = []
    for id in draw(st.lists(IDS, min_size=1, max_size=5, unique=True)):
        frames = np.array(draw(st.lists(st.integers(0, 499), min_size=1, max_size=30)), np.int16)
        units, durations = dedup(frames)
        records.append(UnitRecord(id=id, units=units, durations_frames=durations))
    return records


def read_all(path: Path, format: str, **options: Any) -> list[UnitRecord]:
    return list(open_units(path, format, options=ReadOptions(**options)).records)


def write(path: Path, format: str, records: list[UnitRecord], *, durations: bool, content: Any = "unknown") -> None:
    info = UnitInfo(has_durations=durations, content=content, num_units=500, frame_rate_hz=25.0)
    FORMATS[format].write(path, info, iter(records), WriteOptions())


def assert_same(read: list[UnitRecord], wanted: list[UnitRecord], *, durations: bool = True, ids: bool = True) -> None:
    assert len(read) == len(wanted)
    for left, right in zip(read, wanted, strict=True):
        assert left.id == right.id or not ids
        assert left.units.dtype == np.int16
        assert left.units.tolist() == right.units.tolist()
        if durations:
            assert left.durations_frames is not None
            assert right.durations_frames is not None
            assert left.durations_frames.dtype == np.int32
            assert left.durations_frames.tolist() == right.durations_frames.tolist()
        else:
            assert left.durations_frames is None


# --- the real files


def test_slamkit_files(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "dev-units" / "slamkit"
    records = read_all(folder / "features.jsonl", "slamkit")
    assert [(len(r.units), int(r.durations_frames.sum())) for r in records] == [(328, 398), (288, 352)]  # type: ignore[union-attr]
    assert [r.id.rsplit("/")[-1] for r in records] == ["audio2.flac", "audio1.flac"]
    assert_same(read_all(folder / "tokens.jsonl", "slamkit-tokens"), records, durations=False)
    convert_units(
        folder / "features.jsonl", tmp_path / "a", source_format="slamkit", target_format="slamkit", options=KNOWN
    )
    assert (tmp_path / "a").read_bytes() == (folder / "features.jsonl").read_bytes()
    done = convert_units(
        folder / "features.jsonl",
        tmp_path / "b",
        source_format="slamkit",
        target_format="slamkit-tokens",
        drop_durations=True,
    )
    assert (tmp_path / "b").read_bytes() == (folder / "tokens.jsonl").read_bytes()
    assert (done.read, done.kept, done.units, done.frames) == (2, 2, 616, 750)


def test_slamkit_features_through_every_format(shared: Path, tmp_path: Path) -> None:
    """There and back: equal bytes where durations survive or are made again from frames."""
    source = shared / "data" / "dev-units" / "slamkit" / "features.jsonl"
    for name in FORMATS:
        there, back = tmp_path / f"{name}.there", tmp_path / f"{name}.back"
        loses = FORMATS[name].durations == "none"
        convert_units(source, there, source_format="slamkit", target_format=name, expand=loses, options=KNOWN)
        again = convert_units(there, back, source_format=name, target_format="slamkit", dedup=loses, options=KNOWN)
        if name != "fairseq":  # holds no ids without sample counts
            assert back.read_bytes() == source.read_bytes(), name
        assert (again.units, again.frames) == (616, 750), name


def test_fairseq_files(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "dev-units" / "fairseq"
    km, lengths = folder / "sample.base.L9.km500.km", folder / "sample.base.L9.len"
    (record,) = read_all(km, "fairseq", lengths=lengths)
    assert (len(record.units), len(np.unique(record.units))) == (596, 233)
    assert len(dedup_record(record).units) == 370
    convert_units(km, tmp_path / "x.km", source_format="fairseq", target_format="fairseq")
    assert (tmp_path / "x.km").read_bytes() == km.read_bytes()
    (features,) = read_features(folder / "sample.base.L9.npy")
    assert (features.shape, features.dtype) == ((596, 768), np.float32)
    fit = fit_kmeans(features, 20, seed=0)
    units = assign(features, fit.centroids)
    # Their units and ours are different cuts of the same features: knowing one tells much of the other.
    same = units[:, None] == units[None]
    theirs = record.units[:, None] == record.units[None]
    assert same[theirs].mean() > 5 * same[~theirs].mean()
    stream = fit_kmeans_stream(lambda: read_features(folder / "sample.base.L9.npy"), 20, seed=0, batch_frames=100)
    assert stream.stream_distance < 1.2 * fit.mean_squared_distance


# --- invariants


@given(frames=st.lists(st.lists(st.integers(0, 5), max_size=20), max_size=12))
def test_dedup_many_is_dedup_of_each(frames: list[list[int]]) -> None:
    flat = np.array([unit for row in frames for unit in row], np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in frames])]).astype(np.int64)
    units, durations, borders = dedup_many(flat, offsets)
    assert (units.dtype, durations.dtype) == (np.int16, np.int32)
    for index, row in enumerate(frames):
        part = slice(borders[index], borders[index + 1])
        one = dedup(np.array(row, np.int64))
        assert (units[part].tolist(), durations[part].tolist()) == (one[0].tolist(), one[1].tolist())
    assert expand(units, durations).tolist() == flat.tolist()


def test_dedup_many_over_many_blocks() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 3000, 200)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    frames = rng.integers(0, 3, offsets[-1]).astype(np.int16)
    units, durations, borders = dedup_many(frames, offsets)
    ones = [dedup(frames[a:b]) for a, b in pairwise(offsets)]
    assert units.tolist() == np.concatenate([one[0] for one in ones]).tolist()
    assert durations.tolist() == np.concatenate([one[1] for one in ones]).tolist()
    assert np.diff(borders).tolist() == [len(one[0]) for one in ones]


@given(units=st.lists(st.integers(0, 3), min_size=1, max_size=30), seed=st.integers(0, 999), lasting=st.booleans())
def test_dedup_and_expand_keep_the_frames(units: list[int], seed: int, lasting: bool) -> None:
    """Also with durations on both sides: equal neighbors are merged, their frames added."""
    durations = np.random.default_rng(seed).integers(1, 5, len(units)).astype(np.int32) if lasting else None
    record = UnitRecord(id="a", units=np.array(units, np.int16), durations_frames=durations)
    frames = expand_record(record)
    merged = dedup_record(record)
    assert (merged.units[1:] != merged.units[:-1]).all()
    assert expand_record(merged).units.tolist() == frames.units.tolist()
    assert dedup_record(frames).units.tolist() == merged.units.tolist()
    assert dedup_record(frames).durations_frames.tolist() == merged.durations_frames.tolist()  # type: ignore[union-attr]


@given(records=tables())
@settings(max_examples=10, deadline=None)
def test_round_trip_of_every_format(tmp_path_factory: pytest.TempPathFactory, records: list[UnitRecord]) -> None:
    for name, format in FORMATS.items():
        path = tmp_path_factory.mktemp("units") / "x"
        durations = format.durations != "none"
        written = records if durations else [expand_record(record) for record in records]
        write(path, name, written, durations=durations, content="frames")
        assert_same(read_all(path, name, num_units=500), written, durations=durations, ids=name != "fairseq")
        again = path.with_name("again")
        convert_units(path, again, source_format=name, target_format=name, options=KNOWN)
        for left in sorted(p for p in path.parent.rglob("*") if p.is_file() and "again" not in str(p)):
            right = str(left).replace(str(path), str(again))
            assert left.read_bytes() == Path(right).read_bytes(), f"{name}: {left.name} is not canonical"


def test_extras_travel(tmp_path: Path) -> None:
    """Speaker, text and words survive JSON and Parquet; what a format cannot hold is listed."""
    row = {"units": [1, 2], "duration": [3, 1], "file_name": "a", "speaker": "s", "text": "hi \u00e9", "more": {"x": 1}}
    row |= {"words": ["hi"], "word_frames": [[0, 3]]}
    source = tmp_path / "a.jsonl"
    source.write_text(json.dumps(row) + "\n")
    done = convert_units(source, tmp_path / "p", source_format="slamkit", target_format="parquet", options=KNOWN)
    assert done.lost_fields == {"more"}
    table = read_units(tmp_path / "p", "unknown")
    assert (table.speakers, table.texts, table.words) == (["s"], ["hi \u00e9"], ["hi"])
    assert table.row_word_frames(0).tolist() == [[0, 3]]
    convert_units(tmp_path / "p", tmp_path / "b.jsonl", source_format="parquet", target_format="slamkit")
    back = json.loads((tmp_path / "b.jsonl").read_text())
    assert back == {key: value for key, value in row.items() if key != "more"}
    done = convert_units(source, tmp_path / "g", source_format="slamkit", target_format="gslm")
    assert done.lost_fields == {"speaker", "text", "more", "words", "word_frames"}


def test_fairseq_manifest_travels(tmp_path: Path) -> None:
    (tmp_path / "a.km").write_text("1 1 2\n3\n")
    (tmp_path / "a.tsv").write_text("/audio\nx/1.wav\t960\ny 2.wav\t320\n")
    records = read_all(tmp_path / "a.km", "fairseq")
    assert [(r.id, r.extras["samples"]) for r in records] == [("x/1.wav", 960), ("y 2.wav", 320)]
    convert_units(tmp_path / "a.km", tmp_path / "b.km", source_format="fairseq", target_format="fairseq")
    assert (tmp_path / "b.tsv").read_bytes() == (tmp_path / "a.tsv").read_bytes()


def test_durations_file_of_textless(tmp_path: Path) -> None:
    (tmp_path / "a.units").write_text("u|1\t3 4\n")
    assert read_all(tmp_path / "a.units", "textless")[0].durations_frames is None
    (tmp_path / "a.durations").write_text("u|1\t2 9\n")
    (record,) = read_all(tmp_path / "a.units", "textless")
    assert (record.id, record.units.tolist(), record.durations_frames.tolist()) == ("u|1", [3, 4], [2, 9])  # type: ignore[union-attr]
    (tmp_path / "other").write_text("v\t2 9\n")
    with pytest.raises(DataError, match=r"line 1: durations of 'v', the units are of 'u\|1'"):
        read_all(tmp_path / "a.units", "textless", durations=tmp_path / "other")
    (tmp_path / "other").write_text("u|1\t2 9\nw\t3\n")
    with pytest.raises(DataError, match=r"a\.units: fewer lines than .*other"):
        read_all(tmp_path / "a.units", "textless", durations=tmp_path / "other")


# --- what is refused


def slam(**change: Any) -> str:
    return json.dumps({"units": [1, 2], "duration": [1, 1], "file_name": "a"} | change)


@pytest.mark.parametrize(
    ("format", "line", "message"),
    [
        ("slamkit", "{", "not JSON"),
        ("slamkit", "[" * 100_000, "not JSON"),
        ("slamkit", "[1]", "a JSON list, an object is needed"),
        ("slamkit", slam(units=[]), "has no units"),
        ("slamkit", slam(units=[1, -2]), "unit 1 of utterance a is -2, allowed 0..499"),
        ("slamkit", slam(units=[1, 500]), "unit 1 of utterance a is 500, allowed 0..499"),
        ("slamkit", slam(units=[1, 2.0]), "units must be a list of whole numbers"),
        ("slamkit", slam(units=[1, "2"]), "units must be a list of whole numbers"),
        ("slamkit", slam(units=[True, False]), "units must be a list of whole numbers"),
        ("slamkit", slam(units=[[1], [2]]), "units must be a list of whole numbers"),
        ("slamkit", slam(units=[[1], 2]), "units must be a list of whole numbers"),
        ("slamkit", slam(units=[1, 10**30]), "units must be a list of whole numbers"),
        ("slamkit", slam(duration=[1]), "2 units and 1 durations"),
        ("slamkit", slam(duration=[1, 0]), "duration 1 of utterance a is 0 frames"),
        ("slamkit", slam(duration=[1, 2**31]), "duration 1 of utterance a is 2147483648 frames"),
        ("slamkit", slam(units=[7, 7]), "units 0 and 1 of utterance a are both 7"),
        ("slamkit", slam(file_name=""), "the id is empty"),
        ("slamkit", slam(file_name=3), "'file_name' is a int, a str is needed"),
        ("slamkit", json.dumps({"file_name": "a", "audio_repr": "<Un1>"}), "'units' is missing"),
        ("slamkit-tokens", json.dumps({"file_name": "a", "audio_repr": "<Un1>hello"}), "'hello' is no unit"),
        ("slamkit-tokens", json.dumps({"file_name": "a", "audio_repr": ""}), "has no units"),
        ("slamkit-tokens", json.dumps({"file_name": "a", "audio_repr": "<Un500>"}), "is 500, allowed"),
        ("gslm", "no separator 1 2", "no '|' between name and units"),
        ("gslm", "a|1 x 2", "'x' among the units is no whole number"),
        ("gslm", "a|1 \u0663", "among the units is no whole number"),
        ("gslm", "a|1_0 2", "'1_0' among the units is no whole number"),
        ("gslm", "a|1 2-3", "'2-3' among the units is no whole number"),
        ("gslm", "a|99999999999999999999", "is no whole number"),
        ("gslm", "a|", "has no units"),
        ("gslm", "|1 2", "the id is empty"),
        ("textless", "a|1 2", "no '<TAB>' between name and units"),
        ("fairseq", "1 2 3.5", "'3.5' among the units is no whole number"),
        ("fairseq", "", "has no units"),
        ("fairseq", "1 -4", "is -4, allowed 0..499"),
    ],
)
def test_bad_lines_are_named_counted_or_stop(tmp_path: Path, format: str, line: str, message: str) -> None:
    good = {
        "slamkit": slam(),
        "slamkit-tokens": json.dumps({"file_name": "b", "audio_repr": "<Un1><Un2>"}),
        "gslm": "b|1 2",
        "textless": "b\t1 2",
        "fairseq": "1 2",
    }[format]
    path = tmp_path / "in"
    path.write_text("\n".join([good, line, good]) + "\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_all(path, format, num_units=500)
    assert f"{path}, line 2: " in str(caught.value)
    assert message in str(caught.value)
    problems = Problems(on_error="skip")
    kept = list(open_units(path, format, options=KNOWN, problems=problems).records)
    assert (problems.read, len(kept), problems.log.ids) == (3, 2, [f"{path}, line 2"])
    assert message in problems.log.skips[0].reason
    assert problems.log.skips[0].remedy


@pytest.mark.parametrize("format", ["slamkit", "gslm", "fairseq"])
def test_bytes_that_are_not_text_drop_one_line(tmp_path: Path, format: str) -> None:
    good = {"slamkit": slam(), "gslm": "b|1 2", "fairseq": "1 2"}[format].encode()
    (tmp_path / "in").write_bytes(good + b"\n" + good[:3] + b"\xff" + good[3:] + b"\n" + good)
    problems = Problems(on_error="skip")
    assert len(list(open_units(tmp_path / "in", format, problems=problems).records)) == 2
    assert "line 2: not UTF-8" in problems.log.first()


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(slam() + "\n")

    def attempt(to: str, format: str = "slamkit", path: Path = source, **settings: Any) -> None:
        convert_units(path, tmp_path / "out", source_format=format, target_format=to, **settings)

    with pytest.raises(DataError, match=r"'fairseq' cannot hold durations; expand to frames \(--expand\) or lose them"):
        attempt("fairseq")
    with pytest.raises(DataError, match="undo each other"):
        attempt("slamkit", dedup=True, expand=True)
    with pytest.raises(DataError, match="needs durations, 'slamkit' gave none"):
        attempt("slamkit", expand=True)
    with pytest.raises(DataError, match="give --num-units"):
        attempt("parquet")
    with pytest.raises(DataError, match="give --frame-rate-hz"):
        attempt("parquet", options=ReadOptions(num_units=10))
    with pytest.raises(DataError, match="unit format 'csv' is unknown; choose one of parquet, slamkit"):
        attempt("csv")
    with pytest.raises(DataError, match="same file"):
        convert_units(source, source, source_format="slamkit", target_format="slamkit")
    with pytest.raises(DataError, match="not readable"):
        attempt("slamkit", path=tmp_path / "missing")
    attempt("cuervo", drop_durations=True, options=KNOWN)
    with pytest.raises(DataError, match="exists already"):
        attempt("cuervo", drop_durations=True, options=KNOWN)
    with pytest.raises(DataError, match="--dedup would call each unit one frame"):
        convert_units(tmp_path / "out", tmp_path / "b", source_format="cuervo", target_format="slamkit", dedup=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out"]


def test_a_stop_leaves_no_file(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(slam() + "\n{\n")
    for name in FORMATS:
        with pytest.raises(DataError, match="line 2: not JSON"):
            convert_units(
                source,
                tmp_path / "out",
                source_format="slamkit",
                target_format=name,
                drop_durations=True,
                options=KNOWN,
            )
        assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"], name


# --- packed shards


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A shard laid out by hand as slm_scaling writes it."""
    folder = tmp_path / "set" / "shard-00000"
    folder.mkdir(parents=True)
    np.array([5, 6, 5, 500, 7, 500], "<i2").tofile(folder / "audio.bin")
    np.array([4, 2], "<i8").tofile(folder / "audio.len")
    rows = [{"audio_steps": 4, "dataset": "d", "id": "a"}, {"audio_steps": 2, "dataset": "d\u00e9", "id": "b"}]
    lines = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
    (folder / "samples.jsonl").write_text(lines, encoding="utf-8")
    (folder / "skips.jsonl").write_text("")
    preprocessing = {"collapsed": True, "eos_token": 500, "pad_token": 501, "vocab_size": 502, "hubert_revision": "r"}
    meta = {"schema_version": 2, "num_samples": 2, "num_audio_steps": 6, "num_skipped": 0, "keep_audio": False}
    seal(folder, meta | {"preprocessing": preprocessing})
    return folder


def seal(folder: Path, meta: dict[str, Any]) -> None:
    names = ["audio.bin", "audio.len", "samples.jsonl", "skips.jsonl"]
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / "meta.json").write_text(json.dumps(meta | {"checksums": sums}, indent=2, sort_keys=True) + "\n")


def test_shard_reads_and_comes_back_byte_for_byte(shard: Path, tmp_path: Path) -> None:
    for path in (shard, shard.parent):
        stream = open_units(path, "cuervo")
        assert (stream.info.num_units, stream.info.content) == (500, "collapsed")
        assert [(r.id, r.units.tolist(), r.extras) for r in stream.records] == [
            ("a", [5, 6, 5], {"dataset": "d"}),
            ("b", [7], {"dataset": "d\u00e9"}),
        ]
    convert_units(shard, tmp_path / "copy", source_format="cuervo", target_format="cuervo")
    for path in sorted(shard.iterdir()):
        assert (tmp_path / "copy" / path.name).read_bytes() == path.read_bytes(), path.name


def broken(change: Callable[[Path, dict[str, Any]], None]) -> Callable[[Path], None]:
    """Change a shard and seal it again, so that the checksums are right and the content is wrong."""

    def apply(folder: Path) -> None:
        meta = json.loads((folder / "meta.json").read_text())
        change(folder, meta)
        seal(folder, meta)

    return apply


def replace_text(name: str, old: str, new: str) -> Callable[[Path, dict[str, Any]], None]:
    return lambda folder, _: (folder / name).write_text((folder / name).read_text().replace(old, new)) and None


def units(*codes: int) -> Callable[[Path, dict[str, Any]], None]:
    return lambda folder, _: np.array(codes, "<i2").tofile(folder / "audio.bin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "audio.bin").write_bytes(b"\0" * 12), "audio.bin does not match its checksum"),
        (lambda f: (f / "skips.jsonl").unlink(), "skips.jsonl is missing"),
        (lambda f: (f / "meta.json").write_text("{"), "not readable as JSON"),
        (lambda f: (f / "meta.json").write_text('{"schema_version": 1}'), "version 1, read is 2"),
        (lambda f: (f / "meta.json").write_text('{"schema_version": 2}'), "no checksums of audio.bin"),
        (broken(lambda f, m: m.update(num_samples=3)), "2 samples of 6 steps, meta.json says 3 of 6"),
        (broken(units(5, 6, 5, 500, 7)), "audio.bin has 10 bytes, 12 are needed"),
        (broken(lambda f, m: (f / "audio.len").write_bytes(b"123")), "audio.len must hold int64"),
        (broken(units(5, 6, 5, 9, 7, 500)), "line 1: utterance a does not end with EOS"),
        (broken(units(5, 501, 5, 500, 7, 500)), "line 1: unit 1 of utterance a is 501, allowed 0..499"),
        (broken(units(5, 5, 6, 500, 7, 500)), "line 1: units 0 and 1 of utterance a are both 5"),
        (broken(units(5, 6, 5, 500, -7, 500)), "line 2: unit 0 of utterance b is -7"),
        (broken(replace_text("samples.jsonl", '"b"', '"a"')), "line 2: the id 'a' comes twice"),
        (broken(replace_text("samples.jsonl", ": 4", ": 3")), "line 1: needs an 'id' and 'audio_steps' of 4"),
        (broken(lambda f, m: (f / "samples.jsonl").write_text("")), "end: fewer lines than samples"),
        (broken(lambda f, m: (f / "samples.jsonl").open("a").write("{}\n") and None), "more lines than the 2"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_broken_shards_are_named(shard: Path, change: Callable[[Path], None], message: str) -> None:
    change(shard)
    with pytest.raises(DataError) as caught:
        read_all(shard, "cuervo")
    assert message in str(caught.value)
    assert str(shard) in str(caught.value)


def test_shard_cannot_name_files_outside(shard: Path) -> None:
    meta = json.loads((shard / "meta.json").read_text())
    meta["checksums"]["../../secret"] = "0"
    (shard / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match=r"names '\.\./\.\./secret', outside the shard"):
        read_all(shard, "cuervo")


def test_shards_of_two_tokenizers_are_refused(shard: Path, tmp_path: Path) -> None:
    write(shard.parent / "shard-00001", "cuervo", [UnitRecord(id="c", units=np.int16([3]))], durations=False)
    assert len(read_all(shard.parent, "cuervo")) == 3
    meta = json.loads((shard / "meta.json").read_text())
    meta["preprocessing"]["kmeans"] = {"sha256": "0"}
    seal(shard, meta)
    with pytest.raises(DataError, match=r"shard-00001: its tokenizer .* is not that of"):
        read_all(shard.parent, "cuervo")


# --- features and memory


def test_features_that_do_not_fit_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 2), np.float32))
    (tmp_path / "a.len").write_text("2\n0\n3\n")
    assert [len(part) for part in read_features(tmp_path / "a.npy")] == [2, 0, 3]
    (tmp_path / "a.len").write_text("2\n2\n")
    with pytest.raises(DataError, match=r"5 frames, .* adds up to 4"):
        read_features(tmp_path / "a.npy")
    (tmp_path / "a.len").write_text("2 3\n")
    with pytest.raises(DataError, match="line 1: one length per line"):
        read_features(tmp_path / "a.npy")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "t.npy").write_bytes(b"PK")
    for name in ("o", "t", "missing"):
        with pytest.raises(DataError, match=r"not readable|not a \.npy file"):
            read_features(tmp_path / f"{name}.npy")


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a reader or writer, of any format, that collects its records."""
    monkeypatch.setattr(unit_files, "ROWS_PER_GROUP", 50)

    def peak(rows: int, format: str) -> int:
        durations = FORMATS[format].durations != "none"
        one = np.ones(100, np.int32) if durations else None
        codes = np.arange(100, dtype=np.int16)
        records = (UnitRecord(id=f"u{i:05d}", units=codes, durations_frames=one) for i in range(rows))
        info = UnitInfo(has_durations=durations, content="frames", num_units=500, frame_rate_hz=25.0)
        path = tmp_path / f"{format}-{rows}"
        tracemalloc.start()
        FORMATS[format].write(path, info, records, WriteOptions())
        assert sum(1 for _ in open_units(path, format).records) == rows
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    for format in FORMATS:
        peak(20, format)  # imports and caches
        assert peak(250, format) < peak(100, format) + 100_000, format


def test_reading_is_lazy(tmp_path: Path) -> None:
    """Catches a reader that parses the whole file before it gives the first record."""
    path = tmp_path / "a.jsonl"
    path.write_text(slam() + "\n{\n")
    records: Iterator[UnitRecord] = open_units(path, "slamkit").records
    assert next(records).id == "a"
    with pytest.raises(DataError, match="line 2"):
        next(records)
