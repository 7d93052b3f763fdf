"""Would catch: wrong arithmetic in the bill, an impossible grid that starts, recipes that drift from the papers."""

from __future__ import annotations

import math

import pytest
from click.testing import CliRunner

from speechscale.cli import cli
from speechscale.cli.study import study as study_verbs
from speechscale.errors import DataError
from speechscale.study.loading import load_study, shipped_studies
from speechscale.study.plan import plan_part, plan_study, trunk_cells
from speechscale.study.recipes import run_name, study_steps


def test_sims_budgets_give_the_paper_s_tokens() -> None:
    """SIMS: C = 6 N D with embeddings, so 2.13e18 on 0.494B is 0.72B tokens and 6.86e20 on 7.6B is 15B."""
    cells = {(c.size, c.budget_flops): c for c in plan_part("main", load_study("sims").parts["main"])}
    assert cells["qwen2.5-0.5B", 2.13e18].tokens == pytest.approx(0.72e9, rel=0.01)
    assert cells["qwen2.5-7B", 2e20].tokens == pytest.approx(4.4e9, rel=0.01)
    (last,) = plan_part("main", load_study("sims-7b").parts["main"])
    assert last.tokens == pytest.approx(15e9, rel=0.01)


def test_cuervo_grid_has_the_paper_s_sizes_and_ratios() -> None:
    cells = plan_part("main", load_study("cuervo").parts["main"])
    assert len(cells) == 5 * 8
    assert {c.params_total for c in cells if c.size == "823M"} == {823_177_216}, "501 ids: 500 units and <eos>"
    assert sorted({round(c.tokens / c.params_total) for c in cells}) == [2, 4, 8, 10, 20, 32, 64, 100]
    largest = max(cells, key=lambda c: c.tokens)
    assert largest.epochs_speech == pytest.approx(82.3e9 / 10.89e9, rel=0.01)


def test_a_sweep_is_the_middle_budget_of_the_first_seed_only() -> None:
    part = load_study("standard").parts["scarce-adapted"]
    cells = plan_part("p", part)
    swept = [c for c in cells if c.sweep]
    assert {c.budget_flops for c in swept} == {sorted(part.grid.budgets_flops)[1]}, "the lower middle of four"
    assert {c.seed for c in swept} == {0}
    assert all(len(c.learning_rates) == 1 for c in swept)
    assert all(len(c.learning_rates) == 2 for c in cells if not c.sweep)
    assert len({run_name(c) for c in cells}) == len(cells), "run names are unique"


def test_an_impossible_grid_is_refused_with_the_cell() -> None:
    study = load_study("debug", {"grid.min_steps": 1000})
    with pytest.raises(DataError, match=r"fewer than grid\.min_steps = 1000 steps; .* raise budgets_flops"):
        plan_study(study)


def test_an_unknown_size_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"qwen2\.5-0\.5B"):
        plan_study(load_study("sims", {"grid.sizes": ["qwen-0.5B"]}))


def test_a_planned_study_cannot_be_run_by_mistake() -> None:
    with pytest.raises(DataError, match="lists sizes for planning only"):
        study_steps(load_study("cuervo"))


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_show_prints_every_shipped_study_and_its_bill(name: str) -> None:
    cli.add_command(study_verbs)
    result = CliRunner().invoke(cli, ["study", "show", name])
    assert result.exit_code == 0, result.output
    assert "bill:" in result.output
    assert "nan" not in result.output


def test_every_run_of_a_warm_arm_has_its_text_lm_and_every_step_has_its_inputs() -> None:
    steps = {s.name: s for s in study_steps(load_study("standard"))}
    for step in steps.values():
        assert set(step.inputs) <= set(steps), step.name
        assert step.seconds > 0
        assert math.isfinite(step.seconds)
    warm = steps["run/scarce-adapted/interleaved-0.16M-3.2e11-s1"]
    assert any(name.startswith("text_lm/scarce/0.16M") for name in warm.inputs)
    assert sum(name.startswith("run/scarce-adapted/interleaved-0.16M-8e10-lr") for name in warm.inputs) == 2


def test_branches_share_a_trunk_and_the_saving_is_what_show_prints() -> None:
    study = load_study("debug", {"train.schedule": "wsd", "train.branches": True, "grid.seeds": [0, 1]})
    part = study.parts["mfcc"]
    cells = plan_part("mfcc", part)
    assert all(cell.kind == "run" for cell in cells if cell.sweep), "the sweep stays apart"
    trunks = {(t.arm, t.size, t.seed): t for t in trunk_cells(cells)}
    # with a sweep, seed 0 has one run left, which needs no trunk
    assert ("interleaved", "0.02M", 0) not in trunks
    assert ("textless-warm", "0.02M", 0) in trunks
    for (arm, size, seed), trunk in trunks.items():
        own = [c for c in cells if (c.arm, c.size, c.seed) == (arm, size, seed) and c.kind == "branch"]
        assert len(own) == 2
        longest = max(own, key=lambda cell: cell.tokens)
        assert trunk.tokens == pytest.approx(0.8 * longest.tokens, abs=1)
        spent = trunk.flops_exact + sum(cell.flops_spent for cell in own)
        assert spent == pytest.approx(0.8 * longest.flops_exact + 0.2 * sum(c.flops_exact for c in own), rel=1e-3)
    steps = {step.name: step for step in study_steps(study)}
    branch = steps["run/mfcc/textless-warm-0.02M-2e09-s1"]
    assert "trunk/mfcc/textless-warm-0.02M-s1" in branch.inputs
    assert steps["trunk/mfcc/interleaved-0.02M-s1"].config["branch_points"] == [2e9, 4e9]
    assert sum("-lr" in n and n.startswith("run/") for n in steps["trunk/mfcc/interleaved-0.02M-s1"].inputs) == 2


def test_an_arm_of_another_family_has_its_shape_and_its_text_lm() -> None:
    arm = {"start": "warm", "mixture": {"speech": 1}, "learning_rates": [4e-3], "family": "opt"}
    study = load_study("debug", {"arms.opt": arm, "parts.phones.use_arms": ["textless", "opt", "interleaved"]})
    steps = {step.name: step for step in study_steps(study)}
    run = next(step for name, step in steps.items() if name.startswith("run/phones/opt-opt-0.02M"))
    assert run.config["size"] == "opt:0.02M"
    assert [name for name in run.inputs if name.startswith("text_lm/")] == ["text_lm/tiny/opt-0.02M-lr0.005657"]
    assert steps["text_lm/tiny/opt-0.02M-lr0.005657"].config["size"] == "opt:0.02M"
    assert "text_lm/tiny/0.02M-lr0.005657" in steps


def test_two_parts_cannot_silently_share_a_step_with_other_settings() -> None:
    """Would catch a TextLM of part a that part b, with another context, takes for its own."""
    study = load_study("debug", {"parts.phones.train": {"context": 64}})
    with pytest.raises(DataError, match=r"part 'phones': step 'text_lm/tiny/.*' is that of another part too"):
        study_steps(study)


def test_tokens_as_the_axis_give_every_arm_the_same_tokens() -> None:
    changes = {"grid": {"sizes": ["0.02M"], "tokens": [5000], "min_steps": 2}, "parts": {"mfcc": {}}}
    study = load_study("debug", {**changes, "parts.mfcc.units": {"subwords": {"kind": "bpe", "size": 40}}})
    cells = plan_part("mfcc", study.parts["mfcc"])
    assert {cell.tokens for cell in cells} == {5000}
    assert len({run_name(cell) for cell in cells}) == len(cells)
