"""Units to sound while they arrive, for the unit HiFi-GAN.

Enters: units, one or many at a time. Leaves: samples that are final. The one decision worth knowing: a stream makes a
short piece first and longer ones later, because each costs the frames around it too; what is there already is made at
once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int

from speechscale.errors import DataError
from speechscale.speech.hifigan_network import Generator, HifiganShape
from speechscale.speech.vocoder_stream import GivenDurations, checked_units, refuse_finished

PIECE_FRAMES = 500
"""The longest piece; bounds memory."""
FIRST_S = 0.25
LATER_S = 1.0
"""A stream's first piece, and what later ones grow to by doubling."""


class HifiganStream:
    """A `UnitStream` of a `UnitHifigan`; made by `UnitHifigan.stream`.

    Pieces of other lengths round differently: samples equal those of `synthesize` within 1e-5, below 16-bit steps.
    """

    def __init__(self, network: Generator, shape: HifiganShape, voice: int) -> None:
        self._network, self._shape = network, shape
        self._device = network.conv_pre.weight.device
        self._voice = torch.tensor([voice], device=self._device)
        self._durations = GivenDurations()
        self._reader = ReadDurations(network, shape)
        self._frames = np.zeros(0, np.int64)
        """Units per frame that are still looked at; the first `_before` of them have been spoken."""
        self._before = 0
        self._least = max(1, round(FIRST_S * shape.frame_rate_hz))
        self._most_least = max(1, round(LATER_S * shape.frame_rate_hz))
        self._finished = False

    def push(
        self, units: Int[np.ndarray, " units"], durations_frames: Int[np.ndarray, " units"] | None = None
    ) -> Float[np.ndarray, " samples"]:
        """Take the next units; return the samples that are final now, maybe none.

        Raises:
            DataError: a unit id out of range, durations below one frame, given only now and then, or missing for a
                checkpoint that cannot predict them, or a stream that is finished.
        """
        refuse_finished(self._finished)
        units = checked_units(units, durations_frames, self._shape.num_units)
        if durations_frames is None and len(units):
            refuse_no_predictor(self._network)
        self._durations.add(len(units), durations_frames)
        if durations_frames is None:
            return self._spoken(self._reader.push(units), end=False)
        return self._spoken(zip(units, durations_frames, strict=True), end=False)

    def finish(self) -> Float[np.ndarray, " samples"]:
        """Return the rest. Raises DataError if it was called before."""
        refuse_finished(self._finished)
        self._finished = True
        return self._spoken(self._reader.finish(), end=True)

    def _spoken(self, timed: Iterator[tuple[int, int]], *, end: bool) -> Float[np.ndarray, " samples"]:
        made = [np.zeros(0, np.float32)]
        with torch.inference_mode():
            for unit, duration in timed:
                self._frames = np.concatenate([self._frames, np.full(int(duration), unit, np.int64)])
                made += self._pieces(least=PIECE_FRAMES, ahead=self._shape.reach_frames)
            if end:
                made += self._pieces(least=1, ahead=0)
            else:
                made += self._pieces(least=self._least, ahead=self._shape.reach_frames)
        return np.concatenate(made)

    def _pieces(self, *, least: int, ahead: int) -> Iterator[Float[np.ndarray, " samples"]]:
        """Yield pieces while `least` frames and as many as a sample can depend on are there."""
        reach, hop = self._shape.reach_frames, self._shape.hop_samples
        while (ready := len(self._frames) - self._before - ahead) >= least:
            count = min(ready, PIECE_FRAMES)
            codes = torch.from_numpy(self._frames[: self._before + count + reach]).to(self._device)
            sound = self._network(codes[None], self._voice)[0]
            yield sound[self._before * hop :][: count * hop].float().cpu().numpy()
            spoken = self._before + count
            self._before = min(reach, spoken)
            self._frames = self._frames[spoken - self._before :]
            self._least = min(2 * self._least, self._most_least)


class ReadDurations:
    """Durations of units: each comes out when as many more units are there as the predictor looks ahead."""

    def __init__(self, network: Generator, shape: HifiganShape) -> None:
        self._network, self._reach = network, 2 * (shape.duration_kernel // 2)
        self._units: deque[int] = deque()
        self._next = 0
        """Position in `_units` of the unit whose duration comes next."""

    def push(self, units: Int[np.ndarray, " units"]) -> Iterator[tuple[int, int]]:
        """Yield units with their durations in frames."""
        for unit in units:
            self._units.append(int(unit))
            if len(self._units) > self._next + self._reach:
                yield self._predict()

    def finish(self) -> Iterator[tuple[int, int]]:
        while self._next < len(self._units):
            yield self._predict()

    def _predict(self) -> tuple[int, int]:
        window = list(self._units)[: self._next + self._reach + 1]
        unit, codes = window[self._next], torch.tensor([window], device=self._network.conv_pre.weight.device)
        with torch.inference_mode():
            log = self._network.log_durations(codes)[0, self._next]
        self._next += 1
        if self._next > self._reach:
            self._units.popleft()
            self._next -= 1
        return unit, int((log.exp() - 1).round().clamp(1, 10_000))


def refuse_no_predictor(network: Generator) -> None:
    """Raise DataError if durations cannot be predicted."""
    if network.dur_predictor is None:
        raise DataError("hifigan: this checkpoint cannot predict durations; give durations_frames")
