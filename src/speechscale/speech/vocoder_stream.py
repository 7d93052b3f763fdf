"""Units to sound while they arrive, for the small vocoder; its `synthesize` is the same, with all units at once.

Enters: units, one or many at a time. Leaves: samples that are final. The one decision worth knowing: every step works
on pieces cut at absolute positions (a unit among its neighbors, a block of mel frames), each as soon as what it
depends on is there; so it cannot matter how the units were cut into calls, not even to float rounding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from speechscale.errors import DataError
from speechscale.speech.griffin_lim import BLOCK_FRAMES, GriffinLim
from speechscale.speech.spectrograms import mel_to_magnitude
from speechscale.speech.unit_to_mel import MEL_REACH, UNIT_REACH, RunningEnds, UnitToMel, VocoderShape, lay


class ReadUnits:
    """Units among their neighbors: each comes out when UNIT_REACH more are there, or none will come."""

    def __init__(self, network: UnitToMel, voice: int) -> None:
        self._network, self._voice = network, torch.tensor([voice])
        self._window: deque[int] = deque([-1] * (2 * UNIT_REACH + 1), maxlen=2 * UNIT_REACH + 1)

    def push(self, units: Int[np.ndarray, " units"]) -> Iterator[tuple[Tensor, float]]:
        """Yield context (channels) and log mean duration less one of units that are complete now."""
        for unit in units:
            self._window.append(int(unit))
            if self._window[UNIT_REACH] >= 0:
                yield self._middle()

    def finish(self) -> Iterator[tuple[Tensor, float]]:
        """Yield the last ones."""
        for _ in range(UNIT_REACH):
            self._window.append(-1)
            if self._window[UNIT_REACH] >= 0:
                yield self._middle()

    def _middle(self) -> tuple[Tensor, float]:
        units = torch.tensor([list(self._window)])
        context, log_extra = self._network.context(units.clamp_min(0), (units >= 0).float(), self._voice)
        return context[0, :, UNIT_REACH], float(log_extra[0, UNIT_REACH])


class MelBlocks:
    """Mel frames of units laid along time, in blocks of BLOCK_FRAMES; the last one may be shorter."""

    def __init__(self, network: UnitToMel, shape: VocoderShape, voice: int) -> None:
        self._network, self._shape = network, shape
        self._spread, self._mean = network.mel_spread[voice][:, None], network.mel_mean[voice][:, None]
        self._contexts: deque[Tensor] = deque()
        self._ends: deque[int] = deque()
        self._start = 0
        """Sample where the first unit that is kept begins."""
        self.samples = 0
        """Length of all units so far."""
        self._block = 0

    def add(self, context: Float[Tensor, " channels"], end: int) -> Iterator[Float[Tensor, "mels frames"]]:
        """Take the next unit, which lasts until frame `end` of the units' rate; yield blocks that are complete now."""
        self.samples = round(end * self._shape.samples_per_frame)
        self._contexts.append(context)
        self._ends.append(self.samples)
        hop = self._shape.mel.hop_samples
        while self.samples > ((self._block + 1) * BLOCK_FRAMES + MEL_REACH - 1) * hop:
            yield self._make(frames=None)

    def finish(self) -> Iterator[Float[Tensor, "mels frames"]]:
        """Yield the blocks up to the last frame, samples // hop."""
        frames = self.samples // self._shape.mel.hop_samples + 1 if self._ends else 0
        while self._block * BLOCK_FRAMES < frames:
            yield self._make(frames=frames)

    def _make(self, *, frames: int | None) -> Float[Tensor, "mels frames"]:
        first = self._block * BLOCK_FRAMES
        numbers = np.arange(first - MEL_REACH, first + BLOCK_FRAMES + MEL_REACH)
        outside = (numbers < 0) | (numbers >= (numbers[-1] + 1 if frames is None else frames))
        ends = np.array(self._ends)
        owner, place = lay(numbers.clip(0) * self._shape.mel.hop_samples, ends, self._start, self._shape)
        owner[outside] = -1
        context = torch.stack(list(self._contexts), dim=1)[None]
        mels = self._network.mels(context, torch.from_numpy(owner)[None], torch.from_numpy(place)[None])[0]
        self._block += 1
        self._drop((first + BLOCK_FRAMES - MEL_REACH) * self._shape.mel.hop_samples)
        mels = mels[:, MEL_REACH : MEL_REACH + BLOCK_FRAMES] * self._spread + self._mean
        return mels if frames is None else mels[:, : frames - first]

    def _drop(self, sample: int) -> None:
        """Forget units that end before the next block looks; the last one stays."""
        while len(self._ends) > 1 and self._ends[0] <= sample:
            self._start = self._ends.popleft()
            self._contexts.popleft()


