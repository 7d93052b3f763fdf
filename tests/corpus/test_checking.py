"""Catches faults that validation would not list, or would pin on the wrong utterance."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechscale.corpus.checking import KINDS, Verdict, validate_corpus
from speechscale.corpus.imported import Corpus, write_corpus
from speechscale.corpus.statistics import corpus_stats, stats_lines, stats_page
from speechscale.records import Utterance, Word
from speechscale.skips import SkipLog
from tests.corpus.sources import sound, sound_bytes, write_tar


def make(root: Path, rows: list[dict[str, Any]]) -> Corpus:
    defaults = {"speaker": "ann", "split": "train", "audio": "a.wav", "text": ""}
    utterances = [Utterance(**{"id": str(index), **defaults, **row}) for index, row in enumerate(rows)]
    return write_corpus(root, utterances, audio_root=root, info={"source": "test"}, skips=SkipLog())


def listed(corpus: Corpus) -> dict[str, list[str]]:
    """Kind -> ids."""
    found: dict[str, list[str]] = {}
    for line in (corpus.folder / "problems.jsonl").read_text().splitlines():
        problem = json.loads(line)
        assert problem["severity"] in ("error", "warning")
        assert problem["detail"]
        assert problem["remedy"] == KINDS[problem["kind"]].remedy
        found.setdefault(problem["kind"], []).append(problem["id"])
    return found


def words(*spans: tuple[str, float, float]) -> tuple[Word, ...]:
    return tuple(Word(text=text, start_s=start, end_s=end) for text, start, end in spans)


def faulty(root: Path) -> Corpus:
    """One corpus with every kind of fault that needs no decoding."""
    sound(root / "a.wav", 4)
    sound(root / "b.wav", 4, seed=1)
    (root / "copy.wav").write_bytes((root / "b.wav").read_bytes())
    (root / "zero.wav").write_bytes(b"")
    rows: list[dict[str, Any]] = [
        {"id": "fine", "text": "go on", "words": words(("go", 0.5, 1), ("on", 1, 1.5))},
        {"id": "gone", "audio": "gone.wav"},
        {"id": "outside", "audio": "../secret.wav"},
        {"id": "zero", "audio": "zero.wav"},
        {"id": "reversed", "start_s": 2.0, "end_s": 1.0},
        {"id": "past", "start_s": 2.0, "end_s": 4.5},
        {"id": "short", "start_s": 1.0, "end_s": 1.05},
        {"id": "channel", "start_s": 0.1, "channel": 1},
        {"id": "disorder", "start_s": 0.2, "text": "x y", "words": words(("x", 1, 2), ("y", 1.5, 2.5))},
        {"id": "late", "start_s": 0.3, "end_s": 2.0, "text": "a b", "words": words(("a", 0, 1), ("b", 1, 2.0))},
        {"id": "differ", "start_s": 0.4, "text": "good day", "words": words(("good", 0, 1), ("night", 1, 2.0))},
        {"id": "fine", "start_s": 0.5},
        {"id": "again", "text": "go on"},
        {"id": "b", "audio": "b.wav"},
        {"id": "copy", "audio": "copy.wav"},
        {"id": "leak", "start_s": 0.6, "text": "Go on!", "split": "test"},
        {"id": "fast", "start_s": 0.7, "end_s": 1.7, "text": " ".join(["word"] * 12)},
        {"id": "open", "start_s": 0.8, "split": ""},
    ]
    return make(root, rows)


def test_every_fault_is_listed_with_its_item(tmp_path: Path) -> None:
    corpus = faulty(tmp_path)
    verdict = validate_corpus(corpus)
    found = listed(corpus)
    assert found.pop("no-text") == [
        "gone",
        "outside",
        "zero",
        "reversed",
        "past",
        "short",
        "channel",
        "fine",
        "b",
        "copy",
        "open",
    ]
    assert found == {
        "audio-unreadable": ["gone", "outside", "zero"],
        "range-invalid": ["reversed"],
        "range-past-end": ["past"],
        "audio-too-short": ["short"],
        "no-such-channel": ["channel"],
        "words-out-of-order": ["disorder"],
        "words-past-end": ["late"],
        "text-words-differ": ["differ"],
        "duplicate-id": ["fine"],
        "duplicate-audio": ["again", "copy"],
        "text-in-two-splits": ["leak"],
        "speaker-in-two-splits": ["speaker ann"],
        "impossible-rate": ["fast"],
        "no-split": ["open"],
    }
    assert verdict.utterances == 18
    assert verdict.counts == {**{k: len(v) for k, v in found.items()}, "no-text": 11}
    assert verdict.errors == sum(len(ids) for kind, ids in found.items() if KINDS[kind].severity == "error")
    assert verdict.errors + verdict.warnings == sum(verdict.counts.values())
    lists = (tmp_path / "problems.jsonl").read_bytes()
    validate_corpus(corpus, workers=3)
    assert (tmp_path / "problems.jsonl").read_bytes() == lists
    softer = validate_corpus(corpus, demoted=frozenset({"duplicate-id"}))
    assert softer.errors == verdict.errors - 1


def test_details_name_the_place(tmp_path: Path) -> None:
    verdict = validate_corpus(faulty(tmp_path))
    details = {kind: problems[0].detail for kind, problems in verdict.first.items()}
    assert details["range-past-end"] == "2..4.5 s of a file of 4.000 s"
    assert details["words-past-end"] == "word 1 ('b') ends at 2.000 s of 1.700 s"
    assert details["text-words-differ"] == "from token 1 on: text ['day'], words ['night']"
    assert details["text-in-two-splits"] == "its text is also in train"
    assert details["duplicate-id"] == "utterance number 1 has the same id"
    assert str(tmp_path) not in " ".join(details.values())


def test_decoding_finds_silence_clipping_nan_and_equal_sound(tmp_path: Path) -> None:
    rate = 16_000
    noise = (0.1 * np.random.default_rng(0).standard_normal(rate)).astype(np.float32)
    for name, samples in {
        "zeros.wav": np.zeros(rate, np.float32),
        "clipped.wav": np.clip(20 * noise, -1, 1),
        "nan.wav": np.where(np.arange(rate) == 7, np.nan, noise),
    }.items():
        soundfile.write(tmp_path / name, samples, rate, subtype="FLOAT")
    for name in ("noise.wav", "same.flac"):
        soundfile.write(tmp_path / name, np.rint(32_767 * noise).astype(np.int16), rate, subtype="PCM_16")
    (tmp_path / "cut.flac").write_bytes(sound_bytes(2)[:20_000])
    write_tar(tmp_path / "t.tar", [("k.flac", (tmp_path / "same.flac").read_bytes())])
    names = ["zeros.wav", "clipped.wav", "nan.wav", "noise.wav", "same.flac", "cut.flac", "t.tar::k.flac"]
    corpus = make(tmp_path, [{"id": name, "audio": name} for name in names])
    assert validate_corpus(corpus).counts == {}
    verdict = validate_corpus(corpus, decode=True, workers=2)
    assert listed(corpus) == {
        "silent-audio": ["zeros.wav"],
        "clipped-audio": ["clipped.wav"],
        "audio-unreadable": ["nan.wav", "cut.flac"],
        "duplicate-audio": ["same.flac", "t.tar::k.flac"],
    }
    assert verdict.errors == 3
    assert str(tmp_path) not in (tmp_path / "problems.jsonl").read_text()


def test_a_transcript_of_another_recording_shows_in_its_rate(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 100)
    rows: list[dict[str, Any]] = [
        {
            "start_s": i * 3.0,
            "end_s": i * 3.0 + 2 + i % 3 / 4,
            "text": "this is about two seconds of speech " + "ab"[i % 2] * (i % 5),
        }
        for i in range(30)
    ]
    rows[7]["text"] = "this is about two seconds of speech and then so very much more of it that nobody can"
    rows[9]["text"] = "so it is"
    corpus = make(tmp_path, rows)
    validate_corpus(corpus)
    assert listed(corpus)["rate-outlier"] == ["7", "9"]


def test_a_clean_corpus_has_no_problems(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 9)
    rows = [{"start_s": i / 4, "end_s": i / 4 + 2, "text": f"it is number {i}", "speaker": f"s{i}"} for i in range(25)]
    rows += [{"start_s": 8.0, "text": "another one", "split": "test", "speaker": "eve"}]
    corpus = make(tmp_path, rows)
    found: Verdict = validate_corpus(corpus, decode=True)
    assert (found.errors, found.warnings, found.counts) == (0, 0, {})
    assert found.hours == pytest.approx((25 * 2 + 1) / 3600)
    assert (tmp_path / "problems.jsonl").read_text() == ""


def test_stats_count_what_is_there(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 4)
    rows: list[dict[str, Any]] = [
        {"text": "go on", "words": (Word(text="go", start_s=0.1, end_s=0.4), Word(text="on")), "language": "en"},
        {"text": "Go on!", "start_s": 1.0, "end_s": 2.0, "speaker": "bob", "split": "test", "licence": "CC0"},
        {"text": "", "start_s": 3.0},
        {"text": "lost words here", "audio": "gone.wav"},
    ]
    corpus = make(tmp_path, rows)
    found = corpus_stats(corpus)
    assert found == corpus_stats(corpus, workers=2)
    assert (found["utterances"], found["unreadable"], found["words"]) == (4, 1, 7)
    assert (found["speakers"], found["texts"]) == (2, 2)
    assert found["hours"] == pytest.approx((4 + 1 + 1) / 3600)
    assert found["words_timed_share"] == 0.5
    assert found["duration_s"]["q50"] == 1.0
    assert found["words_per_s"]["mean"] == pytest.approx(1.25)
    assert (found["words_per_s"]["q00"], found["words_per_s"]["q100"]) == (0.5, 2.0)
    assert found["words_per_s"]["q25"] == pytest.approx(np.quantile([0.5, 2.0], 0.25))
    assert found["splits"]["test"]["hours"] == pytest.approx(1 / 3600)
    assert found["splits"]["train"]["utterances"] == 3
    assert found["languages"].keys() == {"en", "not said"}
    assert found["licences"]["CC0"]["utterances"] == 1
    assert sum(row[2] for row in found["histogram_s"]) == 3
    json.dumps(found, allow_nan=False)
    assert any("unreadable" in line for line in stats_lines(found))
    page = stats_page(found)
    assert page.startswith("<!doctype html>")
    assert "http" not in page.split("<script")[0]


def test_stats_of_unreadable_audio_are_absent_not_zero(tmp_path: Path) -> None:
    found = corpus_stats(make(tmp_path, [{"audio": "gone.wav"}]))
    assert found["duration_s"] is None
    assert found["words_timed_share"] is None
    assert not any(math.isnan(v) for v in found.values() if isinstance(v, float))
    assert stats_lines(found)
