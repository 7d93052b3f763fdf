"""Distances between unit sequences, all of one set to all of another.

Enters: two lists of sequences. Leaves: a matrix of distances in [0, 1], each divided by the longer length.
The one decision worth knowing: a column of the edit table is two 64-bit words per pair (its steps up and down), so a
unit costs a dozen numpy operations for all pairs at once, whatever the length of the other word.

Source: Myers 1999 (bit-parallel edit distance), in the form of Hyyrö 2003; Sakoe and Chiba 1978 (DTW).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from speechscale.speech.retrieval import edit_distances

WORD_BITS = 64
"""Longest pattern of one machine word; longer ones take the plain table."""
BLOCK_PAIRS = 2**14
"""Pairs worked on at once: the state of so many stays in the cache."""

Units = Int[np.ndarray, " units"]


def edit_matrix(a: Sequence[Units], b: Sequence[Units]) -> Float[np.ndarray, "a b"]:
    """Edit distance (insert, delete, replace cost 1) over the longer length. Two empty sequences have distance 0.

    Example: [[1, 2, 3]], [[1, 3], [1, 2, 3]] -> [[1/3, 0]]
    """
    lengths_a, lengths_b = _lengths(a), _lengths(b)
    counts = np.zeros((len(a), len(b)), np.int64)
    short = np.flatnonzero((lengths_a > 0) & (lengths_a <= WORD_BITS))
    texts, text_lengths, order = _sorted_texts(b)
    if len(short) and len(b):
        patterns = [a[i] for i in short.tolist()]
        masks = _masks(patterns, texts)
        rows = max(1, BLOCK_PAIRS // len(b))
        for first in range(0, len(short), rows):
            part = slice(first, first + rows)
            counts[np.ix_(short[part], order)] = _bit_parallel(masks[part], lengths_a[short[part]], texts, text_lengths)
    for i in np.flatnonzero(lengths_a > WORD_BITS).tolist():
        counts[i, order] = edit_distances(a[i], texts, text_lengths)
    empty = lengths_a == 0
    counts[empty] = lengths_b
    return counts / np.maximum(np.maximum(lengths_a[:, None], lengths_b), 1)


def dtw_matrix(a: Sequence[Units], b: Sequence[Units]) -> Float[np.ndarray, "a b"]:
    """Cost of the best warping path between frame sequences (0 for equal units, 1 otherwise) over the longer length.

    Frames are warped onto each other, none is inserted or deleted; no sequence is empty.

    Example: [[1, 1, 2]], [[1, 2, 2]] -> [[0]]
    """
    texts, text_lengths, order = _sorted_texts(b)
    found = np.empty((len(a), len(b)))
    for i, pattern in enumerate(a):
        found[i, order] = _warped(np.asarray(pattern), texts, text_lengths)
    return found / np.maximum(_lengths(a)[:, None], _lengths(b))


def _lengths(sequences: Sequence[Units]) -> Int[np.ndarray, " n"]:
    return np.array([len(sequence) for sequence in sequences], np.int64)


def _sorted_texts(sequences: Sequence[Units]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sequences padded by -1, longest first, so that those still read are always the first; lengths; their order."""
    lengths = _lengths(sequences)
    order = np.argsort(-lengths, kind="stable")
    texts = np.full((len(sequences), int(lengths.max(initial=0))), -1, np.int64)
    for row, i in zip(texts, order, strict=True):
        row[: lengths[i]] = sequences[i]
    return texts, lengths[order], order


def _masks(patterns: Sequence[Units], texts: Int[np.ndarray, "b longest"]) -> np.ndarray:
    """Bit j of [i, u]: pattern i has unit u at place j."""
    symbols = int(max(texts.max(initial=0), max(int(pattern.max()) for pattern in patterns))) + 1
    masks = np.zeros((len(patterns), symbols), np.uint64)
    for row, pattern in zip(masks, patterns, strict=True):
        np.bitwise_or.at(row, np.asarray(pattern, np.int64), np.uint64(1) << np.arange(len(pattern), dtype=np.uint64))
    return masks


def _bit_parallel(
    masks: np.ndarray,
    lengths: Int[np.ndarray, " a"],
    texts: Int[np.ndarray, "b longest"],
    text_lengths: Int[np.ndarray, " b"],
) -> Int[np.ndarray, "a b"]:
    """Edit distances of patterns (by their masks) to texts, longest text first."""
    one = np.uint64(1)
    last = (lengths - 1).astype(np.uint64)[:, None]
    shape = (len(masks), len(texts))
    up, down = np.full(shape, ~np.uint64(0)), np.zeros(shape, np.uint64)
    score = np.repeat(lengths[:, None], len(texts), axis=1)
    for step in range(texts.shape[1]):
        live = int(np.searchsorted(-text_lengths, -step, side="left"))  # texts longer than `step`
        if live < up.shape[1]:
            up, down = np.ascontiguousarray(up[:, :live]), np.ascontiguousarray(down[:, :live])
        equal = masks[:, texts[:live, step]]
        free = equal | down
        diagonal = (((equal & up) + up) ^ up) | free  # the carry runs along matches; it may overflow, as meant
        right_up = down | ~(diagonal | up)
        right_down = up & diagonal
        score[:, :live] += ((right_up >> last) & one).astype(np.int64) - ((right_down >> last) & one).astype(np.int64)
        right_up = (right_up << one) | one
        right_down <<= one
        up = right_down | ~(diagonal | right_up)
        down = right_up & diagonal
    return score


def _warped(
    pattern: Int[np.ndarray, " frames"], texts: Int[np.ndarray, "b longest"], text_lengths: Int[np.ndarray, " b"]
) -> Int[np.ndarray, " b"]:
    """Least cost of warping one sequence onto each text.

    Within a row, cost[j] = own[j] + min(entry[j], cost[j - 1]); with running sums S of own that is
    S[j] + min over k <= j of (entry[k] - S[k - 1]), a running minimum.
    """
    row = None
    for unit in pattern:
        own = (texts != unit).astype(np.int32)
        sums = own.cumsum(axis=1, dtype=np.int32)
        if row is None:
            row = sums
            continue
        entry = row.copy()
        np.minimum(entry[:, 1:], row[:, :-1], out=entry[:, 1:])
        row = np.minimum.accumulate(entry - (sums - own), axis=1) + sums
    assert row is not None, "an empty sequence cannot be warped"
    return row[np.arange(len(texts)), text_lengths - 1]
