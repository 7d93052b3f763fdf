"""Would catch: a number in another column, row or format than measured, unlike cells without a footnote, a printed
score beside data of another version or with an interval, names that break or script a page, output that changes."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from speechscale.errors import DataError
from speechscale.evals.compare import compare
from speechscale.evals.metrics import measure, metric_records
from speechscale.evals.protocols import PROTOCOLS, get_protocol
from speechscale.evals.results import Results
from speechscale.report.eval_cells import Cell, EvalTable, Notes
from speechscale.report.eval_formats import FORMATS, as_latex, as_markdown, as_text
from speechscale.report.eval_page import comparison_page, comparison_text, forest_figure, table_page
from speechscale.report.eval_published import beside_published, measures
from speechscale.report.eval_table import eval_table, protocol_words
from tests.evals.made_results import choices, scored

EVIL = "</script><script>alert(1)</script>&%$#_{}~^\\|*`<b>"


def results(name: str, text: str, *, task: str = "sblimp", direction: str = "ss", **more: object) -> Results:
    about = {"task": task, **more.pop("about", {})}  # type: ignore[dict-item]
    return scored(name, choices(text, benchmark=task, set=task, direction=direction), about=about, **more).results  # type: ignore[arg-type]


def cells(table: EvalTable, group: int = 0) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.groups[group][1]]


def test_rows_columns_and_counts() -> None:
    items = choices("+++-" * 5, benchmark="x") + choices("++=-", benchmark="x", set="late", direction="tt")
    runs = {"one": scored("one", items).results, "two": results("two", "+-" * 10, task="x")}
    runs["two"].metrics[0]["set"] = "dev"
    table = eval_table(runs)
    assert table.head == (
        ("system", "x dev", "x late"),
        ("", "speech->speech", "text->text"),
        ("items", "20", "4"),
    )
    assert cells(table) == [["one", "75.0 ± 9.9", "62.5 ± 23.9"], ["two", "50.0 ± 11.5", "–"]]
    assert table.notes == {}
    shown = cells(eval_table(runs, intervals=True))[0][1]
    metric = runs["one"].metrics[0]
    assert shown == f"75.0 [{100 * metric['low']:.1f}, {100 * metric['high']:.1f}]"
    assert "mean over items" in table.caption[1]


def test_unlike_cells_carry_a_footnote() -> None:
    runs = {
        "first": results("first", "+" * 20),
        "data": results("data", "+-" * 10, data="e" * 64),
        "rule": results("rule", "+-" * 10),
        "fewer": results("fewer", "+-" * 9, precision="bf16"),
    }
    runs["rule"].protocols["speechscale"]["ties"] = 0.0
    runs["fewer"].benchmarks["sblimp"]["dropped"] = 2
    runs["rule"].metrics[0]["n_identical"] = 4
    table = eval_table(runs)
    marks = {row[0].text: [[table.notes[m] for m in cell.marks] for cell in row] for row in table.groups[0][1]}
    assert marks["first"] == [[], []]
    assert marks["data"] == [[], ["other data than first (sha256 eeeeeeee, not dddddddd)"]]
    assert marks["rule"] == [
        [],
        [
            "another 'speechscale': ties 0.0, not 0.5 as first",
            "4 items undecidable: both candidates are the same tokens",
        ],
    ]
    assert marks["fewer"] == [
        ["precision: bf16; of first: fp32"],
        ["of 18 items, first of 20", "2 items of sblimp left out"],
    ]


def test_printed_scores_stand_in_the_column_that_measures_the_same() -> None:
    runs = {"ours": results("ours", "++-" * 10, task="sstorycloze_ms", direction="st")}
    table = eval_table(runs, others=["sSC"], systems=["SIMS Q 3B", "LF2AR 2B"])
    assert table.head[0] == (
        "system",
        "sstorycloze_ms",
        "sSC (multi-speaker)",
        "sSC (multi-speaker)",
        "sSC",
        "sSC (original)",
        "sSC (original)",
        "sSC (original)",
    )
    rows = {row[0].text: row for row in table.groups[1][1]}
    assert [cell.text for cell in rows["SIMS Q 3B"]][:5] == ["SIMS Q 3B", "61.38", "57.0", "58.23", "65.47"]
    assert [cell.text for cell in rows["LF2AR 2B"]] == ["LF2AR 2B", "–", "–", "–", "73.7", "61.57", "63.98", "64.03"]
    assert table.groups[1][0] == "Printed by others, under their own conditions"
    (mark,) = rows["SIMS Q 3B"][1].marks
    assert table.notes[mark] == "Maimon et al. 2025 (SIMS), Table 2; multi-speaker version"


def test_two_means_of_one_system_are_two_rows() -> None:
    table = eval_table({"ours": results("ours", "++-" * 10)}, others=["sBLIMP"], systems=["823m-82b"])
    assert [row[1] for row in cells(table, 1)] == ["61.33", "58.36"]
    notes = [table.notes[row[1].marks[0]] for row in table.groups[1][1]]
    assert ["macro mean" in notes[0], "pair mean" in notes[1]] == [True, True]


def test_unverified_scores_come_on_request_and_say_so() -> None:
    run = {"ours": results("ours", "++-" * 10)}
    named = {row[0] for row in cells(eval_table(run, others=["sBLIMP"], systems=["SylReg", "SIMS"]), 1)}
    assert named == {"SIMS 7B"}
    table = eval_table(run, others=["sBLIMP"], systems=["SylReg", "SIMS"], verified=("read", "digest"))
    assert len(cells(table, 1)) == 4
    assert sum("UNVERIFIED digest" in note for note in table.notes.values()) == 1


def test_what_a_set_measures() -> None:
    def of(task: str, direction: str, tag: str = "", title: str = "") -> tuple[str, str] | None:
        found = measures({"task": task, "title": title}, direction, tag)
        return None if found is None else (found.metric, found.version)

    assert of("swuggy", "ss") == ("sWUGGY all", "")
    assert of("swuggy", "ss", "in_vocab") == ("sWUGGY", "")
    assert of("swuggy", "ss", "oov") is None
    assert of("sblimp", "tt") is None
    assert of("blimp", "ss") is None
    assert of("tstorycloze", "ts") == ("tSC", "original")
    assert of("cloze", "tt", title="Topic StoryCloze, text") == ("tSC", "text")
    assert of("cloze", "tt", title="StoryCloze, text") == ("sSC", "text")
    assert of("pairs", "ss") is None
    assert of("cross_modal", "st") is None  # made by its user: whose stories and voices is not known


def test_beside_a_printed_system() -> None:
    ours = results("ours", "+++--" * 20, task="sstorycloze_ms")
    (row,) = beside_published(ours, "SIMS Q 3B")
    assert (row.estimate, row.printed) == (0.6, 0.57)
    low, high = ours.metrics[0]["low"], ours.metrics[0]["high"]
    expected = f"+3.0 [{100 * (low - 0.57):.1f}, {100 * (high - 0.57):.1f}] points (interval of our side alone)"
    assert row.difference == expected
    with pytest.raises(DataError, match="no metric in common; it has sBLIMP ss, sSC ss original"):
        beside_published(ours, "SIMS 7B")


def test_refusals() -> None:
    runs = {"a": results("a", "+-"), "b": scored("b", choices("+-", protocol=PROTOCOLS["sims"]), ("sims",)).results}
    with pytest.raises(DataError, match=r"share no protocol \(a: speechscale; b: sims\)"):
        eval_table(runs)
    with pytest.raises(DataError, match="b: not measured under protocol 'speechscale'"):
        eval_table(runs, protocol="speechscale")
    with pytest.raises(DataError, match="at least one"):
        eval_table({})
    with pytest.raises(DataError, match="named like GPT-7"):
        eval_table({"a": runs["a"]}, others=["sBLIMP"], systems=["GPT-7"])


def test_text_is_aligned() -> None:
    table = eval_table({"a": results("a", "+-" * 9), "much longer": results("much longer", "+" * 18)})
    lines = as_text(table).splitlines()
    start = lines.index("") + 1
    assert lines[start].endswith("sblimp")
    assert len({len(line) for line in lines[start : start + 6]}) == 1
    assert lines[start + 4].startswith("a ")
    assert lines[start + 4].endswith("50.0 ± 12.1")


def test_markdown_escapes_and_has_equal_columns() -> None:
    text = as_markdown(eval_table({EVIL: results("x", "+-" * 9, data="e" * 64)}, others=["sBLIMP"], systems=["SIMS"]))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    assert "<script" not in text
    assert "59.8 <sup>b</sup>" in text
    assert "18 items" in rows[0]


def test_latex_escapes_every_special_character() -> None:
    text = as_latex(eval_table({EVIL: results("x", "+-" * 9)}, others=["sBLIMP"], systems=["SIMS"]))
    assert r"\&\%\$\#\_\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textbar{}" in text
    body = re.sub(r"\\[\\{}&%$#_]", "", text)
    assert body.count("{") == body.count("}")
    rows = [line for line in body.splitlines() if "&" in line]
    assert {line.count("&") for line in rows} == {1}
    assert r"50.0 $\pm$ 12.1" in text
    for rule in (r"\toprule", r"\bottomrule"):
        assert text.count(rule) == 1
    assert text.count(r"\midrule") == 2


def test_latex_cell_that_opens_with_a_bracket_is_no_argument() -> None:
    table = EvalTable(caption=(), head=(("[s]", "x"),), groups=(("", ((Cell("[a]"), Cell("1")),)),), notes={})
    assert "{}[a] & 1" in as_latex(table)


class Scripts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href") and value]


def test_pages_are_self_contained_and_run_no_names() -> None:
    parser = Scripts()
    parser.feed(table_page(eval_table({EVIL: results("x", "+-" * 9)}), EVIL))
    assert parser.tags.count("script") == parser.tags.count("b") == 0
    assert parser.outside == []
    sides = [replace(scored("x", choices("+-" * 9)), name=name) for name in (EVIL, f"{EVIL}2")]
    page = comparison_page(compare(*sides, protocols=[PROTOCOLS["speechscale"]]), EVIL)
    bodies = page[page.index("<body>") :]
    assert "<script>alert" not in page
    assert bodies.count("<script") == bodies.count("</script") == 1  # plotly's own call


def test_forest_shows_every_difference_with_its_interval() -> None:
    sets = {"up": "-" * 20 + "+" * 20, "down": "+" * 40, "same": "+-" * 20}
    others = {"up": "+" * 40, "down": "-" * 20 + "+" * 20, "same": "-+" * 20}
    a, b = (
        scored(name, [c for set_name, text in texts.items() for c in choices(text, set=set_name, benchmark="")])
        for name, texts in (("a", sets), ("b", others))
    )
    found = compare(a, b, protocols=[PROTOCOLS["speechscale"]])
    figure = forest_figure(found)
    points = {y: (trace.name, x) for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True)}
    assert points == {
        "up ss": ("b is better", 50.0),
        "down ss": ("a is better", -50.0),
        "same ss": ("cannot tell", 0.0),
    }
    for trace, row in zip(figure.data, found.rows, strict=True):
        assert trace.x[0] + trace.error_x.array[0] == pytest.approx(100 * row.difference.high)  # type: ignore[operator]
        assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(100 * row.difference.low)  # type: ignore[operator]
    assert list(figure.layout.yaxis.categoryarray) == ["same ss", "down ss", "up ss"]
    assert "3 comparisons were made" in comparison_text(found)


def test_same_input_same_bytes() -> None:
    def made() -> list[str]:
        run = results("a", "+-=" * 9)
        table = eval_table({"a": run}, others=["sBLIMP"], systems=["SIMS"])
        sides = [scored(name, choices(text)) for name, text in (("a", "+-=" * 9), ("b", "++-" * 9))]
        page = comparison_page(compare(*sides, protocols=[PROTOCOLS["speechscale"]]), "t")
        return [form(table) for form in FORMATS.values()] + [table_page(table, "t"), page]

    assert made() == made()


def test_a_protocol_in_words() -> None:
    words = protocol_words(PROTOCOLS["cuervo"].stamp())
    assert words == (
        "log-likelihood of the whole sequence (mean per token, full vocabulary), starts at <eos>, markers where the "
        "modality changes, end token not scored, ties count 0.5, mean over phenomena of means over pairs"
    )


def test_whole_questions_stand_in_tables_and_comparisons() -> None:
    """Three pairs of one question: it is solved or not, and chance is 1 in 4; 99.5 % is not called 100 %."""
    rule = get_protocol("speechscale:aggregate=all")
    made = {}
    for name, text in (("a", "+++++-" * 4), ("b", "++++++" * 4)):
        side = scored(name, choices(text, benchmark="swag", set="swag", per_pair=3))
        found = measure(side.choices, [rule], replicates=200)
        about = {"protocols": {rule.name: rule.stamp()}, "metrics": metric_records(found)}
        made[name] = replace(side, results=replace(side.results, **about))
    made["a"].results.stamp["bootstrap"]["level"] = 0.995
    table = eval_table({name: side.results for name, side in made.items()}, intervals=True)
    assert [row[1].partition(" ")[0] for row in cells(table)] == ["50.0", "100.0"]
    assert "[99.5% bootstrap interval]" in table.caption[0]
    assert table.caption[1].endswith("share of pairs whose items are all right.")
    assert table.caption[2] == "Chance is 25 in swag; else 50."
    found = compare(made["a"], made["b"], level=0.995)
    assert "50.0 and 100.0 % of 24 items in 8 pairs" in comparison_text(found)
    assert "share of pairs whose items are all right" in comparison_page(found, "t")
    assert forest_figure(found).layout.xaxis.title.text.endswith("99.5% interval)")


def test_marks_go_on_behind_z() -> None:
    notes = Notes()
    assert [notes.mark(str(i))[0] for i in range(28)][-3:] == ["z", "aa", "ab"]
    assert notes.mark("0") == ("a",)


def test_tables_need_no_torch() -> None:
    code = "import sys, speechscale.report.eval_page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
