"""Would catch: a store shown with another vocabulary or corpus, sound that is not the span's, errors without remedy."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from speechscale.cli.tokens_show import play, show
from speechscale.corpus.imported import write_corpus
from speechscale.corpus.sounds import open_sounds
from speechscale.corpus.tables import write_utterances
from speechscale.errors import DataError, MissingExtra
from speechscale.files import write_json
from speechscale.records import NO_TIME, UnitTable, UnitTableBuilder, Utterance, Word
from speechscale.skips import SkipLog
from speechscale.speech.audio import write_audio
from speechscale.study.loading import load_study
from speechscale.tokens.store import build_store
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from speechscale.voices import engines

TEXT = "the cat sat on the mat and ran home"
FRAME = 640
"""Samples of a frame."""


def table_of(count: int) -> UnitTable:
    """Utterances of nine words, three frames each, one frame of pause behind each; the third word has no time."""
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=12)
    for row in range(count):
        words = TEXT.split()
        times = np.array([(4 * i, 4 * i + 3) for i in range(len(words))])
        times[2] = NO_TIME
        builder.add(
            id=f"utt-{row:03d}",
            speaker="a",
            split="train",
            text=TEXT,
            units=(np.arange(36) * (row + 3) + np.arange(36) // 5) % 12,
            durations_frames=np.ones(36, int),
            words=words,
            word_frames=times,
        )
    return builder.build()


def recording(row: int) -> np.ndarray:
    steps = np.random.default_rng(row).integers(-20_000, 20_000, 36 * FRAME + 100)
    return (steps / 32_768).astype(np.float32)


def utterances(count: int) -> list[Utterance]:
    return [
        Utterance(
            id=f"utt-{row:03d}",
            text=TEXT,
            speaker="a",
            split="train",
            audio=f"{row}.wav",
            words=tuple(
                Word(text=word) if i == 2 else Word(text=word, start_s=i * 0.16 + 0.001, end_s=i * 0.16 + 0.12)
                for i, word in enumerate(TEXT.split())
            ),
        )
        for row in range(count)
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of `tokens build`, a corpus, and the same as the steps of a study."""
    root = tmp_path_factory.mktemp("show")
    vocabulary = Vocabulary.joint(build_text_tokenizer([TEXT]), 12)
    vocabulary.save(root / "out" / "vocabulary")
    build_store(root / "out" / "store", vocabulary, table=table_of(4), texts=[TEXT, "the cat"])
    for row in range(4):
        write_audio(root / "wavs" / f"{row}.wav", recording(row), 16_000)
    write_corpus(root / "corpus", utterances(4), audio_root=root / "wavs", info={"source": "test"}, skips=SkipLog())

    step = root / "study" / "steps" / "tokens" / "spoken-mfcc"
    vocabulary.save(step / "joint")
    build_store(step / "train", vocabulary, table=table_of(4))
    write_json(step / "record.json", {"inputs": {"corpus/spoken": "0", "units/spoken-mfcc/000": "1"}})
    corpus = root / "study" / "steps" / "corpus" / "spoken"
    write_utterances(corpus / "utterances.parquet", utterances(4))
    write_json(corpus / "record.json", {"config": {"corpus": {"kind": "folder", "path": str(root / "wavs")}}})
    study = load_study("debug").model_dump(mode="json")
    study["parts"]["mfcc"]["corpus"]["name"], study["parts"]["mfcc"]["units"]["name"] = "spoken", "mfcc"
    write_json(root / "study" / "study.json", study)
    return root


def output(command: object, *arguments: object) -> str:
    done = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)  # type: ignore[arg-type]
    assert done.exit_code == 0, done.output
    return done.output


def error(command: object, *arguments: object) -> str:
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])  # type: ignore[arg-type]
    assert isinstance(done.exception, DataError), done.output
    return str(done.exception)


def test_three_documents_without_being_asked(home: Path) -> None:
    shown = output(show, home / "out")
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("utt-")] == [
        "utt-000",
        "utt-001",
        "utt-002",
    ]
    assert shown.count("sat*") == 3
    assert "[speech: words | units]" in shown
    assert "3 of 4 documents; usual settings" in shown
    assert shown == output(show, home / "out" / "store", "--vocabulary", home / "out" / "vocabulary")


