"""Would catch a traceback or a numpy warning (an error here) where a table of runs is odd: each command answers, or
refuses with one message and exit code 2, and what it writes holds no "nan"."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from speechscale.cli import cli
from speechscale.scaling.laws import LossLaw

SPEECH = LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24)


def runs(seed: int = 0) -> pd.DataFrame:
    """Six sizes at each of four budgets."""
    C = np.repeat(np.geomspace(1e18, 1e20, 4), 6)
    N = SPEECH.optimum(C).params_opt * np.tile(np.geomspace(1 / 8, 8, 6), 4)
    loss = SPEECH.predict(N, C / 6 / N) * np.exp(0.003 * np.random.default_rng(seed).standard_normal(len(C)))
    return pd.DataFrame({"params": N, "tokens": C / 6 / N, "loss": loss})


ODD: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "constant losses": lambda table: table.assign(loss=2.0),
    "losses that rise": lambda table: table.assign(loss=5 - table["loss"]),
    "losses of 1e300": lambda table: table.assign(loss=table["loss"] * 1e300),
    "one run of all rows": lambda table: table.assign(run_name="r"),
    "two runs": lambda table: table.head(2),
    "one size": lambda table: table.assign(params=1e8),
    "one compute": lambda table: table.assign(tokens=1e19 / 6 / table["params"]),
    "scores of 0 and 1": lambda table: table.assign(zero=0.0, one=1.0),
    "a score of one run": lambda table: table.assign(acc=[0.6] + [np.nan] * 23),
    "no finite loss": lambda table: table.assign(loss=np.nan),
}


@pytest.mark.parametrize("kind", ODD)
def test_every_command_answers_or_refuses(kind: str, tmp_path: Path) -> None:
    path, plain = tmp_path / "odd.csv", tmp_path / "plain.csv"
    table = ODD[kind](runs())
    table.to_csv(path, index=False)
    runs(1).to_csv(plain, index=False)
    out = {name: tmp_path / name for name in ("fit.json", "fit.csv", "fit.html", "compare.json", "compare.html")}
    common = ["--replicates", "100"]
    extra = [word for name in table if name in ("zero", "one", "acc") for word in ("--metric", name)]
    for command in (
        ["fit", path, *common, *extra, "--json", out["fit.json"], "--csv", out["fit.csv"], "--html", out["fit.html"]],
        ["compare", path, plain, *common, "--json", out["compare.json"], "--html", out["compare.html"]],
        ["check", path, "--at", "1e22"],
        ["plan", "--budget", "1e19", "--table", path],
        ["power", "--redo", path, "--law", "cuervo-speech", "--sweeps", "20", "--replicates", "20"],
    ):
        found = CliRunner().invoke(cli, [str(word) for word in command])
        assert isinstance(found.exception, SystemExit | None), f"{command[0]}: {found.exception!r}"
        assert found.exit_code in (0, 2)
        assert found.exit_code == 0 or "error: " in found.output.lower()
    for path in out.values():
        if path.suffix == ".json" and path.exists():
            json.loads(path.read_text(), parse_constant=pytest.fail)
        elif path.suffix == ".csv" and path.exists():
            assert not re.search(r"\bnan\b", path.read_text())
