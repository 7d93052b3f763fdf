"""Would catch: a study that repeats work, loses runs after kill -9, depends on its workers, or phones home."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner

from speechscale.cli import cli
from speechscale.errors import DataError
from speechscale.evals.results import read_results
from speechscale.study.loading import load_study
from speechscale.study.recipes import clean_study, run_study, study_steps
from speechscale.study.runners import step_states
from speechscale.study.stages import read_texts

pytest.importorskip("espeakng_loader", reason="the debug study speaks its corpus: install the extra 'voices'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("debug") / "out"
    outcome = run_study(load_study("debug"), folder, only=None, jobs=2, say=str)
    assert not outcome.failed
    assert not outcome.blocked
    return folder


def test_second_run_does_no_work(done: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (done / "steps").rglob("record.json")}
    outcome = run_study(load_study("debug"), done, only=None, jobs=2, say=str)
    assert outcome.done == ()
    assert {p: p.stat().st_mtime_ns for p in (done / "steps").rglob("record.json")} == before


def test_every_cell_is_in_the_table_once(done: Path) -> None:
    runs = pd.read_csv(done / "runs.csv")
    cells = runs[["part", "arm", "size", "budget_flops", "seed"]]
    assert not cells.duplicated().any()
    assert len(runs) == 6 * 2 * 2 + 2
    spoken = runs[runs["arm"] != "text"]
    assert spoken["loss_speech_final"].between(0.5, 8).all()
    assert spoken["loss_speech_best"].notna().all()
    assert (runs.loc[runs["arm"].isin(["interleaved", "textless-warm"]), "flops_text_lm_exact"] > 0).all()
    assert (runs.loc[runs["arm"].isin(["textless", "text"]), "flops_text_lm_exact"] == 0).all()
    ratio = runs["flops_exact"] / runs["budget_flops"]
    assert ratio.between(0.99, 1.0 + 1e-9).all(), "the grid's budgets are exact FLOPs"


def test_losses_of_subwords_are_per_unit(done: Path) -> None:
    """Would catch a loss per piece, which is higher the more units a piece spells."""
    runs = pd.read_csv(done / "runs.csv")
    alone = runs[(runs["part"] == "mfcc") & runs["arm"].isin(["textless", "textless-subwords"])]
    units, pieces = (alone[alone["arm"] == arm] for arm in ("textless", "textless-subwords"))
    assert pieces["speech_units_seen"].gt(1.15 * pieces["tokens_seen"]).all()
    assert units["speech_units_seen"].le(1.02 * units["tokens_seen"] + 600).all()
    assert pieces["loss_speech_final"].mean() < 1.1 * units["loss_speech_final"].mean()


def test_the_report_needs_nothing_else(done: Path) -> None:
    page = (done / "report.html").read_text(encoding="utf-8")
    body = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", body), "a link leaves the file"
    assert "What was found" in page
    assert "these numbers say that the pipeline runs, not which arm is better" in page
    assert "data:audio/wav;base64," in page


def test_one_worker_gives_the_same_bytes_as_two(done: Path, tmp_path: Path) -> None:
    run_study(load_study("debug"), tmp_path / "out", only=None, jobs=1, say=str)
    for name in ("runs.csv", "laws.json", "skips.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (done / name).read_bytes(), name
    for path in sorted((done / "steps").rglob("units.parquet")):
        other = tmp_path / "out" / path.relative_to(done)
        assert other.read_bytes() == path.read_bytes(), path


def test_killed_at_any_moment_it_goes_on_to_the_same_table(done: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "speechscale",
        "study",
        "run",
        "debug",
        "--out",
        str(tmp_path / "out"),
        "--jobs",
        "2",
    ]
    for pause in (3.0, 6.5, 11.0):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1.5)  # its workers notice and leave
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "out" / "runs.csv").read_bytes() == (done / "runs.csv").read_bytes()


def test_speak_continues_text_and_audio(done: Path, tmp_path: Path) -> None:
    steps = done / "steps"
    run = next(
        path for path in sorted((steps / "run" / "mfcc").iterdir()) if path.name.startswith("interleaved-0.05M-4e09")
    )
    prompt = next((steps / "samples" / "mfcc").glob("*-original.wav"))
    story = next(read_texts(steps / "corpus" / "tiny" / "texts.parquet", "train"))
    for source in (["--text", story.split(".")[0] + "."], ["--prompt", str(prompt)]):
        out = tmp_path / f"said{source[0]}.wav"  # its own file: the first must not stand in for the second
        command = [sys.executable, "-m", "speechscale", "speak", str(run), *source, "--seconds", "1", "--out", str(out)]
        for seed in range(8):  # a model of a few steps may well end at once
            said = subprocess.run([*command, "--seed", str(seed)], capture_output=True, text=True)
            if said.returncode == 0:
                break
            assert "said nothing" in said.stderr, said.stderr
        assert said.returncode == 0, "eight seeds said nothing"
        audio, rate = soundfile.read(out)
        assert rate == 16_000
        assert len(audio) > 0.2 * rate


def test_its_runs_are_evaluated_and_compared(done: Path, tmp_path: Path) -> None:
    # Two models of one world: by the results each run left, and asked again by `eval run` on a benchmark made anew.
    runs = [done / f"steps/run/mfcc/{arm}-0.05M-4e09-s0" for arm in ("interleaved", "textless")]
    both = CliRunner().invoke(cli, ["eval", "compare", *map(str, runs)])
    assert both.exit_code == 0, both.output
    assert "comparisons were made" in both.output
    table = pd.read_csv(done / "runs.csv").query("part == 'mfcc' and arm == 'interleaved' and size == '0.05M'")
    saved = {(m["set"], m["direction"]): m for m in read_results(runs[0]).metrics if not m["tag"]}
    row = table[table["acc_facts_st"].notna()].iloc[-1]
    assert saved["facts", "st"]["estimate"] == pytest.approx(row["acc_facts_st"])
    assert saved["facts", "st"]["se"] == pytest.approx(row["acc_facts_st_se"])
    world = ("characters=12", "values_per_relation=3", "read_only_share=0.5", "pairs=4", "sets=facts+words")
    prepared = ["eval", "prepare", "storyworld", ".", str(tmp_path / "bench"), "--voice", "us-f3", "--together"]
    made = CliRunner().invoke(cli, [*prepared, *(word for option in world for word in ("--option", option))])
    assert made.exit_code == 0, made.output
    for number, run in enumerate(runs):
        out = str(tmp_path / str(number))
        asked = CliRunner().invoke(
            cli, ["eval", "run", str(run), str(tmp_path / "bench"), "--out", out, "--workers", "0"]
        )
        assert asked.exit_code == 0, asked.output
    found = {(m["set"], m["direction"]): m["n_items"] for m in read_results(tmp_path / "0").metrics if not m["tag"]}
    assert found == {("facts", d): 8 for d in ("ss", "st", "ts", "tt")} | {("words", "ss"): 8}
    again = CliRunner().invoke(cli, ["eval", "compare", str(tmp_path / "0"), str(tmp_path / "1")])
    assert again.exit_code == 0, again.output
    refused = CliRunner().invoke(cli, ["eval", "compare", str(runs[0]), str(tmp_path / "1")])
    assert refused.exit_code == 2, refused.output


def test_a_changed_study_is_refused_with_the_field(done: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "speechscale",
        "study",
        "run",
        "debug",
        "--out",
        str(done),
        "--set",
        "train.clip_norm=0.5",
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "train.clip_norm: 1.0 -> 0.5" in result.stderr
    assert "Traceback" not in result.stderr


def test_clean_removes_one_step_and_its_users_become_missing(done: Path, tmp_path: Path) -> None:
    run_study(load_study("debug"), tmp_path / "out", only="corpus", jobs=1, say=str)
    assert clean_study(tmp_path / "out", "corpus/tiny") == 1
    assert step_states(study_steps(load_study("debug")), tmp_path / "out" / "steps")["corpus/tiny"] == "missing"
    with pytest.raises(DataError, match="not the folder of a study"):
        clean_study(tmp_path, None)
    assert clean_study(tmp_path / "out", None) == 0
    assert not (tmp_path / "out").exists()
