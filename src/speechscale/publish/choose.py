"""The best run of a study.

Enters: a study's folder and an arm. Leaves: the folder of a run. The one decision worth knowing: it is chosen by the
loss on the split `select`, as learning rates are, never by the test it is later judged on; parts of a study have units
and tests of their own, so a run is only compared with runs of its part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.study.recipes import MARKER
from speechscale.study.steps import read_record


def best_run(study: Path, arm: str) -> Path:
    """The run of an arm with the lowest selection loss.

    Args:
        study: the output folder of a study. arm: "ARM", or "PART/ARM" where several parts have that arm.

    Raises:
        DataError: no study there, no such arm, several parts have it, or none of its runs ended.
    """
    if not (study / MARKER).is_file():
        raise DataError(f"{study} is not the folder of a study ({MARKER} is missing); give the --out of study run")
    part, _, name = arm.rpartition("/")
    runs = {folder: record for folder, record in _runs(study) if record["results"]["row"]["arm"] == name}
    parts = sorted({record["results"]["row"]["part"] for record in runs.values()})
    if part:
        runs = {f: r for f, r in runs.items() if r["results"]["row"]["part"] == part}
    elif len(parts) > 1:
        raise DataError(f"arm '{name}' is in the parts {', '.join(parts)}; say which: {parts[0]}/{name}")
    if not runs:
        known = sorted({f"{r['results']['row']['part']}/{r['results']['row']['arm']}" for _, r in _runs(study)})
        raise DataError(f"{study}: no run of '{arm}' has ended; there are: {', '.join(known) or 'none'}")
    return min(sorted(runs), key=lambda folder: float(runs[folder]["results"]["loss_select"]))


def _runs(study: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Runs that ended and left a model."""
    found = []
    for path in sorted((study / "steps" / "run").glob("*/*")):
        record = read_record(path) if path.is_dir() else None
        if record is not None and record["results"].get("loss_select") is not None and (path / "model").is_dir():
            found.append((path, record))
    return found
