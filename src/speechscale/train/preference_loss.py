"""The DPO loss: a module from rows to one number to differentiate, and the log-probability of every completion.

Enters: rows that hold both sides of some pairs, what the reference says of them. Leaves: `PairOutcome`.
The one decision worth knowing: the loss of a pair depends on its log-probabilities only, so its derivative by them is
known in closed form once they are; it becomes the weight of each target in the cross-entropy of training. So DPO runs
on the same rows, kernels, chunks and wrappers as training, with one pass through the body and no second model.

Source: Rafailov et al. 2023 (DPO, arXiv 2305.18290), eq. 7. Mitchell 2023 (cDPO): label smoothing. Pang et al. 2024
(arXiv 2404.19733), eq. 1: the added likelihood of what is preferred.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from speechscale.errors import DataError
from speechscale.train.attention import Rows
from speechscale.train.config import TrainConfig
from speechscale.train.objective import Objective, Outcome, Precision
from speechscale.train.schedule import Schedule

TIE_NATS = 1e-4
"""Differences of log-probabilities up to this size are rounding, not preference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceConfig:
    """The recipe of a tuning.

    Args:
        epochs: passes over the pairs, each in an order of its own. batch_pairs: of all processes together.
        context: tokens of a row; no document of a pair may be longer.
        learning_rate: peak; its schedule runs over pairs (`learning_rate_share`).
        beta: how strongly the tuned model is held to the reference; the smaller the freer.
        label_smoothing: share of pairs believed to be the wrong way round (cDPO).
        length_normalized: log-probabilities per token instead of sums.
        sft_weight: of the loss per token on the chosen completion, added to that of the pair (Pang et al. 2024).
        score_end: the closing `<eos>` belongs to the completion.
        checks: validations, evenly spaced, the last at the end; one more stands at the beginning.
        Everything else: as in `TrainConfig`.

    Raises:
        DataError: a value out of range.
    """

    epochs: int = 1
    batch_pairs: int
    context: int
    learning_rate: float
    beta: float = 0.1
    label_smoothing: float = 0.0
    length_normalized: bool = False
    sft_weight: float = 0.0
    score_end: bool = True
    schedule: Schedule = "cosine"
    warmup_fraction: float = 0.1
    final_lr_fraction: float = 0.0
    decay_fraction: float = 0.2
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    clip_norm: float = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checks: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_pairs", "beta"):
            if not 0 < getattr(self, name) < math.inf:
                raise DataError(f"preference: {name} = {getattr(self, name)}; it must be above 0")
        if not 0 <= self.label_smoothing < 0.5:
            raise DataError(f"preference: label_smoothing = {self.label_smoothing}; it must lie in 0..0.5, below 0.5")
        if not 0 <= self.sft_weight < math.inf:
            raise DataError(f"preference: sft_weight = {self.sft_weight}; it must be 0 or above")
        self.recipe(self.batch_pairs)

    def recipe(self, pairs: int) -> TrainConfig:
        """What the optimizer and the schedule need, with pairs in the place of tokens."""
        shared = ("learning_rate", "final_lr_fraction", "warmup_fraction", "decay_fraction", "weight_decay", "betas")
        same = {name: getattr(self, name) for name in (*shared, "eps", "clip_norm", "schedule", "checks", "context")}
        return TrainConfig(tokens=pairs * self.epochs, batch_rows=1, precision=self.precision, **same)


class Comparison(NamedTuple):
    """Numbers of some pairs, one entry each. A reward is beta (log p - log p of the reference)."""

    loss: Float64[Tensor, " pairs"]
    margin: Float64[Tensor, " pairs"]
    accuracy: Float64[Tensor, " pairs"]
    reward_chosen: Float64[Tensor, " pairs"]
    reward_rejected: Float64[Tensor, " pairs"]
    log_prob_chosen: Float64[Tensor, " pairs"]
    log_prob_rejected: Float64[Tensor, " pairs"]
    likelier: Float64[Tensor, " pairs"]


