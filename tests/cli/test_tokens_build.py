"""Catches a command that builds something else than it says, or calls a damaged store whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from speechscale.cli import Verbs, cli
from speechscale.cli.tokens_build import build, verify
from speechscale.records import UnitTableBuilder
from speechscale.speech.unit_files import write_units
from speechscale.tokens.store import TokenStore
from speechscale.tokens.vocabulary import Vocabulary

GROUP = Verbs("tokens", {"build": "tokens_build:build", "verify": "tokens_build:verify"})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(GROUP, [str(argument) for argument in arguments])


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=8)
    for index in range(10):
        builder.add(
            id=f"u{index}",
            speaker="a",
            split="test" if index > 7 else "train",
            text="the cat sat",
            units=np.array([1, 2, 3]),
            durations_frames=np.array([2, 2, 2]),
            words=["the", "cat", "sat"],
            word_frames=np.array([[0, 2], [2, 4], [-1, -1]]),
        )
    write_units(tmp_path / "units.parquet", builder.build(), "a" * 64)
    (tmp_path / "tales.txt").write_text("a dog ran\n\nthe cat likes jam\n\n!\n")
    (tmp_path / "more.jsonl").write_text('{"text": "ann is home"}\n{"text": 3}\n')
    return tmp_path


def test_build_append_verify(corpora: Path) -> None:
    out = corpora / "out"
    made = run("build", out, "--units", corpora / "units.parquet", "--text", corpora / "tales.txt", "--split", "train")
    assert made.exit_code == 0, made.output
    assert "speech: 8 utterances, 24 units" in made.output
    assert "8 utterances with timed words, 24 words (8 without a time)" in made.output
    assert "tales.txt: 3 read, 3 kept, 0 dropped" in made.output
    assert "bytes per token" in made.output
    again = run("build", out, "--text", corpora / "more.jsonl", "--append")
    assert again.exit_code == 0, again.output
    assert "more.jsonl: 2 read, 1 kept, 1 dropped" in again.output
    assert "1 dropped: write the text there, or name another field" in again.output
    assert json.loads((out / "skips.jsonl").read_text())["id"] == "more.jsonl/2"
    vocabulary = Vocabulary.load(out / "vocabulary")
    store = TokenStore.open(out / "store", vocabulary, verify=True)
    assert vocabulary.decode(store.read("text", np.array([1])).flat.tolist()) == "the cat likes jam"
    for folder in (out, out / "store"):
        whole = run("verify", folder)
        assert whole.exit_code == 0, whole.output
        assert "all as written" in whole.output
    for name in ("units", "text_tokens"):
        path = out / "store" / f"{name}.bin"
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    broken = run("verify", out)
    assert broken.exit_code == 2
    assert broken.output.count("its SHA-256 differs") == 2
    assert "units.bin: chunk 0" in broken.output
    (out / "store" / "meta.json").unlink()
    missing = run("verify", out)
    assert (missing.exit_code, "no complete token store" in missing.output) == (2, True)


def test_vocabularies(corpora: Path) -> None:
    first = run("build", corpora / "bpe", "--text", corpora / "tales.txt", "--tokenizer", "bpe", "--text-size", 300)
    assert first.exit_code == 0, first.output
    bpe = Vocabulary.load(corpora / "bpe" / "vocabulary")
    assert (bpe.num_units, bpe.has_text) == (0, True)
    joint = run(
        "build", corpora / "joint", "--units", corpora / "units.parquet", "--tokenizer", corpora / "bpe" / "vocabulary"
    )
    assert joint.exit_code == 0, joint.output
    made = Vocabulary.load(corpora / "joint" / "vocabulary")
    assert (made.num_units, made.text_fingerprint) == (8, bpe.text_fingerprint)
    given = run(
        "build",
        corpora / "given",
        "--units",
        corpora / "units.parquet",
        "--vocabulary",
        corpora / "joint" / "vocabulary",
    )
    assert given.exit_code == 0, given.output
    assert Vocabulary.load(corpora / "given" / "vocabulary").fingerprint == made.fingerprint
    strict = run("build", corpora / "strict", "--text", corpora / "tales.txt", "--quality", "sims")
    assert strict.exit_code == 2
    nothing = run("build", corpora / "nothing")
    assert (nothing.exit_code, "give --units, --text, or both" in nothing.output) == (2, True)
    lost = run("build", corpora / "lost", "--text", corpora / "none.txt")
    assert (lost.exit_code, "no such file or folder" in lost.output) == (2, True)
    assert isinstance(cli, Verbs)
    assert build.name == "build"
    assert verify.name == "verify"
