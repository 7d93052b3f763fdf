"""Magnitudes to sound, block by block: what was given out is never touched again.

Enters: STFT magnitudes, a few frames at a time. Leaves: samples that are final. The one decision worth knowing: a block
sees the frames that are fixed, its own and a few ahead, and nothing else, so that the sound of a stream is the sound
of the whole, bit for bit.

Source: Zhu, Beauregard & Wyse 2007 (RTISI-LA: committed frames and look-ahead); Beauregard, Harish & Wyse 2015 (SPSI:
first phases from peaks); Perraudin, Balazs & Sondergaard 2013 (fast Griffin-Lim).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from speechscale.speech.spectrograms import MelSpec, window_of

BLOCK_FRAMES = 8
AHEAD_FRAMES = 8
ITERATIONS = 20
"""Per block. A frame is worked on in AHEAD_FRAMES / BLOCK_FRAMES + 1 blocks; docs/vocoder.md has the choice."""
MOMENTUM = 0.99
LOBE_BINS = 2
"""Half the width of a sinusoid under a Hann window."""
TINY = 1e-8


class GriffinLim:
    """One sound on its way; frames in, samples out. However the frames are cut into calls, the samples are the same.

    Example: `lim = GriffinLim(MelSpec(), seed=0); sound = torch.cat([lim.push(magnitude), lim.finish(samples)])`

    Args:
        iterations: per block. seed: of the phases of the first frame; the others follow from it.
    """

    def __init__(self, spec: MelSpec, *, iterations: int = ITERATIONS, seed: int) -> None:
        size, hop = spec.window_samples, spec.hop_samples
        self._size, self._hop, self._iterations = size, hop, iterations
        self._pieces = math.ceil(size / hop)
        self._window = window_of(size)
        self._signs = 1.0 - 2.0 * (torch.arange(size // 2 + 1) % 2)
        """Turn phases at the start of a window into those at its center, and back."""
        bins = size // 2 + 1
        self._waiting = torch.zeros(0, bins)
        self._wanted = torch.zeros(0, bins)
        self._estimate = torch.zeros(0, bins, dtype=torch.complex64)
        self._last_phase = torch.rand(bins, generator=torch.Generator().manual_seed(seed)) * (2 * torch.pi)
        self._sum = torch.zeros((self._pieces - 1) * hop)
        """What fixed frames add to samples that later frames reach too, and below the sum of their squared windows."""
        self._weight = torch.zeros((self._pieces - 1) * hop)
        self._given = -(size // 2)
        """Samples that left; before zero there are those left of the first frame's center, which nobody gets."""

    def push(self, magnitude: Float[Tensor, "bins frames"]) -> Float[Tensor, " samples"]:
        """Take frames, in order; return the samples that became final, maybe none."""
        self._waiting = torch.cat([self._waiting, magnitude.T])
        made = []
        while len(self._wanted) + len(self._waiting) >= BLOCK_FRAMES + AHEAD_FRAMES:
            made.append(self._block(samples=None))
        return torch.cat(made) if made else torch.zeros(0)

    def finish(self, samples: int) -> Float[Tensor, " samples"]:
        """Return the rest of a sound that is `samples` long, samples // hop + 1 frames."""
        missing = samples - max(self._given, 0)
        made = []
        while len(self._wanted) + len(self._waiting):
            made.append(self._block(samples=samples))
        rest = self._sum / self._weight.clamp_min(TINY)
        made.append(rest[max(0, -self._given) :])
        return torch.cat(made)[:missing]

    def _block(self, *, samples: int | None) -> Float[Tensor, " samples"]:
        """Work on a block and the frames ahead of it, then fix the block."""
        self._take(BLOCK_FRAMES + AHEAD_FRAMES - len(self._wanted))
        frames = len(self._wanted)
        weight = self._overlap(self._window.square().expand(frames, -1), self._weight)
        place = torch.arange(len(weight)) + self._given
        inside = place >= 0  # beyond its ends a sound is silent
        if samples is not None and not len(self._waiting):
            inside &= place < samples
        share = inside / weight.clamp_min(TINY)
        before: Tensor | None = None
        for _ in range(self._iterations):
            sound = self._sound(self._estimate) * share
            projected = torch.fft.rfft(self._frames(sound))
            ahead = projected if before is None else projected + MOMENTUM * (projected - before)
            power = torch.view_as_real(ahead).square().sum(dim=2)
            self._estimate = ahead * (self._wanted * power.clamp_min(1e-24).rsqrt())
            before = projected
        return self._fix(min(BLOCK_FRAMES, frames))

    def _take(self, frames: int) -> None:
        """Move waiting frames into the work, with first phases."""
        new, self._waiting = self._waiting[:frames], self._waiting[frames:]
        if len(self._estimate):
            self._last_phase = (self._estimate[-1] * self._signs).angle()
        if len(new):
            phases = peak_phases(new, self._last_phase, self._hop)
            self._wanted = torch.cat([self._wanted, new])
            self._estimate = torch.cat([self._estimate, torch.polar(new, phases) * self._signs])

    def _fix(self, frames: int) -> Float[Tensor, " samples"]:
        """Give out what no later frame reaches."""
        total = self._sound(self._estimate[:frames])
        weight = self._overlap(self._window.square().expand(frames, -1), self._weight)
        done = frames * self._hop
        final = total[:done] / weight[:done].clamp_min(TINY)
        self._sum, self._weight = total[done:].clone(), weight[done:].clone()
        self._last_phase = (self._estimate[frames - 1] * self._signs).angle()
        self._wanted, self._estimate = self._wanted[frames:], self._estimate[frames:]
        final = final[max(0, -self._given) :]
        self._given += done
        return final

    def _sound(self, spectrum: Complex[Tensor, "frames bins"]) -> Float[Tensor, " samples"]:
        """Windowed frames added up, on top of what fixed frames give; not yet divided by the weights."""
        return self._overlap(torch.fft.irfft(spectrum, self._size) * self._window, self._sum)

    def _overlap(
        self, frames: Float[Tensor, "frames size"], start: Float[Tensor, " tail"]
    ) -> Float[Tensor, " samples"]:
        count, pieces = len(frames), self._pieces
        filled = torch.nn.functional.pad(frames, (0, pieces * self._hop - self._size))
        cut = filled.reshape(count, pieces, self._hop)
        total = torch.zeros(count + pieces - 1, self._hop)
        total[: pieces - 1] = start.reshape(-1, self._hop)
        for piece in range(pieces):
            total[piece : piece + count] += cut[:, piece]
        return total.reshape(-1)

    def _frames(self, sound: Float[Tensor, " samples"]) -> Float[Tensor, "frames size"]:
        count = len(sound) // self._hop - self._pieces + 1
        return sound.unfold(0, self._size, self._hop)[:count] * self._window


