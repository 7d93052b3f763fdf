"""Accuracy against loss: a panel per set and direction, points by arm, the lines that hold.

Enters: the "links" of `laws.json`, curves with probes. Leaves: plotly figures and rows of text.
The one decision worth knowing: everything drawn stands in `laws.json`; where no slope was told from zero there are
points with their errors and no line.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from speechscale.report.figures import DASHES, DIRECTIONS, PALETTE

TITLES = {"runs": "Finished runs: loss on test", "probes": "Along training (probes): loss on select"}
SHORT = {
    "fitted": "slope",
    "no_slope": "no slope",
    "at_chance": "at chance",
    "narrow": "one loss",
    "too_few_runs": "too few runs",
}
"""Status of an arm as it stands in a panel's title."""
COLUMNS = 3
WRAP = 56
"""Letters of a line of a panel's verdict."""
CHANCE = 0.5
AROUND = 0.05
"""So far around chance a panel always reaches."""


def link_figures(entries: Sequence[Mapping[str, Any]], colors: Mapping[str, str]) -> list[tuple[str, go.Figure]]:
    """Title and figure of each source that has points.

    Args:
        entries: `laws.json`, parts, "links". colors: arm -> color; others get one of the palette.
    """
    found = []
    for source, title in TITLES.items():
        own = [entry for entry in entries if entry["source"] == source]
        if own:
            found.append((title, _figure(own, colors)))
    return found


