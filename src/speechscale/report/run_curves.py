"""Curves of training runs.

Enters: `RunMetrics` and the axis to draw over. Leaves: plotly figures, one color per run. The one decision worth
knowing: raw values are faint, the line is their centered mean, and long runs are thinned after smoothing, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from speechscale.errors import DataError
from speechscale.report.figures import DASHES, DIRECTIONS, PALETTE
from speechscale.report.run_files import AXES, RunMetrics

POINTS = 1000
"""Most points of a curve."""
WINDOWS = 50
"""A mean is over one of so many parts of the run."""
TRAINING = {
    "loss_speech_per_unit": "speech, per unit",
    "loss_text_per_token": "text, per token",
    "loss_marker": "markers",
    "loss": "all targets",
}
VALIDATION = {"speech_per_unit": "speech, nats per unit", "text_per_token": "text, nats per token"}
ERRORS = {"speech_per_unit": "speech_se", "text_per_token": "text_se"}
UPDATES = {"learning_rate": "learning rate", "grad_norm": "gradient norm"}
FORMATS = {"learning_rate": "~e", "tokens_per_s": ",d", "mfu": ".1~%", "data_wait_share": ".1~%"}
"""Of ticks, where the axis begins at 0."""
ESTIMATE = "/estimate"
"""End of a probe's key whose neighbors are se, n and chance."""
SPEED = {"tokens_per_s": "tokens/s", "mfu": "MFU", "data_wait_share": "share of time waiting for data"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnFigure:
    """A figure, its heading and what to know of it."""

    title: str
    note: str = ""
    figure: go.Figure


def run_colors(runs: Sequence[RunMetrics]) -> dict[str, str]:
    """Run -> color; beyond the palette they repeat, with another dash."""
    return {run.name: PALETTE[index % len(PALETTE)] for index, run in enumerate(runs)}


def run_figures(runs: Sequence[RunMetrics], by: str) -> list[DrawnFigure]:
    """All figures there are numbers for.

    Raises:
        DataError: a run has no numbers for the axis `by`.
    """
    for run in runs:
        if not run.steps.empty and AXES[by][0] not in run.steps:
            raise DataError(f"{run.path}: no step has '{AXES[by][0]}'; choose another axis than --by {by}")
    smooth = f"Faint: as logged. Line: centered mean over 1/{WINDOWS} of the run."
    found = [
        ("Training loss", smooth, _step_figure(runs, by, TRAINING)),
        *((f"Validation loss: {label}", "Band: ± 1 standard error.", _check_figure(runs, by, key))
          for key, label in VALIDATION.items()),
        ("Probes", "Bars: ± 1 standard error, clustered on pairs. Dotted: chance.", _probe_figure(runs, by)),
        ("Learning rate and gradient norm", smooth, _step_figure(runs, by, UPDATES)),
        ("Speed", smooth, _step_figure(runs, by, SPEED)),
    ]  # fmt: skip
    return [DrawnFigure(title=title, note=note, figure=figure) for title, note, figure in found if figure is not None]


def _step_figure(runs: Sequence[RunMetrics], by: str, panels: Mapping[str, str]) -> go.Figure | None:
    used = {key: label for key, label in panels.items() if any(_has(run.steps, key) for run in runs)}

    def draw(run: RunMetrics, key: str) -> list[go.Scatter]:
        values = run.steps.dropna(subset=[AXES[by][0], key]) if _has(run.steps, key) else run.steps.iloc[:0]
        if values.empty:
            return []
        places = values[AXES[by][0]].to_numpy(float)
        raw = values[key].to_numpy(float)
        if key == "learning_rate":  # has no noise, and a mean would round its corners
            return [_curve(places, raw)]
        return [_curve(places, raw, opacity=0.25, hoverinfo="skip"), _curve(places, smoothed(raw))]

    figure = _grid(runs, used, draw, by)
    for index, key in enumerate(used):
        if figure is not None and key in FORMATS:
            figure.update_yaxes(tickformat=FORMATS[key], rangemode="tozero", **_at(index, len(used)))
    return figure


def _check_figure(runs: Sequence[RunMetrics], by: str, key: str) -> go.Figure | None:
    sets = {
        name: name
        for run in runs
        if _has(run.checks, key)
        for name in run.checks.dropna(subset=[key])["set"]
    }  # fmt: skip

    def draw(run: RunMetrics, name: str) -> list[go.Scatter]:
        checks = run.checks[run.checks["set"] == name].dropna(subset=[key]) if _has(run.checks, key) else None
        if checks is None or checks.empty:
            return []
        places, values = run.places(checks, by), checks[key].to_numpy(float)
        line = _curve(places, values, mode="lines+markers", marker={"size": 5})
        if not _has(checks, ERRORS[key]):
            return [line]
        errors = checks[ERRORS[key]].fillna(0).to_numpy(float)
        band = go.Scatter(
            x=np.concatenate([places, places[::-1]]),
            y=np.concatenate([values + errors, (values - errors)[::-1]]),
            fill="toself",
            opacity=0.2,
            mode="none",
            hoverinfo="skip",
            showlegend=False,
        )
        return [band, line]

    return _grid(runs, sets, draw, by)


def _probe_figure(runs: Sequence[RunMetrics], by: str) -> go.Figure | None:
    """A panel per probed number; choices ("PROBE/SET/DIRECTION") with their standard errors and chance."""
    columns = dict.fromkeys(key for run in runs for key in run.probes.columns if key not in ("step", "tokens_seen"))
    parts = {key.rpartition("/")[0] for key in columns if key.endswith(ESTIMATE)}
    keys = {key: _probe_title(key) for key in columns if key.endswith(ESTIMATE) or key.rpartition("/")[0] not in parts}

    def draw(run: RunMetrics, key: str) -> list[go.Scatter]:
        probes = run.probes.dropna(subset=[key]) if key in run.probes else None
        if probes is None or probes.empty:
            return []
        line = _curve(run.places(probes, by), probes[key].to_numpy(float), mode="lines+markers", marker={"size": 5})
        errors = f"{key.removesuffix(ESTIMATE)}/se"
        if key.endswith(ESTIMATE) and _has(probes, errors):
            line.update(error_y={"array": probes[errors].fillna(0), "thickness": 1, "width": 2})
        return [line]

    figure = _grid(runs, keys, draw, by)
    for index, key in enumerate(keys):
        chance = [value for run in runs for value in run.probes.get(f"{key.removesuffix(ESTIMATE)}/chance", ())]
        if figure is not None and key.endswith(ESTIMATE) and chance:
            place = _at(index, len(keys))
            figure.add_hline(y=chance[-1], line={"color": "#888", "dash": "dot", "width": 1}, **place)
            figure.update_yaxes(autorangeoptions={"include": [chance[-1] - 0.1, chance[-1] + 0.1]}, **place)
    return figure


def _probe_title(key: str) -> str:
    """Example: "cloze/story_cloze/ss/estimate" -> "cloze, story cloze, speech->speech"."""
    if not key.endswith(ESTIMATE):
        return key
    *names, direction = key.removesuffix(ESTIMATE).split("/")
    return ", ".join([*(name.replace("_", " ") for name in names), DIRECTIONS.get(direction, direction)])


def smoothed(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Centered mean over 1/WINDOWS of the values, at least three; what is not finite is left out."""
    window = max(3, len(values) // WINDOWS)
    finite = pd.Series(np.where(np.isfinite(values), values, np.nan))
    return finite.rolling(window, center=True, min_periods=1).mean().to_numpy()


def _curve(places: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"], **style: Any) -> go.Scatter:
    chosen = np.unique(np.linspace(0, len(places) - 1, min(POINTS, len(places))).round().astype(int))
    finite = np.where(np.isfinite(values), values, np.nan)
    return go.Scatter(x=places[chosen], y=finite[chosen], **{"mode": "lines", "showlegend": False, **style})


def _grid(
    runs: Sequence[RunMetrics],
    panels: Mapping[str, str],
    draw: Callable[[RunMetrics, str], list[go.Scatter]],
    by: str,
) -> go.Figure | None:
    """One panel per entry, up to three in a row, all runs in each."""
    if not panels:
        return None
    columns = _columns(len(panels))
    rows = -(-len(panels) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=list(panels.values()),
        horizontal_spacing=0.07,
        vertical_spacing=0.28 / rows,
    )
    colors, named = run_colors(runs), set[str]()
    for number, run in enumerate(runs):
        dash = DASHES[number // len(PALETTE) % len(DASHES)]
        for index, key in enumerate(panels):
            for trace in draw(run, key):
                trace.update(name=run.name, legendgroup=run.name)
                if trace.mode == "none":
                    trace.update(fillcolor=colors[run.name])
                else:
                    trace.update(line={"color": colors[run.name], "dash": dash, "width": 1.6})
                if trace.hoverinfo != "skip" and run.name not in named:
                    trace.update(showlegend=True)
                    named.add(run.name)
                figure.add_trace(trace, **_at(index, len(panels)))
    form = "power" if by == "flops" else "SI"
    figure.update_xaxes(title={"text": AXES[by][1], "font": {"size": 11}, "standoff": 4}, exponentformat=form)
    figure.update_layout(
        template="plotly_white",
        height=130 + 250 * rows,
        margin={"l": 55, "r": 15, "t": 60, "b": 40},
        font={"family": "system-ui, sans-serif", "size": 12},
        legend={"orientation": "h", "y": -0.2 / rows, "yanchor": "top", "font": {"size": 11}},
        showlegend=True,
    )
    return figure


def _columns(panels: int) -> int:
    return 2 if panels in (2, 4) else min(panels, 3)


def _at(index: int, panels: int) -> dict[str, int]:
    columns = _columns(panels)
    return {"row": index // columns + 1, "col": index % columns + 1}


def _has(table: pd.DataFrame, key: str) -> bool:
    return key in table and bool(table[key].notna().any())
