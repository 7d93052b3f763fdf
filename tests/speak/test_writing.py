"""Would catch: samples that change after a stop, prompts lost without a word, devices needed where none is."""

from __future__ import annotations

import copy
import json
import struct
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from speechscale.cli import cli
from speechscale.errors import DataError, MissingExtra, StaleStep
from speechscale.files import held_alone
from speechscale.report.samples_records import shown_samples
from speechscale.speak.aloud import speak_aloud
from speechscale.speak.devices import growing_file, record
from speechscale.speak.prompts import prompt_of, read_prompts
from speechscale.speak.speech_lm import SpeechLM
from speechscale.speak.writing import Wanted, write_samples
from tests.speak.conftest import RATE, tones

TEXTS = ["tom ran", "tom flew", "ann lost rome .", "he won"]


def _files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_prompt_is_kept_or_dropped_with_a_reason(slm: SpeechLM, recording: Path, tmp_path: Path) -> None:
    prompts = read_prompts([recording], TEXTS)
    settings = slm.settings("speech", max_new_tokens=20, samples=2, seed=7)
    records, skips = write_samples(slm, prompts, settings, tmp_path / "a", Wanted(batch=2))
    assert [r["id"] for r in records] == [f"p{i}-{j}" for i in (0, 1, 3, 4) for j in (0, 1)]
    assert skips.ids == ["p2"]
    assert "does not know 'flew'" in (tmp_path / "a" / "skips.jsonl").read_text()
    lines = [json.loads(line) for line in (tmp_path / "a" / "samples.jsonl").read_text().splitlines()]
    assert lines == records
    assert len(shown_samples(lines)) == 8
    for line in lines:
        audio, rate = soundfile.read(tmp_path / "a" / line["audio"])
        assert len(audio) / rate == pytest.approx(line["seconds"])
        assert line["settings"] == {"max_new_tokens": 20, "min_new_tokens": 0, "temperature": 0.8, "top_k": 25,
                                    "repetition_penalty": 1.0, "samples": 2, "stop": "eos"}  # fmt: skip
    assert (tmp_path / "a" / lines[0]["prompt"]["audio"]).is_file()
    page = (tmp_path / "a" / "index.html").read_text()
    assert "tom ran" in page
    # A file that cannot be read is one prompt lost, not all.
    (tmp_path / "broken.wav").write_bytes(b"RIFFnothing")
    lines_file = tmp_path / "more.jsonl"
    lines_file.write_text(
        '{"id": "gone", "audio": "gone.wav"}\n{"id": "sound", "audio": "broken.wav"}\n{"text": "tom ran"}\n'
    )
    records_of_more, skips_of_more = write_samples(slm, read_prompts([lines_file]), settings, tmp_path / "more")
    assert ([r["id"] for r in records_of_more], skips_of_more.ids) == (["p2-0", "p2-1"], ["gone", "sound"])
    # Another batch size is another recipe only for the machine: draws go by the prompt's number.
    again, _ = write_samples(slm, prompts, settings, tmp_path / "b", Wanted(batch=16))
    assert again == records


def test_the_same_command_goes_on_after_a_stop(slm: SpeechLM, recording: Path, tmp_path: Path) -> None:
    prompts = read_prompts([recording], TEXTS)
    settings = slm.settings("free", max_new_tokens=20)
    write_samples(slm, prompts, settings, tmp_path / "a", Wanted(batch=2))
    write_samples(slm, prompts, settings, tmp_path / "b", Wanted(batch=2))
    kept = tmp_path / "b" / "kept.jsonl"
    lines = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(b"".join(lines[:3]) + lines[3][:9])
    (tmp_path / "b" / "samples.jsonl").unlink()
    write_samples(slm, prompts, settings, tmp_path / "b", Wanted(batch=2))
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
    with pytest.raises(StaleStep, match="another settings"):
        write_samples(slm, prompts, slm.settings("free", max_new_tokens=21), tmp_path / "a")
    with pytest.raises(StaleStep, match="another prompts"):
        write_samples(slm, prompts[:1], settings, tmp_path / "a")
    with pytest.raises(DataError, match=r"none of 1 prompts can be used .*flew"):
        write_samples(slm, read_prompts([], ["tom flew"]), settings, tmp_path / "c")


