"""The part of a speech model that turns samples into one vector per frame, before its transformer.

Enters: samples, and the statistics of the whole file. Leaves: [frames, channels]. The one decision worth knowing: what
a model normalizes over the whole file (HuBERT-base's group norm, w2v-BERT's mel bins) is measured beforehand, in double
precision and in one pass over the file, so that frames depend neither on padding nor on where a window was cut.

The group norm after the first convolution needs mean and variance of each channel over time. Both follow from mean and
covariance of the stretches of samples under the kernel (10 x 10 numbers per file), and are then folded into the
kernel: the exact layer at no cost, where the ordinary way runs twice over its largest array.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float

from speechscale.speech.encoders.chunks import Blocks, measure, read_spans

TILE_FRAMES = 128
"""Frames per pass through the convolutions on a CPU: their largest array then stays in the cache (1.4 x faster)."""
DEVICE_TILE_FRAMES = 8192
PIECE_FRAMES = 1 << 14


@dataclass(frozen=True, slots=True)
class FileStatistics:
    """Mean and covariance of whatever the front normalizes, over the whole file, in double precision."""

    mean: Float[np.ndarray, " n"]
    covariance: Float[np.ndarray, "n n"]
    count: int


class Front(Protocol):
    """Samples to frames: frame i is made of samples [i * hop_samples, i * hop_samples + field_samples)."""

    hop_samples: int
    field_samples: int

    def statistics(self, blocks: Blocks, samples: int) -> FileStatistics | None:
        """Measure what the front normalizes over the whole file; None if nothing."""
        ...

    def __call__(self, samples: torch.Tensor, statistics: FileStatistics | None) -> torch.Tensor:
        """[samples] to [frames, channels]."""
        ...


def frame_count(front: Front, samples: int) -> int:
    """Frames that so many samples give: those whose field is complete."""
    return max(0, (samples - front.field_samples) // front.hop_samples + 1)


class ConvFront:
    """The convolutional feature encoder of HuBERT, wav2vec 2.0 and WavLM, computed tile by tile.

    Args:
        layers: the `conv_layers` of the transformers model. tile_frames: frames per tile.
    """

    def __init__(self, layers: Any, *, tile_frames: int) -> None:
        self.layers = list(layers)
        self.kernels = [layer.conv.kernel_size[0] for layer in self.layers]
        self.strides = [layer.conv.stride[0] for layer in self.layers]
        self.hop_samples = prod(self.strides)
        self.field_samples = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            self.field_samples = (self.field_samples - 1) * stride + kernel
        self.tile_frames = tile_frames
        self.group_norm = isinstance(getattr(self.layers[0], "layer_norm", None), torch.nn.GroupNorm)

    def statistics(self, blocks: Blocks, samples: int) -> FileStatistics | None:
        """Mean and covariance of the samples under the first kernel, over all its positions in the file."""
        if not self.group_norm:
            return None
        kernel, stride = self.kernels[0], self.strides[0]
        positions = max(0, (samples - kernel) // stride + 1)
        starts = range(0, positions, PIECE_FRAMES)
        spans = [(start * stride, (min(start + PIECE_FRAMES, positions) - 1) * stride + kernel) for start in starts]
        total, products = np.zeros(kernel), np.zeros((kernel, kernel))
        for piece in read_spans(blocks(), spans):
            under = np.lib.stride_tricks.sliding_window_view(piece, kernel)[::stride].astype(np.float64)
            total += under.sum(axis=0)
            products += under.T @ under
        mean = total / max(positions, 1)
        return FileStatistics(mean, products / max(positions, 1) - np.outer(mean, mean), positions)

    def __call__(self, samples: torch.Tensor, statistics: FileStatistics | None) -> torch.Tensor:
        frames = frame_count(self, len(samples))
        samples = samples.to(self.layers[0].conv.weight.dtype)
        weight, bias = self._first(statistics)
        tiles = []
        for start in range(0, frames, self.tile_frames):
            stop = min(start + self.tile_frames, frames)
            tile = samples[start * self.hop_samples : (stop - 1) * self.hop_samples + self.field_samples]
            tiles.append(self._tile(tile, weight, bias))
        return torch.cat(tiles) if tiles else samples.new_zeros((0, self.layers[-1].conv.out_channels))

    def _first(self, statistics: FileStatistics | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Kernel and bias of the first convolution, with the group norm folded in."""
        conv = self.layers[0].conv
        if not self.group_norm:
            return conv.weight, conv.bias
        assert statistics is not None, "a group norm needs the statistics of the file"
        norm = self.layers[0].layer_norm
        kernel = conv.weight[:, 0].double().cpu().numpy()  # (channels, taps)
        variance = np.einsum("ck,kl,cl->c", kernel, statistics.covariance, kernel).clip(min=0.0)
        gain = norm.weight.double().cpu().numpy() / np.sqrt(variance + norm.eps)
        bias = norm.bias.double().cpu().numpy() - gain * (kernel @ statistics.mean)
        weight = torch.from_numpy(kernel * gain[:, None])[:, None]
        return weight.to(conv.weight), torch.from_numpy(bias).to(conv.weight)

    def _tile(self, samples: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        hidden = torch.nn.functional.conv1d(samples[None, None], weight, bias, stride=self.strides[0])
        for index, layer in enumerate(self.layers):
            if index:
                hidden = layer.conv(hidden)
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, torch.nn.LayerNorm):
                hidden = norm(hidden.transpose(1, 2)).transpose(1, 2)
            hidden = layer.activation(hidden)
        return hidden[0].transpose(0, 1)  # (frames, channels)


