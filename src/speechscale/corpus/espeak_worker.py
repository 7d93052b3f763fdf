"""The program that talks to espeak-ng, run in a process of its own: texts in on stdin, audio and events out on stdout.

Enters: argv = the shared library, the folder that holds `espeak-ng-data`, the number of an open file for audio; one
request per line on stdin. Leaves: one line on stdout when ready, then one per request, its audio at the start of that
file. The one decision worth knowing: the engine keeps state that no call resets, so it is initialized once and every
request is answered by a fork of that pristine process; equal requests give equal bytes, whatever was spoken before.
It imports the standard library only, and nothing else loads the GPL library.

Every line is JSON.
    ready    {"rate_hz": 22050} or {"error": why}
    request  {"voice", "rate_wpm", "pitch", "text", "limit_s"}; text: words joined by single blanks
    answer   {"samples", "events": [[kind, character, sample, label], ...], "spelled": [[label, ...] per word] or null}
             or {"error": why}
`kind` is 1 (word) or 7 (phone); `character` counts from 1; `spelled` comes when some word has no word event. Audio is
int16 in native byte order. It goes through a file because pages of a pipe or of the fork's own memory are new each time,
and page faults were a third of the cost of a request.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import struct
import sys
from typing import Any, BinaryIO

EVENT = struct.Struct("@iIiiiiP8s")
WORD, PHONE = 1, 7

SYNCHRONOUS = 2
PHONE_EVENTS = 0x0001
DO_NOT_EXIT = 0x8000
UTF8 = 1
BY_CHARACTER = 1
RATE_PARAMETER, PITCH_PARAMETER = 1, 3
NOISE_SEED = 1
"""The engine seeds its breath and roughness noise from the clock; a constant makes those voices repeatable."""


def write_line(file: int, message: dict[str, Any]) -> None:
    """Write one message to a file descriptor."""
    rest = json.dumps(message).encode() + b"\n"
    while rest:
        rest = rest[os.write(file, rest) :]


class Engine:
    """The loaded library. `speak` may be called once per process: its result depends on earlier calls."""

    def __init__(self, library: str, data_folder: str, audio_file: int) -> None:
        # A relative data path, because the engine cuts paths off at 160 characters.
        os.chdir(data_folder)
        self.library = ctypes.CDLL(library)
        options = PHONE_EVENTS | DO_NOT_EXIT
        self.rate_hz: int = self.library.espeak_Initialize(SYNCHRONOUS, 0, b".", options)
        if self.rate_hz <= 0:
            raise OSError(
                f"espeak_Initialize answered {self.rate_hz}; its data folder is missing or of another version"
            )
        self.library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(NOISE_SEED))
        self.library.espeak_ListVoices(None)  # The scan of the voice folder, so that forks need not do it.
        self.library.espeak_SetVoiceByName(b"en")  # The dictionary, shared by all English voices.
        self._write_at = ctypes.CDLL(None, use_errno=True).pwrite
        self._write_at.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]
        self._write_at.restype = ctypes.c_ssize_t
        self._file = audio_file
        self._bytes = 0
        self._failure = ""
        self._events: list[tuple[int, int, int, str]] = []
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self._callback = prototype(self._collect)  # Kept here: the library does not own it.
        self.library.espeak_SetSynthCallback(self._callback)

    def _collect(self, wave: int | None, samples: int, events: int | None) -> int:
        if wave and samples > 0:
            if self._write_at(self._file, wave, 2 * samples, self._bytes) != 2 * samples:
                self._failure = f"audio could not be written: {os.strerror(ctypes.get_errno())}"
                return 1
            self._bytes += 2 * samples
        while events:
            kind, _, character, _, _, sample, _, label = EVENT.unpack(ctypes.string_at(events, EVENT.size))
            if kind == 0:
                break
            if kind in (WORD, PHONE):
                name = label.partition(b"\0")[0].decode("utf-8", "replace") if kind == PHONE else ""
                self._events.append((kind, character, sample, name))
            events += EVENT.size
        return 0

    def speak(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say one text in one voice: audio to the file, return the answer."""
        words = request["text"].split(" ")
        if self.library.espeak_SetVoiceByName(request["voice"].encode()) != 0:
            return {"error": f"the engine has no voice '{request['voice']}'"}
        self.library.espeak_SetParameter(RATE_PARAMETER, request["rate_wpm"], 0)
        self.library.espeak_SetParameter(PITCH_PARAMETER, request["pitch"], 0)
        text = request["text"].encode("utf-8", "replace") + b"\0"
        status = self.library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, BY_CHARACTER, 0, UTF8, None, None)
        if status != 0 or self._failure:
            return {"error": self._failure or f"espeak_Synth answered {status}"}
        heard = sum(kind == WORD for kind, *_ in self._events)
        spelled = [self._spell(word) for word in words] if heard < len(words) or self._unheard(words) else None
        return {"samples": self._bytes // 2, "events": self._events, "spelled": spelled}

    def _unheard(self, words: list[str]) -> bool:
        """Whether some word has no event although there are as many events as words."""
        positions = sorted(character - 1 for kind, character, *_ in self._events if kind == WORD)
        start = found = 0
        for word in words:
            while found < len(positions) and positions[found] < start:
                found += 1
            if found == len(positions) or positions[found] >= start + len(word):
                return True
            start += len(word) + 1
        return False

    def _spell(self, word: str) -> list[str]:
        """Phone labels of a word said alone."""
        source = ctypes.c_char_p(word.encode("utf-8", "replace"))
        pointer = ctypes.cast(source, ctypes.c_void_p)
        labels: list[str] = []
        while pointer.value:
            clause = self.library.espeak_TextToPhonemes(ctypes.byref(pointer), UTF8, ord(" ") << 8)
            labels += (clause or b"").decode("utf-8", "replace").split()
        return labels


def serve(engine: Engine, requests: BinaryIO, out: int) -> int:
    """Answer every request from a fork; return the exit status (1 when a fork died, so that nobody waits for it)."""
    for line in requests:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                request = json.loads(line)
                signal.alarm(int(request["limit_s"]) + 5)  # A fork that hangs does not outlive everybody.
                write_line(out, engine.speak(request))
                status = 0
            finally:
                os._exit(status)
        if os.waitpid(child, 0)[1] != 0:
            return 1
    return 0


def main() -> int:
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # The library may print; messages must stay clean.
    try:
        engine = Engine(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except (OSError, AttributeError) as error:
        write_line(out, {"error": str(error)})
        return 1
    gc.freeze()  # A collection in a fork would touch, and so copy, every object.
    gc.disable()
    write_line(out, {"rate_hz": engine.rate_hz})
    return serve(engine, sys.stdin.buffer, out)


if __name__ == "__main__":
    sys.exit(main())
