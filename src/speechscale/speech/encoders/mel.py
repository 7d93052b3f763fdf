"""Mel filters and the energies behind them.

Enters: how many filters and their band, or audio. Leaves: one triangle per filter over the FFT bins, or one energy per
frame and filter. The one decision worth knowing: each triangle sums to one, so that a band's energy does not depend on
its width.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from speechscale.speech.encoders.chunks import Blocks, changed, measure, read_spans

PIECE_FRAMES = 16_384
"""Frames per step; files up to this length are one step. Fixed, so that energies depend on the file alone."""


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


def _mel(frequency_hz: float) -> float:
    return float(2595 * np.log10(1 + frequency_hz / 700))


def band_energies(
    blocks: Blocks,
    *,
    hop_samples: int,
    window: Float[torch.Tensor, " window"],
    bands: Float[torch.Tensor, "bins mels"],
) -> Float[torch.Tensor, "frames mels"]:
    """Energy per frame and band; frame i is centered on sample (i + 0.5) * hop_samples, and beyond the file is silence.

    Memory: the energies and one step of audio, whatever the length; how the blocks are cut makes no difference.

    Raises:
        DataError: NaN or infinite samples.
    """
    frames = measure(blocks).samples // hop_samples
    size = len(window)
    first = size - (size - hop_samples) // 2  # of frame 0 behind `size` zeros
    starts = range(0, frames, PIECE_FRAMES)
    counts = [min(PIECE_FRAMES, frames - start) for start in starts]
    offsets = [first + start * hop_samples for start in starts]
    spans = [(at, at + (count - 1) * hop_samples + size) for at, count in zip(offsets, counts, strict=True)]
    energies = torch.empty((frames, bands.shape[1]))
    padded = changed(blocks, shift=0.0, scale=1.0, pad_samples=size)
    for start, count, samples in zip(starts, counts, read_spans(padded(), spans), strict=True):
        windows = torch.from_numpy(samples).unfold(0, size, hop_samples)  # (frames, window)
        spectrum = torch.fft.rfft(windows * window)
        energies[start : start + count] = (spectrum.real.square() + spectrum.imag.square()) @ bands
    return energies
