"""Would catch a law without its weaknesses, an arm that stops the others, and a saved law that plans differently."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from speechscale.errors import DataError
from speechscale.scaling.fit_table import cluster_labels, fit_runs
from speechscale.scaling.fitted import STORED
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.planning.candidates import own_laws
from speechscale.scaling.saved import laws_record
from speechscale.scaling.tables.reading import read_runs
from speechscale.scaling.tables.run_table import RunTable, run_table

SPEECH = LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24)


def sweep(budgets: int = 6, sizes: int = 8, *, noise: float = 0.003, seed: int = 0, **more: object) -> RunTable:
    C = np.repeat(np.geomspace(1e18, 1e20, budgets), sizes)
    N = SPEECH.optimum(C).params_opt * np.tile(np.geomspace(1 / 8, 8, sizes), budgets)
    D = C / 6 / N
    loss = SPEECH.predict(N, D) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(C)))
    return run_table(N, D, loss, **more)  # type: ignore[arg-type]


def test_everything_that_weakens_a_law_stands_beside_it() -> None:
    (found,) = fit_runs(sweep(), replicates=200)
    assert found.status == "fitted"
    assert found.constants["exp_params"].low <= SPEECH.exp_params <= found.constants["exp_params"].high
    assert set(found.by_cluster) == {"exp_params", "exp_tokens", "alpha", "beta"}
    assert {p.name for p in found.profiles} == {"alpha", "beta", "E"}
    assert found.approaches is not None
    assert len(found.approaches.approaches) == 5
    assert found.held_out is not None
    assert len(found.held_out.runs) == 8
    assert [drop.left_out for drop in found.drops] == [0, 1, 2]
    assert found.published[0].name == "cuervo-speech"
    assert found.published[0].ratio < 2
    assert [at.extrapolation for at in found.at] == pytest.approx([0.01, 1, 10])
    assert found.at[1].params_opt.low <= SPEECH.optimum(1e20).params_opt <= found.at[1].params_opt.high
    assert len(found.replicates["E"]) == 200


def test_targets_are_predicted_and_far_ones_cautioned() -> None:
    (found,) = fit_runs(sweep(), replicates=100, targets_flops=[1e23], hold_out=False)
    assert found.at[-1].flops == 1e23
    assert found.at[-1].extrapolation == pytest.approx(1e3)
    assert [c.severity for c in found.cautions if c.name == "extrapolation-beyond-10x"] == ["refuse"]
    assert found.held_out is None


def test_an_arm_that_cannot_be_fitted_says_so_and_the_others_go_on() -> None:
    whole, few = sweep(), sweep(1, 4)
    both = run_table(
        np.r_[whole.params, few.params],
        np.r_[whole.tokens, few.tokens],
        np.r_[whole.loss, few.loss],
        groups=["a"] * len(whole) + ["b"] * len(few),
    )
    good, bad = fit_runs(both, replicates=100)
    assert (good.name, good.status) == ("a", "fitted")
    assert (bad.name, bad.status) == ("b", "not_fitted")
    assert "at least 6" in bad.reason
    assert bad.law is None


def test_a_table_of_metrics_alone() -> None:
    table = sweep()
    only = run_table(table.params, table.tokens, metrics={"acc": 0.3 * table.flops**0.02})
    (found,) = fit_runs(only, replicates=100)
    assert found.status == "not_fitted"
    assert "no losses" in found.reason
    assert found.metrics[0].exponent is not None
    assert found.metrics[0].exponent.gamma.value == pytest.approx(0.02)
    with pytest.raises(DataError, match="no losses"):
        fit_runs(run_table(table.params, table.tokens))


def test_clusters_and_names() -> None:
    table = sweep(extras={"run": ["a", "b"] * 24})
    assert cluster_labels(table, "run") == ["a", "b"] * 24
    assert len(set(cluster_labels(table, "budget") or [])) == 6
    assert cluster_labels(sweep(), "run") is None
    scattered = run_table(*(10 ** np.random.default_rng(i).uniform(6, 9, 40) for i in range(2)))
    with pytest.raises(DataError, match="do not come in budgets"):
        cluster_labels(scattered, "budget")
    with pytest.raises(DataError, match="did you mean 'repeat'"):
        fit_runs(sweep(), law="repeats")
    with pytest.raises(DataError, match="allowed are run"):
        fit_runs(sweep(), by="seed")  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["budget", "size", "residual"])
def test_other_resamplings(by: str) -> None:
    (found,) = fit_runs(sweep(), replicates=100, by=by)  # type: ignore[arg-type]
    assert found.by_cluster == {}
    assert found.constants["alpha"].low < found.constants["alpha"].high


def test_other_forms_through_the_table() -> None:
    table = sweep(extras={"warm": [0.0, 1.0] * 24})
    assert table.loss is not None
    warm = table.numbers("warm") > 0
    loss = np.where(warm, SPEECH.predict(table.params, 3 * table.tokens), table.loss)
    made = run_table(table.params, table.tokens, loss, extras={"warm": table.numbers("warm")})
    (found,) = fit_runs(made, law="warm-compute", replicates=100)
    assert found.constants["multiplier"].low <= 3 <= found.constants["multiplier"].high
    assert found.law is not None
    (missing,) = fit_runs(made, law="repeat", replicates=100)
    assert missing.status == "not_fitted"
    assert "--col unique_tokens=COLUMN" in missing.reason


def test_a_saved_law_plans_as_the_fresh_one(tmp_path: Path) -> None:
    fitted = fit_runs(sweep(), replicates=STORED)
    path = tmp_path / "laws.json"
    path.write_text(json.dumps(laws_record(fitted), allow_nan=False))
    laws, left_out = own_laws(path)
    assert left_out == ()
    assert laws[0].base.optimum(1e21).params_opt == pytest.approx(fitted[0].law.optimum(1e21).params_opt)
    saved = laws[0].of(lambda law: law.loss_at(1e20))
    assert saved.low == pytest.approx(fitted[0].at[1].loss.low, rel=1e-4)
    assert laws[0].range_flops == pytest.approx((1e18, 1e20))


def test_many_scattered_runs() -> None:
    """They get fewer replicates, and touching neighbors are not taken for one budget."""
    rng = np.random.default_rng(0)
    N, D = 10 ** rng.uniform(6, 9, 8000), 10 ** rng.uniform(8, 11, 8000)
    table = run_table(N, D, SPEECH.predict(N, D) * np.exp(0.01 * rng.standard_normal(len(N))))
    (found,) = fit_runs(table, replicates=10_000)
    assert "500 replicates" in found.interval_method
    assert found.by_cluster == {}
    assert found.held_out is not None
    assert len(found.held_out.runs) == 400
    assert found.constants["exp_params"].value == pytest.approx(SPEECH.exp_params, abs=0.02)


def test_epochs_points_from_the_file(shared: Path) -> None:
    path = shared / "scaling_data/epoch_chinchilla/svg_extracted_data.csv"
    (found,) = fit_runs(read_runs(path, drop_highest=5), replicates=500)
    assert found.runs == 240
    assert found.constants["exp_params"].value == pytest.approx(0.51390, abs=1e-5)
    assert found.constants["exp_params"].low == pytest.approx(0.4805, abs=0.006)
    assert [scored.name for scored in found.published[:1]] == ["epoch-log-huber"]
    hoffmann = next(scored for scored in found.published if scored.name == "hoffmann")
    assert hoffmann.objective == pytest.approx(0.0041210, abs=5e-7)
    assert "outliers-removed-sensitivity" in {c.name for c in found.cautions}
    assert math.isclose(found.fit.objective, 0.0010182740178, rel_tol=1e-9)


def test_a_saved_law_knows_the_noise_of_its_runs() -> None:
    """Five constants are fitted: a root mean square over all runs promises `power` less noise than there is."""
    (found,) = fit_runs(sweep(3, 7), replicates=100)
    assert found.fit is not None
    rms = math.sqrt(float(np.mean(found.fit.residuals**2)))
    assert laws_record([found])["laws"][0]["fit"]["residual_sd"] == pytest.approx(rms * math.sqrt(21 / 16))


@pytest.mark.parametrize("flops", [-1e20, 0.0, float("nan"), float("inf")])
def test_a_compute_that_is_none_is_an_error_and_no_verdict_on_the_arm(flops: float) -> None:
    with pytest.raises(DataError, match="finite and above 0"):
        fit_runs(sweep(), replicates=100, targets_flops=[flops])


def test_a_base_without_a_form_is_not_dropped_in_silence() -> None:
    with pytest.raises(DataError, match="base"):
        fit_runs(sweep(), replicates=100, base=SPEECH)


def test_constants_that_were_not_measured_are_not_fitted() -> None:
    table = sweep()
    extras = {"tokens_speech": table.tokens / 2, "tokens_text": table.tokens / 2}
    (found,) = fit_runs(sweep(extras=extras), law="mixture", replicates=100)
    assert found.status == "not_identified"
