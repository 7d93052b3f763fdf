"""Train the network of the vocoder on random stretches of its recordings.

Enters: a `UnitTable` and its waveforms. Leaves: a trained `UnitToMel`. The one decision worth knowing: the loss takes
normalized log mels, so that what a voice always does is in its statistics and only the rest has to be learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from speechscale.errors import DataError
from speechscale.records import UnitTable
from speechscale.speech.spectrograms import log_mel
from speechscale.speech.unit_to_mel import MelPlan, UnitToMel, VocoderShape, empty_network

DURATION_WEIGHT = 0.3
LOUD_NATS = 2.3
"""20 dB."""


def train_network(
    table: UnitTable,
    waveforms: Sequence[Float[np.ndarray, " samples"]],
    shape: VocoderShape,
    *,
    seed: int,
    steps: int,
    batch: int,
    crop_mel_frames: int,
    learning_rate: float,
) -> tuple[UnitToMel, dict[str, float]]:
    """The work of `train_vocoder`; returns the network and its last losses."""
    _check_pairs(table, waveforms, shape)
    clips = [_Clip.make(table, row, waveform, shape) for row, waveform in enumerate(waveforms)]
    network = _new_network(shape, clips, torch.Generator().manual_seed(seed))
    rng = np.random.default_rng(seed)
    weights = np.array([len(clip.plan.owner) for clip in clips], np.float64)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 20, 0.5 + 0.5 * np.cos(np.pi * min(step / steps, 1.0)))
    )
    network.train()
    losses = np.zeros((steps, 2))
    for step in range(steps):
        chosen = rng.choice(len(clips), batch, p=weights / weights.sum())
        rows = [_crop(clips[i], crop_mel_frames, rng) for i in chosen]
        mel_loss, duration_loss = _losses(network, rows)
        optimizer.zero_grad(set_to_none=True)
        (mel_loss + DURATION_WEIGHT * duration_loss).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses[step] = mel_loss.item(), duration_loss.item()
    network.eval()
    _set_gain(network, clips)
    last = losses[-max(1, steps // 10) :].mean(axis=0)
    return network, {"mel_loss": float(last[0]), "duration_loss": float(last[1])}


@dataclass(frozen=True, slots=True)
class _Clip:
    """One training utterance: units, durations, plan and target mels (mels, M)."""

    units: Int[Tensor, " U"]
    durations: Int[Tensor, " U"]
    plan: MelPlan
    mels: Float[Tensor, "mels M"]
    speaker: int

    @classmethod
    def make(cls, table: UnitTable, row: int, waveform: np.ndarray, shape: VocoderShape) -> _Clip:
        durations = table.row_durations(row).astype(np.int64)
        plan = MelPlan.make(durations, shape)
        mels = log_mel(torch.from_numpy(np.asarray(waveform[: plan.samples], np.float32)), shape.mel)
        units = torch.from_numpy(table.row_units(row).astype(np.int64))
        return cls(units, torch.from_numpy(durations), plan, mels, shape.speakers.index(table.speakers[row]))


@dataclass(frozen=True, slots=True)
class _Crop:
    units: Tensor
    durations: Tensor
    whole: Tensor  # 1.0 for units that lie in the crop completely
    owner: Tensor
    place: Tensor
    mels: Tensor
    speaker: int


def _crop(clip: _Clip, mel_frames: int, rng: np.random.Generator) -> _Crop:
    """Cut a random stretch of mel frames and the units it touches, with one more unit on both sides."""
    total = len(clip.plan.owner)
    start = int(rng.integers(max(1, total - mel_frames + 1)))
    stop = min(total, start + mel_frames)
    owner = clip.plan.owner[start:stop]
    first, last = max(0, int(owner[0]) - 2), min(len(clip.units), int(owner[-1]) + 3)
    whole = torch.ones(last - first)
    if first > 0:
        whole[:2] = 0
    if last < len(clip.units):
        whole[-2:] = 0
    return _Crop(
        clip.units[first:last],
        clip.durations[first:last],
        whole,
        owner - first,
        clip.plan.place[:, start:stop],
        clip.mels[:, start:stop],
        clip.speaker,
    )


def _losses(network: UnitToMel, rows: Sequence[_Crop]) -> tuple[Tensor, Tensor]:
    """Mean absolute error of normalized mels and Poisson loss of durations, over real frames and whole units."""

    def stack(tensors: Sequence[Tensor], fill: float) -> Tensor:
        width = max(t.shape[-1] for t in tensors)
        return torch.stack([functional.pad(t, (0, width - t.shape[-1]), value=fill) for t in tensors])

    real = stack([torch.ones(len(row.units)) for row in rows], 0)
    speaker = torch.tensor([row.speaker for row in rows])
    context, log_extra = network.context(stack([row.units for row in rows], 0), real, speaker)
    owner = stack([row.owner for row in rows], -1)
    made = network.mels(context, owner, stack([row.place for row in rows], 0))
    mean, spread = network.mel_mean[speaker][..., None], network.mel_spread[speaker][..., None]
    wanted = (stack([row.mels for row in rows], 0) - mean) / spread
    inside = (owner >= 0)[:, None]
    mel_loss = ((made - wanted).abs() * inside).sum() / (inside.sum() * wanted.shape[1])
    whole = stack([row.whole for row in rows], 0)
    extra = (stack([row.durations for row in rows], 1) - 1).to(torch.float32)
    poisson = (log_extra.exp() - extra * log_extra) * whole
    return mel_loss, poisson.sum() / whole.sum().clamp_min(1)


def _new_network(shape: VocoderShape, clips: Sequence[_Clip], generator: torch.Generator) -> UnitToMel:
    """Fresh weights; the mel statistics come from the training clips, the duration bias from their mean."""
    network = empty_network(shape)
    durations = torch.cat([clip.durations for clip in clips]).to(torch.float32)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.zero_()
            else:
                fan_in = parameter[0].numel()
                parameter.normal_(0, 0.8 * fan_in**-0.5, generator=generator)
        network.embedding.weight.normal_(0, 0.5, generator=generator)
        network.duration_head.weight.zero_()
        bias = network.duration_head.bias
        assert bias is not None
        bias.copy_((durations.mean() - 1).clamp_min(1e-3).log()[None])
        if network.speaker is not None:
            network.speaker.weight.normal_(0, 0.5, generator=generator)
        network.gain.fill_(1.0)
        for voice in range(len(network.gain)):
            own = torch.cat([clip.mels for clip in clips if clip.speaker == voice], dim=1)
            network.mel_mean[voice] = own.mean(dim=1)
            network.mel_spread[voice] = own.std(dim=1, correction=0).clamp_min(0.1)
    return network


def _set_gain(network: UnitToMel, clips: Sequence[_Clip], most: int = 20) -> None:
    """Make each voice as loud as its recordings: the absolute error favors the median, which is quieter.

    The gain is the median over the frames within 20 dB of the loudest, at most 6 dB.
    """
    with torch.inference_mode():
        for voice in range(len(network.gain)):
            lacking = []
            for clip in [clip for clip in clips if clip.speaker == voice][:most]:
                real = torch.ones(1, len(clip.units))
                context, _ = network.context(clip.units[None], real, torch.tensor([voice]))
                mels = network.mels(context, clip.plan.owner[None], clip.plan.place[None])[0]
                mels = mels * network.mel_spread[voice][:, None] + network.mel_mean[voice][:, None]
                wanted = (2 * clip.mels).logsumexp(dim=0) / 2
                loud = wanted > wanted.max() - LOUD_NATS
                lacking.append((wanted - (2 * mels).logsumexp(dim=0) / 2)[loud])
            network.gain[voice] = torch.cat(lacking).median().exp().clamp(0.5, 2.0)


def _check_pairs(table: UnitTable, waveforms: Sequence[np.ndarray], shape: VocoderShape) -> None:
    if len(table) == 0 or len(waveforms) != len(table):
        raise DataError(f"vocoder: {len(table)} rows of units need as many waveforms, got {len(waveforms)}")
    for row, (frames, waveform) in enumerate(zip(table.frames, waveforms, strict=True)):
        spare = len(waveform) - int(np.round(frames * shape.samples_per_frame))
        if not -0.5 <= spare <= shape.samples_per_frame:
            raise DataError(
                f"vocoder: utterance {table.ids[row]} has {frames} frames of {shape.samples_per_frame:g} samples and "
                f"{len(waveform)} samples of audio; give the audio the units were made from"
            )
