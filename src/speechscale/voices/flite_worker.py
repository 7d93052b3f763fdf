"""The program that talks to flite, run in a process of its own by `speechscale.voices.flite`.

Enters: argv = names of voices joined by commas, numbers of two open files; one request per line of stdin. Leaves: as
`fork_server`: int16 audio and, as JSON, the tokens with their words and the phones with their ends.
The one decision worth knowing: flite's own relations (Token, Word, SylStructure, Segment) tell which phones make which
word, so word times are exact; counts of phones cross the border, not times of words.

    request {"voice", "text", "limit_s"}
    events  {"rate_hz", "tokens": [[text, [phones of each word]]], "phones": [[name, end_s, 1 if part of a word]]}
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Started by file name, so the package is not on the path; it comes last, so that it hides nothing.
sys.path.append(str(Path(__file__).resolve().parents[2]))
from speechscale.voices.fork_server import keep, send, serve

POINTER, STRING, FLOAT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float


class Wave(ctypes.Structure):
    """`cst_wave` of flite 2."""

    _fields_ = (
        ("type", STRING),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", POINTER),
    )


PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "flite_synth_text": (POINTER, [STRING, POINTER]),
    "utt_wave": (ctypes.POINTER(Wave), [POINTER]),
    "utt_relation": (POINTER, [POINTER, STRING]),
    "relation_head": (POINTER, [POINTER]),
    "item_next": (POINTER, [POINTER]),
    "item_daughter": (POINTER, [POINTER]),
    "item_as": (POINTER, [POINTER, STRING]),
    "item_feat_float": (FLOAT, [POINTER, STRING]),
    "ffeature_string": (STRING, [POINTER, STRING]),
}


class Engine:
    """The loaded libraries. `speak` is called once per process: results depend on earlier calls."""

    def __init__(self, voices: list[str], audio_file: int, event_file: int) -> None:
        self.library = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
        for name in ("libflite_cmulex.so.1", "libflite_usenglish.so.1"):
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        for name, (result, arguments) in PROTOTYPES.items():
            function = getattr(self.library, name)
            function.restype, function.argtypes = result, arguments
        self.library.flite_init()
        self.voices = {name: self._register(name) for name in voices}
        self.files = audio_file, event_file

    def _register(self, name: str) -> int:
        register = getattr(
            ctypes.CDLL(f"libflite_cmu_us_{name}.so.1", mode=ctypes.RTLD_GLOBAL), f"register_cmu_us_{name}"
        )
        register.restype, register.argtypes = POINTER, [STRING]
        voice: int | None = register(None)
        if not voice:
            raise OSError(f"voice '{name}' does not register")
        return voice

    def prepare(self, request: dict[str, Any]) -> Callable[[], int]:
        """What a fork does for a request."""
        voice, text = self.voices.get(request["voice"]), request["text"].encode("utf-8", "replace")
        return lambda: 2 if voice is None else self.speak(voice, text)

    def speak(self, voice: int, text: bytes) -> int:
        """Append the audio and the events of a text to the files; return the status."""
        utterance = self.library.flite_synth_text(text, voice)
        if not utterance:
            return 3
        wave = self.library.utt_wave(utterance).contents
        if wave.num_channels != 1 or wave.num_samples < 0:
            return 3
        tokens = [
            [self._token(token), [self._phones(word) for word in self._daughters(token)]]
            for token in self._items(utterance, b"Token")
        ]
        phones = []
        for item in self._items(utterance, b"Segment"):
            name = self.library.ffeature_string(item, b"name").decode("ascii", "replace")
            part = 1 if self.library.item_as(item, b"SylStructure") else 0
            phones.append([name, self.library.item_feat_float(item, b"end"), part])
        events = json.dumps({"rate_hz": wave.sample_rate, "tokens": tokens, "phones": phones}).encode()
        status = keep(self.files[0], ctypes.string_at(wave.samples, 2 * wave.num_samples))
        return status or keep(self.files[1], events)

    def _token(self, token: int) -> str:
        parts = (self.library.ffeature_string(token, part) for part in (b"prepunctuation", b"name", b"punc"))
        return b"".join(part for part in parts if part != b"0").decode("utf-8", "replace")

    def _phones(self, word: int) -> int:
        """How many phones a word has."""
        syllables = self._daughters(self.library.item_as(word, b"SylStructure"))
        return sum(1 for syllable in syllables for _ in self._daughters(syllable))

    def _items(self, utterance: int, relation: bytes) -> Iterator[int]:
        item = self.library.relation_head(self.library.utt_relation(utterance, relation))
        while item:
            yield item
            item = self.library.item_next(item)

    def _daughters(self, item: int | None) -> Iterator[int]:
        daughter = self.library.item_daughter(item) if item else None
        while daughter:
            yield daughter
            daughter = self.library.item_next(daughter)


def main() -> int:
    out = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # The library may print; messages must stay clean.
    files = int(sys.argv[2]), int(sys.argv[3])
    try:
        engine = Engine([name for name in sys.argv[1].split(",") if name], *files)
    except (OSError, AttributeError) as error:
        send(out, json.dumps({"error": str(error)}))
        return 1
    gc.freeze()  # A collection in a fork would touch, and so copy, every object.
    gc.disable()
    send(out, json.dumps({"rate_hz": 16000}))
    return serve(engine.prepare, sys.stdin.buffer, out, files)


if __name__ == "__main__":
    sys.exit(main())
