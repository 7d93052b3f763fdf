"""Catches mixtures off their shares, documents skipped or repeated in an epoch, and batches that differ on a rerun."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from speechscale.errors import DataError
from speechscale.records import UnitTable
from speechscale.tokens.interleave import InterleaveConfig
from speechscale.tokens.packing import Batch
from speechscale.tokens.rows import RowSampler, pack_store
from speechscale.tokens.store import STREAMS, TokenStore, build_store
from speechscale.tokens.vocabulary import Vocabulary

MakeTable = Callable[..., UnitTable]
EVEN = {"speech": 1.0, "text": 1.0, "interleaved": 1.0}
INTERLEAVE = InterleaveConfig(mean_span_words=3.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, make_table: MakeTable, vocabulary: Vocabulary) -> TokenStore:
    folder: Path = tmp_path_factory.mktemp("tokens") / "store"
    texts = [" ".join(["tom likes the jam ."] * (1 + number % 9)) for number in range(400)]
    return build_store(folder, vocabulary, table=make_table(300), texts=texts)


def digest(batch: Batch) -> bytes:
    return b"".join(array.tobytes() for array in (batch.tokens, batch.segments, batch.positions, batch.stream))


def test_same_arguments_same_batches(store: TokenStore) -> None:
    def run(seed: int, first: int = 0) -> list[bytes]:
        sampler = RowSampler(store, EVEN, 128, seed, INTERLEAVE)
        return [digest(batch) for batch in islice(sampler.batches(4, first_batch=first), 12 - first)]

    assert run(1) == run(1)
    assert run(1, first=5) == run(1)[5:]
    assert not set(run(1)) & set(run(2))


def test_resumed_counts_are_those_of_an_undisturbed_run(store: TokenStore) -> None:
    whole, resumed = (RowSampler(store, EVEN, 128, 3, INTERLEAVE) for _ in range(2))
    list(islice(whole.batches(4), 9))
    list(islice(resumed.batches(4, first_batch=6), 3))
    assert whole.stats() == resumed.stats()


@pytest.mark.parametrize("mixture", [EVEN, {"speech": 0.2, "text": 0.7, "interleaved": 0.1}, {"text": 3, "speech": 1}])
def test_shares_hold_over_every_prefix(store: TokenStore, mixture: dict[str, float]) -> None:
    sampler = RowSampler(store, mixture, 256, 0, INTERLEAVE)
    drawn = np.zeros(3)
    shares = np.array([mixture.get(stream, 0) for stream in STREAMS], float)
    shares /= shares.sum()
    longest = 0
    for piece in islice(sampler.draws(), 3000):
        drawn[piece.stream] += piece.length
        longest = max(longest, piece.length)
        surplus = drawn - shares * drawn.sum()
        assert surplus.max() <= longest
        assert surplus.min() >= -longest * (len(mixture) - 1)
    assert drawn.sum() > 50 * longest


def test_delivered_rows_keep_the_shares(store: TokenStore) -> None:
    sampler = RowSampler(store, {"speech": 1, "text": 2, "interleaved": 1}, 256, 0, INTERLEAVE)
    list(sampler.batches(8, max_tokens=150_000))
    seen = sampler.stats().tokens_seen
    total = sum(seen.values())
    assert seen["text"] / total == pytest.approx(0.5, abs=0.02)
    assert seen["speech"] / total == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("stream", STREAMS)
def test_an_epoch_is_every_document_once(store: TokenStore, stream: str) -> None:
    sampler = RowSampler(store, {stream: 1}, 4096, 0, INTERLEAVE)
    count = store.documents(stream)
    drawn = list(islice(sampler.draws(), 2 * count))
    for epoch in range(2):
        pieces = drawn[epoch * count : (epoch + 1) * count]
        assert {piece.epoch for piece in pieces} == {epoch}
        assert sorted(piece.document for piece in pieces) == list(range(count))
        bodies = store.read(stream, np.arange(count), epoch=epoch, interleave=INTERLEAVE, seed=0).rows()
        for piece in pieces:
            assert piece.flat[piece.start : piece.stop].tolist() == [0, *bodies[piece.document].tolist(), 0]
    assert [piece.document for piece in drawn[:count]] != [piece.document for piece in drawn[count:]]


def test_packing_loses_nothing_that_was_drawn(store: TokenStore) -> None:
    """All that was drawn is delivered, but for what still waits in the look-ahead buffer."""
    sampler = RowSampler(store, EVEN, 4096, 5, INTERLEAVE, lookahead=32)
    delivered: Counter[bytes] = Counter()
    for batch in islice(sampler.batches(2), 20):
        for row in range(2):
            real = batch.segments[row] >= 0
            cuts = np.flatnonzero(np.diff(batch.segments[row][real])) + 1
            delivered.update(part.astype(np.int32).tobytes() for part in np.split(batch.tokens[row][real], cuts))
    total = sum(delivered.values())
    fresh = RowSampler(store, EVEN, 4096, 5, INTERLEAVE)
    drawn = Counter(p.flat[p.start : p.stop].tobytes() for p in islice(fresh.draws(), total + 32))
    assert not delivered - drawn
    assert sum((drawn - delivered).values()) == 32


def test_stats_count_what_the_batches_hold(store: TokenStore) -> None:
    sampler = RowSampler(store, EVEN, 256, 0, INTERLEAVE)
    batches = list(islice(sampler.batches(8), 10))
    stats = sampler.stats()
    table = store.vocabulary.modality_table()
    for code, stream in enumerate(STREAMS):
        ids = np.concatenate([batch.tokens[batch.stream == code] for batch in batches])
        assert stats.tokens_seen[stream] == len(ids)
        counted = np.bincount(table[ids], minlength=3).tolist()
        assert list(stats.modality_tokens[stream].values()) == counted
    same = [(b.segments[:, 1:] == b.segments[:, :-1]) & (b.segments[:, 1:] >= 0) for b in batches]
    assert stats.target_tokens == sum(int(part.sum()) for part in same)
    assert stats.rows == 80
    assert stats.fill == sum(stats.tokens_seen.values()) / (80 * 256)
    assert stats.speech_units_seen == sum(stats.modality_tokens[stream]["speech"] for stream in STREAMS)
    assert stats.documents["text"] / store.documents("text") == stats.epochs["text"]


def test_unique_tokens_stop_growing_after_the_first_epoch(store: TokenStore) -> None:
    sampler = RowSampler(store, {"speech": 1}, 4096, 0, lookahead=16)
    units = store.counts["units"]
    tokens = units + 2 * store.counts["speech_documents"]
    list(sampler.batches(4, max_tokens=0.3 * tokens))
    early = sampler.stats()
    assert early.tokens_unique == early.tokens_seen
    assert early.speech_units_unique == early.speech_units_seen < units
    assert 0 < early.speech_hours_unique < store.speech_hours
    list(sampler.batches(4, max_tokens=3 * tokens))
    late = sampler.stats()
    assert late.tokens_unique == {"speech": tokens}
    assert late.speech_units_unique == units
    assert late.speech_hours_unique == pytest.approx(store.speech_hours)
    assert late.epochs["speech"] == pytest.approx(3, abs=0.5)


def test_rows_are_full_and_long_documents_split(store: TokenStore) -> None:
    sampler = RowSampler(store, EVEN, 512, 0, INTERLEAVE)
    list(sampler.batches(8, max_tokens=200_000))
    assert sampler.stats().fill > 0.97
    assert sampler.stats().split_documents == 0
    short = RowSampler(store, {"speech": 1}, 64, 0, INTERLEAVE)
    list(short.batches(8, max_tokens=200_000))
    lengths = np.diff(store.arrays["unit_offsets"]) + 2
    assert short.stats().split_documents / short.stats().documents["speech"] == pytest.approx(
        (lengths > 64).mean(), abs=0.02
    )


def test_validation_rows_hold_a_split_once(store: TokenStore) -> None:
    batches = pack_store(store, ["speech", "interleaved"], 256, interleave=INTERLEAVE, seed=1, batch_rows=8)
    speech = sum(int(((batch.stream == 0) & (batch.positions > 0)).sum()) for batch in batches)
    assert speech == store.counts["units"] + store.counts["speech_documents"]
    assert {int(code) for batch in batches for code in np.unique(batch.stream)} == {-1, 0, 2}


def test_bad_mixtures(store: TokenStore) -> None:
    for mixture in ({}, {"speech": 0.0}, {"speech": float("nan")}):
        with pytest.raises(DataError, match="a share above 0"):
            RowSampler(store, mixture, 128, 0)
    with pytest.raises(DataError, match="stream 'speach'"):
        RowSampler(store, {"speach": 1}, 128, 0)
    textless = TokenStore.open(store.folder, Vocabulary.textless(20))
    with pytest.raises(DataError, match="no 'text' documents"):
        RowSampler(textless, {"speech": 1, "text": 1}, 128, 0)
