"""What a model reads, as sound: speech spans cut from the recording, something else for text.

Enters: a `Seen`, its recording, what to put for text spans. Leaves: one waveform and a line for each span. The one
decision worth knowing: a span is cut exactly at its frames, without fades, so that what is heard is what the units of
the span were made of, clicks included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.tokens.look_records import Seen, SeenSpan

MOST_BEHIND_S = 0.5
"""Sound behind the last unit: what does not fill a frame, and what encoders lose at the end."""
TONE_HZ, TONE_S, QUIET_S, LOUDNESS = 440.0, 0.15, 0.1, 0.1

Waveform = Float[np.ndarray, " samples"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sounding:
    """Where a span sounds: samples of the result, half-open; of the recording for speech, else None."""

    span: SeenSpan
    start: int
    stop: int
    source_start: int | None = None
    source_stop: int | None = None


def sample_of(frame: int, frame_rate_hz: float, sample_rate_hz: int) -> int:
    """First sample of a frame."""
    return frame * sample_rate_hz // Fraction(frame_rate_hz).limit_denominator(10_000)


def check_length(seen: Seen, samples: int, sample_rate_hz: int) -> None:
    """Raises DataError: this recording is not the one that the units were made of."""
    units_s, audio_s = seen.duration_s, samples / sample_rate_hz
    if units_s is None or seen.frame_rate_hz is None:
        raise DataError(f"{seen.title}: the store has no durations, so its spans have no place in a recording")
    if not units_s - 1 / seen.frame_rate_hz <= audio_s <= units_s + MOST_BEHIND_S:
        raise DataError(
            f"{seen.title}: its units last {units_s:.2f} s, the corpus has {audio_s:.2f} s of audio; give the corpus "
            "that the units were encoded from"
        )


def as_sound(
    seen: Seen, recording: Waveform | None, sample_rate_hz: int, say: Callable[[SeenSpan], Waveform]
) -> tuple[Waveform, list[Sounding]]:
    """Put spans behind each other.

    Args:
        recording: of the whole utterance; None where the document has no speech.
        say: the sound of a text span.

    Raises:
        DataError: speech without its recording.
    """
    if recording is not None:
        check_length(seen, len(recording), sample_rate_hz)
    parts, lines, at = [np.zeros(0, np.float32)], [], 0
    for span in seen.spans:
        if span.modality == "text":
            part, first, stop = say(span), None, None
        elif recording is None or seen.frame_rate_hz is None:
            raise DataError(f"{seen.title}: its speech is in its corpus; name that folder with --corpus")
        else:
            first, stop = (
                sample_of(frame, seen.frame_rate_hz, sample_rate_hz) for frame in (span.start_frame, span.stop_frame)
            )
            part = recording[first:stop]
        parts.append(np.asarray(part, np.float32))
        lines.append(Sounding(span=span, start=at, stop=at + len(part), source_start=first, source_stop=stop))
        at += len(part)
    return np.concatenate(parts), lines


def silence(sample_rate_hz: int) -> Waveform:
    """As long as `tone`."""
    return np.zeros(round((TONE_S + QUIET_S) * sample_rate_hz), np.float32)


def tone(sample_rate_hz: int) -> Waveform:
    """A short quiet tone and a pause."""
    made = silence(sample_rate_hz)
    samples = np.arange(round(TONE_S * sample_rate_hz))
    envelope = np.minimum(1, np.minimum(samples, samples[::-1]) / (0.01 * sample_rate_hz))
    made[: len(samples)] = LOUDNESS * envelope * np.sin(2 * np.pi * TONE_HZ * samples / sample_rate_hz)
    return made
