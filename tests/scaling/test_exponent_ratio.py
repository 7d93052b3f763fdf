"""Would catch "decades per decade" sold as a factor, a printed exponent with an invented interval, a wrong envelope."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.scaling.comparing.exponent_ratio import exponent_ratio
from speechscale.scaling.links.metric_slopes import budgets_of, metric_exponent
from speechscale.scaling.tables.run_table import RunTable, run_table

METRICS = ("tstorycloze", "sblimp_macro", "sstorycloze")


@pytest.fixture(scope="module")
def endpoints(shared) -> RunTable:
    """The 31 runs of Cuervo & Marxer; the last two are extended ones, outside the 29 of the curves."""
    rows = pd.read_csv(shared / "scaling_data/cuervo_slm/slm_endpoints_31.csv")
    N = rows["params_non_embedding"] + rows["params_embedding_tied"]
    return run_table(N, rows["tokens_seen"], name="cuervo", metrics={name: rows[name] / 100 for name in METRICS})


def line(C: np.ndarray, gamma: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    return 0.1 * (C / 1e18) ** gamma * np.exp(noise * np.random.default_rng(seed).standard_normal(len(C)))


def ladder(budgets: int, sizes: int, gamma: float, noise: float = 0.0, seed: int = 0) -> RunTable:
    C = np.repeat(np.geomspace(1e18, 1e20, budgets), sizes)
    N = np.tile(np.geomspace(1e7, 1e9, sizes), budgets)
    return run_table(N, C / 6 / N, metrics={"acc": line(C, gamma, noise, seed)})


@pytest.mark.parametrize(
    ("metric", "printed", "rounded"),
    [("blimp", 3.14, (0.066, 0.021)), ("tstorycloze", 1.56, (0.039, 0.025)), ("sstorycloze", 2.7, (0.046, 0.017))],
)
def test_printed_exponents_give_the_printed_ratios_without_an_interval(metric, printed, rounded) -> None:
    found = exponent_ratio(f"cuervo-text-{metric}", f"cuervo-speech-{metric}")
    assert found.ratio.value == pytest.approx(printed, abs=0.006)
    assert (found.ratio.low, found.ratio.high) == (None, None)
    assert found.ratio.value == exponent_ratio(*rounded).ratio.value


def test_the_curve_endpoints_give_the_published_text_slopes_and_miss_one(endpoints) -> None:
    """Running-maximum envelope of the 29 endpoints: tSC and sBLIMP as published, sSC not its printed .017."""
    curves = endpoints.subset(np.arange(31) < 29)
    gammas = {name: metric_exponent(curves, name, replicates=200).gamma for name in METRICS}
    assert gammas["tstorycloze"].value == pytest.approx(0.0252, abs=5e-5)
    assert gammas["sblimp_macro"].value == pytest.approx(0.0205, abs=5e-5)
    assert gammas["sstorycloze"].value == pytest.approx(0.0108, abs=5e-5)
    assert gammas["tstorycloze"].low < 0.025 < gammas["tstorycloze"].high


def test_a_measured_speech_exponent_brings_its_interval(endpoints) -> None:
    speech = metric_exponent(endpoints, "tstorycloze", replicates=500)
    found = exponent_ratio("cuervo-text-tstorycloze", speech)
    assert found.ratio.low < 1.56 < found.ratio.high
    assert found.ratio.value == pytest.approx(0.039 / speech.gamma.value)
    assert found.ratio.low == pytest.approx(0.039 / np.quantile(speech.replicates.gamma, 0.975), rel=0.01)
    assert "taken as exact" in found.ratio.method


def test_the_sentences_say_one_decade_only_and_name_pythia_only_where_it_is_behind() -> None:
    printed = exponent_ratio("cuervo-text-blimp", "cuervo-speech-blimp")
    text = " ".join(printed.sentences)
    assert "3.14 decades per decade" in text
    assert '"1,390 times" holds for one decade only' in text
    assert "Pythia" in text
    assert "Pythia" not in " ".join(exponent_ratio(0.066, 0.021).sentences)


def test_a_speech_exponent_that_may_be_zero_has_no_upper_end() -> None:
    speech = metric_exponent(ladder(5, 4, 0.002, noise=0.05), "acc", replicates=300)
    assert speech.gamma.low < 0
    if speech.gamma.value <= 0:
        with pytest.raises(DataError, match="must be above 0"):
            exponent_ratio(0.04, speech)
    else:
        found = exponent_ratio(0.04, speech)
        assert found.ratio.high == np.inf
        assert "unboundedly many" in found.sentences[1]


def test_two_tables_are_resampled_independently() -> None:
    tables = [ladder(12, 1, gamma, noise=0.02, seed=seed) for gamma, seed in ((0.08, 1), (0.04, 2))]
    text, speech = (metric_exponent(t, "acc", replicates=400, seed=i) for i, t in enumerate(tables))
    found = exponent_ratio(text, speech)
    assert found.ratio.low < 2 < found.ratio.high
    assert "taken as exact" not in found.ratio.method


@settings(max_examples=20, deadline=None)
@given(gamma=st.floats(0.005, 0.3), budgets=st.integers(3, 9), sizes=st.integers(1, 6))
def test_an_exact_line_gives_its_exponent_whatever_the_grid(gamma, budgets, sizes) -> None:
    found = metric_exponent(ladder(budgets, sizes, gamma), "acc", replicates=100)
    assert found.gamma.value == pytest.approx(gamma, rel=1e-6)
    if found.gamma.low is not None:
        assert found.gamma.low == pytest.approx(gamma, rel=1e-6)


def test_budgets_are_those_named_else_equal_computes_else_none(endpoints) -> None:
    grid = ladder(5, 4, 0.02)
    assert len(np.unique(budgets_of(grid))) == 5
    assert budgets_of(endpoints) is None
    named = run_table(
        grid.params, grid.tokens * np.tile([0.8, 1, 1, 1.2], 5), extras={"budget_flops": np.repeat([1, 2, 3, 4, 5], 4)}
    )
    assert set(budgets_of(named)) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("table", "metric", "message"),
    [
        (ladder(5, 4, 0.02), "wer", "no metric 'wer'; it has acc"),
        (ladder(2, 4, 0.02), "acc", "2 compute"),
        (run_table([1e6, 2e6], [1e8, 1e8], metrics={"acc": [np.nan, np.nan]}), "acc", "no run has"),
    ],
)
def test_what_has_no_slope_is_refused(table, metric, message) -> None:
    with pytest.raises(DataError, match=message):
        metric_exponent(table, metric, replicates=100)


def test_an_unknown_published_slope_is_refused() -> None:
    with pytest.raises(DataError, match="no published slope 'cuervo'"):
        exponent_ratio("cuervo", 0.02)
