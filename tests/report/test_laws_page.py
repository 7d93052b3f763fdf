"""Would catch a page that loses a section or a caution, prints "nan", or lets a name become markup in a sentence or a
legend, and a figure whose points or intervals are not those of the fit."""

from __future__ import annotations

import re
from html import escape

import numpy as np
import pytest

from speechscale.report.decision_pages import comparison_page, gaps_figure, multiplier_figure
from speechscale.report.laws_figures import isoflop_curves, law_figures, metric_figure, residuals_figure
from speechscale.report.laws_page import fit_page
from speechscale.report.laws_sections import interval, sections
from speechscale.report.laws_text import fit_text
from speechscale.scaling.comparing.compare_runs import compare_runs
from speechscale.scaling.fit_table import fit_runs
from speechscale.scaling.fitted import Fitted
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.tables.run_table import RunTable, run_table

SPEECH = LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24)
METRIC = "acc <b>"


def sweep(name: str, budgets: int = 5, sizes: int = 8, seed: int = 0) -> RunTable:
    C = np.repeat(np.geomspace(1e18, 1e20, budgets), sizes)
    N = SPEECH.optimum(C).params_opt * np.tile(np.geomspace(1 / 8, 8, sizes), budgets)
    D = C / 6 / N
    loss = SPEECH.predict(N, D) * np.exp(0.003 * np.random.default_rng(seed).standard_normal(len(C)))
    return run_table(N, D, loss, name=name, metrics={METRIC: 0.9 - 0.15 * (loss - 1)})


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit_runs(sweep("an <i>arm</i>"), replicates=100)[0]


def words(page: str) -> str:
    """What a reader sees, without scripts."""
    return re.sub(r"<script.*?</script>", "", page.split("</head>", 1)[1], flags=re.S)


def test_every_section_and_number_stands_on_the_page_and_in_the_text(fitted: Fitted) -> None:
    seen, text = words(fit_page([fitted], "t")), fit_text([fitted])
    titles = [section.title for section in sections(fitted)]
    assert {"Law", "Optimum", "Held-out check", "Profiles", f"Metric {METRIC}", "Cautions"} <= set(titles)
    for title in titles:
        assert f"<h2>{escape(title)}</h2>" in seen
        assert title in text
    for found in fitted.constants.values():
        assert interval(found) in seen
        assert interval(found) in text
    for caution in fitted.cautions:
        assert escape(caution.message) in seen
        assert caution.reference in " ".join(text.split())
    for absent in ("nan", "None", "inf"):
        assert not re.search(rf"\b{absent}\b", seen)
        assert not re.search(rf"\b{absent}\b", text)


def test_names_are_text_everywhere(fitted: Fitted) -> None:
    assert "<i>" not in words(fit_page([fitted, fitted], "t <i>"))
    figure = metric_figure(fitted, METRIC)
    assert figure is not None
    assert figure.layout.yaxis.title.text == "acc &lt;b&gt; (%)"
    compared = multiplier_figure(compare_runs(sweep("a <b>x"), sweep("c & d", seed=1), replicates=100))
    assert compared is not None
    assert [trace.name for trace in compared.data[:2]] == ["a &lt;b&gt;x", "c &amp; d"]
    assert all("<b>" not in trace.name for trace in compared.data)


def test_arms_that_were_not_fitted_give_their_reason() -> None:
    tiny = fit_runs(sweep("tiny", budgets=1, sizes=3), replicates=100)[0]
    assert tiny.status == "not_fitted"
    assert escape(tiny.reason) in words(fit_page([tiny], "t"))
    assert tiny.reason in " ".join(fit_text([tiny]).split())
    assert "law" not in law_figures(tiny)


def test_residuals_stand_against_everything_they_could_depend_on(fitted: Fitted) -> None:
    figure = residuals_figure(fitted)
    assert figure is not None
    assert fitted.fit is not None
    table = fitted.table
    predicted = fitted.fit.law.predict(table.params, table.tokens)  # type: ignore[union-attr]
    for trace, x in zip(figure.data[:4], (predicted, table.flops, table.params, table.tokens), strict=True):
        assert np.asarray(trace.x) == pytest.approx(x)
        assert np.asarray(trace.y) == pytest.approx(100 * (np.log(table.loss) - np.log(predicted)), abs=1e-9)


