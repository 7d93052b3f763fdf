"""Where the sound of words is cut out of an utterance's units.

Enters: a `UnitTable`; spans given by their first and last word. Leaves: three numbers per word (`WordCuts`), and the
range of units that each span gets under a gap policy and a boundary rule.
The one decision worth knowing: a word's start and end are kept as "in which unit" and "on which side of it", so that
every rule is exact on the frame timeline although durations are not stored beside the tokens.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from speechscale.records import NO_TIME, UnitTable
from speechscale.tokens.ragged import distinct_strings

Gap = Literal["drop", "attach", "keep"]
Boundary = Literal["overlap", "start", "majority", "slamkit"]

RIGHT, LEFT = 1, 2
"""Where a cut inside a unit has the larger part of it; 0 is a cut exactly at the unit's beginning."""
END_SHIFT = 2
SENTENCE_END = 16
BLOCK_UNITS = 32_768

CLOSERS = "\"')]}\u2018\u2019\u201c\u201d\u00ab\u00bb\u300d\u300f\uff09\u3011\u300b"
"""Quotes and brackets that may stand behind the mark that ends a sentence."""
ENDERS = tuple(".!?\u2026\u3002\uff0e\uff01\uff1f\uff61\u0964\u06d4\u061f")


class WordCuts(NamedTuple):
    """Where words begin and end among the units of their row.

    Args:
        first: unit that holds the start; NO_TIME for a word without a time, at most the last unit.
        last: unit that holds the end; the number of units where the word ends with the audio.
        code: bits 0-1 where the start lies in its unit: 0 at its beginning, 1 (RIGHT) inside with the larger part of
            the unit behind the cut, 2 (LEFT) inside with the larger part, or just half, in front; bits 2-3 the same
            of the end; bit 4: the word ends a sentence.
    """

    first: Int[np.ndarray, " words"]
    last: Int[np.ndarray, " words"]
    code: UInt8[np.ndarray, " words"]


def word_cuts(table: UnitTable) -> WordCuts:
    """Locate each word's start and end among the units of its row, and mark the ends of sentences."""
    # Blocks of rows that stay in the cache: faster than one pass over all.
    places = np.searchsorted(table.unit_offsets, np.arange(0, len(table.units), BLOCK_UNITS))
    blocks = pairwise(np.unique([0, *places.tolist(), len(table)]).tolist())
    parts = [_locate(table, first_row, last_row) for first_row, last_row in blocks]
    if not parts:
        return WordCuts(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.uint8))
    first, last, side = (np.concatenate(column) for column in zip(*parts, strict=True))
    return WordCuts(first, last, side | _sentence_bits(table))


