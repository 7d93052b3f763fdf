"""Curves for TensorBoard, Weights & Biases and trackio, beside metrics.jsonl.

Enters: the events of a run. Leaves: scalars under flat names (`train/loss`, `check/select/speech_per_unit`) over tokens
seen. The one decision worth knowing: `RunLog` isolates failures, so a writer simply raises; only a missing package is
told before the run begins.
"""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from speechscale.errors import DataError, MissingExtra
from speechscale.files import read_json, write_json

IDENTITIES = "writers.json"
"""In the run's folder: under which project, name and id each service knows the run."""
PROJECT = "speechscale"
AXES = ("event", "step", "tokens_seen", "tokens_total")
SECTIONS = {"step": "train", "check": "check"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a service calls the run. `id` is drawn once and kept, so that a resumed run goes on under it."""

    folder: Path
    project: str
    name: str
    id: str


class Writer(Protocol):
    """One service. Made before the run begins: raises MissingExtra then; talks to the service from `start` on."""

    def start(self, config: Mapping[str, Any], tokens_logged: int) -> None:
        """Open the run there, or the one known by this id; its curves are complete up to `tokens_logged`."""
        ...

    def write(self, scalars: Mapping[str, float], tokens_seen: int) -> None: ...

    def close(self) -> None: ...


class TensorBoardWriter:
    """Event files in RUN/tensorboard; values are rounded to fp32 there. What a resumed run repeats is hidden."""

    def __init__(self, identity: Identity) -> None:
        self._module = _module("torch.utils.tensorboard", "writing for TensorBoard", "tensorboard")
        self._summary = importlib.import_module("tensorboard.compat.proto.summary_pb2").Summary
        self._folder = identity.folder / "tensorboard"
        self._writer: Any = None

    def start(self, config: Mapping[str, Any], tokens_logged: int) -> None:
        self.close()
        self._writer = self._module.SummaryWriter(str(self._folder), purge_step=tokens_logged + 1)
        self._writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in _flat("", config)))

    def write(self, scalars: Mapping[str, float], tokens_seen: int) -> None:
        # One record for all: a sixth of the time of `add_scalar` for each.
        summary = self._summary(value=[{"tag": name, "simple_value": value} for name, value in scalars.items()])
        self._writer.file_writer.add_summary(summary, tokens_seen)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class WandbWriter:
    """A run of Weights & Biases; steps there are tokens seen. Before: `wandb login`, or WANDB_MODE=offline."""

    def __init__(self, identity: Identity) -> None:
        self._module = _module("wandb", "writing for Weights & Biases", "wandb")
        self._identity = identity
        self._run: Any = None

    def start(self, config: Mapping[str, Any], tokens_logged: int) -> None:
        known = self._identity
        self._run = self._module.init(
            project=known.project,
            name=known.name,
            id=known.id,
            resume="allow",
            config=dict(config),
            dir=str(known.folder),
        )

    def write(self, scalars: Mapping[str, float], tokens_seen: int) -> None:
        self._run.log(dict(scalars), step=tokens_seen)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()


class TrackioWriter:
    """A run of trackio; steps there are tokens seen. It knows a run by its name alone, so the name ends with the id."""

    def __init__(self, identity: Identity) -> None:
        self._module = _module("trackio", "writing for trackio", "trackio")
        self._identity = identity
        self._run: Any = None

    def start(self, config: Mapping[str, Any], tokens_logged: int) -> None:
        known = self._identity
        self._run = self._module.init(
            project=known.project, name=f"{known.name}-{known.id}", resume="allow", config=dict(config)
        )

    def write(self, scalars: Mapping[str, float], tokens_seen: int) -> None:
        self._run.log(dict(scalars), step=tokens_seen)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()


WRITERS: dict[str, Callable[[Identity], Writer]] = {
    "tensorboard": TensorBoardWriter,
    "wandb": WandbWriter,
    "trackio": TrackioWriter,
}


class WriterSink:
    """A writer as a sink of `RunLog`."""

    def __init__(self, name: str, writer: Writer) -> None:
        self.name = f"writer '{name}'"
        self._writer = writer

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "start":
            self._writer.start(event.get("config", {}), event["tokens_logged"])
        elif event["event"] in SECTIONS:
            self._writer.write(scalars(event), event["tokens_seen"])

    def close(self) -> None:
        self._writer.close()


def open_writers(
    names: Sequence[str], folder: Path, *, project: str | None = None, run_name: str | None = None
) -> list[WriterSink]:
    """Sinks for `RunLog`, one per name in WRITERS.

    Args:
        folder: of the run; RUN/writers.json keeps project, name and id for when the run is resumed.
        project: None: as before, or PROJECT. run_name: as people see it; None: as before, or the folder's name.

    Raises:
        DataError: an unknown name; another project or name than the run was begun with. MissingExtra: not installed.

    Example:
        RunLog.open(folder, sinks=open_writers(["tensorboard", "wandb"], folder, project="ablations"))
    """
    for name in names:
        if name not in WRITERS:
            raise DataError(f"writer '{name}' is not known; choose from {', '.join(WRITERS)}")
    path = Path(folder) / IDENTITIES
    remedy = "delete it to begin new runs there"
    saved: dict[str, Any] = read_json(path, "writers", remedy) if path.exists() else {}
    sinks, known = [], dict(saved)
    for name in dict.fromkeys(names):
        fresh = {"project": project or PROJECT, "name": run_name or path.resolve().parent.name}
        entry = known.setdefault(name, {**fresh, "id": secrets.token_hex(6)})
        for key, value in (("project", project), ("name", run_name)):
            if value and entry.get(key) != value:
                raise DataError(f"{path}: {name} has this run under {key} {entry.get(key)!r}, not {value!r}; {remedy}")
        sinks.append(WriterSink(name, WRITERS[name](Identity(folder=Path(folder), **entry))))
    if known != saved:
        write_json(path, known)
    return sinks


def scalars(event: Mapping[str, Any]) -> dict[str, float]:
    """Every number of a step or check event under a flat name.

    Example: {"event": "check", ..., "losses": {"select": {"marker": 0.5}}} -> {"check/select/marker": 0.5}
    """
    section = SECTIONS[event["event"]]
    parts = {key: value for key, value in event.items() if key not in AXES}
    flat: dict[str, Any] = {"train/step": event["step"]} if section == "train" else {}
    if section == "check":
        parts |= parts.pop("losses")
        flat |= _flat("probe", parts.pop("probes", {}))
    flat |= _flat(section, parts)
    return {
        name: value for name, value in flat.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _flat(f"{name}/{key}" if name else str(key), entry)
    else:
        yield name, value


def _module(name: str, what: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra(what, extra) from error
