"""Training runs beside each other, as one HTML page that needs no network.

Enters: `RunMetrics`. Leaves: tables as rows of text, and the page. The one decision worth knowing: every number in a
table stands in a metrics.jsonl or is the median of some; only curves are smoothed, and the raw ones stay visible.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from speechscale.files import complete_file
from speechscale.report.html_parts import figure_div, plotly_script
from speechscale.report.numbers import short_count, short_flops
from speechscale.report.run_curves import run_colors, run_figures
from speechscale.report.run_files import SELECT, RunMetrics

LOSSES = {
    "speech_per_unit": "speech per unit",
    "speech_per_second": "per second",
    "speech_per_word": "per word",
    "text_per_token": "text per token",
    "text_per_word": "text per word",
    "marker": "marker",
    "mean": "all targets",
}
ERRORS = {"speech_per_unit": "speech_se", "text_per_token": "text_se"}
Rows = list[list[str]]
"""The first is the head."""


def write_runs_page(
    path: Path, runs: Sequence[RunMetrics], *, by: str = "tokens", title: str = "Training runs"
) -> None:
    """Write the page.

    Args:
        by: axis of the curves, a name in `run_files.AXES`.

    Raises:
        DataError: a run has no numbers for that axis.

    Example: write_runs_page(Path("runs.html"), read_runs([Path("runs/a"), Path("runs/b")]), by="flops")
    """
    assets = resources.files("speechscale.report") / "assets"
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string((assets / "runs.html.j2").read_text(encoding="utf-8"))
    page = template.render(
        title=title,
        css=(assets / "tokens.css").read_text(encoding="utf-8"),
        plotly_js=plotly_script(),
        colors=run_colors(runs),
        chosen=chosen_set(runs),
        summary=summary_rows(runs),
        figures=[(drawn.title, drawn.note, figure_div(drawn.figure)) for drawn in run_figures(runs, by)],
        last_checks=last_check_rows(runs),
        differences=difference_rows(runs),
        details=[_details(run) for run in runs],
    )
    with complete_file(Path(path)) as draft:
        draft.write_text(page + "\n", encoding="utf-8")


def chosen_set(runs: Sequence[RunMetrics]) -> str:
    """The validation set of the summary: "select", or else the first that any run has."""
    sets = [name for run in runs if not run.checks.empty for name in run.checks["set"]]
    return SELECT if SELECT in sets or not sets else sets[0]


def summary_rows(runs: Sequence[RunMetrics]) -> Rows:
    """One row per run: size, tokens, compute, losses, time, money, and how it ended."""
    chosen = chosen_set(runs)
    rows = [_summary(run, chosen) for run in runs]
    used = [name for name in rows[0] if any(row[name] for row in rows)]
    return [used, *([row[name] for name in used] for row in rows)]


def _summary(run: RunMetrics, chosen: str) -> dict[str, str]:
    last, start = run.last_step, run.start
    end: Mapping[str, Any] = {**last, **(run.stop or {})}
    checks = run.checks[run.checks["set"] == chosen] if not run.checks.empty else run.checks
    cells = {
        "run": run.name,
        "ended": run.state,
        "N": _cell(start.get("params_total"), short_count),
        "N (non-emb.)": _cell(start.get("params_non_embedding"), short_count),
        "D tokens": _cell(end.get("tokens_seen"), short_count),
        "of budget": _share(end.get("tokens_seen"), last.get("tokens_total")),
        "C exact": _cell(last.get("flops_exact"), short_flops),
        "training loss": _cell(last.get("loss"), "{:.4f}".format),
    }
    for key, label in (("speech_per_unit", "speech"), ("text_per_token", "text")):
        cells[f"{label}, last check"] = _loss(checks, key, best=False)
        cells[f"{label}, lowest"] = _loss(checks, key, best=True)
    return cells | {
        "hours": _cell(end.get("seconds"), lambda seconds: f"{seconds / 3600:.3g}"),
        "tokens/s": _cell(_median(run.steps, "tokens_per_s"), "{:,.0f}".format),
        "MFU": _cell(_median(run.steps, "mfu"), "{:.1%}".format),
        "GPU-hours": _cell(last.get("gpu_hours"), "{:.3g}".format),
        "dollars": _cell(last.get("dollars"), "{:,.2f}".format),
    }


def last_check_rows(runs: Sequence[RunMetrics]) -> Rows:
    """One row per run and set: every loss of its last check."""
    used = [key for key in LOSSES if any(key in run.checks for run in runs)]
    rows = [["run", "set", "step", *(LOSSES[key] for key in used)]]
    for run in runs:
        for name in dict.fromkeys(run.checks["set"]) if not run.checks.empty else ():
            checks = run.checks[run.checks["set"] == name]
            step = f"{checks['step'].iloc[-1]:,}"
            rows.append([run.name, name, step, *(_loss(checks, key, best=False) for key in used)])
    return rows


def difference_rows(runs: Sequence[RunMetrics]) -> Rows:
    """Settings of the runs' configs that are not the same in all."""
    configs = [_settings(run.start.get("config", {})) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    differing = [key for key in keys if len({config.get(key, "-") for config in configs}) > 1]
    return [["setting", *(run.name for run in runs)]] + [
        [key, *(config.get(key, "-") for config in configs)] for key in differing
    ]


def _settings(config: Any, above: str = "") -> dict[str, str]:
    if not isinstance(config, Mapping):
        return {above or "config": json.dumps(config)}
    found: dict[str, str] = {}
    for key, value in config.items():
        found |= _settings(value, f"{above}.{key}" if above else str(key))
    return found


def _details(run: RunMetrics) -> dict[str, Any]:
    start = run.start
    facts = {
        "file": str(run.path),
        "begun": str(start.get("time", "")),
        "device": ", ".join(f"{start[key]}" for key in ("device", "precision") if key in start),
        "processes": str(start.get("world", "")),
        "resumed": ", ".join(f"from step {s.get('resumed_from')} at {s.get('time')}" for s in run.starts[1:]),
        "checkpoints": ", ".join(f"{event['step']:,}" for event in run.checkpoints),
        "versions": ", ".join(f"{name} {version}" for name, version in start.get("versions", {}).items()),
    }
    config = json.dumps(start.get("config", {}), indent=1)
    return {"name": run.name, "facts": {k: v for k, v in facts.items() if v}, "notes": run.notes, "config": config}


def _loss(checks: pd.DataFrame, key: str, *, best: bool) -> str:
    """Example: '3.2140 ± 0.0210'; the lowest also says where: '3.2140 ± 0.0210 at 1.2M'."""
    if key not in checks or checks[key].isna().all():
        return ""
    row = checks.iloc[int(checks[key].argmin()) if best else -1]
    if pd.isna(row[key]):
        return "nan"
    error = row.get(ERRORS.get(key, ""))
    text = f"{row[key]:.4f}" + ("" if error is None or pd.isna(error) else f" ± {error:.4f}")
    return f"{text} at {short_count(row['tokens_seen'])}" if best else text


def _cell(value: Any, form: Any) -> str:
    return "" if value is None else str(form(value))


def _share(seen: Any, total: Any) -> str:
    return f"{seen / total:.1%}" if seen is not None and total else ""


def _median(steps: pd.DataFrame, key: str) -> float | None:
    return float(np.nanmedian(steps[key])) if key in steps and steps[key].notna().any() else None
