"""Would catch: a verb that does not do what its options say, a wrong exit code, a traceback where a message belongs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from speechscale.cli import cli
from tests.corpus.sources import sound, write_lines


def speechscale(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, ["corpus", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def recordings(root: Path) -> Path:
    rows = []
    for index in range(20):
        sound(root / f"wavs/u{index:02}.wav", 1.0, seed=index)
        rows.append({"path": f"wavs/u{index:02}.wav", "said": f"it is number {index}", "by": f"s{index % 10}"})
    rows.append({"path": "../evil.wav", "said": "x", "by": "s1"})
    return write_lines(root / "list.jsonl", rows)


def test_from_a_manifest_to_clean_splits(tmp_path: Path) -> None:
    source, one, two = recordings(tmp_path / "src"), tmp_path / "one", tmp_path / "two"
    done = speechscale(
        "import", source, one, "--map", "text=said", "--map", "speaker=by", "--splits", "none", "--licence", "CC0"
    )
    assert done.exit_code == 0, done.output
    assert "20 utterances (20 without split) from 21 items of format jsonl; 1 dropped" in done.output
    assert "../evil.wav' has '..' in its path" in done.output
    split = speechscale("split", one, two, "--by", "speaker+text", "--shares", ".6,.2,.2", "--seed", 1)
    assert split.exit_code == 0, split.output
    assert "train          12 utterances  60.0%  6 groups" in split.output
    checked = speechscale("validate", two, "--decode", "--workers", 2)
    assert checked.exit_code == 0, checked.output
    assert "20 utterances, 0.01 hours: 0 errors, 0 warnings" in checked.output
    counted = speechscale("stats", two, "--html", tmp_path / "page.html")
    assert counted.exit_code == 0
    assert "0.01 hours, 20 utterances, 80 words, 10 speakers, 20 different texts" in counted.output
    assert json.loads((two / "stats.json").read_text())["licences"]["CC0"]["utterances"] == 20
    assert "<svg" in (tmp_path / "page.html").read_text() or "plotly" in (tmp_path / "page.html").read_text()


def test_errors_give_exit_code_one_and_a_list(tmp_path: Path) -> None:
    source, out = recordings(tmp_path / "src"), tmp_path / "out"
    assert speechscale("import", source, out, "--map", "text=said").exit_code == 0
    (tmp_path / "src/wavs/u03.wav").write_bytes(b"")
    checked = speechscale("validate", out)
    assert checked.exit_code == 1
    assert "error          1  audio-unreadable: copy the audio again or drop the utterance" in checked.output
    assert "u03: audio wavs/u03.wav: the file has zero bytes" in checked.output.replace(f"{tmp_path}/src/", "")
    lines = [json.loads(line) for line in (out / "problems.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines if line["kind"] == "audio-unreadable"] == ["u03"]
    softer = speechscale("validate", out, "--warn", "audio-unreadable", "--out", tmp_path / "p.jsonl")
    assert softer.exit_code == 0
    assert (tmp_path / "p.jsonl").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["import", "nowhere", "out"], 2, "error: source nowhere: no such file or folder"),
        (["import", "nowhere", "out", "--map", "text"], 2, "is not OURS=THEIRS"),
        (["import", "nowhere", "out", "--splits", "most"], 2, "is not three shares"),
        (["validate", "nowhere"], 2, "speechscale corpus import SOURCE nowhere"),
        (["validate", "nowhere", "--warn", "taste"], 2, "'taste' is not one of audio-unreadable"),
        (["split", "nowhere", "out", "--shares", "1"], 2, "no corpus.json"),
        (["import", "--formats"], 0, "kaldi"),
    ],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = speechscale(*arguments)
    assert result.exit_code == code
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


def test_stop_ends_at_the_first_bad_item(tmp_path: Path) -> None:
    source = recordings(tmp_path / "src")
    result = speechscale("import", source, tmp_path / "out", "--map", "text=said", "--on-error", "stop")
    assert result.exit_code == 2
    assert "list.jsonl, line 21: audio '../evil.wav' has '..'" in result.output
