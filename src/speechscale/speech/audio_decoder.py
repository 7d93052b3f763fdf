"""One open recording that is decoded forward, and taken up again where the last range ended.

Enters: a `Source`. Leaves: frames with their place. The one decision worth knowing: libsndfile seeks exactly only in
formats without loss (measured: Vorbis lands up to thousands of samples off, mp3 and Opus differ after a seek), so
ranges of the others are decoded from the start; the decoder of the last such range stays open, so that ranges in order
cost one pass over the file. It is read in steps of `READ_FRAMES`: the last bit of mp3 samples depends on the step.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import soundfile
from jaxtyping import Float
from numpy import ndarray

from speechscale.speech.audio_files import Source, decode_errors

READ_FRAMES = 1 << 16
"""Frames per read; part of what defines the samples of an mp3."""
EXACT_SUBTYPES = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
KEPT_BLOCKS = 2
"""Blocks before the place that can be given once more: ranges overlap by their context."""

Place = int


class Decoder:
    """An open recording. `reached_end` turns true when there is nothing more to read."""

    def __init__(self, source: Source) -> None:
        self.source, self.pid = source, os.getpid()
        self._open()

    def _open(self) -> None:
        with ExitStack() as stack:
            stream = stack.enter_context(self.source.open())
            self.file: soundfile.SoundFile = stack.enter_context(soundfile.SoundFile(stream))
            self._stack = stack.pop_all()
        self.place = 0
        self.recent: list[tuple[Place, Float[ndarray, "samples channels"]]] = []

    @property
    def is_exact(self) -> bool:
        """Whether it can seek to a sample."""
        return self.file.subtype.startswith(EXACT_SUBTYPES) and self.file.format != "OGG"

    def blocks(self, start: int, stop: int | None) -> Iterator[tuple[Place, Float[ndarray, "samples channels"]]]:
        """Yield (place, frames) that cover start..stop as far as the file goes; the first may begin before."""
        if self.is_exact:
            if start != self.place:
                self.file.seek(start)
                self.place = start
        else:
            if start < (self.recent[0][0] if self.recent else self.place):
                self.close()
                self._open()
            yield from list(self.recent)
        while stop is None or self.place < stop:
            # Never beyond the range where that is free to choose: the rest of the file may be broken.
            step = READ_FRAMES if stop is None or not self.is_exact else min(READ_FRAMES, stop - self.place)
            frames = self.file.read(step, dtype="float32", always_2d=True)
            if not len(frames):
                return
            place, self.place = self.place, self.place + len(frames)
            if not self.is_exact:
                self.recent = [*self.recent, (place, frames)][-KEPT_BLOCKS:]
            yield place, frames

    def close(self) -> None:
        self._stack.close()


_PARKED: list[Decoder] = []
"""The decoder of the last range of a format that cannot seek, if any."""


@atexit.register
def _close_parked() -> None:
    while _PARKED:
        _PARKED.pop().close()


@contextmanager
def decoder_of(source: Source) -> Iterator[Decoder]:
    """The parked decoder of this source or a new one. What goes wrong while it is open is a `DataError`.

    It is parked again if nothing went wrong and it cannot seek. A forked process never takes up its parent's, whose
    place in the file both would move; a file that changed is another source.
    """
    decoder = None
    while _PARKED:
        parked = _PARKED.pop()
        if parked.pid == os.getpid() and parked.source.same_bytes(source):
            decoder = parked
        else:
            parked.close()
    with decode_errors(source):
        decoder = decoder or Decoder(source)
        try:
            yield decoder
        except BaseException:
            decoder.close()
            raise
        if decoder.is_exact or decoder.place >= decoder.file.frames:
            decoder.close()
        else:
            decoder.source = source
            _PARKED.append(decoder)
