"""Generation beside transformers' own `generate`: python benchmarks/generate.py [--quick] [--run RUN]

plain     any unit: a textless vocabulary of 501 ids; `continuations` against model.generate, and against our
          `generate`, which does the same: how far that ratio is from 1 is the error of the measurement
units     units alone out of a joint vocabulary (500 units behind 2,500 or 32,000 text ids), against model.generate with
          suppress_tokens, prefix_allowed_tokens_fn (its documented way), bad_words_ids of one token each (slamkit's
          way), and a mask made beforehand in a logits_processor of one's own (the fastest that a user could write)
ragged    prompts of 20 to 100 tokens; the other side pads them on the left
samples   8 samples of one prompt; num_return_sequences there
window    500 tokens through a window of 256: tokens per second before and after it first slides; nothing beside it
chain     (--run RUN, a trained run with speech tokenizer and vocoder): time to the first sound of a stream, real-time
          factor of recording -> units -> tokens -> sound; see generate_chain.py

Random Qwen2-shape models, named by their parameters without embeddings; prompts of 60 tokens, 100 new ones, temperature
0.8, top-k 25, no end. Contestants take turns in one process, on one thread, backwards in every other round; a turn
repeats its call until it has lasted `TURN_S`. Rates are new tokens per second of processor time, medians over rounds;
ratios are medians of the ratios within a round [smallest, largest].
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from generate_chain import chain

from speechscale.decode.generate import continuations, generate, steps
from speechscale.decode.grammar import allowed_ids
from speechscale.decode.settings import Decoding, Modality
from speechscale.model.sizes import get_size
from speechscale.model.slm import new_model
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

UNITS, CONTEXT = 500, 1024
PROMPT, RAGGED, NEW = 60, (20, 100), 100
USUAL: dict[str, Any] = {"temperature": 0.8, "top_k": 25}
TEXTS = (2_500, 32_000)
SAMPLES = 8
WINDOW, LONG = 256, 500
TURN_S, QUICK_TURN_S = 0.5, 0.1
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Call = Callable[[], int]
"""Generates and returns the number of new tokens."""


@dataclass(slots=True, kw_only=True)
class Contestant:
    name: str
    call: Call
    rates: list[float] = field(default_factory=list)

    def turn(self, at_least_s: float) -> float:
        """New tokens per second of processor time."""
        made, began = 0, time.process_time()
        while (spent := time.process_time() - began) < at_least_s:
            made += self.call()
        return made / spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. ratio: median, smallest and largest of ours / theirs; None in lines of our own rates."""

    race: str
    batch: int
    name: str
    size: str
    rate: float
    ratio: tuple[float, float, float] | None = None

    def cell(self) -> str:
        if self.ratio is None:
            return f"{self.rate:,.0f}/s"
        return "{:.2f} [{:.2f}, {:.2f}]".format(*self.ratio)


def race(racers: list[Contestant], args: argparse.Namespace) -> None:
    """Take turns, after a call each that is not counted."""
    for racer in racers:
        racer.call()
    for number in range(args.rounds):
        for racer in racers if number % 2 == 0 else reversed(racers):
            racer.rates.append(racer.turn(args.turn_s))


def rows_of(name: str, batch: int, size: str, ours: Contestant, others: Sequence[Contestant]) -> list[Row]:
    rows = [Row(race=name, batch=batch, size=size, name=ours.name, rate=statistics.median(ours.rates))]
    for other in others:
        ratios = [a / b for a, b in zip(ours.rates, other.rates, strict=True)]
        spread = statistics.median(ratios), min(ratios), max(ratios)
        rate = statistics.median(other.rates)
        rows.append(Row(race=name, batch=batch, size=size, name=f"over {other.name}", rate=rate, ratio=spread))
    return rows


@cache
def joint(texts: int) -> Vocabulary:
    """`texts` text ids, units and markers."""
    words = " ".join(f"w{i}" for i in range(texts))
    vocabulary = Vocabulary.joint(build_text_tokenizer([words], kind="words", size=texts), UNITS)
    assert vocabulary.unit_start == texts, "the tokenizer lost words"
    return vocabulary


def model_of(size: str, vocabulary: Vocabulary, dtype: str) -> Any:
    return new_model(get_size(f"qwen2:{size}"), vocabulary.size, CONTEXT, 0).to(DTYPES[dtype]).eval()


