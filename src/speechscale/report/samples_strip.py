"""One sample on the time axis, as numbers that a template turns into boxes.

Enters: a `ShownSample`, its waveform where there is one. Leaves: `Strip`: places in percent of the width. The one
decision worth knowing: the strip is boxes of HTML with one outline in SVG, so that it needs no script, its labels stay
readable at any width, and a sample takes some 20 kB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from speechscale.report.samples_records import ShownSample
from speechscale.report.sounds import PEAKS_PER_S, peaks

PIXELS_PER_S = 120
"""Narrower than this per second the strip scrolls."""
USUAL_PIXELS, WIDEST_PIXELS, TICK_PIXELS = 1_000, 16_000, 70
LABEL_ROWS, LETTER_PIXELS, GAP_PIXELS = 3, 7.0, 6.0
"""Rows of word labels, and about how wide a label is."""
MOST_BINS = 1_500
QUIET_PEAK = 12
"""Of 127: waveforms are drawn up to their own peak, but noise below this is not blown up to the full height."""
LAST_PERCENT, LONGEST_FLAG_PERCENT = 80.0, 40.0
"""Flags from here on stand left of their place, so wide at most."""
STEPS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Something at a place: left and width in percent. kind: its class in the style sheet. row: of labels, from 0."""

    left: float
    width: float
    kind: str
    text: str
    hint: str
    row: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """What is drawn.

    Args:
        seconds: the whole width. pixels: its least width. ticks: left in percent and label.
        blocks: prompt and spans. words: where they sound. labels: their texts, wider than they are, in `rows` rows.
        flags: texts without time, where the speech before them ends.
        wave: outline of the waveform as an SVG path of `bins` by 254, wave_width percent wide; "" without sound.
    """

    seconds: float
    pixels: int
    ticks: tuple[tuple[float, str], ...]
    blocks: tuple[Box, ...]
    words: tuple[Box, ...]
    labels: tuple[Box, ...]
    rows: int
    flags: tuple[Box, ...]
    wave: str
    bins: int
    wave_width: float


def strip_of(
    sample: ShownSample, audio: Float[np.ndarray, " samples"] | None = None, sample_rate_hz: int = 16_000
) -> Strip | None:
    """Lay a sample out; None where nothing of it has a time."""
    length_s = len(audio) / sample_rate_hz if audio is not None else 0.0
    ends = [span.end_s for span in sample.spans] + [word.end_s for word in sample.words]
    seconds = max(sample.seconds, length_s, *(end for end in ends if end is not None), 0.0)
    if not seconds:
        return None
    scale = 100 / seconds
    wave, bins = _outline(audio, sample_rate_hz) if audio is not None and len(audio) else ("", 1)
    pixels = min(math.ceil(seconds * PIXELS_PER_S), WIDEST_PIXELS)
    words, labels = _words(sample, scale, pixels / seconds)
    return Strip(
        seconds=seconds,
        pixels=pixels,
        ticks=_ticks(seconds, max(pixels, USUAL_PIXELS) / seconds),
        blocks=_blocks(sample, scale),
        words=words,
        labels=labels,
        rows=max((box.row for box in labels), default=0) + 1,
        flags=_flags(sample, scale),
        wave=wave,
        bins=bins,
        wave_width=_place(length_s * scale),
    )


def time_range(start_s: float, end_s: float) -> str:
    """Example: 0.5, 1.25 -> "0.50-1.25 s" """
    return f"{start_s:.2f}-{end_s:.2f} s"


def _place(percent: float) -> float:
    return round(percent, 3)


def _box(start_s: float, end_s: float, scale: float, kind: str, text: str, hint: str, row: int = 0) -> Box:
    return Box(
        left=_place(start_s * scale),
        width=_place((end_s - start_s) * scale),
        kind=kind,
        text=text,
        hint=hint,
        row=row,
    )


def _ticks(seconds: float, pixels_per_s: float) -> tuple[tuple[float, str], ...]:
    step = next((step for step in STEPS_S if step * pixels_per_s >= TICK_PIXELS), STEPS_S[-1])
    digits = 1 if step < 1 else 0
    # The last label would stick out, so it needs room behind it.
    count = math.floor(seconds / step - TICK_PIXELS / 2 / (step * pixels_per_s)) + 1
    return tuple((_place(100 * k * step / seconds), f"{k * step:.{digits}f} s") for k in range(max(count, 1)))


