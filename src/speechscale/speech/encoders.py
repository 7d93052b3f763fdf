"""Waveforms to continuous features: one row per frame.

Enters: mono waveforms at the encoder's rate. Leaves: [frames, dim] float32 per waveform. The one decision worth
knowing: every waveform is computed by itself, never padded to a neighbor, so that a file has the same features alone
and in any batch, bit for bit (same machine, same torch).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float

from speechscale.errors import DataError


class Encoder(Protocol):
    """What an encoder must offer; `ENCODERS[name](**encoder.config())` builds an equal one."""

    @property
    def name(self) -> str: ...

    @property
    def sample_rate_hz(self) -> int: ...

    @property
    def frame_rate_hz(self) -> float: ...

    @property
    def dim(self) -> int: ...

    def encode(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Encode each waveform to [frames, dim] float32; results must not depend on the other waveforms."""
        ...

    def config(self) -> dict[str, Any]:
        """Return everything that defines the features, as JSON-like values."""
        ...


@dataclass(frozen=True, kw_only=True)
class Mfcc:
    """Mel-frequency cepstra with deltas, each utterance normalized to zero mean and unit variance.

    Frame i is centered on sample (i + 0.5) * hop_samples; a waveform has samples // hop_samples frames, and what its
    first and last windows miss is zero. Band energies are floored `floor_db` below the loudest of the utterance, so
    that loudness does not matter and digital silence is no outlier. `delta_weight` scales the deltas after the
    normalization: at half their say in the distance, units tell more about phones.

    Source: Davis & Mermelstein 1980 (cepstra); HTK book, eq. 5.16 (deltas). No pre-emphasis and no liftering: the
    normalization per coefficient undoes both.
    """

    sample_rate_hz: int = 16_000
    hop_samples: int = 640
    window_samples: int = 640
    mels: int = 40
    cepstra: int = 13
    low_hz: float = 60.0
    high_hz: float = 7600.0
    delta_frames: int = 2
    delta_weight: float = 0.5
    floor_db: float = 50.0
    version: int = 1

    def __post_init__(self) -> None:
        if self.version != 1:
            raise DataError(f"encoder mfcc: version {self.version} is unknown, this package has 1; update speechscale")
        if not 0 < self.hop_samples <= self.window_samples or not 0 < self.cepstra <= self.mels:
            raise DataError(
                f"encoder mfcc: needs 0 < hop_samples <= window_samples and 0 < cepstra <= mels, got {self.config()}"
            )
        if not 0 <= self.low_hz < self.high_hz <= self.sample_rate_hz / 2:
            raise DataError(
                f"encoder mfcc: needs 0 <= low_hz < high_hz <= {self.sample_rate_hz / 2:g}, "
                f"got {self.low_hz:g}, {self.high_hz:g}"
            )

    @property
    def name(self) -> str:
        return "mfcc"

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop_samples

    @property
    def dim(self) -> int:
        return 2 * self.cepstra

    def config(self) -> dict[str, Any]:
        return asdict(self)

    def encode(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Encode each waveform to [samples // hop_samples, 2 * cepstra] float32."""
        with torch.inference_mode():
            return [self._encode_one(waveform) for waveform in waveforms]

    @cached_property
    def _window(self) -> torch.Tensor:
        return torch.hann_window(self.window_samples)

    @cached_property
    def _bands(self) -> torch.Tensor:
        bins = self.window_samples // 2 + 1
        bands = mel_filterbank(self.mels, bins, self.sample_rate_hz, self.low_hz, self.high_hz)
        return torch.from_numpy(bands.T.copy())  # (bins, mels)

    @cached_property
    def _cosines(self) -> torch.Tensor:
        """Orthonormal DCT-II, (mels, cepstra)."""
        angle = np.pi / self.mels * np.outer(np.arange(self.mels) + 0.5, np.arange(self.cepstra))
        scale = np.where(np.arange(self.cepstra) == 0, np.sqrt(1 / self.mels), np.sqrt(2 / self.mels))
        return torch.from_numpy((np.cos(angle) * scale).astype(np.float32))

    def _encode_one(self, waveform: np.ndarray) -> np.ndarray:
        assert waveform.ndim == 1, f"a waveform has one axis, got {waveform.shape}"
        frames = len(waveform) // self.hop_samples
        if frames == 0:
            return np.zeros((0, self.dim), np.float32)
        left = (self.window_samples - self.hop_samples) // 2
        padded = np.zeros((frames - 1) * self.hop_samples + self.window_samples, np.float32)
        heard = waveform[: len(padded) - left]
        padded[left : left + len(heard)] = heard
        windows = torch.from_numpy(padded).unfold(0, self.window_samples, self.hop_samples)  # (frames, window)
        spectrum = torch.fft.rfft(windows * self._window)
        energies = (spectrum.real.square() + spectrum.imag.square()) @ self._bands  # (frames, mels)
        floor = max(float(energies.max()) * 10 ** (-self.floor_db / 10), 1e-20)
        cepstra = energies.clamp_min(floor).log() @ self._cosines
        features = torch.cat([cepstra, deltas(cepstra, self.delta_frames)], dim=1)
        spread = features.std(dim=0, correction=0).clamp_min(1e-2)
        features = (features - features.mean(dim=0)) / spread
        features[:, self.cepstra :] *= self.delta_weight
        return features.numpy()


def mel_filterbank(
    mels: int, bins: int, sample_rate_hz: int, low_hz: float, high_hz: float
) -> Float[np.ndarray, "mels bins"]:
    """Build triangular filters, equally spaced on the mel scale 2595 log10(1 + f / 700), each summing to one.

    A filter narrower than the distance of two FFT bins still takes its nearest bin.
    Source: O'Shaughnessy 1987 (mel formula).
    """
    edges = 700 * (10 ** (np.linspace(_mel(low_hz), _mel(high_hz), mels + 2) / 2595) - 1)
    frequencies = np.linspace(0, sample_rate_hz / 2, bins)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.clip(np.minimum(rising, falling), 0, None)
    hollow = np.flatnonzero(filters.sum(axis=1) == 0)
    filters[hollow, np.abs(frequencies - edges[1:-1][hollow, None]).argmin(axis=1)] = 1
    return (filters / filters.sum(axis=1, keepdims=True)).astype(np.float32)


def deltas(features: Float[torch.Tensor, "frames dim"], reach: int) -> Float[torch.Tensor, "frames dim"]:
    """Slope of a regression line over `reach` frames to both sides; the first and last frame are repeated."""
    frames = len(features)
    index = torch.arange(frames)
    slope = torch.zeros_like(features)
    for step in range(1, reach + 1):
        slope += step * (features[(index + step).clamp_max(frames - 1)] - features[(index - step).clamp_min(0)])
    return slope / (2 * sum(step * step for step in range(1, reach + 1)))


def _mel(frequency_hz: float) -> float:
    return float(2595 * np.log10(1 + frequency_hz / 700))


ENCODERS: dict[str, Callable[..., Encoder]] = {"mfcc": Mfcc}


def build_encoder(name: str, config: dict[str, Any]) -> Encoder:
    """Build the encoder of that name.

    Raises:
        DataError: unknown name, or settings the encoder does not have.
    """
    if name not in ENCODERS:
        raise DataError(f"encoder '{name}' is unknown; known are: {', '.join(sorted(ENCODERS))}")
    try:
        return ENCODERS[name](**config)
    except TypeError as error:
        raise DataError(f"encoder '{name}': settings {sorted(config)} do not fit ({error})") from error
