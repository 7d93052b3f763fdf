"""Plans: would catch a best cell that is not best, losses priced without repeats, belief in the wrong law, and a point
estimate where none is justified."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from speechscale.errors import DataError
from speechscale.files import write_json
from speechscale.scaling.fitting.bootstrap import bootstrap_law
from speechscale.scaling.fitting.fit import fit_loss_law
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.planning.budgets import from_devices, from_flops
from speechscale.scaling.planning.candidates import (
    Candidate,
    base_of,
    from_bootstrap,
    from_published,
    from_table,
    own_laws,
)
from speechscale.scaling.planning.inventory import SIMS_THIRDS, SPEECH_ONLY, make_inventory
from speechscale.scaling.planning.plan import LawPlan, Plan, plan, plan_record, sims_evidence
from speechscale.scaling.planning.sizes import available
from speechscale.scaling.published import get_law
from speechscale.scaling.published_laws import SPEECH_UNITS
from speechscale.scaling.repeat import RepeatLaw
from speechscale.scaling.tables.run_table import run_table

SPEECH = get_law("cuervo-speech").law
MIXTURE = make_inventory(["Cuervo-mixture"])


def of(found: Plan, name: str) -> LawPlan:
    return next(row for row in found.laws if row.candidate.name == name)


@pytest.fixture(scope="module")
def own() -> Candidate:
    """A planted sweep of 1e16 to 1e18 FLOPs under Cuervo's constants, 0.3 % noise."""
    C, spread = (x.ravel() for x in np.meshgrid(np.geomspace(1e16, 1e18, 6), np.geomspace(0.2, 5, 7)))
    N = SPEECH.optimum(C).params_opt * spread
    D = C / 6 / N
    loss = SPEECH.predict(N, D) * np.exp(0.003 * np.random.default_rng(0).standard_normal(len(N)))
    boot = bootstrap_law(fit_loss_law(N, D, loss), replicates=200)
    return from_bootstrap("mine", boot, range_flops=(1e16, 1e18), units=SPEECH_UNITS)


def test_published_optimum_and_tokens() -> None:
    row = of(plan(from_flops(1e20)), "cuervo-speech")
    assert row.unconstrained.params.value == pytest.approx(3.301e8, rel=2e-4)
    assert row.unconstrained.tokens.value == pytest.approx(5.050e10, rel=2e-4)
    assert row.unconstrained.loss.value == pytest.approx(1.9405, abs=5e-5)
    assert row.unconstrained.loss.low is None
    assert row.unconstrained.compute_share.value == pytest.approx(1)
    assert row.unconstrained.hours == pytest.approx(5.05e10 / 19.4 / 3600, rel=1e-3)
    assert row.constrained is None


def test_whole_mixture_once() -> None:
    row = of(plan(from_flops(4.95e18), inventory=MIXTURE), "cuervo-speech")
    assert row.constrained is not None
    assert row.constrained.most_epochs == pytest.approx(1, rel=2e-3)
    assert row.constrained.params.value == pytest.approx(7.57e7, rel=2e-3)
    assert row.constrained.loss_excess.value == pytest.approx(0, abs=1e-4)


def test_cells_spend_the_budget_and_price_repeats() -> None:
    found = plan(from_flops(2e20), inventory=MIXTURE)
    row = of(found, "cuervo-speech")
    law = RepeatLaw(base=SPEECH, R_N=31.0, R_D=25.0)
    for cell in row.sizes:
        assert 6 * cell.params.value * cell.tokens.value == pytest.approx(2e20)
        assert cell.most_epochs == pytest.approx(cell.tokens.value / 10.89e9)
        assert cell.loss.value == pytest.approx(law.predict(cell.params.value, cell.tokens.value, 10.89e9))
        assert cell.allowed == (cell.most_epochs <= 4)
    allowed = [cell for cell in row.sizes if cell.allowed]
    assert row.best is min(allowed, key=lambda cell: cell.loss.value)
    assert row.constrained.loss.value <= row.best.loss.value
    assert row.constrained.most_epochs <= 4 * (1 + 1e-9)
    assert any("limit of 4 epochs binds" in note for note in row.notes)
    assert any("single-epoch law" in note for note in of(found, "cuervo-unigram").notes)


