"""Trunk and branches: one run under "wsd" up to where the longest falls, and shorter runs that leave it to cool down.

Enters: the setting of a trunk. Leaves: checkpoints where each branch begins, and the best weights as of each.
The one decision worth knowing: under "wsd" runs of all lengths are the same run until their rate falls, so a branch
equals the full run of its length, weights bit for bit.

Source: Hu et al. 2024, MiniCPM, section 4; Hägele et al. 2024, "Scaling laws beyond fixed training durations".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from speechscale.errors import DataError
from speechscale.study.preparing import Setting, learning_rate
from speechscale.study.steps import read_record
from speechscale.train.checkpoints import Checkpoint, Checkpoints, open_checkpoint
from speechscale.train.loop import Check, Hooks, Runtime, StepReport, train
from speechscale.train.parallel import SOLO, local_copy, restore_local

CHECKPOINTS = "checkpoints"


@dataclass(slots=True)
class _Progress:
    """What a trunk has reached: tokens, and its best weights so far, written beside each checkpoint."""

    folder: Path
    tokens: int = 0
    best_step: int = 0
    best: dict[str, Any] = field(default_factory=dict)

    def on_step(self, report: StepReport) -> None:
        self.tokens = report.tokens_seen

    def on_best(self, model: Any, check: Check) -> None:
        self.best_step, self.best = check.step, local_copy(model)

    def on_save(self, step: int) -> None:
        path = best_file(self.folder, self.best_step)
        if self.best and not path.is_file():
            save_file(self.best, path)


def best_file(folder: Path, step: int) -> Path:
    """Where a trunk keeps the weights of the validation at that step."""
    return folder / f"best-{step:08d}.safetensors"


def train_trunk(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Train one trunk; if it diverges, the branches that leave it before still stand."""
    setting = Setting.of(config, inputs)
    rate, at_edge = learning_rate(config, inputs)
    model, start = setting.start(inputs)
    stops = [setting.branches_at(point) for point in config["branch_points"]]
    reached, diverged = _Progress(out), ""
    with Checkpoints(out / CHECKPOINTS, SOLO, keep_last=1, warn=_refuse) as checkpoints:
        try:
            train(
                model,
                setting.sampler().checkpointed(setting.section.batch_rows),
                setting.train_config(rate),
                modality=setting.data.vocabulary.modality_table(),
                units=setting.data.vocabulary.units_per_id(),
                validation={"select": setting.validation()["select"]},
                runtime=Runtime(save_before=tuple(stops), stop_before=stops[-1]),
                hooks=Hooks(on_step=reached.on_step, on_best=reached.on_best, on_save=reached.on_save, keep_best=False),
                checkpoints=checkpoints,
            )
        except FloatingPointError as error:
            diverged = str(error)
    return {
        **{key: config[key] for key in ("part", "arm", "size", "seed")},
        "learning_rate": rate,
        "learning_rate_at_edge": at_edge,
        "tokens_seen": reached.tokens,
        "flops_exact": reached.tokens * setting.per_token.flops_exact,
        "branches": len(stops),
        "text_lm": start["text_lm"],
        "diverged": diverged,
        "note": f"DIVERGED: {diverged}" if diverged else f"{reached.tokens:,} tokens for {len(stops)} branches",
    }


def _refuse(problem: str) -> None:
    raise DataError(problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchPoint:
    """Where a run leaves its trunk.

    Args:
        start: None where that is before the first step. diverged: why the trunk did not come so far.
    """

    folder: Path
    start: Checkpoint | None
    learning_rate: float
    learning_rate_at_edge: bool
    diverged: str

    @property
    def tokens(self) -> int:
        """Tokens of the run that the trunk has paid for."""
        return 0 if self.start is None else int(self.start.state["tokens_seen"])

    @property
    def data(self) -> dict[str, Any] | None:
        """State of the batches behind the branching point."""
        return None if self.start is None else self.start.state["data"]

    def recall(self, model: Any) -> None:
        """Put the best weights that the trunk had so far into a model."""
        assert self.start is not None
        step = self.start.state["checks"][self.start.state["best"]]["step"]
        restore_local(model, load_file(best_file(self.folder, step)))


def branch_point(setting: Setting, trunk: Path) -> BranchPoint:
    """Find the last state of a trunk before the rate of this run falls."""
    record = read_record(trunk)
    assert record is not None, trunk
    results, wanted = record["results"], setting.branches_at(setting.config["point"])
    found = [open_checkpoint(path) for path in sorted((trunk / CHECKPOINTS).glob("step-*"))]
    before = [checkpoint for checkpoint in found if checkpoint.state["tokens_seen"] <= wanted]
    return BranchPoint(
        folder=trunk,
        start=max(before, key=lambda checkpoint: checkpoint.step, default=None),
        learning_rate=results["learning_rate"],
        learning_rate_at_edge=results["learning_rate_at_edge"],
        diverged=results["diverged"] if wanted > results["tokens_seen"] else "",
    )
