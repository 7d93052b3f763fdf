"""`speechscale plan`: would catch a slow start, a missing verdict, and a traceback where a message belongs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from speechscale.cli import cli
from speechscale.scaling.published import get_law


def test_works_with_no_data_at_all_and_at_once(tmp_path: Path) -> None:
    began = time.process_time()
    result = CliRunner().invoke(cli, ["plan", "--gpus", "8xH100", "--hours", "24", "--json", str(tmp_path / "p.json")])
    assert time.process_time() - began < 1.5
    assert result.exit_code == 0, result.output
    assert "believe cuervo-speech most" in result.output
    assert "2.73e+20 FLOPs" in result.output
    assert "not bracketed" in result.output
    assert max(map(len, result.output.splitlines())) <= 120 + len("written: ") + len(str(tmp_path))
    saved = json.loads((tmp_path / "p.json").read_text())
    assert saved["format"] == "speechscale plan"
    assert saved["budget"]["flops"] == pytest.approx(2.73e20, rel=2e-3)


def test_imports_neither_torch_nor_pandas() -> None:
    code = "import sys; sys.argv = ['speechscale', 'plan', '--budget', '1e20']; from speechscale.cli import main\n"
    code += "try: main()\nexcept SystemExit as e: assert not e.code\n"
    code += "heavy = {'torch', 'transformers', 'pandas', 'plotly', 'scipy.optimize'} & set(sys.modules)\n"
    code += "assert not heavy, heavy"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_inventory_and_mixtures() -> None:
    words = "plan --budget 2e20 --data LibriLight --data mine:2000 --text-tokens 50B --mixture speech --mixture sims"
    result = CliRunner().invoke(cli, words.split())
    assert result.exit_code == 0, result.output
    assert "each hour interleaved once" in result.output
    assert "mixture sims" in result.output
    assert "optimum with this data" in result.output


def test_own_runs_are_fitted_on_the_spot(tmp_path: Path) -> None:
    law = get_law("cuervo-speech").law
    rows = [
        (N, D, law.predict(N, D)) for C in (1e16, 1e17, 1e18) for N in law.optimum(C).params_opt * np.array([0.2, 1, 5])
        for D in [C / 6 / N]
    ]  # fmt: skip
    table = tmp_path / "runs.csv"
    table.write_text("N,D,loss\n" + "".join(",".join(map(repr, map(float, row))) + "\n" for row in rows))
    words = ["plan", "--budget", "5e17", "--table", str(table), "--n", "N", "--d", "D", "--loss", "loss"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert "runs.csv most: own fit" in " ".join(result.output.split())
    assert "(own fit)" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "nothing given"),
        ("--gpus 8xH900 --hours 2", "unknown"),
        ("--budget 1e20 --data LibriLigth", "did you mean LibriLight"),
        ("--budget twelve", "is not a number"),
        ("--budget 1e20 --mixture sims --data LibriLight", "--text-tokens"),
        ("--budget 1e20 --n size", "--table"),
        ("--budget 1e20 --from nowhere.json", "the file is missing"),
    ],
)
def test_messages(words: str, message: str) -> None:
    result = CliRunner().invoke(cli, ["plan", *words.split()])
    assert result.exit_code == 2
    assert message in result.output
