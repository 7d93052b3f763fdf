"""Catches a command that loses a run to a signal, a Slurm script that does not go on, and a plan that trains."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from speechscale.cli import cli
from speechscale.model.sizes import SIZES
from speechscale.model.slm import new_model, save_model
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.train.logs import read_events
from speechscale.train.slurm import sbatch_script
from tests.train.processes import ROOT
from tests.train.test_job import job_table, make_data
from tests.train.toml import write_toml


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_train_plan_run_again_and_plot(store: Path, tmp_path: Path) -> None:
    config, out = write_toml(tmp_path / "job.toml", job_table(store)), tmp_path / "run"
    planned = call("train", config, "--out", out, "--dry-run", "--device", "cuda", "--memory-gb", "80")
    assert planned.exit_code == 0, planned.output
    assert "2,000 tokens" in planned.output
    assert "fits" in planned.output
    assert not out.exists()
    done = call("train", config, "--out", out, "--writer", "tensorboard")
    assert done.exit_code == 0, done.output
    assert list((out / "tensorboard").glob("events.*")), "the writer was never asked"
    assert re.search(r"2,000 tokens in \d+ steps", done.output)
    assert "speech_per_unit" in done.output
    again = call("train", "run", config, "--out", out)
    assert again.exit_code == 0
    other = call("train", config, "--out", out, "--set", "train.learning_rate=1e-3")
    assert other.exit_code == 2
    assert "job.train.learning_rate: 0.005 -> 0.001" in other.output
    plotted = call("train", "plot", out, "--out", tmp_path / "runs.html")
    assert plotted.exit_code == 0, plotted.output
    assert (tmp_path / "runs.html").stat().st_size > 10_000


def test_mistakes_are_messages(store: Path, tmp_path: Path) -> None:
    config = write_toml(tmp_path / "job.toml", job_table(store))
    for arguments, said in (
        (("train", tmp_path / "none.toml"), "no such file"),
        (("train", config, "--set", "train.tokns=3"), "did you mean 'tokens'"),
        (("train", config, "--out", tmp_path / "a", "--writer", "tensorbord"), "writer 'tensorbord' is not known"),
        (("train", config, "--out", tmp_path / "b", "--set", "train.learning_rate=1e12"), "the run has diverged"),
    ):
        result = call(*arguments)
        assert result.exit_code in (1, 2)
        assert said in result.output
        assert "Traceback" not in result.output


def test_preferences_from_a_file(store: Path, tmp_path: Path) -> None:
    """The command end to end: pairs in, a stock model and held-out numbers with their errors out."""
    vocabulary = Vocabulary.load(store.parent / "vocabulary")
    slm = tmp_path / "slm"
    save_model(new_model(SIZES["0.02M"], vocabulary.size, 48, seed=0), slm)
    vocabulary.save(slm)
    lines = []
    for number in range(60):
        up = [(number + k) % 20 for k in range(8)]
        lines.append(
            json.dumps({"prompt": {"units": up[:3]}, "chosen": {"units": up[3:]}, "rejected": {"units": up[:2]}})
        )
    (tmp_path / "pairs.jsonl").write_text("\n".join([*lines, '{"prompt": "x"}']) + "\n")
    table: dict[str, Any] = {
        "model": {"start": "slm", "path": str(slm)},
        "preference": {
            "pairs": str(tmp_path / "pairs.jsonl"),
            "validation": str(tmp_path / "pairs.jsonl"),
            "batch_pairs": 8,
            "context": 32,
            "learning_rate": 1e-3,
            "checks": 2,
        },
    }
    out = tmp_path / "run"
    done = call("train", write_toml(tmp_path / "dpo.toml", table), "--out", out)
    assert done.exit_code == 0, done.output
    record = json.loads((out / "result.json").read_text())
    assert (record["pairs_read"], record["pairs_used"]) == (61, 60)
    assert len((out / "skips.jsonl").read_text().splitlines()) == 1
    assert record["held_out"]["after"]["mean"]["margin"] > record["held_out"]["before"]["mean"]["margin"] == 0
    assert (out / "model" / "model.safetensors").is_file()


def environment(**more: str) -> dict[str, str]:
    path = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **more}


def wait_for_steps(out: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(900):
        log = out / "metrics.jsonl"
        if log.is_file() and sum(event["event"] == "step" for event in read_events(log)) >= 3:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("no step within 90 s")


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(store: Path, tmp_path: Path) -> None:
    table = job_table(store, train__tokens=60_000, train__checks=1)
    config, out = write_toml(tmp_path / "job.toml", table), tmp_path / "run"
    command = [sys.executable, "-m", "speechscale", "train", str(config), "--out", str(out)]
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    wait_for_steps(out, process)
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "asked to stop (SIGTERM)" in said
    assert "start again with the same command" in said
    saved = [event for event in read_events(out / "metrics.jsonl") if event["event"] == "checkpoint"][-1]["step"]
    done = call("train", config, "--out", out)
    assert done.exit_code == 0, done.output
    events = read_events(out / "metrics.jsonl")
    assert [e["resumed_from"] for e in events if e["event"] == "start"] == [None, saved]
    steps = [event["step"] for event in events if event["event"] == "step"]
    assert steps == list(range(1, len(steps) + 1))


FAKE_SRUN = """#!/bin/bash
# Starts the command once per task, as srun does, and hands USR1 on to the processes.
shift
pids=()
for task in 0 1; do
    SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NTASKS=2 "$@" &
    pids+=($!)
