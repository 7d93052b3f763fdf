"""Rows: mix the streams by token share and hand out packed batches.

Enters: a `TokenStore`, a mixture {stream: token share}, the context length, a seed. Leaves: `Batch`es, counts.
The one decision worth knowing: the next document always comes from the stream that is furthest below its token share,
so shares hold over any prefix; batches are a pure function of (store, mixture, context, seed, batch number).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from speechscale.errors import DataError
from speechscale.tokens.interleave import InterleaveConfig
from speechscale.tokens.packing import (
    LOOKAHEAD_PIECES,
    Batch,
    Packer,
    Piece,
    assemble,
    frame_documents,
    pack_documents,
)
from speechscale.tokens.ragged import permutation
from speechscale.tokens.store import STREAMS, TokenStore

CHUNK_DOCUMENTS = 256
__all__ = ["Batch", "RowSampler", "RowStats", "pack_documents", "pack_store"]


class StreamReader:
    """Documents of one stream without end, in a new order each epoch; read in chunks."""

    def __init__(self, store: TokenStore, stream: str, interleave: InterleaveConfig, seed: int) -> None:
        self.store, self.stream, self.interleave, self.seed = store, stream, interleave, seed
        self.code = STREAMS.index(stream)
        self.documents = store.documents(stream)

    def __iter__(self) -> Iterator[Piece]:
        epoch = 0
        while True:
            order = permutation(self.documents, self.seed, self.code, epoch)
            for begin in range(0, self.documents, CHUNK_DOCUMENTS):
                chosen = order[begin : begin + CHUNK_DOCUMENTS]
                bodies = self.store.read(self.stream, chosen, epoch=epoch, interleave=self.interleave, seed=self.seed)
                flat, offsets = frame_documents(bodies, self.store.vocabulary.eos_id)
                borders = offsets.tolist()
                for index, document in enumerate(chosen.tolist()):
                    yield Piece(flat, borders[index], borders[index + 1], self.code, epoch, document, True, True)
            epoch += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RowStats:
    """What was delivered so far. Tokens exclude padding; each document counts both its `<eos>`.

    Args:
        tokens_seen: by stream. modality_tokens: by stream, then by "text", "speech", "marker" (markers and `<eos>`).
        target_tokens: tokens that are predicted (all but the first of each segment).
        tokens_unique: by stream, tokens of the first pass over it. epochs: by stream, passes over its documents.
        split_documents: documents longer than the context. fill: share of places that are not padding.
        speech_units_unique, speech_hours_unique: of all utterances delivered at least once, heard or interleaved.
    """

    tokens_seen: dict[str, int]
    modality_tokens: dict[str, dict[str, int]]
    target_tokens: int
    tokens_unique: dict[str, int]
    epochs: dict[str, float]
    documents: dict[str, int]
    split_documents: int
    rows: int
    fill: float
    speech_units_seen: int
    speech_units_unique: int
    speech_hours_unique: float


class _Tally:
    """Counts behind `RowStats`."""

    def __init__(self, store: TokenStore, streams: Sequence[str], context: int) -> None:
        self.store, self.streams, self.context = store, list(streams), context
        self.modality = store.vocabulary.modality_table()
        self.tokens = np.zeros((len(STREAMS), 3), np.int64)
        self.unique = [0] * len(STREAMS)
        self.documents = [0] * len(STREAMS)
        self.rows = self.pieces = self.split = 0
        self.touched = np.zeros(store.meta["counts"]["speech_documents"], bool)

    def add(self, rows: Sequence[Sequence[Piece]], batch: Batch) -> None:
        real = batch.segments >= 0
        codes = batch.stream[real].astype(np.int64) * 3 + self.modality[batch.tokens[real]]
        self.tokens += np.bincount(codes, minlength=self.tokens.size).reshape(self.tokens.shape)
        self.rows += len(rows)
        heard: dict[str, list[int]] = {stream: [] for stream in self.streams if stream != "text"}
        for piece in (piece for row in rows for piece in row):
            self.pieces += 1
            if piece.epoch == 0:
                self.unique[piece.stream] += piece.length
            if piece.closes:
                self.documents[piece.stream] += 1
                self.split += not piece.opens
            if STREAMS[piece.stream] in heard:
                heard[STREAMS[piece.stream]].append(piece.document)
        for stream, documents in heard.items():
            self.touched[self.store.speech_rows(stream, np.array(documents, np.int64))] = True

    def stats(self) -> RowStats:
        def by_stream(values: Sequence[int]) -> dict[str, int]:
            return {stream: int(values[STREAMS.index(stream)]) for stream in self.streams}

        total = int(self.tokens.sum())
        touched = np.flatnonzero(self.touched)
        units = np.diff(self.store.arrays["unit_offsets"]) if len(touched) else np.zeros(0, np.int64)
        modality = {
            s: dict(zip(("text", "speech", "marker"), self.tokens[STREAMS.index(s)].tolist(), strict=True))
            for s in self.streams
        }
        return RowStats(
            tokens_seen=by_stream(self.tokens.sum(axis=1).tolist()),
            modality_tokens=modality,
            target_tokens=total - self.pieces,
            tokens_unique=by_stream(self.unique),
            epochs={s: self.documents[STREAMS.index(s)] / self.store.documents(s) for s in self.streams},
            documents=by_stream(self.documents),
            split_documents=self.split,
            rows=self.rows,
            fill=total / (self.rows * self.context) if self.rows else math.nan,
            speech_units_seen=int(self.tokens[:, 1].sum()),
            speech_units_unique=int(units[touched].sum()),
            speech_hours_unique=self.store.hours(touched),
        )


class RowSampler:
    """Endless batches of packed rows, mixed by token share.

    Args:
        mixture: stream -> share of the tokens; shares are normalized.
        context: tokens per row. seed: order of the documents and interleaving.

    Raises:
        DataError: unknown stream, share not above 0, a stream without documents.
    """

    def __init__(
        self,
        store: TokenStore,
        mixture: Mapping[str, float],
        context: int,
        seed: int,
        interleave: InterleaveConfig | None = None,
        *,
        lookahead: int = LOOKAHEAD_PIECES,
    ) -> None:
        if not mixture or any(not 0 < share < math.inf for share in mixture.values()):
            raise DataError(f"mixture {dict(mixture)}: give each stream that is used a share above 0")
        for stream in mixture:
            if store.documents(stream) == 0:
                raise DataError(
                    f"mixture: the store has no '{stream}' documents for this vocabulary; add some or drop it"
                )
        total = sum(mixture.values())
        self.store = store
        self.mixture = {stream: mixture[stream] / total for stream in STREAMS if stream in mixture}
        self.context = context
        self.seed = seed
        self.interleave = interleave or InterleaveConfig()
        self.lookahead = lookahead
        self._tally = _Tally(store, list(self.mixture), context)

    def draws(self) -> Iterator[Piece]:
        """Documents in the order they are drawn: always from the stream that is furthest below its share.

        Over any prefix no stream is more than one document above its share, nor more than one document per other
        stream below it.
        """
        readers = [iter(StreamReader(self.store, stream, self.interleave, self.seed)) for stream in self.mixture]
        shares = list(self.mixture.values())
        missing = [0.0] * len(shares)  # share of all drawn tokens minus own drawn tokens
        while True:
            furthest = missing.index(max(missing))
            piece = next(readers[furthest])
            length = piece.length
            missing = [lack + share * length for lack, share in zip(missing, shares, strict=True)]
            missing[furthest] -= length
            yield piece

    def batches(self, batch_rows: int, *, max_tokens: float = math.inf, first_batch: int = 0) -> Iterator[Batch]:
        """Yield batches of `batch_rows` rows.

        Args:
            max_tokens: stop with the batch that reaches this many tokens (padding excluded).
            first_batch: resume here; the batches before are drawn and counted but not yielded.
        """
        tally = self._tally = _Tally(self.store, list(self.mixture), self.context)
        draws = self.draws()
        packer = Packer(self.context, self.lookahead)
        number = 0
        while tally.tokens.sum() < max_tokens:
            rows = []
            for _ in range(batch_rows):
                while packer.hungry:
                    packer.add(next(draws))
                rows.append(packer.row())
            batch = assemble(rows, self.context, self.store.vocabulary.eos_id)
            tally.add(rows, batch)
            if number >= first_batch:
                yield batch
            number += 1

    def stats(self) -> RowStats:
        """Count what the latest `batches` call has delivered."""
        return self._tally.stats()


def pack_store(
    store: TokenStore,
    streams: Iterable[str],
    context: int,
    *,
    interleave: InterleaveConfig | None = None,
    seed: int = 0,
    batch_rows: int = 16,
) -> list[Batch]:
    """Pack all documents of the given streams of a store once (interleaved ones as drawn in epoch 0)."""
    documents: list[np.ndarray] = []
    names: list[str] = []
    for stream in streams:
        every = np.arange(store.documents(stream))
        documents += store.read(stream, every, interleave=interleave, seed=seed).rows()
        names += [stream] * len(every)
    return pack_documents(documents, names, context, eos_id=store.vocabulary.eos_id, batch_rows=batch_rows)
