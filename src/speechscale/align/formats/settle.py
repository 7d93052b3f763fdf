"""The one place that checks word times.

Enters: what a reader found, times unchecked. Leaves: words in order with honest times, and a count of what was lost or
repaired. The one decision worth knowing: a word with a bad time is either refused by name or keeps its place without
time; it is never moved and never drops out, so that one bad number does not cost an utterance.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from speechscale.align.formats.entries import REALIGN, ROUNDING_S, Entry, Found, is_silence
from speechscale.errors import DataError
from speechscale.records import Word

END_TOLERANCE_S = 0.05
"""How far a word may reach past the end of the audio; it is clipped. Aligners round to frames of 10 ms and windows."""
KEPT_PROBLEMS = 20
"""Messages a `Losses` keeps; all are counted."""

Repair = Literal["refuse", "drop_times"]


@dataclass(slots=True)
class Losses:
    """What reading or writing word times lost or repaired; one object may collect many files.

    Attributes:
        read: entries in the files. words: words that came out of them.
        silence: entries left out as silence or noise. alternatives: entries of readings not used.
        merged: pieces joined to the word before. split: words gained where an entry held a sentence.
        untimed: words without time in the file. dropped_times: words whose bad time was dropped.
        snapped: overlaps below the rounding of the format (1 ms; CTM and RTTM 20 ms) removed.
        clipped: ends moved to the end of the audio.
        zero_length: words that end where they start; kept.
        unwritten: words a written format had no place for.
        problems: the first messages about dropped times.
    """

    read: int = 0
    words: int = 0
    silence: int = 0
    alternatives: int = 0
    merged: int = 0
    split: int = 0
    untimed: int = 0
    dropped_times: int = 0
    snapped: int = 0
    clipped: int = 0
    zero_length: int = 0
    unwritten: int = 0
    problems: list[str] = field(default_factory=list)

    def problem(self, message: str) -> None:
        """Count a dropped time and keep the first messages."""
        self.dropped_times += 1
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(message)

    def check(self) -> None:
        """Assert that nothing got lost: read + split = words + silence + alternatives + merged."""
        total = self.words + self.silence + self.alternatives + self.merged
        assert self.read + self.split == total, f"{self.read} read + {self.split} split is not {total}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        """Counts that are not zero. Example: "words 31, silence 4, untimed 2"."""
        counts = {name: value for name, value in asdict(self).items() if isinstance(value, int) and value}
        counts.pop("read", None)
        return ", ".join(f"{name} {value}" for name, value in counts.items()) or "nothing read"


def settle(
    found: Sequence[Found],
    *,
    repair: Repair = "refuse",
    losses: Losses | None = None,
    duration_s: float | None = None,
) -> list[Word]:
    """Turn the entries of one recording into words: silence out, times checked, rounding snapped.

    Args:
        repair: "refuse" raises at the first bad time. "drop_times" takes the times of bad words away and keeps as many
            timed words as possible: of words in wrong order or overlapping, the largest set that is in order stays.
        losses: is added to.
        duration_s: length of the audio; words past its end are bad, up to 50 ms they are clipped.

    Raises:
        DataError: naming file and entry.
    """
    if repair not in ("refuse", "drop_times"):
        raise DataError(f"repair = '{repair}' is not one of refuse, drop_times")
    losses = losses if losses is not None else Losses()
    spoken = _spoken(found, losses)
    words = [Word(text=entry.text, score=_score(entry.score)) for _, entry in spoken]
    timed = _timed(spoken, repair, losses, duration_s)
    spans = [(start, end) for _, start, end in timed]
    rounding_s = max((part.rounding_s for part in found), default=ROUNDING_S)
    kept, reached = set(longest_chain(spans, rounding_s) if repair == "drop_times" else range(len(timed))), 0.0
    for place, (index, start_s, end_s) in enumerate(timed):
        if place not in kept:
            behind = "overlaps words behind it, of which more fit together"
            problem = _disorder(end_s, reached) if start_s < reached - rounding_s else behind
            losses.problem(f"{_item(*spoken[index])}: {problem}")
            continue
        if start_s < reached:
            losses.snapped += 1
            start_s, end_s = reached, max(end_s, reached)
        losses.zero_length += end_s == start_s
        reached = end_s
        words[index] = replace(words[index], start_s=start_s, end_s=end_s)
    losses.words += len(words)
    return words


def _spoken(found: Sequence[Found], losses: Losses) -> list[tuple[Found, Entry]]:
    """Entries that are words, sentences split; everything is counted."""
    spoken: list[tuple[Found, Entry]] = []
    for part in found:
        losses.read += len(part.entries) + part.alternatives + part.merged
        losses.alternatives += part.alternatives
        losses.merged += part.merged
        for entry in part.entries:
            text = " ".join(entry.text.split())
            if is_silence(text):
                losses.silence += 1
            elif part.phrases and sum(any(map(str.isalnum, label)) for label in text.split()) > 1:
                labels = text.split()
                losses.split += len(labels) - 1
                losses.silence += sum(map(is_silence, labels))
                spoken += [
                    (part, Entry(word, None, None, None, entry.number)) for word in labels if not is_silence(word)
                ]
            else:
                spoken.append((part, entry._replace(text=text)))
    return spoken


def _timed(
    spoken: Sequence[tuple[Found, Entry]], repair: Repair, losses: Losses, duration_s: float | None
) -> list[tuple[int, float, float]]:
    """Index and times of the words whose times are good in themselves, cut to the audio."""
    timed: list[tuple[int, float, float]] = []
    for index, (part, entry) in enumerate(spoken):
        if entry.start_s is None or entry.end_s is None:
            losses.untimed += 1
            continue
        problem = _fault(entry, duration_s, part.rounding_s)
        start_s = max(entry.start_s, 0.0) + 0.0
        end_s = max(entry.end_s, start_s)
        if problem is None and repair == "refuse" and timed and start_s < timed[-1][2] - part.rounding_s:
            problem = _disorder(end_s, timed[-1][2])
        if problem is not None:
            message = f"{_item(part, entry)}: {problem}"
            if repair == "refuse":
                raise DataError(f"{message}; {REALIGN}")
            losses.problem(message)
            continue
        if duration_s is not None and end_s > duration_s:
            losses.clipped += 1
            start_s, end_s = min(start_s, duration_s), duration_s
        timed.append((index, start_s, end_s))
    return timed


def clip_words(
    words: Sequence[Word], duration_s: float, *, repair: Repair = "refuse", losses: Losses | None = None
) -> tuple[Word, ...]:
    """Clip words that reach up to 50 ms past the end of the audio.

    Raises:
        DataError: a word ends later than that; names it. With repair="drop_times" it loses its times instead.
    """
    losses = losses if losses is not None else Losses()
    clipped = []
    for index, word in enumerate(words):
        if word.end_s is not None and word.start_s is not None and word.end_s > duration_s:
            if word.end_s > duration_s + END_TOLERANCE_S or word.start_s > duration_s:
                message = (
                    f"word {index} ('{word.text}') spans {word.start_s:.3f}..{word.end_s:.3f} s, "
                    f"the audio lasts {duration_s:.3f} s"
                )
                if repair == "refuse":
                    raise DataError(message)
                losses.problem(message)
                word = replace(word, start_s=None, end_s=None)
            else:
                losses.clipped += 1
                word = replace(word, end_s=duration_s)
        clipped.append(word)
    return tuple(clipped)


def longest_chain(spans: Sequence[tuple[float, float]], rounding_s: float = ROUNDING_S) -> list[int]:
    """Indices of the largest set of spans, in their order, in which each starts where the one before has ended.

    Overlaps up to `rounding_s` are allowed. Takes O(n log n). Example: [(0, 1), (5, 6), (1, 2), (2, 3)] -> [0, 2, 3]
    """
    ends: list[float] = []
    last: list[int] = []
    previous: list[int] = []
    for index, (start, end) in enumerate(spans):
        length = bisect_right(ends, start + rounding_s)
        previous.append(last[length - 1] if length else -1)
        reached = max(end, ends[length - 1]) if length else end
        if length == len(ends):
            ends.append(reached)
            last.append(index)
        elif reached < ends[length]:
            ends[length], last[length] = reached, index
    chain = []
    at = last[-1] if last else -1
    while at >= 0:
        chain.append(at)
        at = previous[at]
    return chain[::-1]


def _score(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _fault(entry: Entry, duration_s: float | None, rounding_s: float) -> str | None:
    start, end = entry.start_s, entry.end_s
    assert start is not None
    assert end is not None
    if not (math.isfinite(start) and math.isfinite(end)):
        return "its times are not numbers"
    if start < -ROUNDING_S:
        return "starts before the audio"
    if end < start - (rounding_s if rounding_s > ROUNDING_S else 0):
        return "ends before it starts"
    if duration_s is not None and (end > duration_s + END_TOLERANCE_S or start > duration_s + ROUNDING_S):
        return f"ends past the audio, which lasts {duration_s:g} s"
    return None


def _disorder(end_s: float, reached_s: float) -> str:
    problem = "is out of order" if end_s <= reached_s - ROUNDING_S else "overlaps the one before"
    return f"{problem}, which ends at {reached_s:g} s"


def _item(part: Found, entry: Entry) -> str:
    times = "no time" if entry.start_s is None or entry.end_s is None else f"{entry.start_s:g}..{entry.end_s:g} s"
    return f"{part.where}, {part.unit} {entry.number} ('{entry.text}', {times})"
