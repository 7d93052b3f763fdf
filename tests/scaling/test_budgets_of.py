"""Would catch budgets that are lost when compute is met inexactly, and scattered runs taken for budgets."""

from __future__ import annotations

import numpy as np
import pytest

from speechscale.scaling.tables.budgets import budgets_of, compute_groups, runs_of
from speechscale.scaling.tables.run_table import run_table


@pytest.mark.parametrize("error", [0.0, 0.02, 0.05, 0.1])
def test_budgets_met_inexactly_are_still_budgets(error: float) -> None:
    """Five budgets a decade apart, five sizes each, compute off by a normal error."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        C = np.repeat(np.geomspace(1e17, 1e21, 5), 5) * np.exp(error * rng.standard_normal(25))
        N = np.tile(np.geomspace(1e7, 1e9, 5), 5)
        found = budgets_of(run_table(N, C / 6 / N))
        assert found is not None
        assert len(np.unique(found)) == 5
        assert np.ptp(np.unique(found, return_counts=True)[1]) == 0


def test_scattered_runs_are_none() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        for count in (30, 60, 3000):
            N, D = 10 ** rng.uniform(6, 9, count), 10 ** rng.uniform(8, 11, count)
            assert budgets_of(run_table(N, D)) is None


def test_named_budgets_win_and_small_groups_are_none() -> None:
    N, D = np.full(6, 1e8), np.geomspace(1e9, 2e9, 6)
    named = run_table(N, D, extras={"budget_flops": [1e18] * 3 + [2e18] * 3})
    assert list(np.unique(budgets_of(named))) == [1e18, 2e18]
    pairs = np.repeat(np.geomspace(1e17, 1e20, 8), 2)
    assert budgets_of(run_table(np.tile([1e7, 1e8], 8), pairs / 6 / np.tile([1e7, 1e8], 8))) is None
    assert list(compute_groups(np.array([1.0, 1.01, 2.0]))) == pytest.approx([1.005, 1.005, 2.0], abs=1e-4)


def test_runs_are_named_only_where_they_have_checkpoints() -> None:
    assert runs_of(run_table([1e6, 1e7], [1e8, 1e9], extras={"run": ["a", "b"]})) is None
    assert runs_of(run_table([1e6] * 3, [1e8, 2e8, 3e8], extras={"run": ["a", "a", ""]})) == ["a", "a", "row 2"]


def test_a_column_of_each_runs_own_compute_names_no_budgets() -> None:
    C = np.repeat(np.geomspace(1e17, 1e21, 5), 5) * (1 + 1e-6 * np.arange(25))
    N = np.tile(np.geomspace(1e7, 1e9, 5), 5)
    found = budgets_of(run_table(N, C / 6 / N, extras={"budget_flops": C}))
    assert found is not None
    assert len(np.unique(found)) == 5


@pytest.mark.parametrize("strange", [0.0, -1.0])
def test_a_budget_that_is_none_leaves_those_of_the_compute(strange: float) -> None:
    C, N = np.repeat(np.geomspace(1e17, 1e21, 5), 5), np.tile(np.geomspace(1e7, 1e9, 5), 5)
    named = C.copy()
    named[3] = strange
    found = budgets_of(run_table(N, C / 6 / N, extras={"budget_flops": named}))
    assert found == pytest.approx(C)
