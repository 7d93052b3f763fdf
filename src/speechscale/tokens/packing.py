"""Packing: whole documents into rows of fixed length.

Enters: documents as ragged token ids. Leaves: `Batch`es of numpy arrays.
The one decision worth knowing: every document is `<eos> tokens <eos>`, the first only an input and the last only a
target, and is kept whole where it fits; a longer one becomes windows that overlap by one token, so that every token
after the first is predicted exactly once.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int8

from speechscale.errors import DataError
from speechscale.records import offsets
from speechscale.tokens.ragged import Ragged, ragged_arange
from speechscale.tokens.store import STREAMS

LOOKAHEAD_PIECES = 256
PADDING = -1


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of packed documents.

    Args:
        tokens: ids, `<eos>` where padded. segments: document number inside the row, -1 = padding.
        positions: restart at 0 in each segment. stream: 0 speech, 1 text, 2 interleaved, -1 = padding.

    A target is the next token of the same segment; nothing is predicted across segments.
    """

    tokens: Int[np.ndarray, "B T"]
    segments: Int[np.ndarray, "B T"]
    positions: Int[np.ndarray, "B T"]
    stream: Int8[np.ndarray, "B T"]


class Piece(NamedTuple):
    """A document or a window of one, waiting for a row: `flat[start:stop]`."""

    flat: Int[np.ndarray, " chunk"]
    start: int
    stop: int
    stream: int
    epoch: int
    document: int
    opens: bool
    closes: bool

    @property
    def length(self) -> int:
        return self.stop - self.start


def frame_documents(bodies: Ragged, eos_id: int) -> Ragged:
    """Put `<eos>` in front of and behind each document."""
    shifted = bodies.offsets + 2 * np.arange(len(bodies.offsets))
    flat = np.full(int(shifted[-1]), eos_id, np.int32)
    flat[ragged_arange(shifted[:-1] + 1, bodies.lengths)] = bodies.flat
    return Ragged(flat, shifted)


def windows(length: int, context: int) -> list[tuple[int, int]]:
    """Cut [0, length) into windows of at most `context` that share one token. Example: 10, 4 -> 0:4, 3:7, 6:10"""
    if length <= context:
        return [(0, length)]
    return [(start, min(start + context, length)) for start in range(0, length - 1, context - 1)]


class Packer:
    """Packing over a buffer: a row takes the oldest pieces while they fit, then the longest ones that fill the rest.

    Oldest first keeps the order of the draws (and so the mixture) to within the buffer, and lets no piece wait long.
    """

    def __init__(self, context: int, lookahead: int = LOOKAHEAD_PIECES) -> None:
        if context < 4:
            raise DataError(f"context {context}: a row needs room for at least 4 tokens")
        self.context = context
        self.lookahead = lookahead
        self._arrived = 0
        self._waiting: dict[int, Piece] = {}
        self._by_length: list[tuple[int, int]] = []  # (length, -arrival): among equals the oldest comes last

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def hungry(self) -> bool:
        return len(self._waiting) < self.lookahead

    def add(self, piece: Piece) -> None:
        for start, stop in windows(piece.length, self.context):
            part = piece._replace(
                start=piece.start + start, stop=piece.start + stop, opens=start == 0, closes=stop == piece.length
            )
            self._waiting[self._arrived] = part
            insort(self._by_length, (part.length, -self._arrived))
            self._arrived += 1

    def row(self) -> list[Piece]:
        """Take the pieces of the next row out of the buffer."""
        row: list[Piece] = []
        room = self.context
        while self._waiting and (length := self._waiting[arrival := next(iter(self._waiting))].length) <= room:
            self._by_length.pop(bisect_right(self._by_length, (length, -arrival)) - 1)
            row.append(self._waiting.pop(arrival))
            room -= length
        while (best := bisect_right(self._by_length, (room, 1)) - 1) >= 0:
            length, negative = self._by_length.pop(best)
            row.append(self._waiting.pop(-negative))
            room -= length
        return row


def assemble(rows: Sequence[Sequence[Piece]], context: int, eos_id: int) -> Batch:
    """Copy the pieces of each row into arrays (rows, context)."""
    pieces = [piece for row in rows for piece in row]
    lengths = np.array([piece.length for piece in pieces], np.int64)
    counts = np.array([len(row) for row in rows])
    first = np.cumsum(counts) - counts
    begins = np.cumsum(lengths) - lengths
    begins += np.repeat(np.arange(len(rows)) * context - begins[first], counts)
    places = ragged_arange(begins, lengths)

    def fill(padding: int, dtype: type[np.generic], values: np.ndarray) -> np.ndarray:
        out: np.ndarray = np.full(len(rows) * context, padding, dtype)
        out[places] = values
        return out.reshape(len(rows), context)

    numbers = np.arange(len(pieces)) - np.repeat(first, counts)
    return Batch(
        tokens=fill(eos_id, np.int64, np.concatenate([piece.flat[piece.start : piece.stop] for piece in pieces])),
        segments=fill(PADDING, np.int32, np.repeat(numbers, lengths)),
        positions=fill(0, np.int32, places - np.repeat(begins, lengths)),
        stream=fill(PADDING, np.int8, np.repeat([piece.stream for piece in pieces], lengths)),
    )


def pack_documents(
    documents: Sequence[Int[np.ndarray, " tokens"]],
    streams: Sequence[str],
    context: int,
    *,
    eos_id: int = 0,
    batch_rows: int = 16,
) -> list[Batch]:
    """Pack every document exactly once, e.g. a validation set; the last batch may have fewer rows.

    Args:
        documents: ids without `<eos>`, which is added. streams: name of the stream of each document.
    """
    lengths = [len(document) for document in documents]
    bodies = Ragged(np.concatenate([np.zeros(0, np.int32), *documents]), offsets(lengths))
    flat, borders = frame_documents(bodies, eos_id)
    packer = Packer(context, lookahead=8 * LOOKAHEAD_PIECES)
    rows = []
    for number, (start, stop, stream) in enumerate(zip(borders[:-1], borders[1:], streams, strict=True)):
        packer.add(Piece(flat, int(start), int(stop), STREAMS.index(stream), 0, number, True, True))
        while not packer.hungry:
            rows.append(packer.row())
    while len(packer):
        rows.append(packer.row())
    return [assemble(rows[i : i + batch_rows], context, eos_id) for i in range(0, len(rows), batch_rows)]
