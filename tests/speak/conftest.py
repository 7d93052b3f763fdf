"""A whole speaking model in small: ten units of tones, a vocoder, random models, folders as training leaves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechscale.model.folders import save_model
from speechscale.records import UnitTableBuilder, dedup
from speechscale.speak.speech_lm import SpeechLM
from speechscale.speech.audio import write_audio
from speechscale.speech.units import fit_tokenizer
from speechscale.speech.vocoder import train_vocoder
from speechscale.tokens.vocabulary import Vocabulary
from tests.evals.conftest import make_model, vocabulary

__all__ = ["make_model", "vocabulary"]
RATE = 16_000


def tones(seconds: float, seed: int) -> np.ndarray:
    """Sound whose pitch changes ten times a second."""
    generator = np.random.default_rng(seed)
    pitch = np.repeat(generator.uniform(100, 2000, round(10 * seconds) + 1), RATE // 10)[: round(seconds * RATE)]
    return (0.4 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE) + 0.01 * generator.normal(size=len(pitch))).astype(
        np.float32
    )


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tokenizer/ of ten units and vocoder/ of one voice, hardly trained."""
    folder = tmp_path_factory.mktemp("tools")
    sounds = [tones(4.0, seed) for seed in range(6)]
    tokenizer = fit_tokenizer(sounds, encoder="mfcc", clusters=10, seed=0)
    tokenizer.save(folder / "tokenizer")
    table = UnitTableBuilder(frame_rate_hz=tokenizer.frame_rate_hz, num_units=10)
    for number, frames in enumerate(tokenizer.units(sounds)):
        units, durations = dedup(frames)
        table.add(
            id=f"u{number}", speaker="a", split="train", text="", units=units, durations_frames=durations, words=[],
            word_frames=np.zeros((0, 2), np.int32),
        )  # fmt: skip
    train_vocoder(table.build(), sounds, seed=0, steps=3, batch=2, crop_mel_frames=32).save(folder / "vocoder")
    return folder


@pytest.fixture(scope="session")
def folder(
    make_model: Callable[..., Any], vocabulary: Vocabulary, tools: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model folder that has both modalities, with tokenizer and vocoder below it as in a bundle."""
    made = tmp_path_factory.mktemp("bundle") / "tiny"
    save_model(make_model(), made)
    vocabulary.save(made)
    for name, here in (("tokenizer", "speech_tokenizer"), ("vocoder", "vocoder")):
        (made / here).mkdir()
        for file in (tools / name).iterdir():
            (made / here / file.name).write_bytes(file.read_bytes())
    return made


@pytest.fixture
def slm(folder: Path) -> SpeechLM:
    return SpeechLM.from_pretrained(folder)


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "x.wav"
    write_audio(path, tones(1.5, 9), RATE)
    return path
