"""Vocabulary: the one id space of text, units and modality markers.

Enters: a text tokenizer (words, byte-level BPE, or any tokenizer.json) and a number of units.
Leaves: `Vocabulary`, with all id arithmetic; on disk {vocabulary.json, tokenizer.json}, which stock transformers loads.
The one decision worth knowing: the layout is text ids [0, text_size) | units | <speech> | <text> and nothing moves
afterwards, so text has the same ids in a TextLM, an interleaved SLM and everything made from them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int8
from tokenizers import Tokenizer, models

from speechscale.errors import DataError
from speechscale.records import offsets
from speechscale.tokens.ragged import Ragged, gather_rows
from speechscale.tokens.text_tokenizer import EOS, TOKENIZER_FILE, UNK, build_text_tokenizer

__all__ = ["EOS", "UNK", "Vocabulary", "build_text_tokenizer"]

SPEECH_MARKER = "<speech>"
TEXT_MARKER = "<text>"
MODALITY_TEXT, MODALITY_SPEECH, MODALITY_MARKER = 0, 1, 2
LOCK_FILE = "vocabulary.json"
LOCK_FORMAT = "speechscale.vocabulary.1"
ENCODE_CHUNK_TEXTS = 4096


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The frozen id layout: text [0, text_size) | units | SPEECH | TEXT.

    Make one with `joint`, `textless` or `text_only`.

    Args:
        text_json: canonical JSON of the text tokenizer; empty for a textless vocabulary, whose text block is `<eos>`.
        text_size: ids of the text block. num_units: units behind it.
        eos_id: end of a document, also put in front of it. unk_id: id of unknown words, None if there is none.
    """

    text_json: str = field(repr=False)
    text_size: int
    num_units: int
    eos_id: int
    unk_id: int | None

    @classmethod
    def joint(cls, tokenizer: Tokenizer, num_units: int, *, eos_token: str = EOS) -> Vocabulary:
        """Text, units and markers in one id space.

        Raises:
            DataError: the tokenizer has no token `eos_token`, or its ids have holes.
        """
        if num_units < 1:
            raise DataError(f"vocabulary: {num_units} units; give at least 1, or use Vocabulary.text_only")
        return cls._with_text(tokenizer, num_units, eos_token)

    @classmethod
    def text_only(cls, tokenizer: Tokenizer, *, eos_token: str = EOS) -> Vocabulary:
        """The text block alone, for a TextLM."""
        return cls._with_text(tokenizer, 0, eos_token)

    @classmethod
    def textless(cls, num_units: int) -> Vocabulary:
        """`<eos>` and units; no text, no markers."""
        if num_units < 1:
            raise DataError(f"vocabulary: {num_units} units; give at least 1")
        return cls(text_json="", text_size=1, num_units=num_units, eos_id=0, unk_id=None)

    @classmethod
    def _with_text(cls, tokenizer: Tokenizer, num_units: int, eos_token: str) -> Vocabulary:
        ids = tokenizer.get_vocab(with_added_tokens=True)
        eos_id = ids.get(eos_token)
        if eos_id is None:
            raise DataError(f"text tokenizer has no end-of-document token '{eos_token}'; name the one it has")
        if sorted(ids.values()) != list(range(len(ids))):
            raise DataError(f"text tokenizer: its {len(ids)} ids are not 0..{len(ids) - 1}; retrain or renumber it")
        clash = [name for name in _added_names(num_units) if name in ids]
        if clash:
            raise DataError(f"text tokenizer already has a token '{clash[0]}'; give the tokenizer without units")
        unk_id = ids.get(UNK)
        text_json = _canonical(json.loads(tokenizer.to_str()))
        return cls(text_json=text_json, text_size=len(ids), num_units=num_units, eos_id=eos_id, unk_id=unk_id)

    # -- layout

    @property
    def has_text(self) -> bool:
        return bool(self.text_json)

    @property
    def unit_start(self) -> int:
        """Id of unit 0."""
        return self.text_size

    @property
    def SPEECH(self) -> int | None:
        """Id of the marker that opens a speech span; None unless there are text and units."""
        return self.text_size + self.num_units if self.has_text and self.num_units else None

    @property
    def TEXT(self) -> int | None:
        """Id of the marker that opens a text span; None unless there are text and units."""
        return None if self.SPEECH is None else self.SPEECH + 1

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.text_size + self.num_units + (0 if self.SPEECH is None else 2)

    @property
    def id_dtype(self) -> np.dtype[Any]:
        """Smallest unsigned type that holds every id."""
        return np.dtype(np.uint16 if self.size <= 1 << 16 else np.uint32)

    def modality_table(self) -> Int8[np.ndarray, "size"]:
        """Modality of each id: 0 text, 1 speech, 2 marker or `<eos>`."""
        table = np.full(self.size, MODALITY_MARKER, np.int8)
        table[: self.text_size] = MODALITY_TEXT
        table[self.unit_start : self.unit_start + self.num_units] = MODALITY_SPEECH
        table[self.eos_id] = MODALITY_MARKER
        return table

    def unit_ids(self, units: Int[np.ndarray, " units"]) -> Int[np.ndarray, " units"]:
        """Ids of units. Raises DataError if a unit is out of range."""
        if len(units) and (units.min() < 0 or units.max() >= self.num_units):
            raise DataError(f"units run {units.min()}..{units.max()}, the vocabulary has 0..{self.num_units - 1}")
        return units.astype(np.int32) + np.int32(self.unit_start)

    def text_subset(self) -> Vocabulary:
        """The text-only vocabulary with the same text block: every text id means the same in both."""
        if not self.has_text:
            raise DataError("a textless vocabulary has no text block")
        return Vocabulary(
            text_json=self.text_json, text_size=self.text_size, num_units=0, eos_id=self.eos_id, unk_id=self.unk_id
        )

    @property
    def text_fingerprint(self) -> str:
        """SHA-256 of the text block; equal in `joint` and `text_only` of one tokenizer."""
        return _sha256(json.dumps([self.text_json, self.text_size, self.eos_id]).encode())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole layout."""
        return _sha256(json.dumps([self.text_fingerprint, self.num_units]).encode())

    def __getstate__(self) -> dict[str, Any]:
        # Cached tokenizers stay behind: a pickled one forgets that specials inside a text are ordinary text.
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    # -- text to ids

    @cached_property
    def _text_tokenizer(self) -> Tokenizer:
        if not self.has_text:
            raise DataError("a textless vocabulary cannot encode text; use a joint or a text-only one")
        tokenizer = Tokenizer.from_str(self.text_json)
        # Otherwise a text that contains "<eos>" would smuggle in the end of a document.
        tokenizer.encode_special_tokens = True
        return tokenizer

    def encode_text(self, texts: Iterable[str]) -> Ragged:
        """Encode texts in batches; no `<eos>` is added. Returns int32 ids, one row per text."""
        tokenizer = self._text_tokenizer
        chunks, lengths = [np.zeros(0, np.int32)], []
        for chunk in _chunks(texts, ENCODE_CHUNK_TEXTS):
            rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False)]
            lengths += [len(row) for row in rows]
            chunks.append(np.array([token for row in rows for token in row], np.int32))
        return Ragged(np.concatenate(chunks), offsets(lengths))

    def encode_words(self, words: Sequence[str]) -> Ragged:
        """Encode each word as it stands inside a sentence (with a blank in front), one row per word.

        Each distinct word is encoded once. A word that leaves nothing becomes `<unk>` where there is one.
        """
        distinct = {word: index for index, word in enumerate(dict.fromkeys(words))}
        encoded = self.encode_text(" " + word for word in distinct)
        if self.unk_id is not None and (empty := np.flatnonzero(encoded.lengths == 0)).size:
            flat = np.insert(encoded.flat, encoded.offsets[empty], self.unk_id)
            encoded = Ragged(flat, offsets(np.maximum(encoded.lengths, 1)))
        return gather_rows(encoded, np.fromiter((distinct[word] for word in words), np.int64, len(words)))

    # -- ids to readable text and back

    @cached_property
    def _names(self) -> dict[str, int]:
        """Spelling -> id of everything that is not text."""
        names = {name: self.text_size + index for index, name in enumerate(_added_names(self.num_units, self.has_text))}
        eos = self._text_tokenizer.id_to_token(self.eos_id) if self.has_text else EOS
        assert eos is not None
        names[eos] = self.eos_id
        if self.unk_id is not None:
            names[UNK] = self.unk_id
        return names

    @cached_property
    def _spelling(self) -> dict[int, str]:
        return {index: name for name, index in self._names.items()}

    def decode(self, ids: Iterable[int]) -> str:
        """Spell ids readably. Example: `<speech> <Un12> <Un7> <text> the cat`

        Raises:
            DataError: an id outside the vocabulary.
        """
        pieces: list[str] = []
        text: list[int] = []
        for index in (int(index) for index in ids):
            if not 0 <= index < self.size:
                raise DataError(f"id {index} is outside the vocabulary, which has 0..{self.size - 1}")
            name = self._spelling.get(index)
            if name is None:
                text.append(index)
                continue
            pieces += [*self._decode_text(text), name]
            text = []
        return " ".join([*pieces, *self._decode_text(text)])

    def _decode_text(self, ids: list[int]) -> list[str]:
        text = self._text_tokenizer.decode(ids, skip_special_tokens=False).strip() if ids else ""
        return [text] if text else []

    def parse(self, readable: str) -> Int[np.ndarray, " ids"]:
        """Turn readable text back into ids; the inverse of `decode` for words joined by single blanks.

        Raises:
            DataError: text in a textless vocabulary, or a unit or marker that the vocabulary does not have.
        """
        parts: list[np.ndarray] = []
        special = rf"(<Un\d+>|{SPEECH_MARKER}|{TEXT_MARKER}|{UNK}|{re.escape(self._spelling[self.eos_id])})"
        for number, piece in enumerate(re.split(special, readable)):
            if piece in self._names:
                parts.append(np.array([self._names[piece]], np.int32))
            elif number % 2:  # re.split puts what matched at the odd places
                raise DataError(f"'{piece}' is not in this vocabulary of {self.num_units} units")
            elif words := piece.split():
                parts.append(self.encode_words(words).flat)
        return np.concatenate([np.zeros(0, np.int32), *parts])

    # -- on disk

    @cached_property
    def tokenizer_json(self) -> str:
        """tokenizer.json with units and markers appended in the frozen order."""
        if self.has_text:
            data = json.loads(self.text_json)
            added = _added_names(self.num_units)
        else:
            data = json.loads(Tokenizer(models.WordLevel({EOS: 0}, unk_token=UNK)).to_str())
            added = [EOS, *_added_names(self.num_units, False)]
        first = self.size - len(added)
        data["added_tokens"] += [_added_token(first + index, name) for index, name in enumerate(added)]
        text = _canonical(data)
        loaded = Tokenizer.from_str(text)
        moved = [name for index, name in enumerate(added) if loaded.token_to_id(name) != first + index]
        assert not moved, f"the tokenizer library renumbered {moved[:3]}"
        return text

    def _lock(self) -> dict[str, Any]:
        return {
            "format": LOCK_FORMAT,
            "has_text": self.has_text,
            "text_size": self.text_size,
            "unit_start": self.unit_start,
            "num_units": self.num_units,
            "speech_marker": self.SPEECH,
            "text_marker": self.TEXT,
            "eos_id": self.eos_id,
            "unk_id": self.unk_id,
            "size": self.size,
            "fingerprint": self.fingerprint,
            "tokenizer_sha256": _sha256(self.tokenizer_json.encode()),
        }

    def save(self, folder: Path | str) -> None:
        """Write tokenizer.json and, last, its lock vocabulary.json."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (
            (TOKENIZER_FILE, self.tokenizer_json),
            (LOCK_FILE, json.dumps(self._lock(), indent=2) + "\n"),
        ):
            partial = folder / f".{name}.partial"
            partial.write_text(text, encoding="utf-8")
            partial.replace(folder / name)

    @classmethod
    def load(cls, folder: Path | str) -> Vocabulary:
        """Read a saved vocabulary and verify it.

        Raises:
            DataError: a file is missing or differs from the lock; the message names the file.
        """
        lock_path, tokenizer_path = Path(folder) / LOCK_FILE, Path(folder) / TOKENIZER_FILE
        for path in (lock_path, tokenizer_path):
            if not path.is_file():
                raise DataError(f"{path}: missing; a vocabulary is {LOCK_FILE} and {TOKENIZER_FILE} side by side")
        try:
            lock = json.loads(lock_path.read_text(encoding="utf-8"))
            if lock["format"] != LOCK_FORMAT:
                raise DataError(f"{lock_path}: format '{lock['format']}', this version reads '{LOCK_FORMAT}'")
            content = tokenizer_path.read_bytes()
            if _sha256(content) != lock["tokenizer_sha256"]:
                raise DataError(f"{tokenizer_path}: differs from its lock {LOCK_FILE}; restore it or save it anew")
            text_json = _strip_added(json.loads(content), lock["text_size"]) if lock["has_text"] else ""
            vocabulary = cls(
                text_json=text_json, **{k: lock[k] for k in ("text_size", "num_units", "eos_id", "unk_id")}
            )
            expected = vocabulary._lock()
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(f"{lock_path}: not a vocabulary lock: {error!r}; save the vocabulary anew") from error
        wrong = [f"{k}: {v!r} -> {lock.get(k)!r}" for k, v in expected.items() if lock.get(k) != v]
        if wrong:
            raise DataError(f"{lock_path}: does not fit {TOKENIZER_FILE} ({'; '.join(wrong)}); save it anew")
        return vocabulary


def _added_names(num_units: int, has_text: bool = True) -> list[str]:
    """Spellings behind the text block, in id order."""
    markers = [SPEECH_MARKER, TEXT_MARKER] if num_units and has_text else []
    return [f"<Un{unit}>" for unit in range(num_units)] + markers


def _added_token(index: int, name: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": name, **flags, "special": True}


def _strip_added(data: dict[str, Any], text_size: int) -> str:
    data["added_tokens"] = [token for token in data["added_tokens"] if token["id"] < text_size]
    return _canonical(data)


def _canonical(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _chunks(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
