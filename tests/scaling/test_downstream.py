"""Would catch: a line through noise, checkpoints counted as runs, intervals that are too narrow, mixtures pooled."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f

from speechscale.errors import DataError
from speechscale.scaling.as_json import to_json
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.links.downstream import link
from speechscale.scaling.links.saturation import Sigmoid
from speechscale.scaling.links.weighted_lines import drawn_lines, line, points_of, widened

SE = 0.02


@pytest.mark.parametrize(
    ("metric", "intercept", "slope", "r2"),
    [("sblimp_macro", 110.9, -26.1, 0.915), ("tstorycloze", 158.1, -42.6, 0.951), ("sstorycloze", 87.4, -16.4, 0.739)],
)
def test_cuervo_runs_give_the_lines_computed_from_their_law(shared, metric, intercept, slope, r2) -> None:  # type: ignore[no-untyped-def]
    """31 released runs against the losses of equation 4, in percent; the paper prints no line of its Figure 4."""
    path = shared / "scaling_data/cuervo_slm/slm_endpoints_31.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not here: it holds the released runs of Cuervo & Marxer")
    table = pd.read_csv(path)
    size = table["params_non_embedding"] + table["params_embedding_tied"]
    law = LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24)
    loss = law.predict(size.to_numpy(float), table["tokens_seen"].to_numpy(float))
    (found,) = link(loss, table[metric] / 100, None, ["speech"] * len(table), replicates=200).links
    assert found.status == "fitted"
    assert found.intercept is not None
    assert found.slope is not None
    assert round(100 * found.intercept.value, 1) == intercept
    assert round(100 * found.slope.value, 1) == slope
    assert found.r2 is not None
    assert round(found.r2, 3) == r2
    assert found.slope.excludes(0)
    assert found.shape == "sigmoid_to_1"
    assert 6 <= round(found.aic["linear"] - found.aic["sigmoid_to_1"]) <= 11


def test_noise_at_chance_gets_no_line() -> None:
    """Eight runs at chance, 300 times: at most a few get through a test at 1 %."""
    loss, through, said = np.linspace(2, 3, 8), 0, set()
    for seed in range(300):
        accuracy = 0.5 + SE * np.random.default_rng(seed).standard_normal(8)
        (found,) = link(loss, accuracy, np.full(8, SE), ["a"] * 8, replicates=20).links
        through += found.status == "fitted"
        said.add(found.status)
        assert (found.curve is not None) == (found.status == "fitted")
    assert through <= 6
    assert "at_chance" in said


@pytest.mark.parametrize(("runs", "least", "bare_most"), [(6, 274, 275), (14, 274, 275)])
def test_intervals_cover_the_planted_slope(runs: int, least: int, bare_most: int) -> None:
    """At least .95 of 300, less three standard errors; a bare bootstrap covers less."""
    loss, hits, bare = np.linspace(2, 2.5, runs), 0, 0
    for seed in range(300):
        noise = SE / 2 * np.random.default_rng(seed).standard_normal(runs)
        points, _ = points_of(loss, 1.6 - 0.4 * loss + noise, np.full(runs, SE / 2), list(map(str, range(runs))))
        drawn = drawn_lines(points, 200, seed)[:, 0]
        hits += not widened(line(points)[0], drawn, runs).excludes(-0.4)
        bare += np.quantile(drawn, 0.025) <= -0.4 <= np.quantile(drawn, 0.975)
    assert hits >= least
    assert bare <= bare_most


def test_checkpoints_of_one_run_are_one_observation() -> None:
    """Five runs of 20 checkpoints, each run with luck of its own and no slope: as 100 runs they would pass as one."""
    tests = {"clustered": 0, "naive": 0}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        start, luck = rng.uniform(2, 3, 5), 0.03 * rng.standard_normal(5)
        loss = (start[:, None] + np.linspace(0, 0.1, 20)).reshape(-1)
        accuracy = np.repeat(0.6 + luck, 20) + 0.002 * rng.standard_normal(100)
        names = [f"run {i}" for i in range(5) for _ in range(20)]
        for how, runs in (("clustered", names), ("naive", None)):
            (found,) = link(loss, accuracy, None, ["a"] * 100, runs=runs, replicates=20).links
            assert found.runs == (5 if runs else 100)
            tests[how] += found.status == "fitted"
    assert tests["clustered"] <= 5
    assert tests["naive"] >= 50


def test_a_sigmoid_is_drawn_only_where_it_fits_better() -> None:
    loss, rng = np.linspace(1.5, 4, 24), np.random.default_rng(0)
    truth = Sigmoid(middle=2.8, steepness=5.0, ceiling=0.8, chance=0.5)
    assert truth.at(np.array([2.8])) == pytest.approx(0.65)
    noise = 0.005 * rng.standard_normal(24)
    (bent,) = link(loss, truth.at(loss) + noise, np.full(24, 0.005), ["a"] * 24, replicates=40).links
    assert bent.shape == "sigmoid_free"
    assert bent.sigmoid is not None
    assert bent.sigmoid.ceiling == pytest.approx(0.8, abs=0.01)
    assert bent.sigmoid.middle == pytest.approx(2.8, abs=0.05)
    assert bent.aic["sigmoid_free"] < bent.aic["linear"] - 2
    assert "a ceiling of 0.8" in bent.message
    assert bent.curve is not None
    assert np.all(bent.curve.low <= bent.curve.accuracy)
    assert np.all(bent.curve.accuracy <= bent.curve.high)
    assert (bent.curve.loss.min(), bent.curve.loss.max()) == (1.5, 4.0)  # nothing beyond what was measured
    (straight,) = link(loss, 0.95 - 0.1 * loss + noise, np.full(24, 0.005), ["a"] * 24, replicates=40).links
    assert straight.shape == "linear"
    assert straight.sigmoid is None


def test_mixtures_with_lines_of_their_own_are_not_pooled() -> None:
    """As in SIMS, Table 1: the interleaved mixture is better at the same loss; and a shared line is not torn apart."""
    rng, torn = np.random.default_rng(1), 0
    loss = np.concatenate([np.linspace(2, 2.5, 8), np.linspace(2.1, 2.6, 8)])
    arms = ["speech"] * 8 + ["interleaved"] * 8
    noise = 0.005 * rng.standard_normal(16)
    found = link(loss, 1.5 - 0.4 * loss + np.repeat([0, 0.1], 8) + noise, np.full(16, 0.005), arms, replicates=40)
    assert found.pooled is not None
    assert found.pooled.differ
    assert found.pooled.p_one_slope > 0.01
    assert found.pooled.gap == pytest.approx(0.1, abs=0.02)
    assert found.pooled.r2 < min(entry.r2 for entry in found.links if entry.r2 is not None)
    assert "the loss of one arm does not tell the accuracy of another" in found.pooled.message
    for seed in range(120):
        noise = 0.005 * np.random.default_rng(seed).standard_normal(16)
        same = link(loss, 1.5 - 0.4 * loss + noise, np.full(16, 0.005), arms, replicates=20).pooled
        assert same is not None
        torn += same.differ
    assert torn <= 5


def test_the_f_test_is_that_of_plain_least_squares() -> None:
    loss = np.array([2.0, 3, 4, 5, 2, 3, 4, 5])
    accuracy = np.array([0.5, 0.4, 0.3, 0.2, 0.6, 0.53, 0.4, 0.3])
    assert link(loss[[0, 1, 2, 4, 5, 6]], accuracy[[0, 1, 2, 4, 5, 6]], None, list("aaabbb")).pooled is None
    pooled = link(loss, accuracy, None, list("aaaabbbb")).pooled
    assert pooled is not None
    of_b, one = np.repeat([0, 1], 4), np.ones(8)
    designs = (np.c_[one, loss], np.c_[one, loss, of_b], np.c_[one, loss, of_b, of_b * loss])
    both, offset, own = (float(np.linalg.lstsq(design, accuracy, rcond=None)[1][0]) for design in designs)
    # by hand, the line of b: slope -.103, residuals -.012, .021, -.006, -.003; that of a leaves nothing
    assert own == pytest.approx(0.012**2 + 0.021**2 + 0.006**2 + 0.003**2)
    assert pooled.p_one_line == pytest.approx(f.sf((both - own) / 2 / (own / 4), 2, 4), rel=1e-6)
    assert pooled.p_one_slope == pytest.approx(f.sf((offset - own) / (own / 4), 1, 4), rel=1e-6)
    assert pooled.gap == pytest.approx(0.1075)


def test_too_few_runs_and_losses_too_close_are_said() -> None:
    (few,) = link([2.0, 2.5, 3.0], [0.9, 0.8, 0.7], None, ["a"] * 3).links
    assert few.status == "too_few_runs"
    assert "3 run(s): a slope needs at least 4" in few.message
    (close,) = link([2.0, 2.001, 2.002, 2.003], [0.9, 0.8, 0.7, 0.6], None, ["a"] * 4).links
    assert close.status == "narrow"
    noisy = link([2.0, 2.1, 2.2, 2.3], [0.9, 0.8, 0.7, 0.6], None, ["a"] * 4, loss_ses=[0.1] * 4)
    assert noisy.links[0].status == "narrow"
    (flat,) = link([2.0, 2.3, 2.6, 2.9], [0.71, 0.69, 0.7, 0.7], [0.01] * 4, ["a"] * 4).links
    assert flat.status == "no_slope"  # well above chance, but it says nothing about the loss


def test_a_point_without_an_error_weighs_as_the_median_one() -> None:
    loss, accuracy = [2.0, 2.2, 2.4, 2.6, 2.8], [0.80, 0.74, 0.70, 0.64, 0.60]
    (zero,) = link(loss, accuracy, [0.01, 0.0, 0.01, 0.01, np.nan], ["a"] * 5).links
    (known,) = link(loss, accuracy, [0.01] * 5, ["a"] * 5).links
    assert zero.slope == known.slope
    assert zero.notes == ("2 points without a standard error weigh as the median one",)


def test_bad_input_is_refused_and_results_are_json() -> None:
    with pytest.raises(DataError, match="divide percent by 100"):
        link([2.0, 3.0], [60.0, 55.0], None, ["a", "a"])
    with pytest.raises(DataError, match="need as many"):
        link([2.0, 3.0], [0.6], None, ["a", "a"])
    with pytest.raises(DataError, match="losses must be finite"):
        link([2.0, np.nan], [0.6, 0.5], None, ["a", "a"])
    loss = np.linspace(2, 3, 6)
    found = asdict(link(loss, 1.2 - 0.2 * loss + 0.001 * loss**3, None, ["a"] * 6))
    saved = json.dumps(to_json(found, name_infinity=False), allow_nan=False)
    assert json.loads(saved)["links"][0]["status"] == "fitted"