class FilterbankFront:
    """w2v-BERT's input: 80 log-mel energies every 10 ms, normalized per band over the file, two frames side by side.

    Source: Kaldi's fbank, as transformers' SeamlessM4TFeatureExtractor computes it. One difference: an odd last frame
    of 10 ms counts in the statistics and is then dropped, where the other returns it half empty and masked.
    """

    window_samples = 400
    step_samples = 160
    fft_samples = 512
    stack = 2

    def __init__(self, mel_filters: np.ndarray, window: np.ndarray) -> None:
        self.hop_samples = self.step_samples * self.stack
        self.field_samples = self.window_samples + self.step_samples * (self.stack - 1)
        self.filters = torch.from_numpy(np.asarray(mel_filters, np.float32))  # (bins, mels)
        self.window = torch.from_numpy(np.asarray(window, np.float32))

    def statistics(self, blocks: Blocks, samples: int) -> FileStatistics | None:
        """Mean and variance (unbiased, on the diagonal) of each band over all frames of 10 ms."""
        count = max(0, (samples - self.window_samples) // self.step_samples + 1)
        starts = range(0, count, PIECE_FRAMES)
        spans = [
            (
                start * self.step_samples,
                (min(start + PIECE_FRAMES, count) - 1) * self.step_samples + self.window_samples,
            )
            for start in starts
        ]
        total, squares = np.zeros(self.filters.shape[1]), np.zeros(self.filters.shape[1])
        for piece in read_spans(blocks(), spans):
            bands = self.bands(torch.from_numpy(piece)).double().numpy()
            total += bands.sum(axis=0)
            squares += np.square(bands).sum(axis=0)
        mean = total / max(count, 1)
        variance = (squares - count * mean * mean).clip(min=0.0) / max(count - 1, 1)
        return FileStatistics(mean, np.diag(variance), count)

    def __call__(self, samples: torch.Tensor, statistics: FileStatistics | None) -> torch.Tensor:
        assert statistics is not None, "the filter bank is normalized over the file"
        frames = frame_count(self, len(samples))
        if not frames:
            return samples.new_zeros((0, self.filters.shape[1] * self.stack))
        bands = self.bands(samples.float().cpu())[: frames * self.stack]
        mean = torch.from_numpy(statistics.mean)
        spread = torch.from_numpy(np.sqrt(np.diag(statistics.covariance) + 1e-7))
        normal = ((bands - mean) / spread).float()
        return normal.reshape(frames, -1).to(samples)

    def bands(self, samples: torch.Tensor) -> torch.Tensor:
        """[samples] to [frames of 10 ms, mels]: DC removed, pre-emphasis 0.97, Povey window, log of band energies."""
        windows = (samples * 32768.0).unfold(0, self.window_samples, self.step_samples)
        windows = windows - windows.mean(dim=1, keepdim=True)
        before = torch.cat([windows[:, :1], windows[:, :-1]], dim=1)
        spectrum = torch.fft.rfft((windows - 0.97 * before) * self.window, n=self.fft_samples)
        energies = (spectrum.real.square() + spectrum.imag.square()) @ self.filters
        return energies.clamp_min(1.192092955078125e-07).log()


def whole_file_scale(blocks: Blocks, normalize: bool) -> tuple[int, float, float]:
    """Samples of the file, and the shift and scale that give it zero mean and unit variance if asked to.

    Source: Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm (epsilon 1e-7 on the variance).
    """
    loudness = measure(blocks)
    if not normalize or not loudness.samples:
        return loudness.samples, 0.0, 1.0
    return loudness.samples, loudness.mean, float(1.0 / np.sqrt(loudness.variance + 1e-7))