def make_prompts(vocabulary: Vocabulary, lengths: Sequence[int]) -> list[np.ndarray]:
    """Units behind `<eos>`; `lengths` counts both."""
    rng = np.random.default_rng(0)
    first = vocabulary.unit_start
    return [np.append(vocabulary.eos_id, rng.integers(first, first + UNITS, length - 1)) for length in lengths]


def ours(model: Any, vocabulary: Vocabulary, prompts: list[np.ndarray], modality: Modality, samples: int = 1) -> Call:
    settings = Decoding(max_new_tokens=NEW, modality=modality, stop="never", samples=samples, **USUAL)
    return lambda: sum(len(one.ids) for row in continuations(model, vocabulary, prompts, settings) for one in row)


def theirs(model: Any, vocabulary: Vocabulary, prompts: list[np.ndarray], **options: Any) -> Call:
    width = max(map(len, prompts))
    ids, mask = torch.full((len(prompts), width), vocabulary.eos_id), torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.from_numpy(prompt)
        mask[row, width - len(prompt) :] = 1
    usual = dict(USUAL, do_sample=True, max_new_tokens=NEW, pad_token_id=vocabulary.eos_id)
    model.generation_config.eos_token_id = None

    def call() -> int:
        with torch.inference_mode():
            made = model.generate(ids, attention_mask=mask, **usual, **options)
        return int(made[:, width:].numel())

    return call


