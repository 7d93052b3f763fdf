"""Find the same words said twice, without knowing any word.

Enters: features per frame of many utterances. Leaves: pairs of stretches that sound alike. The one decision worth
knowing: two stretches are a pair if they stay alike frame by frame while each of them changes, so that silences and
long vowels do not count; where a corpus repeats nothing, there are no pairs and nothing is forced.

Source: Park & Glass 2008 (spoken term discovery); Kamper et al. 2015 (pairs teach features what voices share). Here
stretches have one length and are matched without warping in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

STRETCH_FRAMES = 12
_PER_MATRIX = 3
_STEADY_COST = 0.5
_LIKENESS = 0.65


@dataclass(frozen=True, slots=True)
class Repeat:
    """Stretches of `STRETCH_FRAMES` frames from `start` on in utterance `one`, and from `other_start` in `other`."""

    one: int
    start: int
    other: int
    other_start: int


def find_repeats(
    features: Sequence[Float[Tensor, "frames dim"]], *, matrices: int, draw: torch.Generator
) -> list[Repeat]:
    """Compare random pairs of utterances; keep up to three stretches of each that are alike enough.

    Args:
        matrices: how many pairs of utterances are drawn; each is compared once.
    """
    center = torch.cat(list(features)).mean(dim=0)
    unit = [torch.nn.functional.normalize(part - center, dim=1) for part in features]
    steady = [_diagonal_means(part @ part.T) if len(part) >= STRETCH_FRAMES else torch.zeros(0) for part in unit]
    found = []
    drawn = torch.randint(len(unit), (matrices, 2), generator=draw).sort(dim=1).values
    for one, other in dict.fromkeys(map(tuple, drawn.tolist())):
        if one == other or min(len(unit[one]), len(unit[other])) < STRETCH_FRAMES:
            continue
        alike = _along_diagonals(unit[one] @ unit[other].T)
        best = torch.topk(alike.reshape(-1), min(_PER_MATRIX, alike.numel()))
        for likeness, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            start, other_start = divmod(place, alike.shape[1])
            if likeness - _STEADY_COST * float(steady[one][start]) >= _LIKENESS:
                found.append(Repeat(one, start, other, other_start))
    return found


def _along_diagonals(alike: Float[Tensor, "one other"]) -> Float[Tensor, "starts other_starts"]:
    """Mean likeness of the stretches that start at each pair of frames."""
    rows, columns = (size - STRETCH_FRAMES + 1 for size in alike.shape)
    return torch.stack([alike[k : k + rows, k : k + columns] for k in range(STRETCH_FRAMES)]).mean(dim=0)


def _diagonal_means(alike: Float[Tensor, "frames frames"]) -> Float[Tensor, " starts"]:
    """Mean likeness among all frames of the stretch that starts at each frame."""
    total = torch.nn.functional.pad(alike.cumsum(0).cumsum(1), (1, 0, 1, 0))
    first = torch.arange(len(alike) - STRETCH_FRAMES + 1)
    last = first + STRETCH_FRAMES
    return (total[last, last] - total[first, last] - total[last, first] + total[first, first]) / STRETCH_FRAMES**2
