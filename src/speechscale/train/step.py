"""One optimizer step: a batch in parts, gradients of all processes, and what it cost in nats.

Enters: a batch, the places that predict, how many targets every process has. Leaves: `StepReport`.
The one decision worth knowing: the loss of a step is the mean over the targets of all processes and parts, so each
part is weighted by its targets, and how a batch is cut or shared out does not change what is learned.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Int8
from torch import Tensor

from speechscale.model.anatomy import embedding_of, output_layer_of
from speechscale.tokens.packing import STREAMS, Batch
from speechscale.tokens.vocabulary import MODALITY_MARKER, MODALITY_SPEECH, MODALITY_TEXT
from speechscale.train.attention import choose_kernel, lay_out, predicting_places
from speechscale.train.config import Runtime, TrainConfig, set_learning_rate
from speechscale.train.objective import Objective, Outcome
from speechscale.train.parallel import Group, accumulating, clip_gradients

MODALITIES = {MODALITY_TEXT: "text", MODALITY_SPEECH: "speech", MODALITY_MARKER: "marker"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One step, as handed to the hook.

    Args:
        loss: mean over all targets, nats. losses: "speech" per unit, "text" per token, "marker"; without those that the
            batch has no target of. log_denominator_square: mean, what the z-loss holds down.
        targets: of this step by modality. seconds: of the step. waited: of these, for data.
    """

    step: int
    tokens_seen: int
    loss: float
    learning_rate: float
    grad_norm: float
    losses: Mapping[str, float] = field(default_factory=dict)
    targets: Mapping[str, int] = field(default_factory=dict)
    log_denominator_square: float = 0.0
    seconds: float = field(default=0.0, compare=False)
    waited: float = field(default=0.0, compare=False)


class Tokens:
    """Targets seen so far: in all, and by stream and modality.

    Args:
        modality: of each id. units: that each id spells; None: one per speech id.
    """

    def __init__(self, modality: Int8[np.ndarray, " V"], units: Int[np.ndarray, " V"] | None) -> None:
        self.modality = modality
        self.units = (modality == MODALITY_SPEECH).astype(np.int64) if units is None else units
        self.seen = 0
        self.counts = np.zeros((len(STREAMS), len(MODALITIES)), np.int64)

    def of(self, batch: Batch, places: Int[np.ndarray, " targets"]) -> Int[np.ndarray, "streams modalities"]:
        """Targets of a batch by stream and modality."""
        streams = batch.stream.reshape(-1)[places].astype(np.int64)
        kinds = self.modality[batch.tokens.reshape(-1)[places + 1]]
        flat = np.bincount(streams * self.counts.shape[1] + kinds, minlength=self.counts.size)
        return flat.reshape(self.counts.shape)

    def by_stream(self) -> dict[str, dict[str, int]]:
        """Stream -> modality -> targets."""
        return {s: {n: int(self.counts[i, k]) for k, n in MODALITIES.items()} for i, s in enumerate(STREAMS)}


def modality_counts(counts: Sequence[Sequence[int]]) -> Counter[str]:
    """Targets by modality, of counts by stream and modality."""
    columns = list(zip(*counts, strict=True))
    return Counter({name: sum(columns[kind]) for kind, name in MODALITIES.items()})