def compare(
    log_prob: Float64[Tensor, " sequences"],
    reference: Float64[Tensor, " sequences"],
    targets: Int[Tensor, " sequences"],
    config: PreferenceConfig,
) -> tuple[Comparison, Float64[Tensor, " sequences"]]:
    """The loss of each pair, and its derivative by each log-probability.

    With h = beta ((log p_w - log r_w) - (log p_l - log r_l)), w the chosen and l the rejected completion:
    loss = -(1 - e) log sigmoid(h) - e log sigmoid(-h) - sft_weight log p_w / targets_w.

    Args:
        log_prob, reference: sums over `targets` tokens; entry 2i is the chosen completion of pair i, 2i + 1 the other.
    """
    per = targets.double() if config.length_normalized else torch.ones_like(log_prob)
    ours, theirs = (log_prob / per).view(-1, 2), (reference / per).view(-1, 2)
    rewards = config.beta * (ours - theirs)
    margin = rewards[:, 0] - rewards[:, 1]
    wrong = config.label_smoothing
    loss = -(1 - wrong) * logsigmoid(margin) - wrong * logsigmoid(-margin)
    by_margin = torch.sigmoid(margin) - (1 - wrong)
    slope = config.beta * by_margin[:, None] * torch.tensor([1.0, -1.0], device=margin.device) / per.view(-1, 2)
    if config.sft_weight:
        share = config.sft_weight / targets.view(-1, 2)[:, 0]
        loss = loss - share * log_prob.view(-1, 2)[:, 0]
        slope[:, 0] -= share
    tie = (config.beta * TIE_NATS / per).view(-1, 2).max(1).values
    compared = Comparison(
        loss=loss,
        margin=margin,
        accuracy=_wins(margin, tie),
        reward_chosen=rewards[:, 0],
        reward_rejected=rewards[:, 1],
        log_prob_chosen=ours[:, 0],
        log_prob_rejected=ours[:, 1],
        likelier=_wins(ours[:, 0] - ours[:, 1], tie / config.beta),
    )
    return compared, slope.reshape(-1)


def _wins(difference: Tensor, tie: Tensor) -> Float64[Tensor, " pairs"]:
    return torch.where(difference.abs() <= tie, 0.5, (difference > 0).double())


class PairTargets(NamedTuple):
    """Whose each target of some rows is, and what is known of each sequence. `share`: of a pair in the loss."""

    owners: Int[Tensor, " targets"]
    reference: Float64[Tensor, " sequences"]
    targets: Int[Tensor, " sequences"]
    share: float


class PairOutcome(NamedTuple):
    """`surrogate` has the gradient of the loss, not its value; `log_prob` is of each sequence."""

    surrogate: Float[Tensor, ""]
    log_prob: Float64[Tensor, " sequences"]


class PreferenceObjective(Objective):
    """The mean DPO loss of pairs, as one forward pass of one module; without pairs it is an `Objective`."""

    def __init__(self, model: Any, config: PreferenceConfig, *, precision: Precision) -> None:
        super().__init__(model, precision=precision)
        self.config = config

    def forward(self, rows: Rows, precision: Precision | None = None, pairs: PairTargets | None = None) -> Any:
        """Args: pairs: both sides of each, in these rows. Returns: `PairOutcome`, or `Outcome` without pairs."""
        if pairs is None:
            return super().forward(rows, precision)
        hidden = self.hidden_states(rows, self.precision)
        with torch.no_grad():
            nats = self.cross_entropy(hidden.detach(), rows, self.precision).nats.double()
            log_prob = torch.zeros_like(pairs.reference).index_add_(0, pairs.owners, -nats)
            _, slope = compare(log_prob, pairs.reference, pairs.targets, self.config)
            weights = (-pairs.share * slope)[pairs.owners].float()
        outcome: Outcome = self.cross_entropy(hidden, rows._replace(weights=weights), self.precision)
        return PairOutcome(outcome.total, log_prob)
