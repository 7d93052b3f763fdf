"""Would catch a paper table that does not compile or prints other characters, a CSV without its numbers, or a caption
about intervals that nobody computed."""

from __future__ import annotations

import csv as csv_module
import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechscale.report.laws_csv import HEAD, csv
from speechscale.report.laws_formats import latex, markdown, tex
from speechscale.scaling.fit_table import fit_runs
from speechscale.scaling.fitted import Fitted
from speechscale.scaling.intervals import Estimate
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.tables.run_table import run_table

SPEECH = LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24)


@pytest.fixture(scope="module")
def fitted() -> tuple[Fitted, ...]:
    """An arm with a law, and one whose three runs are too few."""
    rng, arms = np.random.default_rng(0), []
    for name, budgets, sizes in (("a_1 <50%>|[x]", 5, 8), ("tiny", 1, 3)):
        C = np.repeat(np.geomspace(1e18, 1e20, budgets), sizes)
        N = SPEECH.optimum(C).params_opt * np.tile(np.geomspace(1 / 8, 8, sizes), budgets)
        D = C / 6 / N
        loss = SPEECH.predict(N, D) * np.exp(0.003 * rng.standard_normal(len(C)))
        arms += fit_runs(run_table(N, D, loss, name=name), replicates=100)
    return tuple(arms)


def test_every_constant_and_interval_is_in_the_csv(fitted: tuple[Fitted, ...]) -> None:
    rows = list(csv_module.DictReader(csv(fitted).splitlines()))
    for name, found in fitted[0].constants.items():
        (row,) = [row for row in rows if row["arm"] == fitted[0].name and row["quantity"] == name]
        assert (float(row["value"]), float(row["low"]), float(row["high"])) == (found.value, found.low, found.high)
        assert row["method"] == found.method
    assert not [row for row in rows if row["arm"] == "tiny"], "an arm without a law has no numbers"


def test_what_weakens_a_law_is_in_the_csv_too(fitted: tuple[Fitted, ...]) -> None:
    """Profiles, left-out runs, fits without the highest losses and the best size of each budget."""
    one = fitted[0]
    rows = list(csv_module.DictReader(csv(fitted).splitlines()))
    assert tuple(rows[0]) == HEAD
    for profile in one.profiles:
        (row,) = [row for row in rows if row["quantity"] == f"{profile.name}, profile"]
        ends = [profile.low, profile.high]
        assert [row["low"], row["high"]] == ["" if end is None else repr(end) for end in ends]
        assert row["method"].count("open") == ends.count(None)
    assert one.held_out is not None
    for kind, wanted in (
        ("predicted", [(run.flops, run.params, run.predicted.value) for run in one.held_out.runs]),
        ("seen", [(run.flops, run.params, run.seen) for run in one.held_out.runs]),
    ):
        found = [row for row in rows if row["quantity"] == f"loss of a left-out run, {kind}"]
        assert [tuple(float(row[name]) for name in ("at_flops", "at_params", "value")) for row in found] == wanted
        assert wanted
    without = {drop.left_out: drop.exp_params for drop in one.drops if drop.left_out}
    found = {row["quantity"]: float(row["value"]) for row in rows if row["quantity"].startswith("exp_params without")}
    assert found == {f"exp_params without the {n} highest losses": a for n, a in without.items()}
    assert found
    assert one.approaches is not None
    best = [point for point in one.approaches.of("akima").points if point.params_opt is not None]
    akima = [row for row in rows if row["quantity"] == "params_opt by akima"]
    assert [float(row["at_flops"]) for row in akima] == [point.flops for point in best]
    keys = [(row["arm"], row["quantity"], row["at_flops"], row["at_params"]) for row in rows]
    assert len(set(keys)) == len(keys), "a number has one row"


def test_an_end_that_the_search_did_not_reach_is_said(fitted: tuple[Fitted, ...]) -> None:
    open_end = dataclasses.replace(fitted[0].profiles[0], high=None)
    text = csv([dataclasses.replace(fitted[0], profiles=(open_end,))])
    (row,) = [row for row in csv_module.DictReader(text.splitlines()) if row["quantity"].endswith(", profile")]
    assert (row["high"], row["level"]) == ("", "0.95")
    assert f"open above {open_end.values[-1]:.3g}" in row["method"]


def test_a_number_without_an_interval_has_empty_ends_and_says_why(fitted: tuple[Fitted, ...]) -> None:
    bare = dataclasses.replace(
        fitted[0],
        constants={"E": Estimate(value=1.5, low=None, high=None, method="held where it was")},
        by_cluster={},
    )
    (row,) = [row for row in csv_module.DictReader(csv([bare]).splitlines()) if row["quantity"] == "E"]
    assert [row[name] for name in ("low", "high", "level", "method")] == ["", "", "", "held where it was"]
    assert "(none)" in latex([bare])
    assert "1.5 (held where it was)" in markdown([bare])
    assert "None" not in latex([bare]) + csv([bare]) + markdown([bare])


def test_arms_that_were_not_fitted_give_their_reason(fitted: tuple[Fitted, ...]) -> None:
    assert fitted[1].reason
    assert tex(fitted[1].reason) in latex(fitted)
    assert f"Not fitted: {fitted[1].reason}" in markdown(fitted)


def test_a_caption_promises_intervals_of_fitted_laws_only(fitted: tuple[Fitted, ...]) -> None:
    alone = latex([fitted[1]])
    assert "No law was fitted" in alone
    assert "intervals" not in alone
    assert "tiny: 3 runs" in alone
    assert f"intervals ({tex(fitted[0].interval_method)})" in latex(fitted[::-1]), "the order of arms changes nothing"


def test_laws_that_are_not_identified_are_marked(fitted: tuple[Fitted, ...]) -> None:
    text = latex([dataclasses.replace(fitted[0], status="not_identified")])
    assert text.count("dagger") == 2
    assert "do not quote" in text
    assert "dagger" not in latex(fitted)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (480.0, "480"),
        (4.8e5, r"$4.8\times 10^{5}$"),
        (99_999.0, r"$1\times 10^{5}$"),
        (-2e-4, r"$-2\times 10^{-4}$"),
        (-0.5, "$-0.5$"),
        (math.inf, r"$\infty$"),
    ],
)
def test_numbers_of_the_paper_table(fitted: tuple[Fitted, ...], value: float, text: str) -> None:
    found = Estimate(value=value, low=value, high=value, method="m")
    row = latex([dataclasses.replace(fitted[0], constants={"E": found})]).split(r"\midrule" + "\n")[1]
    assert f"& {text} " in row.splitlines()[0]
    assert f"[{text}, {text}]" in row.splitlines()[1]


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_no_special_character_reaches_latex(text: str) -> None:
    """What is left after the escapes are taken out is letters, digits and harmless punctuation."""
    left = re.sub(r"\\text\w+\{\}|\\\^\{\}|\\[&%$#_{}]|\{\[\}", "", tex(text))
    assert not set(left) & set("\\&%$#_{}~^<>|[")


def test_a_line_break_in_a_name_breaks_no_table(fitted: tuple[Fitted, ...]) -> None:
    named = dataclasses.replace(fitted[0], name="two\nlines")
    assert "two lines & " in latex([named])
    assert "## two lines" in markdown([named, fitted[1]])
