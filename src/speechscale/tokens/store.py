"""TokenStore: the documents of three streams on disk, memory-mapped.

Enters: unit tables and/or texts, and the vocabulary. Leaves: a folder of columns + meta.json, or the same opened.
The one decision worth knowing: units are stored as unit numbers and text as ids of the text block, so one store serves
the joint vocabulary, the textless one, the text-only one and any subwords of units, and all arms of a study see exactly
the same documents. Nothing of the size of all documents is ever made: opening is a few maps, reading touches its rows.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError
from speechscale.records import UnitTable
from speechscale.tokens.columns import ColumnIndex, column_path, damage, open_column, verify_column
from speechscale.tokens.interleave import InterleaveConfig, InterleaveSource, plan_interleave, utterance_keys
from speechscale.tokens.packing import STREAMS
from speechscale.tokens.ragged import Ragged, gather_rows
from speechscale.tokens.store_index import check_vocabulary, columns_of, read_meta
from speechscale.tokens.store_writer import OnError, grown_store, new_store
from speechscale.tokens.vocabulary import Vocabulary

__all__ = ["STREAMS", "Prepared", "TokenStore", "append_store", "build_store", "store_damage"]

VERIFY_BYTES = 1 << 30
"""Stores up to this size are hashed when they are opened."""
SEARCH_ROWS = 1 << 20
PAGES_BYTES = 256 << 20
"""Beyond this size a reader that goes through the store block by block gives pages back."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Documents whose lengths are known and whose ids are made when they are asked for.

    Args:
        lengths: tokens of each, without `<eos>`.
    """

    lengths: Int[np.ndarray, " documents"]
    _ids: Callable[[], Ragged]

    def ids(self) -> Ragged:
        """Token ids, int32, one row per document."""
        return self._ids()


@dataclass(frozen=True, kw_only=True)
class TokenStore:
    """An opened store.

    Args:
        vocabulary: decides the ids that come out; joint, textless or text-only.
        meta: counts, checksums, fingerprints. arrays: column -> memory map.
    """

    folder: Path
    vocabulary: Vocabulary
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def open(cls, folder: Path | str, vocabulary: Vocabulary, *, verify: bool | Literal["auto"] = "auto") -> TokenStore:
        """Map a store into memory.

        Args:
            verify: hash every file (True), look at sizes only (False), or hash up to 1 GiB ("auto").

        Raises:
            DataError: no complete store, a changed or truncated file (named), or another vocabulary.
        """
        folder = Path(folder)
        meta = read_meta(folder)
        check_vocabulary(folder, meta, vocabulary)
        columns = columns_of(folder, meta)
        if verify == "auto":
            verify = sum(index.bytes for index in columns.values()) <= VERIFY_BYTES
        arrays = {name: open_column(column_path(folder, name), index) for name, index in columns.items()}
        if verify:
            for name, index in columns.items():
                verify_column(column_path(folder, name), index)
        return cls(folder=folder, vocabulary=vocabulary, meta=meta, arrays=arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.folder, self.vocabulary)  # not the bytes behind the maps

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the index, and so over everything the store holds."""
        return str(self.meta["index_sha256"])

    @property
    def counts(self) -> dict[str, int]:
        """Documents, units, words, frames and text tokens, as written when the store was built."""
        return dict(self.meta["counts"])

    @property
    def bytes(self) -> int:
        """Size of the columns on disk."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def speech_hours(self) -> float:
        """Audio behind the speech stream."""
        frames = self.meta["counts"].get("frames", 0)
        return frames / self.meta["frame_rate_hz"] / 3600 if frames else 0.0

    def hours(self, speech_documents: Int[np.ndarray, " documents"]) -> float:
        """Audio behind some documents of the speech stream."""
        if not len(speech_documents):
            return 0.0
        return float(self.arrays["frames"][speech_documents].sum(dtype=np.int64)) / self.meta["frame_rate_hz"] / 3600

    def documents(self, stream: str, interleave: InterleaveConfig | None = None) -> int:
        """Number of documents of a stream that the vocabulary can spell.

        Args:
            interleave: at level "utterance" words need no time.

        Raises:
            DataError: no such stream.
        """
        if stream not in STREAMS:
            raise DataError(f"stream '{stream}': allowed: {', '.join(STREAMS)}")
        has = {
            "speech": self.vocabulary.num_units > 0,
            "text": self.vocabulary.has_text,
            "interleaved": self.vocabulary.SPEECH is not None,
        }
        name = "worded" if stream == "interleaved" and _whole(interleave) else stream
        return int(self.meta["counts"].get(f"{name}_documents", 0)) if has[stream] else 0

    def why_none(self, stream: str, interleave: InterleaveConfig | None = None) -> str:
        """Why a stream has no documents, and what to do; "" if it has some."""
        if self.documents(stream, interleave):
            return ""
        counts, vocabulary = self.counts, self.vocabulary
        if stream == "text" and vocabulary.has_text:
            return "it was built without texts; append some"
        if stream == "interleaved" and vocabulary.SPEECH is not None and counts.get("words"):
            return (
                f"none of its {counts['words']:,} words has a time; make times with 'speechscale align', or interleave "
                "at level 'utterance'"
            )
        if stream != "text" and vocabulary.num_units and not (stream == "interleaved" and vocabulary.SPEECH is None):
            return "it was built without units and words; append some"
        return (
            f"the vocabulary cannot spell it ({'no text' if not vocabulary.has_text else 'no units'}); use a joint one"
        )

    @cached_property
    def source(self) -> InterleaveSource:
        """The utterances as the interleaver wants them; needs a joint vocabulary and a store with words."""
        if self.vocabulary.SPEECH is None or "word_tokens" not in self.arrays:
            raise DataError(f"{self.folder}: interleaving needs a joint vocabulary and a store with word times")
        names = ("units", "unit_offsets", "word_offsets", "word_tokens", "word_token_rows", "word_token_counts")
        cuts = ("word_first", "word_last", "word_code", "keys")
        return InterleaveSource(**{name: self.arrays[name] for name in names + cuts}, vocabulary=self.vocabulary)

    def speech_rows(
        self, stream: str, documents: Int[np.ndarray, " chosen"], interleave: InterleaveConfig | None = None
    ) -> Int[np.ndarray, " chosen"]:
        """Number of the utterance behind each document of "speech" or "interleaved"."""
        if stream != "interleaved":
            return documents
        return np.asarray(self.arrays["worded_rows" if _whole(interleave) else "interleaved_rows"][documents])

    def prepare(
        self,
        stream: str,
        documents: Int[np.ndarray, " chosen"],
        *,
        epoch: int = 0,
        interleave: InterleaveConfig | None = None,
        seed: int = 0,
    ) -> Prepared:
        """Find out how long the chosen documents are; their ids come from the result.

        Args:
            epoch, interleave, seed: what the interleaved stream is drawn from; the others do not use them.

        Raises:
            DataError: no such stream, or the vocabulary cannot spell it.
        """
        documents = np.asarray(documents, np.int64)
        if not self.documents(stream, interleave):
            if not len(documents):
                nothing = Ragged(np.zeros(0, np.int32), np.zeros(1, np.int64))
                return Prepared(nothing.lengths, lambda: nothing)
            raise DataError(f"{self.folder}: no '{stream}' documents: {self.why_none(stream, interleave)}")
        if stream == "interleaved":
            rows = self.speech_rows(stream, documents, interleave)
            plan = plan_interleave(self.source, rows, epoch, interleave or InterleaveConfig(), seed)
            return Prepared(plan.lengths, plan.ids)
        if stream == "text":
            return self._slices("text_tokens", "text_offsets", documents, 0)
        if self.vocabulary.subwords is not None:
            units = gather_rows(Ragged(self.arrays["units"], self.arrays["unit_offsets"]), documents)
            found = self.vocabulary.speech_ids(units)
            return Prepared(found.lengths, lambda: found)
        return self._slices("units", "unit_offsets", documents, self.vocabulary.unit_start)

    def read(
        self,
        stream: str,
        documents: Int[np.ndarray, " chosen"],
        *,
        epoch: int = 0,
        interleave: InterleaveConfig | None = None,
        seed: int = 0,
    ) -> Ragged:
        """Token ids of the chosen documents, without `<eos>`; arguments as `prepare`."""
        return self.prepare(stream, documents, epoch=epoch, interleave=interleave, seed=seed).ids()

    def _slices(self, flat: str, offsets: str, documents: Int[np.ndarray, " chosen"], shift: int) -> Prepared:
        ragged = Ragged(self.arrays[flat], self.arrays[offsets])

        def ids() -> Ragged:
            found = gather_rows(ragged, documents)
            tokens = found.flat.astype(np.int32)
            tokens += np.int32(shift)
            return Ragged(tokens, found.offsets)

        return Prepared(np.asarray(ragged.offsets[documents + 1] - ragged.offsets[documents]), ids)

    def release_pages(self) -> None:
        """Give back the memory of pages that were read, if the store is large; they stay in the system's cache."""
        if self.bytes > PAGES_BYTES:
            for array in self.arrays.values():
                if isinstance(array, np.memmap):
                    array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]

    def utterance_id(self, row: int) -> str:
        """Id of an utterance of the speech stream."""
        first, last = self.arrays["id_offsets"][row : row + 2].tolist()
        return self.arrays["id_bytes"][first:last].tobytes().decode()

    def find(self, id: str) -> int:
        """The row of an utterance in the speech stream, by its id. Raises DataError: not there."""
        keys = self.arrays.get("keys", np.zeros(0, np.uint64))
        wanted = utterance_keys([id])[0]
        for first in range(0, len(keys), SEARCH_ROWS):
            for row in np.flatnonzero(keys[first : first + SEARCH_ROWS] == wanted) + first:
                if self.utterance_id(int(row)) == id:
                    return int(row)
        example = f"the first is '{self.utterance_id(0)}'" if len(keys) else "it has no speech"
        raise DataError(f"{self.folder}: no utterance '{id}' ({example}); give the id that its corpus has")