def masking(size: int, refused: list[int]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[refused] = True
    return lambda ids, scores: scores.masked_fill(mask, -torch.inf)


def plain(size: str, batch: int, args: argparse.Namespace) -> list[Row]:
    vocabulary = Vocabulary.textless(UNITS)
    model, prompts = model_of(size, vocabulary, args.dtype), make_prompts(vocabulary, [PROMPT] * batch)
    mine = Contestant(name="ours", call=ours(model, vocabulary, prompts, "free"))
    options = {"max_new_tokens": NEW, "stop_at_eos": False, **USUAL}
    simple = Contestant(
        name="our `generate`", call=lambda: sum(map(len, generate(model, vocabulary, prompts, **options)))
    )
    other = Contestant(name="transformers", call=theirs(model, vocabulary, prompts))
    race([mine, simple, other], args)
    return rows_of(f"any of {vocabulary.size} ids", batch, size, mine, [other, simple])


def units(size: str, batch: int, args: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    for texts in TEXTS:
        vocabulary = joint(texts)
        model, prompts = model_of(size, vocabulary, args.dtype), make_prompts(vocabulary, [PROMPT] * batch)
        allowed = allowed_ids(vocabulary, "speech", stop_at_eos=False).tolist()
        refused = sorted(set(range(vocabulary.size)) - set(allowed))
        ways: dict[str, dict[str, Any]] = {
            "suppress_tokens": {"suppress_tokens": refused},
            "prefix_allowed_tokens_fn": {"prefix_allowed_tokens_fn": lambda row, ids, allowed=allowed: allowed},
            "bad_words_ids": {"bad_words_ids": [[token] for token in refused]},
            "own logits_processor": {"logits_processor": [masking(vocabulary.size, refused)]},
        }
        mine = Contestant(name="ours", call=ours(model, vocabulary, prompts, "speech"))
        others = [Contestant(name=way, call=theirs(model, vocabulary, prompts, **ways[way])) for way in ways]
        race([mine, *others], args)
        rows += rows_of(f"500 units of {vocabulary.size:,} ids", batch, size, mine, others)
    return rows


def ragged(size: str, batch: int, args: argparse.Namespace) -> list[Row]:
    if batch == 1:
        return []
    vocabulary, low, high = Vocabulary.textless(UNITS), *RAGGED
    lengths = np.linspace(low, high, batch).round().astype(int).tolist()
    model, prompts = model_of(size, vocabulary, args.dtype), make_prompts(vocabulary, lengths)
    mine = Contestant(name="ours", call=ours(model, vocabulary, prompts, "free"))
    other = Contestant(name="transformers", call=theirs(model, vocabulary, prompts))
    race([mine, other], args)
    return rows_of(f"prompts of {low}-{high}", batch, size, mine, [other])


def samples(size: str, batch: int, args: argparse.Namespace) -> list[Row]:
    if batch != args.batches[0]:
        return []
    vocabulary = Vocabulary.textless(UNITS)
    model, prompts = model_of(size, vocabulary, args.dtype), make_prompts(vocabulary, [PROMPT])
    mine = Contestant(name="ours", call=ours(model, vocabulary, prompts, "free", SAMPLES))
    other = Contestant(name="transformers", call=theirs(model, vocabulary, prompts, num_return_sequences=SAMPLES))
    race([mine, other], args)
    return rows_of(f"{SAMPLES} samples", 1, size, mine, [other])


def window(size: str, batch: int, args: argparse.Namespace) -> list[Row]:
    vocabulary = Vocabulary.textless(UNITS)
    model, prompts = model_of(size, vocabulary, args.dtype), make_prompts(vocabulary, [PROMPT] * batch)
    settings = Decoding(max_new_tokens=LONG, stop="never", window=WINDOW, **USUAL)
    slides = WINDOW - PROMPT  # tokens until the window is full
    before, after = (Contestant(name=f"ours, {when} it slides", call=int) for when in ("before", "after"))
    for number in range(-1, args.rounds):
        times = [time.process_time()]
        for _ in steps(model, vocabulary, prompts, settings):
            times.append(time.process_time())
        if number >= 0:
            before.rates.append(batch * slides / (times[slides] - times[0]))
            after.rates.append(batch * (LONG - slides) / (times[-1] - times[slides]))
    name = f"window of {WINDOW}"
    return rows_of(name, batch, size, before, []) + rows_of(name, batch, size, after, [])


RACES = {"plain": plain, "units": units, "ragged": ragged, "samples": samples, "window": window}


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return (
        f"{name}, {os.cpu_count()} cores, one thread, load {os.getloadavg()[0]:.1f}; torch {torch.__version__}, "
        f"transformers {transformers.__version__}"
    )


def table(rows: Sequence[Row], sizes: Sequence[str]) -> str:
    """Markdown: a line per race, batch and name, a column per size."""
    lines = [f"| what | batch | | {' | '.join(sizes)} |", f"|---|---|---|{'---|' * len(sizes)}"]
    for key in dict.fromkeys((row.race, row.batch, row.name) for row in rows):
        cells = {row.size: row.cell() for row in rows if (row.race, row.batch, row.name) == key}
        lines.append(f"| {' | '.join(map(str, key))} | {' | '.join(cells.get(size, '') for size in sizes)} |")
    return "\n".join(lines)


def run_races(args: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    for name in [name for name in args.only if name in RACES]:
        for batch in args.batches:
            for size in args.sizes:
                made = RACES[name](size, batch, args)
                rows += made
                for row in made:
                    print(f"  {row.race}, batch {row.batch}, {size}: {row.name} {row.cell()} ({row.rate:,.0f}/s)")
    return rows


def listed(kind: type) -> Callable[[str], list[Any]]:
    return lambda value: [kind(one) for one in value.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=listed(str), default=[*RACES, "chain"])
    parser.add_argument("--sizes", type=listed(str), default=["0.2M", "1M", "5M", "10M"])
    parser.add_argument("--batches", type=listed(int), default=[1, 16])
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turn-s", type=float, default=TURN_S, help="processor seconds of a turn, at least")
    parser.add_argument("--quick", action="store_true", help="two short rounds: to see that it runs")
    parser.add_argument("--run", type=Path, help="a trained run, for 'chain'")
    parser.add_argument("--json", type=Path, help="write all numbers there")
    args = parser.parse_args()
    unknown = sorted({*args.only} - {*RACES, "chain"})
    if unknown:
        parser.error(f"--only {', '.join(unknown)}: choose some of {', '.join(RACES)}, chain")
    if args.quick:
        args.rounds, args.turn_s = 2, QUICK_TURN_S
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    print(machine())
    rows = run_races(args)
    if rows:
        print(f"\n{table(rows, args.sizes)}\n")
    found: dict[str, Any] = {"machine": machine(), "rows": [asdict(row) for row in rows]}
    if args.run and "chain" in args.only:
        found["chain"] = chain(args.run, repeats=3 if args.quick else 20)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
