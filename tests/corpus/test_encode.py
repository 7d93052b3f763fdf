"""Catches utterances lost between audio and units, words at the wrong frame, and units that depend on the batch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechscale.corpus.encode import FileLoader, OnError, VoiceLoader, encode_corpus, sample_waveforms
from speechscale.corpus.readers import read_folder
from speechscale.corpus.tables import read_items, read_utterances, write_items, write_utterances
from speechscale.errors import DataError
from speechscale.records import NO_TIME, Item, UnitTable, Utterance, Word
from speechscale.skips import SkipLog
from speechscale.speech.units import SpeechTokenizer, fit_tokenizer, phone_frames, phone_tokenizer
from speechscale.voices.espeak import Spoken

RATE = 16_000


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Noise whose color changes, so that frames differ."""
    generator = np.random.default_rng(seed)
    samples = round(seconds * rate)
    swell = 0.5 + 0.4 * np.sin(np.arange(samples) / rate * 9)
    return (0.3 * swell * np.convolve(generator.standard_normal(samples), [1, -swell.mean()], "same")).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def tokenizer() -> SpeechTokenizer:
    return fit_tokenizer([noise(8.0, seed) for seed in range(3)], encoder="mfcc", clusters=16, seed=1)


def put(root: Path, name: str, audio: np.ndarray, rate: int = RATE, subtype: str = "FLOAT") -> None:
    soundfile.write(root / f"{name}.wav", audio, rate, subtype=subtype)
    (root / f"{name}.txt").write_text("one two")
    half = len(audio) / rate / 2
    words = [{"b": 0.0, "d": half, "t": "one"}, {"b": half, "d": half, "t": "two"}]
    (root / f"{name}.json").write_text(json.dumps({"w": words}))


def encode(root: Path, tokenizer: SpeechTokenizer, **options: object) -> tuple[UnitTable, SkipLog]:
    log = SkipLog()
    utterances = list(read_folder(root, seed=1, on_skip=log.add))
    loader = FileLoader(root=root)
    return encode_corpus(utterances, tokenizer, loader=loader, skips=log, **options), log  # type: ignore[arg-type]


def same(left: UnitTable, right: UnitTable) -> bool:
    arrays = ["units", "durations_frames", "unit_offsets", "word_start_frames", "word_end_frames", "word_offsets"]
    texts = ["ids", "speakers", "splits", "texts", "words"]
    return all(np.array_equal(getattr(left, a), getattr(right, a)) for a in arrays) and all(
        getattr(left, t) == getattr(right, t) for t in texts
    )


def test_bad_audio_is_skipped_with_a_reason_and_the_rest_goes_on(tmp_path: Path, tokenizer: SpeechTokenizer) -> None:
    spoiled = noise(1.0)
    spoiled[700] = np.nan
    put(tmp_path, "a_good", noise(1.0))
    (tmp_path / "b_zero_bytes.wav").write_bytes(b"")
    (tmp_path / "c_text.wav").write_text("this is not audio\n" * 50)
    put(tmp_path, "d_nan", spoiled)
    put(tmp_path, "e_stereo", np.stack([noise(1.0), noise(1.0, 1)], axis=1))
    put(tmp_path, "f_8khz", noise(1.0, rate=8000), rate=8000)
    put(tmp_path, "g_one_sample", noise(1 / RATE))
    put(tmp_path, "h_no_samples", np.zeros(0, np.float32))
    put(tmp_path, "i_silence", np.zeros(RATE, np.float32), subtype="PCM_16")
    (tmp_path / "j_missing.wav").symlink_to(tmp_path / "gone.wav")
    for name in ("b_zero_bytes", "c_text", "j_missing"):
        (tmp_path / f"{name}.txt").write_text("one two")
    table, log = encode(tmp_path, tokenizer)
    assert table.ids == ["a_good", "e_stereo", "f_8khz", "i_silence"]
    reasons = {skip.id: f"{skip.reason}; {skip.remedy}" for skip in log}
    assert len(reasons) == len(log) == 6
    for name, words in {
        "b_zero_bytes": "b_zero_bytes.wav: the file has zero bytes; copy it again",
        "c_text": "cannot be decoded",
        "d_nan": "1 of 16000 samples are NaN",
        "g_one_sample": "too short to hold a word; record it again or drop it",
        "h_no_samples": "no samples",
        "j_missing": "no such file",
    }.items():
        assert words in reasons[name]
    assert all(str(tmp_path) not in text for text in reasons.values())
    assert list(table.frames) == [25, 25, 25, 25]
    assert table.words == ["one", "two"] * 4
    assert [table.row_word_frames(1)[:, 0].tolist(), table.row_word_frames(1)[:, 1].tolist()] == [[0, 12], [12, 25]]


