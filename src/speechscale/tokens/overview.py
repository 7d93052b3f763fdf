"""What is in token stores, and what a mixture of them delivers: plain numbers for tables and pictures.

Enters: opened stores, how they are interleaved, a sampler. Leaves: JSON-like records. The one decision worth knowing:
documents are looked at in order, a batch at a time, and at most so many of each stream, so a store of any size takes
seconds; every record says how many documents its figures come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.tokens.interleave import InterleaveConfig, plan_interleave
from speechscale.tokens.look import describe
from speechscale.tokens.mixture import MixtureSampler
from speechscale.tokens.sources import StoreSource
from speechscale.tokens.statistics import ROWS_PER_BATCH, InterleaveStats, count_plan
from speechscale.tokens.store import STREAMS, TokenStore

LONGEST_SPAN = 40
"""Longer spans are counted together."""
FILL_BINS = 50


def store_overview(
    store: TokenStore, name: str, config: InterleaveConfig, *, epoch: int = 0, seed: int = 0, most: int = 20_000
) -> dict[str, Any]:
    """Count a store; `most`: look at so many documents of each stream, the first ones."""
    counts = store.counts
    streams = {stream: _stream(store, stream, most) for stream in ("speech", "text") if store.documents(stream)}
    found: dict[str, Any] = {
        "name": name,
        "folder": str(store.folder),
        "hours": store.speech_hours,
        "bytes": store.bytes,
        "counts": counts,
        "interleaving": "",
        "interleave": None,
    }
    if total := store.documents("interleaved", config):
        stats, spans = _interleaved(store, min(total, most), config, epoch, seed)
        tokens = {"speech": stats.speech_tokens, "text": stats.text_tokens, "marker": stats.marker_tokens}
        streams["interleaved"] = _sampled(total, min(total, most), tokens)
        found["interleaving"] = describe(config, epoch, seed)
        found["interleave"] = _interleave_record(stats, spans, config)
    return {**found, "streams": streams}


def _stream(store: TokenStore, stream: str, most: int) -> dict[str, Any]:
    total = store.documents(stream)
    if stream == "text" or store.vocabulary.subwords is None:
        known = store.counts["text_tokens" if stream == "text" else "units"]
        return _sampled(total, total, {stream: known})
    looked, tokens = min(total, most), 0
    for first in range(0, looked, ROWS_PER_BATCH):
        documents = np.arange(first, min(first + ROWS_PER_BATCH, looked))
        tokens += int(store.prepare(stream, documents).lengths.sum())
    return _sampled(total, looked, {stream: tokens})


def _sampled(documents: int, looked: int, kinds: Mapping[str, int]) -> dict[str, Any]:
    """`tokens`: of all documents, estimated where not all were looked at; `kinds`: of those that were."""
    tokens = sum(kinds.values())
    return {
        "documents": documents,
        "looked_at": looked,
        "tokens": tokens if looked == documents else round(tokens * documents / looked),
        "kinds": {kind: kinds.get(kind, 0) for kind in ("speech", "text", "marker")},
    }


def _interleaved(
    store: TokenStore, documents: int, config: InterleaveConfig, epoch: int, seed: int
) -> tuple[InterleaveStats, dict[str, list[int]]]:
    """Sums, and how many spans of each modality have so many words."""
    stats = InterleaveStats()
    lengths = {modality: np.zeros(LONGEST_SPAN + 1, np.int64) for modality in ("speech", "text")}
    for first in range(0, documents, ROWS_PER_BATCH):
        chosen = np.arange(first, min(first + ROWS_PER_BATCH, documents))
        rows = store.speech_rows("interleaved", chosen, config)
        plan = plan_interleave(store.source, rows, epoch, config, seed)
        stats += count_plan(plan, rows, config)
        words = np.minimum(plan.segments.last - plan.segments.first + 1, LONGEST_SPAN)
        for modality, heard in (("speech", True), ("text", False)):
            own = words[plan.segments.is_speech == heard]
            lengths[modality] += np.bincount(own, minlength=LONGEST_SPAN + 1)
    return stats, {modality: found.tolist() for modality, found in lengths.items()}


def _interleave_record(
    stats: InterleaveStats, spans: Mapping[str, list[int]], config: InterleaveConfig
) -> dict[str, Any]:
    by_length = stats.speech_share_by_length()
    return {
        **{key: value for key, value in asdict(stats).items() if not isinstance(value, tuple)},
        "share_asked": None if config.level == "utterance" else config.rule.share,
        "share_kind": config.share,
        "speech_word_share": none_for_nan(stats.speech_word_share),
        "mean_speech_span_words": none_for_nan(stats.mean_speech_run_words),
        "mean_text_span_words": none_for_nan(stats.mean_text_run_words),
        "mean_speech_spans": none_for_nan(stats.mean_speech_runs),
        "by_length": [
            {"words": words, "utterances": count, "speech_word_share": none_for_nan(share)}
            for (words, share), count in zip(by_length.items(), stats.bin_utterances, strict=True)
        ],
        "span_words": dict(spans),
    }


def mix_shares(stores: Mapping[str, dict[str, Any]], asked: Mapping[str, float]) -> dict[str, float]:
    """Shares of single sources ("speech", or "NAME/speech" where there are several stores) from what was asked.

    A stream that several stores have is divided by their tokens, so that all of it is read equally often.

    Args:
        stores: name -> its overview. asked: stream or source -> share; empty for equal shares of all streams.

    Raises:
        DataError: a stream or source that is not there.
    """
    there = [stream for stream in STREAMS if any(stream in found["streams"] for found in stores.values())]
    shares: dict[str, float] = {}
    for key, share in (asked or dict.fromkeys(there, 1.0)).items():
        holders = {name: found["streams"][key]["tokens"] for name, found in stores.items() if key in found["streams"]}
        total = sum(holders.values())
        for name, tokens in holders.items():
            source = source_name(name, key, len(stores))
            shares[source] = shares.get(source, 0.0) + share * tokens / total
        if holders:
            continue
        name, _, stream = key.rpartition("/")
        if stream not in stores.get(name, {"streams": {}})["streams"]:
            single = [f"{name}/{s}" for name, found in stores.items() for s in found["streams"]]
            allowed = ", ".join([*there, *(single if len(stores) > 1 else [])])
            raise DataError(f"mixture: no stream '{key}' in these stores with this vocabulary; allowed: {allowed}")
        source = source_name(name, stream, len(stores))
        shares[source] = shares.get(source, 0.0) + share
    return shares


def source_name(store: str, stream: str, stores: int) -> str:
    return stream if stores == 1 else f"{store}/{stream}"


def make_sampler(
    stores: Mapping[str, TokenStore], shares: Mapping[str, float], context: int, seed: int, config: InterleaveConfig
) -> MixtureSampler:
    """The sampler that trains on these stores. Raises DataError: their vocabularies differ."""
    sources = [
        StoreSource(store, stream, context, seed, name=name, interleave=config)
        for label, store in stores.items()
        for stream in STREAMS
        if (name := source_name(label, stream, len(stores))) in shares
    ]
    return MixtureSampler(sources, shares)


def mixture_overview(sampler: MixtureSampler, batch_rows: int, batches: int) -> dict[str, Any]:
    """Draw so many batches; say what came: shares after each, fill of the rows, and the sampler's own counts."""
    after: list[list[int]] = []
    fills = np.zeros(FILL_BINS, np.int64)
    stream = sampler.batches(batch_rows)
    for _ in range(batches):
        batch = next(stream)
        filled = (batch.segments >= 0).mean(axis=1)
        fills += np.bincount(np.minimum((filled * FILL_BINS).astype(np.int64), FILL_BINS - 1), minlength=FILL_BINS)
        after.append([tally.tokens for tally in sampler.tallies])
    stats = sampler.stats()
    tokens = np.array(after, np.float64)
    shares = tokens / tokens.sum(axis=1, keepdims=True)
    asked = np.array([float(share) for share in sampler.shares])
    worst = np.abs(shares - asked).max(axis=1)
    return {
        "context": sampler.context,
        "batch_rows": batch_rows,
        "batches": batches,
        "tokens": int(tokens[-1].sum()),
        "fill": stats.fill,
        "fill_bins": fills.tolist(),
        "target_tokens": stats.target_tokens,
        "speech_units_seen": stats.speech_units_seen,
        "speech_units_unique": stats.speech_units_unique,
        "speech_hours_unique": stats.speech_hours_unique,
        "sources": [
            {
                "name": name,
                **{key: value for key, value in asdict(source).items() if key != "kinds"},
                "kinds": source.kinds,
                "delivered": source.tokens_seen / stats_tokens if (stats_tokens := int(tokens[-1].sum())) else None,
            }
            for name, source in stats.sources.items()
        ],
        "prefixes": {
            "tokens": tokens.sum(axis=1).astype(np.int64).tolist(),
            "shares": {source.name: shares[:, k].tolist() for k, source in enumerate(sampler.sources)},
            "largest_difference": worst.tolist(),
        },
    }


def none_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def store_names(folders: Sequence[tuple[str, str]]) -> list[str]:
    """Short names that differ, of (parent, folder) names. Example: ("out", "store") -> "out"."""
    names: list[str] = []
    for parent, folder in folders:
        name = parent if folder == "store" else f"{parent}-{folder}"
        taken = sum(known == name or known.startswith(f"{name}#") for known in names)
        names.append(f"{name}#{taken + 1}" if taken else name)
    return names
