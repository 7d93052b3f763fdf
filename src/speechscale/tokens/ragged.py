"""Ragged integer arrays and counter-based random numbers: what the token modules compute with.

Enters: flat arrays with offsets; integers that name a draw. Leaves: gathered rows; reproducible uint64 noise.
The one decision worth knowing: random numbers are a hash of what they are for (seed, utterance, epoch, draw), not the
next value of a stream, so no result depends on order, batch or number of workers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt64

MASK_64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


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


def to_unit_interval(bits: UInt64[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    """Turn random bits into floats in [0, 1) with 53 bits each."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(length: int, *names: int) -> Int[np.ndarray, " length"]:
    """Shuffle range(length); a pure function of the names."""
    return np.argsort(draw_bits(*names, np.arange(length, dtype=np.uint64)), kind="stable")
