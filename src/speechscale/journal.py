"""Long work over many items: in parts, on worker processes, resumable at every item after any kill.

Enters: work cut into parts of a few hundred items. Leaves: one row per item, in order, whatever happened on the way.
The one decision worth knowing: each part is an append-only file of JSON lines, one per item, written the moment the
item is done; a restart drops a torn last line and goes on behind it. Rows depend on their item only, so that any number
of workers and restarts gives the same rows.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pebble import ProcessExpired, ProcessPool

from speechscale.errors import DataError, StaleStep
from speechscale.files import read_json, write_json
from speechscale.progress import Progress, Watch
from speechscale.workers import behave, one_thread_environment

Row = dict[str, Any]
POLL_S = 0.25
AHEAD = 2
"""Parts handed to each worker ahead of time."""
START_S = 600.0
"""How long a worker may load its models, whatever the patience with items."""
UNBORN = 3
"""So many workers may die before they begin; more, and it is not the items' fault."""
DIED = "its worker died (exit code {}: out of memory, or a crash in a library); shorten or drop the utterance"
HUNG = "no answer within {:.0f} s; shorten or drop the utterance"
"""Why an item is skipped that cost two workers: one in company, one alone."""


class Work(Protocol):
    """What is done to the items; pickled to the workers. `start` loads models there, once per process.

    May have `patience(item) -> seconds`: for items that may take longer than `patience_s` of `run_parts`.
    """

    def start(self) -> None: ...

    def items(self, part: int) -> Sequence[Any]:
        """The items of a part, in order; each has an `id`."""
        ...

    def rows(self, items: Sequence[Any]) -> Iterator[Row]:
        """One JSON-like row per item, in order, with "id", and "seconds" of audio if it has any. See `skip_row`."""
        ...


def skip_row(id: str, message: str) -> Row:
    """A row for an item that cannot be used; `message` is 'what is wrong; remedy'."""
    reason, _, remedy = message.rpartition("; ")
    return {"id": id, "skip": [reason or remedy, remedy if reason else "correct or drop the utterance"]}


