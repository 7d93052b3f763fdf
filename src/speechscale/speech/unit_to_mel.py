"""The network of the vocoder: units with durations to log-mel frames.

Enters: units of a speaker, and a `MelPlan` that lays them along mel frames. Leaves: normalized log mels, and predicted
durations. The one decision worth knowing: a unit is read among its neighbors once, at the unit rate; only three narrow
convolutions run at the mel rate. What a speaker changes most, the mean spectrum, is a table and not learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from speechscale.speech.spectrograms import MelSpec

POSITIONS = 6
"""Channels that tell a mel frame where in its unit it lies."""
UNIT_REACH = 2
MEL_REACH = 6
"""How far the convolutions look on both sides: two of 3 units, three of 5 mel frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VocoderShape:
    """What defines the network; about 0.6 million parameters for 100 units. speakers: the first one is the default."""

    num_units: int
    frame_rate_hz: float
    unit_channels: int = 192
    mel_channels: int = 160
    mel: MelSpec = field(default_factory=MelSpec)
    speakers: tuple[str, ...] = ()

    @property
    def samples_per_frame(self) -> float:
        return self.mel.sample_rate_hz / self.frame_rate_hz


class UnitToMel(nn.Module):
    """Log-mel frames and durations from units: convolutions over units, then over mel frames.

    The duration head predicts log(mean duration - 1 frame), as of a Poisson variable, from a unit and its neighbors.
    """

    mel_mean: Tensor  # (speakers, mels)
    mel_spread: Tensor  # (speakers, mels)
    gain: Tensor  # (speakers); what the loudness of the prediction lacks

    def __init__(self, shape: VocoderShape) -> None:
        super().__init__()
        wide, narrow = shape.unit_channels, shape.mel_channels
        self.embedding = nn.Embedding(shape.num_units, wide)
        voices = max(1, len(shape.speakers))
        self.speaker = nn.Embedding(voices, wide) if voices > 1 else None
        self.unit_blocks = nn.ModuleList(nn.Conv1d(wide, wide, 3, padding=1) for _ in range(2))
        self.duration_head = nn.Conv1d(wide, 1, 1)
        self.to_mel = nn.Conv1d(wide + POSITIONS, narrow, 1)
        self.mel_blocks = nn.ModuleList(nn.Conv1d(narrow, narrow, 5, padding=2) for _ in range(3))
        self.out = nn.Conv1d(narrow, shape.mel.mels, 1)
        self.register_buffer("mel_mean", torch.zeros(voices, shape.mel.mels))
        self.register_buffer("mel_spread", torch.ones(voices, shape.mel.mels))
        self.register_buffer("gain", torch.ones(voices))

    def context(
        self, units: Int[Tensor, "B U"], real: Float[Tensor, "B U"], speaker: Int[Tensor, " B"]
    ) -> tuple[Tensor, Tensor]:
        """Encode units among their neighbors (B, wide, U) and predict their log mean durations less one (B, U)."""
        x = self.embedding(units)
        if self.speaker is not None:
            x = x + self.speaker(speaker)[:, None]
        x = x.transpose(1, 2) * real[:, None]
        for block in self.unit_blocks:
            x = x + functional.gelu(block(x)) * real[:, None]
        return x, self.duration_head(x)[:, 0]

    def mels(
        self, context: Float[Tensor, "B wide U"], owner: Int[Tensor, "B M"], place: Float[Tensor, "B positions M"]
    ) -> Float[Tensor, "B mels M"]:
        """Normalized log mels of frames that belong to unit `owner`; frames after the end have owner -1."""
        inside = (owner >= 0)[:, None].to(context.dtype)
        index = owner.clamp_min(0)[:, None].expand(-1, context.shape[1], -1)
        x = self.to_mel(torch.cat([context.gather(2, index), place], dim=1)) * inside
        for block in self.mel_blocks:
            x = x + functional.gelu(block(x)) * inside
        return self.out(x)


@dataclass(frozen=True, slots=True)
class MelPlan:
    """Which unit each mel frame belongs to, where in it the frame lies, and the length of the audio in samples."""

    owner: Int[Tensor, " M"]
    place: Float[Tensor, "positions M"]
    samples: int

    @classmethod
    def make(cls, durations_frames: Int[np.ndarray, " units"], shape: VocoderShape) -> MelPlan:
        """Lay units of these durations along mel frames 0, hop, 2 hop, ... samples."""
        ends = np.round(np.cumsum(durations_frames) * shape.samples_per_frame).astype(np.int64)
        times = np.arange(ends[-1] // shape.mel.hop_samples + 1) * shape.mel.hop_samples
        owner, place = lay(times, ends, 0, shape)
        return cls(torch.from_numpy(owner), torch.from_numpy(place), int(ends[-1]))


def lay(
    times: Int[np.ndarray, " M"], ends: Int[np.ndarray, " units"], start: int, shape: VocoderShape
) -> tuple[Int[np.ndarray, " M"], Float[np.ndarray, "positions M"]]:
    """Which unit is heard at these samples, and where in it they lie.

    Args:
        ends: samples where the units end. start: sample where the first of them begins.
    """
    starts = np.concatenate(([start], ends[:-1]))
    owner = np.minimum(np.searchsorted(ends, times, side="right"), len(ends) - 1)
    length = (ends - starts)[owner]
    since, left = times - starts[owner], ends[owner] - times
    unit_s = shape.mel.sample_rate_hz * 0.04
    place = np.stack(
        [
            since / length,
            np.log(length / unit_s),
            np.exp(-since / (unit_s / 4)),
            np.exp(-left / (unit_s / 4)),
            np.exp(-since / unit_s),
            np.exp(-left / unit_s),
        ]
    )
    return owner, place.astype(np.float32)


def empty_network(shape: VocoderShape) -> UnitToMel:
    """A network without values; building it draws nothing from torch's global generator."""
    with torch.device("meta"):
        network = UnitToMel(shape)
    return network.to_empty(device="cpu")


class RunningEnds:
    """Where units end, in frames: running ends are rounded, not durations, so that errors do not add up.

    Each end depends on what came before and on nothing else; each unit lasts at least one frame.
    """

    def __init__(self) -> None:
        self._exact = 0.0

    def predicted(self, log_extra: float) -> int:
        """End of the next unit, whose duration is 1 + exp(log_extra) frames in the mean."""
        self._exact += 1.0 + math.exp(min(log_extra, 7.0))
        return math.floor(self._exact + 0.5)

    def given(self, frames: int) -> int:
        """End of the next unit, whose duration is known."""
        self._exact += frames
        return int(self._exact)
