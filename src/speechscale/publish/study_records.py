"""The record of a study's run and those of everything it was made from.

Enters: the folder of a run step. Leaves: `StudyRecords`. The one decision worth knowing: inputs are followed through
the records themselves, so that a card tells of the corpus, the units and the TextLM that this run really had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.study.located import steps_root
from speechscale.study.steps import read_record


def require_unchanged(folder: Path, record: Mapping[str, Any], name: str) -> None:
    """Hold a file of a step to the checksum in its record. Raises DataError: it is missing or not as listed."""
    path, listed = folder / name, record["files"].get(name)
    if not path.is_file():
        raise DataError(f"'{path}' is missing; run the study again")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if listed is None or sha256 != listed["sha256"]:
        raise DataError(f"'{path}' is not what its record names; run the study again")


def is_storyworld(corpus: Mapping[str, Any] | None) -> bool:
    """Whether the record of a corpus is of texts and voices that this package made."""
    return corpus is not None and bool(corpus["config"]["corpus"]["kind"] == "storyworld")


@dataclass(frozen=True, slots=True)
class StudyRecords:
    """The records around one run. `own`: its own; `inputs`: name -> record, as far as they are there."""

    root: Path
    own: dict[str, Any]
    inputs: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, run: Path) -> StudyRecords:
        own = read_record(run)
        if own is None or "row" not in own["results"]:
            raise DataError(f"{run}: no record of a study's run there; name a folder below steps/run/")
        root = steps_root(run)
        found: dict[str, dict[str, Any]] = {}
        waiting = list(own["inputs"])
        while waiting:
            name = waiting.pop()
            record = read_record(root / name) if name not in found else None
            if record is not None:
                found[name] = record
                waiting += record["inputs"]
        return cls(root, own, found)

    def named(self, prefix: str) -> dict[str, dict[str, Any]]:
        return {name: record for name, record in sorted(self.inputs.items()) if name.startswith(prefix)}

    def first(self, prefix: str) -> dict[str, Any] | None:
        return next(iter(self.named(prefix).values()), None)
