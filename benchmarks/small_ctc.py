"""Train a small CTC phone model on espeak voices, to measure the CTC aligner without downloads.

    python benchmarks/small_ctc.py OUT [--train-s 300] [--hours 2] [--text FILE]

A Wav2Vec2BertForCTC of about a million weights on the log-mel features of its own extractor, ARPAbet labels. Loss: CTC,
and cross-entropy of each frame with the engine's phone at its center, because CTC alone leaves the times free.
It is a measuring device, not a recognizer: it has heard one synthesizer.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import scipy.signal
import torch
from torch.nn import functional
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertForCTC

from speechscale.align.phones import ARPABET, from_espeak
from speechscale.align.pronounce import read_dictionary, wheel_dictionary
from speechscale.corpus.stories import stories, story_text
from speechscale.corpus.world import WorldConfig, build_world
from speechscale.records import Utterance
from speechscale.speech.audio import resample
from speechscale.voices.espeak import INVENTORY_TEXT, VOICES, Spoken, speak_shard

RATE_HZ, HOP_S = 16_000, 0.02
LABELS = ("<pad>", *ARPABET)
BLANK = 0


def sentences(text: Path | None, count: int, seed: int) -> Iterator[str]:
    """Short lines to speak: a third from a text file or the storyworld, a third inventory, a third random words."""
    rng = random.Random(seed)
    lines = [
        story_text(s) for s in stories(build_world(WorldConfig()), 2000, split="train", channel="speech", seed=seed)
    ]
    if text is not None:
        lines = text.read_text(encoding="utf-8", errors="replace").replace("\n", " ").split(". ")
        lines = [line for line in lines if 3 <= len(line.split()) <= 14 and any(c.isalpha() for c in line)]
    words = [word for word in read_dictionary(wheel_dictionary()) if word.isalpha() and 2 < len(word) < 12]
    for index in range(count):
        if index % 3 == 0:
            parts = rng.choice(lines).split()
            at = rng.randrange(max(1, len(parts) - 9))
            yield " ".join(parts[at : at + 10])
        elif index % 3 == 1:
            parts = rng.choice(INVENTORY_TEXT).split()
            yield " ".join(rng.sample(parts, min(8, len(parts))))
        else:
            yield " ".join(rng.sample(words, 6))


def frame_labels(spoken: Spoken, speed: float, frames: int) -> np.ndarray:
    """Label at the center of each frame; one blank frame parts equal neighbors."""
    labels = np.zeros(frames, np.int64)
    before = -1
    for name, start, end in spoken.phones:
        phones = from_espeak([name])
        edges = np.linspace(start, end, len(phones) + 1) / speed / RATE_HZ / HOP_S
        for phone, left, right in zip(phones, edges, edges[1:], strict=False):
            a, b = (min(frames, max(0, math.ceil(edge - 0.5))) for edge in (left, right))
            label = LABELS.index(phone)
            a += int(label == before and a > 0 and labels[a - 1] == label)
            labels[a:b] = label
            before = label
    return labels


def disturb(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another room, another microphone, some noise: what one synthesizer lacks."""
    tail = rng.exponential(0.08)
    impulse = rng.normal(0, 1, round(0.2 * RATE_HZ)) * np.exp(-np.arange(round(0.2 * RATE_HZ)) / (tail * RATE_HZ + 1))
    impulse *= rng.uniform(0, 0.15) / (np.abs(impulse).max() + 1e-9)
    impulse[0] = 1.0
    audio = scipy.signal.fftconvolve(audio, impulse)[: len(audio)]
    audio = scipy.signal.lfilter([1.0, rng.uniform(-0.9, 0.6)], [1.0, rng.uniform(-0.5, 0.3)], audio)
    color = scipy.signal.lfilter([1.0], [1.0, -rng.uniform(0, 0.95)], rng.normal(0, 1, len(audio)))
    level = np.sqrt((audio**2).mean() / (color**2).mean()) * 10 ** (-rng.uniform(5, 40) / 20)
    return np.asarray(audio + level * color, np.float32)


