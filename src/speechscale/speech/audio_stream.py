"""Decode a recording, or a range of it, block by block in bounded memory.

Enters: a path and a range in seconds. Leaves: mono float32 blocks at the wanted rate, and what was met on the way. The
one decision worth knowing: a range that is resampled is decoded with context and cut on the grid of the whole, so that
it is a slice of the whole and parts of a recording fit together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soxr
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.speech.audio_decoder import Decoder, decoder_of
from speechscale.speech.audio_files import AudioInfo, Source, find_source, info_of, is_cut, truncated

TARGET_RATE_HZ = 16_000
SLACK_S = 0.01
"""How far a range may reach beyond the audio, because manifests round times; it is cut and noted."""
CONTEXT_SAMPLES = 400
"""Samples of the slower rate decoded around a range before resampling; 160 already change nothing above 5e-7."""


@dataclass(slots=True, kw_only=True)
class Recording:
    """An open recording and the range wanted of it, in samples at the wanted rate; counts what passes by."""

    source: Source
    decoder: Decoder
    info: AudioInfo
    rate_hz: int
    channel: int | None
    start: int
    stop: int | None  # None: to the end, wherever the decoder finds it.
    notes: list[str] = field(default_factory=list)
    decoded: int = 0
    bad: int = 0
    peak: float = 0.0

    @property
    def expected(self) -> int:
        """Samples that should come, by the header."""
        whole = resampled_samples(self.info.frames, self.info.sample_rate_hz, self.rate_hz)
        return (whole if self.stop is None else self.stop) - self.start

    def all_channels(self) -> Iterator[Float[np.ndarray, "samples channels"]]:
        """Yield every channel at the file's own rate. Non-finite samples are counted in `bad` and replaced by zero."""
        assert self.rate_hz == self.info.sample_rate_hz
        for frames in self._frames(self.start, self.stop):
            yield self._checked(frames)

    def blocks(self) -> Iterator[Float[np.ndarray, " samples"]]:
        """Yield the samples in blocks of any size. Non-finite ones are counted in `bad` and replaced by zero.

        Raises:
            DataError: the file ends or breaks before the range does.
        """
        if self.rate_hz == self.info.sample_rate_hz:
            yield from self._mono(self.start, self.stop)
            return
        first, last, skip = self._source_range()
        # One pair of rates is one stream; zero-length blocks only flush it.
        stream = soxr.ResampleStream(self.info.sample_rate_hz, self.rate_hz, 1, dtype="float32", quality="HQ")
        left = None if self.stop is None else self.stop - self.start
        for block, end in _flagged(self._mono(first, last)):
            made = stream.resample_chunk(block, last=end)
            made, skip = made[skip:], max(0, skip - len(made))
            if left is not None:
                made, left = made[:left], left - min(left, len(made))
            if len(made):
                yield made
        if left:
            raise self._too_short()

    def _source_range(self) -> tuple[int, int | None, int]:
        """Source samples to decode, with context, and how many resampled samples to skip.

        The first one lies where samples of both rates coincide, so that the range falls on the grid of the whole.
        """
        from_hz, to_hz = self.info.sample_rate_hz, self.rate_hz
        common = math.gcd(from_hz, to_hz)
        context = math.ceil(CONTEXT_SAMPLES * from_hz / min(from_hz, to_hz))
        period = from_hz // common
        first = max(0, self.start * from_hz // to_hz - context) // period * period
        last = None if self.stop is None else -(-self.stop * from_hz // to_hz) + context
        if last is not None and last >= self.info.frames:
            last = None
        return first, last, self.start - first // period * (to_hz // common)

    def _mono(self, start: int, stop: int | None) -> Iterator[Float[np.ndarray, " samples"]]:
        for frames in self._frames(start, stop):
            yield self._checked(self._one_channel(frames))

    def _frames(self, start: int, stop: int | None) -> Iterator[Float[np.ndarray, "samples channels"]]:
        """Decode source samples start..stop (or the end)."""
        place = 0
        for first, frames in self.decoder.blocks(start, stop):
            place = first + len(frames)
            wanted = frames[max(0, start - first) : None if stop is None else max(0, stop - first)]
            if len(wanted):
                yield wanted
        if not self.is_estimate and place < min(self.info.frames, stop or self.info.frames):
            raise truncated(self.source, place)
        if (stop is not None and place < stop) or place <= start:
            raise self._too_short()

    @property
    def is_estimate(self) -> bool:
        """Whether the header only estimates the length, as that of an mp3."""
        return bool(self.decoder.file.subtype.startswith("MPEG"))

    def _one_channel(self, frames: Float[np.ndarray, "samples channels"]) -> Float[np.ndarray, " samples"]:
        if self.channel is not None:
            return np.ascontiguousarray(frames[:, self.channel])
        return frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1)

    def _checked(self, samples: Float[np.ndarray, " samples *channels"]) -> Float[np.ndarray, " samples *channels"]:
        self.decoded += samples.size
        highest, lowest = float(samples.max()), float(samples.min())
        if not (math.isfinite(highest) and math.isfinite(lowest)):
            finite = np.isfinite(samples)
            self.bad += samples.size - int(np.count_nonzero(finite))
            samples = np.where(finite, samples, np.float32(0))
            highest, lowest = float(samples.max()), float(samples.min())
        self.peak = max(self.peak, highest, -lowest)
        return samples

    def not_finite(self) -> DataError:
        return DataError(
            f"audio {self.source.name}: {self.bad} of {self.decoded} samples are NaN or infinite; "
            "export it again or drop it"
        )

    def _too_short(self) -> DataError:
        return DataError(
            f"audio {self.source.name}: the range from {self.start / self.rate_hz:g} s on reaches beyond the "
            "audio that could be decoded; correct the times or drop the utterance"
        )


@contextmanager
def open_recording(
    path: str | Path, *, sample_rate_hz: int | None, start_s: float, end_s: float | None, channel: int | None
) -> Iterator[Recording]:
    """Open a recording and check the range, the channel and, where the range reaches the end, that nothing is cut.

    sample_rate_hz: None for the rate of the file.

    Raises:
        DataError: an unusable file, channel, rate or range; the message names it.
    """
    source = find_source(path)
    with decoder_of(source) as decoder:
        info = info_of(source, decoder.file)
        rate_hz = info.sample_rate_hz if sample_rate_hz is None else sample_rate_hz
        if rate_hz <= 0:
            raise DataError(f"audio {source.name}: the rate must be positive, got {rate_hz} Hz; give e.g. 16000")
        if channel is not None and not 0 <= channel < info.channels:
            raise DataError(
                f"audio {source.name}: channel {channel} was asked for, it has channels 0..{info.channels - 1}; "
                "correct the channel or drop the utterance"
            )
        recording = Recording(
            source=source, decoder=decoder, info=info, rate_hz=rate_hz, channel=channel, start=0, stop=None
        )
        _set_range(recording, start_s, end_s)
        if recording.stop is None and is_cut(source, info.container):
            raise truncated(source, info.frames)
        yield recording


def stream_audio(
    path: str | Path,
    *,
    sample_rate_hz: int | None = TARGET_RATE_HZ,
    start_s: float = 0.0,
    end_s: float | None = None,
    channel: int | None = None,
    block_s: float = 30.0,
) -> Iterator[Float[np.ndarray, " samples"]]:
    """Decode and resample in blocks of `block_s` (the last one shorter) in bounded memory.

    The blocks together are what `load_audio` returns for the same arguments, bit for bit, for every `block_s`.

    Args:
        sample_rate_hz: None for the rate of the file.
        start_s, end_s: a range, None for the end of the file.
        channel: one channel from 0 on; None averages all.

    Raises:
        DataError: as `load_audio`; a defect inside the file shows when its block is reached.
    """
    if not block_s > 0:
        raise DataError(f"audio {path}: blocks must be longer than 0 s, got {block_s}; give e.g. block_s=30")
    with open_recording(
        path, sample_rate_hz=sample_rate_hz, start_s=start_s, end_s=end_s, channel=channel
    ) as recording:
        for block in even_blocks(recording.blocks(), max(1, round(block_s * recording.rate_hz))):
            if recording.bad:
                raise recording.not_finite()
            yield block


def even_blocks(
    blocks: Iterable[Float[np.ndarray, " samples *channels"]], size: int
) -> Iterator[Float[np.ndarray, " size *channels"]]:
    """Cut a stream into blocks of `size` samples, the last one shorter; samples lie along the first axis."""
    waiting: list[np.ndarray] = []
    count = 0
    for block in blocks:
        while len(block):
            part, block = block[: size - count], block[size - count :]
            waiting.append(part)
            count += len(part)
            if count == size:
                yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
                waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)


