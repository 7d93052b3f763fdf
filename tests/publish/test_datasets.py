"""Catches a data card of wrong hours, data that travels unasked, and paths of the machine in what travels."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from speechscale.cli import cli
from speechscale.corpus.imported import open_corpus, write_corpus
from speechscale.corpus.unit_corpus import encode_folder, open_units
from speechscale.errors import DataError
from speechscale.publish.bundle import verify_bundle
from speechscale.publish.datasets import DATA_SUMS, publish_dataset, without_places
from speechscale.records import Utterance
from speechscale.report.card_check import validate_card
from speechscale.report.card_facts import Terms
from speechscale.skips import SkipLog
from tests.corpus.sources import sound
from tests.publish.tiny_study import tokenizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six recordings of two seconds in two licences, with their audio in the folder."""
    folder = tmp_path_factory.mktemp("data") / "books"
    utterances = []
    for i in range(6):
        sound(folder / f"audio/u{i}.wav", 2.0, seed=i)
        utterances.append(
            Utterance(
                id=f"u{i}",
                text=f"sentence {i}",
                speaker=f"s{i % 2}",
                split="test" if i == 5 else "train",
                audio=f"u{i}.wav",
                licence="CC-BY-4.0" if i < 4 else "",
                language="en-US",
            )
        )
    skips = SkipLog()
    skips.add("u9", "it is silent", "record it again")
    info = {"source": "/home/somebody/books", "format": "jsonl", "options": {"audio_root": "/data/books"}}
    write_corpus(folder, utterances, audio_root=folder / "audio", info=info, skips=skips)
    return folder


def test_the_card_of_a_corpus_counts_hours_and_licences(corpus: Path, tmp_path: Path) -> None:
    made = publish_dataset(corpus, tmp_path / "out", terms=Terms(license="cc-by-4.0"))
    card = (tmp_path / "out/README.md").read_text()
    assert validate_card(card, "dataset") == []
    for fact in (
        "# books", "| utterances | 6 (dropped: 1) |", f"| CC-BY-4.0 | 4 | {8 / 3600:.5f} |", "| not recorded | 2 |",
        "| speakers | 2 |", "| languages | en |", "Imported from books (format jsonl).", "| record it again | 1 |",
        "| test | 1 |", "no licence in its records", "| `utterances.parquet` |", "| no |",
    ):  # fmt: skip
        assert fact in card, fact
    assert "/home" not in card
    assert sorted(file.path for file in made.files) == [DATA_SUMS, "README.md", "SHA256SUMS"], "no data unasked"
    listed = (tmp_path / "out" / DATA_SUMS).read_text().splitlines()
    assert len(listed) == len([path for path in corpus.rglob("*") if path.is_file()])


def test_data_goes_along_on_request_without_its_places(corpus: Path, tmp_path: Path) -> None:
    made = publish_dataset(corpus, tmp_path / "out", data=True)
    copied = open_corpus(tmp_path / "out")
    assert [u.id for u in copied.utterances()] == [u.id for u in open_corpus(corpus).utterances()]
    assert copied.info["source"] == "books"
    assert copied.info["options"] == {"audio_root": "books"}
    assert (copied.audio_root / "u0.wav").read_bytes() == (corpus / "audio/u0.wav").read_bytes()
    sums = dict(line.split("  ")[::-1] for line in (tmp_path / "out" / DATA_SUMS).read_text().splitlines())
    found = {file.path: file.sha256 for file in verify_bundle(tmp_path / "out")}
    assert all(found[path] == digest for path, digest in sums.items())
    assert any("no license" in note for note in made.notes)


def test_a_folder_with_a_card_of_its_own_keeps_its_checksums(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "c")
    for name in ("README.md", "SHA256SUMS"):
        (tmp_path / "c" / name).write_text("of the source")
    made = publish_dataset(tmp_path / "c", tmp_path / "out", data=True)
    assert any("README.md, SHA256SUMS of the source" in note for note in made.notes)
    checked = subprocess.run(["sha256sum", "-c", DATA_SUMS], cwd=tmp_path / "out", capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    with pytest.raises(DataError, match="would be part of the data"):
        publish_dataset(tmp_path / "c", tmp_path / "c/out")
    (tmp_path / "outside.txt").write_text("secret")
    (tmp_path / "c/link.txt").symlink_to(tmp_path / "outside.txt")
    with pytest.raises(DataError, match="is a link"):
        publish_dataset(tmp_path / "c", tmp_path / "linked", data=True)
    assert not (tmp_path / "linked").exists()


def test_audio_that_lies_elsewhere_is_not_copied(tmp_path: Path) -> None:
    sound(tmp_path / "elsewhere/a.wav")
    one = Utterance(id="a", text="a", speaker="s", split="train", audio="a.wav")
    write_corpus(tmp_path / "c", [one], audio_root=tmp_path / "elsewhere", info={"source": "x"}, skips=SkipLog())
    with pytest.raises(DataError, match="audio lies outside"):
        publish_dataset(tmp_path / "c", tmp_path / "out", data=True)
    assert not (tmp_path / "out").exists()
    publish_dataset(tmp_path / "c", tmp_path / "out")


def test_the_card_of_units_takes_licences_from_their_corpus(corpus: Path, tmp_path: Path) -> None:
    tokenizer(tmp_path / "tokenizer")
    units = encode_folder(corpus, tmp_path / "tokenizer", tmp_path / "units", workers=0)
    publish_dataset(tmp_path / "units", tmp_path / "alone", terms=Terms(license="cc-by-4.0"))
    card = (tmp_path / "alone/README.md").read_text()
    assert "| not recorded | 6 |" in card
    assert "Its language is not recorded." in card
    assert "10, encoder mfcc" in card
    publish_dataset(tmp_path / "units", tmp_path / "out", corpus=corpus, data=True, terms=Terms(license="cc-by-4.0"))
    card = (tmp_path / "out/README.md").read_text()
    assert validate_card(card, "dataset") == []
    assert "| CC-BY-4.0 | 4 |" in card
    assert "config_name: default" in card
    assert "Its corpus: Imported from books (format jsonl)." in card
    assert open_units(tmp_path / "out").info == units.info, "what travels opens as it did"
    other = tmp_path / "other"
    one = Utterance(id="a", text="a", speaker="s", split="train", audio="u0.wav")
    write_corpus(other, [one], audio_root=corpus / "audio", info={}, skips=SkipLog())
    with pytest.raises(DataError, match="not the corpus"):
        publish_dataset(tmp_path / "units", tmp_path / "x", corpus=other)
    with pytest.raises(DataError, match="neither corpus"):
        publish_dataset(tmp_path / "tokenizer", tmp_path / "x")


def test_the_command_lists_a_data_set(corpus: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli,
        ["publish", "--dataset", str(corpus), str(tmp_path / "out"), "--license", "cc-by-4.0", "--repo", "me/books"],
    )
    assert done.exit_code == 0, done.output
    assert "-> dataset me/books (private)" in done.output


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["made", "--license", "mit"], "--license is for making"),
        (["made", "out", "--dataset", "--samples", "x"], "--samples is for models"),
        (["made", "out", "--with-data"], "--with-data needs --dataset"),
        (["made", "out", "--public"], "--public needs --push"),
        (["made", "out", "--dataset", "--repo", "me/../x"], "OWNER/NAME"),
    ],
)
def test_options_that_would_do_nothing_are_told(given: list[str], told: str) -> None:
    done = CliRunner().invoke(cli, ["publish", *given])
    assert done.exit_code == 2
    assert told in done.output


def test_places_are_taken_out_of_facts() -> None:
    facts = {"source": "/a/b/c", "list": ["~/x/y", "plain"], "n": 3, "hub": "owner/name", "none": None}
    expected = {"source": "c", "list": ["y", "plain"], "n": 3, "hub": "owner/name", "none": None}
    assert without_places(facts) == expected