def examples(extractor: Any, text: Path | None, hours: float, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Features [frames, 160] and labels [frames] of spoken and disturbed sentences."""
    rng = np.random.default_rng(seed)
    voices = [voice.name for voice in VOICES.values() if not voice.held_out]
    count = round(hours * 3600 / 3.2)
    shard = [
        Utterance(id=str(i), text=line, speaker=voices[i % len(voices)], split="train", segments=(line,))
        for i, line in enumerate(sentences(text, count, seed))
    ]
    made = []
    for spoken in speak_shard(shard, on_error=lambda id, why: None):
        speed = rng.uniform(0.8, 1.25)
        audio = resample(spoken.audio, RATE_HZ, round(RATE_HZ / speed)) if abs(speed - 1) > 0.01 else spoken.audio
        features = extractor(disturb(audio, rng), sampling_rate=RATE_HZ, return_tensors="np")["input_features"][0]
        made.append((features.astype(np.float16), frame_labels(spoken, speed, len(features))))
    return made


def new_model(hidden: int = 144, layers: int = 3) -> Wav2Vec2BertForCTC:
    """A real class, made small."""
    return Wav2Vec2BertForCTC(
        Wav2Vec2BertConfig(
            vocab_size=len(LABELS),
            pad_token_id=BLANK,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=3 * hidden,
            feature_projection_input_dim=160,
            output_hidden_size=hidden,
            conv_depthwise_kernel_size=15,
            layerdrop=0.0,
            apply_spec_augment=False,
            attention_dropout=0.0,
            hidden_dropout=0.05,
            final_dropout=0.0,
            feat_proj_dropout=0.0,
            add_adapter=False,
        )
    )


def blur(values: np.ndarray, rng: random.Random) -> np.ndarray:
    """Features [frames, 2 x 80] as another throat and a worse recording would give them."""
    mel = values.astype(np.float32).reshape(-1, 80)
    shift = rng.uniform(-4, 4)
    grid = np.clip(np.arange(80) * (1 + shift / 80) + shift / 2, 0, 79)
    low = np.floor(grid).astype(int)
    part = (grid - low).astype(np.float32)
    mel = mel[:, low] * (1 - part) + mel[:, np.minimum(low + 1, 79)] * part
    if rng.random() < 0.5:
        width = rng.uniform(0.5, 3.0)
        kernel = np.exp(-0.5 * (np.arange(-6, 7) / width) ** 2)
        mel = scipy.ndimage.convolve1d(mel, kernel / kernel.sum(), axis=1)
        mel /= mel.std(axis=0) + 0.1
    for _ in range(2):
        start, size = rng.randrange(80), rng.randrange(14)
        mel[:, start : start + size] = 0
    if len(mel) > 40:
        start, size = rng.randrange(len(mel) - 20), rng.randrange(16)
        mel[start : start + size] = 0
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(mel.shape, np.float32)
    return np.asarray(mel + rng.uniform(0, 0.5) * noise, np.float32).reshape(-1, 160)


def collate(
    batch: list[tuple[np.ndarray, np.ndarray]], rng: random.Random
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Padded features, mask, labels (-100 behind the end)."""
    longest = max(len(labels) for _, labels in batch)
    features = torch.zeros(len(batch), longest, 160)
    mask = torch.zeros(len(batch), longest, dtype=torch.long)
    targets = torch.full((len(batch), longest), -100)
    for row, (values, labels) in enumerate(batch):
        features[row, : len(labels)] = torch.from_numpy(blur(values, rng))
        mask[row, : len(labels)] = 1
        targets[row, : len(labels)] = torch.from_numpy(labels)
    return features, mask, targets


def loss_of(logits: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """CTC over the labels' runs, and cross-entropy per frame."""
    logs = torch.log_softmax(logits.float(), dim=-1)
    runs = [torch.unique_consecutive(row[row >= 0]) for row in labels]
    targets = [row[row != BLANK] for row in runs]
    ctc = functional.ctc_loss(
        logs.transpose(0, 1),
        torch.cat(targets),
        mask.sum(dim=1),
        torch.tensor([len(row) for row in targets]),
        blank=BLANK,
        zero_infinity=True,
    )
    frame = functional.nll_loss(logs.transpose(1, 2), labels, ignore_index=-100)
    return 0.3 * ctc + frame


def train(
    out: Path, *, train_s: float, hours: float, text: Path | None, start: Path | None = None, seed: int = 0
) -> None:
    """Train for `train_s` seconds of processor time and write a transformers folder."""
    torch.manual_seed(seed)
    extractor = SeamlessM4TFeatureExtractor(feature_size=80, num_mel_bins=80, sampling_rate=RATE_HZ, stride=2)
    began = time.process_time()
    data = examples(extractor, text, hours, seed)
    data.sort(key=lambda example: len(example[1]))
    frames = sum(len(labels) for _, labels in data)
    print(f"{frames * HOP_S / 3600:.2f} h spoken and disturbed in {time.process_time() - began:.0f} CPU s", flush=True)
    model = (new_model() if start is None else Wav2Vec2BertForCTC.from_pretrained(start)).train()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M weights", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, betas=(0.9, 0.98))
    rng, began, step, seen = random.Random(seed), time.process_time(), 0, 0
    while (spent := time.process_time() - began) < train_s:
        for group in optimizer.param_groups:
            group["lr"] = 1.5e-3 * min(1.0, (step + 1) / 100) * max(0.02, 1 - spent / train_s)
        at = rng.randrange(max(1, len(data) - 12))
        features, mask, labels = collate(data[at : at + 12], rng)
        loss = loss_of(model(input_features=features, attention_mask=mask).logits, mask, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step, seen = step + 1, seen + int(mask.sum())
        if step % 50 == 0:
            print(f"step {step}  loss {loss.item():.3f}  {seen * HOP_S / 3600:.2f} h seen  {spent:.0f} s", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    extractor.save_pretrained(out)
    (out / "vocab.json").write_text(json.dumps({label: id for id, label in enumerate(LABELS)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train-s", type=float, default=300.0)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--start", type=Path, help="go on from this model")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train(
        options.out,
        train_s=options.train_s,
        hours=options.hours,
        text=options.text,
        start=options.start,
        seed=options.seed,
    )


if __name__ == "__main__":
    main()
