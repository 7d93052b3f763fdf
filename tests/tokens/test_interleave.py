"""Catches words lost, doubled or out of order, boundary units lost, shares off the published ones, drifting draws."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.records import NO_TIME, UnitTable, UnitTableBuilder, dedup, expand
from speechscale.tokens.interleave import (
    ONE,
    InterleaveConfig,
    InterleaveSource,
    Segments,
    draw_segments,
    draw_speech_words,
    interleave_batch,
    interleave_stats,
    make_source,
    span_length_weights,
    utterance_keys,
)
from speechscale.tokens.vocabulary import Vocabulary

MakeTable = Callable[..., UnitTable]
CONFIG = InterleaveConfig(mean_span_words=3.0)


def draw(words: int, rows: int, config: InterleaveConfig, seed: int = 0) -> np.ndarray:
    """Speech mask [rows, words] of utterances of equal length."""
    borders = np.arange(rows + 1) * words
    keys = utterance_keys(str(row) for row in range(rows))
    timed = np.ones(rows * words, bool)
    return draw_speech_words(timed, borders, keys, epoch=0, config=config, seed=seed).reshape(rows, words)


def runs_per_row(mask: np.ndarray) -> np.ndarray:
    return (np.diff(np.pad(mask, ((0, 0), (1, 0))).astype(int), axis=1) == 1).sum(axis=1)


@pytest.mark.parametrize(
    ("words", "share", "runs"),
    [
        (5, 0.73, None),
        (10, 0.63, None),
        (20, 0.50, 1.3),
        (40, 0.41, 1.9),
        (80, 0.36, 3.1),
        (160, 0.33, 5.4),
        (300, 0.32, None),
    ],
)
def test_published_shares_and_runs(words: int, share: float, runs: float | None) -> None:
    """Realized speech share and speech runs of the SIMS sampler (lambda 10, share .3), measured on the original."""
    mask = draw(words, 1000, InterleaveConfig())
    assert mask.mean() == pytest.approx(share, abs=0.015)
    assert (mask.sum(axis=1) >= math.ceil(0.3 * words)).all()
    if runs is not None:
        assert runs_per_row(mask).mean() == pytest.approx(runs, rel=0.05)


def by_rejection(words: int, mean: float, share: float, rng: np.random.Generator) -> np.ndarray:
    """The sampler as its authors loop it: draw a start and a length, throw away what touches an earlier span."""
    mask = np.zeros(words, bool)
    starts = set(range(words))
    while mask.sum() < math.ceil(share * words - 1e-9) and starts:
        start = sorted(starts)[rng.integers(len(starts))]
        stop = min(start + rng.poisson(mean), words)
        if mask[start:stop].any() or stop == start:
            continue
        mask[start:stop] = True
        starts -= set(range(start, stop + 1))
    return mask


@pytest.mark.parametrize(("words", "mean", "share"), [(35, 10.0, 0.3), (12, 2.0, 0.4)])
def test_same_law_as_the_rejection_loop(words: int, mean: float, share: float) -> None:
    rng = np.random.default_rng(0)
    rows = 1500
    looped = np.stack([by_rejection(words, mean, share, rng) for _ in range(rows)])
    direct = draw(words, 10 * rows, InterleaveConfig(mean_span_words=mean, speech_share=share))
    for measure in (
        lambda m: m.sum(axis=1),
        runs_per_row,
        lambda m: m[:, 0],
        lambda m: m[:, words // 2],
        lambda m: m[:, -1],
    ):
        a, b = measure(looped).astype(float), measure(direct).astype(float)
        error = math.hypot(a.std() / math.sqrt(len(a)), b.std() / math.sqrt(len(b)))
        assert abs(a.mean() - b.mean()) < 3.5 * error


def test_span_length_law() -> None:
    law = span_length_weights(2.0)
    assert law[0] == 0
    assert law[-1] == ONE
    assert law[1] / ONE == pytest.approx(2 * math.exp(-2) / (1 - math.exp(-2)), abs=1e-8)
    assert (np.diff(law) >= 0).all()
    lengths = np.arange(1, len(span_length_weights(300.0)))
    assert (np.diff(span_length_weights(300.0)) / ONE * lengths).sum() == pytest.approx(300, rel=1e-6)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95, 1.0])
@pytest.mark.parametrize("mean", [0.2, 1.5, 10.0, 500.0])
def test_share_is_a_floor_for_any_setting(mean: float, share: float) -> None:
    for words in (1, 2, 7, 50):
        mask = draw(words, 40, InterleaveConfig(mean_span_words=mean, speech_share=share))
        assert (mask.sum(axis=1) >= math.ceil(share * words - 1e-9)).all()


def test_words_without_time_are_never_speech(make_table: MakeTable, vocabulary: Vocabulary) -> None:
    source = make_source(make_table(80, untimed=0.4, most_words=25), vocabulary)
    rows = np.arange(80)
    segments = draw_segments(source, rows, 0, InterleaveConfig(speech_share=1.0), 0)
    words = spread(segments, len(source.word_unit_start))
    assert np.array_equal(words, source.word_unit_start != NO_TIME)
    tokens = interleave_batch(source, rows, 0, CONFIG, 0)
    assert (tokens.lengths > 0).all()


def spread(segments: Segments, words: int) -> np.ndarray:
    """Modality of every word, with a check that the segments tile all words once and in order."""
    assert segments.first[0] == 0
    assert segments.last[-1] == words - 1
    assert np.array_equal(segments.first[1:], segments.last[:-1] + 1)
    return np.repeat(segments.is_speech, segments.last - segments.first + 1)


def hand_example(vocabulary: Vocabulary) -> InterleaveSource:
    """Frames 0..9 are 3 3 4 4 4 5 6 6 7 7; `cat` has no time, `sat` starts inside unit 4, frame 6 is a pause."""
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
    return make_source(builder.build(), vocabulary)


def test_hand_computed_sequence(vocabulary: Vocabulary) -> None:
    source = hand_example(vocabulary)
    everything = InterleaveConfig(speech_share=1.0)
    tokens = interleave_batch(source, np.array([0, 0]), 0, everything, 0)
    expected = "<speech> <Un3> <Un4> <text> cat <speech> <Un4> <Un5> <Un6>"
    assert [vocabulary.decode(row) for row in tokens.rows()] == [expected, expected]
    bare = InterleaveConfig(speech_share=1.0, markers=False)
    assert vocabulary.decode(interleave_batch(source, np.array([0]), 0, bare, 0).flat) == (
        "<Un3> <Un4> cat <Un4> <Un5> <Un6>"
    )
    stats = interleave_stats(source, np.array([0, 0]), 0, everything, 0)
    assert (stats.words, stats.speech_word_share, stats.mean_speech_runs, stats.mean_run_words) == (8, 0.75, 2.0, 1.5)
    assert (stats.speech_tokens, stats.text_tokens, stats.marker_tokens) == (10, 2, 6)


def golden_table() -> UnitTable:
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=20)
    for name, text in (("a", "tom likes jam"), ("b", "the cat sat home"), ("c", "ann ran")):
        words = text.split()
        units = np.arange(2 * len(words)) + len(name) + 3
        starts = 3 * np.arange(len(words))
        builder.add(
            id=name,
            speaker="a",
            split="train",
            text=text,
            units=units,
            durations_frames=np.tile([1, 2], len(words)),
            words=words,
            word_frames=np.stack([starts, starts + 2], axis=1),
        )
    return builder.build()


def test_golden_ids(vocabulary: Vocabulary) -> None:
    """Token ids of three tiny utterances; a change here changes every training run."""
    source = make_source(golden_table(), vocabulary)
    rows = interleave_batch(source, np.arange(3), 0, InterleaveConfig(mean_span_words=1.5), 7).rows()
    assert [vocabulary.decode(row) for row in rows] == [
        "<speech> <Un4> <Un5> <Un6> <Un7> <Un8> <Un9>",
        "<text> the cat <speech> <Un8> <Un9> <Un10> <Un11>",
        "<text> ann <speech> <Un6> <Un7>",
    ]
    assert [row.tolist() for row in rows] == [
        [33, 17, 18, 19, 20, 21, 22],
        [34, 11, 4, 33, 21, 22, 23, 24],
        [34, 3, 33, 19, 20],
    ]


def test_word_without_length_keeps_a_unit(make_table: MakeTable, vocabulary: Vocabulary) -> None:
    source = make_source(make_table(50, zero_length=0.5), vocabulary)
    assert (source.word_unit_end > source.word_unit_start).all()
    assert (source.word_unit_start >= 0).all()
    row = np.repeat(np.arange(50), np.diff(source.word_offsets))
    assert (source.word_unit_end <= np.diff(source.unit_offsets)[row]).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    untimed=st.sampled_from([0.0, 0.3]),
    mean=st.sampled_from([0.5, 2.0, 10.0]),
    share=st.sampled_from([0.1, 0.3, 0.9]),
    epoch=st.integers(0, 5),
)
def test_sequences_hold_every_word_once_and_the_right_sound(
    make_table: MakeTable,
    vocabulary: Vocabulary,
    seed: int,
    untimed: float,
    mean: float,
    share: float,
    epoch: int,
) -> None:
    """Rebuild each sequence word by word from the expanded timeline; the vectorized one must equal it."""
    table = make_table(6, seed=seed, most_words=25, untimed=untimed)
    source = make_source(table, vocabulary)
    config = InterleaveConfig(mean_span_words=mean, speech_share=share)
    spoken = spread(draw_segments(source, np.arange(6), epoch, config, seed), len(table.words))
    result = interleave_batch(source, np.arange(6), epoch, config, seed).rows()
    for row in range(6):
        frames = expand(table.row_units(row), table.row_durations(row))
        times = table.row_word_frames(row)
        mask = spoken[table.word_offsets[row] : table.word_offsets[row + 1]]
        words = table.row_words(row)
        pieces: list[str] = []
        word = 0
        while word < len(words):
            stop = word
            while stop < len(words) and mask[stop] == mask[word]:
                stop += 1
            if mask[word]:
                cut = dedup(frames[times[word, 0] : times[stop - 1, 1]])[0]
                pieces += ["<speech>", *(f"<Un{unit}>" for unit in cut)]
            else:
                pieces += ["<text>", *words[word:stop]]
            word = stop
        assert vocabulary.decode(result[row]) == " ".join(pieces)
        assert vocabulary.parse(" ".join(pieces)).tolist() == result[row].tolist()


def test_result_does_not_depend_on_order_or_batch(make_table: MakeTable, vocabulary: Vocabulary) -> None:
    source = make_source(make_table(64, untimed=0.1), vocabulary)
    config = InterleaveConfig(mean_span_words=2.0, speech_share=0.7)
    whole = interleave_batch(source, np.arange(64), 3, config, 11).rows()
    order = np.random.default_rng(0).permutation(64)
    for size in (1, 7, 64):
        for begin in range(0, 64, size):
            chosen = order[begin : begin + size]
            for row, tokens in zip(chosen, interleave_batch(source, chosen, 3, config, 11).rows(), strict=True):
                assert np.array_equal(tokens, whole[row])


def test_seed_epoch_and_id_change_the_draw_and_nothing_else(make_table: MakeTable, vocabulary: Vocabulary) -> None:
    source = make_source(make_table(32), vocabulary)
    rows = np.arange(32)

    def tokens(epoch: int, seed: int, **changes: bool) -> bytes:
        config = InterleaveConfig(mean_span_words=3.0, **changes)
        return interleave_batch(source, rows, epoch, config, seed).flat.tobytes()

    assert tokens(0, 0) == tokens(0, 0)
    assert len({tokens(0, 0), tokens(1, 0), tokens(0, 1)}) == 3
    assert tokens(0, 0, redraw_each_epoch=False) == tokens(5, 0, redraw_each_epoch=False) == tokens(0, 0)
    assert len(set(utterance_keys(["a", "b", "A"]).tolist())) == 3


def test_single_words_long_utterances_and_none(vocabulary: Vocabulary) -> None:
    assert draw(1, 50, InterleaveConfig()).all()
    long = draw(10_000, 1, InterleaveConfig())
    assert 0.3 <= long.mean() < 0.303
    empty = interleave_batch(hand_example(vocabulary), np.zeros(0, np.int64), 0, CONFIG, 0)
    assert (len(empty.flat), empty.offsets.tolist()) == (0, [0])


def test_bad_settings(make_table: MakeTable) -> None:
    with pytest.raises(DataError, match="mean_span_words 0"):
        InterleaveConfig(mean_span_words=0)
    with pytest.raises(DataError, match=r"speech_share 1\.5"):
        InterleaveConfig(speech_share=1.5)
    with pytest.raises(DataError, match="level 'phrase'"):
        InterleaveConfig(level="phrase")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="interleaving needs a vocabulary with text"):
        make_source(make_table(1), Vocabulary.textless(20))
