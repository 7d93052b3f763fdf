"""Catches frames lost, doubled or shifted where long audio is cut into windows, and memory that grows with the file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.speech.encoders import TransformerLayer
from speechscale.speech.encoders.chunks import measure, pieces, plan_windows, read_spans
from speechscale.speech.units import SpeechTokenizer, fit_tokenizer
from tests.speech.tiny_models import speech_like, tiny_folder


@given(frames=st.integers(0, 5000), window=st.integers(1, 400), context=st.integers(0, 150))
@settings(max_examples=200, deadline=None)
def test_windows_keep_every_frame_once(frames: int, window: int, context: int) -> None:
    if 2 * context >= window:
        with pytest.raises(DataError, match="leave nothing of"):
            plan_windows(frames, window_frames=window, context_frames=context)
        return
    plan = plan_windows(frames, window_frames=window, context_frames=context)
    kept = [frame for w in plan for frame in range(w.keep_start, w.keep_end)]
    assert kept == list(range(frames))
    assert len({w.end - w.start for w in plan}) <= 1, "windows of several sizes"
    for w in plan:
        assert 0 <= w.start <= w.keep_start < w.keep_end <= w.end <= frames
        assert w.end - w.start <= window
        assert w.keep_start - w.start >= context or w.start == 0
        assert w.end - w.keep_end >= context or w.end == frames


@given(cuts=st.lists(st.integers(0, 999), max_size=10), starts=st.lists(st.integers(0, 900), min_size=1, max_size=10))
@settings(max_examples=100, deadline=None)
def test_spans_are_read_from_any_blocks(cuts: list[int], starts: list[int]) -> None:
    audio = np.arange(1000, dtype=np.float32)
    blocks = np.split(audio, sorted(cuts))
    spans = [(start, min(start + 100, 1000)) for start in sorted(starts)]
    for (start, end), found in zip(spans, read_spans(blocks, spans), strict=True):
        np.testing.assert_array_equal(found, audio[start:end])
    np.testing.assert_array_equal(np.concatenate(list(pieces(blocks, 77))), audio)
    assert [len(piece) for piece in pieces(blocks, 77)] == [77] * 12 + [76]


def test_a_file_that_shrinks_is_an_error() -> None:
    with pytest.raises(DataError, match="ended after 10 samples, 20 were there at first"):
        list(read_spans([np.zeros(10, np.float32)], [(0, 20)]))


def test_measure_does_not_depend_on_blocks() -> None:
    audio = speech_like(600_000)
    one = measure(lambda: [audio])
    other = measure(lambda: np.split(audio, [1, 3000, 262_144, 400_001]))
    assert one == other
    assert one.mean == pytest.approx(float(audio.mean(dtype=np.float64)))
    assert one.variance == pytest.approx(float(audio.var(dtype=np.float64)))


@cache
def short_windows(kind: str) -> TransformerLayer:
    return TransformerLayer(model=str(tiny_folder(kind)), layer=2, chunk_s=4.0, context_s=1.0, pad_samples=40)


@pytest.mark.parametrize("kind", ["hubert-25hz", "hubert-large", "wavlm-base", "w2v-bert"])
def test_windows_lose_and_move_no_frame(kind: str) -> None:
    """Frames of windows must be nearest to the whole file's frame of the same place, not to its neighbors."""
    audio = speech_like(100_123)
    whole = TransformerLayer(model=str(tiny_folder(kind)), layer=2, chunk_s=60.0, pad_samples=40).encode([audio])[0]
    cut = short_windows(kind).encode([audio])[0]
    assert cut.shape == whole.shape
    here = np.square(cut - whole).sum(axis=1)[1:-1]
    before, after = (np.square(cut[1:-1] - other).sum(axis=1) for other in (whole[:-2], whole[2:]))
    assert np.mean((here < before) & (here < after)) > 0.95
    assert np.median(here) < 0.1 * np.median(before)


@pytest.mark.parametrize("kind", ["hubert-base", "hubert-large", "w2v-bert"])
@given(cuts=st.lists(st.integers(1, 149_999), max_size=5))
@settings(max_examples=3, deadline=None)
def test_a_stream_gives_the_same_bits_whatever_its_blocks(kind: str, cuts: list[int]) -> None:
    audio = speech_like(150_000)
    parts = list(short_windows(kind).encode_stream(lambda: np.split(audio, sorted(cuts))))
    assert len(parts) > 3
    assert np.concatenate(parts).tobytes() == short_windows(kind).encode([audio])[0].tobytes()


def test_first_vectors_do_not_depend_on_windows() -> None:
    """Catches group norm statistics of a window instead of the file: layer 0 behind the convolutions must agree."""
    encoder = short_windows("hubert-base")
    audio = speech_like(150_000)
    front = encoder.net.front
    statistics = front.statistics(lambda: [audio], len(audio))
    whole = encoder.net.vectors(audio, statistics).numpy()
    late = encoder.net.vectors(audio[320 * 200 :], statistics).numpy()
    np.testing.assert_allclose(late, whole[200:], atol=1e-4)


@pytest.fixture(scope="module")
def mfcc_units() -> SpeechTokenizer:
    return fit_tokenizer([speech_like(200_000)], encoder="mfcc", clusters=20, seed=0)


def test_long_waveforms_and_streams_give_the_same_units(
    mfcc_units: SpeechTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = speech_like(100_000)
    whole = mfcc_units.units([audio, audio[:5000]])
    streamed = np.concatenate(list(mfcc_units.units_stream(lambda: np.split(audio, [333, 70_000]))))
    monkeypatch.setattr("speechscale.speech.units.LONG_S", 1.0)
    long = mfcc_units.units([audio, audio[:5000]])
    assert whole[0].tobytes() == streamed.tobytes() == long[0].tobytes()
    assert whole[1].tobytes() == long[1].tobytes()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file() -> None:
    """Twenty minutes through a tiny HuBERT and 100 minutes of MFCC units must not hold the features or the audio."""
    import tracemalloc

    def blocks(minutes: int) -> Iterator[np.ndarray]:
        block = speech_like(480_000)
        return (block for _ in range(2 * minutes))

    encoder = TransformerLayer(model=str(tiny_folder("hubert-base")), layer=1)
    tracemalloc.start()
    frames = sum(len(part) for part in encoder.encode_stream(lambda: blocks(20)))
    assert frames == encoder.frame_count(20 * 60 * 16_000)
    assert tracemalloc.get_traced_memory()[1] < 60e6
    tracemalloc.stop()
