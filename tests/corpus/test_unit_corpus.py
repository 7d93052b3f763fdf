"""Catches units that depend on workers, parts or restarts, and utterances lost between a corpus and its units."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from speechscale.cli import cli
from speechscale.corpus.encode import encode_corpus
from speechscale.corpus.imported import Corpus, open_corpus, write_corpus
from speechscale.corpus.tables import pick_utterances, write_utterances
from speechscale.corpus.unit_corpus import encode_folder, fit_on_corpus, open_units
from speechscale.errors import DataError, StaleStep
from speechscale.records import Utterance, Word, dedup
from speechscale.skips import SkipLog, read_skips
from speechscale.speech.audio import load_audio
from tests.speech.tiny_models import tiny_codec

RATE = 16_000


def noise(seconds: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    swell = np.repeat(generator.uniform(-0.9, 0.9, round(seconds * 25) + 1), 640)[: round(seconds * RATE)]
    white = generator.standard_normal(len(swell)).astype(np.float32)
    return (0.1 * (white + swell * np.roll(white, 1))).astype(np.float32)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Twelve recordings, of which two cannot be used, one is a part of a file and one a channel of it."""
    root, utterances = tmp_path / "audio", []
    root.mkdir()
    for index in range(12):
        soundfile.write(root / f"u{index}.wav", noise(0.5 + 0.1 * index, index), RATE, subtype="FLOAT")
        word = Word(text="word", start_s=0.1, end_s=0.3)
        utterances.append(
            Utterance(id=f"u{index}", text="word", speaker="s", split="train", words=(word,), audio=f"u{index}.wav")
        )
    (root / "u3.wav").write_bytes(b"")
    (root / "u7.wav").write_text("no audio")
    return write_corpus(tmp_path / "corpus", utterances, audio_root=root, info={"source": "test"}, skips=SkipLog())


@pytest.fixture
def tokenizer(corpus: Corpus, tmp_path: Path) -> Path:
    fit_on_corpus(corpus, encoder="mfcc", clusters=8, hours=1, split="train", seed=0).save(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_folder_holds_what_one_table_holds(corpus: Corpus, tokenizer: Path, tmp_path: Path) -> None:
    made = encode_folder(corpus.folder, tokenizer, tmp_path / "units", part_utterances=5, workers=0)
    skips = SkipLog()
    table = encode_corpus(corpus.utterances(), made.tokenizer, loader=corpus.loader(), skips=skips)
    joined = made.table()
    assert joined.ids == table.ids
    np.testing.assert_array_equal(joined.units, table.units)
    np.testing.assert_array_equal(joined.durations_frames, table.durations_frames)
    np.testing.assert_array_equal(joined.word_start_frames, table.word_start_frames)
    assert read_skips(tmp_path / "units" / "skips.jsonl").ids == skips.ids == ["u3", "u7"]
    assert (made.info["read"], made.info["kept"], made.info["dropped"]) == (12, 10, 2)
    assert len(made.parts) == 3


def test_workers_and_a_second_call_change_nothing(corpus: Corpus, tokenizer: Path, tmp_path: Path) -> None:
    encode_folder(corpus.folder, tokenizer, tmp_path / "one", part_utterances=5, workers=0)
    encode_folder(corpus.folder, tokenizer, tmp_path / "two", part_utterances=5, workers=2)
    before = contents(tmp_path / "one")
    assert before == contents(tmp_path / "two")
    assert not any(".journal" in name for name in before)
    encode_folder(corpus.folder, tokenizer, tmp_path / "one", part_utterances=5)
    assert contents(tmp_path / "one") == before


def test_on_error_stop_names_the_file(corpus: Corpus, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"u3: .*zero bytes"):
        encode_folder(corpus.folder, tokenizer, tmp_path / "units", workers=0, on_error="stop")


def test_other_recipes_and_altered_parts_are_refused(corpus: Corpus, tokenizer: Path, tmp_path: Path) -> None:
    out = tmp_path / "units"
    with pytest.raises(DataError, match="u3"):
        encode_folder(corpus.folder, tokenizer, out, workers=0, on_error="stop", part_utterances=5)
    with pytest.raises(StaleStep, match="part_utterances: 5 -> 6"):
        encode_folder(corpus.folder, tokenizer, out, workers=0, part_utterances=6)
    encode_folder(corpus.folder, tokenizer, out, workers=0, part_utterances=5)
    with pytest.raises(DataError, match="another corpus or tokenizer"):
        encode_folder(corpus.folder, tokenizer, out, workers=0, part_utterances=6)
    part = out / "parts" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"part-00001.parquet: missing or not the part"):
        open_units(out)


