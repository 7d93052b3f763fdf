"""What a unit HiFi-GAN is trained on: random segments of a corpus.

Enters: a `UnitTable` and its waveforms. Leaves: batches. The one decision worth knowing: a batch is drawn from (seed,
step) alone, so it is the same whenever and wherever it is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from speechscale.errors import DataError
from speechscale.records import UnitTable, dedup
from speechscale.speech.hifigan_network import HifiganShape


@dataclass(frozen=True, slots=True)
class Segments:
    """Random segments of the corpus; batch `step` is the same whenever and wherever it is asked for."""

    table: UnitTable
    waveforms: Sequence[np.ndarray]
    shape: HifiganShape
    batch_rows: int
    segment_frames: int | None
    seed: int

    @property
    def length(self) -> int:
        """Frames of a segment; short corpora have shorter ones."""
        wanted = self.segment_frames or max(1, round(0.56 * self.shape.frame_rate_hz))
        return min(wanted, int(self.table.frames.max()))

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Units (B, T), audio (B, T * hop), speakers (B), and (units, frames, inside) (B, U) of the runs in them."""
        rng = np.random.default_rng([self.seed, step])
        length, hop, frames = self.length, self.shape.hop_samples, self.table.frames
        fitting = np.flatnonzero(frames >= length)
        chosen = rng.choice(fitting, self.batch_rows, p=frames[fitting] / frames[fitting].sum())
        units = np.zeros((len(chosen), length), np.int64)
        audio = np.zeros((len(chosen), length * hop), np.float32)
        for i, row in enumerate(chosen):
            start = int(rng.integers(frames[row] - length + 1))
            units[i] = np.repeat(self.table.row_units(row), self.table.row_durations(row))[start : start + length]
            part = np.asarray(self.waveforms[row], np.float32)[start * hop : (start + length) * hop]
            if len(part) <= audio.shape[1] - hop:
                raise DataError(
                    f"hifigan: utterance {self.table.ids[row]} has {frames[row]} frames of {hop} samples and "
                    f"{len(self.waveforms[row])} samples of audio; give the audio the units were made from"
                )
            audio[i, : len(part)] = part
        names = self.shape.speakers
        speakers = [names.index(self.table.speakers[row]) if names else 0 for row in chosen]
        return torch.from_numpy(units), torch.from_numpy(audio), torch.tensor(speakers), _runs(units)


def _runs(units: Int[np.ndarray, "B T"]) -> tuple[Tensor, Tensor, Tensor]:
    """Deduplicate each row; the first and last run may go on outside the segment and are not inside."""
    rows = [dedup(row) for row in units]
    width = max(len(kinds) for kinds, _ in rows)
    kinds, frames, inside = np.zeros((3, len(rows), width))
    for i, (own, durations) in enumerate(rows):
        kinds[i, : len(own)], frames[i, : len(own)], inside[i, 1 : len(own) - 1] = own, durations, 1
    return torch.from_numpy(kinds.astype(np.int64)), torch.from_numpy(frames).float(), torch.from_numpy(inside).float()


def units_sha256(table: UnitTable) -> str:
    """Hash who says which units for how long."""
    digest = hashlib.sha256("\0".join([*table.ids, *table.speakers]).encode())
    for array in (table.units, table.durations_frames, table.unit_offsets):
        digest.update(np.ascontiguousarray(array, np.int64).tobytes())
    return digest.hexdigest()


def check_pairs(
    table: UnitTable, waveforms: Sequence[np.ndarray], shape: HifiganShape, speakers: tuple[str, ...]
) -> None:
    """Raise DataError if table, waveforms and generator do not belong together."""
    if len(table) == 0 or len(waveforms) != len(table):
        raise DataError(f"hifigan: {len(table)} rows of units need as many waveforms, got {len(waveforms)}; give both")
    if table.num_units > shape.num_units or table.frame_rate_hz != shape.frame_rate_hz:
        raise DataError(
            f"hifigan: a generator for {shape.num_units} units at {shape.frame_rate_hz:g} Hz cannot learn "
            f"{table.num_units} at {table.frame_rate_hz:g} Hz; make it with HifiganShape.for_units"
        )
    if shape.speakers and not set(speakers) <= set(shape.speakers):
        missing = ", ".join(sorted(set(speakers) - set(shape.speakers))[:5])
        raise DataError(f"hifigan: the generator has no voice for {missing}; name all speakers in its shape")
