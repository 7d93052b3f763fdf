"""Keep the process of a voice engine running and ask it for audio and events.

Enters: one JSON question per request. Leaves: the contents of two files that the worker filled: audio and events.
The one decision worth knowing: a process that dies or does not answer in time is killed with its forks and `EngineLost`
raised; the next question starts a fresh one, and since answers do not depend on history, asking again gives the same
bytes.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any, BinaryIO

from speechscale.errors import DataError


class EngineLost(Exception):
    """The engine process died or did not answer in time."""


class WorkerProcess:
    """The other end of a worker program: started at the first question, replaced when it dies or hangs.

    The program gets its arguments, then the numbers of two open files; it writes a line of JSON when ready and one per
    question: {"audio_bytes", "event_bytes"} or {"error": why}.
    """

    remedy = "choose another voice or reinstall the engine"

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.rate_hz = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._files: tuple[BinaryIO, ...] = ()

    def program(self) -> list[str]:
        """The worker's file and its arguments."""
        raise NotImplementedError

    def ask(self, question: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return the contents of the audio file and of the event file.

        Raises:
            EngineLost: no answer.
            DataError: the engine refuses the question, or cannot be started.
        """
        try:
            answer = self._exchange(json.dumps({**question, "limit_s": self.timeout_s}).encode() + b"\n")
        except BaseException:
            self.stop()
            raise
        if "error" in answer:
            raise DataError(f"the voice engine failed ({answer['error']}); {self.remedy}")
        sizes = answer["audio_bytes"], answer["event_bytes"]
        audio, events = (os.pread(file.fileno(), size, 0) for file, size in zip(self._files, sizes, strict=True))
        assert (len(audio), len(events)) == sizes, "files hold what the answer says"
        return audio, events

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
        program = self.program()
        # Files per process: a fork of a killed one may still be writing.
        self._files = (_memory_file(), _memory_file())
        numbers = [file.fileno() for file in self._files]
        # Isolated and without site packages: starts faster. A session of its own: Ctrl-C is ours to handle.
        process = self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", *program, *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=numbers,
            start_new_session=True,
        )
        ready = self._read_line(process, time.monotonic() + self.timeout_s)
        if "error" in ready:
            raise DataError(f"the voice engine cannot start ({ready['error']}); {self.remedy}")
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
