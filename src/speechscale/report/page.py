"""The report: one HTML file that needs no network, no server and no other file.

Enters: the resolved study, runs.csv, laws.json, samples and provenance. Leaves: HTML text.
The one decision worth knowing: every sentence of the verdict comes from `laws.json`; the page only lays it out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from speechscale.report import figures
from speechscale.report.downstream_figures import link_figures, link_rows, probe_figure
from speechscale.report.html_parts import figure_div, plotly_script
from speechscale.report.numbers import short_count, short_flops

TOPICS = ("loss", "transfer", "sizes", "limits")
"""Kinds of sentences in the verdict of a part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Audio of one story: what was said and what the models make of it.

    Args:
        title: what is heard. text: the words, when known. audio: a wav file.
    """

    title: str
    text: str
    audio: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PartMaterial:
    """What the report needs of one part besides its runs.

    Args:
        facts: label -> value lines about the data (hours, units, voices, dropped ...).
        curves, sweep: see `figures.curves_figure`, `figures.sweep_figure`.
        text_lms: rows about the TextLMs.
        samples: groups of audio, title -> samples.
    """

    title: str
    facts: Mapping[str, str]
    curves: Sequence[Mapping[str, Any]]
    sweep: Sequence[Mapping[str, Any]]
    text_lms: Sequence[Mapping[str, Any]]
    samples: Mapping[str, Sequence[Sample]]


def render(
    *,
    study: Mapping[str, Any],
    runs: pd.DataFrame,
    laws: Mapping[str, Any],
    materials: Mapping[str, PartMaterial],
    provenance: Mapping[str, str],
    skips: Sequence[Mapping[str, Any]],
) -> str:
    """Write the page.

    Args:
        study: resolved study as plain data. runs: runs.csv. laws: laws.json.
        materials: part name -> its material. provenance: label -> value.
        skips: dropped items with reasons.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = (resources.files("speechscale.report") / "assets" / "report.html.j2").read_text(encoding="utf-8")
    parts = [_part(name, runs[runs["part"] == name], laws["parts"].get(name, {}), m) for name, m in materials.items()]
    return environment.from_string(source).render(
        study=study["study"],
        parts=parts,
        provenance=provenance,
        skips=skips[:200],
        skips_total=len(skips),
        side_by_side=side_by_side(runs),
        resolved=json.dumps(study, indent=1),
        plotly_js=plotly_script(),
    )


def _part(name: str, runs: pd.DataFrame, laws: Mapping[str, Any], material: PartMaterial) -> dict[str, Any]:
    colors = figures.arm_colors(list(dict.fromkeys(runs["arm"])))
    drawn = [
        ("Speech loss against model size (isoFLOP)", figures.isoflop_figure(runs, colors)),
        ("Lowest speech loss against compute (envelope)", figures.envelope_figure(runs, colors)),
        ("Accuracy on facts, by where they were met", figures.transfer_figure(runs, colors)),
        ("Accuracy against compute", figures.metric_figure(runs, colors)),
        ("Selection loss along training, largest budget", figures.curves_figure(material.curves, colors)),
        ("Accuracy of probes along training, largest budget", probe_figure(material.curves, colors)),
        ("Learning-rate sweep, middle budget (filled: chosen)", figures.sweep_figure(material.sweep, colors)),
    ]
    return {
        "name": name,
        "title": material.title,
        "facts": material.facts,
        "verdict": {topic: laws.get("verdict", {}).get(topic, []) for topic in TOPICS},
        "laws": law_rows(laws),
        "links": [(title, figure_div(figure)) for title, figure in link_figures(laws.get("links", []), colors)],
        "links_said": laws.get("links_said", []),
        "link_rows": link_rows(laws.get("links", [])),
        "figures": [(title, figure_div(figure)) for title, figure in drawn if figure is not None],
        "runs": run_table(runs),
        "metrics": metric_table(runs),
        "text_lms": material.text_lms,
        "samples": {
            group: [{"title": s.title, "text": s.text, "data": _audio(s.audio)} for s in samples]
            for group, samples in material.samples.items()
        },
    }


def _audio(path: Path) -> str:
    return "data:audio/wav;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def run_table(runs: pd.DataFrame) -> dict[str, Any]:
    """Header and rows of the per-run table, numbers as text."""
    columns = {
        "arm": ("arm", str),
        "size": ("size", str),
        "params_non_embedding": ("N (non-emb.)", short_count),
        "budget_flops": ("C budget", short_flops),
        "branch_from_tokens": ("branched at", short_count),
        "flops_exact_spent": ("C spent", short_flops),
        "flops_text_lm_exact": ("C of TextLM", lambda v: short_flops(v) if v else "-"),
        "tokens_seen": ("D tokens", short_count),
        "speech_epochs": ("speech epochs", lambda v: f"{v:.1f}"),
        "learning_rate": ("learning rate", lambda v: f"{v:.2g}"),
        "learning_rate_at_edge": ("rate at edge", lambda v: "edge" if v else ""),
        "seed": ("seed", str),
        "loss_speech_final": ("speech loss", lambda v: f"{v:.3f}"),
        "loss_speech_best": ("early-stopped", lambda v: f"{v:.3f}"),
        "loss_speech_se": ("s.e.", lambda v: f"{v:.3f}"),
        "loss_text_final": ("text loss", lambda v: f"{v:.3f}"),
        "loss_interleaved_final": ("interleaved loss", lambda v: f"{v:.3f}"),
    }
    used = [name for name in columns if name in runs and not runs[name].isna().all()]
    if "branch_from_tokens" not in used:  # what a run spent is its budget then
        used = [name for name in used if name != "flops_exact_spent"]
    rows = [[_cell(row[name], columns[name][1]) for name in used] for _, row in runs.iterrows()]
    return {"header": [columns[name][0] for name in used], "rows": rows}


