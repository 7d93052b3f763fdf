"""Speak utterances with curated espeak-ng voices and say exactly when each word and phone sounds.

Enters: utterances (segments and the name of a voice). Leaves: `Spoken`, in order: 16 kHz audio, word spans, phone spans.
The one decision worth knowing: every (voice, segment) is spoken by a fork of one pristine engine process, so its audio
depends on nothing else: not on order, shard, worker count or restarts. The engine (GPL) lives in that process only.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from jaxtyping import Float, Int

from speechscale.corpus import espeak_worker
from speechscale.corpus.word_events import PAUSE, has_letters, phone_spans, split_merged, tile
from speechscale.errors import DataError, MissingExtra
from speechscale.records import Utterance
from speechscale.speech.audio import TARGET_RATE_HZ, resample

MIN_PAUSE_S = 0.15
"""Silence between segments, at least."""
GRID_SAMPLES = 640
"""Segments start on multiples of 40 ms at 16 kHz, a whole number of frames at 25, 50 and 100 Hz, so that framing never
differs between two places where a segment is spoken."""
TAIL_S = 0.05
"""Sound kept behind the last phone of a segment; the engine leaves between 0.01 and 0.1 s of silence."""
CACHE_SEGMENTS = 512

Span = tuple[str, int, int]
"""Text or label, start and end sample at 16 kHz."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """A formant variant of one synthesizer, not a person.

    Args:
        language: English variety, as the engine names it ("en" is British).
        variant: formant set of the engine.
        held_out: reserved for evaluation; its variant speaks in no training voice.
        rate_wpm: words per minute. pitch: 0 to 99, 50 leaves the variant's own range.
    """

    name: str
    language: str
    variant: str
    held_out: bool = False
    rate_wpm: int = 175
    pitch: int = 50

    @property
    def sex(self) -> Literal["f", "m"]:
        return "f" if self.variant.startswith("f") else "m"


VOICES: dict[str, Voice] = {
    voice.name: voice
    for voice in (
        Voice(name="us-f2", language="en-us", variant="f2"),
        Voice(name="gb-m3", language="en", variant="m3"),
        Voice(name="us-m1", language="en-us", variant="m1"),
        Voice(name="gb-f1", language="en", variant="f1"),
        Voice(name="scotland-m2", language="en-gb-scotland", variant="m2"),
        Voice(name="us-f4", language="en-us", variant="f4"),
        Voice(name="caribbean-m7", language="en-029", variant="m7"),
        Voice(name="rp-f2", language="en-gb-x-rp", variant="f2", pitch=40),
        Voice(name="nyc-m4", language="en-us-nyc", variant="m4"),
        Voice(name="lancaster-f4", language="en-gb-x-gbclan", variant="f4", pitch=60),
        Voice(name="gb-m1", language="en", variant="m1", pitch=40),
        Voice(name="us-m7", language="en-us", variant="m7", pitch=60),
        Voice(name="us-f3", language="en-us", variant="f3", held_out=True),
        Voice(name="gb-m6", language="en", variant="m6", held_out=True),
        Voice(name="us-m8", language="en-us", variant="m8", held_out=True),
        Voice(name="gb-f5", language="en", variant="f5", held_out=True),
    )
}
"""Training voices first; each prefix of either kind mixes sexes."""

INVENTORY_TEXT = (
    "the quick brown fox jumps over the lazy dog while a small bird sings above",
    "she sells sea shells by the sea shore and he measures treasure with pleasure",
    "boys enjoy noisy toys now and how about the brown cow outside our house",
    "father thought the north wind was stronger than the sun in the early morning",
    "their hair is fair near here for sure and the poor tourists hear pure music",
    "thirty three thieves thought they thrilled the throne throughout thursday",
    "joan chose a huge orange sponge and judge george watched each page",
    "good books could put a full cushion where the wolf would look",
    "bring the long string and sing a song in the evening with uncle hank",
    "the little bottle of water and butter is better later at the city party",
    "we usually use a new blue tube and a few human cubes on tuesday",
    "an idea about the area is to go on for ever and ever after all of it",
    "fire power hour tower liar buyer player mayor lawyer flower",
    "button cotton kitten mountain sudden garden eaten written certain",
    "my own eye saw a high white kite in the sky at night as I lay by the fire",
    "what happened to the happy family of eleven animals at the hotel",
    "zebras and lions visit the vast zoo whose owner loves every visitor very much",
    "bread red head said many any friends went again when the letter came",
    "cats and dogs walked past the last bath and laughed at the dance after half an hour",
    "cot caught dog log song hot stop lot off coffee wash want watch",
    "first bird heard her word and turned the world of work to earth",
    "no one knows the whole story of old cold gold bowls going home slowly alone",
    "train dry tree drum street strong christmas tube duty stew dune",
    "loch uh oh yes yet you yellow onion million william failure",
    "one two three four five six seven eight nine ten eleven twelve hundred thousand",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    "fork torch court door floor four more sport wore force cord lord order",
    "serious period hero zero mirror spirit marry merry mary hurry courage sorry tomorrow orange",
    "ill will milk wolf bulb help belt fell tall ball all always people table apple school rule feel real",
    "does not do to be been have had has there was out of it in the on the from the is in as if at all",
)
"""Sentences whose phones make up `phone_inventory`: all phones of English words in the shipped varieties."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A spoken utterance; spans are half-open sample ranges at 16 kHz.

    Args:
        audio: mono, float32 in [-1, 1].
        words: every whitespace-separated word of the segments, in order; punctuation alone has an empty span.
        phones: labels of the engine without stress, "_" for silence; they tile the audio, and word borders are
            phone borders. Empty for recordings.
    """

    id: str
    audio: Float[np.ndarray, "samples"]
    words: list[Span]
    phones: list[Span]


def speak_shard(
    utterances: Sequence[Utterance],
    *,
    timeout_s: float = 60.0,
    on_error: Callable[[str, str], None] | None = None,
) -> Iterator[Spoken]:
    """Speak `segments` of each utterance in the voice named by `speaker`, in order, joined by short pauses.

    Args:
        timeout_s: patience per segment; then the engine process is replaced and the utterance tried once more.
        on_error: receives (id, "reason; remedy") of each utterance that cannot be spoken, which is then left out.

    Raises:
        MissingExtra: espeakng-loader is not installed.
        DataError: unknown voice, unusable engine; without `on_error` also the first utterance that cannot be spoken.
    """
    for utterance in utterances:
        if utterance.speaker not in VOICES:
            raise DataError(
                f"utterance {utterance.id}: no voice '{utterance.speaker}'; choose one of: {', '.join(VOICES)}"
            )
    _engine_paths()  # Raises here, not at the first `next`.
    return _speak(utterances, timeout_s, on_error)


def phone_inventory(voices: Sequence[str], *, timeout_s: float = 60.0) -> tuple[str, ...]:
    """List the phone labels of the given voices, sorted, "_" among them.

    Voices of one language share their labels, so one of each language speaks `INVENTORY_TEXT`.

    Raises:
        DataError, MissingExtra: as `speak_shard`.
    """
    unknown = [name for name in voices if name not in VOICES]
    if unknown or not voices:
        raise DataError(f"phones of voices {unknown or 'none'}: choose some of: {', '.join(VOICES)}")
    speakers = {VOICES[name].language: name for name in reversed(voices)}
    shard = [
        Utterance(id=f"inventory-{name}", text="", speaker=name, split="train", segments=INVENTORY_TEXT)
        for name in speakers.values()
    ]
    return tuple(
        sorted({label for spoken in speak_shard(shard, timeout_s=timeout_s) for label, _, _ in spoken.phones} | {PAUSE})
    )


def _speak(
    utterances: Sequence[Utterance], timeout_s: float, on_error: Callable[[str, str], None] | None
) -> Iterator[Spoken]:
    engine = _EngineProcess(timeout_s)
    speak_once = lru_cache(CACHE_SEGMENTS)(lambda voice, segment: _speak_segment(engine, VOICES[voice], segment))
    try:
        for utterance in utterances:
            try:
                spoken = _speak_utterance(utterance, speak_once)
            except DataError as error:
                if on_error is None:
                    raise DataError(f"utterance {utterance.id}: {error}") from error
                on_error(utterance.id, str(error))
                continue
            yield spoken
    finally:
        engine.stop()


def _speak_utterance(utterance: Utterance, speak_once: Callable[[str, str], Spoken]) -> Spoken:
    """Speak and join the segments; a lost engine process costs one retry."""
    if not utterance.segments:
        raise DataError("it has no segments to speak; give it at least one sentence")
    for segment in utterance.segments:
        if not has_letters(segment):
            raise DataError(f"segment '{segment}' has no letters or digits; correct its text or drop the utterance")
    try:
        parts = [speak_once(utterance.speaker, segment) for segment in utterance.segments]
    except _EngineLost:
        try:
            parts = [speak_once(utterance.speaker, segment) for segment in utterance.segments]
        except _EngineLost as error:
            raise DataError(f"the voice engine {error}, twice; simplify its text or drop the utterance") from error
    return _join(utterance.id, parts)


def _join(id: str, parts: Sequence[Spoken]) -> Spoken:
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
        words += [(text, start + a, start + b) for text, a, b in part.words]
        if phones and phones[-1][2] < start:
            phones.append((PAUSE, phones[-1][2], start))
        phones += [(label, start + a, start + b) for label, a, b in part.phones]
    return Spoken(id=id, audio=audio, words=words, phones=_merge_pauses(phones))


def _merge_pauses(phones: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for label, start, end in phones:
        if merged and label == PAUSE == merged[-1][0]:
            merged[-1] = (PAUSE, merged[-1][1], end)
        else:
            merged.append((label, start, end))
    return merged


def _speak_segment(engine: _EngineProcess, voice: Voice, segment: str) -> Spoken:
    """Speak one segment: audio from its first sample to shortly behind its last phone."""
    words = segment.split()
    text = " ".join(words)
    # Control characters would be read as commands to the engine; one for one, so that text positions stay.
    printable = "".join(character if character.isprintable() else " " for character in text)
    pcm, rate_hz, answer = engine.ask(voice, printable)
    phones = phone_spans(words, answer["events"], len(pcm))
    if answer["spelled"] is not None and len(answer["spelled"]) == len(words):
        split_merged(words, phones, answer["spelled"])
    if not phones:
        raise DataError(f"the voice is silent for segment '{segment}'; write it in English or drop the utterance")
    pcm = pcm[: phones[-1].end + round(TAIL_S * rate_hz)]
    audio = resample(pcm.astype(np.float32) / 32768, rate_hz, TARGET_RATE_HZ)
    np.clip(audio, -1, 1, out=audio)
    audio.flags.writeable = False
    timed = tile(words, phones, rate_hz, TARGET_RATE_HZ, len(audio))
    spans = [(word, start, end) for word, (start, end) in zip(words, timed.words, strict=True)]
    return Spoken(id="", audio=audio, words=spans, phones=timed.phones)


def _engine_paths() -> tuple[str, str]:
    """Path of the shared library and of the folder that holds its data."""
    try:
        loader: Any = importlib.import_module("espeakng_loader")
    except ImportError as error:
        raise MissingExtra("speaking with espeak-ng voices", "voices") from error
    if not hasattr(os, "fork"):
        raise DataError("voices need a system with fork (Linux or macOS); prepare the corpus there")
    return str(loader.get_library_path()), str(Path(loader.get_data_path()).parent)


class _EngineLost(Exception):
    """The engine process died or did not answer in time."""


class _EngineProcess:
    """The other end of `espeak_worker`: started at the first question, replaced when it dies or hangs."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.process: subprocess.Popen[bytes] | None = None
        self.audio: BinaryIO | None = None
        self.rate_hz = 0

    def ask(self, voice: Voice, text: str) -> tuple[Int[np.ndarray, "samples"], int, dict[str, Any]]:
        """Have a text spoken: int16 samples, their rate, the answer.

        Raises:
            _EngineLost: no answer.
            DataError: the engine refuses voice or text, or cannot be started.
        """
        request = {
            "voice": f"{voice.language}+{voice.variant}",
            "rate_wpm": voice.rate_wpm,
            "pitch": voice.pitch,
            "text": text,
            "limit_s": self.timeout_s,
        }
        try:
            if self.process is None:
                self._start()
            assert self.process is not None
            assert self.process.stdin is not None
            assert self.audio is not None
            try:
                self.process.stdin.write(json.dumps(request).encode() + b"\n")
            except OSError as error:
                raise _EngineLost("died") from error
            answer = self._read_line()
        except BaseException:
            self.stop()
            raise
        if "error" in answer:
            raise DataError(f"{answer['error']}; choose another voice, make room or reinstall the extra 'voices'")
        pcm = os.pread(self.audio.fileno(), 2 * answer["samples"], 0)
        assert len(pcm) == 2 * answer["samples"], "the engine wrote what it says"
        return np.frombuffer(pcm, np.int16), self.rate_hz, answer

    def stop(self) -> None:
        """End the process and its forks, and wait for it."""
        process, self.process = self.process, None
        audio, self.audio = self.audio, None
        if audio is not None:
            audio.close()
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _start(self) -> None:
        # A file per process: a fork of a killed one may still be writing.
        self.audio = _memory_file()
        number = self.audio.fileno()
        # Isolated and without site packages: a third of the start-up time; own session: Ctrl-C is ours to handle.
        worker = str(Path(espeak_worker.__file__).resolve())
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", worker, *_engine_paths(), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=(number,),
            start_new_session=True,
        )
        ready = self._read_line()
        if "error" in ready:
            raise DataError(f"the voice engine cannot start ({ready['error']}); reinstall the extra 'voices'")
        self.rate_hz = ready["rate_hz"]

    def _read_line(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        file, data, deadline = self.process.stdout.fileno(), bytearray(), time.monotonic() + self.timeout_s
        while not data.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([file], [], [], left_s)[0]:
                raise _EngineLost(f"did not answer in {self.timeout_s:g} s")
            piece = os.read(file, 1 << 16)
            if not piece:
                raise _EngineLost("died")
            data += piece
        answer: dict[str, Any] = json.loads(data)
        return answer


def _memory_file() -> BinaryIO:
    """An unnamed file, in memory where the system has such files."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("speechscale-voice"), "rb")
    return tempfile.TemporaryFile()
