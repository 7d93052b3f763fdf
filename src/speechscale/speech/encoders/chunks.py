"""Long audio in windows that overlap, with bounded memory.

Enters: audio as blocks that can be read again, and how many frames it has. Leaves: windows of samples, and which
frames of each window count. The one decision worth knowing: windows depend on the length of the file alone, never on
how the decoder cut its blocks, and begin on whole frames, so that a stitched file has exactly its frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError

Blocks = Callable[[], Iterable[np.ndarray]]
"""Audio that can be read again from the start: each call gives its blocks of samples in order."""
PIECE_SAMPLES = 1 << 18
"""Samples per step of a running statistic; fixed, so that sums do not depend on the decoder's blocks."""


@dataclass(frozen=True, slots=True)
class Window:
    """Frames [start, end) are computed together, frames [keep_start, keep_end) of them are kept."""

    start: int
    end: int
    keep_start: int
    keep_end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loudness:
    """Length, mean and variance (biased) of the samples of a file."""

    samples: int
    mean: float
    variance: float


def plan_windows(frames: int, *, window_frames: int, context_frames: int) -> list[Window]:
    """Cut `frames` into windows of equal size, at most `window_frames`, of which `context_frames` at inner borders only
    serve their neighbors. A file that fits one window is one window.

    Raises:
        DataError: the contexts leave nothing of a window.
    """
    if not 0 <= 2 * context_frames < window_frames:
        raise DataError(
            f"windows: {context_frames} frames of context at both sides leave nothing of {window_frames}; "
            "raise chunk_s or lower context_s"
        )
    if frames <= window_frames:
        return [Window(0, frames, 0, frames)] if frames else []
    inner = frames - 2 * context_frames
    count = -(-inner // (window_frames - 2 * context_frames))
    step = -(-inner // count)
    size = step + 2 * context_frames
    starts = [min(index * step, frames - size) for index in range(count)]
    borders = [0, *[(start + size + after) // 2 for start, after in pairwise(starts)], frames]
    return [Window(starts[i], starts[i] + size, borders[i], borders[i + 1]) for i in range(count)]


def read_spans(blocks: Iterable[np.ndarray], spans: Iterable[tuple[int, int]]) -> Iterator[Float[np.ndarray, " span"]]:
    """Yield samples [start, end) of each span; starts must not fall. At most one span and one block are held."""
    source = iter(blocks)
    held: list[np.ndarray] = []
    first = last = 0  # the held samples are [first, last)
    for start, end in spans:
        assert start >= first, f"span {start}..{end} begins before {first}"
        while last < end:
            block = next(source, None)
            if block is None:
                raise DataError(
                    f"audio: ended after {last} samples, {end} were there at first; read a file that does not change"
                )
            held.append(block)
            last += len(block)
            if last <= start:
                held, first = [], last
        joined = held[0] if len(held) == 1 else np.concatenate(held)
        held, first = [joined[start - first :]], start
        yield held[0][: end - start]


def pieces(blocks: Iterable[np.ndarray], samples: int = PIECE_SAMPLES) -> Iterator[Float[np.ndarray, " piece"]]:
    """Cut blocks of any size into pieces of `samples`, the last one shorter."""
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        if count >= samples:
            joined = np.concatenate(held)
            whole = count - count % samples
            yield from (joined[start : start + samples] for start in range(0, whole, samples))
            held, count = [joined[whole:].copy()], count - whole
    if count:
        yield np.concatenate(held)


def measure(blocks: Blocks) -> Loudness:
    """Measure a file in one pass, in double precision.

    Raises:
        DataError: NaN or infinite samples.
    """
    samples, total, squares = 0, 0.0, 0.0
    for piece in pieces(blocks()):
        exact = piece.astype(np.float64)
        samples += len(exact)
        total += float(exact.sum())
        squares += float(exact @ exact)
    if not np.isfinite(squares):
        raise DataError("audio: holds NaN or infinite samples; export the audio again or drop it")
    mean = total / max(samples, 1)
    return Loudness(samples=samples, mean=mean, variance=max(squares / max(samples, 1) - mean * mean, 0.0))


def changed(blocks: Blocks, *, shift: float, scale: float, pad_samples: int) -> Blocks:
    """(samples - shift) * scale with `pad_samples` zeros at both ends, read lazily."""

    def read() -> Iterator[np.ndarray]:
        edge = np.zeros(pad_samples, np.float32)
        if pad_samples:
            yield edge
        for block in blocks():
            if shift == 0.0 and scale == 1.0:
                yield np.asarray(block, np.float32)
            else:
                yield ((block - shift) * scale).astype(np.float32)
        if pad_samples:
            yield edge

    return read


def kept(window: Window, features: Float[np.ndarray, "frames dim"]) -> Float[np.ndarray, "kept dim"]:
    """Take the frames of a window's features that count."""
    assert len(features) == window.end - window.start, f"{len(features)} frames for {window}"
    return features[window.keep_start - window.start : window.keep_end - window.start]


def sample_spans(windows: Sequence[Window], *, hop_samples: int, field_samples: int) -> list[tuple[int, int]]:
    """Samples that each window's frames are made of: frame i covers [i * hop, i * hop + field)."""
    return [(w.start * hop_samples, (w.end - 1) * hop_samples + field_samples) for w in windows]
