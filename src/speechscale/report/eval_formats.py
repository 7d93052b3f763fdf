"""An `EvalTable` as aligned text, Markdown, LaTeX or HTML.

Enters: an `EvalTable`. Leaves: one string. The one decision worth knowing: names come from users and papers, so every
format escapes every cell; a format changes the dress of a table, never a number or a footnote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from speechscale.report.eval_cells import Cell, EvalTable
from speechscale.report.tokens_text import printable


def as_text(table: EvalTable) -> str:
    """Aligned columns, for a terminal; footnote marks in parentheses behind the cell."""
    head = [[printable(text) for text in line] for line in table.head]
    groups = [(title, [[_plain(cell) for cell in row] for row in rows]) for title, rows in table.groups]
    lines = [*head, *(row for _, rows in groups for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head[0]))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    out = [*map(printable, table.caption), "", *(_aligned(line, widths) for line in head)]
    for title, rows in groups:
        out += [rule, *([title] if title else []), *(_aligned(row, widths) for row in rows)]
    out += [rule, *(f"({mark}) {printable(text)}" for mark, text in table.notes.items())]
    return "\n".join(line.rstrip() for line in out) + "\n"


def as_markdown(table: EvalTable) -> str:
    """A table of GitHub's Markdown; the lines of its head are joined, since it can have only one."""
    columns = list(zip(*table.head, strict=True))
    head = [_md(columns[0][0])]
    for *titles, items in columns[1:]:
        head.append(", ".join(map(_md, filter(None, [*titles, f"{items} items" if items else ""]))))
    lines = [" ".join(map(_md, table.caption)), "", _md_row(head), _md_row(["---", *["---:"] * (len(head) - 1)])]
    for title, rows in table.groups:
        if title:
            lines.append(_md_row([f"*{_md(title)}*", *[""] * (len(head) - 1)]))
        lines += [_md_row([_md(c.text) + "".join(f" <sup>{m}</sup>" for m in c.marks) for c in row]) for row in rows]
    lines += ["", *(f"<sup>{mark}</sup> {_md(text)}  " for mark, text in table.notes.items())]
    return "\n".join(lines).rstrip() + "\n"


def as_latex(table: EvalTable) -> str:
    r"""A `table` environment for booktabs (`\usepackage{booktabs}`), notes below the rules."""
    columns = len(table.head[0])
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(' '.join(table.caption))}}}",
        rf"\begin{{tabular}}{{l{'r' * (columns - 1)}}}",
        r"\toprule",
        *(_tex_row([_tex(text) for text in line]) for line in table.head),
    ]
    for title, rows in table.groups:
        lines.append(r"\midrule")
        if title:
            lines.append(rf"\multicolumn{{{columns}}}{{l}}{{\emph{{{_tex(title)}}}}} \\")
        lines += [_tex_row([_tex(cell.text) + _tex_marks(cell) for cell in row]) for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        notes = [rf"\textsuperscript{{{mark}}}~{_tex(text)}" for mark, text in table.notes.items()]
        lines += [
            "",
            r"\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize",
            " \\\\\n".join(notes),
            r"\end{minipage}",
        ]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def html_table(table: EvalTable) -> str:
    """The table alone, to stand in a page of the report's style."""
    columns = len(table.head[0])
    lines = [f"<p>{escape(text)}</p>" for text in table.caption]
    lines.append('<div class="scroll"><table>')
    lines += ["<tr>" + "".join(f"<th>{escape(text)}</th>" for text in line) + "</tr>" for line in table.head]
    for title, rows in table.groups:
        if title:
            lines.append(f'<tr class="rule"><td colspan="{columns}">{escape(title)}</td></tr>')
        for row in rows:
            cells = [escape(c.text) + (f"<sup>{escape(' '.join(c.marks))}</sup>" if c.marks else "") for c in row]
            lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    lines.append("</table></div>")
    lines += [f'<p class="soft small"><sup>{mark}</sup> {escape(text)}</p>' for mark, text in table.notes.items()]
    return "\n".join(lines)


FORMATS: dict[str, Callable[[EvalTable], str]] = {"text": as_text, "md": as_markdown, "latex": as_latex}
"""Of these `table --format` offers each, and html, which is a page (`eval_page.table_page`)."""


def _plain(cell: Cell) -> str:
    return printable(cell.text) + (f" ({','.join(cell.marks)})" if cell.marks else "")


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = row
    cells = [text.rjust(width) for text, width in zip(rest, widths[1:], strict=True)]
    return "  ".join([first.ljust(widths[0]), *cells])


_MD = str.maketrans({c: "\\" + c for c in "\\`*_[]|#~$"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})
_TEX = str.maketrans(
    {c: "\\" + c for c in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "–": "--",
    }
)


def _md(text: str) -> str:
    return printable(text).translate(_MD)


def _md_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _tex(text: str) -> str:
    return printable(text).translate(_TEX).replace("-\\textgreater{}", r"$\to$")


def _tex_row(cells: Sequence[str]) -> str:
    # a row that begins with "[" would be read as the optional argument of the \\ before it
    guarded = ["{}" + cell if cell.startswith("[") else cell for cell in cells]
    return " & ".join(guarded) + r" \\"


def _tex_marks(cell: Cell) -> str:
    return rf"\textsuperscript{{{','.join(cell.marks)}}}" if cell.marks else ""
