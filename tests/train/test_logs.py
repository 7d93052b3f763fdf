"""Would catch: numbers that change on their way through the file, steps that occur twice after a resume, a torn line
that stops a resume, a failing service that stops training, and a dashboard that shows other numbers or draws too often.
"""

from __future__ import annotations

import errno
import io
import itertools
import json
import math
import sys
import types
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from speechscale.errors import DataError, MissingExtra
from speechscale.train.dashboard import Dashboard, sparkline
from speechscale.train.logs import METRICS, RunLog, read_events
from speechscale.train.writers import IDENTITIES, WRITERS, open_writers, scalars


def step(number: int, **more: Any) -> dict[str, Any]:
    return {"step": number, "tokens_seen": 100 * number, "loss": 1 / number, **more}


class Recorder:
    """A sink that remembers, and fails at the event of the given number."""

    def __init__(self, fails_at: int = 99, name: str = "recorder") -> None:
        self.name, self.fails_at = name, fails_at
        self.events: list[dict[str, Any]] = []
        self.closed = 0

    def __call__(self, event: Mapping[str, Any]) -> None:
        if len(self.events) + 1 == self.fails_at:
            raise ConnectionError("no network")
        self.events.append(dict(event))

    def close(self) -> None:
        self.closed += 1


def steps_of(folder: Path) -> list[int]:
    return [event["step"] for event in read_events(folder / METRICS) if event["event"] == "step"]


def test_numbers_read_back_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = [*rng.standard_normal(200) * 10.0 ** rng.integers(-300, 300, 200), 0.1, 5e-324, 2.0**63, -0.0]
    with RunLog.open(tmp_path) as log:
        log.start({"config": {"lr": 3e-4, "betas": (0.9, 0.95), "name": "nan"}, "resumed_from": None})
        for number, value in enumerate(values, start=1):
            log.step({"step": number, "tokens_seen": 2**53 + number, "loss": value})
        log.check({"step": 9, "tokens_seen": 9, "losses": {"select": {"mean": math.nan, "low": -math.inf}}})
        log.stop({"reason": "inf", "step": 9, "tokens_seen": 9, "seconds": 1.5})
    start, *steps, check, stop = read_events(tmp_path / METRICS)
    assert [event["loss"] for event in steps] == values
    assert math.copysign(1, steps[-1]["loss"]) == -1
    assert steps[6]["tokens_seen"] == 2**53 + 7
    assert math.isnan(check["losses"]["select"]["mean"])
    assert check["losses"]["select"]["low"] == -math.inf
    assert start["config"] == {"lr": 3e-4, "betas": [0.9, 0.95], "name": "nan"}, "text stays text"
    assert stop["reason"] == "inf"
    for line in (tmp_path / METRICS).read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_arrays_tensors_and_paths_are_numbers_and_text_and_all_keys_pass(tmp_path: Path) -> None:
    recorder = Recorder()
    odd = {"a": np.float32(0.1), "b": torch.tensor(3), "c": np.int64(2**40), "d": [Path("x")], "e": True, "f": None}
    with RunLog.open(tmp_path, sinks=[recorder]) as log:
        log.step(step(1, **odd))
        with pytest.raises(TypeError, match="not object"):
            log.step(step(2, x=object()))
    (event,) = read_events(tmp_path / METRICS)
    assert event == {"event": "step", **step(1), "a": float(np.float32(0.1)), "b": 3, "c": 2**40, "d": ["x"], "e": True,
                     "f": None}  # fmt: skip
    assert recorder.events == [event]
    assert recorder.closed == 1


def test_each_line_is_on_disk_at_once(tmp_path: Path) -> None:
    with RunLog.open(tmp_path) as log:
        for number in range(1, 4):
            log.step(step(number, filler="x" * 20_000))
            assert steps_of(tmp_path) == list(range(1, number + 1))


@pytest.mark.parametrize("torn", [b"", b'{"event":"step","st', b"\0\0\0"])
def test_resume_drops_later_steps_and_a_torn_line(tmp_path: Path, torn: bytes) -> None:
    with RunLog.open(tmp_path) as log:
        log.start({"config": {}})
        for number in range(1, 8):
            log.step(step(number))
            if number in (4, 6):
                log.check({"step": number, "tokens_seen": 100 * number, "losses": {}})
                log.checkpoint({"step": number, "path": f"step-{number}", "seconds": 0.1})
        log.note("killed soon")
    before = (tmp_path / METRICS).read_bytes().splitlines()
    with (tmp_path / METRICS).open("ab") as file:
        file.write(torn)
    assert steps_of(tmp_path) == list(range(1, 8)), "a torn line does not hide the others"
    for resume_step in (4, 4):  # twice in a row
        with RunLog.open(tmp_path, resume_step=resume_step) as log:
            assert log.tokens_logged == 400
            log.start({"config": {}, "resumed_from": resume_step})
            for number in range(5, 10):
                log.step(step(number))
        assert steps_of(tmp_path) == list(range(1, 10))
    after = (tmp_path / METRICS).read_bytes().splitlines()
    assert after[:7] == before[:7], "what stays is not rewritten"
    events = read_events(tmp_path / METRICS)
    assert [event["step"] for event in events if event["event"] in ("check", "checkpoint")] == [4, 4]
    assert [event["event"] for event in events].count("note") == 1
    assert [event.get("tokens_logged") for event in events if event["event"] == "start"] == [0, 400, 400]
    assert [path.name for path in tmp_path.iterdir()] == [METRICS]


