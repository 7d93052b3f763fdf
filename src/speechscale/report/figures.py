"""Figures of a study's report, from the table of runs.

Enters: rows of runs.csv of one part. Leaves: plotly figures.
The one decision worth knowing: every point carries its standard error, chance is drawn, and nothing is extrapolated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from speechscale.report.numbers import short_count, short_flops

PALETTE = ["#3b6fb6", "#d1603d", "#3f8f5f", "#8a5fb0", "#a8862b", "#5a6b7b"]
DASHES = ["solid", "dash", "dot", "dashdot", "longdash"]
DIRECTIONS = {"ss": "speech->speech", "st": "speech->text", "ts": "text->speech", "tt": "text->text"}


def arm_colors(arms: Sequence[str]) -> dict[str, str]:
    """One color per arm, the same in every figure."""
    return {arm: PALETTE[i % len(PALETTE)] for i, arm in enumerate(arms)}


def speech_arms(runs: pd.DataFrame) -> list[str]:
    """Arms that have a speech loss, in the order of the table."""
    has = runs.dropna(subset=["loss_speech_final"]) if "loss_speech_final" in runs else runs.iloc[:0]
    return list(dict.fromkeys(has["arm"]))


def isoflop_figure(runs: pd.DataFrame, colors: Mapping[str, str]) -> go.Figure | None:
    """Speech loss against model size, one line per arm and budget; left final, right early-stopped."""
    arms = speech_arms(runs)
    if not arms:
        return None
    figure = make_subplots(
        cols=2, shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=("final checkpoint", "early-stopped")
    )
    budgets = sorted(runs["budget_flops"].unique())
    for column, name in ((1, "loss_speech_final"), (2, "loss_speech_best")):
        for arm in arms:
            for index, budget in enumerate(budgets):
                rows = runs[(runs["arm"] == arm) & (runs["budget_flops"] == budget)].sort_values("params_non_embedding")
                if rows.empty:
                    continue
                style = {"color": colors[arm], "dash": DASHES[index % len(DASHES)], "width": 1.5}
                points = rows.groupby("params_non_embedding", as_index=False)[[name, "loss_speech_se"]].mean()
                trace = go.Scatter(
                    x=points["params_non_embedding"],
                    y=points[name],
                    error_y={"array": points["loss_speech_se"], "thickness": 1, "width": 2},
                    mode="lines+markers",
                    line=style,
                    name=f"{arm}, {short_flops(budget)}",
                    legendgroup=f"{arm}{budget}",
                    showlegend=column == 1,
                )
                figure.add_trace(trace, row=1, col=column)
    figure.update_xaxes(
        type="log", title="parameters without embeddings", **_ticks(runs["params_non_embedding"], short_count)
    )
    figure.update_yaxes(title="speech loss (nats per unit)", col=1)
    return styled(figure, 430)


def envelope_figure(runs: pd.DataFrame, colors: Mapping[str, str]) -> go.Figure | None:
    """Lowest speech loss at each compute, charged for the TextLM (hollow, dotted) and not (solid)."""
    arms = speech_arms(runs)
    if not arms or runs["budget_flops"].nunique() < 2:
        return None
    figure = make_subplots(
        cols=2, shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=("final checkpoint", "early-stopped")
    )
    for column, name in ((1, "loss_speech_final"), (2, "loss_speech_best")):
        for arm in arms:
            best = _best_per_budget(runs[runs["arm"] == arm], name)
            hover = [f"size {size}" for size in best["size"]]
            plain = go.Scatter(
                x=best["budget_flops"],
                y=best[name],
                error_y={"array": best["loss_speech_se"], "thickness": 1, "width": 2},
                mode="lines+markers",
                line={"color": colors[arm]},
                name=arm,
                text=hover,
                legendgroup=arm,
                showlegend=column == 1,
            )
            figure.add_trace(plain, row=1, col=column)
            if best["flops_text_lm_exact"].max() > 0:
                charged = go.Scatter(
                    x=_charged(best),
                    y=best[name],
                    mode="lines+markers",
                    line={"color": colors[arm], "dash": "dot"},
                    marker={"symbol": "circle-open"},
                    name=f"{arm}, TextLM charged",
                    text=hover,
                    legendgroup=f"{arm}-charged",
                    showlegend=column == 1,
                )
                figure.add_trace(charged, row=1, col=column)
    marks = pd.Series([*runs["budget_flops"], _charged(runs).max()])
    figure.update_xaxes(type="log", title="training compute (FLOPs)", **_ticks(marks, short_flops))
    figure.update_yaxes(title="lowest speech loss (nats per unit)", col=1)
    return styled(figure, 400)


def _charged(rows: pd.DataFrame) -> pd.Series:
    """Compute of each run plus what its TextLM cost."""
    return rows["budget_flops"] + rows["flops_text_lm_exact"]


def _ticks(values: pd.Series, form: Callable[[float], str]) -> dict[str, Any]:
    """Ticks of a log axis at the measured values, leaving out those that would overlap."""
    chosen: list[float] = []
    for value in sorted(values.dropna().unique()):
        if not chosen or value >= 1.35 * chosen[-1]:
            chosen.append(float(value))
    return {"tickvals": chosen, "ticktext": [form(value) for value in chosen]}


def _best_per_budget(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    rows = rows.dropna(subset=[name])
    return rows.loc[rows.groupby("budget_flops")[name].idxmin()].sort_values("budget_flops")


def metric_columns(runs: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(set, direction, tag) of every accuracy column that holds a number."""
    found = []
    for column in runs.columns:
        if not column.startswith("acc_") or column.endswith(("_se", "_n")) or runs[column].isna().all():
            continue
        words = column.removeprefix("acc_").split("_")
        at = next((i for i, word in enumerate(words) if word in DIRECTIONS), None)
        if at is not None:
            found.append(("_".join(words[:at]), words[at], "_".join(words[at + 1 :])))
    return found