def test_named_documents_streams_and_settings(home: Path) -> None:
    shown = output(
        show, home / "out", "utt-003", "1", "--set", "speech_span=fixed(2)", "--set", "markers=false", "--ids"
    )
    assert "utt-003 (interleaved 3)" in shown
    assert "utt-001 (interleaved 1)" in shown
    assert "spans fixed(2), share 0.3 (floor), markers False, epoch 0, seed 0" in shown
    assert "<speech>" not in shown.splitlines()[3]
    assert re.search(r"\[speech: .* \| (\d+/\d+ ?)+\]", shown)
    assert output(show, home / "out", "0", "--epoch", "1") != output(show, home / "out", "0")
    assert "the cat" in output(show, home / "out", "1", "--stream", "text")
    assert "100% heard" in output(show, home / "out", "1", "--stream", "speech")
    whole = output(show, home / "out", "1", "--set", "level=utterance", "--set", "first=text")
    assert f"<text> {TEXT.replace('sat', 'sat*')} <speech> [speech:" in whole


def test_a_study_is_recognized(home: Path) -> None:
    store = home / "study" / "steps" / "tokens" / "spoken-mfcc" / "train"
    shown = output(show, store, "0")
    assert "spans poisson(2), share 0.3 (floor)" in shown, "not the settings of the study"
    assert "settings of the study" in shown
    assert "changed: speech_share=0.9" in output(show, store, "0", "--set", "speech_share=0.9")
    played = output(play, store, "0", "--out", home / "study.wav")
    assert "speech" in played
    assert "it holds the stores train" in error(show, store.parent)


