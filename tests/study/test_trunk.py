"""Would catch: a branch that is not the full run of its length, compute booked wrongly, a divergence that takes all."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from speechscale.model.flops import Convention
from speechscale.model.slm import load_model
from speechscale.records import UnitTable, UnitTableBuilder
from speechscale.study import training as training_module
from speechscale.study import trunk as trunk_module
from speechscale.study.loading import resolve
from speechscale.study.recipes import study_steps
from speechscale.study.steps import Step, run_step
from speechscale.tokens.store import build_store
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from speechscale.train.loop import Hooks, StepReport
from speechscale.train.schedule import decay_start

WORDS = ("the", "cat", "dog", "sat", "ran", "home", "jam")
UNITS, LENGTHS = 12, (1_200, 2_000, 3_000)
TOKENS = "tokens/main-adapted"


def spoken(rows: int, seed: int) -> UnitTable:
    rng = np.random.default_rng(seed)
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=UNITS)
    for row in range(rows):
        words = [WORDS[i] for i in rng.integers(0, len(WORDS), int(rng.integers(3, 9)))]
        starts = 5 * np.arange(len(words))
        units = np.cumsum(rng.integers(1, 4, 5 * len(words))) % UNITS
        builder.add(
            id=f"u{row}",
            speaker="a",
            split="train",
            text=" ".join(words),
            units=units,
            durations_frames=np.ones(len(units), np.int64),
            words=words,
            word_frames=np.stack([starts, starts + 5], axis=1),
        )
    return builder.build()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the step before training leaves, without a corpus."""
    root = tmp_path_factory.mktemp("trunk")
    joint = Vocabulary.joint(build_text_tokenizer([" ".join(WORDS)], "words", 100), UNITS)
    joint.save(root / TOKENS / "joint")
    Vocabulary.textless(UNITS).save(root / TOKENS / "textless")
    for seed, split in enumerate(("train", "select", "test")):
        table = spoken(60 if split == "train" else 8, seed)
        build_store(root / TOKENS / split, joint, table=table, texts=[" ".join(WORDS[seed:])] * 40)
    return root


def steps(*, branches: bool, **train: Any) -> dict[str, Step]:
    """A trunk and runs at three lengths, as the study's graph has them, without their corpus."""
    study = resolve(
        {
            "study": {"name": "t", "question": "?"},
            "arms": {
                "mixed": {"start": "scratch", "mixture": {"speech": 1, "interleaved": 1}, "learning_rates": [1e-2]},
            },
            "grid": {"sizes": ["0.02M"], "tokens": LENGTHS, "min_steps": 1},
            "fit": {"baseline": "mixed"},
            "train": {
                "context": 48,
                "batch_rows": 4,
                "checks": 4,
                "schedule": "wsd",
                "warmup_tokens": 300,
                "branches": branches,
                "precision": "fp32",
                **train,
            },
        }
    )
    wanted = ("run/", "trunk/")
    return {
        step.name: replace(step, inputs=tuple(name for name in step.inputs if name.startswith(("tokens/", *wanted))))
        for step in study_steps(study)
        if step.name.startswith(wanted)
    }


def run_all(graph: dict[str, Step], root: Path) -> dict[str, dict[str, Any]]:
    return {name: run_step(step, root, dict.fromkeys(step.inputs, ""))["results"] for name, step in graph.items()}


@pytest.fixture(scope="module")
def both(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, tuple[Path, dict[str, dict[str, Any]]]]:
    """Branches (True) and full runs (False): folder and results."""
    made = {}
    for branches in (True, False):
        root = tmp_path_factory.mktemp("branches" if branches else "full")
        (root / "tokens").symlink_to(data / "tokens")
        made[branches] = root, run_all(steps(branches=branches), root)
    return made


def test_a_branch_is_the_full_run_of_its_length(both: dict[bool, tuple[Path, dict[str, dict[str, Any]]]]) -> None:
    (cut, branches), (whole, full) = both[True], both[False]
    assert sum(name.startswith("trunk/") for name in branches) == 1
    assert len(full) == 3
    for name, results in full.items():
        weights = [load_model(root / name / "model").state_dict() for root in (cut, whole)]
        assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items()), name
        row, expected = branches[name]["row"], results["row"]
        same = ("loss_speech_final", "speech_units_seen", "speech_units_unique", "tokens_seen", "steps", "flops_exact")
        assert all(row[f"flops_{name}"] > 0 for name in get_args(Convention)), name
        assert {key: row[key] for key in same} == {key: expected[key] for key in same}, name
        assert row["branch_from_tokens"] <= decay_start(expected["tokens_seen"], 0.2)
        assert expected["branch_from_tokens"] is None
        assert expected["flops_exact_spent"] == expected["flops_exact"]


