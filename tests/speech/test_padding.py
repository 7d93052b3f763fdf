"""Catches units that depend on what else was in the batch, on the number of workers, or on how audio was cut."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import numpy as np
import pytest
import torch

from speechscale.speech.encoders import Encoder, LogMel, Mfcc, Runtime, TransformerLayer
from speechscale.speech.encoders.batching import Flips, flip_rate, length_batches, with_runtime
from speechscale.speech.kmeans import assign
from tests.speech.tiny_models import KINDS, speech_like, tiny_folder

LENGTHS = (30_000, 12_345, 20_001, 45_000, 399, 100, 0)
UNMASKED = ("hubert-base", "hubert-25hz", "hubert-batch-norm", "wav2vec2-base", "wavlm-base")
"""Models whose own feature extractor pads without a mask, because their group norm ignores it anyway."""


@cache
def layer(kind: str) -> TransformerLayer:
    return TransformerLayer(model=str(tiny_folder(kind)), layer=2)


@cache
def centroids(kind: str) -> np.ndarray:
    return layer(kind).encode([speech_like(90_000, 5)])[0][::10][:20].copy()


def waveforms() -> list[np.ndarray]:
    return [speech_like(samples, samples) for samples in LENGTHS]


@pytest.mark.parametrize("kind", KINDS)
def test_exact_is_the_same_bits_alone_and_in_any_company(kind: str) -> None:
    together = layer(kind).encode(waveforms())
    backwards = layer(kind).encode(waveforms()[::-1])[::-1]
    for waveform, one, other in zip(waveforms(), together, backwards, strict=True):
        assert layer(kind).encode([waveform])[0].tobytes() == one.tobytes() == other.tobytes()
        assert one.shape == (layer(kind).frame_count(len(waveform)) if len(waveform) else 0, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_batches_agree_to_rounding(kind: str) -> None:
    """Catches a norm, convolution or attention that padding still reaches."""
    masked = flip_rate(layer(kind), centroids(kind), waveforms(), modes=("masked",))["masked"]
    assert masked.frames > 150
    assert 0 < masked.largest_difference < 1e-4 or kind == "w2v-bert"
    assert masked.share <= 0.005


@pytest.mark.parametrize("kind", KINDS)
def test_the_ordinary_way_flips_units_of_group_norm_models(kind: str) -> None:
    """Catches a comparison that pads nothing and so praises itself."""
    padded = flip_rate(layer(kind), centroids(kind), waveforms(), modes=("padded",))["padded"]
    if kind in UNMASKED:
        assert padded.share > 0.05
    else:
        assert padded.largest_difference < 1e-4


@pytest.mark.parametrize("kind", ["hubert-base", "wavlm-large"])
def test_the_ordinary_way_is_what_transformers_does(kind: str) -> None:
    """Catches a straw man: the padded mode must be transformers' own output for a padded batch."""
    import transformers

    short, long = speech_like(20_000, 1), speech_like(30_000, 2)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=kind == "wavlm-large")
    batch = extractor([short, long], sampling_rate=16_000, padding=True, return_tensors="pt")
    model = getattr(transformers, KINDS[kind][0] + "Model").from_pretrained(tiny_folder(kind)).eval()
    with torch.inference_mode(), pytest.warns(UserWarning, match="mismatched") if kind == "wavlm-large" else nothing():
        expected = model(**batch, output_hidden_states=True).hidden_states[2]
    found = with_runtime(layer(kind), batching="padded").encode([short, long])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other[: len(one)].numpy(), atol=2e-4 if kind == "hubert-base" else 1e-5)


@pytest.mark.parametrize("encoder", [Mfcc(), LogMel()], ids=["mfcc", "log-mel"])
def test_features_without_weights_never_flip(encoder: Encoder) -> None:
    flips = flip_rate(encoder, encoder.encode([speech_like(64_000, 5)])[0][:20], waveforms())
    assert flips == {"exact": Flips(frames=flips["exact"].frames, flipped=0, largest_difference=0.0)}
    assert flips["exact"].frames > 100


@pytest.mark.slow
def test_another_process_and_another_order_give_the_same_units() -> None:
    """Catches state that survives a file: units on one worker and on two are the same."""
    kind = "hubert-base"
    here = [assign(one, centroids(kind)).tolist() for one in layer(kind).encode(waveforms()[:4])]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        folder = str(tiny_folder(kind))
        jobs = [pool.submit(_units, folder, [index], centroids(kind)) for index in (3, 2, 1, 0)]
        there = [job.result()[0] for job in jobs][::-1]
    assert there == here


def _units(folder: str, indices: list[int], centers: np.ndarray) -> list[list[int]]:
    torch.set_num_threads(1)
    encoder = TransformerLayer(model=folder, layer=2)
    return [assign(one, centers).tolist() for one in encoder.encode([waveforms()[index] for index in indices])]


def test_batches_hold_every_item_once_and_stay_small() -> None:
    lengths = [5, 0, 9, 3, 30, 3, 8]
    batches = length_batches(lengths, max_padded=20)
    assert batches == [[4], [2, 6], [0, 3, 5]]
    assert all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= 20 for batch in batches)


def test_runtime_is_checked_and_is_not_identity() -> None:
    with pytest.raises(ValueError, match="batching 'fast' is unknown"):
        Runtime(batching="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_s must be positive"):
        Runtime(batch_s=0)
    assert with_runtime(layer("hubert-base"), batching="masked").config() == layer("hubert-base").config()


def nothing():  # type: ignore[no-untyped-def]
    from contextlib import nullcontext

    return nullcontext()
