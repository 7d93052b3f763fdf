"""Sources: the rows of one stream of one store, without end.

Enters: a `TokenStore`, a stream, the context, a seed. Leaves: `PackedBlock`s by number.
The one decision worth knowing: an epoch is a permutation of the documents, cut into blocks of equal size; block b is a
pure function of (store, stream, context, seed, b), so any of them can be made at any time, on any machine.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Int

from speechscale.errors import DataError
from speechscale.tokens.interleave import InterleaveConfig
from speechscale.tokens.packing import STREAMS, Batch, IdTables, Pack, PackedBlock, Row, batches_of, pack_block
from speechscale.tokens.ragged import Shuffle
from speechscale.tokens.store import TokenStore

CHUNK_UTTERANCES = 1 << 20
BLOCK_ROWS = 512
"""Rows that a block is made for: its last row, half empty on average, then costs 0.1 %."""


class Source(Protocol):
    """Rows of one kind."""

    @property
    def name(self) -> str:
        """Unique in its mixture."""
        ...

    @property
    def stream(self) -> str:
        """One of STREAMS."""
        ...

    @property
    def documents(self) -> int:
        """Documents in one epoch."""
        ...

    @property
    def blocks(self) -> int:
        """Blocks in one epoch."""
        ...

    @property
    def recipe(self) -> dict[str, Any]:
        """What defines its rows, for the record."""
        ...

    def block(self, number: int, progress: float) -> PackedBlock:
        """Block `number` of all epochs counted through; `progress` 0..1 of the training, for a curriculum."""
        ...

    def epoch_tokens(self) -> float:
        """Tokens of one epoch, at least roughly."""
        ...


@dataclass(frozen=True, slots=True)
class StoreSource:
    """One stream of a store, shuffled anew and packed in each epoch.

    Args:
        name: names the shuffle as well; two sources of one name and size have one order.
        pack: see `pack_block`. interleave: how the interleaved stream is drawn.

    Raises:
        DataError: unknown stream, or no documents of it.
    """

    store: TokenStore
    stream: str
    context: int
    seed: int
    name: str = ""
    pack: Pack = "best_fit"
    interleave: InterleaveConfig = field(default_factory=InterleaveConfig)
    documents: int = field(init=False)
    blocks: int = field(init=False)
    recipe: dict[str, Any] = field(init=False)
    _key: int = field(init=False)
    _ids: IdTables = field(init=False, repr=False)

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("name", self.name or self.stream)
        put("documents", self.store.documents(self.stream, self.interleave))
        if self.documents == 0:
            raise DataError(
                f"mixture: the store {self.store.folder} has no '{self.stream}' documents for this vocabulary; add "
                "some or drop it"
            )
        per_block = BLOCK_ROWS * self.context / mean_document_tokens(self.store, self.stream)
        put("blocks", max(1, min(self.documents, round(self.documents / per_block))))
        put("_key", name_key(self.name))
        put("_ids", IdTables.of(self.store.vocabulary))
        recipe: dict[str, Any] = {
            "store": self.store.fingerprint,
            "vocabulary": self.store.vocabulary.fingerprint,
            "stream": self.stream,
            "context": self.context,
            "pack": self.pack,
            "name": self.name,
            "seed": self.seed,
        }
        if self.stream == "interleaved":
            recipe["interleave"] = repr(self.interleave)
        put("recipe", recipe)

    def block_documents(self, number: int) -> Int[np.ndarray, " documents"]:
        epoch, block = divmod(number, self.blocks)
        first, last = (self.documents * (block + k) // self.blocks for k in (0, 1))
        return Shuffle(self.documents, self.seed, self._key, epoch).at(np.arange(first, last))

    def block(self, number: int, progress: float) -> PackedBlock:
        epoch = number // self.blocks
        bodies = self.store.read(
            self.stream,
            self.block_documents(number),
            epoch=epoch,
            interleave=self.interleave.at(progress),
            seed=self.seed,
        )
        packed = pack_block(bodies, self._ids, self.context, pack=self.pack)
        return packed.take(Shuffle(len(packed), self.seed, self._key, -1, number).at(np.arange(len(packed))))

    def epoch_tokens(self) -> float:
        """Tokens of one epoch: counted where documents are stored as they are, else scaled up from the first block."""
        counts = self.store.counts
        if self.stream == "text":
            return counts["text_tokens"] + 2 * self.documents
        if self.stream == "speech" and self.store.vocabulary.subwords is None:
            return counts["units"] + 2 * self.documents
        first = self.block(0, 0.0)
        return float(first.tokens.sum()) * self.documents / len(self.block_documents(0))

    def delivered(self, documents: Int[np.ndarray, " chosen"], position: Position) -> Bool[np.ndarray, " chosen"]:
        """Which of some documents were delivered at least once."""
        if position.block >= self.blocks:
            return np.ones(len(documents), bool)
        places = Shuffle(self.documents, self.seed, self._key, 0).places(documents)
        done: np.ndarray = places < self.documents * position.block // self.blocks
        if position.row:
            packed = self.block(position.block, position.progress)
            closed = packed.closed.flat[: packed.closed.offsets[position.row]]
            done |= np.isin(documents, self.block_documents(position.block)[closed])
        return done


class Position(NamedTuple):
    """Where a source stands: rows before `row` of `block` were delivered; `progress` is the block's."""

    block: int
    row: int
    progress: float


