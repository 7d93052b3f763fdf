"""Catches a store that gives back other documents than were put in, or that is believed although damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from speechscale.errors import DataError
from speechscale.records import UnitTable, UnitTableBuilder, concat_tables
from speechscale.tokens.interleave import InterleaveConfig, interleave_batch, make_source
from speechscale.tokens.store import TokenStore, build_store
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

MakeTable = Callable[..., UnitTable]
TEXTS = ["The cat sat.", "", "Tom likes jam. Ann ran home.", "   "]


def unaligned() -> UnitTable:
    """One utterance whose transcript has no words."""
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=20)
    units = np.array([1, 2])
    builder.add(
        id="x",
        speaker="a",
        split="train",
        text="",
        units=units,
        durations_frames=units,
        words=[],
        word_frames=np.zeros((0, 2)),
    )
    return builder.build()


@pytest.fixture
def table(make_table: MakeTable) -> UnitTable:
    return concat_tables([make_table(12, untimed=0.2), unaligned(), make_table(5, seed=1)])


def test_reads_back_what_was_written(tmp_path: Path, table: UnitTable, vocabulary: Vocabulary) -> None:
    store = build_store(tmp_path / "store", vocabulary, table=table, texts=TEXTS)
    assert [store.documents(stream) for stream in ("speech", "text", "interleaved")] == [18, 2, 17]
    counts = store.counts
    assert (counts["utterances_without_timed_words"], counts["empty_texts"]) == (1, 2)
    assert (counts["units"], counts["words"]) == (len(table.units), len(table.words))
    assert store.speech_hours == pytest.approx(table.hours)
    speech = store.read("speech", np.array([3, 12, 0])).rows()
    for row, ids in zip((3, 12, 0), speech, strict=True):
        assert np.array_equal(ids, vocabulary.unit_ids(table.row_units(row)))
    assert [vocabulary.decode(row) for row in store.read("text", np.arange(2)).rows()] == [
        "the cat sat .",
        "tom likes jam . ann ran home .",
    ]
    config = InterleaveConfig(mean_span_words=2.0)
    mixed = store.read("interleaved", np.array([16, 2]), epoch=4, interleave=config, seed=9)
    direct = interleave_batch(make_source(table, vocabulary), np.array([17, 2]), 4, config, 9)
    assert np.array_equal(mixed.flat, direct.flat)
    assert np.array_equal(mixed.offsets, direct.offsets)
    assert store.arrays["units"].dtype == store.arrays["text_tokens"].dtype == np.uint16
    assert isinstance(store.arrays["units"], np.memmap)


def test_one_store_serves_textless_and_text_only(tmp_path: Path, table: UnitTable, vocabulary: Vocabulary) -> None:
    build_store(tmp_path / "store", vocabulary, table=table, texts=TEXTS)
    textless = TokenStore.open(tmp_path / "store", Vocabulary.textless(20))
    assert [textless.documents(stream) for stream in ("speech", "text", "interleaved")] == [18, 0, 0]
    assert np.array_equal(textless.read("speech", np.array([4])).flat, table.row_units(4).astype(np.int32) + 1)
    text = TokenStore.open(tmp_path / "store", vocabulary.text_subset())
    assert [text.documents(stream) for stream in ("speech", "text", "interleaved")] == [0, 2, 0]
    with pytest.raises(DataError, match="interleaving needs a joint vocabulary"):
        _ = text.source
    with pytest.raises(DataError, match="stream 'music'"):
        text.documents("music")


def test_single_stream_stores(tmp_path: Path, table: UnitTable, vocabulary: Vocabulary) -> None:
    speech = build_store(tmp_path / "speech", Vocabulary.textless(20), table=table)
    assert [speech.documents(stream) for stream in ("speech", "text", "interleaved")] == [18, 0, 0]
    text = build_store(tmp_path / "text", vocabulary.text_subset(), texts=TEXTS)
    assert (text.documents("text"), text.speech_hours) == (2, 0.0)
    no_texts = build_store(tmp_path / "no_texts", vocabulary, table=table)
    assert [no_texts.documents(stream) for stream in ("speech", "text", "interleaved")] == [18, 0, 17]
    with pytest.raises(DataError, match="nothing to store"):
        build_store(tmp_path / "nothing", vocabulary)
    with pytest.raises(DataError, match="unit table has 20 units, the vocabulary 30"):
        build_store(tmp_path / "wrong", Vocabulary.textless(30), table=table)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["no_texts", "speech", "text"]


def test_same_input_same_bytes_and_rebuilding_replaces(
    tmp_path: Path, table: UnitTable, vocabulary: Vocabulary
) -> None:
    for name in ("a", "b", "a"):
        build_store(tmp_path / name, vocabulary, table=table, texts=TEXTS)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_failed_build_keeps_the_old_store(
    tmp_path: Path, table: UnitTable, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_store(tmp_path / "store", vocabulary, table=table)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        build_store(tmp_path / "store", vocabulary, texts=TEXTS)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert TokenStore.open(tmp_path / "store", vocabulary, verify=True).documents("speech") == 18


def test_damage_is_found_and_named(tmp_path: Path, table: UnitTable, vocabulary: Vocabulary) -> None:
    folder = tmp_path / "store"
    build_store(folder, vocabulary, table=table, texts=TEXTS)
    path = folder / "units.npy"
    good = path.read_bytes()
    path.write_bytes(good[:-3] + bytes([good[-3] ^ 1]) + good[-2:])
    with pytest.raises(DataError, match=r"units\.npy: its SHA-256 differs"):
        TokenStore.open(folder, vocabulary, verify=True)
    path.write_bytes(good[:-2])
    with pytest.raises(DataError, match=r"units\.npy: .* bytes, meta\.json says .*truncated"):
        TokenStore.open(folder, vocabulary)
    path.unlink()
    with pytest.raises(DataError, match=r"units\.npy: missing"):
        TokenStore.open(folder, vocabulary)
    path.write_bytes(good)
    TokenStore.open(folder, vocabulary, verify=True)
    meta = folder / "meta.json"
    text = meta.read_text()
    meta.write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match=r"meta\.json: not the index"):
        TokenStore.open(folder, vocabulary)
    meta.write_text(json.dumps({**json.loads(text), "format": "other"}))
    with pytest.raises(DataError, match="format 'other'"):
        TokenStore.open(folder, vocabulary)
    meta.unlink()
    with pytest.raises(DataError, match="no complete token store"):
        TokenStore.open(folder, vocabulary)


def test_other_vocabulary_is_refused(tmp_path: Path, table: UnitTable, vocabulary: Vocabulary) -> None:
    build_store(tmp_path / "store", vocabulary, table=table, texts=TEXTS)
    other = Vocabulary.joint(build_text_tokenizer(["some other words"], "words", 100), 20)
    with pytest.raises(DataError, match="made with the text block"):
        TokenStore.open(tmp_path / "store", other)
    with pytest.raises(DataError, match="made with 20 units, the vocabulary has 21"):
        TokenStore.open(tmp_path / "store", Vocabulary.textless(21))
