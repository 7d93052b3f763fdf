"""Packing: a block of documents into rows of fixed length.

Enters: token ids of a few hundred to a few thousand documents. Leaves: `PackedBlock`, and `Batch`es of its rows.
The one decision worth knowing: a block is packed by itself, so row j of block b is a pure function of the block and
nothing has to be replayed to reach it. Every document is `<eos> tokens <eos>`, the first only an input and the last
only a target; one longer than the context becomes windows that overlap by one token, so that every token after the
first is predicted exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int, Int8

from speechscale.errors import DataError
from speechscale.records import offsets
from speechscale.tokens.ragged import Ragged, Shuffle, gather_rows, ragged_arange
from speechscale.tokens.vocabulary import Vocabulary

STREAMS = ("speech", "text", "interleaved")
"""Names of the streams; the position is the code in `Batch.stream`."""
PADDING = -1
SMALLEST_CONTEXT = 4
Pack = Literal["best_fit", "stream"]


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


class Slices(NamedTuple):
    """Rows as slices of one flat array: slice s is `[begins[s], begins[s] + lengths[s])`, row r owns the slices
    `rows[r]:rows[r + 1]`. Each slice is a segment."""

    begins: Int[np.ndarray, " slices"]
    lengths: Int[np.ndarray, " slices"]
    rows: Int[np.ndarray, " rows1"]

    def __len__(self) -> int:
        return len(self.rows) - 1

    def take(self, order: Int[np.ndarray, " chosen"]) -> Slices:
        """The chosen rows, in the given order."""
        counts = self.rows[order + 1] - self.rows[order]
        which = ragged_arange(self.rows[order], counts)
        return Slices(self.begins[which], self.lengths[which], offsets(counts))


def frame_documents(bodies: Ragged, eos_id: int) -> Ragged:
    """Put `<eos>` in front of and behind each document."""
    shifted = bodies.offsets + 2 * np.arange(len(bodies.offsets))
    flat = np.full(int(shifted[-1]), eos_id, np.int32)
    flat[ragged_arange(shifted[:-1] + 1, bodies.lengths)] = bodies.flat
    return Ragged(flat, shifted)


def chain_documents(bodies: Ragged, eos_id: int) -> Ragged:
    """Make one stream `<eos> tokens <eos> tokens <eos> ...`; document i is `[offsets[i], offsets[i + 1])`."""
    shifted = bodies.offsets + np.arange(len(bodies.offsets)) + 1
    flat = np.full(int(shifted[-1]), eos_id, np.int32)
    flat[ragged_arange(shifted[:-1], bodies.lengths)] = bodies.flat
    return Ragged(flat, shifted)


def windows(
    starts: Int[np.ndarray, " pieces"], lengths: Int[np.ndarray, " pieces"], context: int
) -> tuple[Int[np.ndarray, " windows"], Int[np.ndarray, " windows"]]:
    """Cut pieces into windows of at most `context` that share one token; return their begins and lengths.

    Example: [0], [10], 4 -> [0, 3, 6], [4, 4, 4]
    """
    counts = np.maximum(-(-(lengths - 1) // (context - 1)), 1)
    inside = ragged_arange(np.zeros_like(counts), counts) * (context - 1)
    begins = np.repeat(starts, counts) + inside
    return begins, np.minimum(np.repeat(lengths, counts) - inside, context)


def best_fit(
    lengths: Int[np.ndarray, " pieces"], context: int
) -> tuple[Int[np.ndarray, " pieces"], Int[np.ndarray, " rows1"]]:
    """Fill rows one by one, each time with the longest piece that still fits, the oldest of equals first.

    Returns:
        Pieces in the order of their rows, and the row borders in that order. Every piece is used once.
    """
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    kinds, first = np.unique(ordered, return_index=True)
    following = dict(zip(kinds.tolist(), first.tolist(), strict=True))  # next piece of each length, in `order`
    ends = dict(zip(kinds.tolist(), np.append(first, len(order))[1:].tolist(), strict=True))
    available = sum(1 << length for length in following)  # bit l: a piece of length l is left
    taken: list[int] = []
    borders = [0]
    while available:
        room = context
        while (length := (available & ((2 << room) - 1)).bit_length() - 1) > 0:
            place = following[length]
            taken.append(place)
            following[length] = place + 1
            if place + 1 == ends[length]:
                available ^= 1 << length
            room -= length
        borders.append(len(taken))
    return order[np.array(taken, np.int64)], np.array(borders, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBlock:
    """Rows of one block.

    Args:
        flat: ids of its documents. slices: its rows. tokens, pieces: per row, padding excluded; segments per row.
        closed: per row the documents (numbers in the block) that end in it. split: how many of these began elsewhere.
        kinds: per row the tokens that are text, speech, markers or `<eos>`. units: per row the units they spell.
    """

    flat: Int[np.ndarray, " tokens"]
    slices: Slices
    tokens: Int[np.ndarray, " rows"]
    pieces: Int[np.ndarray, " rows"]
    closed: Ragged
    split: Int[np.ndarray, " rows"]
    kinds: Int[np.ndarray, "rows 3"]
    units: Int[np.ndarray, " rows"]

    def __len__(self) -> int:
        return len(self.slices)

    def take(self, order: Int[np.ndarray, " chosen"]) -> PackedBlock:
        """The chosen rows, in the given order."""
        return PackedBlock(
            flat=self.flat,
            slices=self.slices.take(order),
            tokens=self.tokens[order],
            pieces=self.pieces[order],
            closed=gather_rows(self.closed, order),
            split=self.split[order],
            kinds=self.kinds[order],
            units=self.units[order],
        )


@dataclass(frozen=True, slots=True)
class IdTables:
    """What packing must know of a vocabulary; made once, not per block.

    Args:
        modality: of each id. units: that each id spells; None: one per speech id (no subwords).
    """

    eos_id: int
    modality: Int8[np.ndarray, " V"]
    units: Int[np.ndarray, " V"] | None = None

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> IdTables:
        units = vocabulary.units_per_id() if vocabulary.subwords is not None else None
        return cls(vocabulary.eos_id, vocabulary.modality_table(), units)


def pack_block(
    bodies: Ragged,
    ids: IdTables,
    context: int,
    *,
    pack: Pack = "best_fit",
) -> PackedBlock:
    """Pack documents (ids without `<eos>`).

    Args:
        pack: "best_fit" keeps documents apart, each a segment with its own positions; "stream" chains them and cuts
            where a row is full, attention running across documents (Cuervo & Marxer 2024).

    Returns:
        Rows, those with the longest pieces first; see `PackedBlock.take`.

    Raises:
        DataError: a context below 4.
    """
    if context < SMALLEST_CONTEXT:
        raise DataError(f"context {context}: a row needs room for at least {SMALLEST_CONTEXT} tokens")
    if pack == "stream":
        framed = chain_documents(bodies, ids.eos_id)
        whole = np.array([len(framed.flat)]) if len(bodies.lengths) else np.zeros(0, np.int64)
        begins, lengths = windows(np.zeros_like(whole), whole, context)
        slices = Slices(begins, lengths, np.arange(len(begins) + 1))
    else:
        framed = frame_documents(bodies, ids.eos_id)
        begins, lengths = windows(framed.offsets[:-1], framed.lengths, context)
        chosen, borders = best_fit(lengths, context)
        slices = Slices(begins[chosen], lengths[chosen], borders)
    return _count(framed, slices, ids)


def _count(framed: Ragged, slices: Slices, ids: IdTables) -> PackedBlock:
    """Work out what each row holds."""
    row = np.repeat(np.arange(len(slices)), np.diff(slices.rows))
    stops = slices.begins + slices.lengths

    def per_row(values: Int[np.ndarray, " slices"]) -> Int[np.ndarray, " rows"]:
        sums = np.bincount(row, weights=values, minlength=len(slices))
        return sums.astype(np.int64)

    by_place = np.argsort(slices.begins, kind="stable")
    borders = np.stack([slices.begins[by_place], stops[by_place]], axis=1).ravel()

    def in_rows(values: np.ndarray) -> Int[np.ndarray, " rows"]:
        sums = np.zeros(len(slices.begins), np.int64)
        sums[by_place] = np.add.reduceat(np.append(values, values[:1]), borders, dtype=np.int64)[::2]
        return per_row(sums)

    kind = ids.modality[framed.flat]
    tokens = per_row(slices.lengths)
    speech, marker = (in_rows(kind == code) if len(kind) else tokens for code in (1, 2))
    kinds = [tokens - speech - marker, speech, marker]
    # A window's first token belongs to the window before it: a document that ends with it ended there.
    first = np.searchsorted(framed.offsets[1:], slices.begins + 1, side="right")
    last = np.searchsorted(framed.offsets[1:], stops, side="right")
    counts = per_row(last - first)
    return PackedBlock(
        flat=framed.flat,
        slices=slices,
        tokens=tokens,
        pieces=np.diff(slices.rows),
        closed=Ragged(ragged_arange(first, last - first), offsets(counts)),
        split=per_row((last > first) & (framed.offsets[np.minimum(first, len(framed.lengths))] < slices.begins)),
        kinds=np.stack(kinds, axis=1),
        units=speech if ids.units is None else in_rows(ids.units[framed.flat]),
    )


class Row(NamedTuple):
    """One row of a block, and the code of its stream."""

    block: PackedBlock
    number: int
    stream: int


def assemble(rows: Sequence[Row], context: int, eos_id: int) -> Batch:
    """Copy rows into arrays (rows, context)."""
    shape = (len(rows), context)
    padding = np.full(context, eos_id, np.int32)
    parts, lengths, numbers, streams = [], [], [], []
    for block, number, stream in rows:
        first, last = int(block.slices.rows[number]), int(block.slices.rows[number + 1])
        begins, sizes = block.slices.begins[first:last].tolist(), block.slices.lengths[first:last].tolist()
        parts += [block.flat[begin : begin + size] for begin, size in zip(begins, sizes, strict=True)]
        room = context - sum(sizes)
        parts.append(padding[:room])
        lengths += [*sizes, room]
        numbers += [*range(last - first), PADDING]
        streams += [stream] * (last - first) + [PADDING]
    sizes_array = np.array(lengths, np.int64)
    segments = np.repeat(np.array(numbers, np.int32), sizes_array)
    begins_array = (np.cumsum(sizes_array) - sizes_array).astype(np.int32)
    positions = np.arange(len(segments), dtype=np.int32) - np.repeat(begins_array, sizes_array)
    positions[segments == PADDING] = 0
    tokens = np.empty(len(segments), np.int64)
    np.concatenate(parts, out=tokens)
    return Batch(
        tokens=tokens.reshape(shape),
        segments=segments.reshape(shape),
        positions=positions.reshape(shape),
        stream=np.repeat(np.array(streams, np.int8), sizes_array).reshape(shape),
    )


def batches_of(rows: Sequence[Row], context: int, eos_id: int, batch_rows: int) -> list[Batch]:
    """All rows as batches; the last may have fewer rows."""
    return [assemble(rows[i : i + batch_rows], context, eos_id) for i in range(0, len(rows), batch_rows)]


def pack_documents(
    documents: Sequence[Int[np.ndarray, " tokens"]],
    streams: Sequence[str],
    context: int,
    *,
    eos_id: int = 0,
    batch_rows: int = 16,
) -> list[Batch]:
    """Pack documents at hand exactly once, without a store; rows hold one stream each and are shuffled.

    Args:
        documents: ids without `<eos>`, which is added. streams: name of the stream of each document.
    """
    size = 1 + max([eos_id, *(int(document.max()) for document in documents if len(document))])
    ids = IdTables(eos_id, np.zeros(size, np.int8))
    rows: list[Row] = []
    for code, name in enumerate(STREAMS):
        own = [document for document, stream in zip(documents, streams, strict=True) if stream == name]
        flat = np.concatenate([np.zeros(0, np.int32), *own])
        block = pack_block(Ragged(flat, offsets([len(document) for document in own])), ids, context)
        rows += [Row(block, number, code) for number in range(len(block))]
    order = Shuffle(len(rows), 0).at(np.arange(len(rows))).tolist()
    return batches_of([rows[place] for place in order], context, eos_id, batch_rows)
