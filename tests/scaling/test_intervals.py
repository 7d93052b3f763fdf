"""Would catch intervals that are too narrow, not reproducible, or computed from the wrong resamples."""

from __future__ import annotations

import numpy as np
import pytest

from speechscale.errors import DataError
from speechscale.scaling.fitting.bootstrap import bootstrap_law, residual_losses
from speechscale.scaling.fitting.fit import fit_loss_law
from speechscale.scaling.intervals import Estimate, estimate, run_weights
from speechscale.scaling.laws import LossLaw

TEXT = LossLaw(E=1.82, A=478.0, B=2143.0, alpha=0.347, beta=0.367)


def sweep(budgets: int, sizes: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    C = np.repeat(np.geomspace(1e18, 1e20, budgets), sizes)
    N = TEXT.optimum(C).params_opt * np.tile(np.geomspace(1 / 8, 8, sizes), budgets)
    rng = np.random.default_rng(seed)
    return N, C / 6 / N, TEXT.predict(N, C / 6 / N) * np.exp(noise * rng.standard_normal(len(C)))


def test_weights_are_resamples_and_clusters_stay_together() -> None:
    weights = run_weights(12, 50, 0)
    assert (weights.sum(axis=1) == 12).all()
    clustered = run_weights(6, 50, 0, clusters=["a", "a", "b", "b", "c", "c"])
    assert (clustered[:, 0] == clustered[:, 1]).all()
    assert (clustered[:, ::2].sum(axis=1) == 3).all()
    with pytest.raises(DataError, match="labels"):
        run_weights(6, 5, 0, clusters=["a"])


def test_equal_seeds_give_equal_intervals() -> None:
    fit = fit_loss_law(*sweep(5, 6, 0.005, 0))
    first, second = bootstrap_law(fit, replicates=200, seed=7), bootstrap_law(fit, replicates=200, seed=7)
    assert first.constants() == second.constants()
    assert first.constants() != bootstrap_law(fit, replicates=200, seed=8).constants()


def test_small_tables_resample_residuals_with_the_lost_degrees_of_freedom() -> None:
    fit = fit_loss_law(*sweep(4, 4, 0.005, 1))
    boot = bootstrap_law(fit, replicates=200)
    assert boot.method == "residuals"
    drawn = residual_losses(fit, 4000, 0) - (fit.log_loss - fit.residuals)
    assert drawn.std() == pytest.approx(fit.residuals.std() * np.sqrt(16 / 11), rel=0.03)


def test_unknown_bootstrap_is_refused() -> None:
    fit = fit_loss_law(*sweep(4, 4, 0.005, 1))
    with pytest.raises(DataError, match="by='wild'"):
        bootstrap_law(fit, by="wild")
    with pytest.raises(DataError, match="one label per run"):
        bootstrap_law(fit, by="clusters")


def test_estimates_need_replicates_and_know_what_they_exclude() -> None:
    with pytest.raises(DataError, match="at least 20"):
        estimate(1.0, np.ones(5), method="")
    with pytest.raises(DataError, match="1 NaN"):
        estimate(1.0, np.append(np.ones(30), np.nan), method="")
    assert Estimate(value=0.5, low=0.4, high=0.7, method="").excludes(1)
    assert not Estimate(value=0.5, low=0.4, high=1.1, method="").excludes(1)
    assert not Estimate(value=0.5, low=None, high=None, method="").excludes(1)


@pytest.mark.parametrize(("budgets", "sizes"), [(4, 4), pytest.param(5, 8, marks=pytest.mark.slow)])
def test_intervals_of_the_exponent_cover_the_truth(budgets: int, sizes: int) -> None:
    """95 % intervals on 30 sweeps: fewer than 25 hits has a probability below 1 in 200 if the coverage is .95."""
    hits = 0
    for seed in range(30):
        fit = fit_loss_law(*sweep(budgets, sizes, 0.005, seed))
        found = bootstrap_law(fit, replicates=100, seed=seed).of(lambda law: law.exp_params)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= TEXT.exp_params <= found.high
    assert hits >= 25
