"""Would catch a report that loses its cautions, a file that is not what it says, or an error without a remedy."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from speechscale.cli import cli
from speechscale.cli.fit import LAWS, OBJECTIVES
from speechscale.report.laws_formats import _tex_number
from speechscale.scaling.fitting.forms import FORMS
from speechscale.scaling.fitting.newton import KINDS
from speechscale.scaling.laws import LossLaw

SPEECH = LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, parts = np.random.default_rng(0), []
    for arm, factor in (("text_less <b>", 1.0), ("inter & leaved", 0.5)):
        C = np.repeat(np.geomspace(1e18, 1e20, 5), 8)
        N = SPEECH.optimum(C).params_opt * np.tile(np.geomspace(1 / 8, 8, 8), 5)
        D = C / 6 / N
        loss = SPEECH.predict(N / factor**0.5, D / factor**0.5) * np.exp(0.003 * rng.standard_normal(len(C)))
        parts.append(
            pd.DataFrame({"arm": arm, "N (M)": N / 1e6, "tokens_B": D / 1e9, "loss": loss, "acc": 90 - 15 * loss})
        )
    frame = pd.concat(parts, ignore_index=True)
    frame.loc[3, "loss"] = np.nan
    path = tmp_path_factory.mktemp("fit") / "runs.csv"
    frame.to_csv(path, index=False)
    return path


def run(*arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(cli, ["fit", *map(str, arguments)])
    return found.exit_code, found.output


@pytest.fixture(scope="module")
def written(table: Path) -> tuple[Path, str]:
    out = table.parent
    code, text = run(
        table, "--group", "arm", "--metric", "acc", "--replicates", 100, "--at", "1e21",
        "--json", out / "law.json", "--markdown", out / "law.md", "--csv", out / "law.csv",
        "--latex", out / "law.tex", "--html", out / "law.html", "--skips", out / "skips.jsonl",
    )  # fmt: skip
    assert code == 0, text
    return out, text


def test_the_terminal_says_how_the_table_was_read_and_what_weakens_the_law(written: tuple[Path, str]) -> None:
    _, text = written
    for part in (
        "79 runs in 2 arm(s)",
        "read as",
        "80 rows read, 1 left out",
        "=== text_less <b> ===",
        "3 of 3 starts agree",
    ):
        assert part in " ".join(text.split())
    for heading in ("Optimum", "How the best size grows", "Held-out check", "Profiles", "Without the highest losses"):
        assert text.count(heading) == 2
    assert "extrapolates 10 times" in text
    assert "cuervo-speech" in text
    assert "acc ~ C^" in text
    assert "nan" not in text
    assert "None" not in text


def test_the_json_holds_laws_replicates_and_reasons(written: tuple[Path, str]) -> None:
    record = json.loads((written[0] / "law.json").read_text())
    assert record["format"] == "speechscale laws"
    first = record["laws"][0]
    assert first["name"] == "text_less <b>"
    assert len(first["replicates"]["alpha"]) == 100
    assert first["constants"]["exp_params"]["low"] < first["law"]["beta"] / (
        first["law"]["alpha"] + first["law"]["beta"]
    )
    assert first["fit"]["minimized"]["kind"] == "log-huber"
    assert first["skipped"][0]["row"] == 4
    assert first["rows_read"] == 80
    assert json.loads((written[0] / "skips.jsonl").read_text().splitlines()[0])["row"] == 4


def test_the_csv_has_every_number_with_its_interval(written: tuple[Path, str]) -> None:
    rows = list(csv.DictReader((written[0] / "law.csv").read_text().splitlines()))
    record = json.loads((written[0] / "law.json").read_text())
    for law in record["laws"]:
        for name, found in law["constants"].items():
            (row,) = [r for r in rows if r["arm"] == law["name"] and r["quantity"] == name]
            assert (float(row["value"]), float(row["low"]), float(row["high"])) == (
                found["value"],
                found["low"],
                found["high"],
            )
    assert {r["at_flops"] for r in rows if r["quantity"] == "params_opt"} >= {"1e+21"}


def test_the_paper_table_is_escaped_latex(written: tuple[Path, str]) -> None:
    text = (written[0] / "law.tex").read_text()
    assert r"text\_less \textless{}b\textgreater{}" in text
    assert r"inter \& leaved" in text
    assert r"\toprule" in text
    assert text.count(r" \\") == 1 + 2 * 2
    assert "40 runs" in text
    assert "C = 6 N D" in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert all(line.count(" & ") == 7 for line in body.strip().splitlines())


def test_the_page_is_self_contained_and_escaped(written: tuple[Path, str]) -> None:
    page = (written[0] / "law.html").read_text()
    assert "<b>" not in page.split("</script>", 1)[1]
    assert "text_less &lt;b&gt;" in page
    for name in ("f0-law", "f0-isoflop", "f0-approaches", "f0-profiles", "f0-residuals", "f1-metric-acc"):
        assert f'id="{name}"' in page
    assert "http" not in page.split("</script>", 1)[1].replace("http://www.w3.org", "")


def test_the_markdown_has_a_table_of_each_section(written: tuple[Path, str]) -> None:
    text = (written[0] / "law.md").read_text()
    assert r"## text\_less \<b>" in text
    assert text.count("### Optimum") == 2
    assert "| alpha |" in text


def test_the_choices_are_those_of_the_library() -> None:
    assert ("chinchilla", *FORMS) == LAWS
    assert tuple(KINDS) == OBJECTIVES


def test_equal_seeds_give_equal_bytes(table: Path, tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        assert run(table, "--group", "arm", "--replicates", 100, "--json", tmp_path / name)[0] == 0
        texts.append((tmp_path / name).read_bytes())
    assert texts[0] == texts[1]


def test_forms_and_refusals(table: Path) -> None:
    code, text = run(table, "--group", "arm", "--law", "kaplan", "--replicates", 100, "--no-hold-out")
    assert code == 0
    assert "alpha_N" in text
    code, text = run(table, "--group", "arm", "--law", "repeat")
    assert code == 0
    assert "--col unique_tokens=COLUMN" in text
    code, text = run(table, "--loss", "los")
    assert code == 2
    assert "did you mean 'loss'" in text
    code, text = run(table, "--base", "cuervo-speach", "--law", "repeat")
    assert code == 2
    assert "cuervo-speech" in text


def test_the_paper_table_takes_numbers_without_an_end(table: Path, tmp_path: Path) -> None:
    """Kaplan's Nc and Dc may be infinite in replicates; an arm that is not fitted must not word the caption."""
    assert [_tex_number(x) for x in (float("inf"), 9999.96, 9.9996e5, 0.0123)] == [
        r"$\infty$",
        r"$1\times 10^{4}$",
        r"$1\times 10^{6}$",
        "0.0123",
    ]
    frame = pd.read_csv(table)
    alone = pd.concat([frame.iloc[:1].assign(arm="alone"), frame])
    alone.to_csv(tmp_path / "three.csv", index=False)
    code, text = run(tmp_path / "three.csv", "--group", "arm", "--replicates", 100, "--latex", tmp_path / "t.tex")
    assert code == 0, text
    written = (tmp_path / "t.tex").read_text()
    assert "not fitted" in written
    assert "objective log-huber" in written
    assert "intervals ()" not in written


@pytest.mark.parametrize("flops", ["-1e20", "0"])
def test_a_compute_that_is_none_is_refused(table: Path, flops: str) -> None:
    code, text = run(table, "--group", "arm", "--at", flops)
    assert code == 2
    assert flops in text
