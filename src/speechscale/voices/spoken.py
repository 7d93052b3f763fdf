"""What every voice engine gives: audio with words and phones in samples.

Enters: spoken segments. Leaves: `Spoken`, one per utterance. The one decision worth knowing: engines speak segments,
and this module joins and checks them, so that pauses, grid and guarantees are the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.records import NO_TIME
from speechscale.speech.audio import TARGET_RATE_HZ
from speechscale.voices.word_events import PAUSE

MIN_PAUSE_S = 0.15
"""Silence between segments, at least."""
GRID_SAMPLES = 640
"""Segments start on multiples of 40 ms at 16 kHz, a whole number of frames at 25, 50 and 100 Hz, so that framing never
differs between two places where a segment is spoken."""

Span = tuple[str, int, int]
"""Text or label, start and end sample; both NO_TIME when the engine does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A spoken utterance; spans are half-open ranges of its samples.

    Args:
        audio: mono, float32 in [-1, 1].
        words: every whitespace-separated word of the segments, in order; punctuation alone has an empty span, and a
            word without time has NO_TIME twice.
        phones: labels of the engine without stress, "_" for silence; they tile the audio, and word borders are
            phone borders. Empty for recordings and engines without phones.
    """

    id: str
    audio: Float[np.ndarray, " samples"]
    words: list[Span]
    phones: list[Span]
    sample_rate_hz: int = TARGET_RATE_HZ


def join_segments(id: str, parts: Sequence[Spoken]) -> Spoken:
    """Put segments behind each other, each starting on the grid, after at least the minimal pause."""
    starts, length = [], 0
    for part in parts:
        starts.append(length)
        end = length + len(part.audio)
        length = -(-(end + round(MIN_PAUSE_S * TARGET_RATE_HZ)) // GRID_SAMPLES) * GRID_SAMPLES
    audio = np.zeros(starts[-1] + len(parts[-1].audio), np.float32)
    words: list[Span] = []
    phones: list[Span] = []
    for start, part in zip(starts, parts, strict=True):
        audio[start : start + len(part.audio)] = part.audio
        words += shifted(part.words, start)
        if phones and phones[-1][2] < start:
            phones.append((PAUSE, phones[-1][2], start))
        phones += shifted(part.phones, start)
    return Spoken(id=id, audio=audio, words=words, phones=merge_pauses(phones))


def shifted(spans: Sequence[Span], samples: int) -> list[Span]:
    """Move spans in time; those without time stay without."""
    return [span if span[1] == NO_TIME else (span[0], span[1] + samples, span[2] + samples) for span in spans]


def merge_pauses(phones: Sequence[Span]) -> list[Span]:
    """Make one pause of neighboring pauses."""
    merged: list[Span] = []
    for label, start, end in phones:
        if merged and label == PAUSE == merged[-1][0]:
            merged[-1] = (PAUSE, merged[-1][1], end)
        else:
            merged.append((label, start, end))
    return merged


def check_spoken(spoken: Spoken, words: Sequence[str]) -> None:
    """Refuse what a unit table could not hold: engines of other people are not trusted to keep their promises.

    Raises:
        DataError: no samples, samples that are not finite or beyond full scale, other words than asked for, times out
            of order or outside the audio, phones that do not tile it.
    """
    problem = ""
    samples = len(spoken.audio)
    timed = [(start, end) for _, start, end in spoken.words if start != NO_TIME]
    flat = [sample for span in timed for sample in span]
    if samples == 0:
        problem = "no samples came"
    elif not np.isfinite(spoken.audio).all():
        problem = "samples are NaN or infinite"
    elif float(np.abs(spoken.audio).max()) > 1:
        problem = "samples are beyond full scale"
    elif [text for text, _, _ in spoken.words] != list(words):
        problem = f"{len(spoken.words)} words came back for {len(words)}, or other ones"
    elif flat and (flat != sorted(flat) or flat[0] < 0 or flat[-1] > samples):
        problem = f"word times are out of order or outside the {samples} samples"
    elif spoken.phones:
        borders = [0, *(end for _, _, end in spoken.phones)]
        starts = [start for _, start, _ in spoken.phones]
        if starts != borders[:-1] or borders != sorted(set(borders)) or borders[-1] != samples:
            problem = "phones do not tile the audio"
    if problem:
        raise DataError(f"the voice engine gave unusable speech: {problem}; report it to the engine, or drop it")


def owners(words: Sequence[str], pieces: Sequence[str]) -> list[int]:
    """Tell for each piece that an engine cut the text into, which whitespace word it belongs to; never decreasing.

    Engines cut punctuation off, split at hyphens and join words ("New York"); a piece belongs to the word that shares
    most of its characters, the first of equals. White space does not count.

    Example: ["he", "said,", "well-known"], ["he", "said", ",", "well", "-", "known"] -> [0, 1, 1, 2, 2, 2]
    """
    text = "".join(words)
    home = [index for index, word in enumerate(words) for _ in word]
    cut = ["".join(piece.split()) for piece in pieces]
    where: list[int | None] = list(range(len(text)))
    if "".join(cut) != text:
        said = "".join(cut)
        where = [None] * len(said)
        for a, b, size in SequenceMatcher(None, text, said, autojunk=False).get_matching_blocks():
            where[b : b + size] = range(a, a + size)
    found: list[int] = []
    position = 0
    for piece in cut:
        shared = [home[at] for at in where[position : position + len(piece)] if at is not None]
        position += len(piece)
        latest = found[-1] if found else 0
        best = max(sorted(set(shared)), key=shared.count) if shared else latest
        found.append(max(best, latest))
    return found
