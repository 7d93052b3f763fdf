"""Show a `Quality`: a table of text, and one HTML page with the shift curve.

Enters: a `Quality`. Leaves: rows, and a file that needs nothing else to be looked at. The one decision worth knowing:
no torch in here, and every figure stands with its interval and its chance level.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from speechscale.files import complete_file
from speechscale.speech.information import Estimate
from speechscale.speech.quality import Quality
from speechscale.speech.quality_shift import ShiftCurve

Row = tuple[str, str, str, str]
"""Figure, value, 95 % interval, value by chance; empty where there is none."""

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}"""


def quality_table(quality: Quality) -> list[Row]:
    """Rows of the table, in the order of reading."""
    q = quality
    rows: list[Row] = [
        ("utterances", f"{q.utterances:,}", "", ""),
        ("speakers", f"{q.speakers:,}", "", ""),
        ("seconds", f"{q.frames / q.frame_rate_hz:,.1f}", "", ""),
        ("frames with a phone", f"{q.labeled_frames:,}", "", ""),
        ("units used / known", f"{q.used_units} / {q.num_units}", "", ""),
    ]
    named: list[tuple[str, Estimate | None]] = [
        ("PNMI, phone | unit", q.pnmi),
        ("phone purity", q.phone_purity),
        ("cluster purity", q.cluster_purity),
        ("speaker information, above chance", q.speaker_information),
        ("word retrieval, other speakers", q.retrieval_other),
        ("word retrieval, same speaker", q.retrieval_same),
        ("units per second, deduplicated", q.units_per_second),
        ("bits per second", q.bits_per_second),
    ]
    rows += [_row(name, figure) for name, figure in named if figure is not None]
    if q.shift is not None:
        s = q.shift
        rows.append(
            ("shift curve's peak, ms", f"{s.peak_ms:+.1f}", f"{s.peak_low_ms:+.1f} .. {s.peak_high_ms:+.1f}", "")
        )
    return rows


def table_text(rows: list[Row]) -> str:
    """The rows as aligned plain text."""
    table = [("", "value", "95 % interval", "by chance"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    lines = (
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3))]).rstrip() for row in table
    )
    return "\n".join(lines)


def shift_figure(curve: ShiftCurve) -> go.Figure:
    """PNMI against displacement, zero and the peak's interval marked."""
    figure = go.Figure(go.Scatter(x=curve.offsets_ms, y=curve.pnmi, mode="lines+markers", marker={"size": 4}))
    figure.add_vline(x=0, line={"color": "#888", "dash": "dot"})
    figure.add_vrect(x0=curve.peak_low_ms, x1=curve.peak_high_ms, fillcolor="#d1603d", opacity=0.2, line_width=0)
    figure.add_vline(x=curve.peak_ms, line={"color": "#d1603d"})
    figure.update_xaxes(title="units moved by (ms)")
    figure.update_yaxes(title="PNMI", rangemode="tozero")
    figure.update_layout(template="plotly_white", height=380, margin={"t": 20, "r": 20}, showlegend=False)
    return figure


def write_quality_page(path: Path, quality: Quality, *, title: str, facts: Mapping[str, str] | None = None) -> None:
    """Write one HTML file; its picture can be saved as SVG from its menu.

    Args:
        facts: further lines on what was measured, label -> text.
    """
    head = "".join(f"<li>{escape(label)}: {escape(text)}</li>" for label, text in (facts or {}).items())
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in quality_table(quality)
    )
    script = drawing = ""
    if quality.shift is not None:
        script = "<script>" + get_plotlyjs().replace("</script", "<\\/script") + "</script>"
        picture = shift_figure(quality.shift).to_html(
            full_html=False,
            include_plotlyjs=False,
            config={"displaylogo": False, "toImageButtonOptions": {"format": "svg"}},
        )
        drawing = (
            "<h2>Shift curve</h2><p>Red: peak and its 95 % interval. A peak left of zero: units come too late; right "
            f"of it: too early.</p>{picture}"
        )
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style>{script}</head><body><h1>{escape(title)}</h1><ul>{head}</ul>"
        f"<table><tr><th></th><th>value</th><th>95 % interval</th><th>by chance</th></tr>{body}</table>{drawing}"
        "</body></html>\n"
    )
    with complete_file(Path(path)) as draft:
        draft.write_text(page, encoding="utf-8")


def _row(name: str, figure: Estimate) -> Row:
    chance = "" if figure.chance is None else f"{figure.chance:.3f}"
    return name, f"{figure.value:.3f}", f"{figure.low:.3f} .. {figure.high:.3f}", chance