def test_resume_from_nothing_begins_anew(tmp_path: Path) -> None:
    with RunLog.open(tmp_path) as log:
        log.step(step(1))
    with pytest.raises(DataError, match="log of another run"):
        RunLog.open(tmp_path)
    with RunLog.open(tmp_path, resume_step=0) as log:
        assert log.tokens_logged == 0
        log.step(step(1))
    assert steps_of(tmp_path) == [1]


def test_a_kill_while_lines_are_dropped_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunLog.open(tmp_path) as log:
        for number in range(1, 6):
            log.step(step(number))
    before = (tmp_path / METRICS).read_bytes()

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("speechscale.files.os.fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            RunLog.open(tmp_path, resume_step=2)
    assert (tmp_path / METRICS).read_bytes() == before
    with RunLog.open(tmp_path, resume_step=2):
        assert steps_of(tmp_path) == [1, 2]


def test_one_log_has_one_writer(tmp_path: Path) -> None:
    with RunLog.open(tmp_path) as log:
        log.step(step(1))
        with pytest.raises(DataError, match="in use by another run"):
            RunLog.open(tmp_path, resume_step=1)
    RunLog.open(tmp_path, resume_step=1).close()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 2 is damaged"),
        ("[1]", "not an object"),
        ('{"event":"step","step":1}', "a step event without 'tokens_seen'"),
        ('{"event":"step","step":1.5,"tokens_seen":2}', "step = 1.5 is no whole number"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / METRICS).write_text('{"event":"start"}\n' + line + '\n{"event":"note","text":""}\n')
    with pytest.raises(DataError, match=message) as caught:
        read_events(tmp_path / METRICS)
    assert f"{tmp_path / METRICS}: line 2" in str(caught.value)
    with pytest.raises(DataError, match="the file is missing"):
        read_events(tmp_path / "none" / METRICS)


def test_a_full_disk_leaves_whole_lines_and_names_the_file(tmp_path: Path) -> None:
    class Full:
        """Takes 10 bytes, then none."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 10

        def write(self, data: memoryview) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.room = 0
            return self.file.write(data[:10])

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    log = RunLog.open(tmp_path)
    log.step(step(1))
    real = log._file
    log._file = Full(real)  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space left") as caught:
        log.step(step(2))
    assert caught.value.filename == str(tmp_path / METRICS)
    log._file = real
    log.step(step(3))
    log.close()
    assert steps_of(tmp_path) == [1, 3]


def test_a_failing_sink_is_told_once_and_harms_nothing(tmp_path: Path) -> None:
    bad, worse, good = Recorder(2, "bad"), Recorder(3, "worse"), Recorder(name="good")
    with RunLog.open(tmp_path, sinks=[bad, worse, good]) as log:
        log.step(step(1))
        with pytest.warns(RuntimeWarning, match="failed and is switched off") as warned:
            log.step(step(2))
        log.step(step(3))
    # The note of the first failure was the third event of the second sink.
    assert len(warned) == 2
    notes = [event["text"] for event in read_events(tmp_path / METRICS) if event["event"] == "note"]
    assert notes == [
        f"{name} failed and is switched off, training goes on (ConnectionError: no network)"
        for name in ("bad", "worse")
    ]
    assert steps_of(tmp_path) == [1, 2, 3]
    assert [event["step"] for event in good.events if event["event"] == "step"] == [1, 2, 3]
    assert (bad.closed, worse.closed, good.closed) == (1, 1, 1)


def test_a_sink_that_cannot_close_is_noted(tmp_path: Path) -> None:
    class Stuck(Recorder):
        def close(self) -> None:
            raise TimeoutError("upload")

    last = Recorder()
    with pytest.warns(RuntimeWarning, match="upload"), RunLog.open(tmp_path, sinks=[Stuck(), last]) as log:
        log.step(step(1))
    assert read_events(tmp_path / METRICS)[-1]["event"] == "note"
    assert last.closed == 1


CHECK = {"step": 2, "tokens_seen": 200, "losses": {"select": {"speech_per_unit": 0.5, "text_per_token": None}}}


def test_scalars_have_flat_names() -> None:
    event = {
        "event": "step",
        **step(2, tokens_total=400, tokens_by_modality={"text": 3}, z_loss=None, flag=True, s="x"),
    }
    assert scalars(event) == {"train/step": 2, "train/loss": 0.5, "train/tokens_by_modality/text": 3}
    check = {"event": "check", **CHECK, "probes": {"swuggy": 0.6}, "seconds": 1.0}
    assert scalars(check) == {"check/select/speech_per_unit": 0.5, "probe/swuggy": 0.6, "check/seconds": 1.0}


def log_run(folder: Path, names: list[str], steps: range, resume_step: int | None = None, **options: Any) -> None:
    with RunLog.open(folder, resume_step=resume_step, sinks=open_writers(names, folder, **options)) as log:
        log.start({"config": {"train": {"lr": 3e-4}}, "resumed_from": resume_step})
        for number in steps:
            log.step(step(number))
            if number == 2:
                log.check(CHECK)


def test_tensorboard_reads_back_what_was_logged_without_what_a_resume_repeats(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_run(tmp_path, ["tensorboard"], range(1, 6))
    log_run(tmp_path, ["tensorboard"], range(1, 5), resume_step=0)
    log_run(tmp_path, ["tensorboard"], range(4, 8), resume_step=3)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert found.Tags()["scalars"] == ["train/step", "train/loss", "check/select/speech_per_unit"]
    losses = found.Scalars("train/loss")
    assert [event.step for event in losses] == [100 * number for number in range(1, 8)]
    assert [event.value for event in losses] == [float(np.float32(1 / number)) for number in range(1, 8)]
    assert [(event.step, event.value) for event in found.Scalars("check/select/speech_per_unit")] == [(200, 0.5)]


class FakeService(types.ModuleType):
    """wandb or trackio: records the calls of their common API; `breaks` names the call that fails."""

    def __init__(self, breaks: str = "") -> None:
        super().__init__("service")
        self.calls: list[tuple[str, Any]] = []
        self.breaks = breaks

    def init(self, **options: Any) -> FakeService:
        return self._call("init", options)

    def log(self, data: dict[str, Any], step: int | None = None) -> None:
        self._call("log", (data, step))

    def finish(self) -> None:
        self._call("finish", None)

    def _call(self, name: str, value: Any) -> FakeService:
        if name == self.breaks:
            raise ConnectionError(f"no network for {name}")
        self.calls.append((name, value))
        return self


@pytest.mark.parametrize("service", ["wandb", "trackio"])
def test_a_resumed_run_goes_on_as_the_same_remote_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    fake = FakeService()
    monkeypatch.setitem(sys.modules, service, fake)
    folder = tmp_path / "arm-a"
    log_run(folder, [service], range(1, 3), project="ablations")
    log_run(folder, [service], range(3, 4), resume_step=2)
    log_run(folder, [service], range(3, 4), resume_step=2, project="ablations", run_name="arm-a")
    assert [name for name, _ in fake.calls] == ["init", "log", "log", "log", "finish", *["init", "log", "finish"] * 2]
    first, *later = [value for name, value in fake.calls if name == "init"]
    assert later == [first, first]
    known = json.loads((folder / IDENTITIES).read_text())[service]
    own = {"id": known["id"], "name": "arm-a", "dir": str(folder)} if service == "wandb" else {
        "name": f"arm-a-{known['id']}"
    }  # fmt: skip
    assert first == {"project": "ablations", "resume": "allow", "config": {"train": {"lr": 3e-4}}, **own}
    assert [value for name, value in fake.calls if name == "log"][1:3] == [
        ({"train/step": 2, "train/loss": 0.5}, 200),
        ({"check/select/speech_per_unit": 0.5}, 200),
    ]
    with pytest.raises(DataError, match="under project 'ablations', not 'other'"):
        open_writers([service], folder, project="other")


@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_a_service_without_network_does_not_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", FakeService(breaks=call))
    with pytest.warns(RuntimeWarning, match=f"writer 'wandb' failed .*no network for {call}") as warned:
        log_run(tmp_path, ["wandb"], range(1, 4))
    assert len(warned) == 1
    assert steps_of(tmp_path) == [1, 2, 3]
    assert sum(event["event"] == "note" for event in read_events(tmp_path / METRICS)) == 1


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_missing_package_is_told_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module = "torch.utils.tensorboard" if name == "tensorboard" else name
    monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]
    with pytest.raises(MissingExtra, match=rf"speechscale\[{name}\]"):
        open_writers([name], tmp_path)
    with pytest.raises(DataError, match="choose from tensorboard, wandb, trackio"):
        open_writers(["tensorbord"], tmp_path)
    assert list(tmp_path.iterdir()) == []


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


FULL = {
    "tokens_total": 10_000,
    "loss": 3.0,
    "loss_speech_per_unit": 3.25,
    "loss_text_per_token": 2.5,
    "learning_rate": 3e-4,
    "grad_norm": 0.75,
    "tokens_per_s": 999.0,
    "mfu": 0.41,
    "data_wait_share": 0.002,
    "gpu_hours": 0.5,
    "dollars": 1.25,
}


def play(board: Dashboard, clock: Clock, steps: range, tick: Callable[[int], None] = lambda number: None) -> None:
    """A step of 100 tokens each second."""
    for number in steps:
        clock.now = float(number)
        board({"event": "step", **step(number), **FULL, "seconds": float(number)})
        tick(number)


def test_a_log_gets_a_plain_line_every_ten_seconds_and_the_last() -> None:
    file, clock = io.StringIO(), Clock()
    board = Dashboard("run", console=Console(file=file), clock=clock)
    play(board, clock, range(1, 26))
    board({"event": "stop", "reason": "tokens", "step": 25, "tokens_seen": 2500, "seconds": 25.0})
    board.close()
    lines = file.getvalue().splitlines()
    shown = "2,000/10,000 tokens, 20%, 999/s, MFU 41.0%, loss 3.0000, speech 3.2500, text 2.5000"
    assert [line.split(",")[0] for line in lines] == ["run: step 10", "run: step 20", "run: step 25"]
    assert lines[1] == f"run: step 20, {shown}, about 80 s left", "8,000 tokens at the 100/s that were measured"
    assert lines[2].endswith("stopped after 25 s: tokens")


def test_time_left_goes_by_this_start_of_the_run() -> None:
    """A resumed run may be on another machine: its first half took 1000 s, now a step takes one."""
    clock = Clock()
    board = Dashboard(console=Console(file=io.StringIO()), clock=clock)
    board({"event": "step", **step(50), **FULL, "seconds": 1000.0})
    assert board.left_s == pytest.approx(5000 / 999.0)
    board({"event": "step", **step(60), **FULL, "seconds": 1010.0})
    assert board.left_s == pytest.approx(40.0)


def test_a_terminal_shows_everything() -> None:
    file, clock = io.StringIO(), Clock()
    board = Dashboard("run", console=Console(file=file, force_terminal=True, width=100, _environ={}), clock=clock)
    losses = {"speech_per_unit": 3.3, "speech_se": 0.021, "text_per_token": 2.9}
    play(board, clock, range(1, 51))
    board({"event": "check", "step": 40, "tokens_seen": 4000, "losses": {"select": losses}})
    board({"event": "checkpoint", "step": 40, "path": "runs/a/step-40", "seconds": 1.5})
    board({"event": "note", "text": "slow\x1b[31m disk\n"})
    board.close()
    picture = board.picture().plain
    for text in (
        "run  step 50  ████████████░░░░░░░░░░░░ 50.0% of 10,000 tokens  about 50 s left",
        "loss speech, per unit    3.2500",
        "999 tokens/s, MFU 41.0%, data wait 0.2%",
        "gradient norm 0.75, learning rate 0.0003",
        "50 s, 0.5 GPU-hours, 1.25 dollars",
        "step 40: select: speech 3.300 ± 0.021, text 2.900",
        "step 40: step-40 in 1.5 s",
        "note       slow [31m disk",
    ):
        assert text in picture, text
    assert "markers" not in picture, "this run has none"
    assert "50.0% of 10,000 tokens" in file.getvalue()
    assert "\x1b[?25h" in file.getvalue().rsplit("tokens", 1)[1], "the cursor is shown again"


def test_drawing_waits_as_long_as_it_is_dear() -> None:
    clock, drawn = Clock(), list[float]()
    board = Dashboard(console=Console(file=io.StringIO(), force_terminal=True, _environ={}), clock=clock)

    def slow() -> None:
        drawn.append(clock.now)
        clock.now += 0.002

    board._draw = slow
    for number in range(1, 1001):
        clock.now = max(clock.now, number / 100)
        board({"event": "step", **step(number)})
    assert len(drawn) == 5, "2 ms of every 2 s"
    assert min(b - a for a, b in itertools.pairwise(drawn)) >= 2.0


def test_sparklines_span_their_own_range() -> None:
    assert sparkline(deque([1.0, 4.5, 8.0])) == "▁▄█"
    assert sparkline(deque([2.0, 2.0])) == "▁▁"
    assert sparkline(deque([math.nan, 1.0, math.inf, 2.0])) == "!▁!█"
