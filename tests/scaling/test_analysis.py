"""Would catch a verdict that presupposes a winner, hides an edge or little data, or breaks on a missing column."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from speechscale.errors import DataError
from speechscale.scaling.analysis.analyze import analyze
from speechscale.scaling.analysis.runs import find_metrics, split_parts, sweep_of
from speechscale.scaling.analysis.transfer import transfer_table
from speechscale.scaling.laws import LossLaw

LAW = LossLaw(E=0.3, A=60.0, B=300.0, alpha=0.45, beta=0.45)
TEXT_LM_FLOPS = 3e11


def run(rng: np.random.Generator, arm: str, multiplier: float, accuracy: float, N: float, C: float) -> dict[str, Any]:
    """One row of runs.csv: an arm that needs `multiplier` times the compute, and answers items with `accuracy`."""
    D = C / 6 / N
    loss = LAW.predict(N, D / multiplier) * np.exp(0.005 * rng.standard_normal())
    textless = arm == "textless"
    row = {
        "arm": arm,
        "params_total": N,
        "budget_flops": C,
        "flops_exact": 1.2 * C,
        "flops_text_lm_exact": 0.0 if textless else TEXT_LM_FLOPS,
        "tokens_seen": D,
        "speech_hours_unique": 0.5,
        "speech_epochs": 2.0,
        "learning_rate": 0.004 if textless else 0.01,
        "learning_rate_at_edge": False,
        "loss_speech_final": loss,
        "loss_speech_best": 0.98 * loss,
        "loss_speech_select": loss,
        "loss_speech_se": 0.004 * loss,
        "loss_text_final": np.nan if textless else 2.0,
    }
    for direction in ("ss",) if textless else ("ss", "st", "ts", "tt"):
        for tag in ("read", "heard"):
            column = f"acc_facts_{direction}_{tag}"
            share = rng.binomial(400, 0.5 if textless else accuracy) / 400
            row |= {column: share, f"{column}_se": 0.025, f"{column}_n": 400}
    return row


def study(multiplier: float, accuracy: float, *, seeds: int = 2) -> pd.DataFrame:
    """Two parts: a grid of sizes and budgets on MFCC units, and one transfer run per arm on oracle phones."""
    rng = np.random.default_rng(5)
    rows = []
    for arm, times in (("textless", 1.0), ("interleaved", multiplier)):
        for seed in range(seeds):
            for C in (1e11, 4e11, 1.6e12, 6.4e12):
                for N in (5e4, 1e5, 2e5, 4e5):
                    row = run(rng, arm, times, accuracy, N, C)
                    rows.append({"part": "scarce", "units": "mfcc", "oracle_units": False, "seed": seed, **row})
            row = run(rng, arm, times, accuracy, 2e5, 3e12)
            rows.append({"part": "transfer", "units": "phones", "oracle_units": True, "seed": seed, **row})
    return pd.DataFrame(rows)


def said(result: dict[str, Any], topic: str, *words: str) -> list[str]:
    return [s for s in result["verdict"][topic] if all(word in s for word in words)]


@pytest.mark.parametrize(
    ("multiplier", "accuracy", "loss_ruling", "gap_ruling", "transfer_ruling"),
    [
        (0.3, 0.8, "interleaved is cheaper", ": lower.", "above chance"),
        (3.0, 0.3, "interleaved is dearer", ": higher.", "below chance"),
        (1.0, 0.5, "cannot tell which is cheaper", ": cannot tell them apart.", "cannot tell it from chance"),
    ],
)
def test_the_verdict_comes_out_as_the_world_is(
    multiplier: float, accuracy: float, loss_ruling: str, gap_ruling: str, transfer_ruling: str
) -> None:
    result = analyze(study(multiplier, accuracy), replicates=400)
    json.dumps(result, allow_nan=False)
    for start in ("scarce: For the same speech loss (final checkpoint)", "scarce: Both stopped early"):
        (sentence,) = said(result, "loss", start)
        assert loss_ruling in sentence
    (final,) = said(result, "loss", "scarce: For the same speech loss")
    assert "at 0.5 unique hours of speech" in final
    assert gap_ruling in said(result, "loss", "scarce: At the largest common budget", "final loss")[0]
    for direction in ("speech -> text", "text -> speech", "text -> text"):
        (sentence,) = said(result, "transfer", f"transfer: {direction}", "only read: interleaved")
        assert transfer_ruling in sentence
        assert "textless has no score" in sentence
    (own,) = said(result, "transfer", "transfer: speech -> speech", "only read: interleaved")
    versus = {0.8: "above textless", 0.3: "below textless", 0.5: "cannot tell it from textless"}[accuracy]
    assert versus in own
    found = {(m["loss"], m["compute"]): m for m in result["parts"]["scarce"]["multipliers"]}
    value = found["final", "uncharged"]["value"]
    assert value["low"] <= multiplier <= value["high"]
    assert found["final", "charged"]["value"]["value"] > value["value"]
    assert set(found) == {(loss, account) for loss in ("final", "best") for account in ("charged", "uncharged")}


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return analyze(study(0.5, 0.7), replicates=200)


def test_everything_fitted_carries_an_interval(result: dict[str, Any]) -> None:
    part = result["parts"]["scarce"]
    assert {law["status"] for law in part["laws"]} == {"fitted"}
    for law in part["laws"]:
        assert {"E", "A", "B", "alpha", "beta", "exp_params", "exp_tokens"} == set(law["constants"])
        for value in law["constants"].values():
            assert value["low"] <= value["high"]
    for slope in part["slopes"]:
        assert slope["fit"]["gamma"]["low"] < slope["fit"]["gamma"]["high"]
    for curve in part["envelopes"]:
        assert all(low < high for low, high in zip(curve["low"], curve["high"], strict=True))
        assert curve["power_law"]["gamma"]["high"] < 0
    assert all(row["se"] > 0 for row in part["transfer"])


def test_edges_are_said_to_be_edges(result: dict[str, Any]) -> None:
    rows = result["parts"]["scarce"]["isoflop"]
    edges = [row for row in rows if row["status"].startswith("edge")]
    assert edges
    assert all(row["params_opt"] is None for row in edges)
    assert said(result, "sizes", "optimum is at the edge")
    assert said(result, "sizes", "transfer: textless: fewer than 3 sizes at 1 of 1")


def test_one_budget_is_not_turned_into_a_law(result: dict[str, Any]) -> None:
    part = result["parts"]["transfer"]
    assert all(law["status"] == "not_fitted" and "1 budget(s)" in law["reason"] for law in part["laws"])
    assert part["slopes"] == []
    assert "cannot tell" in said(result, "loss", "transfer: For the same speech loss")[0]
    assert said(result, "limits", "transfer:", "oracle")


def test_the_same_table_gives_the_same_numbers(result: dict[str, Any]) -> None:
    assert analyze(study(0.5, 0.7), replicates=200) == result


def test_little_data_says_that_only_the_pipeline_was_tested() -> None:
    table = study(0.3, 0.8)
    result = analyze(table.assign(speech_hours_unique=0.01), replicates=50)
    for topic in ("loss", "transfer", "limits"):
        assert said(result, topic, "only 0.01 hours", "pipeline runs, not which arm is better")
    few = table[(table["part"] == "scarce") & (table["budget_flops"] == 1e11) & (table["params_total"] == 1e5)]
    few = few[few["seed"] == 0].drop(columns=[c for c in few if str(c).startswith("acc_")])
    assert said(analyze(few, replicates=50), "limits", "Only 1 run(s)", "pipeline runs")


def test_only_the_columns_that_must_be_there_are_needed() -> None:
    table = study(0.3, 0.8)[["arm", "params_total", "budget_flops", "loss_speech_final"]].iloc[:64]
    result = analyze(table, replicates=50)
    (part,) = result["parts"].values()
    assert part["hours_unique"] is None
    assert part["transfer"] == []
    assert "tokens" in part["laws"][0]["reason"] or "budget" in part["laws"][0]["reason"]
    for column in ("arm", "params_total", "budget_flops", "loss_speech_final"):
        with pytest.raises(DataError, match=column):
            analyze(table.drop(columns=column))
    with pytest.raises(DataError, match="no rows"):
        analyze(table.iloc[:0])


def test_diverged_runs_and_lost_learning_rates_are_left_out_and_counted() -> None:
    table = study(1.0, 0.5)
    worse = table[table["part"] == "scarce"].assign(learning_rate=0.1)
    worse[["loss_speech_final", "loss_speech_best", "loss_speech_select"]] *= 1.5
    broken = table.iloc[[0]].assign(**{c: np.nan for c in table if str(c).startswith("loss_")})
    part = next(p for p in split_parts(pd.concat([table, worse, broken])) if p.name == "scarce")
    assert len(part.frame) == 64
    assert part.dropped[0].startswith("1 run(s) without a finite loss")
    assert part.dropped[1].startswith("64 run(s) of learning rates")


def test_two_kinds_of_units_are_never_compared() -> None:
    table = study(1.0, 0.5)
    table["part"] = "A"
    result = analyze(table, replicates=50)
    assert set(result["parts"]) == {"A (mfcc)", "A (phones)"}


def test_text_only_arm_keeps_its_own_loss_and_other_baselines_work() -> None:
    table = study(0.5, 0.5)
    table = table[table["part"] == "scarce"]
    text = table[table["arm"] == "textless"].assign(
        arm="text", units=np.nan, loss_text_final=table["loss_speech_final"]
    )
    text[["loss_speech_final", "loss_speech_best", "loss_speech_select", "loss_speech_se"]] = np.nan
    result = analyze(pd.concat([text, table]), replicates=50)
    part = result["parts"]["scarce"]
    assert part["baseline"] == "textless"
    assert {law["loss"] for law in part["laws"] if law["arm"] == "text"} == {"text"}
    assert all(m["arm"] != "text" for m in part["multipliers"])
    renamed = pd.concat([text, table.replace({"arm": {"textless": "plain"}})])
    assert analyze(renamed, replicates=50)["parts"]["scarce"]["baseline"] == "plain"


def test_a_law_without_a_size_effect_is_not_called_fitted() -> None:
    table = study(1.0, 0.5)
    table["loss_speech_final"] = 1.5 + 50 / table["tokens_seen"] ** 0.3
    laws = analyze(table, replicates=50)["parts"]["scarce"]["laws"]
    assert {law["status"] for law in laws if law["loss"] == "final"} == {"not_identified"}


def test_repeated_data_is_noted_where_a_law_is_fitted() -> None:
    result = analyze(study(1.0, 0.5).assign(speech_epochs=12.0), replicates=50)
    assert any("repeated up to 12 times" in note for note in result["parts"]["scarce"]["laws"][0]["notes"])
    assert said(result, "limits", "scarce: textless: speech was repeated up to 12 times")


def test_charged_compute_is_in_the_convention_of_the_budget() -> None:
    """TextLM FLOPs are exact, budgets may be 6ND: the TextLM is charged as a share of the run's own exact FLOPs."""
    part = next(iter(split_parts(study(1.0, 0.5))))
    charged, plain = sweep_of(part, "interleaved", "final", charged=True), sweep_of(part, "interleaved", "final")
    assert charged is not None
    assert plain is not None
    assert charged.compute_flops - plain.compute_flops == pytest.approx(TEXT_LM_FLOPS / 1.2)
    table = study(1.0, 0.5).drop(columns="flops_exact")
    bare = sweep_of(next(iter(split_parts(table))), "interleaved", "final", charged=True)
    assert bare is not None
    assert bare.compute_flops - plain.compute_flops == pytest.approx(TEXT_LM_FLOPS)


