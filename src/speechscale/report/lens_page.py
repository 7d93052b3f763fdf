"""A logit lens as a page: where in the model and when in the word its text token stands out.

Enters: the content of lens.json. Leaves: one HTML file that needs no network. The one decision worth knowing: pictures
show hits minus what other words' tokens get at the same time, so that white means nothing, not zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from speechscale.files import complete_file
from speechscale.report.figures import PALETTE
from speechscale.report.html_parts import figure_div, plotly_script

OWN, CHANCE, LOCAL = "#1f6f8b", "#8a949f", PALETTE[1]
SCALE = [[0.0, "#b8481f"], [0.5, "#ffffff"], [1.0, "#1f6f8b"]]
GROUPS = ("first mention", "mentioned before", "heard in training", "only read in training")
NOTES = (
    "The lens: the hidden state of each layer at each speech token goes through the model's own final norm and head, "
    "text rows only. Layer 0 is what enters the first block: it says what a single unit tells, without context.",
    "A hit does not mean that the model uses the word there, and a miss does not mean that the word is not there: a "
    "layer may hold it in other directions than the head reads.",
    "The best layer is chosen among those behind a block, on the same words, which flatters it a little; the "
    "cross-fitted figure is free of that: layers are chosen on one half of the utterances and measured on the other. "
    "Intervals are per layer, not for all at once.",
    "Chance, the same token while other words sound, keeps how often the layer says it anyway. Neighbors, the same "
    "token while the other words of its utterance sound, also keep what the utterance is about: a model that only "
    "knows the topic beats chance, not its neighbors. Less than chance is possible: a layer that says what comes next "
    "says the word before it sounds, and others while it does.",
    "Words that are hit before they begin are expected from what came before; words with an earlier mention can be "
    "repeated. The table of words tells them apart.",
)
"""How to read the page."""


def write_lens_page(path: Path, record: Mapping[str, Any]) -> None:
    """Write lens.html from what stands in lens.json.

    Example: write_lens_page(Path("lens.html"), json.loads(Path("lens.json").read_text()))
    """
    assets = resources.files("speechscale.report") / "assets"
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string((assets / "lens.html.j2").read_text(encoding="utf-8"))
    figures = record["figures"]
    page = template.render(
        title=f"Logit lens of {record['stamp']['model']['name']}",
        css=(assets / "tokens.css").read_text(encoding="utf-8"),
        plotly_js=plotly_script(),
        verdict=verdict(figures),
        facts=_facts(record),
        figures=[(title, note, figure_div(figure)) for title, note, figure in lens_figures(figures)],
        example=_example(record.get("example")),
        layers=layer_rows(figures),
        groups=group_rows(figures),
        best=figures["best"]["layer"],
        notes=NOTES,
    )
    with complete_file(Path(path)) as draft:
        draft.write_text(page + "\n", encoding="utf-8")


def verdict(figures: Mapping[str, Any]) -> list[str]:
    """What was found, in sentences; the same stand in the terminal."""
    best, lag = figures["best"], figures["lag"]["start"]
    where = f"layer {best['layer']} of {len(figures['layers']) - 1}"
    if best["low"] is None:
        found = f"One utterance: no interval. Best is {where}, {_points(best['difference'])} above chance."
    elif best["low"] > 0:
        beyond = best["beyond_embedding"]
        found = (
            f"In {where} the word's token is among the top 10 of all text tokens {best['own']:.1%} of the time the "
            f"word sounds, and {best['chance']:.1%} while other words do. Difference: {_band(best, 'difference')}, "
            f"cross-fitted {_points(best['cross_fitted'])}; beyond what the embedding of one unit says: "
            f"{_band(beyond, 'value')}."
        )
    else:
        found = (
            f"No layer names the word it hears more often than chance: the best, {where}, differs by "
            f"{_band(best, 'difference')}."
        )
    if best["low"] is None or best["low"] <= 0:
        return [found]
    ever, span = best["ever10"], ""
    if lag["peak_low"] is not None:
        span = f" [{lag['peak_low']:+g}, {lag['peak_high']:+g}]"
    return [
        found,
        f"{ever['own']:.1%} of words are among the top 10 at some time while they sound (chance {ever['chance']:.1%}). "
        f"The difference is largest at {lag['peak_frames']:+d} frames{span} ({1000 * lag['peak_s']:+.0f} ms) from the "
        "word's start" + (", before it is heard." if lag["peak_frames"] < 0 else "."),
    ]


def _band(entry: Mapping[str, Any], key: str) -> str:
    return f"{_points(entry[key])} [{100 * entry['low']:+.1f}, {100 * entry['high']:+.1f}]"


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points"


def lens_figures(figures: Mapping[str, Any]) -> list[tuple[str, str, go.Figure]]:
    """Title, note and figure of each picture."""
    best = figures["best"]["layer"]
    which = (
        "Share of the word's time in which its token is among the top 10, mean over words. Right: minus chance; "
        "band: 95 % interval."
    )
    when = (
        "Top 10 minus chance. Inside the word: equal parts of its time, every word counting once in each. Outside: "
        "single speech tokens before and behind it."
    )
    late = (
        f"Top 10 minus chance in layer {best}, frame by frame. Dotted: the largest; only frames that a quarter of the "
        "words reach."
    )
    return [
        ("Which layer", which, layer_figure(figures)),
        ("When in the word", when, picture_figure(figures)),
        ("How late", late, lag_figure(figures)),
    ]


def layer_figure(figures: Mapping[str, Any]) -> go.Figure:
    """Hits, chance and neighbors by layer; their difference with its interval."""
    layers = [layer["hit10"] for layer in figures["layers"]]
    x = list(range(len(layers)))
    figure = make_subplots(cols=2, horizontal_spacing=0.09, subplot_titles=("top 10", "top 10 minus chance"))
    lines = [
        ("while the word sounds", "own", OWN, "solid"),
        ("while other words sound (chance)", "chance", CHANCE, "dash"),
    ]
    if layers[0]["local"] is not None:
        lines.append(("while others of its utterance sound", "local", LOCAL, "dot"))
    for name, key, color, dash in lines:
        y = [layer[key] for layer in layers]
        line = {"color": color, "dash": dash}
        figure.add_trace(go.Scatter(x=x, y=y, name=name, mode="lines+markers", line=line), row=1, col=1)
    difference = [layer["difference"] for layer in layers]
    if layers[0]["low"] is not None:
        low, high = [layer["low"] for layer in layers], [layer["high"] for layer in layers]
        band = go.Scatter(
            x=[*x, *x[::-1]],
            y=[*high, *low[::-1]],
            fill="toself",
            mode="none",
            fillcolor="rgba(31,111,139,.2)",
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_trace(band, row=1, col=2)
    trace = go.Scatter(x=x, y=difference, mode="lines+markers", line={"color": OWN}, showlegend=False)
    figure.add_trace(trace, row=1, col=2)
    figure.add_hline(y=0, line={"color": "#888", "width": 1, "dash": "dot"}, row=1, col=2)
    figure.update_xaxes(title="layer (0: embedding)", dtick=max(1, len(x) // 12))
    figure.update_yaxes(tickformat=".0%")
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    return _styled(figure, 360)


def picture_figure(figures: Mapping[str, Any]) -> go.Figure:
    """Layers by time in the word, colored by hits minus chance."""
    picture = figures["picture"]
    around, bins = picture["around"], picture["bins"]
    values = picture["difference"]
    most = max((abs(v) for row in values for v in row if v is not None), default=0.0) or 0.01
    names = [f"{place} tokens" if i < around or i >= around + bins else f"{place} of the word"
             for i, place in enumerate(picture["places"])]  # fmt: skip
    hover = [
        [f"{name}<br>{count:,} times" for name, count in zip(names, picture["count"], strict=True)] for _ in values
    ]
    heat = go.Heatmap(
        z=values,
        text=hover,
        hovertemplate="layer %{y}, %{text}<br>%{z:+.1%} above chance<extra></extra>",
        colorscale=SCALE,
        zmin=-most,
        zmax=most,
        colorbar={"tickformat": "+.0%", "thickness": 12, "title": {"text": "above<br>chance", "side": "top"}},
        xgap=1,
        ygap=1,
    )
    figure = go.Figure(heat)
    for edge in (around - 0.5, around + bins - 0.5):
        figure.add_vline(x=edge, line={"color": "#1d2733", "width": 2})
    at = [0, around // 2, around - 1, around, around + bins // 2, around + bins - 1, around + bins,
          around + bins + around // 2, len(names) - 1]  # fmt: skip
    labels = {i: picture["places"][i] for i in at if 0 <= i < len(names)}
    figure.update_xaxes(tickvals=list(labels), ticktext=list(labels.values()), showgrid=False)
    for x, text in (
        ((around - 1) / 2, "tokens before"),
        (around + (bins - 1) / 2, "while the word sounds"),
        (around + bins + (around - 1) / 2, "tokens behind"),
    ):
        figure.add_annotation(x=x, y=1, yref="paper", yanchor="bottom", text=text, showarrow=False)
    figure.update_yaxes(title="layer", dtick=max(1, len(values) // 12), showgrid=False)
    return _styled(figure, 190 + 22 * min(len(values), 26))


def lag_figure(figures: Mapping[str, Any]) -> go.Figure:
    """Hits minus chance of the best layer by milliseconds from the start and the end of words."""
    rate = figures["frame_rate_hz"]
    figure = make_subplots(
        cols=2, shared_yaxes=True, horizontal_spacing=0.05, subplot_titles=("from the word's start", "from its end")
    )
    for column, side in enumerate(("start", "end"), start=1):
        lag = figures["lag"][side]
        x = [1000 * frame / rate for frame in lag["frames"]]
        line = {"color": OWN, "shape": "hvh"}
        trace = go.Scatter(x=x, y=lag["difference"], mode="lines", line=line, showlegend=False)
        figure.add_trace(trace, row=1, col=column)
        figure.add_vline(x=0, line={"color": "#1d2733", "width": 1}, row=1, col=column)
        peak = {"color": PALETTE[1], "width": 1, "dash": "dot"}
        figure.add_vline(x=1000 * lag["peak_s"], line=peak, row=1, col=column)
    figure.add_hline(y=0, line={"color": "#888", "width": 1, "dash": "dot"})
    figure.update_xaxes(title="ms")
    figure.update_yaxes(tickformat="+.0%")
    return _styled(figure, 320)


def layer_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The first row is the head."""
    head = ["layer", "top 1", "chance", "top 5", "chance", "top 10", "chance", "neighbors", "top 10 minus chance",
            "ever top 10", "chance", "mean 1/rank", "chance", "log-prob. (nats)", "chance"]  # fmt: skip
    rows = [head]
    for layer in figures["layers"]:
        ten, ever = layer["hit10"], layer["ever10"]
        cells = [f"{layer[key][kind]:.1%}" for key in ("hit1", "hit5", "hit10") for kind in ("own", "chance")]
        neighbors = "" if ten["local"] is None else f"{ten['local']:.1%}"
        cells += [neighbors, _with_interval(ten["difference"], ten["low"], ten["high"])]
        cells += [f"{ever['own']:.1%}", f"{ever['chance']:.1%}"]
        cells += [f"{layer['reciprocal_rank'][kind]:.3f}" for kind in ("own", "chance")]
        cells += [f"{layer['logprob'][kind]:.2f}" for kind in ("own", "chance")]
        rows.append([str(layer["layer"]), *cells])
    return rows


