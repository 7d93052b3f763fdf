"""Catches files that differ from slamkit's by a byte, units cut by another rule, and lines lost without a reason."""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.records import NO_TIME, UnitTable
from speechscale.tokens.cuts import unit_ranges, word_cuts
from speechscale.tokens.slamkit import SlamkitSettings, draw_words, interleave_text, write_slamkit_tokens

MakeTable = Callable[..., UnitTable]
POISSON = SlamkitSettings(method="poisson", span_words=2)


def test_its_example_files_byte_for_byte(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "dev-units" / "slamkit"
    report = write_slamkit_tokens(folder / "features.jsonl", tmp_path / "tokens.jsonl", SlamkitSettings(num_units=500))
    assert (report.read, report.written) == (2, 2)
    assert (tmp_path / "tokens.jsonl").read_bytes() == (folder / "tokens.jsonl").read_bytes()


def by_the_book(sample: dict[str, Any], mask: list[bool], unit_duration_s: float) -> str:
    """The rule written down independently: group the words, bisect the float end times of the units."""
    passed, ends = 0, []
    for duration in sample["duration"]:
        passed += duration
        ends.append(passed * unit_duration_s)
    text = ""
    for heard, group in groupby(zip(mask, sample["aligned_text"], strict=True), key=lambda pair: pair[0]):
        words = [word for _, word in group]
        if heard:
            begin, end = bisect_left(ends, words[0][1]), bisect_right(ends, words[-1][2])
            text += "<speech>" + "".join(f"<Un{unit}>" for unit in sample["units"][begin:end])
        else:
            text += "<text>" + "".join(word[0] for word in words)
    return text


def random_sample(seed: int, unit_duration_s: float) -> dict[str, Any]:
    """Words at frames and between them: ends of units at word starts, words shorter than a frame, silence."""
    rng = np.random.default_rng(seed)
    count, words = int(rng.integers(1, 40)), int(rng.integers(1, 12))
    durations = rng.integers(1, 4, count)
    times = np.sort(rng.integers(0, 4 * int(durations.sum()) + 4, 2 * words)) / 4 * unit_duration_s
    if rng.random() < 0.5:
        times = np.round(times / unit_duration_s) * unit_duration_s
    pairs = [[f" w{i}", float(a), float(b)] for i, (a, b) in enumerate(times.reshape(-1, 2))]
    return {"units": rng.integers(0, 500, count).tolist(), "duration": durations.tolist(), "aligned_text": pairs}


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 100_000), unit_duration_s=st.sampled_from([0.04, 0.02, 1 / 12.5]), heard=st.floats(0, 1))
def test_same_string_for_the_same_mask(seed: int, unit_duration_s: float, heard: float) -> None:
    sample = random_sample(seed, unit_duration_s)
    mask = np.random.default_rng(seed).random(len(sample["aligned_text"])) < heard
    words = [tuple(word) for word in sample["aligned_text"]]
    found = interleave_text(np.array(sample["units"]), np.array(sample["duration"]), words, mask, unit_duration_s)
    assert found == by_the_book(sample, mask.tolist(), unit_duration_s)


def test_its_edges_by_hand() -> None:
    """A unit that ends exactly at a start is kept, one across an end is dropped, a short word loses its sound."""
    units, durations = np.array([1, 2, 3]), np.array([2, 2, 2])
    words = [(" a", 0.5, 0.75), (" b", 0.8, 0.9), (" c", 1.0, 1.5)]
    for mask, expected in (
        ([1, 0, 0], "<speech><Un1><text> b c"),
        ([0, 1, 0], "<text> a<speech><text> c"),
        ([0, 0, 1], "<text> a b<speech><Un2><Un3>"),
        ([1, 1, 1], "<speech><Un1><Un2><Un3>"),
        ([0, 0, 0], "<text> a b c"),
    ):
        assert interleave_text(units, durations, words, np.array(mask, bool), 0.25) == expected


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), zero=st.sampled_from([0.0, 0.4]), untimed=st.sampled_from([0.0, 0.3]))
def test_boundary_slamkit_is_its_rule_on_whole_frames(
    make_table: MakeTable, seed: int, zero: float, untimed: float
) -> None:
    """`InterleaveConfig(boundary="slamkit")` cuts as the float rule where the times are whole frames."""
    table = make_table(3, seed=seed, most_words=12, zero_length=zero, untimed=untimed)
    cuts = word_cuts(table)
    for row in range(3):
        times, base = table.row_word_frames(row), int(table.word_offsets[row])
        known = np.flatnonzero(times[:, 0] != NO_TIME)
        for rate in (25.0, 12.5, 32.0):
            # Times read off the same float timeline, as an aligner that works on frames writes them.
            timeline = np.concatenate(([0], np.arange(1, 1 + int(table.frames[row])) * (1 / rate)))
            for first in known:
                last = int(known[known >= first][-1])
                word = (" x", float(timeline[times[first, 0]]), float(timeline[times[last, 1]]))
                text = interleave_text(
                    table.row_units(row), table.row_durations(row), [word], np.array([True]), 1 / rate
                )
                start, stop = unit_ranges(
                    cuts,
                    first_word=np.array([base + first]),
                    last_word=np.array([base + last]),
                    row_first_word=np.array([base]),
                    row_stop_word=np.array([base + len(times)]),
                    row_units=np.array([len(table.row_units(row))]),
                    boundary="slamkit",
                )
                units = table.row_units(row)[start[0] : stop[0]]
                assert text == "<speech>" + "".join(f"<Un{unit}>" for unit in units)


