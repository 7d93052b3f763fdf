"""Vocal-tract length normalization: log-mel spectra with the frequency axis of each utterance stretched to fit.

Enters: waveforms. Leaves: log-mel frames at twice the unit rate, under the warp that brings an utterance nearest to
what speech usually sounds like (centroids of cepstra). The one decision worth knowing: the warp is chosen per utterance
without knowing the speaker, and a prior around 1 decides where there is too little speech to tell.

Source: Lee & Rose 1996 (a warp grid, chosen by likelihood); HTK book, section 5.4.6 (piecewise linear warping).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

WARPS = (0.80, 0.84, 0.88, 0.92, 0.96, 1.0, 1.04, 1.08, 1.12, 1.17, 1.22)
NEUTRAL = WARPS.index(1.0)
SUBFRAMES = 2
"""Spectra per unit frame."""
CEPSTRA = 13
_KNEE = 0.7
"""Share of the band above which the warp bends so that its upper end stays in place."""
_PRIOR_SPREAD = 0.1
"""Standard deviation of the logarithm of the warp, before anything was heard."""
_FRAMES_PER_OPINION = 40.0
"""Neighboring frames say the same; this many count as one independent observation."""
_LISTEN_FRAMES = 1500
"""Unit frames that choose the warp; of longer audio an even sample."""
_BLOCK = 4096
_CACHED = 128
"""Spectra at a time: few enough to stay in the processor's cache."""


