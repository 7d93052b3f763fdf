"""Would catch an optimum quoted at the edge of the grid, outside it, or at a maximum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.scaling.optima.isoflop import isoflop

SIZES = np.geomspace(1e6, 1e8, 5)


def bowl(center: float, curvature: float = 0.1, base: float = 2.0, sizes: np.ndarray = SIZES) -> np.ndarray:
    return base + curvature * (np.log10(sizes) - np.log10(center)) ** 2


def test_reads_the_vertex_of_a_parabola() -> None:
    result = isoflop(SIZES, bowl(1.3e7), budget_flops=6e15, loss_se=np.full(5, 0.001))
    assert result.status == "interior"
    assert result.params_opt is not None
    assert result.params_opt.value == pytest.approx(1.3e7, rel=1e-6)
    assert result.params_opt.low is not None
    assert result.params_opt.low < 1.3e7 < result.params_opt.high
    assert result.tokens_opt == pytest.approx(1e15 / 1.3e7, rel=1e-6)
    assert result.loss_opt is not None
    assert result.loss_opt.value == pytest.approx(2.0)


@settings(deadline=None)
@given(exponent=st.floats(4, 10), seed=st.integers(0, 100), noise=st.floats(0, 0.02))
def test_an_optimum_is_quoted_only_strictly_inside(exponent: float, seed: int, noise: float) -> None:
    loss = bowl(10**exponent) + noise * np.random.default_rng(seed).standard_normal(5)
    result = isoflop(SIZES, loss, budget_flops=1e16, replicates=40)
    if result.status == "interior":
        assert 0 < loss.argmin() < 4
        assert result.params_opt is not None
        assert SIZES[0] < result.params_opt.value < SIZES[-1]
    else:
        assert result.params_opt is result.tokens_opt is result.loss_opt is None
        assert "edge" in result.message or "maximum" in result.message


@pytest.mark.parametrize(("center", "status", "word"), [(1e5, "edge_low", "smallest"), (1e9, "edge_high", "largest")])
def test_an_edge_is_called_an_edge(center: float, status: str, word: str) -> None:
    result = isoflop(SIZES, bowl(center), budget_flops=1e16, loss_se=np.full(5, 0.01))
    assert (result.status, result.params_opt) == (status, None)
    assert "at the edge" in result.message
    assert word in result.message


def test_a_maximum_is_refused() -> None:
    result = isoflop(SIZES, bowl(1e7, curvature=-0.1), budget_flops=1e16)
    assert (result.status, result.params_opt) == ("maximum", None)
    assert "maximum" in result.message


def test_a_concave_fall_is_an_edge_not_a_maximum() -> None:
    assert isoflop(SIZES, np.array([2.0, 1.99, 1.95, 1.85, 1.6]), budget_flops=1e16).status == "edge_high"


@pytest.mark.parametrize("sizes", [0, 1, 2])
def test_too_few_sizes(sizes: int) -> None:
    if not sizes:
        assert isoflop(np.zeros(0), np.zeros(0), budget_flops=1e16).status == "too_few_sizes"
        return
    result = isoflop(SIZES[:sizes], bowl(1e7)[:sizes], budget_flops=1e16)
    assert (result.status, result.params_opt) == ("too_few_sizes", None)
    # seeds of one size are not sizes
    assert isoflop(np.repeat(SIZES[:2], 3), np.repeat(bowl(1e7)[:2], 3), budget_flops=1e16).status == "too_few_sizes"


def test_three_sizes_without_noise_estimate_have_no_interval() -> None:
    result = isoflop(SIZES[1:4], bowl(1e7)[1:4], budget_flops=1e16)
    assert result.params_opt is not None
    assert result.params_opt.low is None
    assert "no interval" in result.params_opt.method


def test_a_wide_interval_says_that_it_reaches_the_edge() -> None:
    result = isoflop(SIZES, bowl(3e6, curvature=0.02), budget_flops=1e16, loss_se=np.full(5, 0.05))
    assert result.open_low
    assert result.edge_share is not None
    assert result.edge_share > 0.025
    assert "may lie outside" in result.message


def test_intervals_cover_the_vertex() -> None:
    hits = 0
    for seed in range(100):
        loss = bowl(1.5e7) + 0.002 * np.random.default_rng(seed).standard_normal(5)
        result = isoflop(SIZES, loss, budget_flops=1e16, loss_se=np.full(5, 0.002), replicates=200, seed=seed)
        assert result.params_opt is not None
        assert result.params_opt.low is not None
        assert result.params_opt.high is not None
        hits += result.params_opt.low <= 1.5e7 <= result.params_opt.high
    assert hits >= 88


def test_seeds_are_averaged_and_their_spread_is_the_noise() -> None:
    noise = np.array([0.01, -0.01])
    result = isoflop(
        np.repeat(SIZES, 2), np.repeat(bowl(1e7), 2) + np.tile(noise, 5), budget_flops=1e16, replicates=200
    )
    assert result.losses == pytest.approx(bowl(1e7))
    assert result.losses_se == pytest.approx([0.01] * 5)


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="run 2 has"):
        isoflop(SIZES, np.where(np.arange(5) == 2, np.nan, 2.0), budget_flops=1e16)
    with pytest.raises(DataError, match="loss_se"):
        isoflop(SIZES, bowl(1e7), budget_flops=1e16, loss_se=np.full(5, np.nan))
    with pytest.raises(DataError, match="one number per run"):
        isoflop(SIZES, bowl(1e7)[:4], budget_flops=1e16)
