"""Speak with the flite voices of the system: slt, rms, awb (built from people's recordings) and kal16.

Enters: utterances. Leaves: `Spoken` with words and phones. The one decision worth knowing: as with espeak-ng a fork of
one pristine process says each segment; within one process slt, rms and awb never say a text twice alike, forks do.
Source: Black and Lenzo, "Flite: a small fast run-time synthesis engine" (SSW4, 2001); the library is asked, not copied.
"""

from __future__ import annotations

import ctypes
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.records import Utterance
from speechscale.speech.audio import TARGET_RATE_HZ, resample
from speechscale.voices import flite_worker
from speechscale.voices.segments import OnError, printable_words, speak_by_segment
from speechscale.voices.spoken import Span, Spoken, merge_pauses, owners
from speechscale.voices.word_events import PAUSE, has_letters
from speechscale.voices.worker_process import WorkerProcess

VOICES = ("slt", "rms", "awb", "kal16")
INSTALL = "install it with: apt-get install flite libflite1"
PLAIN = str.maketrans({**dict.fromkeys("‘’‛ʼ′", "'"), **dict.fromkeys("“”„«»″", '"'), **dict.fromkeys("–—―‐‑−", "-")})
EDGE_S = 0.05
"""Silence kept before the first and behind the last phone; flite leaves 0.2 to 0.3 s."""


def missing_library() -> str:
    """Why flite cannot be used here; empty when it can."""
    if not hasattr(os, "fork"):
        return "flite voices need a system with fork (Linux); prepare the corpus there"
    try:
        ctypes.CDLL("libflite_usenglish.so.1")
        ctypes.CDLL("libflite_cmulex.so.1")
    except OSError as error:
        return f"flite is not installed ({error}); {INSTALL}"
    return ""


class FliteProcess(WorkerProcess):
    """The other end of `flite_worker`, with the given voices loaded."""

    remedy = f"drop the utterance, or reinstall flite ({INSTALL})"

    def __init__(self, voices: Sequence[str], timeout_s: float) -> None:
        super().__init__(timeout_s)
        self.voices = tuple(voices)

    def program(self) -> list[str]:
        return [str(Path(flite_worker.__file__).resolve()), ",".join(self.voices)]


class FliteEngine:
    """See `engines.Engine`."""

    name = "flite"
    voices: tuple[str, ...] = VOICES
    sample_rate_hz = TARGET_RATE_HZ
    gives_word_times = True
    gives_phone_times = True
    deterministic = True

    def __init__(self, *, timeout_s: float = 60.0) -> None:
        problem = missing_library()
        if problem:
            raise DataError(problem)
        self.timeout_s = timeout_s

    def check_voice(self, voice: str) -> None:
        if voice not in VOICES:
            raise DataError(f"no flite voice '{voice}'; choose one of: {', '.join(VOICES)}")

    def voice_version(self, voice: str) -> str:
        return "libflite.so.1"

    def licence(self, voice: str) -> str:
        return f"flite voice cmu_us_{voice} (BSD-like, Carnegie Mellon University)"

    def speak(self, utterances: Sequence[Utterance], on_error: OnError | None) -> Iterator[Spoken]:
        engine = FliteProcess(sorted({utterance.speaker for utterance in utterances}), self.timeout_s)
        try:
            yield from speak_by_segment(
                utterances, lambda voice, segment: _speak_segment(engine, voice, segment), on_error=on_error
            )
        finally:
            engine.stop()


def _speak_segment(engine: FliteProcess, voice: str, segment: str) -> Spoken:
    words, said_words = segment.split(), [ascii_word(word) for word in printable_words(segment)]
    data, events = engine.ask({"voice": voice, "text": " ".join(said_words)})
    said: dict[str, Any] = json.loads(events)
    rate_hz = int(said["rate_hz"])
    audio = resample(np.frombuffer(data, np.int16).astype(np.float32) / 32768, rate_hz, TARGET_RATE_HZ)
    np.clip(audio, -1, 1, out=audio)
    phones, part_of_word = _tiled(said["phones"], len(audio))
    spans = _word_spans(
        words, said_words, said["tokens"], [span for span, part in zip(phones, part_of_word, strict=True) if part]
    )
    sounding = [span for span in phones if span[0] != PAUSE]
    if not sounding:
        raise DataError(f"the voice is silent for segment '{segment}'; write it in English or drop the utterance")
    silent = next((word for word, start, end in spans if has_letters(word) and start == end), "")
    if silent:
        raise DataError(
            f"flite leaves out '{silent}' of segment '{segment}'; write it in English or drop the utterance"
        )
    edge = round(EDGE_S * TARGET_RATE_HZ)
    first, last = max(0, sounding[0][1] - edge), min(len(audio), sounding[-1][2] + edge)
    return Spoken(
        id="",
        audio=audio[first:last],
        words=_cut(spans, first, last),
        phones=merge_pauses([span for span in _cut(phones, first, last) if span[2] > span[1]]),
    )


def _tiled(phones: Sequence[Sequence[Any]], samples: int) -> tuple[list[Span], list[bool]]:
    """Spans of all phones, one behind the other, from their ends in seconds; the audio's end closes the last."""
    spans: list[Span] = []
    start = 0
    for name, end_s, _ in phones:
        end = min(max(start, round(end_s * TARGET_RATE_HZ)), samples)
        spans.append((PAUSE if name == "pau" else name, start, end))
        start = end
    if start < samples:
        spans.append((PAUSE, start, samples))
    return spans, [bool(part) for _, _, part in phones] + [False] * (len(spans) - len(phones))


def ascii_word(word: str) -> str:
    """A word in ASCII, all that flite reads: plain quotes and dashes, no accents. Example: "naïve…" -> "naive..." """
    return unicodedata.normalize("NFKD", word.translate(PLAIN)).encode("ascii", "ignore").decode()


def _word_spans(
    words: Sequence[str], said_words: Sequence[str], tokens: Sequence[Sequence[Any]], sounds: Sequence[Span]
) -> list[Span]:
    """Give the phones of flite's words, in order, to the whitespace words that they belong to."""
    owner = owners(said_words, [text for text, _ in tokens])
    found: dict[int, tuple[int, int]] = {}
    position = 0
    for home, (_, counts) in zip(owner, tokens, strict=True):
        for count in counts:
            part = sounds[position : position + count]
            position += count
            if part and part[-1][2] > part[0][1]:
                found[home] = (found.get(home, (part[0][1], 0))[0], part[-1][2])
    spans: list[Span] = []
    for index, word in enumerate(words):
        before = spans[-1][2] if spans else (sounds[0][1] if sounds else 0)
        start, end = found.get(index, (before, before))
        spans.append((word, start, end))
    return spans


def _cut(spans: Sequence[Span], first: int, last: int) -> list[Span]:
    """The spans as seen in `audio[first:last]`."""
    return [(text, min(max(a, first), last) - first, min(max(b, first), last) - first) for text, a, b in spans]
