"""Would catch an approach that quotes an edge, hides a disagreement, or an interval that is of its grid alone."""

from __future__ import annotations

import numpy as np
import pytest

from speechscale.scaling.laws import LossLaw
from speechscale.scaling.optima.akima import akima_minima
from speechscale.scaling.optima.approaches import NAMES, Approach, approaches
from speechscale.scaling.optima.isoflop import HIGH, INTERIOR, LOW
from speechscale.scaling.tables.run_table import RunTable, run_table

SPEECH = LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24)
AUDIO = LossLaw(E=3.169, A=216e3, B=4750.0, alpha=0.684, beta=0.439)


def sweep(
    law: LossLaw, *, noise: float = 0.0, seed: int = 0, shift: float = 1.0, budgets: int = 6, sizes: int = 9
) -> RunTable:
    C = np.repeat(np.geomspace(1e18, 1e20, budgets), sizes)
    N = shift * law.optimum(C).params_opt * np.tile(np.geomspace(1 / 8, 8, sizes), budgets)
    D = C / 6 / N
    return run_table(N, D, law.predict(N, D) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(C))))


@pytest.mark.parametrize("law", [SPEECH, AUDIO])
def test_all_approaches_find_the_planted_exponents(law: LossLaw) -> None:
    found = approaches(sweep(law, noise=2e-4), replicates=200)
    assert [a.name for a in found.approaches] == list(NAMES)
    for approach in found.approaches:
        a, b = approach.exp_params, approach.exp_tokens
        assert a is not None
        assert b is not None
        assert a.value == pytest.approx(law.exp_params, abs=0.03)
        assert a.value + b.value == pytest.approx(1)
        assert b.low == pytest.approx(1 - a.high)
        at = approach.params_opt(1e20)
        assert at is not None
        assert at.value == pytest.approx(law.optimum(1e20).params_opt, rel=0.25)
        tokens = approach.tokens_opt(1e20)
        assert tokens is not None
        assert tokens.low * at.high * 6 == pytest.approx(1e20)


def test_intervals_hold_the_truth() -> None:
    """40 noisy sweeps: each approach's 95 % interval of a, nominal 38 of 40."""
    held = dict.fromkeys(NAMES, 0)
    for seed in range(40):
        for approach in approaches(sweep(AUDIO, noise=0.005, seed=seed), replicates=200, seed=seed).approaches:
            a = approach.exp_params
            assert a is not None
            held[approach.name] += a.low <= AUDIO.exp_params <= a.high
    assert min(held.values()) >= 33, held


def test_budgets_at_the_edge_are_refused_and_said() -> None:
    """Only sizes above the optimum were run: no parabola may put a best size among them."""
    found = approaches(sweep(SPEECH, shift=20.0), replicates=50)
    for name in ("parabola", "parabola-5", "akima"):
        approach = found.of(name)  # type: ignore[arg-type]
        assert approach.exp_params is None
        assert "6 edge low" in approach.reason
        assert approach.params_opt(1e20) is None
    assert found.of("law").exp_params is not None


def test_scattered_runs_have_no_budgets() -> None:
    rng = np.random.default_rng(0)
    N, D = 10 ** rng.uniform(6, 9, 60), 10 ** rng.uniform(8, 11, 60)
    found = approaches(run_table(N, D, SPEECH.predict(N, D)), replicates=50)
    assert all("do not come in budgets" in a.reason for a in found.approaches[:-1])
    assert found.disagreements == ()


def test_a_world_that_is_no_such_law_is_seen_as_a_disagreement() -> None:
    """Losses with their minimum on N ~ C^.8 while their tails fall like the law: parabolas and the law must part."""
    table = sweep(SPEECH)
    center = np.log(table.flops / 1e19) * (0.8 - SPEECH.exp_params)
    away = np.log(table.params / SPEECH.optimum(table.flops).params_opt) - center
    loss = SPEECH.loss_at(table.flops) * (1 + 0.004 * np.clip(np.abs(away), 0, 1.2) ** 2)
    noisy = loss * np.exp(3e-4 * np.random.default_rng(0).standard_normal(len(loss)))
    found = approaches(run_table(table.params, table.tokens, noisy), replicates=200)
    assert any("parabola" in sentence for sentence in found.disagreements)


def test_an_envelope_is_not_sharper_than_its_sizes() -> None:
    """Without noise the same size wins in every replicate; the interval must still be as wide as the steps of N."""
    found = approaches(sweep(AUDIO, noise=1e-6), replicates=200).of("envelope")
    assert found.exp_params is not None
    assert found.exp_params.high - found.exp_params.low > 0.02


def test_a_steep_side_makes_an_edge_for_akima() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    status, at, _ = akima_minima(x, np.array([[4, 3, 2, 1], [1, 2, 3, 4], [2, 1, 1, 2], [3, 1.0, 1.5, 3]]))
    assert list(status[:2]) == [HIGH, LOW]
    assert list(status[2:]) == [INTERIOR, INTERIOR]
    assert at[2] == pytest.approx(2.5, abs=0.1)
    assert 1.8 < at[3] < 2.6


def test_equal_seeds_give_equal_intervals() -> None:
    table = sweep(AUDIO, noise=0.005)
    one, two = (approaches(table, replicates=60, seed=3) for _ in range(2))
    assert [a.exp_params for a in one.approaches] == [a.exp_params for a in two.approaches]
    assert isinstance(one.of("akima"), Approach)


def test_approach_1_refuses_edges_too() -> None:
    """The same sizes at every budget, all below the optimum: the largest always wins, which is no exponent of 0."""
    C, N = np.repeat(np.geomspace(1e18, 1e20, 5), 7), np.tile(np.geomspace(1e6, 3e7, 7), 5)
    found = approaches(run_table(N, C / 6 / N, SPEECH.predict(N, C / 6 / N)), replicates=50).of("envelope")
    assert found.exp_params is None
    assert "edge high" in found.reason


def test_budgets_named_under_another_convention_keep_c_6_n_d() -> None:
    """Budgets named by an exact count of 1.4 x 6 N D: lines and their points stay at the runs' own compute."""
    plain = sweep(SPEECH, noise=2e-4)
    named = run_table(plain.params, plain.tokens, plain.loss, extras={"budget_flops": np.round(1.4 * plain.flops, -13)})
    one, two = (approaches(table, replicates=50).of("akima") for table in (plain, named))
    assert [p.flops for p in two.points] == pytest.approx([p.flops for p in one.points])
    at, other = one.params_opt(1e20), two.params_opt(1e20)
    assert at is not None
    assert other is not None
    assert other.value == pytest.approx(at.value)
