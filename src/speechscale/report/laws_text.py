"""Fitted laws as text for the terminal.

Enters: `Fitted`s. Leaves: text. The one decision worth knowing: sentences are wrapped, rows of tables never are.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from speechscale.report.laws_sections import Section, read_section, sections
from speechscale.scaling.fitted import Fitted

_WIDTH = 110


def fit_text(fitted: Sequence[Fitted]) -> str:
    """Lay out every arm. Example: print(fit_text(fit_runs(table)), end="")"""
    blocks = [_section(read_section(fitted))]
    for one in fitted:
        if len(fitted) > 1:
            blocks.append(f"=== {one.name} ===")
        blocks += [_section(section) for section in sections(one)]
    return "\n\n".join(blocks) + "\n"


def _section(section: Section) -> str:
    lines = [section.title]
    lines += [textwrap.fill(said, _WIDTH, initial_indent="  ", subsequent_indent="    ") for said in section.said]
    return "\n".join([*lines, *(f"  {line}" for line in columns(section.table))])


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align the cells of rows; the last column is not padded."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