def test_best_sizes_carry_their_intervals_and_budgets_read_well(fitted: Fitted) -> None:
    figure = isoflop_curves(fitted)
    assert figure is not None
    assert fitted.approaches is not None
    bars = [trace for trace in figure.data if trace.error_x.array is not None]
    points = [point.params_opt for point in fitted.approaches.of("akima").points if point.params_opt is not None]
    ends = [(one.low, one.high) for one in points if one.low is not None]
    assert ends
    drawn = [(b.x[0] - b.error_x.arrayminus[0], b.x[0] + b.error_x.array[0]) for b in bars]
    assert np.array(drawn) == pytest.approx(np.array(ends))
    assert [trace.name for trace in figure.data if trace.name][-1] == "1e20"


def test_of_many_budgets_some_are_drawn_and_the_axis_says_so() -> None:
    """Would catch a figure that is silently left out, or that hides the cheapest or the largest budget."""
    few, many = (fit_runs(sweep("x", budgets=n, sizes=5), replicates=100, hold_out=False)[0] for n in (12, 30))
    all_of_them, some = isoflop_curves(few), isoflop_curves(many)
    assert all_of_them is not None
    assert some is not None
    assert "drawn" not in all_of_them.layout.xaxis.title.text
    assert "12 of 30 budgets drawn" in some.layout.xaxis.title.text
    names = [trace.name for trace in some.data if trace.name]
    assert len(names) == 12
    assert names[0].startswith("1e18")
    assert names[-1].startswith("1e20")


def test_budgets_that_hold_no_sweep_are_not_drawn_in_place_of_those_that_do() -> None:
    """Twenty lone runs between ten budgets of five sizes: the figure is of the ten, and a lone run is no edge."""
    swept = sweep("x", budgets=10, sizes=5)
    C = np.geomspace(1.3e18, 7e19, 20) * np.tile([1.0, 1.1], 10)
    N = SPEECH.optimum(C).params_opt
    lone = run_table(N, C / 6 / N, SPEECH.loss_at(C), metrics={METRIC: np.full(20, 0.6)})
    both = [np.r_[getattr(swept, name), getattr(lone, name)] for name in ("params", "tokens", "loss")]
    budgets = np.r_[np.repeat(np.geomspace(1e18, 1e20, 10), 5), C]
    table = run_table(*both, name="x", extras={"budget_flops": budgets})
    figure = isoflop_curves(fit_runs(table, replicates=100, hold_out=False)[0])
    assert figure is not None
    assert "10 of 30 budgets drawn" in figure.layout.xaxis.title.text
    sizes = [len(trace.x) for trace in figure.data if trace.name]
    assert sizes == [5] * 10
    few = isoflop_curves(fit_runs(table.subset(np.arange(70) < 52), replicates=100, hold_out=False)[0])
    assert few is not None
    lone_names = [trace.name for trace in few.data if trace.name and len(trace.x) == 1]
    assert len(lone_names) == 2
    assert not any("edge" in name for name in lone_names)


def test_a_comparison_without_laws_has_a_picture_of_what_was_measured() -> None:
    C = np.geomspace(1e18, 1e20, 6)
    extras = {"budget_flops": C, "loss_se": np.full(6, 0.01)}
    N = np.sqrt(C / 120)
    one, two = (
        run_table(N, 20 * N, SPEECH.loss_at(C) + more, name=name, extras=extras)
        for name, more in (("<b>A", 0.0), ("B", 0.1))
    )
    found = compare_runs(one, two, replicates=200)
    assert found.no_law
    assert multiplier_figure(found) is None
    figure = gaps_figure(found)
    assert figure is not None
    (points,) = figure.data
    assert np.asarray(points.x) == pytest.approx(C)
    assert np.asarray(points.y) == pytest.approx(np.full(6, 0.1))
    assert np.asarray(points.error_y.array) == pytest.approx(np.full(6, 0.0277), rel=0.4)
    assert figure.layout.yaxis.title.text == "lowest loss, B minus &lt;b&gt;A"
    assert "plotly" in comparison_page(found, "text")
