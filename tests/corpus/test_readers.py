"""Catches recordings that vanish without a reason, leak between splits, or are read from outside the corpus folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import soundfile
from hypothesis import given

from speechscale.corpus.readers import assign_splits, read_folder
from speechscale.errors import DataError
from speechscale.records import Utterance
from speechscale.skips import Skip, SkipLog, read_skips


def wav(path: Path, seconds: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(round(16_000 * seconds), np.float32), 16_000)
    return path


def times(path: Path, words: list[tuple[float, float, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"w": [{"b": a, "d": round(b - a, 3), "t": text} for a, b, text in words]}))
    return path


def grid(path: Path, words: list[tuple[float, float, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "".join(f'{a}\n{b}\n"{text}"\n' for a, b, text in words)
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n9\n<exists>\n1\n"IntervalTier"\n"words"\n0\n9\n'
    path.write_text(f"{head}{len(words)}\n{body}")
    return path


def read(root: Path, **options: Any) -> tuple[list[Utterance], SkipLog]:
    log = SkipLog()
    return list(read_folder(root, seed=1, on_skip=log.add, **options)), log


def spoken(root: Path, name: str, text: str, seconds: float = 1.0) -> Path:
    path = wav(root / f"{name}.wav", seconds)
    path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return path


def test_layouts_of_transcripts_times_and_speakers(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    wav(root / "wavs/A-1.wav")
    wav(root / "wavs/bob/B-1.flac")
    wav(root / "84/121550/84-121550-0001.wav").with_suffix(".lab").write_text("GO ON\n")
    wav(root / "carol/c1.wav").with_suffix(".lab").write_text("0.2 0.2 speech\n0.9 0.9 silence\n")
    (root / "carol/metadata.csv").write_text("c1|Yes 2.|Yes two.\n")
    (root / "metadata.csv").write_text("A-1|Dr. Hi!|Doctor Hi!\nB-1|Ho\n")
    grid(root / "TextGrid/A-1.TextGrid", [(0, 0.4, "doctor"), (0.4, 1, "hi")])
    grid(root / "TextGrid/bob/B-1.TextGrid", [(0, 1, "ho")])
    times(root / "carol/c1.json", [(0.1, 0.5, "yes(2)"), (0.5, 0.9, "two")])
    found, log = read(root, licence="CC0")
    assert not log.skips
    rows = {u.id: (u.text, u.speaker, u.audio, [(w.text, w.start_s, w.end_s) for w in u.words]) for u in found}
    assert rows == {
        "A-1": ("Doctor Hi!", "mine", "wavs/A-1.wav", [("Doctor", 0.0, 0.4), ("Hi!", 0.4, 1.0)]),
        "B-1": ("Ho", "bob", "wavs/bob/B-1.flac", [("Ho", 0.0, 1.0)]),
        "84-121550-0001": (
            "GO ON",
            "84",
            "84/121550/84-121550-0001.wav",
            [("GO", None, None), ("ON", None, None)],
        ),
        "c1": ("Yes two.", "carol", "carol/c1.wav", [("Yes", 0.1, 0.5), ("two.", 0.5, 0.9)]),
    }
    assert [u.audio for u in found] == sorted(u.audio for u in found)
    assert {u.licence for u in found} == {"CC0"}
    untimed, _ = read(root, alignments="none")
    assert all(w.start_s is None for u in untimed for w in u.words)
    strict, log = read(root, alignments="textgrid")
    assert [u.id for u in strict] == ["A-1", "B-1"]
    assert all("no word times" in skip.reason and "alignments='auto'" in skip.remedy for skip in log)


BAD_TRANSCRIPTS = {
    "empty": (b"", "transcript is empty"),
    "blank": (b" \n\t ", "transcript is empty"),
    "punctuation": (b"... -- !?", "no words"),
    "latin1": ("caf\u00e9".encode("latin-1"), "not UTF-8 at byte 3"),
    "binary": (b"ab\x00\x01cd", "control characters"),
    "missing": (None, "no transcript"),
}


@pytest.mark.parametrize("kind", BAD_TRANSCRIPTS)
def test_bad_transcript_is_skipped_and_the_rest_goes_on(tmp_path: Path, kind: str) -> None:
    content, reason = BAD_TRANSCRIPTS[kind]
    spoken(tmp_path, "a_good", "one two")
    wav(tmp_path / "b_bad.wav")
    if content is not None:
        (tmp_path / "b_bad.txt").write_bytes(content)
    spoken(tmp_path, "c_good", "three")
    found, log = read(tmp_path)
    assert [u.id for u in found] == ["a_good", "c_good"]
    assert log.ids == ["b_bad"]
    assert log.skips[0].reason.startswith("b_bad.")
    assert reason in log.skips[0].reason
    assert len(log.skips[0].remedy) > 10
    log.check(read=3, kept=len(found))


BAD_TIMES = {
    "past the end": (
        [(0, 0.5, "one"), (0.5, 1.2, "two")],
        r"word 1 ('two') spans 0.500..1.200 s, the audio lasts 1.000 s",
    ),
    "overlap": ([(0, 0.6, "one"), (0.5, 1, "two")], "overlaps the one before"),
    "disorder": ([(0.5, 1, "one"), (0, 0.5, "two")], "out of order"),
    "negative": ([(-0.5, 0.5, "one"), (0.5, 1, "two")], "starts before the audio"),
    "another text": ([(0, 0.5, "good"), (0.5, 1, "night")], "matches 0% of the transcript"),
    "silence only": ([(0, 1, "sil")], "matches 0% of the transcript"),
}


@pytest.mark.parametrize("write", [grid, times])
@pytest.mark.parametrize("kind", BAD_TIMES)
def test_bad_times_are_skipped_and_the_rest_goes_on(tmp_path: Path, kind: str, write: Any) -> None:
    words, reason = BAD_TIMES[kind]
    spoken(tmp_path, "a", "one two")
    spoken(tmp_path, "b", "one two")
    write(tmp_path / ("b.TextGrid" if write is grid else "b.json"), words)
    found, log = read(tmp_path)
    assert [u.id for u in found] == ["a"]
    assert log.ids == ["b"]
    assert reason in log.skips[0].reason
    assert str(tmp_path) not in log.skips[0].reason + log.skips[0].remedy
    assert "realign" in log.skips[0].remedy or "alignments='none'" in log.skips[0].remedy
    assert len(read(tmp_path, alignments="none")[0]) == 2


def test_times_up_to_50_ms_past_the_end_are_clipped(tmp_path: Path) -> None:
    spoken(tmp_path, "a", "one two")
    grid(tmp_path / "a.TextGrid", [(0, 0.5, "one"), (0.5, 1.04, "two")])
    found, log = read(tmp_path)
    assert not log.skips
    assert found[0].words[1].end_s == 1.0


def test_duplicates_links_and_leftover_rows_are_named(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    spoken(outside, "secret", "do not read")
    root = tmp_path / "corpus"
    spoken(root, "s1/same", "first")
    spoken(root, "s2/same", "second")
    (root / "link.wav").symlink_to(outside / "secret.wav")
    (root / "link.txt").write_text("hello")
    (root / "folder").symlink_to(outside)
    wav(root / "text_link.wav")
    (root / "text_link.txt").symlink_to(outside / "secret.txt")
    spoken(root, "times_link", "hello")
    grid(outside / "t.TextGrid", [(0, 1, "hello")])
    (root / "times_link.TextGrid").symlink_to(outside / "t.TextGrid")
    (root / "metadata.csv").write_text("../outside/secret|do not read\nsame|row\nsame|again\nlonely\n")
    found, log = read(root)
    assert [u.id for u in found] == ["same"]
    assert found[0].text == "first"
    reasons = {skip.id: skip.reason for skip in log}
    assert reasons.keys() == {
        "folder", "link", "text_link", "times_link", "same", "metadata.csv:3", "metadata.csv:4", "../outside/secret"
    }  # fmt: skip
    assert all("leads out" in reasons[id] for id in ("folder", "link", "text_link", "times_link"))
    assert reasons["link"] == "link.wav: a link that leads out of the corpus folder"
    assert reasons["same"] == "s2/same.wav: same id as s1/same.wav"
    assert "no audio named '../outside/secret'" in reasons["../outside/secret"]
    by_path, _ = read(root, ids="path")
    assert [u.id for u in by_path] == ["s1/same", "s2/same"]


def test_a_linked_root_is_fine(tmp_path: Path) -> None:
    spoken(tmp_path / "real", "a", "one")
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    assert [u.id for u in read(tmp_path / "alias")[0]] == ["a"]


def test_foreign_metadata_is_named(tmp_path: Path) -> None:
    spoken(tmp_path, "a", "one")
    wav(tmp_path / "b.wav")
    (tmp_path / "metadata.csv").write_text("file_name,transcription\nb.wav,two\n")
    found, log = read(tmp_path)
    assert [u.id for u in found] == ["a"]
    assert log.ids == ["b", "metadata.csv"]
    assert "id|text" in log.skips[1].remedy


def test_impossible_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read(tmp_path / "none")
    with pytest.raises(DataError, match=r"no audio \(\.wav"):
        read(tmp_path)
    wav(tmp_path / "b.wav")
    with pytest.raises(DataError, match=r"none of 1 recordings can be used: b: b\.wav: no transcript$"):
        read(tmp_path)
    spoken(tmp_path, "a", "one")
    for splits in [(0.5, 0.5), (0.0, 0.5, 0.5), (0.9, 0.2, -0.1), (0.5, 0.1, 0.1)]:
        with pytest.raises(DataError, match="three shares"):
            read(tmp_path, splits=splits)
    with pytest.raises(DataError, match="alignments = 'ctm' is not one of auto, textgrid, json, none"):
        read(tmp_path, alignments="ctm")


def test_equal_texts_share_a_split_and_every_split_is_filled(tmp_path: Path) -> None:
    for index in range(30):
        spoken(tmp_path, f"u{index:02}", f"Text {index // 3}." if index % 2 else f"text {index // 3}", seconds=0.1)
    found, _ = read(tmp_path)
    groups: dict[str, set[str]] = {}
    for utterance in found:
        groups.setdefault(utterance.text.casefold().strip("."), set()).add(utterance.split)
    assert len(groups) == 10
    assert all(len(splits) == 1 for splits in groups.values())
    assert {u.split for u in found} == {"train", "select", "test"}
    assert found == read(tmp_path)[0]
    for index in range(3, 30):
        (tmp_path / f"u{index:02}.wav").unlink()
    assert len({u.split for u in read(tmp_path)[0]}) == 1


def test_large_corpora_are_read_twice_and_come_out_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(8):
        grid(spoken(tmp_path, f"u{index}", f"text {index}").with_suffix(".TextGrid"), [(0, 0.5, "text")])
    found, _ = read(tmp_path)
    monkeypatch.setattr("speechscale.corpus.readers.folder.REMEMBERED_UTTERANCES", 3)
    assert read(tmp_path)[0] == found
    stream = read_folder(tmp_path, seed=1, on_skip=SkipLog().add)
    assert next(stream) == found[0]
    (tmp_path / "u6.txt").write_text("")
    with pytest.raises(
        DataError, match=r"u6: the corpus changed while it was read \(u6.wav: u6.txt: the transcript is"
    ):
        list(stream)


def test_split_by_speaker_never_divides_a_speaker(tmp_path: Path) -> None:
    for index in range(12):
        spoken(tmp_path, f"s{index % 4}/u{index}", f"text {index}", seconds=0.1)
    found, _ = read(tmp_path, by="speaker")
    pairs = {(u.speaker, u.split) for u in found}
    assert len(pairs) == 4
    assert {split for _, split in pairs} == {"train", "select", "test"}


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(0, 5))
def test_assign_splits_ignores_order_and_fills_splits(keys: list[int], seed: int) -> None:
    digests = [hashlib.sha256(f"{seed}/{key}".encode()).digest() for key in keys]
    chosen = assign_splits(digests, (0.8, 0.1, 0.1))
    assert chosen == assign_splits(digests[::-1], (0.8, 0.1, 0.1))
    assert chosen.keys() == set(digests)
    if len(set(digests)) >= 3:
        assert set(chosen.values()) == {"train", "select", "test"}
    assert "test" not in assign_splits(digests, (0.9, 0.1, 0.0)).values()


def test_split_shares_are_kept_on_many_texts() -> None:
    digests = [hashlib.sha256(str(i).encode()).digest() for i in range(20_000)]
    names = list(assign_splits(digests, (0.8, 0.1, 0.1)).values())
    # Three standard errors of a binomial share.
    assert abs(names.count("train") / 20_000 - 0.8) < 3 * (0.8 * 0.2 / 20_000) ** 0.5
    assert abs(names.count("test") / 20_000 - 0.1) < 3 * (0.1 * 0.9 / 20_000) ** 0.5


def test_skip_log_is_written_whole_and_read_back(tmp_path: Path) -> None:
    log = SkipLog()
    log.add("a", "caf\u00e9\nis empty", "write it")
    log.add("b", "no", "write it")
    log.write(tmp_path / "skips.jsonl")
    assert read_skips(tmp_path / "skips.jsonl").skips == log.skips
    assert len((tmp_path / "skips.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert log.remedies() == {"write it": 2}
    assert log.first(1) == "a: caf\u00e9\nis empty; ..."
    assert [p.name for p in tmp_path.iterdir()] == ["skips.jsonl"]
    with pytest.raises(AssertionError, match="1 kept \\+ 2 dropped is not 4 read"):
        log.check(read=4, kept=1)
    (tmp_path / "skips.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(DataError, match="line 1: not a skip record"):
        read_skips(tmp_path / "skips.jsonl")
    assert isinstance(log.skips[0], Skip)


def _real(shared: Path, name: str) -> Iterator[Utterance]:
    log = SkipLog()
    yield from read_folder(shared / "data" / name, seed=1, on_skip=log.add)
    assert not log.skips


def test_real_recordings_are_all_read_with_word_times(shared: Path) -> None:
    for name, count, words in [("dev-ljspeech", 12, 197), ("dev-librivox-aligned", 5, 71)]:
        found = list(_real(shared, name))
        assert len(found) == count
        assert {u.split for u in found} == {"train", "select", "test"}
        assert sum(len(u.words) for u in found) == words
        assert all(w.start_s is not None and w.end_s is not None for u in found for w in u.words)
        # The transcript's own spelling survives, word for word.
        assert all(" ".join(w.text for w in u.words) == u.text for u in found)
    seconds = sum((w.end_s or 0) - (w.start_s or 0) for u in found for w in u.words)
    assert 18 < seconds < 24.7
