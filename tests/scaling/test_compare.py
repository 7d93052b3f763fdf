"""Would catch a multiplier that is inverted, extrapolated, biased toward one arm, or too sure of itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.scaling.analysis.multiplier import Multiplier, compute_multiplier, smooth_envelope
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.optima.envelope import Sweep, envelope, make_sweep

LAW = LossLaw(E=0.3, A=60.0, B=300.0, alpha=0.45, beta=0.45)
BUDGETS = np.geomspace(1e11, 6.4e12, 4)
SIZES = np.geomspace(5e4, 4e5, 4)


def arm(
    name: str,
    multiplier: float,
    *,
    noise: float = 0.0,
    seed: int = 0,
    seeds: int = 1,
    se: float | None = 0.004,
    budgets: np.ndarray = BUDGETS,
    extra: float = 0.0,
) -> Sweep:
    """Runs of an arm that needs `multiplier` times the compute of LAW; noise: training, se: test data."""
    C, N = (np.repeat(x.ravel(), seeds) for x in np.meshgrid(budgets, SIZES, indexing="ij"))
    rng = np.random.default_rng(seed)
    spread = np.hypot(noise, se if se and noise else 0.0)
    loss = LAW.predict(N, C / multiplier / 6 / N) * np.exp(spread * rng.standard_normal(len(C)))
    return make_sweep(name, N, C, loss, loss_se=None if se is None else se * loss, compute_flops=C + extra)


def compare(multiplier: float, *, extra: float = 0.0) -> Multiplier:
    return compute_multiplier(arm("textless", 1.0), arm("interleaved", multiplier, extra=extra), replicates=200)


@pytest.mark.parametrize("multiplier", [0.3, 0.5, 1.0, 2.0, 3.0])
def test_exact_losses_give_the_planted_multiplier(multiplier: float) -> None:
    found = compare(multiplier)
    assert found.status == "supported"
    assert found.value is not None
    assert found.value.value == pytest.approx(multiplier, rel=0.06)  # the cubic between budgets a factor 4 apart


def test_swapping_the_arms_inverts_the_answer() -> None:
    one, other = arm("a", 1.0, noise=0.01, seed=1), arm("b", 0.5, noise=0.01, seed=2)
    forth, back = compute_multiplier(one, other).value, compute_multiplier(other, one).value
    assert forth is not None
    assert back is not None
    assert forth.value * back.value == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("multiplier", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("seeds", [1, 2])
def test_intervals_cover_planted_multipliers(multiplier: float, seeds: int) -> None:
    """At least 90 % of simulated studies, whichever arm is better."""
    hits, sides = 0, 0
    for trial in range(60):
        found = compute_multiplier(
            arm("textless", 1.0, noise=0.006, seed=2 * trial, seeds=seeds),
            arm("interleaved", multiplier, noise=0.006, seed=2 * trial + 1, seeds=seeds),
            replicates=200,
            seed=trial,
        )
        assert found.value is not None
        assert found.value.low is not None
        assert found.value.high is not None
        hits += found.value.low <= multiplier <= found.value.high
        sides += found.value.excludes(1.0)
    assert hits >= 54
    assert sides <= 6 if multiplier == 1 else sides >= 54


def test_ranges_that_do_not_meet_give_a_bound_on_the_right_side() -> None:
    better, worse = compare(1e-3), compare(1e3)
    assert (better.status, better.bound, better.value) == ("no_overlap", "less than", None)
    assert (worse.status, worse.bound, worse.value) == ("no_overlap", "more than", None)
    assert better.bound_value is not None
    assert worse.bound_value is not None
    assert 1e-3 < better.bound_value <= 1 / 60
    assert 60 <= worse.bound_value < 1e3


def test_one_budget_is_too_few_but_the_gap_is_still_given() -> None:
    found = compute_multiplier(arm("textless", 1.0, budgets=BUDGETS[:1]), arm("interleaved", 0.5, budgets=BUDGETS[:1]))
    assert (found.status, found.value) == ("too_few_points", None)
    assert found.gaps[0].difference.value < 0
    assert found.gaps[0].difference.excludes(0)


def test_nothing_is_extrapolated() -> None:
    """Matched losses lie inside what both arms reached, and computes inside what was run."""
    found = compare(0.4)
    textless, interleaved = envelope(arm("textless", 1.0)), envelope(arm("interleaved", 0.4))
    assert found.loss_range is not None
    assert found.baseline_flops is not None
    assert found.arm_flops is not None
    assert found.loss_range[0] <= min(textless.loss.max(), interleaved.loss.max())
    assert found.loss_range[1] >= max(textless.loss.min(), interleaved.loss.min())
    for low, high in (found.baseline_flops, found.arm_flops):
        assert BUDGETS[0] <= low < high <= BUDGETS[-1]


def test_charging_other_compute_raises_the_multiplier() -> None:
    plain, charged = compare(0.5).value, compare(0.5, extra=1e12).value
    assert plain is not None
    assert charged is not None
    assert charged.value > 1.3 * plain.value


def test_an_arm_that_overfits_is_judged_by_its_lowest_loss() -> None:
    """Losses that rise again with compute (repeated data) must not break the envelope or reward the other arm."""
    C = np.array([1e11, 4e11, 1.6e12, 6.4e12])
    sweep = make_sweep("textless", np.full(4, 1e5), C, np.array([1.2, 0.9, 1.0, 1.4]), loss_se=np.full(4, 0.01))
    other = make_sweep("interleaved", np.full(4, 1e5), C, np.array([1.3, 1.0, 0.8, 0.7]), loss_se=np.full(4, 0.01))
    found = compute_multiplier(sweep, other)
    assert found.status == "supported"
    assert found.value is not None
    assert found.value.value > 1  # up to loss 0.9, which textless reached sooner
    assert found.lowest_losses == (0.9, 0.7)
    assert found.baseline_flops is not None
    assert found.baseline_flops[1] <= 4e11


def test_without_any_noise_estimate_there_is_no_interval() -> None:
    C = np.array([1e11, 4e11, 1.6e12])
    one = make_sweep("textless", np.full(3, 1e5), C, np.array([1.2, 1.0, 0.9]))
    two = make_sweep("interleaved", np.full(3, 1e5), C, np.array([1.1, 0.95, 0.85]))
    found = compute_multiplier(one, two)
    assert found.value is not None
    assert found.value.low is None
    assert not found.noise_measured
    assert "not measured" in found.noise


def test_more_seeds_do_not_lower_the_envelope() -> None:
    """The luckiest of eight seeds is far below the truth; the envelope of seed means is not."""
    truth = envelope(arm("a", 1.0)).loss
    sweep = arm("a", 1.0, noise=0.02, seeds=8)
    assert envelope(sweep).loss == pytest.approx(truth, rel=0.02)
    lowest = [envelope(arm("a", 1.0, noise=0.02, seed=seed)).loss for seed in range(8)]
    assert (np.min(lowest, axis=0) < 0.985 * truth).all()
    assert sweep.runs == 8 * len(sweep.loss)


def test_noise_is_measured_from_seeds_and_from_the_surface() -> None:
    by_seeds = arm("a", 1, noise=0.02, seeds=4, se=None)
    assert by_seeds.loss_sd is not None
    assert by_seeds.loss_sd / by_seeds.loss == pytest.approx(0.01, rel=0.35)  # 2 % over the root of 4 seeds
    assert "seeds" in by_seeds.noise
    alone = arm("a", 1, noise=0.02, se=None)
    assert "surface" in alone.noise
    assert alone.spread_measured


@settings(deadline=None)
@given(st.lists(st.floats(0.5, 3), min_size=2, max_size=7), st.integers(0, 1000))
def test_the_smooth_envelope_is_monotone_and_passes_the_running_minimum(losses: list[float], seed: int) -> None:
    compute = 1e11 * np.cumprod(np.random.default_rng(seed).uniform(1.05, 4.0, len(losses)))
    x, y = smooth_envelope(compute[None], np.array(losses)[None])
    assert (np.diff(x[0]) > 0).all()
    assert (np.diff(y[0]) <= 0).all()
    best = np.minimum.accumulate(np.log(losses))
    assert np.interp(np.log(compute), x[0], y[0]) == pytest.approx(best, abs=1e-6)


def test_bad_runs_are_named() -> None:
    with pytest.raises(DataError, match="loss of run 1 is nan"):
        make_sweep("a", np.ones(2), np.ones(2), np.array([1.0, np.nan]))
    with pytest.raises(DataError, match="at least one run"):
        make_sweep("a", np.zeros(0), np.zeros(0), np.zeros(0))
