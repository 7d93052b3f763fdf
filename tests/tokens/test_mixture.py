"""Catches mixtures off their shares, documents skipped or repeated, and batches that depend on who makes them when."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.records import UnitTable
from speechscale.tokens.interleave import InterleaveConfig, Knot
from speechscale.tokens.mixture import MixtureSampler
from speechscale.tokens.packing import STREAMS, Batch
from speechscale.tokens.sources import StoreSource, pack_store
from speechscale.tokens.store import TokenStore, build_store
from speechscale.tokens.vocabulary import Vocabulary

MakeTable = Callable[..., UnitTable]
EVEN = {"speech": 1.0, "text": 1.0, "interleaved": 1.0}
INTERLEAVE = InterleaveConfig(speech_span="poisson(3)")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, make_table: MakeTable, vocabulary: Vocabulary) -> TokenStore:
    folder: Path = tmp_path_factory.mktemp("tokens") / "store"
    texts = [" ".join(["tom likes the jam ."] * (1 + number % 9)) for number in range(400)]
    return build_store(folder, vocabulary, table=make_table(300), texts=texts)


def sampler_of(store: TokenStore, mixture: dict[str, float] = EVEN, context: int = 128, **more: Any) -> MixtureSampler:
    return MixtureSampler.of_store(store, mixture, context, more.pop("seed", 0), INTERLEAVE, **more)


def digest(batch: Batch) -> bytes:
    return b"".join(array.tobytes() for array in (batch.tokens, batch.segments, batch.positions, batch.stream))


def segments_of(batch: Batch, row: int) -> list[list[int]]:
    real = batch.segments[row] >= 0
    cuts = np.flatnonzero(np.diff(batch.segments[row][real])) + 1
    return [part.tolist() for part in np.split(batch.tokens[row][real], cuts)]


def test_same_arguments_same_batches(store: TokenStore) -> None:
    def run(seed: int) -> list[bytes]:
        return [digest(batch) for batch in islice(sampler_of(store, seed=seed).batches(4), 12)]

    assert run(1) == run(1)
    assert not set(run(1)) & set(run(2))


@settings(max_examples=12, deadline=None)
@given(first=st.integers(0, 40), rows=st.integers(1, 7), saved=st.booleans())
def test_resume_anywhere(store: TokenStore, first: int, rows: int, saved: bool) -> None:
    """With the saved state or without it, the same batches and the same counts as undisturbed."""
    whole = sampler_of(store, seed=5)
    expected = [digest(batch) for batch in islice(whole.batches(rows), first + 5)]
    before = sampler_of(store, seed=5)
    list(islice(before.batches(rows), first))
    state = json.loads(json.dumps(before.state())) if saved else None
    resumed = sampler_of(store, seed=5)
    assert [digest(batch) for batch in islice(resumed.batches(rows, first_batch=first, state=state), 5)] == expected[
        first:
    ]
    assert resumed.stats() == whole.stats()
    assert resumed.state() == whole.state()


def test_a_state_costs_one_block_and_belongs_to_its_mixture(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = sampler_of(store)
    list(islice(sampler.batches(4), 200))
    state = sampler.state()
    reads = []
    original = TokenStore.read
    monkeypatch.setattr(TokenStore, "read", lambda self, *a, **k: reads.append(a) or original(self, *a, **k))
    next(sampler_of(store).batches(1, state=state))
    assert len(reads) == 1
    for other in (
        sampler_of(store, {"speech": 1, "text": 2, "interleaved": 1}),
        sampler_of(store, seed=1),
        sampler_of(store, context=64),
        MixtureSampler.of_store(store, EVEN, 128, 0, InterleaveConfig(speech_span="poisson(4)")),
    ):
        with pytest.raises(DataError, match="made with another mixture"):
            next(other.batches(4, state=state))
    with pytest.raises(DataError, match="format 'x'"):
        next(sampler_of(store).batches(4, state={**state, "format": "x"}))


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_ranks_and_workers_see_one_global_batch(store: TokenStore, world: int, workers: int) -> None:
    whole = [batch.tokens for batch in islice(sampler_of(store).batches(8), 12)]
    for worker in range(workers):
        parts = [
            [
                batch.tokens
                for batch in islice(
                    sampler_of(store).batches(8, rank=rank, world=world, worker=worker, workers=workers), 12 // workers
                )
            ]
            for rank in range(world)
        ]
        for own, expected in zip(zip(*parts, strict=True), whole[worker::workers], strict=True):
            assert np.array_equal(np.concatenate(own), expected)


def test_impossible_splits(store: TokenStore) -> None:
    for bad in ({"rank": 2, "world": 2}, {"worker": 1}, {"world": 5}):
        with pytest.raises(DataError, match=r"rank|at least one row"):
            next(sampler_of(store).batches(4, **bad))


@settings(max_examples=25, deadline=None)
@given(
    weights=st.lists(st.integers(1, 20), min_size=3, max_size=3),
    context=st.sampled_from([64, 128, 300]),
    seed=st.integers(0, 5),
)
def test_shares_hold_over_every_prefix(store: TokenStore, weights: list[int], context: int, seed: int) -> None:
    """Over any prefix of delivered rows every stream is within one row of its share, above and below."""
    sampler = sampler_of(store, dict(zip(STREAMS, weights, strict=True)), context, seed=seed)
    shares = np.array(weights) / sum(weights)
    drawn = np.zeros(3)
    for batch in islice(sampler.batches(1), 400):
        (stream,) = set(batch.stream[batch.stream >= 0].tolist())
        drawn[stream] += (batch.segments >= 0).sum()
        surplus = drawn - shares * drawn.sum()
        assert surplus.max() <= context
        assert surplus.min() >= -context


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("context", [64, 4096])
def test_an_epoch_is_every_document_once(store: TokenStore, stream: str, context: int) -> None:
    """Two epochs of rows, put together again, are every document twice, in two orders."""
    sampler = MixtureSampler.of_store(store, {stream: 1}, context, 3, INTERLEAVE, max_epochs=2)
    found: list[list[int]] = []

    def read_all() -> None:
        for batch in sampler.batches(1):
            found.extend(segments_of(batch, 0))

    with pytest.raises(DataError, match=f"source '{stream}' was read 2 times"):
        read_all()
    expected = Counter()
    for epoch in range(2):
        bodies = store.read(stream, np.arange(store.documents(stream)), epoch=epoch, interleave=INTERLEAVE, seed=3)
        for body in bodies.rows():
            framed = [0, *body.tolist(), 0]
            starts = range(0, max(len(framed) - 1, 1), context - 1)
            expected.update(tuple(framed[start : start + context]) for start in starts)
    assert Counter(map(tuple, found)) == expected
    stats = sampler.stats().sources[stream]
    assert stats.epochs == 2
    assert 0.4 < stats.tokens_unique / stats.tokens_seen < 0.6


def test_stats_count_what_the_batches_hold(store: TokenStore) -> None:
    sampler = sampler_of(store, context=256)
    batches = list(islice(sampler.batches(8), 10))
    stats = sampler.stats()
    table = store.vocabulary.modality_table()
    for code, stream in enumerate(STREAMS):
        ids = np.concatenate([batch.tokens[batch.stream == code] for batch in batches])
        assert stats.sources[stream].tokens_seen == len(ids)
        assert list(stats.sources[stream].kinds.values()) == np.bincount(table[ids], minlength=3).tolist()
    same = [(b.segments[:, 1:] == b.segments[:, :-1]) & (b.segments[:, 1:] >= 0) for b in batches]
    assert stats.target_tokens == sum(int(part.sum()) for part in same)
    assert stats.rows == 80
    assert stats.fill == sum(stats.by_stream("tokens_seen").values()) / (80 * 256)
    assert stats.speech_units_seen == sum(source.kinds["speech"] for source in stats.sources.values())


@pytest.mark.parametrize("rows", [7, 40, 150, 600])
def test_unique_speech_is_the_union_of_what_was_heard(store: TokenStore, rows: int) -> None:
    """Speech and interleaved rows of one utterance count once; against a brute-force union over delivered documents."""
    sampler = sampler_of(store, {"speech": 2, "interleaved": 1}, context=128)
    list(islice(sampler.batches(1), rows))
    touched: set[int] = set()
    for source, tally in zip(sampler.sources, sampler.tallies, strict=True):
        for number in range(tally.block + 1):
            block = source.block(number, 0.0)
            last = len(block) if number < tally.block else tally.row
            documents = source.block_documents(number)[block.closed.flat[: block.closed.offsets[last]]]
            touched.update(store.speech_rows(source.stream, documents).tolist())
    stats, found = sampler.stats(), np.array(sorted(touched))
    assert stats.speech_units_unique == int(np.diff(store.arrays["unit_offsets"])[found].sum())
    assert stats.speech_hours_unique == pytest.approx(store.hours(found))


def test_unique_tokens_stop_growing_after_the_first_epoch(store: TokenStore) -> None:
    sampler = MixtureSampler.of_store(store, {"speech": 1}, 4096, 0)
    tokens = store.counts["units"] + 2 * store.counts["speech_documents"]
    list(sampler.batches(1, max_tokens=0.3 * tokens))
    early = sampler.stats()
    assert early.sources["speech"].tokens_unique == early.sources["speech"].tokens_seen
    assert early.speech_units_unique == early.speech_units_seen < store.counts["units"]
    list(sampler.batches(1, max_tokens=3 * tokens))
    late = sampler.stats()
    assert late.by_stream("tokens_unique") == {"speech": tokens}
    assert late.speech_units_unique == store.counts["units"]
    assert late.speech_hours_unique == pytest.approx(store.speech_hours)
    assert late.sources["speech"].epochs == pytest.approx(3, abs=0.3)


def test_several_corpora_in_one_stream(
    tmp_path: Path, store: TokenStore, make_table: MakeTable, vocabulary: Vocabulary
) -> None:
    other = build_store(tmp_path / "other", vocabulary, table=make_table(50, seed=9))
    sources = [
        StoreSource(store, "speech", 128, 0, name="a/speech"),
        StoreSource(other, "speech", 128, 0, name="b/speech"),
        StoreSource(store, "text", 128, 0, name="a/text"),
    ]
    shares = {"a/speech": 0.25, "b/speech": 0.25, "a/text": 0.5}
    sampler = MixtureSampler(sources, shares)
    list(sampler.batches(4, max_tokens=60_000))
    stats = sampler.stats()
    total = sum(stats.by_stream("tokens_seen").values())
    assert stats.by_stream("tokens_seen")["speech"] / total == pytest.approx(0.5, abs=0.01)
    assert stats.sources["b/speech"].epochs > 4 * stats.sources["a/speech"].epochs
    with pytest.raises(DataError, match="name each source once"):
        MixtureSampler(sources, {"a/speech": 1, "b/speech": 1, "a/texts": 1})
    assert stats.epochs_of("speech") == pytest.approx(
        (stats.sources["a/speech"].documents + stats.sources["b/speech"].documents) / 350
    )
    limited = MixtureSampler(sources, shares, max_epochs={"b/speech": 2})
    with pytest.raises(DataError, match="source 'b/speech' was read 2 times"):
        list(limited.batches(4))
    with pytest.raises(DataError, match="max_epochs for 'c'"):
        MixtureSampler(sources, shares, max_epochs={"c": 2})


def test_sources_must_fit_each_other(
    tmp_path: Path, store: TokenStore, make_table: MakeTable, vocabulary: Vocabulary
) -> None:
    """Would catch rows of another length, which came out three quarters empty, and ids of another meaning."""
    wide = StoreSource(store, "text", 256, 0)
    with pytest.raises(DataError, match=r"rows of 'speech' have 128 tokens, those of 'text' 256"):
        MixtureSampler([StoreSource(store, "speech", 128, 0), wide], {"speech": 1, "text": 1})
    textless = TokenStore.open(store.folder, Vocabulary.textless(20))
    with pytest.raises(DataError, match="has the vocabulary"):
        MixtureSampler([StoreSource(textless, "speech", 256, 0), wide], {"speech": 1, "text": 1})


def test_the_order_of_the_sources_changes_nothing(store: TokenStore) -> None:
    sources = [StoreSource(store, stream, 128, 0, pack="stream") for stream in STREAMS]
    one, other = (MixtureSampler(list(order), EVEN) for order in (sources, sources[::-1]))
    assert one.fingerprint == other.fingerprint
    for a, b in islice(zip(one.batches(4), other.batches(4), strict=True), 20):
        assert digest(a) == digest(b)


def test_two_handles_of_one_store_are_one_store(store: TokenStore, vocabulary: Vocabulary) -> None:
    again = TokenStore.open(store.folder, vocabulary)
    sources = [StoreSource(store, "speech", 128, 0), StoreSource(again, "interleaved", 128, 0)]
    sampler = MixtureSampler(sources, {"speech": 1, "interleaved": 1})
    list(islice(sampler.batches(4), 400))
    assert sampler.stats().speech_units_unique == store.counts["units"]


@pytest.mark.parametrize("rows", [1, 3, 7, 16])
def test_at_the_limit_only_whole_batches_count(store: TokenStore, rows: int) -> None:
    """Would catch rows that are counted but delivered to nobody, and a resume that skips them."""
    limited = sampler_of(store, {"text": 1.0}, 64, max_epochs=1)
    got = []
    with pytest.raises(DataError, match="was read 1 times"):
        got.extend(limited.batches(rows))
    delivered = list(
        islice(sampler_of(store, {"text": 1.0}, 64, max_epochs=1).batches(rows), len(limited_rows(limited, rows)))
    )
    assert limited.stats().rows == rows * len(delivered)
    assert limited.tokens_seen == sum(int((batch.segments >= 0).sum()) for batch in delivered)
    free = sampler_of(store, {"text": 1.0}, 64, max_epochs=3)
    expected = [
        digest(batch) for batch in islice(sampler_of(store, {"text": 1.0}, 64).batches(rows), len(delivered) + 3)
    ]
    resumed = [digest(batch) for batch in islice(free.batches(rows, state=limited.state()), 3)]
    assert resumed == expected[len(delivered) :]


def limited_rows(sampler: MixtureSampler, rows: int) -> range:
    return range(sampler.stats().rows // rows)


def test_states_travel_with_their_batches(store: TokenStore, tmp_path: Path) -> None:
    """Would catch a state that is ahead of a batch waiting in a queue, and runs that disturb each other."""
    sampler = sampler_of(store)
    queue = list(islice(sampler.checkpointed(4), 9))
    other = list(islice(sampler.batches(4), 2))
    assert digest(other[0]) == digest(queue[0][0])
    for step, (_, state) in enumerate(queue[:-1]):
        going_on = next(sampler_of(store).batches(4, state=state))
        assert digest(going_on) == digest(queue[step + 1][0])
    first, second = sampler.batches(4), sampler.batches(4)
    pairs = [(digest(next(first)), digest(next(second))) for _ in range(12)]
    assert all(a == b for a, b in pairs)
    with pytest.raises(DataError, match=r"batch 3 lies before the state of batch 9"):
        next(sampler.batches(4, first_batch=3, state=queue[-1][1]))


def test_a_pickled_store_does_not_carry_its_bytes(store: TokenStore) -> None:
    data = pickle.dumps(store)
    assert len(data) < 10_000 < store.bytes
    assert pickle.loads(data).fingerprint == store.fingerprint


def test_tiny_shares(store: TokenStore) -> None:
    sampler = sampler_of(store, {"speech": 1e-12, "text": 1e-12})
    list(islice(sampler.batches(4), 50))
    seen = sampler.stats().by_stream("tokens_seen")
    assert seen["speech"] / sum(seen.values()) == pytest.approx(0.5, abs=0.02)


def test_a_curriculum_moves_in_small_steps(store: TokenStore) -> None:
    """Would catch blocks so large that the settings of a short training hardly ever change."""
    rising = InterleaveConfig(curriculum=(Knot(at=0.0, speech_share=0.1), Knot(at=1.0, speech_share=0.9)))
    mixture = {"speech": 4.0, "interleaved": 1.0}
    sampler = MixtureSampler.of_store(store, mixture, 128, 0, rising, total_targets=400_000)
    opened = []
    for _ in sampler.batches(4):
        tally = sampler.tallies[[source.stream for source in sampler.sources].index("interleaved")]
        opened.append(tally.opened_at / 400_000)
        if sampler.stats().target_tokens >= 400_000:
            break
    assert len(set(opened)) > 30
    assert max(b - a for a, b in pairwise(opened)) < 0.05
    assert opened[-1] > 0.9


def test_a_curriculum_moves_with_the_training(store: TokenStore) -> None:
    """The share of speech rises over the tokens, and a resumed run is at the same point of it."""
    rising = InterleaveConfig(
        speech_span="fixed(1)",
        speech_share=0.1,
        curriculum=(Knot(at=0.0, speech_share=0.1), Knot(at=1.0, speech_share=0.9)),
    )

    def fresh() -> MixtureSampler:
        return MixtureSampler.of_store(store, {"interleaved": 1}, 128, 0, rising, total_targets=300_000)

    sampler = fresh()
    table = store.vocabulary.modality_table()
    batches = list(sampler.batches(4, max_tokens=300_000))
    spoken = [(table[batch.tokens[batch.segments >= 0]] == 1).mean() for batch in batches]
    fifth = len(spoken) // 5
    parts = [np.mean(spoken[i * fifth : (i + 1) * fifth]) for i in range(5)]
    assert parts == sorted(parts)
    assert parts[-1] > parts[0] + 0.2
    halfway = fresh()
    list(islice(halfway.batches(4), len(batches) // 2))
    resumed = fresh().batches(4, state=halfway.state())
    assert digest(next(resumed)) == digest(batches[len(batches) // 2])


def test_stream_packing_fills_rows_and_crosses_documents(store: TokenStore) -> None:
    sampler = MixtureSampler.of_store(store, {"speech": 1}, 256, 0, pack="stream")
    batches = list(islice(sampler.batches(4), 30))
    assert sampler.stats().fill > 0.99
    full = [batch for batch in batches if (batch.segments == 0).all()]
    assert len(full) >= 28
    assert ((full[0].tokens == 0).sum(axis=1) > 1).any(), "documents end inside rows"


def test_validation_rows_hold_a_split_once(store: TokenStore) -> None:
    batches = pack_store(store, ["speech", "interleaved"], 256, interleave=INTERLEAVE, seed=1, batch_rows=8)
    speech = sum(int(((batch.stream == 0) & (batch.positions > 0)).sum()) for batch in batches)
    assert speech == store.counts["units"] + store.counts["speech_documents"]
    assert {int(code) for batch in batches for code in np.unique(batch.stream)} == {-1, 0, 2}


@pytest.mark.parametrize("mixture", [EVEN, {"text": 1.0}, {"speech": 0.2, "interleaved": 0.8}])
def test_an_inventory_too_small_is_told_before_anything_is_spent(store: TokenStore, mixture: dict[str, float]) -> None:
    """What `require` lets pass, in predicted tokens, can be had; what it refuses cannot."""
    sampler = sampler_of(store, mixture, 128, max_epochs=2)

    def passes(targets: float) -> bool:
        try:
            sampler.require(targets)
        except DataError as error:
            assert "cannot be had" in str(error)  # noqa: PT017
            assert "max_epochs 2" in str(error)  # noqa: PT017
            return False
        return True

    low, high = 0.0, 1e7
    while high - low > 10:
        middle = (low + high) / 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    with pytest.raises(DataError, match="was read 2 times"):
        list(sampler.batches(1))
    assert sampler.stats().target_tokens == pytest.approx(low, rel=0.02)
    sampler_of(store, mixture).require(1e12)


def test_sizes_of_epochs(store: TokenStore) -> None:
    for stream in STREAMS:
        alone = sampler_of(store, {stream: 1.0}, 512, max_epochs=1)
        with pytest.raises(DataError, match="was read 1 times"):
            list(alone.batches(1))
        size = alone.sources[0].epoch_size()
        assert alone.tokens_seen == pytest.approx(size.tokens, rel=0.02)
        assert alone.stats().target_tokens == pytest.approx(size.targets, rel=0.02)


def test_bad_mixtures(store: TokenStore) -> None:
    for mixture in ({}, {"speech": 0.0}, {"speech": float("nan")}):
        with pytest.raises(DataError, match="a share above 0"):
            MixtureSampler.of_store(store, mixture, 128, 0)
    with pytest.raises(DataError, match="stream 'speach'"):
        MixtureSampler.of_store(store, {"speach": 1}, 128, 0)
    textless = TokenStore.open(store.folder, Vocabulary.textless(20))
    with pytest.raises(DataError, match="no 'text' documents"):
        MixtureSampler.of_store(textless, {"speech": 1, "text": 1}, 128, 0)
    with pytest.raises(DataError, match="context 3"):
        next(MixtureSampler.of_store(store, {"speech": 1}, 3, 0).batches(1))
    with pytest.raises(DataError, match="max_epochs 0"):
        MixtureSampler.of_store(store, {"speech": 1}, 128, 0, max_epochs=0)
