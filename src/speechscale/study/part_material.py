"""What the report shows of one part: its facts, curves, sweep, TextLMs and samples.

Enters: a part's configuration, records of all steps, their folders. Leaves: a `PartMaterial`. The one decision worth
knowing: curves are those of the largest budget of each arm and size; everything else is read out of the records.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from speechscale.corpus.tables import read_utterances
from speechscale.report.page import PartMaterial, Sample


def part_material(
    name: str, part: Mapping[str, Any], records: Mapping[str, Any], inputs: Mapping[str, Path]
) -> PartMaterial:
    """Gather what stands in the report under a part's title."""
    own = [r["results"] for step, r in sorted(records.items()) if step.startswith(f"run/{name}/")]
    largest: dict[tuple[str, str], float] = {}
    for row in (r["row"] for r in own):
        key = row["arm"], row["size"]
        largest[key] = max(largest.get(key, 0.0), row["budget_flops"])
    return PartMaterial(
        title=part["title"] or name,
        facts=_facts(part, records, inputs) | {"schedule": _schedule(name, part, records)},
        curves=[
            _curve(r)
            for r in own
            if r["row"]["budget_flops"] == largest[r["row"]["arm"], r["row"]["size"]] and r["trajectory"]
        ],
        sweep=_sweep(own),
        text_lms=_text_lms(name, part, records),
        samples=_samples(name, inputs),
    )


def _facts(part: Mapping[str, Any], records: Mapping[str, Any], inputs: Mapping[str, Path]) -> dict[str, str]:
    corpus, units = part["corpus"], part["units"]
    spoken = f"{corpus['name']}-{units['name']}"
    tokens = records.get(f"tokens/{spoken}", {}).get("results", {})
    shards = [r["results"] for step, r in records.items() if step.startswith(f"units/{spoken}/")]
    facts = {"corpus": f"{corpus['name']} ({corpus['kind']})"}
    if tokens:
        facts["speech for training"] = f"{tokens['speech_hours']:.2f} h, {tokens['speech_units']:,} units"
        facts["units"] = (
            f"{units['name']}, {units['clusters'] if not _oracle(units) else 'phone labels: an ORACLE of the engine'}"
            f"; {tokens['units_per_second']:.1f} per second after dedup"
        )
        facts["vocabulary"] = f"{tokens['joint_size']} ids joint, {tokens['textless_size']} textless"
    if shards:
        facts["utterances"] = f"{sum(s['kept'] for s in shards):,} kept, {sum(s['dropped'] for s in shards):,} dropped"
    text = records.get(f"text/{corpus['name']}", {}).get("results", {})
    if text:
        facts["text for training"] = f"{text['text_tokens']:,} tokens"
    path = inputs.get(f"corpus/{corpus['name']}")
    if path is not None and path.is_dir():
        speakers = {u.speaker for u in read_utterances(path / "utterances.parquet")}
        facts["speakers"] = f"{len(speakers)}: {', '.join(sorted(speakers)[:12])}"
    if corpus["kind"] == "storyworld" and corpus["read_only_share"]:
        facts["facts only read"] = f"{corpus['read_only_share']:.0%} of the facts never occur in speech"
    return facts


def _schedule(name: str, part: Mapping[str, Any], records: Mapping[str, Any]) -> str:
    """Which schedule the runs had; with trunks what they and their branches cost, and what full runs would have."""
    trunks = [r["results"] for step, r in records.items() if step.startswith(f"trunk/{name}/")]
    runs = [r["results"]["row"] for step, r in records.items() if step.startswith(f"run/{name}/")]
    branches = [row for row in runs if row["branch_from_tokens"] is not None]
    if not trunks or not branches:
        return f"{part['train']['schedule']}, one run per point"
    cool_downs, trunk_flops = (sum(values) for values in flops_spent(branches, trunks))
    whole = sum(row["flops_exact"] for row in branches)
    return (
        f"wsd: {len(trunks)} trunks of {trunk_flops:.3g} FLOPs and {len(branches)} cool-downs of {cool_downs:.3g}; as "
        f"full runs {whole:.3g}: {1 - (cool_downs + trunk_flops) / whole:.0%} saved; the other "
        f"{len(runs) - len(branches)} runs (the sweep) were trained whole"
    )


def flops_spent(
    runs: Iterable[Mapping[str, Any]], trunks: Iterable[Mapping[str, Any]]
) -> tuple[list[float], list[float]]:
    """FLOPs spent, exact count: of each run, of each trunk."""
    return [row["flops_exact_spent"] for row in runs], [trunk["flops_exact"] for trunk in trunks]


def _oracle(units: Mapping[str, Any]) -> bool:
    return bool(units["encoder"] == "phones")


def _curve(results: Mapping[str, Any]) -> dict[str, Any]:
    points = [p for p in results["trajectory"] if p["loss"] is not None]
    row = results["row"]
    return {
        "arm": row["arm"],
        "size": row["size"],
        "seed": row["seed"],
        "tokens_seen": [p["tokens_seen"] for p in points],
        "loss": [p["loss"] for p in points],
        "probes": [p.get("probes", {}) for p in points],
    }


def _sweep(own: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = [r["row"] for r in own if r["row"]["sweep"] and r["row"].get("loss_select") is not None]
    entries = []
    for row in rows:
        rivals = [r for r in rows if (r["arm"], r["size"]) == (row["arm"], row["size"])]
        entries.append(
            {
                "arm": row["arm"],
                "size": row["size"],
                "learning_rate": row["learning_rate"],
                "loss": row["loss_select"],
                "chosen": row["loss_select"] == min(r["loss_select"] for r in rivals),
            }
        )
    tried = Counter((entry["arm"], entry["size"]) for entry in entries)
    return [entry for entry in entries if tried[entry["arm"], entry["size"]] > 1]


def _text_lms(name: str, part: Mapping[str, Any], records: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    families = {arm["family"] for arm in part["arms"].values()}
    shapes = {f"{family}:{size}" if family else size for family in families for size in part["grid"]["sizes"]}
    for step, record in sorted(records.items()):
        if not step.startswith(f"text_lm/{part['corpus']['name']}/"):
            continue
        results = record["results"]
        if results["size"] not in shapes:
            continue
        row = {
            "size": results["size"],
            "learning rate": f"{results['learning_rate']:.2g}",
            "C (exact)": f"{results['flops_exact']:.3g}",
            "D tokens": f"{results['tokens_seen']:,}",
            "text epochs": f"{results['text_epochs']:.2f}",
            "text loss (nats per token)": f"{results['loss_text']:.3f}",
        }
        scored = records.get(f"text_lm_eval/{name}/{results['size'].replace(':', '-')}", {}).get("results", {})
        if scored.get("text_lm") == step:
            for metric in scored["metrics"]:
                if not metric["tag"]:
                    label = f"{metric['set'].replace('_', ' ')} text->text"
                    said = f"{metric['estimate']:.2f} ± {metric['se'] or float('nan'):.2f}"
                    row.setdefault(label, said)  # of the study's first protocol
        rows.append(row)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: row.get(key, "") for key in columns} for row in rows]


def _samples(name: str, inputs: Mapping[str, Path]) -> dict[str, list[Sample]]:
    folder = inputs.get(f"samples/{name}")
    if folder is None or not (folder / "samples.json").is_file():
        return {}
    entries = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    groups: dict[str, list[Sample]] = {}
    for entry in entries:
        sample = Sample(title=entry["title"], text=entry["text"], audio=folder / entry["file"])
        groups.setdefault(entry["group"], []).append(sample)
    return groups
