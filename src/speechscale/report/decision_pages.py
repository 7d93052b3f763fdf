"""Comparisons, plans and power analyses as pages, each one file that needs no network.

Enters: a `Comparison`, `Plan` or `Power` and its text for the terminal. Leaves: HTML.
The one decision worth knowing: the page says what the terminal says, word for word, and adds the picture.
"""

from __future__ import annotations

from html import escape

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from speechscale.report.figures import PALETTE, styled
from speechscale.report.html_parts import figure_div, page
from speechscale.report.numbers import short_count
from speechscale.scaling.comparing.comparison import Comparison
from speechscale.scaling.comparing.law_multiplier import LawMultiplier
from speechscale.scaling.laws import FLOPS_PER_PARAM_TOKEN
from speechscale.scaling.planning.candidates import loss_of
from speechscale.scaling.planning.plan import LawPlan, Plan
from speechscale.scaling.planning.power import Power

_CELLS = 60
_QUANTITIES = {
    "exp_params": "a",
    "exp_tokens": "b",
    "alpha": "alpha",
    "beta": "beta",
    "E": "E",
    "loss_target": "loss at target",
    "params_opt": "N_opt at target (factor)",
    "tokens_opt": "D_opt at target (factor)",
}


def comparison_page(found: Comparison, text: str) -> str:
    """Laws of both arms and the multiplier at each matched loss; without laws the gap at each common budget."""
    figure = multiplier_figure(found) or gaps_figure(found)
    parts = [f"<p><b>{escape(found.sentence)}</b></p>"]
    if figure is not None:
        parts.append(figure_div(figure, "multiplier"))
    return page(f"{found.b} against {found.a}", [*parts, _terminal(text)])


def plan_page(found: Plan, text: str) -> str:
    """A heat map of the predicted loss over N and D for the most believable laws with a point; all that was said."""
    parts = [f"<p><b>{escape(sentence)}</b></p>" for sentence in found.verdict]
    for index, law in enumerate([law for law in found.laws if not law.belief.refused][:2]):
        parts.append(f"<h2>{escape(law.candidate.name)}, mixture {escape(law.mixture.name)}</h2>")
        parts.append(figure_div(plan_figure(law, found.budget.flops), f"plan-{index}"))
    return page("Plan", [*parts, "<h2>In full</h2>", _terminal(text)])


def power_page(found: Power, text: str) -> str:
    """Expected intervals of every quantity, and all that was said."""
    return page("Power of a planned sweep", [figure_div(power_figure(found), "power"), _terminal(text)])


def _terminal(text: str) -> str:
    return f'<pre style="white-space: pre-wrap; font-size: .8rem">{escape(text)}</pre>'


def multiplier_figure(found: Comparison) -> go.Figure | None:
    """Left both laws at their optimum; right compute of B over A at matched loss, with intervals."""
    if found.laws is None or found.multiplier is None:
        return None
    figure = make_subplots(cols=2, horizontal_spacing=0.1, subplot_titles=("lowest loss", "compute for the same loss"))
    flops = np.geomspace(found.multiplier.flops_a[0] / 3, found.multiplier.flops_a[1] * 10, 80)
    for index, (name, law) in enumerate(zip((found.a, found.b), found.laws, strict=True)):
        line = {"color": PALETTE[index], "width": 2}
        trace = go.Scatter(x=flops, y=law.loss_at(flops), mode="lines", line=line, name=escape(name, quote=False))
        figure.add_trace(trace, row=1, col=1)
    for low in found.multiplier.flops_a:
        figure.add_vline(x=low, line={"dash": "dot", "width": 1}, row=1, col=1)
    charged = [("TextLM charged", found.charged, PALETTE[3])] if found.charged is not None else []
    for name, multiplier, color in (("compute of the runs", found.multiplier, PALETTE[2]), *charged):
        _ratio_trace(figure, multiplier, f"{found.b} over {found.a}: {name}", color)
    figure.add_hline(y=1, line={"dash": "dot", "width": 1}, row=1, col=2)
    figure.update_xaxes(title="compute C (dotted: measured)", type="log", row=1, col=1)
    figure.update_yaxes(title="loss (nats per token)", type="log", row=1, col=1)
    figure.update_xaxes(title="matched loss (hollow: extrapolated)", autorange="reversed", row=1, col=2)
    figure.update_yaxes(type="log", row=1, col=2)
    figure = styled(figure, 450)
    figure.update_layout(legend={"orientation": "h", "y": -0.2})
    return figure


