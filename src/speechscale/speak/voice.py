"""Give what a model said its sound.

Enters: spans, a unit vocoder. Leaves: one waveform and where each span sounds. The one decision worth knowing: prompt
and continuation are vocoded as one, so that nothing breaks where they meet; stretches parted by text follow each other
with a pause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from speechscale.speak.spoken import PAUSE_S, SpokenSpan, stretches
from speechscale.speech.vocoders import UnitVocoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """How something is spoken.

    Args:
        speaker: of the vocoder; None for its first. prompt_sound: a spoken prompt is heard before what follows, both
            made as one.
    """

    speaker: str | None = None
    prompt_sound: bool = True

    def heard(self, prompt_units: Int[np.ndarray, " units"]) -> Int[np.ndarray, " units"]:
        """Those units of a prompt that sound."""
        return prompt_units if self.prompt_sound else prompt_units[:0]


DEFAULT_VOICE = Voice()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sound:
    """A waveform, the spans with their times, and where the continuation starts."""

    audio: Float[np.ndarray, " samples"]
    rate_hz: int
    spans: tuple[SpokenSpan, ...]
    prompt_s: float


def sound_of(
    spans: Sequence[SpokenSpan],
    prompt_units: Int[np.ndarray, " units"],
    vocoder: UnitVocoder,
    speaker: str | None = None,
) -> Sound:
    """Speak a prompt's units and the speech among the spans.

    Raises:
        DataError: a speaker that the vocoder does not have, or units that it does not know.
    """
    rate_hz = vocoder.sample_rate_hz
    timed, parts, samples, prompt_s = list(spans), [], 0, 0.0
    for number, (units, owners) in enumerate(stretches(spans, prompt_units.tolist())):
        if number:
            parts.append(np.zeros(round(PAUSE_S * rate_hz), np.float32))
            samples += len(parts[-1])
        array = np.array(units, np.int64)
        durations = vocoder.predict_durations(array, speaker)
        audio = vocoder.synthesize(array, durations, speaker)
        ends = np.concatenate([[0], np.cumsum(durations)])
        times = (samples + ends * (len(audio) / ends[-1])) / rate_hz  # seconds at which each unit starts
        place = len(units) - sum(len(spans[owner].units) for owner in owners)
        if number == 0 and len(prompt_units):
            prompt_s = float(times[len(prompt_units)])
        for owner in owners:
            stop = place + len(spans[owner].units)
            timed[owner] = replace(timed[owner], start_s=float(times[place]), end_s=float(times[stop]))
            place = stop
        parts.append(audio)
        samples += len(audio)
    audio = np.concatenate([np.zeros(0, np.float32), *parts])
    return Sound(audio=audio, rate_hz=rate_hz, spans=tuple(timed), prompt_s=prompt_s)
