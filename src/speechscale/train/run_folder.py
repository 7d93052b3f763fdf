"""The folder of a run: whose it is, and the models in it.

Enters: a recipe, a folder. Leaves: the folder, marked by job.json as this recipe's; stock model folders.
The one decision worth knowing: a folder belongs to one recipe. The same command goes on where it was; another recipe
is refused with the fields that differ.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechscale.errors import DataError, StaleStep
from speechscale.files import read_json, write_json
from speechscale.settings import differences
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.train.checkpoints import Checkpoint, Checkpoints
from speechscale.train.logs import RunLog, Sink
from speechscale.train.parallel import Group, save_stock

JOB, RESULT = "job.json", "result.json"
MakeSinks = Callable[[], list[Sink]]
"""Makes further readers of the log; called on rank 0, once the folder is the run's."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A run folder under way. `start`: to go on from. `log`: on rank 0. `notes`: what checkpoints have to say."""

    saves: Checkpoints
    start: Checkpoint | None
    log: RunLog | None
    notes: list[str]

    @property
    def start_step(self) -> int | None:
        """Step of the checkpoint to go on from."""
        return None if self.start is None else self.start.step

    def tell_notes(self) -> None:
        """Put the notes into the log."""
        while self.notes:
            note = self.notes.pop(0)
            if self.log is not None:
                self.log.note(note)

    def log_save(self, step: int) -> None:
        """Put a checkpoint into the log."""
        if self.log is not None:
            self.log.checkpoint({"step": step, "path": f"checkpoints/step-{step:08d}"})


@contextmanager
def open_run(folder: Path, group: Group, *, keep_last: int, sinks: MakeSinks) -> Iterator[Opened]:
    """Open checkpoints and log of a claimed folder, where an earlier start left them. Called by all processes.

    Raises:
        DataError: there are checkpoints and none is whole; another process writes the log.
    """
    notes: list[str] = []
    with ExitStack() as stack:
        saves = stack.enter_context(Checkpoints(folder / "checkpoints", group, keep_last=keep_last, warn=notes.append))
        start = saves.latest()
        log = None
        if group.leads:
            log = stack.enter_context(RunLog.open(folder, resume_step=start.step if start else 0, sinks=sinks()))
        yield Opened(saves, start, log, notes)


def claim(recipe: Mapping[str, Any], folder: Path, group: Group, *, fresh: bool) -> None:
    """Make the run folder this recipe's. Called by all processes.

    Args:
        fresh: remove what an earlier start left.

    Raises:
        StaleStep: it is another recipe's. DataError: it holds something else.
    """
    problem: Exception | None = None
    if group.leads:
        try:
            _claim(recipe, folder, fresh)
        except (DataError, StaleStep) as error:
            problem = error
    heard = group.gather(problem)[0]
    if heard is not None:
        raise heard


def _claim(recipe: Mapping[str, Any], folder: Path, fresh: bool) -> None:
    path = folder / JOB
    if fresh and path.is_file():
        shutil.rmtree(folder)
    if path.is_file():
        changed = differences(read_json(path, "job", "give another --out"), recipe)
        if changed:
            raise StaleStep(
                f"{folder} was begun with another recipe:\n  " + "\n  ".join(changed) + "\ngive another --out, or "
                "--fresh to remove what is there"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder} holds other files and no {JOB}; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, dict(recipe))


def save_folder(model: Any, vocabulary: Vocabulary, folder: Path, group: Group) -> None:
    """Write a stock model folder with its vocabulary, complete or absent. Called by all processes."""
    draft = folder.with_name(f".{folder.name}.partial")
    if group.leads:
        shutil.rmtree(draft, ignore_errors=True)
    save_stock(model, draft, group)
    if group.leads:
        vocabulary.save(draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
