"""Catches a report that loses files, misreads phone tiers, counts the wrong speakers or hides supervision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from speechscale.cli.units_report import report
from speechscale.corpus.imported import write_corpus
from speechscale.errors import DataError
from speechscale.records import Utterance, Word
from speechscale.skips import SkipLog
from speechscale.speech.audio import write_audio
from speechscale.speech.units import SpeechTokenizer, fit_tokenizer, phone_tokenizer

KINDS = {"AA1": 300.0, "IY0": 2500.0, "sp": 0.0, "S": 6000.0}


def clip(seed: int, count: int = 30) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    rng = np.random.default_rng(seed)
    parts, phones, at = [], [], 0
    for kind in rng.choice(sorted(KINDS), size=count).tolist():
        samples = int(rng.integers(1500, 4000))
        tone = np.sin(2 * np.pi * KINDS[kind] * np.arange(samples) / 16_000) if KINDS[kind] else np.zeros(samples)
        parts.append(0.3 * tone + 0.001 * rng.standard_normal(samples))
        phones.append((kind, at / 16_000, (at + samples) / 16_000))
        at += samples
    return np.concatenate(parts).astype(np.float32), phones


def textgrid(phones: list[tuple[str, float, float]]) -> str:
    lines = ["ooTextFile short", '"TextGrid"', "0", str(phones[-1][2]), "<exists>", "2"]
    for name, entries in (("words", [("Word", *phones[0][1:])]), ("phones", phones)):
        lines += ['"IntervalTier"', f'"{name}"', "0", str(phones[-1][2]), str(len(entries))]
        lines += [f'{start}\n{end}\n"{label}"' for label, start, end in entries]
    return 'File type = "' + lines[0] + '"\n' + "\n".join(lines[1:]) + "\n"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    fit_tokenizer([clip(seed)[0] for seed in range(3)], encoder="mfcc", clusters=8, seed=0).save(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recordings")
    for number in range(4):
        audio, phones = clip(10 + number)
        write_audio(root / "wavs" / f"{'ab'[number % 2]}_{number}.wav", audio, 16_000)
        grid = root / "grids" / f"{'ab'[number % 2]}_{number}.TextGrid"
        grid.parent.mkdir(exist_ok=True)
        grid.write_text(textgrid(phones))
    (root / "wavs" / "broken.wav").write_bytes(b"RIFF")
    return root


def test_folder_with_textgrids(tokenizer: Path, folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        report, [str(tokenizer), str(folder), "--speakers", "^([a-z])_", "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    assert "PNMI" in done.output
    assert "left out: wavs/broken.wav" in done.output
    saved = json.loads((tmp_path / "out" / "quality.json").read_text())
    quality = saved["quality"]
    assert (quality["utterances"], quality["speakers"], quality["phone_types"], saved["left_out"]) == (4, 2, 4, 1)
    assert quality["pnmi"]["value"] > 0.6 > quality["pnmi"]["chance"]
    assert abs(quality["shift"]["peak_ms"]) < 12
    assert quality["retrieval_other"]["chance"] == 1.0  # One word only: nothing else could be found.
    assert saved["fingerprint"] == SpeechTokenizer.load(tokenizer).fingerprint
    assert saved["supervised"] is False
    assert "Plotly.newPlot" in (tmp_path / "out" / "quality.html").read_text(encoding="utf-8")


def test_without_phones_the_rest_is_still_measured(tokenizer: Path, folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        report, [str(tokenizer), str(folder / "wavs"), "--speakers", "^([a-z])_", "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    assert "PNMI" not in done.output
    assert "speaker information" in done.output
    quality = json.loads((tmp_path / "quality.json").read_text())["quality"]
    assert quality["pnmi"] is quality["shift"] is None
    # The grids lie elsewhere; naming their folder brings the phones back.
    again = CliRunner().invoke(report, [str(tokenizer), str(folder / "wavs"), "--alignments", str(folder / "grids")])
    assert "PNMI" in again.output
    assert "PNMI" not in CliRunner().invoke(report, [str(tokenizer), str(folder), "--phones", "tones"]).output


def test_imported_corpus_uses_its_words_and_splits(tokenizer: Path, folder: Path, tmp_path: Path) -> None:
    """Catches words of parts of a file that are looked up from the file's start, and splits that are ignored."""
    utterances = [
        Utterance(
            id=f"{path.stem}-{part}",
            text="high low",
            speaker=path.stem[0],
            split="test" if path.stem[-1] < "2" else "train",
            words=(Word(text="high", start_s=0.1, end_s=0.6), Word(text="low", start_s=0.6, end_s=1.1)),
            audio=path.name,
            start_s=1.5 * part,
            end_s=1.5 * (part + 1),
        )
        for path in sorted((folder / "wavs").glob("[ab]_*.wav"))
        for part in (0, 1)
    ]
    write_corpus(tmp_path / "corpus", utterances, audio_root=folder / "wavs", info={"source": "test"}, skips=SkipLog())
    arguments = [
        str(tokenizer),
        str(tmp_path / "corpus"),
        "--alignments",
        str(folder / "grids"),
        "--out",
        str(tmp_path),
    ]
    done = CliRunner().invoke(report, [*arguments, "--split", "test"])
    assert done.exit_code == 0, done.output
    quality = json.loads((tmp_path / "quality.json").read_text())["quality"]
    assert (quality["utterances"], quality["speakers"]) == (4, 2)
    assert quality["retrieval_other"]["chance"] == pytest.approx(0.5)
    assert quality["labeled_frames"] == quality["frames"] == 4 * 37
    # Phones of the second part would be off by 1.5 s, and the PNMI near chance, if counted from the file's start.
    assert quality["pnmi"]["value"] > 0.6
    assert abs(quality["shift"]["peak_ms"]) < 20


def test_user_errors_are_named(tokenizer: Path, folder: Path, tmp_path: Path) -> None:
    def error(*arguments: str) -> str:
        done = CliRunner().invoke(report, list(arguments))
        assert isinstance(done.exception, DataError), done.output
        return str(done.exception)

    assert "no such folder" in error(str(tokenizer), str(tmp_path / "none"))
    assert "no audio that can be judged" in error(str(tokenizer), str(tmp_path))
    assert "has no group" in error(str(tokenizer), str(folder), "--speakers", "a")
    assert "is no pattern" in error(str(tokenizer), str(folder), "--speakers", "(")
    phone_tokenizer(["a", "b"]).save(tmp_path / "oracle")
    assert "phone labels themselves" in error(str(tmp_path / "oracle"), str(folder))


def test_ljspeech_has_its_peak_on_time(shared: Path, tmp_path: Path, tokenizer: Path) -> None:
    """Real recordings with times of the Montreal Forced Aligner: a timing bug of a frame (40 ms) would show."""
    from speechscale.speech.audio import load_audio

    data = shared / "data" / "dev-ljspeech"
    waveforms = [load_audio(path).audio for path in sorted((data / "wavs").glob("*.flac"))]
    fit_tokenizer(waveforms, encoder="mfcc", clusters=40, seed=0).save(tmp_path / "tokenizer")
    done = CliRunner().invoke(report, [str(tmp_path / "tokenizer"), str(data), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    quality = json.loads((tmp_path / "quality.json").read_text())["quality"]
    assert quality["utterances"] == 12
    assert abs(quality["shift"]["peak_ms"]) < 15
    assert quality["pnmi"]["value"] > quality["pnmi"]["chance"] + 0.15