def test_units_do_not_depend_on_batches_or_company(tmp_path: Path, tokenizer: SpeechTokenizer) -> None:
    for index in range(7):
        put(tmp_path, f"u{index}", noise(0.4 + 0.37 * index, index))
    whole, _ = encode(tmp_path, tokenizer)
    single, _ = encode(tmp_path, tokenizer, batch_s=0.01, shard_utterances=1)
    odd, _ = encode(tmp_path, tokenizer, batch_s=2.0, shard_utterances=3)
    assert same(whole, single)
    assert same(whole, odd)
    assert len(set(whole.units.tolist())) > 4


def test_first_waveforms_are_handed_out(tmp_path: Path, tokenizer: SpeechTokenizer) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    (tmp_path / "a.txt").write_text("one")
    for index in range(4):
        put(tmp_path, f"u{index}", noise(1.0, index))
    heard: dict[str, np.ndarray] = {}
    encode(tmp_path, tokenizer, keep_audio=2, on_audio=heard.__setitem__)
    assert list(heard) == ["u0", "u1"]
    np.testing.assert_array_equal(heard["u1"], noise(1.0, 1))


def test_nothing_usable_is_an_error_with_reasons(tmp_path: Path, tokenizer: SpeechTokenizer) -> None:
    for index in range(5):
        put(tmp_path, f"u{index}", noise(1.0, index))
    utterances = list(read_folder(tmp_path, seed=1, on_skip=SkipLog().add))
    for index in range(5):
        (tmp_path / f"u{index}.wav").write_bytes(b"")  # spoiled after the folder was read
    loader = FileLoader(root=tmp_path)
    with pytest.raises(DataError, match=r"none of 5 utterances can be used: u0: .*zero bytes; u1: .*; \.\.\.$"):
        encode_corpus(utterances, tokenizer, loader=loader, skips=SkipLog())
    with pytest.raises(DataError, match="no utterances to encode"):
        encode_corpus([], tokenizer, loader=loader, skips=SkipLog())
    with pytest.raises(DataError, match="no audio to fit units on: u0: "):
        list(sample_waveforms(utterances, loader=loader, max_hours=1))
    with pytest.raises(DataError, match=r"none of 5 recordings can be used: u0: .*zero bytes"):
        list(read_folder(tmp_path, seed=1, on_skip=SkipLog().add))


def test_phone_units_are_refused_for_recordings(tmp_path: Path) -> None:
    put(tmp_path, "a", noise(1.0))
    with pytest.raises(DataError, match=r"only for synthesized speech; use an encoder such as 'adapted'"):
        encode(tmp_path, phone_tokenizer(["a", "b", "_"]))


def test_file_loader_stays_inside_its_folder(tmp_path: Path, tokenizer: SpeechTokenizer) -> None:
    root = tmp_path / "corpus"
    root.mkdir()
    put(root, "a", noise(1.0))
    put(tmp_path, "secret", noise(1.0))
    (root / "link.wav").symlink_to(tmp_path / "secret.wav")
    good = Utterance(id="a", text="x", speaker="s", split="train", audio="a.wav")
    bad = [
        replace(good, id=str(index), audio=audio)
        for index, audio in enumerate(["../secret.wav", str(tmp_path / "secret.wav"), "link.wav", ""])
    ]
    log = SkipLog()
    table = encode_corpus([*bad, good, good], tokenizer, loader=FileLoader(root=root), skips=log)
    assert table.ids == ["a"]
    assert log.ids == ["a", "0", "1", "2", "3"]
    assert all("not inside the corpus folder" in skip.reason for skip in log.skips[1:])
    assert log.skips[0].reason == "an earlier utterance has the same id"


