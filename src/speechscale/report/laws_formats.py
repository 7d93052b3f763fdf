"""Fitted laws as Markdown and as a LaTeX table for a paper.

Enters: `Fitted`s. Leaves: text. The one decision worth knowing: the LaTeX table has what a paper prints, and its
caption says how N and C were counted and which intervals stand below; everything else is in the Markdown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from speechscale.report.laws_sections import Section, read_section, sections
from speechscale.scaling.fitted import Fitted
from speechscale.scaling.intervals import Estimate

_LATEX = {
    "exp_params": "$a$",
    "exp_tokens": "$b$",
    "alpha": r"$\alpha$",
    "beta": r"$\beta$",
    "E": "$E$",
    "A": "$A$",
    "B": "$B$",
}
_ESCAPES = {"\\": r"\textbackslash{}", **{c: f"\\{c}" for c in "&%$#_{}"}, "~": r"\textasciitilde{}", "^": r"\^{}"} | {
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "\n": " ",
}


def markdown(fitted: Sequence[Fitted]) -> str:
    """The whole report as Markdown."""
    blocks = ["# Scaling law", _markdown(read_section(fitted), "##")]
    for one in fitted:
        if len(fitted) > 1:
            blocks.append(f"## {_md(one.name)}")
        blocks += [_markdown(section, "###" if len(fitted) > 1 else "##") for section in sections(one)]
    return "\n\n".join(blocks) + "\n"


def _markdown(section: Section, mark: str) -> str:
    blocks = [f"{mark} {_md(section.title)}"]
    if section.said:
        blocks.append("\n".join(f"- {_md(said)}" for said in section.said))
    if section.table:
        head, *body = section.table
        lines = [f"| {' | '.join(map(_md, head))} |", "|" + "---|" * len(head)]
        blocks.append("\n".join([*lines, *(f"| {' | '.join(map(_md, row))} |" for row in body)]))
    return "\n\n".join(blocks)


def _md(text: str) -> str:
    text = text.replace("\n", " ")
    for mark in "\\`*_|<[":
        text = text.replace(mark, f"\\{mark}")
    return text


def latex(fitted: Sequence[Fitted]) -> str:
    """A booktabs table: constants and exponents as columns, one row per arm, intervals below the values."""
    names = list(dict.fromkeys(name for one in fitted for name in one.constants))
    head = " & ".join(["", *(_LATEX.get(name, tex(name)) for name in names)])
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'c' * len(names)}}}",
        r"\toprule",
        rf"{head} \\",
        r"\midrule",
    ]
    for one in fitted:
        if not one.constants:
            lines.append(
                rf"{tex(one.name)} & \multicolumn{{{max(1, len(names))}}}{{l}}{{not fitted: {tex(one.reason)}}} \\"
            )
            continue
        mark = r"$^{\dagger}$" if one.status == "not_identified" else ""
        found = [one.constants.get(name) for name in names]
        lines.append(
            " & ".join([tex(one.name) + mark, *("" if x is None else _tex_number(x.value) for x in found)]) + r" \\"
        )
        lines.append(" & ".join(["", *("" if x is None else _tex_ends(x) for x in found)]) + r" \\")
    return (
        "\n".join([*lines, r"\bottomrule", r"\end{tabular}", rf"\caption{{{_caption(fitted)}}}", r"\end{table}"]) + "\n"
    )


def _caption(fitted: Sequence[Fitted]) -> str:
    counts = "; ".join(f"{tex(one.name)}: {one.runs} run{'' if one.runs == 1 else 's'}" for one in fitted)
    with_law = [one for one in fitted if one.fit is not None]
    if not with_law:
        return f"No law was fitted. {tex(fitted[0].convention)}. {counts}."
    first, fit = with_law[0], with_law[0].fit
    assert fit is not None
    methods = "; ".join(dict.fromkeys(tex(one.interval_method) for one in with_law))
    said = (
        f"Law {tex(first.law_name)}, objective {tex(fit.minimized.kind)}, {tex(first.convention)}. {counts}. "
        f"Below: 95\\,\\% intervals ({methods})."
    )
    if any(one.status == "not_identified" for one in fitted):
        said += r" $^{\dagger}$not identified by these runs: do not quote."
    return said


def tex(text: str) -> str:
    """Escape text for LaTeX. Example: tex("a_b 5%") -> 'a\\_b 5\\%'"""
    return "".join(_ESCAPES.get(c, c) for c in text)


def _tex_number(value: float) -> str:
    if not math.isfinite(value):
        return r"$\infty$" if value > 0 else r"$-\infty$"
    if value == 0 or 1e-3 <= abs(value) < 9999.5:
        return f"{value:.4g}" if value >= 0 else f"${value:.4g}$"
    digits, exponent = f"{value:.2e}".split("e")
    return rf"${float(digits):.3g}\times 10^{{{int(exponent)}}}$"


def _tex_ends(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return "(none)"
    return rf"{{\scriptsize [{_tex_number(found.low)}, {_tex_number(found.high)}]}}"
