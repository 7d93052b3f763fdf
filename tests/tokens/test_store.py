"""Catches a store that gives back other documents than were put in, or that is believed although damaged."""

from __future__ import annotations

import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.files import write_json
from speechscale.records import NO_TIME, UnitTable, UnitTableBuilder, concat_tables
from speechscale.tokens import store_writer
from speechscale.tokens.columns import FolderLock
from speechscale.tokens.cuts import word_cuts
from speechscale.tokens.interleave import InterleaveConfig, interleave_batch, make_source, utterance_keys
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.store import TokenStore, append_store, build_store, store_damage
from speechscale.tokens.store_index import column_types, read_meta, seal
from speechscale.tokens.subwords_training import train_subwords
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

MakeTable = Callable[..., UnitTable]
TEXTS = ["The cat sat.", "", "Tom likes jam. Ann ran home.", "   "]
STREAMS = ("speech", "text", "interleaved")


def named(table: UnitTable, prefix: str) -> UnitTable:
    return replace(table, ids=[f"{prefix}-{id}" for id in table.ids])


def one(
    units: list[int], durations: list[int], words: list[str], times: list[tuple[int, int]], id: str = "x"
) -> UnitTable:
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=20)
    frames = np.array(times, np.int32).reshape(-1, 2)
    builder.add(
        id=id,
        speaker="a",
        split="train",
        text="",
        units=np.array(units),
        durations_frames=np.array(durations),
        words=words,
        word_frames=frames,
    )
    return builder.build()


def unaligned() -> UnitTable:
    """One utterance whose transcript has no words."""
    return one([1, 2], [1, 2], [], [])


@pytest.fixture
def table(make_table: MakeTable) -> UnitTable:
    return concat_tables([make_table(12, untimed=0.2), unaligned(), named(make_table(5, seed=1), "b")])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_reads_back_what_was_written(tmp_path: Path, table: UnitTable, vocabulary: Vocabulary) -> None:
    store = build_store(tmp_path / "store", vocabulary, table=table, texts=TEXTS)
    assert [store.documents(stream) for stream in STREAMS] == [18, 2, 17]
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
    config = InterleaveConfig(speech_span="poisson(2)")
    mixed = store.read("interleaved", np.array([16, 2]), epoch=4, interleave=config, seed=9)
    direct = interleave_batch(make_source(table, vocabulary), np.array([17, 2]), 4, config, 9)
    assert np.array_equal(mixed.flat, direct.flat)
    assert np.array_equal(mixed.offsets, direct.offsets)
    assert store.arrays["units"].dtype == store.arrays["text_tokens"].dtype == np.uint16
    assert isinstance(store.arrays["units"], np.memmap)


def test_one_store_serves_textless_and_text_only(tmp_path: Path, table: UnitTable, vocabulary: Vocabulary) -> None:
    build_store(tmp_path / "store", vocabulary, table=table, texts=TEXTS)
    textless = TokenStore.open(tmp_path / "store", Vocabulary.textless(20))
    assert [textless.documents(stream) for stream in STREAMS] == [18, 0, 0]
    assert np.array_equal(textless.read("speech", np.array([4])).flat, table.row_units(4).astype(np.int32) + 1)
    text = TokenStore.open(tmp_path / "store", vocabulary.text_subset())
    assert [text.documents(stream) for stream in STREAMS] == [0, 2, 0]
    with pytest.raises(DataError, match="interleaving needs a joint vocabulary"):
        _ = text.source
    with pytest.raises(DataError, match="stream 'music'"):
        text.documents("music")


def test_single_stream_stores(tmp_path: Path, table: UnitTable, vocabulary: Vocabulary) -> None:
    speech = build_store(tmp_path / "speech", Vocabulary.textless(20), table=table)
    assert [speech.documents(stream) for stream in STREAMS] == [18, 0, 0]
    text = build_store(tmp_path / "text", vocabulary.text_subset(), texts=TEXTS)
    assert (text.documents("text"), text.speech_hours) == (2, 0.0)
    no_texts = build_store(tmp_path / "no_texts", vocabulary, table=table)
    assert [no_texts.documents(stream) for stream in STREAMS] == [18, 0, 17]
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

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        build_store(tmp_path / "store", vocabulary, texts=TEXTS)
    with pytest.raises(OSError, match="No space left"):
        append_store(tmp_path / "store", vocabulary, texts=TEXTS)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert TokenStore.open(tmp_path / "store", vocabulary, verify=True).documents("speech") == 18


