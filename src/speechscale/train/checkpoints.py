"""Checkpoints of a run: written while training goes on, complete or absent, readable by any number of processes.

Enters: model, optimizer, the state of the run. Leaves: folders `step-N`; the newest good one read back.
The one decision worth knowing: torch's distributed checkpoint writes safetensors, each process its own shard, and our
manifest with sizes and SHA-256 comes last, before the folder gets its name. So nothing is pickled, nothing half written
is believed, and another number of processes reads the same tensors.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from speechscale.errors import DataError
from speechscale.files import read_versioned, write_json
from speechscale.train.parallel import Group

FORMAT, VERSION = "speechscale.checkpoint", 1
MANIFEST, STATE = "manifest.json", "state.json"
HASH_BYTES = 1 << 22
REMEDY = "delete the folder to start from an older checkpoint"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint on disk. `state`: what the run wrote beside the tensors."""

    folder: Path
    step: int
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run folder; a context manager that waits for what is being written.

    Args:
        folder: below which `step-N` folders lie. group: the processes of the run.
        keep_last: newest ones that stay. warn: told of damage and of failed saves.
    """

    def __init__(
        self, folder: Path, group: Group, *, keep_last: int = 2, warn: Callable[[str], None] = warnings.warn
    ) -> None:
        if keep_last < 1:
            raise DataError(f"train: keep_last = {keep_last}; keep at least 1 checkpoint")
        self.folder, self.group, self.keep_last, self.warn = folder, group, keep_last, warn
        self.protected: set[int] = set()
        self.best: int | None = None
        self._worker: threading.Thread | None = None
        self._problem: str | None = None
        self._own_group = not dist.is_initialized()

    def __enter__(self) -> Checkpoints:
        if self._own_group:  # torch writes asynchronously only in a process group; one of one process will do
            dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        self._talk = dist.new_group(backend="gloo", timeout=timedelta(minutes=60))
        if self.group.leads and self.folder.is_dir():
            for partial in self.folder.glob(".step-*"):
                shutil.rmtree(partial, ignore_errors=True)
        self.group.gather(None)
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            self._join()
        finally:
            if self._own_group:
                dist.destroy_process_group()

    # -- writing

    def save(self, model: Any, optimizer: Any, step: int, state: Mapping[str, Any]) -> None:
        """Start to write a checkpoint; training may go on at once. Called by all processes.

        A save that fails (the disk is full, say) is told through `warn`, leaves nothing behind and stops nothing.
        """
        self.wait()
        draft = self.folder / f".step-{step:08d}"
        if self.group.leads:
            draft.mkdir(parents=True, exist_ok=True)
        self.group.gather(None)
        writer = dcp.HuggingFaceStorageWriter(str(draft), save_distributed=True)
        written = dcp.async_save(_tensors(model, optimizer), storage_writer=writer, process_group=self._talk)
        saved = dict(state)
        self._worker = threading.Thread(target=self._finish, args=(written, draft, step, saved), daemon=True)
        self._worker.start()

    def wait(self) -> None:
        """Wait until the checkpoint that is being written is complete, or told to have failed."""
        self._join()
        if self._problem is not None:
            problem, self._problem = self._problem, None
            self.warn(problem)

    def _join(self) -> None:
        if self._worker is not None:
            self._worker.join()
            self._worker = None

    def _finish(self, written: Any, draft: Path, step: int, state: dict[str, Any]) -> None:
        """In a thread: wait for the tensors, hash them, publish the folder."""
        problem, own = "", {}
        try:
            written.result()
            own = {path.name: _entry(path) for path in self._own_files(draft)}
        except BaseException as error:  # told to the user by the main thread
            problem = _reason(error)
        heard: list[Any] = [None] * self.group.world
        try:
            dist.all_gather_object(heard, (problem, own), group=self._talk)
        except RuntimeError as error:  # a process is gone; the main thread will hear of it, too
            heard = [(_reason(error), {})]
        problems = [text for text, _ in heard if text]
        if self.group.leads and not problems:
            try:
                self._publish(draft, step, state, {name: entry for _, part in heard for name, entry in part.items()})
            except OSError as error:
                problems = [_reason(error)]
        if problems:
            if self.group.leads:
                shutil.rmtree(draft, ignore_errors=True)
            self._problem = f"checkpoint of step {step} in {self.folder} was not written: {problems[0]}"

    def _own_files(self, draft: Path) -> list[Path]:
        prefix = f"shard-{self.group.rank + 1:05d}-"
        return sorted(path for path in draft.iterdir() if path.name.startswith(prefix))

    def _publish(self, draft: Path, step: int, state: dict[str, Any], files: dict[str, Any]) -> None:
        write_json(draft / STATE, {"format": FORMAT, "format_version": VERSION, "step": step, "state": state})
        files[STATE] = _entry(draft / STATE)
        write_json(draft / MANIFEST, {"format": FORMAT, "format_version": VERSION, "files": files})
        final = self.folder / f"step-{step:08d}"
        shutil.rmtree(final, ignore_errors=True)
        draft.replace(final)
        numbers = sorted(number for number in map(_step_of, self.folder.glob("step-*")) if number is not None)
        loose = [number for number in numbers if number not in self.protected and number != self.best]
        for number in loose[: -self.keep_last]:
            shutil.rmtree(self.folder / f"step-{number:08d}", ignore_errors=True)

    # -- reading

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; damaged ones are told and passed over.

        Raises:
            DataError: there are checkpoints and none is whole.
        """
        folders = sorted((p for p in self.folder.glob("step-*") if _step_of(p) is not None), reverse=True)
        for folder in folders:
            problem = self.damage(folder)
            if not problem:
                return open_checkpoint(folder)
            older = " an older one is used" if folder != folders[-1] else ""
            self.warn(f"checkpoint {folder.name}: {problem};{older or ' there is no older one'}")
        if folders:
            raise DataError(
                f"{self.folder}: none of its {len(folders)} checkpoints is whole; copy them anew, or start afresh "
                "with --fresh"
            )
        return None

    def of_step(self, step: int) -> Checkpoint | None:
        """The checkpoint of a step; None, with a warning, if it is not there or not whole."""
        folder = self.folder / f"step-{step:08d}"
        if problem := self.damage(folder):
            self.warn(f"checkpoint {folder.name}: {problem}")
            return None
        return open_checkpoint(folder)

    def damage(self, folder: Path) -> str:
        """What is wrong with a checkpoint, or "". Files are shared out to the processes, which all hear the answer."""
        files, problem = {}, ""
        try:
            files = read_versioned(folder / MANIFEST, "checkpoint", REMEDY, format=FORMAT, version=VERSION)["files"]
        except DataError as error:
            problem = str(error)
        for number, (name, entry) in enumerate(sorted(files.items())):
            path = folder / name
            if not path.is_file() or path.stat().st_size != entry["bytes"]:
                problem = f"{name} is {'cut' if path.is_file() else 'missing'}"
            elif number % self.group.world == self.group.rank and _entry(path) != entry:
                problem = f"{name} differs from its checksum"
        return next((heard for heard in self.group.gather(problem) if heard), "")


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read what lies beside the tensors of a checkpoint.

    Raises:
        DataError: no checkpoint of this version.
    """
    content = read_versioned(folder / STATE, "checkpoint", REMEDY, format=FORMAT, version=VERSION)
    return Checkpoint(folder, int(content["step"]), content["state"])


def load_tensors(checkpoint: Checkpoint, model: Any, optimizer: Any = None) -> None:
    """Fill a model, and its optimizer if one is given, whatever the number of processes. Called by all processes.

    Raises:
        DataError: tensors that are missing or of another shape: the checkpoint of another model.
    """
    optimizers = () if optimizer is None else optimizer
    weights, moments = get_state_dict(model, optimizers, options=StateDictOptions(ignore_frozen_params=True))
    moments = moments or {"state": {}}
    wanted = _flatten(weights, moments)
    reader = dcp.HuggingFaceStorageReader(str(checkpoint.folder))
    known = reader.read_metadata().state_dict_metadata
    idle = {name for name in moments["state"] if not any(f"optimizer.{name}.{key}" in known for key in MOMENTS)}
    wanted = {key: value for key, value in wanted.items() if _parameter_of(key) not in idle}
    for name, tensor in wanted.items():
        size = getattr(known.get(name), "size", None)
        if size != tensor.size():
            came = "no such tensor" if size is None else f"a tensor of {tuple(size)}"
            raise DataError(
                f"checkpoint {checkpoint.folder}: {came} for '{name}' {tuple(tensor.size())}; it belongs to another "
                "model: give the config it was made with, or another --out"
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch notes that one process loads alone
        dcp.load(wanted, storage_reader=reader, no_dist=not dist.is_initialized())
    set_state_dict(
        model,
        optimizers,
        model_state_dict=weights,
        optim_state_dict={} if optimizer is None else moments,
        options=StateDictOptions(ignore_frozen_params=True, strict=False),
    )
    for name, parameter in model.named_parameters():
        if name in idle and optimizer is not None:  # it had not learned yet
            optimizer.state.pop(parameter, None)


def _tensors(model: Any, optimizer: Any) -> dict[str, Tensor]:
    return _flatten(*get_state_dict(model, optimizer, options=StateDictOptions(ignore_frozen_params=True)))


def _flatten(weights: Mapping[str, Any], moments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors by name, tied ones once; rates and decays are the config's business."""
    flat: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in weights.items():
        key = (tensor.to_local() if hasattr(tensor, "to_local") else tensor).data_ptr()
        if key and key in seen:
            continue
        seen.add(key)
        flat[f"model.{name}"] = tensor
    for name, entries in moments["state"].items():
        flat |= {f"optimizer.{name}.{key}": value for key, value in entries.items()}
    return flat


def _parameter_of(key: str) -> str:
    """The parameter that a moment belongs to. Example: "optimizer.a.weight.exp_avg" -> "a.weight"; "model.a" -> "" """
    return key.removeprefix("optimizer.").rpartition(".")[0] if key.startswith("optimizer.") else ""


def _entry(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_BYTES):
            digest.update(chunk)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _step_of(folder: Path) -> int | None:
    number = folder.name.removeprefix("step-")
    return int(number) if folder.is_dir() and number.isdigit() else None


def _reason(error: BaseException) -> str:
    if failures := getattr(error, "failures", None):  # torch gathers what went wrong on each process
        error = next(iter(failures.values()))[0]
    full = isinstance(error, OSError) and error.errno in FULL_DISK
    if full or "No space left" in str(error):  # torch and safetensors wrap the system's error
        return "the disk is full; free some space, the next save is tried as planned"
    return f"{type(error).__name__}: {str(error).strip()[:300]}"
