"""Would catch a test of equal exponents that cries wolf, one that sees nothing, and a wrong derivative."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from speechscale.errors import DataError
from speechscale.scaling.comparing.shared_exponents import SharedModel, equal_exponents
from speechscale.scaling.fitting.fit import Fit, fit_loss_law
from speechscale.scaling.laws import LossLaw

SPEECH = LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24)
SAME = LossLaw(E=1.9, A=18.0, B=35.0, alpha=0.25, beta=0.24)
TEXT = LossLaw(E=1.8, A=480.0, B=2100.0, alpha=0.35, beta=0.37)


def fitted(law: LossLaw, noise: float, seed: int, budgets: int = 5, sizes: int = 8, **settings) -> Fit:
    C = np.repeat(np.geomspace(1e18, 1e20, budgets), sizes)
    N = law.optimum(C).params_opt * np.tile(np.geomspace(1 / 8, 8, sizes), budgets)
    D = C / 6 / N
    rng = np.random.default_rng(seed)
    return fit_loss_law(N, D, law.predict(N, D) * np.exp(noise * rng.standard_normal(len(C))), **settings)


def test_derivatives_are_those_of_the_objective() -> None:
    a, b = fitted(SPEECH, 0.005, 0), fitted(TEXT, 0.005, 1, sizes=6)
    model = SharedModel((a.model, b.model), (a.runs, b.runs))
    y = np.concatenate([a.targets, b.targets])[None]
    w = np.random.default_rng(0).uniform(0.5, 2, y.shape)
    theta = np.array([[*a.theta[[0, 2, 4]], *b.theta[[0, 2, 4]], 0.3, 0.31]]) + 0.01
    delta = 0.05
    gradient, hessian, _ = model.derivatives(theta, y, w, delta)
    step = 1e-6
    for i in range(8):
        up, down = theta.copy(), theta.copy()
        up[0, i] += step
        down[0, i] -= step
        numeric = (model.objective(up, y, w, delta) - model.objective(down, y, w, delta)) / (2 * step)
        assert gradient[0, i] == pytest.approx(numeric[0], rel=1e-4, abs=1e-6)
        slopes = (model.derivatives(up, y, w, delta)[0] - model.derivatives(down, y, w, delta)[0]) / (2 * step)
        assert hessian[0, i] == pytest.approx(slopes[0], rel=1e-3, abs=1e-3)


def test_exact_tables_with_common_exponents_return_them() -> None:
    found = equal_exponents(fitted(SPEECH, 0, 0), fitted(SAME, 0, 1), replicates=99)
    assert (found.alpha, found.beta) == pytest.approx((0.25, 0.24), rel=1e-4)
    assert [law.E for law in found.laws] == pytest.approx([1.73, 1.9], rel=1e-4)
    assert [law.A for law in found.laws] == pytest.approx([13.9, 18.0], rel=1e-3)


def test_p_values_are_uniform_when_exponents_are_equal() -> None:
    p = [
        equal_exponents(
            fitted(SPEECH, 0.003, 2 * seed), fitted(SAME, 0.003, 2 * seed + 1), replicates=99, seed=seed
        ).p_value
        for seed in range(60)
    ]
    # 60 draws: two standard errors are .06 at .05, .11 at .25, .13 at .5.
    assert np.mean(np.array(p) <= 0.05) <= 0.134
    assert np.mean(np.array(p) <= 0.25) == pytest.approx(0.25, abs=0.15)
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.17)


def test_halves_of_one_real_table_are_seldom_told_apart(shared) -> None:
    """Noise of Epoch's runs is uneven: with residuals redrawn across runs, a third of the halves had p <= .05."""
    table = pd.read_csv(shared / "scaling_data/epoch_chinchilla/svg_extracted_data.csv")
    table = table[table["loss"] < np.sort(table["loss"])[-5]]
    N, loss = table["Model Size"].to_numpy(), table["loss"].to_numpy()
    D = table["Training FLOP"].to_numpy() / 6 / N
    p = []
    for seed in range(30):
        half = np.random.default_rng(seed).permutation(len(N)) < len(N) // 2
        fits = [fit_loss_law(N[part], D[part], loss[part]) for part in (half, ~half)]
        p.append(equal_exponents(*fits, replicates=99, seed=seed).p_value)
    assert np.mean(np.array(p) <= 0.05) <= 0.2


def test_strongly_different_exponents_are_seen() -> None:
    found = equal_exponents(fitted(SPEECH, 0.005, 1, 9, 12), fitted(TEXT, 0.005, 2, 9, 12), replicates=300)
    assert found.p_value < 0.02
    assert found.reduction == pytest.approx(found.shared - found.separate)
    assert "exponents differ" in found.message


def test_checkpoints_of_one_run_share_their_sign() -> None:
    """Every run four times: as independent runs equal exponents look different ever more often."""
    called = {"runs": 0, "checkpoints": 0}
    for seed in range(20):
        fits = []
        for law, offset in ((SPEECH, 0), (SAME, 1)):
            one = fitted(law, 0.003, 100 + 2 * seed + offset)
            frame = one.frame
            N, D = np.exp(frame.log_params + frame.mean_log_params), np.exp(frame.log_tokens + frame.mean_log_tokens)
            fits.append(fit_loss_law(np.tile(N, 4), np.tile(D, 4), np.tile(np.exp(one.log_loss), 4)))
        names = np.tile(np.arange(40), 4)
        for label, clusters in (("runs", None), ("checkpoints", (names, names))):
            found = equal_exponents(*fits, replicates=99, seed=seed, clusters=clusters)
            called[label] += found.p_value <= 0.05
    assert called["checkpoints"] <= 4
    assert called["runs"] >= called["checkpoints"] + 4


def test_the_shared_fit_is_no_better_than_two_own_fits_and_the_same_seed_repeats() -> None:
    a, b = fitted(SPEECH, 0.01, 3), fitted(SAME, 0.01, 4)
    one, two = (equal_exponents(a, b, replicates=99, seed=5) for _ in range(2))
    assert one == two
    assert one.shared >= one.separate


@pytest.mark.parametrize("objective", ["mse", "raw-huber", "lad"])
def test_other_objectives_are_tested_in_their_own_terms(objective) -> None:
    a, b = (fitted(law, 0.005, seed, objective=objective) for seed, law in ((3, SPEECH), (4, SAME)))
    found = equal_exponents(a, b, replicates=99)
    assert found.separate == pytest.approx(a.objective + b.objective)
    assert found.shared >= found.separate * (1 - 1e-9)
    assert found.p_value > 0.02


def test_unlike_objectives_and_too_few_replicates_are_refused() -> None:
    a, b = fitted(SPEECH, 0.005, 0), fitted(SAME, 0.005, 1, objective="mse")
    with pytest.raises(DataError, match="fit both alike"):
        equal_exponents(a, b)
    with pytest.raises(DataError, match="at least 99"):
        equal_exponents(a, a, replicates=20)
