"""Catches drift between chunks, times put on the wrong word, and text that an engine reads as a command.

The packages are not installed here: fake modules with the same interface stand in for them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from speechscale.errors import DataError, MissingExtra
from speechscale.records import NO_TIME, Utterance
from speechscale.voices.engines import Cast, VoiceOptions
from speechscale.voices.spoken import Spoken

PIPER_HZ, KOKORO_HZ = 22_050, 24_000


def speak(cast: Cast, *segments: str, errors: dict[str, str] | None = None) -> Spoken:
    (label,) = cast.voices
    said = Utterance(id="u", text=" ".join(segments), speaker=label, split="", segments=segments)
    (spoken,) = cast.speak([said], None if errors is None else errors.__setitem__)
    return spoken


# --- piper ---


@dataclass
class Alignment:
    phoneme: str
    phoneme_ids: list[int]
    num_samples: int


class FakePiper:
    """One chunk per sentence; each letter is a phoneme of 1000 samples, "^" and "$" 500, a comma 2000."""

    def __init__(self, *, aligns: bool = True, merges: bool = False) -> None:
        self.aligns, self.merges = aligns, merges
        self.said: list[tuple[str, Any]] = []
        self.loads = 0

    def module(self) -> Any:
        fake = self

        class PiperVoice:
            @staticmethod
            def load(model_path: str, config_path: Any = None, include_alignments: bool = False) -> Any:
                fake.loads += 1
                assert include_alignments
                return PiperVoice()

            def synthesize(self, text: str, syn_config: Any = None, include_alignments: bool = False) -> Any:
                fake.said.append((text, syn_config.speaker_id))
                for sentence in text.replace(". ", ".\n").split("\n"):
                    yield fake.chunk(sentence)

        return SimpleNamespace(
            PiperVoice=PiperVoice, SynthesisConfig=lambda speaker_id=None: SimpleNamespace(speaker_id=speaker_id)
        )

    def chunk(self, sentence: str) -> Any:
        spoken = sentence.replace("in the", "inthe") if self.merges else sentence
        sizes = {"^": 500, "$": 500, ",": 2000, " ": 300, ".": 2000}
        phonemes = ["^", *spoken, "$"]
        aligned = [Alignment(p, [0], sizes.get(p, 1000)) for p in phonemes]
        samples = sum(a.num_samples for a in aligned)
        return SimpleNamespace(
            sample_rate=PIPER_HZ,
            audio_float_array=np.linspace(-0.5, 0.5, samples, dtype=np.float32),
            phoneme_alignments=aligned if self.aligns else None,
        )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "en_US-x-low.onnx"
    path.write_bytes(b"model")
    settings = {"num_speakers": 3, "speaker_id_map": {"ann": 0, "bob": 1}}
    path.with_name(path.name + ".json").write_text(json.dumps(settings))
    return path


def install(monkeypatch: pytest.MonkeyPatch, name: str, module: Any) -> None:
    monkeypatch.setitem(sys.modules, name, module)


def test_piper_times_words_by_their_phonemes_over_sentences(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    """Catches drift: the second sentence starts where the audio of the first ends."""
    fake = FakePiper()
    install(monkeypatch, "piper", fake.module())
    cast = Cast([f"piper:{model}"])
    spoken = speak(cast, "ab, c. de -- f.")
    assert [word for word, _, _ in spoken.words] == ["ab,", "c.", "de", "--", "f."]
    seconds = [(a / 16_000, b / 16_000) for _, a, b in spoken.words]
    first = 500 + 2000 + 2000 + 300 + 1000 + 2000 + 500
    expected = [(500, 2500), (4800, 5800), (first + 500, first + 2500)]
    for (start, end), (a, b) in zip(seconds, expected, strict=False):
        assert start == pytest.approx(a / PIPER_HZ, abs=1e-4)
        assert end == pytest.approx(b / PIPER_HZ, abs=1e-4)
    assert seconds[3][0] == seconds[3][1]
    assert seconds[4][1] <= len(spoken.audio) / 16_000


@pytest.mark.parametrize(
    "fake", [FakePiper(aligns=False), FakePiper(merges=True)], ids=["no durations", "merged words"]
)
def test_piper_words_have_exact_times_or_none(fake: FakePiper, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    install(monkeypatch, "piper", fake.module())
    spoken = speak(Cast([f"piper:{model}"]), "cats in the box.")
    assert {(a, b) for _, a, b in spoken.words} == {(NO_TIME, NO_TIME)}
    assert len(spoken.audio) > 1000


def test_piper_speakers_commands_and_one_load(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    fake = FakePiper()
    install(monkeypatch, "piper", fake.module())
    cast = Cast([f"piper:{model}#bob"])
    facts = cast.check()
    assert list(facts) == ["piper:en_US-x-low#bob"]
    assert str(model.parent) not in json.dumps(facts)
    assert not facts["piper:en_US-x-low#bob"]["deterministic"]
    speak(cast, "say [[raw]] this.", "say it.")
    assert fake.said == [("say ((raw)) this.", 1), ("say it.", 1)]
    assert fake.loads == 1
    for bad, what in (("nobody", "no speaker 'nobody'"), ("7", "no speaker '7'")):
        with pytest.raises(DataError, match=what):
            Cast([f"piper:{model}#{bad}"]).check()
    with pytest.raises(DataError, match="is missing"):
        Cast([f"piper:{model.parent}/other.onnx"]).check()


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "piper", None)
    monkeypatch.setitem(sys.modules, "kokoro", None)
    with pytest.raises(MissingExtra, match=r"speechscale\[piper\]"):
        Cast(["piper:x.onnx"]).check()
    with pytest.raises(DataError, match="--kokoro-folder"):
        Cast(["kokoro:af_x"], VoiceOptions(kokoro_folder=str(tmp_path))).check()
    for name in ("config.json", "kokoro-v1_0.pth"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(MissingExtra, match=r"speechscale\[kokoro\]"):
        Cast(["kokoro:af_x"], VoiceOptions(kokoro_folder=str(tmp_path))).check()


# --- kokoro ---


@dataclass
class Token:
    text: str
    whitespace: str = " "
    start_ts: float | None = None
    end_ts: float | None = None


@dataclass
class Result:
    audio: torch.Tensor | None
    tokens: list[Token] | None


@dataclass
class FakeKokoro:
    """Answers with the given chunks; remembers what it was asked."""

    chunks: list[Result]
    asked: list[tuple[str, str]] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)

    def module(self) -> Any:
        fake = self

        class KModel:
            def __init__(self, repo_id: str, config: str, model: str) -> None:
                fake.made.append({"config": config, "model": model})

            def to(self, device: str) -> KModel:
                return self

            def eval(self) -> KModel:
                return self

        class KPipeline:
            def __init__(self, lang_code: str, repo_id: str, model: Any) -> None:
                assert lang_code == "a"
                assert isinstance(model, KModel)

            def __call__(self, text: str, voice: str, speed: float, split_pattern: Any) -> Any:
                assert split_pattern is None
                fake.asked.append((text, voice))
                yield from fake.chunks

        return SimpleNamespace(KModel=KModel, KPipeline=KPipeline)


def chunk(seconds: float, *tokens: Token) -> Result:
    return Result(audio=torch.full((round(seconds * KOKORO_HZ),), 0.25), tokens=list(tokens))


@pytest.fixture
def weights(tmp_path: Path) -> str:
    for name in ("config.json", "kokoro-v1_0.pth", "voices/af_heart.pt", "voices/jf_alpha.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return str(tmp_path)


def kokoro(monkeypatch: pytest.MonkeyPatch, weights: str, *chunks: Result) -> tuple[Cast, FakeKokoro]:
    fake = FakeKokoro(list(chunks))
    install(monkeypatch, "kokoro", fake.module())
    return Cast(["kokoro:af_heart"], VoiceOptions(kokoro_folder=weights)), fake


def test_kokoro_chunks_are_placed_by_their_samples(monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    """Catches the drift of hexgrad/kokoro#32: the first chunk's last word ends at 0.5 s, its audio at 2 s."""
    cast, _ = kokoro(
        monkeypatch,
        weights,
        chunk(2.0, Token("Go", " ", 0.1, 0.3), Token("home", "", 0.3, 0.5), Token(",", " ", 0.5, 0.6)),
        chunk(1.0, Token("well", "", 0.2, 0.4), Token("-", "", None, None), Token("known", "", 0.4, 9.0)),
    )
    spoken = speak(cast, "Go home, well-known")
    assert [(w, a / 16_000, b / 16_000) for w, a, b in spoken.words] == [
        ("Go", pytest.approx(0.1), pytest.approx(0.3)),
        ("home,", pytest.approx(0.3), pytest.approx(0.5)),
        ("well-known", pytest.approx(2.2), pytest.approx(3.0)),
    ]
    assert len(spoken.audio) == 48_000


