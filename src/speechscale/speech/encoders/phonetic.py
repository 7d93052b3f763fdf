"""A SUPERVISED encoder: the network of `Adapted`, trained on the phone labels of synthesized speech.

Enters: waveforms; for learning, speech with phone times (of a voice engine). Leaves: [frames, dim] float32 per
waveform. The one decision worth knowing: units made from it know what phones are, so a model of them is NOT textless in
the sense of the papers; it is named as supervised in its name, in the tokenizer's fit and in every report.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from speechscale.errors import DataError
from speechscale.speech.encoders.adapted import WARP_CENTROIDS, WARP_VARIANCE, Adapted
from speechscale.speech.encoders.learning import Lesson, hear, learn_warps, train_network
from speechscale.speech.encoders.warping import SUBFRAMES, MelFront
from speechscale.speech.frames import Event
from speechscale.speech.labeled import SILENCE, phones_at, plain_phone

LESSON = Lesson(rounds=(900,), frames_per_step=1000, hidden=256, warp_reach=2)
_UNLABELED = -100
"""What torch's cross entropy leaves out."""


@dataclass(frozen=True, kw_only=True)
class PhoneticSupervised(Adapted):
    """Features in which phones of synthesized speech are told apart. Supervised: not for textless claims."""

    @property
    def name(self) -> str:
        return "phonetic-supervised"


def learn_phonetic(
    labeled: Iterable[tuple[np.ndarray, Sequence[Event]]],
    front: MelFront,
    context: int,
    *,
    seed: int,
    lesson: Lesson = LESSON,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Learn the arrays of `PhoneticSupervised` from waveforms with phones (label, start sample, end sample).

    Raises:
        DataError: no labeled speech, or fewer than two phones.
    """
    pairs = [(waveform, phones) for waveform, phones in labeled if len(waveform) >= front.hop_samples]
    labels = sorted({SILENCE} | {plain_phone(label) for _, phones in pairs for label, _, _ in phones})
    if len(labels) < 3:
        raise DataError(
            f"encoder phonetic-supervised: learns from speech with phone times, got {len(pairs)} utterances with "
            f"{len(labels) - 1} kinds of phones; give labeled speech (synthesized voices have it)"
        )
    heard = [hear(front, waveform) for waveform, _ in pairs]
    centroids, variance = learn_warps(heard, lesson, seed)
    index = {label: number for number, label in enumerate(labels)}
    targets = [_targets(phones, index, len(h.cepstra), front) for (_, phones), h in zip(pairs, heard, strict=True)]
    (steps,) = lesson.rounds
    arrays, loss = train_network(heard, targets, [], context, replace(lesson, clusters=(len(index),)), steps, seed)
    tensors = {name: array.numpy() for name, array in arrays.items()}
    tensors |= {WARP_CENTROIDS: centroids.numpy(), WARP_VARIANCE: np.array(variance, np.float32)}
    return tensors, {
        "supervised": True,
        "supervision": "phone labels of synthesized speech; not textless",
        "learned_frames": sum(len(h.spectra) // SUBFRAMES for h in heard),
        "learned_losses": [round(loss, 4)],
        "phones": labels,
    }


def _targets(phones: Sequence[Event], index: dict[str, int], frames: int, front: MelFront) -> torch.Tensor:
    """Phone of each frame center, (1, frames)."""
    rate = front.sample_rate_hz
    centers = (np.arange(frames) + 0.5) * front.hop_samples / rate
    found = phones_at([(label, start / rate, end / rate) for label, start, end in phones], index, centers)
    return torch.from_numpy(np.where(found < 0, _UNLABELED, found))[None]