def resampled_samples(samples: int, from_hz: int, to_hz: int) -> int:
    """How many samples soxr makes of `samples` (rounded, half up)."""
    return (2 * samples * to_hz + from_hz) // (2 * from_hz)


def _set_range(recording: Recording, start_s: float, end_s: float | None) -> None:
    name, duration_s = recording.source.name, recording.info.duration_s
    whole = resampled_samples(recording.info.frames, recording.info.sample_rate_hz, recording.rate_hz)
    if whole == 0:
        raise DataError(
            f"audio {name}: {recording.info.frames} samples at {recording.info.sample_rate_hz} Hz give none at "
            f"{recording.rate_hz} Hz; drop the utterance"
        )
    ends = start_s, duration_s if end_s is None else end_s
    if not all(map(math.isfinite, ends)) or start_s < 0 or ends[1] <= start_s:
        raise DataError(
            f"audio {name}: the range {start_s} s to {'the end' if end_s is None else f'{end_s} s'} is not inside its "
            f"{duration_s:g} s; correct the times or drop the utterance"
        )
    # The decoder tells what is beyond an estimate.
    estimated = recording.is_estimate
    if not estimated and (start_s >= duration_s or ends[1] > duration_s + SLACK_S):
        raise DataError(
            f"audio {name}: the range {start_s:g} s to {ends[1]:g} s reaches beyond its {duration_s:g} s; "
            "correct the times or drop the utterance"
        )
    recording.start = round(start_s * recording.rate_hz)
    if end_s is not None:
        stop = round(end_s * recording.rate_hz)
        if stop > whole and end_s <= duration_s + SLACK_S:
            recording.notes.append(f"range ends {1000 * (end_s - duration_s):.1f} ms beyond the audio, cut to it")
        # A range up to the very end is read like the whole, and checked like it.
        near = stop >= whole and end_s <= duration_s + SLACK_S
        recording.stop = None if near else stop
    if (whole if recording.stop is None else recording.stop) <= recording.start and not estimated:
        raise DataError(
            f"audio {name}: the range {start_s:g} s to {ends[1]:g} s holds no sample at {recording.rate_hz} Hz; "
            "correct the times or drop the utterance"
        )


def _flagged(blocks: Iterator[Float[np.ndarray, " samples"]]) -> Iterator[tuple[np.ndarray, bool]]:
    """Each block, and at the end an empty one that is marked as the last."""
    for block in blocks:
        yield block, False
    yield np.zeros(0, np.float32), True
