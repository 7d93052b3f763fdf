"""Mel-frequency cepstra with deltas: features without learned weights.

Enters: waveforms at the encoder's rate. Leaves: [frames, 2 * cepstra] float32 per waveform. The one decision worth
knowing: every waveform is computed by itself and normalized over itself, never padded to a neighbor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.speech.encoders.chunks import Blocks
from speechscale.speech.encoders.mel import band_energies, mel_filterbank


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

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        return {}

    def config(self) -> dict[str, Any]:
        return asdict(self)

    def encode(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Encode each waveform to [samples // hop_samples, 2 * cepstra] float32."""
        for waveform in waveforms:
            assert waveform.ndim == 1, f"a waveform has one axis, got {waveform.shape}"
        with torch.inference_mode():
            return [self._encode_one(partial(list, [waveform])) for waveform in waveforms]

    def encode_stream(self, blocks: Blocks) -> Iterator[np.ndarray]:
        """Yield the features of one file, the same bits as `encode`; two passes over its audio.

        Memory: 4 * (mels + 6 * cepstra) bytes per frame, 130 MB for three hours at 25 Hz.
        """
        with torch.inference_mode():
            features = self._encode_one(blocks)
        if len(features):
            yield features

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

    def _encode_one(self, blocks: Blocks) -> np.ndarray:
        energies = band_energies(blocks, hop_samples=self.hop_samples, window=self._window, bands=self._bands)
        if not len(energies):
            return np.zeros((0, self.dim), np.float32)
        floor = max(float(energies.max()) * 10 ** (-self.floor_db / 10), 1e-20)
        cepstra = energies.clamp_min(floor).log() @ self._cosines
        features = torch.cat([cepstra, deltas(cepstra, self.delta_frames)], dim=1)
        spread = features.std(dim=0, correction=0).clamp_min(1e-2)
        features = (features - features.mean(dim=0)) / spread
        features[:, self.cepstra :] *= self.delta_weight
        return features.numpy()


def deltas(features: Float[torch.Tensor, "frames dim"], reach: int) -> Float[torch.Tensor, "frames dim"]:
    """Slope of a regression line over `reach` frames to both sides; the first and last frame are repeated."""
    frames = len(features)
    index = torch.arange(frames)
    slope = torch.zeros_like(features)
    for step in range(1, reach + 1):
        slope += step * (features[(index + step).clamp_max(frames - 1)] - features[(index - step).clamp_min(0)])
    return slope / (2 * sum(step * step for step in range(1, reach + 1)))
