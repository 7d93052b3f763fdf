"""The links of a part of a study: every set and direction against the loss, arm by arm.

Enters: a `Part`, and what probes measured along its runs. Leaves: JSON-able entries of `laws.json`, "links".
The one decision worth knowing: finished runs and points along runs are never mixed: the former have the test loss and
all items, the latter the selection loss and a subset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from speechscale.scaling.analysis.runs import Part, find_metrics, numbers
from speechscale.scaling.links.downstream import MIN_RUNS, VERDICTS, link

LOSS_OF = {"ss": "speech", "st": "speech", "ts": "speech", "tt": "text"}
"""Direction -> the loss its accuracy is drawn over; a crossing one has no loss of its own in every arm."""
SOURCES = {"runs": "finished runs, loss on test", "probes": "along training, loss on select"}


def part_links(part: Part, probes: pd.DataFrame, *, replicates: int, seed: int) -> list[dict[str, Any]]:
    """One entry per source, set and direction; tags (heard, read) are left out.

    Args:
        probes: of this part, one row per check; as `runs.csv`, with `run`, and loss_speech, loss_text on select.

    Returns:
        Entries {"source", "metric", "set", "direction", "loss", "arms", "pooled"}; an arm is a `Link` with "measured",
        the points themselves.
    """
    own = probes[probes["part"] == part.name] if len(probes) else probes
    tables = {"runs": _of_runs(part.frame), "probes": own}
    entries = []
    for source, frame in tables.items():
        for metric in find_metrics(frame):
            if metric.tag:
                continue
            loss = f"loss_{LOSS_OF[metric.direction]}"
            rows = frame[np.isfinite(numbers(frame, metric.column)) & np.isfinite(numbers(frame, loss))]
            if not len(rows):
                continue
            base = {"source": source, "metric": metric.column, "set": metric.set, "direction": metric.direction}
            entries.append({**base, "loss": loss, **_entry(rows, metric.column, loss, replicates, seed)})
    return entries


def trunk_name(size: Any, seed: Any) -> str:
    """The one run that all branches of a trunk are, within a part and an arm."""
    return f"trunk of {size}-{seed}"


def _of_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Finished runs with the columns that probes have; branches of one trunk are one run."""
    branched = np.isfinite(numbers(frame, "branch_from_tokens"))
    trunk = [trunk_name(row.get("size"), row.get("seed")) for _, row in frame.iterrows()]
    names = [of if is_branch else f"run {i}" for i, (of, is_branch) in enumerate(zip(trunk, branched, strict=True))]
    return frame.assign(
        run=names,
        loss_speech=numbers(frame, "loss_speech_final"),
        loss_text=numbers(frame, "loss_text_final"),
    )


def _entry(rows: pd.DataFrame, column: str, loss: str, replicates: int, seed: int) -> dict[str, Any]:
    errors = numbers(rows, f"{column}_se")
    found = link(
        numbers(rows, loss),
        numbers(rows, column),
        errors,
        rows["arm"].tolist(),
        runs=[f"{arm} {run}" for arm, run in zip(rows["arm"], rows["run"], strict=True)],
        loss_ses=numbers(rows, f"{loss}_se"),
        replicates=replicates,
        seed=seed,
    )
    arms = []
    for entry in found.links:
        own = rows["arm"] == entry.group
        measured = {
            "loss": numbers(rows[own], loss),
            "accuracy": numbers(rows[own], column),
            "se": errors[own.to_numpy()],
            "run": rows.loc[own, "run"].tolist(),
        }
        arms.append({**asdict(entry), "measured": measured})
    return {"arms": arms, "pooled": None if found.pooled is None else asdict(found.pooled)}


def links_said(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the links of a part come to, in one sentence per source.

    Example: "finished runs, loss on test: of 6 (set, direction, arm), 1 has a slope told from zero ..."
    """
    said = []
    for source, name in SOURCES.items():
        arms = [arm for entry in entries if entry["source"] == source for arm in entry["arms"]]
        if not arms:
            continue
        counts = {status: sum(arm["status"] == status for arm in arms) for status in VERDICTS}
        rest = ", ".join(f"{n} {VERDICTS[status]}" for status, n in counts.items() if n and status != "fitted")
        if counts["too_few_runs"] == len(arms):
            said.append(
                f"{name}: below {MIN_RUNS} runs in each of {len(arms)} combinations of set, direction and arm, so no "
                "line is drawn"
            )
            continue
        if not counts["fitted"]:
            head = f"none of {len(arms)} combinations of set, direction and arm shows accuracy moving with the loss"
        else:
            head = f"{counts['fitted']} of {len(arms)} combinations of set, direction and arm have a slope told from 0"
        tested = [entry["pooled"] for entry in entries if entry["source"] == source and entry["pooled"]]
        differ = sum(pooled["differ"] for pooled in tested)
        pooled = f"; arms differ at equal loss in {differ} of {len(tested)} sets and directions" if tested else ""
        said.append(f"{name}: {head}{f' ({rest})' if rest else ''}{pooled}")
    return said
