"""Transfer table: does knowledge cross between text and speech, against chance and against the baseline?

Enters: a `Part`. Leaves: one `Transfer` per arm and accuracy, at the arm's largest budget.
The one decision worth knowing: the run that is shown is picked by its speech loss, never by the accuracy itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from speechscale.scaling.analysis.runs import Metric, Part, find_metrics, numbers

CHANCE = 0.5
"""Two candidates per item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One accuracy of one arm.

    Args:
        se: standard error: item sampling (seeds share the items, so it does not shrink with them) combined with the
            spread between seeds; None when neither is known.
        items: scored items, 0 if unknown. seeds: runs averaged.
        z_chance: (accuracy - chance) / se. difference: accuracy minus that of the baseline arm, with the combined
            standard error and z; None where the baseline has no such score (a textless model reads no text).
    """

    arm: str
    set: str
    direction: str
    tag: str
    accuracy: float
    se: float | None
    items: int
    seeds: int
    budget_flops: float
    params: float
    chance: float = CHANCE
    z_chance: float | None = None
    difference: float | None = None
    difference_se: float | None = None
    z_baseline: float | None = None


def transfer_table(part: Part) -> list[Transfer]:
    """Collect every accuracy of every arm at its largest budget, compared with chance and with the baseline."""
    rows: list[Transfer] = []
    for metric in find_metrics(part.frame):
        of_baseline: Transfer | None = None
        for arm in part.arms:
            row = _score(chosen_runs(part, arm, metric.column), arm, metric)
            if row is None:
                continue
            if arm == part.baseline:
                of_baseline = row
            elif of_baseline is not None:
                row = _against(row, of_baseline)
            rows.append(row)
    return rows


def chosen_runs(part: Part, arm: str, column: str) -> pd.DataFrame:
    """Return the runs (seeds) of one cell: largest budget with this score, then the size of lowest loss there."""
    frame = part.runs(arm)
    frame = frame[np.isfinite(numbers(frame, column))]
    if not len(frame):
        return frame
    frame = frame[numbers(frame, "budget_flops") == numbers(frame, "budget_flops").max()]
    loss = numbers(frame, "loss_speech_select")
    for fallback in ("loss_speech_best", "loss_speech_final", "loss_text_final"):
        loss = np.where(np.isfinite(loss), loss, numbers(frame, fallback))
    sizes = numbers(frame, "params_total")
    means = {size: float(np.mean(loss[sizes == size])) for size in np.unique(sizes)}
    return frame[sizes == min(means, key=lambda size: means[size])]


def _score(frame: pd.DataFrame, arm: str, metric: Metric) -> Transfer | None:
    if not len(frame):
        return None
    shares = numbers(frame, metric.column)
    items = numbers(frame, f"{metric.column}_n")
    accuracy = float(shares.mean())
    se = item_error(shares, numbers(frame, f"{metric.column}_se"), items)
    if len(shares) > 1:
        se = float(np.hypot(se or 0.0, shares.std(ddof=1) / np.sqrt(len(shares))))
    return Transfer(
        arm=arm,
        set=metric.set,
        direction=metric.direction,
        tag=metric.tag,
        accuracy=accuracy,
        se=se,
        items=int(np.nanmax(items)) if np.isfinite(items).any() else 0,
        seeds=len(shares),
        budget_flops=float(numbers(frame, "budget_flops")[0]),
        params=float(numbers(frame, "params_total")[0]),
        z_chance=(accuracy - CHANCE) / se if se else None,
    )


def item_error(shares: np.ndarray, se: np.ndarray, items: np.ndarray) -> float | None:
    """Return the item-sampling error: the given ones, else binomial; an accuracy of 0 or 1 is not free of error."""
    smoothed = (shares * items + 1) / (items + 2)
    binomial = np.sqrt(smoothed * (1 - smoothed) / items)
    chosen = np.where(np.isfinite(se) & (se > 0), se, binomial)
    return float(np.sqrt(np.mean(chosen**2))) if np.isfinite(chosen).all() else None


def _against(row: Transfer, baseline: Transfer) -> Transfer:
    difference = row.accuracy - baseline.accuracy
    if row.se is None or baseline.se is None:
        return replace(row, difference=difference)
    se = float(np.hypot(row.se, baseline.se))
    return replace(row, difference=difference, difference_se=se, z_baseline=difference / se if se > 0 else None)
