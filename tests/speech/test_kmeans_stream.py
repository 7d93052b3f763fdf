"""Catches stream fits that depend on how the stream is cut, forget frames, or are worse than a fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from speechscale.errors import DataError
from speechscale.speech.kmeans import fit_kmeans
from speechscale.speech.kmeans_core import lloyd, mean_distance
from speechscale.speech.kmeans_stream import fit_kmeans_stream, measure_stream, rebatch


def speechlike(frames: int, seed: int = 0, dim: int = 12) -> np.ndarray:
    """Overlapping clusters of very different sizes."""
    rng = np.random.default_rng(seed)
    middle = np.random.default_rng(99).normal(size=(60, dim)) * 2
    share = np.arange(1, 61) / np.arange(1, 61).sum()
    return (middle[rng.choice(60, frames, p=share)] + rng.normal(size=(frames, dim))).astype(np.float32)


def cut(points: np.ndarray, sizes: list[int]) -> Callable[[], Iterator[np.ndarray]]:
    def parts() -> Iterator[np.ndarray]:
        start = index = 0
        while start < len(points):
            size = sizes[index % len(sizes)]
            yield points[start : start + size].copy()
            start, index = start + size, index + 1

    return parts


def test_same_bytes_however_the_stream_is_cut() -> None:
    points = speechlike(9000)
    fits = [
        fit_kmeans_stream(cut(points, sizes), 20, seed=1, batch_frames=700, max_sample_frames=2000, passes=2)
        for sizes in ([9000], [1, 37, 0, 1500], [701])
    ]
    assert len({fit.centroids.tobytes() for fit in fits}) == 1
    assert len({(fit.frames, fit.stream_distance, fit.sample_frames) for fit in fits}) == 1
    assert (fits[0].frames, fits[0].sample_frames, fits[0].engine) == (9000, 2000, "torch")
    other = fit_kmeans_stream(cut(points, [500]), 20, seed=2, batch_frames=700, max_sample_frames=2000)
    assert other.centroids.tobytes() != fits[0].centroids.tobytes()


def test_refining_beats_the_sample_and_nears_the_fit_in_memory() -> None:
    """Catches rates that do not shrink, or batches that are counted twice."""
    points, unseen = speechlike(60_000), speechlike(20_000, seed=5)
    fit = fit_kmeans_stream(cut(points, [1234]), 40, seed=0, max_sample_frames=1500, batch_frames=2048)
    sample_only = fit_kmeans_stream(cut(points, [1234]), 40, seed=0, max_sample_frames=1500, passes=0)
    in_memory = mean_distance(unseen, lloyd(points, sample_only.centroids, max_iterations=25, tolerance=1e-4)[0])
    assert mean_distance(unseen, fit.centroids) < 0.99 * mean_distance(unseen, sample_only.centroids)
    assert mean_distance(unseen, fit.centroids) < 1.01 * in_memory
    assert fit.stream_distance == pytest.approx(mean_distance(unseen, fit.centroids), rel=0.02)


def test_a_sorted_stream_does_not_pull_the_centers_to_its_end() -> None:
    """Catches a rate that forgets: speakers come one after the other in real corpora."""
    points = speechlike(40_000)
    by_value = points[np.argsort(points[:, 0])]
    fit = fit_kmeans_stream(cut(by_value, [1000]), 40, seed=0, max_sample_frames=8000, batch_frames=1024)
    sample_only = fit_kmeans_stream(cut(by_value, [1000]), 40, seed=0, max_sample_frames=8000, passes=0)
    assert mean_distance(points, fit.centroids) < 1.01 * mean_distance(points, sample_only.centroids)


def test_starved_centers_are_restarted() -> None:
    """Frames of the sample that never come again would leave a dead center."""
    late = speechlike(20_000)
    readings = 0

    def stream() -> Iterator[np.ndarray]:
        nonlocal readings
        readings += 1
        outliers = np.full((20, 12), 500.0, np.float32) + np.arange(20, dtype=np.float32)[:, None]
        yield outliers if readings == 1 else late[:20]
        yield late

    fit = fit_kmeans_stream(stream, 10, seed=0, max_sample_frames=20_020, batch_frames=500, passes=2)
    assert fit.restarted >= 1
    assert measure_stream([late], fit.centroids).used == 10


def test_measure_is_exact() -> None:
    points = speechlike(5000)
    fit = fit_kmeans(points, 15, seed=0)
    report = measure_stream(cut(points, [7, 900])(), fit.centroids)
    distances = ((points[:, None].astype(np.float64) - fit.centroids[None]) ** 2).sum(axis=2)
    assert report.mean_squared_distance == pytest.approx(distances.min(axis=1).mean(), rel=1e-4)
    assert report.counts.tolist() == np.bincount(distances.argmin(axis=1), minlength=15).tolist()
    assert (report.frames, report.used) == (5000, 15)


def test_memory_is_two_batches() -> None:
    """Catches a stream that is collected: each part dies before the one after the next comes."""
    batches = 0
    for batch in rebatch((np.full((100, 4), i, np.float32) for i in range(1000)), 64):
        batches += 1
        assert batch.base is None or batch.base.nbytes == 64 * 4 * 4
    assert batches == -(-100_000 // 64)


def test_bad_streams_are_named() -> None:
    with pytest.raises(DataError, match="no features came"):
        fit_kmeans_stream(list, 4, seed=0)
    with pytest.raises(DataError, match="no features came"):
        measure_stream([np.zeros((0, 3), np.float32)], np.zeros((2, 3), np.float32))
    with pytest.raises(DataError, match="NaN or infinite"):
        list(rebatch([np.full((3, 2), np.nan, np.float32)], 2))
    with pytest.raises(DataError, match="of 2 and of 3 dimensions"):
        list(rebatch([np.zeros((3, 2), np.float32), np.zeros((3, 3), np.float32)], 2))
    lengths = iter([300, 200])
    with pytest.raises(DataError, match="300 frames first and 200 then"):
        fit_kmeans_stream(lambda: [speechlike(next(lengths))], 4, seed=0)
