"""Catches input that is silently changed: each kind of bad input must be named, counted, or come out as said here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from speechscale.errors import DataError
from speechscale.records import NO_TIME, UnitTable, UnitTableBuilder, concat_tables
from speechscale.tokens.interleave import InterleaveConfig, interleave_batch, make_source, plan_interleave
from speechscale.tokens.mixture import MixtureSampler
from speechscale.tokens.statistics import interleave_stats
from speechscale.tokens.store import TokenStore, build_store
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

MakeTable = Callable[..., UnitTable]
ALL_SPEECH = InterleaveConfig(speech_share=1.0, speech_span="fixed(1)")


def one(words: list[str], frames: list[tuple[int, int]], units: list[int], durations: list[int]) -> UnitTable:
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=20)
    builder.add(
        id="it",
        speaker="a",
        split="train",
        text=" ".join(words),
        units=np.array(units),
        durations_frames=np.array(durations),
        words=words,
        word_frames=np.array(frames).reshape(-1, 2),
    )
    return builder.build()


def spelled(table: UnitTable, vocabulary: Vocabulary, config: InterleaveConfig = ALL_SPEECH) -> str:
    ids = interleave_batch(make_source(table, vocabulary), np.array([0]), 0, config, 0)
    return vocabulary.decode(ids.flat)


def test_words_without_times_stay_text_and_are_counted(tmp_path: Path, vocabulary: Vocabulary) -> None:
    table = one(["the", "cat", "sat"], [(0, 2), (NO_TIME, NO_TIME), (4, 6)], [1, 2, 3], [2, 2, 2])
    assert spelled(table, vocabulary) == "<speech> <Un1> <text> cat <speech> <Un3>"
    store = build_store(tmp_path / "s", vocabulary, table=table)
    assert (store.counts["words"], store.counts["words_without_time"]) == (3, 1)


def test_zero_length_words_are_kept(vocabulary: Vocabulary) -> None:
    table = one(["the", "cat", "sat"], [(0, 2), (2, 2), (4, 6)], [1, 2, 3], [2, 2, 2])
    config = replace(ALL_SPEECH, speech_span="bernoulli", share="expectation", speech_share=0.5)
    seen = {spelled(table, vocabulary, config)}
    source = make_source(table, vocabulary)
    for epoch in range(60):
        seen.add(vocabulary.decode(interleave_batch(source, np.array([0]), epoch, config, 0).flat))
    assert "<text> the <speech> <Un2> <text> sat" in seen, "the word of zero frames has the unit at its time"
    starts = replace(config, boundary="start")
    plan = plan_interleave(source, np.arange(1), 0, replace(starts, speech_share=1.0), 0)
    assert plan.lengths[0] > 0


def test_units_shorter_than_the_words_say_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"utterance it: word 1 \('cat'\) spans frames 4..9, the audio has 6"):
        one(["the", "cat"], [(0, 2), (4, 9)], [1, 2, 3], [2, 2, 2])


def test_empty_texts_and_utterances_without_words_are_counted(tmp_path: Path, vocabulary: Vocabulary) -> None:
    silent = one([], [], [1, 2], [3, 3])
    spoken = replace(one(["the"], [(0, 2)], [1, 2], [3, 3]), ids=["other"])
    store = build_store(tmp_path / "s", vocabulary, table=concat_tables([silent, spoken]), texts=["", "  ", "the cat"])
    assert (store.counts["empty_texts"], store.counts["text_documents"]) == (2, 1)
    assert (store.documents("speech"), store.documents("interleaved")) == (2, 1)
    assert store.counts["utterances_without_words"] == 1


def test_a_single_word_and_ten_thousand(tmp_path: Path, vocabulary: Vocabulary) -> None:
    assert spelled(one(["cat"], [(1, 2)], [7], [3]), vocabulary) == "<speech> <Un7>"
    words = ["the", "cat"] * 5000
    frames = [(3 * k, 3 * k + 2) for k in range(10_000)]
    units = [k % 20 for k in range(30_000)]
    long = one(words, frames, units, [1] * 30_000)
    source = make_source(long, vocabulary)
    stats = interleave_stats(source, np.array([0]), 0, InterleaveConfig(), 0)
    assert stats.speech_word_share == pytest.approx(0.3, abs=0.002)
    store = build_store(tmp_path / "s", vocabulary, table=long)
    sampler = MixtureSampler.of_store(store, {"interleaved": 1}, 512, 0, max_epochs=1)
    with pytest.raises(DataError, match="was read 1 times"):
        list(sampler.batches(1))
    counts = sampler.stats().sources["interleaved"]
    assert (counts.documents, counts.split_documents) == (1, 1)
    assert counts.tokens_seen - (counts.rows - 1) == len(store.read("interleaved", np.array([0])).flat) + 2


def test_units_beyond_the_vocabulary(tmp_path: Path, vocabulary: Vocabulary, make_table: MakeTable) -> None:
    table = make_table(3)
    with pytest.raises(DataError, match="unit table has 20 units, the vocabulary 30"):
        build_store(tmp_path / "a", Vocabulary.textless(30), table=table)
    wrong = replace(table, units=np.where(np.arange(len(table.units)) == 4, 20, table.units).astype(np.int16))
    with pytest.raises(DataError, match=r"utterance utterance-0: unit ids run .*allowed 0\.\.19"):
        build_store(tmp_path / "b", vocabulary, table=wrong)
    kept = build_store(tmp_path / "c", vocabulary, table=wrong, on_error="skip")
    assert kept.documents("speech") == 2
    with pytest.raises(DataError, match="units run"):
        vocabulary.unit_ids(np.array([20]))


def test_a_tokenizer_that_changed_is_refused(tmp_path: Path, vocabulary: Vocabulary, make_table: MakeTable) -> None:
    build_store(tmp_path / "s", vocabulary, table=make_table(3))
    changed = Vocabulary.joint(build_text_tokenizer(["some other words"], "words", 100), 20)
    with pytest.raises(DataError, match="text block"):
        TokenStore.open(tmp_path / "s", changed)
    with pytest.raises(DataError, match="20 units, the vocabulary has 21"):
        TokenStore.open(tmp_path / "s", Vocabulary.textless(21))


@pytest.mark.parametrize("column", ["units", "word_tokens", "unit_offsets", "keys"])
def test_truncated_and_flipped_columns(
    tmp_path: Path, vocabulary: Vocabulary, make_table: MakeTable, column: str
) -> None:
    build_store(tmp_path / "s", vocabulary, table=make_table(20))
    path = tmp_path / "s" / f"{column}.bin"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(DataError, match=rf"{column}\.bin: .*truncated"):
        TokenStore.open(tmp_path / "s", vocabulary, verify=False)
    middle = len(good) // 2
    path.write_bytes(good[:middle] + bytes([good[middle] ^ 16]) + good[middle + 1 :])
    with pytest.raises(DataError, match=rf"{column}\.bin: chunk 0 .*SHA-256 differs"):
        TokenStore.open(tmp_path / "s", vocabulary)
    path.write_bytes(good + b"behind the index")
    assert TokenStore.open(tmp_path / "s", vocabulary).documents("speech") == 20, "bytes behind the index do not count"
