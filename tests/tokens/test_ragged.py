"""Catches ragged rows gathered from the wrong place and random numbers that repeat or depend on the batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.records import offsets
from speechscale.tokens.ragged import (
    Ragged,
    Shuffle,
    draw_bits,
    gather_rows,
    mix64,
    ragged_arange,
    to_unit_interval,
)


def test_examples() -> None:
    assert ragged_arange(np.array([5, 0]), np.array([2, 3])).tolist() == [5, 6, 0, 1, 2]
    assert ragged_arange(np.array([5, 9, 1]), np.array([0, 2, 0])).tolist() == [9, 10]
    assert ragged_arange(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


@given(st.lists(st.lists(st.integers(0, 99), max_size=5), min_size=1, max_size=8), st.data())
def test_gather_equals_indexing(rows: list[list[int]], data: st.DataObject) -> None:
    ragged = Ragged(np.array([x for row in rows for x in row], np.int32), offsets([len(row) for row in rows]))
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10))
    assert [r.tolist() for r in gather_rows(ragged, np.array(chosen, np.int64)).rows()] == [rows[i] for i in chosen]


def test_splitmix_reference_value() -> None:
    """The first output of SplitMix64 seeded with 0 is published as 0xE220A8397B1DCDAF."""
    assert int(mix64(np.array([0x9E3779B97F4A7C15], np.uint64))[0]) == 0xE220A8397B1DCDAF


def test_draws_are_uniform_and_named() -> None:
    keys = np.arange(20_000, dtype=np.uint64)
    first = to_unit_interval(draw_bits(3, keys, 0, 0))
    assert first.min() >= 0
    assert first.max() < 1
    counts = np.bincount((first * 20).astype(int), minlength=20)
    assert ((counts - 1000) ** 2 / 1000).sum() < 44  # chi-square with 19 degrees of freedom, p = .001
    for other in (draw_bits(4, keys, 0, 0), draw_bits(3, keys, 1, 0), draw_bits(3, keys, 0, 1)):
        assert abs(np.corrcoef(first, to_unit_interval(other))[0, 1]) < 0.03
    assert np.array_equal(draw_bits(-1, keys[5:6], 2, 7), draw_bits(-1, keys, 2, 7)[5:6])


@settings(deadline=None)
@given(st.integers(1, 200_000), st.integers(0, 2**40), st.integers(-3, 3))
def test_a_shuffle_visits_everything_once_and_is_undone(length: int, seed: int, epoch: int) -> None:
    shuffle = Shuffle(length, seed, epoch)
    order = shuffle.at(np.arange(length))
    assert np.array_equal(np.sort(order), np.arange(length))
    assert np.array_equal(shuffle.places(order), np.arange(length))
    some = np.arange(0, length, 7)
    assert np.array_equal(Shuffle(length, seed, epoch).at(some), order[some])


@pytest.mark.parametrize("length", [1000, 100_000, 131_073])
def test_shuffles_are_even_and_independent(length: int) -> None:
    """Would catch a Feistel network whose rounds do not mix, or whose names change little."""
    order = Shuffle(length, 1, 2).at(np.arange(length))
    other = Shuffle(length, 1, 3).at(np.arange(length))
    noise = 4 / np.sqrt(length)
    assert abs(np.corrcoef(order, np.arange(length))[0, 1]) < noise
    assert abs(np.corrcoef(order, other)[0, 1]) < noise
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < noise
    assert (order == np.arange(length)).sum() < 12  # fixed points: Poisson with mean 1
    halves = np.bincount(order[: length // 2] * 10 // length, minlength=10)
    expected = length / 20
    assert ((halves - expected) ** 2 / (expected / 2)).sum() < 28  # chi-square, 9 degrees of freedom, p = .001


def test_a_huge_shuffle_needs_no_memory() -> None:
    chosen = np.array([0, 1, 9_999_999_999])
    entries = Shuffle(10_000_000_000, 5).at(chosen)
    assert len(set(entries.tolist())) == 3
    assert (entries < 10_000_000_000).all()
    assert np.array_equal(Shuffle(10_000_000_000, 5).places(entries), chosen)
