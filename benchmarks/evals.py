"""Scoring of pairs beside slamkit and plain transformers: python benchmarks/evals.py [--only long,cloze]

long    pairs of 150-300 units, nothing in common (5M-parameter Qwen2 shape, as in the reference measurement)
short   pairs of 15-35 units
cloze   a prompt of 180-260 units, two endings of 20-60: what StoryCloze looks like
same    how many decisions bf16 changes; what several protocols cost beside one
memory  peak memory with a vocabulary of 150,000 ids

In a race all contestants score the same pairs on one thread, each in a process of its own that waits after every turn,
so that they take turns on the machine. Rates are pairs per second of processor time, medians over rounds; ratios are
medians of the ratios within a round, with quartiles.

slamkit runs in an environment of its own: --peer-python PYTHON --peer-path DIR:DIR (its checkout, and a stand-in for
torchaudio where the real one does not load). Without it, it is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechscale.evals.score import score
from speechscale.model.sizes import Size
from speechscale.model.slm import model_config, new_model
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

PEERS = Path(__file__).parent / "eval_peers"
FIVE_M = Size(name="5M", layers=6, dim=256, heads=4, kv_heads=2, ffn=768, family="qwen2", tied=False)
UNITS, CONTEXT, TURN = 500, 1024, 48
WARM_UP = 2
"""Turns that are not counted: compiled code meets its shapes."""
Row = np.ndarray


@dataclass(slots=True, kw_only=True)
class Contestant:
    """A process that scores a turn of pairs on demand."""

    name: str
    script: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    python: str = sys.executable
    path: str = ""
    rates: list[float] = field(default_factory=list)
    process: Any = None

    def start(self, spec: dict[str, Any], folder: Path) -> None:
        file = folder / f"{self.name.replace(' ', '-').replace(',', '')}.json"
        file.write_text(json.dumps(spec | self.settings))
        quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        with file.with_suffix(".log").open("wb") as log:
            self.process = subprocess.Popen(
                [self.python, str(PEERS / self.script[0]), *self.script[1:], str(file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | quiet | ({"PYTHONPATH": self.path} if self.path else {}),
                text=True,
            )

    def turn(self, *, first: bool = False) -> float:
        """Pairs per second of processor time of one turn."""
        if not first:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended; see its log")
        told = json.loads(line)
        return float(told["pairs"] / told["seconds"])


def lengths(rng: np.random.Generator, low: int, high: int) -> Row:
    return rng.integers(0, UNITS, int(rng.integers(low, high)))


def make_pairs(kind: str, count: int) -> list[Row]:
    """Units of 2 x `count` candidates."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for _ in range(count):
        if kind == "cloze":
            prompt = lengths(rng, 180, 260)
            rows += [np.concatenate([prompt, lengths(rng, 20, 60)]) for _ in range(2)]
        else:
            low, high = (150, 300) if kind == "long" else (15, 35)
            rows += [lengths(rng, low, high) for _ in range(2)]
    return rows


def contestants(kind: str, args: argparse.Namespace) -> list[Contestant]:
    ours = ("score_ours.py",)
    found = [Contestant(name="transformers, batches of 8", script=("score_pairs.py", "transformers"))]
    if args.peer_python:
        peer = Contestant(
            name="slamkit", script=("score_pairs.py", "slamkit"), python=args.peer_python, path=args.peer_path
        )
        found.insert(0, peer)
    for precision in ("fp32", "bf16"):
        for share in (False, True) if kind == "cloze" else (False,):
            for compiled in (False, True):
                name = f"ours {precision}{', prompt once' if share else ''}{', compiled' if compiled else ''}"
                settings = {"precision": precision, "share": share, "compiled": compiled}
                found.append(Contestant(name=name, script=ours, settings=settings))
    return found


@contextmanager
def running(racers: list[Contestant], spec: dict[str, Any], folder: Path) -> Iterator[None]:
    try:
        for racer in racers:
            racer.start(spec, folder)
            racer.turn(first=True)
        yield
    finally:
        for racer in racers:
            with suppress(Exception):
                racer.process.kill()
                racer.process.wait()