def _reopen(folder: Path, vocabulary: Vocabulary) -> TokenStore:
    return TokenStore.open(folder, vocabulary, verify=False)


def build_store(
    folder: Path | str,
    vocabulary: Vocabulary,
    *,
    table: UnitTable | None = None,
    tables: Iterable[UnitTable] = (),
    texts: Iterable[str] = (),
    on_error: OnError = "stop",
) -> TokenStore:
    """Write the documents of all streams the vocabulary can spell and open the result.

    The speech stream is every utterance; the interleaved stream those with a timed word (at level "utterance": with
    any word); the text stream every text that has a token. Left-out ones are counted in meta.json. Memory holds one
    table, or one batch of texts. An existing store is replaced only when the new one is complete.

    Args:
        on_error: an utterance that cannot be used is an error ("stop") or is left out and written down ("skip").

    Raises:
        DataError: units that the vocabulary does not have, an utterance id twice, or nothing to store.
    """
    folder = Path(folder)
    with new_store(folder, vocabulary, on_error=on_error) as writer:
        if table is not None:
            writer.add_table(table)
        for part in tables:
            writer.add_table(part)
        if vocabulary.has_text:
            writer.add_texts(texts)
    return TokenStore.open(folder, vocabulary, verify=False)


def append_store(
    folder: Path | str,
    vocabulary: Vocabulary,
    *,
    tables: Iterable[UnitTable] = (),
    texts: Iterable[str] = (),
    on_error: OnError = "stop",
) -> TokenStore:
    """Add documents to a store; whoever has it open goes on seeing what it held before. Arguments as `build_store`."""
    folder = Path(folder)
    with grown_store(folder, vocabulary, on_error=on_error) as writer:
        for table in tables:
            writer.add_table(table)
        if vocabulary.has_text:
            writer.add_texts(texts)
    return TokenStore.open(folder, vocabulary, verify=False)


def store_damage(folder: Path | str) -> Iterator[str]:
    """Hash a whole store; yield what is wrong, one message per file or chunk. Raises DataError: no index."""
    folder = Path(folder)
    columns: dict[str, ColumnIndex] = columns_of(folder, read_meta(folder))
    for name, index in columns.items():
        yield from damage(column_path(folder, name), index)


def _whole(interleave: InterleaveConfig | None) -> bool:
    return interleave is not None and interleave.level == "utterance"
