"""Catches a supervised encoder that hides that it is, learns from nothing, or learns labels of the wrong place."""

from __future__ import annotations

import numpy as np
import pytest

from speechscale.errors import DataError
from speechscale.speech.encoders.adapted import mel_front
from speechscale.speech.encoders.learning import Lesson
from speechscale.speech.encoders.phonetic import PhoneticSupervised, learn_phonetic
from speechscale.speech.frames import Event
from speechscale.speech.units import SpeechTokenizer, fit_tokenizer

FRONT, CONTEXT = mel_front(PhoneticSupervised, {})
LESSON = Lesson(rounds=(60,), hidden=32, dim=8, frames_per_step=100, warp_clusters=4, warp_rounds=1)


def tones(seed: int, count: int = 40) -> tuple[np.ndarray, list[Event]]:
    """Bands of noise of 80 to 240 ms, low, middle or high, and what they are called."""
    rng = np.random.default_rng(seed)
    parts, phones, at = [], [], 0
    for kind in rng.integers(3, size=count).tolist():
        samples = int(rng.integers(1280, 3840))
        low, high = ((200, 600), (1200, 2000), (3500, 6000))[kind]
        spectrum = np.fft.rfft(rng.standard_normal(samples))
        frequency = np.fft.rfftfreq(samples, 1 / 16_000)
        parts.append(np.fft.irfft(np.where((frequency > low) & (frequency < high), spectrum, 0.02 * spectrum), samples))
        phones.append(("abc"[kind], at, at + samples))
        at += samples
    return (0.1 * np.concatenate(parts)).astype(np.float32), phones


def test_features_tell_the_labels_apart_in_unheard_audio() -> None:
    tensors, info = learn_phonetic([tones(seed) for seed in range(4)], FRONT, CONTEXT, seed=0, lesson=LESSON)
    assert info["supervised"] is True
    assert "not textless" in info["supervision"]
    assert info["phones"] == ["a", "b", "c", "sil"]
    encoder = PhoneticSupervised(tensors=tensors)
    assert encoder.name == "phonetic-supervised"
    train, test = tones(1), tones(9)

    def frames(pair: tuple[np.ndarray, list[Event]]) -> tuple[np.ndarray, np.ndarray]:
        (features,) = encoder.encode([pair[0]])
        borders = np.array([start for _, start, _ in pair[1]])
        kinds = np.array([label for label, _, _ in pair[1]])
        centers = (np.arange(len(features)) + 0.5) * 640
        return features, kinds[np.searchsorted(borders, centers, side="right") - 1]

    known, names = frames(train)
    means = np.stack([known[names == name].mean(axis=0) for name in "abc"])
    heard, truth = frames(test)
    guessed = np.array(list("abc"))[((heard[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)]
    assert (guessed == truth).mean() > 0.9


def test_tokenizer_says_that_it_is_supervised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn_phonetic, "__kwdefaults__", {"lesson": LESSON})
    speech = [tones(seed)[0] for seed in range(3)]
    made = fit_tokenizer(
        speech, encoder="phonetic-supervised", clusters=3, seed=0, labeled=lambda: [tones(seed) for seed in range(3)]
    )
    assert made.fit["supervised"] is True
    assert made.encoder_name == "phonetic-supervised"
    assert isinstance(made, SpeechTokenizer)
    assert len(made.units([speech[0]])[0]) == len(speech[0]) // 640


def test_needs_labeled_speech() -> None:
    with pytest.raises(DataError, match="trained on speech with phone labels, none was given"):
        fit_tokenizer([tones(0)[0]], encoder="phonetic-supervised", clusters=3, seed=0)
    with pytest.raises(DataError, match="got 0 utterances"):
        fit_tokenizer([tones(0)[0]], encoder="phonetic-supervised", clusters=3, seed=0, labeled=list)
