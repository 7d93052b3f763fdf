"""The last step: records of all runs -> runs.csv, laws.json, report.html.

Enters: the folders of every step that succeeded. Leaves: the study's results.
The one decision worth knowing: only records are read, never logs or names; a number a run could not measure is absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from speechscale.report.page import render
from speechscale.scaling.analysis.analyze import analyze
from speechscale.scaling.analysis.part_links import trunk_name
from speechscale.skips import read_skips
from speechscale.study.part_material import flops_spent, part_material
from speechscale.study.steps import read_record, versions, write_json

FIRST_COLUMNS = (
    "part",
    "units",
    "oracle_units",
    "supervised_units",
    "arm",
    "size",
    "family",
    "params_total",
    "params_non_embedding",
    "budget_flops",
    "flops_6nd_total",
    "flops_6nd_non_embedding",
    "flops_6nd_head",
    "flops_6nd_attention",
    "flops_exact",
    "flops_exact_spent",
    "flops_text_lm_exact",
    "schedule",
    "branch_from_tokens",
    "tokens_seen",
    "tokens_unique",
    "speech_units_seen",
    "speech_units_unique",
    "speech_hours_unique",
    "speech_epochs",
    "text_epochs",
    "steps",
    "learning_rate",
    "learning_rate_at_edge",
    "seed",
    "loss_speech_final",
    "loss_speech_best",
    "loss_speech_se",
    "loss_speech_select",
    "best_tokens_seen",
    "loss_speech_per_second",
    "loss_speech_per_word",
    "loss_text_final",
    "loss_text_per_word",
    "loss_interleaved_final",
)


def make_report(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Write runs.csv, laws.json, report.html and skips.jsonl from the records among the inputs."""
    records = {name: record for name, path in inputs.items() if (record := read_record(path)) is not None}
    study = config["study"]
    runs = run_table(records)
    runs.to_csv(out / "runs.csv", index=False, lineterminator="\n")
    finished = runs.dropna(how="all", subset=["loss_speech_final", "loss_text_final"])
    fits = {name: part["fit"] for name, part in study["parts"].items()}
    laws = analyze(
        finished,
        replicates=max(fit["replicates"] for fit in fits.values()),
        seed=study["study"]["seed"],
        baselines={name: fit["baseline"] for name, fit in fits.items()},
        probes=probe_table(records),
    )
    write_json(out / "laws.json", laws)
    skips = _skips(inputs)
    with (out / "skips.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(skip, ensure_ascii=False) + "\n" for skip in skips)
    page = render(
        study=study,
        runs=finished,
        laws=laws,
        materials={name: part_material(name, part, records, inputs) for name, part in study["parts"].items()},
        provenance=_provenance(records, len(skips)),
        skips=skips,
    )
    (out / "report.html").write_text(page, encoding="utf-8")
    return {"runs": len(runs), "dropped": len(skips), "bytes": (out / "report.html").stat().st_size}


def run_table(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row per run, in the order of names; of a learning-rate sweep only the chosen rate.

    The chosen rate of a sweep is the one with the lowest selection loss, exactly as the larger budgets chose it.
    """
    rows = [r["results"]["row"] for name, r in sorted(records.items()) if name.startswith("run/")]
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    kept = []
    for row in rows:
        if not row["sweep"]:
            kept.append(row)
            continue
        cell = (row["part"], row["arm"], row["size"])
        rival = best.get(cell)
        if rival is None or _selection(row) < _selection(rival):
            best[cell] = row
    kept += [{**row, "learning_rate_at_edge": _at_edge(row, rows)} for row in best.values()]
    table = pd.DataFrame(kept).drop(columns="sweep", errors="ignore")
    for column in FIRST_COLUMNS:
        if column not in table:
            table[column] = None
    for column in [column for column in table.columns if column.startswith("acc_") and column.endswith("_n")]:
        if column.removesuffix("_n") + "_se" not in table:  # one pair has no error
            table[column.removesuffix("_n") + "_se"] = float("nan")
    rest = sorted(column for column in table.columns if column not in FIRST_COLUMNS)
    order = ["part", "arm", "params_total", "budget_flops", "seed"]
    return table[[*FIRST_COLUMNS, *rest]].sort_values(order, kind="stable").reset_index(drop=True)


def probe_table(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row per check at which a run was probed: its selection loss, and accuracies named as in runs.csv.

    Also of runs that lost their sweep: each is a training of its own, under the same mixture. Branches of one trunk
    are one.
    """
    rows = []
    for name, record in sorted(records.items()):
        if not name.startswith("run/"):
            continue
        run = record["results"]["row"]
        branch = run.get("branch_from_tokens") is not None
        own = trunk_name(run["size"], run["seed"]) if branch else name
        loss = "loss_text" if pd.isna(run.get("loss_speech_final")) else "loss_speech"
        for point in record["results"]["trajectory"]:
            if point.get("probes") and point["loss"] is not None:
                row = {"part": run["part"], "arm": run["arm"], "run": own, loss: point["loss"]}
                rows.append({**row, **_probe_columns(point["probes"])})
    return pd.DataFrame(rows)


def _probe_columns(probes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, float]:
    columns = {}
    for set_name, directions in probes.items():
        for direction, found in directions.items():
            columns[f"acc_{set_name}_{direction}"] = found["estimate"]
            columns[f"acc_{set_name}_{direction}_se"] = found["se"]
    return columns


def _selection(row: Mapping[str, Any]) -> float:
    value = row.get("loss_select")
    return float("inf") if value is None else float(value)


def _at_edge(row: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the chosen rate is the lowest or highest of those tried (also when only one was)."""
    rates = [
        r["learning_rate"]
        for r in rows
        if r["sweep"] and (r["part"], r["arm"], r["size"]) == (row["part"], row["arm"], row["size"])
    ]
    return row["learning_rate"] in (min(rates), max(rates))


def _skips(inputs: Mapping[str, Path]) -> list[dict[str, Any]]:
    found = []
    for name, path in inputs.items():
        if (path / "skips.jsonl").is_file():
            log = read_skips(path / "skips.jsonl")
            found += [{"step": name, "id": s.id, "reason": s.reason, "remedy": s.remedy} for s in log]
    return found


def _provenance(records: Mapping[str, Mapping[str, Any]], dropped: int) -> dict[str, str]:
    done = list(records.values())
    cpu = sum(r["cpu_seconds"] for r in done)
    commits = sorted({r["git_commit"] for r in done if r["git_commit"]})
    rows = [r["results"]["row"] for name, r in records.items() if name.startswith("run/")]
    trunks = [r["results"] for name, r in records.items() if name.startswith("trunk/")]
    flops = sum(map(sum, flops_spent(rows, trunks)))
    lms = sum(r["results"]["flops_exact"] for name, r in records.items() if name.startswith("text_lm/"))
    return {
        "steps": f"{len(done)}, {cpu:,.0f} core-seconds",
        "training": f"{flops:.3g} FLOPs of runs, {lms:.3g} of TextLMs (exact count)",
        "largest process": f"{max(r['peak_rss_mb'] for r in done):,.0f} MB resident",
        "machine": ", ".join(sorted({r["machine"] for r in done})),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "commit": ", ".join(commits) or "not run from a git checkout",
        "dropped items": str(dropped),
    }
