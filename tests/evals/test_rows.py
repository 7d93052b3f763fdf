"""Would catch: a token that is scored twice or never, an ending read at the place of another, windows with gaps."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from speechscale.evals.branches import branches_of
from speechscale.evals.rows import alone, common_opening, cut_pieces, make_batches, make_rows

SEQUENCES = st.lists(
    st.lists(st.integers(1, 3), min_size=1, max_size=14).map(lambda ids: np.array([0, *ids])), min_size=1, max_size=8
)


@given(lengths=st.lists(st.integers(2, 60), min_size=1, max_size=5), window=st.integers(2, 20))
def test_windows_score_every_token_once_and_see_half_a_window(lengths: list[int], window: int) -> None:
    sequences = [np.arange(length) for length in lengths]
    scored: dict[int, list[int]] = {number: [] for number in range(len(lengths))}
    for piece in cut_pieces(sequences, window):
        assert len(piece.ids) <= window
        assert (piece.ids == sequences[piece.sequence][piece.start : piece.start + len(piece.ids)]).all()
        assert piece.scored >= 1
        assert piece.start == 0 or piece.scored >= window - max(1, window // 2), "what is before it"
        assert piece.last == (piece.start + len(piece.ids) == lengths[piece.sequence])
        scored[piece.sequence] += range(piece.start + piece.scored, piece.start + len(piece.ids))
    for number, length in enumerate(lengths):
        assert scored[number] == list(range(1, length))


@given(sequences=SEQUENCES, longest=st.none() | st.integers(1, 30), batch_tokens=st.integers(1, 80))
def test_every_token_of_every_sequence_has_one_place(
    sequences: list[np.ndarray], longest: int | None, batch_tokens: int
) -> None:
    rows = make_rows(cut_pieces(sequences, None), share=True, longest=longest)
    batched = [row for batch in make_batches(rows, batch_tokens) for row in batch]
    assert sorted(id(row) for row in batched) == sorted(id(row) for row in rows)
    seen = []
    for row in rows:
        for branch, (piece, places, end) in enumerate(zip(row.pieces, row.places(), row.ends(), strict=True), start=1):
            seen.append(piece.sequence)
            ids = sequences[piece.sequence]
            assert (row.tokens[places] == ids[1:]).all()
            assert (row.positions[places] == np.arange(1, len(ids))).all()
            assert row.tokens[end] == ids[-1]
            before = row.source[places]
            assert (row.tokens[before] == ids[:-1]).all(), "each token is predicted behind the one before it"
            if row.masked:  # and sees nothing of another ending
                assert set(row.branch[places].tolist()) <= {0, branch}
    assert sorted(seen) == list(range(len(sequences)))


@given(sequences=SEQUENCES)
def test_branches_are_where_the_rows_lie(sequences: list[np.ndarray]) -> None:
    rows = [row for row in make_rows(cut_pieces(sequences, None), share=True) if row.masked]
    joined = np.concatenate([np.zeros(0, np.int64), *(row.tokens for row in rows)])
    for row, place in zip(rows, branches_of(rows), strict=True):
        at = place.start + place.shared
        opening = joined[place.start : at]
        for piece, length in zip(row.pieces, place.endings, strict=True):
            assert (np.concatenate([opening, joined[at : at + length]]) == piece.ids).all()
            at += length


def test_alone_undoes_a_row() -> None:
    (row,) = make_rows(cut_pieces([np.array([0, 1, 2, 3]), np.array([0, 1, 2, 4])], None), share=True)
    assert (row.shared, row.tokens.tolist()) == (3, [0, 1, 2, 3, 4])
    assert [single.tokens.tolist() for single in alone(row)] == [[0, 1, 2, 3], [0, 1, 2, 4]]
    assert common_opening(np.array([0, 4, 5]), np.array([0, 4])) == 2