def side_by_side(runs: pd.DataFrame) -> dict[str, Any]:
    """Header and rows of all cells of all parts: mean over seeds, with the standard deviation where there are several.

    Of the accuracies those without a tag, of cells that were scored. Empty where one part has one seed.
    """
    if runs["part"].nunique() < 2 and runs["seed"].nunique() < 2:
        return {"header": [], "rows": []}
    losses = {
        "loss_speech_final": "speech loss",
        "loss_speech_best": "early-stopped",
        "loss_text_final": "text loss",
    }
    metrics = {
        _key(m): f"{m[0].replace('_', ' ')} {figures.DIRECTIONS[m[1]]}"
        for m in figures.metric_columns(runs)
        if not m[2]
    }
    wanted = {name: label for name, label in {**losses, **metrics}.items() if name in runs and runs[name].notna().any()}
    rows = []
    for (part, arm, size, _), cell in runs.groupby(["part", "arm", "size", "budget_flops"], sort=False):
        head = [part, arm, size, short_count(cell["tokens_seen"].mean()), str(len(cell))]
        rows.append(head + [_mean(cell[name], 2 if name in metrics else 3) for name in wanted])
    return {"header": ["part", "arm", "size", "D tokens", "seeds", *wanted.values()], "rows": rows}


def _mean(values: pd.Series, digits: int) -> str:
    known = values.dropna()
    if known.empty:
        return ""
    spread = f" ± {known.std():.{digits}f}" if len(known) > 1 else ""
    return f"{known.mean():.{digits}f}{spread}"


def metric_table(runs: pd.DataFrame) -> dict[str, Any]:
    """Header and rows of accuracies with standard errors, runs that were scored only."""
    metrics = figures.metric_columns(runs)
    if not metrics:
        return {"header": [], "rows": []}
    header = ["metric", "direction", "items"]
    scored = runs.dropna(how="all", subset=[_key(m) for m in metrics])
    scored = scored[scored["budget_flops"] == scored.groupby(["arm", "size"])["budget_flops"].transform("max")]
    header += [f"{row['arm']} {row['size']} s{row['seed']}" for _, row in scored.iterrows()]
    rows = []
    for metric in metrics:
        key = _key(metric)
        if scored[key].isna().all():
            continue
        label = f"{metric[0].replace('_', ' ')}{' (' + metric[2] + ')' if metric[2] else ''}"
        cells = [label, figures.DIRECTIONS[metric[1]], _cell(scored[f"{key}_n"].max(), short_count)]
        for _, row in scored.iterrows():
            error = "" if pd.isna(row[f"{key}_se"]) else f" ± {row[f'{key}_se']:.2f}"
            cells.append("" if pd.isna(row[key]) else f"{row[key]:.2f}{error}")
        rows.append(cells)
    return {"header": header, "rows": rows}


def _key(metric: tuple[str, str, str]) -> str:
    return "acc_" + "_".join(word for word in metric if word)


def _cell(value: Any, form: Any) -> str:
    return "" if value is None or (isinstance(value, float) and np.isnan(value)) else str(form(value))


def law_rows(laws: Mapping[str, Any]) -> list[dict[str, str]]:
    """Lines 'what, arm, result' about compute multipliers, L(N, D) and slopes of metrics."""
    rows = []
    for m in laws.get("multipliers", []):
        what = f"compute against {m['baseline']}, {m['loss']} checkpoint, TextLM {m['compute']}"
        rows.append({"what": what, "arm": m["arm"], "result": m["message"]})
    for law in laws.get("laws", []):
        rows.append({"what": f"L(N, D), {law['loss']} loss", "arm": law["arm"], "result": _law_text(law)})
    for slope in laws.get("slopes", []):
        rows.append({"what": f"slope of {slope['metric']} in C", "arm": slope["arm"], "result": slope["message"]})
    return rows


def _law_text(law: Mapping[str, Any]) -> str:
    if law["status"] == "not_fitted":
        return f"not fitted: {law['reason']}"
    if law["status"] == "not_identified":
        return "; ".join([f"{law['runs']} runs do not fix the constants of a law", *law["notes"]])
    constants = ", ".join(f"{name} {_interval(value)}" for name, value in law["constants"].items())
    return "; ".join([f"{law['runs']} runs: {constants}", *law["notes"]])


def _interval(value: Mapping[str, Any]) -> str:
    if value["value"] is None:
        return "not known"
    if value.get("low") is None or value.get("high") is None:
        return f"{value['value']:.3g}"
    return f"{value['value']:.3g} [{value['low']:.3g}, {value['high']:.3g}]"
