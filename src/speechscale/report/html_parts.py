"""Pieces that pages are put together from: a figure, a table, and the script that draws.

Enters: plotly figures, rows of text. Leaves: HTML. The one decision worth knowing: the script is part of each page, so
a page needs no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from speechscale.files import complete_file


def plotly_script() -> str:
    """What stands in the one <script> element of a page with figures."""
    return str(get_plotlyjs()).replace("</script", "<\\/script")


def figure_div(figure: go.Figure, name: str | None = None) -> str:
    """A figure in an element of its own, with `name` as its id; a random one by default."""
    config = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id=name))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text, escaped here; the first is the head."""
    head, *body = rows
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in body]
    return '<div class="scroll"><table>' + "".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>"


def page(title: str, parts: Sequence[str], *, style: str = "", script: bool = True, policy: str = "") -> str:
    """A page from parts that are HTML already; the title is escaped here.

    Args:
        script: it holds figures. policy: its Content-Security-Policy, what it may load and run.
    """
    css = (resources.files("speechscale.report") / "assets/tokens.css").read_text(encoding="utf-8")
    drawing = f"<script>{plotly_script()}</script>\n" if script else ""
    allowed = f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n' if policy else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{allowed}<title>speechscale: {escape(title)}</title>\n<style>{css}\n{style}</style>\n"
        f"{drawing}</head>\n<body>\n<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def write_page(path: Path, content: str) -> None:
    """Write a page, complete or not at all."""
    with complete_file(Path(path)) as draft:
        draft.write_text(content, encoding="utf-8")