def test_damage_is_found_and_named(tmp_path: Path, table: UnitTable, vocabulary: Vocabulary) -> None:
    folder = tmp_path / "store"
    build_store(folder, vocabulary, table=table, texts=TEXTS)
    path = folder / "units.bin"
    good = path.read_bytes()
    path.write_bytes(good[:-3] + bytes([good[-3] ^ 1]) + good[-2:])
    with pytest.raises(DataError, match=r"units\.bin: chunk 0 .*its SHA-256 differs"):
        TokenStore.open(folder, vocabulary)
    assert TokenStore.open(folder, vocabulary, verify=False).documents("speech") == 18
    assert len(list(store_damage(folder))) == 1
    path.write_bytes(good[:-2])
    with pytest.raises(DataError, match=r"units\.bin: .* bytes, meta\.json says .*truncated"):
        TokenStore.open(folder, vocabulary)
    path.unlink()
    with pytest.raises(DataError, match=r"units\.bin: missing"):
        TokenStore.open(folder, vocabulary)
    path.write_bytes(good)
    TokenStore.open(folder, vocabulary, verify=True)
    assert list(store_damage(folder)) == []
    meta = folder / "meta.json"
    text = meta.read_text()
    meta.write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match=r"meta\.json: not the index"):
        TokenStore.open(folder, vocabulary)
    for other in ("speechscale.tokens.1", "other"):
        meta.write_text(json.dumps({**json.loads(text), "format": other}))
        with pytest.raises(DataError, match=f"format '{other}', .*build the store anew"):
            TokenStore.open(folder, vocabulary)
    meta.write_text(text.replace('"speech_documents": ', '"speech_documents": 1'))
    with pytest.raises(DataError, match=r"meta\.json: does not match its own checksum"):
        TokenStore.open(folder, vocabulary)
    meta.unlink()
    with pytest.raises(DataError, match="no complete token store"):
        TokenStore.open(folder, vocabulary)


def test_other_vocabulary_is_refused(tmp_path: Path, table: UnitTable, vocabulary: Vocabulary) -> None:
    build_store(tmp_path / "store", vocabulary, table=table, texts=TEXTS)
    other = Vocabulary.joint(build_text_tokenizer(["some other words"], "words", 100), 20)
    with pytest.raises(DataError, match="made with the text block") as caught:
        TokenStore.open(tmp_path / "store", other)
    assert vocabulary.text_fingerprint[:12] in str(caught.value)
    assert other.text_fingerprint[:12] in str(caught.value)
    with pytest.raises(DataError, match="made with 20 units, the vocabulary has 21"):
        TokenStore.open(tmp_path / "store", Vocabulary.textless(21))


SIZES = st.lists(st.integers(0, 4), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), sizes=SIZES, untimed=st.sampled_from([0.0, 0.3, 1.0]), zero=st.sampled_from([0.0, 0.5]))
def test_columns_are_the_tables_however_they_are_handed_over(
    make_table: MakeTable, vocabulary: Vocabulary, seed: int, sizes: list[int], untimed: float, zero: float
) -> None:
    """One table, several, or added in two goes: same bytes, and each row is what the table says."""
    parts = [
        named(make_table(size, seed=seed + k, most_words=9, untimed=untimed, zero_length=zero), f"{k}")
        for k, size in enumerate(sizes)
    ]
    parts.append(named(unaligned(), "end"))
    texts = [" ".join(table.texts) for table in parts]
    whole = concat_tables(parts)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = build_store(folder / "whole", vocabulary, table=whole, texts=texts)
        build_store(folder / "parts", vocabulary, tables=parts, texts=iter(texts))
        cut = len(parts) // 2
        build_store(folder / "grown", vocabulary, tables=parts[:cut], texts=[*texts[:cut], "the cat"])
        rest = {"tables": parts[cut:], "texts": texts[cut:]}
        append_store(folder / "grown", vocabulary, **rest)
        build_store(folder / "long", vocabulary, table=whole, texts=[*texts[:cut], "the cat", *texts[cut:]])
        assert files(folder / "whole") == files(folder / "parts")
        assert files(folder / "grown") == files(folder / "long")
        arrays, cuts = store.arrays, word_cuts(whole)
        for column, wanted in {
            "units": whole.units,
            "unit_offsets": whole.unit_offsets,
            "durations": whole.durations_frames,
            "frames": whole.frames,
            "keys": utterance_keys(whole.ids),
            "word_offsets": whole.word_offsets,
            "word_first": cuts.first,
            "word_last": cuts.last,
            "word_code": cuts.code,
        }.items():
            assert np.array_equal(arrays[column], wanted), column
        tokens = vocabulary.encode_words(whole.words)
        assert np.array_equal(arrays["word_tokens"], tokens.flat)
        assert np.array_equal(arrays["word_token_counts"], tokens.lengths)
        assert np.array_equal(arrays["word_token_rows"], tokens.offsets[whole.word_offsets])
        timed = [(whole.row_word_frames(row)[:, 0] != NO_TIME).any() for row in range(len(whole))]
        assert arrays["interleaved_rows"].tolist() == np.flatnonzero(timed).tolist()
        assert arrays["worded_rows"].tolist() == np.flatnonzero(np.diff(whole.word_offsets)).tolist()
        assert [store.utterance_id(row) for row in range(len(whole))] == whole.ids
        assert [store.find(id) for id in whole.ids] == list(range(len(whole)))
        assert {name: array.dtype for name, array in arrays.items()} == column_types(vocabulary)
        for stream in STREAMS:
            every = np.arange(store.documents(stream))
            prepared = store.prepare(stream, every[::-1], seed=3)
            assert np.array_equal(prepared.lengths, prepared.ids().lengths)


