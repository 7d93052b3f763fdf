"""Would catch: a pipeline that only runs on its own synthetic speech."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from speechscale.study.loading import load_study
from speechscale.study.recipes import run_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SMALL: dict[str, Any] = {
    "grid.sizes": ["0.02M"],
    "grid.budgets_flops": [2e9],
    "vocoder.steps": 5,
    "fit.replicates": 100,
}


@pytest.mark.parametrize("name", ["dev-ljspeech", "dev-librivox-aligned"])
def test_real_recordings_run_to_the_report(shared: Path, tmp_path: Path, name: str) -> None:
    study = load_study("folder", {**SMALL, "corpus.path": str(shared / "data" / name)})
    outcome = run_study(study, tmp_path / "out", only=None, jobs=1, say=str)
    assert not outcome.failed
    runs = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert set(runs["arm"]) == {"textless", "interleaved"}
    assert runs["loss_speech_final"].notna().all()
    verdict = json.loads((tmp_path / "out" / "laws.json").read_text())["verdict"]
    assert any("Trained on only" in sentence for sentence in verdict["limits"])


def test_bad_recordings_are_skipped_with_reasons_and_the_study_goes_on(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    shutil.copytree(shared / "data" / "dev-librivox-aligned", folder)
    good = next(folder.glob("*.wav"))
    (folder / "zero.wav").write_bytes(b"")
    (folder / "zero.txt").write_text("nothing is said here")
    (folder / "silent.wav").write_bytes(good.read_bytes()[:46])
    (folder / "silent.txt").write_text("nothing either")
    shutil.copy(good, folder / "untold.wav")
    study = load_study("folder", {**SMALL, "corpus.path": str(folder)})
    outcome = run_study(study, tmp_path / "out", only=None, jobs=1, say=str)
    assert not outcome.failed
    skips = [json.loads(line) for line in (tmp_path / "out" / "skips.jsonl").read_text().splitlines()]
    assert {skip["id"].removesuffix(".wav") for skip in skips} >= {"zero", "silent", "untold"}
    assert all(skip["reason"] and skip["remedy"] for skip in skips)
