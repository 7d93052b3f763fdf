"""Sound and words of one utterance of a store, as far as the store knows them.

Enters: an opened store and a row. Leaves: units with their borders in frames; words with their text, times, and the
units that sound them. The one decision worth knowing: inside a span every unit has at most one word as its owner, the
one that has more of it, so that units can be written behind words without writing any twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from speechscale.records import NO_TIME, offsets
from speechscale.tokens.cuts import END_SHIFT, LEFT, RIGHT
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.store import TokenStore

NOBODY = -1


class WordTime(NamedTuple):
    """A word as its corpus has it; None where the time is not known."""

    text: str
    start_s: float | None
    end_s: float | None


@dataclass(frozen=True, slots=True)
class Sound:
    """Units of an utterance; borders in frames, None without durations."""

    units: Int[np.ndarray, " units"]
    borders: Int[np.ndarray, " units1"] | None
    frame_rate_hz: float | None

    @classmethod
    def of(cls, store: TokenStore, row: int) -> Sound:
        first, stop = store.arrays["unit_offsets"][row : row + 2].tolist()
        units = np.asarray(store.arrays["units"][first:stop], np.int64)
        if "durations" not in store.arrays:
            return cls(units, None, None)
        return cls(units, offsets(store.arrays["durations"][first:stop]), float(store.meta["frame_rate_hz"]))

    def frame(self, unit: int) -> int:
        """Where a unit begins; 0 without durations."""
        return 0 if self.borders is None else int(self.borders[unit])


@dataclass(frozen=True, slots=True)
class Words:
    """Words of an utterance.

    Args:
        texts: as the vocabulary spells them. spoken: as the corpus does, "" where not known. ids: their text tokens.
        spans_s: start and end in seconds, None without a time or without durations. exact: not only to the unit.
        first: unit that holds the start, NO_TIME without a time.
        touched: (first, stop) of the units that a word overlaps. owned: of those that it has the larger part of.
    """

    texts: list[str]
    spoken: list[str]
    spans_s: list[tuple[float, float] | None]
    exact: list[bool]
    first: Int[np.ndarray, " words"]
    touched: Int[np.ndarray, "words 2"]
    owned: Int[np.ndarray, "words 2"]
    ids: list[Int[np.ndarray, " tokens"]]

    def owners(self, words: range, units: range) -> Int[np.ndarray, " units"]:
        """The word that each unit of a span is written to; NOBODY in a pause."""
        found = np.full(len(units), NOBODY)
        timed = [word for word in words if self.first[word] != NO_TIME]
        for ranges in (self.touched, self.owned):
            for word in timed:
                start, stop = np.clip(ranges[word] - units.start, 0, len(units)).tolist()
                found[start:stop] = word
        return found


def read_words(store: TokenStore, row: int, sound: Sound, times: Sequence[WordTime] | None) -> Words:
    """Read the words of an utterance; none where the store or the vocabulary has no text."""
    if "word_tokens" not in store.arrays or not store.vocabulary.has_text:
        nothing = np.zeros((0, 2), np.int64)
        return Words([], [], [], [], np.zeros(0, np.int64), nothing, nothing, [])
    arrays = store.arrays
    begin, stop = arrays["word_offsets"][row : row + 2].tolist()
    counts = np.asarray(arrays["word_token_counts"][begin:stop], np.int64)
    base = int(arrays["word_token_rows"][row])
    tokens = np.asarray(arrays["word_tokens"][base : base + int(counts.sum())], np.int32)
    ids = Ragged(tokens, offsets(counts)).rows()
    decoded = store.vocabulary.text_tokenizer.decode_batch([word.tolist() for word in ids], skip_special_tokens=False)
    first, last = (np.asarray(arrays[name][begin:stop], np.int64) for name in ("word_first", "word_last"))
    code = np.asarray(arrays["word_code"][begin:stop])
    start_side, end_side = code & 3, code >> END_SHIFT & 3
    touched_stop = np.maximum(last + (end_side > 0), first + 1)
    known = list(times) if times is not None and len(times) == len(ids) else None
    spans_s: list[tuple[float, float] | None] = []
    for word in range(len(ids)):
        if first[word] == NO_TIME or sound.borders is None:
            spans_s.append(None)
        elif known is not None and known[word].start_s is not None and known[word].end_s is not None:
            spans_s.append((float(known[word].start_s or 0), float(known[word].end_s or 0)))
        else:
            sides = ((first[word], start_side[word]), (last[word], end_side[word]))
            start, end = (_place(sound, int(unit), int(side)) for unit, side in sides)
            spans_s.append((start, max(start, end)))
    return Words(
        texts=[text.strip() for text in decoded],
        spoken=[time.text for time in known] if known else [""] * len(ids),
        spans_s=spans_s,
        exact=[known is not None or not (a or b) for a, b in zip(start_side, end_side, strict=True)],
        first=first,
        touched=np.stack([first, touched_stop], axis=1),
        owned=np.stack([first + (start_side == LEFT), last + (end_side == LEFT)], axis=1),
        ids=ids,
    )


def _place(sound: Sound, unit: int, side: int) -> float:
    """About when a word border sounds, that lies on this side of this unit."""
    assert sound.borders is not None
    assert sound.frame_rate_hz is not None
    start = float(sound.borders[unit])
    if side:
        start += (0.25 if side == RIGHT else 0.75) * float(sound.borders[unit + 1] - sound.borders[unit])
    return start / sound.frame_rate_hz
