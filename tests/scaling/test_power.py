"""Would catch a power analysis that promises narrower intervals than a sweep gives, or a grid that is not enough."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.cli import cli
from speechscale.errors import DataError
from speechscale.scaling.fitting.fit import fit_loss_law
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.planning.power import QUANTITIES, Power, power
from speechscale.scaling.planning.power_text import power_text, smallest_text, verdict
from speechscale.scaling.planning.simulate import (
    crossed_grid,
    noise_free_fit,
    simulate,
    spread_grid,
    table_grid,
)
from speechscale.scaling.planning.smallest import asymptotic_widths, smallest_grid
from speechscale.scaling.tables.run_table import run_table

TEXT = LossLaw(E=1.81722, A=477.826, B=2143.42, alpha=0.347310, beta=0.367172)
SODA = LossLaw(E=3.169, A=216e3, B=4750, alpha=0.684, beta=0.439)
SPEECH = LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24)
FEW = {"sweeps": 30, "replicates": 120}


@pytest.fixture(scope="module")
def speech() -> Power:
    return power(SPEECH, budgets=(1e18, 1e20, 5), sizes=8, **FEW)


# Widths of a and factors of N_opt at 100 times the compute: 95 % intervals of simulated sweeps, 1e18 to 1e20 FLOPs.
@pytest.mark.parametrize(
    ("law", "budgets", "sizes", "noise", "width", "factor"),
    [
        (TEXT, 5, 8, 0.005, 0.041, 1.39),
        (TEXT, 9, 12, 0.005, 0.026, 1.24),
        (TEXT, 5, 8, 0.02, 0.181, 4.3),
        (SODA, 5, 8, 0.005, 0.042, 1.43),
        (SODA, 9, 12, 0.005, 0.026, 1.26),
        (SPEECH, 9, 12, 0.005, 0.148, 3.3),
    ],
)
def test_known_widths(law: LossLaw, budgets: int, sizes: int, noise: float, width: float, factor: float) -> None:
    found = power(law, budgets=(1e18, 1e20, budgets), sizes=sizes, noise=noise, **FEW)
    assert found.expected["exp_params"].width == pytest.approx(width, rel=0.15)
    assert np.log(found.expected["params_opt"].width) == pytest.approx(np.log(factor), rel=0.15)
    assert found.expected["exp_params"].coverage >= 0.9
    assert found.unidentified == 0


def test_a_textless_sweep_of_40_runs_settles_nothing(speech: Power) -> None:
    assert speech.expected["exp_params"].width == pytest.approx(0.247, rel=0.15)
    assert np.log(speech.expected["params_opt"].width) == pytest.approx(np.log(7.1), rel=0.15)
    assert speech.side_settled < 0.2
    assert "cannot settle" in verdict(speech)
    assert "contains .5" in verdict(speech)


def test_a_law_far_from_one_half_is_settled() -> None:
    found = power(SODA, **FEW)
    assert found.side_settled == 1
    assert "settles that N_opt grows slower" in verdict(found)


def test_noise_that_hides_the_law_is_said(speech: Power) -> None:
    """Four times the noise: the law is lost in part of the sweeps, and the text says so."""
    loud = power(SPEECH, noise=0.02, sweeps=20, replicates=20)
    assert loud.unidentified > 0
    assert "could not identify the law" in power_text(loud)
    assert "could not identify" not in power_text(speech)
    assert loud.expected["exp_params"].width > 2 * speech.expected["exp_params"].width


def test_price_and_hours(speech: Power) -> None:
    assert speech.cost_flops == pytest.approx(8 * np.geomspace(1e18, 1e20, 5).sum())
    assert speech.gpu_hours(4e14) == pytest.approx(speech.cost_flops / 4e14 / 3600)
    with pytest.raises(DataError, match="above 0"):
        speech.gpu_hours(0)


def test_same_seed_same_numbers() -> None:
    few = {"sweeps": 20, "replicates": 20}
    assert power(TEXT, seed=3, **few) == power(TEXT, seed=3, **few)
    assert power(TEXT, seed=3, **few) != power(TEXT, seed=4, **few)


def test_simulated_fits_are_those_of_a_real_table() -> None:
    """The batch of point fits ends where a fit with its own starts ends."""
    grid = spread_grid(SPEECH, (1e18, 1e20, 5), 8)
    for fit in simulate(SPEECH, grid, noise=0.005, sweeps=6, seed=1):
        alone = fit_loss_law(grid.params, grid.tokens, np.exp(fit.log_loss))
        assert fit.objective == pytest.approx(alone.objective, rel=1e-6)
        assert fit.law.exp_params == pytest.approx(alone.law.exp_params, abs=1e-4)
        assert fit.residuals == pytest.approx(fit.log_loss - np.log(fit.law.predict(grid.params, grid.tokens)))
        assert fit.at_bounds == ()


def test_noise_of_the_simulation_is_what_was_asked() -> None:
    grid = spread_grid(TEXT, (1e18, 1e20, 9), 12)
    logs = np.array([fit.log_loss for fit in simulate(TEXT, grid, noise=0.01, sweeps=40)])
    around = logs - np.log(TEXT.predict(grid.params, grid.tokens))
    assert around.std() == pytest.approx(0.01, rel=0.05)
    assert abs(around.mean()) < 0.001


@given(st.sampled_from([TEXT, SODA, SPEECH]), st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_frame_parameters_and_constants_are_inverse(law: LossLaw, shift: float) -> None:
    frame = noise_free_fit(law, spread_grid(law, (1e18 * 10**shift, 1e20 * 10**shift, 3), 5)).frame
    back = frame.law(frame.theta(law))
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(back, name) == pytest.approx(getattr(law, name))


def test_asymptotic_widths_bound_the_simulated_ones(speech: Power) -> None:
    """They hold for many runs: with 40 the printed interval is wider, by less than a half."""
    grid = spread_grid(SPEECH, (1e18, 1e20, 5), 8)
    limit = asymptotic_widths(SPEECH, grid, noise=0.005, target_flops=1e22)
    for name in ("exp_params", "exp_tokens", "alpha", "beta", "E"):
        assert 1 < speech.expected[name].width / limit[name] < 1.6, name
    assert limit["exp_params"] == pytest.approx(3.92 * speech.expected["exp_params"].spread, rel=0.3)
    flat = crossed_grid([1e7, 1e8], [1e18, 1e19, 1e20])
    assert asymptotic_widths(SPEECH, flat, noise=0.005, target_flops=1e22)["exp_params"] > limit["exp_params"]


def test_more_noise_is_proportionally_wider() -> None:
    grid = spread_grid(TEXT, (1e18, 1e20, 5), 8)
    once, twice = (asymptotic_widths(TEXT, grid, noise=n, target_flops=1e22)["exp_params"] for n in (0.05, 0.1))
    assert twice == pytest.approx(2 * once, rel=0.02)  # both far above the Huber threshold


def test_smallest_grid_is_enough_and_its_cheaper_neighbors_are_not() -> None:
    found = smallest_grid(TEXT, wanted={"exp_params": 0.04}, max_budgets=10, max_sizes=10, **FEW)
    assert found.grid is not None
    assert found.grid.reaches
    assert found.grid.widths["exp_params"] < 0.04
    assert found.power.runs == found.grid.budgets * found.grid.sizes
    assert found.power.cost_flops == pytest.approx(found.grid.cost_flops)
    cheaper = [near for near in found.neighbors if near.cost_flops < found.grid.cost_flops]
    assert cheaper
    assert not any(near.reaches for near in cheaper)
    text = smallest_text(found, gpu_flops=4e14)
    assert f"Smallest grid: {found.grid.budgets} budgets x {found.grid.sizes} sizes" in text
    assert "GPU-hours" in text


def test_what_cannot_be_reached_is_an_answer() -> None:
    found = smallest_grid(SPEECH, wanted={"params_opt": 1.2}, max_budgets=6, max_sizes=8, **FEW)
    assert found.grid is None
    assert found.neighbors == ()
    assert found.largest.widths["params_opt"] > 1.2
    assert "Cannot be reached within 6 budgets x 8 sizes" in smallest_text(found)


def test_other_grids() -> None:
    crossed = crossed_grid([2e7, 8.5e7, 1.55e8], [1e18, 1e19])
    assert len(crossed) == 6
    assert sorted(set(crossed.flops.round(-15))) == pytest.approx([1e18, 1e19])
    table = run_table([1e7, 2e7], [1e9, 3e9])
    assert table_grid(table).cost_flops == table.flops.sum()
    assert table_grid(table).flops == pytest.approx(table.flops)
    for sizes, budgets in (([], [1e18]), ([1e7], [0.0]), ([1e7, np.nan], [1e18])):
        with pytest.raises(DataError, match="at least one, all finite and above 0"):
            crossed_grid(sizes, budgets)


def test_small_tables_use_residuals_as_a_real_fit_would() -> None:
    assert power(TEXT, budgets=(1e18, 1e20, 3), sizes=5, **FEW).by == "residuals"
    assert power(TEXT, budgets=(1e18, 1e20, 4), sizes=5, **FEW).by == "runs"


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"budgets": (1e20, 1e18, 5)}, "need 0 < lowest < highest"),
        ({"sizes": 1}, "at least 2 sizes"),
        ({"spread": 1.0}, "spread above 1"),
        ({"noise": 0.0}, "noise above 0"),
        ({"sweeps": 5}, "5 sweeps: need at least 20"),
        ({"target_flops": -1.0}, "must be above 0"),
        ({"budgets": (1e18, 1e20, 2), "sizes": 2}, "at least 6"),
    ],
)
def test_what_cannot_be_simulated(given_: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        power(TEXT, **given_)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "no width is wanted"),
        ({"a": 0.1}, "wanted 'a': allowed are exp_params"),
        ({"params_opt": 0.9}, "factor high / low, above 1"),
        ({"exp_params": 0.0}, "above 0"),
    ],
)
def test_wishes_that_mean_nothing(wanted: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        smallest_grid(TEXT, wanted=wanted)


def test_command(tmp_path: Path) -> None:
    out = tmp_path / "power.json"
    call = ["power", "--law", "1.73,13.9,39.8,.25,.24", "--budgets", "1e18:1e20:4", "--sizes", "5", "--sweeps", "20"]
    done = CliRunner().invoke(cli, [*call, "--replicates", "20", "--gpu-flops", "4e14", "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert "cannot settle whether N_opt grows faster" in done.output
    record = json.loads(out.read_text())
    assert set(record["expected"]) == set(QUANTITIES)
    assert record["runs"] == 20
    runs = tmp_path / "runs.csv"
    grid = spread_grid(TEXT, (1e18, 1e20, 3), 6)
    rows = [f"{n:.6g},{d:.6g}" for n, d in zip(grid.params, grid.tokens, strict=True)]
    runs.write_text("\n".join(["N,D", *rows]) + "\n")
    redo = ["power", "--law", "epoch-log-huber", "--redo", str(runs), "--sweeps", "20", "--replicates", "20"]
    done = CliRunner().invoke(cli, redo)
    assert done.exit_code == 0, done.output
    assert "grid: the 18 runs of" in done.output
    bad = CliRunner().invoke(cli, ["power", "--law", "cuervo-speech", "--want", "exp_params=wide"])
    assert bad.exit_code == 2
    assert "expected NAME=WIDTH" in bad.output


def test_command_takes_law_and_noise_of_a_fit(tmp_path: Path) -> None:
    laws = tmp_path / "laws.json"
    law = {"E": 1.73, "A": 13.9, "B": 39.8, "alpha": 0.25, "beta": 0.24}
    one = {"name": "textless", "law": law, "fit": {"residual_sd": 0.011}}
    laws.write_text(json.dumps({"format": "speechscale laws", "format_version": 1, "laws": [one]}))
    call = ["power", "--from", str(laws), "--sweeps", "20", "--replicates", "20"]
    done = CliRunner().invoke(cli, call)
    assert done.exit_code == 0, done.output
    assert "noise 1.10% of the loss" in done.output
    missing = CliRunner().invoke(cli, [*call, "--arm", "warm"])
    assert missing.exit_code == 2
    assert "no law 'warm'; name one with --arm: textless" in missing.output


def test_a_law_that_was_not_measured_is_no_truth_to_simulate(tmp_path: Path) -> None:
    law = {"E": 1.73, "A": 13.9, "B": 39.8, "alpha": 0.25, "beta": 0.24}
    for entry, message in (
        ({"law": law, "status": "not_identified"}, "not_identified"),
        ({"law": law | {"E": None}}, "E: None is not a finite number"),
        ("text", "holds no law"),
    ):
        path = tmp_path / "laws.json"
        path.write_text(json.dumps({"laws": [entry]}))
        result = CliRunner().invoke(cli, ["power", "--from", str(path)])
        assert result.exit_code == 2
        assert message in result.output
