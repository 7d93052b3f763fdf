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
from speechscale.tokens.vocabulary import Vocabulary

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
    def context(self) -> int:
        """Tokens that a row can hold."""
        ...

    @property
    def vocabulary(self) -> Vocabulary:
        """What its ids mean."""
        ...

    @property
    def recipe(self) -> dict[str, Any]:
        """What defines its rows, for the record."""
        ...

    def block(self, number: int, progress: float) -> PackedBlock:
        """Block `number` of all epochs counted through; `progress` 0..1 of the training, for a curriculum."""
        ...

    def epoch_of(self, block: int) -> int:
        """The pass over the documents that a block belongs to, from 0."""
        ...

    def epoch_size(self) -> EpochSize:
        """Tokens of one epoch, at least roughly."""
        ...


class EpochSize(NamedTuple):
    """Tokens of an epoch, and how many of them are predicted (all but the first of each segment)."""

    tokens: float
    targets: float


@dataclass(frozen=True, slots=True)
class StoreSource:
    """One stream of a store, shuffled anew and packed in each epoch.

    Args:
        name: names the shuffle as well; two sources of one name, seed and size have one order.
        pack: see `pack_block`. interleave: how the interleaved stream is drawn.
        block_rows: rows that a block is made for. The progress of a curriculum counts when a block is opened, so a
            short training with one wants small blocks.

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
    block_rows: int = BLOCK_ROWS
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
            why = self.store.why_none(self.stream, self.interleave)
            raise DataError(f"{self.store.folder}: no '{self.stream}' documents: {why}")
        per_block = self.block_rows * self.context / mean_document_tokens(self.store, self.stream)
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
            "blocks": self.blocks,
        }
        if self.stream == "interleaved":
            recipe["interleave"] = self.interleave.changed
        put("recipe", recipe)

    @property
    def vocabulary(self) -> Vocabulary:
        return self.store.vocabulary

    def epoch_of(self, block: int) -> int:
        return block // self.blocks

    def block_documents(self, number: int) -> Int[np.ndarray, " documents"]:
        """The documents of a block, in the order of `PackedBlock.closed`."""
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
        self.store.release_pages()
        packed = pack_block(bodies, self._ids, self.context, pack=self.pack)
        return packed.take(Shuffle(len(packed), self.seed, self._key, -1, number).at(np.arange(len(packed))))

    def epoch_size(self) -> EpochSize:
        """Counted where documents are stored as they are, else scaled up from the first block."""
        counts = self.store.counts
        plain = self.stream == "speech" and self.store.vocabulary.subwords is None
        if (plain or self.stream == "text") and self.pack == "best_fit":
            bodies = counts["text_tokens" if self.stream == "text" else "units"]
            return EpochSize(bodies + 2 * self.documents, bodies + self.documents)
        first = self.block(0, 1.0)
        scale = self.documents / len(self.block_documents(0))
        tokens = float(first.tokens.sum())
        return EpochSize(tokens * scale, (tokens - float(first.pieces.sum())) * scale)

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


def unique_speech(sources: Sequence[tuple[Source, Position]]) -> tuple[int | None, float | None]:
    """Units and hours of all utterances that any of the sources delivered at least once, heard or interleaved.

    Streams of one store share its utterances; works through them by chunks. None: packed rows do not know theirs.
    """
    units, hours = 0, 0.0
    by_store: dict[str, list[tuple[StoreSource, Position]]] = {}
    for source, position in sources:
        if source.stream == "text":
            continue
        if not isinstance(source, StoreSource):
            return None, None
        by_store.setdefault(source.store.fingerprint, []).append((source, position))
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
    """Pack every document of the given streams once, whole and apart, e.g. a validation set.

    Interleaved documents are as drawn in epoch 0, with the settings that a curriculum ends with. The last batch may
    have fewer rows.
    """
    interleave = (interleave or InterleaveConfig()).at(1.0)
    rows: list[Row] = []
    for stream in streams:
        documents = np.arange(store.documents(stream, interleave))
        bodies = store.read(stream, documents, interleave=interleave, seed=seed)
        block = pack_block(bodies, IdTables.of(store.vocabulary), context)
        rows += [Row(block, number, STREAMS.index(stream)) for number in range(len(block))]
    return batches_of(rows, context, store.vocabulary.eos_id, batch_rows)
