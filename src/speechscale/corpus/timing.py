"""Word times of an utterance: what is wrong with them, how they move when it is cut.

Enters: words in seconds from the start of an utterance. Leaves: faults by name, or words that fit. The one decision
worth knowing: a word without time is never a fault; an overlap up to 1 ms is rounding and is snapped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from speechscale.align.formats import clip_words
from speechscale.errors import DataError
from speechscale.records import Word

OVERLAP_TOLERANCE_S = 0.001
_CORRECT = "correct the times, or import with --words none"


def word_faults(words: Sequence[Word]) -> Iterator[str]:
    """Say what is wrong with each word whose time cannot be: not a number, negative, reversed, overlapping."""
    before = 0.0
    for index, word in enumerate(words):
        if word.start_s is None and word.end_s is None:
            continue
        name = f"word {index} ('{word.text}', {word.start_s}..{word.end_s} s)"
        if word.start_s is None or word.end_s is None:
            yield f"{name} has only one of start and end"
        elif not (math.isfinite(word.start_s) and math.isfinite(word.end_s)):
            yield f"{name} has times that are not numbers"
        elif word.start_s < -OVERLAP_TOLERANCE_S:
            yield f"{name} starts before the utterance"
        elif word.end_s < word.start_s:
            yield f"{name} ends before it starts"
        elif word.start_s < before - OVERLAP_TOLERANCE_S:
            yield f"{name} overlaps the word before, which ends at {before:g} s"
            before = max(before, word.end_s)
        else:
            before = word.end_s


def fitted_words(words: Sequence[Word], duration_s: float | None) -> tuple[Word, ...]:
    """Words that lie in order within the utterance; rounding is snapped, up to 50 ms past the end clipped.

    Raises:
        DataError: the first fault, with the remedy.
    """
    for problem in word_faults(words):
        raise DataError(f"{problem}; {_CORRECT}")
    snapped, before = [], 0.0
    for word in words:
        if word.start_s is not None and word.end_s is not None:
            start = max(word.start_s, before)
            before = max(start, word.end_s)
            if (start, before) != (word.start_s, word.end_s):
                word = replace(word, start_s=start, end_s=before)
        snapped.append(word)
    if duration_s is None:
        return tuple(snapped)
    try:
        return clip_words(snapped, duration_s)
    except DataError as error:
        raise DataError(f"{error}; {_CORRECT}") from error


def shifted_words(words: Sequence[Word], by_s: float) -> tuple[Word, ...]:
    """The same words, `by_s` seconds later; sums are rounded to a microsecond."""
    return tuple(
        word
        if word.start_s is None or word.end_s is None
        else replace(word, start_s=round(word.start_s + by_s, 6), end_s=round(word.end_s + by_s, 6))
        for word in words
    )