def test_page_has_the_sound_of_the_corpus(home: Path, tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    told = output(show, home / "out", "2", "0", "--html", page, "--corpus", home / "corpus")
    assert "2 documents" in told
    text = page.read_text(encoding="utf-8")
    sounds = [
        soundfile.read(io.BytesIO(base64.b64decode(s)))[0] for s in re.findall(r"audio/flac;base64,([^\"]+)", text)
    ]
    assert len(sounds) == 2
    assert np.array_equal(sounds[0].astype(np.float32), recording(2))
    drawn = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', text)[0])
    assert (drawn["words"][1]["a"], drawn["words"][2]["a"]) == (0.161, None)
    assert "of the corpus" in text
    output(show, home / "out", "--html", page)
    assert "audio/flac" not in page.read_text(encoding="utf-8")
    assert "name the corpus with --corpus" in page.read_text(encoding="utf-8")
    output(show, home / "out", "--html", page, "--stream", "text")
    assert "<canvas" not in page.read_text(encoding="utf-8")


def test_another_corpus_is_not_played(home: Path, tmp_path: Path) -> None:
    """Catches sound of another recording under the same id, which would be cut at meaningless places."""
    for row in range(4):
        write_audio(tmp_path / "wavs" / f"{row}.wav", np.tile(recording(row), 2), 16_000)
    wrong = write_corpus(
        tmp_path / "corpus", utterances(3), audio_root=tmp_path / "wavs", info={"source": "x"}, skips=SkipLog()
    )
    told = CliRunner().invoke(
        show, [str(home / "out"), "0", "3", "--html", str(tmp_path / "a.html"), "--corpus", str(wrong.folder)]
    )
    assert "its units last 1.44 s, the corpus has 2.89 s" in told.output
    assert "has no utterance 'utt-003'" in told.output
    assert "audio/flac" not in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "its units last" in error(play, home / "out", "0", "--out", tmp_path / "a.wav", "--corpus", wrong.folder)
    assert not (tmp_path / "a.wav").exists()


@pytest.mark.parametrize("fill", ["tone", "silence"])
def test_play_cuts_exactly(home: Path, tmp_path: Path, fill: str) -> None:
    out = tmp_path / "a.wav"
    settings = ("--set", "speech_span=fixed(2)", "--set", "speech_share=0.5", "--text", fill)
    told = output(play, home / "out", "utt-001", "--out", out, "--corpus", home / "corpus", *settings)
    audio, rate = soundfile.read(out, dtype="float32")
    assert rate == 16_000
    rows = [
        (float(at), float(to), kind, rest)
        for at, to, kind, rest in re.findall(r"^ *([\d.]+) +([\d.]+) {2}(\w+) +(.*)$", told, flags=re.MULTILINE)
    ]
    assert {kind for _, _, kind, _ in rows} == {"speech", fill}
    assert rows[0][0] == 0
    assert round(rows[-1][1] * rate) == len(audio)
    spoken = recording(1)
    for at, to, kind, rest in rows:
        part = audio[round(at * rate) : round(to * rate)]
        if kind == "speech":
            start, stop = (round(float(second) * rate) for second in rest.split()[0].split(".."))
            assert start % FRAME == stop % FRAME == 0
            assert np.array_equal(part, spoken[start:stop])
        else:
            assert len(part) == 4000
            assert bool(np.abs(part).max() > 0.05) == (fill == "tone")
    words = " ".join(rest.split("  ")[-1] if kind == "speech" else rest for _, _, kind, rest in rows)
    assert re.sub(r"[\d.]+\.\.[\d.]+ +", "", words).split() == TEXT.split()


def test_play_of_a_text_needs_no_corpus(home: Path, tmp_path: Path) -> None:
    output(play, home / "out", "1", "--stream", "text", "--out", tmp_path / "a.flac")
    assert len(soundfile.read(tmp_path / "a.flac")[0]) == 4000
    assert "name its corpus with --corpus" in error(play, home / "out", "1", "--out", tmp_path / "b.wav")


def test_text_by_a_voice_and_without_one(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (home / "out", "utt-001", "--corpus", home / "corpus", "--text", "voice")
    try:
        import espeakng_loader  # noqa: F401
    except ImportError:
        pass
    else:
        output(play, *arguments, "--out", tmp_path / "voice.wav")
        output(play, *arguments[:-1], "silence", "--out", tmp_path / "silent.wav")
        assert soundfile.info(tmp_path / "voice.wav").frames > soundfile.info(tmp_path / "silent.wav").frames

    def gone(options: object) -> engines.Engine:
        raise MissingExtra("speaking with espeak-ng", "voices")

    monkeypatch.setitem(engines.ENGINES, "espeak", gone)
    done = CliRunner().invoke(play, [*map(str, arguments), "--out", str(tmp_path / "none.wav")])
    assert isinstance(done.exception, MissingExtra)
    assert "no engine 'nobody'" in error(play, *arguments, "--voice", "nobody:x", "--out", tmp_path / "none.wav")


def test_mistakes_are_named_with_what_to_do(home: Path, tmp_path: Path) -> None:
    assert "nearest are 'utt-001'" in error(show, home / "out", "uttt-001")
    assert "a number from 0 to 3" in error(show, home / "out", "17")
    assert "allowed here: speech, text, interleaved" in error(show, home / "out", "--stream", "spoken")
    assert "did you mean 'speech_span'?" in error(show, home / "out", "--set", "speech_spam=fixed(2)")
    assert "give true or false" in error(show, home / "out", "--set", "markers=3")
    assert "give a number from 0 to 1, or none" in error(show, home / "out", "--set", "speech_share=much")
    assert "allowed: poisson(10)" in error(show, home / "out", "--set", "speech_span=poison(3)")
    assert "--vocabulary" in error(show, home / "out" / "store", "--vocabulary", tmp_path)
    assert "give a store's folder" in error(show, tmp_path)
    assert "neither a corpus folder" in error(show, home / "out", "--html", tmp_path / "a.html", "--corpus", tmp_path)


def test_sounds_of_each_kind_of_folder(home: Path, tmp_path: Path) -> None:
    imported = open_sounds(home / "corpus")
    found, missing = imported.load(["utt-002", "nobody", "utt-000"])
    assert list(found) == ["utt-002", "utt-000"]
    assert np.array_equal(found["utt-002"].spoken.audio, recording(2))
    assert list(missing) == ["nobody"]
    write_utterances(tmp_path / "utterances.parquet", utterances(2), group_rows=1)
    write_json(tmp_path / "record.json", {"config": {"corpus": {"kind": "corpus", "path": str(home / "corpus")}}})
    found, _ = open_sounds(tmp_path).load(["utt-001"])
    assert np.array_equal(found["utt-001"].spoken.audio, recording(1))
    write_json(tmp_path / "record.json", {"config": {"corpus": {"kind": "storyworld"}}})
    assert open_sounds(tmp_path).loader.has_phones
    write_json(tmp_path / "record.json", {"config": {}})
    with pytest.raises(DataError, match="neither a corpus folder"):
        open_sounds(tmp_path)
