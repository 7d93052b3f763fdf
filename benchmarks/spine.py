"""Measure the stages of the quick study on one thread: python benchmarks/spine.py [--repeats 3]

Prints medians of CPU time. The training row stands beside what a user would otherwise run: a plain transformers loop on
padded batches of the same documents, same model, same tokens, in the same run; quote the ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from speechscale.tokens.rows import RowSampler

from speechscale.corpus.encode import VoiceLoader, encode_corpus
from speechscale.corpus.stories import stories, story_text
from speechscale.corpus.world import WorldConfig, build_world
from speechscale.model.sizes import SIZES
from speechscale.model.slm import new_model
from speechscale.records import Utterance
from speechscale.skips import SkipLog
from speechscale.speech.audio import TARGET_RATE_HZ
from speechscale.speech.units import fit_tokenizer
from speechscale.study.worlds import training_voices
from speechscale.tokens.interleave import InterleaveConfig
from speechscale.tokens.store import TokenStore, build_store
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from speechscale.train.loop import TrainConfig, train
from speechscale.voices.espeak import speak_shard

STORIES = 256
SHAPES = ((256, 8), (160, 13), (128, 16))
"""Contexts and rows of about 2,048 tokens; the stories have about 120 tokens."""


def cpu() -> float:
    """Processor seconds of this process and its finished children."""
    return sum(os.times()[:4])


def median(function: Callable[[], float], repeats: int) -> float:
    """Median of what `function` measures; one run to warm up."""
    function()
    return statistics.median(function() for _ in range(repeats))


def utterances() -> list[Utterance]:
    voices = training_voices(4)
    told = stories(build_world(WorldConfig()), STORIES, split="train", channel="speech", seed=0)
    return [
        Utterance(id=s.id, text=story_text(s), speaker=voices[i % 4], split="train", segments=s.segments)
        for i, s in enumerate(told)
    ]


def padded_loop(store: TokenStore, size: str, tokens: int) -> float:
    """CPU seconds per real token of a plain loop: 16 documents a batch, padded to the longest of them."""
    model = new_model(SIZES[size], store.vocabulary.size, 512, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    documents = store.read("speech", np.arange(store.documents("speech"))).rows()
    seen, began, index = 0, cpu(), 0
    while seen < tokens:
        batch = [torch.from_numpy(documents[(index + i) % len(documents)].astype(np.int64)) for i in range(16)]
        index += len(batch)
        ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(b) for b in batch], batch_first=True)
        loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seen += int(mask[:, 1:].sum())
    return (cpu() - began) / seen


def packed_loop(store: TokenStore, size: str, tokens: int, context: int, rows: int) -> float:
    """CPU seconds per real token of ours, data included."""
    model = new_model(SIZES[size], store.vocabulary.size, context, 0)
    config = TrainConfig(tokens=tokens, batch_rows=rows, context=context, learning_rate=1e-3)
    began = cpu()
    sampler = RowSampler(store, {"speech": 1.0}, context, 0)
    train(model, sampler.batches(rows), config, modality=store.vocabulary.modality_table(), validation={})
    return (cpu() - began) / tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    spoken = utterances()
    audio = [s.audio for s in speak_shard(spoken)]
    seconds = sum(len(a) for a in audio) / TARGET_RATE_HZ
    tokenizer = fit_tokenizer(iter(audio), encoder="mfcc", clusters=100, seed=0)

    def timed(function: Callable[[], object]) -> Callable[[], float]:
        def run() -> float:
            began = cpu()
            function()
            return cpu() - began

        return run

    print(f"load {os.getloadavg()[0]:.1f}, one thread, medians of {repeats}, {seconds / 60:.0f} min of speech")
    speak = median(timed(lambda: list(speak_shard(spoken))), repeats)
    print(f"speak and resample to 16 kHz     {seconds / speak:8,.0f} x real time")
    units = median(timed(lambda: tokenizer.units(audio)), repeats)
    print(f"waveform -> MFCC units           {seconds / units:8,.0f} x real time")
    both = median(timed(lambda: encode_corpus(spoken, tokenizer, loader=VoiceLoader(), skips=SkipLog())), repeats)
    print(f"text -> spoken -> units + words  {seconds / both:8,.0f} x real time")
    table = encode_corpus(spoken, tokenizer, loader=VoiceLoader(), skips=SkipLog())
    texts = [u.text for u in spoken]
    joint = Vocabulary.joint(build_text_tokenizer(texts), tokenizer.num_units)
    with tempfile.TemporaryDirectory() as folder:
        store = build_store(Path(folder) / "store", joint, table=table, texts=texts)
        mixture = {"speech": 1.0, "text": 1.0, "interleaved": 1.0}

        def pack() -> object:
            sampler = RowSampler(store, mixture, 256, 0, InterleaveConfig(mean_span_words=2.0))
            return [None for _ in sampler.batches(8, max_tokens=500_000)]

        print(f"interleave, mix and pack         {5e5 / median(timed(pack), repeats):8,.0f} tokens/s")
        speech = TokenStore.open(Path(folder) / "store", Vocabulary.textless(tokenizer.num_units))
        for size in ("0.02M", "0.05M", "0.1M", "0.2M"):
            plain: list[float] = []
            ours: dict[int, list[float]] = {context: [] for context, _ in SHAPES}
            for _ in range(repeats):  # in turn, so that drift of the machine hits all
                plain.append(padded_loop(speech, size, 60_000))
                for context, rows in SHAPES:
                    ours[context].append(packed_loop(speech, size, 60_000, context, rows))
            padded = statistics.median(plain)
            print(f"train {size:6} plain padded loop {1 / padded:8,.0f} tokens/s; packed, by context:", end="")
            for context, times in ours.items():
                print(
                    f"  {context}: {1 / statistics.median(times):,.0f} ({padded / statistics.median(times):.2f}x)",
                    end="",
                )
            print()


if __name__ == "__main__":
    main()
