"""k-means: fit centroids on a bounded sample of frames, assign frames to them.

Enters: float32 features. Leaves: centroids, or one cluster index per frame. The one decision worth knowing: sums
run in a fixed order, so that the same features and seed give the same bytes; and `assign` gives a frame the same index
in any chunk, on any number of threads (`kmeans_core.nearest_exact`).

Source: Arthur & Vassilvitskii 2007 (k-means++), Lloyd 1982. Streams too long to hold: `kmeans_stream`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from speechscale.errors import DataError, MissingExtra
from speechscale.speech.kmeans_core import distinct_rows, mean_distance, nearest_exact, seed_centroids, staged_lloyd

ENGINES = ("torch", "faiss", "auto")


@dataclass(frozen=True, slots=True, kw_only=True)
class KMeans:
    """A fit: centroids [clusters, dim], mean squared distance of the sample to them, Lloyd iterations over all of it.

    Args:
        engine: "torch" or "faiss", what fitted it; equal seeds give equal bytes within one engine only.
    """

    centroids: Float[np.ndarray, "clusters dim"]
    mean_squared_distance: float
    iterations: int
    engine: str = "torch"


def fit_kmeans(
    features: Float[np.ndarray, "frames dim"],
    clusters: int,
    *,
    seed: int,
    max_iterations: int = 25,
    tolerance: float = 1e-4,
    engine: str = "torch",
) -> KMeans:
    """Fit by k-means++ and Lloyd iterations until the distance falls by less than `tolerance` (relative).

    The first iterations run on samples that double. A cluster that loses all its frames is moved to the frame farthest
    from its centroid.

    Args:
        engine: "torch"; "faiss" (extra `faiss`); "auto" takes faiss when it is installed. The result names which.

    Raises:
        DataError: fewer (distinct) frames than clusters, features that are NaN or infinite, or an unknown engine.
        MissingExtra: engine "faiss" without faiss.
    """
    if not 1 <= clusters <= len(features):
        raise DataError(
            f"k-means: {clusters} clusters need at least as many frames, got {len(features)}; use more audio"
        )
    points = finite_points(features)
    chosen = choose_engine(engine)
    if chosen == "faiss":
        centroids, iterations = _fit_faiss(points, clusters, seed, max_iterations)
    else:
        rng = np.random.default_rng([seed, clusters])
        seeds = seed_centroids(points, clusters, rng)
        centroids, iterations = staged_lloyd(points, seeds, rng, max_iterations=max_iterations, tolerance=tolerance)
    return KMeans(
        centroids=centroids,
        mean_squared_distance=mean_distance(points, centroids),
        iterations=iterations,
        engine=chosen,
    )


def assign(
    features: Float[np.ndarray, "frames dim"], centroids: Float[np.ndarray, "clusters dim"]
) -> Int[np.ndarray, " frames"]:
    """Index of the nearest centroid per frame; the lowest index wins a tie.

    The same for a frame alone and in any chunk. Features must be finite.
    """
    assert features.shape[1] == centroids.shape[1], f"features {features.shape}, centroids {centroids.shape}"
    return nearest_exact(_plain(features), _plain(centroids))


def choose_engine(engine: str) -> str:
    """Resolve "auto"; check that the engine is known and installed."""
    if engine not in ENGINES:
        raise DataError(f"k-means: engine '{engine}' is unknown; choose one of {', '.join(ENGINES)}")
    installed = importlib.util.find_spec("faiss") is not None
    if engine == "faiss" and not installed:
        raise MissingExtra("k-means with engine 'faiss'", "faiss")
    return "faiss" if engine == "faiss" or (engine == "auto" and installed) else "torch"


def finite_points(features: Float[np.ndarray, "frames dim"]) -> Float[np.ndarray, "frames dim"]:
    """Contiguous float32, or DataError when some are NaN or infinite."""
    points = _plain(features)
    if not np.isfinite(points).all():
        raise DataError("k-means: some features are NaN or infinite; check the audio")
    return points


def sample_frames(
    features: Iterable[Float[np.ndarray, "frames dim"]], max_frames: int, *, seed: int
) -> Float[np.ndarray, "sampled dim"]:
    """Draw up to `max_frames` frames of a stream uniformly, without replacement, holding at most twice as many.

    Each frame draws a priority, the smallest stay; the sample keeps the order of the stream and does not depend on how
    the stream is cut into parts.
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


def _plain(array: np.ndarray) -> Float[np.ndarray, "rows dim"]:
    """Float32, rows in one piece, writable: torch warns about arrays it may not write."""
    return np.require(array, np.float32, ["C", "W"])


def _keep_smallest(kept: list[np.ndarray], priorities: list[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    rows, keys = np.concatenate(kept), np.concatenate(priorities)
    if len(rows) <= count:
        return rows, keys
    chosen = np.sort(np.argpartition(keys, count)[:count])
    return rows[chosen], keys[chosen]


def _fit_faiss(points: np.ndarray, clusters: int, seed: int, max_iterations: int) -> tuple[np.ndarray, int]:
    import faiss

    distinct_rows(points, clusters)
    # Without the limits faiss would drop points, or complain about few.
    fit = faiss.Kmeans(
        points.shape[1],
        clusters,
        niter=max_iterations,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    fit.train(points)
    return np.array(fit.centroids, np.float32), max_iterations
