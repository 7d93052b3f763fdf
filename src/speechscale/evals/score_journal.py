"""Finished items of one evaluation, on disk.

Enters: `Choice`s as they are scored. Leaves: the same after any kill. The one decision worth knowing: the journal gets
one line per finished item, so a killed run repeats at most one batch; what is read back is what was scored, whatever
the batches of the second start look like.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechscale.errors import DataError, StaleStep
from speechscale.evals.choices import Choice, from_row, to_row
from speechscale.evals.protocols import Layout
from speechscale.files import read_json, write_json
from speechscale.settings import differences


def require_same(path: Path, recipe: Mapping[str, Any], remedy: str) -> None:
    """Hold a recipe against the one in a file.

    Raises:
        StaleStep: they differ; the message lists the differences. DataError: the file is missing or not JSON.
    """
    changed = differences(read_json(path, "recipe", remedy), json.loads(json.dumps(dict(recipe))))
    if changed:
        raise StaleStep(f"{path.parent} belongs to another recipe ({'; '.join(changed)[:1000]}); {remedy}")


class Journal:
    """Finished items of one evaluation, a line each, in a folder that belongs to one recipe.

    Raises:
        StaleStep: the folder was begun with another recipe.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        self.path = folder / "choices.jsonl"
        known = folder / "recipe.json"
        if known.is_file():
            require_same(known, recipe, "finish it as it was begun, delete it, or choose another output")
        else:
            write_json(known, dict(recipe))
        self._lines = self._whole_lines()
        self._file = self.path.open("ab")

    def _whole_lines(self) -> dict[tuple[str, str, Layout], dict[str, Choice]]:
        """What is there, without a torn last line, which is cut off."""
        found: dict[tuple[str, str, Layout], dict[str, Choice]] = {}
        if not self.path.is_file():
            return found
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with self.path.open("rb+") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                choice = from_row(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"journal {self.path}: line {number} is damaged ({error}); delete {self.path.parent}"
                ) from error
            found.setdefault((choice.benchmark, choice.direction, choice.layout), {})[choice.id] = choice
        return found

    def read(self, benchmark: str, direction: str, layout: Layout) -> dict[str, Choice]:
        """Finished items of a benchmark, direction and layout, by id."""
        return self._lines.get((benchmark, direction, layout), {})

    def add(self, choice: Choice) -> None:
        """Write an item down."""
        self._file.write(json.dumps(to_row(choice), separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
