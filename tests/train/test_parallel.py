"""Catches processes that learn something else than one, hang when one is gone, or leave no stock model behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from speechscale.errors import DataError
from speechscale.model.slm import load_model
from speechscale.train.config import Runtime, TrainConfig
from speechscale.train.parallel import SOLO, Group
from tests.train.processes import run_processes
from tests.train.runs import curve, summary, train_small

TWO: dict[str, dict[str, Any]] = {
    "ddp": {"parallel": "ddp"},
    "fsdp-parts-recompute": {"parallel": "fsdp", "micro_rows": 1, "recompute": True},
    "ddp-lora": {"parallel": "ddp", "micro_rows": 1, "trains": "lora"},
    "fsdp-lora": {"parallel": "fsdp", "trains": "lora"},
}


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return curve(SOLO)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """All of TWO on two processes."""
    folder = tmp_path_factory.mktemp("two")
    trainings = {name: {**settings, "stock": str(folder / name)} for name, settings in TWO.items()}
    return folder, run_processes("tests.train.runs:curves", folder, trainings=trainings)


def close(got: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    for key in ("losses", "norms", "checks", "final", "best", "se", "weights"):
        np.testing.assert_allclose(got[key], expected[key], rtol=tolerance, err_msg=key)
    assert got["targets"] == expected["targets"]
    assert got["tokens"] == expected["tokens"] == 2_000


@pytest.mark.parametrize("settings", [{"micro_rows": 1}, {"recompute": True}, {"micro_rows": 2, "attention": "mask"}])
def test_how_a_batch_is_computed_changes_nothing(alone: dict[str, Any], settings: dict[str, Any]) -> None:
    """Parts of a batch, recomputed blocks and another kernel give the same losses to fp32 rounding."""
    close(curve(SOLO, **settings), alone, 1e-4)


@pytest.mark.slow
@pytest.mark.timeout(600)  # a cold compiler takes minutes on a slow machine
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
@pytest.mark.filterwarnings("ignore")  # of the compiler's own parts
def test_compiled_blocks_learn_the_same(alone: dict[str, Any]) -> None:
    """Rows of another length every step, without compiling anew for each."""
    close(curve(SOLO, compile=True), alone, 1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] < 20


@pytest.mark.slow
@pytest.mark.parametrize("name", TWO)
def test_two_processes_are_one(name: str, alone: dict[str, Any], together: tuple[Path, list[dict[str, Any]]]) -> None:
    """Also the last batch, which the budget cuts in the middle of a process' rows, and the saved folder."""
    folder, (first, second) = together
    one, two = first[name], second[name]
    trains = TWO[name].get("trains", "all")
    result, model = train_small(SOLO, trains=trains)
    assert trains != "all" or summary(result)["losses"] == alone["losses"]
    close(one, alone if trains == "all" else curve(SOLO, trains=trains), 1e-4)
    assert one["checks"] == two["checks"]
    assert two["losses"] == one["losses"]
    stock = AutoModelForCausalLM.from_pretrained(folder / name).eval()
    tokens = torch.arange(20)[None] % 70
    with torch.no_grad():
        torch.testing.assert_close(stock(tokens).logits, model(tokens).logits, rtol=1e-3, atol=1e-3)
    assert load_model(folder / name).config.architectures == ["LlamaForCausalLM"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "exit"])
def test_a_dead_process_stops_the_others(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The survivor says so within seconds instead of waiting for its timeout of 30 s."""
    heard = tmp_path / "heard"
    monkeypatch.setenv("HEARD", str(heard))
    with pytest.raises((AssertionError, subprocess.TimeoutExpired)):
        run_processes("tests.train.runs:one_dies", tmp_path, how=how, timeout_s=60)
    waited, _, message = heard.read_text().partition(" ")
    assert float(waited) < 20
    assert "process 0 of 2: another process of this run is gone" in message
    assert "go on from the last checkpoint" in message


def test_rows_that_cannot_be_shared_out_are_refused() -> None:
    config = TrainConfig(tokens=10, batch_rows=10, context=8, learning_rate=1e-3)
    with pytest.raises(DataError, match=r"batch_rows = 10 cannot be shared out to 4 processes evenly; take 8 or 12"):
        Runtime().parts(config, Group(rank=0, world=4))
    with pytest.raises(DataError, match=r"micro_rows = 3 does not divide the 5 rows .* one of 1, 5"):
        Runtime(micro_rows=3).parts(config, Group(rank=0, world=2))
    assert Runtime(micro_rows=1).parts(config, Group(rank=0, world=2)) == 5


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from speechscale.train.parallel import open_group

    monkeypatch.setitem(os.environ, "LOCAL_RANK", str(torch.cuda.device_count()))
    with pytest.raises(DataError, match="start at most one process per GPU"), open_group("cuda"):
        pass
