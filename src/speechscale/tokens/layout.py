"""Layout: which id is what; all arithmetic of ids.

Enters: sizes of the text block, of the units and of their subwords. Leaves: ranges, ids of units, units of ids.
The one decision worth knowing: pieces of units keep the order units, then merged subwords, so that a piece number plus
`unit_start` is its id, and a vocabulary without subwords has the same ids for units as one with them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int, Int8

from speechscale.errors import DataError
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.spelling import DEFAULT_SPELLING, Spelling
from speechscale.tokens.subwords import Subwords

MODALITY_TEXT, MODALITY_SPEECH, MODALITY_MARKER = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Ranges of ids: text [0, text_size) | units | merged subwords | SPEECH | TEXT.

    Args:
        text_json: canonical JSON of the text tokenizer; empty for a textless vocabulary, whose text block is `<eos>`.
        text_size: ids of the text block. num_units: units behind it.
        eos_id: end of a document, also put in front of it. unk_id: id of unknown words, None if there is none.
        spelling: how units and markers are written, see `Spelling.of`.
        subwords: pieces of units; speech is then encoded in pieces, of which the single units are the first.
    """

    text_json: str = field(repr=False)
    text_size: int
    num_units: int
    eos_id: int
    unk_id: int | None
    spelling: str = DEFAULT_SPELLING
    subwords: Subwords | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        Spelling.of(self.spelling)
        if self.subwords is not None and self.subwords.num_units != self.num_units:
            raise DataError(
                f"vocabulary: subwords of {self.subwords.num_units} units and {self.num_units} units do not go "
                "together; train the subwords on these units"
            )

    @property
    def has_text(self) -> bool:
        return bool(self.text_json)

    @property
    def unit_start(self) -> int:
        """Id of unit 0."""
        return self.text_size

    @property
    def num_speech(self) -> int:
        """Units and merged subwords."""
        return self.num_units if self.subwords is None else self.subwords.size

    @property
    def speech_stop(self) -> int:
        """One behind the last speech id."""
        return self.text_size + self.num_speech

    @property
    def SPEECH(self) -> int | None:
        """Id of the marker that opens a speech span; None unless there are text and units."""
        return self.speech_stop if self.has_text and self.num_units else None

    @property
    def TEXT(self) -> int | None:
        """Id of the marker that opens a text span; None unless there are text and units."""
        return None if self.SPEECH is None else self.SPEECH + 1

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.speech_stop + (0 if self.SPEECH is None else 2)

    @property
    def id_dtype(self) -> np.dtype[Any]:
        """Smallest unsigned type that holds every id."""
        return np.dtype(np.uint16 if self.size <= 1 << 16 else np.uint32)

    @cached_property
    def names(self) -> list[str]:
        """Spellings of everything behind the text block, in id order."""
        spelling = Spelling.of(self.spelling)
        merged = self.subwords.pieces if self.subwords is not None else ()
        names = [spelling.unit(unit) for unit in range(self.num_units)] + [spelling.piece(piece) for piece in merged]
        return names if self.SPEECH is None else [*names, spelling.speech, spelling.text]

    def modality_table(self) -> Int8[np.ndarray, "size"]:
        """Modality of each id: 0 text, 1 speech, 2 marker or `<eos>`."""
        table = np.full(self.size, MODALITY_MARKER, np.int8)
        table[: self.text_size] = MODALITY_TEXT
        table[self.unit_start : self.speech_stop] = MODALITY_SPEECH
        table[self.eos_id] = MODALITY_MARKER
        return table

    # -- speech

    def unit_ids(self, units: Int[np.ndarray, " units"]) -> Int[np.ndarray, " units"]:
        """Ids of units, one each. Raises DataError if a unit is out of range."""
        if len(units) and (units.min() < 0 or units.max() >= self.num_units):
            raise DataError(f"units run {units.min()}..{units.max()}, the vocabulary has 0..{self.num_units - 1}")
        return units.astype(np.int32) + np.int32(self.unit_start)

    def speech_ids(self, units: Ragged) -> Ragged:
        """Ids that spell rows of units: pieces where there are subwords, else one id per unit.

        Raises:
            DataError: a unit is out of range.
        """
        if self.subwords is None:
            return Ragged(self.unit_ids(units.flat), units.offsets)
        flat, row_offsets = self.subwords.encode(units)
        return Ragged(flat + np.int32(self.unit_start), row_offsets)

    def units_of(self, ids: Int[np.ndarray, " ids"]) -> Int[np.ndarray, " units"]:
        """Units that speech ids spell, flat. Raises DataError for an id that is no speech id."""
        pieces = np.asarray(ids, np.int64) - self.unit_start
        if len(pieces) and (pieces.min() < 0 or pieces.max() >= self.num_speech):
            wrong = int(np.asarray(ids)[(pieces < 0) | (pieces >= self.num_speech)][0])
            raise DataError(f"id {wrong} is no speech; speech ids are {self.unit_start}..{self.speech_stop - 1}")
        return pieces.astype(np.int32) if self.subwords is None else self.subwords.spell(pieces)

    def units_per_id(self) -> Int[np.ndarray, "size"]:
        """Units that each id spells: 0 for text, markers and `<eos>`."""
        table = np.zeros(self.size, np.int32)
        pieces = slice(self.unit_start, self.speech_stop)
        table[pieces] = 1 if self.subwords is None else self.subwords.units_per_piece
        return table

    # -- identity

    @property
    def text_fingerprint(self) -> str:
        """SHA-256 of the text block; equal in `joint` and `text_only` of one tokenizer."""
        return _sha256([self.text_json, self.text_size, self.eos_id])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole layout."""
        layout: list[Any] = [self.text_fingerprint, self.num_units]
        if self.spelling != DEFAULT_SPELLING or self.subwords is not None:
            layout += [self.spelling, self.subwords and self.subwords.fingerprint]
        return _sha256(layout)

    def __getstate__(self) -> dict[str, Any]:
        # Cached tokenizers stay behind: a pickled one forgets that specials inside a text are ordinary text.
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}


def _sha256(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
