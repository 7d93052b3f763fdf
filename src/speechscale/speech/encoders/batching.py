"""Which files run together, and what that does to their units.

Enters: lengths, or an encoder with centroids and audio. Leaves: batches, or the share of frames whose unit changes.
The one decision worth knowing: flips are counted against each file alone, frame by frame, so that the figure is the
error a user would get.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from speechscale.speech.encoders.base import Batching, Encoder
from speechscale.speech.kmeans import assign


@dataclass(frozen=True, slots=True, kw_only=True)
class Flips:
    """How many of `frames` got another unit, and the largest difference of a feature."""

    frames: int
    flipped: int
    largest_difference: float

    @property
    def share(self) -> float:
        return self.flipped / max(self.frames, 1)


def length_batches(lengths: Sequence[int], *, max_padded: int) -> list[list[int]]:
    """Group items of similar length: batch size times longest item at most `max_padded` (a longer item is alone).

    Items of length 0 are left out. Longest first, so that a lack of memory shows at once.
    """
    order = sorted(
        (index for index, length in enumerate(lengths) if length), key=lambda index: (-lengths[index], index)
    )
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_padded:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def count_flips(before: Sequence[np.ndarray], after: Sequence[np.ndarray], centroids: np.ndarray) -> Flips:
    """Compare two sets of features of the same files."""
    frames = flipped = 0
    largest = 0.0
    for one, other in zip(before, after, strict=True):
        assert one.shape == other.shape, f"{one.shape} and {other.shape} frames of one file"
        frames += len(one)
        if len(one):
            flipped += int((assign(one, centroids) != assign(other, centroids)).sum())
            largest = max(largest, float(np.abs(one - other).max()))
    return Flips(frames=frames, flipped=flipped, largest_difference=largest)


def flip_rate(
    encoder: Encoder,
    centroids: np.ndarray,
    waveforms: list[np.ndarray],
    modes: Sequence[Batching] = ("exact", "masked", "padded"),
) -> dict[str, Flips]:
    """Share of frames whose unit differs between each file alone and all files together, for each way of batching.

    An encoder without such options has one way, reported under "exact".
    """
    flexible: Any = encoder
    if not hasattr(encoder, "runtime"):
        alone = [encoder.encode([waveform])[0] for waveform in waveforms]
        return {"exact": count_flips(alone, encoder.encode(waveforms), centroids)}
    exact = with_runtime(flexible, batching="exact")
    alone = [exact.encode([waveform])[0] for waveform in waveforms]
    return {
        mode: count_flips(alone, with_runtime(flexible, batching=mode).encode(waveforms), centroids) for mode in modes
    }


def with_runtime(encoder: Any, **changes: Any) -> Any:
    """Copy an encoder with other runtime options; a loaded model is kept where device and compilation stay the same."""
    other = replace(encoder, runtime=replace(encoder.runtime, **changes))
    if not changes.keys() & {"device", "compile", "model_folders"}:
        for name in ("files", "net"):
            if name in encoder.__dict__:
                other.__dict__[name] = encoder.__dict__[name]
    return other