class VocoderStream:
    """A `UnitStream` of a `Vocoder`; made by `Vocoder.stream`."""

    def __init__(self, network: UnitToMel, shape: VocoderShape, voice: int, *, iterations: int, seed: int) -> None:
        self._shape = shape
        self._reader = ReadUnits(network, voice)
        self._blocks = MelBlocks(network, shape, voice)
        self._lim = GriffinLim(shape.mel, iterations=iterations, seed=seed)
        self._gain = network.gain[voice]
        self._ends = RunningEnds()
        self._durations = GivenDurations()
        self._finished = False

    def push(
        self, units: Int[np.ndarray, " units"], durations_frames: Int[np.ndarray, " units"] | None = None
    ) -> Float[np.ndarray, " samples"]:
        """Take the next units; return the samples that are final now, maybe none.

        Raises:
            DataError: a unit id out of range, durations that are missing, below one frame or given only now and then,
                or a stream that is finished.
        """
        refuse_finished(self._finished)
        units = checked_units(units, durations_frames, self._shape.num_units)
        self._durations.add(len(units), durations_frames)
        with torch.inference_mode():
            return self._sound([self._lim.push(m) for m in self._magnitudes(self._reader.push(units))])

    def finish(self) -> Float[np.ndarray, " samples"]:
        """Return the rest. Raises DataError if it was called before."""
        refuse_finished(self._finished)
        self._finished = True
        with torch.inference_mode():
            made = [self._lim.push(m) for m in self._magnitudes(self._reader.finish())]
            made += [self._lim.push(self._magnitude(mels)) for mels in self._blocks.finish()]
            return self._sound([*made, self._lim.finish(self._blocks.samples)])

    def _magnitudes(self, read: Iterator[tuple[Tensor, float]]) -> Iterator[Tensor]:
        for context, log_extra in read:
            given = self._durations.next()
            end = self._ends.predicted(log_extra) if given is None else self._ends.given(given)
            yield from map(self._magnitude, self._blocks.add(context, end))

    def _magnitude(self, mels: Float[Tensor, "mels frames"]) -> Float[Tensor, "bins frames"]:
        return mel_to_magnitude(mels, self._shape.mel)

    def _sound(self, made: list[Tensor]) -> Float[np.ndarray, " samples"]:
        sound = torch.cat(made) if made else torch.zeros(0)
        return (sound * self._gain).clamp(-1, 1).numpy()


class GivenDurations:
    """Durations that wait for their units to be read; None for units whose durations are to be predicted."""

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._given: bool | None = None

    def add(self, units: int, durations: Int[np.ndarray, " units"] | None) -> None:
        """Take the durations of the next units. Raises DataError if they are given for some and not for others."""
        if not units:
            return
        if self._given is not None and self._given != (durations is not None):
            raise DataError("vocoder: durations came with some units of this stream, not with others; always or never")
        self._given = durations is not None
        if durations is not None:
            self._waiting.extend(int(duration) for duration in durations)

    def next(self) -> int | None:
        return self._waiting.popleft() if self._given else None


def refuse_finished(finished: bool) -> None:
    """Raise DataError for a stream that has ended."""
    if finished:
        raise DataError("vocoder: this stream is finished; begin another one with stream()")


def checked_units(units: np.ndarray, durations: np.ndarray | None, num_units: int) -> Int[np.ndarray, " units"]:
    """Units as int64. Raises DataError: an id out of range, durations that are not one per unit or below one frame."""
    units = np.asarray(units).astype(np.int64)
    if len(units) and (units.min() < 0 or units.max() >= num_units):
        raise DataError(
            f"vocoder: unit ids run {units.min()}..{units.max()}, allowed 0..{num_units - 1}; wrong tokenizer?"
        )
    if durations is not None and (len(durations) != len(units) or (len(units) and np.min(durations) < 1)):
        raise DataError(f"vocoder: {len(units)} units need as many durations of at least one frame; leave them out")
    return units