def test_compute_share_is_the_compute_of_that_loss() -> None:
    for cell in of(plan(from_flops(1e20)), "cuervo-speech").sizes:
        assert SPEECH.loss_at(1e20 * cell.compute_share.value) == pytest.approx(cell.loss.value, rel=1e-12)


def test_no_size_within_the_limit() -> None:
    row = of(plan(from_flops(1e20), inventory=make_inventory(["LibriSpeech"]), sizes=["20M"]), "cuervo-speech")
    assert row.best is None
    found = plan(from_flops(1e20), inventory=make_inventory(["LibriSpeech"]), sizes=["20M"])
    assert "No available size stays within the epoch limit" in " ".join(found.verdict)


def test_says_when_data_is_short_or_the_ladder_too() -> None:
    short = plan(from_flops(1e20), inventory=make_inventory(["LibriSpeech"]))
    assert "The data holds the loss back" in " ".join(short.verdict)
    assert "The data holds" not in " ".join(plan(from_flops(4e18), inventory=MIXTURE).verdict)
    assert "smallest that was considered" in " ".join(plan(from_flops(1e15)).verdict)
    assert "was considered" not in " ".join(plan(from_flops(1e20)).verdict)


def test_own_fit_inside_its_range_comes_first_with_intervals(own: Candidate) -> None:
    found = plan(from_flops(5e17), fits=[own])
    assert [row.candidate.name for row in found.laws][:2] == ["mine", "cuervo-speech"]
    assert [row.belief.rank for row in found.laws][:2] == [5, 4]
    cell = found.laws[0].unconstrained
    truth = SPEECH.optimum(5e17)
    for estimate, value in ((cell.params, truth.params_opt), (cell.tokens, truth.tokens_opt), (cell.loss, truth.loss)):
        assert estimate.low <= value <= estimate.high
    assert found.laws[0].sizes[0].loss.low is not None
    assert found.laws[0].sizes[0].compute_share.high <= 1


def test_own_units_unless_others_are_named(own: Candidate) -> None:
    mine = replace(own, units="my syllables")
    assert plan(from_flops(5e17), fits=[mine]).laws[0].candidate is mine
    assert of(plan(from_flops(5e17), fits=[mine], units=SPEECH_UNITS), "mine").belief.rank == 1


def test_published_law_inside_beats_own_far_outside(own: Candidate) -> None:
    found = plan(from_flops(5e19), fits=[own])
    assert [row.candidate.name for row in found.laws][:2] == ["cuervo-speech", "mine"]
    belief = of(found, "mine").belief
    assert belief.extrapolation == pytest.approx(50)
    assert "WARNING" in " ".join(belief.sentences)


def test_far_out_a_wide_interval_refuses_the_point(own: Candidate) -> None:
    assert own.replicates is not None
    near = of(plan(from_flops(1e19), fits=[own]), "mine")
    assert not near.belief.refused
    wide = replace(own, replicates=replace(own.replicates, alpha=np.random.default_rng(0).uniform(0.15, 0.35, 200)))
    far = of(plan(from_flops(1e21), fits=[wide]), "mine")
    interval = far.unconstrained.params
    assert interval.high / interval.low > 10
    assert "spans a factor" in far.belief.refused
    assert far.best is None
    assert far.belief.rank == 0
    tight = replace(own, replicates=replace(own.base, A=own.base.A * np.linspace(0.99, 1.01, 50)))
    assert not of(plan(from_flops(1e21), fits=[tight]), "mine").belief.refused


def test_no_law_at_all_far_out() -> None:
    found = plan(from_flops(1e24))
    assert "no law gives a point estimate" in found.verdict[0]
    assert all(row.best is None for row in found.laws)


def test_units_decide_before_range() -> None:
    """SODA's runs span this budget, but it counts other tokens: it may not outrank the law of these units."""
    found = plan(from_devices("8xH100", 24))
    assert found.laws[0].candidate.name == "cuervo-speech"
    assert of(found, "soda").belief.rank == 1