def _blocks(sample: ShownSample, scale: float) -> tuple[Box, ...]:
    boxes = []
    if sample.prompt_s > 0:
        hint = f"prompt, {time_range(0, sample.prompt_s)}"
        boxes.append(_box(0, sample.prompt_s, scale, "prompt", "prompt", hint))
    for span in sample.spans:
        if span.start_s is None or span.end_s is None:
            continue
        units = f", {len(span.units)} units" if span.units else ""
        hint = f"{span.modality}, {time_range(span.start_s, span.end_s)}{units}"
        boxes.append(_box(span.start_s, span.end_s, scale, span.modality, span.modality, hint))
    return tuple(boxes)


def _words(sample: ShownSample, scale: float, pixels_per_s: float) -> tuple[tuple[Box, ...], tuple[Box, ...]]:
    """Boxes where words sound, and their labels, each in the first row that has room where the strip is narrowest."""
    timed = [(word.text, word.start_s, word.end_s or 0.0) for word in sample.words if word.start_s is not None]
    free, rows = [0.0] * LABEL_ROWS, list[int]()
    for text, start_s, _ in timed:
        fitting = [row for row in range(LABEL_ROWS) if free[row] <= start_s]
        rows.append(fitting[0] if fitting else int(np.argmin(free)))
        free[rows[-1]] = start_s + (len(text) * LETTER_PIXELS + GAP_PIXELS) / pixels_per_s
    boxes, labels = [], []
    for number, (text, start_s, end_s) in enumerate(timed):
        kind = "prompt" if start_s + end_s < 2 * sample.prompt_s else "speech"
        hint = f"{text}: {time_range(start_s, end_s)}"
        boxes.append(_box(start_s, end_s, scale, kind, text, hint))
        behind = (timed[k][1] for k in range(number + 1, len(timed)) if rows[k] == rows[number])
        until = max(next(behind, 100 / scale), start_s)
        labels.append(_box(start_s, until, scale, kind, text, hint, rows[number]))
    return tuple(boxes), tuple(labels)


def _flags(sample: ShownSample, scale: float) -> tuple[Box, ...]:
    """Spans without time at the end of what sounds before them, in two rows; the last stand left of their place."""
    at, places = _place(sample.prompt_s * scale), list[tuple[float, str]]()
    for span in sample.spans:
        if span.end_s is not None:
            at = _place(span.end_s * scale)
        elif span.modality == "text":
            places.append((at, span.text))
    edges = list[float]()
    for number, (place, _) in enumerate(places):
        before = places[number - 2][0] if number >= 2 else 0.0
        edges.append(place if place < LAST_PERCENT else max(place - LONGEST_FLAG_PERCENT, before))
    boxes = []
    for number, ((place, text), left) in enumerate(zip(places, edges, strict=True)):
        until = edges[number + 2] if number + 2 < len(edges) else 100.0
        end = place if place >= LAST_PERCENT else max(until, place)
        kind = "text end" if place >= LAST_PERCENT else "text"
        hint = f"text, no sound: {text}"
        boxes.append(Box(left=left, width=_place(end - left), kind=kind, text=text, hint=hint, row=number % 2))
    return tuple(boxes)


def _outline(audio: Float[np.ndarray, " samples"], sample_rate_hz: int) -> tuple[str, int]:
    """Upper edge from left to right, lower edge back."""
    both = peaks(audio, sample_rate_hz, per_s=min(PEAKS_PER_S, MOST_BINS * sample_rate_hz / len(audio)))
    steps = both.astype(np.float64)
    steps *= 127 / max(float(np.abs(steps).max()), QUIET_PEAK)
    low, high = (np.rint(side).astype(int) for side in steps.T)
    upper = "".join(f"L{x} {max(0, 126 - y)}" for x, y in enumerate(high.tolist()))
    lower = "".join(f"L{x} {min(254, 128 - y)}" for x, y in reversed(list(enumerate(low.tolist()))))
    return f"M{upper[1:]}{lower}Z", max(len(both) - 1, 1)
