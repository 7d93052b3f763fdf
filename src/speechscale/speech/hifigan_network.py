"""The network of the unit HiFi-GAN: units at their frame rate to samples.

Enters: units, one per frame, and a speaker. Leaves: samples, and durations of deduplicated units. The one decision
worth knowing: layers have the names and order of the published CodeHiFiGAN, with plain weights in place of weight norm.

Source: Kong, Kim & Bae 2020 (HiFi-GAN), section 2; Polyak et al. 2021, section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from speechscale.errors import DataError

SLOPE = 0.1
FACTORS = (5, 4, 3, 2, 7)
"""Upsampling factors that hop sizes are split into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HifiganShape:
    """What defines the generator; the defaults are the published sizes (14 million parameters).

    upsample_rates: their product is the hop, samples per unit frame. speakers: the first one is the default; the
    embedding exists for more than one. styles: embeddings of speaking style of some published checkpoints, of which
    `style` is used. duration_channels: 0 for no duration prediction.
    """

    num_units: int
    sample_rate_hz: int = 16_000
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    upsample_initial_channel: int = 512
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    embedding_dim: int = 128
    speakers: tuple[str, ...] = ()
    speaker_table: bool = False
    styles: int = 0
    style: int = 0
    duration_channels: int = 128
    duration_kernel: int = 3
    duration_dropout: float = 0.5

    @classmethod
    def for_units(
        cls, *, num_units: int, frame_rate_hz: float, sample_rate_hz: int = 16_000, **sizes: Any
    ) -> HifiganShape:
        """The published sizes for units of any rate whose hop splits into small factors.

        Raises:
            DataError: the hop is no whole number of samples, or has a prime factor above 7.
        """
        hop = sample_rate_hz / frame_rate_hz
        rates: list[int] = []
        rest = round(hop) if hop == round(hop) else 0
        for factor in FACTORS:
            while rest > 1 and rest % factor == 0:
                rates.append(factor)
                rest //= factor
        if rest != 1 or not rates:
            raise DataError(
                f"hifigan: {frame_rate_hz:g} frames per second at {sample_rate_hz} Hz is a hop of {hop:g} samples, it "
                "must be a product of 2, 3, 4, 5, 7; use another sample_rate_hz"
            )
        rates.sort(reverse=True)
        kernels = tuple(2 * rate if rate % 2 == 0 else 2 * rate + 1 for rate in rates)
        return cls(
            num_units=num_units,
            sample_rate_hz=sample_rate_hz,
            upsample_rates=tuple(rates),
            upsample_kernel_sizes=kernels,
            **sizes,
        )

    def __post_init__(self) -> None:
        pairs = list(zip(self.upsample_rates, self.upsample_kernel_sizes, strict=False))
        if not pairs or len(self.upsample_rates) != len(self.upsample_kernel_sizes):
            raise DataError(
                "hifigan: upsample_rates and upsample_kernel_sizes must be lists of one length; correct them"
            )
        if any(rate < 1 or kernel < rate or (kernel - rate) % 2 for rate, kernel in pairs):
            raise DataError(
                f"hifigan: kernels {self.upsample_kernel_sizes} must exceed the rates {self.upsample_rates} by an even "
                "number each; correct the shape"
            )
        if self.upsample_initial_channel % 2 ** len(pairs) or not self.resblock_kernel_sizes:
            raise DataError(
                f"hifigan: {self.upsample_initial_channel} channels cannot be halved {len(pairs)} times; give a "
                f"multiple of {2 ** len(pairs)}"
            )
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilation_sizes):
            raise DataError("hifigan: every resblock kernel needs its dilations; correct the shape")

    @property
    def hop_samples(self) -> int:
        return math.prod(self.upsample_rates)

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop_samples

    @property
    def has_speaker_table(self) -> bool:
        return self.speaker_table or len(self.speakers) > 1

    @property
    def in_channels(self) -> int:
        """Width of what enters the first convolution: units, speaker, style."""
        return self.embedding_dim * (1 + self.has_speaker_table + (self.styles > 0))

    @property
    def reach_frames(self) -> int:
        """Frames on each side that a sample can depend on."""
        reach, rate = 3.0, 1
        for up, kernel in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True):
            reach += kernel / 2 / up / rate + 1 / rate
            rate *= up
            blocks = zip(self.resblock_kernel_sizes, self.resblock_dilation_sizes, strict=True)
            reach += max(sum((dilation + 1) * (k // 2) for dilation in d) for k, d in blocks) / rate
        return math.ceil(reach + 3 / rate) + 1


class ResBlock(nn.Module):
    """Pairs of convolutions, the first one dilated, each pair added to its input."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def convolution(dilation: int) -> nn.Conv1d:
            return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)

        self.convs1 = nn.ModuleList(convolution(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(convolution(1) for _ in dilations)

    def forward(self, x: Float[Tensor, "B channels T"]) -> Float[Tensor, "B channels T"]:
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = x + second(functional.leaky_relu(first(functional.leaky_relu(x, SLOPE)), SLOPE))
        return x


class DurationPredictor(nn.Module):
    """log(duration + 1) of deduplicated units. Source: Ren et al. 2021 (FastSpeech 2), section 2.3."""

    def __init__(self, channels: int, hidden: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv1d(channels, hidden, kernel, padding=(kernel - 1) // 2), nn.ReLU())
        self.ln1 = nn.LayerNorm(hidden)
        self.conv2 = nn.Sequential(nn.Conv1d(hidden, hidden, kernel, padding=(kernel - 1) // 2), nn.ReLU())
        self.ln2 = nn.LayerNorm(hidden)
        self.proj = nn.Linear(hidden, 1)
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "B U channels"]) -> Float[Tensor, "B U"]:
        x = self.ln1(self.conv1(x.transpose(1, 2)).transpose(1, 2))
        x = functional.dropout(x, self.dropout, self.training)
        x = self.ln2(self.conv2(x.transpose(1, 2)).transpose(1, 2))
        x = functional.dropout(x, self.dropout, self.training)
        return self.proj(x)[..., 0]


class Generator(nn.Module):
    """Units of a fixed rate to samples; the layers are named as in the published checkpoints."""

    def __init__(self, shape: HifiganShape) -> None:
        super().__init__()
        self.shape = shape
        width, stages = (
            shape.upsample_initial_channel,
            list(zip(shape.upsample_rates, shape.upsample_kernel_sizes, strict=True)),
        )
        self.dict = nn.Embedding(shape.num_units, shape.embedding_dim)
        self.spkr = nn.Embedding(len(shape.speakers), shape.embedding_dim) if shape.has_speaker_table else None
        self.style = nn.Embedding(shape.styles, shape.embedding_dim) if shape.styles else None
        self.conv_pre = nn.Conv1d(shape.in_channels, width, 7, padding=3)
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(width >> i, width >> i + 1, kernel, rate, padding=(kernel - rate) // 2)
            for i, (rate, kernel) in enumerate(stages)
        )
        blocks = list(zip(shape.resblock_kernel_sizes, shape.resblock_dilation_sizes, strict=True))
        self.resblocks = nn.ModuleList(
            ResBlock(width >> i + 1, kernel, dilations) for i in range(len(stages)) for kernel, dilations in blocks
        )
        self.conv_post = nn.Conv1d(width >> len(stages), 1, 7, padding=3)
        self.dur_predictor = (
            DurationPredictor(
                shape.embedding_dim, shape.duration_channels, shape.duration_kernel, shape.duration_dropout
            )
            if shape.duration_channels
            else None
        )

    def forward(self, units: Int[Tensor, "B T"], speaker: Int[Tensor, " B"]) -> Float[Tensor, "B samples"]:
        """Sound of units, one per frame; hop_samples samples each."""
        parts = [self.dict(units)]
        if self.spkr is not None:
            parts.append(self.spkr(speaker)[:, None].expand(-1, units.shape[1], -1))
        if self.style is not None:
            parts.append(self.style.weight[self.shape.style].expand(*units.shape, -1))
        x = self.conv_pre(torch.cat(parts, dim=2).transpose(1, 2))
        fusion = len(self.shape.resblock_kernel_sizes)
        for i, up in enumerate(self.ups):
            x = up(functional.leaky_relu(x, SLOPE))
            x = torch.stack([block(x) for block in self.resblocks[fusion * i : fusion * (i + 1)]]).mean(dim=0)
        return torch.tanh(self.conv_post(functional.leaky_relu(x))[:, 0])  # The published slope here is 0.01.

    def log_durations(self, units: Int[Tensor, "B U"]) -> Float[Tensor, "B U"]:
        """log(duration in frames + 1) of deduplicated units; learning it leaves the embeddings alone."""
        assert self.dur_predictor is not None
        return self.dur_predictor(self.dict(units).detach())


def filled_generator(shape: HifiganShape, tensors: Mapping[str, Tensor], who: str) -> Generator:
    """A generator with exactly these plain tensors.

    Raises:
        DataError: tensors that are missing, unknown or of another shape; the message names them.
    """
    with torch.device("meta"):
        network = Generator(shape)
    wanted = network.state_dict()
    problems = [f"missing {name}" for name in wanted if name not in tensors]
    problems += [f"unknown {name}" for name in tensors if name not in wanted]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if problems:
        listed = ", ".join(problems[:6]) + (" ..." if len(problems) > 6 else "")
        raise DataError(f"vocoder {who}: {len(problems)} tensors do not fit the config: {listed}; use its own config")
    network = network.to_empty(device="cpu")
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return network.eval()


def as_tuples(value: Any) -> Any:
    """JSON lists as tuples, at any depth."""
    return tuple(as_tuples(part) for part in value) if isinstance(value, list | tuple) else value
