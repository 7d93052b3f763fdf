"""Would catch: branches of a trunk counted as runs, probes among finished runs, a direction over the wrong loss."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from speechscale.scaling.analysis.analyze import analyze
from speechscale.scaling.analysis.part_links import links_said


def table(accuracy_of_loss: float, branched: bool = False) -> pd.DataFrame:
    """Two arms of nine runs; only the interleaved arm reads text."""
    rows = []
    for arm, shift in (("textless", 0.0), ("interleaved", -0.2)):
        for size in (1e4, 1e5, 1e6):
            for budget in (1e11, 2e11, 4e11):
                loss = 3 + shift - 0.1 * np.log10(size) - 0.3 * np.log10(budget / 1e11)
                rng = np.random.default_rng(len(rows))
                rows.append(
                    {
                        "part": "a",
                        "units": "mfcc",
                        "arm": arm,
                        "size": f"{size:g}",
                        "seed": 0,
                        "params_total": size,
                        "budget_flops": budget,
                        "branch_from_tokens": 1_000.0 if branched else np.nan,
                        "loss_speech_final": loss,
                        "loss_speech_se": 0.01,
                        "loss_text_final": loss + 1 if arm == "interleaved" else np.nan,
                        "acc_story_ss": 0.35 + accuracy_of_loss * (3 - loss) - shift + 0.003 * rng.standard_normal(),
                        "acc_story_ss_se": 0.01,
                        "acc_story_ss_heard": 0.5,
                        "acc_story_tt": 0.7 if arm == "interleaved" else np.nan,
                        "acc_story_tt_se": 0.02,
                    }
                )
    return pd.DataFrame(rows)


def test_every_set_and_direction_is_linked_arm_by_arm_to_its_own_loss() -> None:
    laws = json.loads(json.dumps(analyze(table(0.4), replicates=100), allow_nan=False))
    spoken, read = laws["parts"]["a"]["links"]
    assert (spoken["metric"], spoken["loss"], spoken["source"]) == ("acc_story_ss", "loss_speech", "runs")
    assert (read["metric"], read["loss"]) == ("acc_story_tt", "loss_text")
    assert [(arm["group"], arm["status"]) for arm in spoken["arms"]] == [
        ("textless", "fitted"),
        ("interleaved", "fitted"),
    ]
    assert [(arm["group"], arm["status"]) for arm in read["arms"]] == [("interleaved", "no_slope")]
    assert spoken["arms"][0]["slope"]["value"] == pytest.approx(-0.4, abs=0.03)
    assert len(spoken["arms"][0]["measured"]["loss"]) == spoken["arms"][0]["points"] == 9
    assert spoken["pooled"]["differ"]
    assert spoken["pooled"]["gap"] == pytest.approx(0.2, abs=0.02)
    (said,) = laws["parts"]["a"]["links_said"]
    assert said == (
        "finished runs, loss on test: 2 of 3 combinations of set, direction and arm have a slope told from 0 "
        "(1 no slope told from zero); arms differ at equal loss in 1 of 1 sets and directions"
    )


def test_branches_of_one_trunk_are_one_run() -> None:
    (spoken, _) = analyze(table(0.4, branched=True), replicates=100)["parts"]["a"]["links"]
    assert [(arm["runs"], arm["points"], arm["status"]) for arm in spoken["arms"]] == [(3, 9, "too_few_runs")] * 2


def test_probes_are_a_source_of_their_own_and_each_run_is_one() -> None:
    runs = table(0.0)
    probes = pd.concat(
        [
            pd.DataFrame(
                {
                    "part": "a",
                    "arm": "textless",
                    "run": f"run {i}",
                    "loss_speech": np.linspace(3 - 0.1 * i, 2.6 - 0.1 * i, 6),
                    "loss_text": np.nan,
                    "acc_story_ss": 0.5 + 0.4 * (3 - np.linspace(3 - 0.1 * i, 2.6 - 0.1 * i, 6)),
                    "acc_story_ss_se": 0.02,
                }
            )
            for i in range(5)
        ]
    )
    links = analyze(runs, replicates=100, probes=probes)["parts"]["a"]["links"]
    assert [(entry["source"], entry["metric"]) for entry in links] == [
        ("runs", "acc_story_ss"),
        ("runs", "acc_story_tt"),
        ("probes", "acc_story_ss"),
    ]
    (arm,) = links[-1]["arms"]
    assert (arm["runs"], arm["points"], arm["status"]) == (5, 30, "fitted")
    assert arm["slope"]["value"] == pytest.approx(-0.4)
    assert links_said(links)[1].startswith("along training, loss on select: 1 of 1")
    other = analyze(runs, replicates=100, probes=probes.assign(part="b"))["parts"]["a"]["links"]
    assert {entry["source"] for entry in other} == {"runs"}, "points of another part"
