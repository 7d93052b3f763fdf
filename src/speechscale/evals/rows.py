"""Token sequences become rows of batches, with everything that several sequences share computed once.

Enters: sequences of token ids. Leaves: batches of `Row`s and, for every row, which output predicts which token.
The one decision worth knowing: neighbors that open alike (the candidates of one item) become one row, their common
opening first and all endings behind it, none of which sees another; that needs one pass, no cache to copy, and no
padding between openings of different length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

Ids = Int[np.ndarray, " tokens"]
SHARE_FROM = 0.25
"""Tokens saved over tokens without sharing, from which a masked row beats plain rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of a sequence that fits the model.

    Args:
        sequence: its number. start: where `ids` begin in it. scored: first place in `ids` whose log-probability counts,
            at least 1. last: whether the sequence ends here.
    """

    sequence: int
    ids: Ids
    start: int = 0
    scored: int = 1
    last: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a batch: one piece, or the common opening of several followed by their endings.

    Args:
        shared: tokens of the common opening. tokens, positions: of the row.
        source: position in the row whose output predicts each token; the first has none (-1).
        branch: 0 for the opening (and for a lone piece), 1, 2, ... for the endings.
    """

    pieces: tuple[Piece, ...]
    shared: int
    tokens: Ids
    positions: Ids
    source: Ids
    branch: Ids

    @property
    def masked(self) -> bool:
        return len(self.pieces) > 1

    def places(self) -> list[Ids]:
        """Per piece the places in the row of its scored tokens."""
        found, start = [], self.shared
        for piece in self.pieces:
            end = start + len(piece.ids) - self.shared
            first = start + max(0, piece.scored - self.shared)
            found.append(np.concatenate([np.arange(piece.scored, self.shared), np.arange(first, end)]))
            start = end
        return found

    def ends(self) -> list[int]:
        """Per piece the place in the row of its last token."""
        sizes = [len(piece.ids) - self.shared for piece in self.pieces]
        stops = self.shared + np.cumsum(sizes)
        return [int(stop) - 1 if size else self.shared - 1 for stop, size in zip(stops, sizes, strict=True)]


def cut_pieces(sequences: Sequence[Ids], window: int | None) -> list[Piece]:
    """Pieces of all sequences: one each, or overlapping windows of those longer than `window`.

    Each window begins half a window behind the one before and scores what that one has not, so every token but the
    first ones sees at least half a window before it.
    """
    pieces = []
    for number, ids in enumerate(sequences):
        if window is None or len(ids) <= window:
            pieces.append(Piece(sequence=number, ids=ids))
            continue
        done, start, step = 1, 0, max(1, window // 2)
        while done < len(ids):
            stop = min(start + window, len(ids))
            last = stop == len(ids)
            pieces.append(Piece(sequence=number, ids=ids[start:stop], start=start, scored=done - start, last=last))
            done, start = stop, start + step
    return pieces


def make_rows(pieces: Sequence[Piece], *, share: bool, longest: int | None = None) -> list[Row]:
    """Join neighbors that open alike, where it pays.

    Args:
        longest: tokens that a row of more than two may have; None: no limit.
    """
    rows, i = [], 0
    while i < len(pieces):
        count, opening = (
            _alike([piece.ids for piece in pieces[i : i + 64]], longest) if share and _plain(pieces[i]) else (1, 1)
        )
        rows.append(_row(pieces[i : i + count], opening if count > 1 else 1))
        i += count
    return rows


def alone(row: Row) -> list[Row]:
    """The pieces of a row, each in a row of its own."""
    return [_row((piece,), 1) for piece in row.pieces]


def _plain(piece: Piece) -> bool:
    return piece.start == 0 and piece.last


def _alike(sequences: Sequence[Ids], longest: int | None) -> tuple[int, int]:
    """How many of these sequences, from the first, go into one row, and how many tokens they share."""
    opening, total, best = len(sequences[0]), len(sequences[0]), (1, 1)
    for count, ids in enumerate(sequences[1:], start=2):
        opening = min(opening, common_opening(sequences[0], ids))
        total += len(ids)
        saved = (count - 1) * opening
        if saved < SHARE_FROM * total or (count > 2 and longest is not None and total - saved > longest):
            break
        best = (count, opening)
    return best


def common_opening(a: Ids, b: Ids) -> int:
    """Length of the common opening. Example: [0, 4, 5], [0, 4, 6, 7] -> 2"""
    shorter = min(len(a), len(b))
    differ = np.flatnonzero(a[:shorter] != b[:shorter])
    return int(differ[0]) if len(differ) else shorter


def _row(pieces: Sequence[Piece], shared: int) -> Row:
    first = pieces[0].ids
    if len(pieces) == 1:
        positions = np.arange(len(first))
        return Row(
            pieces=(pieces[0],),
            shared=1,
            tokens=first,
            positions=positions,
            source=positions - 1,
            branch=np.zeros(len(first), np.int64),
        )
    sizes = [len(piece.ids) - shared for piece in pieces]
    branch = np.repeat(np.arange(len(pieces) + 1), [shared, *sizes])
    source = np.arange(len(branch)) - 1
    starts = shared + np.cumsum([0, *sizes[:-1]])
    source[[start for start, size in zip(starts, sizes, strict=True) if size]] = shared - 1
    return Row(
        pieces=tuple(pieces),
        shared=shared,
        tokens=np.concatenate([first[:shared], *(piece.ids[shared:] for piece in pieces)]),
        positions=np.concatenate([np.arange(shared), *(np.arange(shared, len(piece.ids)) for piece in pieces)]),
        source=source,
        branch=branch,
    )


def make_batches(rows: Sequence[Row], batch_tokens: int) -> Iterator[list[Row]]:
    """Group rows of like length; rows that need a mask stay apart from rows that do not. Longest first."""
    order = sorted(rows, key=lambda row: (row.masked, len(row.tokens), -row.pieces[0].sequence), reverse=True)
    batch: list[Row] = []
    for row in order:
        widest = len(batch[0].tokens) if batch else 0
        if batch and (batch[0].masked != row.masked or (len(batch) + 1) * widest > batch_tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
