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
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pebble import ProcessExpired, ProcessPool

from speechscale.errors import DataError, StaleStep
from speechscale.files import read_json, write_json

Row = dict[str, Any]
POLL_S = 0.25
LOST = "its worker died or hung (out of memory, or a crash in a library); shorten or drop the utterance"
"""Why an item is skipped whose worker died twice: once in company, once alone."""


class Work(Protocol):
    """What is done to the items; pickled to the workers. `start` loads models there, once per process."""

    def start(self) -> None: ...

    def items(self, part: int) -> Sequence[Any]:
        """The items of a part, in order; each has an `id`."""
        ...

    def rows(self, items: Sequence[Any]) -> Iterator[Row]:
        """One JSON-like row per item, in order, with "id", and "seconds" of audio if it has any. See `skip_row`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where the work stands: items and seconds of audio, of this run and in all; wall seconds of this run."""

    items_done: int
    items_kept: int
    items_total: int
    audio_s: float
    wall_s: float

    def line(self, what: str) -> str:
        """One line with rate and time left. Example: 'encoded 1,200/5,000  3.1 h  812 x real time  about 40 s left'."""
        rate = self.items_done / max(self.wall_s, 1e-9)
        left = (self.items_total - self.items_kept - self.items_done) / rate if rate else 0.0
        speed = f"  {self.audio_s / 3600:.2f} h  {self.audio_s / max(self.wall_s, 1e-9):,.0f} x real time"
        done = f"{what} {self.items_kept + self.items_done:,}/{self.items_total:,}"
        return f"{done}{speed if self.audio_s else ''}  {rate:,.1f}/s  about {_duration(left)} left"


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
    watch: Callable[[Progress], None] | None = None,
) -> None:
    """Do all parts; `read_part` gives the rows afterwards.

    Args:
        parts: number of items of each part. folder: holds the journal files; delete it when the rows are used.
        recipe: what defines the rows; a folder begun with another one is refused.
        workers: processes; 0 works in this one, without watchdog.
        patience_s: without a new row for this long a worker is taken for hanging and replaced.
        stop_on_skip: raise at the first skip instead of going on.

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


def _do_part(work: Work, folder: Path, part: int, counters: Any, alone: bool, lost: frozenset[str]) -> None:
    """Append the missing rows of one part.

    Args:
        alone: after a death, hand over items one by one, so that the next death names its item.
        lost: items that must not be tried again.
    """
    with _journal(folder, part).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # an orphan of a killed run may write for a moment longer
        items = work.items(part)[_count(folder, part) :]
        file.truncate(_journal(folder, part).read_bytes().rfind(b"\n") + 1)
        for group in [[item] for item in items] if alone else [items]:
            if alone and group[0].id in lost:
                _write(file, skip_row(group[0].id, LOST), counters)
                continue
            for item, row in zip(group, work.rows(group), strict=True):
                assert item.id == row["id"], f"row of '{row['id']}' came where '{item.id}' was due"
                _write(file, row, counters)


def _write(file: Any, row: Row, counters: Any) -> None:
    file.write(json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
    file.flush()
    with counters.get_lock():
        counters[0] += 1
        counters[1] += row.get("seconds", 0.0)


def _stop_on(rows: Sequence[Row]) -> None:
    for row in rows:
        if "skip" in row:
            reason, remedy = row["skip"]
            raise DataError(f"{row['id']}: {reason}; {remedy} (or go on without it: --on-error skip)")


@dataclass(slots=True)
class _Runner:
    """Schedule the parts; `died` maps a part to the items it was at when its workers died."""

    work: Work
    parts: list[int]
    folder: Path
    kept: int
    patience_s: float
    stop_on_skip: bool
    watch: Callable[[Progress], None] | None
    died: dict[int, list[str]] = field(default_factory=dict)
    seen: dict[int, tuple[int, float]] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)
    told: float = 0.0

    def here(self, todo: Sequence[int]) -> None:
        counters = multiprocessing.get_context("spawn").Array("d", 2)
        self.work.start()
        for part in todo:
            _do_part(self.work, self.folder, part, counters, False, frozenset())
            self._check(part)
            self._tell(counters)

    def on_workers(self, todo: Sequence[int], workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        counters = context.Array("d", 2)
        pool = ProcessPool(
            max_workers=min(workers, len(todo)),
            context=context,
            initializer=_start_worker,
            initargs=(os.getpid(), self.work, counters),
        )
        try:
            self._drain(pool, todo, counters)
            pool.close()
        except BaseException:
            pool.stop()
            raise
        finally:
            pool.join()
        self._tell(counters, force=True)

    def _drain(self, pool: ProcessPool, todo: Sequence[int], counters: Any) -> None:
        running = {self._schedule(pool, part): part for part in todo}
        while running:
            finished, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            for future in finished:
                part = running.pop(future)
                try:
                    future.result()
                    self._check(part)
                except (ProcessExpired, CancelledError):
                    self._mourn(part)
                    running[self._schedule(pool, part)] = part
            for future, part in running.items():
                if future.running() and self._hangs(part):
                    future.cancel()
            self._tell(counters)

    def _schedule(self, pool: ProcessPool, part: int) -> Future[None]:
        # The first death of a part happened in company and blames nobody; later ones happened alone.
        lost = frozenset(self.died.get(part, [])[1:])
        future: Future[None] = pool.schedule(_work_part, args=(self.folder, part, part in self.died, lost))
        return future

    def _mourn(self, part: int) -> None:
        position, items = _count(self.folder, part), self.work.items(part)
        self.seen.pop(part, None)
        self.died.setdefault(part, []).append(items[min(position, len(items) - 1)].id)

    def _hangs(self, part: int) -> bool:
        path, now = _journal(self.folder, part), time.perf_counter()
        size = path.stat().st_size if path.exists() else 0
        if part not in self.seen or self.seen[part][0] != size:
            self.seen[part] = (size, now)
        return now - self.seen[part][1] > self.patience_s

    def _check(self, part: int) -> None:
        if self.stop_on_skip:
            _stop_on(read_part(self.folder, part))

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
            )
        )


_worker: dict[str, Any] = {}


def _start_worker(parent: int, work: Work, counters: Any) -> None:
    """One thread per library; Ctrl-C is the parent's business; die when the parent does."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    _worker.update(work=work, counters=counters, started=False)


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work_part(folder: Path, part: int, alone: bool, lost: frozenset[str]) -> None:
    if not _worker["started"]:  # here and not in the initializer, so that its errors reach the caller
        _worker["work"].start()
        _worker["started"] = True
    _do_part(_worker["work"], folder, part, _worker["counters"], alone, lost)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
