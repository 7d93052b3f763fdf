"""Audio files to waveforms and back: float32 mono in [-1, 1] at one rate.

Enters: wav, flac, mp3 or ogg files of any rate and channel count. Leaves: `Loaded`, with a note for everything that was
changed. The one decision worth knowing: what is repaired (stereo, other rates) is noted, what would silently
spoil units (truncation, NaN, nothing at all) is refused.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.files import complete_file

TARGET_RATE_HZ = 16_000
SUBTYPES = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16")}
"""Suffixes that `write_audio` knows, with libsndfile's names for format and sample type."""

BLOCK_SAMPLES = 1 << 20
UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)
"""Data sizes that streaming writers leave in a wav header because they cannot go back and fill it in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A decoded file: mono waveform at the wanted rate, where it came from, what was changed."""

    audio: Float[np.ndarray, "samples"]
    sample_rate_hz: int
    source_rate_hz: int
    source_channels: int
    notes: tuple[str, ...] = ()


def load_audio(path: str | Path, *, sample_rate_hz: int = TARGET_RATE_HZ) -> Loaded:
    """Decode a file to float32 mono at `sample_rate_hz`.

    Channels are averaged and other rates resampled, each with a note; silence (all zeros) is kept with a note.

    Raises:
        DataError: missing, zero bytes, not audio, truncated, without samples, or with NaN or infinite samples.
    """
    path = Path(path)
    _check_file(path)
    mono, rate_hz, channels = _decode_mono(path)
    if len(mono) == 0:
        raise DataError(f"audio {path}: no samples behind the header; record it again or drop the utterance")
    bad = len(mono) - int(np.isfinite(mono).sum())
    if bad:
        raise DataError(f"audio {path}: {bad} of {len(mono)} samples are NaN or infinite; export it again or drop it")
    notes = _notes(mono, rate_hz, channels, sample_rate_hz)
    return Loaded(
        audio=resample(mono, rate_hz, sample_rate_hz),
        sample_rate_hz=sample_rate_hz,
        source_rate_hz=rate_hz,
        source_channels=channels,
        notes=notes,
    )


def audio_duration_s(path: str | Path) -> float:
    """Length in seconds by the file's header, without decoding it.

    Raises:
        DataError: missing, zero bytes, not audio, or without samples.
    """
    path = Path(path)
    _check_file(path)
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"audio {path}: cannot be decoded ({error}); export it again or drop the utterance") from error
    if not info.frames:
        raise DataError(f"audio {path}: no samples behind the header; record it again or drop the utterance")
    return float(info.frames) / float(info.samplerate)


def _check_file(path: Path) -> None:
    if not path.is_file():
        kind = "it is a folder" if path.is_dir() else "no such file"
        raise DataError(f"audio {path}: {kind}; correct the path or drop the utterance")
    if path.stat().st_size == 0:
        raise DataError(f"audio {path}: the file has zero bytes; copy it again or drop the utterance")


def resample(audio: Float[np.ndarray, "samples"], from_hz: int, to_hz: int) -> Float[np.ndarray, "resampled"]:
    """Resample with soxr's HQ filter; equal rates return the samples unchanged.

    Raises:
        DataError: a rate that is not positive.
    """
    if from_hz <= 0 or to_hz <= 0:
        raise DataError(f"resample: rates must be positive, got {from_hz} Hz -> {to_hz} Hz")
    audio = np.ascontiguousarray(audio, np.float32)
    assert audio.ndim == 1, f"a waveform has one axis, got {audio.shape}"
    if from_hz == to_hz:
        return audio
    return np.asarray(soxr.resample(audio, from_hz, to_hz, quality="HQ"), np.float32)


