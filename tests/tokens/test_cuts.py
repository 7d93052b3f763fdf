"""Catches boundary units lost, doubled or given to the wrong word, and sentences that end in the wrong place."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.records import NO_TIME, UnitTable, UnitTableBuilder, dedup, expand
from speechscale.tokens.cuts import LEFT, RIGHT, SENTENCE_END, Boundary, Gap, unit_ranges, word_cuts, word_unit_ranges

MakeTable = Callable[..., UnitTable]
GAPS = st.sampled_from(["drop", "attach", "keep"])


def one_row(durations: list[int], times: list[list[int]], words: list[str] | None = None) -> UnitTable:
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=20)
    builder.add(
        id="by hand",
        speaker="a",
        split="train",
        text="",
        units=np.arange(len(durations)),
        durations_frames=np.array(durations),
        words=words or ["x"] * len(times),
        word_frames=np.array(times).reshape(-1, 2),
    )
    return builder.build()


def ranges(
    table: UnitTable, first: np.ndarray, last: np.ndarray, gap: Gap = "drop", boundary: Boundary = "overlap"
) -> tuple[np.ndarray, np.ndarray]:
    row = np.searchsorted(table.word_offsets, first, side="right") - 1
    return unit_ranges(
        word_cuts(table),
        first_word=first,
        last_word=last,
        row_first_word=table.word_offsets[row],
        row_stop_word=table.word_offsets[row + 1],
        row_units=np.diff(table.unit_offsets)[row],
        gap=gap,
        boundary=boundary,
    )


def test_cuts_by_hand() -> None:
    """Units last 2 3 4 1 frames: they begin at 0, 2, 5 and 9."""
    table = one_row([2, 3, 4, 1], [[0, 2], [3, 4], [NO_TIME, NO_TIME], [7, 8], [9, 10], [10, 10]])
    cuts = word_cuts(table)
    assert cuts.first.tolist() == [0, 1, NO_TIME, 2, 3, 3]
    assert cuts.last.tolist() == [1, 1, NO_TIME, 2, 4, 4]
    assert (cuts.code & 3).tolist() == [0, RIGHT, 0, LEFT, 0, LEFT]
    assert (cuts.code >> 2 & 3).tolist() == [0, LEFT, 0, LEFT, 0, 0]
    first, stop = word_unit_ranges(table)
    assert first.tolist() == [0, 1, NO_TIME, 2, 3, 3]
    assert stop.tolist() == [1, 2, NO_TIME, 3, 4, 4]


@pytest.mark.parametrize(
    ("boundary", "expected"),
    [
        # Words end at 4 and begin there; unit 1 sounds from 2 to 5, unit 2 from 5 to 9, cut again at 8.
        ("overlap", [[0, 2], [1, 3], [2, 4]]),
        ("start", [[0, 2], [2, 3], [3, 4]]),
        ("majority", [[0, 2], [2, 3], [3, 4]]),
        ("slamkit", [[0, 1], [1, 2], [2, 4]]),
    ],
)
def test_boundary_rules_by_hand(boundary: Boundary, expected: list[list[int]]) -> None:
    table = one_row([2, 3, 4, 1], [[0, 4], [4, 8], [8, 10]])
    start, stop = ranges(table, np.arange(3), np.arange(3), boundary=boundary)
    assert np.stack([start, stop], axis=1).tolist() == expected
    # Cut after the first of three frames: the majority lies right of it; two of four frames stay left.
    table = one_row([2, 3, 4, 1], [[0, 3], [3, 7], [7, 10]])
    start, stop = ranges(table, np.arange(3), np.arange(3), boundary="majority")
    assert np.stack([start, stop], axis=1).tolist() == [[0, 1], [1, 3], [3, 4]]


def test_gap_policies_by_hand() -> None:
    """Ten units of one frame; words at 2-4, none, 6-7, 8-9."""
    table = one_row([1] * 10, [[2, 4], [NO_TIME, NO_TIME], [6, 7], [8, 9]])
    words = np.array([0, 2, 3])
    for gap, expected in (
        ("drop", [[2, 4], [6, 7], [8, 9]]),
        ("attach", [[0, 4], [6, 7], [7, 10]]),
        ("keep", [[0, 4], [6, 8], [7, 10]]),
    ):
        start, stop = ranges(table, words, words, gap=gap)  # type: ignore[arg-type]
        assert np.stack([start, stop], axis=1).tolist() == expected, gap


def test_words_of_zero_frames_by_hand() -> None:
    """Words at 0-4 and 4-4, of which the second has no sound of its own, then one at the very end of the audio."""
    table = one_row([4, 3, 3], [[0, 4], [4, 4], [7, 10], [10, 10]])
    for gap, expected in (("drop", [[0, 2], [2, 3]]), ("attach", [[0, 1], [1, 3]]), ("keep", [[0, 2], [1, 3]])):
        start, stop = ranges(table, np.array([0, 2]), np.array([1, 3]), gap=gap)  # type: ignore[arg-type]
        assert np.stack([start, stop], axis=1).tolist() == expected, gap
        start, stop = ranges(table, np.array([3]), np.array([3]), gap=gap)  # type: ignore[arg-type]
        assert (start[0], stop[0]) == (2, 3), gap
        for boundary in ("start", "majority"):
            start, stop = ranges(table, np.array([3]), np.array([3]), gap=gap, boundary=boundary)  # type: ignore[arg-type]
            assert (start[0], stop[0]) == (3, 3)


def test_ends_of_sentences() -> None:
    words = ["no", "one.", "two!\"", "(three?)", "four...", "five\u2026", "\u597d\u3002", "\u300c\u597d\uff01\u300d",
             "six,", "Un.e", ".", "seven:", "last"]  # fmt: skip
    table = one_row([1] * 13, [[i, i + 1] for i in range(13)], words)
    ends = [word for word, code in zip(words, word_cuts(table).code, strict=True) if code & SENTENCE_END]
    assert ends == [*words[1:8], ".", "last"]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000), untimed=st.sampled_from([0.0, 0.3]), gap=GAPS)
def test_overlap_is_the_cut_of_the_frame_timeline(make_table: MakeTable, seed: int, untimed: float, gap: Gap) -> None:
    """Cut the expanded frames, then collapse: the same units, for every gap policy."""
    table = make_table(4, seed=seed, most_words=15, untimed=untimed)
    for row in range(4):
        frames = expand(table.row_units(row), table.row_durations(row))
        times = table.row_word_frames(row)
        known = np.flatnonzero(times[:, 0] != NO_TIME)
        for first in known:
            for last in known[known >= first]:
                begin, end = times[first, 0], times[last, 1]
                if gap != "drop" and (first == 0 or times[first - 1, 0] != NO_TIME):
                    begin = times[first - 1, 1] if first else 0
                if gap != "drop" and last == len(times) - 1:
                    end = len(frames)
                elif gap == "keep" and times[last + 1, 0] != NO_TIME:
                    end = times[last + 1, 0]
                base = table.word_offsets[row]
                start, stop = ranges(table, np.array([base + first]), np.array([base + last]), gap)
                assert np.array_equal(table.row_units(row)[start[0] : stop[0]], dedup(frames[begin:end])[0])


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000), zero=st.sampled_from([0.0, 0.4]), boundary=st.sampled_from(["start", "majority"]))
def test_no_unit_lost_or_doubled_between_spans(
    make_table: MakeTable, seed: int, zero: float, boundary: Boundary
) -> None:
    """A fully spoken utterance cut into spans anywhere: with "attach" its spans tile its units once and in order."""
    rng = np.random.default_rng(seed)
    table = make_table(3, seed=seed, most_words=20, zero_length=zero)
    for row in range(3):
        begin, end = table.word_offsets[row], table.word_offsets[row + 1]
        opens = np.concatenate(([begin], begin + 1 + np.flatnonzero(rng.random(end - begin - 1) < 0.4)))
        start, stop = ranges(table, opens, np.append(opens[1:], end) - 1, "attach", boundary)
        assert start[0] == 0
        assert stop[-1] == len(table.row_units(row))
        assert np.array_equal(start[1:], stop[:-1])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), zero=st.sampled_from([0.0, 0.4]), gap=GAPS)
def test_rules_on_the_frame_timeline(make_table: MakeTable, seed: int, zero: float, gap: Gap) -> None:
    """Each rule, computed from the frames of units and words by comparison instead of from the stored codes."""
    table = make_table(3, seed=seed, most_words=12, zero_length=zero)
    for row in range(3):
        durations = table.row_durations(row)
        ends = np.cumsum(durations)
        begins = ends - durations
        times = table.row_word_frames(row)
        words = table.word_offsets[row] + np.arange(len(times))
        cut_from, cut_to = times[:, 0], times[:, 1]
        if gap != "drop":
            cut_from = np.concatenate(([0], times[:-1, 1]))
            cut_to = np.append(times[1:, 0] if gap == "keep" else times[:-1, 1], ends[-1])
        found = {b: ranges(table, words, words, gap, b) for b in get_args(Boundary)}
        for word, (a, b) in enumerate(zip(cut_from, cut_to, strict=True)):
            starts = np.flatnonzero((begins >= a) & (begins < b))
            middle = begins + (durations + 1) // 2  # the frame that decides the majority, ties left
            mostly = np.flatnonzero((middle > a) & (middle <= b))
            slamkit = range(bisect_left(ends.tolist(), a), bisect_right(ends.tolist(), b))
            for boundary, units in (("start", starts), ("majority", mostly), ("slamkit", slamkit)):
                start, stop = found[boundary][0][word], found[boundary][1][word]
                assert list(range(start, stop)) == list(units), (boundary, a, b)
            start, stop = found["overlap"][0][word], found["overlap"][1][word]
            assert stop > start
            if b > a and (gap != "drop" or times[word, 1] > times[word, 0]):
                assert list(range(start, stop)) == np.flatnonzero((ends > a) & (begins < b)).tolist()


def test_word_of_zero_frames_keeps_a_unit(make_table: MakeTable) -> None:
    table = make_table(50, zero_length=0.5)
    start, stop = word_unit_ranges(table)
    row = np.repeat(np.arange(50), np.diff(table.word_offsets))
    assert (stop > start).all()
    assert (start >= 0).all()
    assert (stop <= np.diff(table.unit_offsets)[row]).all()
