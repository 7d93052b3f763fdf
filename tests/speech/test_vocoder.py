"""Catches a vocoder that does not learn, audio of another length than its durations, swapped voices and weights."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from speechscale.errors import DataError
from speechscale.records import UnitTable, UnitTableBuilder, dedup
from speechscale.speech.griffin_lim import GriffinLim
from speechscale.speech.spectrograms import MelSpec, log_mel, mel_to_magnitude
from speechscale.speech.unit_to_mel import MelPlan, RunningEnds, VocoderShape
from speechscale.speech.vocoder import Vocoder, train_vocoder, weights_sha256

RATE = 16_000
TONES_HZ = (0, 300, 700, 1500, 3000, 5000)


def sing(units: np.ndarray, frame_rate_hz: float) -> np.ndarray:
    """One tone per unit, silence for unit 0."""
    hertz = np.repeat([TONES_HZ[u] for u in units], round(RATE / frame_rate_hz))
    return (0.3 * np.sin(2 * np.pi * np.cumsum(hertz) / RATE) * (hertz > 0)).astype(np.float32)


def songs(rows: int, frame_rate_hz: float, seed: int = 0) -> tuple[UnitTable, list[np.ndarray]]:
    """Unit u lasts u + 2 frames at 25 Hz, so that durations can be learned too."""
    rng = np.random.default_rng(seed)
    builder = UnitTableBuilder(frame_rate_hz=frame_rate_hz, num_units=len(TONES_HZ))
    waveforms = []
    for row in range(rows):
        picked, _ = dedup(rng.integers(len(TONES_HZ), size=12))
        frames = np.repeat(picked, (picked + 2) * round(frame_rate_hz / 25))
        units, durations = dedup(frames)
        builder.add(
            id=str(row),
            speaker="tones",
            split="train",
            text="",
            units=units,
            durations_frames=durations,
            words=[],
            word_frames=np.zeros((0, 2), np.int32),
        )
        waveforms.append(sing(frames, frame_rate_hz))
    return builder.build(), waveforms


@pytest.fixture(scope="module", params=[25.0, 100.0])
def trained(request: pytest.FixtureRequest) -> tuple[Vocoder, float]:
    table, waveforms = songs(12, request.param)
    return train_vocoder(table, waveforms, seed=0, steps=60, batch=4, crop_mel_frames=96), request.param


def loudest_hz(audio: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(audio * np.hanning(len(audio)))).argmax() * RATE / len(audio))


def test_learns_which_unit_is_which_tone(trained: tuple[Vocoder, float]) -> None:
    vocoder, frame_rate_hz = trained
    units = np.array([1, 3, 0, 5, 2, 4])
    audio = vocoder.synthesize(units, np.full(6, round(frame_rate_hz * 0.24)))
    parts = audio.reshape(6, -1)[:, 960:-960]
    for unit, part in zip(units, parts, strict=True):
        if unit:
            assert abs(loudest_hz(part) - TONES_HZ[unit]) < 60 + 0.02 * TONES_HZ[unit]
    assert np.square(parts[2]).mean() < 0.05 * np.square(parts[1]).mean()


def test_beats_the_mean_spectrum_per_unit(trained: tuple[Vocoder, float]) -> None:
    vocoder, frame_rate_hz = trained
    table, waveforms = songs(4, frame_rate_hz, seed=99)
    error, baseline = [], []
    for row, waveform in enumerate(waveforms):
        target = log_mel(torch.from_numpy(waveform), vocoder.shape.mel).numpy()
        made = vocoder.predict_mels(table.row_units(row), table.row_durations(row))
        assert made.shape == target.shape
        error.append(np.abs(made - target).mean())
        plan = MelPlan.make(table.row_durations(row), vocoder.shape)
        owner = table.row_units(row)[plan.owner.numpy()]
        means = np.stack([target[:, owner == u].mean(axis=1) if (owner == u).any() else target[:, 0] for u in range(6)])
        baseline.append(np.abs(means[owner].T - target).mean())
    assert np.mean(error) < 0.8 * np.mean(baseline)


def test_durations_are_learned(trained: tuple[Vocoder, float]) -> None:
    vocoder, frame_rate_hz = trained
    units = np.array([1, 4, 2, 5, 0, 3])
    wanted = (units + 2) * frame_rate_hz / 25
    made = vocoder.predict_durations(units)
    assert np.abs(made - wanted).mean() < 0.25 * wanted.mean()
    assert len(vocoder.synthesize(units)) == made.sum() * RATE // frame_rate_hz


@pytest.mark.parametrize("durations", [[1], [1, 1, 1], [3, 1, 7, 2], [40, 1]])
def test_audio_has_exactly_the_length_of_its_durations(trained: tuple[Vocoder, float], durations: list[int]) -> None:
    vocoder, frame_rate_hz = trained
    units = np.arange(len(durations)) % 5
    audio = vocoder.synthesize(units, np.array(durations), iterations=2)
    assert len(audio) == sum(durations) * round(RATE / frame_rate_hz)
    assert audio.dtype == np.float32
    assert np.abs(audio).max() <= 1


def test_odd_frame_rates_add_up() -> None:
    shape = VocoderShape(num_units=3, frame_rate_hz=75.0)
    plan = MelPlan.make(np.array([1, 2, 1, 5]), shape)
    assert plan.samples == round(9 * RATE / 75)
    assert plan.owner.tolist() == sorted(plan.owner.tolist())
    assert set(plan.owner.tolist()) == {0, 1, 2, 3}


def test_same_seed_same_weights_and_no_global_state() -> None:
    table, waveforms = songs(3, 25.0)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second, third = (train_vocoder(table, waveforms, seed=seed, steps=3, batch=2) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    units = np.array([1, 2, 3])
    assert first.synthesize(units).tobytes() == second.synthesize(units).tobytes()
    assert first.synthesize(units).tobytes() == first.synthesize(units).tobytes()
    weights = [v.network.state_dict() for v in (first, second, third)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["to_mel.weight"], weights[2]["to_mel.weight"])
    assert 0.1e6 < first.parameters_total < 1e6
    assert (first.training["steps"], first.training["utterances"]) == (3, 3)
    assert first.training["hours"] == pytest.approx(table.hours)


def test_saved_vocoder_is_the_same(trained: tuple[Vocoder, float], tmp_path: Path) -> None:
    vocoder, _ = trained
    vocoder.save(tmp_path)
    loaded = Vocoder.load(tmp_path)
    units = np.array([0, 1, 2, 5])
    assert loaded.synthesize(units, iterations=3).tobytes() == vocoder.synthesize(units, iterations=3).tobytes()
    assert (loaded.shape, loaded.training) == (vocoder.shape, vocoder.training)


def test_altered_files_are_named(trained: tuple[Vocoder, float], tmp_path: Path) -> None:
    trained[0].save(tmp_path)
    weights, description = tmp_path / "vocoder.safetensors", tmp_path / "vocoder.json"
    content = bytearray(weights.read_bytes())
    content[-9] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DataError, match=r"vocoder\.safetensors: the weights are not those"):
        Vocoder.load(tmp_path)
    weights.write_bytes(content[:1000])
    with pytest.raises(DataError, match=r"vocoder\.safetensors: not readable"):
        Vocoder.load(tmp_path)
    weights.unlink()
    with pytest.raises(DataError, match=r"vocoder\.safetensors: the file is missing"):
        Vocoder.load(tmp_path)
    saved = json.loads(description.read_text())
    description.write_text(json.dumps({**saved, "format_version": 9}))
    with pytest.raises(DataError, match="version 9"):
        Vocoder.load(tmp_path)
    description.write_text(json.dumps({**saved, "shape": {"mel": {}}}))
    with pytest.raises(DataError, match=r"vocoder\.json: fields do not fit"):
        Vocoder.load(tmp_path)


def duet(rows: int, seed: int = 0) -> tuple[UnitTable, list[np.ndarray]]:
    """Two voices: `high` sings each tone half as high again, and holds every unit three times as long as `low`."""
    rng = np.random.default_rng(seed)
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=len(TONES_HZ))
    waveforms = []
    for row in range(rows):
        picked, _ = dedup(rng.integers(1, len(TONES_HZ) - 1, size=12))
        high = row % 2 == 1
        durations = np.full(len(picked), 9 if high else 3)
        builder.add(
            id=str(row),
            speaker="high" if high else "low",
            split="train",
            text="",
            units=picked,
            durations_frames=durations,
            words=[],
            word_frames=np.zeros((0, 2), np.int32),
        )
        hertz = np.repeat([TONES_HZ[u] * (1.5 if high else 1.0) for u in picked], durations * 640)
        level = 0.4 if high else 0.1
        waveforms.append((level * np.sin(2 * np.pi * np.cumsum(hertz) / RATE)).astype(np.float32))
    return builder.build(), waveforms


@pytest.fixture(scope="module")
def two_voices() -> Vocoder:
    return train_vocoder(*duet(12), seed=0, steps=100, batch=4, crop_mel_frames=96)


def test_each_voice_has_its_own_sound_and_pace(two_voices: Vocoder) -> None:
    assert two_voices.speakers == ("high", "low")
    assert two_voices.sample_rate_hz == RATE
    units = np.array([1, 3, 2, 4, 1, 2])
    for speaker, factor, frames in (("high", 1.5, 9), ("low", 1.0, 3)):
        audio = two_voices.synthesize(units, np.full(6, 6), speaker)
        for unit, part in zip(units, audio.reshape(6, -1)[:, 960:-960], strict=True):
            assert abs(loudest_hz(part) - factor * TONES_HZ[unit]) < 60 + 0.02 * TONES_HZ[unit]
        made = two_voices.predict_durations(units, speaker)
        assert np.abs(made - frames).mean() < 0.15 * frames
        assert len(two_voices.synthesize(units, speaker=speaker)) == made.sum() * 640
    default = two_voices.synthesize(units, iterations=2)
    assert default.tobytes() == two_voices.synthesize(units, speaker="high", iterations=2).tobytes()


def test_each_voice_is_as_loud_as_its_recordings() -> None:
    """On noise the absolute error of log magnitudes alone ends 1-2 dB too low."""
    table, _ = duet(8, seed=5)
    rng = np.random.default_rng(0)
    waveforms = [
        (rng.standard_normal(int(frames) * 640) * (0.2 if speaker == "high" else 0.05)).astype(np.float32)
        for frames, speaker in zip(table.frames, table.speakers, strict=True)
    ]
    vocoder = train_vocoder(table, waveforms, seed=0, steps=25, batch=4, crop_mel_frames=64)
    for row, waveform in list(enumerate(waveforms))[:2]:
        made = vocoder.synthesize(table.row_units(row), table.row_durations(row), table.speakers[row])
        assert abs(20 * np.log10(made.std() / waveform.std())) < 1.2
    assert (vocoder.network.gain > 1.05).all()


def test_voices_are_saved_and_unknown_ones_refused(two_voices: Vocoder, tmp_path: Path) -> None:
    two_voices.save(tmp_path)
    loaded = Vocoder.load(tmp_path)
    units = np.array([1, 2, 3])
    for speaker in ("high", "low", None):
        first, second = (v.synthesize(units, None, speaker, iterations=2) for v in (loaded, two_voices))
        assert first.tobytes() == second.tobytes()
    for call in (two_voices.synthesize, two_voices.predict_durations):
        with pytest.raises(DataError, match=r"no voice 'bass' among 2 \(high, low\); choose one of them"):
            call(units, speaker="bass")


def test_vocoders_of_version_1_still_speak(trained: tuple[Vocoder, float], tmp_path: Path) -> None:
    vocoder, _ = trained
    vocoder.save(tmp_path)
    saved = json.loads((tmp_path / "vocoder.json").read_text())
    tensors = load_file(tmp_path / "vocoder.safetensors")
    gain = tensors.pop("gain")
    tensors = {name: tensor[0] if name in ("mel_mean", "mel_spread") else tensor for name, tensor in tensors.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "vocoder.safetensors")
    del saved["shape"]["speakers"]
    sha256 = weights_sha256(tensors)
    (tmp_path / "vocoder.json").write_text(json.dumps({**saved, "format_version": 1, "weights_sha256": sha256}))
    units = np.array([1, 2, 3])
    old, new = (v.synthesize(units, iterations=2) for v in (Vocoder.load(tmp_path), vocoder))
    whole = (np.abs(old) < 0.999) & (np.abs(new) < 0.999)  # neither is cut at full scale, whatever the gain came out as
    assert whole.mean() > 0.5
    assert np.abs(old - new / gain.item())[whole].max() < 1e-5
    assert Vocoder.load(tmp_path).speakers == ()


def test_what_cannot_be_used_is_refused(trained: tuple[Vocoder, float]) -> None:
    vocoder, _ = trained
    assert len(vocoder.synthesize(np.zeros(0, np.int64))) == 0
    assert len(vocoder.predict_durations(np.zeros(0, np.int64))) == 0
    with pytest.raises(DataError, match=r"unit ids run 2\.\.6, allowed 0\.\.5"):
        vocoder.synthesize(np.array([2, 6]))
    with pytest.raises(DataError, match="2 units need as many durations"):
        vocoder.synthesize(np.array([2, 3]), np.array([1, 0]))
    table, waveforms = songs(2, 25.0)
    with pytest.raises(DataError, match="2 rows of units need as many waveforms, got 1"):
        train_vocoder(table, waveforms[:1], seed=0, steps=1)
    with pytest.raises(DataError, match="utterance 1 has"):
        train_vocoder(table, [waveforms[0], waveforms[1][:-700]], seed=0, steps=1)
    with pytest.raises(DataError, match="steps must be at least 1"):
        train_vocoder(table, waveforms, seed=0, steps=0)


def test_rounding_keeps_the_total() -> None:
    running = RunningEnds()
    durations = np.diff([running.predicted(math.log(0.37)) for _ in range(1000)], prepend=0)
    assert durations.min() >= 1
    assert durations.sum() == pytest.approx(1370, abs=1)


def through(lim: GriffinLim, magnitude: torch.Tensor, samples: int) -> torch.Tensor:
    return torch.cat([lim.push(magnitude), lim.finish(samples)])


def test_spectrogram_comes_back() -> None:
    time = np.arange(RATE) / RATE
    audio = sum(0.2 / k * np.sin(2 * np.pi * k * (150 + 40 * time) * time) for k in range(1, 12))
    spec = MelSpec()
    target = log_mel(torch.from_numpy(audio.astype(np.float32)), spec)
    back = through(GriffinLim(spec, seed=0), mel_to_magnitude(target, spec), RATE)
    assert len(back) == RATE
    loud = target > target.max() - 5
    error = (log_mel(back, spec) - target).abs()[loud].mean()
    start = through(GriffinLim(spec, iterations=0, seed=0), mel_to_magnitude(target, spec), RATE)
    from_peaks = (log_mel(start, spec) - target).abs()[loud].mean()
    assert error < 0.15
    assert from_peaks < 0.3, "phases of a harmonic sound follow its peaks; random ones give 0.6 and more"
    assert error < 0.7 * from_peaks


def test_noise_does_not_pulse_at_the_frame_rate() -> None:
    """Spectral error does not hear it: phases taken from peaks everywhere put noise at the centers of the windows."""
    spec, noise = MelSpec(), np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32) * 0.1
    smooth = mel_to_magnitude(log_mel(torch.from_numpy(noise), spec), spec)
    made = through(GriffinLim(spec, seed=0), smooth, 2 * RATE).numpy()
    power = np.square(made[1600:-1600]).reshape(-1, spec.hop_samples // 20, 20).mean(axis=(0, 2))
    assert power.max() / power.min() < 1.6, "energy by the place in a hop; it was 5 for speech"


@pytest.mark.parametrize("sizes", [(1,), (3,), (1000,), (1, 7, 2, 40)])
def test_blocks_do_not_depend_on_how_frames_are_cut(sizes: tuple[int, ...]) -> None:
    magnitude = torch.rand(401, 77, generator=torch.Generator().manual_seed(0))
    whole = through(GriffinLim(MelSpec(), seed=3), magnitude, 76 * 200 + 199)
    lim, parts, place = GriffinLim(MelSpec(), seed=3), [], 0
    for size in itertools.cycle(sizes):
        parts.append(lim.push(magnitude[:, place : place + size]))
        place += size
        if place >= 77:
            break
    assert torch.equal(torch.cat([*parts, lim.finish(76 * 200 + 199)]), whole)
    assert len(whole) == 76 * 200 + 199
    assert not torch.equal(whole, through(GriffinLim(MelSpec(), seed=4), magnitude, len(whole)))


@pytest.mark.parametrize(("window", "hop"), [(800, 200), (600, 250), (512, 128), (400, 200)])
def test_any_window_and_hop_have_the_length_asked_for(window: int, hop: int) -> None:
    spec = MelSpec(window_samples=window, hop_samples=hop, mels=20)
    time = np.arange(9_137) / RATE
    tone = torch.from_numpy((0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32))
    made = through(GriffinLim(spec, seed=0), mel_to_magnitude(log_mel(tone, spec), spec), len(tone))
    assert len(made) == len(tone)
    assert abs(loudest_hz(made.numpy()[1000:-1000]) - 440) < 60, "twenty bands are coarse"
