"""Figures of a logit lens: per layer, against chance, with intervals; when in the word it is best.

Enters: a `Lens`. Leaves: plain JSON figures. Needs no torch.
The one decision worth knowing: utterances are resampled, not words, and the score of "the best layer" is that of
layers chosen on one half of the utterances and measured on the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from speechscale.evals.analysis.lens_records import MAIN, METRICS, SIDES, TOP, Lens


def summarize(lens: Lens, *, replicates: int = 1000, seed: int = 0) -> dict[str, Any]:
    """All figures as plain JSON values.

    Returns:
        layers: per layer and metric own, chance, local, and difference (own - chance) with its 95 % interval.
        groups: difference in hit10 per layer for subsets of words: first mentions, repetitions, heard, only read.
        best: of the layers behind a block, that with the largest difference; its score, how much of it is beyond that
            of the embedding (which knows one unit and no context), and the score cross-fitted.
        lag: for the best layer, the frame after the word's start (end) with the largest difference, with interval.
        picture: hit10 per layer along the time of words, own minus chance, and own minus local.
        constant: what always guessing the 1, 5, 10 most frequent tokens would hit.
    """
    weights = _resamples(len(lens.rows), replicates, seed)
    layers = _layers(lens, weights)
    best = 1 + int(np.argmax([layer[MAIN]["difference"] for layer in layers[1:]]))
    return {
        "utterances": len(lens.rows),
        "words": len(lens.words.text),
        "word_counts": dict(sorted(lens.counts.items())),
        "frame_rate_hz": lens.frame_rate_hz,
        "layers": layers,
        "groups": _groups(lens, weights),
        "best": {
            "layer": best,
            **layers[best][MAIN],
            "ever10": layers[best]["ever10"],
            "beyond_embedding": _beyond_embedding(lens, best, weights),
            "cross_fitted": _cross_fitted(lens, seed),
        },
        "lag": {side: _lag(lens, side, best, weights) for side in SIDES},
        "picture": _picture(lens),
        "constant": {f"hit{k}": float(lens.frequencies[:k].sum()) for k in (1, 5, TOP)},
    }


def _resamples(utterances: int, replicates: int, seed: int) -> Float[np.ndarray, "replicates utterances"]:
    rng = np.random.default_rng([seed, utterances])
    return rng.multinomial(utterances, np.full(utterances, 1 / utterances), size=replicates).astype(np.float64)


def _by_utterance(lens: Lens, values: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums (utterances, layers, ...) of (layers, words, ...) over the chosen words, and their number per utterance."""
    owner, count = lens.words.utterance[chosen], len(lens.rows)
    sums = np.zeros((count, *values.shape[:1], *values.shape[2:]))
    np.add.at(sums, owner, np.moveaxis(values[:, chosen].astype(np.float64), 1, 0))
    return sums, np.bincount(owner, minlength=count).astype(np.float64)


def _interval(replicates: np.ndarray) -> tuple[float | None, float | None]:
    known = replicates[np.isfinite(replicates)]
    if len(known) < 2:
        return None, None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def _layers(lens: Lens, weights: np.ndarray) -> list[dict[str, Any]]:
    everything = np.ones(len(lens.words.text), bool)
    sums, count = _by_utterance(lens, lens.own - lens.chance, everything)
    resampled = np.tensordot(weights, sums, 1) / (weights @ count)[:, None, None]
    with_neighbors = np.isfinite(lens.local[0, :, 0])
    own, chance = lens.own.mean(axis=1, dtype=np.float64), lens.chance.mean(axis=1, dtype=np.float64)
    local = lens.local[:, with_neighbors].mean(axis=1, dtype=np.float64) if with_neighbors.any() else None
    found = []
    for layer in range(len(lens.own)):
        entry: dict[str, Any] = {"layer": layer}
        for m, name in enumerate(METRICS):
            low, high = _interval(resampled[:, layer, m]) if len(lens.rows) > 1 else (None, None)
            entry[name] = {
                "own": float(own[layer, m]),
                "chance": float(chance[layer, m]),
                "local": None if local is None else float(local[layer, m]),
                "difference": float(own[layer, m] - chance[layer, m]),
                "low": low,
                "high": high,
            }
        found.append(entry)
    return found


def _beyond_embedding(lens: Lens, layer: int, weights: np.ndarray) -> dict[str, float | None]:
    """Difference in hit10 of a layer minus that of layer 0, on the same words."""
    m = METRICS.index(MAIN)
    gain = lens.own[:, :, m] - lens.chance[:, :, m]
    sums, count = _by_utterance(lens, gain[[layer]] - gain[[0]], np.ones(len(lens.words.text), bool))
    low, high = _interval(weights @ sums[:, 0] / (weights @ count)) if len(lens.rows) > 1 else (None, None)
    return {"value": float(sums.sum() / count.sum()), "low": low, "high": high}


