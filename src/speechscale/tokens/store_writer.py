"""Write a token store: unit tables and texts into columns, block by block.

Enters: unit tables, texts, finished parts of other stores. Leaves: the columns and, last, their index meta.json.
The one decision worth knowing: what is written depends on the documents and their order only, not on how they were
handed over, so that parts made on any number of workers, or added later, give the same bytes as one run.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError
from speechscale.files import write_json
from speechscale.records import NO_TIME, UnitTable, offsets
from speechscale.skips import Skip
from speechscale.tokens.columns import INDEX_FILE, ColumnIndex, ColumnSetWriter, FolderLock, open_column
from speechscale.tokens.cuts import word_cuts
from speechscale.tokens.interleave import utterance_keys
from speechscale.tokens.ragged import Ragged, gather_rows
from speechscale.tokens.store_index import (
    STORE_FORMAT,
    check_vocabulary,
    column_types,
    columns_of,
    old_place,
    read_meta,
    restore,
    seal,
)
from speechscale.tokens.store_rows import LONGEST, WordIds, frames_of, problem_of, suspects, text_batches
from speechscale.tokens.text_tokenizer import unknown_ids
from speechscale.tokens.vocabulary import Vocabulary

COUNTED = 1 << 24
"""Tokens of a store that are looked through at once."""
OFFSETS = ("unit_offsets", "id_offsets", "word_offsets", "word_token_rows", "text_offsets")
OnError = Literal["stop", "skip"]

SPEECH_COUNTS = ("units", "frames")
WORD_COUNTS = (
    "words",
    "words_without_time",
    "word_tokens",
    "worded_documents",
    "utterances_without_words",
    "utterances_without_timed_words",
    "unknown_word_tokens",
)
TEXT_COUNTS = ("text_tokens", "empty_texts", "unknown_text_tokens")
UNKNOWN = {"unknown_word_tokens": "word_tokens", "unknown_text_tokens": "text_tokens"}
"""Counts of tokens that stand for what the vocabulary cannot spell, and the columns that hold them."""


class StoreWriter:
    """Add documents, then `commit`. Nothing counts before; without a commit, `abort`.

    Args:
        grow: go on behind the store in `folder`; otherwise begin a new one.
        on_error: what happens to an utterance that cannot be stored: "stop" raises, "skip" writes it down.
        name: what messages call the store, if not by its folder.
    """

    def __init__(
        self,
        folder: Path,
        vocabulary: Vocabulary,
        *,
        grow: bool = False,
        on_error: OnError = "stop",
        sync: bool = True,
        name: Path | None = None,
    ) -> None:
        self.folder, self.vocabulary, self.on_error = folder, vocabulary, on_error
        self.name = name or folder
        self.remedies: Counter[str] = Counter()
        self._words = WordIds(vocabulary)
        self._unknown = unknown_ids(vocabulary.text_json, vocabulary.unk_id)
        names = ["speech_documents", "text_documents", "interleaved_documents"]
        names += SPEECH_COUNTS if vocabulary.num_units else ()
        names += WORD_COUNTS if vocabulary.num_units and vocabulary.has_text else ()
        names += TEXT_COUNTS if vocabulary.has_text else ()
        self.counts = dict.fromkeys(names, 0)
        self.frame_rate_hz: float | None = None
        self.speech_tokenizer, self.sources = "", list[dict[str, Any]]()
        if grow:
            read_meta(folder)
        self._lock = FolderLock(folder)
        try:
            known = self._go_on(read_meta(folder)) if grow else None
            types = column_types(vocabulary)
            self._columns = ColumnSetWriter(self._lock, types, known, offsets=OFFSETS, sync=sync)
        except BaseException:
            self._lock.close()
            raise

    def _go_on(self, meta: Mapping[str, Any]) -> dict[str, ColumnIndex]:
        check_vocabulary(self.folder, meta, self.vocabulary)
        self.counts |= meta["counts"]
        columns = columns_of(self.folder, meta)
        for name in UNKNOWN.keys() & self.counts.keys() - meta["counts"].keys():  # written before they were counted
            if (column := UNKNOWN[name]) not in columns:
                continue
            tokens = open_column(self.folder / f"{column}.bin", columns[column])
            self.counts[name] = sum(self._unknowns(tokens[k : k + COUNTED]) for k in range(0, len(tokens), COUNTED))
        self.frame_rate_hz, self.speech_tokenizer = meta["frame_rate_hz"], meta["speech_tokenizer"]
        self.sources = list(meta["sources"])
        return columns

    def add_table(self, table: UnitTable) -> None:
        """Add the utterances of a table. Raises DataError: of another tokenizer, or ("stop") one that is unusable."""
        if not self.vocabulary.num_units:
            return
        if table.num_units != self.vocabulary.num_units:
            raise DataError(f"unit table has {table.num_units} units, the vocabulary {self.vocabulary.num_units}")
        self._set_rate(table.frame_rate_hz)
        frames = frames_of(table)
        if len(bad := suspects(table, frames)):
            table = self._without(table, {int(row): problem_of(table, int(row)) for row in bad})
            frames = frames_of(table)
        words = None
        if self.vocabulary.has_text:
            words = self._words.encode(table.words)
            if len(long := np.flatnonzero(words.lengths > LONGEST)):
                rows = np.searchsorted(table.word_offsets, long, side="right") - 1
                why = f"a word has more than {LONGEST} tokens; correct its transcript or drop it"
                self.add_table(self._without(table, {int(row): why for row in rows}))
                return
        self._columns.append("units", table.units)
        self._columns.append_offsets("unit_offsets", table.unit_offsets)
        self._columns.append("durations", table.durations_frames)
        self._columns.append("frames", frames)
        self._columns.append("keys", utterance_keys(table.ids))
        ids = [id.encode() for id in table.ids]
        self._columns.append("id_bytes", np.frombuffer(b"".join(ids), np.uint8))
        self._columns.append_offsets("id_offsets", offsets([len(id) for id in ids]))
        if words is not None:
            self._add_words(table, words)
        self._count(speech_documents=len(table), units=len(table.units), frames=int(frames.sum(dtype=np.int64)))

    def _add_words(self, table: UnitTable, tokens: Ragged) -> None:
        cuts, base = word_cuts(table), self.counts["speech_documents"]
        row = np.repeat(np.arange(len(table)), np.diff(table.word_offsets))
        timed = cuts.first != NO_TIME
        interleaved = np.flatnonzero(np.bincount(row[timed], minlength=len(table)))
        worded = np.flatnonzero(np.diff(table.word_offsets))
        self._columns.append_offsets("word_offsets", table.word_offsets)
        self._columns.append("word_tokens", tokens.flat)
        self._columns.append_offsets("word_token_rows", tokens.offsets[table.word_offsets])
        self._columns.append("word_token_counts", tokens.lengths)
        self._columns.append("word_first", cuts.first)
        self._columns.append("word_last", cuts.last)
        self._columns.append("word_code", cuts.code)
        self._columns.append("interleaved_rows", interleaved + base)
        self._columns.append("worded_rows", worded + base)
        self._count(
            interleaved_documents=len(interleaved),
            worded_documents=len(worded),
            words=len(timed),
            words_without_time=int((~timed).sum()),
            word_tokens=len(tokens.flat),
            unknown_word_tokens=self._unknowns(tokens.flat),
            utterances_without_words=len(table) - len(worded),
            utterances_without_timed_words=len(table) - len(interleaved),
        )

    def add_texts(self, texts: Iterable[str]) -> None:
        """Add texts; those without a token are counted and left out."""
        self.add_documents(("", text) for text in texts)

    def add_documents(self, documents: Iterable[tuple[str, str]]) -> None:
        """Add (id, text) pairs; those without a token are counted, left out and, if they have an id, written down."""
        for batch in text_batches(documents):
            encoded = self.vocabulary.encode_text([text for _, text in batch])
            filled = np.flatnonzero(encoded.lengths)
            for index in np.flatnonzero(encoded.lengths == 0).tolist():
                if id := batch[index][0]:
                    self.skip(id, "the text has no token", "write words or delete it")
            dropped = len(batch) - len(filled)
            kept = gather_rows(encoded, filled) if dropped else encoded
            self._columns.append("text_tokens", kept.flat)
            self._columns.append_offsets("text_offsets", kept.offsets)
            unknown = self._unknowns(kept.flat)
            self._count(text_documents=len(filled), text_tokens=len(kept.flat), empty_texts=dropped)
            self._count(unknown_text_tokens=unknown)

    def add_store(self, folder: Path) -> None:
        """Add everything that a finished store of the same vocabulary holds."""
        meta = read_meta(folder)
        check_vocabulary(folder, meta, self.vocabulary)
        if meta["frame_rate_hz"] is not None:
            self._set_rate(meta["frame_rate_hz"])
        base = self.counts["speech_documents"]
        self._columns.copy(folder, columns_of(folder, meta), shifts={"interleaved_rows": base, "worded_rows": base})
        self._count(**meta["counts"])

    def skip(self, id: str, reason: str, remedy: str) -> None:
        """Write down that something is left out."""
        line = json.dumps(asdict(Skip(id=id, reason=reason, remedy=remedy)), ensure_ascii=False) + "\n"
        data = line.encode("utf-8", "backslashreplace")
        self._columns.append("skips", np.frombuffer(data, np.uint8))
        self.remedies[remedy] += 1

    def commit(self, *, may_be_empty: bool = False) -> dict[str, Any]:
        """Bring all to the disk and make it count. Raises DataError: nothing was added, or an utterance id twice."""
        if not may_be_empty and not any(self.counts[f"{stream}_documents"] for stream in ("speech", "text")):
            raise DataError(f"{self.name}: nothing to store; give unit tables or texts that the vocabulary can spell")
        columns = self._columns.close()
        if "keys" in columns:
            self._check_ids(columns)
        has_units = self.counts["speech_documents"] > 0
        meta = {
            "format": STORE_FORMAT,
            "text_fingerprint": self.vocabulary.text_fingerprint if self.vocabulary.has_text else "",
            "num_units": self.vocabulary.num_units if has_units else 0,
            "frame_rate_hz": self.frame_rate_hz if has_units else None,
            "speech_tokenizer": self.speech_tokenizer,
            "counts": self.counts,
            "sources": self.sources,
            "columns": {name: index.to_json() for name, index in columns.items()},
        }
        meta["index_sha256"] = seal(meta)
        write_json(self.folder / INDEX_FILE, meta)
        return meta

    def release(self) -> None:
        """Let others write to the folder."""
        self._lock.close()

    def abort(self) -> None:
        """Forget what was added."""
        self._columns.abort()
        self._lock.close()

    def _count(self, **more: int) -> None:
        for name, count in more.items():
            self.counts[name] += count

    def _unknowns(self, tokens: Int[np.ndarray, " tokens"]) -> int:
        return sum(int(np.count_nonzero(tokens == id)) for id in self._unknown)

    def _set_rate(self, frame_rate_hz: float) -> None:
        if self.frame_rate_hz not in (None, frame_rate_hz):
            raise DataError(
                f"{self.name}: holds units at {self.frame_rate_hz:g} Hz, {frame_rate_hz:g} Hz are to be added; "
                "encode all corpora with one tokenizer"
            )
        self.frame_rate_hz = frame_rate_hz

    def _without(self, table: UnitTable, problems: dict[int, str]) -> UnitTable:
        for row, message in problems.items():
            if self.on_error == "stop":
                raise DataError(f"utterance {table.ids[row]}: {message}")
            reason, _, remedy = message.rpartition("; ")
            self.skip(table.ids[row], reason, remedy)
        return table.take(row for row in range(len(table)) if row not in problems)

    def _check_ids(self, columns: Mapping[str, ColumnIndex]) -> None:
        keys, starts, letters = (
            open_column(self.folder / f"{name}.bin", columns[name]) for name in ("keys", "id_offsets", "id_bytes")
        )
        ordered = np.sort(keys)
        twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        seen: dict[str, int] = {}
        for row in np.flatnonzero(np.isin(keys, twice)).tolist() if len(twice) else []:
            id = letters[starts[row] : starts[row + 1]].tobytes().decode()
            if id in seen:  # otherwise it is another id of the same hash
                raise DataError(
                    f"{self.name}: utterance '{id}' comes twice (rows {seen[id]}, {row}); "
                    "give every utterance its own id, each corpus once"
                )
            seen[id] = row


@contextmanager
def new_store(folder: Path, vocabulary: Vocabulary, *, on_error: OnError = "stop") -> Iterator[StoreWriter]:
    """Write everything beside `folder`, then rename: whoever opens `folder` finds a complete store or the old one."""
    restore(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / INDEX_FILE).is_file():
        raise DataError(f"{folder}: is there and no token store; choose another output or delete it")
    partial, old = folder.parent / f".{folder.name}.partial", old_place(folder)
    writer = StoreWriter(partial, vocabulary, on_error=on_error, name=folder)
    try:
        yield writer
        writer.commit()
    except BaseException:
        writer.abort()
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    writer.release()
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def grown_store(folder: Path, vocabulary: Vocabulary, *, on_error: OnError = "stop") -> Iterator[StoreWriter]:
    """Add to a store; it stays as it was until the block is done. Raises DataError: another vocabulary, or in use."""
    writer = StoreWriter(folder, vocabulary, grow=True, on_error=on_error)
    try:
        yield writer
        writer.commit()
    except BaseException:
        writer.abort()
        raise
    writer.release()
