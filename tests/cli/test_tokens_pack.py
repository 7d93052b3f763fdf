"""Catches settings of the wrong kind that are believed, outputs that are overwritten, and tracebacks for users."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from speechscale.cli import cli
from speechscale.records import UnitTable
from speechscale.tokens.packed_rows import PackedRows
from speechscale.tokens.store import build_store
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from tests.tokens.conftest import WORDS, random_table


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["tokens", *map(str, arguments)])


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack") / "out"
    vocabulary = Vocabulary.joint(build_text_tokenizer([" ".join(WORDS)], "words", 100), 20)
    vocabulary.save(folder / "vocabulary")
    table: UnitTable = random_table(60)
    build_store(folder / "store", vocabulary, table=table, texts=["tom likes jam"] * 30)
    return folder


def test_packs_what_build_left_or_its_store(out: Path, tmp_path: Path) -> None:
    first = run("pack", out, tmp_path / "a", "--context", 64, "--set", "speech_span=poisson(2)")
    assert first.exit_code == 0, first.output
    second = run("pack", out / "store", tmp_path / "b", "--context", 64, "--set", "speech_span=poisson(2)")
    assert second.exit_code == 0, second.output
    rows = PackedRows.open(tmp_path / "a", Vocabulary.load(out / "vocabulary"))
    assert rows.meta["recipe"]["interleave"] == {"speech_span": "poisson(2)"}
    assert f"{len(rows):,} rows of 64" in first.output
    for column in ("tokens", "row_offsets"):
        assert (tmp_path / "a" / f"{column}.bin").read_bytes() == (tmp_path / "b" / f"{column}.bin").read_bytes()


def test_spirit_lm_settings(out: Path, tmp_path: Path) -> None:
    laws = ["--set", "speech_span=uniform(2,3)", "--set", "text_span=uniform(3,6)"]
    both = [*laws, "--set", "share=expectation", "--set", "speech_share=none"]
    assert run("pack", out, tmp_path / "a", "--context", 64, *both).exit_code == 0
    assert "leave one out" in refused("pack", out, tmp_path / "b", *laws, "--set", "share=expectation")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("redraw_each_epoch=foo", "redraw_each_epoch 'foo': give true or false"),
        ("markers=1", "markers 1: give true or false"),
        ("speech_share=abc", "speech_share 'abc': give a number"),
        ("speech_share=none", "speech_share"),
        ("speech_span=3", "speech_span 3: give a text"),
        ("curriculum=[1]", "curriculum [1]: give a list of tables"),
        ("spech_share=0.5", "did you mean 'speech_share'?"),
        ('curriculum=[{"at": 0.0, "speech_share": 0.1}, {"at": 1.0, "speech_share": 0.3}]', "moves with the training"),
    ],
)
def test_bad_settings_are_named_and_leave_nothing(out: Path, tmp_path: Path, setting: str, said: str) -> None:
    assert said in refused("pack", out, tmp_path / "rows", "--context", 64, "--set", setting)
    assert not (tmp_path / "rows").exists()


def test_a_setting_twice(out: Path, tmp_path: Path) -> None:
    twice = ["--set", "speech_share=0.3", "--set", "speech_share=0.5"]
    assert "'speech_share' is given twice" in refused("pack", out, tmp_path / "rows", *twice)


def test_outputs_of_the_wrong_kind(out: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "file" in refused("pack", out, tmp_path / "file", "--context", 64)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("x")
    assert "holds other files" in refused("pack", out, tmp_path / "full", "--context", 64)
    assert "no token store" in refused("pack", tmp_path / "full", tmp_path / "rows")


def test_packed_rows_are_no_store(out: Path, tmp_path: Path) -> None:
    assert run("pack", out, tmp_path / "rows", "--stream", "text", "--context", 64).exit_code == 0
    assert "these are packed rows" in refused("stats", tmp_path / "rows")
    assert "all as written" in run("verify", tmp_path / "rows").output
    path = tmp_path / "rows" / "tokens.bin"
    path.write_bytes(path.read_bytes()[:-2] + b"zz")
    assert "tokens.bin: chunk 0" in refused("verify", tmp_path / "rows")
    path.write_bytes(b"")
    assert "truncated" in refused("verify", tmp_path / "rows")
    assert "these are packed rows" in refused("pack", tmp_path / "rows", tmp_path / "again")


def test_speech_without_times_says_what_to_do(tmp_path: Path, make_untimed: Callable[[], UnitTable]) -> None:
    vocabulary = Vocabulary.joint(build_text_tokenizer([" ".join(WORDS)], "words", 100), 20)
    vocabulary.save(tmp_path / "vocabulary")
    build_store(tmp_path / "store", vocabulary, table=make_untimed())
    said = refused("pack", tmp_path, tmp_path / "rows", "--context", 64)
    assert "words has a time" in said
    assert "speechscale align" in said
    assert run("pack", tmp_path, tmp_path / "rows", "--context", 64, "--set", "level=utterance").exit_code == 0


@pytest.fixture
def make_untimed() -> Callable[[], UnitTable]:
    return lambda: random_table(8, untimed=1.0)


def test_slamkit_tokens(tmp_path: Path) -> None:
    features = tmp_path / "features.jsonl"
    features.write_text(json.dumps({"units": [3, 4], "duration": [1, 2], "file_name": "a.flac"}) + "\n")
    done = run("slamkit", features, tmp_path / "tokens.jsonl")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "tokens.jsonl").read_text()) == {"file_name": "a.flac", "audio_repr": "<Un3><Un4>"}
    assert "1 of 1 lines" in done.output
    assert "exists" in refused("slamkit", features, tmp_path / "tokens.jsonl")
    assert "--method poisson" in refused("slamkit", features, tmp_path / "other.jsonl", "--share", 0.5)
