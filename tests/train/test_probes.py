"""Would catch: probes that a resumed run loses or repeats, that count as training, or that make a folder another's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechscale.errors import DataError
from speechscale.report.run_curves import run_figures
from speechscale.report.run_files import read_runs
from speechscale.report.runs_page import write_runs_page
from speechscale.train.config import Runtime
from speechscale.train.dashboard import Dashboard
from speechscale.train.feed import unit_makers
from speechscale.train.job import TrainJob, load_job
from speechscale.train.logs import read_events
from speechscale.train.loop import Hooks
from speechscale.train.meter import Meter
from speechscale.train.parallel import SOLO
from speechscale.train.run import Options, prepare, run_job
from speechscale.train.stopping import StopRequest
from speechscale.train.writers import scalars
from tests.train.runs import train_small
from tests.train.test_job import job_table, make_data
from tests.train.toml import write_toml

CHECKS = 4


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


class Fake:
    """Stands for `study.probes.Probes`: a number from the weights, 50 ms, one note."""

    def __init__(self, slow: float = 0.0) -> None:
        self.told, self.slow = False, slow

    def __call__(self, model: Any, number: int, last: bool) -> Mapping[str, Any]:
        import time

        time.sleep(self.slow)
        size = float(next(model.parameters()).detach().abs().mean())
        return {"cloze": {"story_cloze": {"ss": {"estimate": size, "se": 0.01, "n": 8, "chance": 0.5, "last": last}}}}

    def notes(self) -> list[str]:
        fresh, self.told = [] if self.told else ["probe cloze: left out x: no words"], True
        return fresh


class StopAt(StopRequest):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def __call__(self) -> str:
        self.left -= 1
        return "asked to stop (test)" if self.left < 0 else ""


def run(store: Path, folder: Path, probe: Any = None, stop: StopRequest | None = None, **probes: Any) -> dict[str, Any]:
    table = job_table(store, train__checks=CHECKS) | {"probes": probes}
    options = Options(runtime=Runtime(save_every_tokens=300))
    return run_job(prepare(TrainJob.model_validate(table)), folder, SOLO, options, probe=probe, stop=stop)


def probed(folder: Path) -> list[tuple[int, Any]]:
    """(step, probes) of every check in the log."""
    events = read_events(folder / "metrics.jsonl")
    return [(event["step"], event["probes"]) for event in events if event["event"] == "check" and "probes" in event]


def test_a_resumed_run_keeps_the_history_of_its_probes(store: Path, tmp_path: Path) -> None:
    """Killed twice; the probes may be changed in between, since they change nothing that is trained."""
    whole = run(store, tmp_path / "whole", Fake())
    bare = run(store, tmp_path / "bare")
    for key in ("losses_final", "losses_best", "steps"):
        assert whole[key] == bare[key]
    task = {"cloze": {"benchmark": "b"}}
    assert run(store, tmp_path / "parts", Fake(), StopAt(6), **task)["interrupted"]
    assert run(store, tmp_path / "parts", Fake(), StopAt(3), **task)["interrupted"]
    last = run(store, tmp_path / "parts", Fake(), **task, more={"benchmark": "c"})
    assert last["losses_final"] == whole["losses_final"]
    assert len(probed(tmp_path / "whole")) == CHECKS
    assert probed(tmp_path / "parts") == probed(tmp_path / "whole")
    assert [found["cloze"]["story_cloze"]["ss"]["last"] for _, found in probed(tmp_path / "parts")] == [
        *[False] * (CHECKS - 1),
        True,
    ]
    assert "probes" not in json.loads((tmp_path / "parts" / "job.json").read_text())["job"]
    starts = [event for event in read_events(tmp_path / "parts" / "metrics.jsonl") if event["event"] == "start"]
    assert [set(event["probes"]) for event in starts] == [{"cloze"}, {"cloze"}, {"cloze", "more"}]


def test_what_a_probe_says_is_in_the_log(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path, Fake())
    events = read_events(tmp_path / "metrics.jsonl")
    assert [event["text"] for event in events if event["event"] == "note"] == ["probe cloze: left out x: no words"]
    check = next(event for event in events if event["event"] == "check")
    assert check["probe_seconds"] >= 0
    flat = scalars(check)
    assert flat["probe/cloze/story_cloze/ss/se"] == 0.01
    assert flat["probe/cloze/story_cloze/ss/estimate"] == check["probes"]["cloze"]["story_cloze"]["ss"]["estimate"]
    dashboard = Dashboard()
    dashboard(check)
    size = check["probes"]["cloze"]["story_cloze"]["ss"]["estimate"]
    assert re.search(rf"cloze/story_cloze/ss {size:.3f} ± 0.010 \(0\.0 s\)", dashboard.picture().plain)


def test_stores_say_whose_units_they_hold(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against them the tokenizer of a probe is checked; a store made without a tokenizer says nothing."""
    data = TrainJob.model_validate(job_table(store)).data
    assert data is not None
    assert unit_makers(data) == frozenset()
    monkeypatch.setattr("speechscale.train.feed.read_meta", lambda folder: {"speech_tokenizer": folder.name * 2})
    assert unit_makers(data) == {"storestore"}


