"""Would catch: numbers in the table that are not those of the files, curves at the wrong place, runs mixed up, damaged
files that pass, a page that needs a network, and a reader that needs torch."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from speechscale.cli.train_plot import plot
from speechscale.errors import DataError
from speechscale.report.run_curves import POINTS, run_figures, smoothed
from speechscale.report.run_files import distinct_names, read_run, read_runs
from speechscale.report.runs_page import difference_rows, last_check_rows, summary_rows, write_runs_page
from speechscale.train.logs import METRICS, RunLog

EVIL = "</script><script>alert(1)</script>"


def write_run(folder: Path, *, rate: float = 3e-4, steps: int = 20, text: bool = True, ended: bool = True) -> Path:
    """A run of 100 tokens a step, checked every fifth; its lowest check is at step 10."""
    with RunLog.open(folder) as log:
        log.start(
            {
                "config": {"train": {"learning_rate": rate}, "name": EVIL},
                "params_total": 5_200_000,
                "params_non_embedding": 4_100_000,
                "device": "cpu",
                "precision": "bf16",
                "world": 1,
                "versions": {"torch": "2.13.0"},
                "resumed_from": None,
            }
        )
        for number in range(1, steps + 1):
            values: dict[str, Any] = {
                "step": number,
                "tokens_seen": 100 * number,
                "tokens_total": 2000,
                "loss": 2 + 1 / number,
                "loss_speech_per_unit": 3 + 1 / number,
                "learning_rate": rate,
                "grad_norm": 0.5,
                "tokens_by_modality": {"speech": 60 * number},
                "tokens_per_s": 50.0 + number % 3,
                "mfu": 0.4 + 0.01 * (number % 3),
                "data_wait_share": 0.001,
                "seconds": 2.0 * number,
                "flops_exact": 1e9 * number,
                "gpu_hours": number / 1800,
                "dollars": number / 900,
                "phase": "unknown words pass",
            }
            log.step(values | ({"loss_text_per_token": 1 + 1 / number} if text else {}))
            if number % 5 == 0:
                loss = 3 + abs(number - 10) / 100
                losses = {"speech_per_unit": loss, "speech_se": 0.0125, "speech_per_second": 20 * loss, "marker": 0.25}
                losses |= {"text_per_token": loss - 1} if text else {}
                sets = {"test": {**losses, "marker": 0.75}, "select": losses}
                log.check({"step": number, "tokens_seen": 100 * number, "losses": sets, "probes": {EVIL: 0.6}})
                log.checkpoint({"step": number, "path": f"step-{number}", "seconds": 0.1})
        log.note(f"a note {EVIL}")
        if ended:
            log.stop({"reason": "budget", "step": steps, "tokens_seen": 100 * steps, "seconds": 3600.0})
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    write_run(root / "warm")
    write_run(root / "textless", rate=6e-4, steps=12, text=False, ended=False)
    return root


def table(rows: list[list[str]]) -> list[dict[str, str]]:
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def test_the_table_holds_the_numbers_of_the_files(home: Path) -> None:
    runs = read_runs([home / "warm", home / "textless" / METRICS])
    warm, textless = table(summary_rows(runs))
    assert warm == {
        "run": "warm",
        "ended": "budget",
        "N": "5.2M",
        "N (non-emb.)": "4.1M",
        "D tokens": "2k",
        "of budget": "100.0%",
        "C exact": "2e10",
        "training loss": "2.0500",
        "speech, last check": "3.1000 ± 0.0125",
        "speech, lowest": "3.0000 ± 0.0125 at 1k",
        "text, last check": "2.1000",
        "text, lowest": "2.0000 at 1k",
        "hours": "1",
        "tokens/s": "51",
        "MFU": "41.0%",
        "GPU-hours": "0.0111",
        "dollars": "0.02",
    }
    assert textless["ended"] == "not ended"
    assert (textless["D tokens"], textless["of budget"], textless["hours"]) == ("1.2k", "60.0%", "0.00667")
    assert textless["training loss"] == f"{2 + 1 / 12:.4f}"
    assert textless["text, last check"] == textless["text, lowest"] == ""
    checks = table(last_check_rows(runs))
    assert [(row["run"], row["set"], row["step"], row["marker"]) for row in checks] == [
        ("warm", "test", "20", "0.7500"),
        ("warm", "select", "20", "0.2500"),
        ("textless", "test", "10", "0.7500"),
        ("textless", "select", "10", "0.2500"),
    ]
    assert checks[0]["per second"] == "62.0000"
    assert difference_rows(runs) == [["setting", "warm", "textless"], ["train.learning_rate", "0.0003", "0.0006"]]


class Reader(HTMLParser):
    """Cells of tables, and whatever a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.loads: list[str] = []
        self.scripts = 0
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "data", "action", "poster")]
        self.inside = tag == "td"
        self.scripts += tag == "script"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells.append(data)
            self.inside = False


