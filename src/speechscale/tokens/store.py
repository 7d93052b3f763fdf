"""TokenStore: the documents of three streams on disk, ready to be memory-mapped.

Enters: a `UnitTable` and/or texts, and the vocabulary. Leaves: a folder of .npy arrays + meta.json, or the same opened.
The one decision worth knowing: units are stored as unit numbers and text as ids of the text block, so one store serves
the joint vocabulary, the textless one and the text-only one, and all arms of a study see exactly the same documents.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError
from speechscale.records import NO_TIME, UnitTable
from speechscale.tokens.interleave import InterleaveConfig, InterleaveSource, interleave_batch, make_source
from speechscale.tokens.ragged import Ragged, gather_rows
from speechscale.tokens.vocabulary import Vocabulary

STREAMS = ("speech", "text", "interleaved")
"""Names of the streams; the position is the code in `Batch.stream`."""
META_FILE = "meta.json"
STORE_FORMAT = "speechscale.tokens.1"


@dataclass(frozen=True, kw_only=True)
class TokenStore:
    """An opened store.

    Args:
        vocabulary: decides the ids that come out; joint, textless or text-only.
        meta: counts, checksums, fingerprints. arrays: name -> memory map.
    """

    folder: Path
    vocabulary: Vocabulary
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def open(cls, folder: Path | str, vocabulary: Vocabulary, *, verify: bool = False) -> TokenStore:
        """Map a store into memory.

        Args:
            verify: also hash every file; otherwise sizes, types and shapes only.

        Raises:
            DataError: no complete store, a changed or truncated file (named), or another vocabulary.
        """
        folder = Path(folder)
        meta = _read_meta(folder)
        if meta["num_units"] and vocabulary.num_units not in (0, meta["num_units"]):
            raise DataError(
                f"{folder}: made with {meta['num_units']} units, the vocabulary has {vocabulary.num_units}; "
                "use the vocabulary it was made with or build it anew"
            )
        if meta["text_fingerprint"] and vocabulary.has_text and vocabulary.text_fingerprint != meta["text_fingerprint"]:
            raise DataError(
                f"{folder}: made with the text block {meta['text_fingerprint'][:12]}, the vocabulary has "
                f"{vocabulary.text_fingerprint[:12]}; use the vocabulary it was made with or build it anew"
            )
        arrays = {name: _open_array(folder / f"{name}.npy", known, verify) for name, known in meta["arrays"].items()}
        return cls(folder=folder, vocabulary=vocabulary, meta=meta, arrays=arrays)

    @property
    def counts(self) -> dict[str, int]:
        """Documents, units, words, frames and text tokens, as written when the store was built."""
        return dict(self.meta["counts"])

    @property
    def speech_hours(self) -> float:
        """Audio behind the speech stream."""
        return self.hours(np.arange(self.meta["counts"]["speech_documents"]))

    def hours(self, speech_documents: Int[np.ndarray, " documents"]) -> float:
        """Audio behind some documents of the speech stream."""
        if not len(speech_documents):
            return 0.0
        return float(self.arrays["frames"][speech_documents].sum(dtype=np.int64)) / self.meta["frame_rate_hz"] / 3600

    def documents(self, stream: str) -> int:
        """Number of documents of a stream that the vocabulary can spell.

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
        return int(self.meta["counts"][f"{stream}_documents"]) if has[stream] else 0

    @cached_property
    def source(self) -> InterleaveSource:
        """The utterances as the interleaver wants them; needs a joint vocabulary and a store with words."""
        speech, text = self.vocabulary.SPEECH, self.vocabulary.TEXT
        if speech is None or text is None or "word_tokens" not in self.arrays:
            raise DataError(f"{self.folder}: interleaving needs a joint vocabulary and a store with word times")
        names = ("units", "unit_offsets", "word_offsets", "word_tokens", "word_token_offsets", "keys")
        return InterleaveSource(
            **{name: self.arrays[name] for name in (*names, "word_unit_start", "word_unit_end")},
            unit_start=self.vocabulary.unit_start,
            speech_id=speech,
            text_id=text,
        )

    def speech_rows(self, stream: str, documents: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " chosen"]:
        """Number of the utterance behind each document of "speech" or "interleaved"."""
        return self.arrays["interleaved_rows"][documents] if stream == "interleaved" else documents

    def read(
        self,
        stream: str,
        documents: Int[np.ndarray, " chosen"],
        *,
        epoch: int = 0,
        interleave: InterleaveConfig | None = None,
        seed: int = 0,
    ) -> Ragged:
        """Token ids of the chosen documents, without `<eos>`.

        Args:
            epoch, interleave, seed: what the interleaved stream is drawn from; the others do not use them.
        """
        if stream == "interleaved":
            rows = self.speech_rows(stream, documents)
            return interleave_batch(self.source, rows, epoch, interleave or InterleaveConfig(), seed)
        names = ("units", "unit_offsets") if stream == "speech" else ("text_tokens", "text_offsets")
        found = gather_rows(Ragged(self.arrays[names[0]], self.arrays[names[1]]), documents)
        shift = self.vocabulary.unit_start if stream == "speech" else 0
        return Ragged(found.flat.astype(np.int32) + np.int32(shift), found.offsets)


