"""Ask an `espeak_worker` process for audio, events and pronunciations.

Enters: texts and how to say them. Leaves: int16 audio, word and phone events. The one decision worth knowing:
pronunciations are remembered, because the same merged words ("in the") come again and again.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError, MissingExtra
from speechscale.voices import espeak_worker
from speechscale.voices.word_events import PHONE, WORD, Event
from speechscale.voices.worker_process import EngineLost, WorkerProcess

__all__ = ["EngineLost", "EngineProcess", "Tone", "engine_paths"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tone:
    """How to say something: the engine's name of the voice, words per minute, pitch 0 to 99."""

    voice: str
    rate_wpm: int
    pitch: int


def engine_paths() -> tuple[str, str]:
    """Return the path of the shared library and of the folder that holds its data.

    Raises:
        MissingExtra: espeakng-loader is not installed.
        DataError: a system without fork.
    """
    try:
        loader: Any = importlib.import_module("espeakng_loader")
    except ImportError as error:
        raise MissingExtra("speaking with espeak-ng voices", "voices") from error
    if not hasattr(os, "fork"):
        raise DataError("voices need a system with fork (Linux or macOS); prepare the corpus there")
    return str(loader.get_library_path()), str(Path(loader.get_data_path()).parent)


class EngineProcess(WorkerProcess):
    """The other end of `espeak_worker`."""

    remedy = "choose another voice, make room in memory or reinstall the extra 'voices'"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self._spelled: dict[tuple[Tone, tuple[str, ...]], list[list[str]]] = {}

    def program(self) -> list[str]:
        return [str(Path(espeak_worker.__file__).resolve()), *engine_paths()]

    def speak(self, tone: Tone, text: str) -> tuple[Int[np.ndarray, " samples"], list[Event]]:
        """Have a text spoken; return int16 samples at `rate_hz` and the word and phone events, in order.

        Raises:
            EngineLost: no answer.
            DataError: the engine refuses voice or text, or cannot be started.
        """
        audio, records = self._ask(tone, {"text": text})
        events = [
            (kind, character, sample, name.partition(b"\0")[0].decode("utf-8", "replace") if kind == PHONE else "")
            for kind, _, character, _, _, sample, _, name in espeak_worker.EVENT.iter_unpack(records)
            if kind in (WORD, PHONE)
        ]
        return np.frombuffer(audio, np.int16), events

    def spell(self, tone: Tone, words: tuple[str, ...]) -> list[list[str]]:
        """Return the phone names of each word said alone. Raises as `speak`."""
        known = self._spelled.get((tone, words))
        if known is None:
            known = [names.split() for names in self._ask(tone, {"words": words})[1].decode().split("\n")]
            self._spelled[tone, words] = known
        return known

    def _ask(self, tone: Tone, question: dict[str, Any]) -> tuple[bytes, bytes]:
        return self.ask({"voice": tone.voice, "rate_wpm": tone.rate_wpm, "pitch": tone.pitch, **question})
