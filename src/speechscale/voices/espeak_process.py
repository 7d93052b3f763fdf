"""Keep an `espeak_worker` process running and ask it for audio, events and pronunciations.

Enters: texts and how to say them. Leaves: int16 audio, word and phone events. The one decision worth knowing: a process
that dies or does not answer in time is killed with its forks and `EngineLost` raised; the next question starts a fresh
one, and since answers do not depend on history, asking again gives the same bytes.
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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError, MissingExtra
from speechscale.voices import espeak_worker
from speechscale.voices.word_events import PHONE, WORD, Event

REMEDY = "choose another voice, make room in memory or reinstall the extra 'voices'"


class EngineLost(Exception):
    """The engine process died or did not answer in time."""


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


class EngineProcess:
    """The other end of `espeak_worker`: started at the first question, replaced when it dies or hangs."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.rate_hz = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._files: tuple[BinaryIO, ...] = ()
        self._spelled: dict[tuple[Tone, tuple[str, ...]], list[list[str]]] = {}

    def speak(self, tone: Tone, text: str) -> tuple[Int[np.ndarray, "samples"], list[Event]]:
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

    def stop(self) -> None:
        """End the process and its forks, and wait for it."""
        process, self._process = self._process, None
        files, self._files = self._files, ()
        for file in files:
            file.close()
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _ask(self, tone: Tone, question: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the contents of the audio file and of the event file."""
        request = {
            "voice": tone.voice,
            "rate_wpm": tone.rate_wpm,
            "pitch": tone.pitch,
            "limit_s": self.timeout_s,
            **question,
        }
        try:
            answer = self._exchange(json.dumps(request).encode() + b"\n")
        except BaseException:
            self.stop()
            raise
        if "error" in answer:
            raise DataError(f"the voice engine failed ({answer['error']}); {REMEDY}")
        sizes = answer["audio_bytes"], answer["event_bytes"]
        audio, events = (os.pread(file.fileno(), size, 0) for file, size in zip(self._files, sizes, strict=True))
        assert (len(audio), len(events)) == sizes, "files hold what the answer says"
        return audio, events

    def _exchange(self, line: bytes) -> dict[str, Any]:
        process = self._process or self._start()
        assert process.stdin is not None
        deadline = time.monotonic() + self.timeout_s
        try:
            while line:
                _wait(deadline, self.timeout_s, write=process.stdin.fileno())
                line = line[os.write(process.stdin.fileno(), line[: select.PIPE_BUF]) :]
        except BrokenPipeError:
            raise EngineLost("died") from None
        return self._read_line(process, deadline)

    def _start(self) -> subprocess.Popen[bytes]:
        paths = engine_paths()
        # Files per process: a fork of a killed one may still be writing.
        self._files = (_memory_file(), _memory_file())
        numbers = [file.fileno() for file in self._files]
        worker = str(Path(espeak_worker.__file__).resolve())
        # Isolated and without site packages: starts faster. A session of its own: Ctrl-C is ours to handle.
        process = self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", worker, *paths, *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=numbers,
            start_new_session=True,
        )
        ready = self._read_line(process, time.monotonic() + self.timeout_s)
        if "error" in ready:
            raise DataError(f"the voice engine cannot start ({ready['error']}); {REMEDY}")
        self.rate_hz = ready["rate_hz"]
        return process

    def _read_line(self, process: subprocess.Popen[bytes], deadline: float) -> dict[str, Any]:
        assert process.stdout is not None
        data = bytearray()
        while not data.endswith(b"\n"):
            _wait(deadline, self.timeout_s, read=process.stdout.fileno())
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                raise EngineLost("died")
            data += piece
        answer: dict[str, Any] = json.loads(data)
        return answer


def _wait(deadline: float, timeout_s: float, *, read: int | None = None, write: int | None = None) -> None:
    """Wait until a descriptor is ready. Raises EngineLost when the deadline has passed."""
    poll = select.poll()
    if read is not None:
        poll.register(read, select.POLLIN)
    if write is not None:
        poll.register(write, select.POLLOUT)
    left_s = deadline - time.monotonic()
    if left_s <= 0 or not poll.poll(left_s * 1000):
        raise EngineLost(f"did not answer in {timeout_s:g} s")


def _memory_file() -> BinaryIO:
    """An unnamed file, in memory where the system has such files."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("speechscale-voice"), "rb")
    return tempfile.TemporaryFile()
