"""Log-mel energies, the plainest features.

Enters: waveforms at the encoder's rate. Leaves: [frames, mels] float32 per waveform. The one decision worth knowing:
the loudest band energy of a file is 0 dB, and each band may be normalized over the file; nothing looks at neighbors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from speechscale.errors import DataError
from speechscale.speech.encoders.chunks import Blocks
from speechscale.speech.encoders.mel import band_energies, mel_filterbank


@dataclass(frozen=True, kw_only=True)
class LogMel:
    """Natural logarithm of mel energies; frames as in `Mfcc`.

    Args:
        floor_db: energies are floored so far below the loudest of the file.
        normalize: scale each band to zero mean and unit variance over the file.
    """

    sample_rate_hz: int = 16_000
    hop_samples: int = 160
    window_samples: int = 400
    mels: int = 80
    low_hz: float = 0.0
    high_hz: float = 8000.0
    floor_db: float = 80.0
    normalize: bool = True
    version: int = 1

    name = "log-mel"

    def __post_init__(self) -> None:
        if self.version != 1:
            raise DataError(
                f"encoder log-mel: version {self.version} is unknown, this package has 1; update speechscale"
            )
        if not 0 < self.hop_samples <= self.window_samples or self.mels < 1:
            raise DataError(
                f"encoder log-mel: needs 0 < hop_samples <= window_samples and mels >= 1, got {self.config()}; "
                "correct the settings"
            )
        if not 0 <= self.low_hz < self.high_hz <= self.sample_rate_hz / 2:
            raise DataError(
                f"encoder log-mel: needs 0 <= low_hz < high_hz <= {self.sample_rate_hz / 2:g}, "
                f"got {self.low_hz:g}, {self.high_hz:g}; correct the settings"
            )

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop_samples

    @property
    def dim(self) -> int:
        return self.mels

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        return {}

    def config(self) -> dict[str, Any]:
        return asdict(self)

    def encode(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Encode each waveform to [samples // hop_samples, mels] float32."""
        return [self._encode_one(partial(list, [waveform])) for waveform in waveforms]

    def encode_stream(self, blocks: Blocks) -> Iterator[np.ndarray]:
        """Yield the features of one file, the same bits as `encode`; two passes over its audio.

        Memory: 4 * mels bytes per frame.
        """
        features = self._encode_one(blocks)
        if len(features):
            yield features

    @cached_property
    def _bands(self) -> torch.Tensor:
        bins = self.window_samples // 2 + 1
        return torch.from_numpy(
            mel_filterbank(self.mels, bins, self.sample_rate_hz, self.low_hz, self.high_hz).T.copy()
        )

    def _encode_one(self, blocks: Blocks) -> np.ndarray:
        with torch.inference_mode():
            energies = band_energies(
                blocks, hop_samples=self.hop_samples, window=torch.hann_window(self.window_samples), bands=self._bands
            )
            if not len(energies):
                return np.zeros((0, self.mels), np.float32)
            loudest = max(float(energies.max()), 1e-20)
            logs = energies.div_(loudest).clamp_min_(10 ** (-self.floor_db / 10)).log_()  # in place: they may be long
            if self.normalize:
                spread = logs.std(dim=0, correction=0).clamp_min(1e-2)
                logs.sub_(logs.mean(dim=0)).div_(spread)
            return logs.numpy()
