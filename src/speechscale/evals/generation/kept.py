"""Answers that were expensive to get, kept in a file of JSON lines.

Enters: a key and a JSON object, one by one, from any thread. Leaves: the same object for the same key, also in the next
run. The one decision worth knowing: lines are only ever appended, each in one write that reaches the disk; a last line
that a kill cut short is taken off, any other bad line is an error, so that nothing is lost and nothing half is read.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

from speechscale.errors import DataError


class Kept:
    """A growing map from key to JSON object.

    Example: kept = Kept(path); kept.put("a", {"text": "tom"}); Kept(path).get("a") -> {"text": "tom"}

    Raises:
        DataError: a line of the file is not what `put` writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._found: dict[str, dict[str, Any]] = {}
        if path.is_file():
            self._read(path.read_bytes())
        path.parent.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: str) -> dict[str, Any] | None:
        return self._found.get(key)

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep one object; a second one under the same key takes its place."""
        line = json.dumps({"key": key, "value": value}, ensure_ascii=False, sort_keys=True) + "\n"
        with self._lock:
            with self.path.open("ab") as stream:
                stream.write(line.encode())
                stream.flush()
                os.fsync(stream.fileno())
            self._found[key] = value

    def _read(self, data: bytes) -> None:
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), start=1):
            try:
                entry = json.loads(line)
                self._found[entry["key"]] = dict(entry["value"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{self.path}, line {number}: not a kept answer ({error}); delete the file") from error
        if whole < len(data):
            with self.path.open("rb+") as stream:
                stream.truncate(whole)
