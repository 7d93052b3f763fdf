"""One step of preference tuning: a batch of pairs in parts, gradients of all processes, and what came of it.

Enters: pairs as sequences, what the reference says of them. Leaves: `PreferenceReport`.
The one decision worth knowing: a batch is a number of pairs, both sides of a pair lie in one forward pass, and which
pairs a step sees follows from seed and position alone; so parts, processes and resuming change nothing that is learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from speechscale.tokens.packing import best_fit
from speechscale.tokens.ragged import Shuffle
from speechscale.train.attention import choose_kernel, lay_out
from speechscale.train.config import Runtime, TrainConfig, set_learning_rate
from speechscale.train.parallel import Group, accumulating, clip_gradients
from speechscale.train.preference_data import FRAME
from speechscale.train.preference_loss import Comparison, PairTargets, PreferenceConfig, PreferenceObjective, compare
from speechscale.train.preference_reference import Sequences
from speechscale.train.step import dump_batch


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceReport:
    """One step; means over its pairs.

    Args:
        pairs_seen, tokens_seen: so far; tokens are those of completions. accuracy: share of pairs of positive margin,
            ties one half. likelier: share whose chosen completion is likelier in itself. Others: see `Comparison`.
    """

    step: int
    pairs_seen: int
    tokens_seen: int
    loss: float
    margin: float
    accuracy: float
    reward_chosen: float
    reward_rejected: float
    log_prob_chosen: float
    log_prob_rejected: float
    likelier: float
    learning_rate: float
    grad_norm: float
    seconds: float = field(default=0.0, compare=False)


@dataclass(slots=True, kw_only=True)
class PairStepper:
    """What a step needs, and how many were made.

    Args:
        recipe: `config` as optimizer and schedule see it. call: the objective as wrapped for several processes.
        sequences, names, reference: of the pairs to train on.
    """

    config: PreferenceConfig
    recipe: TrainConfig
    runtime: Runtime
    group: Group
    objective: PreferenceObjective
    call: Any
    optimizer: torch.optim.AdamW
    sequences: Sequences
    names: Sequence[str]
    reference: Float64[np.ndarray, " sequences"]
    steps: int = 0
    pairs_seen: int = 0
    tokens_seen: int = 0

    @property
    def budget(self) -> int:
        """Pairs of all epochs."""
        return self.recipe.tokens

    def step(self) -> PreferenceReport:
        """Train on the next pairs of all processes.

        Raises:
            FloatingPointError: the loss or the gradient is not finite; the weights are those before the step.
        """
        chosen = self._next_pairs()
        own = np.array_split(chosen, self.group.world)[self.group.rank]
        rate = set_learning_rate(self.optimizer, self.recipe, self.pairs_seen + len(chosen))
        sums = self._backward(own, len(chosen)).tolist()
        norm = clip_gradients(self.objective, self.config.clip_norm)
        self.steps, self.pairs_seen, self.tokens_seen = (
            self.steps + 1,
            self.pairs_seen + len(chosen),
            self.tokens_seen + int(sums[-1]),
        )
        means = {name: total / len(chosen) for name, total in zip(Comparison._fields, sums, strict=False)}
        if not (math.isfinite(means["loss"]) and math.isfinite(norm)):
            self._diverged(chosen, own, means["loss"], norm, rate)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return PreferenceReport(
            step=self.steps,
            pairs_seen=self.pairs_seen,
            tokens_seen=self.tokens_seen,
            learning_rate=rate,
            grad_norm=norm,
            **means,
        )

    def _next_pairs(self) -> Int[np.ndarray, " batch"]:
        """Numbers of the pairs of the next step: a slice of the epochs, one shuffled pass behind the other."""
        count = len(self.sequences) // 2
        places = np.arange(self.pairs_seen, min(self.pairs_seen + self.config.batch_pairs, self.budget))
        chosen = np.empty_like(places)
        for epoch in np.unique(places // count).tolist():
            here = places // count == epoch
            chosen[here] = _order(count, self.config.seed, epoch).at(places[here] % count)
        return chosen

    def _backward(self, own: Int[np.ndarray, " pairs"], total: int) -> Tensor:
        """Run this process' pairs forward and backward; return sums over all processes: `Comparison`, tokens."""
        device, precision = self.objective.model.device, self.objective.precision
        kernel = choose_kernel(self.runtime.attention, device, precision)
        parts = self._parts(own)
        count = int(self.group.exchange([len(parts)]).max())
        sums = torch.zeros(len(Comparison._fields) + 1, dtype=torch.float64, device=device)
        for number in range(count):
            # All processes call the module equally often; one with fewer pairs takes some that do not count.
            idle = number >= len(parts)
            part = np.zeros(1, np.int64) if idle else parts[number]
            sequences = self.sequences.take(part)
            (packed,) = sequences.pack(self.config.context)
            rows = lay_out(packed.batch, packed.places, 1.0, kernel=kernel, device=device)
            pairs = PairTargets(
                owners=torch.from_numpy(packed.owners).to(device),
                reference=torch.from_numpy(self.reference.reshape(-1, 2)[part].reshape(-1)).to(device),
                targets=torch.from_numpy(sequences.targets).to(device),
                # DDP and FSDP2 average gradients over processes; ours add up.
                share=0.0 if idle else self.group.world / total,
            )
            with accumulating(self.call, last=number == count - 1):
                outcome = self.call(rows, None, pairs)
                outcome.surrogate.backward()
            if not idle:
                compared, _ = compare(outcome.log_prob, pairs.reference, pairs.targets, self.config)
                sums += torch.stack([*(column.sum() for column in compared), pairs.targets.sum().double()])
        return self.group.sum(sums)

    def _parts(self, own: Int[np.ndarray, " pairs"]) -> list[Int[np.ndarray, " part"]]:
        """Pairs in the order given, cut where their rows would be more than `micro_rows`."""
        if self.runtime.micro_rows is None or not len(own):
            return [own] if len(own) else []
        lengths = self.sequences.bodies.lengths.reshape(-1, 2) + FRAME
        first, cuts = 0, [0]
        for stop in range(1, len(own) + 1):
            _, borders = best_fit(lengths[own[first:stop]].ravel(), self.config.context)
            if len(borders) - 1 > self.runtime.micro_rows and stop - first > 1:
                first = stop - 1
                cuts.append(first)
        return np.split(own, cuts[1:])

    def _diverged(
        self, chosen: Int[np.ndarray, " batch"], own: Int[np.ndarray, " pairs"], loss: float, norm: float, rate: float
    ) -> None:
        dumped = ""
        if self.runtime.dump is not None and len(own):
            (packed,) = self.sequences.take(own).pack(self.config.context)
            dumped = f"; its rows are in {dump_batch(self.runtime.dump, self.steps, self.group.rank, packed.batch)}"
        names = ", ".join(self.names[number] for number in chosen[:3].tolist()) + (", ..." if len(chosen) > 3 else "")
        raise FloatingPointError(
            f"preference step {self.steps} (pairs {names}): loss {loss}, gradient norm {norm} at learning rate "
            f"{rate:.3g}; the tuning has diverged: lower the learning rate, lengthen the warm-up, or use precision "
            f"fp32{dumped}"
        )


@lru_cache(maxsize=2)
def _order(pairs: int, seed: int, epoch: int) -> Shuffle:
    return Shuffle(pairs, seed, epoch)
