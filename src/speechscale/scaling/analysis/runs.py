"""Read a table of runs for analysis: parts that may be compared, arms, one row per finished run.

Enters: the table `runs.csv`. Leaves: `Part`s with checked columns and what was left out.
The one decision worth knowing: runs on different units are different parts, because losses per unit of two inventories
cannot be compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from speechscale.errors import DataError
from speechscale.scaling.optima.envelope import Sweep, make_sweep

BASELINE = "textless"
LOSSES = {"final": "loss_speech_final", "best": "loss_speech_best", "text": "loss_text_final"}
"""Short name -> column. "best" is the checkpoint chosen on the split "select", scored on "test"."""
DIRECTIONS = {"ss": "speech -> speech", "st": "speech -> text", "ts": "text -> speech", "tt": "text -> text"}
_METRIC = re.compile(r"acc_(?P<set>\w+?)_(?P<direction>ss|st|ts|tt)(?:_(?P<tag>\w+))?")
_TAIL = re.compile(r"(?:^|_)(?:se|n)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One accuracy column. direction: prompt modality, candidate modality. tag: "read", "heard" or ""."""

    column: str
    set: str
    direction: str
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Runs that may be compared with each other: one part of the study, one kind of units.

    Args:
        frame: one row per run with a usable size, budget and arm. dropped: sentences on rows that were left out.
    """

    name: str
    label: str
    units: str
    oracle_units: bool
    supervised_units: bool
    frame: pd.DataFrame
    baseline: str
    dropped: tuple[str, ...]

    @property
    def arms(self) -> list[str]:
        """The baseline first, then in order of appearance."""
        names = list(dict.fromkeys(self.frame["arm"]))
        return [self.baseline, *(name for name in names if name != self.baseline)]

    def runs(self, arm: str) -> pd.DataFrame:
        return self.frame[self.frame["arm"] == arm]

    def largest(self, arm: str, column: str) -> float | None:
        """Return the largest value of a column in one arm, None if it is unknown."""
        values = numbers(self.runs(arm), column)
        return float(np.nanmax(values)) if np.isfinite(values).any() else None


def numbers(frame: pd.DataFrame, column: str) -> Float[np.ndarray, " runs"]:
    """Return a column as floats; NaN where it is missing, empty or not a number."""
    if column not in frame:
        return np.full(len(frame), np.nan)
    return pd.to_numeric(frame[column], errors="coerce").to_numpy(float)


def split_parts(table: pd.DataFrame, baselines: Mapping[str, str] | None = None) -> Iterator[Part]:
    """Yield the parts of a table.

    Raises:
        DataError: no rows, or a required column (arm, params_total, budget_flops, a loss) is missing.
    """
    missing = [c for c in ("arm", "params_total", "budget_flops") if c not in table]
    if missing or not any(c in table for c in LOSSES.values()):
        missing += [] if any(c in table for c in LOSSES.values()) else ["one of " + ", ".join(LOSSES.values())]
        has = ", ".join(map(str, table.columns))
        raise DataError(f"table of runs: column(s) {'; '.join(missing)} missing; it has {has}")
    if not len(table):
        raise DataError("table of runs: no rows; run the study first")
    table = table.reset_index(drop=True)
    for column, default in (("part", "all"), ("units", "")):
        table[column] = table[column].fillna(default).astype(str) if column in table else default
    table["arm"] = table["arm"].astype(str)
    table["units"] = _fill_units(table)
    kinds = {str(name): len(set(rows)) for name, rows in table.groupby("part", sort=False)["units"]}
    for (name, units), frame in table.groupby(["part", "units"], sort=False):
        label = str(name) if kinds[str(name)] == 1 else f"{name} ({units})"
        kept, dropped = _usable(frame)
        if not len(kept):
            raise DataError(f"part {label}: no run has a finite size, budget and loss; {' '.join(dropped)}")
        speaking = kept[np.isfinite(numbers(kept, LOSSES["final"])) | np.isfinite(numbers(kept, LOSSES["best"]))]
        arms = list(dict.fromkeys([*speaking["arm"], *kept["arm"]]))
        yield Part(
            name=str(name),
            label=label,
            units=str(units),
            oracle_units=bool(is_true(kept, "oracle_units").any()),
            supervised_units=bool(is_true(kept, "supervised_units").any()),
            frame=kept,
            baseline=wanted if (wanted := (baselines or {}).get(str(name), BASELINE)) in arms else arms[0],
            dropped=tuple(dropped),
        )


def find_metrics(frame: pd.DataFrame) -> list[Metric]:
    """Find the accuracy columns that hold any value. Example: acc_facts_st_read -> facts, st, read"""
    found = []
    for column in map(str, frame.columns):
        match = _METRIC.fullmatch(column)
        if match and not _TAIL.search(match["tag"] or "") and np.isfinite(numbers(frame, column)).any():
            found.append(Metric(column=column, set=match["set"], direction=match["direction"], tag=match["tag"] or ""))
    return found


def sweep_of(part: Part, arm: str, loss: str, *, charged: bool = False) -> Sweep | None:
    """Return the grid of one arm under one loss ("final", "best", "text"), None if it has no such loss.

    Charged compute adds what the TextLM cost, in the convention of the budget: as its share of the run's own exact
    FLOPs where these are known, else as FLOPs.
    """
    frame = part.runs(arm)
    column = LOSSES[loss]
    frame = frame[np.isfinite(numbers(frame, column)) & (numbers(frame, column) > 0)]
    if not len(frame):
        return None
    budget = numbers(frame, "budget_flops")
    compute = budget
    if charged:
        text_lm, exact = np.nan_to_num(numbers(frame, "flops_text_lm_exact")), numbers(frame, "flops_exact")
        known = np.isfinite(exact) & (exact > 0)
        compute = np.where(known, budget * (1 + text_lm / np.where(known, exact, 1.0)), budget + text_lm)
    se = numbers(frame, "loss_speech_se")
    # Without all standard errors none are used: mixing known and unknown noise would favor the unknown.
    use_se = loss != "text" and bool(np.isfinite(se).all())
    return make_sweep(
        arm,
        numbers(frame, "params_total"),
        budget,
        numbers(frame, column),
        loss_se=se if use_se else None,
        compute_flops=compute,
    )


def _fill_units(table: pd.DataFrame) -> pd.Series:
    """Give runs without units (text only) those of their part where there is one kind, else the name "text"."""
    units = table["units"].copy()
    for _, rows in table.groupby("part", sort=False):
        named = [kind for kind in rows["units"].unique() if kind]
        if named:
            empty = rows.index[rows["units"] == ""]
            units.loc[empty] = named[0] if len(named) == 1 else "text"
    return units


def _usable(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Drop runs without size, budget or loss, and runs of learning rates that lost the sweep of their cell."""
    dropped = []
    ok = np.ones(len(frame), bool)
    for column in ("params_total", "budget_flops"):
        values = numbers(frame, column)
        ok &= np.isfinite(values) & (values > 0)
    if not ok.all():
        dropped.append(f"{int((~ok).sum())} run(s) without size or budget left out.")
    losses = np.stack([numbers(frame, c) for c in LOSSES.values()])
    diverged = ok & ~(np.isfinite(losses) & (losses > 0)).any(axis=0)
    if diverged.any():
        arms = ", ".join(sorted(set(frame.loc[diverged, "arm"])))
        dropped.append(f"{int(diverged.sum())} run(s) without a finite loss left out ({arms}).")
    kept = frame[ok & ~diverged]
    best = _best_rates(kept)
    if len(best) < len(kept):
        dropped.append(f"{len(kept) - len(best)} run(s) of learning rates that lost their sweep left out.")
    return best, dropped


def _best_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep per (arm, size, budget) the learning rate with the lowest mean loss on "select" (else the final loss)."""
    if "learning_rate" not in frame or frame["learning_rate"].isna().any():
        return frame
    score = numbers(frame, "loss_speech_select")
    for column in ("loss_speech_final", "loss_text_final"):
        score = np.where(np.isfinite(score), score, numbers(frame, column))
    scored = frame.assign(_score=score)
    cell = ["arm", "params_total", "budget_flops"]
    means = scored.groupby([*cell, "learning_rate"], sort=False)["_score"].mean().reset_index()
    winners = means.loc[means.groupby(cell, sort=False)["_score"].idxmin(), [*cell, "learning_rate"]]
    kept = scored.merge(winners, on=[*cell, "learning_rate"], how="inner")
    return kept.drop(columns="_score")


def is_true(frame: pd.DataFrame, column: str) -> Bool[np.ndarray, " runs"]:
    """Return which rows say True, also when it is written as text; all False where the column is missing."""
    if column not in frame:
        return np.zeros(len(frame), bool)
    return frame[column].astype(str).str.lower().isin(["true", "1", "1.0"]).to_numpy(bool)
