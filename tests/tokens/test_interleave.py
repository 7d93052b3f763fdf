"""Catches words lost, doubled or out of order, boundary units lost, shares off the published ones, drifting draws."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.records import NO_TIME, UnitTable, UnitTableBuilder, dedup, expand
from speechscale.tokens.interleave import (
    InterleaveConfig,
    InterleaveSource,
    Knot,
    Segments,
    draw_segments,
    interleave_batch,
    make_source,
    plan_interleave,
    utterance_keys,
)
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.subwords_training import train_subwords
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

MakeTable = Callable[..., UnitTable]
CONFIG = InterleaveConfig(speech_span="poisson(3)")


def test_words_without_time_are_never_speech(make_table: MakeTable, vocabulary: Vocabulary) -> None:
    source = make_source(make_table(80, untimed=0.4, most_words=25), vocabulary)
    rows = np.arange(80)
    segments, _ = draw_segments(source, rows, 0, InterleaveConfig(speech_share=1.0), 0)
    words = spread(segments, len(source.word_first))
    assert np.array_equal(words, source.word_first != NO_TIME)
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
    rows = interleave_batch(source, np.arange(3), 0, InterleaveConfig(speech_span="poisson(1.5)"), 7).rows()
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
    config = InterleaveConfig(speech_span=f"poisson({mean})", speech_share=share)
    spoken = spread(draw_segments(source, np.arange(6), epoch, config, seed)[0], len(table.words))
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
    config = InterleaveConfig(speech_span="poisson(2)", speech_share=0.7)
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
        config = InterleaveConfig(speech_span="poisson(3)", **changes)
        return interleave_batch(source, rows, epoch, config, seed).flat.tobytes()

    assert tokens(0, 0) == tokens(0, 0)
    assert len({tokens(0, 0), tokens(1, 0), tokens(0, 1)}) == 3
    assert tokens(0, 0, redraw_each_epoch=False) == tokens(5, 0, redraw_each_epoch=False) == tokens(0, 0)
    assert len(set(utterance_keys(["a", "b", "A"]).tolist())) == 3


def test_no_rows_and_rows_without_words(make_table: MakeTable, vocabulary: Vocabulary) -> None:
    none = interleave_batch(hand_example(vocabulary), np.zeros(0, np.int64), 0, CONFIG, 0)
    assert (len(none.flat), none.offsets.tolist()) == (0, [0])
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=20)
    for name, words in (("silent", 0), ("one", 1), ("quiet", 0), ("two", 2), ("hushed", 0)):
        frames = np.stack([np.arange(words), np.arange(words) + 1], axis=1)
        builder.add(id=name, speaker="a", split="train", text="", units=np.arange(4), durations_frames=np.ones(4, int),
                    words=["cat"] * words, word_frames=frames)  # fmt: skip
    source = make_source(builder.build(), vocabulary)
    for level, first in product(("word", "sentence", "utterance"), ("drawn", "speech", "even")):
        config = InterleaveConfig(level=level, first=first)  # type: ignore[arg-type]
        lengths = interleave_batch(source, np.arange(5), 0, config, 0).lengths
        assert ((lengths > 0) == [False, True, False, True, False]).all()


# -- every level, law, gap and boundary

LEVELS = ("word", "sentence", "utterance")
RULES = list(product(("drop", "attach", "keep"), ("overlap", "start", "majority", "slamkit")))


def punctuated(table: UnitTable, seed: int) -> UnitTable:
    """The same table with a full stop behind a quarter of the words."""
    rng = np.random.default_rng(seed)
    return replace(table, words=[word + "." * int(rng.random() < 0.25) for word in table.words])


def any_config(seed: int, level: str, gap: str, boundary: str) -> InterleaveConfig:
    rng = np.random.default_rng(seed)
    span = str(rng.choice(["poisson(3)", "uniform(1,4)", "fixed(2)", "geometric(2)", "bernoulli"]))
    kind = "expectation" if span == "bernoulli" else str(rng.choice(["floor", "expectation"]))
    first = str(rng.choice(["drawn", "speech", "text", "even"]))
    share = 0.4 if span != "geometric(2)" else 0.3
    settings: dict[str, Any] = {"level": level, "gap": gap, "boundary": boundary, "share": kind, "first": first}
    return InterleaveConfig(speech_span=span, speech_share=share, **settings)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    untimed=st.sampled_from([0.0, 0.3]),
    zero=st.sampled_from([0.0, 0.3]),
    level=st.sampled_from(LEVELS),
    rule=st.sampled_from(RULES),
)
def test_words_come_back_whatever_the_rules(
    make_table: MakeTable,
    vocabulary: Vocabulary,
    seed: int,
    untimed: float,
    zero: float,
    level: str,
    rule: tuple[str, str],
) -> None:
    """Segments tile the words once and in order; each sequence is its segments; lengths fit."""
    table = punctuated(make_table(6, seed=seed, most_words=25, untimed=untimed, zero_length=zero), seed)
    source = make_source(table, vocabulary)
    rows = np.random.default_rng(seed).permutation(6)
    plan = plan_interleave(source, rows, seed, any_config(seed, level, *rule), 5)
    result = plan.ids()
    segments = plan.segments
    assert np.array_equal(result.lengths, plan.lengths)
    assert result.flat.dtype == np.int32
    for place, row in enumerate(rows):
        own = np.flatnonzero(segments.row == place)
        first, last, heard = segments.first[own], segments.last[own], segments.is_speech[own]
        words = np.arange(table.word_offsets[row], table.word_offsets[row + 1])
        if level == "utterance":
            assert (first == words[0]).all()
            assert (last == words[-1]).all()
            assert sorted(heard.tolist()) == [False, True]
        else:
            assert np.array_equal(
                np.concatenate([np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]), words
            )
            assert (heard[1:] != heard[:-1]).all()
            if level == "word":
                assert (source.word_first[words][np.repeat(heard, last - first + 1)] != NO_TIME).all()
            else:
                closing = np.flatnonzero(source.word_code[words] & 16) + words[0]
                assert set(last.tolist()) <= set(closing.tolist())
        pieces: list[str] = []
        for index in own:
            if segments.is_speech[index]:
                units = table.row_units(row)[segments.unit_start[index] : segments.unit_stop[index]]
                assert len(units) or rule[1] == "slamkit"
                pieces += ["<speech>", *(f"<Un{unit}>" for unit in units)]
            else:
                texts = vocabulary.encode_words(table.words[segments.first[index] : segments.last[index] + 1]).flat
                pieces += ["<text>", vocabulary.decode(texts)]
        assert vocabulary.decode(result.rows()[place]) == " ".join(pieces)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), zero=st.sampled_from([0.0, 0.3]), boundary=st.sampled_from(["overlap", "majority"]))
def test_a_fully_spoken_utterance_with_its_pauses_is_its_units(
    make_table: MakeTable, vocabulary: Vocabulary, seed: int, zero: float, boundary: str
) -> None:
    table = make_table(5, seed=seed, most_words=20, zero_length=zero)
    source = make_source(table, vocabulary)
    for share, level in (("floor", "word"), ("expectation", "sentence")):
        config = InterleaveConfig(level=level, speech_share=1.0, share=share, gap="attach", boundary=boundary)  # type: ignore[arg-type]
        for row, ids in enumerate(interleave_batch(source, np.arange(5), 0, config, 0).rows()):
            assert ids[0] == vocabulary.SPEECH
            assert np.array_equal(ids[1:] - vocabulary.unit_start, table.row_units(row))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["floor", "expectation"])
def test_batches_agree_for_every_level(make_table: MakeTable, vocabulary: Vocabulary, level: str, kind: str) -> None:
    source = make_source(punctuated(make_table(40, untimed=0.1), 0), vocabulary)
    config = InterleaveConfig(level=level, share=kind, first="even", gap="keep", boundary="start")  # type: ignore[arg-type]
    whole = interleave_batch(source, np.arange(40), 3, config, 11).rows()
    for chosen in np.split(np.random.default_rng(0).permutation(40), [1, 8, 9, 30]):
        for row, tokens in zip(chosen, interleave_batch(source, chosen, 3, config, 11).rows(), strict=True):
            assert np.array_equal(tokens, whole[row])


def test_a_span_without_a_unit_becomes_text(vocabulary: Vocabulary) -> None:
    """One long unit under three words: with "start" only the word where it starts can be heard."""
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=20)
    builder.add(id="a", speaker="a", split="train", text="", units=np.array([3, 4]),
                durations_frames=np.array([9, 1]), words=["tom", "likes", "jam", "home"],
                word_frames=np.array([[0, 2], [2, 4], [4, 6], [9, 10]]))  # fmt: skip
    source = make_source(builder.build(), vocabulary)
    alone: dict[str, Any] = {"speech_span": "bernoulli", "share": "expectation", "speech_share": 0.5}
    seen = set()
    for seed in range(60):
        plan = plan_interleave(source, np.array([0]), 0, InterleaveConfig(boundary="start", **alone), seed)
        free = plan_interleave(source, np.array([0]), 0, InterleaveConfig(**alone), seed)
        readable = vocabulary.decode(plan.ids().flat)
        heard = np.repeat(free.segments.is_speech, free.segments.last - free.segments.first + 1)
        demoted = 0
        for segment in np.flatnonzero(free.segments.is_speech):
            first, last = free.segments.first[segment], free.segments.last[segment]
            if first >= 1 and last <= 2:
                heard[first : last + 1] = False
                demoted += last - first + 1
        assert plan.demoted_words == demoted
        assert np.array_equal(heard, np.repeat(plan.segments.is_speech, plan.segments.last - plan.segments.first + 1))
        assert "<text> <text>" not in readable
        assert "<text> <speech>" not in readable
        assert "<speech> <text>" not in readable
        seen.add((readable, plan.demoted_words))
    assert ("<text> tom likes jam home", 2) in seen
    bare = InterleaveConfig(boundary="slamkit", **alone)
    empty = {vocabulary.decode(interleave_batch(source, np.array([0]), 0, bare, seed).flat) for seed in range(60)}
    assert "<text> tom <speech> <text> jam home" in empty


def test_whole_utterances_in_both_modalities(vocabulary: Vocabulary) -> None:
    source = hand_example(vocabulary)
    units = " ".join(f"<Un{unit}>" for unit in (3, 4, 5, 6, 7))
    for first, expected in (
        ("speech", f"<speech> {units} <text> the cat sat home"),
        ("text", f"<text> the cat sat home <speech> {units}"),
    ):
        config = InterleaveConfig(level="utterance", first=first)  # type: ignore[arg-type]
        assert vocabulary.decode(interleave_batch(source, np.array([0]), 0, config, 0).flat) == expected
    even = InterleaveConfig(level="utterance")
    starts = [interleave_batch(source, np.array([0]), epoch, even, 0).flat[0] for epoch in range(400)]
    assert set(starts) == {vocabulary.SPEECH, vocabulary.TEXT}
    assert np.mean(np.array(starts) == vocabulary.SPEECH) == pytest.approx(0.5, abs=0.1)


def test_sentences_are_spoken_as_a_whole(vocabulary: Vocabulary) -> None:
    """The second sentence begins with an untimed word: it stays text. The first has one inside: it may be heard."""
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=20)
    times = np.array([[0, 1], [NO_TIME, NO_TIME], [2, 3], [NO_TIME, NO_TIME], [4, 5], [6, 7]])
    builder.add(id="a", speaker="a", split="train", text="", units=np.arange(8), durations_frames=np.ones(8, int),
                words=["tom", "likes", "jam.", "ann", "ran.", "home"], word_frames=times)  # fmt: skip
    source = make_source(builder.build(), vocabulary)
    config = InterleaveConfig(level="sentence", speech_share=1.0)
    segments, _ = draw_segments(source, np.array([0]), 0, config, 0)
    assert segments.is_speech.tolist() == [True, False, True]
    assert segments.last.tolist() == [2, 4, 5]
    assert segments.unit_start.tolist() == [0, 0, 6]
    assert segments.unit_stop.tolist() == [3, 0, 7]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), gap=st.sampled_from(["drop", "attach", "keep"]))
def test_subwords_spell_the_same_units(make_table: MakeTable, vocabulary: Vocabulary, seed: int, gap: str) -> None:
    """With subwords of units every speech span is encoded on its own: lengths follow, and the units come back."""
    merged = Pairs(vocabulary)
    table = make_table(6, seed=seed, most_words=25)
    plain, short = (replace(make_source(table, vocabulary), vocabulary=v) for v in (vocabulary, merged))  # type: ignore[type-var]
    config = any_config(seed, "word", gap, "overlap")
    rows = np.array([4, 1, 1, 5])
    plan = plan_interleave(short, rows, 0, config, 3)  # type: ignore[arg-type]
    ids = plan.ids()
    assert np.array_equal(ids.lengths, plan.lengths)
    wanted = interleave_batch(plain, rows, 0, config, 3)  # type: ignore[arg-type]
    assert [merged.spell_out(row) for row in ids.rows()] == [row.tolist() for row in wanted.rows()]
    assert len(ids.flat) < len(wanted.flat) or not plan.segments.is_speech.any()


class Pairs:
    """Stand-in for a vocabulary whose subwords are all pairs of units, ids 1000 + 20 a + b; an odd one stays alone."""

    subwords = "pairs"

    def __init__(self, plain: Vocabulary) -> None:
        self.unit_start, self.SPEECH, self.TEXT = plain.unit_start, plain.SPEECH, plain.TEXT

    def speech_ids(self, units: Ragged) -> Ragged:
        rows = [self._pair([int(unit) for unit in row]) for row in units.rows()]
        return Ragged(np.array([i for row in rows for i in row], np.int32), np.cumsum([0, *map(len, rows)]))

    def _pair(self, units: list[int]) -> list[int]:
        pairs = [1000 + 20 * a + b for a, b in zip(units[::2], units[1::2], strict=False)]
        return pairs + [self.unit_start + unit for unit in units[len(pairs) * 2 :]]

    def spell_out(self, ids: np.ndarray) -> list[int]:
        spelled: list[int] = []
        for index in ids.tolist():
            pair = [self.unit_start + part for part in divmod(index - 1000, 20)]
            spelled += pair if index >= 1000 else [index]
        return spelled


def test_trained_subwords(make_table: MakeTable, vocabulary: Vocabulary) -> None:
    """The vocabulary's own subwords: fewer tokens, the same text and markers, the same units under them."""
    table = make_table(30, most_words=25)
    subwords = train_subwords((table.row_units(row) for row in range(30)), "bpe", 40, 20)
    merged = vocabulary.text_subset().with_units(20, subwords)
    rows, config = np.arange(30), InterleaveConfig(gap="attach", boundary="majority")
    plan = plan_interleave(make_source(table, merged), rows, 2, config, 3)
    short, plain = plan.ids(), interleave_batch(make_source(table, vocabulary), rows, 2, config, 3)
    assert np.array_equal(short.lengths, plan.lengths)
    assert len(short.flat) < len(plain.flat)
    for ids, wanted in zip(short.rows(), plain.rows(), strict=True):
        assert merged.to_spans(ids) == vocabulary.to_spans(wanted)