def race(kind: str, args: argparse.Namespace) -> dict[str, Any]:
    turn = TURN if kind != "short" else 10 * TURN
    rows = make_pairs(kind, turn * 4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        borders = np.cumsum([len(row) for row in rows])[:-1]
        np.savez(folder / "pairs.npz", flat=np.concatenate(rows), borders=borders)
        model_config(FIVE_M, UNITS + 1, CONTEXT).save_pretrained(folder / "model")
        spec = {"pairs": str(folder / "pairs.npz"), "model": str(folder / "model"), "units": UNITS, "turn": turn}
        racers = contestants(kind, args)
        with running(racers, spec, folder):
            for turn in range(-WARM_UP, args.rounds):
                for racer in racers:
                    rate = racer.turn()
                    if turn >= 0:
                        racer.rates.append(rate)
    base = racers[0].rates
    print(f"\n{kind}: pairs per CPU second, ratio to {racers[0].name} [quartiles]; load {os.getloadavg()[0]:.1f}")
    table = {}
    for racer in racers:
        ratios = [a / b for a, b in zip(racer.rates, base, strict=True)]
        low, mid, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(f"  {racer.name:<34} {statistics.median(racer.rates):9.1f}  {mid:5.2f} [{low:.2f}, {high:.2f}]")
        table[racer.name] = {"pairs_per_s": statistics.median(racer.rates), "ratio": mid, "quartiles": [low, high]}
    return table


def same(args: argparse.Namespace) -> dict[str, Any]:
    """Decisions in bf16 against fp32, under the mean of the whole; the price of every number against one."""
    vocabulary = Vocabulary.textless(UNITS)
    model = new_model(FIVE_M, vocabulary.size, CONTEXT, 0).eval()
    ids = [np.append(0, row + 1) for row in make_pairs("long", args.pairs)]
    means, seconds = {}, {}
    for precision in ("fp32", "bf16"):
        began = time.process_time()
        found = score(model, ids, [1] * len(ids), vocabulary=vocabulary, precision=precision)
        seconds[precision] = time.process_time() - began
        means[precision] = found.whole_full / found.whole_tokens
    margins = {name: values[::2] - values[1::2] for name, values in means.items()}
    agree = float(np.mean((margins["fp32"] > 0) == (margins["bf16"] > 0)))
    error = float(np.abs(means["fp32"] - means["bf16"]).mean())
    plain = [_seconds(model, ids, None), _seconds(model, ids, vocabulary)]
    print(
        f"\nsame: bf16 decides {agree:.2%} of {args.pairs} pairs as fp32 (untrained model: mean margin "
        f"{np.abs(margins['fp32']).mean():.4f} nats per token, mean error {error:.5f}); own-modality softmax and end "
        f"token cost {plain[1] / plain[0] - 1:+.1%}"
    )
    return {"agree": agree, "error_nats": error, "all_numbers_over_one": plain[1] / plain[0]}


def _seconds(model: Any, ids: list[Row], vocabulary: Vocabulary | None) -> float:
    times = []
    for _ in range(3):
        began = time.process_time()
        score(model, ids[:200], [1] * 200, vocabulary=vocabulary)
        times.append(time.process_time() - began)
    return statistics.median(times)


def memory() -> dict[str, Any]:
    """Peak memory over that of the model, 64 sequences of 300 tokens, 150,000 ids."""
    words = " ".join(f"w{i}" for i in range(149_000))
    vocabulary = Vocabulary.joint(build_text_tokenizer([words], kind="words", size=150_000), UNITS)
    size = Size(name="wide", layers=2, dim=64, heads=2, kv_heads=2, ffn=128, family="qwen2", tied=True)
    model = new_model(size, vocabulary.size, 512, 0).eval()
    rng = np.random.default_rng(0)
    ids = [np.append(0, rng.integers(1, vocabulary.size - 2, 299)) for _ in range(64)]
    score(model, ids[:2], [1, 1], vocabulary=vocabulary)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    score(model, ids, [1] * len(ids), vocabulary=vocabulary)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    whole = 64 * 300 * vocabulary.size * 4 / 2**20
    print(f"\nmemory: {vocabulary.size:,} ids: +{after - before:.0f} MiB; all logits at once would be {whole:,.0f} MiB")
    return {"vocabulary": vocabulary.size, "extra_mib": after - before, "all_logits_mib": whole}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="long,short,cloze,same,memory")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--peer-python", default="")
    parser.add_argument("--peer-path", default="")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name in args.only.split(","):
        found[name] = same(args) if name == "same" else memory() if name == "memory" else race(name, args)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
