"""Sample times to frames: the one place where they are rounded.

Enters: words or phones with start and end samples. Leaves: half-open frame ranges. The one decision worth knowing:
phones and words go through the same map, so that what ends together in samples ends together in frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError
from speechscale.records import NO_TIME

Event = tuple[str, int, int]
"""(label or word, start sample, end sample), half-open; NO_TIME where the time is unknown."""


def word_frames(
    words: Sequence[Event],
    frame_rate_hz: float,
    sample_rate_hz: int,
    frames: int,
    *,
    phones: Sequence[Event] = (),
) -> Int[np.ndarray, "words 2"]:
    """Half-open frame range of each word, NO_TIME for words without a time.

    Give the phones with phone units: then word borders lie on the same frames as the phone borders they share, and a
    border inside a phone stays inside its frames. Without them each word has at least one frame where possible.

    Raises:
        DataError: words (or phones) outside the audio or out of order.
    """
    timed = [index for index, (_, start, end) in enumerate(words) if NO_TIME not in (start, end)]
    known = [words[index] for index in timed]
    result = np.full((len(words), 2), NO_TIME, np.int32)
    result[timed] = event_frames(known, phones or known, frame_rate_hz, sample_rate_hz, frames, "word")
    return result


def frame_boundaries(
    events: Int[np.ndarray, "events 2"], frame_rate_hz: float, sample_rate_hz: int, frames: int
) -> tuple[Int[np.ndarray, " borders"], Int[np.ndarray, " borders"]]:
    """Map the sample borders of ordered, disjoint events to frame borders; return both, ascending.

    A frame belongs to the event that holds its center, so border s lies at s * frame_rate / sample_rate, rounded,
    halves down. Then every event that has any samples gets at least one frame: a border that is too early moves right
    as far as needed, and left again where the audio ends. Only with fewer frames than events, the first ones get none.

    Example: 100 Hz, 16 kHz, 3 frames, events [[0, 160], [160, 200], [200, 480]] -> [0, 160, 200, 480], [0, 1, 2, 3]
    """
    borders, where = np.unique(events.ravel(), return_inverse=True)
    starts = where.reshape(-1, 2)[events[:, 0] < events[:, 1], 0]
    needs = np.zeros(len(borders), np.int64)
    needs[starts + 1] = 1  # An event that lasts ends at the next border, since events are disjoint.
    needed = np.cumsum(needs)
    earliest = needed + np.maximum.accumulate(_round_frames(borders, frame_rate_hz, sample_rate_hz) - needed)
    latest = frames - (needed[-1:] - needed)
    return borders, np.clip(np.minimum(earliest, latest), 0, frames)


def event_frames(
    events: Sequence[Event],
    anchors: Sequence[Event],
    frame_rate_hz: float,
    sample_rate_hz: int,
    frames: int,
    what: str,
) -> Int[np.ndarray, "events 2"]:
    """Frame range of each event, where the borders of `anchors` fix the map from samples to frames."""
    spans = _checked_spans(events, frame_rate_hz, sample_rate_hz, frames, what)
    fixed = spans if anchors is events else _checked_spans(anchors, frame_rate_hz, sample_rate_hz, frames, "phone")
    borders, at = frame_boundaries(fixed, frame_rate_hz, sample_rate_hz, frames)
    left = np.searchsorted(borders, spans, side="right") - 1
    right = np.searchsorted(borders, spans, side="left")
    low = np.where(left >= 0, np.append(at, 0)[left], 0)
    high = np.append(at, frames)[right]
    return np.clip(_round_frames(spans, frame_rate_hz, sample_rate_hz), low, high).astype(np.int32)


def _checked_spans(
    events: Sequence[Event], frame_rate_hz: float, sample_rate_hz: int, frames: int, what: str
) -> Int[np.ndarray, "events 2"]:
    spans = np.array([(start, end) for _, start, end in events], np.int64).reshape(-1, 2)
    # Audio of n whole frames may go on for almost one more.
    limit = _samples_needed(frames + 1, frame_rate_hz, sample_rate_hz) - 1
    outside = np.flatnonzero((spans[:, 0] < 0) | (spans[:, 1] > limit) | (spans[:, 1] < spans[:, 0]))
    if len(outside):
        index = int(outside[0])
        raise DataError(
            f"{what} {index} ('{events[index][0]}') spans samples {spans[index, 0]}..{spans[index, 1]}, the audio has "
            f"at most {limit}; align it again or drop it"
        )
    early = np.flatnonzero(spans[1:, 0] < spans[:-1, 1])
    if len(early):
        index = int(early[0]) + 1
        raise DataError(
            f"{what} {index} ('{events[index][0]}') starts at sample {spans[index, 0]}, before {what} {index - 1} ends "
            f"at {spans[index - 1, 1]}; align it again or drop it"
        )
    return spans


def _round_frames(samples: np.ndarray, frame_rate_hz: float, sample_rate_hz: int) -> np.ndarray:
    """Samples to frames, to the nearest, halves down, in exact integers."""
    rate = Fraction(frame_rate_hz).limit_denominator(10_000)
    per_sample, unit = 2 * rate.numerator, 2 * rate.denominator * sample_rate_hz
    return -((unit // 2 - samples * per_sample) // unit)


def whole_frames(samples: int, frame_rate_hz: float, sample_rate_hz: int) -> int:
    """Complete frames in so many samples; what is left over is dropped."""
    rate = Fraction(frame_rate_hz).limit_denominator(10_000)
    return samples * rate.numerator // (sample_rate_hz * rate.denominator)


def _samples_needed(frames: int, frame_rate_hz: float, sample_rate_hz: int) -> int:
    """Samples that so many frames cover."""
    rate = Fraction(frame_rate_hz).limit_denominator(10_000)
    return -(-frames * sample_rate_hz * rate.denominator // rate.numerator)
