"""Train a model on packed rows until a budget of tokens is spent, exactly; on one process or many.

Enters: a model, an iterator of batches, `TrainConfig`. Leaves: the trained model (in place) and `TrainResult`.
The one decision worth knowing: a token counts when it is predicted. The budget, the schedule and all counts are in such
target tokens of all processes together; the last batch is cut where the budget ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Int, Int8

from speechscale.errors import DataError
from speechscale.tokens.packing import Batch
from speechscale.train.checkpoints import Checkpoint, Checkpoints, load_tensors
from speechscale.train.config import Runtime, TrainConfig, make_optimizer, require_fit, resolve_precision
from speechscale.train.objective import Objective
from speechscale.train.outcome import Hooks, TrainResult
from speechscale.train.parallel import SOLO, Group, is_sharded
from speechscale.train.schedule import check_points
from speechscale.train.selection import SELECT, Check, Selection
from speechscale.train.step import Stepper, StepReport, Tokens, places_of

__all__ = ["SELECT", "Check", "Hooks", "Runtime", "StepReport", "TrainConfig", "TrainResult", "train"]


def train(
    model: Any,
    batches: Iterator[Batch] | Iterator[tuple[Batch, dict[str, Any]]],
    config: TrainConfig,
    *,
    modality: Int8[np.ndarray, " V"],
    validation: Mapping[str, Sequence[Batch]],
    units: Int[np.ndarray, " V"] | None = None,
    runtime: Runtime | None = None,
    hooks: Hooks | None = None,
    group: Group = SOLO,
    checkpoints: Checkpoints | None = None,
    start: Checkpoint | None = None,
) -> TrainResult:
    """Train `model` in place.

    Attention stays inside documents, positions restart with each; the loss is the mean over all targets of a batch.
    Same model, batches and config: same losses, bit for bit on one thread. Nothing random happens here.

    Args:
        batches: this process' rows of each batch, of the shape in `config`; more than needed are left unread. With the
            state of the data behind each (`MixtureSampler.checkpointed`) checkpoints can be written.
        modality: modality of each id (`Vocabulary.modality_table`).
        validation: name -> batches. "select" chooses the best checkpoint; every other set is evaluated twice, at the
            end and at that checkpoint. Without "select" the last weights are the best.
        units: that each id spells (`Vocabulary.units_per_id`), for losses per unit; None: one per speech id.
        checkpoints: where to save. start: go on from there; `batches` must begin behind its state["data"].

    Raises:
        DataError: batches that end early or have another shape; a model of another vocabulary or too short a context;
            "select" without the modality to select on; rows that cannot be shared out.
        FloatingPointError: the loss or the gradient is not finite; the weights are those before the step.
        ConnectionError: another process of the run is gone.
    """
    require_fit(model, len(modality), config)
    runtime, hooks = runtime or Runtime(), hooks or Hooks()
    run = _Run(
        config=config,
        runtime=runtime,
        hooks=hooks,
        group=group,
        checkpoints=checkpoints,
        stepper=_stepper(model, config, runtime, group, Tokens(modality, units)),
    )
    objective = run.stepper.objective
    run.selection = Selection(
        objective=objective,
        validation=validation,
        modality=modality,
        units=units,
        select_on=config.select_on,
        group=group,
        precision=objective.precision if is_sharded(objective) else "fp32",
        keep=not (runtime.save_best and checkpoints is not None),
        recall=run.recall,
    )
    if start is not None:
        run.go_on_from(start)
    stopped = run.loop(batches)
    return run.finish(stopped)


def _stepper(model: Any, config: TrainConfig, runtime: Runtime, group: Group, tokens: Tokens) -> Stepper:
    parts = runtime.parts(config, group)
    objective = Objective(model, precision=resolve_precision(config.precision, model), z_loss=config.z_loss)
    call = runtime.apply(objective, config.context, group)
    return Stepper(
        objective=objective,
        call=call,
        optimizer=make_optimizer(objective, config),
        config=config,
        runtime=runtime,
        group=group,
        parts=parts,
        tokens=tokens,
    )


@dataclass(slots=True, kw_only=True)
class _Run:
    """A run and where it stands. `data`: state of the data behind the last step."""

    config: TrainConfig
    runtime: Runtime
    hooks: Hooks
    group: Group
    checkpoints: Checkpoints | None
    stepper: Stepper
    selection: Selection = field(init=False)
    step: int = 0
    seconds: float = 0.0
    data: dict[str, Any] | None = None
    history: list[StepReport] = field(default_factory=list)
    saved_step: int = 0
    saved_tokens: int = 0
    saved_s: float = 0.0

    @property
    def tokens(self) -> Tokens:
        return self.stepper.tokens

    def go_on_from(self, start: Checkpoint) -> None:
        load_tensors(start, self.stepper.objective, self.stepper.optimizer)
        state = start.state
        self.step, self.tokens.seen, self.seconds = start.step, state["tokens_seen"], state["seconds"]
        self.tokens.counts[:] = np.array(state["counts"], np.int64)
        self.data = state["data"]
        self.selection.checks = [Check.from_json(check) for check in state["checks"]]
        if state["best"] is not None:
            self.selection.best_check = self.selection.checks[state["best"]]
            if self.checkpoints is not None and self.runtime.save_best:
                self.checkpoints.best = self.selection.best_check.step  # or the next save would remove it
        self.saved_step, self.saved_tokens, self.saved_s = self.step, self.tokens.seen, self.seconds

    def loop(self, batches: Iterator[Any]) -> tuple[str, bool]:
        """Step until the budget is spent; else the reason why not, and whether somebody asked for it."""
        points = [point for point in check_points(self.config.tokens, self.config.checks) if point > self.tokens.seen]
        saves = [point for point in self.runtime.save_before if point >= self.tokens.seen]
        began = time.perf_counter() - self.seconds
        self.stepper.objective.train()
        while self.tokens.seen < self.config.tokens:
            asked = time.perf_counter()
            batch, data = self._next(batches)
            waited = time.perf_counter() - asked
            places, counts, stopped, by_request = self._agree(batch)
            if stopped:
                return stopped, by_request
            after = self.tokens.seen + int(counts.sum())
            while saves and after > saves[0]:
                saves.pop(0)
                self.save(protect=True)
            if self.runtime.stop_before is not None and after > self.runtime.stop_before:
                return f"before token {self.runtime.stop_before:,}, as planned", False
            if not counts.sum():
                continue
            assert batch is not None
            report = self.stepper.step(batch, places, counts, self.step + 1)
            now = time.perf_counter()
            self.step, self.data, self.seconds = self.step + 1, data, now - began
            report = replace(report, seconds=now - asked, waited=waited)
            self.history.append(report)
            if self.hooks.on_step is not None and self.group.leads:
                self.hooks.on_step(report)
            if points and self.tokens.seen >= points[0]:
                points = [point for point in points if point > self.tokens.seen]
                last = self.tokens.seen == self.config.tokens
                check = self.selection.check(
                    self.step, self.tokens.seen, self.hooks.on_check, self.hooks.probe, last=last
                )
                began += check.probe_seconds
                if check is self.selection.best_check and self.runtime.save_best and self.checkpoints is not None:
                    self.checkpoints.best = self.step
                    self.save()
            if self._save_is_due():
                self.save()
        return "", False

    def _next(self, batches: Iterator[Any]) -> tuple[Batch | None, dict[str, Any] | None]:
        item = next(batches, None)
        if item is None or isinstance(item, Batch):
            return item, None
        batch, data = item
        return batch, data

    def _agree(self, batch: Batch | None) -> tuple[Int[np.ndarray, " targets"], Int[np.ndarray, " world"], str, bool]:
        """This process' targets, those of all (cut where the budget ends), and why all stop if any one does."""
        reason = self.hooks.stop()
        late = self.runtime.max_s is not None and self.seconds + self.selection.probe_seconds >= self.runtime.max_s
        shape = self._wrong_shape(batch)
        places = places_of(None if shape else batch)
        heard = self.group.exchange([len(places), bool(reason), late, batch is None, bool(shape)])
        asked, out_of_time, dry, misshapen = (bool(column.any()) for column in heard[:, 1:].T)
        if misshapen:
            raise DataError(shape or "train: another process of this run was given batches of another shape")
        if asked:
            return places, heard[:, 0], reason or "another process was asked to stop", True
        if out_of_time:
            return places, heard[:, 0], f"the wall time of {self.runtime.max_s:,.0f} s is spent", False
        if dry:
            raise DataError(
                f"train: the batches ended after {self.tokens.seen} of {self.config.tokens} tokens; give more data"
            )
        before = int(heard[: self.group.rank, 0].sum())
        left = self.config.tokens - self.tokens.seen
        ends = np.minimum(np.cumsum(heard[:, 0]), left)
        return places[: max(0, left - before)], np.diff(ends, prepend=0), "", False

    def _wrong_shape(self, batch: Batch | None) -> str:
        wanted = self.config.batch_rows // self.group.world
        if batch is None or (len(batch.tokens) == wanted and batch.tokens.shape[1] == self.config.context):
            return ""
        rows, context = batch.tokens.shape
        return f"train: a batch of {rows} x {context} tokens, the config says {wanted} x {self.config.context}"

    def _save_is_due(self) -> bool:
        every, every_s = self.runtime.save_every_tokens, self.runtime.save_every_s
        due = every is not None and self.tokens.seen // every > self.saved_tokens // every
        if every_s is not None:  # clocks differ from process to process, the first one's counts
            due |= bool(self.group.exchange([self.seconds - self.saved_s >= every_s])[0, 0])
        return due and self.tokens.seen < self.config.tokens

    def save(self, *, protect: bool = False) -> None:
        """Write a checkpoint of now, unless this step has one."""
        if self.checkpoints is None:
            return
        if protect:
            self.checkpoints.protected.add(self.step)
        if self.step == self.saved_step:
            return
        best = self.selection.best_check
        state = {
            "tokens_seen": self.tokens.seen,
            "seconds": self.seconds,
            "counts": self.tokens.counts.tolist(),
            "data": self.data,
            "checks": [check.to_json() for check in self.selection.checks],
            "best": None if best is None else self.selection.checks.index(best),
        }
        self.checkpoints.save(self.stepper.objective, self.stepper.optimizer, self.step, state)
        self.saved_step, self.saved_tokens, self.saved_s = self.step, self.tokens.seen, self.seconds
        if self.hooks.on_save is not None:
            self.hooks.on_save(self.step)

    def recall(self, step: int) -> bool:
        """Put the weights of a saved step into the model; False where its checkpoint is not there or not whole."""
        if self.checkpoints is None:
            return False
        saved = self.checkpoints.of_step(step)
        if saved is not None:
            load_tensors(saved, self.stepper.objective)
        return saved is not None

    def finish(self, ended: tuple[str, bool]) -> TrainResult:
        """Save, validate and sum up."""
        stopped, interrupted = ended
        self.save()
        if self.checkpoints is not None:
            self.checkpoints.wait()
        final, best = ({}, {}) if interrupted else self.selection.finish(self.hooks.with_best)
        assert self.tokens.counts.sum() == self.tokens.seen
        assert stopped or self.tokens.seen == self.config.tokens
        check = self.selection.best_check
        return TrainResult(
            precision=self.stepper.objective.precision,
            steps=self.step,
            tokens_seen=self.tokens.seen,
            targets=self.tokens.by_stream(),
            history=self.history,
            checks=self.selection.checks,
            final=final,
            best=best,
            best_tokens_seen=self.tokens.seen if check is None else check.tokens_seen,
            best_state={name.removeprefix("model."): tensor for name, tensor in self.selection.best.items()},
            stopped=stopped,
            interrupted=interrupted,
            seconds=self.seconds,
            probe_seconds=self.selection.probe_seconds,
        )