def test_metric_columns_are_told_from_their_errors() -> None:
    columns = ["acc_story_cloze_ss", "acc_story_cloze_ss_se", "acc_story_cloze_ss_n", "acc_facts_st_read"]
    columns += ["acc_facts_st_read_se", "acc_facts_st_read_n", "acc_words_tt", "arm"]
    found = find_metrics(pd.DataFrame([[0.5] * len(columns)], columns=columns))
    assert [(m.set, m.direction, m.tag) for m in found] == [
        ("story_cloze", "ss", ""),
        ("facts", "st", "read"),
        ("words", "tt", ""),
    ]


def test_transfer_errors_do_not_shrink_with_seeds_that_share_items() -> None:
    table = study(1.0, 0.5)
    table = table[table["part"] == "transfer"].assign(acc_facts_ss_read=0.6)
    rows = {(r.arm, r.direction, r.tag): r for r in transfer_table(next(iter(split_parts(table))))}
    row = rows["interleaved", "ss", "read"]
    assert row.se == pytest.approx(0.025)
    assert row.z_chance == pytest.approx(4)
    assert row.difference_se == pytest.approx(0.025 * np.sqrt(2))
    perfect = table.assign(acc_facts_ss_read=1.0, acc_facts_ss_read_se=0.0)
    row = transfer_table(next(iter(split_parts(perfect))))[-1]
    assert all(r.se and r.se > 0 for r in transfer_table(next(iter(split_parts(perfect)))))
    assert row.accuracy == 1.0 or row.direction != "ss"


def test_the_package_needs_no_torch_and_imports_fast() -> None:
    code = (
        "import sys, time; start = time.process_time(); import speechscale.scaling.analysis.analyze;"
        "print(time.process_time() - start, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    seconds, torch, transformers = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert (torch, transformers) == ("False", "False")
    assert float(seconds) < 1.5


def test_the_study_chooses_the_baseline() -> None:
    """Would catch: `fit.baseline` of a study file that is read and then ignored."""
    rows = [
        {"part": "a", "arm": arm, "params_total": size, "budget_flops": budget, "loss_speech_final": 2.0 + 1e4 / size}
        for arm in ("textless", "interleaved")
        for size in (2e4, 5e4, 1e5)
        for budget in (1e11, 2e11)
    ]
    chosen = analyze(pd.DataFrame(rows), replicates=100, baselines={"a": "interleaved"})["parts"]["a"]
    assert chosen["baseline"] == "interleaved"
    assert {m["arm"] for m in chosen["multipliers"]} == {"textless"}
    assert analyze(pd.DataFrame(rows), replicates=100)["parts"]["a"]["baseline"] == "textless"