done
trap 'kill -USR1 "${pids[@]}"' USR1
code=0
for pid in "${pids[@]}"; do
    wait "$pid"; last=$?
    while kill -0 "$pid" 2>/dev/null; do wait "$pid"; last=$?; done
    [ "$last" -gt "$code" ] && code=$last
done
exit "$code"
"""
FAKE_SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo localhost; else echo "$@" >> "$REQUEUED"; fi
"""


@pytest.mark.slow
def test_a_slurm_job_saves_before_its_limit_and_goes_on(store: Path, tmp_path: Path) -> None:
    """The script itself, with srun and scontrol played by two lines of shell: two processes, a warning, a requeue."""
    table = job_table(store, train__tokens=30_000, train__checks=1)
    config, out = write_toml(tmp_path / "job.toml", table), tmp_path / "run"
    script = tmp_path / "job.sh"
    script.write_text(sbatch_script(config, out, gpus_per_node=0, cpus_per_gpu=1, extra=["--device", "cpu"]))
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("srun", FAKE_SRUN), ("scontrol", FAKE_SCONTROL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tools / "python").write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')  # a link would leave the environment
    (tools / "python").chmod(0o755)
    requeued = tmp_path / "requeued"
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    variables = environment(SLURM_JOB_ID="4711", SLURM_JOB_NODELIST="x", REQUEUED=str(requeued), PATH=path)
    process = subprocess.Popen(
        ["bash", str(script)], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    wait_for_steps(out, process)
    (srun,) = (int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    os.kill(srun, signal.SIGUSR1)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "asked to stop (SIGUSR1)" in said
    assert requeued.read_text() == "requeue 4711\n"
    again = subprocess.run(
        ["bash", str(script)], env=variables, capture_output=True, text=True, cwd=tmp_path, timeout=100
    )
    assert again.returncode == 0, again.stderr
    assert (out / "result.json").is_file()
    assert [e["resumed_from"] for e in read_events(out / "metrics.jsonl") if e["event"] == "start"][1] is not None


def test_the_slurm_script_is_what_was_asked_for(store: Path, tmp_path: Path) -> None:
    config = write_toml(tmp_path / "my job.toml", job_table(store))
    made = call(
        "train", "slurm", config, "--out", "runs/a", "--nodes", 2, "--partition", "gpu", "--", "--parallel", "fsdp"
    )
    assert made.exit_code == 0, made.output
    for line in ("--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--partition=gpu", "--requeue"):
        assert f"#SBATCH {line}" in made.output
    assert "--signal=USR1@300" in made.output
    assert "runs/a --parallel fsdp" in made.output
    checked = subprocess.run(["bash", "-n"], input=made.output, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
