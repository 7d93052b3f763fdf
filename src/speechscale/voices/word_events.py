"""From the voice engine's events to spans of words and phones that tile a segment.

Enters: the words of a segment and the engine's word and phone events. Leaves: one span per word, and phones that cover
the audio without gaps; a word border is always a phone border. The one decision worth knowing: the text is spoken as it
stands, and words that the engine merges ("in the", "there was") are told apart afterwards by comparing the phones of
the merged stretch with those of each word said alone. Pure functions of integers; no audio, no engine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

WORD, PHONE = 1, 7
PAUSE = "_"
STRESS_MARKS = "',%="
VOWEL_STARTS = frozenset("aeiouAEIOUV0@38")
"""First characters of the engine's names of English vowels."""

Event = tuple[int, int, int, str]
"""Kind (WORD or PHONE), character of the text counted from 1, sample, label."""


@dataclass(slots=True, kw_only=True)
class PhoneSpan:
    label: str
    start: int
    end: int
    word: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Spans in samples: (start, end) per word, (label, start, end) per phone, which tile [0, samples)."""

    words: list[tuple[int, int]]
    phones: list[tuple[str, int, int]]


def plain_label(label: str) -> str:
    """Remove stress marks; every kind of pause becomes "_". Examples: "'aU" -> "aU", "_:" -> "_"."""
    label = label.lstrip(STRESS_MARKS)
    return PAUSE if not label or label.startswith(PAUSE) else label


def is_vowel(label: str) -> bool:
    return label[:1] in VOWEL_STARTS


def phone_spans(words: Sequence[str], events: Sequence[Event], samples: int) -> list[PhoneSpan]:
    """Put phones (pauses left out) on the time axis and give each to a word.

    A consonant that opens a word owns the silence between the word event and its own (its closure). Before a vowel
    that stretch is voiced: there the engine renders the last phone of the word before, so the word starts at its vowel.
    """
    first = [0, *accumulate(len(word) + 1 for word in words)][:-1]
    phones: list[PhoneSpan] = []
    word, opened, latest = 0, -1, 0
    for kind, character, sample, name in events:
        sample = min(max(sample, latest), samples)
        if kind == WORD:
            word, opened = max(word, bisect_right(first, max(character - 1, 0)) - 1), sample
            continue
        label = plain_label(name)
        start = opened if opened >= 0 and not is_vowel(label) else sample
        if phones and phones[-1].end < 0:
            phones[-1].end = start
        if label != PAUSE:
            phones.append(PhoneSpan(label=label, start=start, end=-1, word=word))
        latest, opened = sample, -1
    if phones and phones[-1].end < 0:
        phones[-1].end = samples
    _lengthen(phones)
    return phones


def merged_groups(words: Sequence[str], phones: Sequence[PhoneSpan]) -> list[list[int]]:
    """Find words with letters but without phones, each together with the word whose phones contain its own.

    Example: words "he is in the house" without phones of "the" -> [[2, 3]]
    """
    voiced = sorted({phone.word for phone in phones})
    groups: dict[int, list[int]] = {}
    for index, text in enumerate(words):
        if voiced and has_letters(text) and index not in voiced:
            owner = voiced[max(bisect_right(voiced, index) - 1, 0)]
            groups.setdefault(owner, [owner]).append(index)
    return [sorted(group) for group in groups.values()]


def split_merged(
    words: Sequence[str], phones: Sequence[PhoneSpan], group: Sequence[int], spelled: Sequence[Sequence[str]]
) -> None:
    """Share the phones of a merged group among its words; punctuation gets none.

    Args:
        group: indices of the words, ascending; one of them has all the phones.
        spelled: engine names of the phones of each word of the group, said alone.
    """
    part = [phone for phone in phones if phone.word in group]
    alone = [
        [label for label in map(plain_label, names) if label != PAUSE and has_letters(words[word])]
        for word, names in zip(group, spelled, strict=True)
    ]
    cuts = best_cuts([phone.label for phone in part], alone)
    for word, start, end in zip(group, [0, *cuts], [*cuts, len(part)], strict=True):
        for phone in part[start:end]:
            phone.word = word


def tile(words: Sequence[str], phones: Sequence[PhoneSpan], from_hz: int, to_hz: int, samples: int) -> Timed:
    """Round to samples at `to_hz` (half up, clipped to the audio) and fill what is between phones with pauses.

    A word without sound of its own (punctuation) has an empty span where the word before it ends.
    """
    tiled: list[tuple[str, int, int]] = []
    spans: dict[int, tuple[int, int]] = {}
    latest = 0
    for phone in phones:
        start = min(rescale(phone.start, from_hz, to_hz), samples)
        end = min(rescale(phone.end, from_hz, to_hz), samples)
        if end > start:
            if start > latest:
                tiled.append((PAUSE, latest, start))
            tiled.append((phone.label, start, end))
            latest = end
            spans[phone.word] = (spans.get(phone.word, (start, end))[0], end)
    if latest < samples:
        tiled.append((PAUSE, latest, samples))
    timed: list[tuple[int, int]] = []
    for index in range(len(words)):
        before = timed[-1][1] if timed else 0
        timed.append(spans.get(index, (before, before)))
    return Timed(words=timed, phones=tiled)


def best_cuts(labels: Sequence[str], alone: Sequence[Sequence[str]]) -> list[int]:
    """Cut `labels` into one part per word so that the parts are nearest to the words said alone.

    Each word that has phones alone gets at least one, if there are enough. Among equals the earliest cuts win.
    Example: ["D", "e@", "w", "V", "z"], [["D", "e@"], ["w", "0", "z"]] -> [2]
    """
    total = len(labels)
    needed = [min(len(word), 1) for word in alone]
    if sum(needed) > total:
        needed = [0] * len(alone)
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}
    for index, word in enumerate(alone):
        ends = range(total, total + 1) if index == len(alone) - 1 else range(total + 1)
        after: dict[int, tuple[float, list[int]]] = {}
        for start, (cost, cuts) in best.items():
            for end in ends:
                if end - start < needed[index]:
                    continue
                offer = (cost + phone_distance(labels[start:end], word), [*cuts, end])
                if end not in after or offer < after[end]:
                    after[end] = offer
        best = after
    return best[total][1][:-1]


def phone_distance(left: Sequence[str], right: Sequence[str]) -> float:
    """Edit distance in which similar phones cost less to exchange than a vowel for a consonant."""
    row = [float(column) for column in range(len(right) + 1)]
    for line, a in enumerate(left, 1):
        diagonal, row[0] = row[0], float(line)
        for column, b in enumerate(right, 1):
            swap = diagonal + _exchange(a, b)
            diagonal, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, swap)
    return row[-1]


def has_letters(text: str) -> bool:
    """Whether a text has a letter or digit, that is, something to say."""
    return any(character.isalnum() for character in text)


def rescale(sample: int, from_hz: int, to_hz: int) -> int:
    """Convert a sample index between rates, exactly, halves up. Example: 441 at 22,050 Hz is 320 at 16,000 Hz."""
    return (2 * sample * to_hz + from_hz) // (2 * from_hz)


def _exchange(a: str, b: str) -> float:
    if a == b:
        return 0.0
    if a[:1] == b[:1]:
        return 0.3
    return 0.6 if is_vowel(a) == is_vowel(b) else 1.2


def _lengthen(phones: list[PhoneSpan]) -> None:
    """Give a phone that the engine renders inside its neighbor (a final l or n) a third of the neighbor's time.

    The neighbor is the phone right before it, or behind it when a pause or nothing is before.
    """
    for index, phone in enumerate(phones):
        if phone.end > phone.start:
            continue
        before = phones[index - 1] if index else None
        if before is not None and before.end == phone.start and before.end > before.start:
            phone.start = before.end = before.end - (before.end - before.start) // 3
        else:
            behind = phones[index + 1] if index + 1 < len(phones) else None
            if behind is not None and behind.start == phone.end:
                phone.end = behind.start = behind.start + (behind.end - behind.start) // 3
