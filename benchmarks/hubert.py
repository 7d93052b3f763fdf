"""HuBERT-base on one CPU core: share of the machine's GEMM peak, bf16, and a loop like slamkit's beside ours.

    python benchmarks/hubert.py --audio FOLDER_OF_AUDIO [--repeats 3] [--json OUT.json]

Weights are random (speed does not depend on them, units do: shares of changed units are for random weights). One
thread, CPU seconds of this process, medians; the two sides take turns, so that a busy neighbor slows both. "peak" is
the best product of two matrices seen in the same run. FLOPs count the textbook algorithm, convolutions included.

"slamkit-like" is our own emulation of slamkit 388b402 `cli/extract_features.py` and `HubertFeatureExtractor.extract`:
files sorted by length descending, batches of 8 padded with zeros, 40 samples at both ends, no mask, all 12 layers, all
hidden states kept, layer 11, units by nearest centroid, ceil(relative length * frames) units kept. It is not slamkit.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers

from speechscale.speech.audio import load_audio
from speechscale.speech.encoders import TransformerLayer
from speechscale.speech.encoders.batching import count_flips, flip_rate
from speechscale.speech.kmeans import assign, fit_kmeans

LAYER = 11
BATCH_FILES = 8
CLUSTERS = 100
LENGTHS = {"median_s": 11.0, "spread": 0.45, "longest_s": 25.0}
"""A LibriSpeech-like corpus: lognormal lengths."""


def cpu_s(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def gemm_peak(dtype: torch.dtype) -> float:
    """Best FLOP/s of a matrix product over a few shapes, those of HuBERT's layers among them."""
    best = 0.0
    for m, k, n in ((500, 768, 3072), (500, 3072, 768), (1024, 1024, 1024), (2048, 2048, 2048), (4096, 512, 1536)):
        left, right = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
        left @ right
        repeats = max(1, round(4e9 / (2 * m * k * n)))
        seconds = min(cpu_s(lambda a=left, b=right, r=repeats: [a @ b for _ in range(r)]) for _ in range(5))  # type: ignore[misc]
        best = max(best, repeats * 2 * m * k * n / seconds)
    return best


def hubert_flops(config: Any, samples: int, layers: int) -> float:
    """Multiplications and additions of one file up to `layers`."""
    total, length, channels = 0.0, samples, 1
    for kernel, stride, width in zip(config.conv_kernel, config.conv_stride, config.conv_dim, strict=True):
        length = (length - kernel) // stride + 1
        total += 2 * length * channels * width * kernel
        channels = width
    hidden, inner = config.hidden_size, config.intermediate_size
    total += 2 * length * channels * hidden
    total += 2 * length * hidden * hidden // config.num_conv_pos_embedding_groups * config.num_conv_pos_embeddings
    return total + layers * (2 * length * (4 * hidden**2 + 2 * hidden * inner) + 4 * length**2 * hidden)


def read_speech(folder: Path, seconds: float) -> np.ndarray:
    """Speech of a folder, end to end, repeated to the length."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac"))
    audio = np.concatenate([load_audio(path).audio for path in paths])
    return np.resize(audio, round(seconds * 16_000))


def mixed_corpus(speech: np.ndarray, batches: int) -> list[np.ndarray]:
    """Batches taken evenly from 2,000 lengths sorted descending, so that padding is what a large corpus has."""
    rng = np.random.default_rng(0)
    seconds = np.minimum(
        LENGTHS["median_s"] * np.exp(LENGTHS["spread"] * rng.standard_normal(2000)), LENGTHS["longest_s"]
    )
    samples = np.sort((seconds * 16_000).astype(int))[::-1]
    firsts = [int((index + 0.5) / batches * 2000) // BATCH_FILES * BATCH_FILES for index in range(batches)]
    starts = rng.integers(0, len(speech) - samples.max(), (batches, BATCH_FILES))
    return [
        speech[starts[row, column] : starts[row, column] + samples[first + column]]
        for row, first in enumerate(firsts)
        for column in range(BATCH_FILES)
    ]


def slamkit_like(model: Any, centroids: np.ndarray, waveforms: list[np.ndarray]) -> list[np.ndarray]:
    units = []
    for start in range(0, len(waveforms), BATCH_FILES):
        batch = [torch.from_numpy(waveform) for waveform in waveforms[start : start + BATCH_FILES]]
        padded = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
        with torch.inference_mode():
            states = model(torch.nn.functional.pad(padded, (40, 40)), output_hidden_states=True).hidden_states[LAYER]
        rows = [assign(row, centroids) for row in states.numpy()]
        for waveform, row in zip(batch, rows, strict=True):
            units.append(row[: math.ceil(len(waveform) / padded.shape[1] * len(row))])
    return units


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True, help="folder of wav or flac files with speech")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, default=2, help="batches of 8 files in the mixed corpus")
    parser.add_argument("--parts", default="speed,mixed,flips,windows", help="what to measure, separated by commas")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = options.parts.split(",")
    result: dict[str, Any] = {"load": os.getloadavg(), "torch": torch.__version__, "repeats": options.repeats}
    with TemporaryDirectory() as folder:
        torch.manual_seed(0)
        model = transformers.HubertModel(transformers.HubertConfig()).eval()
        model.save_pretrained(Path(folder) / "hubert-base")
        encoders = {
            precision: TransformerLayer(
                model=str(Path(folder) / "hubert-base"),
                layer=LAYER,
                normalize=False,
                pad_samples=40,
                precision=precision,
            )
            for precision in ("fp32", "bf16", "bf16-autocast")
        }
        speech = read_speech(options.audio, 90)
        if "speed" in parts:
            result["speed"] = measure_speed(model.config, encoders, speech, options.repeats)
        fitted, unseen = speech[: 30 * 16_000], speech[30 * 16_000 : 70 * 16_000]
        features = encoders["fp32"].encode(np.split(fitted, 3))
        centroids = fit_kmeans(np.concatenate(features), CLUSTERS, seed=0).centroids
        if "mixed" in parts:
            result["mixed"] = measure_mixed(model, encoders, centroids, speech, options.repeats, options.batches)
        if "flips" in parts:
            result["flips"] = measure_flips(encoders, centroids, unseen)
        if "windows" in parts:
            result["windows"] = measure_windows(encoders["fp32"], centroids, unseen)
    result["load_after"] = os.getloadavg()
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measure_speed(
    config: Any, encoders: dict[str, TransformerLayer], speech: np.ndarray, repeats: int
) -> dict[str, Any]:
    """Each precision on one file of 10 s: times real time, and the share of the peak of its number format."""
    audio = speech[:160_000]
    peaks = {"fp32": gemm_peak(torch.float32), "bf16": gemm_peak(torch.bfloat16)}
    for encoder in encoders.values():
        encoder.encode([audio])
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(repeats):
        for name, encoder in encoders.items():
            seconds[name].append(cpu_s(lambda encoder=encoder: encoder.encode([audio])))  # type: ignore[misc]
    peaks = {
        name: max(peak, gemm_peak(torch.float32 if name == "fp32" else torch.bfloat16)) for name, peak in peaks.items()
    }
    flops = hubert_flops(config, len(audio) + 80, LAYER)
    table: dict[str, Any] = {"gemm_peak_gflops": {name: peak / 1e9 for name, peak in peaks.items()}}
    for name, times in seconds.items():
        median = statistics.median(times)
        table[name] = {
            "x_real_time": len(audio) / 16_000 / median,
            "gflops": flops / median / 1e9,
            "share_of_peak": flops / median / peaks["fp32" if name == "fp32" else "bf16"],
            "x_fp32": statistics.median(seconds["fp32"]) / median,
            "seconds": times,
        }
    return table


def measure_mixed(
    model: Any,
    encoders: dict[str, TransformerLayer],
    centroids: np.ndarray,
    speech: np.ndarray,
    repeats: int,
    batches: int,
) -> dict[str, Any]:
    """Units of a corpus of mixed lengths: the slamkit-like loop and ours, taking turns."""
    corpus = mixed_corpus(speech, batches)
    audio_s = sum(map(len, corpus)) / 16_000
    sides: dict[str, Callable[[], Any]] = {"slamkit-like": lambda: slamkit_like(model, centroids, corpus)}
    for name in ("fp32", "bf16"):
        sides[name] = lambda encoder=encoders[name]: [assign(f, centroids) for f in encoder.encode(corpus)]  # type: ignore[misc]
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            seconds[name].append(cpu_s(side))
    table: dict[str, Any] = {"audio_s": audio_s, "files": len(corpus), "lengths_s": [len(w) / 16_000 for w in corpus]}
    base = statistics.median(seconds["slamkit-like"])
    for name, times in seconds.items():
        median = statistics.median(times)
        table[name] = {"x_real_time": audio_s / median, "x_slamkit_like": base / median, "seconds": times}
    return table


def measure_flips(encoders: dict[str, TransformerLayer], centroids: np.ndarray, speech: np.ndarray) -> dict[str, Any]:
    """Share of frames of audio that k-means has not seen with another unit: by batching, by precision, by threads."""
    waveforms = [
        speech[start : start + samples] for start, samples in ((0, 96_000), (99_000, 64_000), (200_000, 31_000))
    ]
    table: dict[str, Any] = {}
    for mode, flips in flip_rate(encoders["fp32"], centroids, waveforms).items():
        table[mode] = {"share": flips.share, "frames": flips.frames, "largest": flips.largest_difference}
    exact = encoders["fp32"].encode(waveforms)
    for name in ("bf16", "bf16-autocast"):
        flips = count_flips(exact, encoders[name].encode(waveforms), centroids)
        table[name] = {"share": flips.share, "frames": flips.frames, "largest": flips.largest_difference}
    torch.set_num_threads(2)
    flips = count_flips(exact, encoders["fp32"].encode(waveforms), centroids)
    torch.set_num_threads(1)
    table["two threads"] = {"share": flips.share, "frames": flips.frames, "largest": flips.largest_difference}
    return table


def measure_windows(encoder: TransformerLayer, centroids: np.ndarray, audio: np.ndarray) -> dict[str, Any]:
    """Share of frames whose unit differs between one pass over 40 s and windows of 20 s, by context."""
    whole = replace(encoder, chunk_s=len(audio) / 16_000 + 1).encode([audio])
    table: dict[str, Any] = {}
    for context_s in (0.0, 1.0, 3.0):
        windows = replace(encoder, chunk_s=20.0, context_s=context_s)
        flips = count_flips(whole, windows.encode([audio]), centroids)
        table[f"context {context_s:g} s"] = {"share": flips.share, "frames": flips.frames}
    return table


if __name__ == "__main__":
    main()
