"""Would catch a check that peeks at the runs it predicts, intervals of the constants alone, or one that never fails."""

from __future__ import annotations

import numpy as np
import pytest

from speechscale.scaling.fitting.fit import fit_loss_law
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.optima.held_out import held_out
from speechscale.scaling.tables.run_table import RunTable, run_table

TEXT = LossLaw(E=1.82, A=478.0, B=2143.0, alpha=0.347, beta=0.367)


def sweep(seed: int, *, noise: float = 0.005, bend: float = 0.0) -> RunTable:
    C = np.repeat(np.geomspace(1e18, 1e20, 5), 8)
    N = TEXT.optimum(C).params_opt * np.tile(np.geomspace(1 / 8, 8, 8), 5)
    D = C / 6 / N
    loss = TEXT.predict(N, D) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(C)))
    return run_table(N, D, loss * np.where(C > 9e19, 1 + bend, 1.0))


def test_the_largest_budget_is_predicted_from_the_others() -> None:
    table = sweep(0)
    found = held_out(table, replicates=300)
    assert found.status == "held"
    assert found.fitted == 32
    assert len(found.runs) == 8
    assert found.extrapolation == pytest.approx(10**0.5)
    assert table.loss is not None
    rest = table.flops < 9e19
    alone = fit_loss_law(table.params[rest], table.tokens[rest], table.loss[rest]).law
    for run in found.runs:
        assert run.flops == pytest.approx(1e20)
        assert run.predicted.value == pytest.approx(alone.predict(run.params, run.tokens))
        assert run.error == pytest.approx(run.seen / run.predicted.value - 1)


def test_nineteen_of_twenty_runs_lie_in_their_intervals() -> None:
    """30 sweeps of 8 left-out runs; intervals without the residual would hold about half of them."""
    covered = [held_out(sweep(seed), replicates=200, seed=seed).covered for seed in range(30)]
    assert 0.88 <= np.mean(covered) / 8 <= 0.99


def test_a_world_that_bends_is_missed() -> None:
    found = held_out(sweep(1, bend=0.03), replicates=300)
    assert found.missed
    assert found.mean_error == pytest.approx(0.03, abs=0.01)
    assert "missed, do not extrapolate" in found.message
    false_alarms = sum(held_out(sweep(seed), replicates=200, seed=seed).missed for seed in range(30))
    assert false_alarms <= 3


def test_what_cannot_be_left_out_is_said() -> None:
    table = sweep(0)
    few = table.subset(table.flops < 2e18)
    assert held_out(few).status == "refused"
    assert "no held-out check" in held_out(few).message
    two = table.subset((table.flops < 2e18) | (table.flops > 9e19))
    assert held_out(two.subset(np.arange(16) % 3 != 0), replicates=50).status in ("held", "missed", "refused")


def test_scattered_runs_leave_out_their_largest_compute() -> None:
    rng = np.random.default_rng(2)
    N, D = 10 ** rng.uniform(6, 9, 60), 10 ** rng.uniform(8, 11, 60)
    found = held_out(run_table(N, D, TEXT.predict(N, D) * np.exp(0.005 * rng.standard_normal(60))), replicates=100)
    assert len(found.runs) == 5
    assert min(run.flops for run in found.runs) >= np.sort(6 * N * D)[-5] * (1 - 1e-9)


def test_other_forms_predict_too() -> None:
    table = sweep(3)
    found = held_out(table, replicates=100, law="overtraining")
    assert len(found.runs) == 8
    assert found.status in ("held", "missed")
    missing = held_out(table, replicates=100, law="repeat")
    assert missing.status == "refused"
    assert "unique_tokens" in missing.message


def test_a_run_that_is_left_out_is_left_out_with_its_checkpoints() -> None:
    """Its earlier checkpoints would tell the fit what it is asked to predict."""
    table = sweep(4)
    runs = [f"run {i % 20}" for i in range(len(table))]
    checkpoints = run_table(table.params, table.tokens, table.loss, extras={"run": runs})
    found = held_out(checkpoints, replicates=100)
    left = {name for name, flops in zip(runs, table.flops, strict=True) if flops > 9e19}
    assert found.fitted == sum(name not in left for name in runs)
    assert found.fitted < 32
