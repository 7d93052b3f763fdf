"""The offline default: units for voices that were never heard, learned in seconds from the audio alone.

Enters: waveforms. Leaves: [frames, dim] float32 per waveform. The one decision worth knowing: each utterance is warped
to a usual vocal tract, then a small network maps a short window of spectra to features; it was trained to name sounds
that are warped, filtered, noisy or said by somebody else as it would name them clean (no transcripts, no speakers).

Source: Lee & Rose 1996 (warping); Hsu et al. 2021 (clusters as targets, refined once); Gat et al. 2023 (units must not
change under such distortions). Smaller and without masking: see docs/unit_quality.md for what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from speechscale.errors import DataError
from speechscale.speech.encoders.warping import SUBFRAMES, MelFront, fitting_log_mel

LAYERS = 3
WARP_CENTROIDS, WARP_VARIANCE = "warp.centroids", "warp.variance"
_BLOCK = 4096


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """Features of a self-trained network on vocal-tract normalized spectra.

    Frame i is centered on sample (i + 0.5) * hop_samples; a waveform has samples // hop_samples frames. Features
    depend on the whole utterance through its warp, its mean spectrum and its loudest band, as MFCC do.

    Args:
        context: subframes (half a hop) the network sees to each side of a unit frame.
        smoothing: share of a frame's features that comes from its two neighbors: fewer units, none displaced.
        tensors: what `learn_adapted` found: layer0.weight ... layer2.bias, warp.centroids, warp.variance.
    """

    sample_rate_hz: int = 16_000
    hop_samples: int = 640
    window_samples: int = 512
    mels: int = 40
    low_hz: float = 60.0
    high_hz: float = 7600.0
    floor_db: float = 60.0
    context: int = 2
    smoothing: float = 0.4
    version: int = 1
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.version != 1:
            raise DataError(
                f"encoder {self.name}: version {self.version} is unknown, this package has 1; update speechscale"
            )
        missing = sorted({*tensor_names()} - {*self.tensors})
        if missing:
            raise DataError(
                f"encoder {self.name}: learned arrays {', '.join(missing)} are missing; it is learned from audio, "
                "so make its units with fit_tokenizer, or load a tokenizer folder"
            )
        width = (SUBFRAMES + 2 * self.context) * self.mels
        if self.tensors["layer0.weight"].shape[1:] != (width,):
            raise DataError(
                f"encoder {self.name}: layer0.weight is {self.tensors['layer0.weight'].shape}, these settings need "
                f"{width} inputs; load the tokenizer folder again"
            )

    @property
    def name(self) -> str:
        return "adapted"

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop_samples

    @property
    def dim(self) -> int:
        return int(self.tensors[f"layer{LAYERS - 1}.bias"].shape[0])

    def config(self) -> dict[str, Any]:
        return {part.name: getattr(self, part.name) for part in fields(self) if part.name != "tensors"}

    def encode(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Encode each waveform to [samples // hop_samples, dim] float32."""
        with torch.inference_mode():
            return [self._encode_one(waveform) for waveform in waveforms]

    @cached_property
    def front(self) -> MelFront:
        """Where its spectra come from."""
        return MelFront(**{part.name: getattr(self, part.name) for part in fields(MelFront)})

    def spectra(self, waveform: Float[np.ndarray, " samples"]) -> Float[Tensor, "subframes mels"]:
        """Log-mel spectra under the warp that fits this waveform."""
        return fitting_log_mel(self.front, waveform, self._arrays[WARP_CENTROIDS], float(self._arrays[WARP_VARIANCE]))

    @cached_property
    def _arrays(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(np.ascontiguousarray(array, np.float32)) for name, array in self.tensors.items()}

    def _encode_one(self, waveform: np.ndarray) -> np.ndarray:
        assert waveform.ndim == 1, f"a waveform has one axis, got {waveform.shape}"
        frames = len(waveform) // self.hop_samples
        if frames == 0:
            return np.zeros((0, self.dim), np.float32)
        spectra = centered(self.spectra(waveform))
        features = np.empty((frames, self.dim), np.float32)
        for start in range(0, frames, _BLOCK):
            part = features[start : start + _BLOCK]
            part[:] = forward(self._arrays, windows(spectra, self.context, start, len(part))).numpy()
        return smooth(features, self.smoothing)


def mel_front(encoder: type[Adapted], config: Mapping[str, Any]) -> tuple[MelFront, int]:
    """Front end and context that an encoder will have under these settings, before it is learned.

    Raises:
        DataError: settings that the encoder does not have.
    """
    settings: dict[str, Any] = {part.name: part.default for part in fields(encoder) if part.name != "tensors"}
    if unknown := sorted({*config} - {*settings}):
        raise DataError(f"encoder: settings {unknown} are unknown; known are: {', '.join(sorted(settings))}")
    settings |= config
    return MelFront(**{part.name: settings[part.name] for part in fields(MelFront)}), int(settings["context"])


def tensor_names() -> list[str]:
    """Names of the learned arrays."""
    layers = [f"layer{layer}.{kind}" for layer in range(LAYERS) for kind in ("weight", "bias")]
    return [*layers, WARP_CENTROIDS, WARP_VARIANCE]


def centered(log_mel: Float[Tensor, "subframes mels"]) -> Float[Tensor, "subframes mels"]:
    """Subtract the mean spectrum: what the channel and the long-term voice add."""
    return log_mel - log_mel.mean(dim=0)


def windows(
    spectra: Float[Tensor, "subframes mels"], context: int, start: int = 0, count: int | None = None
) -> Float[Tensor, "frames window"]:
    """Spectra of each unit frame and `context` subframes to both sides; the first and last are repeated."""
    count = len(spectra) // SUBFRAMES - start if count is None else count
    first = (start + torch.arange(count)[:, None]) * SUBFRAMES
    index = (first + torch.arange(-context, SUBFRAMES + context)).clamp(0, len(spectra) - 1)
    return spectra[index].reshape(count, -1)


def smooth(features: Float[np.ndarray, "frames dim"], share: float) -> Float[np.ndarray, "frames dim"]:
    """Give each frame `share` of the mean of its two neighbors; the first and last stand in for theirs."""
    if share == 0:
        return features
    wide = np.concatenate([features[:1], features, features[-1:]])
    return (np.float32(1 - share) * features + np.float32(share / 2) * (wide[:-2] + wide[2:])).astype(np.float32)


def forward(arrays: Mapping[str, Tensor], inputs: Float[Tensor, "frames window"]) -> Float[Tensor, "frames dim"]:
    """The network: ReLU layers and a linear one, its output scaled to equal length."""
    hidden = inputs
    for layer in range(LAYERS):
        hidden = torch.nn.functional.linear(hidden, arrays[f"layer{layer}.weight"], arrays[f"layer{layer}.bias"])
        if layer < LAYERS - 1:
            hidden = hidden.relu()
    return torch.nn.functional.normalize(hidden, dim=1) * hidden.shape[1] ** 0.5
