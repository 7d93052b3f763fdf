"""The program that talks to espeak-ng, run in a process of its own by `speechscale.voices.espeak`.

Enters: argv = shared library, folder that holds `espeak-ng-data`, numbers of two open files; one request per line of
stdin. Leaves: one line on stdout when ready, then one per request; its audio and events lie at the start of the files.
The one decision worth knowing: the engine keeps state that no call resets, so it is initialized once and
every request is answered by a fork of that pristine process: equal requests give equal bytes, whatever was said before.
It and `fork_server` use the standard library only, and nothing else loads the GPL library.

Lines are JSON.
    ready   {"rate_hz": 22050} or {"error": why}
    speak   {"voice", "rate_wpm", "pitch", "limit_s", "text"}
    spell   the same with "words" in place of "text"; instead of events: per word one line of phone names
    answer  {"audio_bytes", "event_bytes"} or {"error": why}
Audio is int16, events are `EVENT` records, both in native byte order. A fork touches as little as it can: every page
that it writes is copied, and these copies cost as much as the speech itself.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Started by file name, so the package is not on the path; it comes last, so that it hides nothing.
sys.path.append(str(Path(__file__).resolve().parents[2]))
from speechscale.voices.fork_server import send, serve

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
"""The engine seeds the noise of breathy voices from the clock; a constant makes them repeatable."""


class Engine:
    """The loaded library. `speak` or `spell` is called once per process: results depend on earlier calls."""

    def __init__(self, library: str, data_folder: str, audio_file: int, event_file: int) -> None:
        # A relative data path, because the engine cuts paths off at 160 characters.
        os.chdir(data_folder)
        self.library = ctypes.CDLL(library)
        self.rate_hz: int = self.library.espeak_Initialize(SYNCHRONOUS, BUFFER_MS, b".", PHONE_EVENTS | DO_NOT_EXIT)
        if self.rate_hz <= 0:
            raise OSError(f"espeak_Initialize answered {self.rate_hz}: data missing or of another version")
        self.library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(NOISE_SEED))
        self.library.espeak_ListVoices(None)  # The scan of the voice folder, so that forks need not do it.
        self.library.espeak_SetVoiceByName(b"en")  # The dictionary, shared by all English voices.
        self._set_voice, self._set_parameter = self.library.espeak_SetVoiceByName, self.library.espeak_SetParameter
        self._synthesize = self.library.espeak_Synth
        self._synthesize.argtypes = [ctypes.c_char_p, ctypes.c_size_t, *[ctypes.c_uint] * 4, *[ctypes.c_void_p] * 2]
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self._callback = prototype(collector(audio_file, event_file))  # Kept here: the library does not own it.
        self.library.espeak_SetSynthCallback(self._callback)

    def prepare(self, request: dict[str, Any], event_file: int) -> Callable[[], int]:
        """What a fork does for a request; all its bytes exist before the fork."""
        voice, rate_wpm, pitch = request["voice"].encode(), request["rate_wpm"], request["pitch"]
        text, words = request.get("text", "").encode("utf-8", "replace"), request.get("words")
        size = len(text) + 1
        if words is None:
            return lambda: self.speak(voice, rate_wpm, pitch, text, size)
        return lambda: self.spell(voice, words, event_file)

    def speak(self, voice: bytes, rate_wpm: int, pitch: int, text: bytes, size: int) -> int:
        """Append the audio and events of a text (`size` bytes with its final zero) to the files; return the status."""
        if self._set_voice(voice):
            return 2
        self._set_parameter(RATE_PARAMETER, rate_wpm, 0)
        self._set_parameter(PITCH_PARAMETER, pitch, 0)
        return 3 if self._synthesize(text, size, 0, BY_CHARACTER, 0, UTF8, None, None) else 0

    def spell(self, voice: bytes, words: list[str], file: int) -> int:
        """Append the phone names of each word said alone to a file, one line each; return the status."""
        if self._set_voice(voice):
            return 2
        names = "\n".join(map(self._spell, words)).encode()
        return 0 if os.write(file, names) == len(names) else 4

    def _spell(self, word: str) -> str:
        source = ctypes.c_char_p(word.encode("utf-8", "replace"))
        rest = ctypes.cast(source, ctypes.c_void_p)
        clauses: list[bytes] = []
        while rest.value:
            clauses.append(self.library.espeak_TextToPhonemes(ctypes.byref(rest), UTF8, ord(" ") << 8) or b"")
        return b" ".join(clauses).decode("utf-8", "replace")


def collector(audio_file: int, event_file: int) -> Callable[[int | None, int, int | None], int]:
    """Make the function that takes the engine's buffers: it appends audio and events to the files."""
    write = ctypes.CDLL(None).write
    write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    write.restype = ctypes.c_ssize_t
    integer, event_size, leave = ctypes.c_int.from_address, EVENT.size, os._exit

    def collect(wave: int | None, samples: int, events: int | None) -> int:
        if wave and write(audio_file, wave, 2 * samples) != 2 * samples:
            leave(4)
        if events:
            end = events
            while integer(end).value:
                end += event_size
            if write(event_file, events, end - events) != end - events:
                leave(4)
        return 0

    return collect


def main() -> int:
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # The library may print; messages must stay clean.
    try:
        files = int(sys.argv[3]), int(sys.argv[4])
        engine = Engine(sys.argv[1], sys.argv[2], *files)
    except (OSError, AttributeError) as error:
        send(out, json.dumps({"error": str(error)}))
        return 1
    gc.freeze()  # A collection in a fork would touch, and so copy, every object.
    gc.disable()
    send(out, json.dumps({"rate_hz": engine.rate_hz}))
    return serve(lambda request: engine.prepare(request, files[1]), sys.stdin.buffer, out, files)


if __name__ == "__main__":
    sys.exit(main())
