"""Catches the verbs `units convert` and `units import-kmeans` losing records, counts or the reason of a refusal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from speechscale.cli import cli
from speechscale.speech.unit_files import read_units, unit_file_header
from speechscale.speech.units import SpeechTokenizer


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["units", *map(str, arguments)])


@pytest.fixture
def features(tmp_path: Path) -> Path:
    rows = [{"units": [1, 2], "duration": [3, 1], "file_name": "a"}, {"units": [9], "duration": [2], "file_name": "b"}]
    path = tmp_path / "features.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_convert_counts_what_it_did(features: Path, tmp_path: Path) -> None:
    out = tmp_path / "units.parquet"
    result = run(
        "convert",
        features,
        out,
        *["--from", "slamkit", "--to", "parquet", "--num-units", "10", "--frame-rate-hz", "25"],
    )
    assert result.exit_code == 0, result.output
    assert f"{out}: 2 read, 2 kept, 0 dropped; 3 units, 6 frames" in result.output
    table = read_units(out)
    assert (table.ids, table.units.tolist(), table.durations_frames.tolist()) == (["a", "b"], [1, 2, 9], [3, 1, 2])
    result = run("convert", out, tmp_path / "out.km", "--from", "parquet", "--to", "fairseq", "--expand")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out.km").read_text() == "1 1 1 2\n9 9\n"


def test_bad_lines_stop_or_are_written_down(features: Path, tmp_path: Path) -> None:
    features.write_text(features.read_text() + "{}\n")
    out, settings = tmp_path / "out", ["--from", "slamkit", "--to", "gslm"]
    result = run("convert", features, out, *settings)
    assert result.exit_code == 2
    assert f"error: {features}, line 3: 'units' is missing" in result.output
    assert not out.exists()
    result = run("convert", features, out, *settings, "--on-error", "skip")
    assert result.exit_code == 0, result.output
    assert "3 read, 2 kept, 1 dropped" in result.output
    (skip,) = (tmp_path / "out.skips.jsonl").read_text().splitlines()
    assert json.loads(skip)["id"] == f"{features}, line 3"
    assert out.read_text() == "a|1 2\nb|9\n"


def test_convert_refuses_to_lose_durations(features: Path, tmp_path: Path) -> None:
    result = run("convert", features, tmp_path / "out", "--from", "slamkit", "--to", "slamkit-tokens")
    assert result.exit_code == 2
    assert "--expand" in result.output
    assert "--drop-durations" in result.output
    result = run(
        "convert", features, tmp_path / "out", "--from", "slamkit", "--to", "slamkit-tokens", "--drop-durations"
    )
    assert result.exit_code == 0, result.output
    assert '"<Un1><Un2>"' in (tmp_path / "out").read_text()


@pytest.fixture
def centers(tmp_path: Path) -> Path:
    path = tmp_path / "km.npy"
    np.save(path, np.random.default_rng(0).normal(size=(10, 26)))
    return path


def test_import_kmeans_makes_a_tokenizer(centers: Path, features: Path, tmp_path: Path) -> None:
    """The folder loads, its units work, and unit files made with it carry its fingerprint."""
    sha = hashlib.sha256(centers.read_bytes()).hexdigest()
    result = run("import-kmeans", centers, tmp_path / "t", "--encoder", "mfcc", "--sha256", sha)
    assert result.exit_code == 0, result.output
    tokenizer = SpeechTokenizer.load(tmp_path / "t")
    assert f"fingerprint {tokenizer.fingerprint}" in result.output
    assert (tokenizer.fit["source_sha256"], tokenizer.frame_rate_hz, tokenizer.num_units) == (sha, 25.0, 10)
    (units,) = tokenizer.units([np.random.default_rng(1).normal(size=16_000).astype(np.float32)])
    assert len(units) == 25
    arguments = [features, tmp_path / "u", "--from", "slamkit", "--to", "parquet", "--tokenizer", tmp_path / "t"]
    assert run("convert", *arguments).exit_code == 0
    header = unit_file_header(tmp_path / "u")
    assert (header["tokenizer_sha256"], header["num_units"]) == (tokenizer.fingerprint, 10)
    result = run("convert", *arguments, "--num-units", 11)
    assert result.exit_code == 2
    assert "--num-units 11: the tokenizer" in result.output


def test_import_kmeans_refusals(centers: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        result = run("import-kmeans", *arguments)
        assert result.exit_code == 2, result.output
        assert result.output.startswith("error: ")
        return result.output

    out = tmp_path / "t"
    assert "expected 00" in refused(centers, out, "--encoder", "mfcc", "--sha256", "00" * 32)
    assert "encoder 'nope' is unknown" in refused(centers, out, "--encoder", "nope")
    assert "not JSON" in refused(centers, out, "--encoder", "mfcc", "--encoder-config", "{")
    assert "an object is needed" in refused(centers, out, "--encoder", "mfcc", "--encoder-config", "[]")
    np.save(tmp_path / "wide.npy", np.zeros((4, 27)))
    assert "makes 26 features per frame, the centroids have 27" in refused(
        tmp_path / "wide.npy", out, "--encoder", "mfcc"
    )
    assert not out.exists()
    assert run("import-kmeans", centers, out, "--encoder", "mfcc").exit_code == 0
    assert run("import-kmeans", centers, out, "--encoder", "mfcc").exit_code == 0
    np.save(centers, np.ones((10, 26)))
    assert "holds another tokenizer; choose another folder, e.g. kmeans-10x26-" in refused(
        centers, out, "--encoder", "mfcc"
    )


def test_rates_can_be_given_for_an_encoder_that_is_not_here(centers: Path, tmp_path: Path) -> None:
    rates = ["--frame-rate-hz", 50, "--sample-rate-hz", 16_000]
    result = run("import-kmeans", centers, tmp_path / "t", "--encoder", "theirs", *rates)
    assert result.exit_code == 0, result.output
    assert SpeechTokenizer.load(tmp_path / "t").frame_rate_hz == 50.0
