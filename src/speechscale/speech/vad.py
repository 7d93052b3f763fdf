"""Find speech by its level and cut long recordings in their pauses.

Enters: a recording, or blocks of samples. Leaves: `Split`: stretches to encode, and an account of what is not in them.
The one decision worth knowing: a recording is reduced to one level per 10 ms while it streams by (1.4 MB per hour), and
everything is decided on those levels, so that nothing depends on how the samples came in blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from speechscale.errors import DataError
from speechscale.speech.audio_stream import even_blocks, open_recording, stream_audio

FRAMES_PER_S = 100
SMOOTH_FRAMES = 5
WINDOW_S = 30
"""The noise floor and the level of speech are those of the 30 s around each second."""
SILENT_DB = -120.0
LOWEST_SPEECH_DB = -65.0
"""Level of the loudest 1% below which a window holds no speech."""
MIN_CONTRAST_DB = 8.0
"""Distance from floor to loudest 1% below which a window is steady noise."""
ON_SHARE, OFF_SHARE = 0.25, 0.12
"""Where speech begins and ends between the floor (10%) and the loudest 1%; chosen on 17 read sentences with labels."""
ON_RANGE_DB, OFF_RANGE_DB = 42.0, 47.0
"""Below the loudest 1% by more than this nothing is speech, however quiet the floor."""
CHUNK_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a recording, in seconds from its start."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Stretches in order, and where every second went: kept_s + dropped_s = duration_s.

    speech_s: what was found to be speech; all of it is kept. note: why there is no stretch, if there is none.
    """

    stretches: tuple[Stretch, ...]
    duration_s: float
    speech_s: float
    kept_s: float
    dropped_s: float
    note: str = ""

    def __iter__(self) -> Iterator[Stretch]:
        return iter(self.stretches)

    def __len__(self) -> int:
        return len(self.stretches)


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Level in dB of full scale of every 10 ms, around its mean (no offset); the last frame may be shorter."""

    db: Float[np.ndarray, " frames"]
    sample_rate_hz: int
    samples: int

    @property
    def frame_samples(self) -> int:
        return max(1, round(self.sample_rate_hz / FRAMES_PER_S))


def split_at_silence(
    audio: str | Path | Iterable[Float[np.ndarray, " samples"]],
    *,
    sample_rate_hz: int | None = None,
    max_s: float = 30.0,
    min_pause_s: float = 0.3,
    margin_s: float = 0.25,
    long_pause_s: float = 2.0,
    min_speech_s: float = 0.05,
    channel: int | None = None,
) -> Split:
    """Cut a recording of any length into stretches of at most `max_s`, in the middle of pauses.

    A stretch keeps up to `margin_s` of silence at both ends. It ends at the longest pause of its second half; where
    there is none, at the quietest point. Pauses of `long_pause_s` or more always end one.

    Args:
        audio: a path, as `load_audio` takes it, or blocks of mono samples with their `sample_rate_hz`.
        min_pause_s: shorter gaps belong to the speech around them.
        min_speech_s: shorter bursts (clicks) are no speech.
        channel: of a path with more than one; None averages.

    Raises:
        DataError: settings that cannot be met, or an unusable recording.
    """
    if not (max_s >= 1.0 and 0 < min_pause_s <= long_pause_s and margin_s >= 0 and min_speech_s >= 0):
        raise DataError(
            f"split: max_s {max_s}, min_pause_s {min_pause_s}, long_pause_s {long_pause_s}, margin_s {margin_s}, "
            f"min_speech_s {min_speech_s}; give max_s >= 1, 0 < min_pause_s <= long_pause_s, the others >= 0"
        )
    levels = measure_levels(audio, sample_rate_hz=sample_rate_hz, channel=channel)
    smooth = _smooth(levels.db)
    speech = _runs(_active(smooth), round(min_pause_s * FRAMES_PER_S), round(min_speech_s * FRAMES_PER_S))
    # Longer by rounding than max_s must not happen: whole frames, rounded down.
    frame_s = levels.frame_samples / levels.sample_rate_hz
    cuts = _cut(
        speech,
        smooth,
        longest=int(max_s / frame_s + 1e-9),
        margin=round(margin_s / frame_s),
        long_pause=round(long_pause_s / frame_s),
    )
    return _account(levels, speech, cuts)


def find_speech(levels: Levels, *, min_pause_s: float = 0.3, min_speech_s: float = 0.05) -> list[Stretch]:
    """Tell where the speech lies, without margins and without a longest duration."""
    speech = _runs(_active(_smooth(levels.db)), round(min_pause_s * FRAMES_PER_S), round(min_speech_s * FRAMES_PER_S))
    return _stretches(levels, speech)


def measure_levels(
    audio: str | Path | Iterable[Float[np.ndarray, " samples"]],
    *,
    sample_rate_hz: int | None = None,
    channel: int | None = None,
) -> Levels:
    """Reduce a recording to its level per 10 ms, in bounded memory.

    Raises:
        DataError: an unusable recording, or blocks without their rate.
    """
    if isinstance(audio, str | Path):
        with open_recording(audio, sample_rate_hz=None, start_s=0.0, end_s=None, channel=channel) as recording:
            rate_hz = recording.rate_hz
        audio = stream_audio(audio, sample_rate_hz=None, channel=channel)
    elif sample_rate_hz is None or sample_rate_hz <= 0:
        raise DataError("split: blocks of samples came without their rate; give sample_rate_hz")
    else:
        rate_hz = sample_rate_hz
    frame = max(1, round(rate_hz / FRAMES_PER_S))
    parts, samples = [np.zeros(0, np.float32)], 0
    for block in even_blocks(audio, frame * FRAMES_PER_S * CHUNK_S):
        whole = len(block) // frame * frame
        samples += len(block)
        parts.append(_level_db(block[:whole].reshape(-1, frame)))
        if whole < len(block):
            parts.append(_level_db(block[None, whole:]))
    return Levels(db=np.concatenate(parts), sample_rate_hz=rate_hz, samples=samples)


def _level_db(frames: Float[np.ndarray, "frames samples"]) -> Float[np.ndarray, " frames"]:
    power = np.var(frames.astype(np.float64), axis=1) if len(frames) else np.zeros(0)
    return np.asarray(10 * np.log10(np.maximum(power, 10 ** (SILENT_DB / 10))), np.float32)


def _smooth(db: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " frames"]:
    """Mean power of the frames around each frame; beyond the ends lies silence."""
    if not len(db):
        return np.zeros(0)
    power = 10 ** (db.astype(np.float64) / 10)
    smooth = np.convolve(power, np.full(SMOOTH_FRAMES, 1 / SMOOTH_FRAMES))
    half = SMOOTH_FRAMES // 2
    return 10 * np.log10(np.maximum(smooth[half : half + len(db)], 10 ** (SILENT_DB / 10)))


def _active(smooth: Float[np.ndarray, " frames"]) -> Bool[np.ndarray, " frames"]:
    """Frames that belong to speech: above the lower threshold, in a run that reaches the upper one."""
    on, off = np.empty(len(smooth)), np.empty(len(smooth))
    reach = (WINDOW_S - 1) * FRAMES_PER_S // 2
    for start in range(0, len(smooth), FRAMES_PER_S):
        window = smooth[max(0, start - reach) : start + FRAMES_PER_S + reach]
        ranked = np.partition(window, (len(window) // 10, (len(window) - 1) * 99 // 100))
        floor, top = ranked[len(window) // 10], ranked[(len(window) - 1) * 99 // 100]
        here = slice(start, start + FRAMES_PER_S)
        if top < LOWEST_SPEECH_DB or top - floor < MIN_CONTRAST_DB:
            on[here] = off[here] = np.inf
        else:
            on[here] = max(floor + ON_SHARE * (top - floor), top - ON_RANGE_DB)
            off[here] = max(floor + OFF_SHARE * (top - floor), top - OFF_RANGE_DB)
    active = np.zeros(len(smooth), bool)
    for start, end in _bounds(smooth > off):
        active[start:end] = bool((smooth[start:end] > on[start:end]).any())
    return active


def _bounds(flags: Bool[np.ndarray, " frames"]) -> Int[np.ndarray, "runs 2"]:
    """Start and end of every run of true values."""
    return np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0])))).reshape(-1, 2)


def _runs(active: Bool[np.ndarray, " frames"], min_pause: int, min_speech: int) -> Int[np.ndarray, "runs 2"]:
    """Runs of speech: short pauses are closed first, then short bursts are dropped. Smoothing has widened both."""
    runs = _bounds(active)
    if len(runs):
        apart = runs[1:, 0] - runs[:-1, 1] >= max(1, min_pause)
        runs = np.stack([runs[np.r_[True, apart], 0], runs[np.r_[apart, True], 1]], axis=1)
    return runs[runs[:, 1] - runs[:, 0] >= min_speech + SMOOTH_FRAMES - 1]


def _cut(
    speech: Int[np.ndarray, "runs 2"],
    smooth: Float[np.ndarray, " frames"],
    *,
    longest: int,
    margin: int,
    long_pause: int,
) -> Int[np.ndarray, "cuts 2"]:
    """Group runs of speech into stretches of at most `longest` frames."""
    total, count = len(smooth), len(speech)
    pauses = np.r_[2 * speech[:1, 0], speech[1:, 0] - speech[:-1, 1], 2 * (total - speech[-1:, 1])]
    starts = speech[:, 0] - np.minimum(margin, pauses[:count] // 2)
    ends = speech[:, 1] + np.minimum(margin, (pauses[1:] + 1) // 2)
    cuts: list[tuple[int, int]] = []
    first, start = 0, None
    while first < count:
        start = int(starts[first]) if start is None else start
        last = first - 1
        while last + 1 < count and ends[last + 1] - start <= longest:
            last += 1
            if pauses[last + 1] >= long_pause:
                break
        if last < first:
            whole, rest = int(speech[first, 1] - speech[first, 0]), int(speech[first, 1]) - start
            if start == starts[first] and whole <= longest < rest:
                start, rest = int(speech[first, 1]) - longest, longest
            if rest <= longest:  # Only the margins were too much.
                cuts.append((start, min(start + longest, int(ends[first]))))
                first, start = first + 1, None
                continue
            # Longer than allowed without a pause; what is left over should not be a crumb.
            late = max(longest // 2 + 1, min(longest, rest - longest // 4))
            span = smooth[start + longest // 2 : start + late]
            stop = start + late - 1 - int(span[::-1].argmin())
            cuts.append((start, stop))
            start = stop
            continue
        if last + 1 < count and pauses[last + 1] < long_pause:
            ends_late = [k for k in range(first, last + 1) if ends[k] - start >= longest // 2]
            last = max(ends_late or [last], key=lambda k: (pauses[k + 1], k))
        cuts.append((start, int(ends[last])))
        first, start = last + 1, None
    return np.array(cuts, np.int64).reshape(-1, 2)


def _stretches(levels: Levels, frames: Int[np.ndarray, "runs 2"]) -> list[Stretch]:
    samples = np.minimum(frames * levels.frame_samples, levels.samples) / levels.sample_rate_hz
    return [Stretch(start_s=float(start), end_s=float(end)) for start, end in samples]


def _account(levels: Levels, speech: Int[np.ndarray, "runs 2"], cuts: Int[np.ndarray, "cuts 2"]) -> Split:
    def covered(frames: Int[np.ndarray, "runs 2"]) -> int:
        return int(np.diff(np.minimum(frames * levels.frame_samples, levels.samples), axis=1).sum())

    assert (cuts[1:, 0] >= cuts[:-1, 1]).all(), "stretches overlap"
    kept, rate_hz = covered(cuts), levels.sample_rate_hz
    loudest = float(levels.db.max()) if len(levels.db) else SILENT_DB
    note = "" if len(cuts) else f"no speech found: the loudest 10 ms reach {loudest:.0f} dB"
    return Split(
        stretches=tuple(_stretches(levels, cuts)),
        duration_s=levels.samples / rate_hz,
        speech_s=covered(speech) / rate_hz,
        kept_s=kept / rate_hz,
        dropped_s=(levels.samples - kept) / rate_hz,
        note=note,
    )
