"""Files that are either complete or absent, and checksums.

Enters: a path and something that writes it. Leaves: the finished file, or the old one untouched. The one decision worth
knowing: everything is written beside its target under a hidden name and moved into place in one step, so that a kill
or a full disk never leaves half a file under the real name.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speechscale.errors import DataError, StaleStep


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; move it to `path` if the block succeeds, else delete it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def held_alone(folder: Path, doing: str) -> Iterator[None]:
    """Make a folder and keep other processes that do the same out of it while the block runs.

    Raises:
        DataError: another one is at it; `doing` says at what. Example: "is speaking into it"
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DataError(f"{folder}: another run {doing}; wait for it or stop it") from None
    finally:
        os.close(handle)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write readable JSON with sorted keys, complete or not at all."""
    with complete_file(path) as draft:
        draft.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: the file is missing, is not JSON or is no object; `what` and `remedy` complete the message.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{what} {path}: the file is missing; {remedy}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{what} {path}: not readable as JSON ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise DataError(f"{what} {path}: holds a JSON {type(content).__name__}, an object is needed; {remedy}")
    return content


def read_versioned(
    path: Path, what: str, remedy: str, *, format: str, version: int, oldest: int | None = None
) -> dict[str, Any]:
    """Read a JSON object that names its format and version.

    Raises:
        DataError: as `read_json`, or another format or version than `oldest`..`version`.
    """
    saved = read_json(path, what, remedy)
    found = saved.get("format_version")
    if saved.get("format") != format or found not in range(oldest or version, version + 1):
        raise DataError(
            f"{what} {path}: format {saved.get('format')!r} version {found!r}, "
            f"this package reads {format!r} version {version}; {remedy}"
        )
    return saved


def claim_recipe(out: Path, recipe: dict[str, Any], what: str) -> None:
    """Write OUT/recipe.json, or see that the one there is the same, so that results of two recipes never mix.

    Args:
        recipe: everything that decides the results; it has `format` and `format_version`. what: that OUT holds.

    Raises:
        StaleStep: OUT holds results of another recipe. DataError: its recipe.json is none.
    """
    path = out / "recipe.json"
    if not path.is_file():
        write_json(path, recipe)
        return
    format, version = str(recipe["format"]), int(recipe["format_version"])
    found = read_versioned(path, "recipe", "choose another output", format=format, version=version)
    unlike = sorted(key for key in recipe if recipe[key] != found.get(key))
    if unlike:
        raise StaleStep(
            f"{out}: holds {what} made with another {', '.join(unlike)}; choose another output, or delete it"
        )


def canonical_sha256(content: dict[str, Any]) -> str:
    """Hash JSON-like content independently of key order and layout."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
