"""Named steps with records: what was done, from what recipe, with which result.

Enters: `Step(name, function, config, inputs)`. Leaves: a folder named after the step, its `record.json` written last.
The one decision worth knowing: the fingerprint of the recipe is kept in the record and never in a path. Same recipe: no
work. Changed recipe: refused with the differing fields. Half-done work lives under `.partial` and is never believed.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from speechscale.errors import DataError, StaleStep
from speechscale.files import complete_file

RECORD = "record.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One unit of work.

    Args:
        name: readable, unique; also its folder below the study's output.
        function: "module:function", called as function(config, inputs, out) -> results (JSON-able).
        config: everything that can change its numbers; JSON-able.
        inputs: names of the steps whose folders it reads.
        seconds: expected core-seconds, for ordering and the bill; not part of the recipe.
        summary: it collects whatever inputs have succeeded, and is redone (not refused) when they change.
    """

    name: str
    function: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...] = ()
    seconds: float = field(default=1.0, compare=False)
    summary: bool = False


def canonical(value: Any) -> str:
    """Deterministic JSON of a config. Raises TypeError for what has no stable text (a function, a set)."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def fingerprint(step: Step, inputs: Mapping[str, str]) -> str:
    """Hash of a step's recipe: function, config and its inputs' fingerprints."""
    recipe = {"function": step.function, "config": step.config, "inputs": dict(inputs)}
    return hashlib.sha256(canonical(recipe).encode()).hexdigest()[:32]


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a finished step, or None when there is none.

    Raises:
        DataError: the record exists but is not readable JSON.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return dict(record)
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not a readable record ({error}); remove the folder {folder} to redo the step"
        ) from error


def is_complete(step: Step, folder: Path, wanted: str, input_records: Mapping[str, str]) -> bool:
    """Tell whether the step's record matches its recipe and its files are all there.

    Returns False when the step has to be (re)done: no record, a file missing or of another size, or a summary whose
    inputs changed.
    Raises:
        StaleStep: the recorded recipe differs.
    """
    record = read_record(folder)
    if record is None:
        return False
    if record["fingerprint"] != wanted:
        if step.summary:
            return False
        changes = differences(record, step, input_records)
        raise StaleStep(
            f"step '{step.name}' was made with another recipe:\n"
            + "\n".join(f"    {line}" for line in changes)
            + "\n  put the old value back, choose another --out, or remove the old result: "
            f"speechscale study clean STUDY --step '{step.name}'"
        )
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == entry["bytes"]
        for name, entry in record["files"].items()
    )


def differences(record: Mapping[str, Any], step: Step, input_records: Mapping[str, str]) -> list[str]:
    """Lines like `train.learning_rate: 0.0003 -> 0.001` between a record and today's recipe."""
    lines = []
    if record["function"] != step.function:
        lines.append(f"function: {record['function']} -> {step.function}")
    old, new = _flatten(record["config"]), _flatten(json.loads(canonical(step.config)))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key, "absent") != new.get(key, "absent"):
            lines.append(f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}")
    for name in sorted(record["inputs"].keys() | input_records.keys()):
        if record["inputs"].get(name) != input_records.get(name):
            both = name in record["inputs"] and name in input_records
            lines.append(f"input '{name}': {'made anew' if both else 'added or removed'}")
    return lines or ["the record's fingerprint does not match its own fields (edited by hand?)"]


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: v for key, entry in value.items() for k, v in _flatten(entry, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): value}


def run_step(step: Step, root: Path, inputs: Mapping[str, str]) -> dict[str, Any]:
    """Do a step in a scratch folder, write its record last, move it into place; return the record.

    Args:
        root: folder of the study's steps. inputs: name -> fingerprint of each input step.
    """
    final = root / step.name
    held = root / ".partial" / f"{step.name.replace('/', '--')}.{os.getpid()}"
    scratch = held / final.name  # a step may write down what its folder is called
    shutil.rmtree(held, ignore_errors=True)
    scratch.mkdir(parents=True)
    module, _, name = step.function.partition(":")
    function: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
    wall, cpu = time.perf_counter(), _cpu_seconds()
    try:
        results = function(dict(step.config), {key: root / key for key in inputs}, scratch)
        record = {
            "name": step.name,
            "function": step.function,
            "fingerprint": fingerprint(step, inputs),
            "config": json.loads(canonical(step.config)),
            "inputs": dict(inputs),
            "results": results,
            "files": _files(scratch),
            "seconds": round(time.perf_counter() - wall, 3),
            "cpu_seconds": round(_cpu_seconds() - cpu, 3),
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "versions": versions(),
            "git_commit": git_commit(),
            "machine": f"{platform.machine()} {platform.system()} {os.cpu_count()} cores",
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        write_json(scratch / RECORD, record)
        shutil.rmtree(final, ignore_errors=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        scratch.rename(final)
    finally:
        shutil.rmtree(held, ignore_errors=True)
    return record


def _cpu_seconds() -> float:
    """Processor time of this process and of its finished children (the speech engine's workers)."""
    return sum(os.times()[:4])


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    entries = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            entries[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    return entries


def write_json(path: Path, value: Any) -> None:
    """Write JSON, complete or not at all; NaN is refused."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    with complete_file(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


@cache
def versions() -> dict[str, str]:
    """Versions of what can change a number."""
    found = {"python": platform.python_version()}
    for name in ("speechscale", "torch", "transformers", "numpy", "scipy", "tokenizers", "soxr", "espeakng-loader"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def git_commit() -> str:
    """Commit of the code that runs, with '+' when files differ from it; empty outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        if not git("ls-files", str(Path(__file__).resolve())):
            return ""
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", str(here)) else "")
    except (OSError, subprocess.SubprocessError):
        return ""