def test_words_are_checked_again_when_files_are_loaded(tmp_path: Path, tokenizer: SpeechTokenizer) -> None:
    """Utterances may come from a table instead of the reader; their words are still held to the audio."""
    put(tmp_path, "a", noise(1.0))
    good = Utterance(id="a", text="x y", speaker="s", split="train", audio="a.wav", words=(Word(text="x"),))
    late = replace(good, id="late", words=(Word(text="x", start_s=0.5, end_s=1.2),))
    clipped = replace(good, id="clipped", words=(Word(text="x", start_s=0.5, end_s=1.03), Word(text="y")))
    disorder = replace(
        good, id="disorder", words=(Word(text="x", start_s=0.5, end_s=0.9), Word(text="y", start_s=0.1, end_s=0.4))
    )
    log = SkipLog()
    table = encode_corpus([good, late, clipped, disorder], tokenizer, loader=FileLoader(root=tmp_path), skips=log)
    assert table.ids == ["a", "clipped"]
    assert table.row_word_frames(0).tolist() == [[NO_TIME, NO_TIME]]
    assert table.row_word_frames(1).tolist() == [[12, 25], [NO_TIME, NO_TIME]]
    assert log.ids == ["late", "disorder"]
    assert "word 0 ('x') spans 0.500..1.200 s" in log.skips[0].reason
    assert "'y'" in log.skips[1].reason


class ToneLoader:
    """A stand-in for a voice: tones of known phones; refuses texts with 'bad', and counts its calls."""

    has_phones = True

    def __init__(self) -> None:
        self.shards: list[int] = []

    def __call__(self, utterances: Sequence[Utterance], on_error: OnError) -> Iterator[Spoken]:
        self.shards.append(len(utterances))
        for utterance in utterances:
            if "bad" in utterance.text:
                on_error(utterance.id, "the voice hung; shorten the text")
                continue
            yield Spoken(
                id=utterance.id,
                audio=np.zeros(1600, np.float32),
                # Phones shorter than a frame push the border of words behind them.
                words=[("x", 320, 340), ("y", 340, 1600)],
                phones=[("_", 0, 320), ("a", 320, 330), ("b", 330, 340), ("a", 340, 1600)],
            )


def test_spoken_utterances_become_phone_units(tokenizer: SpeechTokenizer) -> None:
    utterances = [
        Utterance(id=str(i), text="bad" if i == 3 else "x", speaker="v", split="train", segments=("x",))
        for i in range(9)
    ]
    phones = phone_tokenizer(["_", "a", "b"])
    loader, log = ToneLoader(), SkipLog()
    table = encode_corpus(utterances, phones, loader=loader, skips=log, shard_utterances=4)
    assert loader.shards == [4, 4, 1]
    assert table.ids == ["0", "1", "2", "4", "5", "6", "7", "8"]
    assert [(s.id, s.reason, s.remedy) for s in log] == [("3", "the voice hung", "shorten the text")]
    assert table.frame_rate_hz == 100
    silence, a, b = phone_frames_of(phones)
    assert table.row_units(0).tolist() == [silence, a, b, a]
    assert table.row_durations(0).tolist() == [2, 1, 1, 6]
    assert table.row_word_frames(0).tolist() == [[2, 4], [4, 10]]


def phone_frames_of(phones: SpeechTokenizer) -> list[int]:
    """Units of _ a b, by encoding each alone."""
    return [int(phone_frames(phones, [(label, 0, 160)], 160)[0]) for label in ("_", "a", "b")]