def test_equal_ids_are_refused(tmp_path: Path, tokenizer: Path, corpus: Corpus) -> None:
    twice = [*corpus.utterances(), next(corpus.utterances())]
    doubled = write_corpus(tmp_path / "b", twice, audio_root=corpus.audio_root, info={}, skips=SkipLog())
    with pytest.raises(DataError, match="the first is 'u0'"):
        encode_folder(doubled.folder, tokenizer, tmp_path / "units", workers=0)


def test_kill_nine_in_the_middle_gives_the_same_bytes(corpus: Corpus, tokenizer: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "units", tmp_path / "whole"
    encode_folder(corpus.folder, tokenizer, whole, workers=0)
    command = [sys.executable, "-m", "speechscale", "units", "encode", str(corpus.folder), str(tokenizer), str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    journal, deadline = out / ".journal" / "part-00000.jsonl", time.monotonic() + 60
    while process.poll() is None and not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    if journal.exists():  # leave a torn line, as a kill within a write does
        journal.write_bytes(journal.read_bytes()[:-7])
    deadline = time.monotonic() + 60
    while True:  # the killed run's worker leaves within a second
        result = CliRunner().invoke(
            cli, ["units", "encode", str(corpus.folder), str(tokenizer), str(out), "--workers", "2"]
        )
        if result.exit_code == 0 or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert "10 utterances" in result.output
    assert "2 dropped" in result.output
    assert contents(out) == contents(whole)


def test_fit_by_command(corpus: Corpus, tmp_path: Path) -> None:
    out = tmp_path / "fitted"
    result = CliRunner().invoke(
        cli,
        ["units", "fit", str(corpus.folder), str(out), "--encoder", "mfcc", "--clusters", "6", "--set", "cepstra=12"],
    )
    assert result.exit_code == 0, result.output
    assert "6 units of 'mfcc' at 25 Hz" in result.output
    result = CliRunner().invoke(cli, ["units", "fit", str(corpus.folder), str(out), "--split", "tset"])
    assert result.exit_code == 2
    assert "no utterance in split 'tset'; splits: ['train']" in result.output
    assert open_corpus(corpus.folder).sha256 == corpus.sha256


def test_rows_are_picked_in_the_order_asked_from_any_group(corpus: Corpus, tmp_path: Path) -> None:
    """Would catch a fit on other utterances than the seeded draw chose."""
    table = tmp_path / "table.parquet"
    write_utterances(table, corpus.utterances(), group_rows=5)
    whole = list(corpus.utterances())
    assert pick_utterances(table, [11, 0, 6, 4, 5]) == [whole[row] for row in (11, 0, 6, 4, 5)]


def test_a_codec_is_fitted_by_nothing_and_hears_files_at_its_own_rate(tmp_path: Path) -> None:
    """Would catch a 24 kHz codec that is fed 16 kHz audio brought up again."""
    root = tmp_path / "audio"
    root.mkdir()
    soundfile.write(root / "a.wav", noise(1.5, 0), 24_000, subtype="FLOAT")
    one = Utterance(id="a", text="word", speaker="s", split="train", audio="a.wav")
    made = write_corpus(tmp_path / "corpus", [one], audio_root=root, info={}, skips=SkipLog())
    settings = {"model": str(tiny_codec("mimi")), "codebooks": 1}
    tokenizer = fit_on_corpus(
        made, encoder="codec", clusters=2, hours=1, split="train", seed=0, encoder_config=settings
    )
    heard = load_audio(root / "a.wav", sample_rate_hz=24_000).audio
    table = encode_corpus(made.utterances(), tokenizer, loader=made.loader(), skips=SkipLog())
    np.testing.assert_array_equal(table.units, dedup(tokenizer.units([heard])[0])[0])
