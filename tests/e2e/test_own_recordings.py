"""Would catch: verbs that work alone but not one after the other on recordings of people."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from speechscale.cli import cli
from speechscale.study.loading import load_study
from speechscale.study.recipes import run_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_recordings_become_aligned_encoded_and_trained_on(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="needs the extra 'align'")
    source, made = shared / "data" / "dev-ljspeech", tmp_path
    run("corpus", "import", source, made / "corpus", "--words", "none", "--splits", ".6,.2,.2", "--licence", "CC0")
    run("corpus", "validate", made / "corpus")
    assert "12 utterances" in run("align", made / "corpus", made / "aligned", "--workers", 2)
    run("corpus", "validate", made / "aligned", "--decode")
    run("units", "fit", made / "aligned", made / "tokenizer", "--clusters", 30)
    encoded = run("units", "encode", made / "aligned", made / "tokenizer", made / "units", "--workers", 2)
    assert "12 utterances" in encoded
    run("units", "convert", made / "units", made / "features.jsonl", "--from", "parquet", "--to", "slamkit")
    lines = [json.loads(line) for line in (made / "features.jsonl").read_text().splitlines()]
    assert len(lines) == 12
    study = load_study(
        "folder",
        {
            "corpus.kind": "corpus",
            "corpus.name": "lj",
            "corpus.path": str(made / "aligned"),
            "units.tokenizer": str(made / "tokenizer"),
            "units.clusters": 30,
            "grid.sizes": ["0.02M"],
            "grid.budgets_flops": [2e9],
            "vocoder.steps": 5,
            "fit.replicates": 100,
        },
    )
    outcome = run_study(study, made / "out", only=None, jobs=1, say=str)
    assert not outcome.failed
    runs = pd.read_csv(made / "out" / "runs.csv")
    assert runs["loss_speech_final"].notna().all()
