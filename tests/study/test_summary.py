"""Would catch: the wrong rate of a sweep in the table, a diverged run that poses as a number, columns that move."""

from __future__ import annotations

from typing import Any

from speechscale.study.summary import FIRST_COLUMNS, probe_table, run_table


def record(arm: str, budget: float, rate: float, loss: float | None, *, sweep: bool) -> dict[str, Any]:
    row = {
        "part": "a",
        "arm": arm,
        "size": "s",
        "seed": 0,
        "params_total": 10,
        "budget_flops": budget,
        "sweep": sweep,
        "learning_rate": rate,
        "learning_rate_at_edge": False,
    }
    if loss is not None:
        row |= {"loss_select": loss, "loss_speech_final": loss}
    return {"results": {"row": row}}


def test_of_a_sweep_only_the_best_rate_stays_and_edges_are_marked() -> None:
    records = {
        "run/a/1": record("x", 1.0, 1e-3, 3.0, sweep=True),
        "run/a/2": record("x", 1.0, 4e-3, 2.0, sweep=True),
        "run/a/3": record("x", 1.0, 1e-2, 2.5, sweep=True),
        "run/a/4": record("x", 2.0, 4e-3, 1.5, sweep=False),
        "run/a/5": record("y", 1.0, 1e-3, 2.0, sweep=True),
        "run/a/6": record("y", 1.0, 4e-3, 2.4, sweep=True),
        "corpus/z": {"results": {}},
    }
    table = run_table(records)
    assert list(table["arm"]) == ["x", "x", "y"]
    assert list(table["learning_rate"]) == [4e-3, 4e-3, 1e-3]
    assert list(table["learning_rate_at_edge"]) == [False, False, True]
    assert list(table.columns[: len(FIRST_COLUMNS)]) == list(FIRST_COLUMNS)


def test_a_diverged_rate_is_never_chosen_and_a_diverged_run_has_no_loss() -> None:
    table = run_table(
        {
            "run/a/1": record("x", 1.0, 1e-3, 3.0, sweep=True),
            "run/a/2": record("x", 1.0, 1e-1, None, sweep=True),
            "run/a/3": record("x", 2.0, 1e-3, None, sweep=False),
        }
    )
    assert list(table["learning_rate"]) == [1e-3, 1e-3]
    assert table["loss_speech_final"].isna().tolist() == [False, True]


def test_probes_of_all_runs_are_one_table_and_branches_of_a_trunk_one_run() -> None:
    found = {"story": {"ss": {"estimate": 0.6, "se": None, "n": 8}}}
    points = [{"tokens_seen": 1, "loss": 3.0}, {"tokens_seen": 2, "loss": 2.0, "probes": found}]

    def probed(arm: str, budget: float, **row: Any) -> dict[str, Any]:
        made = record(arm, budget, 1e-3, 2.0, sweep=False)
        made["results"]["row"] |= row
        return {"results": {**made["results"], "trajectory": points}}

    table = probe_table(
        {
            "run/a/1": probed("x", 1.0),
            "run/a/2": probed("y", 1.0, loss_speech_final=None, loss_text_final=1.0),
            "run/a/3": probed("x", 2.0, branch_from_tokens=1),
            "run/a/4": probed("x", 4.0, branch_from_tokens=2),
            "trunk/a/x": {"results": {}},
        }
    )
    assert list(table["run"]) == ["run/a/1", "run/a/2", "trunk of s-0", "trunk of s-0"]
    assert table["loss_speech"].tolist()[0] == 2.0
    assert table["loss_text"].isna().tolist() == [True, False, True, True]
    assert table["acc_story_ss"].tolist() == [0.6] * 4
    assert table["acc_story_ss_se"].isna().all()
    assert probe_table({}).empty
