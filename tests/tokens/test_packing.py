"""Catches tokens lost or doubled in packing, documents split without need, and wrong segments or positions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.tokens.packing import Batch, pack_documents, windows


def segments_of(batch: Batch) -> list[tuple[list[int], int]]:
    """Tokens and stream of each segment, with a check of segment numbers and positions."""
    found = []
    for row in range(len(batch.tokens)):
        real = int((batch.segments[row] >= 0).sum())
        assert (batch.segments[row, real:] == -1).all()
        assert (batch.stream[row, real:] == -1).all()
        assert (batch.positions[row, real:] == 0).all()
        steps = np.diff(batch.segments[row, :real])
        assert batch.segments[row, 0] == 0
        assert set(steps.tolist()) <= {0, 1}
        for part in np.split(np.arange(real), np.flatnonzero(steps) + 1):
            assert np.array_equal(batch.positions[row, part], np.arange(len(part)))
            (stream,) = set(batch.stream[row, part].tolist())
            found.append((batch.tokens[row, part].tolist(), stream))
    return found


def targets_of(batches: list[Batch]) -> list[tuple[int, int]]:
    """All (token, next token) transitions that a trainer predicts."""
    return [pair for batch in batches for tokens, _ in segments_of(batch) for pair in pairwise(tokens)]


def test_small_example() -> None:
    batch, rest = pack_documents(
        [np.array([5, 6]), np.array([7]), np.array([8, 9, 10])], ["speech", "text", "speech"], 8, batch_rows=1
    )
    assert batch.tokens.tolist() == [[0, 5, 6, 0, 0, 7, 0, 0]]
    assert batch.segments.tolist() == [[0, 0, 0, 0, 1, 1, 1, -1]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0]]
    assert batch.stream.tolist() == [[0, 0, 0, 0, 1, 1, 1, -1]]
    assert rest.tokens.tolist() == [[0, 8, 9, 10, 0, 0, 0, 0]]
    dtypes = (batch.tokens.dtype, batch.segments.dtype, batch.positions.dtype, batch.stream.dtype)
    assert dtypes == (np.int64, np.int32, np.int32, np.int8)


def test_windows() -> None:
    assert windows(10, 4) == [(0, 4), (3, 7), (6, 10)]
    assert windows(11, 4) == [(0, 4), (3, 7), (6, 10), (9, 11)]
    assert windows(4, 4) == [(0, 4)]
    assert windows(5, 4) == [(0, 4), (3, 5)]


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), max_size=40),
    context=st.integers(4, 40),
    batch_rows=st.integers(1, 5),
)
def test_every_token_is_predicted_exactly_once(lengths: list[int], context: int, batch_rows: int) -> None:
    borders = np.cumsum([1, *lengths])
    documents = [np.arange(start, start + length) for start, length in zip(borders[:-1], lengths, strict=True)]
    streams = [("speech", "text", "interleaved")[number % 3] for number in range(len(lengths))]
    batches = pack_documents(documents, streams, context, batch_rows=batch_rows)
    framed = [[0, *document.tolist(), 0] for document in documents]
    expected = [pair for document in framed for pair in pairwise(document)]
    assert sorted(targets_of(batches)) == sorted(expected)
    whole = sorted((document, number % 3) for number, document in enumerate(framed) if len(document) <= context)
    delivered = [segment for batch in batches for segment in segments_of(batch)]
    assert [segment for segment in sorted(delivered) if segment in whole] == whole
    assert all(batch.tokens.shape == (batch_rows, context) for batch in batches[:-1])


def test_own_end_token_and_short_context() -> None:
    (batch,) = pack_documents([np.array([3])], ["text"], 4, eos_id=9)
    assert batch.tokens.tolist() == [[9, 3, 9, 9]]
    assert pack_documents([], [], 4) == []
    with pytest.raises(DataError, match="context 3"):
        pack_documents([np.array([3])], ["text"], 3)