def test_sample_stops_at_the_wanted_hours() -> None:
    utterances = (Utterance(id=str(i), text="x", speaker="v", split="train") for i in range(1000))
    loader = ToneLoader()
    hours = 0.55 / 3600
    sample = list(sample_waveforms(utterances, loader=loader, max_hours=hours, shard_utterances=4))
    assert len(sample) == 6
    assert loader.shards == [4, 4]
    assert next(utterances).id == "8"


def test_real_recordings_become_units(shared: Path) -> None:
    for name, count, words in [("dev-ljspeech", 12, 197), ("dev-librivox-aligned", 5, 71)]:
        root, log = shared / "data" / name, SkipLog()
        utterances = list(read_folder(root, seed=1, on_skip=log.add))
        loader = FileLoader(root=root)
        sample = sample_waveforms(utterances, loader=loader, max_hours=1)
        tokenizer = fit_tokenizer(sample, encoder="mfcc", clusters=50, seed=1)
        table = encode_corpus(utterances, tokenizer, loader=loader, skips=log)
        assert not log.skips
        assert len(table) == count
        assert len(table.words) == words
        assert (table.word_start_frames != NO_TIME).all()
        assert (table.word_end_frames > table.word_start_frames).all()
        assert len(np.unique(table.units)) == 50
        for row, utterance in enumerate(utterances):
            seconds = [(w.start_s, w.end_s) for w in utterance.words]
            error = table.row_word_frames(row) / table.frame_rate_hz - np.array(seconds, np.float64)
            assert np.abs(error).max() <= 1 / table.frame_rate_hz


def test_voices_and_files_share_the_pipeline() -> None:
    pytest.importorskip("espeakng_loader", reason="needs the extra 'voices'")
    from speechscale.voices.espeak import VOICES

    name = next(iter(VOICES))
    segments = ("Mia ate soup.", "Then she slept.")
    utterances = [
        Utterance(id=f"u{i}", text=" ".join(segments), speaker=name, split="train", segments=segments) for i in range(3)
    ]
    sample = list(sample_waveforms(utterances, loader=VoiceLoader(), max_hours=1))
    tokenizer = fit_tokenizer(sample, encoder="mfcc", clusters=16, seed=1)
    log = SkipLog()
    table = encode_corpus(utterances, tokenizer, loader=VoiceLoader(), skips=log)
    assert not log.skips
    assert table.row_words(0) == ["Mia", "ate", "soup.", "Then", "she", "slept."]
    assert np.array_equal(table.row_units(0), table.row_units(2))


def test_utterance_and_item_tables_survive_the_disk(tmp_path: Path) -> None:
    utterances = [
        Utterance(
            id=f"u{i}",
            text="caf\u00e9 one",
            speaker="s",
            split="train",
            words=(Word(text="caf\u00e9", start_s=0.1, end_s=1 / 3, score=0.5), Word(text="one")) if i else (),
            segments=("caf\u00e9", "one") if i % 2 else (),
            audio="a/b.wav" if i else "",
            licence="CC0",
        )
        for i in range(7)
    ]
    path = tmp_path / "utterances.parquet"
    assert write_utterances(path, iter(utterances), group_rows=3) == 7
    assert list(read_utterances(path)) == utterances
    assert write_utterances(path, []) == 0
    assert list(read_utterances(path)) == []
    items = [
        Item(id="i", set="facts", prompt="", good="a", bad="b", pair="p", tag="read", phenomenon="home", speaker="v")
    ]
    assert write_items(tmp_path / "items.parquet", items) == 1
    assert read_items(tmp_path / "items.parquet") == items


def test_wrong_or_half_written_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "utterances.parquet"
    with pytest.raises(DataError, match="no such file; run the step"):
        list(read_utterances(path))
    write_items(path, [])
    with pytest.raises(DataError, match="its kind is 'items-2', expected 'utterances-2'"):
        list(read_utterances(path))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list(read_utterances(path))

    def breaks() -> Iterator[Utterance]:
        yield Utterance(id="a", text="x", speaker="s", split="train")
        raise KeyboardInterrupt

    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_utterances(path, breaks(), group_rows=1)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
