"""Learn the arrays of `Adapted` from waveforms alone.

Enters: waveforms, a seed. Leaves: arrays by name, and what to report of the fit. The one decision worth knowing: the
network names sounds by several clusterings at once, hears them distorted, and in a second round also learns to name
what is said twice in the same way; nothing but audio is used, and everything is drawn from one seed (on one machine and
one thread the same bytes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from speechscale.errors import DataError
from speechscale.speech.encoders.adapted import LAYERS, WARP_CENTROIDS, WARP_VARIANCE, centered, forward, windows
from speechscale.speech.encoders.repeats import STRETCH_FRAMES, Repeat, find_repeats
from speechscale.speech.encoders.warping import NEUTRAL, SUBFRAMES, WARPS, MelFront, cepstra, choose_warp, excerpt
from speechscale.speech.kmeans import assign, fit_kmeans

LEAST_FRAMES = 100
FRAMES_PER_CLUSTER = 4
"""At least, on average."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """How the network learns.

    Args:
        hidden, dim: width of the hidden layers and of the features. clusters: sizes of the clusterings it names.
        rounds: steps of each round; from the second on, all but `kept_clusterings` cluster its own features instead of
            cepstra. most_passes: over all audio; with little of it, steps are left out.
        frames_per_step: unit frames in a step, in whole utterances. repeats_per_step: stretches on top, which are
            named as the stretch they repeat, from the second round on; found in `matrices` pairs of utterances.
        warp_reach: grid steps by which the heard warp may miss the chosen one.
    """

    hidden: int = 192
    dim: int = 32
    clusters: tuple[int, ...] = (50, 100, 200, 400)
    kept_clusterings: int = 2
    rounds: tuple[int, ...] = (300, 500)
    most_passes: float = 40.0
    frames_per_step: int = 600
    repeats_per_step: int = 36
    matrices: int = 3000
    learning_rate: float = 2e-3
    warp_reach: int = 1
    warp_clusters: int = 32
    warp_rounds: int = 8
    frames_per_opinion: float = 4.0


@dataclass(kw_only=True)
class Heard:
    """One utterance: its cepstra and log-mel spectra under every warp, and the warp chosen so far."""

    cepstra: Float[Tensor, "frames warps cepstra"]
    spectra: Float[Tensor, "subframes warps mels"]
    warp: int = NEUTRAL

    def clean(self) -> Float[Tensor, "subframes mels"]:
        """Its spectra under the chosen warp, less their mean."""
        return centered(self.spectra[:, self.warp])


def learn_adapted(
    waveforms: Sequence[np.ndarray], front: MelFront, context: int, *, seed: int, lesson: Lesson | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Learn the arrays of `Adapted` and tell how it went.

    Args:
        waveforms: held in memory with their spectra under every warp, about 9 MB per minute of audio.

    Raises:
        DataError: too little audio for the clusterings.
    """
    lesson = lesson or Lesson()
    heard = [hear(front, waveform) for waveform in waveforms if len(waveform) >= front.hop_samples]
    frames = sum(len(h.spectra) // SUBFRAMES for h in heard)
    if frames < LEAST_FRAMES:
        raise DataError(
            f"encoder adapted: learns from at least {LEAST_FRAMES} frames, got {frames}; "
            "use more audio, or encoder 'mfcc'"
        )
    lesson = _fitted(lesson, frames)
    centroids, variance = learn_warps(heard, lesson, seed)
    arrays: dict[str, Tensor] = {}
    repeats: list[Repeat] = []
    losses = []
    for number, steps in enumerate(lesson.rounds):
        plain = [cepstra(h.spectra[:, h.warp]) for h in heard]
        features = [_own_features(h, arrays, context) for h in heard] if arrays else plain
        own = len(lesson.clusters) - lesson.kept_clusterings
        sources = [plain] * lesson.kept_clusterings + [features] * own
        targets = _cluster(sources, lesson.clusters, seed + number)
        if arrays:
            repeats = find_repeats(
                features, matrices=lesson.matrices, draw=torch.Generator().manual_seed(seed + number)
            )
        arrays, loss = train_network(heard, targets, repeats, context, lesson, steps, seed + number)
        losses.append(round(loss, 4))
    tensors = {name: array.numpy() for name, array in arrays.items()}
    tensors |= {WARP_CENTROIDS: centroids.numpy(), WARP_VARIANCE: np.array(variance, np.float32)}
    chosen = [WARPS[h.warp] for h in heard]
    return tensors, {
        "supervised": False,
        "learned_frames": frames,
        "learned_losses": losses,
        "repeats": len(repeats),
        "warp_mean": round(float(np.mean(chosen)), 4),
        "warp_spread": round(float(np.std(chosen)), 4),
    }


def _fitted(lesson: Lesson, frames: int) -> Lesson:
    """The lesson for so much audio: fewer steps and clusters where there is little."""
    share = min(1.0, lesson.most_passes * frames / (sum(lesson.rounds) * lesson.frames_per_step))
    return replace(
        lesson,
        rounds=tuple(min(steps, max(20, round(share * steps))) for steps in lesson.rounds),
        clusters=tuple(min(count, frames // FRAMES_PER_CLUSTER) for count in lesson.clusters),
        warp_clusters=min(lesson.warp_clusters, frames // FRAMES_PER_CLUSTER),
    )


def hear(front: MelFront, waveform: np.ndarray) -> Heard:
    """Compute what learning needs of an utterance (of a long one, evenly spread parts)."""
    with torch.inference_mode():
        power = front.power(excerpt(waveform, front.hop_samples))
        spectra = torch.stack([front.log_mel(power, warp) for warp in WARPS], dim=1)
        return Heard(cepstra=front.listen(power), spectra=spectra)


def learn_warps(heard: Sequence[Heard], lesson: Lesson, seed: int) -> tuple[Tensor, float]:
    """Choose a warp for every utterance, in turns with the centroids they are chosen by; leave both behind."""
    centroids, variance = torch.zeros(0), 1.0
    for _ in range(lesson.warp_rounds):
        pool = np.concatenate([h.cepstra[:, h.warp].numpy() for h in heard])
        found = fit_kmeans(pool, lesson.warp_clusters, seed=seed)
        centroids, variance = torch.from_numpy(found.centroids), found.mean_squared_distance / pool.shape[1]
        for h in heard:
            h.warp = choose_warp(h.cepstra, centroids, variance, lesson.frames_per_opinion)
    return centroids, variance


def _own_features(h: Heard, arrays: dict[str, Tensor], context: int) -> Tensor:
    with torch.inference_mode():
        return forward(arrays, windows(h.clean(), context))


def _cluster(
    sources: Sequence[Sequence[Tensor]], clusters: Sequence[int], seed: int
) -> list[Int[Tensor, "clusterings frames"]]:
    """What each frame is called by each clustering, per utterance; each clustering has a source of features."""
    names = []
    for place, (features, count) in enumerate(zip(sources, clusters, strict=True)):
        pool = np.concatenate([part.numpy() for part in features])
        names.append(assign(pool, fit_kmeans(pool, count, seed=seed + place).centroids))
    return list(torch.from_numpy(np.stack(names)).split([len(part) for part in sources[0]], dim=1))


def train_network(
    heard: Sequence[Heard],
    targets: Sequence[Int[Tensor, "clusterings frames"]],
    repeats: Sequence[Repeat],
    context: int,
    lesson: Lesson,
    steps: int,
    seed: int,
) -> tuple[dict[str, Tensor], float]:
    """Train a fresh network to name distorted speech; return its arrays and the mean loss of the last tenth."""
    draw = torch.Generator().manual_seed(seed)
    arrays, heads = _fresh((SUBFRAMES + 2 * context) * heard[0].spectra.shape[2], lesson, draw)
    weights = [*arrays.values(), *heads]
    optimizer = torch.optim.AdamW(weights, lr=lesson.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lesson.learning_rate, total_steps=steps, pct_start=0.1)
    losses = []
    for _ in range(steps):
        inputs, names = _batch(heard, targets, context, lesson, draw)
        if len(repeats) >= lesson.repeats_per_step:
            again, same = _repeated(heard, targets, repeats, context, lesson, draw)
            inputs, names = torch.cat([inputs, again]), torch.cat([names, same], dim=1)
        features = forward(arrays, inputs)
        loss = torch.stack(
            [torch.nn.functional.cross_entropy(features @ head, name) for head, name in zip(heads, names, strict=True)]
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return {name: array.detach() for name, array in arrays.items()}, float(np.mean(losses[-max(1, steps // 10) :]))


def _fresh(width: int, lesson: Lesson, draw: torch.Generator) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Random layers and one head per clustering."""
    widths = [width, *[lesson.hidden] * (LAYERS - 1), lesson.dim]
    arrays = {}
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        spread = (2 / inputs) ** 0.5
        arrays[f"layer{layer}.weight"] = torch.randn(outputs, inputs, generator=draw).mul_(spread).requires_grad_()
        arrays[f"layer{layer}.bias"] = torch.zeros(outputs).requires_grad_()
    heads = [torch.randn(lesson.dim, count, generator=draw).mul_(lesson.dim**-0.5) for count in lesson.clusters]
    return arrays, [head.requires_grad_() for head in heads]


def _batch(
    heard: Sequence[Heard],
    targets: Sequence[Tensor],
    context: int,
    lesson: Lesson,
    draw: torch.Generator,
) -> tuple[Float[Tensor, "frames window"], Int[Tensor, "clusterings frames"]]:
    """Whole utterances, each under a warp near its own, filtered and in noise."""
    inputs: list[Tensor] = []
    names: list[Tensor] = []
    while sum(map(len, inputs)) < lesson.frames_per_step:
        pick = int(torch.randint(len(heard), (), generator=draw))
        slip = int(torch.randint(-lesson.warp_reach, lesson.warp_reach + 1, (), generator=draw))
        spectra = heard[pick].spectra[:, min(max(heard[pick].warp + slip, 0), len(WARPS) - 1)]
        inputs.append(windows(centered(distort(spectra, draw)), context))
        names.append(targets[pick])
    return torch.cat(inputs), torch.cat(names, dim=1)


def _repeated(
    heard: Sequence[Heard],
    targets: Sequence[Tensor],
    repeats: Sequence[Repeat],
    context: int,
    lesson: Lesson,
    draw: torch.Generator,
) -> tuple[Float[Tensor, "frames window"], Int[Tensor, "clusterings frames"]]:
    """Stretches with the names of the stretches that they repeat, in either direction."""
    inputs, names = [], []
    chosen = torch.randint(len(repeats), (lesson.repeats_per_step,), generator=draw).tolist()
    for pick, swap in zip(chosen, torch.randint(2, (len(chosen),), generator=draw).tolist(), strict=True):
        r = repeats[pick]
        (one, start), (other, other_start) = ((r.one, r.start), (r.other, r.other_start))[:: -1 if swap else 1]
        inputs.append(windows(heard[one].clean(), context, start, STRETCH_FRAMES))
        names.append(targets[other][:, other_start : other_start + STRETCH_FRAMES])
    return torch.cat(inputs), torch.cat(names, dim=1)


def distort(log_mel: Float[Tensor, "subframes mels"], draw: torch.Generator) -> Float[Tensor, "subframes mels"]:
    """Another channel and room: a random smooth filter and tilt, and colored noise 17 to 52 dB below the loudest."""
    count, mels = log_mel.shape
    slope = torch.linspace(-1, 1, mels)
    knots = torch.randn(1, 1, 6, generator=draw)
    channel = torch.nn.functional.interpolate(knots, mels, mode="linear", align_corners=True)[0, 0]
    heard = log_mel + channel + slope * torch.randn((), generator=draw)
    level = heard.max() - 4 - 8 * torch.rand((), generator=draw)
    noise = level + slope * torch.randn((), generator=draw) + 0.3 * torch.randn(count, mels, generator=draw)
    return torch.logaddexp(heard, noise)
