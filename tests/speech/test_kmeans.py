"""Catches centroids that change between runs, empty clusters, worse fits than a plain loop, biased samples."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from speechscale.errors import DataError, MissingExtra
from speechscale.speech.kmeans import assign, choose_engine, fit_kmeans, sample_frames
from speechscale.speech.kmeans_core import move_centroids


def clumps(frames: int, seed: int = 0, centers: int = 12, spread: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(centers, 5)) * 3
    return (middle[rng.integers(centers, size=frames)] + spread * rng.normal(size=(frames, 5))).astype(np.float32)


def naive_distance(points: np.ndarray, clusters: int, seed: int) -> float:
    """Textbook Lloyd from random points, to convergence."""
    centroids = points[np.random.default_rng(seed).choice(len(points), clusters, replace=False)].astype(np.float64)
    for _ in range(100):
        distances = ((points[:, None] - centroids[None]) ** 2).sum(axis=2)
        labels = distances.argmin(axis=1)
        centroids = np.stack(
            [points[labels == k].mean(axis=0) if (labels == k).any() else centroids[k] for k in range(clusters)]
        )
    return float(((points[:, None] - centroids[None]) ** 2).sum(axis=2).min(axis=1).mean())


def test_same_seed_same_bytes_on_any_threads() -> None:
    points, threads = clumps(6_000), torch.get_num_threads()
    first = fit_kmeans(points, 40, seed=3)
    try:
        torch.set_num_threads(2)
        second = fit_kmeans(points.copy(), 40, seed=3)
    finally:
        torch.set_num_threads(threads)
    assert first.centroids.tobytes() == second.centroids.tobytes()
    assert first.centroids.dtype == np.float32
    assert first.centroids.tobytes() != fit_kmeans(points, 40, seed=4).centroids.tobytes()


def test_not_worse_than_the_textbook() -> None:
    points = clumps(2500, spread=0.8)
    ours = np.mean([fit_kmeans(points, 20, seed=seed).mean_squared_distance for seed in range(4)])
    theirs = np.mean([naive_distance(points, 20, seed) for seed in range(4)])
    assert ours <= theirs * 1.01


def test_reported_distance_is_the_distance() -> None:
    points = clumps(5000)
    fit = fit_kmeans(points, 15, seed=0)
    labels = assign(points, fit.centroids)
    exact = ((points.astype(np.float64) - fit.centroids[labels]) ** 2).sum(axis=1).mean()
    assert fit.mean_squared_distance == pytest.approx(exact, rel=1e-3)


def test_assignment_is_the_nearest_and_the_lowest_of_equals() -> None:
    points, centroids = clumps(3000), clumps(30, seed=1)
    exact = ((points[:, None].astype(np.float64) - centroids[None]) ** 2).sum(axis=2)
    chosen = assign(points, centroids)
    np.testing.assert_allclose(exact[np.arange(3000), chosen], exact.min(axis=1), rtol=1e-4)
    assert assign(points, np.concatenate([centroids, centroids])).tolist() == chosen.tolist()
    assert assign(points[:0], centroids).shape == (0,)


def test_planted_clusters_are_found() -> None:
    points = clumps(6000, centers=8, spread=0.05)
    fit = fit_kmeans(points, 8, seed=0)
    assert fit.mean_squared_distance == pytest.approx(5 * 0.05**2, rel=0.05)


def test_empty_cluster_moves_to_the_farthest_point() -> None:
    points = np.float32([[0, 0], [0, 1], [9, 9], [0, 2]])
    old = np.float32([[0, 1], [100, 100]])
    labels = assign(points, old)
    assert labels.tolist() == [0, 0, 0, 0]
    scores = ((points - old[0]) ** 2).sum(axis=1) - (points**2).sum(axis=1)
    moved = move_centroids(points, labels, scores, old)
    assert moved.tolist() == [[2.25, 3.0], [9.0, 9.0]]


def test_every_cluster_is_used() -> None:
    points = np.concatenate([clumps(3000, centers=2, spread=0.01), clumps(40, seed=9, centers=40)])
    fit = fit_kmeans(points, 30, seed=0)
    assert len(np.unique(assign(points, fit.centroids))) == 30


@pytest.mark.parametrize(
    ("points", "clusters", "message"),
    [
        (clumps(5), 6, "6 clusters need at least as many frames, got 5"),
        (clumps(50), 0, "0 clusters"),
        (np.repeat(clumps(3), 20, axis=0), 5, "only 3 distinct frames for 5 clusters"),
        (np.full((9, 2), np.nan, np.float32), 2, "NaN or infinite"),
    ],
)
def test_impossible_fits_are_refused(points: np.ndarray, clusters: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_kmeans(points, clusters, seed=0)


def test_sample_is_uniform_without_replacement_in_order() -> None:
    stream = [np.arange(start, start + 37, dtype=np.float32)[:, None] for start in range(0, 3700, 37)]
    counts = np.zeros(3700)
    for seed in range(60):
        sample = sample_frames(iter(stream), 370, seed=seed)[:, 0].astype(int)
        assert len(sample) == 370
        assert (np.diff(sample) > 0).all()
        counts[sample] += 1
    thirds = counts.reshape(4, -1).sum(axis=1) / counts.sum()
    np.testing.assert_allclose(thirds, 0.25, atol=0.01)
    assert sample_frames(stream, 5000, seed=0).shape == (3700, 1)
    assert sample_frames(stream, 100, seed=1).tobytes() == sample_frames(stream, 100, seed=1).tobytes()
    with pytest.raises(DataError, match="no usable audio"):
        sample_frames([], 10, seed=0)
    whole = np.concatenate(stream)
    assert sample_frames([whole], 100, seed=1).tobytes() == sample_frames(stream, 100, seed=1).tobytes()


def test_faiss_is_named_and_as_good() -> None:
    pytest.importorskip("faiss")
    points = clumps(4000, centers=30, spread=0.8)
    ours, theirs = (fit_kmeans(points, 25, seed=0, engine=engine) for engine in ("torch", "faiss"))
    assert (ours.engine, theirs.engine) == ("torch", "faiss")
    assert ours.mean_squared_distance <= 1.03 * theirs.mean_squared_distance
    assert fit_kmeans(points, 25, seed=0, engine="auto").centroids.tobytes() == theirs.centroids.tobytes()
    with pytest.raises(DataError, match="only 3 distinct frames"):
        fit_kmeans(np.repeat(clumps(3), 20, axis=0), 5, seed=0, engine="faiss")


def test_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a default that changes with what is installed."""
    assert fit_kmeans(clumps(50), 2, seed=0).engine == "torch"
    with pytest.raises(DataError, match="engine 'gpu' is unknown; choose one of torch, faiss, auto"):
        choose_engine("gpu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_engine("auto") == "torch"
    with pytest.raises(MissingExtra, match="extra 'faiss'"):
        choose_engine("faiss")


def test_fit_on_real_features(shared: Path) -> None:
    """596 frames of HuBERT base, layer 9: not worse than scikit-learn, and each cluster is used."""
    cluster = pytest.importorskip("sklearn.cluster")
    features = np.load(shared / "data" / "dev-units" / "fairseq" / "sample.base.L9.npy", allow_pickle=False)
    assert features.shape == (596, 768)
    fit = fit_kmeans(features, 50, seed=0)
    ours = np.mean([fit_kmeans(features, 50, seed=seed).mean_squared_distance for seed in range(4)])
    theirs = np.mean(
        [cluster.KMeans(50, n_init=1, random_state=seed).fit(features).inertia_ / 596 for seed in range(4)]
    )
    assert ours <= 1.01 * theirs
    units = assign(features, fit.centroids)
    assert len(np.unique(units)) == 50
    assert np.concatenate([assign(features[i : i + 1], fit.centroids) for i in range(596)]).tolist() == units.tolist()
