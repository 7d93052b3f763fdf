"""Catches codes that depend on the batch, wrong frame counts, and codebooks mixed up in one stream."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.speech.encoders import Codec, Runtime, build_encoder, build_unit_encoder
from speechscale.speech.encoders.codecs import CLASSES, flatten_codes, unflatten_codes
from speechscale.speech.pretrained import codec_tokenizer
from speechscale.speech.units import SpeechTokenizer, fit_tokenizer
from tests.speech.tiny_models import speech_like, tiny_codec, tiny_folder

RATES = {"mimi": (24_000, 1920), "encodec": (24_000, 320), "xcodec": (16_000, 320)}


@cache
def codec(kind: str, codebooks: int = 3, **settings: Any) -> Codec:
    return Codec(model=str(tiny_codec(kind)), codebooks=codebooks, **settings)


@pytest.mark.parametrize("kind", CLASSES)
def test_codes_are_those_of_transformers(kind: str) -> None:
    waveform = speech_like(48_000)
    model = getattr(transformers, CLASSES[kind]).from_pretrained(tiny_codec(kind)).eval()
    with torch.inference_mode():
        values = torch.from_numpy(waveform)[None, None]
        found = model.encode(values, **({} if kind == "mimi" else {"bandwidth": 4.0 if kind == "xcodec" else 24.0}))
    expected = found.audio_codes.reshape(-1, found.audio_codes.shape[-1])[:3].T.numpy()
    codes = codec(kind).encode_units([waveform])[0]
    np.testing.assert_array_equal(codes, expected)
    assert all(len(np.unique(codes[:, book])) > 3 for book in range(3)), "the test's codebooks are degenerate"


@pytest.mark.parametrize("kind", CLASSES)
def test_rates_and_frame_counts(kind: str) -> None:
    encoder = codec(kind)
    assert (encoder.sample_rate_hz, encoder.hop_samples) == RATES[kind]
    assert encoder.frame_rate_hz == 3 * RATES[kind][0] / RATES[kind][1]
    assert (encoder.codebook_size, encoder.num_units) == (64, 192)
    hop = encoder.hop_samples
    for samples in (0, 1, 399, 400, hop, hop + 1, 5 * hop - 1, 5 * hop, 5 * hop + hop // 4, 9 * hop + 7):
        codes = encoder.encode_units([speech_like(samples)])[0]
        assert codes.shape == (encoder._frames(samples), 3)
        assert codes.dtype == np.int64
        if kind != "xcodec":
            assert len(codes) == -(-samples // hop)


@pytest.mark.parametrize("kind", CLASSES)
def test_codes_do_not_depend_on_the_batch(kind: str) -> None:
    waveforms = [speech_like(samples, 3) for samples in (30_000, 12_345, 48_001, 4000)]
    together = codec(kind).encode_units(waveforms)
    for waveform, codes in zip(waveforms, together, strict=True):
        np.testing.assert_array_equal(codec(kind).encode_units([waveform])[0], codes)


@pytest.mark.parametrize("kind", ["mimi", "encodec"])
def test_silence_behind_a_file_changes_no_code_of_a_causal_codec(kind: str) -> None:
    """The documented reach: a frame depends on the past only (and on the last part frame's filling)."""
    encoder = codec(kind)
    waveform = speech_like(24 * encoder.hop_samples)
    longer = np.concatenate([waveform, np.zeros(5 * encoder.hop_samples, np.float32)])
    alone, padded = encoder.encode_units([waveform])[0], encoder.encode_units([longer])[0]
    np.testing.assert_array_equal(padded[: len(alone) - 1], alone[:-1])


@pytest.mark.parametrize("kind", CLASSES)
def test_long_files_keep_every_frame_in_place(kind: str) -> None:
    waveform = speech_like(110_000)
    whole = codec(kind).encode_units([waveform])[0]
    windows = codec(kind, chunk_s=2.4, context_s=0.8)
    parts = list(windows.encode_units_stream(lambda: np.split(waveform, [77, 60_000])))
    cut = np.concatenate(parts)
    assert len(parts) > 1
    assert cut.shape == whole.shape
    np.testing.assert_array_equal(cut, windows.encode_units([waveform])[0])
    agree = [np.mean(cut[2:-2, 0] == np.roll(whole[:, 0], shift)[2:-2]) for shift in (-1, 0, 1)]
    assert agree[1] > 0.7
    assert agree[1] == max(agree)


@given(st.integers(1, 6).flatmap(lambda books: st.lists(st.lists(st.integers(0, 9), min_size=books, max_size=books))))
def test_one_stream_and_back(rows: list[list[int]]) -> None:
    codes = np.array(rows, np.int64).reshape(len(rows), -1 if rows else 3)
    units = flatten_codes(codes, 10)
    np.testing.assert_array_equal(unflatten_codes(units, codes.shape[1], 10), codes)


def test_a_stream_with_a_lost_code_is_refused() -> None:
    units = flatten_codes(np.array([[3, 1], [0, 2]]), 4)
    assert units.tolist() == [3, 5, 0, 6]
    with pytest.raises(DataError, match="no whole frames"):
        unflatten_codes(units[:-1], 2, 4)
    with pytest.raises(DataError, match="not in the order"):
        unflatten_codes(units[[0, 2, 1, 3]], 2, 4)


@pytest.mark.parametrize("codebooks", [1, 2])
def test_a_codec_is_a_tokenizer_without_k_means(tmp_path: Path, codebooks: int) -> None:
    tokenizer = codec_tokenizer({"model": str(tiny_codec("mimi")), "codebooks": codebooks})
    assert (tokenizer.num_units, tokenizer.frame_rate_hz) == (64 * codebooks, 12.5 * codebooks)
    assert (tokenizer.sample_rate_hz, tokenizer.oracle, tokenizer.discrete) == (24_000, False, True)
    waveform = speech_like(60_000)
    units = tokenizer.units([waveform])[0]
    assert units.dtype == np.int16
    codes = codec("mimi", codebooks).encode_units([waveform])[0]
    np.testing.assert_array_equal(unflatten_codes(units, codebooks, 64), codes)
    assert np.concatenate(list(tokenizer.units_stream(lambda: [waveform]))).tobytes() == units.tobytes()
    tokenizer.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["speech_tokenizer.json"]
    runtime = Runtime(model_folders=(tiny_codec("mimi").parent,))
    loaded = SpeechTokenizer.load(tmp_path, runtime=runtime)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.units([waveform])[0].tobytes() == units.tobytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codebooks": 9}, "has 8 codebooks, 9 were asked for"),
        ({"codebooks": 0}, "needs codebooks >= 1"),
        ({"version": 2}, "version 2 is unknown"),
        ({"books": 2}, "do not fit"),
    ],
)
def test_impossible_codec_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        codec_tokenizer({"model": str(tiny_codec("mimi")), **settings})


def test_features_and_codes_are_not_confused() -> None:
    with pytest.raises(DataError, match="discrete already"):
        build_encoder("codec", {"model": "x"})
    with pytest.raises(DataError, match="discrete already"):
        fit_tokenizer([speech_like(9000)], encoder="codec", clusters=5, seed=0)
    with pytest.raises(DataError, match="discrete encoder 'mfcc' is unknown"):
        build_unit_encoder("mfcc", {})
    with pytest.raises(DataError, match="is a 'hubert', no known codec"):
        Codec(model=str(tiny_folder("hubert-base"))).encode_units([speech_like(9000)])
