"""k-means in torch: fit centroids on a bounded sample of frames, assign frames to them.

Enters: float32 features. Leaves: centroids, or one cluster index per frame. The one decision worth knowing: sums
run in a fixed order, so that the same features and seed give the same bytes.

Source: Arthur & Vassilvitskii 2007 (k-means++), Lloyd 1982.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from speechscale.errors import DataError

CHUNK_FRAMES = 1024
"""Frames per matrix product; small enough for distances to stay in the cache."""
SUM_FRAMES = 16_384
SEEDING_FRAMES_PER_CLUSTER = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class KMeans:
    """A fit: centroids [clusters, dim], mean squared distance of the sample to them, Lloyd iterations used."""

    centroids: Float[np.ndarray, "clusters dim"]
    mean_squared_distance: float
    iterations: int


def fit_kmeans(
    features: Float[np.ndarray, "frames dim"],
    clusters: int,
    *,
    seed: int,
    max_iterations: int = 25,
    tolerance: float = 1e-4,
) -> KMeans:
    """Fit by k-means++ and Lloyd iterations until the distance falls by less than `tolerance` (relative).

    A cluster that loses all its frames is moved to the frame farthest from its centroid.

    Raises:
        DataError: fewer (distinct) frames than clusters, or features that are NaN or infinite.
    """
    if not 1 <= clusters <= len(features):
        raise DataError(
            f"k-means: {clusters} clusters need at least as many frames, got {len(features)}; use more audio"
        )
    if not np.isfinite(features).all():
        raise DataError("k-means: some features are NaN or infinite; check the audio")
    points = np.ascontiguousarray(features, np.float32)
    centroids = _seed_centroids(points, clusters, np.random.default_rng([seed, clusters]))
    squares = float(np.square(points, dtype=np.float64).sum())
    before = np.inf
    for iteration in range(1, max_iterations + 1):
        labels, scores = _nearest(points, centroids)
        now = (squares + float(scores.sum(dtype=np.float64))) / len(points)
        if before - now <= tolerance * before and iteration > 1:
            break
        before = now
        centroids = _move_centroids(points, labels, scores, centroids)
    _, scores = _nearest(points, centroids)
    distance = max(0.0, (squares + float(scores.sum(dtype=np.float64))) / len(points))
    return KMeans(centroids=centroids, mean_squared_distance=distance, iterations=iteration)


def assign(
    features: Float[np.ndarray, "frames dim"], centroids: Float[np.ndarray, "clusters dim"]
) -> Int[np.ndarray, "frames"]:
    """Index of the nearest centroid per frame; the lowest index wins a tie."""
    assert features.shape[1] == centroids.shape[1], f"features {features.shape}, centroids {centroids.shape}"
    return _nearest(features, centroids)[0]


def sample_frames(
    features: Iterable[Float[np.ndarray, "frames dim"]], max_frames: int, *, seed: int
) -> Float[np.ndarray, "sampled dim"]:
    """Draw up to `max_frames` frames of a stream uniformly, without replacement, holding at most twice as many.

    Each frame draws a priority, the smallest stay; the sample keeps the order of the stream.
    """
    rng = np.random.default_rng([seed, max_frames])
    kept: list[np.ndarray] = []
    priorities: list[np.ndarray] = []
    held = 0
    for part in features:
        kept.append(part)
        priorities.append(rng.random(len(part)))
        held += len(part)
        if held > 2 * max_frames:
            rows, keys = _keep_smallest(kept, priorities, max_frames)
            kept, priorities, held = [rows], [keys], len(rows)
    if not kept:
        raise DataError("k-means: no features came; the corpus has no usable audio")
    return _keep_smallest(kept, priorities, max_frames)[0]


def _keep_smallest(kept: list[np.ndarray], priorities: list[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    rows, keys = np.concatenate(kept), np.concatenate(priorities)
    if len(rows) <= count:
        return rows, keys
    chosen = np.sort(np.argpartition(keys, count)[:count])
    return rows[chosen], keys[chosen]


def _nearest(points: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centroid per point and its squared distance less the point's own square."""
    labels = np.empty(len(points), np.int64)
    scores = np.empty(len(points), np.float32)
    with torch.inference_mode():
        minus_twice = -2 * torch.from_numpy(centroids).T
        own = torch.from_numpy(centroids).square().sum(dim=1)
        # One buffer for all chunks: fresh memory per chunk costs more than the product.
        buffer = torch.empty(min(CHUNK_FRAMES, len(points)), len(centroids))
        for start in range(0, len(points), CHUNK_FRAMES):
            chunk = torch.from_numpy(points[start : start + CHUNK_FRAMES])
            out = buffer[: len(chunk)]
            distances = torch.mm(chunk, minus_twice, out=out).add_(own).numpy()
            best = distances.argmin(axis=1)
            part = slice(start, start + len(chunk))
            labels[part], scores[part] = best, distances[np.arange(len(best)), best]
    return labels, scores


def _move_centroids(points: np.ndarray, labels: np.ndarray, scores: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Mean of each cluster; empty clusters take the points farthest from their centroids."""
    counts = np.bincount(labels, minlength=len(old))
    empty = np.flatnonzero(counts == 0)
    centroids = (_cluster_sums(points, labels, len(old)) / np.maximum(counts, 1)[:, None]).astype(np.float32)
    if len(empty):
        distances = scores + np.square(points, dtype=np.float64).sum(axis=1)
        centroids[empty] = points[np.argsort(-distances, kind="stable")[: len(empty)]]
    return centroids


def _cluster_sums(points: np.ndarray, labels: np.ndarray, clusters: int) -> Float[np.ndarray, "clusters dim"]:
    """Sum the points of each cluster in their order: float32 inside a block, float64 across blocks."""
    sums = np.zeros((clusters, points.shape[1]), np.float64)
    for start in range(0, len(points), SUM_FRAMES):
        own = labels[start : start + SUM_FRAMES].astype(np.int16 if clusters <= 32_767 else np.int64)
        order = np.argsort(own, kind="stable")
        counts = np.bincount(own, minlength=clusters)
        filled = np.flatnonzero(counts)
        starts = np.cumsum(counts[filled]) - counts[filled]
        sums[filled] += np.add.reduceat(points[start : start + SUM_FRAMES][order], starts, axis=0)
    return sums


def _seed_centroids(points: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Choose starting centroids by k-means++ on a subsample."""
    subsample = min(len(points), SEEDING_FRAMES_PER_CLUSTER * clusters)
    pool = points[np.sort(rng.choice(len(points), subsample, replace=False))]
    chosen = [int(rng.integers(len(pool)))]
    distances = np.full(len(pool), np.inf)
    while True:
        distances = np.minimum(distances, np.square(pool - pool[chosen[-1]]).sum(axis=1))
        if len(chosen) == clusters:
            return pool[chosen]
        mass = np.cumsum(distances)
        if mass[-1] == 0.0:
            raise DataError(
                f"k-means: only {len(chosen)} distinct frames for {clusters} clusters; use fewer clusters or more audio"
            )
        chosen.append(int(np.searchsorted(mass, rng.random() * mass[-1], side="right")))