def metric_figure(runs: pd.DataFrame, colors: Mapping[str, str]) -> go.Figure | None:
    """Accuracy of each untagged metric against compute, best loss per budget, with standard errors and chance."""
    metrics = [m for m in metric_columns(runs) if not m[2]]
    if not metrics or runs["budget_flops"].nunique() < 2:
        return None
    columns = min(4, len(metrics))
    titles = [f"{name.replace('_', ' ')}<br>{DIRECTIONS[direction]}" for name, direction, _ in metrics]
    rows = -(-len(metrics) // columns)
    figure = make_subplots(
        rows=rows, cols=columns, shared_yaxes=True, subplot_titles=titles, vertical_spacing=0.3 / rows
    )
    for index, (name, direction, _) in enumerate(metrics):
        key = f"acc_{name}_{direction}"
        for arm in dict.fromkeys(runs["arm"]):
            loss = "loss_speech_final" if arm in speech_arms(runs) else "loss_text_final"
            scored = runs[(runs["arm"] == arm)].dropna(subset=[key])
            if scored.empty:
                continue
            best = _best_per_budget(scored, loss)
            trace = go.Scatter(
                x=best["budget_flops"],
                y=best[key],
                error_y={"array": best[f"{key}_se"], "thickness": 1, "width": 2},
                mode="lines+markers",
                line={"color": colors[arm]},
                name=arm,
                legendgroup=arm,
                showlegend=index == 0 or not any(t.name == arm for t in figure.data),
            )
            figure.add_trace(trace, row=index // columns + 1, col=index % columns + 1)
    figure.add_hline(y=0.5, line={"color": "#888", "dash": "dot", "width": 1})
    figure.update_xaxes(type="log", **_ticks(runs["budget_flops"], short_flops))
    figure.update_yaxes(title="accuracy", col=1)
    return styled(figure, 120 + 240 * rows)


def transfer_figure(runs: pd.DataFrame, colors: Mapping[str, str]) -> go.Figure | None:
    """Accuracy on facts that were heard and that were only read, per direction and arm, at the largest budget."""
    wanted = [m for m in metric_columns(runs) if m[0] == "facts" and m[2] in ("heard", "read")]
    if not wanted:
        return None
    largest = runs[runs["budget_flops"] == runs["budget_flops"].max()]
    tags = [tag for tag in ("heard", "read") if any(m[2] == tag for m in wanted)]
    titles = [f"facts {'also heard' if tag == 'heard' else 'only read'}" for tag in tags]
    figure = make_subplots(cols=len(tags), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.04)
    for column, tag in enumerate(tags, start=1):
        keys = [f"acc_facts_{direction}_{tag}" for direction in DIRECTIONS if ("facts", direction, tag) in wanted]
        labels = [DIRECTIONS[key.split("_")[2]] for key in keys]
        for arm in dict.fromkeys(largest["arm"]):
            rows = largest[largest["arm"] == arm]
            if rows[keys].isna().all(axis=None):
                continue
            means = rows[keys].mean()
            errors = [_pooled_se(rows[f"{key}_se"]) for key in keys]
            bar = go.Bar(
                x=labels,
                y=means,
                error_y={"array": errors},
                name=arm,
                marker_color=colors[arm],
                legendgroup=arm,
                showlegend=column == 1,
            )
            figure.add_trace(bar, row=1, col=column)
    figure.add_hline(y=0.5, line={"color": "#888", "dash": "dot", "width": 1})
    figure.update_yaxes(range=[0, 1.05])
    figure.update_yaxes(title="accuracy (chance 0.5)", col=1)
    return styled(figure, 380)


def _pooled_se(errors: pd.Series) -> float:
    known = errors.dropna()
    return float(np.sqrt((known**2).sum()) / len(known)) if len(known) else float("nan")


def curves_figure(curves: Sequence[Mapping[str, Any]], colors: Mapping[str, str]) -> go.Figure | None:
    """Loss on the split "select" along training at the largest budget: where a run over-fits, its curve turns up.

    Args:
        curves: entries with arm, size, seed, tokens_seen (list) and loss (list).
    """
    if not curves:
        return None
    sizes = list(dict.fromkeys(curve["size"] for curve in curves))
    figure = go.Figure()
    for curve in curves:
        figure.add_trace(
            go.Scatter(
                x=curve["tokens_seen"],
                y=curve["loss"],
                mode="lines+markers",
                line={
                    "color": colors[curve["arm"]],
                    "dash": DASHES[sizes.index(curve["size"]) % len(DASHES)],
                    "width": 1.5,
                },
                name=f"{curve['arm']}, {curve['size']}, seed {curve['seed']}",
            )
        )
    figure.update_xaxes(title="tokens seen", type="log")
    figure.update_yaxes(title="loss on the split select (nats per unit or text token)")
    return styled(figure, 400)


def sweep_figure(sweep: Sequence[Mapping[str, Any]], colors: Mapping[str, str]) -> go.Figure | None:
    """Selection loss against learning rate at the sweep budget; the chosen rate is filled.

    Args:
        sweep: entries with arm, size, learning_rate, loss and chosen.
    """
    if not sweep:
        return None
    sizes = list(dict.fromkeys(entry["size"] for entry in sweep))
    figure = go.Figure()
    for arm in dict.fromkeys(entry["arm"] for entry in sweep):
        for size in sizes:
            points = sorted(
                (e for e in sweep if e["arm"] == arm and e["size"] == size), key=lambda e: e["learning_rate"]
            )
            if not points:
                continue
            figure.add_trace(
                go.Scatter(
                    x=[p["learning_rate"] for p in points],
                    y=[p["loss"] for p in points],
                    mode="lines+markers",
                    line={"color": colors[arm], "dash": DASHES[sizes.index(size) % len(DASHES)], "width": 1.5},
                    marker={"symbol": ["circle" if p["chosen"] else "circle-open" for p in points], "size": 8},
                    name=f"{arm}, {size}",
                )
            )
    figure.update_xaxes(title="learning rate", type="log")
    figure.update_yaxes(title="selection loss")
    return styled(figure, 360)


def styled(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"font": {"size": 11}},
    )
    return figure