def test_ten_thousand_words_are_quick(vocabulary: Vocabulary) -> None:
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=20)
    starts = 3 * np.arange(10_000)
    builder.add(id="a", speaker="a", split="train", text="", units=np.arange(30_000) % 20,
                durations_frames=np.ones(30_000, int), words=["cat", "dog."] * 5000,
                word_frames=np.stack([starts, starts + 2], axis=1))  # fmt: skip
    source = make_source(builder.build(), vocabulary)
    begin = time.process_time()
    for level, kind in product(LEVELS, ("floor", "expectation")):
        config = InterleaveConfig(level=level, share=kind)  # type: ignore[arg-type]
        assert interleave_batch(source, np.array([0]), 0, config, 0).lengths[0] > 10_000
    assert time.process_time() - begin < 3


# -- curriculum and settings


def test_curriculum() -> None:
    config = InterleaveConfig(
        curriculum=(
            Knot(at=0.25, speech_share=0.1, speech_span="fixed(2)"),
            Knot(at=0.5, speech_span="poisson(4)"),
            Knot(at=0.75, speech_share=0.5, speech_span="poisson(8)"),
        )
    )
    seen = {at: (config.at(at).speech_share, config.at(at).speech_span) for at in (0, 0.25, 0.375, 0.5, 0.625, 0.75, 1)}
    assert seen == {
        0: (0.1, "fixed(2)"),
        0.25: (0.1, "fixed(2)"),
        0.375: (0.2, "fixed(2)"),
        0.5: (pytest.approx(0.3), "poisson(4)"),
        0.625: (0.4, "poisson(6)"),
        0.75: (0.5, "poisson(8)"),
        1: (0.5, "poisson(8)"),
    }
    assert config.at(0.3) is config.at(0.3001)
    assert config.at(0.734) == config.at(46 / 64) != config.at(47 / 64)
    assert config.at(0.3).curriculum == ()
    assert config.at(0.3).at(0.9) == config.at(0.3)
    assert len({config.at(step / 1000) for step in range(1001)}) <= 65
    assert (
        InterleaveConfig(speech_share=0.7, curriculum=(Knot(at=0, speech_span="fixed(3)"),)).at(1).speech_share == 0.7
    )


