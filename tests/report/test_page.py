"""Would catch: a figure that drops an arm or its error bars, a page that runs foreign HTML or leaves the file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from speechscale.report import figures
from speechscale.report.numbers import short_count, short_flops
from speechscale.report.page import PartMaterial, Sample, metric_table, render, run_table
from speechscale.scaling.analysis.analyze import analyze
from speechscale.speech.audio import write_audio


@pytest.fixture
def runs() -> pd.DataFrame:
    """Two arms, three sizes, three budgets; one run diverged."""
    rows = []
    for arm, shift in (("textless", 0.0), ("interleaved", -0.2)):
        for size in (2e4, 5e4, 1e5):
            for budget in (1e11, 2e11, 4e11):
                loss = 2.5 + shift + 0.2 * (np.log10(size) - 4.7) ** 2 - 0.1 * np.log10(budget / 1e11)
                rows.append(
                    {
                        "part": "a",
                        "units": "mfcc",
                        "oracle_units": False,
                        "arm": arm,
                        "size": f"{size:g}",
                        "params_total": size + 5e3,
                        "params_non_embedding": size,
                        "budget_flops": budget,
                        "flops_exact": budget,
                        "flops_text_lm_exact": 1e11 if arm == "interleaved" else 0.0,
                        "tokens_seen": budget / size / 6,
                        "speech_hours_unique": 0.5,
                        "speech_epochs": 3.0,
                        "learning_rate": 4e-3,
                        "learning_rate_at_edge": False,
                        "seed": 0,
                        "loss_speech_final": loss,
                        "loss_speech_best": loss,
                        "loss_speech_se": 0.02,
                        "acc_facts_st_read": 0.9 if arm == "interleaved" else np.nan,
                        "acc_facts_st_read_se": 0.03,
                        "acc_facts_st_read_n": 100,
                        "acc_grammar_ss": 0.6,
                        "acc_grammar_ss_se": 0.04,
                        "acc_grammar_ss_n": 80,
                    }
                )
    return pd.DataFrame(rows)


def test_isoflop_figure_has_a_line_with_errors_for_every_arm_and_budget(runs: pd.DataFrame) -> None:
    figure = figures.isoflop_figure(runs, figures.arm_colors(["textless", "interleaved"]))
    assert figure is not None
    assert len(figure.data) == 2 * 2 * 3, "final and early-stopped, two arms, three budgets"
    assert all(list(trace.error_y.array) == [0.02] * 3 for trace in figure.data)


def test_envelope_takes_the_lowest_and_charges_the_text_lm(runs: pd.DataFrame) -> None:
    figure = figures.envelope_figure(runs, figures.arm_colors(["textless", "interleaved"]))
    assert figure is not None
    by_name = {trace.name: trace for trace in figure.data[:3]}
    lowest = runs[runs["arm"] == "textless"].groupby("budget_flops")["loss_speech_final"].min()
    assert list(by_name["textless"].y) == pytest.approx(list(lowest))
    assert list(by_name["interleaved, TextLM charged"].x) == pytest.approx([2e11, 3e11, 5e11])


def test_metric_columns_are_told_from_their_errors(runs: pd.DataFrame) -> None:
    assert figures.metric_columns(runs) == [("facts", "st", "read"), ("grammar", "ss", "")]


def test_tables_leave_unmeasured_cells_empty(runs: pd.DataFrame) -> None:
    table = metric_table(runs)
    row = next(r for r in table["rows"] if r[0] == "facts (read)")
    assert row[1:3] == ["speech->text", "100"]
    assert row[3:6] == ["", "", ""]
    assert row[6] == "0.90 ± 0.03"
    assert "text loss" not in run_table(runs)["header"], "a column without numbers is not shown"


@pytest.mark.parametrize(
    ("value", "text"), [(4e11, "4e11"), (2.13e18, "2.13e18"), (500.0, "500"), (9.9999999e19, "1e20"), (9996.0, "1e4")]
)
def test_short_flops(value: float, text: str) -> None:
    assert short_flops(value) == text


@pytest.mark.parametrize(("value", "text"), [(203_520, "204k"), (7.6e9, "7.6B"), (12, "12"), (999.6e6, "1B")])
def test_short_count(value: float, text: str) -> None:
    assert short_count(value) == text


def test_page_is_self_contained_and_escapes_what_it_shows(runs: pd.DataFrame, tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", np.zeros(160, np.float32), 16_000)
    evil = "<script>alert(1)</script>"
    material = PartMaterial(
        title=evil,
        facts={"corpus": evil},
        curves=[{"arm": "textless", "size": "s", "seed": 0, "tokens_seen": [1, 2], "loss": [2.0, 1.9]}],
        sweep=[],
        text_lms=[{"size": "s", "text loss": "1.0"}],
        samples={"story": [Sample(title="original", text=evil, audio=tmp_path / "a.wav")]},
    )
    study = {"study": {"question": evil, "name": "n", "paper": "", "seed": 0, "expect": ""}, "parts": {}}
    page = render(
        study=study,
        runs=runs,
        laws=analyze(runs, replicates=100),
        materials={"a": material},
        provenance={"machine": "m"},
        skips=[{"id": evil, "reason": "r"}],
    )
    body = re.sub(r"<script>.*?</script>|<script type.*?</script>", "", page, flags=re.DOTALL)
    assert evil not in body
    assert "&lt;script&gt;alert(1)" in body
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", body)
    assert "For the same speech loss" in page
    assert page.count("data:audio/wav;base64,") == 1


def test_numbers_that_round_up_to_the_next_unit_and_those_that_are_none() -> None:
    assert [short_count(x) for x in (9.996e8, 9.999e5, 999.7, 9.99e8)] == ["1B", "1M", "1k", "999M"]
    assert [short_flops(x) for x in (9.999e18, float("inf"))] == ["1e19", "inf"]
