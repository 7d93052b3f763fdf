"""Catches lost speech, stretches that overlap or are too long, and cuts that depend on how the samples came."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.speech.audio import load_audio
from speechscale.speech.vad import WINDOW_S, Split, find_speech, measure_levels, split_at_silence

RATE = 8000


def talk(pattern: list[tuple[float, float]], *, floor_db: float | None = -70.0, seed: int = 0) -> np.ndarray:
    """(seconds, level in dB or -inf) pieces of a voice with syllables, over noise of `floor_db`."""
    rng = np.random.default_rng(seed)
    pieces = []
    for seconds, level_db in pattern:
        time = np.arange(round(seconds * RATE)) / RATE
        voice = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 8)) * (0.6 + 0.4 * np.sin(25 * time))
        pieces.append(voice * 10 ** (level_db / 20))
    audio = np.concatenate(pieces)
    if floor_db is not None:
        audio = audio + rng.standard_normal(len(audio)) * 10 ** (floor_db / 20)
    return audio.astype(np.float32)


SILENT = -np.inf


def split(audio: np.ndarray, **settings: float) -> Split:
    result = split_at_silence([audio], sample_rate_hz=RATE, **settings)  # type: ignore[arg-type]
    check(result, len(audio), settings.get("max_s", 30.0))
    return result


def check(result: Split, samples: int, max_s: float) -> None:
    """In order, inside, apart, not too long, and every sample accounted for."""
    ends = [0.0, *(time for stretch in result for time in (stretch.start_s, stretch.end_s)), result.duration_s]
    assert ends == sorted(ends)
    assert all(0 < stretch.duration_s <= max_s + 1e-9 for stretch in result)
    assert round(result.duration_s * RATE) == samples
    assert result.kept_s == pytest.approx(sum(stretch.duration_s for stretch in result))
    assert result.kept_s + result.dropped_s == pytest.approx(result.duration_s)
    assert result.speech_s <= result.kept_s + 1e-9
    assert bool(len(result)) != bool(result.note)


def bounds(result: Split) -> list[tuple[float, float]]:
    return [(stretch.start_s, stretch.end_s) for stretch in result]


@pytest.mark.parametrize("floor_db", [None, -70.0, -40.0])
def test_speech_is_found_over_silence_and_noise(floor_db: float | None) -> None:
    """-40 dB of noise under speech of about -20 dB is a signal-to-noise ratio of 20 dB."""
    audio = talk([(1.0, SILENT), (2.0, -20.0), (0.6, SILENT), (3.0, -20.0), (4.0, SILENT)], floor_db=floor_db)
    found = find_speech(measure_levels([audio], sample_rate_hz=RATE))
    assert [(pytest.approx(s.start_s, abs=0.06), pytest.approx(s.end_s, abs=0.06)) for s in found] == [
        (1, 3),
        (3.6, 6.6),
    ]
    whole = split(audio)
    assert np.allclose(bounds(whole), [(0.75, 6.85)], atol=0.06)
    # One pause, and it is cut in its middle; nothing of it is dropped because both margins reach it.
    parts = split(audio, max_s=4.0, margin_s=0.5)
    assert np.allclose(bounds(parts), [(0.5, 3.3), (3.3, 7.1)], atol=0.06)
    assert parts.stretches[0].end_s == parts.stretches[1].start_s


def test_long_pauses_end_a_stretch_and_are_dropped() -> None:
    audio = talk([(2.0, -20.0), (5.0, SILENT), (2.0, -20.0)])
    result = split(audio)
    assert np.allclose(bounds(result), [(0.0, 2.25), (6.75, 9.0)], atol=0.06)
    assert result.dropped_s == pytest.approx(4.5, abs=0.1)
    assert len(split(audio, long_pause_s=6.0)) == 1


def test_the_longest_late_pause_is_cut() -> None:
    audio = talk([(3.0, -20), (0.9, SILENT), (3.0, -20), (0.7, SILENT), (1.5, -20), (0.4, SILENT), (3.0, -20)])
    first, second = split(audio, max_s=10.0)
    assert first.end_s == pytest.approx(3.0 + 0.9 + 3.0 + 0.25, abs=0.06)
    assert second.end_s == pytest.approx(12.5, abs=0.01)


def test_speech_without_pause_is_cut_at_its_quietest_point() -> None:
    audio = talk([(7.0, -20.0), (0.1, -32.0), (8.0, -20.0), (0.1, -34.0), (4.0, -20.0)])
    result = split(audio, max_s=10.0)
    assert len(result) == 3
    assert result.stretches[0].end_s == pytest.approx(7.05, abs=0.06)
    assert result.stretches[1].end_s == pytest.approx(15.15, abs=0.06)
    assert result.kept_s == result.duration_s


@pytest.mark.parametrize("seconds", [9.2, 9.6, 9.9, 10.4, 12.0, 14.9, 21.0])
def test_long_speech_leaves_no_crumbs(seconds: float) -> None:
    """A stretch of nothing but margin, or of a tenth of a second, is worth nothing."""
    result = split(talk([(2.0, SILENT), (seconds, -20.0), (2.0, SILENT)]), max_s=10.0)
    assert len(result) == int(np.ceil((seconds - 0.2) / 10))
    assert min(stretch.duration_s for stretch in result) > 2.0


@pytest.mark.parametrize(
    ("audio", "note"),
    [
        (np.zeros(5 * RATE, np.float32), "loudest 10 ms reach -120 dB"),
        (np.full(5 * RATE, 0.3, np.float32), "reach -120 dB"),
        (talk([(5.0, SILENT)], floor_db=-30.0), "reach -28 dB"),
        (talk([(5.0, SILENT)], floor_db=-90.0), "reach -88 dB"),
        (np.zeros(1, np.float32), "no speech found"),
        (np.zeros(0, np.float32), "no speech found"),
    ],
)
def test_silence_offset_and_steady_noise_give_no_stretch_and_say_so(audio: np.ndarray, note: str) -> None:
    result = split(audio)
    assert bounds(result) == []
    assert note in result.note
    assert result.dropped_s == result.duration_s


def test_a_click_is_no_speech_and_a_quiet_voice_is() -> None:
    audio = talk([(3.0, SILENT), (2.0, -50.0), (3.0, SILENT)], floor_db=-75.0)
    audio[RATE : RATE + 20] = 0.5
    assert np.allclose(bounds(split(audio)), [(2.75, 5.25)], atol=0.08)


def test_the_floor_follows_the_recording() -> None:
    """Two minutes of quiet room, then two of a loud fan, the same voice in both."""
    parts = [(2.0, -20.0), (1.0, SILENT)] * 40
    audio = np.concatenate([talk(parts, floor_db=-70.0), talk(parts, floor_db=-38.0, seed=1)])
    found = find_speech(measure_levels([audio], sample_rate_hz=RATE))
    # Around the change the floor is the quiet room's, so the fan counts as speech for a while: kept, not lost.
    assert 76 <= len(found) <= 80
    wanted = [(3.0 * i, 3.0 * i + 2) for i in range(80)]
    away = [(start, end) for start, end in wanted if abs(start - 120) > WINDOW_S / 2]
    ends = {(round(s.start_s, 1), round(s.end_s, 1)) for s in found}
    assert all(any(abs(a - c) + abs(b - d) < 0.15 for c, d in ends) for a, b in away)


pieces = st.lists(
    st.tuples(st.floats(0.05, 4.0), st.sampled_from([SILENT, SILENT, -20.0, -26.0, -45.0])), min_size=1, max_size=8
)


@settings(max_examples=40, deadline=None)
@given(
    pieces,
    st.sampled_from([None, -75.0, -40.0]),
    st.lists(st.integers(1, 9000), min_size=1, max_size=5),
    st.integers(1, 9),
)
def test_cuts_do_not_depend_on_blocks_and_lose_no_speech(
    pattern: list[tuple[float, float]], floor_db: float | None, sizes: list[int], max_s: int
) -> None:
    audio = talk(pattern, floor_db=floor_db)
    result = split(audio, max_s=float(max_s))
    places = np.cumsum(np.resize(sizes, len(audio) // min(sizes) + 1))
    blocks = np.split(audio, places[places < len(audio)])
    assert split_at_silence(blocks, sample_rate_hz=RATE, max_s=float(max_s)) == result
    kept = np.zeros(len(audio), bool)
    for start_s, end_s in bounds(result):
        kept[round(start_s * RATE) : round(end_s * RATE)] = True
    assert kept.sum() == round(result.kept_s * RATE)
    for speech in find_speech(measure_levels([audio], sample_rate_hz=RATE)):
        assert kept[round(speech.start_s * RATE) : round(speech.end_s * RATE)].all()


def test_paths_and_blocks_agree_and_stretches_load(tmp_path: Path) -> None:
    audio = talk([(3.0, -20.0), (0.5, SILENT)] * 5)
    soundfile.write(tmp_path / "a.wav", audio, RATE, subtype="FLOAT")
    result = split_at_silence(tmp_path / "a.wav", max_s=5.0)
    assert result == split_at_silence([audio], sample_rate_hz=RATE, max_s=5.0)
    parts = [
        load_audio(tmp_path / "a.wav", sample_rate_hz=RATE, start_s=s.start_s, end_s=s.end_s).audio for s in result
    ]
    assert sum(map(len, parts)) == round(result.kept_s * RATE)


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    for wrong in ({"max_s": 0.5}, {"min_pause_s": 0.0}, {"min_pause_s": 3.0}, {"margin_s": -1.0}):
        with pytest.raises(DataError, match=r"split: .*; give max_s >= 1"):
            split_at_silence([np.zeros(9, np.float32)], sample_rate_hz=RATE, **wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="came without their rate"):
        split_at_silence([np.zeros(9, np.float32)])
    with pytest.raises(DataError, match="no such file"):
        split_at_silence(tmp_path / "none.wav")


@pytest.mark.parametrize(("snr_db", "wanted"), [(None, 0.985), (20.0, 0.97)])
def test_agrees_with_the_labels_of_real_speech(shared: Path, snr_db: float | None, wanted: float) -> None:
    """Share of 10 ms frames on which we agree with the speech/silence files of five LibriVox sentences."""
    same = total = 0
    for lab in sorted((shared / "data" / "dev-librivox-aligned").glob("*.lab")):
        start_s, end_s = (float(line.split("\t")[0]) for line in lab.read_text().splitlines())
        audio = load_audio(lab.with_suffix(".wav")).audio
        if snr_db is not None:
            noise = np.random.default_rng(0).standard_normal(len(audio)).astype(np.float32)
            audio = audio + noise * audio.std() * np.float32(10 ** (-snr_db / 20))
        time = np.arange(len(audio) // 160) / 100 + 0.005
        found = np.zeros(len(time), bool)
        for s in find_speech(measure_levels([audio], sample_rate_hz=16_000)):
            found |= (time > s.start_s) & (time < s.end_s)
        same += int(((time > start_s) & (time < end_s) == found).sum())
        total += len(time)
    assert same / total > wanted