def _figure(entries: Sequence[Mapping[str, Any]], colors: Mapping[str, str]) -> go.Figure:
    columns = min(COLUMNS, len(entries))
    rows = -(-len(entries) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[_title(entry) for entry in entries],
        horizontal_spacing=0.07,
        vertical_spacing=0.4 / rows,
    )
    named = set[str]()
    for index, entry in enumerate(entries):
        at = {"row": index // columns + 1, "col": index % columns + 1}
        for number, arm in enumerate(entry["arms"]):
            color = colors.get(arm["group"], PALETTE[number % len(PALETTE)])
            for trace in _traces(arm, color):
                trace.update(legendgroup=arm["group"])
                if trace.mode == "markers" and arm["group"] not in named:
                    trace.update(showlegend=True)
                    named.add(arm["group"])
                figure.add_trace(trace, **at)
        figure.update_xaxes(title=f"{entry['loss'].removeprefix('loss_')} loss (nats)", **at)
    figure.add_hline(y=CHANCE, line={"color": "#888", "dash": "dot", "width": 1})
    figure.update_xaxes(title_font={"size": 11}, title_standoff=4)
    return _laid_out(figure, rows)


def _laid_out(figure: go.Figure, rows: int) -> go.Figure:
    figure.update_yaxes(tickformat=".2f")
    for axis, ends in _reach(figure).items():
        low, high = min(*ends, CHANCE - AROUND), max(*ends, CHANCE + AROUND)
        figure.layout[axis].range = [low - 0.04 * (high - low), high + 0.04 * (high - low)]
    figure.update_yaxes(title="accuracy", col=1)
    figure.update_annotations(font={"size": 12})
    figure.update_layout(
        template="plotly_white",
        height=110 + 280 * rows,
        margin={"l": 60, "r": 20, "t": 60, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": -0.2 / rows, "yanchor": "top", "font": {"size": 11}},
        showlegend=True,
    )
    return figure


def _reach(figure: go.Figure) -> dict[str, list[float]]:
    """Where the points of each panel end, errors included. (Plotly shows equal points from -0.5 to 1.5.)"""
    ends: dict[str, list[float]] = {}
    for trace in figure.data:
        errors = trace.error_y.array
        own = ends.setdefault("yaxis" + (trace.yaxis or "y")[1:], [])
        for y, error in zip(trace.y, [None] * len(trace.y) if errors is None else errors, strict=True):
            known = 0.0 if error is None or math.isnan(error) else float(error)
            own += [y - known, y + known]
    return ends


def _title(entry: Mapping[str, Any]) -> str:
    """Example: 'story cloze speech->speech<br>slope: textless; at chance: interleaved', the second line small."""
    by_status: dict[str, list[str]] = {}
    for arm in entry["arms"]:
        by_status.setdefault(SHORT[arm["status"]], []).append(arm["group"])
    if len(by_status) == 1 and len(entry["arms"]) > 1:
        said = f"all: {next(iter(by_status))}"
    else:
        said = "; ".join(f"{status}: {', '.join(arms)}" for status, arms in by_status.items())
    lines = textwrap.wrap(said, WRAP)
    head = f"{entry['set'].replace('_', ' ')} {DIRECTIONS[entry['direction']]}"
    return f"{head}<br><span style='font-size:10px'>{'<br>'.join(lines)}</span>"


def _traces(arm: Mapping[str, Any], color: str) -> list[go.Scatter]:
    """Points with errors; with a curve its band and line before them."""
    measured, curve = arm["measured"], arm["curve"]
    points = go.Scatter(
        x=measured["loss"],
        y=measured["accuracy"],
        error_y={"array": measured["se"], "thickness": 1, "width": 2},
        mode="markers",
        marker={"color": color, "size": 6},
        name=arm["group"],
        text=measured["run"],
        showlegend=False,
    )
    if curve is None:
        return [points]
    quiet = {"hoverinfo": "skip", "showlegend": False, "name": arm["group"]}
    band = go.Scatter(
        x=[*curve["loss"], *reversed(curve["loss"])],
        y=[*curve["high"], *reversed(curve["low"])],
        fill="toself",
        fillcolor=color,
        opacity=0.18,
        mode="none",
        **quiet,
    )
    line = go.Scatter(x=curve["loss"], y=curve["accuracy"], mode="lines", line={"color": color, "width": 1.8}, **quiet)
    return [band, line, points]


def probe_figure(curves: Sequence[Mapping[str, Any]], colors: Mapping[str, str]) -> go.Figure | None:
    """Probed accuracies against tokens seen, with standard errors; the other side of `figures.curves_figure`.

    Args:
        curves: its entries, with "probes": per point {set: {direction: {"estimate", "se", ...}}}, or {}.
    """
    found = [
        (set_name, direction)
        for curve in curves
        for probes in curve.get("probes", ())
        for set_name, directions in probes.items()
        for direction in directions
    ]
    panels = sorted(set(found))
    if not panels:
        return None
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    titles = [f"{set_name.replace('_', ' ')} {DIRECTIONS[direction]}" for set_name, direction in panels]
    figure = make_subplots(
        rows=rows, cols=columns, subplot_titles=titles, horizontal_spacing=0.07, vertical_spacing=0.4 / rows
    )
    sizes = list(dict.fromkeys(curve["size"] for curve in curves))
    named = set[str]()
    for index, (set_name, direction) in enumerate(panels):
        for curve in curves:
            points = [
                (tokens, probes[set_name][direction])
                for tokens, probes in zip(curve["tokens_seen"], curve.get("probes", ()), strict=False)
                if direction in probes.get(set_name, {})
            ]
            if not points:
                continue
            name = f"{curve['arm']}, {curve['size']}, seed {curve['seed']}"
            trace = go.Scatter(
                x=[tokens for tokens, _ in points],
                y=[numbers["estimate"] for _, numbers in points],
                error_y={"array": [numbers["se"] for _, numbers in points], "thickness": 1, "width": 2},
                mode="lines+markers",
                marker={"size": 5},
                line={
                    "color": colors[curve["arm"]],
                    "dash": DASHES[sizes.index(curve["size"]) % len(DASHES)],
                    "width": 1.4,
                },
                name=name,
                legendgroup=name,
                showlegend=name not in named,
            )
            named.add(name)
            figure.add_trace(trace, row=index // columns + 1, col=index % columns + 1)
    figure.add_hline(y=CHANCE, line={"color": "#888", "dash": "dot", "width": 1})
    figure.update_xaxes(title={"text": "tokens seen", "font": {"size": 11}, "standoff": 4}, exponentformat="SI")
    return _laid_out(figure, rows)


def link_rows(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Lines 'what, arm, result' for a table; the last of a set and direction is about all arms together."""
    rows = []
    for entry in entries:
        source = TITLES[entry["source"]].partition(":")[0].lower()
        what = f"{entry['set'].replace('_', ' ')} {DIRECTIONS[entry['direction']]}, {source}"
        for arm in entry["arms"]:
            rows.append({"what": what, "arm": arm["group"], "result": "; ".join([arm["message"], *arm["notes"]])})
        if entry["pooled"]:
            rows.append({"what": what, "arm": "all arms", "result": entry["pooled"]["message"]})
    return rows
