"""Catches sums that miss a row or a batch, shares in the wrong length bin, and losses that nobody counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from speechscale.records import NO_TIME, UnitTable, UnitTableBuilder
from speechscale.tokens import statistics
from speechscale.tokens.interleave import InterleaveConfig, interleave_batch, make_source, plan_interleave
from speechscale.tokens.statistics import InterleaveStats, interleave_stats
from speechscale.tokens.vocabulary import Vocabulary

MakeTable = Callable[..., UnitTable]


def equal_words(vocabulary: Vocabulary, lengths: list[int]) -> Any:
    """Utterances of words of two frames, each a unit of its own, without pauses."""
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=20)
    for row, words in enumerate(lengths):
        builder.add(
            id=str(row),
            speaker="a",
            split="train",
            text="",
            units=np.arange(max(words, 1)) % 20,
            durations_frames=np.full(max(words, 1), 2),
            words=["cat"] * words,
            word_frames=2 * np.arange(words)[:, None] + np.array([0, 2]),
        )
    return make_source(builder.build(), vocabulary)


def test_by_hand(vocabulary: Vocabulary) -> None:
    """Frames are 3 3 4 4 4 5 6 6 7 7; `cat` has no time; unit 4 sounds in both spans."""
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=20)
    builder.add(
        id="by hand",
        speaker="a",
        split="train",
        text="the cat sat home",
        units=np.array([3, 4, 5, 6, 7]),
        durations_frames=np.array([2, 3, 1, 2, 2]),
        words=["the", "cat", "sat", "home"],
        word_frames=np.array([[1, 3], [NO_TIME, NO_TIME], [4, 6], [7, 8]]),
    )
    source = make_source(builder.build(), vocabulary)
    stats = interleave_stats(source, np.array([0, 0]), 0, InterleaveConfig(speech_share=1.0), 0)
    assert (stats.utterances, stats.words, stats.untimed_words, stats.short_utterances) == (2, 8, 2, 2)
    assert (stats.spoken_words, stats.written_words, stats.speech_runs, stats.text_runs) == (6, 2, 4, 2)
    assert (stats.speech_word_share, stats.mean_speech_runs) == (0.75, 2.0)
    assert (stats.mean_speech_run_words, stats.mean_text_run_words) == (1.5, 1.0)
    assert (stats.speech_tokens, stats.text_tokens, stats.marker_tokens, stats.doubled_units) == (10, 2, 6, 2)
    assert (stats.demoted_words, stats.lost_words) == (0, 0)
    assert stats.bin_words == (8, 0, 0, 0, 0, 0, 0)
    kept = interleave_stats(source, np.array([0]), 0, InterleaveConfig(speech_share=1.0, boundary="majority"), 0)
    assert (kept.doubled_units, kept.speech_tokens, kept.demoted_words) == (0, 2, 1)
    bare = interleave_stats(source, np.array([0]), 0, InterleaveConfig(speech_share=1.0, markers=False), 0)
    assert bare.marker_tokens == 0


def test_published_shares_by_length(vocabulary: Vocabulary) -> None:
    """The floor of .3 gives .73 of 5 words, .63 of 10, .50 of 20, .41 of 40, .36 of 80, .33 of 160, .32 of 300."""
    source = equal_words(
        vocabulary, [5] * 2000 + [10] * 2000 + [20] * 1000 + [40] * 300 + [80] * 300 + [160] * 100 + [300] * 60
    )
    stats = interleave_stats(source, np.arange(5760), 0, InterleaveConfig(), 0)
    wanted = {"1-5": 0.73, "6-10": 0.63, "11-20": 0.5, "21-40": 0.41, "41-80": 0.36, "81-160": 0.33, "161+": 0.32}
    assert stats.speech_share_by_length() == pytest.approx(wanted, abs=0.02)
    assert stats.bin_utterances == (2000, 2000, 1000, 300, 300, 100, 60)
    assert stats.short_utterances == 0
    exact = interleave_stats(source, np.arange(5760), 0, InterleaveConfig(share="expectation"), 0)
    assert exact.speech_share_by_length() == pytest.approx(dict.fromkeys(wanted, 0.3), abs=0.06)


def test_edges_of_the_bins(vocabulary: Vocabulary) -> None:
    lengths = [0, 1, 5, 6, 10, 11, 20, 21, 40, 41, 80, 81, 160, 161, 400]
    stats = interleave_stats(equal_words(vocabulary, lengths), np.arange(15), 0, InterleaveConfig(), 0)
    assert stats.bin_utterances == (2,) * 7
    assert (stats.utterances, stats.words) == (14, sum(lengths))


@pytest.mark.parametrize("level", ["word", "sentence", "utterance"])
def test_parts_add_up(
    make_table: MakeTable, vocabulary: Vocabulary, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(60, untimed=0.2, zero_length=0.2)
    source = make_source(table, vocabulary)
    config = InterleaveConfig(level=level, boundary="majority")  # type: ignore[arg-type]
    rows = np.arange(60)
    whole = interleave_stats(source, rows, 0, config, 0)
    assert whole == interleave_stats(source, rows[:17], 0, config, 0) + interleave_stats(
        source, rows[17:], 0, config, 0
    )
    monkeypatch.setattr(statistics, "ROWS_PER_BATCH", 7)
    assert whole == interleave_stats(source, rows, 0, config, 0)
    tokens = interleave_batch(source, rows, 0, config, 0)
    assert whole.speech_tokens + whole.text_tokens + whole.marker_tokens == len(tokens.flat)
    modality = vocabulary.modality_table()[tokens.flat]
    assert (whole.text_tokens, whole.speech_tokens) == ((modality == 0).sum(), (modality == 1).sum())
    assert whole.words == len(table.words) == sum(whole.bin_words)
    assert sum(whole.bin_spoken_words) == whole.spoken_words
    if level == "utterance":
        assert whole.spoken_words == whole.written_words == whole.words
    else:
        assert whole.spoken_words + whole.written_words == whole.words
        assert whole.demoted_words == plan_interleave(source, rows, 0, config, 0).demoted_words
        assert level != "word" or whole.demoted_words > 0


def test_words_that_slamkit_loses(make_table: MakeTable, vocabulary: Vocabulary) -> None:
    source = make_source(make_table(60, zero_length=0.4), vocabulary)
    config = InterleaveConfig(speech_span="fixed(1)", boundary="slamkit")
    stats = interleave_stats(source, np.arange(60), 0, config, 0)
    assert stats.lost_words > 0
    assert stats.demoted_words == 0
    kept = interleave_stats(source, np.arange(60), 0, InterleaveConfig(speech_span="fixed(1)", boundary="start"), 0)
    assert kept.lost_words == 0
    assert kept.demoted_words > 0


def test_nothing() -> None:
    stats = InterleaveStats()
    assert math.isnan(stats.speech_word_share)
    assert all(math.isnan(share) for share in stats.speech_share_by_length().values())
    assert stats + stats == stats
