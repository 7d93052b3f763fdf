"""Catches learned encoders that depend on the batch, the run or the speaker's pitch, and lost or foreign arrays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from speechscale.errors import DataError
from speechscale.speech import learned
from speechscale.speech.encoders import build_encoder, learning
from speechscale.speech.encoders.adapted import Adapted, mel_front, smooth, tensor_names, windows
from speechscale.speech.encoders.learning import Lesson, distort, learn_adapted
from speechscale.speech.encoders.repeats import STRETCH_FRAMES, find_repeats
from speechscale.speech.encoders.warping import NEUTRAL, WARPS, MelFront, choose_warp, warped_log_mel
from speechscale.speech.units import SpeechTokenizer, fit_tokenizer

FRONT, CONTEXT = mel_front(Adapted, {})
SHORT = Lesson(
    rounds=(8, 8),
    clusters=(4, 8),
    kept_clusterings=1,
    hidden=16,
    dim=8,
    frames_per_step=60,
    matrices=40,
    warp_rounds=2,
    warp_clusters=4,
    repeats_per_step=2,
)


def speech(seconds: float, seed: int, tract: float = 1.0, pitch_hz: float = 120.0) -> np.ndarray:
    """Vowel-like sounds: a pulse train through three resonances that jump every 150 ms."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16_000)) / 16_000
    vowels = np.array([[700, 1200, 2600], [300, 2300, 3000], [350, 800, 2500], [500, 1500, 2500], [600, 1000, 2400]])
    formants = np.repeat(vowels[rng.integers(5, size=len(time) // 2400 + 1)], 2400, axis=0)[: len(time)] / tract
    sound = np.zeros(len(time))
    for harmonic in range(1, round(5000 / pitch_hz)):
        gain = sum(1 / (1 + ((harmonic * pitch_hz - formants[:, f]) / 90) ** 2) for f in range(3))
        sound += gain * np.cos(2 * np.pi * harmonic * pitch_hz * time)
    noise = 0.001 * rng.standard_normal(len(time))
    return (0.02 * sound + noise).astype(np.float32)


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return learn_adapted([speech(2, seed) for seed in range(4)], FRONT, CONTEXT, seed=0, lesson=SHORT)[0]


def test_alone_and_in_any_batch_bit_for_bit(tensors: dict[str, np.ndarray]) -> None:
    waveforms = [speech(seconds, 9) for seconds in (3.3, 0.01, 0.04, 7.7, 1.0)]
    encoder = Adapted(tensors=tensors)
    together = encoder.encode(waveforms)
    assert [part.shape for part in together] == [(82, 8), (0, 8), (1, 8), (192, 8), (25, 8)]
    for waveform, features in zip(waveforms, together, strict=True):
        assert np.isfinite(features).all()
        assert Adapted(tensors=tensors).encode([waveform])[0].tobytes() == features.tobytes()


def test_silence_has_features_too(tensors: dict[str, np.ndarray]) -> None:
    (features,) = Adapted(tensors=tensors).encode([np.zeros(6400, np.float32)])
    assert np.isfinite(features).all()
    assert (features == features[0]).all()


def test_learning_is_deterministic_and_depends_on_the_seed(tensors: dict[str, np.ndarray]) -> None:
    again, info = learn_adapted([speech(2, seed) for seed in range(4)], FRONT, CONTEXT, seed=0, lesson=SHORT)
    other, _ = learn_adapted([speech(2, seed) for seed in range(4)], FRONT, CONTEXT, seed=1, lesson=SHORT)
    assert sorted(again) == sorted(tensors) == sorted(tensor_names())
    assert all(again[name].tobytes() == tensors[name].tobytes() for name in again)
    assert other["layer0.weight"].tobytes() != tensors["layer0.weight"].tobytes()
    assert info["supervised"] is False
    assert info["learned_frames"] == 200


def test_warp_undoes_a_short_vocal_tract() -> None:
    """Catches a warp in the wrong direction: formants of a short tract lie high, so reading must go up too."""
    usual = [speech(4, seed) for seed in range(3)]
    lesson = Lesson(rounds=(1,), clusters=(4,), kept_clusterings=1, hidden=4, dim=2, warp_clusters=8, frames_per_step=1)
    arrays, _ = learn_adapted(usual, FRONT, CONTEXT, seed=0, lesson=lesson)
    centroids = torch.from_numpy(arrays["warp.centroids"])

    def warp(tract: float) -> float:
        power = FRONT.power(speech(12, 7, tract, pitch_hz=130))
        return WARPS[choose_warp(FRONT.listen(power), centroids, float(arrays["warp.variance"]))]

    assert warp(0.85) > warp(1.0) > warp(1.18)
    assert warp(1.0) == pytest.approx(1.0, abs=0.05)


def test_prior_decides_for_very_short_audio() -> None:
    """One frame cannot tell a vocal tract; the warp must stay near 1."""
    rng = np.random.default_rng(0)
    candidates = torch.from_numpy(rng.standard_normal((1, len(WARPS), 26)).astype(np.float32))
    assert abs(choose_warp(candidates, torch.zeros(2, 26), 1.0) - NEUTRAL) <= 1


def test_frame_is_centered_on_its_hop(tensors: dict[str, np.ndarray]) -> None:
    """A click in the middle of unit frame 7 is loudest in its two subframes."""
    waveform = np.full(25 * 640, 1e-6, np.float32)
    waveform[7 * 640 + 320] = 1.0
    loud = warped_log_mel(FRONT, waveform, 1.0).mean(dim=1)
    assert sorted(loud.topk(2).indices.tolist()) == [14, 15]
    assert float(loud[14]) == pytest.approx(float(loud[15]), abs=0.05)
    rows = windows(torch.arange(10.0)[:, None], 2)
    assert rows.tolist()[0] == [0, 0, 0, 1, 2, 3]
    assert rows.tolist()[4] == [6, 7, 8, 9, 9, 9]


def test_long_audio_is_the_same_in_blocks() -> None:
    """Spectra made block by block have no seams."""
    front = MelFront(
        sample_rate_hz=16_000, hop_samples=64, window_samples=128, mels=8, low_hz=60, high_hz=7600, floor_db=60
    )
    waveform = speech(20, 3)
    whole = front.log_mel(front.power(waveform), 1.04)
    assert torch.allclose(warped_log_mel(front, waveform, 1.04), whole, atol=1e-5)
    assert len(whole) > 2 * 4096


def test_distortion_keeps_shape_and_is_drawn_from_the_generator() -> None:
    spectra = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    one, same, other = (distort(spectra, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == spectra.shape
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_repeats_are_found_where_they_are_and_nowhere_else() -> None:
    draw = torch.Generator().manual_seed(0)
    parts = [torch.randn(80, 16, generator=draw) for _ in range(4)]
    parts[1][30:50] = parts[0][10:30]
    parts[2][:] = 1.0  # Silence: alike everywhere, never a repeat.
    parts[3][:40] = 1.0
    found = find_repeats(parts, matrices=200, draw=draw)
    assert found
    for repeat in found:
        assert {repeat.one, repeat.other} == {0, 1}
        starts = {repeat.one: repeat.start, repeat.other: repeat.other_start}
        assert starts[1] - starts[0] == 20
        assert 10 - STRETCH_FRAMES / 2 <= starts[0] <= 18 + STRETCH_FRAMES / 2


@pytest.fixture(scope="module")
def tokenizer() -> SpeechTokenizer:
    return SpeechTokenizer(
        encoder_name="adapted",
        num_units=3,
        frame_rate_hz=25.0,
        sample_rate_hz=16_000,
        encoder_config={},
        encoder_tensors=learn_adapted([speech(2, s) for s in range(4)], FRONT, CONTEXT, seed=0, lesson=SHORT)[0],
        centroids=np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32),
        fit={"supervised": False},
    )


def test_saved_tokenizer_has_its_arrays(tokenizer: SpeechTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = SpeechTokenizer.load(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    waveform = speech(3, 5)
    assert loaded.units([waveform])[0].tobytes() == tokenizer.units([waveform])[0].tobytes()
    changed = {**tokenizer.encoder_tensors, "layer0.bias": tokenizer.encoder_tensors["layer0.bias"] + 1}
    assert replace(tokenizer, encoder_tensors=changed).fingerprint != tokenizer.fingerprint


def test_missing_and_foreign_arrays_are_refused(tensors: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match=r"learned arrays .*warp\.centroids.* are missing; it is learned from audio"):
        build_encoder("adapted", {})
    with pytest.raises(DataError, match=r"layer0\.weight is \(16, 240\), these settings need 320 inputs"):
        Adapted(context=3, tensors=tensors)
    with pytest.raises(DataError, match="version 2 is unknown"):
        Adapted(version=2, tensors=tensors)
    with pytest.raises(DataError, match=r"settings \['mel'\] are unknown"):
        fit_tokenizer([], encoder="adapted", clusters=5, seed=0, encoder_config={"mel": 3})


def test_too_little_audio_is_refused_before_training() -> None:
    with pytest.raises(DataError, match=r"learns from at least 100 frames, got 25; use more audio, or encoder 'mfcc'"):
        fit_tokenizer([speech(1, 0)], encoder="adapted", clusters=5, seed=0)
    few = fit_tokenizer([speech(8, 0)], encoder="adapted", clusters=5, seed=0)  # Fewer frames than its finest clusters.
    assert few.fit["learned_frames"] == 200
    with pytest.raises(DataError, match="waveform 1: holds NaN"):
        fit_tokenizer([speech(1, 0), np.full(640, np.nan, np.float32)], encoder="adapted", clusters=5, seed=0)


def test_fit_learns_from_the_head_and_clusters_the_whole_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches waveforms lost between learning and k-means, and long ones that are learned from whole."""
    monkeypatch.setattr(learning, "Lesson", lambda: SHORT)
    monkeypatch.setattr(learned, "LEARN_S", 4.5)
    monkeypatch.setattr(learned, "PIECE_S", 1.0)
    seen: list[int] = []
    monkeypatch.setattr(
        learned,
        "learn_adapted",
        lambda waveforms, *rest, **more: (seen.extend(map(len, waveforms)), learn_adapted(waveforms, *rest, **more))[1],
    )
    stream = (speech(2.5, seed) for seed in range(4))
    made = fit_tokenizer(stream, encoder="adapted", clusters=5, seed=0)
    assert seen == [16_000, 16_000, 8_000, 16_000, 16_000]
    assert made.fit["learned_frames"] == 25 + 25 + 12 + 25 + 25
    assert made.fit["frames_seen"] == 4 * 62
    assert made.fit["supervised"] is False
    assert made.encoder_config["smoothing"] == 0.4


def test_smoothing_moves_nothing_in_time() -> None:
    peak = np.zeros((9, 1), np.float32)
    peak[4] = 1
    assert smooth(peak, 0.4)[:, 0].tolist() == pytest.approx([0, 0, 0, 0.2, 0.6, 0.2, 0, 0, 0])
    assert smooth(peak[:1] + 1, 0.4).tolist() == [[1.0]]
    assert smooth(peak, 0.0) is peak


@pytest.mark.slow
def test_units_agree_more_between_vocal_tracts_than_those_of_mfcc() -> None:
    """The point of it: the same sounds from a long and a short vocal tract get the same units more often."""
    voices = ((0.9, 200.0), (1.0, 150.0), (1.15, 100.0))
    train = [speech(6, seed, tract, pitch) for seed in range(3) for tract, pitch in voices]
    lesson = Lesson(rounds=(60, 60), clusters=(10, 20), kept_clusterings=1, hidden=64, dim=16, frames_per_step=300)
    taught, _ = learn_adapted(train, FRONT, CONTEXT, seed=0, lesson=lesson)
    agreement = {}
    for encoder, arrays in (("mfcc", None), ("adapted", taught)):
        made = fit_tokenizer(train, encoder=encoder, encoder_tensors=arrays, clusters=12, seed=0)
        long, short = (made.units([speech(20, 77, tract, pitch)])[0] for tract, pitch in ((1.1, 110.0), (0.93, 180.0)))
        agreement[encoder] = float((long == short).mean())
    assert agreement["adapted"] > agreement["mfcc"] + 0.1
