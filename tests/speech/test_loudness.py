"""Catches wrong levels, clipping that is missed or imagined, and figures that depend on the blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.speech.audio import load_audio, resample
from speechscale.speech.loudness import Loudness, LoudnessMeter, loudness

RATE = 48_000


def sine(level_dbfs: float, seconds: float, rate: int = RATE, hertz: float = 997.0) -> np.ndarray:
    return 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def measure(audio: np.ndarray, rate: int = RATE) -> Loudness:
    meter = LoudnessMeter(rate, 1 if audio.ndim == 1 else audio.shape[1])
    meter.add(audio)
    return meter.result()


@pytest.mark.parametrize(("rate", "within"), [(48_000, 0.005), (44_100, 0.01), (16_000, 0.05), (8000, 0.05)])
def test_a_full_scale_sine_has_the_loudness_of_the_standard(rate: int, within: float) -> None:
    """ITU-R BS.1770-4: 0 dBFS at 997 Hz in one front channel reads -3.01 LKFS."""
    result = measure(sine(0, 5, rate), rate)
    assert result.lufs == pytest.approx(-3.01, abs=within)
    assert result.peak_dbfs == pytest.approx(0, abs=0.01)
    assert result.rms_dbfs == pytest.approx(-3.01, abs=0.01)


def test_gating_cases_of_ebu_tech_3341() -> None:
    """Cases 1, 3 and 4: a stereo tone of -23 dBFS; the same between tones that the two gates drop
    (all parts shorter than there)."""
    tone = lambda level, seconds: np.stack([sine(level, seconds, hertz=1000.0)] * 2, axis=1)  # noqa: E731
    assert measure(tone(-23, 5)).lufs == pytest.approx(-23.0, abs=0.1)
    steps = np.concatenate([tone(-36, 4), tone(-23, 20), tone(-36, 4)])
    assert measure(steps).lufs == pytest.approx(-23.0, abs=0.1)
    steps = np.concatenate([tone(-72, 4), tone(-36, 4), tone(-23, 20), tone(-36, 4), tone(-72, 4)])
    assert measure(steps).lufs == pytest.approx(-23.0, abs=0.1)


def test_what_does_not_exist_is_absent() -> None:
    for audio in (np.zeros(RATE), np.zeros(1)):
        result = measure(audio)
        assert (result.peak_dbfs, result.rms_dbfs, result.lufs, result.bandwidth_hz) == (None,) * 4
        assert (result.silent_share, result.clipped_share, result.offset) == (1.0, 0.0, 0.0)
    assert measure(sine(-6, 0.39)).lufs is None
    assert measure(sine(-6, 0.41)).lufs is not None
    empty = LoudnessMeter(RATE).result()
    assert (empty.duration_s, empty.lufs, empty.silent_share) == (0.0, None, 0.0)


def test_clipping_is_counted_in_runs_at_either_extreme() -> None:
    clean = sine(-1, 1.0)
    assert measure(clean).clipped_share == 0
    clipped = np.clip(2 * clean, -0.8, 0.9)
    runs = (clipped == 0.9).sum() + (clipped == -0.8).sum()
    assert measure(clipped).clipped_share == runs / RATE > 0.1
    pair = 0.5 * clean
    pair[[100, 101, 500, 501, 502]] = 0.9
    assert measure(pair).clipped_share == 3 / RATE
    quiet = np.rint(sine(-60, 1.0, hertz=50.0) * 32_768) / 32_768
    assert measure(quiet).clipped_share == 0


def test_one_clipped_channel_and_its_offset_are_seen() -> None:
    left = np.clip(2 * sine(0, 1.0), -1, 1)
    both = np.stack([left, 0.1 * sine(0, 1.0) - 0.02], axis=1)
    result = measure(both)
    assert result.clipped_share == pytest.approx((np.abs(left) == 1).mean() / 2)
    assert result.offset == pytest.approx(-0.02)
    assert result.channels == 2


def test_silent_share_counts_frames() -> None:
    audio = np.concatenate([sine(-20, 1.0), np.zeros(RATE), sine(-70, 2.0)])
    assert measure(audio).silent_share == pytest.approx(0.75, abs=0.01)


def test_bandwidth_reveals_upsampling() -> None:
    narrow = np.random.default_rng(0).standard_normal(8000 * 4).astype(np.float32) * np.float32(0.1)
    wide = np.random.default_rng(1).standard_normal(16_000 * 4) * 0.1
    assert measure(wide, 16_000).bandwidth_hz == pytest.approx(8000)
    steps = np.rint(resample(narrow, 8000, 16_000) * 32_768) / 32_768
    assert measure(steps, 16_000).bandwidth_hz == pytest.approx(4000, abs=250)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 9000), min_size=1, max_size=6),
    st.integers(1, 3),
    st.integers(1, 20_000),
    st.sampled_from([8000, 11_025]),
)
def test_figures_do_not_depend_on_blocks(sizes: list[int], channels: int, samples: int, rate: int) -> None:
    audio = np.clip(np.random.default_rng(samples).standard_normal((samples, channels)), -1, 1).astype(np.float32)
    meter = LoudnessMeter(rate, channels)
    places = np.cumsum(np.resize(sizes, samples // min(sizes) + 1))
    for block in np.split(audio, places[places < samples]):
        meter.add(block)
    assert meter.result() == measure(audio, rate)
    runs = 0
    for row in np.concatenate([audio, -audio], axis=1).T:
        padded = np.r_[0, (row == row.max()).astype(int), 0]
        edges = np.flatnonzero(np.diff(padded)).reshape(-1, 2)
        runs += sum(stop - start for start, stop in edges if stop - start >= 3)
    assert round(measure(audio, rate).clipped_share * samples * channels) == runs


def test_files_and_blocks_agree(tmp_path: Path) -> None:
    audio = np.stack([sine(-6, 3.0), sine(-12, 3.0)], axis=1).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", audio, RATE, subtype="FLOAT")
    assert loudness(tmp_path / "a.wav") == measure(audio)
    assert loudness(tmp_path / "a.wav", start_s=1.0, end_s=2.0) == measure(audio[RATE : 2 * RATE])
    audio[7, 1] = np.nan
    soundfile.write(tmp_path / "b.wav", audio, RATE, subtype="FLOAT")
    with pytest.raises(DataError, match="samples are NaN or infinite"):
        loudness(tmp_path / "b.wav")
    with pytest.raises(DataError, match="a block of 3 channels, 1 were announced"):
        LoudnessMeter(RATE).add(np.zeros((5, 3)))
    with pytest.raises(DataError, match="must be positive"):
        LoudnessMeter(0)


def test_real_recordings_are_plausible(shared: Path) -> None:
    read = loudness(shared / "data/dev-ljspeech/wavs/LJ001-0001.flac")
    assert read.lufs is not None
    assert -35 < read.lufs < -12
    assert read.clipped_share == 0
    assert read.bandwidth_hz is not None
    assert read.bandwidth_hz > 7000
    digit = next((shared / "data/dev-fsdd/recordings").glob("0_theo_0.wav"))
    assert loudness(digit).sample_rate_hz == 8000
    upsampled = measure(load_audio(digit).audio, 16_000)
    assert upsampled.bandwidth_hz is not None
    assert upsampled.bandwidth_hz < 4300
