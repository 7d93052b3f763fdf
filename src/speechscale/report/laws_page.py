"""A fitted table as one HTML page that needs no network.

Enters: `Fitted`s. Leaves: HTML. The one decision worth knowing: sentences come first and each figure stands under the
sentences it belongs to, so that no picture is seen without its cautions.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from speechscale.report.html_parts import figure_div, page, table
from speechscale.report.laws_figures import law_figures
from speechscale.report.laws_sections import Section, read_section, sections
from speechscale.scaling.fitted import Fitted

_AFTER = {"optimum": "isoflop", "profiles": "residuals"}
"""Figures without a section of their own: section key -> the figure that follows it."""
_STYLE = "td, th { white-space: normal; } ul { padding-left: 1.2rem; } li { margin: .2rem 0; }"


def fit_page(fitted: Sequence[Fitted], title: str) -> str:
    """The whole report of `speechscale fit`."""
    parts = [_section(read_section(fitted), None)]
    for number, one in enumerate(fitted):
        if len(fitted) > 1:
            parts.append(f"<h1>{escape(one.name)}</h1>")
        figures = law_figures(one)
        for section in sections(one):
            parts.append(_section(section, figures.get(section.key), number))
            follows = _AFTER.get(section.key, "")
            if follows in figures:
                parts.append(figure_div(figures[follows], f"f{number}-{follows}"))
    return page(title, parts, style=_STYLE)


def said(sentences: Sequence[str]) -> str:
    """Sentences as a list, escaped here."""
    return "" if not sentences else "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in sentences) + "</ul>"


def _section(section: Section, figure: object, number: int = 0) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>", said(section.said)]
    if section.table:
        parts.append(table(section.table))
    if figure is not None:
        parts.append(figure_div(figure, f"f{number}-{section.key.replace(' ', '-')}"))
    return "\n".join(part for part in parts if part)