def test_curriculum_is_checked_when_it_is_made(make_table: MakeTable, vocabulary: Vocabulary) -> None:
    with pytest.raises(DataError, match=r"knots at \[0\.5, 0\.2\]; give places from 0 to 1"):
        InterleaveConfig(curriculum=(Knot(at=0.5), Knot(at=0.2)))
    with pytest.raises(DataError, match="needs text spans of"):
        InterleaveConfig(
            share="expectation", curriculum=(Knot(at=0.1, speech_share=0.3), Knot(at=0.9, speech_share=0.99))
        )
    with pytest.raises(DataError, match=r"curriculum\.speech_span 'fast'"):
        InterleaveConfig(curriculum=(Knot(at=0, speech_span="fast"),))
    config = InterleaveConfig(curriculum=(Knot(at=0, speech_share=0.2),))
    with pytest.raises(DataError, match="progress 2"):
        config.at(2)
    with pytest.raises(DataError, match=r"call config\.at\(progress\) first"):
        interleave_batch(make_source(make_table(1), vocabulary), np.array([0]), 0, config, 0)


def test_bad_settings(make_table: MakeTable) -> None:
    for name, value in (("level", "phrase"), ("gap", "split"), ("boundary", "none"), ("first", "x"), ("share", "x")):
        with pytest.raises(DataError, match=f"interleave.{name} '{value}': allowed: '"):
            InterleaveConfig(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(DataError, match="interleaving needs a vocabulary with text"):
        make_source(make_table(1), Vocabulary.textless(20))


def test_word_of_too_many_tokens(vocabulary: Vocabulary) -> None:
    letters = Vocabulary.joint(build_text_tokenizer(["a b"], "bpe", 300), 20)
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=20)
    builder.add(id="loud", speaker="a", split="train", text="", units=np.arange(4), durations_frames=np.ones(4, int),
                words=["a", "xy" * 40_000], word_frames=np.array([[0, 1], [1, 2]]))  # fmt: skip
    with pytest.raises(DataError, match=r"utterance loud: word 'xyxy.* has 8000. tokens, at most 65535"):
        make_source(builder.build(), letters)


def test_a_floor_at_level_sentence_counts_words(vocabulary: Vocabulary) -> None:
    """Sentences of 1, 20 and 20 words: the short one alone is no third of the words."""
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=20)
    words = ["yes.", *["the"] * 19, "cat.", *["the"] * 19, "dog."]
    frames = np.array([[2 * k, 2 * k + 2] for k in range(len(words))])
    for row in range(200):
        builder.add(
            id=str(row),
            speaker="a",
            split="train",
            text=" ".join(words),
            units=np.arange(2 * len(words)) % 20,
            durations_frames=np.ones(2 * len(words), int),
            words=words,
            word_frames=frames,
        )
    source = make_source(builder.build(), vocabulary)
    config = InterleaveConfig(level="sentence", speech_span="fixed(1)", speech_share=0.3)
    segments, _ = draw_segments(source, np.arange(200), 0, config, 0)
    spoken = np.bincount(
        segments.row, weights=np.where(segments.is_speech, segments.last - segments.first + 1, 0), minlength=200
    )
    assert (spoken >= math.ceil(0.3 * len(words))).all()
    assert set(spoken.tolist()) <= {20.0, 21.0}
