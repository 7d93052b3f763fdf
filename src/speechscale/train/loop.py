"""Train a model on packed rows until a budget of tokens is spent, exactly.

Enters: a model, an iterator of batches, `TrainConfig`. Leaves: the trained model (in place) and `TrainResult`.
The one decision worth knowing: a token counts when it is predicted. The budget, the schedule and all counts are in such
target tokens; the last batch is cut where the budget ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int, Int8
from torch import Tensor

from speechscale.errors import DataError
from speechscale.tokens.packing import STREAMS, Batch
from speechscale.tokens.vocabulary import MODALITY_MARKER, MODALITY_SPEECH, MODALITY_TEXT
from speechscale.train.losses import Losses, Precision, loss_by_modality, predicting_places, to_device, training_loss
from speechscale.train.schedule import Schedule, check_points, learning_rate_share

MODALITIES = {MODALITY_TEXT: "text", MODALITY_SPEECH: "speech", MODALITY_MARKER: "marker"}
SELECT = "select"
"""Name of the validation set that chooses the best checkpoint."""
BF16_FROM_PARAMS = 80_000
"""On a CPU, body parameters from which bf16 autocast was measured faster than fp32 (docs/train.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What a run does with its batches.

    Args:
        tokens: budget of target tokens. batch_rows, context: shape of every batch.
        learning_rate: peak. final_lr_fraction: of the peak, reached with the last token.
        warmup_fraction: of the tokens. weight_decay: on matrices, not on norms and biases.
        clip_norm: largest norm of the gradient. precision: "auto" as in `resolve_precision`; weights stay fp32.
        checks: validations on the set "select", evenly spaced, the last one at the end.
        select_on: modality whose loss on "select" chooses the best checkpoint.

    Raises:
        DataError: a value out of range.
    """

    tokens: int
    batch_rows: int
    context: int
    learning_rate: float
    final_lr_fraction: float = 0.1
    warmup_fraction: float = 0.02
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    schedule: Schedule = "cosine"
    checks: int = 8
    select_on: Literal["speech", "text"] = "speech"

    def __post_init__(self) -> None:
        for name in ("tokens", "batch_rows", "learning_rate", "clip_norm", "checks"):
            if not 0 < getattr(self, name) < math.inf:
                raise DataError(f"train: {name} = {getattr(self, name)}; it must be above 0")
        for name in ("final_lr_fraction", "warmup_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"train: {name} = {getattr(self, name)}; it must lie in 0..1")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One step, as handed to the progress hook."""

    step: int
    tokens_seen: int
    loss: float
    learning_rate: float
    grad_norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One validation along the trajectory."""

    step: int
    tokens_seen: int
    losses: Mapping[str, Losses]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run leaves behind, besides the trained model.

    Args:
        precision: the one used. steps, tokens_seen: target tokens, equal to the budget.
        targets: stream -> modality -> target tokens seen.
        history: every step. checks: the trajectory on the set "select".
        final: losses of every validation set at the end. best: the same at the best checkpoint.
        best_tokens_seen: where that is. best_state: its weights; load with `model.load_state_dict`.
    """

    precision: Precision
    steps: int
    tokens_seen: int
    targets: Mapping[str, Mapping[str, int]]
    history: Sequence[StepReport]
    checks: Sequence[Check]
    final: Mapping[str, Losses]
    best: Mapping[str, Losses]
    best_tokens_seen: int
    best_state: Mapping[str, Tensor]


CheckHook = Callable[[Any, Check], None]
ProgressHook = Callable[[StepReport], None]


def resolve_precision(precision: Literal["auto", "fp32", "bf16"], model: Any) -> Precision:
    """Turn "auto" into what was measured faster: on a GPU bf16; on a CPU bf16 for bodies of at least
    BF16_FROM_PARAMS parameters if it multiplies bf16 natively, else fp32."""
    if precision != "auto":
        return precision
    if model.device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    tables = {
        id(table): table.weight.numel() for table in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    body = sum(p.numel() for p in model.parameters()) - max(tables.values())
    native = bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    return "bf16" if native and body >= BF16_FROM_PARAMS else "fp32"


def make_optimizer(model: Any, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with decay on matrices only."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


@dataclass(slots=True, kw_only=True)
class _Selection:
    """Validations so far and the best of them."""

    validation: Mapping[str, Sequence[Batch]]
    modality: Int8[np.ndarray, " V"]
    units: Int[np.ndarray, " V"] | None
    select_on: str
    checks: list[Check] = field(default_factory=list)
    best_loss: float = math.inf
    best_check: Check | None = None
    best_state: dict[str, Tensor] = field(default_factory=dict)

    def evaluate(self, model: Any) -> dict[str, Losses]:
        return {name: self._measure(model, name) for name in self.validation}

    def _measure(self, model: Any, name: str) -> Losses:
        return loss_by_modality(model, self.validation[name], self.modality, self.units)

    def check(self, model: Any, step: int, tokens_seen: int, hook: CheckHook | None) -> None:
        """Validate on "select" and keep the weights if they are the best so far."""
        losses = {}
        if SELECT in self.validation:
            losses[SELECT] = self._measure(model, SELECT)
        check = Check(step=step, tokens_seen=tokens_seen, losses=losses)
        self.checks.append(check)
        loss = self._loss(losses[SELECT]) if losses else -tokens_seen  # without "select" the last check wins
        if loss < self.best_loss:
            self.best_loss, self.best_check = loss, check
            self.best_state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        if hook is not None:
            hook(model, check)
            model.train()

    def _loss(self, losses: Losses) -> float:
        loss: float | None = getattr(losses, self.select_on)
        if loss is None:
            raise DataError(f"validation set '{SELECT}' has no {self.select_on} to choose a checkpoint by; add some")
        return loss

    def finish(self, model: Any) -> tuple[dict[str, Losses], dict[str, Losses], int]:
        """Losses of every set at the end and at the best check; the model keeps its final weights."""
        final = self.evaluate(model)
        assert self.best_check is not None
        if self.best_check is self.checks[-1]:
            return final, final, self.best_check.tokens_seen
        last_state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(self.best_state)
        best = self.evaluate(model)
        model.load_state_dict(last_state)
        return final, best, self.best_check.tokens_seen


@dataclass(slots=True, kw_only=True)
class _Trainer:
    """A model, its optimizer and where the run stands."""

    model: Any
    config: TrainConfig
    precision: Precision
    optimizer: torch.optim.AdamW
    tokens_seen: int = 0
    history: list[StepReport] = field(default_factory=list)

    def step(self, batch: Batch, places: Int[np.ndarray, " targets"]) -> StepReport:
        """Train on the targets of `places`.

        Raises:
            FloatingPointError: the loss or the gradient is not finite; the weights are those before the step.
        """
        self.tokens_seen += len(places)
        share = learning_rate_share(
            self.tokens_seen,
            self.config.tokens,
            schedule=self.config.schedule,
            warmup_fraction=self.config.warmup_fraction,
            final_fraction=self.config.final_lr_fraction,
        )
        rate = share * self.config.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = training_loss(self.model, to_device(batch, self.model.device, places), self.precision)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm, foreach=True)
        report = StepReport(
            step=len(self.history) + 1,
            tokens_seen=self.tokens_seen,
            loss=float(loss.detach()),
            learning_rate=rate,
            grad_norm=float(norm),
        )
        if not (math.isfinite(report.loss) and math.isfinite(report.grad_norm)):
            raise FloatingPointError(
                f"step {report.step} ({report.tokens_seen} tokens): loss {report.loss}, gradient norm "
                f"{report.grad_norm} at learning rate {rate:.3g}; the run has diverged: lower the learning rate, "
                "lengthen the warm-up, or use precision fp32"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.history.append(report)
        return report


def train(
    model: Any,
    batches: Iterator[Batch],
    config: TrainConfig,
    *,
    modality: Int8[np.ndarray, " V"],
    validation: Mapping[str, Sequence[Batch]],
    units: Int[np.ndarray, " V"] | None = None,
    on_check: CheckHook | None = None,
    progress: ProgressHook | None = None,
) -> TrainResult:
    """Train `model` in place.

    Attention stays inside documents, positions restart with each; the loss is the mean over all targets of a batch.
    Same model, batches and config: same losses, bit for bit on one thread. Nothing random happens here.

    Args:
        batches: rows of the shape in `config`; more than needed are left unread.
        modality: modality of each id (`Vocabulary.modality_table`).
        validation: name -> batches. "select" chooses the best checkpoint; every other set is evaluated twice, at the
            end and at that checkpoint. Without "select" the last weights are the best.
        units: that each id spells (`Vocabulary.units_per_id`), for losses per unit; None: one per speech id.
        on_check: called with the model and the `Check` after each validation; must leave the weights alone.

    Raises:
        DataError: batches that end early or have another shape; a model of another vocabulary; "select" without the
            modality to select on.
        FloatingPointError: the loss or the gradient is not finite.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if rows != len(modality):
        raise DataError(f"train: a model of {rows} ids and a vocabulary of {len(modality)}; they must be equal")
    precision = resolve_precision(config.precision, model)
    trainer = _Trainer(model=model, config=config, precision=precision, optimizer=make_optimizer(model, config))
    selection = _Selection(validation=validation, modality=modality, units=units, select_on=config.select_on)
    counts = np.zeros((len(STREAMS), len(MODALITIES)), np.int64)
    points = check_points(config.tokens, config.checks)
    model.train()
    while trainer.tokens_seen < config.tokens:
        batch = _next_batch(batches, trainer.tokens_seen, config)
        places = predicting_places(batch.segments)[: config.tokens - trainer.tokens_seen]
        if not len(places):
            continue
        report = trainer.step(batch, places)
        _count(counts, batch, places, modality)
        if progress is not None:
            progress(report)
        if report.tokens_seen >= points[0]:
            points = [point for point in points if point > report.tokens_seen]
            selection.check(model, report.step, report.tokens_seen, on_check)
    final, best, best_tokens_seen = selection.finish(model)
    assert counts.sum() == trainer.tokens_seen == config.tokens
    return TrainResult(
        precision=precision,
        steps=len(trainer.history),
        tokens_seen=trainer.tokens_seen,
        targets={s: {n: int(counts[i, k]) for k, n in MODALITIES.items()} for i, s in enumerate(STREAMS)},
        history=trainer.history,
        checks=selection.checks,
        final=final,
        best=best,
        best_tokens_seen=best_tokens_seen,
        best_state=selection.best_state,
    )


def _next_batch(batches: Iterator[Batch], tokens_seen: int, config: TrainConfig) -> Batch:
    batch = next(batches, None)
    if batch is None:
        raise DataError(f"train: the batches ended after {tokens_seen} of {config.tokens} tokens; give more data")
    rows, context = batch.tokens.shape
    if rows > config.batch_rows or context != config.context:
        raise DataError(
            f"train: a batch of {rows} x {context} tokens, the config says {config.batch_rows} x {config.context}"
        )
    return batch


def _count(
    counts: Int[np.ndarray, "streams modalities"],
    batch: Batch,
    places: Int[np.ndarray, " targets"],
    modality: Int8[np.ndarray, " V"],
) -> None:
    """Add the targets of a batch by stream and modality."""
    streams = batch.stream.reshape(-1)[places].astype(np.int64)
    kinds = modality[batch.tokens.reshape(-1)[places + 1]]
    counts += np.bincount(streams * counts.shape[1] + kinds, minlength=counts.size).reshape(counts.shape)