class Hears:
    """A recognizer that hears one word."""

    def stamp(self) -> dict[str, Any]:
        return {"asr": "one-word"}

    def __call__(self, waveforms: Any) -> list[str]:
        return ["hello" for _ in waveforms]


def test_words_that_a_recognizer_heard_stand_in_the_record(slm: SpeechLM, tmp_path: Path) -> None:
    settings = slm.settings("speech", max_new_tokens=20, stop="never")
    records, _ = write_samples(slm, read_prompts([], ["tom ran"]), settings, tmp_path, Wanted(recognizer=Hears()))
    assert records[0]["words_by"] == "one-word"
    assert records[0]["words"] == []
    assert any("no times" in note for note in records[0]["notes"])


def test_one_writer_at_a_time_and_one_vocoder(slm: SpeechLM, tmp_path: Path) -> None:
    prompts, settings = read_prompts([], ["tom ran", "he won"]), slm.settings("speech", max_new_tokens=10)
    with held_alone(tmp_path, "is generating into it"), pytest.raises(DataError, match="another run is generating"):
        write_samples(slm, prompts, settings, tmp_path)
    write_samples(slm, prompts, settings, tmp_path)
    before = _files(tmp_path)
    (tmp_path / "audio" / "p1-0.wav").unlink()
    write_samples(slm, prompts, settings, tmp_path)
    after = _files(tmp_path)
    assert after.pop("kept.jsonl") != before.pop("kept.jsonl")
    assert after == before, "lost sound is made again"
    other: Any = copy.deepcopy(slm.vocoder)
    with torch.no_grad():
        next(other.network.parameters()).add_(1)
    with pytest.raises(StaleStep, match="another vocoder"):
        write_samples(replace(slm, vocoder=other), prompts, settings, tmp_path)


