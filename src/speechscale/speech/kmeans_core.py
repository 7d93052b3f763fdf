"""The inner loops of k-means: nearest centroids, sums per cluster, k-means++ seeds, Lloyd iterations.

Enters: float32 points. Leaves: labels, sums, centroids. The one decision worth knowing: `nearest_exact` settles in
float64 every frame whose two best centroids are closer than the worst rounding of the float32 product, so that a label
does not depend on the block a frame came in, on threads or on the machine's matrix library.

Source: Higham 2002 section 3.1 (error of a dot product in any order of summation); Arthur & Vassilvitskii 2007
(k-means++); Newling & Fleuret 2016 (Lloyd on nested samples that double).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csc_matrix

from speechscale.errors import DataError

BLOCK_FRAMES = 1024
"""Frames per matrix product; small enough for distances to stay in the cache."""
SUM_FRAMES = 16_384
PAIRS_AT_ONCE = 4096
SEEDING_FRAMES_PER_CLUSTER = 40
SEEDING_DIM = 128
SEEDING_BYTES = 2**24
"""A wider pool of more bytes is seeded in a random projection of SEEDING_DIM, which stays in the cache."""
FIRST_STAGE_FRAMES_PER_CLUSTER = 40
STAGE_ITERATIONS = 6
ROUNDING = 2.0**-24


class NearestBlocks:
    """The blocked float32 products of points with one set of centroids."""

    def __init__(self, centroids: Float[np.ndarray, "clusters dim"]) -> None:
        self.minus_twice = (-2 * torch.from_numpy(centroids).T).contiguous()
        self.own = torch.from_numpy(np.square(centroids, dtype=np.float64).sum(axis=1).astype(np.float32))
        # One buffer for all blocks: fresh memory per block costs more than the product.
        self.buffer = torch.empty(BLOCK_FRAMES, len(centroids))

    def __call__(self, points: np.ndarray) -> Iterator[tuple[slice, Float[np.ndarray, "block clusters"]]]:
        """Yield (rows, squared distance less the point's own square); the array is reused by the next block."""
        for start in range(0, len(points), BLOCK_FRAMES):
            block = torch.from_numpy(points[start : start + BLOCK_FRAMES])
            out = self.buffer[: len(block)]
            with torch.inference_mode():
                torch.addmm(self.own, block, self.minus_twice, out=out)
            yield slice(start, start + len(block)), out.numpy()


def nearest(
    points: Float[np.ndarray, "frames dim"], centroids: Float[np.ndarray, "clusters dim"]
) -> tuple[Int[np.ndarray, " frames"], Float[np.ndarray, " frames"]]:
    """Nearest centroid per point by the float32 product, and its squared distance less the point's own square."""
    labels = np.empty(len(points), np.int64)
    scores = np.empty(len(points), np.float32)
    for rows, distances in NearestBlocks(centroids)(points):
        best = distances.argmin(axis=1)
        labels[rows], scores[rows] = best, distances[np.arange(len(best)), best]
    return labels, scores


def nearest_exact(
    points: Float[np.ndarray, "frames dim"], centroids: Float[np.ndarray, "clusters dim"]
) -> Int[np.ndarray, " frames"]:
    """Nearest centroid per point as float64 finds it; the lowest index wins a tie."""
    labels = np.empty(len(points), np.int64)
    longest = float(np.sqrt(np.square(centroids, dtype=np.float64).sum(axis=1).max()))
    share = (points.shape[1] + 4) * ROUNDING
    for rows, distances in NearestBlocks(centroids)(points):
        index = np.arange(len(distances))
        best = distances.argmin(axis=1)
        lowest = distances[index, best]
        # Twice the worst error of one distance; norms in float32 are rounded up by the slack of `share`.
        norms = np.sqrt(np.square(points[rows]).sum(axis=1))
        limit = lowest + np.float32(2.02 * share * longest) * (2 * norms + np.float32(longest))
        distances[index, best] = np.inf
        open_rows = np.flatnonzero(distances.min(axis=1) <= limit)
        distances[index, best] = lowest
        if len(open_rows):
            best[open_rows] = _settle(points[rows][open_rows], centroids, distances[open_rows], limit[open_rows])
        labels[rows] = best
    return labels


def _settle(points: np.ndarray, centroids: np.ndarray, distances: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Compare in float64 the centroids whose float32 distance is within the limit."""
    which, candidates = np.nonzero(distances <= limit[:, None])
    exact = np.empty(len(which))
    for start in range(0, len(which), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        exact[part] = np.square(points[which[part]].astype(np.float64) - centroids[candidates[part]]).sum(axis=1)
    order = np.lexsort((candidates, exact, which))
    first = np.searchsorted(which[order], np.arange(len(points)))
    return np.asarray(candidates[order][first], np.int64)


def squares_sum(points: Float[np.ndarray, "frames dim"]) -> float:
    """Sum of all squares in float64, in blocks."""
    starts = range(0, len(points), SUM_FRAMES)
    return float(sum(np.square(points[s : s + SUM_FRAMES], dtype=np.float64).sum() for s in starts))


def cluster_sums(
    points: Float[np.ndarray, "frames dim"], labels: Int[np.ndarray, " frames"], clusters: int
) -> Float[np.ndarray, "clusters dim"]:
    """Sum the points of each cluster in their order: float32 inside a block, float64 across blocks."""
    sums = np.zeros((clusters, points.shape[1]), np.float64)
    for start in range(0, len(points), SUM_FRAMES):
        block, own = points[start : start + SUM_FRAMES], labels[start : start + SUM_FRAMES]
        one_hot = csc_matrix((np.ones(len(own), np.float32), own, np.arange(len(own) + 1)), (clusters, len(own)))
        sums += one_hot @ block
    return sums


def move_centroids(points: np.ndarray, labels: np.ndarray, scores: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Mean of each cluster; empty clusters take the points farthest from their centroids."""
    counts = np.bincount(labels, minlength=len(old))
    empty = np.flatnonzero(counts == 0)
    centroids = (cluster_sums(points, labels, len(old)) / np.maximum(counts, 1)[:, None]).astype(np.float32)
    if len(empty):
        distances = scores + np.square(points).sum(axis=1)
        centroids[empty] = points[np.argsort(-distances, kind="stable")[: len(empty)]]
    return centroids


def lloyd(
    points: Float[np.ndarray, "frames dim"],
    centroids: Float[np.ndarray, "clusters dim"],
    *,
    max_iterations: int,
    tolerance: float,
) -> tuple[Float[np.ndarray, "clusters dim"], int]:
    """Iterate until the mean distance falls by less than `tolerance` (relative); return centroids and iterations."""
    squares, before, iteration = squares_sum(points), np.inf, 0
    for iteration in range(1, max_iterations + 1):
        labels, scores = nearest(points, centroids)
        now = (squares + float(scores.sum(dtype=np.float64))) / len(points)
        if before - now <= tolerance * before and iteration > 1:
            break
        before = now
        centroids = move_centroids(points, labels, scores, centroids)
    return centroids, iteration


def staged_lloyd(
    points: Float[np.ndarray, "frames dim"],
    centroids: Float[np.ndarray, "clusters dim"],
    rng: np.random.Generator,
    *,
    max_iterations: int,
    tolerance: float,
) -> tuple[Float[np.ndarray, "clusters dim"], int]:
    """`lloyd` on nested samples that double, then on all points: early moves do not need them all."""
    order = rng.permutation(len(points))
    size = FIRST_STAGE_FRAMES_PER_CLUSTER * len(centroids)
    while size <= len(points) // 2:
        stage = points[np.sort(order[:size])]
        centroids, _ = lloyd(stage, centroids, max_iterations=min(STAGE_ITERATIONS, max_iterations), tolerance=1e-3)
        size *= 2
    return lloyd(points, centroids, max_iterations=max_iterations, tolerance=tolerance)


def mean_distance(points: Float[np.ndarray, "frames dim"], centroids: Float[np.ndarray, "clusters dim"]) -> float:
    """Mean squared distance of the points to their nearest centroid."""
    _, scores = nearest(points, centroids)
    return max(0.0, (squares_sum(points) + float(scores.sum(dtype=np.float64))) / len(points))


def seed_centroids(
    points: Float[np.ndarray, "frames dim"], clusters: int, rng: np.random.Generator
) -> Float[np.ndarray, "clusters dim"]:
    """Choose starting centroids on a subsample by greedy k-means++: of a few draws the best is taken.

    Source: Johnson & Lindenstrauss 1984 for the projection of wide features.

    Raises:
        DataError: fewer distinct frames than clusters.
    """
    subsample = min(len(points), SEEDING_FRAMES_PER_CLUSTER * clusters)
    rows = np.sort(rng.choice(len(points), subsample, replace=False))
    pool = points[rows]
    if pool.shape[1] > SEEDING_DIM and pool.nbytes > SEEDING_BYTES:
        projection = rng.standard_normal((pool.shape[1], SEEDING_DIM), np.float32)
        pool = torch.from_numpy(pool).mm(torch.from_numpy(projection)).numpy()
    pool = pool - pool.mean(axis=0)
    columns, squares = torch.from_numpy(pool.T.copy()), np.square(pool).sum(axis=1)
    trials = 2 + int(np.log(clusters))
    chosen = [int(rng.integers(len(pool)))]
    distances = _clean(_distances_to(pool, columns, squares, chosen)[0], squares, chosen[0], pool.shape[1])
    while len(chosen) < clusters:
        mass = np.cumsum(distances, dtype=np.float64)
        if mass[-1] == 0.0:
            return points[rows[distinct_rows(points[rows], clusters, chosen)]]
        draws = np.unique(np.searchsorted(mass, rng.random(trials) * mass[-1], side="right"))
        after = _distances_to(pool, columns, squares, draws)
        np.minimum(after, distances, out=after)
        best = int(after.sum(axis=1).argmin())
        chosen.append(int(draws[best]))
        distances = _clean(after[best], squares, chosen[-1], pool.shape[1])
    return points[rows[chosen]]


def _distances_to(
    pool: Float[np.ndarray, "pool dim"],
    columns: torch.Tensor,
    squares: Float[np.ndarray, " pool"],
    rows: Sequence[int] | np.ndarray,
) -> Float[np.ndarray, "rows pool"]:
    """Squared distances of all points to some of them, with the rounding of a float32 product."""
    with torch.inference_mode():
        total = torch.mm(torch.from_numpy(-2 * pool[rows]), columns).numpy()
    total += squares
    total += squares[rows][:, None]
    return np.asarray(total)


def _clean(distances: np.ndarray, squares: np.ndarray, row: int, dim: int) -> np.ndarray:
    """Set to 0 the distances that float32 cannot tell from 0, so that no frame is drawn twice."""
    distances[distances <= np.float32(2 * (dim + 4) * ROUNDING) * (squares + squares[row])] = 0.0
    distances[row] = 0.0
    return distances


def distinct_rows(pool: Float[np.ndarray, "pool dim"], clusters: int, chosen: Sequence[int] = ()) -> list[int]:
    """Fill up `chosen` with the first frames that differ from all of them, however little.

    Raises:
        DataError: fewer distinct frames than clusters.
    """
    seen = {pool[row].tobytes() for row in chosen}
    picked = list(dict.fromkeys(chosen))
    for row, point in enumerate(pool):
        if len(picked) == clusters:
            break
        if point.tobytes() not in seen:
            seen.add(point.tobytes())
            picked.append(row)
    if len(picked) < clusters:
        raise DataError(
            f"k-means: only {len(picked)} distinct frames for {clusters} clusters; use fewer clusters or more audio"
        )
    return picked