def test_the_utterance_level_needs_no_times(tmp_path: Path, vocabulary: Vocabulary) -> None:
    spoken = one([3, 4], [2, 2], ["the", "cat"], [(0, 2), (2, 4)], "timed")
    untimed = one([5], [4], ["jam"], [(NO_TIME, NO_TIME)], "untimed")
    store = build_store(tmp_path / "store", vocabulary, tables=[unaligned(), untimed, spoken])
    whole = InterleaveConfig(level="utterance")
    assert (store.documents("interleaved"), store.documents("interleaved", whole)) == (1, 2)
    assert store.speech_rows("interleaved", np.array([0])).tolist() == [2]
    assert store.speech_rows("interleaved", np.array([0, 1]), whole).tolist() == [1, 2]
    assert store.speech_rows("speech", np.array([1])).tolist() == [1]
    counts = store.counts
    assert (counts["words"], counts["words_without_time"], counts["worded_documents"]) == (3, 1, 2)
    assert (counts["utterances_without_words"], counts["utterances_without_timed_words"]) == (1, 2)
    assert len(store.read("interleaved", np.arange(2), interleave=whole).offsets) == 3


def test_subwords_spell_the_units_of_the_same_store(tmp_path: Path, table: UnitTable, vocabulary: Vocabulary) -> None:
    build_store(tmp_path / "store", vocabulary, table=table)
    rows = [table.row_units(row) for row in range(len(table))]
    subwords = train_subwords(rows, "bpe", 60, 20)
    for merged in (Vocabulary.textless(20, subwords=subwords), vocabulary.text_subset().with_units(20, subwords)):
        store = TokenStore.open(tmp_path / "store", merged)
        prepared = store.prepare("speech", np.array([4, 0]))
        ids = prepared.ids()
        assert np.array_equal(prepared.lengths, ids.lengths)
        assert prepared.lengths[0] < len(rows[4])
        taken = Ragged(np.concatenate([rows[4], rows[0]]), np.cumsum([0, len(rows[4]), len(rows[0])]))
        assert np.array_equal(ids.flat, merged.speech_ids(taken).flat)
        assert [merged.units_of(row).tolist() for row in ids.rows()] == [rows[4].tolist(), rows[0].tolist()]


