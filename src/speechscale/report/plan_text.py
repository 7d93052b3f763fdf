"""A plan as text for the terminal.

Enters: a `Plan`. Leaves: text. The one decision worth knowing: laws come in the order of belief, each with its own
table, so that losses of different tokens never stand in one column.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from math import isinf

from speechscale.report.numbers import short_count
from speechscale.scaling.intervals import Estimate
from speechscale.scaling.planning.cells import Cell
from speechscale.scaling.planning.plan import LawPlan, Plan

_HEAD = ("model", "N", "D", "hours heard", "epochs", "loss", "over best", "worth")

_ROW = "    "
_WIDTH = 118


def plan_text(plan: Plan) -> str:
    """Lay out the assumptions, the verdict, every law's table and the evidence without a law."""
    lines = ["Budget", *(f"  {echo}" for echo in plan.budget.echoes)]
    if plan.inventory is None:
        lines.append("  data: unlimited, none was named; epochs are not known")
        lines.append(f"  hours at {plan.units_per_second:.3g} units/s (read speech, assumed)")
    else:
        lines += [f"  data: {echo}" for echo in plan.inventory.echoes]
        lines.append(
            f"  data: {plan.inventory.hours:,.0f} h, {plan.inventory.units / 1e9:.3g}B units at "
            f"{plan.units_per_second:.3g}/s; at most {plan.max_epochs:g} epochs"
        )
        if plan.inventory.interleaved_tokens is None and any(r.mixture.share("interleaved") for r in plan.laws):
            lines.append("  data: interleaved tokens assumed as many as units, each hour interleaved once")
    lines += ["", "Verdict", *(f"  {sentence}" for sentence in plan.verdict)]
    for row in plan.laws:
        lines += ["", *_law_lines(row)]
    lines += [
        "",
        "N, D and losses are each law's own: compare rows of one table, not tables. `over best`: loss above that of "
        "the unconstrained optimum; `worth`: share of this budget with which that optimum reaches the same loss.",
        "",
        "Evidence without a law",
        *(f"  {sentence}" for sentence in plan.evidence),
    ]
    return "\n".join(line if line.startswith(_ROW) else _wrapped(line) for line in lines) + "\n"


def _wrapped(line: str) -> str:
    return textwrap.fill(line, _WIDTH, subsequent_indent="    " if line.startswith(" ") else "")


def _law_lines(row: LawPlan) -> list[str]:
    law = row.candidate
    lines = [
        f"{law.name}, mixture {row.mixture.name} (own fit)" if law.own else f"{law.name}, mixture {row.mixture.name}",
        f"  counts: {law.convention}",
        *(f"  {sentence}" for sentence in row.belief.sentences),
    ]
    if law.verified == "secondary":
        lines.append("  its constants were seen only in another's note, not in the source")
    if law.caveat:
        lines.append(f"  caveat: {law.caveat}")
    lines += [f"  note: {note}" for note in row.notes]
    if row.belief.refused:
        lines.append(f"  {row.belief.refused}{_range_of(row.unconstrained.params)}")
        return lines
    optima = [row.unconstrained] if row.constrained is None else [row.unconstrained, row.constrained]
    cells = [*((cell, "") for cell in optima), *((cell, "*" if cell is row.best else "") for cell in row.sizes)]
    lines += _table([_HEAD, *(_cells(cell, mark) for cell, mark in cells)])
    if row.best is not None:
        lines.append("  * lowest loss among these sizes" + (" within the epoch limit" if row.best.epochs else ""))
    if any(not cell.allowed for cell in row.sizes):
        lines.append("  ! beyond the epoch limit")
    return lines


def _range_of(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return ""
    return f"; N_opt lies between {short_count(found.low)} and {short_count(found.high)}"


def _cells(cell: Cell, mark: str) -> tuple[str, ...]:
    epochs = cell.most_epochs
    return (
        cell.name + mark + ("" if cell.allowed else "!"),
        short_count(cell.params.value) + _interval(cell.params),
        short_count(cell.tokens.value) + _interval(cell.tokens),
        "-" if cell.hours is None else f"{short_count(cell.hours)}",
        "-" if epochs is None else "none" if isinf(epochs) else f"{epochs:.3g}",
        f"{cell.loss.value:.4f}"
        + ("" if cell.loss.low is None or cell.loss.high is None else f" [{cell.loss.low:.4f}, {cell.loss.high:.4f}]"),
        f"{100 * max(cell.loss_excess.value, 0):.2f} %",
        f"{100 * cell.compute_share.value:.3g} %",
    )


def _interval(found: Estimate) -> str:
    return "" if found.low is None or found.high is None else f" [{short_count(found.low)}, {short_count(found.high)}]"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        _ROW + "  ".join([row[0].ljust(widths[0]), *(x.rjust(w) for x, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
