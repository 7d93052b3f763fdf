"""What a store writer asks of documents before it takes them: are they usable, which ids do their words have.

Enters: unit tables, words, texts. Leaves: rows with something wrong, token ids of words, texts in batches.
The one decision worth knowing: whole tables are looked over by a few vector passes, and only rows that fail them are
looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int

from speechscale.records import NO_TIME, UnitTable, unit_row_problem
from speechscale.tokens.ragged import Ragged, gather_rows
from speechscale.tokens.vocabulary import Vocabulary

TEXTS_AT_ONCE, CHARS_AT_ONCE = 4096, 4 << 20
WORDS_REMEMBERED = 1 << 20
LONGEST = 65_535
"""Frames of a unit, tokens of a word: what 16 bits hold."""


class WordIds:
    """Token ids of words, each encoded once as long as it is remembered."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._forget()

    def _forget(self) -> None:
        self._places: dict[str, int] = {}
        self._tokens = Ragged(np.zeros(0, np.int32), np.zeros(1, np.int64))

    def encode(self, words: Sequence[str]) -> Ragged:
        if len(self._places) > WORDS_REMEMBERED:
            self._forget()
        if new := list(set(words).difference(self._places)):
            found, before = self._vocabulary.encode_words(new), self._tokens
            self._places |= {word: len(self._places) + index for index, word in enumerate(new)}
            borders = np.concatenate([before.offsets, found.offsets[1:] + before.offsets[-1]])
            self._tokens = Ragged(np.concatenate([before.flat, found.flat]), borders)
        return gather_rows(self._tokens, np.fromiter(map(self._places.__getitem__, words), np.int64, len(words)))


def frames_of(table: UnitTable) -> Int[np.ndarray, " rows"]:
    """`table.frames`, several times faster."""
    if not (np.diff(table.unit_offsets) > 0).all() or not len(table):
        return table.frames
    return np.add.reduceat(table.durations_frames, table.unit_offsets[:-1], dtype=np.int64)


def suspects(table: UnitTable, frames: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
    """Rows that may have something wrong with them; `problem_of` says what."""
    rows = []
    for values, low, high in ((table.units, 0, table.num_units - 1), (table.durations_frames, 1, LONGEST)):
        if len(values) and (values.min() < low or values.max() > high):
            places = np.flatnonzero((values < low) | (values > high))
            rows.append(np.searchsorted(table.unit_offsets, places, side="right") - 1)
    rows.append(np.flatnonzero(np.diff(table.unit_offsets) == 0))
    words = np.flatnonzero(table.word_start_frames != NO_TIME)
    row = np.searchsorted(table.word_offsets, words, side="right") - 1
    start, end = table.word_start_frames[words], table.word_end_frames[words]
    rows.append(row[(start < 0) | (end < start) | (end > frames[row])])
    rows.append(row[1:][(start[1:] < end[:-1]) & (row[1:] == row[:-1])])
    return np.unique(np.concatenate(rows))


def problem_of(table: UnitTable, row: int) -> str:
    durations = table.row_durations(row)
    found = unit_row_problem(
        table.row_units(row), durations, table.row_words(row), table.row_word_frames(row), table.num_units
    )
    return found or f"a unit lasts {durations.max()} frames, at most {LONGEST}; is it silence? cut it or drop it"


def text_batches(documents: Iterable[tuple[str, str]]) -> Iterator[Sequence[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    chars = 0
    for document in documents:
        batch.append(document)
        chars += len(document[1])
        if len(batch) == TEXTS_AT_ONCE or chars >= CHARS_AT_ONCE:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch
