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
from speechscale.tokens.subwords_training import train_subwords
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

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


def test_an_option_that_contradicts_the_vocabulary_is_refused(corpora: Path) -> None:
    out, tales = corpora / "out", corpora / "tales.txt"
    first = ("build", out, "--text", tales, "--units", corpora / "units.parquet", "--text-size", 500)
    assert run(*first).exit_code == 0
    assert run(*first).exit_code == 0, "the same again is fine, though the texts have fewer words"
    size = Vocabulary.load(out / "vocabulary").text_size
    train_subwords([np.array([1, 2, 3])] * 9, "bpe", 10, 8).save(corpora / "subwords.json")
    build_text_tokenizer(["a b"], "words", 9).save(str(corpora / "other.json"))
    wrong = {
        ("--tokenizer", "bpe"): "has words",
        ("--tokenizer", corpora / "other.json"): "has words",
        ("--text-size", 5): f"has {size} ids of text",
        ("--subwords", corpora / "subwords.json"): "has none",
        ("--spelling", "spiritlm"): "has 'slamkit'",
        ("--eos", "</s>"): "has '<eos>'",
    }
    for extra, found in wrong.items():
        for call in (
            ("build", out, "--text", tales, "--units", corpora / "units.parquet"),
            ("build", out, "--text", corpora / "more.jsonl", "--append"),
            ("build", corpora / "new", "--text", tales, "--vocabulary", out / "vocabulary"),
        ):
            made = run(*call, *extra)
            assert made.exit_code == 2, (call, extra)
            assert f"error: {extra[0]} {extra[1]}: the vocabulary in {out / 'vocabulary'} {found}; leave" in made.output
    assert not (corpora / "new").exists()
    larger = run("build", corpora / "new", "--text", tales, "--vocabulary", out / "vocabulary", "--text-size", 501)
    assert (larger.exit_code, f"{size} ids of text" in larger.output) == (2, True)
    small = ("build", corpora / "small", "--text", tales)
    assert run(*small, "--text-size", 5).exit_code == 0
    assert run(*small, "--text-size", 50).exit_code == 2, "there are more words"
    fits = ("--tokenizer", "words", "--text-size", size, "--eos", "<eos>", "--spelling", "slamkit")
    given = run("build", corpora / "given", "--text", tales, "--vocabulary", out / "vocabulary", *fits)
    assert given.exit_code == 0, given.output


def test_a_build_that_fails_leaves_no_vocabulary(corpora: Path) -> None:
    out, units = corpora / "out", corpora / "units.parquet"
    (corpora / "again.parquet").write_bytes(units.read_bytes())
    failed = run("build", out, "--units", units, "--units", corpora / "again.parquet", "--text-size", 4)
    assert failed.exit_code == 2
    assert "utterance 'u0' comes twice, in units.parquet and in again.parquet" in failed.output
    assert list(out.iterdir()) == []
    made = run("build", out, "--units", units, "--tokenizer", "bpe", "--text-size", 300)
    assert made.exit_code == 0, made.output
    assert "the vocabulary that is there is used" not in made.output
    strict = run("build", corpora / "strict", "--text", corpora / "tales.txt", "--quality", "sims")
    assert (strict.exit_code, "3 words, at least 50; leave it out" in strict.output) == (2, True)
    assert not (corpora / "strict").exists()


def test_held_out_transcripts_stay_out_of_the_vocabulary_and_unknown_words_are_told(corpora: Path) -> None:
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=8)
    for index, (split, word) in enumerate([("train", "cat"), ("train", "dog"), ("test", "secret")]):
        builder.add(
            id=f"w{index}",
            speaker="a",
            split=split,
            text=f"the {word}",
            units=np.array([1, 2]),
            durations_frames=np.array([2, 2]),
            words=["the", word],
            word_frames=np.array([[0, 2], [2, 4]]),
        )
    units = corpora / "split.parquet"
    write_units(units, builder.build(), "a" * 64)
    made = run("build", corpora / "out", "--units", units, "--split", "train")
    assert made.exit_code == 0, made.output
    assert "split.parquet: 2 of 3 in split train, 2 kept, 0 dropped" in made.output
    assert "unknown" not in made.output
    vocabulary = Vocabulary.load(corpora / "out" / "vocabulary")
    assert vocabulary.decode(vocabulary.encode_text(["the cat dog secret"]).flat) == "the cat dog <unk>"
    (corpora / "odd.txt").write_text("the secret\n\n" + "the cat the dog\n\n" * 40)
    more = run("build", corpora / "out", "--units", units, "--split", "test", "--text", corpora / "odd.txt", "--append")
    assert more.exit_code == 0, more.output
    hint = "--tokenizer bpe or a larger --text-size spells more"
    assert f"16.67% of the tokens of words of utterances are unknown (1); {hint}" in more.output
    assert "0.62% of the tokens of texts are unknown (1)\n" in more.output
    wrong = run("build", corpora / "none", "--units", units, "--split", "dev")
    assert (wrong.exit_code, "no utterance in split 'dev'; splits: test, train" in wrong.output) == (2, True)
    assert not (corpora / "none").exists()


