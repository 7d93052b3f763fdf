"""Catches features that depend on the batch, are shifted in time, or miss frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.speech.encoders import ENCODERS, LogMel, Mfcc, build_encoder, deltas, mel_filterbank


def noise(samples: int, seed: int = 0) -> np.ndarray:
    swell = 0.2 + 0.15 * np.sin(np.arange(samples) / 1500)
    return (swell * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@given(samples=st.integers(0, 4000))
@settings(max_examples=40, deadline=None)
def test_frames_are_whole_hops(samples: int) -> None:
    features = Mfcc().encode([noise(samples)])[0]
    assert features.shape == (samples // 640, 26)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_alone_and_in_any_batch_bit_for_bit() -> None:
    waveforms = [noise(samples, samples) for samples in (640, 90_001, 16_000, 5_119, 33_333)]
    encoder = Mfcc()
    together = encoder.encode(waveforms)
    backwards = encoder.encode(waveforms[::-1])[::-1]
    for waveform, one, other in zip(waveforms, together, backwards, strict=True):
        alone = Mfcc().encode([waveform])[0]
        assert alone.tobytes() == one.tobytes() == other.tobytes()


def test_threads_do_not_change_features() -> None:
    waveform, threads = noise(200_000), torch.get_num_threads()
    one = Mfcc().encode([waveform])[0]
    try:
        torch.set_num_threads(2)
        two = Mfcc().encode([waveform])[0]
    finally:
        torch.set_num_threads(threads)
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("frame", [0, 7, 24])
def test_frame_is_centered_on_its_hop(frame: int) -> None:
    waveform = np.full(25 * 640, 1e-6, np.float32)
    waveform[round((frame + 0.5) * 640)] = 1.0
    loudness = Mfcc().encode([waveform])[0][:, 0]
    assert loudness.argmax() == frame
    assert (np.delete(loudness, frame) < loudness[frame] - 1).all()


def test_features_are_normalized_and_deltas_weigh_half() -> None:
    features = Mfcc().encode([noise(64_000)])[0]
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(axis=0), [1.0] * 13 + [0.5] * 13, atol=1e-4)


def test_loudness_does_not_matter() -> None:
    waveform = noise(32_000)
    loud, quiet = Mfcc().encode([waveform, waveform * np.float32(0.01)])
    np.testing.assert_allclose(loud, quiet, atol=2e-3)


def test_silence_and_constants_give_zeros() -> None:
    for value in (0.0, 0.25):
        features = Mfcc().encode([np.full(6400, value, np.float32)])[0]
        assert np.abs(features[2:-2]).max() < (1e-6 if value == 0 else 1)


def test_filterbank_covers_the_band() -> None:
    filters = mel_filterbank(80, 257, 16_000, 0.0, 8000.0)
    np.testing.assert_allclose(filters.sum(axis=1), 1, rtol=1e-6)
    centers = (filters * np.linspace(0, 8000, 257)).sum(axis=1)
    assert (np.diff(centers) >= 0).all()
    assert centers[-1] > 7500


def test_deltas_of_a_line_are_its_slope() -> None:
    line = torch.arange(10.0)[:, None] * torch.tensor([[2.0, -3.0]])
    torch.testing.assert_close(deltas(line, 2)[2:-2], torch.tensor([[2.0, -3.0]]).expand(6, 2))


def test_config_rebuilds_the_encoder() -> None:
    encoder = ENCODERS["mfcc"](hop_samples=320, window_samples=400)
    again = build_encoder("mfcc", encoder.config())
    assert again == encoder
    assert again.frame_rate_hz == 50
    assert again.encode([noise(1000)])[0].tobytes() == encoder.encode([noise(1000)])[0].tobytes()


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("hubert", {}, "encoder 'hubert' is unknown; known are: .*mfcc"),
        ("mfcc", {"hop": 3}, r"settings \['hop'\] do not fit"),
        ("mfcc", {"version": 2}, "version 2 is unknown"),
        ("mfcc", {"hop_samples": 0}, "0 < hop_samples <= window_samples"),
        ("mfcc", {"high_hz": 9000.0}, "high_hz <= 8000"),
    ],
)
def test_impossible_settings_are_refused(name: str, config: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_encoder(name, config)


@pytest.mark.parametrize("encoder", [Mfcc(), LogMel()], ids=["mfcc", "log-mel"])
@given(cuts=st.lists(st.integers(1, 50_000), max_size=6))
@settings(max_examples=15, deadline=None)
def test_streamed_features_are_the_same_bits(encoder: Mfcc | LogMel, cuts: list[int]) -> None:
    """Catches features that depend on how the decoder cut its blocks."""
    waveform = noise(50_000)
    blocks = np.split(waveform, sorted(set(cuts) - {50_000}))
    streamed = list(encoder.encode_stream(lambda: blocks))
    assert np.concatenate(streamed).tobytes() == encoder.encode([waveform])[0].tobytes()


def test_long_files_in_steps_agree_with_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches frames lost or shifted at the border of two steps."""
    waveform = noise(100_000)
    whole = Mfcc().encode([waveform])[0]
    monkeypatch.setattr("speechscale.speech.encoders.mel.PIECE_FRAMES", 17)
    np.testing.assert_allclose(Mfcc().encode([waveform])[0], whole, atol=1e-4)


def test_log_mel_is_loudness_free_and_refuses_nonsense() -> None:
    waveform = noise(16_000)
    loud, quiet = LogMel().encode([waveform, waveform * np.float32(0.01)])
    assert loud.shape == (100, 80)
    np.testing.assert_allclose(loud, quiet, atol=2e-3)
    assert LogMel(normalize=False).encode([waveform])[0].max() == 0
    assert build_encoder("log-mel", LogMel(mels=40).config()) == LogMel(mels=40)
    for wrong in ({"mels": 0}, {"high_hz": 9000.0}, {"version": 3}):
        with pytest.raises(DataError, match="encoder log-mel"):
            build_encoder("log-mel", wrong)


def test_nan_in_a_stream_is_an_error() -> None:
    bad = noise(5000)
    bad[77] = np.nan
    with pytest.raises(DataError, match="holds NaN"):
        list(Mfcc().encode_stream(lambda: [bad]))
