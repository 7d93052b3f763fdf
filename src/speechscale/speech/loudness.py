"""How loud a recording is, and what betrays a bad one: clipping, offset, silence, an empty upper band.

Enters: a path, or blocks of samples with any number of channels. Leaves: `Loudness`. The one decision worth knowing:
the meter cuts what it gets into blocks of one second itself, so that its figures depend on the samples alone, to the
last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.signal import sosfilt

from speechscale.errors import DataError
from speechscale.speech.audio_stream import open_recording

SILENCE_DBFS = -60.0
CLIP_RUN = 3
"""So many equal extreme samples in a row are called clipped."""
CLIP_LEVEL = 0.25
"""Extremes below this may be flat for want of bits."""
BAND_RANGE_DB = 65.0
SPECTRUM_S = 0.064
STEP_S, GATE_STEPS = 0.1, 4
ABSOLUTE_GATE_LUFS, RELATIVE_GATE_LU = -70.0, -10.0
OFFSET_LUFS = -0.691


@dataclass(frozen=True, slots=True, kw_only=True)
class Loudness:
    """Statistics over all channels. A level that does not exist (silence, less than 0.4 s) is None.

    lufs: integrated, every channel with weight 1. clipped_share: samples in runs of three or more at the file's highest
    or lowest value. offset: mean of the channel where it is largest. silent_share: of 10 ms frames below -60 dBFS.
    bandwidth_hz: the highest frequency within 65 dB of the strongest; about 4000 in upsampled telephone speech.
    """

    duration_s: float
    sample_rate_hz: int
    channels: int
    peak_dbfs: float | None
    rms_dbfs: float | None
    lufs: float | None
    clipped_share: float
    offset: float
    silent_share: float
    bandwidth_hz: float | None


def loudness(path: str | Path, *, start_s: float = 0.0, end_s: float | None = None) -> Loudness:
    """Measure a recording, or a range of it, at its own rate in bounded memory.

    Raises:
        DataError: as `load_audio`.
    """
    with open_recording(path, sample_rate_hz=None, start_s=start_s, end_s=end_s, channel=None) as recording:
        meter = LoudnessMeter(recording.rate_hz, recording.info.channels)
        for block in recording.all_channels():
            meter.add(block)
        if recording.bad:
            raise recording.not_finite()
        return meter.result()


@dataclass(slots=True)
class LoudnessMeter:
    """Collects blocks; `result` closes it."""

    sample_rate_hz: int
    channels: int = 1
    _rest: list[np.ndarray] = field(default_factory=list)
    _samples: int = 0
    _highest: np.ndarray = field(init=False)
    _lowest: np.ndarray = field(init=False)
    _flat: list[_FlatTops] = field(init=False)
    _sum: np.ndarray = field(init=False)
    _square: float = 0.0
    _silent: int = 0
    _frames: int = 0
    _filter: np.ndarray = field(init=False)
    _steps: list[np.ndarray] = field(default_factory=list)
    _spectrum: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        if self.sample_rate_hz <= 0 or self.channels < 1:
            raise DataError(f"loudness: {self.sample_rate_hz} Hz and {self.channels} channels; both must be positive")
        self._highest, self._lowest = np.full(self.channels, -np.inf), np.full(self.channels, np.inf)
        self._flat = [_FlatTops() for _ in range(2 * self.channels)]
        self._sum = np.zeros(self.channels)
        self._filter = np.zeros((2, 2, self.channels))
        self._spectrum = np.zeros(self._window // 2 + 1)

    @property
    def _step(self) -> int:
        return max(1, round(STEP_S * self.sample_rate_hz))

    @property
    def _window(self) -> int:
        return max(2, round(SPECTRUM_S * self.sample_rate_hz))

    def add(self, block: Float[np.ndarray, " samples *channels"]) -> None:
        """Take the next samples, (n,) or (n, channels)."""
        block = block[:, None] if block.ndim == 1 else block
        if block.shape[1] != self.channels:
            raise DataError(f"loudness: a block of {block.shape[1]} channels, {self.channels} were announced")
        self._rest.append(block)
        size = 10 * self._step
        if sum(map(len, self._rest)) >= size:
            joined = np.concatenate(self._rest)
            whole = len(joined) // size * size
            for start in range(0, whole, size):
                self._measure(joined[start : start + size].astype(np.float64))
            self._rest = [joined[whole:]]

    def result(self) -> Loudness:
        """Close the meter."""
        if self._rest and len(rest := np.concatenate(self._rest)):
            self._measure(rest.astype(np.float64))
        self._rest = []
        samples, channels = self._samples, self.channels
        peak = max(float(self._highest.max()), -float(self._lowest.min())) if samples else 0.0
        clipped = sum(flat.count for flat in self._flat if abs(flat.value) >= CLIP_LEVEL)
        offsets = self._sum / max(1, samples)
        return Loudness(
            duration_s=samples / self.sample_rate_hz,
            sample_rate_hz=self.sample_rate_hz,
            channels=channels,
            peak_dbfs=_db(peak**2),
            rms_dbfs=_db(self._square / max(1, samples * channels)),
            lufs=_integrated(np.concatenate(self._steps)) if self._steps else None,
            clipped_share=clipped / max(1, samples * channels),
            offset=float(offsets[np.abs(offsets).argmax()]),
            silent_share=self._silent / max(1, self._frames),
            bandwidth_hz=self._bandwidth_hz(),
        )

    def _measure(self, block: Float[np.ndarray, "samples channels"]) -> None:
        """Take one second, or what is left at the end."""
        step = self._step
        self._samples += len(block)
        self._highest = np.maximum(self._highest, block.max(axis=0))
        self._lowest = np.minimum(self._lowest, block.min(axis=0))
        for channel in range(self.channels):
            self._flat[2 * channel].add(block[:, channel])
            self._flat[2 * channel + 1].add(-block[:, channel])
        self._sum += block.sum(axis=0)
        squares = np.square(block)
        self._square += float(squares.sum())
        frame = max(1, step // 10)
        power = np.add.reduceat(squares.mean(axis=1), np.arange(0, len(block), frame))
        self._silent += int((power < frame * 10 ** (SILENCE_DBFS / 10)).sum())
        self._frames += len(power)
        weighted, self._filter = sosfilt(_k_weighting(self.sample_rate_hz), block, axis=0, zi=self._filter)
        whole = len(block) // step * step
        self._steps.append(np.square(weighted[:whole]).reshape(-1, step, self.channels).mean(axis=1).sum(axis=1))
        self._add_spectrum(block.mean(axis=1))

    def _add_spectrum(self, mono: Float[np.ndarray, " samples"]) -> None:
        whole = len(mono) // self._window * self._window
        frames = mono[:whole].reshape(-1, self._window) * np.hanning(self._window)
        self._spectrum += np.square(np.abs(np.fft.rfft(frames, axis=1))).sum(axis=0)

    def _bandwidth_hz(self) -> float | None:
        strongest = self._spectrum[1:].max() if len(self._spectrum) > 1 else 0.0
        if strongest <= 0:
            return None
        inside = np.flatnonzero(self._spectrum >= strongest * 10 ** (-BAND_RANGE_DB / 10))
        return float(inside[-1] * self.sample_rate_hz / self._window)


@dataclass(slots=True)
class _FlatTops:
    """Count samples in runs of `CLIP_RUN` or more at the highest value seen."""

    value: float = -np.inf
    count: int = 0
    open: int = 0  # Length of the run that touches the end of the last block.

    def add(self, samples: Float[np.ndarray, " samples"]) -> None:
        top = float(samples.max())
        if top < self.value:
            self.open = 0
            return
        if top > self.value:
            self.value, self.count, self.open = top, 0, 0
        edges = np.flatnonzero(np.diff(np.concatenate(([0], (samples == top).astype(np.int8), [0]))))
        starts, lengths = edges[::2], edges[1::2] - edges[::2]
        if starts[0] == 0:
            # The open run was counted if it was long enough; count it anew with what follows.
            self.count -= self.open if self.open >= CLIP_RUN else 0
            lengths[0] += self.open
        self.count += int(lengths[lengths >= CLIP_RUN].sum())
        self.open = int(lengths[-1]) if edges[-1] == len(samples) else 0


def _integrated(steps: Float[np.ndarray, " steps"]) -> float | None:
    """Gated loudness of blocks of 0.4 s that overlap by 75%. Source: ITU-R BS.1770-4, annex 1, eq. 3-7."""
    if len(steps) < GATE_STEPS:
        return None
    power = np.convolve(steps, np.full(GATE_STEPS, 1 / GATE_STEPS), mode="valid")
    loud = power[power > 10 ** ((ABSOLUTE_GATE_LUFS - OFFSET_LUFS) / 10)]
    if not len(loud):
        return None
    gated = loud[loud > loud.mean() * 10 ** (RELATIVE_GATE_LU / 10)]
    return float(OFFSET_LUFS + 10 * np.log10(gated.mean()))


@lru_cache(maxsize=16)
def _k_weighting(rate_hz: int) -> Float[np.ndarray, "sections 6"]:
    """High shelf and high pass for any rate; at 48 kHz the coefficients of ITU-R BS.1770-4, tables 1 and 2.

    Source: the analog prototypes behind the tables, by bilinear transform (De Man 2014).
    """

    def bilinear(f0_hz: float, quality: float) -> tuple[float, float]:
        k = np.tan(np.pi * min(f0_hz / rate_hz, 0.49))
        return k, 1 + k / quality + k * k

    quality = 0.7071752369554196
    k, a0 = bilinear(1681.974450955533, quality)
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    shelf = [
        (high + band * k / quality + k * k) / a0,
        2 * (k * k - high) / a0,
        (high - band * k / quality + k * k) / a0,
        1,
        2 * (k * k - 1) / a0,
        (1 - k / quality + k * k) / a0,
    ]
    quality = 0.5003270373238773
    k, a0 = bilinear(38.13547087602444, quality)
    high_pass = [1, -2, 1, 1, 2 * (k * k - 1) / a0, (1 - k / quality + k * k) / a0]
    return np.array([shelf, high_pass])


def _db(power: float) -> float | None:
    return float(10 * np.log10(power)) if power > 0 else None
