"""The metrics of training runs, as tables.

Enters: folders with a metrics.jsonl. Leaves: `RunMetrics`. The one decision worth knowing: nothing else is read, no
torch is needed, and a run that still goes on or was killed is as good as one that ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.train.logs import METRICS, Event, read_events

AXES = {
    "tokens": ("tokens_seen", "tokens seen"),
    "steps": ("step", "steps"),
    "flops": ("flops_exact", "training compute (exact FLOPs)"),
    "seconds": ("seconds", "seconds of training"),
}
"""What runs can be drawn over: name -> key of the step events, title."""
SELECT = "select"
NUMBERS = frozenset(
    {
        "loss", "loss_speech_per_unit", "loss_text_per_token", "loss_marker", "learning_rate", "grad_norm", "mfu",
        "tokens_per_s", "data_wait_share", "seconds", "flops_exact", "gpu_hours", "dollars", "speech_per_unit",
        "speech_se", "speech_per_second", "speech_per_word", "text_per_token", "text_per_word", "marker", "mean",
    }
)  # fmt: skip
"""Keys that the page shows and that must be numbers; text under other keys is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMetrics:
    """One run.

    Args:
        start: the first start event. starts: all of them, one more per resume.
        steps: one row per step event, its numbers as columns. last_step: the last of them; empty before the first.
        checks: one row per check and set, its losses as columns,
            with step and tokens_seen. probes: one row per check that has some.
        checkpoints, notes: as logged. stop: the stop event if nothing came after it, else None.
    """

    name: str
    path: Path
    start: Event
    starts: Sequence[Event]
    steps: pd.DataFrame
    last_step: Event
    checks: pd.DataFrame
    probes: pd.DataFrame
    checkpoints: Sequence[Event] = field(default_factory=list)
    notes: Sequence[str] = field(default_factory=list)
    stop: Event | None

    @property
    def state(self) -> str:
        """Why it ended, or that it has not."""
        return "not ended" if self.stop is None else str(self.stop["reason"])

    def places(self, table: pd.DataFrame, by: str) -> Float[np.ndarray, " rows"]:
        """Where on an axis of AXES the rows of `checks` or `probes` lie; between logged steps interpolated.

        Raises:
            DataError: the run logs no such numbers.
        """
        key = AXES[by][0]
        if key in table:
            return table[key].to_numpy(float)
        if key not in self.steps:
            raise DataError(f"{self.path}: no step has '{key}', so it cannot be drawn by {by}; choose another axis")
        logged = self.steps.dropna(subset=[key])
        return np.interp(table["tokens_seen"].to_numpy(float), logged["tokens_seen"], logged[key])


def read_runs(paths: Sequence[Path]) -> list[RunMetrics]:
    """Read runs, each a folder or its metrics.jsonl, and name them apart.

    Raises:
        DataError: a file that is missing or damaged, or is no run; the same run twice.
    """
    files = [path / METRICS if path.is_dir() else path for path in map(Path, paths)]
    folders = [file.resolve().parent for file in files]
    if len(set(folders)) < len(folders):
        raise DataError("a run is named twice; name each once")
    return [read_run(file, name) for file, name in zip(files, distinct_names(folders), strict=True)]


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that differ. Example: a/run, b/run -> 'a/run', 'b/run'; a/x, a/y -> 'x', 'y'"""
    for depth in range(1, max((len(folder.parts) for folder in folders), default=1) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


def read_run(path: Path, name: str) -> RunMetrics:
    """Read one metrics.jsonl.

    Raises:
        DataError: missing, damaged, without a start event, steps that do not grow, or text where a number is due.
    """
    events = read_events(path)
    starts = [event for event in events if event["event"] == "start"]
    if not starts:
        raise DataError(f"{path}: no start event, so this is not the log of a run; give the folder of a run")
    checks, probes, steps = dict[tuple[int, str], Event](), dict[int, Event](), list[Event]()
    for line, event in enumerate(events, start=1):
        if event["event"] == "step":
            if steps and event["step"] <= steps[-1]["step"]:
                raise DataError(
                    f"{path}: line {line}: step {event['step']} comes after step {steps[-1]['step']}; two runs wrote "
                    "this file: keep the lines of one"
                )
            steps.append(_row(event, path, line))
        elif event["event"] == "check":
            place = {"step": event["step"], "tokens_seen": event["tokens_seen"]}
            for split, losses in _mapping(event["losses"], path, line).items():  # a check done again replaces the first
                losses = _row(_mapping(losses, path, line), path, line)
                checks[event["step"], split] = {**place, "set": split, **losses}
            if event.get("probes"):
                probes[event["step"]] = {**place, **_row(_mapping(event["probes"], path, line), path, line)}
    last = [event for event in events if event["event"] != "note"][-1]
    return RunMetrics(
        name=name,
        path=path,
        start=starts[0],
        starts=starts,
        steps=pd.DataFrame(steps),
        last_step=steps[-1] if steps else {},
        checks=pd.DataFrame(list(checks.values())),
        probes=pd.DataFrame(list(probes.values())),
        checkpoints=[event for event in events if event["event"] == "checkpoint"],
        notes=[str(event["text"]) for event in events if event["event"] == "note"],
        stop=last if last["event"] == "stop" else None,
    )


def _row(event: Mapping[str, Any], path: Path, line: int, above: str = "") -> Event:
    """Numbers of an event, those of mappings as 'key/inner'."""
    row: Event = {}
    for key, value in event.items():
        if isinstance(value, Mapping):
            row |= _row(value, path, line, f"{above}{key}/")
        elif isinstance(value, str) and key in NUMBERS:
            raise DataError(f"{path}: line {line}: {above}{key} = {value!r} is no number; correct or delete the line")
        elif value is not None and not isinstance(value, str | list):
            row[above + key] = value
    return row


def _mapping(value: Any, path: Path, line: int) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DataError(f"{path}: line {line}: {value!r} stands where losses by name are due; delete the line")
    return value
