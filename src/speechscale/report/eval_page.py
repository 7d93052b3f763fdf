"""Pages about evaluations: a table of scores; a comparison with its picture. Each is one file and needs no network.

Enters: an `EvalTable`, or a `Comparison`. Leaves: HTML, and the comparison as lines for a terminal.
The one decision worth knowing: the picture shows the paired difference with its own interval, never two intervals to be
compared by eye, and a row has the color of a winner only where the verdict names one.
"""

from __future__ import annotations

from html import escape

import plotly.graph_objects as go

from speechscale.evals.compare import Compared, Comparison
from speechscale.evals.likeness import title_of
from speechscale.report.eval_cells import EvalTable
from speechscale.report.eval_formats import html_table
from speechscale.report.eval_table import protocol_words
from speechscale.report.figures import DIRECTIONS, PALETTE
from speechscale.report.html_parts import figure_div, page, table
from speechscale.report.tokens_text import printable

UNDECIDED = "#7b8794"
_STYLE = (
    "tr.rule td { color: var(--soft); font-style: italic; border-top: 2px solid var(--line); padding-top: .6rem; } "
    "sup { line-height: 0; }"
)


def table_page(scores: EvalTable, title: str) -> str:
    """A page with a table of scores."""
    return page(title, [html_table(scores)], style=_STYLE, script=False)


def comparison_rows(comparison: Comparison) -> list[list[str]]:
    """Head and one row per comparison, numbers as text: accuracies in percent, differences in points."""
    head = ["set", "direction", "protocol", "items", "pairs", comparison.a, comparison.b, "difference"]
    head += ["+ / - pairs", "p", "p (Holm)"]
    return [head, *(_row(row) for row in comparison.rows)]


def comparison_text(comparison: Comparison) -> str:
    """For a terminal: a verdict per line, then what it rests on."""
    lines = [f"{comparison.b} against {comparison.a}, same items, differences in points of accuracy", ""]
    for row in comparison.rows:
        found = row.difference
        lines.append(f"{row.title}, {row.protocol}: {row.verdict}")
        lines.append(
            f"    {100 * row.a:.1f} and {100 * row.b:.1f} % of {found.n_items:,} items in {found.n_pairs:,} pairs; "
            f"pairs better {found.pairs_better:,}, worse {found.pairs_worse:,}; "
            f"p {found.p:.3g} ({found.test}), Holm {row.p_holm:.3g}"
        )
    return "\n".join(map(printable, [*lines, "", *_remarks(comparison)])) + "\n"


def comparison_page(comparison: Comparison, title: str) -> str:
    """A page with the forest plot of all differences, the table and what was compared."""
    parts = [f'<p class="note">{escape(text)}</p>' for text in _remarks(comparison)]
    parts += [
        f"<p><b>{escape(row.title)}</b>, {escape(row.protocol)}: {escape(row.verdict)}</p>" for row in comparison.rows
    ]
    parts.append(figure_div(forest_figure(comparison), "differences"))
    parts.append(table(comparison_rows(comparison)))
    parts.append("<h2>Protocols</h2><dl>")
    parts += [
        f"<dt>{escape(name)}</dt><dd>{escape(protocol_words(definition))}</dd>"
        for name, definition in comparison.protocols.items()
    ]
    parts.append("</dl>")
    return page(title, parts, style=_STYLE)


def forest_figure(comparison: Comparison) -> go.Figure:
    """One line per comparison: the paired difference in points with its interval, against zero."""
    rows = comparison.rows
    several = len(comparison.protocols) > 1
    names = [f"{row.title}{', ' + row.protocol if several else ''}" for row in rows]
    labels = [escape(name) + " " * names[:i].count(name) for i, name in enumerate(names)]
    figure = go.Figure()
    kinds = {
        "b": (f"{comparison.b} is better", PALETTE[0]),
        "a": (f"{comparison.a} is better", PALETTE[1]),
        "": ("cannot tell", UNDECIDED),
    }
    for better, (name, color) in kinds.items():
        held = [(label, row) for label, row in zip(labels, rows, strict=True) if row.better == better]
        if not held:
            continue
        points = [100 * row.difference.estimate for _, row in held]
        bounds = [(row.difference.low, row.difference.high) for _, row in held]
        figure.add_trace(
            go.Scatter(
                x=points,
                y=[label for label, _ in held],
                error_x={
                    "array": [
                        0 if high is None else 100 * high - x for x, (_, high) in zip(points, bounds, strict=True)
                    ],
                    "arrayminus": [
                        0 if low is None else x - 100 * low for x, (low, _) in zip(points, bounds, strict=True)
                    ],
                    "thickness": 1.6,
                    "width": 4,
                },
                mode="markers",
                marker={"color": color, "size": 9},
                name=escape(name),
                text=[escape(row.verdict) for _, row in held],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    figure.add_vline(x=0, line={"color": "#888", "dash": "dot", "width": 1})
    figure.update_yaxes(categoryorder="array", categoryarray=labels[::-1], automargin=True)
    figure.update_xaxes(
        title=f"{escape(comparison.b)} minus {escape(comparison.a)} (points, {100 * comparison.level:g}% interval)",
        title_font={"size": 13},
        zeroline=False,
    )
    figure.update_layout(
        template="plotly_white",
        height=150 + 34 * len(rows),
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"font": {"size": 11}, "orientation": "h", "y": 1.02, "yanchor": "bottom"},
        showlegend=True,
    )
    return figure


def _row(row: Compared) -> list[str]:
    found = row.difference
    points = f"{100 * found.estimate:+.1f}"
    if found.low is not None and found.high is not None:
        points += f" [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    return [
        title_of(row.benchmark, row.set, tag=row.tag),
        DIRECTIONS.get(row.direction, row.direction),
        row.protocol,
        f"{found.n_items:,}",
        f"{found.n_pairs:,}",
        f"{100 * row.a:.1f}",
        f"{100 * row.b:.1f}",
        points,
        f"{found.pairs_better:,} / {found.pairs_worse:,}",
        f"{found.p:.2g}",
        f"{row.p_holm:.2g}",
    ]


def _remarks(comparison: Comparison) -> list[str]:
    made = len(comparison.rows)
    said = [f"NOT ALIKE, allowed on request: {text}" for text in comparison.unlike]
    said += list(comparison.notes)
    if made > 1:
        said.append(
            f"{made} comparisons were made; intervals are for each alone, "
            f"a verdict needs p (Holm) <= {1 - comparison.level:.2g}"
        )
    return said
