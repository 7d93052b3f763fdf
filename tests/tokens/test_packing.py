"""Catches tokens lost or doubled in packing, documents split without need, and wrong segments or positions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.records import offsets
from speechscale.tokens.packing import (
    Batch,
    IdTables,
    Pack,
    Row,
    assemble,
    best_fit,
    pack_block,
    pack_documents,
    windows,
)
from speechscale.tokens.ragged import Ragged


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
    documents = [np.array([5, 6]), np.array([7]), np.array([8, 9]), np.array([8, 9, 10])]
    batches = pack_documents(documents, ["speech", "text", "speech", "speech"], 9, batch_rows=1)
    found = {
        tuple(batch.tokens[0].tolist()): (batch.segments[0], batch.positions[0], batch.stream[0]) for batch in batches
    }
    expected = {
        (0, 8, 9, 10, 0, 0, 5, 6, 0): ([0, 0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 3, 4, 0, 1, 2, 3], [0] * 9),
        (0, 8, 9, 0, 0, 0, 0, 0, 0): ([0] * 4 + [-1] * 5, [0, 1, 2, 3, 0, 0, 0, 0, 0], [0] * 4 + [-1] * 5),
        (0, 7, 0, 0, 0, 0, 0, 0, 0): ([0] * 3 + [-1] * 6, [0, 1, 2, 0, 0, 0, 0, 0, 0], [1] * 3 + [-1] * 6),
    }
    assert {row: tuple(map(np.ndarray.tolist, rest)) for row, rest in found.items()} == expected
    assert [batch.tokens[0].tolist() for batch in batches] == [
        batch.tokens[0].tolist()
        for batch in pack_documents(documents, ["speech", "text", "speech", "speech"], 9, batch_rows=1)
    ]
    dtypes = tuple(getattr(batches[0], name).dtype for name in ("tokens", "segments", "positions", "stream"))
    assert dtypes == (np.int64, np.int32, np.int32, np.int8)


def test_windows() -> None:
    def cut(length: int, context: int) -> list[tuple[int, int]]:
        begins, lengths = windows(np.array([100]), np.array([length]), context)
        return [(b - 100, b - 100 + n) for b, n in zip(begins.tolist(), lengths.tolist(), strict=True)]

    assert cut(10, 4) == [(0, 4), (3, 7), (6, 10)]
    assert cut(11, 4) == [(0, 4), (3, 7), (6, 10), (9, 11)]
    assert cut(4, 4) == [(0, 4)]
    assert cut(5, 4) == [(0, 4), (3, 5)]


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(2, 40), max_size=60), spare=st.integers(0, 40))
def test_best_fit_uses_every_piece_once_and_leaves_no_room_for_another(lengths: list[int], spare: int) -> None:
    context = max([2, *lengths]) + spare
    order, borders = best_fit(np.array(lengths, np.int64), context)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    left = list(range(len(lengths)))
    for start, stop in pairwise(borders.tolist()):
        row = order[start:stop].tolist()
        room = context - sum(lengths[piece] for piece in row)
        left = [piece for piece in left if piece not in row]
        assert room >= 0
        assert all(lengths[piece] > room for piece in left)


@pytest.mark.parametrize(("context", "mean", "fill"), [(2048, 260, 0.995), (2048, 700, 0.985), (512, 130, 0.99)])
def test_best_fit_fills_rows(context: int, mean: int, fill: float) -> None:
    """A block of 512 rows of documents with log-normal lengths; 700 is a third of the context, the worst of these."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(mean), 0.5, 512 * context // mean).astype(int), 2, context)
    _, borders = best_fit(lengths, context)
    assert lengths.sum() / ((len(borders) - 1) * context) > fill


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


def tables(size: int) -> IdTables:
    """Ids 0 marker, then text and speech in turns."""
    kinds = np.array([2, *(n % 2 for n in range(size - 1))], np.int8)
    return IdTables(0, kinds, np.where(kinds == 1, 3, 0))


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=30),
    context=st.integers(4, 40),
    pack=st.sampled_from(["best_fit", "stream"]),
    seed=st.integers(0, 99),
)
def test_rows_say_what_they_hold(lengths: list[int], context: int, pack: Pack, seed: int) -> None:
    """Counts per row, in any order of the rows, against a count of the assembled arrays."""
    rng = np.random.default_rng(seed)
    bodies = Ragged(rng.integers(1, 50, sum(lengths)).astype(np.int32), offsets(lengths))
    ids = tables(50)
    block = pack_block(bodies, ids, context, pack=pack)
    block = block.take(rng.permutation(len(block)))
    batch = assemble([Row(block, number, 1) for number in range(len(block))], context, 0)
    for row in range(len(block)):
        real = batch.segments[row] >= 0
        kinds = ids.modality[batch.tokens[row][real]]
        assert block.tokens[row] == real.sum()
        assert block.kinds[row].tolist() == np.bincount(kinds, minlength=3).tolist()
        assert block.units[row] == 3 * (kinds == 1).sum()
        assert block.pieces[row] == batch.segments[row].max() + 1
    assert sorted(block.closed.flat.tolist()) == list(range(len(lengths)))
    cut = block.closed.lengths.sum() - block.split.sum()
    if pack == "best_fit":
        assert cut == sum(length + 2 <= context for length in lengths)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 60), min_size=1, max_size=30), context=st.integers(4, 40))
def test_stream_packing_is_one_chain_cut_where_rows_are_full(lengths: list[int], context: int) -> None:
    borders = np.cumsum([1, *lengths])
    bodies = Ragged(np.arange(1, borders[-1], dtype=np.int32), offsets(lengths))
    block = pack_block(bodies, IdTables(0, np.zeros(borders[-1] + 1, np.int8)), context, pack="stream")
    batch = assemble([Row(block, number, 0) for number in range(len(block))], context, 0)
    chain = [0]
    for body in bodies.rows():
        chain += [*body.tolist(), 0]
    assert (batch.segments[:-1] == 0).all()
    assert (batch.positions[:-1] == np.arange(context)).all()
    found = [chain[0]]
    for row in range(len(block)):
        real = batch.tokens[row][batch.segments[row] >= 0].tolist()
        assert real[0] == found[-1], "rows overlap by one token"
        found += real[1:]
    assert found == chain