def gaps_figure(found: Comparison) -> go.Figure | None:
    """Lowest loss of B minus that of A at each common budget, with intervals; None where they share none."""
    gaps = () if found.envelope is None else found.envelope.gaps
    if not gaps:
        return None
    each = [gap.difference for gap in gaps]
    value = np.array([d.value for d in each])
    low, high = (np.array([getattr(d, end) for d in each], float) for end in ("low", "high"))  # None becomes NaN
    bars = {"array": high - value, "arrayminus": value - low, "thickness": 1, "width": 4}
    flops = [gap.budget_flops for gap in gaps]
    figure = go.Figure(go.Scatter(x=flops, y=value, error_y=bars, mode="markers", marker={"color": PALETTE[2]}))
    figure.add_hline(y=0, line={"dash": "dot", "width": 1})
    figure.update_xaxes(title="budget (FLOPs)", type="log", tickformat=".2g")
    names = (escape(name, quote=False) for name in (found.b, found.a))
    figure.update_yaxes(title="lowest loss, {} minus {}".format(*names))
    return styled(figure, 380)


def _ratio_trace(figure: go.Figure, multiplier: LawMultiplier, name: str, color: str) -> None:
    shown = [level for level in multiplier.curve if np.isfinite(level.ratio.value) and level.ratio.value > 0]
    value = np.array([level.ratio.value for level in shown])
    low = np.array([level.ratio.low or np.nan for level in shown])
    high = np.array([level.ratio.high or np.nan for level in shown])
    high = np.where(np.isfinite(high), high, np.nan)
    symbols = ["circle" if level.extrapolation <= 1 else "circle-open" for level in shown]
    trace = go.Scatter(
        x=[level.loss for level in shown],
        y=value,
        error_y={"array": high - value, "arrayminus": value - low, "thickness": 1, "width": 2},
        mode="markers",
        marker={"color": color, "symbol": symbols, "size": 7},
        name=escape(name, quote=False),
    )
    figure.add_trace(trace, row=1, col=2)


def plan_figure(law: LawPlan, flops: float) -> go.Figure:
    """Predicted loss over N and D; the budget is a line, the sizes that could be trained lie on it."""
    center = law.unconstrained.params.value
    sizes = np.geomspace(center / 100, center * 100, _CELLS)
    tokens = np.geomspace(law.unconstrained.tokens.value / 100, law.unconstrained.tokens.value * 100, _CELLS)
    losses = loss_of(law.candidate.law, sizes[None, :], tokens[:, None], None)
    figure = go.Figure(
        go.Heatmap(
            x=sizes,
            y=tokens,
            z=losses,
            colorscale="Viridis_r",
            colorbar={"title": "loss", "thickness": 12},
            hovertemplate="N %{x:.3g}, D %{y:.3g}: loss %{z:.3f}<extra></extra>",
        )
    )
    line = {"color": "white", "width": 2}
    figure.add_trace(
        go.Scatter(x=sizes, y=flops / FLOPS_PER_PARAM_TOKEN / sizes, mode="lines", line=line, name="this budget")
    )
    cells = [law.unconstrained, *([law.constrained] if law.constrained is not None else [])]
    figure.add_trace(
        go.Scatter(
            x=[cell.params.value for cell in cells],
            y=[cell.tokens.value for cell in cells],
            mode="markers",
            marker={"symbol": "star", "size": 13, "color": PALETTE[1]},
            name="optimum",
            text=[cell.name for cell in cells],
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[cell.params.value for cell in law.sizes],
            y=[cell.tokens.value for cell in law.sizes],
            mode="markers",
            marker={
                "size": 8,
                "color": ["#ffffff" if cell.allowed else "rgba(255,255,255,0.25)" for cell in law.sizes],
                "line": {"width": 1, "color": "black"},
            },
            name="available (faint: too many epochs)",
            text=[f"{cell.name}: {short_count(cell.params.value)}" for cell in law.sizes],
        )
    )
    figure.update_xaxes(title="parameters N", type="log", range=np.log10(sizes[[0, -1]]).tolist())
    figure.update_yaxes(title="tokens D", type="log", range=np.log10(tokens[[0, -1]]).tolist())
    figure = styled(figure, 460)
    figure.update_layout(legend={"orientation": "h", "y": 1.12, "bgcolor": "rgba(200,200,200,0.6)"})
    return figure


def power_figure(found: Power) -> go.Figure:
    """Median interval of each quantity around its truth; factors on an axis of their own."""
    groups = ([e for e in found.expected.values() if not e.factor], [e for e in found.expected.values() if e.factor])
    figure = make_subplots(cols=2, horizontal_spacing=0.2, subplot_titles=("minus the truth", "over the truth"))
    for column, expected in enumerate(groups, start=1):
        for one in expected:
            ends = (
                (one.low / one.truth, one.high / one.truth)
                if one.factor
                else (one.low - one.truth, one.high - one.truth)
            )
            name = _QUANTITIES.get(one.name, one.name)
            trace = go.Scatter(x=ends, y=[name, name], mode="lines+markers", showlegend=False)
            trace.line.color, trace.marker.symbol = PALETTE[0], "line-ns-open"
            figure.add_trace(trace, row=1, col=column)
        figure.add_vline(x=1 if column == 2 else 0, line={"dash": "dot", "width": 1}, row=1, col=column)
    figure.update_xaxes(title="expected 95 % interval", col=1)
    figure.update_xaxes(title="expected 95 % interval, as a factor", type="log", col=2)
    return styled(figure, 360)
