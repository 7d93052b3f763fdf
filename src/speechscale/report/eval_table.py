"""Scores of several systems beside each other and beside printed ones, as a table of cells.

Enters: results folders, and published scores by name. Leaves: an `EvalTable`; `eval_formats` writes it.
The one decision worth knowing: a cell that was not measured like the first of its column (other data, protocol,
precision, items) keeps its place but carries a footnote that says what differs; printed scores stand under a rule of
their own, each with its source and version, and never get an interval that nobody printed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from speechscale.errors import DataError
from speechscale.evals.protocols import DEFAULT
from speechscale.evals.results import Results
from speechscale.report.eval_cells import Cell, Column, EvalTable, Notes
from speechscale.report.eval_published import measures, printed
from speechscale.report.figures import DIRECTIONS
from speechscale.scaling.published_slms import SEEN, PublishedScore, Verified
from speechscale.settings import nearest

IDENTICAL_SHARE = 0.05
"""From this share of undecidable items on, a cell says so."""
EVEN = 0.5
"""The usual chance; another one is told."""
ABSENT = "–"
RULE = "Printed by others, under their own conditions"


_First = tuple[str, Results, Mapping[str, Any]]
"""Name, results and metric of the topmost run of a column, which the others are held against."""


def eval_table(
    runs: Mapping[str, Results],
    *,
    protocol: str | None = None,
    tags: bool = False,
    intervals: bool = False,
    others: Sequence[str] = (),
    systems: Sequence[str] = (),
    verified: Collection[Verified] = SEEN,
) -> EvalTable:
    """Lay out accuracies in percent, one row per system, one column per set and direction.

    Args:
        runs: name -> results. protocol: a name all runs have; by default "speechscale", else the first they share.
        tags: also a column for every tag. intervals: [low, high] instead of ± standard error.
        others: published metrics to stand under the rule. systems: of those only systems whose name holds one of these.
        verified: which published scores count as seen.

    Raises:
        DataError: no run, a protocol that a run has not, a metric or system nobody published.

    Example: as_text(eval_table({"ours": read_results(Path("results/a"))}, others=["sBLIMP"]))
    """
    if not runs:
        raise DataError("a table needs at least one results folder")
    chosen = _protocol(runs, protocol)
    columns = list(dict.fromkeys(_column(m) for run in runs.values() for m in _metrics(run, chosen, tags)))
    places = {score: _place(score, columns, runs) for score in printed(others, systems, verified)}
    notes, firsts = Notes(), _firsts(runs, chosen, columns)
    columns += [column for column in dict.fromkeys(places.values()) if column not in columns]
    top = next(iter(runs))
    rows = [
        (
            Cell(name, notes.mark(*_about_run(run, top, runs[top]))),
            *_cells(run, chosen, columns, firsts, notes, intervals),
        )
        for name, run in runs.items()
    ]
    groups = [("", tuple(rows))]
    if places:
        groups.append((RULE, tuple(_printed_rows(places, columns, notes))))
    return EvalTable(
        caption=_caption(runs, chosen, tags=tags, intervals=intervals),
        head=(
            ("system", *(column.title for column in columns)),
            ("", *(DIRECTIONS.get(column.direction, "generated") for column in columns)),
            ("items", *(f"{firsts[column][2]['n_items']:,}" if column in firsts else "" for column in columns)),
        ),
        groups=tuple(groups),
        notes={mark: text for text, mark in notes.marks.items()},
    )


def protocol_words(definition: Mapping[str, Any]) -> str:
    """A protocol's choices as words: 'log-likelihood of the ending (mean per token, full vocabulary), ...'"""
    divided = {"mean": "mean per token", "sum": "sum", "per_word": "per word", "per_second": "per second"}
    means = {
        "item": "mean over items",
        "pair": "mean over pairs",
        "macro": "mean over phenomena of means over pairs",
        "all": "share of pairs whose items are all right",
    }
    return ", ".join(
        [
            f"log-likelihood of the {'ending' if definition['span'] == 'ending' else 'whole sequence'} "
            f"({divided[definition['normalization']]}, "
            f"{'full vocabulary' if definition['softmax'] == 'full' else 'vocabulary of the own modality'})",
            "starts at <eos>" if definition["start"] == "eos" else "no start token",
            f"markers {'where the modality changes' if definition['markers'] == 'crossing' else 'always'}",
            f"end token {'scored' if definition['end'] else 'not scored'}",
            f"ties count {definition['ties']:g}",
            means[definition["aggregate"]],
        ]
    )


def _protocol(runs: Mapping[str, Results], asked: str | None) -> str:
    if asked is not None:
        for name, run in runs.items():
            if asked not in run.protocols:
                raise DataError(f"{name}: not measured under protocol '{asked}'{nearest(asked, list(run.protocols))}")
        return asked
    first, *rest = runs.values()
    shared = [name for name in first.protocols if all(name in run.protocols for run in rest)]
    if not shared:
        listed = "; ".join(f"{name}: {', '.join(run.protocols)}" for name, run in runs.items())
        raise DataError(f"the results share no protocol ({listed}); evaluate them again under one")
    return DEFAULT if DEFAULT in shared else shared[0]


def _metrics(run: Results, protocol: str, tags: bool) -> list[Mapping[str, Any]]:
    return [m for m in run.metrics if m["protocol"] == protocol and (tags or not m["tag"])]


def _column(metric: Mapping[str, Any]) -> Column:
    return Column(metric["benchmark"], metric["set"], metric["direction"], metric["tag"])


