"""Would catch: figures that are not those of the store, samples that are not called so, stores mixed up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from speechscale.cli.tokens_stats import parse_mixture, stats
from speechscale.errors import DataError
from speechscale.records import UnitTableBuilder
from speechscale.tokens.interleave import InterleaveConfig
from speechscale.tokens.overview import mix_shares, store_names
from speechscale.tokens.statistics import interleave_stats
from speechscale.tokens.store import TokenStore, build_store
from speechscale.tokens.subwords_training import train_subwords
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "then", "ran", "home"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stores of one vocabulary, the second three times as large, and one of another vocabulary."""
    root = tmp_path_factory.mktemp("stats")
    vocabulary = Vocabulary.joint(build_text_tokenizer([" ".join(WORDS)]), 12)
    for name, rows in (("small", 30), ("large", 90)):
        rng = np.random.default_rng(rows)
        builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=12)
        for row in range(rows):
            count = int(rng.integers(1, 25))
            builder.add(
                id=f"{name}-{row}",
                speaker="a",
                split="train",
                text="",
                units=np.cumsum(rng.integers(1, 12, 2 * count)) % 12,
                durations_frames=np.full(2 * count, 2),
                words=[WORDS[i] for i in rng.integers(0, len(WORDS), count)],
                word_frames=np.array([(4 * i, 4 * i + 3) for i in range(count)]),
            )
        texts = [" ".join(WORDS[: 1 + row % 10]) for row in range(rows)]
        build_store(root / name / "store", vocabulary, table=builder.build(), texts=texts)
        vocabulary.save(root / name / "vocabulary")
    other = Vocabulary.joint(build_text_tokenizer(["quite other words"]), 12)
    build_store(root / "other" / "store", other, texts=["other words"])
    other.save(root / "other" / "vocabulary")
    return root


