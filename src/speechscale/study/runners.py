"""Run a graph of steps on worker processes, longest first, and survive what goes wrong.

Enters: steps in any order, a root folder, the number of jobs. Leaves: finished steps; failures told at the end.
The one decision worth knowing: a worker is one process with one torch thread and at most one GPU; the parent only
schedules. A step that fails stops its dependents, never its neighbors; a worker that dies is replaced and its step
tried once more.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from speechscale.errors import DataError
from speechscale.progress import duration
from speechscale.study.steps import Step, fingerprint, is_complete, read_record, run_step
from speechscale.workers import behave, one_thread_environment

PATIENCE_S = 600.0
"""A worker is stopped when its step takes this long plus PATIENCE_FACTOR times the expected core-seconds."""
PATIENCE_FACTOR = 30.0
SLOT_PATIENCE_S = 30.0
_HELD: list[Any] = []
"""Locked files of this process' slots; the lock lives as long as the file is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a study run did: names of steps by fate; reasons of failures."""

    done: tuple[str, ...]
    kept: tuple[str, ...]
    failed: Mapping[str, str]
    blocked: tuple[str, ...]
    seconds: float


@dataclass(slots=True, kw_only=True)
class _State:
    """Where the graph stands."""

    prints: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    retried: set[str] = field(default_factory=set)

    def settled(self, name: str) -> bool:
        return name in self.prints or name in self.failed or name in self.blocked


def topological(steps: Sequence[Step]) -> list[Step]:
    """Steps with inputs before their users. Raises DataError on an unknown input or a cycle."""
    by_name = {step.name: step for step in steps}
    assert len(by_name) == len(steps), "two steps share a name"
    order: list[Step] = []
    marks: dict[str, int] = {}

    def visit(name: str, user: str) -> None:
        if name not in by_name:
            raise DataError(f"step '{user}' needs '{name}', which no step makes")
        if marks.get(name) == 1:
            raise DataError(f"steps need each other in a circle: '{name}' and '{user}'")
        if name not in marks:
            marks[name] = 1
            for entry in by_name[name].inputs:
                visit(entry, name)
            marks[name] = 2
            order.append(by_name[name])

    for step in steps:
        visit(step.name, step.name)
    return order


def with_inputs(steps: Sequence[Step], only: str) -> list[Step]:
    """The step called `only` (or all steps in the folder of that name) and everything it needs."""
    by_name = {step.name: step for step in steps}
    wanted = [name for name in by_name if name == only or name.startswith(only.rstrip("/") + "/")]
    if not wanted:
        raise DataError(
            f"no step '{only}'; steps: {', '.join(sorted({s.name.split('/')[0] for s in steps}))} (see study status)"
        )
    needed: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in needed:
            needed.add(name)
            wanted.extend(by_name[name].inputs)
    return [step for step in steps if step.name in needed]


def priorities(order: Sequence[Step]) -> dict[str, float]:
    """Core-seconds of the longest chain that starts at each step: the critical path goes first."""
    weight: dict[str, float] = {}
    for step in reversed(order):
        weight[step.name] = weight.get(step.name, 0.0) + step.seconds
        for name in step.inputs:
            weight[name] = max(weight.get(name, 0.0), weight[step.name])
    return weight


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the study's folder; a second run on it is refused."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"{root} is in use by another run; wait for it, or choose another --out") from error
        yield


def check_records(order: Sequence[Step], root: Path) -> dict[str, str]:
    """Fingerprints of the steps already done, refusing changed recipes before anything is spent.

    Raises:
        StaleStep: a recorded recipe differs from today's.
    """
    prints: dict[str, str] = {}
    for step in order:
        if step.summary or any(name not in prints for name in step.inputs):
            continue
        inputs = {name: prints[name] for name in step.inputs}
        wanted = fingerprint(step, inputs)
        if is_complete(step, root / step.name, wanted, inputs):
            prints[step.name] = wanted
    return prints


