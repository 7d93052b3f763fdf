"""Would catch: options that do not arrive, a TextLM with other ids, an export that its own model cannot run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from speechscale.cli import cli
from speechscale.model.sizes import SIZES
from speechscale.model.slm import extend, new_model, save_model
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from tests.corpus.sources import write_lines

WORDS = ["the", "cat", "dog", "cow", "runs", "run", "sleeps", "sleep", "."]
VERBS = [("runs", "run"), ("sleeps", "sleep")]


def run(*words: object) -> Result:
    result = CliRunner().invoke(cli, ["eval", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TextLM, an SLM made of it, and a benchmark of texts alone."""
    root = tmp_path_factory.mktemp("text")
    joint = Vocabulary.joint(build_text_tokenizer([" ".join(WORDS)]), 5)
    text_lm = new_model(SIZES["0.02M"], joint.text_size, 64, seed=0)
    for name, model, vocabulary in (
        ("lm", text_lm, joint.text_subset()),
        ("slm", extend(text_lm, joint.text_size, joint.size, seed=0), joint),
    ):
        save_model(model, root / name)
        vocabulary.save(root / name)
    rows = [
        {
            "sentence_good": f"The {animal} {good}.",
            "sentence_bad": f"The {animal} {bad}.",
            "UID": "agreement",
            "pairID": f"{animal}-{good}",
            "linguistics_term": "agreement",
        }
        for animal in ("cat", "dog", "cow")
        for good, bad in VERBS
    ]
    write_lines(root / "blimp/agreement.jsonl", rows)
    made = run("prepare", "blimp", root / "blimp", root / "bench")
    assert made.exit_code == 0, made.output
    return root


def test_export_then_retention_on_the_exported_task(folders: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    out = tmp_path / "out"
    done = run("export", folders / "slm", folders / "bench", out, "--protocol", "sims", "--limit", "5", "--seed", "3")
    assert done.exit_code == 0, done.output
    group = json.loads((out / "export.json").read_text())
    assert [(task["direction"], task["protocol"], task["items"]) for task in group["tasks"]] == [("tt", "sims", 5)]
    assert (group["facts"]["limit"], group["facts"]["seed"], group["facts"]["model"]) == (5, 3, "slm")
    assert f"{out}: 1 tasks" in done.output
    task, saved = group["tasks"][0]["name"], tmp_path / "r.json"
    words = ("--text-lm", folders / "lm", "--tasks", task, "--include-path", out, "--replicates", "20", "--out", saved)
    full = run("retention", folders / "slm", *words)
    assert full.exit_code == 0, full.output
    assert f"{task} " in full.output
    record = json.loads(saved.read_text())
    assert record["stamp"]["softmax"] == "full"
    assert [row["metric"] for row in record["differences"]] == ["acc", "acc_sum"]
    rows = run("retention", folders / "slm", *words, "--text-rows", "--limit", "4", "--start", "eos", "--seed", "2")
    assert rows.exit_code == 0, rows.output
    stamp = json.loads(saved.read_text())["stamp"]
    assert (stamp["softmax"], stamp["limit"], stamp["start"], stamp["seed"]) == ("text rows", 4, "eos", 2)
    bound = 1 - 0.025 ** (1 / 4)  # four documents that agree say little
    assert f"+0.0000  [{-bound:+.4f}, {bound:+.4f}]   0/4" in rows.output


def test_refusals(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("")
    refused = run("export", folders / "slm", folders / "bench", tmp_path / "full")
    assert refused.exit_code == 2
    assert "not empty" in refused.output
    other = Vocabulary.text_only(build_text_tokenizer(["dog " * 3 + " ".join(WORDS)]))
    save_model(new_model(SIZES["0.02M"], other.size, 64, seed=0), tmp_path / "other")
    other.save(tmp_path / "other")
    refused = run("retention", folders / "slm", "--text-lm", tmp_path / "other", "--tasks", "x")
    assert refused.exit_code == 2
    assert "in the SLM; give the TextLM that it was made of" in refused.output
    refused = run("retention", folders / "slm", "--text-lm", tmp_path / "none", "--tasks", "x")
    assert refused.exit_code == 2
    assert "no such file" in refused.output