def test_no_textless_law_is_believed_for_an_interleaved_mixture() -> None:
    found = plan(from_flops(2e20), mixtures=[SPEECH_ONLY, SIMS_THIRDS])
    assert "no law here describes this setting" in " ".join(found.verdict)
    mixed = [row for row in found.laws if row.mixture is SIMS_THIRDS]
    assert {row.belief.rank for row in mixed} == {1}
    assert all(cell.warm for row in mixed for cell in row.sizes)


def test_evidence_is_computed_from_the_law() -> None:
    text = " ".join(sims_evidence())
    assert "7.6B model on 4.4B tokens beats 3B on 10.8B and 1.5B on 21.6B" in text
    assert "N = 463M and D = 72B" in text
    assert "not bracketed" in text


def test_sizes_keep_the_text_vocabulary_only_where_needed() -> None:
    textless = {one.name: one for one in available(["qwen2.5-0.5B", "20M"], SPEECH_ONLY, "6nd_total")}
    assert textless["20M"].params == 20_710_912
    assert textless["qwen2.5-0.5B"].params == pytest.approx(358e6, rel=2e-3)  # Slam: 358M
    (mixed,) = available(["qwen2.5-0.5B", "20M"], SIMS_THIRDS, "6nd_total")
    assert mixed.params == pytest.approx(494e6, rel=2e-3)
    with pytest.raises(DataError, match="text vocabulary"):
        available(["20M"], SIMS_THIRDS, "6nd_total")


def test_laws_from_a_file(tmp_path, own: Candidate) -> None:
    names = ("E", "A", "B", "alpha", "beta")
    entry = {
        "name": "mine",
        "law": {name: getattr(own.base, name) for name in names},
        "replicates": {name: list(np.ravel(getattr(own.replicates, name))) for name in names},
        "range_flops": [1e16, 1e18],
        "tokenizer": SPEECH_UNITS,
        "convention": "own",
        "flops_name": "6nd_non_embedding",
    }
    lost = {"name": "lost", "law": None, "reason": "no losses"}
    bad = {**entry, "name": "bad", "status": "not_identified"}
    path = tmp_path / "laws.json"
    write_json(path, {"laws": [entry, lost, bad]})
    (read,), left_out = own_laws(path)
    assert [("no losses" in s, "not_identified" in s) for s in left_out] == [(True, False), (False, True)]
    assert read.flops_name == "6nd_non_embedding"
    assert read.of(lambda law: base_of(law).loss_at(1e18)) == own.of(lambda law: base_of(law).loss_at(1e18))
    entry["replicates"]["alpha"][3] = -1.0  # has no optimum
    entry["law"].update(R_N=31.0, R_D=25.0)
    entry["replicates"].update(R_N=[31.0] * 200, R_D=[25.0] * 200)
    write_json(path, {"laws": [entry]})
    (read,), _ = own_laws(path)
    assert isinstance(read.law, RepeatLaw)
    assert len(read.replicates.R_N) == 199
    assert "1 replicates" in read.caveat
    data = make_inventory(["mine:20000"])
    free = plan(from_flops(1e19), fits=[read], laws=[], inventory=data, max_epochs=100).laws[0].constrained
    assert free.params.low < free.params.value < free.params.high
    held = plan(from_flops(1e19), fits=[read], laws=[], inventory=data, max_epochs=2).laws[0].constrained
    assert held.most_epochs == pytest.approx(2)
    assert (held.params.low, held.params.method[:22]) == (None, "set by the epoch limit")
    assert held.loss.low < held.loss.high


