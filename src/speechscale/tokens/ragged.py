"""Ragged integer arrays and counter-based random numbers: what the token modules compute with.

Enters: flat arrays with offsets; integers that name a draw. Leaves: gathered rows; reproducible uint64 noise.
The one decision worth knowing: random numbers are a hash of what they are for (seed, utterance, epoch, draw), not the
next value of a stream, so no result depends on order, batch or number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt64

MASK_64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
EXACT_LENGTH = 1 << 16
FEISTEL_ROUNDS = 8


class Ragged(NamedTuple):
    """Rows of different lengths; row i is `flat[offsets[i]:offsets[i + 1]]`."""

    flat: Int[np.ndarray, " total"]
    offsets: Int[np.ndarray, " rows1"]

    @property
    def lengths(self) -> Int[np.ndarray, " rows"]:
        return np.diff(self.offsets)

    def rows(self) -> list[Int[np.ndarray, " row"]]:
        """The rows as views."""
        return [self.flat[self.offsets[i] : self.offsets[i + 1]] for i in range(len(self.offsets) - 1)]


def ragged_arange(starts: Int[np.ndarray, " rows"], lengths: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " total"]:
    """Concatenate the ranges [start, start + length). Example: [5, 0], [2, 3] -> [5, 6, 0, 1, 2]"""
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - lengths), lengths)


def gather_rows(ragged: Ragged, rows: Int[np.ndarray, " chosen"]) -> Ragged:
    """Copy the chosen rows, in the given order; works on memory maps."""
    starts = np.asarray(ragged.offsets[rows], np.int64)
    lengths = np.asarray(ragged.offsets[rows + 1], np.int64) - starts
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return Ragged(np.asarray(ragged.flat[ragged_arange(starts, lengths)]), offsets)


def distinct_strings(strings: Sequence[str]) -> tuple[list[str], Int[np.ndarray, " strings"]]:
    """The distinct strings in the order of their first occurrence, and which of them each string is."""
    import pyarrow as pa  # here, so that settings, which the command line reads, do not wait for it

    column = pa.array(strings, pa.string()).dictionary_encode()
    return column.dictionary.to_pylist(), column.indices.to_numpy()


def mix64(values: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """Scramble 64-bit integers, a bijection.

    Source: the finalizer of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
    """
    mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def draw_bits(*names: int | Int[np.ndarray, " rows"] | UInt64[np.ndarray, " rows"]) -> UInt64[np.ndarray, " rows"]:
    """Hash the names of a draw, e.g. (seed, utterance keys, epoch, draw index), to 64 random bits each."""
    state = np.zeros(1, np.uint64)
    for name in names:
        if isinstance(name, int):
            bits = np.array([name & MASK_64], np.uint64)
        else:
            bits = np.asarray(name).astype(np.uint64, copy=False)
        state = mix64((state + np.uint64(GOLDEN)) ^ mix64(bits + np.uint64(GOLDEN)))
    return state


def extend_bits(bits: UInt64[np.ndarray, " rows"], name: int) -> UInt64[np.ndarray, " rows"]:
    """Add a last name to draws: extend_bits(draw_bits(*names), name) is draw_bits(*names, name), and faster."""
    return mix64((bits + np.uint64(GOLDEN)) ^ mix64(np.array([name & MASK_64], np.uint64) + np.uint64(GOLDEN)))


def to_unit_interval(bits: UInt64[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    """Turn random bits into floats in [0, 1) with 53 bits each."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Shuffle:
    """A permutation of range(length) that is worked out entry by entry: memory does not grow with the length.

    Up to EXACT_LENGTH entries it is a sorted hash; beyond, a Feistel network over the next power of two, walked until
    the value lies in range. The same names give the same permutation on every machine.

    Example: Shuffle(10, seed, epoch).at(np.arange(10)) holds 0..9 once each.

    Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains" (cycle walking; generalized Feistel).
    """

    def __init__(self, length: int, *names: int) -> None:
        self.length = length
        self._order: Int[np.ndarray, " length"] | None = None
        if length <= EXACT_LENGTH:
            self._order = np.argsort(draw_bits(*names, np.arange(length, dtype=np.uint64)), kind="stable")
            return
        bits = (length - 1).bit_length()
        self._low = np.uint64(bits // 2)
        self._masks = np.uint64((1 << (bits - bits // 2)) - 1), np.uint64((1 << bits // 2) - 1)
        self._keys = draw_bits(*names, np.arange(FEISTEL_ROUNDS, dtype=np.uint64))

    def at(self, positions: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " chosen"]:
        """Entries at the given positions."""
        if self._order is not None:
            return self._order[positions]
        return self._walk(positions, range(FEISTEL_ROUNDS))

    def places(self, entries: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " chosen"]:
        """Positions of the given entries; the inverse of `at`."""
        if self._order is not None:
            inverse = np.empty(self.length, np.int64)
            inverse[self._order] = np.arange(self.length)
            return inverse[entries]
        return self._walk(entries, range(FEISTEL_ROUNDS - 1, -1, -1))

    def _walk(self, values: Int[np.ndarray, " chosen"], rounds: range) -> Int[np.ndarray, " chosen"]:
        mixed = self._scramble(np.asarray(values).astype(np.uint64), rounds)
        while len(outside := np.flatnonzero(mixed >= self.length)):
            mixed[outside] = self._scramble(mixed[outside], rounds)
        return mixed.astype(np.int64)

    def _scramble(self, values: UInt64[np.ndarray, " chosen"], rounds: range) -> UInt64[np.ndarray, " chosen"]:
        high, low = values >> self._low, values & self._masks[1]
        for number in rounds:
            if number % 2:
                low = low ^ (mix64(high + self._keys[number]) & self._masks[1])
            else:
                high = high ^ (mix64(low + self._keys[number]) & self._masks[0])
        return (high << self._low) | low
