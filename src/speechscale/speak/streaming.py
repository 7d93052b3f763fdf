"""Hear a model while it is still speaking.

Enters: an opened prompt, settings, a vocoder that streams. Leaves: `Chunk`s: each token's units or text at once, and
sound as soon as nothing that follows can change it. The one decision worth knowing: the vocoder's own stream makes the
sound, so that its pieces are those of the whole, to the last bit for our own vocoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from speechscale.decode.compiled import CompiledSteps
from speechscale.decode.generate import steps
from speechscale.decode.settings import Decoding
from speechscale.speak.spoken import PAUSE_S
from speechscale.speech.vocoders import UnitStream, UnitVocoder
from speechscale.tokens.vocabulary import Vocabulary

NOTHING = np.zeros(0, np.float32)
PROMPT_UNITS = 8
"""Of a spoken prompt that are made into sound at once: about .4 s, so that something is heard soon."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """What one step brought.

    Args:
        ids: the new token, if any. units: that it spells. text: that became readable with it.
        audio: samples that are final now. prompt: all of the audio is still that of the prompt.
        ended: the model came to an end by itself.
    """

    ids: tuple[int, ...] = ()
    units: Int[np.ndarray, " units"] = field(default_factory=lambda: np.zeros(0, np.int64))
    text: str = ""
    audio: Float[np.ndarray, " samples"] = field(default_factory=lambda: NOTHING)
    prompt: bool = False
    ended: bool = False


def stream_chunks(
    model: Any,
    vocabulary: Vocabulary,
    opening: Int[np.ndarray, " ids"],
    prompt_units: Int[np.ndarray, " units"],
    settings: Decoding,
    vocoder: UnitVocoder | None,
    speaker: str | None,
    compiled: CompiledSteps | None = None,
) -> Iterator[Chunk]:
    """Yield chunks until the model ends or `settings.max_new_tokens` are reached; see `SpeechLM.stream`.

    Args:
        prompt_units: whose sound comes first, a little at a time; none: the continuation alone is heard.
    """
    mouth = None if vocoder is None or settings.modality == "text" else _Mouth(vocoder, speaker)
    if mouth is not None:
        for start in range(0, len(prompt_units), PROMPT_UNITS):
            yield Chunk(audio=mouth.say(prompt_units[start : start + PROMPT_UNITS]), prompt=True)
    written = _Written(vocabulary)
    ended = False
    for step in steps(model, vocabulary, [opening], settings, compiled=compiled):
        token, ended = int(step.tokens[0]), bool(step.ended[0])
        if ended:
            break
        if vocabulary.unit_start <= token < vocabulary.speech_stop:
            units = vocabulary.units_of(np.array([token])).astype(np.int64)
            audio = NOTHING if mouth is None else mouth.say(units)
            yield Chunk(ids=(token,), units=units, text=written.rest(), audio=audio)
        else:
            silent = mouth is not None and token < vocabulary.unit_start  # a marker alone parts nothing
            yield Chunk(
                ids=(token,), text=written.add(token), audio=mouth.fall_silent() if mouth and silent else NOTHING
            )
    rest = NOTHING if mouth is None else mouth.fall_silent()
    yield Chunk(text=written.rest(), audio=rest, ended=ended)


class _Mouth:
    """One vocoder stream per stretch of speech, with a pause between."""

    def __init__(self, vocoder: UnitVocoder, speaker: str | None) -> None:
        self.vocoder, self.speaker = vocoder, speaker
        self.stream: UnitStream | None = None
        self.spoke = False

    def say(self, units: Int[np.ndarray, " units"]) -> Float[np.ndarray, " samples"]:
        parts = []
        if self.stream is None:
            self.stream = self.vocoder.stream(self.speaker)
            if self.spoke:
                parts.append(np.zeros(round(PAUSE_S * self.vocoder.sample_rate_hz), np.float32))
        self.spoke = True
        return np.concatenate([*parts, self.stream.push(units)])

    def fall_silent(self) -> Float[np.ndarray, " samples"]:
        """Text, or the end: nothing follows in this stretch."""
        if self.stream is None:
            return NOTHING
        rest, self.stream = self.stream.finish(), None
        return rest


class _Written:
    """Text that grows token by token; half a character waits for its other half.

    Only the newest tokens are decoded anew: `before` of them are shown already and say how the next one joins them.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.ids: list[int] = []
        self.before = 0
        self.parted = False  # from an earlier span

    def add(self, token: int) -> str:
        if token >= self.vocabulary.unit_start:  # a marker ends the span
            return self.rest()
        self.ids.append(token)
        return self._new(last=False)

    def rest(self) -> str:
        """What is left of the span, which is over."""
        new = self._new(last=True)
        self.parted = self.parted or self.before > 0
        self.ids, self.before = [], 0
        return new

    def _new(self, *, last: bool) -> str:
        if len(self.ids) == self.before:
            return ""
        shown, text = self._decoded(self.ids[: self.before]), self._decoded(self.ids)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(shown, text, strict=False)))
        new = text[same:]
        if not last and (not new or text.endswith("\N{REPLACEMENT CHARACTER}") or not text.startswith(shown)):
            return ""
        if self.parted and new.strip():
            new, self.parted = " " + new.lstrip(), False
        self.ids = self.ids[self.before :]
        self.before = len(self.ids)
        return new

    def _decoded(self, ids: list[int]) -> str:
        return self.vocabulary.text_tokenizer.decode(ids, skip_special_tokens=False) if ids else ""