def build_store(
    folder: Path | str, vocabulary: Vocabulary, *, table: UnitTable | None = None, texts: Iterable[str] = ()
) -> TokenStore:
    """Write the documents of all streams the vocabulary can spell and open the result.

    The speech stream is every utterance of the table; the interleaved stream those with at least one timed word; the
    text stream every text that has a token. Left-out ones are counted in meta.json. An existing store is replaced
    only when the new one is complete.

    Raises:
        DataError: units that the vocabulary does not have, or nothing to store.
    """
    folder = Path(folder)
    counts = dict.fromkeys([f"{stream}_documents" for stream in STREAMS], 0)
    arrays: dict[str, np.ndarray] = {}
    if table is not None and vocabulary.num_units:
        _add_speech(arrays, counts, vocabulary, table)
        if vocabulary.has_text:
            _add_words(arrays, counts, vocabulary, table)
    if vocabulary.has_text:
        _add_texts(arrays, counts, vocabulary, texts)
    if not any(counts[f"{stream}_documents"] for stream in STREAMS):
        raise DataError(f"{folder}: nothing to store; give a unit table or texts that the vocabulary can spell")
    has_units = "units" in arrays
    meta = {
        "format": STORE_FORMAT,
        "vocabulary": vocabulary.fingerprint,
        "text_fingerprint": vocabulary.text_fingerprint if vocabulary.has_text else "",
        "num_units": vocabulary.num_units if has_units else 0,
        "frame_rate_hz": table.frame_rate_hz if table is not None and has_units else None,
        "counts": counts,
    }
    _write(folder, arrays, meta)
    return TokenStore.open(folder, vocabulary)


def _add_speech(
    arrays: dict[str, np.ndarray], counts: dict[str, int], vocabulary: Vocabulary, table: UnitTable
) -> None:
    if table.num_units != vocabulary.num_units:
        raise DataError(f"unit table has {table.num_units} units, the vocabulary {vocabulary.num_units}")
    vocabulary.unit_ids(table.units)  # refuses units out of range
    arrays["units"] = table.units.astype(np.uint16 if table.num_units <= 1 << 16 else np.uint32)
    arrays["unit_offsets"] = table.unit_offsets.astype(np.int64)
    arrays["frames"] = table.frames.astype(np.int32)
    counts |= {
        "speech_documents": len(table),
        "units": len(table.units),
        "frames": int(table.frames.sum()),
    }


def _add_words(arrays: dict[str, np.ndarray], counts: dict[str, int], vocabulary: Vocabulary, table: UnitTable) -> None:
    source = make_source(table, vocabulary)
    timed = source.word_unit_start != NO_TIME
    row = np.repeat(np.arange(len(table)), np.diff(table.word_offsets))
    rows = np.flatnonzero(np.bincount(row[timed], minlength=len(table)))
    arrays["word_offsets"] = source.word_offsets.astype(np.int64)
    arrays["word_tokens"] = source.word_tokens.astype(vocabulary.id_dtype)
    arrays["word_token_offsets"] = source.word_token_offsets
    arrays["word_unit_start"] = source.word_unit_start
    arrays["word_unit_end"] = source.word_unit_end
    arrays["keys"] = source.keys
    arrays["interleaved_rows"] = rows.astype(np.int64)
    counts |= {
        "interleaved_documents": len(rows),
        "utterances_without_timed_words": len(table) - len(rows),
        "words": len(timed),
        "words_without_time": int((~timed).sum()),
        "word_tokens": len(source.word_tokens),
    }


def _add_texts(
    arrays: dict[str, np.ndarray], counts: dict[str, int], vocabulary: Vocabulary, texts: Iterable[str]
) -> None:
    encoded = vocabulary.encode_text(texts)
    filled = np.flatnonzero(encoded.lengths)
    dropped = len(encoded.lengths) - len(filled)
    if dropped:
        encoded = gather_rows(encoded, filled)
    arrays["text_tokens"] = encoded.flat.astype(vocabulary.id_dtype)
    arrays["text_offsets"] = encoded.offsets
    counts |= {"text_documents": len(filled), "text_tokens": len(encoded.flat), "empty_texts": dropped}


def _write(folder: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Write everything beside `folder`, then rename: whoever opens `folder` finds a complete store or none."""
    partial = folder.parent / f".{folder.name}.partial"
    old = folder.parent / f".{folder.name}.old"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        files = {}
        for name, array in arrays.items():
            path = partial / f"{name}.npy"
            np.save(path, array, allow_pickle=False)
            files[name] = {"bytes": path.stat().st_size, "sha256": _hash_file(path)}
        meta = {**meta, "arrays": files}
        (partial / META_FILE).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / META_FILE
    if not path.is_file():
        raise DataError(f"{folder}: no complete token store ({META_FILE} is missing); build it")
    try:
        meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = meta["format"]
        complete = {"num_units", "text_fingerprint", "frame_rate_hz", "counts", "arrays"} <= meta.keys()
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not the index of a token store: {error!r}; build the store anew") from error
    if found != STORE_FORMAT or not complete:
        raise DataError(f"{path}: format '{found}', this version reads '{STORE_FORMAT}'; build the store anew")
    return meta


def _open_array(path: Path, known: dict[str, Any], verify: bool) -> np.ndarray:
    if not path.is_file():
        raise DataError(f"{path}: missing; build the store anew")
    size = path.stat().st_size
    if size != known["bytes"]:
        raise DataError(f"{path}: {size} bytes, {META_FILE} says {known['bytes']} (truncated?); build the store anew")
    if verify and _hash_file(path) != known["sha256"]:
        raise DataError(f"{path}: its SHA-256 differs from {META_FILE} (damaged?); build the store anew")
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{path}: not a readable array: {error}; build the store anew") from error
    return array


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