def test_kokoro_words_without_times_stay_without(monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    tokens = [Token("a", " ", 0.1, 0.2), Token("b"), Token("--", " "), Token("c", "", 0.15, 0.4), Token("d", " ", 0.5)]
    cast, _ = kokoro(monkeypatch, weights, chunk(1.0, *tokens))
    spoken = speak(cast, "a b -- c d")
    assert spoken.words == [
        ("a", 1600, 3200),
        ("b", NO_TIME, NO_TIME),
        ("--", 3200, 3200),
        ("c", 3200, 6400),
        ("d", NO_TIME, NO_TIME),
    ]


def test_kokoro_without_tokens_has_audio_and_no_times(monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    cast, _ = kokoro(monkeypatch, weights, Result(audio=torch.full((2400,), 0.1), tokens=None))
    assert speak(cast, "one two").words == [("one", NO_TIME, NO_TIME), ("two", NO_TIME, NO_TIME)]


def test_kokoro_reads_no_commands_and_only_local_files(monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    cast, fake = kokoro(monkeypatch, weights, chunk(1.0))
    facts = cast.check()["kokoro:af_heart"]
    assert "Apache" in str(facts["licence"])
    assert weights not in json.dumps(facts)
    speak(cast, "a [word](/wɝd/) here", "again")
    assert [text for text, _ in fake.asked] == ["a [word)(/wɝd/) here", "again"]
    assert {voice for _, voice in fake.asked} == {str(Path(weights) / "voices" / "af_heart.pt")}
    assert fake.made == [{"config": f"{weights}/config.json", "model": f"{weights}/kokoro-v1_0.pth"}]


def test_kokoro_voices_that_cannot_be_used_are_refused(monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    kokoro(monkeypatch, weights, chunk(1.0))
    options = VoiceOptions(kokoro_folder=weights)
    with pytest.raises(DataError, match="it has: af_heart, jf_alpha"):
        Cast(["kokoro:af_none"], options).check()
    with pytest.raises(DataError, match="not English"):
        Cast(["kokoro:jf_alpha"], options).check()


def test_kokoro_silence_and_failures_are_reported(monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    cast, _ = kokoro(monkeypatch, weights, Result(audio=None, tokens=None))
    said = Utterance(id="u", text="x", speaker="kokoro:af_heart", split="", segments=("x",))
    errors: dict[str, str] = {}
    assert list(cast.speak([said], errors.__setitem__)) == []
    assert "silent" in errors["u"]
