"""k-means over features too many to hold: a uniform sample seeds, mini-batches of the whole stream refine.

Enters: something that opens the stream of features again and again. Leaves: centroids and how far frames are from them.
The one decision worth knowing: the stream is cut into batches of one size whatever parts it comes in, so that the same
frames and seed give the same bytes; memory is two samples and two batches.

Source: Sculley 2010 (a learning rate per center), with the batch mean as its step, and centers without frames
restarted by the k-means++ rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.speech.kmeans import finite_points, fit_kmeans, sample_frames
from speechscale.speech.kmeans_core import cluster_sums, nearest, squares_sum

BATCH_FRAMES = 16_384
SAMPLE_FRAMES_PER_CLUSTER = 400
SAMPLE_FRAMES_LEAST = 20_000

Stream = Callable[[], Iterable[Float[np.ndarray, "frames dim"]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFit:
    """A fit over a stream.

    Args:
        centroids: [clusters, dim].
        frames: frames of the stream. passes: how often it was read after the sample was drawn.
        sample_frames, sample_distance: size of the seeding sample, mean squared distance after fitting to it.
        stream_distance: mean squared distance of each frame of the last pass to the centroids before its batch moved
            them: an estimate on unseen frames in the first pass; `measure_stream` gives the exact figure.
        restarted: centers that got no frame of a whole pass and were moved. engine: what fitted the sample.
    """

    centroids: Float[np.ndarray, "clusters dim"]
    frames: int
    passes: int
    sample_frames: int
    sample_distance: float
    stream_distance: float
    restarted: int
    engine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReport:
    """Exact figures of a stream: frames, mean squared distance to the nearest centroid, frames of each cluster."""

    frames: int
    mean_squared_distance: float
    counts: np.ndarray

    @property
    def used(self) -> int:
        """Clusters with at least one frame."""
        return int((self.counts > 0).sum())


def fit_kmeans_stream(
    stream: Stream,
    clusters: int,
    *,
    seed: int,
    passes: int = 1,
    max_sample_frames: int | None = None,
    batch_frames: int = BATCH_FRAMES,
    engine: str = "torch",
) -> StreamFit:
    """Fit on all frames of a stream that is read 1 + `passes` times and never held.

    Example: fit_kmeans_stream(lambda: (encode(path) for path in paths), 500, seed=0)

    Args:
        stream: opens the stream anew; it must give the same frames each time.
        max_sample_frames: frames that seed; by default 400 per cluster, at least 20,000.
        engine: what fits the sample (`fit_kmeans`).

    Raises:
        DataError: no features, fewer frames than clusters, NaN or infinite, or a stream that changes between readings.
    """
    size = max_sample_frames or max(SAMPLE_FRAMES_LEAST, SAMPLE_FRAMES_PER_CLUSTER * clusters)
    seen = _Counter(stream)
    sample = sample_frames(seen, size, seed=seed)
    frames = seen.frames
    first = fit_kmeans(sample, clusters, seed=seed, engine=engine)
    labels, _ = nearest(finite_points(sample), first.centroids)
    state = _Centers(first.centroids, np.bincount(labels, minlength=clusters), np.random.default_rng([seed, 1]))
    drawn, distance = len(sample), first.mean_squared_distance
    del sample, labels
    for _ in range(passes):
        seen, total = _Counter(stream), 0.0
        for batch in rebatch(seen, batch_frames):
            total += state.update(batch)
        state.end_pass()
        if seen.frames != frames:
            raise DataError(
                f"k-means: the stream gave {frames} frames first and {seen.frames} then; open the same corpus each time"
            )
        distance = total / frames
    return StreamFit(
        centroids=state.centroids.astype(np.float32),
        frames=frames,
        passes=passes,
        sample_frames=drawn,
        sample_distance=first.mean_squared_distance,
        stream_distance=distance,
        restarted=state.restarted,
        engine=first.engine,
    )


def measure_stream(
    features: Iterable[Float[np.ndarray, "frames dim"]], centroids: Float[np.ndarray, "clusters dim"]
) -> StreamReport:
    """Read a stream once and measure its distance to the centroids."""
    counts, total = np.zeros(len(centroids), np.int64), 0.0
    for batch in rebatch(features, BATCH_FRAMES):
        labels, scores = nearest(batch, centroids)
        counts += np.bincount(labels, minlength=len(centroids))
        total += squares_sum(batch) + float(scores.sum(dtype=np.float64))
    frames = int(counts.sum())
    if not frames:
        raise DataError("k-means: no features came; the corpus has no usable audio")
    return StreamReport(frames=frames, mean_squared_distance=max(0.0, total / frames), counts=counts)


def rebatch(
    features: Iterable[Float[np.ndarray, "frames dim"]], batch_frames: int
) -> Iterator[Float[np.ndarray, "batch dim"]]:
    """Cut a stream into float32 batches of one size (the last may be shorter), however it came.

    Raises:
        DataError: parts of different width, NaN or infinite features.
    """
    batch: np.ndarray | None = None
    filled = 0
    for part in features:
        points = finite_points(part)
        if batch is None:
            batch = np.empty((batch_frames, points.shape[1]), np.float32)
        if points.shape[1] != batch.shape[1]:
            raise DataError(
                f"k-means: features of {batch.shape[1]} and of {points.shape[1]} dimensions; use one encoder"
            )
        while len(points):
            take = min(len(points), batch_frames - filled)
            batch[filled : filled + take] = points[:take]
            points, filled = points[take:], filled + take
            if filled == batch_frames:
                yield batch
                filled = 0
    if batch is not None and filled:
        yield batch[:filled]


class _Counter:
    """Count the frames that pass."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.frames = stream, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for part in self.stream():
            self.frames += len(part)
            yield part


class _Centers:
    """Centroids in float64, the frames each one has averaged, and far frames that could replace unused ones."""

    def __init__(self, centroids: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> None:
        self.centroids = centroids.astype(np.float64)
        self.weights = weights.astype(np.float64)
        self.received = np.zeros(len(centroids), np.int64)
        self.far: list[np.ndarray] = []
        self.rng, self.restarted = rng, 0

    def update(self, batch: Float[np.ndarray, "batch dim"]) -> float:
        """Move the centers toward the means of their frames; return the sum of squared distances before."""
        clusters = len(self.centroids)
        labels, scores = nearest(batch, self.centroids.astype(np.float32))
        counts = np.bincount(labels, minlength=clusters)
        self.weights += counts
        self.received += counts
        step = cluster_sums(batch, labels, clusters) - counts[:, None] * self.centroids
        self.centroids += step / np.maximum(self.weights, 1)[:, None]
        distances = np.maximum(scores + np.square(batch).sum(axis=1), 0.0)
        mass = np.cumsum(distances, dtype=np.float64)
        if mass[-1] > 0:
            self.far.append(batch[np.searchsorted(mass, self.rng.random() * mass[-1], side="right")].copy())
        if len(self.far) >= 2 * clusters:
            self.far = self.far[::2]
        return squares_sum(batch) + float(scores.sum(dtype=np.float64))

    def end_pass(self) -> None:
        """Restart the centers that got no frame of the whole stream; a stream sorted by speaker starves none."""
        starved = np.flatnonzero(self.received == 0)[: len(self.far)]
        if len(starved):
            rows = self.rng.choice(len(self.far), len(starved), replace=False)
            self.centroids[starved], self.weights[starved] = np.stack(self.far)[rows], 0.0
            self.restarted += len(starved)
        self.received[:] = 0
        self.far = []