def test_a_batch_cut_short_is_made_again_as_it_was(
    slm: SpeechLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In bf16 the last digits of a row depend on how many stand beside it.
    prompts, settings = read_prompts([], [*TEXTS, "rome"]), slm.settings("speech", max_new_tokens=20)
    write_samples(slm, prompts, settings, tmp_path / "a", Wanted(batch=3))
    batches, whole = [], SpeechLM.continue_opened

    def watched(self: SpeechLM, opened: Any, settings: Any, numbers: list[int], voice: Any) -> Any:
        batches.append(numbers)
        return whole(self, opened, settings, numbers, voice)

    monkeypatch.setattr(SpeechLM, "continue_opened", watched)
    write_samples(slm, prompts, settings, tmp_path / "b", Wanted(batch=3))
    kept = tmp_path / "b" / "kept.jsonl"
    kept.write_bytes(b"".join(kept.read_bytes().splitlines(keepends=True)[:4]))
    write_samples(slm, prompts, settings, tmp_path / "b", Wanted(batch=3))
    assert batches == [[0, 2], [3, 4], [3, 4]], "prompt 1 has an unknown word"
    assert _files(tmp_path / "a") == _files(tmp_path / "b")


def test_what_cannot_be_written_is_said_before_anything_is_made(slm: SpeechLM, tmp_path: Path) -> None:
    (tmp_path / "d.wav").mkdir()
    settings = slm.settings("speech", max_new_tokens=10)
    for name, message in (("d.wav", "is a folder"), ("x.mp3", "written as .wav or .flac")):
        with pytest.raises(DataError, match=message):
            speak_aloud(replace(slm, model=None), prompt_of("tom ran"), settings, tmp_path / name)
    with pytest.raises(DataError, match="cannot be written"), growing_file(Path("/proc/x.wav"), RATE):
        pass


def test_streamed_and_whole_files_are_equal(slm: SpeechLM, recording: Path, tmp_path: Path) -> None:
    settings = slm.settings("speech", max_new_tokens=50, stop="never", seed=3)
    for source in (prompt_of(recording), prompt_of("tom ran")):
        whole = speak_aloud(slm, source, settings, tmp_path / "whole.wav")
        stream = speak_aloud(slm, source, settings, tmp_path / "stream.wav", stream=True)
        assert (tmp_path / "whole.wav").read_bytes() == (tmp_path / "stream.wav").read_bytes()
        assert stream.first_s is not None
        assert whole.first_s is None
        assert (whole.seconds, whole.new_units) == (pytest.approx(stream.seconds), stream.new_units)
        assert whole.new_units == 50


def test_a_streamed_file_grows(slm: SpeechLM, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    settings = slm.settings("speech", max_new_tokens=120, stop="never")
    for chunk in slm.stream_opened(slm.opened(prompt_of(recording), settings), settings):
        sizes.append(len(chunk.audio))
    assert sum(size > 0 for size in sizes) > 5, "sound comes in pieces"
    written = []

    def look(audio: np.ndarray) -> None:
        written.append(soundfile.info(tmp_path / "x.wav").frames)

    monkeypatch.setattr("speechscale.speak.aloud.loudspeaker", lambda rate_hz: nullcontext(look))
    speak_aloud(slm, prompt_of(recording), settings, tmp_path / "x.wav", play=True)
    assert written == sorted(written)
    assert len(set(written)) > 5, "the file can be read while it grows"


def test_a_microphone_is_a_prompt(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def rec(frames: int, **settings: Any) -> np.ndarray:
        taken.append((frames, settings["samplerate"]))
        return tones(frames / RATE, 4)[:, None]

    fake = SimpleNamespace(rec=rec, wait=lambda: None, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    out = tmp_path / "x.wav"
    result = CliRunner().invoke(cli, ["speak", str(folder), "--microphone", "1.5", "--max-new", "9", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert taken == [(24_000, RATE)]
    assert soundfile.info(out).duration > 1.0
    with pytest.raises(DataError, match="positive number of seconds"):
        record(0.0, RATE)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no device")

    monkeypatch.setattr(fake, "rec", broken)
    with pytest.raises(DataError, match=r"cannot record \(no device\)"):
        record(1.0, RATE)
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingExtra, match="devices"):
        record(1.0, RATE)


def test_commands(folder: Path, recording: Path, tmp_path: Path) -> None:
    run = CliRunner()
    out = tmp_path / "said"
    made = run.invoke(
        cli,
        ["generate", str(folder), str(recording), "--text", "tom ran", "--into", "free", "--samples", "2", "--max-new",
         "15", "--min-p", "0.02", "--repetition-penalty", "1.1", "--stop", "switch", "--out", str(out)],
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert len((out / "samples.jsonl").read_text().splitlines()) == 4
    assert "4 samples; samples.jsonl" in made.output
    raw = run.invoke(cli, ["speak", str(folder), "--text", "tom ran", "--max-new", "15", "--stream", "--out", "-"])
    assert raw.exit_code == 0
    samples = struct.unpack(f"<{len(raw.stdout_bytes) // 2}h", raw.stdout_bytes)
    assert max(map(abs, samples)) > 10
    assert "first sound" in raw.stderr
    for arguments, message in (
        (["speak", str(folder)], "exactly one of --prompt"),
        (["speak", str(folder), "--text", "tom", "--out", str(tmp_path / "x.mp3")], "written as .wav or .flac"),
        (["generate", str(folder), "--out", str(tmp_path / "n")], "no prompt"),
        (["generate", str(tmp_path / "none"), "--text", "tom", "--out", str(tmp_path / "n")], "no such folder"),
        (
            [
                "generate",
                str(folder),
                "--text",
                "tom",
                "--out",
                str(tmp_path / "n"),
                "--asr",
                "pocketsphinx",
                "--asr-texts",
                str(recording),
            ],
            "not UTF-8",
        ),
        (["speak", str(folder), "--text", "tom", "--temperature", "nan"], "temperature nan: give 0"),
        (["speak", str(folder), "--text", "tom", "--seconds", "inf"], "seconds inf: give a positive"),
        (["generate", str(folder), "--text", "tom flew", "--out", str(tmp_path / "n")], "does not know 'flew'"),
    ):
        refused = run.invoke(cli, arguments)
        assert (refused.exit_code, message in refused.output) == (2, True), refused.output
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors", "generation_config.json", "vocabulary.json", "tokenizer.json"):
        (bare / name).write_bytes((folder / name).read_bytes())
    silent = run.invoke(cli, ["generate", str(bare), "--text", "tom ran", "--out", str(tmp_path / "silent")])
    assert silent.exit_code == 0
    assert "note: no vocoder" in silent.output
    mute = run.invoke(cli, ["speak", str(bare), "--text", "tom ran", "--out", str(tmp_path / "y.wav")])
    assert (mute.exit_code, "no vocoder to speak with" in mute.output) == (2, True)
