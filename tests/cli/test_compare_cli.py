"""Would catch arms mixed up on the command line, and a JSON file that says something else than the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from speechscale.cli import cli
from speechscale.scaling.laws import LossLaw

COLD = LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24)
WARM = LossLaw(E=1.73, A=12.0, B=34.4, alpha=0.25, beta=0.24)
"""Needs (12.0 / 13.9)^(1 / kappa) = 0.30 times the compute."""
COLUMNS = ("--n", "params", "--c", "flops", "--loss", "loss")


def rows(law: LossLaw, arm: str, seed: int, sizes: int = 6) -> pd.DataFrame:
    C = np.repeat(np.geomspace(1e18, 1e20, 5), sizes)
    N = law.optimum(C).params_opt * np.tile(np.geomspace(1 / 8, 8, sizes), 5)
    rng = np.random.default_rng(seed)
    loss = law.predict(N, C / 6 / N) * np.exp(0.002 * rng.standard_normal(len(C)))
    acc = 0.55 * (C / 1e18) ** 0.02 * np.exp(0.002 * rng.standard_normal(len(C)))
    return pd.DataFrame({"params": N, "flops": C, "loss": loss, "acc": acc, "arm": arm})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tables")
    cold, warm = rows(COLD, "cold", 1), rows(WARM, "warm", 2)
    cold.to_csv(path / "cold.csv", index=False)
    warm.to_csv(path / "warm.csv", index=False)
    pd.concat([cold, warm, rows(WARM, "third", 3)]).to_csv(path / "all.csv", index=False)
    return path


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["compare", *map(str, arguments), "--replicates", "200"])


def test_two_arms_of_one_table(folder: Path, tmp_path: Path) -> None:
    result = compare(
        folder / "all.csv", *COLUMNS, "--group", "arm", "--arms", "cold,warm", "--json", tmp_path / "out.json"
    )
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["sentence"] in result.output
    assert (record["a"], record["b"]) == ("cold", "warm")
    value = record["multiplier"]["value"]
    assert value["low"] < 0.30 < value["high"]
    assert "warm needs 0." in record["sentence"]


def test_the_baseline_turns_the_factor_over(folder: Path) -> None:
    result = compare(folder / "all.csv", *COLUMNS, "--group", "arm", "--arms", "cold,warm", "--baseline", "warm")
    assert result.exit_code == 0, result.output
    assert "cold needs 3." in result.output


def test_two_tables_by_run_only(folder: Path) -> None:
    result = compare(folder / "cold.csv", folder / "warm.csv", *COLUMNS, "--by", "run")
    assert result.exit_code == 0, result.output
    assert "times the compute of" in result.output
    assert "by budget" not in result.output


def test_a_metric_and_a_published_text_slope(folder: Path, tmp_path: Path) -> None:
    result = compare(
        folder / "cold.csv", "--n", "params", "--c", "flops", "--metric", "acc", "--text-slope",
        "cuervo-text-tstorycloze", "--json", tmp_path / "ratio.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "decades per decade" in result.output
    (found,) = json.loads((tmp_path / "ratio.json").read_text())["exponent_ratios"].values()
    assert found["ratio"]["low"] < 0.039 / 0.02 < found["ratio"]["high"]


def test_unlike_units_are_refused_multipliers_only(folder: Path) -> None:
    result = compare(folder / "cold.csv", folder / "warm.csv", *COLUMNS, "--unlike-units")
    assert result.exit_code == 0, result.output
    assert "not compared: loss multipliers" in result.output
    assert "exp_params" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("all.csv", "--group", "arm"), "has cold, warm, third; use --arms"),
        (("all.csv", "--group", "arm", "--arms", "cold"), "name two groups"),
        (("all.csv", "--group", "arm", "--arms", "cold,hot"), "no group 'hot'"),
        (("all.csv", "--group", "arm", "--arms", "cold,warm", "--baseline", "third"), "compared are cold and warm"),
        (("cold.csv",), "use --arms A,B, --group, or a TABLE2"),
        (("cold.csv", "--text-slope", "0.04"), "name it with --metric"),
    ],
)
def test_unclear_choices_are_explained(folder: Path, arguments, message) -> None:
    result = compare(folder / arguments[0], *COLUMNS, *arguments[1:])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_tables_of_several_arms_are_not_pooled(folder: Path) -> None:
    found = compare(folder / "all.csv", folder / "warm.csv", *COLUMNS)
    assert found.exit_code == 2
    assert "all.csv has several groups (cold, warm, third)" in found.output
