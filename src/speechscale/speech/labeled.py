"""Units per frame beside the phones and words that were said: what every measure of units starts from.

Enters: timed labels in seconds. Leaves: `Labeled` utterances, and the phone at any time. The one decision worth
knowing: a label is looked up at a time, never rounded to frames first, so that the shift curve can move in steps of
10 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

SILENCE = "sil"
_SILENCES = frozenset({"", "_", "sil", "sp", "silence", "pau", "h#", "#", "<sil>", "(null)"})

TimedLabel = tuple[str, float, float]
"""Label, start and end in seconds from the start of the utterance."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labeled:
    """Units of one utterance (one per frame, not deduplicated) and what is said when.

    Args:
        phones: in order, disjoint; gaps between them count as silence, what lies outside is not scored. May be empty.
        words: in order; only words with a time. May be empty.
    """

    id: str
    speaker: str
    units: Int[np.ndarray, " frames"]
    phones: tuple[TimedLabel, ...] = ()
    words: tuple[TimedLabel, ...] = ()


def plain_phone(label: str) -> str:
    """Phone without the stress digit of ARPAbet; all silences are one. Example: "AH0" -> "AH", "sp" -> "sil"."""
    label = label.strip()
    if label.casefold() in _SILENCES:
        return SILENCE
    stressed = len(label) == 3 and label[2] in "012" and label[:2].isalpha() and label[:2].isupper()
    return label[:2] if stressed else label


def phones_at(
    phones: Sequence[TimedLabel], index: dict[str, int], times_s: Float[np.ndarray, " times"]
) -> Int[np.ndarray, " times"]:
    """Class of the phone at each time; -1 before the first and after the last phone, silence in gaps."""
    if not phones:
        return np.full(len(times_s), -1)
    starts, ends = np.array([p[1] for p in phones]), np.array([p[2] for p in phones])
    ids = np.array([index[plain_phone(p[0])] for p in phones])
    at = np.searchsorted(starts, times_s, side="right") - 1
    inside = (at >= 0) & (times_s < ends[-1])
    gap = times_s >= ends[at]
    return np.where(inside, np.where(gap, index[SILENCE], ids[at]), -1)


def phone_index(utterances: Sequence[Labeled]) -> dict[str, int]:
    """A number for every phone class of the utterances; silence is always there."""
    return {
        label: i
        for i, label in enumerate(sorted({SILENCE} | {plain_phone(p[0]) for u in utterances for p in u.phones}))
    }