def test_the_page_shows_the_tables_loads_nothing_and_escapes_all(home: Path, tmp_path: Path) -> None:
    runs = read_runs([home / "warm", home / "textless"])
    write_runs_page(tmp_path / "runs.html", runs, title=EVIL)
    text = (tmp_path / "runs.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    for rows in (summary_rows(runs), last_check_rows(runs), difference_rows(runs)):
        assert all(cell in reader.cells for row in rows[1:] for cell in row if cell)
    assert reader.loads == []
    assert text.count("Plotly.newPlot") - text.count(json.dumps("Plotly.newPlot")) >= 6
    assert reader.scripts == 1 + len(run_figures(runs, "tokens")), "plotly once, and one for each figure"
    assert escape(f"a note {EVIL}") in text
    assert EVIL not in text


def test_curves_lie_where_the_files_say(home: Path) -> None:
    runs = read_runs([home / "warm", home / "textless"])
    figures = {drawn.title: drawn.figure for drawn in run_figures(runs, "flops")}
    assert list(figures) == [
        "Training loss",
        "Validation loss: speech, nats per unit",
        "Validation loss: text, nats per token",
        "Probes",
        "Learning rate and gradient norm",
        "Speed",
    ]
    raw, mean = [trace for trace in figures["Training loss"].data if trace.name == "warm"][:2]
    assert np.allclose(raw.x, 1e9 * np.arange(1, 21), rtol=1e-12)
    assert list(raw.y) == [3 + 1 / number for number in range(1, 21)]
    assert (raw.opacity, mean.opacity) == (0.25, None)
    band, line = [t for t in figures["Validation loss: speech, nats per unit"].data if t.name == "textless"][:2]
    assert list(line.x) == [5e9, 10e9], "between logged steps, by tokens"
    assert list(line.y) == [3.05, 3.0]
    assert np.allclose(band.y, [3.05 + 0.0125, 3.0 + 0.0125, 3.0 - 0.0125, 3.05 - 0.0125])
    assert {trace.name for trace in figures["Validation loss: text, nats per token"].data} == {"warm"}
    for figure in figures.values():
        shown = [trace.name for trace in figure.data if trace.showlegend]
        assert len(shown) == len(set(shown)) == len({trace.name for trace in figure.data})
        colors = {(t.name, t.line.color) for t in figure.data if t.mode != "none"}
        assert len(colors) == len({name for name, _ in colors})
    for by, last in (("steps", 20), ("seconds", 40.0), ("tokens", 2000)):
        assert run_figures(runs[:1], by)[0].figure.data[0].x[-1] == last


def test_means_are_centered_and_long_runs_are_thinned_with_both_ends(tmp_path: Path) -> None:
    assert smoothed(np.array([1.0, 2.0, 6.0, math.inf, 2.0])).tolist() == [1.5, 3.0, 4.0, 4.0, 2.0]
    with RunLog.open(tmp_path) as log:
        log.start({"config": {}})
        for number in range(1, 3001):
            log.step({"step": number, "tokens_seen": number, "loss": float(number) if number != 1 else math.inf})
    (drawn,) = run_figures([read_run(tmp_path / METRICS, "a")], "steps")
    raw, _ = drawn.figure.data
    assert len(raw.x) == POINTS
    assert (raw.x[0], raw.x[-1]) == (1, 3000)
    assert math.isnan(raw.y[0])


def test_a_resumed_run_is_one_run_and_has_not_ended(tmp_path: Path) -> None:
    write_run(tmp_path / "a", steps=10)
    with RunLog.open(tmp_path / "a", resume_step=10) as log:
        log.start({"config": {}, "resumed_from": 10})
        log.step({"step": 11, "tokens_seen": 1100, "loss": 1.5})
    run = read_run(tmp_path / "a" / METRICS, "a")
    assert len(run.steps) == 11
    assert run.last_step["loss"] == 1.5
    assert (run.state, len(run.starts), run.start["params_total"]) == ("not ended", 2, 5_200_000)
    with RunLog.open(tmp_path / "a", resume_step=11) as log:
        log.stop({"reason": "SIGTERM", "step": 11, "tokens_seen": 1100, "seconds": 1.0})
        log.note("said after the end")
    assert read_run(tmp_path / "a" / METRICS, "a").state == "SIGTERM"


def test_a_run_that_only_began_is_fine(tmp_path: Path) -> None:
    with RunLog.open(tmp_path / "young") as log:
        log.start({"config": {"a": 1}})
        done = CliRunner().invoke(plot, [str(tmp_path / "young"), "--out", str(tmp_path / "x.html"), "--by", "flops"])
    assert done.exit_code == 0, done.output
    assert "not ended" in done.output
    assert (tmp_path / "x.html").exists()


STEP = '{"event":"step","step":%d,"tokens_seen":9,"loss":%s}'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([STEP % (1, 2.5)], "no start event"),
        (['{"event":"start"}', STEP % (1, '"much"')], "line 2: loss = 'much' is no number"),
        (['{"event":"start"}', STEP % (2, 1), STEP % (2, 1)], "line 3: step 2 comes after step 2; two runs wrote"),
        (['{"event":"start"}', '{"event":"check","step":1,"tokens_seen":9,"losses":[1]}'], "line 2: .*losses by name"),
        (['{"event":"start"}', "{"], "line 2 is damaged"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, lines: list[str], message: str) -> None:
    write_run(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / METRICS).write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=message) as caught:
        read_runs([tmp_path / "good", tmp_path / "bad"])
    assert str(tmp_path / "bad" / METRICS) in str(caught.value)


