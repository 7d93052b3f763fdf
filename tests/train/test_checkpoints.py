"""Catches a resumed run that is another one, half a checkpoint that is believed, and a full disk that ends training."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp

from speechscale.errors import DataError
from speechscale.model.sizes import SIZES
from speechscale.model.slm import new_model
from speechscale.train.checkpoints import Checkpoints, load_tensors
from speechscale.train.config import TrainConfig, make_optimizer
from speechscale.train.loop import Hooks
from speechscale.train.objective import Objective
from speechscale.train.parallel import SOLO
from tests.train.conftest import CONTEXT, VOCAB
from tests.train.processes import ROOT, run_processes
from tests.train.runs import curve, summary, train_small


def folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def exact(settings: dict[str, Any], folder: Path, stops: tuple[int, ...]) -> None:
    """Stop after so many steps, once per entry, then go to the end; equal bit for bit to a run that never stopped."""
    whole, model = train_small(SOLO, **settings)
    losses: list[float] = []
    for stop_after in stops:
        part, _ = train_small(SOLO, folder=folder, stop_after=stop_after, **settings)
        assert part.stopped == "enough for now"
        assert part.interrupted
        losses += [report.loss for report in part.history]
    last, resumed = train_small(SOLO, folder=folder, **settings)
    losses += [report.loss for report in last.history]
    assert losses == [report.loss for report in whole.history]
    assert summary(last)["checks"] == summary(whole)["checks"]
    assert summary(last)["targets"] == summary(whole)["targets"]
    assert (last.final, last.best, last.best_tokens_seen) == (whole.final, whole.best, whole.best_tokens_seen)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), model.parameters(), strict=True))


def test_a_run_stopped_twice_is_the_same_run(tmp_path: Path) -> None:
    exact({}, tmp_path, (4, 3))


def test_so_is_one_whose_body_has_not_learned_yet(tmp_path: Path) -> None:
    """AdamW has no moments of spared parameters; they must begin when they begin to learn, as without a stop."""
    exact({"rows_first_tokens": 1_200}, tmp_path, (3,))


def test_so_is_one_with_adapters_in_bf16(tmp_path: Path) -> None:
    exact({"trains": "lora", "precision": "bf16"}, tmp_path, (5,))


@pytest.mark.parametrize("stop_after", [None, 95])
def test_best_weights_come_from_disk_when_they_are_older(stop_after: int | None, tmp_path: Path) -> None:
    """Also when they are of an earlier start: measured at the end, handed out, and the final weights put back."""
    over = {"few": 2, "tokens": 20_000}
    whole, model = train_small(SOLO, **over)
    assert whole.best_tokens_seen < whole.tokens_seen, "the run did not over-fit, the test shows nothing"
    if stop_after is not None:
        train_small(SOLO, folder=tmp_path, save_best=True, stop_after=stop_after, **over)
    given: list[dict[str, torch.Tensor]] = []

    def keep(holding: Any) -> None:
        given.append({name: tensor.clone() for name, tensor in holding.named_parameters()})

    last, resumed = train_small(SOLO, folder=tmp_path, save_best=True, hooks=Hooks(with_best=keep), **over)
    assert (last.final, last.best, last.best_tokens_seen) == (whole.final, whole.best, whole.best_tokens_seen)
    assert not last.best_state, "the best weights need no place in memory"
    assert len(given) == 1
    assert all(torch.equal(given[0][name], tensor) for name, tensor in whole.best_state.items())
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), model.parameters(), strict=True))


def test_saving_changes_nothing_and_old_ones_go(tmp_path: Path) -> None:
    plain, _ = train_small(SOLO)
    saved, _ = train_small(SOLO, folder=tmp_path, save_every_tokens=300)
    assert saved.history == plain.history
    assert len(folders(tmp_path)) == 2
    steps = [json.loads((tmp_path / name / "state.json").read_text())["step"] for name in folders(tmp_path)]
    assert steps[-1] == len(plain.history)


def test_what_is_written_is_the_state_of_its_step(tmp_path: Path) -> None:
    """The tensors are copied before training goes on: steps made while they are written must not leak in."""
    model = Objective(new_model(SIZES["0.05M"], VOCAB, CONTEXT, 0), precision="fp32")
    optimizer = make_optimizer(model, TrainConfig(tokens=1, batch_rows=1, context=8, learning_rate=1.0))
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    with Checkpoints(tmp_path, SOLO) as saves:
        saves.save(model, optimizer, 1, {"tokens_seen": 0})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        saves.wait()
        latest = saves.latest()
        assert latest is not None
        load_tensors(latest, model, optimizer)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.named_parameters())


def damage(path: Path, how: str) -> None:
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
    elif how == "missing":
        path.unlink()


@pytest.mark.parametrize(
    ("how", "said"), [("cut", "is cut"), ("flipped", "differs from its checksum"), ("missing", "is missing")]
)
def test_a_damaged_checkpoint_is_passed_over_and_told(how: str, said: str, tmp_path: Path) -> None:
    train_small(SOLO, folder=tmp_path, save_every_tokens=500)
    older, newest = (tmp_path / name for name in folders(tmp_path))
    damage(next(newest.glob("shard-*.safetensors")), how)
    with Checkpoints(tmp_path, SOLO) as saves, pytest.warns(UserWarning, match=rf"{said}.*an older one is used"):
        latest = saves.latest()
    assert latest is not None
    assert latest.folder == older
    damage(older / "manifest.json", "missing")
    with (
        Checkpoints(tmp_path, SOLO) as saves,
        pytest.warns(UserWarning, match="manifest|an older one is used"),
        pytest.raises(DataError, match=r"none of its 2 checkpoints is whole; .*--fresh"),
    ):
        saves.latest()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    train_small(SOLO, folder=tmp_path)
    other = Objective(new_model(SIZES["0.1M"], VOCAB, CONTEXT, 0), precision="fp32")
    optimizer = make_optimizer(other, TrainConfig(tokens=1, batch_rows=1, context=8, learning_rate=1.0))
    with Checkpoints(tmp_path, SOLO) as saves:
        latest = saves.latest()
        assert latest is not None
        with pytest.raises(DataError, match=r"a tensor of \(72, 48\) for 'model.*it belongs to another model"):
            load_tensors(latest, other, optimizer)


def test_a_full_disk_is_told_and_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, failures = dcp.HuggingFaceStorageWriter.write_data, [2]

    def full(self: Any, *arguments: Any) -> Any:
        if failures[0] > 0:
            failures[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, *arguments)

    monkeypatch.setattr(dcp.HuggingFaceStorageWriter, "write_data", full)
    plain, _ = train_small(SOLO)
    with pytest.warns(UserWarning, match=r"checkpoint of step \d+ .* was not written: the disk is full"):
        saved, _ = train_small(SOLO, folder=tmp_path, save_every_tokens=500)
    assert saved.history == plain.history
    assert all(not name.startswith(".") for name in folders(tmp_path)), "half a checkpoint was left"
    assert len(folders(tmp_path)) == 2


def killed_in_save(folder: str) -> None:
    """Train and die by SIGKILL while the second checkpoint is being written."""
    write = dcp.HuggingFaceStorageWriter.finish
    written: list[int] = []

    def finish(self: Any, **arguments: Any) -> Any:
        written.append(1)
        if len(written) == 2:
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        return write(self, **arguments)

    dcp.HuggingFaceStorageWriter.finish = finish  # type: ignore[method-assign]
    train_small(SOLO, folder=Path(folder), save_every_tokens=500)


@pytest.mark.slow
def test_killed_while_saving_the_run_goes_on_from_the_checkpoint_before(tmp_path: Path) -> None:
    code = f"from tests.train.test_checkpoints import killed_in_save; killed_in_save({str(tmp_path)!r})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=False, timeout=100)
    assert done.returncode == -signal.SIGKILL
    partial = [name for name in folders(tmp_path) if name.startswith(".")]
    assert len(partial) == 1, "the kill came outside of a save, the test shows nothing"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed, _ = train_small(SOLO, folder=tmp_path)
    whole, _ = train_small(SOLO)
    assert 0 < len(resumed.history) < len(whole.history)
    assert [report.loss for report in resumed.history] == [r.loss for r in whole.history[-len(resumed.history) :]]
    assert resumed.final == whole.final
    assert not [name for name in folders(tmp_path) if name.startswith(".")]


@pytest.mark.slow
def test_another_number_of_processes_goes_on(tmp_path: Path) -> None:
    """One process, then two with sharded parameters, then one again: the losses of a run that never stopped."""
    whole = curve(SOLO)
    first, _ = train_small(SOLO, folder=tmp_path / "ck", stop_after=3)
    trainings = {"second": {"folder": str(tmp_path / "ck"), "parallel": "fsdp", "stop_after": 4}}
    second = run_processes("tests.train.runs:curves", tmp_path, trainings=trainings)[0]["second"]
    last, _ = train_small(SOLO, folder=tmp_path / "ck")
    losses = [report.loss for report in first.history] + second["losses"] + [report.loss for report in last.history]
    np.testing.assert_allclose(losses, whole["losses"], rtol=1e-4)
    assert summary(last)["targets"] == whole["targets"]
    assert last.final["test"].speech == pytest.approx(whole["final"], rel=1e-4)


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="keep at least 1 checkpoint"):
        Checkpoints(tmp_path, SOLO, keep_last=0)
    hooks = Hooks(stop=lambda: "at once")
    result, _ = train_small(SOLO, hooks=hooks)
    assert (result.steps, result.stopped, result.final) == (0, "at once", {})
