"""Waveform to log-mel spectrogram, and half of the way back: to magnitudes; `griffin_lim` goes the rest.

Enters: waveforms or log-mel frames. Leaves: log mels or magnitudes. The one decision worth knowing: frame j is centered
on sample j * hop, so that the way back has exactly the length asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from speechscale.speech.encoders.mel import mel_filterbank

FLOOR = 1e-4
"""Smallest mel magnitude; the window sums to about 400, so this is far below 16-bit rounding noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MelSpec:
    """A mel spectrogram: FFT and window size, hop, bands."""

    sample_rate_hz: int = 16_000
    window_samples: int = 800
    hop_samples: int = 200
    mels: int = 80
    low_hz: float = 40.0
    high_hz: float = 7900.0


def log_mel(audio: Float[Tensor, "*batch samples"], spec: MelSpec) -> Float[Tensor, "*batch mels frames"]:
    """Natural log of mel magnitudes, samples // hop + 1 frames; what lies outside the audio is zero."""
    return (_bands(spec).to(audio.device) @ _stft(audio, spec).abs()).clamp_min(FLOOR).log()


def mel_to_magnitude(
    mels: Float[Tensor, "mels frames"], spec: MelSpec, iterations: int = 30
) -> Float[Tensor, "bins frames"]:
    """Find non-negative magnitudes whose mel bands are those given, by multiplicative updates.

    Source: Lee & Seung 2001, eq. 4 (with the basis fixed).
    """
    bands, wanted = _bands(spec), mels.exp()
    pulled = bands.T @ wanted
    magnitude = pulled + FLOOR
    for _ in range(iterations):
        magnitude = magnitude * pulled / (bands.T @ (bands @ magnitude) + 1e-8)
    return magnitude


@lru_cache(maxsize=4)
def _bands(spec: MelSpec) -> Float[Tensor, "mels bins"]:
    bins = spec.window_samples // 2 + 1
    return torch.from_numpy(mel_filterbank(spec.mels, bins, spec.sample_rate_hz, spec.low_hz, spec.high_hz))


def _stft(audio: Float[Tensor, "*batch samples"], spec: MelSpec) -> Complex[Tensor, "*batch bins frames"]:
    size = spec.window_samples
    window = window_of(size).to(audio.device)
    return torch.stft(
        audio, size, spec.hop_samples, window=window, center=True, pad_mode="constant", return_complex=True
    )


@lru_cache(maxsize=4)
def window_of(samples: int) -> Float[Tensor, " samples"]:
    """The window of every spectrogram here: Hann, periodic."""
    return torch.hann_window(samples)
