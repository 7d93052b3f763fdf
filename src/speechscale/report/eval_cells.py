"""What a table of scores is made of, before it is written in any format.

Enters: nothing. Leaves: `Column`, `Cell`, `Notes`, `EvalTable`. The one decision worth knowing: cells are text already,
so that text, Markdown, LaTeX and HTML cannot round or order differently.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field

from speechscale.evals.likeness import title_of


@dataclass(frozen=True, slots=True, order=True)
class Column:
    """What a column of accuracies holds. `metric` instead of the rest: a published metric that no run has."""

    benchmark: str
    set: str
    direction: str
    tag: str = ""
    metric: str = ""

    @property
    def title(self) -> str:
        return self.metric or title_of(self.benchmark, self.set, tag=self.tag)


@dataclass(frozen=True, slots=True)
class Cell:
    """Text and the marks of its footnotes."""

    text: str
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalTable:
    """A table, ready to be written in any format.

    Args:
        caption: sentences. head: lines of the head, each with one text per column; the first column names the systems.
        groups: a title ("" for none) and its rows; a rule stands between groups. notes: mark -> text, in order.
    """

    caption: tuple[str, ...]
    head: tuple[tuple[str, ...], ...]
    groups: tuple[tuple[str, tuple[tuple[Cell, ...], ...]], ...]
    notes: Mapping[str, str]


@dataclass(slots=True)
class Notes:
    """Footnotes in the order in which they are met; `marks` maps a text to its mark."""

    marks: dict[str, str] = field(default_factory=dict)

    def mark(self, *texts: str) -> tuple[str, ...]:
        for text in texts:
            self.marks.setdefault(text, _letters(len(self.marks)))
        return tuple(self.marks[text] for text in texts)


def _letters(number: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa"""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = string.ascii_lowercase[rest] + text
    return text
