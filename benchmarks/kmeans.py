"""Measure k-means and dedup on one thread: python benchmarks/kmeans.py [--case 26x100 --frames 200000 --repeats 3]

Prints medians of CPU time and the mean squared distance of all frames, both beside faiss and scikit-learn (where
installed) on the same features in the same run, in turn; quote the ratios. Features are made up: clusters that overlap,
in a spectrum that falls as speech features do.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import groupby

import numpy as np
import torch

from speechscale.records import dedup, dedup_many
from speechscale.speech.kmeans import assign, fit_kmeans
from speechscale.speech.kmeans_core import mean_distance, nearest
from speechscale.speech.kmeans_stream import fit_kmeans_stream

Fit = Callable[[], np.ndarray]


def features(frames: int, dim: int, seed: int = 0) -> np.ndarray:
    rng, rank = np.random.default_rng(seed), min(dim, 40)
    basis = np.linalg.qr(rng.normal(size=(dim, rank)))[0] * np.linspace(3, 0.3, rank)
    middle = rng.normal(size=(2000, rank))
    found = np.empty((frames, dim), np.float32)
    for start in range(0, frames, 20_000):
        part = found[start : start + 20_000]
        hidden = middle[rng.integers(2000, size=len(part))] + 0.6 * rng.normal(size=(len(part), rank))
        part[:] = hidden @ basis.T + 0.05 * rng.normal(size=part.shape)
    return found


def others(points: np.ndarray, clusters: int) -> dict[str, Fit]:
    """What is installed of the others, at their own settings for this job."""
    found: dict[str, Fit] = {}
    try:
        import faiss

        faiss.omp_set_num_threads(1)

        def fit_faiss(most: int) -> np.ndarray:
            fit = faiss.Kmeans(
                points.shape[1], clusters, niter=25, seed=1, min_points_per_centroid=1, max_points_per_centroid=most
            )
            fit.train(points)
            return np.array(fit.centroids)

        found["faiss, 25 iterations, all frames"] = lambda: fit_faiss(len(points))
        found["faiss, 25 iterations, its own sample"] = lambda: fit_faiss(256)
    except ImportError:
        print("faiss is not installed")
    try:
        from sklearn.cluster import MiniBatchKMeans

        def fit_sklearn(batch: int, stop: int) -> np.ndarray:
            model = MiniBatchKMeans(
                clusters, batch_size=batch, max_iter=100, n_init=1, max_no_improvement=stop, random_state=0
            )
            return np.asarray(model.fit(points).cluster_centers_, np.float32)

        found["scikit-learn MiniBatchKMeans, defaults"] = lambda: fit_sklearn(1024, 10)
        found["scikit-learn MiniBatchKMeans, fairseq's batch"] = lambda: fit_sklearn(10_000, 100)
    except ImportError:
        print("scikit-learn is not installed")
    return found


def compare(frames: int, dim: int, clusters: int, repeats: int) -> None:
    points = features(frames, dim)

    def parts() -> list[np.ndarray]:
        return [points[start : start + 375] for start in range(0, frames, 375)]

    fits: dict[str, Fit] = {
        "ours": lambda: fit_kmeans(points, clusters, seed=0).centroids,
        "ours, max_iterations=10": lambda: fit_kmeans(points, clusters, seed=0, max_iterations=10).centroids,
        "ours, streamed": lambda: (
            fit_kmeans_stream(parts, clusters, seed=0, max_sample_frames=min(frames // 2, 100 * clusters)).centroids
        ),
        **others(points, clusters),
    }
    times: dict[str, list[float]] = {name: [] for name in fits}
    distances: dict[str, float] = {}
    for _ in range(repeats):  # in turn, so that drift of the machine hits all
        for name, fit in fits.items():
            start = time.process_time()
            centroids = fit()
            times[name].append(time.process_time() - start)
            distances[name] = mean_distance(points, centroids)
    print(f"{frames:,} x {dim}, k = {clusters}, {repeats} repeats")
    base, own = statistics.median(times["ours"]), distances["ours"]
    for name, spent in times.items():
        median = statistics.median(spent)
        print(
            f"  {name:46} {median:7.2f} s  {median / base:5.2f}x  distance {100 * (distances[name] / own - 1):+.2f} %"
        )
    centroids = fit_kmeans(points[: max(20 * clusters, 10_000)], clusters, seed=0, max_iterations=3).centroids
    for name, function in (("assign", assign), ("float32 product alone", nearest)):
        spent = []
        for _ in range(repeats):
            start = time.process_time()
            function(points, centroids)
            spent.append(time.process_time() - start)
        print(f"  {name:46} {frames / statistics.median(spent) / 1e6:7.2f} M frames/s")


def measure_dedup(repeats: int, rows: int = 20_000, length: int = 375) -> None:
    """Utterances of 15 s at 25 Hz."""
    rng = np.random.default_rng(0)
    runs = rng.choice([1, 1, 1, 2, 2], rows * length)
    frames = np.repeat(rng.integers(0, 500, rows * length).astype(np.int16), runs)[: rows * length]
    offsets = np.arange(rows + 1) * length

    def one_by_one() -> None:
        for start in offsets[:-1]:
            dedup(frames[start : start + length])

    def groups() -> None:
        """What others do (slamkit's tokenizer among them): Python's groupby over each utterance."""
        for start in offsets[:-1]:
            for _, run in groupby(frames[start : start + length].tolist()):
                len(list(run))

    base = 0.0
    many = ("dedup_many", lambda: dedup_many(frames, offsets))
    for name, function in (("groupby", groups), ("dedup", one_by_one), many):
        spent = []
        for _ in range(repeats):
            start = time.process_time()
            function()
            spent.append(time.process_time() - start)
        seconds = statistics.median(spent)
        base = base or seconds
        rate = f"{len(frames) / seconds / 1e6:6.1f} M frames/s, {len(frames) / 90_000 / seconds:7.0f} h/s"
        print(f"  {name:12} {rate}, {base / seconds:5.1f}x groupby")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", action="append", help="DIMxCLUSTERS; 26x100 and 26x500 by default")
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for case in chosen.case or ["26x100", "26x500"]:
        dim, clusters = map(int, case.split("x"))
        compare(chosen.frames, dim, clusters, chosen.repeats)
    measure_dedup(chosen.repeats)


if __name__ == "__main__":
    main()
