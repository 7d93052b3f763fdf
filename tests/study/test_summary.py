"""Would catch: the wrong rate of a sweep in the table, a diverged run that poses as a number, columns that move."""

from __future__ import annotations

from typing import Any

from speechscale.study.summary import FIRST_COLUMNS, run_table


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