@dataclass(slots=True, kw_only=True)
class Stepper:
    """What a step needs. `call`: the objective as wrapped for several processes. `parts`: forward passes of a step."""

    objective: Objective
    call: Any
    optimizer: torch.optim.AdamW
    config: TrainConfig
    runtime: Runtime
    group: Group
    parts: int
    tokens: Tokens

    def step(
        self, batch: Batch, places: Int[np.ndarray, " targets"], counts: Int[np.ndarray, " world"], number: int
    ) -> StepReport:
        """Train on this process' `places` of a batch.

        Args:
            counts: targets of every process; `places` are this one's. number: of the step, from 1.

        Raises:
            FloatingPointError: the loss or the gradient is not finite; the weights are those before the step.
        """
        total = int(counts.sum())
        rate = set_learning_rate(self.optimizer, self.config, self.tokens.seen + total)
        sums = self._backward(batch, places, total)
        if self.tokens.seen < self.config.rows_first_tokens:
            self._spare_body()
        norm = clip_gradients(self.objective, self.config.clip_norm)
        report = self._report(sums, total, number, rate, norm)
        if not (math.isfinite(report.loss) and math.isfinite(norm)):
            self._diverged(report, batch)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return report

    def _spare_body(self) -> None:
        """Forget the gradients of everything but embedding and head: these parameters then stay as they are."""
        model = self.objective.model
        rows = {id(p) for layer in (embedding_of(model), output_layer_of(model)) for p in layer.parameters()}
        for parameter in model.parameters():
            if id(parameter) not in rows:
                parameter.grad = None

    def _backward(self, batch: Batch, places: Int[np.ndarray, " targets"], total: int) -> Tensor:
        """Run all parts forward and backward; return this process' sums (see `_sums`)."""
        rows = len(batch.tokens) // self.parts
        device = self.objective.model.device
        precision = self.objective.precision
        kernel = choose_kernel(self.runtime.attention, device, precision)
        edges = np.searchsorted(places, np.arange(self.parts + 1) * rows * batch.tokens.shape[1])
        sums = torch.zeros(len(MODALITIES) + 1, dtype=torch.float64, device=device)
        for part in range(self.parts):
            cut = slice(part * rows, (part + 1) * rows)
            piece = Batch(batch.tokens[cut], batch.segments[cut], batch.positions[cut], batch.stream[cut])
            own = places[edges[part] : edges[part + 1]] - part * rows * batch.tokens.shape[1]
            # DDP and FSDP2 average gradients over processes; ours add up.
            laid = lay_out(piece, own, self.group.world / total, kernel=kernel, device=device)
            with accumulating(self.call, last=part == self.parts - 1):
                outcome: Outcome = self.call(laid)
                outcome.total.backward()
            sums += self._sums(outcome, self.tokens.modality[piece.tokens.reshape(-1)[own + 1]])
        counts = self.tokens.of(batch, places)
        spelled = self.tokens.units[batch.tokens.reshape(-1)[places + 1]].sum()
        numbers = torch.from_numpy(np.append(counts.reshape(-1), spelled).astype(np.float64)).to(device)
        return self.group.sum(torch.cat([sums, numbers]))

    def _sums(self, outcome: Outcome, kinds: Int8[np.ndarray, " targets"]) -> Tensor:
        """Nats by modality, and squared log denominators."""
        index = torch.from_numpy(kinds.astype(np.int64)).to(outcome.nats.device)
        by_kind = torch.zeros(len(MODALITIES), dtype=torch.float64, device=outcome.nats.device)
        by_kind.index_add_(0, index, outcome.nats.double())
        return torch.cat([by_kind, outcome.log_denominator.double().square().sum()[None]])

    def _report(self, sums: Tensor, total: int, number: int, rate: float, norm: float) -> StepReport:
        values = sums.cpu().numpy()
        kinds = len(MODALITIES)
        nats, square, units = values[:kinds], float(values[kinds]), float(values[-1])
        counts = values[kinds + 1 : -1].astype(np.int64).reshape(self.tokens.counts.shape)
        self.tokens.seen += total
        self.tokens.counts += counts
        targets = {name: int(counts[:, kind].sum()) for kind, name in MODALITIES.items()}
        spelled = {name: units if name == "speech" else targets[name] for name in targets}
        return StepReport(
            step=number,
            tokens_seen=self.tokens.seen,
            loss=float(nats.sum()) / total,
            learning_rate=rate,
            grad_norm=norm,
            losses={name: float(nats[kind]) / spelled[name] for kind, name in MODALITIES.items() if targets[name]},
            targets=targets,
            log_denominator_square=square / total,
        )

    def _diverged(self, report: StepReport, batch: Batch) -> None:
        dumped = ""
        if self.runtime.dump is not None:
            path = dump_batch(self.runtime.dump, report.step, self.group.rank, batch)
            dumped = f"; the batch is in {path}"
        raise FloatingPointError(
            f"step {report.step} ({report.tokens_seen} tokens): loss {report.loss}, gradient norm {report.grad_norm} "
            f"at learning rate {report.learning_rate:.3g}; the run has diverged: lower the learning rate, lengthen the "
            f"warm-up, or use precision fp32{dumped}"
        )


def dump_batch(folder: Path, step: int, rank: int, batch: Batch) -> Path:
    """Write a batch for a post-mortem (numpy.load reads it)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"diverged-step-{step}-rank-{rank}.npz"
    np.savez(path, tokens=batch.tokens, segments=batch.segments, positions=batch.positions, stream=batch.stream)
    return path


def places_of(batch: Batch | None) -> Int[np.ndarray, " targets"]:
    """Where a batch predicts; nowhere without one."""
    return np.zeros(0, np.int64) if batch is None else predicting_places(batch.segments)