def _groups(lens: Lens, weights: np.ndarray) -> dict[str, dict[str, Any]]:
    """Difference in hit10 of subsets of words; those without a word are left out."""
    words, m = lens.words, METRICS.index(MAIN)
    subsets = {"first mention": words.first, "mentioned before": ~words.first}
    if words.heard is not None:
        subsets |= {"heard in training": words.heard, "only read in training": ~words.heard}
    found = {}
    for name, chosen in subsets.items():
        if not chosen.any():
            continue
        sums, count = _by_utterance(lens, lens.own[:, :, m] - lens.chance[:, :, m], chosen)
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled = (weights @ sums) / (weights @ count)[:, None]
        means = sums.sum(axis=0) / count.sum()
        enough = int((count > 0).sum()) > 1
        intervals = [_interval(resampled[:, layer]) if enough else (None, None) for layer in range(len(means))]
        found[name] = {
            "words": int(count.sum()),
            "utterances": int((count > 0).sum()),
            "difference": means.tolist(),
            "low": [low for low, _ in intervals],
            "high": [high for _, high in intervals],
        }
    return found


def _cross_fitted(lens: Lens, seed: int) -> float | None:
    """Difference in hit10 of the layer that was best on the other half of the utterances; None below two utterances."""
    if len(lens.rows) < 2:
        return None
    m = METRICS.index(MAIN)
    sums, count = _by_utterance(lens, lens.own[:, :, m] - lens.chance[:, :, m], np.ones(len(lens.words.text), bool))
    order = np.random.default_rng([seed, 2]).permutation(len(count))
    halves = order[::2], order[1::2]
    total = 0.0
    for here, there in (halves, halves[::-1]):
        layer = 1 + int(np.argmax(sums[there, 1:].sum(axis=0)))
        total += float(sums[here, layer].sum())
    return total / float(count.sum())


def _lag(lens: Lens, side: str, layer: int, weights: np.ndarray) -> dict[str, Any]:
    """Own minus chance by frames from the words' start or end, in one layer, and where it is largest."""
    sums, count = lens.lags[side].sums[:, layer].astype(np.float64), lens.lags[side].count.astype(np.float64)
    reach = (sums.shape[1] - 1) // 2
    # Lags that few words reach are no place for a peak.
    usable = count.sum(axis=0) >= 0.25 * count.sum(axis=0).max()

    def peak(total: np.ndarray, number: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(usable & (number > 0), total / number, -np.inf)
        return mean.argmax(axis=-1) - reach

    profile = sums.sum(axis=0) / np.maximum(count.sum(axis=0), 1)
    low, high = _interval(peak(weights @ sums, weights @ count)) if len(lens.rows) > 1 else (None, None)
    at = int(peak(sums.sum(axis=0), count.sum(axis=0)))
    return {
        "frames": list(range(-reach, reach + 1)),
        "difference": [float(v) if ok else None for v, ok in zip(profile, usable, strict=True)],
        "peak_frames": at,
        "peak_low": low,
        "peak_high": high,
        "peak_s": at / lens.frame_rate_hz,
    }


def _picture(lens: Lens) -> dict[str, Any]:
    config, count = lens.config, np.maximum(lens.picture.count, 1)
    own, chance, local = (part / count for part in lens.picture.sums)
    shown = lens.picture.count > 0

    def rows(values: np.ndarray) -> list[list[float | None]]:
        return [[float(v) if there else None for v, there in zip(row, shown, strict=True)] for row in values]

    before = [f"-{n}" for n in range(config.around, 0, -1)]
    within = [f"{(n + 0.5) / config.bins:.2f}" for n in range(config.bins)]
    return {
        "places": before + within + [f"+{n}" for n in range(1, config.around + 1)],
        "around": config.around,
        "bins": config.bins,
        "count": lens.picture.count.astype(int).tolist(),
        "own": rows(own),
        "difference": rows(own - chance),
        "difference_local": rows(own - local),
    }


def typical_utterance(lens: Lens, layer: int, *, words: tuple[int, int] = (6, 20)) -> int:
    """The utterance with the median score in this layer, of those with so many words if any; an index of `rows`."""
    m = METRICS.index(MAIN)
    sums, count = _by_utterance(lens, lens.own[:, :, m] - lens.chance[:, :, m], np.ones(len(lens.words.text), bool))
    fitting = np.flatnonzero((count >= words[0]) & (count <= words[1]))
    if not len(fitting):
        middle = sum(words) / 2
        fitting = np.flatnonzero(np.abs(count - middle) == np.abs(count - middle).min())
    scores = sums[fitting, layer] / count[fitting]
    return int(fitting[np.argsort(scores, kind="stable")[(len(fitting) - 1) // 2]])