def run_graph(
    steps: Sequence[Step], root: Path, *, jobs: int, say: Callable[[str], None], devices: Sequence[str] = ()
) -> Outcome:
    """Run every step that is not done; keep going around failures.

    Args:
        root: the study's step folder. jobs: worker processes. say: prints one line of progress.
        devices: GPUs handed out to the workers, one each, at least as many as jobs; one GPU may come several times.
            None given: the workers see what this process sees.
    Raises:
        StaleStep: some step on disk was made with another recipe (checked for all steps before any work).
        KeyboardInterrupt: passed on after the workers have been stopped; finished steps stay.
    """
    began = time.perf_counter()
    order = topological(steps)
    with locked(root):
        state = _State(prints=check_records(order, root))
        state.kept = list(state.prints)
        shutil.rmtree(root / ".partial", ignore_errors=True)
        todo = {step.name: step for step in order if step.name not in state.prints}
        if any(not step.summary for step in todo.values()) or _stale_summary(todo, root, state):
            _drain(todo, order, root, state, jobs, say, devices)
        else:
            state.kept.extend(todo)
    return Outcome(
        done=tuple(state.done),
        kept=tuple(state.kept),
        failed=dict(state.failed),
        blocked=tuple(state.blocked),
        seconds=time.perf_counter() - began,
    )


def _stale_summary(todo: Mapping[str, Step], root: Path, state: _State) -> bool:
    prints = dict(state.prints)
    for step in todo.values():
        inputs = {name: prints[name] for name in step.inputs if name in prints}
        wanted = fingerprint(step, inputs)
        if not is_complete(step, root / step.name, wanted, inputs):
            return True
        prints[step.name] = wanted
    return False


def _drain(
    todo: dict[str, Step],
    order: Sequence[Step],
    root: Path,
    state: _State,
    jobs: int,
    say: Callable[[str], None],
    devices: Sequence[str],
) -> None:
    weight = priorities(order)
    total, left = len(order), sum(step.seconds for step in todo.values())
    meter = _Meter(total=total, kept=len(state.kept), jobs=jobs, seconds_left=left)
    running: dict[Future[Any], Step] = {}
    with _pool(jobs, devices, root / ".devices") as pool:
        while todo or running:
            for step in _ready(todo, state, weight):
                if len(running) >= jobs:
                    break
                del todo[step.name]
                inputs = {name: state.prints[name] for name in step.inputs if name in state.prints}
                running[pool.schedule(_work, args=(step, root, inputs), timeout=_patience(step))] = step
            _block(todo, state, say)
            if not running:
                continue
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                _settle(running.pop(future), future, todo, state, meter, say)


def _patience(step: Step) -> float:
    return PATIENCE_S + PATIENCE_FACTOR * step.seconds


def _ready(todo: Mapping[str, Step], state: _State, weight: Mapping[str, float]) -> list[Step]:
    ready = [
        step
        for step in todo.values()
        if all(name in state.prints or (step.summary and state.settled(name)) for name in step.inputs)
    ]
    return sorted(ready, key=lambda step: (-weight[step.name], step.name))


def _block(todo: dict[str, Step], state: _State, say: Callable[[str], None]) -> None:
    changed = True
    while changed:
        changed = False
        for step in list(todo.values()):
            bad = [name for name in step.inputs if name in state.failed or name in state.blocked]
            if bad and not step.summary:
                del todo[step.name]
                state.blocked.append(step.name)
                say(f"skipped {step.name}: it needs '{bad[0]}', which failed")
                changed = True


def _settle(
    step: Step, future: Future[Any], todo: dict[str, Step], state: _State, meter: _Meter, say: Callable[[str], None]
) -> None:
    try:
        record = future.result()
    except ProcessExpired as error:
        if step.name not in state.retried:
            state.retried.add(step.name)
            todo[step.name] = step
            say(f"worker died in {step.name} (exit code {error.exitcode}; out of memory?); trying once more")
            return
        state.failed[step.name] = (
            f"its worker died twice (exit code {error.exitcode}); with little memory use fewer --jobs"
        )
    except TimeoutError:
        state.failed[step.name] = (
            f"no answer within {_patience(step):.0f} s; the worker was stopped; run again to retry"
        )
    except Exception as error:  # every failure of a step is told at the end, with its name
        state.failed[step.name] = _reason(error)
    if step.name in state.failed:
        say(f"FAILED {step.name}: {state.failed[step.name]}")
        return
    state.prints[step.name] = record["fingerprint"]
    state.done.append(step.name)
    say(meter.line(step, record))