def peak_phases(
    magnitude: Float[Tensor, "frames bins"], before: Float[Tensor, " bins"], hop: int
) -> Float[Tensor, "frames bins"]:
    """Phases at window centers: near a spectral peak bins turn with the peak, elsewhere each with its own frequency.

    Were all bins to follow the nearest peak, noise would pulse at the frame rate: phases that agree put its energy at
    the centers of the windows.

    Args:
        magnitude: of frames `hop` samples apart. before: phases of the frame in front of them.
    """
    nearest, peak_bins = _peaks(magnitude)
    own = torch.arange(magnitude.shape[1])
    near = (own - nearest).abs() <= LOBE_BINS
    leader = torch.where(near, nearest, own)
    turn = (torch.pi * hop / (magnitude.shape[1] - 1)) * torch.where(near, peak_bins, own)
    phases, phase = [], before
    for row, step in zip(leader, turn, strict=True):
        phase = (phase[row] + step) % (2 * torch.pi)
        phases.append(phase)
    return torch.stack(phases)


def _peaks(magnitude: Float[Tensor, "frames bins"]) -> tuple[Tensor, Tensor]:
    """Per bin the nearest local maximum, and where it lies in bins, by a parabola through its logarithms."""
    bins = magnitude.shape[1]
    edged = torch.nn.functional.pad(magnitude, (1, 1), value=-1.0)
    peak = (magnitude > edged[:, :-2]) & (magnitude >= edged[:, 2:])
    index = torch.arange(bins).expand_as(magnitude)
    below = torch.where(peak, index, -2 * bins).cummax(1).values
    above = torch.where(peak, index, 2 * bins).flip(1).cummin(1).values.flip(1)
    nearest = torch.where(index - below <= above - index, below, above).clamp(0, bins - 1)
    logs = magnitude.clamp_min(TINY).log()
    edged = torch.nn.functional.pad(logs, (1, 1), mode="replicate")
    left, right = edged[:, :-2], edged[:, 2:]
    bend = left - 2 * logs + right
    shift = torch.where(bend.abs() > 1e-6, (left - right) / (2 * bend), 0.0).clamp(-0.5, 0.5)
    return nearest, (index + shift).gather(1, nearest)