# -- samplers


def poisson_loop(words: int, mean: float, share: float, rng: np.random.Generator) -> np.ndarray:
    """Its Poisson sampler with the rejections, written down independently; a length of 0 uses up its start."""
    mask, starts = np.zeros(words, bool), list(range(words))
    while mask.sum() < math.ceil(words * share) and starts:
        start = starts[rng.integers(len(starts))]
        stop = min(start + rng.poisson(mean), words)
        if not mask[start:stop].any():
            mask[start:stop] = True
            starts = [place for place in starts if not start <= place <= stop]
    return mask


@pytest.mark.parametrize(("words", "mean", "share"), [(30, 10, 0.3), (12, 1, 0.4), (20, 3, 0.8), (5, 10, 0.3)])
def test_poisson_sampler_has_the_law_of_its_loop(words: int, mean: int, share: float) -> None:
    rng = np.random.default_rng(0)
    how = SlamkitSettings(method="poisson", span_words=mean, share=share)
    looped = np.stack([poisson_loop(words, mean, share, rng) for _ in range(2000)])
    direct = np.stack([draw_words(words, how, rng) for _ in range(2000)])
    for measure in (
        lambda m: m.sum(axis=1),
        lambda m: (np.diff(np.pad(m, ((0, 0), (1, 0))).astype(int)) == 1).sum(axis=1),
        lambda m: m[:, 0],
        lambda m: m[:, words // 2],
        lambda m: m[:, -1],
    ):
        a, b = measure(looped).astype(float), measure(direct).astype(float)
        assert abs(a.mean() - b.mean()) < 3.5 * math.hypot(a.std(), b.std()) / math.sqrt(2000) + 1e-9


def test_poisson_spans_longer_than_any_room_come_to_an_end() -> None:
    how = SlamkitSettings(method="poisson", span_words=5000, share=1.0)
    masks = [draw_words(50, how, np.random.default_rng(seed)) for seed in range(20)]
    assert all(mask.any() for mask in masks)


def test_span_and_random_samplers() -> None:
    rng = np.random.default_rng(1)
    spans = draw_words(200_000, SlamkitSettings(method="span", span_words=4, share=0.1), rng)
    assert spans.mean() == pytest.approx(1 - 0.9**4, abs=0.01)
    runs = [len(list(group)) for heard, group in groupby(spans.tolist()) if heard]
    assert min(runs[:-1]) == 4
    assert draw_words(200_000, SlamkitSettings(method="random"), rng).mean() == pytest.approx(0.5, abs=0.01)


# -- files


def write_features(folder: Path, samples: list[dict[str, Any]], names: list[str]) -> Path:
    lines = []
    for sample, name in zip(samples, names, strict=True):
        stem = Path(name).stem
        (folder / f"{stem}.json").write_text(json.dumps({"aligned_text": sample["aligned_text"], "text": "x"}))
        lines.append(json.dumps({"units": sample["units"], "duration": sample["duration"], "file_name": name}))
    path = folder / "features.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("method", ["poisson", "span", "random"])
def test_files_with_meta(tmp_path: Path, method: Any) -> None:
    how = replace(POISSON, method=method)
    names = [f"some/folder/{index}.flac" for index in range(30)]
    samples = [random_sample(seed, 0.04) for seed in range(30)]
    features = write_features(tmp_path, samples, names)
    report = write_slamkit_tokens(features, tmp_path / "out" / "tokens.jsonl", how, meta=tmp_path)
    assert (report.read, report.written, len(report.skips)) == (30, 30, 0)
    lines = [json.loads(line) for line in (tmp_path / "out" / "tokens.jsonl").read_text().splitlines()]
    assert [list(line) for line in lines] == [["file_name", "audio_repr"]] * 30
    assert [line["file_name"] for line in lines] == names
    for line, sample in zip(lines, samples, strict=True):
        # Which words are speech shows in the string; the units must follow from it.
        pieces = line["audio_repr"].replace("<speech>", "\n<speech>").replace("<text>", "\n<text>").split("\n")[1:]
        written = " ".join(piece.removeprefix("<text>") for piece in pieces if piece.startswith("<text>")).split()
        mask = [word[0].strip() not in written for word in sample["aligned_text"]]
        assert line["audio_repr"] == by_the_book(sample, mask, 0.04)
    # Words depend on the seed and the file name alone, not on the lines around.
    some = write_features(tmp_path, samples[::-3], names[::-3])
    write_slamkit_tokens(some, tmp_path / "some.jsonl", how, meta=tmp_path)
    assert [json.loads(line) for line in (tmp_path / "some.jsonl").read_text().splitlines()] == lines[::-3]
    write_slamkit_tokens(some, tmp_path / "other.jsonl", replace(how, seed=1), meta=tmp_path)
    assert (tmp_path / "other.jsonl").read_text() != (tmp_path / "some.jsonl").read_text()


def test_fields_are_passed_on(tmp_path: Path) -> None:
    """Extra fields stay, scores behind the times are ignored, the meta file beside the audio may rename."""
    line = {"units": [7, 8], "duration": [1, 2], "file_name": str(tmp_path / "a.flac"), "speaker": "ann"}
    (tmp_path / "features.jsonl").write_text(json.dumps(line) + "\n\n")
    meta = {"aligned_text": [[" hi", 0.0, 0.12, 0.99]], "split_sentence": ["hi"], "file_name": "b", "style": "calm"}
    (tmp_path / "a.json").write_text(json.dumps(meta))
    everything = replace(POISSON, method="span", share=1.0)
    write_slamkit_tokens(tmp_path / "features.jsonl", tmp_path / "tokens.jsonl", everything)
    assert (tmp_path / "tokens.jsonl").read_text() == (
        '{"file_name": "b", "speaker": "ann", "style": "calm", "audio_repr": "<speech><Un7><Un8>"}\n'
    )


def test_every_bad_line_has_a_reason(tmp_path: Path) -> None:
    good: dict[str, Any] = {"units": [1], "duration": [3], "file_name": "good.flac"}
    lines: list[Any] = [good, {**good, "file_name": "other/good.flac"}]
    word = [" hi", 0.0, 0.1]
    metas: dict[str, Any] = {
        "good": [word],
        "glued": [word, ["ho", 0.1, 0.12]],
        "empty": [],
        "short": [[" hi", 0.1]],
        "late": [[" hi", None, 0.2]],
        "back": [[" hi", 0.3, 0.2]],
    }
    for stem, aligned in metas.items():
        (tmp_path / f"{stem}.json").write_text(json.dumps({"aligned_text": aligned}))
        if stem != "good":
            lines.append({**good, "file_name": f"{stem}.flac"})
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    lines += [{**good, "file_name": name} for name in ("broken.flac", "list.flac", "alone.flac", "", 3)]
    lines += [{"units": [1]}, {**good, "duration": [1, 2]}, {**good, "duration": [0]}, {**good, "units": [500]}]
    lines += [{**good, "units": [1.5]}, {**good, "units": []}, [1]]
    path = tmp_path / "features.jsonl"
    path.write_bytes(b"\n".join([*(json.dumps(line).encode() for line in lines), b"{not json", b"\xff\xfe"]) + b"\n")
    report = write_slamkit_tokens(path, tmp_path / "tokens.jsonl", replace(POISSON, num_units=500), meta=tmp_path)
    assert (report.read, report.written) == (len(lines) + 2, 1)
    reasons = [f"{skip.id}: {skip.reason}" for skip in report.skips]
    for part in (
        "other/good.flac: its meta file good.json is already that of good.flac",
        "glued.flac: word 'ho' has no blank in front",
        "empty.flac: its aligned_text has no words",
        'short.flac: word 0 of aligned_text is [" hi", 0.1]',
        "late.flac: word 0 (' hi') has the times [None, 0.2]",
        "back.flac: word 0 (' hi') has the times [0.3, 0.2]",
        "broken.flac: its meta file",
        "list.flac: its meta file",
        "alone.flac: its meta file",
        "features.jsonl:11: its file_name is ''",
        "features.jsonl:12: its file_name is 3",
        "features.jsonl:13: not a line of features (KeyError('file_name'))",
        "good.flac: 1 units need as many durations",
        "good.flac: units run 500..500, allowed 0..499",
        "good.flac: its units are not a list of whole numbers",
        "features.jsonl:19: not a line of features",
        "features.jsonl:20: not a line of features",
        "features.jsonl:21: not a line of features",
    ):
        assert any(part in reason for reason in reasons), part
    assert all(skip.remedy for skip in report.skips)
    glued = write_slamkit_tokens(path, tmp_path / "glued.jsonl", replace(POISSON, allow_glued=True), meta=tmp_path)
    assert "glued.flac" not in glued.skips.ids


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    features = tmp_path / "features.jsonl"
    with pytest.raises(DataError, match="missing; give slamkit's features"):
        write_slamkit_tokens(features, tmp_path / "tokens.jsonl", POISSON)
    features.write_text("{}\n")
    with pytest.raises(DataError, match="is the features file itself"):
        write_slamkit_tokens(features, features, POISSON)
    with pytest.raises(DataError, match=r"none of 1 lines can be used \(features\.jsonl:1: not a line"):
        write_slamkit_tokens(features, tmp_path / "tokens.jsonl", POISSON)
    assert not (tmp_path / "tokens.jsonl").exists()
    with pytest.raises(DataError, match="method 'beam'"):
        SlamkitSettings(method="beam")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="share 0"):
        SlamkitSettings(share=0)
