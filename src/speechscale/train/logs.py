"""The log of a run: one JSON object per line in RUN/metrics.jsonl.

Enters: what the loop tells about its start, steps, checks, checkpoints and end. Leaves: lines that read back exactly,
and the same events for every sink (dashboard, TensorBoard ...). The one decision worth knowing: the file is the truth
and comes first; a sink that fails is told once and switched off, and training goes on. docs/runs.md lists all keys.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from speechscale.errors import DataError
from speechscale.files import complete_file

METRICS = "metrics.jsonl"
Event = dict[str, Any]
NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""JSON has no such numbers: they are written as these strings."""
OF_NUMBERS = ("step", "check")
"""Events without text: there, the strings of NON_FINITE are read back as numbers."""
NEEDED = {
    "step": ("step", "tokens_seen"),
    "check": ("step", "tokens_seen", "losses"),
    "checkpoint": ("step", "path"),
    "note": ("text",),
    "stop": ("reason", "step", "tokens_seen"),
}
"""What each event must hold; `start` may hold anything."""


class Sink(Protocol):
    """Something else that is told every event, in order; whatever it raises is no harm to the run."""

    name: str

    def __call__(self, event: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class RunLog:
    """Writes RUN/metrics.jsonl and tells the sinks. Only rank 0 has one.

    Example:
        with RunLog.open(folder, sinks=[Dashboard()]) as log:
            log.start({"config": config, "params_total": 5_000_000})
            log.step({"step": 1, "tokens_seen": 4096, "loss": 6.9})
            log.stop({"reason": "tokens", "step": 1, "tokens_seen": 4096, "seconds": 1.5})
    """

    def __init__(self, path: Path, file: BinaryIO, tokens_logged: int, sinks: Sequence[Sink]) -> None:
        self.path, self.tokens_logged = path, tokens_logged
        self._file, self._sinks = file, list(sinks)

    @classmethod
    def open(cls, folder: Path, *, resume_step: int | None = None, sinks: Sequence[Sink] = ()) -> RunLog:
        """Begin a log, or go on with one.

        Args:
            resume_step: step of the checkpoint that the run goes on from; lines of later steps, which a killed run
                had written, are dropped in one move, so that no step occurs twice. 0: begins anew, its notes stay.
                None: a new run.

        Raises:
            DataError: another process writes it; a new run where there is a log; a damaged line.
        """
        path = Path(folder) / METRICS
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            content = path.read_bytes()
            if content and resume_step is None:
                raise DataError(f"{path}: the log of another run; resume that run, or choose another folder")
            events, lines = parse_events(content, path), content.split(b"\n")
            kept = [k for k, event in enumerate(events) if event.get("step", 0) <= (resume_step or 0)]
            wanted = b"".join(lines[k] + b"\n" for k in kept)
            if wanted != content:
                with complete_file(path) as draft:
                    draft.write_bytes(wanted)
        tokens = max((events[k].get("tokens_seen", 0) for k in kept), default=0)
        return cls(path, _lock(path), tokens, sinks)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, values: Mapping[str, Any]) -> None:
        """The run begins or goes on; `time` (UTC) and `tokens_logged` (of the lines that stay) are added."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._write("start", {"time": now, "tokens_logged": self.tokens_logged, **values})

    def step(self, values: Mapping[str, Any]) -> None:
        """Losses and rates since the last such event."""
        self._write("step", values)

    def check(self, values: Mapping[str, Any]) -> None:
        """Validation losses by set."""
        self._write("check", values)

    def checkpoint(self, values: Mapping[str, Any]) -> None:
        """A checkpoint is complete."""
        self._write("checkpoint", values)

    def note(self, text: str) -> None:
        """Something that a reader of the run should know."""
        self._write("note", {"text": text})

    def stop(self, values: Mapping[str, Any]) -> None:
        """The run ends, and why."""
        self._write("stop", values)

    def close(self) -> None:
        """Close the sinks, then the file."""
        if self._file.closed:
            return
        sinks, self._sinks = self._sinks, []
        with self._file:
            for sink in sinks:
                try:
                    sink.close()
                except Exception as error:
                    self._tell_failure(sink, error)

    def _write(self, kind: str, values: Mapping[str, Any]) -> None:
        missing = [key for key in NEEDED.get(kind, ()) if key not in values]
        assert not missing, f"{kind} event without {missing}"
        assert "event" not in values, f"{kind} event: 'event' is taken"
        event: Event = {"event": kind, **plain(values)}
        self._append(encode_event(event))
        for sink in list(self._sinks):
            if sink not in self._sinks:  # switched off by the note of another one's failure
                continue
            try:
                sink(event)
            except Exception as error:
                self._sinks.remove(sink)
                with contextlib.suppress(Exception):
                    sink.close()
                self._tell_failure(sink, error)

    def _append(self, line: bytes) -> None:
        """Write the whole line or, on a full disk, nothing of it."""
        end, rest = os.fstat(self._file.fileno()).st_size, memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            os.ftruncate(self._file.fileno(), end)
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _tell_failure(self, sink: Sink, error: Exception) -> None:
        text = f"{sink.name} failed and is switched off, training goes on ({type(error).__name__}: {error})"
        self.note(text)
        warnings.warn(text, RuntimeWarning, stacklevel=4)


def read_events(path: Path) -> list[Event]:
    """All events of a metrics.jsonl, the one at place k from line k + 1; a last line without its end is left out.

    Raises:
        DataError: the file is missing or a line is damaged.
    """
    try:
        return parse_events(path.read_bytes(), path)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: the file is missing; give the folder of a run or its {METRICS}") from None


def parse_events(content: bytes, path: Path) -> list[Event]:
    """See `read_events`; `path` is for messages."""
    events = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            event = json.loads(line)
            if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                raise ValueError("not an object with an 'event'")
            if event["event"] in OF_NUMBERS:
                event = _numbers(event)
            _check(event)
        except ValueError as error:
            raise DataError(f"{path}: line {number} is damaged ({error}); delete the line") from error
        events.append(event)
    return events


def encode_event(event: Event) -> bytes:
    """One line of JSON; floats read back exactly."""
    options: dict[str, Any] = {"separators": (",", ":"), "ensure_ascii": False, "allow_nan": False}
    try:
        text = json.dumps(event, **options)
    except ValueError:  # not finite: rare, so only then searched for
        text = json.dumps(_strings(event), **options)
    return text.encode() + b"\n"


def plain(value: Any) -> Any:
    """Turn mappings, sequences, paths and single-valued arrays and tensors into what JSON knows.

    Raises:
        TypeError: anything else.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        return float(value) if isinstance(value, float) else int(value)  # np.float64 is a float
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return plain(value.item())
    raise TypeError(f"a log holds numbers, text, mappings and lists, not {type(value).__name__}: {value!r}")


def _strings(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strings(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_strings(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: entry if key == "event" else _numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_numbers(entry) for entry in value]
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def _check(event: Event) -> None:
    """Raise ValueError where an event lacks a key, or counts with something else than whole numbers."""
    for key in NEEDED.get(event["event"], ()):
        if key not in event:
            raise ValueError(f"a {event['event']} event without '{key}'")
    for key in ("step", "tokens_seen"):
        if key in event and (not isinstance(event[key], int) or isinstance(event[key], bool)):
            raise ValueError(f"{key} = {event[key]!r} is no whole number")


def _lock(path: Path) -> BinaryIO:
    """Open for appending, unbuffered; the kernel frees the lock when the process ends, however it ends."""
    file = path.open("ab", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise DataError(f"{path} is in use by another run; wait for it, or choose another folder") from None
    except OSError:
        pass  # a file system without locks
    return file
