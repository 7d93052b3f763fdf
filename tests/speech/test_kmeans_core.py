"""Catches units that depend on the batch, the order or the threads, and seeds or sums unlike the plain formula."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.speech import kmeans_core
from speechscale.speech.kmeans import assign
from speechscale.speech.kmeans_core import (
    cluster_sums,
    mean_distance,
    nearest,
    nearest_exact,
    seed_centroids,
    squares_sum,
)


def near_ties(frames: int, clusters: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points halfway between two centroids, far from the origin: float32 products cannot tell which is nearer."""
    rng = np.random.default_rng(seed)
    centroids = (rng.normal(size=(clusters, dim)) + 20).astype(np.float32)
    pairs = centroids[rng.integers(clusters, size=(frames, 2))]
    nudge = 1e-6 * rng.normal(size=(frames, dim))
    return (pairs.astype(np.float64).mean(axis=1) + nudge).astype(np.float32), centroids


def brute_force(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    wide = centroids.astype(np.float64)
    return np.array([int(np.square(point.astype(np.float64) - wide).sum(axis=1).argmin()) for point in points])


@given(
    dim=st.sampled_from([1, 3, 26, 40, 130]),
    clusters=st.integers(2, 60),
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.integers(0, 300), max_size=6),
)
@settings(max_examples=25, deadline=None)
def test_labels_are_those_of_float64_in_any_chunk_and_order(
    dim: int, clusters: int, seed: int, cuts: list[int]
) -> None:
    points, centroids = near_ties(300, clusters, dim, seed)
    exact = brute_force(points, centroids)
    assert nearest_exact(points, centroids).tolist() == exact.tolist()
    borders = [0, *sorted(cuts), 300]
    parts = [assign(points[a:b], centroids) for a, b in pairwise(borders)]
    assert np.concatenate(parts).tolist() == exact.tolist()
    order = np.random.default_rng(seed).permutation(300)
    assert assign(points[order], centroids).tolist() == exact[order].tolist()


def test_float32_alone_would_fail_here() -> None:
    """Without this the test above could pass for a reason of its own."""
    points, centroids = near_ties(3000, 50, 130, 0)
    assert (nearest(points, centroids)[0] != brute_force(points, centroids)).any()


def test_labels_do_not_depend_on_threads_or_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    points, centroids = near_ties(5000, 80, 64, 1)
    expected = assign(points, centroids)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert np.array_equal(assign(points, centroids), expected)
    finally:
        torch.set_num_threads(threads)
    for block in (1, 7, 333):
        monkeypatch.setattr(kmeans_core, "BLOCK_FRAMES", block)
        assert np.array_equal(assign(points[:400], centroids), expected[:400])


def test_other_layouts_give_the_same_labels() -> None:
    points, centroids = near_ties(500, 20, 16, 2)
    expected = assign(points, centroids)
    assert np.array_equal(assign(np.asfortranarray(points), centroids), expected)
    assert np.array_equal(assign(points.astype(np.float64), centroids.astype(np.float64)), expected)
    assert np.array_equal(assign(np.repeat(points, 2, axis=0)[::2], centroids[::-1][::-1]), expected)


def test_many_equal_centroids_give_the_lowest_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans_core, "PAIRS_AT_ONCE", 7)
    points = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert assign(points, np.zeros((30, 4), np.float32)).tolist() == [0] * 50


def test_sums_and_squares_are_the_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans_core, "SUM_FRAMES", 100)
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(1050, 6)).astype(np.float32), rng.integers(9, size=1050)
    expected = np.stack([points[labels == k].sum(axis=0, dtype=np.float64) for k in range(10)])
    np.testing.assert_allclose(cluster_sums(points, labels, 10), expected, atol=1e-4)
    assert squares_sum(points) == pytest.approx(float(np.square(points, dtype=np.float64).sum()), rel=1e-12)


@pytest.mark.parametrize("projected", [False, True])
def test_seeds_are_distinct_frames(monkeypatch: pytest.MonkeyPatch, projected: bool) -> None:
    """Catches seeds chosen twice, and centered or projected frames that end up as centroids."""
    monkeypatch.setattr(kmeans_core, "SEEDING_BYTES", 0 if projected else 2**24)
    for dim in (5, 200):
        base = np.random.default_rng(dim).normal(size=(40, dim)).astype(np.float32)
        base[1] = base[0] * (1 + 2**-20)  # one product in float32 cannot tell these two apart
        points = np.repeat(base, 10, axis=0)
        seeds = seed_centroids(points, 40, np.random.default_rng(0))
        assert {row.tobytes() for row in seeds} == {row.tobytes() for row in base}
        with pytest.raises(DataError, match="only 40 distinct frames for 41 clusters"):
            seed_centroids(points, 41, np.random.default_rng(0))


def test_seeds_spread_better_than_random_points() -> None:
    """Catches a sampling weight that is not the squared distance."""
    rng = np.random.default_rng(0)
    middle = rng.normal(size=(30, 8)) * 20
    share = np.r_[np.full(29, 0.002), 0.942]
    points = (middle[rng.choice(30, 5000, p=share)] + rng.normal(size=(5000, 8))).astype(np.float32)
    ours = np.mean([mean_distance(points, seed_centroids(points, 30, np.random.default_rng(s))) for s in range(3)])
    plain = np.mean([mean_distance(points, points[np.random.default_rng(s).choice(5000, 30)]) for s in range(3)])
    assert ours < 0.5 * plain
