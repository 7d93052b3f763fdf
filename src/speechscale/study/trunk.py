"""Trunk and branches: one run under "wsd" up to where the longest falls, and shorter runs that leave it to cool down.

Enters: the setting of a trunk. Leaves: checkpoints where each branch begins, and those of the best weights until there.
The one decision worth knowing: under "wsd" runs of all lengths are the same run until their rate falls, so a branch
equals the full run of its length, weights bit for bit.

Source: Hu et al. 2024, MiniCPM, section 4; Hägele et al. 2024, "Scaling laws beyond fixed training durations".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.study.preparing import Setting, learning_rate
from speechscale.study.steps import read_record
from speechscale.train.checkpoints import Checkpoint, Checkpoints, open_checkpoint
from speechscale.train.loop import Hooks, Runtime, StepReport, train
from speechscale.train.parallel import SOLO

CHECKPOINTS = "checkpoints"


class _TrunkOfBranch(Checkpoints):
    """A trunk's checkpoints as a branch may use them: to read the best weights of the way, not to write."""

    def save(self, model: Any, optimizer: Any, step: int, state: Mapping[str, Any]) -> None:
        """Write nothing: the trunk is done."""


def train_trunk(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Train one trunk; if it diverges, the branches that leave it before still stand."""
    setting = Setting.of(config, inputs)
    rate, at_edge = learning_rate(config, inputs)
    model, start = setting.start(inputs)
    stops = [setting.branches_at(point) for point in config["branch_points"]]
    reached, diverged = 0, ""
    with Checkpoints(out / CHECKPOINTS, SOLO, keep_last=1, warn=_refuse) as checkpoints:

        def on_step(report: StepReport) -> None:
            nonlocal reached
            reached = report.tokens_seen

        def keep_best(step: int) -> None:
            """The best weights as of a branch's beginning stay with it."""
            if step in checkpoints.protected and checkpoints.best is not None:
                checkpoints.protected.add(checkpoints.best)

        try:
            train(
                model,
                setting.sampler().checkpointed(setting.section.batch_rows),
                setting.train_config(rate),
                modality=setting.data.vocabulary.modality_table(),
                units=setting.data.vocabulary.units_per_id(),
                validation={"select": setting.validation()["select"]},
                runtime=Runtime(save_before=tuple(stops), stop_before=stops[-1], save_best=True),
                hooks=Hooks(on_step=on_step, on_save=keep_best),
                checkpoints=checkpoints,
            )
        except FloatingPointError as error:
            diverged = str(error)
    return {
        **{key: config[key] for key in ("part", "arm", "size", "seed")},
        "learning_rate": rate,
        "learning_rate_at_edge": at_edge,
        "tokens_seen": reached,
        "flops_exact": reached * setting.per_token.flops_exact,
        "branches": len(stops),
        "text_lm": start["text_lm"],
        "diverged": diverged,
        "note": f"DIVERGED: {diverged}" if diverged else f"{reached:,} tokens for {len(stops)} branches",
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

    def checkpoints(self) -> Checkpoints:
        """Where the best weights are if the trunk had them."""
        return _TrunkOfBranch(self.folder / CHECKPOINTS, SOLO, warn=_refuse)


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