def test_ids_are_found_by_name_and_not_by_hash(
    tmp_path: Path, table: UnitTable, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a hash that is the same for all, everything still is itself."""

    def same(ids: Any) -> np.ndarray:
        return np.zeros(len(list(ids)), np.uint64)

    monkeypatch.setattr(store_writer, "utterance_keys", same)
    monkeypatch.setattr("speechscale.tokens.store.utterance_keys", same)
    monkeypatch.setattr("speechscale.tokens.store.SEARCH_ROWS", 4)
    store = build_store(tmp_path / "store", vocabulary, table=table)
    assert [store.find(id) for id in table.ids] == list(range(len(table)))
    with pytest.raises(DataError, match=r"no utterance 'nobody'.*the first is 'utterance-0'"):
        store.find("nobody")
    with pytest.raises(DataError, match="utterance 'x' comes twice"):
        append_store(tmp_path / "store", vocabulary, tables=[unaligned()])


def test_an_id_twice_is_refused_and_changes_nothing(tmp_path: Path, table: UnitTable, vocabulary: Vocabulary) -> None:
    build_store(tmp_path / "store", vocabulary, table=table, texts=TEXTS)
    before = files(tmp_path / "store")
    with pytest.raises(DataError, match=r"utterance 'x' comes twice \(rows 12, 18\); give every utterance its own id"):
        append_store(tmp_path / "store", vocabulary, tables=[unaligned()], texts=TEXTS)
    with pytest.raises(DataError, match="utterance 'x' comes twice"):
        build_store(tmp_path / "store", vocabulary, tables=[table, unaligned()])
    store = TokenStore.open(tmp_path / "store", vocabulary, verify=True)
    assert store.meta == json.loads(before["meta.json"])
    assert [store.documents(stream) for stream in STREAMS] == [18, 2, 17]
    append_store(tmp_path / "store", vocabulary, tables=[named(unaligned(), "new")])
    build_store(tmp_path / "whole", vocabulary, tables=[table, named(unaligned(), "new")], texts=TEXTS)
    assert files(tmp_path / "store") == files(tmp_path / "whole")  # the tail of the failed one is gone


def test_readers_keep_what_they_opened_and_writers_are_alone(
    tmp_path: Path, table: UnitTable, vocabulary: Vocabulary
) -> None:
    folder = tmp_path / "store"
    old = build_store(folder, vocabulary, table=table, texts=TEXTS)
    wanted = old.read("speech", np.arange(18))
    lock = FolderLock(folder)
    with pytest.raises(DataError, match="being written by another run"):
        append_store(folder, vocabulary, texts=TEXTS)
    lock.close()
    new = append_store(folder, vocabulary, tables=[named(table, "more")])
    assert (old.documents("speech"), new.documents("speech")) == (18, 36)
    for store in (old, new):
        assert np.array_equal(store.read("speech", np.arange(18)).flat, wanted.flat)
    assert old.fingerprint != new.fingerprint
    assert new.utterance_id(20) == "more-utterance-2"
    with pytest.raises(DataError, match="no complete token store"):
        append_store(tmp_path / "nothing", vocabulary, texts=TEXTS)
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(DataError, match="made with 20 units"):
        append_store(folder, Vocabulary.textless(30), tables=[])
    with pytest.raises(DataError, match="has the columns"):
        append_store(folder, Vocabulary.textless(20), tables=[named(table, "other")])
    with pytest.raises(DataError, match="holds units at 25 Hz, 50 Hz are to be added"):
        append_store(folder, vocabulary, tables=[replace(named(table, "fast"), frame_rate_hz=50.0)])


def test_only_stores_are_replaced(tmp_path: Path, vocabulary: Vocabulary) -> None:
    precious = tmp_path / "home" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    with pytest.raises(DataError, match="is there and no token store"):
        build_store(tmp_path / "home", vocabulary, texts=TEXTS)
    assert precious.read_text() == "years of work"


def broken() -> dict[str, UnitTable]:
    """Tables as no builder makes them, each with one thing wrong."""
    good = one([1, 2, 1], [2, 2, 2], ["the", "cat"], [(0, 2), (2, 4)])
    return {
        "unit ids run 1..20, allowed 0..19": replace(good, units=np.array([1, 20, 1])),
        "unit ids run -1..2": replace(good, units=np.array([1, 2, -1])),
        "durations of at least one frame": replace(good, durations_frames=np.array([2, 0, 4])),
        "a unit lasts 70000 frames, at most 65535": replace(good, durations_frames=np.array([2, 70_000, 2])),
        "word 1 ('cat') spans frames 2..7, the audio has 6": replace(good, word_end_frames=np.array([2, 7])),
        "word 1 ('cat') spans frames 5..4": replace(good, word_start_frames=np.array([0, 5])),
        "word 1 ('cat') starts before": replace(good, word_end_frames=np.array([3, 4])),
        "it has no units": replace(
            good, units=good.units[:0], durations_frames=good.durations_frames[:0], unit_offsets=np.array([0, 0])
        ),
        "a word has more than 65535 tokens": replace(good, words=["the", "cat " * 65_536]),
    }


@pytest.mark.parametrize("why", broken())
def test_unusable_utterances_stop_or_are_left_out_and_written_down(
    tmp_path: Path, make_table: MakeTable, vocabulary: Vocabulary, why: str
) -> None:
    before, after = make_table(3), named(make_table(2, seed=7), "z")
    bad = named(broken()[why], "bad")
    builder = [before, bad, after]
    joined = concat_tables(builder)
    with pytest.raises(DataError, match="utterance bad-x: ") as caught:
        build_store(tmp_path / "store", vocabulary, table=joined)
    assert why in str(caught.value)
    store = build_store(tmp_path / "store", vocabulary, table=joined, on_error="skip")
    wanted = build_store(tmp_path / "wanted", vocabulary, tables=[before, after])
    for name, array in wanted.arrays.items():
        assert np.array_equal(array, store.arrays[name]) or name == "skips"
    assert store.counts == wanted.counts
    skip = json.loads(store.arrays["skips"].tobytes())
    assert skip["id"] == "bad-x"
    assert why in skip["reason"]
    assert skip["remedy"]


def test_a_store_of_ten_billion_tokens_opens_at_once(tmp_path: Path, table: UnitTable, vocabulary: Vocabulary) -> None:
    """Sparse files with the real first rows: neither time nor memory may grow with the documents."""
    folder = tmp_path / "store"
    small = build_store(folder, vocabulary, table=table, texts=TEXTS)
    wanted = [small.read(stream, np.array([1])).flat for stream in STREAMS]
    meta = read_meta(folder)
    for name, saved in meta["columns"].items():
        itemsize = np.dtype(saved["dtype"]).itemsize
        saved["length"] = 10**10 if name in ("units", "durations") else 4 * 10**7
        chunks = -(-saved["length"] * itemsize // saved["chunk_bytes"])
        saved["chunks"] = ["0" * 64] * chunks
        os.truncate(folder / f"{name}.bin", saved["length"] * itemsize)
    meta["counts"] |= {"units": 10**10, "speech_documents": 4 * 10**7 - 1}
    meta["index_sha256"] = seal(meta)
    write_json(folder / "meta.json", meta)
    tracemalloc.start()
    began = time.perf_counter()
    store = TokenStore.open(folder, vocabulary)
    found = [store.read(stream, np.array([1])).flat for stream in STREAMS]
    store.hours(np.array([5, 39_999_990]))
    store.find(table.ids[3])
    took, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < 1.0
    assert peak < 16 << 20
    assert store.documents("speech") == 4 * 10**7 - 1
    for got, known in zip(found, wanted, strict=True):
        assert np.array_equal(got, known)


def test_a_kill_between_the_two_renames_loses_nothing(
    tmp_path: Path, make_table: MakeTable, vocabulary: Vocabulary
) -> None:
    build_store(tmp_path / "s", vocabulary, table=make_table(5))
    (tmp_path / "s").rename(tmp_path / ".s.old")
    assert TokenStore.open(tmp_path / "s", vocabulary).documents("speech") == 5
    (tmp_path / "s").rename(tmp_path / ".s.old")
    with pytest.raises(DataError, match="nothing to store"):
        build_store(tmp_path / "s", vocabulary)
    assert TokenStore.open(tmp_path / "s", vocabulary).documents("speech") == 5


def test_unknown_words_are_counted_however_they_come(
    tmp_path: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = one([1, 2, 3], [2, 2, 2], ["the", "zebra", "--"], [(0, 2), (2, 4), (4, 6)], "a")
    texts = ["the zebra sat", "a cat", ""]
    whole = build_store(tmp_path / "whole", vocabulary, table=spoken, texts=texts)
    counts = {"unknown_word_tokens": 3, "unknown_text_tokens": 2}  # two of "--"
    assert {name: whole.counts[name] for name in counts} == counts
    assert (whole.read("text", np.arange(2)).flat == vocabulary.unk_id).sum() == 2
    build_store(tmp_path / "grown", vocabulary, table=spoken, texts=texts[:1])
    meta = read_meta(tmp_path / "grown")
    meta["counts"] = {name: count for name, count in meta["counts"].items() if name not in counts}
    meta["index_sha256"] = seal(meta)
    write_json(tmp_path / "grown" / "meta.json", meta)  # as it was before they were counted
    monkeypatch.setattr(store_writer, "COUNTED", 2)
    grown = append_store(tmp_path / "grown", vocabulary, texts=texts[1:])
    assert grown.counts == whole.counts
    bpe = Vocabulary.text_only(build_text_tokenizer(["the cat"], "bpe", 300))
    assert build_store(tmp_path / "bpe", bpe, texts=texts).counts["unknown_text_tokens"] == 0
