"""TOML files read strictly: every fault names the key, what came and the nearest known key.

Enters: a TOML file and a pydantic model. Leaves: the validated model. The one decision worth knowing: keys given on the
command line replace those of the file before anything is checked, so both are held to the same rules.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from speechscale.errors import DataError


class Section(BaseModel):
    """A frozen table; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


M = TypeVar("M", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises DataError: missing, or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give a TOML file") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a TOML file: {error}") from error


def parse_override(text: str) -> tuple[str, Any]:
    """Read one KEY=VALUE of the command line; the value is TOML, or a plain string.

    Example: "grid.seeds=[0, 1]" -> ("grid.seeds", [0, 1]); "corpus.path=my/dir" -> ("corpus.path", "my/dir")
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise DataError(f"--set {text}: expected KEY=VALUE with a dotted key, e.g. corpus.path=my/dir")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def override(data: dict[str, Any], key: str, value: Any) -> None:
    """Put a value under a dotted key, making tables on the way. Raises DataError where a table is a value."""
    *tables, last = key.split(".")
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise DataError(f"--set {key}: '{table}' is a value, not a table")
    data[last] = value


def nearest(key: str, allowed: Sequence[str]) -> str:
    """The end of a message about an unknown key."""
    match = difflib.get_close_matches(key, allowed, n=1)
    return f"; did you mean '{match[0]}'?" if match else f"; allowed: {', '.join(allowed)}"


def validate(kind: type[M], data: Mapping[str, Any], source: str) -> M:
    """Check a table against a model.

    Raises:
        DataError: one line per fault: the key, what came, what is allowed.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = [f"  {_fault(kind, issue)}" for issue in error.errors()]
        raise DataError(f"{source}: cannot be used\n" + "\n".join(lines)) from error


def _fault(kind: type[BaseModel], issue: Any) -> str:
    place = [str(entry) for entry in issue["loc"]]
    key = ".".join(place)
    if issue["type"] == "extra_forbidden":
        return f"unknown key {key}{nearest(place[-1], _fields(kind, place[:-1]))}"
    if issue["type"] == "missing":
        return f"{key} is missing; give it a value"
    text = issue["msg"].removeprefix("Value error, ")
    return f"{key}: {text}" if not key or "got" in text else f"{key}: {text} (got {issue['input']!r:.80})"


def _fields(kind: type[BaseModel], path: Iterable[str]) -> list[str]:
    """Names of the fields of the model at a path; a mapping's own keys are skipped over."""
    for name in path:
        if name in kind.model_fields:
            inner = _model_in(kind.model_fields[name].annotation)
            if inner is None:
                return []
            kind = inner
    return list(kind.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Fields in which two tables differ. Example: {"a": {"b": 1}}, {"a": {"b": 2}} -> ["a.b: 1 -> 2"]"""
    lines = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before!r:.60} -> {after!r:.60}")
    return lines