@dataclass(frozen=True, kw_only=True)
class MelFront:
    """Log-mel spectra with `SUBFRAMES` per unit frame, centered inside it; `floor_db` below the loudest is silence."""

    sample_rate_hz: int
    hop_samples: int
    window_samples: int
    mels: int
    low_hz: float
    high_hz: float
    floor_db: float

    def power(self, waveform: Float[np.ndarray, " samples"]) -> Float[Tensor, "subframes bins"]:
        """Power spectra; subframe i is centered on sample (i + 0.5) * hop / SUBFRAMES; what lies outside is zero."""
        step = self.hop_samples // SUBFRAMES
        count = len(waveform) // self.hop_samples * SUBFRAMES
        left = (self.window_samples - step) // 2
        padded = np.zeros((count - 1) * step + self.window_samples, np.float32)
        heard = waveform[: len(padded) - left]
        padded[left : left + len(heard)] = heard
        windows = torch.from_numpy(padded).unfold(0, self.window_samples, step)
        power = torch.empty(count, self.window_samples // 2 + 1)
        for start in range(0, count, _CACHED):
            spectrum = torch.fft.rfft(windows[start : start + _CACHED] * _hann(self.window_samples))
            torch.mul(spectrum.real, spectrum.real, out=power[start : start + _CACHED])
            power[start : start + _CACHED].addcmul_(spectrum.imag, spectrum.imag)
        return power

    def log_mel(self, power: Float[Tensor, "subframes bins"], warp: float) -> Float[Tensor, "subframes mels"]:
        """Log band energies under a warp, floored."""
        return self.floored_log_(power @ _warped_bands(self, warp))

    def floored_log_(self, energies: Float[Tensor, "subframes mels"]) -> Float[Tensor, "subframes mels"]:
        """Log of band energies, in place."""
        return energies.clamp_min_(max(float(energies.max()) * 10 ** (-self.floor_db / 10), 1e-20)).log_()

    def listen(self, power: Float[Tensor, "subframes bins"]) -> Float[Tensor, "frames warps cepstra"]:
        """Cepstra and their slopes per unit frame under every warp, normalized over the utterance.

        They come from the mean power of a frame, at half the cost of its two spectra.
        """
        mean = (power[0::2] + power[1::2]).mul_(1 / SUBFRAMES)
        energies = (mean @ _all_bands(self)).reshape(len(mean), len(WARPS), self.mels)
        floors = energies.amax(dim=(0, 2)).mul_(10 ** (-self.floor_db / 10)).clamp_min_(1e-20)
        still = torch.maximum(energies, floors[:, None], out=energies).log_() @ _cosines(self.mels)
        return _with_slopes(still)


def cepstra(log_mel: Float[Tensor, "subframes mels"]) -> Float[Tensor, "frames cepstra"]:
    """Cepstra and their slopes per unit frame of spectra under one warp; better than those of `listen`, and slower."""
    mean = (log_mel[0::2] + log_mel[1::2]).mul_(1 / SUBFRAMES)
    return _with_slopes(mean @ _cosines(log_mel.shape[1]))


def _with_slopes(still: Float[Tensor, "frames *warps cepstra"]) -> Float[Tensor, "frames *warps twice"]:
    """Append slopes at half their weight, as MFCC do, everything normalized over the frames."""
    wide = torch.cat([still[:1], still[:1], still, still[-1:], still[-1:]])
    slopes = (wide[3:-1] - wide[1:-3]).add_(wide[4:] - wide[:-4], alpha=2).mul_(0.1)
    frames = torch.cat([still - still.mean(dim=0), slopes - slopes.mean(dim=0)], dim=-1)
    scale = frames.square().mean(dim=0).sqrt_().clamp_min_(1e-2).reciprocal_()
    scale[..., CEPSTRA:] *= 0.5
    return frames.mul_(scale)


def choose_warp(
    candidates: Float[Tensor, "frames warps cepstra"],
    centroids: Float[Tensor, "clusters cepstra"],
    variance: float,
    frames_per_opinion: float = _FRAMES_PER_OPINION,
) -> int:
    """Index of the warp whose cepstra lie nearest to the centroids, in view of the prior.

    Args:
        candidates: normalized cepstra under each of `WARPS`. variance: usual squared distance per dimension.
    """
    rows = candidates.reshape(-1, candidates.shape[2])
    nearest = torch.addmm(centroids.square().sum(dim=1), rows, centroids.T, alpha=-2).amin(dim=1)
    distances = nearest.reshape(candidates.shape[:2]).sum(dim=0) + candidates.square().sum(dim=(0, 2))
    costs = 0.5 * distances.double().numpy() / variance / frames_per_opinion
    return int(np.argmin(costs + 0.5 * (np.log(WARPS) / _PRIOR_SPREAD) ** 2))


def fitting_log_mel(
    front: MelFront,
    waveform: Float[np.ndarray, " samples"],
    centroids: Float[Tensor, "clusters cepstra"],
    variance: float,
) -> Float[Tensor, "subframes mels"]:
    """Log-mel spectra under the warp that fits the waveform; a long one is judged by evenly spread parts."""
    if len(waveform) // front.hop_samples <= _LISTEN_FRAMES:
        power = front.power(waveform)
        return front.log_mel(power, WARPS[choose_warp(front.listen(power), centroids, variance)])
    power = front.power(excerpt(waveform, front.hop_samples))
    return warped_log_mel(front, waveform, WARPS[choose_warp(front.listen(power), centroids, variance)])


def warped_log_mel(
    front: MelFront, waveform: Float[np.ndarray, " samples"], warp: float
) -> Float[Tensor, "subframes mels"]:
    """Log-mel of a waveform of any length: the spectra are made block by block, the floor is that of the whole."""
    frames = len(waveform) // front.hop_samples
    margin = -(-front.window_samples // front.hop_samples)
    parts = []
    for start in range(0, frames, _BLOCK):
        first, last = max(0, start - margin), min(frames, start + _BLOCK + margin)
        energies = front.power(waveform[first * front.hop_samples : last * front.hop_samples]) @ _warped_bands(
            front, warp
        )
        parts.append(energies[(start - first) * SUBFRAMES : (min(start + _BLOCK, frames) - first) * SUBFRAMES])
    return front.floored_log_(torch.cat(parts))


def excerpt(
    waveform: Float[np.ndarray, " samples"], hop_samples: int, parts: int = 10
) -> Float[np.ndarray, " samples"]:
    """The waveform, or evenly spread parts of a long one that last _LISTEN_FRAMES together."""
    frames = len(waveform) // hop_samples
    if frames <= _LISTEN_FRAMES:
        return waveform
    length = _LISTEN_FRAMES // parts
    starts = np.linspace(0, frames - length, parts).astype(int) * hop_samples
    return np.concatenate([waveform[start : start + length * hop_samples] for start in starts])


@lru_cache(maxsize=4)
def _all_bands(front: MelFront) -> Float[Tensor, "bins warps_mels"]:
    return torch.cat([_warped_bands(front, warp) for warp in WARPS], dim=1)


@lru_cache(maxsize=64)
def _warped_bands(front: MelFront, warp: float) -> Float[Tensor, "bins mels"]:
    """Mel triangles whose edges are moved to warp * frequency, and bent above the knee to keep the upper end.

    A filter narrower than the distance of two FFT bins takes its nearest bin.
    """
    edges = 700 * (10 ** (np.linspace(_mel(front.low_hz), _mel(front.high_hz), front.mels + 2) / 2595) - 1)
    knee = _KNEE * front.high_hz * min(1.0, 1 / warp)
    upper = warp * knee + (edges - knee) * (front.high_hz - warp * knee) / (front.high_hz - knee)
    edges = np.where(edges <= knee, warp * edges, upper)
    frequencies = np.linspace(0, front.sample_rate_hz / 2, front.window_samples // 2 + 1)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.clip(np.minimum(rising, falling), 0, None)
    hollow = np.flatnonzero(filters.sum(axis=1) == 0)
    filters[hollow, np.abs(frequencies - edges[1:-1][hollow, None]).argmin(axis=1)] = 1
    return torch.from_numpy((filters / filters.sum(axis=1, keepdims=True)).T.astype(np.float32).copy())


@lru_cache(maxsize=4)
def _hann(samples: int) -> Float[Tensor, " samples"]:
    return torch.hann_window(samples)


@lru_cache(maxsize=4)
def _cosines(mels: int) -> Float[Tensor, "mels cepstra"]:
    """Orthonormal DCT-II."""
    angle = np.pi / mels * np.outer(np.arange(mels) + 0.5, np.arange(CEPSTRA))
    scale = np.where(np.arange(CEPSTRA) == 0, np.sqrt(1 / mels), np.sqrt(2 / mels))
    return torch.from_numpy((np.cos(angle) * scale).astype(np.float32))


def _mel(frequency_hz: float) -> float:
    return float(2595 * np.log10(1 + frequency_hz / 700))
