"""Would catch a page that shows another number than the terminal, drops a verdict, or lets a name become markup."""

from __future__ import annotations

import numpy as np
import pytest

from speechscale.report.decision_pages import (
    comparison_page,
    multiplier_figure,
    plan_figure,
    plan_page,
    power_figure,
    power_page,
)
from speechscale.report.plan_text import plan_text
from speechscale.scaling.comparing.compare_runs import compare_runs
from speechscale.scaling.comparing.comparison import Comparison
from speechscale.scaling.comparing.sentences import comparison_text
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.planning.budgets import from_flops
from speechscale.scaling.planning.inventory import make_inventory
from speechscale.scaling.planning.plan import plan
from speechscale.scaling.planning.power import power
from speechscale.scaling.planning.power_text import power_text
from speechscale.scaling.tables.run_table import RunTable, run_table

SPEECH = LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24)


def sweep(name: str, cheaper: float, seed: int) -> RunTable:
    C = np.repeat(np.geomspace(1e18, 1e20, 5), 8)
    N = SPEECH.optimum(C).params_opt * np.tile(np.geomspace(1 / 8, 8, 8), 5)
    D = C / 6 / N
    loss = SPEECH.predict(N / cheaper**0.5, D / cheaper**0.5)
    return run_table(N, D, loss * np.exp(0.002 * np.random.default_rng(seed).standard_normal(len(C))), name=name)


@pytest.fixture(scope="module")
def compared() -> Comparison:
    return compare_runs(sweep("a <i>", 1.0, 0), sweep("b", 0.5, 1), replicates=100)


def test_a_comparison_shows_every_matched_loss(compared: Comparison) -> None:
    figure = multiplier_figure(compared)
    assert figure is not None
    assert compared.multiplier is not None
    points = figure.data[-1]
    finite = [level for level in compared.multiplier.curve if 0 < level.ratio.value < np.inf]
    assert list(points.y) == pytest.approx([level.ratio.value for level in finite])
    hollow = [symbol == "circle-open" for symbol in points.marker.symbol]
    assert hollow == [level.extrapolation > 1 for level in finite]
    assert any(hollow)
    assert not all(hollow)
    text = comparison_text(compared)
    page = comparison_page(compared, text)
    body = page.split("</script>", 1)[1]
    assert "a &lt;i&gt;" in body
    assert "<i>" not in body.split("<script", 1)[0]


def test_a_plan_lies_on_its_budget() -> None:
    found = plan(from_flops(1e20), inventory=make_inventory(["LibriLight"]))
    law = found.laws[0]
    figure = plan_figure(law, 1e20)
    heat, line, stars, sizes = figure.data
    assert np.asarray(line.x) * np.asarray(line.y) * 6 == pytest.approx(np.full(len(line.x), 1e20))
    assert stars.x[0] == law.unconstrained.params.value
    assert len(sizes.x) == len(law.sizes)
    middle = np.unravel_index(np.argmin(np.abs(np.asarray(heat.z) - law.unconstrained.loss.value)), heat.z.shape)
    assert heat.z[middle] == pytest.approx(law.unconstrained.loss.value, rel=1e-2)
    page = plan_page(found, plan_text(found))
    for sentence in found.verdict:
        assert sentence.split(":")[0].split("<")[0] in page


def test_a_power_page_has_every_quantity() -> None:
    found = power(SPEECH, sweeps=20, replicates=20)
    figure = power_figure(found)
    assert len(figure.data) == len(found.expected)
    exponent = found.expected["exp_params"]
    assert list(figure.data[0].x) == pytest.approx([exponent.low - exponent.truth, exponent.high - exponent.truth])
    assert "40 runs" in power_page(found, power_text(found))


def test_a_law_without_a_slope_has_no_curve() -> None:
    """Losses that rise with compute: no law is quoted for them, so none is drawn."""
    worse = [sweep(name, 1.0, seed) for seed, name in enumerate(("a", "b"))]
    turned = [run_table(t.params, t.tokens, 6 - t.loss, name=t.name) for t in worse if t.loss is not None]
    found = compare_runs(*turned, replicates=100)
    assert (found.laws, found.exponents, found.multiplier) == (None, (), None)
    assert "ended on the border of the search" in found.no_law
    assert multiplier_figure(found) is None
    assert found.sentence.split(";")[0][:20] in comparison_page(found, comparison_text(found))


def test_a_law_that_gives_no_point_is_not_drawn_with_one() -> None:
    found = plan(from_flops(1e26), laws=["cuervo-speech"])
    assert found.laws[0].belief.refused
    assert "plan-0" not in plan_page(found, plan_text(found)).split("</script>", 1)[1]
