"""Catches bad times that pass, and good ones that are lost with them."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from speechscale.align.formats import (
    Losses,
    clip_words,
    read_alignment,
)
from speechscale.align.formats.entries import Entry, Found
from speechscale.align.formats.settle import longest_chain, settle
from speechscale.errors import DataError
from speechscale.records import Word
from tests.align.examples import saved, triples


def found(*spans: tuple[float | None, float | None], **options: Any) -> list[Found]:
    entries = [Entry(f"w{i}", a, b, None, i) for i, (a, b) in enumerate(spans)]
    return [Found(recording="r", entries=entries, where="f", **options)]


NAN = float("nan")


@pytest.mark.parametrize(
    ("spans", "kept"),
    [
        ([(0, 1), (NAN, 2), (1, 2)], [0, 2]),
        ([(0, 1), (-1, 2), (1, 2)], [0, 2]),
        ([(0, 1), (2, 1), (1, 2)], [0, 2]),
        ([(0, 1), (0.5, 2), (1, 2)], [0, 2]),
        ([(0, 1), (8, 9), (1, 2), (2, 3)], [0, 2, 3]),
        ([(0, 99), (1, 2), (2, 3)], [1, 2]),
        ([(5, 6), (0, 1), (1, 2)], [1, 2]),
        ([(0, 1), (1, 99)], [0]),
        ([(0, 1), (9.99, 10.04), (11, 11.01)], [0, 1]),
        ([(None, None), (0, None), (1, 2)], [2]),
        ([], []),
    ],
)
def test_dropping_times_keeps_every_word_and_as_many_times_as_possible(spans: Any, kept: list[int]) -> None:
    """One wild number (99 s) must not cost the words behind it their times."""
    losses = Losses()
    words = settle(found(*spans), repair="drop_times", losses=losses, duration_s=10.0)
    assert [w.text for w in words] == [f"w{i}" for i in range(len(spans))]
    assert [i for i, w in enumerate(words) if w.start_s is not None] == kept
    losses.check()
    untimed = sum(a is None or b is None for a, b in spans)
    assert losses.untimed == untimed
    assert losses.dropped_times == len(spans) - untimed - len(kept)
    assert len(losses.problems) == losses.dropped_times
    assert all(re.match(r"f, entry \d+ \('w\d', ", problem) for problem in losses.problems)


@given(st.lists(st.tuples(st.integers(-2, 30), st.integers(-2, 30)), max_size=9))
def test_longest_chain_is_the_longest(spans: list[tuple[int, int]]) -> None:
    """Against trying all subsets."""
    good = [(a / 2, max(a, b) / 2) for a, b in spans]
    best = 0
    for mask in range(2 ** len(good)):
        chosen = [good[i] for i in range(len(good)) if mask >> i & 1]
        if all(b[0] >= a[1] for a, b in pairwise(chosen)):
            best = max(best, len(chosen))
    chain = longest_chain(good)
    assert len(chain) == best
    assert chain == sorted(set(chain))
    assert all(good[b][0] >= good[a][1] for a, b in pairwise(chain))


TIMES = st.one_of(st.none(), st.floats(-1, 12), st.sampled_from([NAN, float("inf"), -0.0, 0.0, 10.0, 10.04]))


@settings(max_examples=300)
@given(st.lists(st.tuples(TIMES, TIMES), max_size=8))
def test_dropped_times_leave_words_in_order_inside_the_audio(spans: list[tuple[float | None, float | None]]) -> None:
    losses = Losses()
    words = settle(found(*spans), repair="drop_times", losses=losses, duration_s=10.0)
    losses.check()
    assert len(words) == len(spans)
    reached = 0.0
    for word in words:
        assert (word.start_s is None) == (word.end_s is None)
        if word.start_s is not None and word.end_s is not None:
            assert reached <= word.start_s <= word.end_s <= 10.0
            reached = word.end_s


def test_refusal_and_repair_agree_on_good_files(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.ctm", "a 1 0 1 x\na 1 0.99 1 y\na 1 2 0 z\na 1 2 1.03 q\n")
    losses = Losses()
    words = read_alignment(path, losses=losses, duration_s=3.0)
    assert triples(words) == [("x", 0.0, 1.0), ("y", 1.0, 1.99), ("z", 2.0, 2.0), ("q", 2.0, 3.0)]
    assert read_alignment(path, repair="drop_times", duration_s=3.0) == words
    assert (losses.snapped, losses.zero_length, losses.clipped) == (1, 1, 1)
    assert str(losses) == "words 4, snapped 1, clipped 1, zero_length 1"
    with pytest.raises(DataError, match=r"line 4 \('q', 2..3.03 s\): ends past the audio, which lasts 2.9 s"):
        read_alignment(path, duration_s=2.9)
    with pytest.raises(DataError, match="repair = 'maybe' is not one of refuse, drop_times"):
        read_alignment(path, repair="maybe")  # type: ignore[arg-type]


def test_clip_words_can_drop_times() -> None:
    losses = Losses()
    words = [Word(text="a", start_s=0.0, end_s=1.0, score=0.5), Word(text="b", start_s=1.0, end_s=9.0, score=0.5)]
    assert clip_words(words, 2.0, repair="drop_times", losses=losses) == (words[0], Word(text="b", score=0.5))
    assert losses.dropped_times == 1
    assert "word 1 ('b') spans 1.000..9.000 s" in losses.problems[0]
