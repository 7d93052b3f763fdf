"""Audio files to waveforms and back: float32 mono in [-1, 1] at one rate.

Enters: wav, flac, mp3, ogg or opus files of any rate and channel count, ranges of them, members of tars. Leaves:
`Loaded`, with a note for everything that was changed. The one decision worth knowing: what is repaired (stereo, other
rates) is noted, what would silently spoil units (truncation, NaN, nothing at all) is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.files import complete_file
from speechscale.speech.audio_files import AudioInfo, audio_info
from speechscale.speech.audio_stream import TARGET_RATE_HZ, Recording, open_recording, stream_audio

__all__ = [
    "TARGET_RATE_HZ",
    "AudioInfo",
    "Loaded",
    "audio_duration_s",
    "audio_info",
    "audio_sha256",
    "load_audio",
    "resample",
    "samples_sha256",
    "stream_audio",
    "write_audio",
]

SUBTYPES = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16")}
"""Suffixes that `write_audio` knows, with libsndfile's names for format and sample type."""

LARGEST_START_SAMPLES = 1 << 28
"""Room made at once on the word of a header; anything longer grows while it is decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A decoded file: mono waveform at the wanted rate, where it came from, what was changed."""

    audio: Float[np.ndarray, " samples"]
    sample_rate_hz: int
    source_rate_hz: int
    source_channels: int
    notes: tuple[str, ...] = ()


def load_audio(
    path: str | Path,
    *,
    sample_rate_hz: int = TARGET_RATE_HZ,
    start_s: float = 0.0,
    end_s: float | None = None,
    channel: int | None = None,
) -> Loaded:
    """Decode a file, or a range of it, to float32 mono at `sample_rate_hz`.

    Channels are averaged and other rates resampled, each with a note; silence (all zeros) is kept with a note. A range
    is a slice of the whole: exactly at the file's own rate, to 5e-7 of full scale where it is resampled.

    Args:
        path: a file, or "some.tar::member.flac" for a member of an uncompressed tar.
        start_s, end_s: the range; None for the end. Ends up to 10 ms beyond the audio are cut, with a note.
        channel: one channel, from 0 on, in place of the average.

    Raises:
        DataError: missing, zero bytes, not audio, truncated, without samples, with NaN or infinite samples, or a range
            or channel that the file does not have. A truncated file still gives the ranges before its end.
    """
    with open_recording(
        path, sample_rate_hz=sample_rate_hz, start_s=start_s, end_s=end_s, channel=channel
    ) as recording:
        audio = _collect(recording.blocks(), recording.expected)
        if recording.bad:
            raise recording.not_finite()
        return Loaded(
            audio=audio,
            sample_rate_hz=sample_rate_hz,
            source_rate_hz=recording.info.sample_rate_hz,
            source_channels=recording.info.channels,
            notes=_notes(recording),
        )


def audio_duration_s(path: str | Path) -> float:
    """Length in seconds by the file's header, without decoding it.

    Raises:
        DataError: missing, zero bytes, not audio, or without samples.
    """
    return audio_info(path).duration_s


def resample(audio: Float[np.ndarray, " samples"], from_hz: int, to_hz: int) -> Float[np.ndarray, " resampled"]:
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


def write_audio(path: str | Path, audio: Float[np.ndarray, " samples"], sample_rate_hz: int) -> None:
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


def samples_sha256(audio: Float[np.ndarray, " samples"]) -> str:
    """Hash the decoded samples (float32, little endian), so that equal sound in other containers hashes equally."""
    return hashlib.sha256(np.ascontiguousarray(audio, "<f4").tobytes()).hexdigest()


def audio_sha256(
    path: str | Path, *, start_s: float = 0.0, end_s: float | None = None, channel: int | None = None
) -> str:
    """Hash the decoded mono samples at the file's own rate, in bounded memory.

    Equal to `samples_sha256` of what `load_audio` gives at that rate, so that the same sound has the same checksum in
    every container and on every path. The rate is not part of it.

    Raises:
        DataError: as `load_audio`.
    """
    digest = hashlib.sha256()
    for block in stream_audio(path, sample_rate_hz=None, start_s=start_s, end_s=end_s, channel=channel):
        digest.update(np.ascontiguousarray(block, "<f4").data)
    return digest.hexdigest()


def _collect(blocks: Iterable[Float[np.ndarray, " samples"]], expected: int) -> Float[np.ndarray, " samples"]:
    """Put blocks into one array that is never held twice."""
    audio = np.empty(max(1, min(expected, LARGEST_START_SAMPLES)), np.float32)
    count = 0
    for block in blocks:
        if count + len(block) > len(audio):
            audio.resize(max(count + len(block), len(audio) * 5 // 4), refcheck=False)
        audio[count : count + len(block)] = block
        count += len(block)
    audio.resize(count, refcheck=False)
    return audio


def _notes(recording: Recording) -> tuple[str, ...]:
    rate_hz, target_hz, channels = recording.info.sample_rate_hz, recording.rate_hz, recording.info.channels
    notes = list(recording.notes)
    if channels > 1 and recording.channel is None:
        notes.append(f"{channels} channels averaged to mono")
    elif channels > 1:
        notes.append(f"channel {recording.channel} of {channels}")
    if rate_hz < target_hz:
        notes.append(f"upsampled from {rate_hz} Hz: the band above {rate_hz // 2} Hz is empty")
    elif rate_hz > target_hz:
        notes.append(f"downsampled from {rate_hz} Hz")
    if recording.peak == 0.0:
        notes.append("all samples are zero (silence)")
    elif recording.peak > 1.0:
        notes.append(f"float samples reach {recording.peak:.3g}, beyond full scale")
    return tuple(notes)
