"""Catches ragged rows gathered from the wrong place and random numbers that repeat or depend on the batch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from speechscale.records import offsets
from speechscale.tokens.ragged import (
    Ragged,
    draw_bits,
    gather_rows,
    mix64,
    permutation,
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


def test_permutation_visits_everything_once() -> None:
    order = permutation(500, 1, 2, 3)
    assert sorted(order.tolist()) == list(range(500))
    assert not np.array_equal(order, permutation(500, 1, 2, 4))