def test_time_of_probes_is_told_apart_from_training(store: Path, tmp_path: Path) -> None:
    """Each check sleeps 0.15 s, far longer than a step: no step may seem slow, and the sum stands beside."""
    record = run(store, tmp_path, Fake(slow=0.15))
    assert record["probe_seconds"] >= CHECKS * 0.15
    events = read_events(tmp_path / "metrics.jsonl")
    steps = [event for event in events if event["event"] == "step"]
    assert steps[-1]["probe_seconds"] == pytest.approx((CHECKS - 1) * 0.15, abs=0.1)  # the last check comes after it
    assert record["gpu_hours"] * 3600 == pytest.approx(record["seconds"] + record["probe_seconds"])
    result, _ = train_small(SOLO, hooks=Hooks(probe=Fake(slow=0.15)))
    assert result.probe_seconds >= 3 * 0.15
    assert result.seconds < sum(report.seconds for report in result.history) + 0.15


def test_the_meter_leaves_probes_out_of_its_rates() -> None:
    from speechscale.model.peak import Peak
    from speechscale.train.step import StepReport

    now = [0.0]
    meter = Meter(
        tokens=1_000,
        every=1,
        flops_per_token=1.0,
        peak=Peak(flops_per_s=100.0, how="made up"),
        world=2,
        clock=lambda: now[0],
    )

    def step(number: int) -> dict[str, Any]:
        report = StepReport(
            step=number,
            tokens_seen=100 * number,
            loss=1.0,
            losses={"speech": 1.0},
            targets={"speech": 100},
            learning_rate=1.0,
            grad_norm=1.0,
            log_denominator_square=0.0,
        )
        event = meter.add(report)
        assert event is not None
        return event

    now[0] = 10.0
    first = step(1)
    assert "probe_seconds" not in first
    now[0] = 40.0
    meter.leave_out(30.0)
    now[0] = 50.0
    second = step(2)
    assert second["tokens_per_s"] == first["tokens_per_s"] == 10.0
    assert (second["seconds"], second["probe_seconds"]) == (20.0, 30.0)
    assert second["gpu_hours"] * 3600 == pytest.approx(2 * 50.0), "they are paid for"


def test_the_run_page_draws_probes_with_errors_and_chance(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "a", Fake())
    run(store, tmp_path / "b")
    runs = read_runs([tmp_path / "a", tmp_path / "b"])
    figure = next(drawn.figure for drawn in run_figures(runs, "tokens") if drawn.title == "Probes")
    (curve,) = figure.data
    assert list(curve.error_y.array) == [0.01] * CHECKS
    values = [found["cloze"]["story_cloze"]["ss"]["estimate"] for _, found in probed(tmp_path / "a")]
    np.testing.assert_allclose(curve.y, values)
    assert figure.layout.annotations[0].text == "cloze, story cloze, speech->speech"
    assert figure.layout.shapes[0].y0 == 0.5
    write_runs_page(tmp_path / "page.html", runs)
    assert "clustered on pairs" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        ({"-b": {"benchmark": "x"}}, "it names curves"),
        ({"a": {}}, "benchmark"),
        ({"a": {"benchmark": "x", "directions": ["sx"]}}, "directions"),
        ({"a": {"benchmark": "x", "items": 1}}, "items"),
    ],
)
def test_a_wrong_section_names_the_key(store: Path, tmp_path: Path, probes: dict[str, Any], message: str) -> None:
    write_toml(tmp_path / "job.toml", job_table(store) | {"probes": probes})
    with pytest.raises(DataError, match=message):
        load_job(tmp_path / "job.toml")
