"""Rows of new ids: how they are drawn, and how they are brought level with the rows of text.

Enters: the text rows of a trained table, a policy. Leaves: rows for units and markers.
The one decision worth knowing: rows of units are drawn after the TextLM was trained, at the scale its rows have by
then. Rows that sat unused in its softmax, or as small as a new model's, cost much of a small budget (docs/model.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from speechscale.errors import DataError
from speechscale.model.anatomy import body_of, head_of
from speechscale.model.configs import INIT_STD

MEAN_NOISE = 0.1
"""Noise of the "mean" policy, as a share of the spread of the text rows."""
TRAINED_SHARE = 0.75
"""Spread of "calibrated" rows, as a share of the spread of the text rows."""
PROBE_ROWS, PROBE_TOKENS, CALIBRATION_ROUNDS = 16, 32, 4

Centroids = Float[np.ndarray, "K f"]


class Policy(NamedTuple):
    """`draw(text rows, count, generator)` makes new rows; `calibrated`: `calibrate` shifts them afterwards."""

    draw: Callable[[Tensor, int, torch.Generator], Tensor]
    calibrated: bool = False


def gaussian(text: Float[Tensor, "V d"], rows: int, generator: torch.Generator) -> Float[Tensor, "rows d"]:
    """Rows as small as those of a new model."""
    return torch.randn(rows, text.shape[1], generator=generator) * INIT_STD


def near_mean(text: Float[Tensor, "V d"], rows: int, generator: torch.Generator) -> Float[Tensor, "rows d"]:
    """The mean of the text rows and a little noise."""
    noise = torch.randn(rows, text.shape[1], generator=generator)
    return text.mean(0) + noise * text.std() * MEAN_NOISE


def trained_scale(text: Float[Tensor, "V d"], rows: int, generator: torch.Generator) -> Float[Tensor, "rows d"]:
    """Noise with the spread of rows that were trained."""
    return torch.randn(rows, text.shape[1], generator=generator) * text.std() * TRAINED_SHARE


def like_text(text: Float[Tensor, "V d"], rows: int, generator: torch.Generator) -> Float[Tensor, "rows d"]:
    """Draws of N(mean, covariance) of the text rows.

    Source: Hewitt 2021, Initializing New Word Embeddings for Pretrained Language Models. transformers' resizing says
    the same and divides the covariance by 1e9, so that its rows are copies of the mean; here it is the real one.
    """
    values, vectors = torch.linalg.eigh(text.T.cov())
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return text.mean(0) + torch.randn(rows, text.shape[1], generator=generator) @ root


def from_centroids(centroids: Centroids) -> Callable[[Tensor, int, torch.Generator], Tensor]:
    """Make a policy's draw: near units get near rows, at the scale of "calibrated" ones.

    The centroids, centered and scaled, go through a random projection, which keeps their distances in proportion. They
    are not given the covariance of the text rows: that puts them in the way of the TextLM's own logits (docs/model.md).
    Ids behind the units are drawn as in "calibrated".

    Source: Johnson & Lindenstrauss 1984, Extensions of Lipschitz mappings into a Hilbert space.
    """
    points = torch.from_numpy(np.ascontiguousarray(centroids, np.float32))
    points = points - points.mean(0)
    points = points / points.square().sum(1).mean().sqrt()

    def draw(text: Float[Tensor, "V d"], rows: int, generator: torch.Generator) -> Float[Tensor, "rows d"]:
        projection = torch.randn(points.shape[1], text.shape[1], generator=generator)
        units = points @ projection * text.std() * TRAINED_SHARE
        return torch.cat([units, trained_scale(text, rows - len(units), generator)])

    return draw


POLICIES: dict[str, Policy] = {
    "calibrated": Policy(trained_scale, calibrated=True),
    "gaussian": Policy(gaussian),
    "mean": Policy(near_mean),
    "mean_cov": Policy(like_text),
    "centroid": Policy(trained_scale, calibrated=True),
}
"""How new rows are drawn; "centroid" draws its units by `from_centroids`."""


def choose_policy(name: str, units: int, centroids: Centroids | None) -> Policy:
    """The policy called so.

    Args:
        units: new ids, which the centroids must not outnumber.

    Raises:
        DataError: an unknown policy, centroids without the policy that uses them or the other way round, too many.
    """
    if name not in POLICIES:
        raise DataError(f"policy '{name}' for new rows is unknown; allowed: {', '.join(POLICIES)}")
    if (centroids is not None) != (name == "centroid"):
        raise DataError(f"policy '{name}' for new rows: centroids belong to the policy 'centroid', and it needs them")
    if centroids is None:
        return POLICIES[name]
    if centroids.ndim != 2 or len(centroids) > units or not np.isfinite(centroids).all() or not np.ptp(centroids):
        raise DataError(
            f"centroids of shape {centroids.shape} for {units} new ids; give each unit a finite row, not all equal; "
            "markers stand behind the units and need none"
        )
    return Policy(from_centroids(centroids), POLICIES[name].calibrated)


@torch.no_grad()
def calibrate(model: Any, text_vocab_size: int, generator: torch.Generator) -> None:
    """Shift the new rows of the head together so that, in speech, text holds about its share of the probability.

    A TextLM is sure of itself: on units that mean nothing to it yet, its text logits lie several nats above those of
    fresh rows. The shift goes along the mean hidden state over random new ids and closes that gap. It takes rounds,
    because shifted rows of a tied table also change what the model reads.
    """
    head = head_of(model)
    shape = (PROBE_ROWS, PROBE_TOKENS)
    probe = torch.randint(text_vocab_size, head.weight.shape[0], shape, generator=generator).to(head.weight.device)
    for _ in range(CALIBRATION_ROUNDS):
        states = body_of(model)(input_ids=probe, use_cache=False).last_hidden_state
        hidden = states.flatten(0, 1).to(head.weight)  # (n, d)
        logits = head.logits(hidden)
        text_level = logits[:, :text_vocab_size].logsumexp(1).mean() - math.log(text_vocab_size)
        direction = hidden.mean(0)
        gap = (text_level - logits[:, text_vocab_size:].mean()) / head.scale
        head.weight[text_vocab_size:] += gap * direction / direction.dot(direction)