def test_laws_from_runs() -> None:
    """One arm with a law, one too small for it; checkpoints of a run are drawn together."""
    C, spread = (x.ravel() for x in np.meshgrid(np.geomspace(1e16, 1e18, 5), np.geomspace(0.2, 5, 6)))
    N = np.append(SPEECH.optimum(C).params_opt * spread, [1e6, 2e6])
    D = np.append(C / 6 / N[:-2], [1e9, 1e9])
    loss = SPEECH.predict(N, D) * np.exp(0.002 * np.random.default_rng(1).standard_normal(32))
    groups = ["big"] * 30 + ["small"] * 2
    extras = {"run": [f"r{i // 2}" for i in range(32)], "tokenizer": [SPEECH_UNITS] * 32}
    (law,), left_out = from_table(run_table(N, D, loss, groups=groups, extras=extras), replicates=100)
    assert (law.name, law.units, law.own) == ("big", SPEECH_UNITS, True)
    assert law.range_flops == pytest.approx((1e16, 1e18))
    assert law.of(lambda one: one.loss_at(3e17)).value == pytest.approx(SPEECH.loss_at(3e17), rel=3e-3)
    assert "arm 'small'" in left_out[0]
    with pytest.raises(DataError, match="no law can be fitted"):
        from_table(run_table(N[-2:], D[-2:], loss[-2:]))


@pytest.mark.parametrize("content", [{}, {"laws": []}, {"laws": [3]}, {"laws": [{"law": {"E": 1}}]}])
def test_files_without_a_law(tmp_path, content: dict) -> None:
    path = tmp_path / "laws.json"
    write_json(path, content)
    with pytest.raises(DataError, match="laws"):
        own_laws(path)


def test_record_is_plain_json() -> None:
    found = plan(from_flops(1e19), inventory=make_inventory(["mine:100"]), mixtures=[SPEECH_ONLY])
    record = json.loads(json.dumps(plan_record(found), allow_nan=False))
    assert record["laws"][0]["unconstrained"]["params"]["value"] > 0
    assert record["laws"][0]["candidate"]["name"] == "cuervo-speech"


def test_bad_requests() -> None:
    with pytest.raises(DataError, match="did you mean"):
        plan(from_flops(1e19), laws=["cuervo-speach"])
    with pytest.raises(DataError, match="no law"):
        plan(from_flops(1e19), laws=[])
    with pytest.raises(DataError, match="no mixture"):
        plan(from_flops(1e19), mixtures=[])
    with pytest.raises(DataError, match="at least 1"):
        plan(from_flops(1e19), max_epochs=0.5)
    with pytest.raises(DataError, match="needs text"):
        plan(from_flops(1e19), inventory=MIXTURE, mixtures=[SIMS_THIRDS])


def test_law_without_replicates_has_no_interval() -> None:
    law = LossLaw(E=1.7, A=14.0, B=40.0, alpha=0.25, beta=0.24)
    found = Candidate(name="x", law=law, own=True, convention="").of(lambda one: one.loss_at(1e18))
    assert (found.low, found.high, found.method) == (None, None, "no replicates given")
    assert from_published(get_law("soda")).of(lambda one: base_of(one).loss_at(1e18)).low is None


def test_runs_of_which_some_are_not_named_are_still_resampled_by_run() -> None:
    """Four checkpoints per run, one row without a name: single rows would make every interval half as wide."""
    rng = np.random.default_rng(0)
    C = np.repeat(np.geomspace(1e18, 1e20, 5), 8)
    N = SPEECH.optimum(C).params_opt * np.tile(np.geomspace(1 / 8, 8, 8), 5)
    loss = SPEECH.predict(N, C / 6 / N) * np.exp(0.005 * rng.standard_normal(40))
    many = [np.repeat(x, 4) for x in (N, C / 6 / N, loss)]
    names = [f"run {i // 4}" for i in range(160)]
    widths = []
    for last in ("run 39", ""):
        (law,), _ = from_table(run_table(*many, extras={"run": [*names[:-1], last]}), replicates=200)
        found = law.of(lambda x: x.exp_params)
        widths.append(found.high - found.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.3)


def test_a_law_with_further_constants_says_that_they_are_not_planned_with(tmp_path) -> None:
    law = {"E": 1.7, "A": 14.0, "B": 40.0, "alpha": 0.25, "beta": 0.24}
    path = tmp_path / "laws.json"
    path.write_text(json.dumps({"laws": [{"name": "w", "law": law, "law_name": "warm-compute", "status": "fitted"}]}))
    (found,), _ = own_laws(path)
    assert "warm-compute" in found.caveat