def write_audio(path: str | Path, audio: Float[np.ndarray, "samples"], sample_rate_hz: int) -> None:
    """Write mono 16-bit wav or flac, by suffix; the file is complete or absent. Samples beyond +-1 are clipped.

    16-bit audio read by `load_audio` is written back unchanged.

    Raises:
        DataError: another suffix, or samples that are NaN or infinite.
        OSError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    audio = np.asarray(audio, np.float32)
    assert audio.ndim == 1, f"a waveform has one axis, got {audio.shape}"
    if path.suffix.lower() not in SUBTYPES:
        raise DataError(f"audio {path}: cannot write '{path.suffix}'; use one of {', '.join(SUBTYPES)}")
    if not np.isfinite(audio).all():
        raise DataError(f"audio {path}: refusing to write NaN or infinite samples")
    container, subtype = SUBTYPES[path.suffix.lower()]
    # Rounded here, because libsndfile scales floats by 32767 for one format and by 32768 for another.
    steps = np.clip(np.rint(audio * 32_768), -32_768, 32_767).astype(np.int16)
    with complete_file(path) as draft:
        try:
            soundfile.write(draft, steps, sample_rate_hz, format=container, subtype=subtype)
        except soundfile.LibsndfileError as error:
            raise OSError(f"audio {path}: could not be written ({error}); is the disk full?") from error


def samples_sha256(audio: Float[np.ndarray, "samples"]) -> str:
    """Hash the decoded samples (float32, little endian), so that equal sound in other containers hashes equally."""
    return hashlib.sha256(np.ascontiguousarray(audio, "<f4").tobytes()).hexdigest()


def _decode_mono(path: Path) -> tuple[Float[np.ndarray, "samples"], int, int]:
    """Decode block by block, so that many channels never sit in memory at once; return samples, rate, channels."""
    try:
        with soundfile.SoundFile(path) as file:
            promised, rate_hz, channels, container = file.frames, file.samplerate, file.channels, file.format
            blocks = [b.mean(axis=1) for b in file.blocks(BLOCK_SAMPLES, dtype="float32", always_2d=True)]
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(
            f"audio {path}: cannot be decoded, it is truncated or not audio ({str(error).strip()}); "
            "copy it again or drop it"
        ) from error
    mono = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    # mp3 headers only estimate the length, and libsndfile reports what it found of a cut wav or ogg as the whole.
    cut = container != "MPEG" and len(mono) < promised
    if cut or (container.startswith("WAV") and _wav_is_cut(path)) or (container == "OGG" and _ogg_is_cut(path)):
        raise DataError(
            f"audio {path}: truncated, it ends after {len(mono)} samples and its header promises more; "
            "copy it again or drop it"
        )
    return mono, rate_hz, channels


def _wav_is_cut(path: Path) -> bool:
    """Tell whether the data chunk of a RIFF file promises more bytes than the file has."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return False
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", head)
            if name == b"data":
                return length not in UNKNOWN_SIZES and file.tell() + length > size
            file.seek(length + length % 2, 1)
    return False


def _ogg_is_cut(path: Path) -> bool:
    """Tell whether the last Ogg page lacks the end-of-stream flag or its own tail (RFC 3533, section 6)."""
    data = path.read_bytes()
    last = data.rfind(b"OggS")
    page = data[last:]
    if last < 0 or len(page) < 27 or not page[5] & 4:
        return True
    lacing = page[27 : 27 + page[26]]
    return len(page) < 27 + page[26] + sum(lacing)


def _notes(audio: np.ndarray, rate_hz: int, channels: int, target_hz: int) -> tuple[str, ...]:
    notes = []
    if channels > 1:
        notes.append(f"{channels} channels averaged to mono")
    if rate_hz < target_hz:
        notes.append(f"upsampled from {rate_hz} Hz: the band above {rate_hz // 2} Hz is empty")
    elif rate_hz > target_hz:
        notes.append(f"downsampled from {rate_hz} Hz")
    peak = float(np.abs(audio).max())
    if peak == 0.0:
        notes.append("all samples are zero (silence)")
    elif peak > 1.0:
        notes.append(f"float samples reach {peak:.3g}, beyond full scale")
    return tuple(notes)
