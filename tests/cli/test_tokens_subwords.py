"""Catches a command that trains on another split than asked, or reports what it did not write."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from speechscale.cli.tokens_subwords import subwords
from speechscale.corpus.unit_corpus import open_units
from speechscale.errors import DataError
from speechscale.files import write_json
from speechscale.records import UnitTableBuilder
from speechscale.speech.unit_files import write_units
from speechscale.speech.units import fit_tokenizer
from speechscale.tokens.subwords import Subwords

UNITS = 8


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts; the test split holds a pattern that the train split does not have."""
    folder = tmp_path_factory.mktemp("units")
    rng = np.random.default_rng(0)
    tokenizer = fit_tokenizer([rng.standard_normal(16_000)], encoder="mfcc", clusters=UNITS, seed=0)
    tokenizer.save(folder / "tokenizer")
    parts = {}
    for part in range(2):
        builder = UnitTableBuilder(frame_rate_hz=tokenizer.frame_rate_hz, num_units=UNITS)
        for row in range(20):
            split = "train" if row % 4 else "test"
            patterns = [[0, 1, 2], [3, 4]] if split == "train" else [[6, 7], [5]]
            row_units = np.concatenate([patterns[i] for i in rng.integers(0, 2, 30)])
            builder.add(
                id=f"{part}-{row}",
                speaker="a",
                split=split,
                text="",
                units=row_units,
                durations_frames=np.ones(len(row_units), np.int32),
                words=[],
                word_frames=np.zeros((0, 2), np.int32),
            )
        path = folder / "parts" / f"part-{part:05d}.parquet"
        write_units(path, builder.build(), tokenizer.fingerprint)
        parts[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    content = {"format": "speechscale unit corpus", "format_version": 1, "parts": parts, "info": {}}
    write_json(folder / "units.json", content)
    return folder


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_trains_on_the_split_and_reports_all(units: Path, kind: str, tmp_path: Path) -> None:
    out = tmp_path / "subwords.json"
    arguments = [str(units), str(out), "--kind", kind, "--size", "11", "--longest", "4"]
    done = CliRunner().invoke(subwords, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    made = Subwords.load(out)
    assert (made.kind, made.size, made.num_units) == (kind, 11, UNITS)
    assert {unit for piece in made.pieces for unit in piece} <= {0, 1, 2, 3, 4}
    table = open_units(units).table()
    train = sum(len(table.row_units(row)) for row, split in enumerate(table.splits) if split == "train")
    assert made.record["units_used"] == train
    assert made.record["split"] == "train"
    assert made.record["speech_tokenizer"] == open_units(units).tokenizer.fingerprint
    lines = {line.split()[0]: line.split() for line in done.output.splitlines() if line}
    assert [lines[name][1] for name in ("all", "train")] == [f"{len(table.units):,}", f"{train:,}"]
    assert lines["test"][3:5] == ["1.000", "1.000"]
    assert float(lines["train"][3]) > 1.5
    assert "1.73" in done.output


def test_all_splits_and_an_unknown_one(units: Path, tmp_path: Path) -> None:
    out = tmp_path / "subwords.json"
    arguments = [str(units), str(out), "--kind", "bpe", "--size", "14", "--longest", "3", "--split"]
    assert CliRunner().invoke(subwords, [*arguments, "all"], catch_exceptions=False).exit_code == 0
    assert (6, 7) in Subwords.load(out).pieces
    with pytest.raises(DataError, match=r"subwords\.json: exists; choose another output"):
        CliRunner().invoke(subwords, [*arguments, "all"], catch_exceptions=False)
    out.unlink()
    with pytest.raises(DataError, match="no utterance in split 'trian'; splits: test, train, all"):
        CliRunner().invoke(subwords, [*arguments, "trian"], catch_exceptions=False)
    few = [*arguments, "all", "--max-units", "300", "--size", "10"]
    assert CliRunner().invoke(subwords, few, catch_exceptions=False).exit_code == 0
    assert Subwords.load(out).record["units_used"] <= 300
