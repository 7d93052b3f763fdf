"""Pictures of a fitted law: losses with the law's band, iso-FLOP curves, approaches, profiles, residuals, metrics.

Enters: a `Fitted`. Leaves: plotly figures by the key of their section.
The one decision worth knowing: what lies beyond the measured compute is dashed, and every curve carries its band.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from speechscale.report.figures import PALETTE, styled
from speechscale.report.numbers import short_count, short_flops
from speechscale.scaling.fitted import Fitted
from speechscale.scaling.fitting.fit import Fit
from speechscale.scaling.intervals import LEVEL, Estimate
from speechscale.scaling.laws import FLOPS_PER_PARAM_TOKEN, LossLaw
from speechscale.scaling.optima.approaches import Approach
from speechscale.scaling.tables.budgets import budget_compute, budgets_of

_POINTS = 60
_BEYOND = 10.0
_BAND = "rgba(59,111,182,0.18)"
_MOST_BUDGETS = 12
"""Of the iso-FLOP figure; of more, some are drawn and the axis says how many."""
_LEAST_SIZES = 3


def law_figures(fitted: Fitted) -> dict[str, go.Figure]:
    """Every figure this arm has data for. Example: law_figures(fitted)["law"].show()"""
    found: dict[str, go.Figure | None] = {
        "law": law_figure(fitted),
        "isoflop": isoflop_curves(fitted),
        "approaches": approaches_figure(fitted),
        "profiles": profiles_figure(fitted),
        "residuals": residuals_figure(fitted),
    }
    for law in fitted.metrics:
        found[f"metric {law.metric}"] = metric_figure(fitted, law.metric)
    return {key: figure for key, figure in found.items() if figure is not None}


def band(law: LossLaw, flops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The interval of the lowest loss at each compute, from a law whose fields are replicates."""
    each = np.array([np.quantile(law.loss_at(c), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) for c in flops])
    return each[:, 0], each[:, 1]


def add_band(figure: go.Figure, x: np.ndarray, low: np.ndarray, high: np.ndarray, color: str, **where: int) -> None:
    """A filled region between two curves, without an entry in the legend."""
    edges = go.Scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        fillcolor=color,
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_trace(edges, **where)


def law_figure(fitted: Fitted) -> go.Figure | None:
    """Loss against compute: the runs, the law at its optimum with its band, left-out runs with their predictions."""
    fit, table = fitted.fit, fitted.table
    if not isinstance(fit, Fit) or fit.at_bounds or table.loss is None:
        return None
    low, high = fitted.range_flops
    figure = go.Figure()
    inside, beyond = np.geomspace(low, high, _POINTS), np.geomspace(high, high * _BEYOND, _POINTS // 3)
    if fitted.replicates:
        drawn = LossLaw(**fitted.replicates)
        for flops in (inside, beyond):
            add_band(figure, flops, *band(drawn, flops), _BAND)
    for flops, dash, name in ((inside, "solid", "law at its optimum"), (beyond, "dash", "extrapolated")):
        line = {"color": PALETTE[0], "dash": dash, "width": 2}
        figure.add_trace(go.Scatter(x=flops, y=fit.law.loss_at(flops), mode="lines", line=line, name=name))
    marker = {
        "color": np.log10(table.params),
        "colorscale": "Viridis",
        "size": 6,
        "colorbar": {"title": "log10 N", "thickness": 12, "len": 0.6, "y": 0.3},
    }
    hover = [f"N {short_count(n)}, D {short_count(d)}" for n, d in zip(table.params, table.tokens, strict=True)]
    figure.add_trace(
        go.Scatter(x=table.flops, y=table.loss, mode="markers", marker=marker, name="runs", hovertext=hover)
    )
    if fitted.held_out is not None and fitted.held_out.runs:
        runs = fitted.held_out.runs
        ends = [(run.predicted.low or np.nan, run.predicted.high or np.nan) for run in runs]
        errors = {
            "array": [high - run.predicted.value for run, (_, high) in zip(runs, ends, strict=True)],
            "arrayminus": [run.predicted.value - low for run, (low, _) in zip(runs, ends, strict=True)],
            "thickness": 1,
            "color": PALETTE[1],
        }
        figure.add_trace(
            go.Scatter(
                x=[run.flops for run in runs],
                y=[run.predicted.value for run in runs],
                error_y=errors,
                mode="markers",
                marker={"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": PALETTE[1]}},
                name="predicted without them",
            )
        )
    figure.update_xaxes(title="compute C (FLOPs)", type="log")
    figure.update_yaxes(title="loss (nats per token)", type="log")
    return styled(figure, 460)


