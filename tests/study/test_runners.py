"""Would catch: lost steps after a worker's death, work repeated on a second run, a failure that stops its neighbors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from speechscale.errors import DataError, StaleStep
from speechscale.study import runners
from speechscale.study.devices import resolved, share_out
from speechscale.study.runners import locked, run_graph, step_states, take_device, topological, with_inputs
from speechscale.study.steps import Step

TOY = "tests.study.toy"


def step(name: str, value: float = 1.0, function: str = "write", inputs: tuple[str, ...] = (), **more: object) -> Step:
    summary = bool(more.pop("summary", False))
    return Step(
        name=name, function=f"{TOY}:{function}", config={"value": value, **more}, inputs=inputs, summary=summary
    )


def chain(value: float = 1.0) -> list[Step]:
    return [step("c", inputs=("a", "b")), step("a", value), step("b"), step("end", inputs=("c",), summary=True)]


def test_results_flow_and_the_second_run_does_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    first = run_graph(chain(), tmp_path, jobs=2, say=lines.append)
    assert set(first.done) == {"a", "b", "c", "end"}
    assert (tmp_path / "c" / "value.txt").read_text() == "3.0"
    assert any("[4/4]" in line for line in lines)
    second = run_graph(chain(), tmp_path, jobs=2, say=lines.append)
    assert second.done == ()
    assert set(second.kept) == {"a", "b", "c", "end"}


def test_a_changed_recipe_is_refused_before_any_work(tmp_path: Path) -> None:
    run_graph(chain(), tmp_path, jobs=1, say=str)
    with pytest.raises(StaleStep, match=r"value: 1\.0 -> 5\.0"):
        run_graph(chain(5.0), tmp_path, jobs=1, say=str)
    assert step_states(chain(5.0), tmp_path)["a"] == "stale"


def test_a_failure_blocks_its_users_only_and_the_summary_still_comes(tmp_path: Path) -> None:
    steps = [
        step("bad", function="fail"),
        step("user", inputs=("bad",)),
        step("ok"),
        step("sum", inputs=("ok", "user"), summary=True),
    ]
    outcome = run_graph(steps, tmp_path, jobs=2, say=str)
    assert set(outcome.done) == {"ok", "sum"}
    assert outcome.blocked == ("user",)
    assert "item 7 is broken" in outcome.failed["bad"]
    mended = [step("bad"), *steps[1:]]
    outcome = run_graph(mended, tmp_path, jobs=2, say=str)
    assert set(outcome.done) == {"bad", "user", "sum"}, "the summary is redone when an input has come"
    assert (tmp_path / "sum" / "value.txt").read_text() == "4.0"


def test_a_killed_worker_is_replaced_and_its_step_tried_again(tmp_path: Path) -> None:
    steps = [step("a", function="die_once", marker=str(tmp_path / "marker")), step("b"), step("c", inputs=("a", "b"))]
    lines: list[str] = []
    outcome = run_graph(steps, tmp_path / "out", jobs=1, say=lines.append)
    assert set(outcome.done) == {"a", "b", "c"}
    assert any("worker died in a" in line for line in lines)


def test_a_hanging_worker_is_stopped_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "PATIENCE_S", 4.0)
    monkeypatch.setattr(runners, "PATIENCE_FACTOR", 0.0)
    steps = [step("hangs", function="slow", seconds=3600), step("ok")]
    outcome = run_graph(steps, tmp_path, jobs=2, say=str)
    assert set(outcome.done) == {"ok"}
    assert "no answer within 4 s" in outcome.failed["hangs"]


def test_ctrl_c_keeps_finished_steps_and_leaves_no_worker(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; import sys; from speechscale.study.runners import run_graph; "
        "from speechscale.study.steps import Step; "
        f"T = '{TOY}'; "
        "steps = [Step(name='a', function=f'{T}:write', config={'value': 1}), "
        "Step(name='b', function=f'{T}:slow', config={'value': 1, 'seconds': 600}, inputs=('a',))]; "
        f"run_graph(steps, Path(r'{tmp_path}'), jobs=1, say=lambda line: print(line, flush=True))"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert "[1/2] a" in process.stdout.readline()
    time.sleep(1.0)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group gets it
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert (tmp_path / "a" / "record.json").is_file()
    assert not (tmp_path / "b").exists()
    deadline = time.monotonic() + 20
    while _group_lives(process.pid):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.2)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_workers_take_devices_and_a_killed_one_gives_its_own_back(tmp_path: Path) -> None:
    """Two steps that wait for each other: would hang if the successor of the killed worker found no place."""
    steps = [
        step("dies", function="die_once", marker=str(tmp_path / "marker")),
        *(step(name, function="meet", place=str(tmp_path / "place")) for name in ("meet1", "meet2")),
    ]
    outcome = run_graph(steps, tmp_path / "out", jobs=2, say=str, devices=["7", "9"])
    assert not outcome.failed
    assert {(tmp_path / "out" / name / "device.txt").read_text() for name in ("meet1", "meet2")} == {"7", "9"}


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cuda:x", "auto:0"])
def test_a_device_that_is_not_there_is_named_and_no_traceback(name: str) -> None:
    with pytest.raises(DataError, match=f"device '{name}'.*(allowed|give cpu or auto)"):
        resolved(name)
    assert resolved("cpu") == "cpu"


def test_a_worker_is_told_its_device_before_torch_is_there() -> None:
    code = "import sys; from speechscale.study.runners import begin_worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_more_workers_than_places_fail_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "SLOT_PATIENCE_S", 0.2)
    held: list[IO[str]] = []
    monkeypatch.setattr(runners, "_HELD", held)
    assert take_device(["3"], tmp_path) == "3"
    with pytest.raises(RuntimeError, match="no free device among 3"):
        take_device(["3"], tmp_path)
    held.pop().close()
    assert take_device(["3"], tmp_path) == "3"
    held.pop().close()


def test_places_on_gpus() -> None:
    assert share_out(None, 2, 16, ["0", "1"]) == (4, ["0", "1", "0", "1"])
    assert share_out(2, None, 16, ["0", "1"]) == (2, ["0", "1"])
    assert share_out(None, None, 16, []) == (16, [])
    with pytest.raises(DataError, match="--jobs 3: 1 GPUs with --per-gpu 1 have 1 places; take --per-gpu 3"):
        share_out(3, None, 16, ["0"])
    with pytest.raises(DataError, match="--per-gpu 2: there is no GPU here"):
        share_out(None, 2, 16, [])


@pytest.mark.parametrize("function", ["disk_full", "disk_full_wrapped"])
def test_a_full_disk_says_so(tmp_path: Path, function: str) -> None:
    outcome = run_graph([step("a", function=function)], tmp_path, jobs=1, say=str)
    assert outcome.failed == {"a": "the disk is full; free some space and run again"}


def test_two_runs_on_one_folder_are_refused(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(DataError, match="in use by another run"):
        run_graph([step("a")], tmp_path, jobs=1, say=str)


def test_graph_errors_are_named() -> None:
    with pytest.raises(DataError, match="'a' needs 'x', which no step makes"):
        topological([step("a", inputs=("x",))])
    with pytest.raises(DataError, match="circle"):
        topological([step("a", inputs=("b",)), step("b", inputs=("a",))])
    with pytest.raises(DataError, match="no step 'zzz'"):
        with_inputs(chain(), "zzz")
    assert {s.name for s in with_inputs([*chain(), step("d/x")], "c")} == {"a", "b", "c"}
    assert {s.name for s in with_inputs([*chain(), step("d/x"), step("d/y")], "d")} == {"d/x", "d/y"}