def group_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """Subsets of words in the best layer; the first row is the head."""
    best = figures["best"]["layer"]
    rows = [["words", "number", "utterances", "top 10 minus chance"]]
    for name in GROUPS:
        if name not in figures["groups"]:
            continue
        group = figures["groups"][name]
        value = _with_interval(*(group[key][best] for key in ("difference", "low", "high")))
        rows.append([name, f"{group['words']:,}", f"{group['utterances']:,}", value])
    return rows


def _with_interval(value: float, low: float | None, high: float | None) -> str:
    band = "" if low is None or high is None else f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"{100 * value:+.1f}{band}"


def _facts(record: Mapping[str, Any]) -> dict[str, str]:
    figures, stamp, config = record["figures"], record["stamp"], record["config"]
    counts = figures["word_counts"]
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if reason != "taken")
    constant = figures["constant"]
    opening = {"plain": "<eos> units", "speech": "<eos> <speech> units"}[config["opening"]]
    units, guess = record["units"], f"top 1 {constant['hit1']:.1%}, top 10 {constant['hit10']:.1%}"
    return {
        "model": f"{stamp['model']['name']}, {stamp['model']['params_total']:,} parameters",
        "speech": f"{figures['utterances']:,} utterances of {units['name']}, split {units['split']}, read as {opening}",
        "words": f"{figures['words']:,} asked for" + (f"; left out: {left_out}" if left_out else ""),
        "always guessing the most frequent": f"{guess}; counted in chance and in neighbors",
        "frames": f"{figures['frame_rate_hz']:g} per second",
        "utterances left out": str(record["dropped"]),
    }


def _example(example: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The table of one utterance, last layer first."""
    if example is None:
        return None
    layers: Sequence[Any] = example["layers"]
    rows = [
        {"name": f"layer {number}" if number else "embedding", "cells": [_cell(cell) for cell in layers[number]]}
        for number in range(len(layers) - 1, -1, -1)
    ]
    words = [
        {"text": word["text"], "time": f"{word['start_s']:.2f}-{word['end_s']:.2f} s"} for word in example["words"]
    ]
    return {"id": example["id"], "words": words, "rows": rows, "count": len(layers[0][0]["top"])}


def _cell(cell: Mapping[str, Any]) -> dict[str, str]:
    rank = cell["rank"]
    look = "top1" if rank == 1 else "top10" if rank is not None and rank <= 10 else "none"
    own = f"rank {rank}" if rank is not None else "beyond rank 100"
    return {"text": cell["top"][0], "look": look, "hint": f"{', '.join(cell['top'])}; own token: {own}"}


def _styled(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 45, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"font": {"size": 11}, "orientation": "h", "y": -0.22, "yanchor": "top"},
    )
    return figure
