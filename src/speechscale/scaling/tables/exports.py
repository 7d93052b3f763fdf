"""Exports of Weights & Biases and trackio as tables of runs.

Enters: a project CSV, a folder of histories, a file of logged steps, or a trackio database. Leaves: `RawTable`, one row
per run. The one decision worth knowing: of logged steps only the last row of a run is a result; a value that was logged
less often keeps its last one, but a "nan" that was logged is never replaced by an older number.

Source: trackio documentation, "Storage Schema": one SQLite file per project, tables `metrics` (run_name, step, metrics
as JSON) and `configs` (run_name, config as JSON).
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechscale.errors import DataError
from speechscale.scaling.tables.table_files import SUFFIXES, RawTable, flatten, read_cells, records_frame

if TYPE_CHECKING:
    import pandas as pd

FAILED = ("crashed", "failed", "killed", "running", "preempted", "preempting", "pending")
"""States of a wandb run whose numbers are not those of a finished training."""
_STATES = {"finished", *FAILED}
_RUN_COLUMNS = ("run_name", "_run", "run", "run_id", "Name")
LOGGED_RUN = "run_name"


def read_raw(path: Path, *, checkpoints: bool = False) -> RawTable:
    """Read any table of runs as texts, one row per run.

    Args:
        checkpoints: keep every logged step as a row of its own.

    Raises:
        DataError: see `read_cells`; a database without trackio's tables; a folder without histories.
    """
    path = Path(path)
    if path.is_dir():
        frame = _histories(path)
    elif path.suffix.lower() in (".db", ".sqlite", ".sqlite3"):
        frame = _trackio(path)
    else:
        frame = read_cells(path)
    if len(frame) == 0:
        raise DataError(f"{path}: no rows; need one per run")
    step = "_step" if "_step" in frame else "step" if {"step", LOGGED_RUN} <= set(frame.columns) else None
    if step is not None:
        return _last_steps(frame, step, checkpoints)
    raw = RawTable(frame=frame, rows=list(range(1, len(frame) + 1)))
    return _finished(raw) if {"Name", "State"} <= set(frame.columns) else raw


def _finished(raw: RawTable) -> RawTable:
    states = raw.frame["State"].str.strip().str.lower()
    if not set(states) <= _STATES:
        return raw
    failed = states.isin(FAILED)
    for row, state, name, bad in zip(raw.rows, states, raw.frame["Name"], failed, strict=True):
        if bad:
            raw.skipped.append((row, f"run {name} is {state}, not finished"))
    raw.rows = [row for row, bad in zip(raw.rows, failed, strict=True) if not bad]
    raw.frame = raw.frame[~failed].reset_index(drop=True)
    raw.notes.append(f"wandb export: {int(failed.sum())} runs that are not finished were left out")
    return raw


def _histories(folder: Path) -> pd.DataFrame:
    """Every history in a folder, its run named by the file; NAME.json beside NAME.csv is the run's config."""
    import pandas as pd

    frames = []
    for path in sorted(folder.iterdir()):
        suffix = next((s for s in SUFFIXES if s != ".json" and path.name.removesuffix(".gz").endswith(s)), None)
        if suffix is None:
            continue
        frame = read_cells(path)
        if "_step" not in frame:
            raise DataError(f"{path}: no column _step; a folder must hold one wandb history per run")
        name = path.name.removesuffix(".gz").removesuffix(suffix)
        if LOGGED_RUN not in frame:
            frame[LOGGED_RUN] = name
        if (config := folder / f"{name}.json").is_file():
            for key, value in read_cells(config).iloc[0].items():
                if key not in frame:
                    frame[str(key)] = value
        frames.append(frame)
    if not frames:
        raise DataError(f"{folder}: no histories in this folder (NAME.csv or NAME.jsonl with _step)")
    return pd.concat(frames, ignore_index=True).fillna("")


def _trackio(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a trackio database")
    try:
        with closing(sqlite3.connect(f"file:{path.resolve().as_posix()}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
            configs = database.execute("SELECT run_name, config FROM configs").fetchall()
    except sqlite3.Error as error:
        raise DataError(f"{path}: not a trackio database ({error}); need its tables metrics and configs") from error
    known = {name: flatten(_loads(path, text)) for name, text in configs}
    return records_frame(
        {**known.get(run, {}), **flatten(_loads(path, text)), LOGGED_RUN: run, "step": step} for run, step, text in rows
    )


def _loads(path: Path, text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: a row is not JSON ({error}); export the project again") from error
    return found if isinstance(found, dict) else {}


def _last_steps(frame: pd.DataFrame, step: str, checkpoints: bool) -> RawTable:
    """One row per run (or per step): values logged less often carry on, a logged nan stays."""
    import pandas as pd

    run = next((name for name in _RUN_COLUMNS if name in frame), None)
    names = frame[run] if run else pd.Series("run", index=frame.index)
    frame = frame.assign(**{LOGGED_RUN: names})
    order = pd.to_numeric(frame[step], errors="coerce")
    frame = frame.iloc[order.argsort(kind="stable")]
    filled = frame.mask(frame == "").groupby(frame[LOGGED_RUN], sort=False).ffill()
    filled[LOGGED_RUN] = frame[LOGGED_RUN]
    filled = filled.sort_index().fillna("")
    count = len(filled)
    if checkpoints:
        note = f"{count} logged steps of {filled[LOGGED_RUN].nunique()} runs, each kept as a row"
    else:
        last = frame.groupby(LOGGED_RUN, sort=False).tail(1).index
        filled = filled.loc[sorted(last)]
        note = f"{count} logged steps: the last of each of {len(filled)} runs is its result"
    filled = filled.reset_index(drop=True)
    return RawTable(frame=filled, rows=list(range(1, len(filled) + 1)), notes=[note])
