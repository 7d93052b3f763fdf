"""Preference tuning: raise the probability of preferred completions against rejected ones (DPO), as Slam does.

Enters: a trained SLM, `Pair`s, `PreferenceConfig`. Leaves: the tuned model (in place) and `PreferenceResult`.
The one decision worth knowing: the model as it comes is the reference, so a tuning that goes on begins with the same
model again, checks it against the reference's file, and only then takes the weights of its checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from speechscale.errors import DataError
from speechscale.model.anatomy import blocks_of
from speechscale.progress import Watch
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.train.checkpoints import Checkpoint, Checkpoints, load_tensors
from speechscale.train.config import Runtime, make_optimizer, require_fit, resolve_precision
from speechscale.train.objective import Precision
from speechscale.train.parallel import SOLO, Group, is_sharded
from speechscale.train.preference_data import Pair
from speechscale.train.preference_loss import PreferenceConfig, PreferenceObjective, compare
from speechscale.train.preference_reference import Sequences, log_probs, reference_log_probs
from speechscale.train.preference_step import PairStepper, PreferenceReport
from speechscale.train.schedule import check_points

__all__ = [
    "PreferenceCheck",
    "PreferenceConfig",
    "PreferenceHooks",
    "PreferenceReport",
    "PreferenceResult",
    "tune",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceCheck:
    """Held-out pairs at some step: means and their standard errors over pairs (None below two). Keys: `Comparison`."""

    step: int
    pairs_seen: int
    tokens_seen: int
    pairs: int
    mean: dict[str, float]
    se: dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceHooks:
    """What a caller wants to hear; none of them may change the weights.

    Args:
        on_step: every step, on rank 0. on_check: model and numbers, on every process. on_save: step of a checkpoint.
        stop: asked before each step; an answer other than "" ends the tuning after a checkpoint.
        watch: progress of the reference's log-probabilities.
    """

    on_step: Callable[[PreferenceReport], None] | None = None
    on_check: Callable[[Any, PreferenceCheck], None] | None = None
    on_save: Callable[[int], None] | None = None
    stop: Callable[[], str] = str  # str() is ""
    watch: Watch | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceResult:
    """What a tuning leaves behind, besides the tuned model.

    Args:
        history: every step of this start. checks: held-out pairs before, along the way and at the end.
        stopped: why it ended early; "" if it did not. interrupted: by a request, so without the last check.
        seconds: of tuning, all starts together.
    """

    precision: Precision
    steps: int
    pairs_seen: int
    tokens_seen: int
    history: Sequence[PreferenceReport]
    checks: Sequence[PreferenceCheck]
    stopped: str = ""
    interrupted: bool = False
    seconds: float = field(default=0.0, compare=False)


def tune(
    model: Any,
    pairs: Sequence[Pair],
    config: PreferenceConfig,
    *,
    vocabulary: Vocabulary,
    validation: Sequence[Pair] = (),
    runtime: Runtime | None = None,
    hooks: PreferenceHooks | None = None,
    group: Group = SOLO,
    checkpoints: Checkpoints | None = None,
    start: Checkpoint | None = None,
    reference_file: Path | None = None,
) -> PreferenceResult:
    """Tune `model` in place; as it comes it is the reference.

    Dropout is off, so nothing random happens beyond the order of pairs, which follows from the seed.

    Args:
        model: plain or with adapters (`adapt`), with as many rows as the vocabulary.
        pairs, validation: see `read_pairs`; the same on every process.
        runtime: micro_rows counts rows of one forward pass, a pair is never split; save_every_tokens counts tokens of
            completions; save_before and stop_before are for training only.
        checkpoints: where to save. start: go on from there; `model` must be the one the tuning began with.
        reference_file: keeps the reference's log-probabilities for later starts.

    Raises:
        DataError: no pairs, one longer than the context, another vocabulary; a checkpoint of another tuning.
        FloatingPointError: the loss or the gradient is not finite; the weights are those before the step.
        ConnectionError: another process of the run is gone.
    """
    runtime, hooks = runtime or Runtime(), hooks or PreferenceHooks()
    _require_pairs([*pairs, *validation] if pairs else [], vocabulary, config)
    recipe = config.recipe(len(pairs))
    require_fit(model, vocabulary.size, recipe)
    objective = PreferenceObjective(model, config, precision=resolve_precision(config.precision, model))
    call = runtime.apply(objective, config.context, group)
    _quiet(objective, runtime)
    sets = {"train": Sequences.of(pairs, vocabulary.eos_id, config.score_end)}
    if validation:
        sets["validation"] = Sequences.of(validation, vocabulary.eos_id, config.score_end)
    precisions = {name: _precision_of(name, objective) for name in sets}
    reference = reference_log_probs(
        objective,
        sets,
        config.context,
        precisions=precisions,
        file=reference_file,
        attention=runtime.attention,
        group=group,
        watch=hooks.watch,
    )
    stepper = PairStepper(
        config=config,
        recipe=recipe,
        runtime=runtime,
        group=group,
        objective=objective,
        call=call,
        optimizer=make_optimizer(objective, recipe),
        sequences=sets["train"],
        names=[pair.id for pair in pairs],
        reference=reference["train"],
    )
    run = _Run(stepper=stepper, hooks=hooks, checkpoints=checkpoints, sets=sets, reference=reference)
    run.begin(start)
    return run.finish(*run.loop())


def _require_pairs(pairs: Sequence[Pair], vocabulary: Vocabulary, config: PreferenceConfig) -> None:
    if not pairs:
        raise DataError("preference: there are no pairs to tune on; give some")
    for pair in pairs:
        if pair.longest > config.context:
            raise DataError(
                f"preference: pair {pair.id} has {pair.longest} tokens, the context is {config.context}; read the "
                "pairs with this context, or raise it"
            )
        if not (len(pair.chosen) and len(pair.rejected)):
            raise DataError(f"preference: pair {pair.id} has an empty completion; leave it out")
        top = max(int(ids.max()) for ids in (pair.prompt, pair.chosen, pair.rejected) if len(ids))
        if top >= vocabulary.size:
            raise DataError(
                f"preference: pair {pair.id} has the id {top}, the vocabulary has 0..{vocabulary.size - 1}; read the "
                "pairs with this vocabulary"
            )


def _quiet(objective: PreferenceObjective, runtime: Runtime) -> None:
    """Turn dropout off. Blocks that are to be recomputed must think that they train, or transformers keeps them."""
    objective.eval()
    if runtime.recompute:
        for block in blocks_of(objective.model):
            block.training = True


def _precision_of(name: str, objective: PreferenceObjective) -> Precision:
    """Pairs to train on are compared as they are trained, others as exactly as the layout allows."""
    return objective.precision if name == "train" or is_sharded(objective) else "fp32"


@dataclass(slots=True, kw_only=True)
class _Run:
    """A tuning and where it stands."""

    stepper: PairStepper
    hooks: PreferenceHooks
    checkpoints: Checkpoints | None
    sets: Mapping[str, Sequences]
    reference: Mapping[str, Float64[np.ndarray, " sequences"]]
    seconds: float = 0.0
    history: list[PreferenceReport] = field(default_factory=list)
    checks: list[PreferenceCheck] = field(default_factory=list)
    saved_step: int = 0
    saved_tokens: int = 0
    saved_s: float = 0.0

    def begin(self, start: Checkpoint | None) -> None:
        """Check the model as it came, or take the weights of an earlier start."""
        if start is None:
            self.check()
            return
        state = start.state
        if state.get("preference") != self._identity():
            raise DataError(
                f"checkpoint {start.folder}: it belongs to another tuning (other pairs or another recipe); give those "
                "it was made with, or another --out"
            )
        load_tensors(start, self.stepper.objective, self.stepper.optimizer)
        stepper = self.stepper
        stepper.steps, stepper.pairs_seen, stepper.tokens_seen = start.step, state["pairs_seen"], state["tokens_seen"]
        self.seconds = state["seconds"]
        self.checks = [PreferenceCheck(**check) for check in state["checks"]]
        self.saved_step, self.saved_tokens, self.saved_s = start.step, stepper.tokens_seen, self.seconds

    def finish(self, stopped: str, interrupted: bool) -> PreferenceResult:
        """Check where the last step was not checked, save and sum up."""
        if not interrupted and not (self.checks and self.checks[-1].step == self.stepper.steps):
            self.check()
        self.save()
        if self.checkpoints is not None:
            self.checkpoints.wait()
        stepper = self.stepper
        assert stopped or stepper.pairs_seen == stepper.budget
        return PreferenceResult(
            precision=stepper.objective.precision,
            steps=stepper.steps,
            pairs_seen=stepper.pairs_seen,
            tokens_seen=stepper.tokens_seen,
            history=self.history,
            checks=self.checks,
            stopped=stopped,
            interrupted=interrupted,
            seconds=self.seconds,
        )

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with, as JSON gives it back."""
        config = {**asdict(self.stepper.config), "betas": list(self.stepper.config.betas)}
        return {"config": config, "pairs": {name: sequences.sha256() for name, sequences in self.sets.items()}}

    def loop(self) -> tuple[str, bool]:
        """Step until all pairs are spent; else the reason why not, and whether somebody asked for it."""
        stepper, runtime = self.stepper, self.stepper.runtime
        points = check_points(stepper.budget, stepper.config.checks)
        before = time.perf_counter() - self.seconds
        while stepper.pairs_seen < stepper.budget:
            reason = self.hooks.stop()
            late = runtime.max_s is not None and self.seconds >= runtime.max_s
            asked, out_of_time = stepper.group.exchange([bool(reason), late]).max(0).tolist()
            if asked:
                return reason or "another process was asked to stop", True
            if out_of_time:
                return f"the wall time of {runtime.max_s:,.0f} s is spent", False
            done, began = stepper.pairs_seen, time.perf_counter()
            report = stepper.step()
            now = time.perf_counter()
            self.seconds = now - before
            report = replace(report, seconds=now - began)
            self.history.append(report)
            if self.hooks.on_step is not None and stepper.group.leads:
                self.hooks.on_step(report)
            if any(done < point <= stepper.pairs_seen for point in points):
                self.check()
            if self._save_is_due():
                self.save()
        return "", False

    def check(self) -> None:
        """Compare the held-out pairs as the model is now."""
        if "validation" not in self.sets:
            return
        stepper, sequences = self.stepper, self.sets["validation"]
        found = log_probs(
            stepper.objective,
            sequences,
            stepper.config.context,
            precision=_precision_of("validation", stepper.objective),
            attention=stepper.runtime.attention,
            group=stepper.group,
        )
        compared, _ = compare(
            torch.from_numpy(found),
            torch.from_numpy(self.reference["validation"]),
            torch.from_numpy(sequences.targets),
            stepper.config,
        )
        columns = {name: column.numpy() for name, column in compared._asdict().items()}
        pairs = len(sequences) // 2
        errors = {
            name: float(column.std(ddof=1) / math.sqrt(pairs)) if pairs > 1 else None
            for name, column in columns.items()
        }
        check = PreferenceCheck(
            step=stepper.steps,
            pairs_seen=stepper.pairs_seen,
            tokens_seen=stepper.tokens_seen,
            pairs=pairs,
            mean={name: float(column.mean()) for name, column in columns.items()},
            se=errors,
        )
        self.checks.append(check)
        if self.hooks.on_check is not None:
            self.hooks.on_check(stepper.objective.model, check)
            _quiet(stepper.objective, stepper.runtime)

    def _save_is_due(self) -> bool:
        stepper, runtime = self.stepper, self.stepper.runtime
        every, every_s = runtime.save_every_tokens, runtime.save_every_s
        due = every is not None and stepper.tokens_seen // every > self.saved_tokens // every
        if every_s is not None:  # clocks differ from process to process, the first one's counts
            due |= bool(stepper.group.exchange([self.seconds - self.saved_s >= every_s])[0, 0])
        return due and stepper.pairs_seen < stepper.budget

    def save(self) -> None:
        """Write a checkpoint of now, unless this step has one."""
        stepper = self.stepper
        if self.checkpoints is None or stepper.steps == self.saved_step:
            return
        state = {
            "preference": self._identity(),
            "pairs_seen": stepper.pairs_seen,
            "tokens_seen": stepper.tokens_seen,
            "seconds": self.seconds,
            "checks": [asdict(check) for check in self.checks],
        }
        self.checkpoints.save(stepper.objective, stepper.optimizer, stepper.steps, state)
        self.saved_step, self.saved_tokens, self.saved_s = stepper.steps, stepper.tokens_seen, self.seconds
        if self.hooks.on_save is not None:
            self.hooks.on_save(stepper.steps)
