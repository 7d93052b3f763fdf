"""Would catch: options that do not arrive, a refusal that is no message, files that are not written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from speechscale.cli import cli
from speechscale.evals.protocols import PROTOCOLS
from speechscale.evals.results import Stamp, write_results
from speechscale.evals.results import Tested as Benchmark
from tests.evals.made_results import choices, scored, write


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    sides = [scored("base", choices("+-" * 30)), scored("big", choices("+" * 60))]
    return [write(tmp_path / side.name, side) for side in sides]


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["eval", *map(str, words)])


def test_compare_two_folders(folders: list[Path], tmp_path: Path) -> None:
    out, page = tmp_path / "c.json", tmp_path / "c.html"
    done = run("compare", *folders, "--out", out, "--html", page)
    assert done.exit_code == 0, done.output
    assert "sblimp dev ss, speechscale: big is better by 50.0 [" in done.output
    saved = json.loads(out.read_text(encoding="utf-8"))
    assert saved["rows"][0]["difference"]["estimate"] == 0.5
    assert saved["rows"][0]["better"] == "b"
    assert saved["protocols"]["speechscale"]["ties"] == 0.5
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    first = out.read_bytes()
    run("compare", *folders, "--out", out)
    assert out.read_bytes() == first


def test_what_an_evaluation_writes_can_be_compared(tmp_path: Path) -> None:
    protocols = [PROTOCOLS["speechscale"], PROTOCOLS["sims"]]
    for name, text in (("base", "+-" * 20), ("big", "+" * 40)):
        items = [choice for protocol in protocols for choice in choices(text, protocol=protocol)]
        stamp = Stamp(model=name, model_sha256=name, params_total=9, vocabulary="v", speech_tokenizer=None)
        tested = Benchmark(task="sblimp", title="sBLIMP", sha256="d" * 64, items=40, dropped=0)
        write_results(tmp_path / name, items, {"sblimp": protocols}, stamp=stamp, benchmarks={"sblimp": tested})
    done = run("compare", tmp_path / "base", tmp_path / "big", "--replicates", 200)
    assert done.exit_code == 0, done.output
    assert "sblimp dev ss, speechscale: big is better by 50.0" in done.output
    assert "sblimp dev ss, sims: big is better by 50.0" in done.output
    assert "2 comparisons were made" in done.output
    table = run("table", tmp_path / "base", tmp_path / "big", "--protocol", "sims")
    assert "Protocol 'sims': log-likelihood of the whole sequence" in table.output
    assert "50.0 ± 8.0" in table.output


def test_compare_refuses_what_is_unlike(folders: list[Path], tmp_path: Path) -> None:
    other = write(tmp_path / "other", scored("other", choices("+" * 60), data="e" * 64))
    refused = run("compare", folders[0], other)
    assert refused.exit_code == 2
    assert "error: base and other were not measured alike: benchmark sblimp sha256" in refused.output
    allowed = run("compare", folders[0], other, "--allow-unlike")
    assert allowed.exit_code == 0
    assert "NOT ALIKE, allowed on request: benchmark sblimp sha256" in allowed.output
    twice = run("compare", folders[0], folders[0])
    assert twice.exit_code == 2
    assert "named twice" in twice.output


def test_models_of_one_name_are_told_apart_by_their_folders(folders: list[Path], tmp_path: Path) -> None:
    again = write(tmp_path / "again", scored("base", choices("+" * 60)))
    assert "sblimp dev ss, speechscale: again is better" in run("compare", folders[0], again).output


def test_compare_with_a_published_system(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "p.json"
    done = run("compare", folders[0], "published:sims 7b", "--out", out)
    assert done.exit_code == 0, done.output
    assert "50.0, printed 59.8: -9.8 [" in done.output
    assert "interval of our side alone" in done.output
    assert json.loads(out.read_text(encoding="utf-8"))["rows"][0]["printed"] == pytest.approx(0.598)
    assert "did you mean 'SIMS 7B'" in run("compare", folders[0], "published:SIMS 8B").output
    other = run("compare", folders[0], "published:SIMS 7B", "--protocol", "speechscale:normalization=sum")
    assert "speechscale:normalization=sum: 50.0, printed 59.8" in other.output
    wrong = run("compare", folders[0], "published:SIMS 7B", "--protocol", "simz")
    assert (wrong.exit_code, "protocol 'simz' is not known" in wrong.output) == (2, True)


@pytest.mark.parametrize(
    "option", [["--html", "p.html"], ["--tags"], ["--allow-unlike"], ["--seed", "0"], ["--level", "0.9"]]
)
def test_a_published_system_takes_no_option_of_paired_differences(folders: list[Path], option: list[str]) -> None:
    refused = run("compare", folders[0], "published:SIMS 7B", *option)
    assert refused.exit_code == 2
    assert f"{option[0]} is of paired differences" in refused.output


def test_tables(folders: list[Path], tmp_path: Path) -> None:
    text = run("table", *folders, "--published", "sBLIMP", "--system", "SIMS")
    assert text.exit_code == 0, text.output
    assert "Printed by others" in text.output
    assert "59.8" in text.output
    out = tmp_path / "t.html"
    assert run("table", *folders, "--format", "html", "--title", "Mine", "--out", out).exit_code == 0
    assert "<h1>Mine</h1>" in out.read_text(encoding="utf-8")
    assert run("table", *folders, "--format", "latex").output.startswith("\\begin{table}")
    assert "| base |" in run("table", *folders, "--format", "md", "--intervals").output
    wrong = run("table", *folders, "--protocol", "simz")
    assert (wrong.exit_code, "protocol 'simz' is not known" in wrong.output) == (2, True)
    assert run("table", *folders, "--system", "SIMS").exit_code == 2
    missing = run("table", tmp_path)
    assert (missing.exit_code, "results.json" in missing.output) == (2, True)
