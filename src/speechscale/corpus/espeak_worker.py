"""The program that talks to espeak-ng, run in a process of its own by `speechscale.corpus.voices`.

Enters: argv = shared library, folder that holds `espeak-ng-data`, numbers of two open files; one request per line of
stdin. Leaves: one line on stdout when ready, then one per request; its audio and events lie at the start of the files.
The one decision worth knowing: the engine keeps state that no call resets, so it is initialized once and
every request is answered by a fork of that pristine process: equal requests give equal bytes, whatever was said before.
It imports the standard library only, and nothing else loads the GPL library.

Lines are JSON.
    ready   {"rate_hz": 22050} or {"error": why}
    speak   {"voice", "rate_wpm", "pitch", "limit_s", "text"} -> {"audio_bytes", "event_bytes"} or {"error": why}
    spell   the same with "words" in place of "text" -> {"spelled": phone names of each word, joined by blanks}
Audio is int16, events are `EVENT` records, both in native byte order. A fork touches as little as it can: every page
that it writes is copied, and these copies cost as much as the speech itself.
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
"""Kind, id, character counted from 1, length, time, sample, pointer, name (only of phones)."""

SYNCHRONOUS = 2
PHONE_EVENTS = 0x0001
DO_NOT_EXIT = 0x8000
UTF8 = 1
BY_CHARACTER = 1
RATE_PARAMETER, PITCH_PARAMETER = 1, 3
BUFFER_MS = 200
"""Audio per callback. Same bytes as the default 60 (1000 gives others), fewer calls."""
NOISE_SEED = 1
"""The engine seeds the noise of breathy and rough voices from the clock; a constant makes them repeatable."""


class Engine:
    """The loaded library. `speak` or `spell` is called once per process: results depend on earlier calls."""

    def __init__(self, library: str, data_folder: str, audio_file: int, event_file: int) -> None:
        # A relative data path, because the engine cuts paths off at 160 characters.
        os.chdir(data_folder)
        self.library = ctypes.CDLL(library)
        self.rate_hz: int = self.library.espeak_Initialize(SYNCHRONOUS, BUFFER_MS, b".", PHONE_EVENTS | DO_NOT_EXIT)
        if self.rate_hz <= 0:
            raise OSError(f"espeak_Initialize answered {self.rate_hz}: data missing or of another version")
        self.library.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            *[ctypes.c_uint] * 4,
            *[ctypes.c_void_p] * 2,
        ]
        self.library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(NOISE_SEED))
        self.library.espeak_ListVoices(None)  # The scan of the voice folder, so that forks need not do it.
        self.library.espeak_SetVoiceByName(b"en")  # The dictionary, shared by all English voices.
        self._files = audio_file, event_file
        self._bytes = [0, 0]
        self._failure = ""
        self._pwrite = ctypes.CDLL(None, use_errno=True).pwrite
        self._pwrite.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]
        self._pwrite.restype = ctypes.c_ssize_t
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self._callback = prototype(self._collect)  # Kept here: the library does not own it.
        self.library.espeak_SetSynthCallback(self._callback)

    def _collect(self, wave: int | None, samples: int, events: int | None) -> int:
        """Copy a buffer of audio and the events in it to the files; a nonzero result stops the engine."""
        end = events
        while end and ctypes.c_int.from_address(end).value:
            end += EVENT.size
        if wave and not self._write(0, wave, 2 * samples):
            return 1
        return 0 if self._write(1, events, (end or 0) - (events or 0)) else 1

    def _write(self, which: int, address: int | None, size: int) -> bool:
        written = self._pwrite(self._files[which], address, size, self._bytes[which]) if size else 0
        self._bytes[which] += written
        if written != size:
            self._failure = (
                f"its output could not be kept: {os.strerror(ctypes.get_errno()) if written < 0 else 'full'}"
            )
        return bool(written == size)

    def speak(self, text: bytes) -> str:
        """Say a text; return the answer."""
        status = self.library.espeak_Synth(text, len(text) + 1, 0, BY_CHARACTER, 0, UTF8, None, None)
        if status != 0 or self._failure:
            return json.dumps({"error": self._failure or f"espeak_Synth answered {status}"})
        return '{"audio_bytes": %d, "event_bytes": %d}' % tuple(self._bytes)  # noqa: UP031

    def spell(self, words: list[str]) -> str:
        """Return the answer with the phones of each word said alone."""
        return json.dumps({"spelled": [self._spell(word) for word in words]})

    def _spell(self, word: str) -> str:
        source = ctypes.c_char_p(word.encode("utf-8", "replace"))
        rest = ctypes.cast(source, ctypes.c_void_p)
        clauses: list[bytes] = []
        while rest.value:
            clauses.append(self.library.espeak_TextToPhonemes(ctypes.byref(rest), UTF8, ord(" ") << 8) or b"")
        return b" ".join(clauses).decode("utf-8", "replace")

    def set_voice(self, voice: bytes, rate_wpm: int, pitch: int) -> bool:
        """Choose voice, rate and pitch; False if there is no such voice."""
        found = self.library.espeak_SetVoiceByName(voice) == 0
        self.library.espeak_SetParameter(RATE_PARAMETER, rate_wpm, 0)
        self.library.espeak_SetParameter(PITCH_PARAMETER, pitch, 0)
        return found


def answer(engine: Engine, request: dict[str, Any], voice: bytes, text: bytes) -> str:
    """Answer one request, in a fork."""
    signal.alarm(int(request["limit_s"]) + 5)  # A fork that hangs does not outlive everybody.
    if not engine.set_voice(voice, request["rate_wpm"], request["pitch"]):
        return json.dumps({"error": f"it has no voice '{request['voice']}'"})
    return engine.spell(request["words"]) if "words" in request else engine.speak(text)


def serve(engine: Engine, requests: BinaryIO, out: int) -> int:
    """Answer every request from a fork; return the exit status (1 when a fork died, so that nobody waits for it)."""
    for line in requests:
        request = json.loads(line)
        voice, text = request["voice"].encode(), request.get("text", "").encode("utf-8", "replace")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                send(out, answer(engine, request, voice, text))
                status = 0
            finally:
                os._exit(status)
        if os.waitpid(child, 0)[1] != 0:
            return 1
    return 0


def send(out: int, message: str) -> None:
    """Write one line to a file descriptor."""
    rest = message.encode() + b"\n"
    while rest:
        rest = rest[os.write(out, rest) :]


def main() -> int:
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # The library may print; messages must stay clean.
    try:
        engine = Engine(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    except (OSError, AttributeError) as error:
        send(out, json.dumps({"error": str(error)}))
        return 1
    gc.freeze()  # A collection in a fork would touch, and so copy, every object.
    gc.disable()
    send(out, json.dumps({"rate_hz": engine.rate_hz}))
    return serve(engine, sys.stdin.buffer, out)


if __name__ == "__main__":
    sys.exit(main())