def test_drops_of_quality_are_told_by_rule(corpora: Path) -> None:
    good = "the cat and the dog ran home to find some jam that was made by their good friends in a small town of old "
    good += (
        "houses where many people live with their children and every evening all of them sit down together then read "
    )
    good += "another new story about far countries strange animals brave sailors clever girls"
    (corpora / "web.txt").write_text(f"{good}\n\ntoo short\n\nshort too\n\n{'#' * 40} {good}\n")
    made = run("build", corpora / "out", "--text", corpora / "web.txt", "--quality", "sims")
    assert made.exit_code == 0, made.output
    assert "2 dropped: leave it out, or change the limit min_words = 50 of QualityRules (skips.jsonl)" in made.output
    assert "1 dropped: leave it out, or change the limit max_symbol_word_ratio = 0.1 of Quality" in made.output


def test_what_cannot_be_used_is_said_in_one_line(corpora: Path) -> None:
    (corpora / "corpus").mkdir()
    (corpora / "corpus" / "utterances.parquet").write_bytes(b"")
    (corpora / "empty").mkdir()
    (corpora / "empty.txt").write_text("")
    (corpora / "file").write_text("x")
    tokenizer = build_text_tokenizer(["the cat"], "words", 9)
    tokenizer.add_special_tokens(["<Un3>", "[END]"])
    data = json.loads(tokenizer.to_str())
    data["model"]["vocab"]["(none)"] = data["model"]["vocab"].pop("<eos>")
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] != "<eos>"]
    (corpora / "odd.json").write_text(json.dumps(data))
    units, tales = ("--units", corpora / "units.parquet"), ("--text", corpora / "tales.txt")
    for arguments, why in [
        (("--units", corpora / "nodir"), "nodir: no such file or folder; give what 'speechscale units encode' wrote"),
        (("--units", corpora / "corpus"), f"run 'speechscale units encode {corpora / 'corpus'} TOKENIZER UNITS' first"),
        (("--units", corpora / "empty"), "no units.json in it"),
        (("--text", corpora / "empty.txt"), "empty.txt/0: the file has no documents; write texts into it"),
        ((*tales, "--tokenizer", corpora / "empty"), "the folder has no tokenizer.json"),
        ((*tales, "--tokenizer", corpora / "odd.json"), "name the token (--eos), e.g. of"),
        ((*units, "--tokenizer", corpora / "odd.json", "--eos", "[END]"), "(--spelling: slamkit, spiritlm"),
        ((*tales, "--tokenizer", corpora / "odd.json", "--text-size", 5), "has its own size; leave it out"),
        ((*tales, "--eos", "</s>"), "documents of 'words' end with <eos>; leave it out"),
        ((*tales, "--subwords", corpora / "s.json"), "there are no units; give --units, or leave it out"),
    ]:
        made = run("build", corpora / "out", *arguments)
        assert (made.exit_code, why in made.output, len(made.output.splitlines())) == (2, True, 1), made.output
        assert not (corpora / "out").exists()
    for out, why in ((corpora / "file", "a file, a folder is needed"), (corpora, "something else than a token store")):
        made = run("build", out, *tales)
        assert (made.exit_code, why in made.output) == (2, True), made.output
    options = ("--tokenizer", corpora / "odd.json", "--eos", "[END]", "--spelling", "spiritlm")
    made = run("build", corpora / "out", *units, *options)
    assert made.exit_code == 0, made.output
    assert run("build", corpora / "out", *units, *options).exit_code == 0
    assert Vocabulary.load(corpora / "out" / "vocabulary").spelling == "spiritlm"
    mixed = run("build", corpora / "mixed", *tales, "--text", corpora / "empty.txt")
    assert mixed.exit_code == 0, mixed.output
    assert "1 dropped: write texts into it or leave it out" in mixed.output
