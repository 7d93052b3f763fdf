"""Write a nested table as TOML, for tests of files that people write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_toml(path: Path, table: Mapping[str, Any]) -> Path:
    """Write and return the path; None is left out."""
    path.write_text("\n".join(_lines(table, "")) + "\n")
    return path


def _lines(table: Mapping[str, Any], prefix: str) -> list[str]:
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping) and value is not None}
    lines = [f"[{prefix.rstrip('.')}]"] if prefix else []
    lines += [f"{key} = {json.dumps(value)}" for key, value in plain.items()]  # strings, numbers and lists look alike
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += _lines(value, f"{prefix}{key}.")
    return lines