def test_other_mistakes_are_told(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the file is missing"):
        read_runs([tmp_path])
    with pytest.raises(DataError, match="named twice"):
        read_runs([home / "warm", home / "warm" / METRICS])
    with RunLog.open(tmp_path / "short") as log:
        log.start({"config": {}})
        log.step({"step": 1, "tokens_seen": 9, "loss": 1.0})
    with pytest.raises(DataError, match="no step has 'flops_exact'; choose another axis than --by flops"):
        write_runs_page(tmp_path / "x.html", read_runs([tmp_path / "short"]), by="flops")
    assert not (tmp_path / "x.html").exists()


def test_names_are_as_short_as_they_can_be() -> None:
    assert distinct_names([Path("/a/x"), Path("/a/y")]) == ["x", "y"]
    assert distinct_names([Path("/a/run"), Path("/b/run")]) == ["a/run", "b/run"]
    assert distinct_names([Path("/a/c/run"), Path("/b/c/run"), Path("/b/c/z")]) == ["a/c/run", "b/c/run", "b/c/z"]


def test_plots_need_no_torch(home: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from speechscale.cli.train_plot import plot\n"
        f"plot([{str(home / 'warm')!r}, '--out', {str(tmp_path / 'p.html')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "written:" in done.stdout
    assert (tmp_path / "p.html").stat().st_size > 1_000_000