def _reason(error: Exception) -> str:
    """What to tell the user about a failed step."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left on device" in str(error):  # safetensors and Arrow wrap the system's error
        return "the disk is full; free some space and run again"
    if isinstance(error, (ValueError, ImportError, FloatingPointError)):
        return str(error)
    return f"{type(error).__name__}: {error}"


@dataclass(slots=True, kw_only=True)
class _Meter:
    """Progress: expected core-seconds are rescaled by how long the finished steps really took."""

    total: int
    kept: int
    jobs: int
    seconds_left: float
    expected: float = 0.0
    measured: float = 0.0
    count: int = 0

    def line(self, step: Step, record: Mapping[str, Any]) -> str:
        self.count += 1
        self.expected += step.seconds
        self.measured += record["seconds"]
        self.seconds_left -= step.seconds
        left = max(0.0, self.seconds_left) * self.measured / max(self.expected, 1e-9) / self.jobs
        note = record["results"].get("note", "")
        done = f"[{self.kept + self.count}/{self.total}] {step.name}  {record['seconds']:.1f} s"
        return f"{done}{'  ' + note if note else ''}  (about {duration(left)} left)"


@contextlib.contextmanager
def _pool(jobs: int, devices: Sequence[str], slots: Path) -> Iterator[ProcessPool]:
    context = multiprocessing.get_context("spawn")
    arguments = (os.getpid(), tuple(devices), slots)
    pool = ProcessPool(max_workers=jobs, context=context, initializer=begin_worker, initargs=arguments)
    with one_thread_environment():
        try:
            yield pool
            pool.close()
        except BaseException:
            pool.stop()
            raise
        finally:
            pool.join()


def begin_worker(parent: int, devices: Sequence[str], slots: Path) -> None:
    """In a new worker: behave, see one GPU only, and use one thread."""
    behave(parent)
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = take_device(devices, slots)
    import torch  # here only: after the GPU is chosen, and the parent of a study of kept steps stays light

    torch.set_num_threads(1)


def take_device(devices: Sequence[str], slots: Path) -> str:
    """A device that no other worker holds; it is this process' until it ends, however it ends.

    A slot is a locked file and not an entry of a queue: a killed worker gives its lock back, an entry would be lost.

    Raises:
        RuntimeError: all are held.
    """
    slots.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + SLOT_PATIENCE_S
    while True:
        for number, device in enumerate(devices):
            file = (slots / str(number)).open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            _HELD.append(file)
            return device
        if time.monotonic() > deadline:  # the worker before is slow to die
            raise RuntimeError(f"no free device among {', '.join(devices)}: more workers than slots")
        time.sleep(0.1)


def _work(step: Step, root: Path, inputs: Mapping[str, str]) -> dict[str, Any]:
    record = run_step(step, root, inputs)
    return {
        "fingerprint": record["fingerprint"],
        "seconds": record["seconds"],
        "results": {"note": record["results"].get("note", "")},
    }


def step_states(steps: Sequence[Step], root: Path) -> dict[str, str]:
    """State of each step on disk: "done", "missing" or "stale" (made with another recipe)."""
    states: dict[str, str] = {}
    prints: dict[str, str] = {}
    for step in topological(steps):
        record = read_record(root / step.name)
        inputs = {name: prints[name] for name in step.inputs if name in prints}
        wanted = fingerprint(step, inputs)
        if record is None:
            states[step.name] = "missing"
        elif record["fingerprint"] == wanted:
            states[step.name] = "done"
            prints[step.name] = wanted
        else:
            states[step.name] = "stale"
    return states