def _firsts(runs: Mapping[str, Results], protocol: str, columns: Sequence[Column]) -> dict[Column, _First]:
    found: dict[Column, _First] = {}
    for name, run in runs.items():
        for metric in _metrics(run, protocol, tags=True):
            if _column(metric) in columns:
                found.setdefault(_column(metric), (name, run, metric))
    return found


def _cells(
    run: Results,
    protocol: str,
    columns: Sequence[Column],
    firsts: Mapping[Column, _First],
    notes: Notes,
    intervals: bool,
) -> list[Cell]:
    own = {_column(metric): metric for metric in _metrics(run, protocol, tags=True)}
    return [
        Cell(_accuracy(own[column], intervals), notes.mark(*_about_cell(run, own[column], firsts[column], protocol)))
        if column in own
        else Cell(ABSENT)
        for column in columns
    ]


def _accuracy(metric: Mapping[str, Any], intervals: bool) -> str:
    if metric["estimate"] is None:
        return ABSENT
    text = f"{100 * metric['estimate']:.1f}"
    if intervals and metric["low"] is not None and metric["high"] is not None:
        return f"{text} [{100 * metric['low']:.1f}, {100 * metric['high']:.1f}]"
    return text if intervals or metric["se"] is None else f"{text} ± {100 * metric['se']:.1f}"


def _about_run(run: Results, top: str, first: Results) -> list[str]:
    names = {"precision": "precision", "long": "items beyond the context"}
    return [
        f"{label}: {run.stamp.get(key)}; of {top}: {first.stamp.get(key)}"
        for key, label in names.items()
        if run.stamp.get(key) != first.stamp.get(key)
    ]


def _about_cell(run: Results, metric: Mapping[str, Any], first: _First, protocol: str) -> list[str]:
    """What a reader must know before holding this cell against the first of its column."""
    name, (top, held, reference) = metric["benchmark"], first
    mine, theirs = run.benchmarks.get(name, {}), held.benchmarks.get(name, {})
    said = []
    if mine.get("sha256") != theirs.get("sha256"):
        said.append(f"other data than {top} (sha256 {_short(mine)}, not {_short(theirs)})")
    ours, other = run.protocols[protocol], held.protocols[protocol]
    differing = [key for key in sorted({*ours, *other} - {"source"}) if ours.get(key) != other.get(key)]
    if differing:
        changes = ", ".join(f"{key} {ours.get(key)}, not {other.get(key)} as {top}" for key in differing)
        said.append(f"another '{protocol}': {changes}")
    if metric["n_items"] != reference["n_items"]:
        said.append(f"of {metric['n_items']:,} items, {top} of {reference['n_items']:,}")
    if mine.get("dropped"):
        said.append(f"{mine['dropped']:,} items of {name} left out")
    if metric["n_identical"] >= max(1, IDENTICAL_SHARE * metric["n_items"]):
        said.append(f"{metric['n_identical']:,} items undecidable: both candidates are the same tokens")
    return said


def _place(score: PublishedScore, columns: Sequence[Column], runs: Mapping[str, Results]) -> Column:
    """The column that measures the same, or a new one."""
    for column in columns:
        for run in runs.values():
            what = measures(run.benchmarks.get(column.benchmark, {}), column.direction, column.tag)
            if what is not None and what.same(score, column.direction):
                return column
    version = f" ({score.version})" if score.version not in ("", "text") else ""
    return Column("", "", score.direction, metric=score.metric + version)


def _printed_rows(
    places: Mapping[PublishedScore, Column], columns: Sequence[Column], notes: Notes
) -> list[tuple[Cell, ...]]:
    """One row per system; a second one where it has two numbers for one column (two means of sBLIMP)."""
    rows: list[tuple[str, dict[Column, PublishedScore]]] = []
    for score, column in places.items():
        row = next((held for name, held in rows if name == score.system and column not in held), None)
        if row is None:
            rows.append((score.system, row := {}))
        row[column] = score
    lines = []
    for system, held in rows:
        caveats = dict.fromkeys(score.caveat for score in held.values() if score.caveat)
        cells = [Cell(system, notes.mark(*caveats))]
        for column in columns:
            found = held.get(column)
            cells.append(Cell(_as_printed(found.value), notes.mark(found.label)) if found else Cell(ABSENT))
        lines.append(tuple(cells))
    return lines


def _as_printed(value: float) -> str:
    """57.0 -> '57.0', 61.33 -> '61.33'"""
    return f"{value:g}" if value % 1 else f"{value:.1f}"


def _caption(runs: Mapping[str, Results], protocol: str, *, tags: bool, intervals: bool) -> tuple[str, ...]:
    first = next(iter(runs.values()))
    shown = {m["benchmark"] for run in runs.values() for m in run.metrics if m["protocol"] == protocol}
    named = dict.fromkeys(
        f"{name}: {', '.join(filter(None, (facts['title'], facts['version'], facts['paper'])))}"
        for run in runs.values()
        for name, facts in run.benchmarks.items()
        if name in shown
    )
    level = f"[{100 * first.stamp.get('bootstrap', {}).get('level', 0.95):g}% bootstrap interval]"
    chances = dict.fromkeys(
        f"{100 * m['chance']:.3g} in {_column(m).title}"
        for run in runs.values()
        for m in _metrics(run, protocol, tags)
        if m["chance"] != EVEN
    )
    return (
        f"Accuracy in percent {level if intervals else '± standard error'}, over pairs of items.",
        f"Protocol '{protocol}': {protocol_words(first.protocols[protocol])}.",
        *([f"Chance is {', '.join(chances)}; else 50."] if chances else []),
        *([f"Data: {'; '.join(named)}."] if named else []),
    )


def _short(facts: Mapping[str, Any]) -> str:
    return str(facts.get("sha256", "unknown"))[:8]
