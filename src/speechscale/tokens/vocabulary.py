"""Vocabulary: the one id space of text, units, subwords of units and modality markers.

Enters: a text tokenizer (words, byte-level BPE, or any Hugging Face tokenizer), a number of units, perhaps subwords.
Leaves: `Vocabulary`, with all id arithmetic; on disk a folder that stock transformers loads.
The one decision worth knowing: the layout is text ids [0, text_size) | units | merged subwords | <speech> | <text> and
nothing moves afterwards, so text has the same ids in a TextLM, an interleaved SLM and everything made from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from speechscale.errors import DataError
from speechscale.records import offsets
from speechscale.tokens import readable, vocabulary_files
from speechscale.tokens.layout import MODALITY_MARKER, MODALITY_SPEECH, MODALITY_TEXT, Layout
from speechscale.tokens.ragged import Ragged, distinct_strings, gather_rows
from speechscale.tokens.readable import Span
from speechscale.tokens.spelling import DEFAULT_SPELLING
from speechscale.tokens.subwords import Subwords
from speechscale.tokens.text_tokenizer import (
    EOS,
    UNK,
    build_text_tokenizer,
    declared_ids,
    fill_holes,
    find_eos,
    load_text_tokenizer,
)

__all__ = [
    "EOS",
    "MODALITY_MARKER",
    "MODALITY_SPEECH",
    "MODALITY_TEXT",
    "UNK",
    "Layout",
    "Span",
    "Vocabulary",
    "build_text_tokenizer",
]

ENCODE_CHUNK_TEXTS = 4096


@dataclass(frozen=True, kw_only=True)
class Vocabulary(Layout):
    """The frozen id layout: text [0, text_size) | units | merged subwords | SPEECH | TEXT.

    Make one with `joint`, `textless`, `text_only` or `from_pretrained`; fields as in `Layout`.
    """

    @classmethod
    def joint(
        cls,
        tokenizer: Tokenizer,
        num_units: int,
        *,
        eos_token: str = EOS,
        spelling: str = DEFAULT_SPELLING,
        subwords: Subwords | None = None,
    ) -> Vocabulary:
        """Text, units and markers in one id space.

        Raises:
            DataError: the tokenizer has no token `eos_token`, or has units of this spelling already.
        """
        text = cls.text_only(tokenizer, eos_token=eos_token, spelling=spelling)
        return text.with_units(num_units, subwords)

    @classmethod
    def text_only(cls, tokenizer: Tokenizer, *, eos_token: str = EOS, spelling: str = DEFAULT_SPELLING) -> Vocabulary:
        """The text block alone, for a TextLM. Raises DataError as `joint`."""
        data = fill_holes(json.loads(tokenizer.to_str()))
        # Settings for batches of a model's inputs would cut or pad our documents.
        data |= {"truncation": None, "padding": None}
        ids = declared_ids(data)
        eos_id = ids.get(eos_token)
        if eos_id is None:
            raise DataError(f"text tokenizer has no end-of-document token '{eos_token}'; name the one it has")
        if sorted(ids.values()) != list(range(len(ids))):
            raise DataError(f"text tokenizer: its {len(ids)} tokens share ids; make it anew")
        return cls(
            text_json=vocabulary_files.canonical(data),
            text_size=len(ids),
            num_units=0,
            eos_id=eos_id,
            unk_id=ids.get(UNK),
            spelling=spelling,
        )

    @classmethod
    def textless(
        cls, num_units: int, *, spelling: str = DEFAULT_SPELLING, subwords: Subwords | None = None
    ) -> Vocabulary:
        """`<eos>`, units and their subwords; no text, no markers."""
        if num_units < 1:
            raise DataError(f"vocabulary: {num_units} units; give at least 1")
        return cls(
            text_json="",
            text_size=1,
            num_units=num_units,
            eos_id=0,
            unk_id=None,
            spelling=spelling,
            subwords=subwords,
        )

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: Path | str,
        num_units: int,
        *,
        revision: str | None = None,
        eos_token: str | None = None,
        spelling: str = DEFAULT_SPELLING,
        subwords: Subwords | None = None,
    ) -> Vocabulary:
        """The tokenizer of a Hugging Face model with units behind it; text only for 0 units.

        Args:
            path_or_name: tokenizer.json, a folder, or OWNER/NAME on the hub. revision: of it there.
            eos_token: the token that ends documents; None reads it from the model's files (`find_eos`).

        Raises:
            DataError: no tokenizer, unknown end token, or units of this spelling already in it.
        """
        tokenizer = load_text_tokenizer(path_or_name, revision)
        eos_token = find_eos(tokenizer, path_or_name, revision) if eos_token is None else eos_token
        text = cls.text_only(tokenizer, eos_token=eos_token, spelling=spelling)
        return text.with_units(num_units, subwords) if num_units or subwords else text

    def with_units(self, num_units: int, subwords: Subwords | None = None) -> Vocabulary:
        """The joint vocabulary of a text-only one: units, their subwords and the markers behind the same text ids.

        Raises:
            DataError: not text only, no units, or a token that is spelled like a unit or marker.
        """
        if not self.has_text or self.num_units:
            raise DataError(f"vocabulary: it has {self.num_units} units; add units to a text-only one (`text_subset`)")
        if num_units < 1:
            raise DataError(f"vocabulary: {num_units} units; give at least 1, or use Vocabulary.text_only")
        values = self.__getstate__() | {"num_units": num_units, "subwords": subwords}
        made = type(self)(**values)
        ids = declared_ids(json.loads(self.text_json))
        clash = [name for name in made.names if name in ids]
        if clash:
            raise DataError(
                f"text tokenizer already has a token '{clash[0]}'; give the tokenizer without units, or spell ours "
                "otherwise (spelling)"
            )
        return made

    def text_subset(self) -> Vocabulary:
        """The text-only vocabulary with the same text block: every text id means the same in both."""
        if not self.has_text:
            raise DataError("a textless vocabulary has no text block")
        return type(self)(**self.__getstate__() | {"num_units": 0, "subwords": None})

    # -- text to ids

    @cached_property
    def text_tokenizer(self) -> Tokenizer:
        """The tokenizer of the text block; specials inside a text are ordinary text to it."""
        if not self.has_text:
            raise DataError("a textless vocabulary cannot encode text; use a joint or a text-only one")
        tokenizer = Tokenizer.from_str(self.text_json)
        # Otherwise a text that contains "<eos>" would smuggle in the end of a document.
        tokenizer.encode_special_tokens = True
        return tokenizer

    def encode_text(self, texts: Iterable[str]) -> Ragged:
        """Encode texts in batches; no `<eos>` is added. Returns int32 ids, one row per text."""
        tokenizer = self.text_tokenizer
        chunks, lengths = [np.zeros(0, np.int32)], []
        for chunk in _chunks(texts, ENCODE_CHUNK_TEXTS):
            rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False)]
            lengths += [len(row) for row in rows]
            chunks.append(np.array([token for row in rows for token in row], np.int32))
        return Ragged(np.concatenate(chunks), offsets(lengths))

    @cached_property
    def spelled(self) -> dict[int, str]:
        """Id -> spelling of everything that is not text."""
        spelled = dict(enumerate(self.names, start=self.unit_start))
        eos = self.text_tokenizer.id_to_token(self.eos_id) if self.has_text else EOS
        assert eos is not None
        spelled[self.eos_id] = eos
        if self.unk_id is not None:
            spelled[self.unk_id] = UNK
        return spelled

    @cached_property
    def _blank(self) -> str:
        """What stands in front of a word inside a sentence; nothing where the tokenizer puts a blank there itself."""
        once, twice, with_blank = self.encode_text(["a", "a a", " a"]).rows()
        inside = twice[len(once) :]
        adds_its_own = np.array_equal(inside, once) and not np.array_equal(inside, with_blank)
        return "" if adds_its_own else " "

    def encode_words(self, words: Sequence[str]) -> Ragged:
        """Encode each word as it stands inside a sentence (with a blank in front), one row per word.

        Each distinct word is encoded once. A word that leaves nothing becomes `<unk>` where there is one.
        """
        distinct, codes = distinct_strings(words)
        encoded = self.encode_text(self._blank + word for word in distinct)
        if self.unk_id is not None and (empty := np.flatnonzero(encoded.lengths == 0)).size:
            flat = np.insert(encoded.flat, encoded.offsets[empty], self.unk_id)
            encoded = Ragged(flat, offsets(np.maximum(encoded.lengths, 1)))
        return gather_rows(encoded, codes)

    # -- ids to readable text and back

    def decode(self, ids: Iterable[int]) -> str:
        """Spell ids readably. Example: `<speech> <Un12> <Un7> <text> the cat`

        Raises:
            DataError: an id outside the vocabulary.
        """
        return readable.decode(self, ids)

    def parse(self, text: str) -> Int[np.ndarray, " ids"]:
        """Turn readable text back into ids; the inverse of `decode` for words joined by single blanks.

        Raises:
            DataError: text in a textless vocabulary, or a unit or marker that the vocabulary does not have.
        """
        return readable.parse(self, text)

    def to_spans(self, ids: Iterable[int]) -> list[Span]:
        """Split ids into spans of one modality. Raises DataError for an id outside the vocabulary."""
        return readable.to_spans(self, ids)

    def from_spans(self, spans: Iterable[Span]) -> Int[np.ndarray, " ids"]:
        """Ids of spans; the inverse of `to_spans`.

        Raises:
            DataError: a unit, marker or text that the vocabulary does not have.
        """
        return readable.from_spans(self, spans)

    # -- on disk

    @cached_property
    def tokenizer_json(self) -> str:
        """tokenizer.json with units, subwords and markers appended in the frozen order."""
        return vocabulary_files.tokenizer_json(self)

    def save(self, folder: Path | str) -> None:
        """Write tokenizer.json, subwords.json where there are subwords and, last, the lock vocabulary.json."""
        vocabulary_files.save(self, Path(folder))

    @classmethod
    def load(cls, folder: Path | str) -> Vocabulary:
        """Read a saved vocabulary and verify it.

        Raises:
            DataError: a file is missing or differs from the lock; the message names the file.
        """
        return vocabulary_files.load(Path(folder), cls)


def _chunks(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