def run_parts(
    work: Work,
    parts: Sequence[int],
    folder: Path,
    *,
    recipe: Mapping[str, Any],
    workers: int = 1,
    patience_s: float = 600.0,
    stop_on_skip: bool = False,
    watch: Watch | None = None,
) -> None:
    """Do all parts; `read_part` gives the rows afterwards.

    Args:
        parts: number of items of each part. folder: holds the journal files; delete it when the rows are used.
        recipe: what defines the rows; a folder begun with another one is refused.
        workers: processes; 0 works in this one, without watchdog.
        patience_s: without a new row for this long a worker is taken for hanging and replaced; see `Work.patience`.
        stop_on_skip: raise at the first skip instead of going on; it is not written down, so the next run tries again.

    Raises:
        StaleStep: the folder was begun with another recipe. DataError: in use by another process, or a skip.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _check_recipe(folder / "recipe.json", recipe)
        done = [_count(folder, part) for part in range(len(parts))]
        if stop_on_skip:
            for part in range(len(parts)):
                _stop_on(read_part(folder, part))
        runner = _Runner(work, list(parts), folder, sum(done), patience_s, stop_on_skip, watch)
        todo = [part for part, count in enumerate(done) if count < parts[part]]
        if todo and workers == 0:
            runner.here(todo)
        elif todo:
            runner.on_workers(todo, workers)
        for part, count in enumerate(parts):
            rows = _count(folder, part)
            assert rows == count, f"part {part}: {rows} rows of {count}"


def read_part(folder: Path, part: int) -> list[Row]:
    """The finished rows of a part, in order; a torn last line is left out."""
    path = _journal(folder, part)
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"journal {path}: line {len(rows) + 1} is damaged ({error}); delete {folder}") from error
    return rows


def _count(folder: Path, part: int) -> int:
    path = _journal(folder, part)
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _journal(folder: Path, part: int) -> Path:
    return folder / f"part-{part:05d}.jsonl"


def _check_recipe(path: Path, recipe: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(dict(recipe)))
    if not path.exists():
        write_json(path, wanted)
        return
    found = read_json(path, "journal", f"delete {path.parent}")
    changed = [
        f"{key}: {found.get(key)!r} -> {wanted.get(key)!r}"
        for key in sorted({*found, *wanted})
        if found.get(key) != wanted.get(key)
    ]
    if changed:
        raise StaleStep(
            f"{path.parent} was begun with another recipe ({'; '.join(changed)}); "
            f"finish it with the old one, delete it, or choose another output"
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"{folder} is in use by another run; wait for it, or choose another output") from error
        yield


def _do_part(
    work: Work, folder: Path, part: int, counters: Any, *, stop_on_skip: bool, alone: bool, lost: Mapping[str, str]
) -> None:
    """Append the missing rows of one part.

    Args:
        alone: after a death, hand over items one by one, so that the next death names its item.
        lost: items that must not be tried again, and why.
    """
    with _journal(folder, part).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # an orphan of a killed run may write for a moment longer
        os.utime(file.fileno())  # tells the watchdog that the models are loaded
        items = work.items(part)[_count(folder, part) :]
        file.truncate(_journal(folder, part).read_bytes().rfind(b"\n") + 1)
        for row in _rows(work, items, alone, lost):
            if stop_on_skip:
                _stop_on([row])
            _write(file, row, counters)


def _rows(work: Work, items: Sequence[Any], alone: bool, lost: Mapping[str, str]) -> Iterator[Row]:
    for group in [[item] for item in items] if alone else [items]:
        if alone and group[0].id in lost:
            yield skip_row(group[0].id, lost[group[0].id])
            continue
        for item, row in zip(group, work.rows(group), strict=True):
            assert item.id == row["id"], f"row of '{row['id']}' came where '{item.id}' was due"
            yield row


def _write(file: Any, row: Row, counters: Any) -> None:
    file.write(json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
    file.flush()
    with counters.get_lock():
        counters[0] += 1
        counters[1] += row.get("seconds", 0.0)
        counters[2] += "skip" in row


def _stop_on(rows: Sequence[Row]) -> None:
    for row in rows:
        if "skip" in row:
            reason, remedy = row["skip"]
            raise DataError(f"{row['id']}: {reason}; {remedy} (or go on without it: --on-error skip)")


@dataclass(slots=True)
class _Watched:
    """The last sign of life of a part (size and time of its journal), since when, and how long silence is fine."""

    mark: tuple[int, int]
    patience_s: float
    begun: bool = False
    since: float = math.inf


@dataclass(slots=True)
class _Runner:
    """Schedule the parts; `died` maps a part to the items it was at when its workers died, and what became of them."""

    work: Work
    parts: list[int]
    folder: Path
    kept: int
    patience_s: float
    stop_on_skip: bool
    watch: Watch | None
    died: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    watched: dict[int, _Watched] = field(default_factory=dict)
    unborn: int = 0
    began: float = field(default_factory=time.perf_counter)
    told: float = 0.0

    def here(self, todo: Sequence[int]) -> None:
        counters = multiprocessing.get_context("spawn").Array("d", 3)
        self.work.start()
        for part in todo:
            _do_part(self.work, self.folder, part, counters, stop_on_skip=self.stop_on_skip, alone=False, lost={})
            self._tell(counters)
        self._tell(counters, force=True)

    def on_workers(self, todo: Sequence[int], workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        counters = context.Array("d", 3)
        pool = ProcessPool(
            max_workers=min(workers, len(todo)),
            context=context,
            initializer=_start_worker,
            initargs=(os.getpid(), self.work, counters),
        )
        with one_thread_environment():
            try:
                self._drain(pool, todo, counters, ahead=AHEAD * workers)
                pool.close()
            except BaseException:
                pool.stop()
                raise
            finally:
                pool.join()
        self._tell(counters, force=True)

    def _drain(self, pool: ProcessPool, todo: Sequence[int], counters: Any, ahead: int) -> None:
        waiting, running = deque(todo), dict[Future[None], int]()
        while waiting or running:
            while waiting and len(running) < ahead:
                part = waiting.popleft()
                running[self._schedule(pool, part)] = part
            finished, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            for future in finished:
                part = running.pop(future)
                try:
                    future.result()
                except (ProcessExpired, CancelledError) as error:
                    self._mourn(part, error)
                    running[self._schedule(pool, part)] = part
            for future, part in running.items():
                if future.running() and self._hangs(part):
                    future.cancel()
            self._tell(counters)

    def _schedule(self, pool: ProcessPool, part: int) -> Future[None]:
        self.watched[part] = _Watched(_mark(self.folder, part), max(START_S, self.patience_s))
        options = {
            "stop_on_skip": self.stop_on_skip,
            "alone": part in self.died,
            # The first death of a part happened in company and blames nobody; later ones happened alone.
            "lost": dict(self.died.get(part, [])[1:]),
        }
        future: Future[None] = pool.schedule(_work_part, args=(self.folder, part), kwargs=options)
        return future

    def _mourn(self, part: int, error: BaseException) -> None:
        watched, code = self.watched[part], getattr(error, "exitcode", None)
        if not watched.begun and _mark(self.folder, part) == watched.mark:
            self.unborn += 1
            if self.unborn > UNBORN:
                raise DataError(f"workers die while they start (exit code {code}); run again with fewer workers")
            return
        why = HUNG.format(watched.patience_s) if isinstance(error, CancelledError) else DIED.format(code)
        self.died.setdefault(part, []).append((self._due(part).id, why))

    def _due(self, part: int) -> Any:
        """The item whose row comes next."""
        position, items = _count(self.folder, part), self.work.items(part)
        return items[min(position, len(items) - 1)]

    def _hangs(self, part: int) -> bool:
        now, mark, watched = time.perf_counter(), _mark(self.folder, part), self.watched[part]
        if mark != watched.mark:
            watched.mark, watched.begun, watched.since, watched.patience_s = mark, True, now, self.patience_s
        watched.since = min(watched.since, now)
        if now - watched.since <= watched.patience_s:
            return False
        if hasattr(self.work, "patience"):
            watched.patience_s = max(watched.patience_s, self.work.patience(self._due(part)))
        return now - watched.since > watched.patience_s

    def _tell(self, counters: Any, force: bool = False) -> None:
        now = time.perf_counter()
        if self.watch is None or (now - self.told < 1.0 and not force):
            return
        self.told = now
        self.watch(
            Progress(
                items_done=int(counters[0]),
                items_kept=self.kept,
                items_total=sum(self.parts),
                audio_s=counters[1],
                wall_s=now - self.began,
                note=f"{int(counters[2]):,} dropped" if counters[2] else "",
            )
        )


def _mark(folder: Path, part: int) -> tuple[int, int]:
    path = _journal(folder, part)
    if not path.exists():
        return 0, 0
    found = path.stat()
    return found.st_size, found.st_mtime_ns


_worker: dict[str, Any] = {}


def _start_worker(parent: int, work: Work, counters: Any) -> None:
    behave(parent)
    _worker.update(work=work, counters=counters, started=False)


def _work_part(folder: Path, part: int, **options: Any) -> None:
    if not _worker["started"]:  # here and not in the initializer, so that its errors reach the caller
        _worker["work"].start()
        _worker["started"] = True
    _do_part(_worker["work"], folder, part, _worker["counters"], **options)
