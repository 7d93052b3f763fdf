"""Catches audio that spoils units without a word: cut files, NaN, wrong rates, half-written output."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechscale.errors import DataError
from speechscale.speech import audio as module
from speechscale.speech.audio import load_audio, resample, samples_sha256, write_audio

RATE = 16_000


def tone(seconds: float = 0.5, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encoded(suffix: str, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    container, subtype = ("OGG", "OPUS") if suffix == ".opus" else (suffix.lstrip(".").upper(), None)
    soundfile.write(buffer, tone(2.0, rate), rate, format=container, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3"])
def test_formats_decode_to_the_same_tone(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(suffix))
    loaded = load_audio(path)
    assert (loaded.sample_rate_hz, loaded.source_rate_hz, loaded.source_channels) == (RATE, RATE, 1)
    # The Opus coder overshoots full scale where the tone sets in.
    assert loaded.notes == () or suffix == ".opus"
    assert loaded.audio.dtype == np.float32
    assert abs(len(loaded.audio) - 2 * RATE) <= (2400 if suffix == ".mp3" else 0)
    spectrum = np.abs(np.fft.rfft(loaded.audio[4000:20_000]))
    assert spectrum.argmax() == 440


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encoded(".flac"))
    assert len(load_audio(tmp_path / "a.wav").audio) == 2 * RATE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; correct the path"),
        (b"", "zero bytes; copy it again"),
        (b"this is text, not sound\n" * 50, "truncated or not audio"),
        (encoded(".wav")[:-20_000], "truncated, it ends after 22000 samples"),
        (encoded(".wav")[:30], "audio"),
        (encoded(".flac")[:9000], "truncated"),
        (encoded(".ogg")[:4000], "truncated"),
        (encoded(".ogg")[:-5], "truncated"),
        (encoded(".wav")[:44].replace((64_000).to_bytes(4, "little"), bytes(4)), "no samples behind the header"),
    ],
)
def test_unusable_files_are_named_with_reason_and_remedy(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / ("a.flac" if content and content[:4] == b"fLaC" else "a.wav")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_audio(path)
    assert str(path) in str(caught.value)
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it is a folder"):
        load_audio(tmp_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_counted(tmp_path: Path, bad: float) -> None:
    audio = tone()
    audio[[7, 8]] = bad
    soundfile.write(tmp_path / "a.wav", audio, RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=f"2 of {len(audio)} samples are NaN or infinite"):
        load_audio(tmp_path / "a.wav")
    with pytest.raises(DataError, match="refusing to write"):
        write_audio(tmp_path / "b.wav", audio, RATE)
    assert not (tmp_path / "b.wav").exists()


def test_stereo_is_averaged_with_a_note(tmp_path: Path) -> None:
    left, right = tone(), np.zeros(RATE // 2, np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    loaded = load_audio(tmp_path / "a.wav")
    assert loaded.notes == ("2 channels averaged to mono",)
    assert loaded.source_channels == 2
    np.testing.assert_array_equal(loaded.audio, left / 2)


def test_narrow_band_is_upsampled_with_a_note(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.0, 8000), 8000)
    loaded = load_audio(tmp_path / "a.wav")
    assert loaded.notes == ("upsampled from 8000 Hz: the band above 4000 Hz is empty",)
    assert len(loaded.audio) == RATE
    power = np.abs(np.fft.rfft(loaded.audio)) ** 2
    assert power[4100:].sum() < 1e-6 * power.sum()


def test_silence_and_loud_floats_are_kept_with_a_note(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "zero.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "loud.wav", 3 * tone(), RATE, subtype="FLOAT")
    assert load_audio(tmp_path / "zero.wav").notes == ("all samples are zero (silence)",)
    assert load_audio(tmp_path / "loud.wav").notes == ("float samples reach 1.5, beyond full scale",)


def test_other_rates_keep_length_and_pitch(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.0, 22_050), 22_050)
    loaded = load_audio(tmp_path / "a.wav")
    assert loaded.notes == ("downsampled from 22050 Hz",)
    assert len(loaded.audio) == RATE
    assert np.abs(loaded.audio - tone(1.0))[2000:-2000].max() < 1e-3
    with pytest.raises(DataError, match="rates must be positive"):
        resample(tone(), 0, RATE)


def test_streamed_wav_of_unknown_length_is_no_truncation(tmp_path: Path) -> None:
    content = encoded(".wav").replace((64_000).to_bytes(4, "little"), b"\xff\xff\xff\xff")
    (tmp_path / "a.wav").write_bytes(content)
    assert len(load_audio(tmp_path / "a.wav").audio) == 2 * RATE


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_written_audio_reads_back_to_16_bits(tmp_path: Path, suffix: str) -> None:
    audio = np.concatenate([tone(), np.float32([1.5, -1.5])])
    write_audio(tmp_path / "folder" / f"a{suffix}", audio, RATE)
    back = load_audio(tmp_path / "folder" / f"a{suffix}").audio
    write_audio(tmp_path / "folder" / f"a{suffix}", back, RATE)
    assert np.array_equal(load_audio(tmp_path / "folder" / f"a{suffix}").audio, back)
    assert np.abs(back - np.clip(audio, -1, 1)).max() <= 1 / 32_768
    assert [p.name for p in (tmp_path / "folder").iterdir()] == [f"a{suffix}"]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    write_audio(path, tone(), RATE)
    before = path.read_bytes()

    def full(file: Path, *_: object, **__: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.soundfile, "write", full)
    with pytest.raises(OSError, match="No space left"):
        write_audio(path, 0.1 * tone(), RATE)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match=r"cannot write '\.mp3'; use one of \.wav, \.flac"):
        write_audio(tmp_path / "a.mp3", tone(), RATE)


def test_checksum_is_of_the_samples(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", tone(), RATE)
    write_audio(tmp_path / "a.flac", tone(), RATE)
    first, second = (load_audio(tmp_path / name).audio for name in ("a.wav", "a.flac"))
    assert samples_sha256(first) == samples_sha256(second) == samples_sha256(first[::1].copy())
    second[3] += np.float32(2**-15)
    assert samples_sha256(first) != samples_sha256(second)