def test_what_was_spent_adds_up(both: dict[bool, tuple[Path, dict[str, dict[str, Any]]]]) -> None:
    """The trunk costs what its tokens cost; each branch only its cool-down (a batch more at most)."""
    _, results = both[True]
    trunk = results["trunk/main/mixed-0.02M-s0"]
    rows = [found["row"] for name, found in results.items() if name.startswith("run/")]
    per_token = rows[0]["flops_exact"] / rows[0]["tokens_seen"]
    assert trunk["tokens_seen"] == max(row["branch_from_tokens"] for row in rows)
    assert trunk["flops_exact"] == pytest.approx(trunk["tokens_seen"] * per_token)
    for row in rows:
        spent = row["flops_exact_spent"] / per_token
        assert spent == pytest.approx(row["tokens_seen"] - row["branch_from_tokens"])
        assert spent <= math.ceil(0.2 * row["tokens_seen"]) + 4 * 48


def test_the_best_weights_of_the_trunk_stand_for_a_branch_that_gets_worse(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch an early-stopped loss that forgets what came before the branch."""
    (tmp_path / "tokens").symlink_to(data / "tokens")
    graph = steps(branches=True, checks=10)
    (trunk,) = (step for name, step in graph.items() if name.startswith("trunk/"))
    run_step(trunk, tmp_path, dict.fromkeys(trunk.inputs, ""))
    real = training_module.train

    def spoiled(model: Any, batches: Any, config: Any, **more: Any) -> Any:
        return real(model, batches, replace(config, learning_rate=3.0), **more)

    monkeypatch.setattr(training_module, "train", spoiled)
    longest = max((step for name, step in graph.items() if name.startswith("run/")), key=lambda s: s.config["point"])
    row = run_step(longest, tmp_path, dict.fromkeys(longest.inputs, ""))["results"]["row"]
    assert row["best_tokens_seen"] <= row["branch_from_tokens"]
    assert row["loss_speech_best"] < row["loss_speech_final"] - 0.05
    assert row["loss_speech_best"] < math.log(UNITS)


def test_a_diverged_trunk_spares_the_branches_before(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokens").symlink_to(data / "tokens")
    real = trunk_module.train

    def dies_behind_1500(*args: Any, hooks: Hooks, **more: Any) -> Any:
        def on_step(report: StepReport) -> None:
            assert hooks.on_step is not None
            hooks.on_step(report)
            if report.tokens_seen > 1_500:
                raise FloatingPointError("loss nan")

        return real(*args, hooks=replace(hooks, on_step=on_step), **more)

    monkeypatch.setattr(trunk_module, "train", dies_behind_1500)
    graph = steps(branches=True)
    results = run_all(graph, tmp_path)
    assert results["trunk/main/mixed-0.02M-s0"]["diverged"] == "loss nan"
    told = {
        graph[name].config["point"]: (found.get("diverged", ""), "loss_speech_final" in found["row"])
        for name, found in results.items()
        if name.startswith("run/")
    }
    lost = ("its trunk: loss nan", False)
    assert told[1_200] == ("", True)
    assert told[3_000] == lost
    assert told[2_000] in (lost, ("", True)), "depends on how far the last step reached"


def test_a_fall_from_the_first_token_needs_no_trunk(data: Path, tmp_path: Path) -> None:
    """Would catch a branch that asks for a checkpoint of step 0, which is never written."""
    (tmp_path / "tokens").symlink_to(data / "tokens")
    graph = steps(branches=True, decay_fraction=1.0, warmup_tokens=0)
    results = run_all(graph, tmp_path)
    rows = [found["row"] for name, found in results.items() if name.startswith("run/")]
    assert [row["branch_from_tokens"] for row in rows] == [0, 0, 0]
    assert all(row["flops_exact_spent"] == row["flops_exact"] for row in rows)