def run(home: Path, *arguments: object) -> tuple[str, dict[str, Any]]:
    target = home / "stats.json"
    done = CliRunner().invoke(stats, [*map(str, arguments), "--json", str(target)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output, json.loads(target.read_text())


def error(*arguments: object) -> str:
    done = CliRunner().invoke(stats, [str(argument) for argument in arguments])
    assert isinstance(done.exception, DataError), done.output
    return str(done.exception)


def test_figures_are_those_of_the_store(home: Path) -> None:
    told, found = run(home, home / "large", "--context", 64, "--batch-rows", 4, "--batches", 30, "--set", "gap=keep")
    store = TokenStore.open(home / "large" / "store", Vocabulary.load(home / "large" / "vocabulary"))
    (overview,) = found["stores"]
    assert overview["counts"] == store.counts
    config = InterleaveConfig(gap="keep")
    wanted = interleave_stats(store.source, np.arange(90), 0, config, 0)
    interleave = overview["interleave"]
    for name in ("spoken_words", "speech_tokens", "text_tokens", "marker_tokens", "doubled_units", "demoted_words"):
        assert interleave[name] == getattr(wanted, name), name
    assert interleave["speech_word_share"] == wanted.speech_word_share
    by_length = {entry["words"]: entry["speech_word_share"] for entry in interleave["by_length"]}
    assert by_length["1-5"] == wanted.speech_share_by_length()["1-5"]
    assert by_length["161+"] is None
    assert sum(interleave["span_words"]["speech"]) == wanted.speech_runs
    documents = np.arange(90)
    read = store.read("interleaved", documents, interleave=config)
    assert overview["streams"]["interleaved"]["tokens"] == len(read.flat)
    assert overview["streams"]["speech"]["tokens"] == store.counts["units"]
    assert "Share of spoken words by length" in told
    assert "note:" not in told
    mixture = found["mixture"]
    assert [source["name"] for source in mixture["sources"]] == ["interleaved", "speech", "text"]
    assert sum(mixture["fill_bins"]) == 30 * 4 == sum(source["rows"] for source in mixture["sources"])
    assert mixture["prefixes"]["tokens"][-1] == mixture["tokens"] == sum(s["tokens_seen"] for s in mixture["sources"])
    assert np.allclose(np.sum(list(mixture["prefixes"]["shares"].values()), axis=0), 1)
    row = 64 / mixture["tokens"]
    assert all(abs(source["delivered"] - 1 / 3) <= row for source in mixture["sources"])
    assert mixture["prefixes"]["largest_difference"][-1] <= row
    assert run(home, home / "large", "--batches", 0)[1]["mixture"] is None


def test_a_sample_is_called_one(home: Path, tmp_path: Path) -> None:
    told, found = run(home, home / "large", "--documents", 20, "--batches", 0)
    assert "large, interleaved: figures are of the first 20 of 90 documents" in told
    assert "about" in told
    part = found["stores"][0]["streams"]["interleaved"]
    assert (part["looked_at"], part["documents"]) == (20, 90)
    assert part["tokens"] == round(sum(part["kinds"].values()) * 90 / 20)
    assert found["stores"][0]["interleave"]["utterances"] == 20
    assert found["stores"][0]["streams"]["speech"]["looked_at"] == 90, "its tokens are known without looking"
    plain = Vocabulary.load(home / "large" / "vocabulary")
    store = TokenStore.open(home / "large" / "store", plain)
    subwords = train_subwords([store.arrays["units"][:300].astype(int)], "bpe", 20, 12)
    plain.text_subset().with_units(12, subwords).save(tmp_path)
    _, found = run(home, home / "large", "--vocabulary", tmp_path, "--batches", 2)
    pieces = TokenStore.open(home / "large" / "store", Vocabulary.load(tmp_path))
    tokens = found["stores"][0]["streams"]["speech"]["tokens"]
    assert tokens == len(pieces.read("speech", np.arange(90)).flat) < store.counts["units"]


def test_several_stores_are_sources_of_their_own(home: Path) -> None:
    both = (home / "small", home / "large", "--context", 64, "--batches", 40, "--batch-rows", 4)
    _, found = run(home, *both, "--mixture", "speech=3,text=1")
    sources = {source["name"]: source for source in found["mixture"]["sources"]}
    assert sorted(sources) == ["large/speech", "large/text", "small/speech", "small/text"]
    speech = {name: found["stores"][i]["streams"]["speech"]["tokens"] for i, name in enumerate(("small", "large"))}
    assert sources["small/speech"]["share"] == pytest.approx(0.75 * speech["small"] / sum(speech.values()))
    assert sum(s["share"] for s in sources.values()) == pytest.approx(1)
    _, found = run(home, *both, "--mixture", "small/speech=1,text=1")
    shares = {source["name"]: source["share"] for source in found["mixture"]["sources"]}
    assert shares["small/speech"] == pytest.approx(0.5)
    assert "large/speech" not in shares


def test_mistakes_are_named(home: Path) -> None:
    assert "allowed: speech, text, interleaved" in error(home / "small", "--mixture", "spech=1")
    several = error(home / "small", home / "large", "--mixture", "tiny/speech=1")
    assert "small/speech" in several
    for wrong in ("speech", "speech=x", "speech=0", "speech=-1", "speech=nan"):
        assert "give NAME=SHARE" in error(home / "small", "--mixture", wrong)
    assert "open both with one vocabulary" in error(home / "small", home / "other")
    assert parse_mixture(" speech=1 , text=.5,") == {"speech": 1.0, "text": 0.5}


def test_page_needs_no_network(home: Path, tmp_path: Path) -> None:
    told, _ = run(home, home / "small", "--html", tmp_path / "s.html", "--batches", 3, "--context", 64)
    assert "written:" in told
    text = (tmp_path / "s.html").read_text(encoding="utf-8")
    body = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", body)
    assert text.count("Plotly.newPlot") >= 4


def test_names_differ_and_shares_follow_the_tokens() -> None:
    assert store_names([("a", "store"), ("s", "train"), ("a", "store")]) == ["a", "s-train", "a#2"]
    stores = {
        "a": {"streams": {"text": {"tokens": 30}}},
        "b": {"streams": {"text": {"tokens": 10}, "speech": {"tokens": 5}}},
    }
    assert mix_shares(stores, {}) == {"b/speech": 1.0, "a/text": 0.75, "b/text": 0.25}
    assert mix_shares(stores, {"text": 4, "a/text": 1}) == {"a/text": 4.0, "b/text": 1.0}
    with pytest.raises(DataError, match="a/text, b/text, b/speech"):
        mix_shares(stores, {"c/text": 1})