def isoflop_curves(fitted: Fitted) -> go.Figure | None:
    """Loss against size for every budget, with the law's curve; the best size by Akima where it is bracketed."""
    table = fitted.table
    if table.loss is None or fitted.approaches is None:
        return None
    budgets = budgets_of(table)
    if budgets is None:
        return None
    figure = go.Figure()
    best = {point.flops: point for point in fitted.approaches.of("akima").points}
    each = list(zip(np.unique(budgets), map(float, budget_compute(table.flops, budgets)), strict=True))
    drawn = _drawn([(budget, flops, len(np.unique(table.params[budgets == budget]))) for budget, flops in each])
    for index, (budget, flops) in enumerate(drawn):
        color = PALETTE[index % len(PALETTE)]
        rows = np.flatnonzero(budgets == budget)
        rows = rows[np.argsort(table.params[rows])]
        point = best.get(flops)
        edge = point is not None and point.status.startswith("edge")
        name = f"{short_flops(flops)}{' (best size at the edge)' if edge else ''}"
        figure.add_trace(
            go.Scatter(x=table.params[rows], y=table.loss[rows], mode="markers", marker={"color": color}, name=name)
        )
        if isinstance(fitted.fit, Fit):
            sizes = np.geomspace(table.params[rows].min(), table.params[rows].max(), _POINTS)
            losses = fitted.fit.law.predict(sizes, flops / FLOPS_PER_PARAM_TOKEN / sizes)
            line = {"color": color, "width": 1.5}
            figure.add_trace(go.Scatter(x=sizes, y=losses, mode="lines", line=line, showlegend=False, hoverinfo="skip"))
        if point is not None and point.params_opt is not None:
            figure.add_vline(x=point.params_opt.value, line={"color": color, "dash": "dot", "width": 1})
            _best_interval(figure, point.params_opt, float(table.loss[rows].min()), color)
    some = f"; {len(drawn)} of {len(each)} budgets drawn" if len(drawn) < len(each) else ""
    figure.update_xaxes(title=f"parameters N (dotted: best size by Akima; bar: its 95 % interval{some})", type="log")
    figure.update_yaxes(title="loss (nats per token)")
    return styled(figure, 440)


def _drawn(each: list[tuple[float, float, int]]) -> list[tuple[float, float]]:
    """Choose at most twelve budgets (name, C) of (name, C, sizes): those with three sizes or more, evenly spread."""
    swept = [one for one in each if one[2] >= _LEAST_SIZES] or each
    places = np.linspace(0, len(swept) - 1, min(len(swept), _MOST_BUDGETS)).round().astype(int)
    chosen = each if len(each) <= _MOST_BUDGETS else [swept[place] for place in places]
    return [(name, flops) for name, flops, _ in chosen]


def _best_interval(figure: go.Figure, size: Estimate, height: float, color: str) -> None:
    if size.low is None or size.high is None:
        return
    error = {"array": [size.high - size.value], "arrayminus": [size.value - size.low], "thickness": 1.5, "color": color}
    marker = {"symbol": "diamond-open", "size": 8, "color": color}
    figure.add_trace(
        go.Scatter(x=[size.value], y=[height], error_x=error, mode="markers", marker=marker, showlegend=False)
    )


def approaches_figure(fitted: Fitted) -> go.Figure | None:
    """N_opt and D_opt against compute by every approach that has exponents."""
    if fitted.approaches is None:
        return None
    named = [one for one in fitted.approaches.approaches if one.exp_params is not None]
    if not named:
        return None
    titles = ("best size N_opt", "best tokens D_opt")
    figure = make_subplots(cols=2, horizontal_spacing=0.09, subplot_titles=titles)
    flops = np.geomspace(*fitted.range_flops, 30)
    for index, one in enumerate(named):
        color = PALETTE[index % len(PALETTE)]
        for column, curves in ((1, _sizes(one, flops)), (2, _tokens(one, flops))):
            value, low, high = curves
            if low is not None and high is not None:
                red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
                add_band(figure, flops, low, high, f"rgba({red},{green},{blue},0.10)", row=1, col=column)
            line = {"color": color, "width": 1.8}
            trace = go.Scatter(x=flops, y=value, mode="lines", line=line, name=one.name, showlegend=column == 1)
            figure.add_trace(trace, row=1, col=column)
        points = [p for p in one.points if p.params_opt is not None]
        where = {"color": color, "size": 5}
        x, y = [p.flops for p in points], [p.params_opt.value for p in points if p.params_opt is not None]
        figure.add_trace(go.Scatter(x=x, y=y, mode="markers", marker=where, showlegend=False), row=1, col=1)
    figure.update_xaxes(title="compute C (FLOPs)", type="log")
    figure.update_yaxes(type="log")
    return styled(figure, 430)


