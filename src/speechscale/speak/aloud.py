"""Let a model speak into a file, a pipe or a room, at once or while it is still speaking.

Enters: a `SpeechLM`, one prompt, settings. Leaves: sound where it was wanted, and what happened. The one decision worth
knowing: both ways give the same samples; streaming only gives them earlier.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from speechscale.decode.settings import Decoding
from speechscale.errors import DataError
from speechscale.speak.devices import Sink, growing_file, loudspeaker, raw_output, require_writable
from speechscale.speak.prompts import Prompt
from speechscale.speak.speech_lm import Opened, SpeechLM
from speechscale.speak.streaming import Chunk
from speechscale.speak.voice import DEFAULT_VOICE, Voice


@dataclass(frozen=True, slots=True, kw_only=True)
class Aloud:
    """What was said. prompt_units, new_units: how many. first_s: from the prompt's reading to the first new sound."""

    seconds: float
    prompt_units: int
    new_units: int
    text: str
    notes: tuple[str, ...] = ()
    first_s: float | None = None


def speak_aloud(
    slm: SpeechLM,
    prompt: Prompt,
    settings: Decoding,
    out: Path,
    *,
    voice: Voice = DEFAULT_VOICE,
    stream: bool = False,
    play: bool = False,
) -> Aloud:
    """Continue one prompt and give the sound away.

    Args:
        out: .wav or .flac, or "-" for raw samples on standard output. stream, play: give sound away as it is made.

    Raises:
        DataError: no vocoder, an `out` that is no sound file, nothing said, or see `SpeechLM.continue_`.
    """
    if slm.vocoder is None:
        raise DataError(
            f"{slm.name}: no vocoder to speak with; set [vocoder] enabled = true and run the study again, name one "
            "(--vocoder), or take units and text from `speechscale generate`"
        )
    if str(out) != "-":
        require_writable(out)
    opened = slm.opened(prompt, settings)
    started, first, seconds, units, text = time.monotonic(), None, 0.0, 0, ""
    rate_hz = slm.vocoder.sample_rate_hz
    with ExitStack() as stack:
        sinks: list[Sink] = []
        for chunk in _chunks(slm, opened, settings, voice, stream=stream or play):
            if len(chunk.audio) and not sinks:  # nothing is opened, or left behind, before there is sound
                sinks = _sinks(stack, out, rate_hz, play=play)
            if len(chunk.audio):
                for sink in sinks:
                    sink(chunk.audio)
                if first is None and not chunk.prompt:
                    first = time.monotonic() - started
            seconds += len(chunk.audio) / rate_hz
            units += len(chunk.units)
            text += chunk.text
    if not seconds:
        raise DataError("the model said nothing in speech; try another --seed or prompt")
    notes = () if units or text else ("the model ended at once and said nothing new; try another --seed or prompt",)
    return Aloud(
        seconds=seconds,
        prompt_units=len(opened.units),
        new_units=units,
        text=text.strip(),
        notes=notes,
        first_s=first if stream or play else None,
    )


def _chunks(slm: SpeechLM, opened: Opened, settings: Decoding, voice: Voice, *, stream: bool) -> Iterator[Chunk]:
    if stream:
        yield from slm.stream_opened(opened, settings, voice)
        return
    ((said,),) = slm.continue_opened([opened], replace(settings, samples=1), [0], voice)
    yield Chunk(ids=said.ids, units=said.units, text=said.text, audio=said.audio, ended=said.ended)


def _sinks(stack: ExitStack, out: Path, rate_hz: int, *, play: bool) -> list[Sink]:
    sinks = [stack.enter_context(raw_output() if str(out) == "-" else growing_file(out, rate_hz))]
    if play:
        sinks.append(stack.enter_context(loudspeaker(rate_hz)))
    return sinks
