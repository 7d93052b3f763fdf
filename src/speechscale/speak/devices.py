"""Microphone and loudspeaker.

Enters: seconds to record; pieces of sound as they come. Leaves: samples; sound in the room, in a growing file or on
standard output. The one decision worth knowing: the sound library is an extra, loaded when a device is asked for; files
and pipes need none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
from jaxtyping import Float

from speechscale.errors import DataError, MissingExtra

PCM_SCALE = 32767


class Sink(Protocol):
    """Takes pieces of sound, mono in [-1, 1]."""

    def __call__(self, audio: Float[np.ndarray, " samples"]) -> None: ...


def record(seconds: float, rate_hz: int) -> Float[np.ndarray, " samples"]:
    """Record from the default microphone.

    Raises:
        MissingExtra: the sound library. DataError: no microphone, or seconds that are not positive.
    """
    if not seconds > 0:
        raise DataError(f"microphone: {seconds} s; give a positive number of seconds")
    sound = _library("a microphone")
    try:
        taken = sound.rec(round(seconds * rate_hz), samplerate=rate_hz, channels=1, dtype="float32")
        sound.wait()
    except sound.PortAudioError as error:
        raise DataError(f"microphone: cannot record ({error}); give a file instead (--prompt)") from error
    return np.asarray(taken, np.float32).reshape(-1)


@contextmanager
def loudspeaker(rate_hz: int) -> Iterator[Sink]:
    """Play pieces as they come. Errors as `record`."""
    sound = _library("playing")
    try:
        with sound.OutputStream(samplerate=rate_hz, channels=1, dtype="float32") as stream:
            yield lambda audio: stream.write(np.ascontiguousarray(audio, np.float32)[:, None])
    except sound.PortAudioError as error:
        raise DataError(f"loudspeaker: cannot play ({error}); write a file instead (--out)") from error


def require_writable(path: Path) -> None:
    """Raise DataError for a folder, or a file that does not end in .wav or .flac."""
    if path.suffix.lower() not in (".wav", ".flac"):
        raise DataError(f"'{path}': sound is written as .wav or .flac; choose one of them, or - for raw samples")
    if path.is_dir():
        raise DataError(f"'{path}' is a folder; name a file in it")


@contextmanager
def growing_file(path: Path, rate_hz: int) -> Iterator[Sink]:
    """A wav or flac file that other programs can read while it grows.

    Raises:
        DataError: see `require_writable`, or the file cannot be opened.
    """
    require_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        opened = soundfile.SoundFile(path, "w", samplerate=rate_hz, channels=1, subtype="PCM_16")
    except soundfile.LibsndfileError as error:
        raise DataError(f"'{path}': cannot be written ({error.error_string}); choose another file") from error
    with opened as file:

        def write(audio: Float[np.ndarray, " samples"]) -> None:
            file.write(np.clip(audio, -1, 1))
            file.flush()

        yield write


@contextmanager
def raw_output() -> Iterator[Sink]:
    """16-bit little-endian mono samples on standard output. Example: ... --out - | aplay -f S16_LE -r 16000"""

    def write(audio: Float[np.ndarray, " samples"]) -> None:
        sys.stdout.buffer.write((np.clip(audio, -1, 1) * PCM_SCALE).round().astype("<i2").tobytes())
        sys.stdout.buffer.flush()

    yield write


def _library(what: str) -> Any:
    try:
        import sounddevice
    except ImportError:
        raise MissingExtra(what, "devices") from None
    except OSError as error:  # the C library below it
        raise DataError(f"{what} needs PortAudio ({error}); install it (Debian: libportaudio2)") from error
    return sounddevice
