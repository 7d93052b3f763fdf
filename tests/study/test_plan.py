"""Would catch: wrong arithmetic in the bill, an impossible grid that starts, recipes that drift from the papers."""

from __future__ import annotations

import math

import pytest
from click.testing import CliRunner

from speechscale.cli import cli
from speechscale.cli.study import study as study_verbs
from speechscale.errors import DataError
from speechscale.study.loading import load_study, shipped_studies
from speechscale.study.plan import plan_part, plan_study
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