def _locate(table: UnitTable, first_row: int, last_row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`first`, `last` and the sides of the words of some rows."""
    borders = np.asarray(table.unit_offsets[first_row : last_row + 1]) - table.unit_offsets[first_row]
    words = slice(table.word_offsets[first_row], table.word_offsets[last_row])
    starts, ends = table.word_start_frames[words], table.word_end_frames[words]
    lengths = np.diff(table.word_offsets[first_row : last_row + 1])
    units = slice(table.unit_offsets[first_row], table.unit_offsets[last_row])
    durations = np.append(np.asarray(table.durations_frames[units], np.int32), np.int32(1))
    unit_starts = np.cumsum(durations, dtype=np.int32) - durations  # a block holds less than 2^31 frames
    row_unit = np.repeat(borders[:-1], lengths)
    row_start, row_stop = (np.repeat(unit_starts[borders[k : len(borders) - 1 + k]], lengths) for k in (0, 1))
    timed = (starts != NO_TIME) & (ends != NO_TIME) & (row_stop > row_start)
    # Which unit each frame lies in; the frame behind the last lies in the unit behind the last.
    unit_of = np.zeros(int(unit_starts[-1]) + 1, np.int32)
    unit_of[unit_starts[1:]] = 1
    np.cumsum(unit_of, out=unit_of)

    def locate(at: np.ndarray, latest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        unit = unit_of[np.minimum(at, latest)]
        before = at - unit_starts[unit]
        side = np.where(2 * before < durations[unit], np.uint8(RIGHT), np.uint8(LEFT))
        side[(before == 0) | ~timed] = 0
        return np.where(timed, unit - row_unit, NO_TIME).astype(np.int32), side

    first, start_side = locate(row_start + starts, row_stop - 1)
    last, end_side = locate(row_start + ends, row_stop)
    return first, last, start_side | end_side << np.uint8(END_SHIFT)


def _sentence_bits(table: UnitTable) -> UInt8[np.ndarray, " words"]:
    """SENTENCE_END at words that end in . ! ? and their like, closing quotes ignored, and at the last of each row."""
    words, codes = distinct_strings(table.words)
    bits = np.array([word.rstrip().rstrip(CLOSERS).endswith(ENDERS) for word in words], bool)[codes]
    stops = np.asarray(table.word_offsets[1:])
    bits[stops[stops > table.word_offsets[:-1]] - 1] = True
    return bits.astype(np.uint8) * np.uint8(SENTENCE_END)


def unit_ranges(
    cuts: WordCuts,
    *,
    first_word: Int[np.ndarray, " spans"],
    last_word: Int[np.ndarray, " spans"],
    row_first_word: Int[np.ndarray, " spans"],
    row_stop_word: Int[np.ndarray, " spans"],
    row_units: Int[np.ndarray, " spans"],
    gap: Gap = "drop",
    boundary: Boundary = "overlap",
) -> tuple[Int[np.ndarray, " spans"], Int[np.ndarray, " spans"]]:
    """Return the half-open range of units of each span, counted from the first unit of its row.

    Args:
        cuts: of all words; may be memory maps.
        first_word, last_word: words of each span, inclusive; both have a time.
        row_first_word, row_stop_word, row_units: words and number of units of the span's row.
        gap: "drop" cuts from the start of the first word to the end of the last; "attach" gives each pause to the
            word behind it, the sound in front of all words to the first and that behind them to the last, so that
            the words of an utterance tile it; "keep" leaves the pauses on both sides with the span. A neighbor
            without a time gives no pause.
        boundary: who gets a unit that sounds on both sides of a cut. "overlap": both, and a word of zero frames has the
            unit at its time (with "attach" and "keep" only where it has no other). "start": where it starts.
            "majority": where more of it sounds, the left for two halves. "slamkit": as its bisection of unit end
            times, which drops such a unit at an end and takes one too many at a start that is exactly between two.

    Returns:
        start, stop; "overlap" is never empty, for the others stop may equal start.
    """
    own_first = np.asarray(cuts.first[first_word], np.int64)
    begin, begin_side = own_first, cuts.code[first_word] & 3
    end = np.asarray(cuts.last[last_word], np.int64)
    end_side = (cuts.code[last_word] >> END_SHIFT) & 3
    if gap != "drop":
        begin, begin_side = _behind_previous(cuts, first_word, row_first_word, begin, begin_side)
        closing = last_word + 1 == row_stop_word
        end, end_side = np.where(closing, row_units, end), np.where(closing, 0, end_side)
        if gap == "keep":
            end, end_side = _in_front_of_next(cuts, last_word, ~closing, end, end_side)
    if boundary == "overlap":
        # A span of zero frames still has the unit that sounds at its time.
        begin = np.minimum(begin, own_first)
        least = cuts.first[last_word].astype(np.int64) if gap == "drop" else begin
        return begin, np.maximum(end + (end_side > 0), least + 1)
    if boundary == "slamkit":
        begin = begin - ((begin_side == 0) & (begin > 0))
        return begin, np.maximum(end, begin)
    goes_left = (lambda side: side > 0) if boundary == "start" else (lambda side: side == LEFT)
    start, stop = begin + goes_left(begin_side), end + goes_left(end_side)
    return start, np.maximum(stop, start)


def _behind_previous(
    cuts: WordCuts, word: np.ndarray, row_first_word: np.ndarray, begin: np.ndarray, side: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Move the beginning to the end of the word in front, or of the audio; leave it where that has no time."""
    opening = word == row_first_word
    previous = np.maximum(word - 1, 0)
    found = np.asarray(cuts.last[previous], np.int64)
    moves = ~opening & (found != NO_TIME)
    found_side = (cuts.code[previous] >> END_SHIFT) & 3
    begin, side = np.where(moves, found, begin), np.where(moves, found_side, side)
    return np.where(opening, 0, begin), np.where(opening, 0, side)


def _in_front_of_next(
    cuts: WordCuts, word: np.ndarray, inside: Bool[np.ndarray, " spans"], end: np.ndarray, side: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Move the end to the start of the word behind; leave it where that has no time."""
    following = np.where(inside, word + 1, word)
    found = np.asarray(cuts.first[following], np.int64)
    moves = inside & (found != NO_TIME)
    return np.where(moves, found, end), np.where(moves, cuts.code[following] & 3, side)


def word_unit_ranges(table: UnitTable) -> tuple[Int[np.ndarray, " words"], Int[np.ndarray, " words"]]:
    """Return the half-open range of units that overlap each word's frames, counted from the first unit of its row.

    Cutting [start, end) on the frame timeline and collapsing the cut gives the same units. A word of zero frames gets
    the unit that sounds at its time, so that a spoken word is never lost. Words without a time get NO_TIME.
    """
    cuts = word_cuts(table)
    stop = np.maximum(cuts.last + ((cuts.code >> END_SHIFT) & 3 > 0), cuts.first + 1)
    return cuts.first, np.where(cuts.first == NO_TIME, NO_TIME, stop).astype(np.int32)