def unique_speech(sources: Sequence[tuple[Source, Position]]) -> tuple[int, float]:
    """Units and hours of all utterances that any of the sources delivered at least once, heard or interleaved.

    Streams of one store share its utterances; works through them by chunks.
    """
    units, hours = 0, 0.0
    by_store: dict[int, list[tuple[StoreSource, Position]]] = {}
    for source, position in sources:
        if isinstance(source, StoreSource) and source.stream != "text":
            by_store.setdefault(id(source.store), []).append((source, position))
    for group in by_store.values():
        store = group[0][0].store
        total = store.documents("speech")
        for first in range(0, total, CHUNK_UTTERANCES):
            touched = np.zeros(min(CHUNK_UTTERANCES, total - first), bool)
            for own, position in group:
                documents, rows = _documents_of(own, first, first + len(touched))
                touched[rows - first] |= own.delivered(documents, position)
            found = np.flatnonzero(touched) + first
            units += int((store.arrays["unit_offsets"][found + 1] - store.arrays["unit_offsets"][found]).sum())
            hours += store.hours(found)
    return units, hours


def _documents_of(source: StoreSource, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Documents of a source whose utterances lie in [first, last), and those utterances."""
    if source.stream == "speech":
        rows = np.arange(first, last)
        return rows, rows

    def row_of(document: int) -> int:
        return int(source.store.speech_rows(source.stream, np.array([document]), source.interleave)[0])

    start, stop = (bisect_left(range(source.documents), limit, key=row_of) for limit in (first, last))
    documents = np.arange(start, stop)
    return documents, source.store.speech_rows(source.stream, documents, source.interleave)


def name_key(name: str) -> int:
    """A number that stands for a name, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")


def mean_document_tokens(store: TokenStore, stream: str) -> float:
    """Rough length of a document, from the counts of the store; a spoken word has about twice the tokens of a span."""
    counts = store.counts
    if stream == "text":
        return counts["text_tokens"] / counts["text_documents"] + 2
    return counts["units"] / counts["speech_documents"] * (0.7 if stream == "interleaved" else 1.0) + 2


def pack_store(
    store: TokenStore,
    streams: Sequence[str],
    context: int,
    *,
    interleave: InterleaveConfig | None = None,
    seed: int = 0,
    batch_rows: int = 16,
) -> list[Batch]:
    """Pack every document of the given streams once (interleaved ones as drawn in epoch 0), e.g. a validation set.

    The last batch may have fewer rows.
    """
    rows: list[Row] = []
    for stream in streams:
        documents = np.arange(store.documents(stream, interleave))
        bodies = store.read(stream, documents, interleave=interleave, seed=seed)
        block = pack_block(bodies, IdTables.of(store.vocabulary), context)
        rows += [Row(block, number, STREAMS.index(stream)) for number in range(len(block))]
    return batches_of(rows, context, store.vocabulary.eos_id, batch_rows)