def _sizes(one: Approach, flops: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    found = [size for c in flops if (size := one.params_opt(float(c))) is not None]
    value = np.array([size.value for size in found])
    if any(size.low is None for size in found):
        return value, None, None
    return value, np.array([size.low for size in found]), np.array([size.high for size in found])


def _tokens(one: Approach, flops: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    value, low, high = _sizes(one, flops)
    of = flops / FLOPS_PER_PARAM_TOKEN
    return of / value, None if high is None else of / high, None if low is None else of / low


def profiles_figure(fitted: Fitted) -> go.Figure | None:
    """How much the objective rises when one constant is held elsewhere; the dotted line is as good as the best."""
    if not fitted.profiles:
        return None
    figure = make_subplots(
        cols=len(fitted.profiles), subplot_titles=[p.name + (" (flat)" if p.flat else "") for p in fitted.profiles]
    )
    for column, profile in enumerate(fitted.profiles, start=1):
        rise = 100 * (profile.objective / profile.objective.min() - 1)
        trace = go.Scatter(x=profile.values, y=rise, mode="lines+markers", marker={"size": 4}, showlegend=False)
        trace.line.color = PALETTE[1 if profile.flat else 0]
        figure.add_trace(trace, row=1, col=column)
        figure.add_hline(y=100 * profile.rise, line={"dash": "dot", "width": 1}, row=1, col=column)
        figure.add_vline(x=profile.best, line={"dash": "dot", "width": 1}, row=1, col=column)
        log = profile.values.min() > 0 and profile.values.max() / profile.values.min() > 20
        figure.update_xaxes(type="log" if log else "linear", row=1, col=column)
        figure.update_yaxes(range=[0, 400 * profile.rise], row=1, col=column)
    figure.update_yaxes(title="objective above its best (%)", col=1)
    return styled(figure, 320)


def residuals_figure(fitted: Fitted) -> go.Figure | None:
    """Log residuals against what the law predicts, compute, size and tokens, and their distribution."""
    if fitted.fit is None:
        return None
    table = fitted.table.with_loss()
    residuals = 100 * fitted.fit.residuals
    assert table.loss is not None
    places = {
        "against predicted loss": table.loss * np.exp(-fitted.fit.residuals),
        "against C": table.flops,
        "against N": table.params,
        "against D": table.tokens,
    }
    figure = make_subplots(cols=5, shared_yaxes=True, subplot_titles=(*places, "how many"))
    marker = {"color": PALETTE[0], "size": 5, "opacity": 0.7}
    for column, x in enumerate(places.values(), start=1):
        figure.add_trace(
            go.Scatter(x=x, y=residuals, mode="markers", marker=marker, showlegend=False), row=1, col=column
        )
        decades = np.log10(x.max() / x.min())  # panels are narrow: a few whole decades, or a few plain numbers
        ticks = {"type": "log", "dtick": int(np.ceil(decades / 3))} if decades > 1 else {"type": "linear", "nticks": 4}
        figure.update_xaxes(**ticks, tickangle=0, row=1, col=column)
    figure.add_trace(go.Histogram(y=residuals, marker={"color": PALETTE[0]}, showlegend=False, nbinsy=30), row=1, col=5)
    figure.update_yaxes(title="loss above the law (%)", col=1)
    return styled(figure, 320)


def metric_figure(fitted: Fitted, metric: str) -> go.Figure | None:
    """A metric over compute, and over loss where there are losses, with the curves and their bands; chance is drawn."""
    law = next(law for law in fitted.metrics if law.metric == metric)
    table, values = fitted.table, fitted.table.metrics[metric]
    places: Mapping[str, np.ndarray | None] = {"compute": table.flops, "loss": table.loss}
    shown = [of for of in places if any(fit.of == of and fit.boot is not None for fit in law.fits)]
    if not shown:
        return None
    figure = make_subplots(cols=len(shown), shared_yaxes=True, horizontal_spacing=0.05)
    for column, of in enumerate(shown, start=1):
        x = places[of]
        assert x is not None
        there = np.isfinite(x) & np.isfinite(values)
        marker = {"color": "#5a6b7b", "size": 6}
        runs = go.Scatter(x=x[there], y=100 * values[there], mode="markers", marker=marker, name="runs")
        runs.showlegend = column == 1
        figure.add_trace(runs, row=1, col=column)
        grid = np.geomspace(x[there].min(), x[there].max(), 40)
        for index, fit in enumerate(f for f in law.fits if f.of == of and f.boot is not None):
            found = [at for c in grid if (at := fit.at(float(c))) is not None]
            line = {"color": PALETTE[index % len(PALETTE)], "width": 1.8}
            curve = go.Scatter(x=grid, y=[100 * at.value for at in found], mode="lines", line=line, name=fit.curve)
            figure.add_trace(curve, row=1, col=column)
            if index == 0 or fit.curve == law.chosen:
                low, high = (np.array([100 * (getattr(at, end) or np.nan) for at in found]) for end in ("low", "high"))
                add_band(figure, grid, low, high, "rgba(90,107,123,0.12)", row=1, col=column)
        figure.add_hline(y=100 * law.chance, line={"dash": "dot", "width": 1}, row=1, col=column)
        title = "compute C (FLOPs)" if of == "compute" else "loss (nats per token)"
        figure.update_xaxes(title=title, type="log" if of == "compute" else "linear", row=1, col=column)
    figure.update_yaxes(title=f"{escape(metric, quote=False)} (%)", col=1)
    return styled(figure, 420)
