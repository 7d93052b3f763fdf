"""Shift curve: are the units where they claim to be?

Enters: labeled utterances. Leaves: PNMI for units moved against the labels in steps finer than a frame, and where it
peaks. The one decision worth knowing: every shift scores the same frames (those whose whole reach is labeled), so that
the curve is not bent by utterance edges; a timing bug shows as a peak away from zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from speechscale.speech.information import mutual_information, resample
from speechscale.speech.labeled import Labeled, phone_index, phones_at


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftCurve:
    """PNMI over displacement.

    Args:
        offsets_ms: what was added to the time of every unit. pnmi: at each of them.
        peak_ms: where a parabola through the points around the highest one peaks. Below zero, units come too late.
        peak_low_ms, peak_high_ms: 2.5 and 97.5 percentiles of the peak over resampled utterances.
        frames: frames scored at every offset.
    """

    offsets_ms: tuple[float, ...]
    pnmi: tuple[float, ...]
    peak_ms: float
    peak_low_ms: float
    peak_high_ms: float
    frames: int

    @property
    def on_time(self) -> bool:
        """Whether zero lies in the peak's interval."""
        return self.peak_low_ms <= 0 <= self.peak_high_ms


def shift_curve(
    utterances: Sequence[Labeled],
    *,
    frame_rate_hz: float,
    num_units: int,
    reach_frames: int = 8,
    step_ms: float = 10.0,
    resamples: int = 100,
    seed: int = 0,
) -> ShiftCurve | None:
    """Measure PNMI with the units moved by -reach_frames..+reach_frames frames; None if no frame has that reach."""
    reach_ms = 1000 * reach_frames / frame_rate_hz
    steps = int(reach_ms / step_ms)
    offsets = np.arange(-steps, steps + 1) * step_ms
    index = phone_index(utterances)
    cells, owner = _cells(utterances, frame_rate_hz, index, offsets / 1000)
    if len(owner) == 0:
        return None
    shape = (num_units, len(index))

    def curve(weights: np.ndarray) -> np.ndarray:
        own = weights[owner]
        tables = (np.bincount(row, own, minlength=shape[0] * shape[1]).reshape(shape) for row in cells)
        return np.array([_pnmi(table) for table in tables])

    pnmi = curve(np.ones(len(utterances)))
    draws = [d for d in resample(len(utterances), resamples, seed) if d[owner].sum() > 0]
    half_window = max(1, round(1000 / frame_rate_hz / step_ms))
    peaks = [_peak(offsets, curve(weights), half_window) for weights in draws]
    low, high = np.percentile(peaks, [2.5, 97.5])
    return ShiftCurve(
        offsets_ms=tuple(offsets.tolist()),
        pnmi=tuple(pnmi.tolist()),
        peak_ms=_peak(offsets, pnmi, half_window),
        peak_low_ms=float(low),
        peak_high_ms=float(high),
        frames=len(owner),
    )


def _cells(
    utterances: Sequence[Labeled], frame_rate_hz: float, index: dict[str, int], offsets_s: Float[np.ndarray, " offsets"]
) -> tuple[np.ndarray, np.ndarray]:
    """Joint class (unit, phone) of each scored frame at each offset, and the utterance of each frame."""
    parts, owners = [np.zeros((len(offsets_s), 0), np.int32)], [np.zeros(0, np.int64)]
    for number, utterance in enumerate(utterances):
        centers = (np.arange(len(utterance.units)) + 0.5) / frame_rate_hz
        ends = phones_at(utterance.phones, index, np.stack([centers + offsets_s[0], centers + offsets_s[-1]]))
        kept = np.flatnonzero((ends >= 0).all(axis=0))
        phones = phones_at(utterance.phones, index, centers[kept] + offsets_s[:, None])
        parts.append((utterance.units[kept].astype(np.int32) * len(index) + phones).astype(np.int32))
        owners.append(np.full(len(kept), number))
    return np.concatenate(parts, axis=1), np.concatenate(owners)


def _pnmi(table: np.ndarray) -> float:
    information, _, phones = mutual_information(table)
    return information / phones if phones > 0 else 0.0


def _peak(offsets: np.ndarray, values: np.ndarray, half_window: int) -> float:
    """Vertex of the parabola through the points around the highest one, kept among these points."""
    highest = np.flatnonzero(values == values.max())
    top = int(highest[len(highest) // 2])
    near = slice(max(0, top - half_window), top + half_window + 1)
    bend, slope, _ = np.polyfit(offsets[near] - offsets[top], values[near], 2)
    if bend >= 0:
        return float(offsets[top])
    return float(np.clip(offsets[top] - slope / (2 * bend), offsets[near][0], offsets[near][-1]))
