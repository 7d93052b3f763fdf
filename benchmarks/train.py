"""Measure training beside slamkit and the HF Trainer: python benchmarks/train.py [--only full,padded,small,loop]

full    5M-parameter Qwen2 shape, context 512, full rows of one document each
padded  the same shape, utterances of speech of mixed lengths: padded by the others, packed by ours
small   0.2M parameters, context 256, full rows and mixed lengths
loop    where the time of a step goes: forward, backward, optimizer, data, log, and what is left

In each race all contestants train the same shape on the same documents on one thread, each in a process of its own that
waits after every step, so that they take turns on the machine. Rates are targets per second of processor time, medians
over rounds; ratios are medians of the ratios within a round, with quartiles. MFU: exact FLOPs (docs/model.md) against
matrix products measured here.

slamkit runs in an environment of its own: --peer-python PYTHON --peer-path DIR:DIR (its checkout, and a stand-in for
torchaudio where the real one does not load). Without it, it is left out.

--device cuda races a Qwen2.5-0.5B shape instead (vocabulary of 152,167 ids, context 2,048, bf16) by wall time: full
rows beside the HF Trainer, mixed lengths padded and packed. The mode is complete and has not been run on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import speechscale.train.step
from speechscale.model.flops import flops_per_token
from speechscale.model.peak import measured_peak
from speechscale.model.sizes import SIZES, Size
from speechscale.model.slm import model_config, new_model
from speechscale.records import UnitTable, UnitTableBuilder
from speechscale.tokens.mixture import MixtureSampler
from speechscale.tokens.store import build_store
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.train.feed import feed
from speechscale.train.logs import RunLog
from speechscale.train.loop import Hooks, StepReport, TrainConfig, train
from speechscale.train.meter import Meter
from speechscale.train.objective import Objective
from speechscale.train.parallel import SOLO

PEERS = Path(__file__).parent / "train_peers"
FIVE_M = Size(name="5M", layers=6, dim=256, heads=4, kv_heads=2, ffn=768, family="qwen2", tied=False)
EOS, FIRST_UNIT = 1, 2
UNITS, RATE_HZ = 500, 25.0
LEARNING_RATE = 1e-3
WARM_UP = 4
"""Steps that are not counted: caches fill, and compiled code meets a second shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What all contestants of a race train."""

    size: Size
    vocab: int
    context: int
    rows: int
    device: str = "cpu"
    threads: int = 1

    def flops_per_token(self) -> float:
        return flops_per_token(self.size, self.vocab, self.context).flops_exact


@dataclass(slots=True, kw_only=True)
class Contestant:
    """A process that takes steps on demand."""

    name: str
    script: Sequence[str]
    precision: str = "fp32"
    compile: bool = False
    recompute: bool = False
    python: str = sys.executable
    path: str = ""
    rates: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    process: Any = None
    log: Path | None = None
    params: int = 0

    def start(self, task: Task, documents: Path, folder: Path) -> None:
        model_config(task.size, task.vocab, task.context).save_pretrained(folder / "model")
        spec = asdict(task) | {
            "documents": str(documents),
            "model": str(folder / "model"),
            "eos_id": EOS,
            "learning_rate": LEARNING_RATE,
            "precision": self.precision,
            "compile": self.compile,
            "recompute": self.recompute,
        }
        file = folder / f"{self.name.replace(' ', '-').replace(',', '')}.json"
        file.write_text(json.dumps(spec))
        offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(task.threads), "PYTHONWARNINGS": "ignore"}
        path = {"PYTHONPATH": self.path} if self.path else {}
        self.log = file.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [self.python, str(PEERS / self.script[0]), *self.script[1:], str(file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | offline | path,
                text=True,
            )
        self.params = self._hear()["params"]
        for _ in range(WARM_UP - 1):
            self.step()
        self.rates.clear()
        self.steps.clear()

    def step(self) -> None:
        """Take one step and remember its rate."""
        print("go", file=self.process.stdin, flush=True)
        told = self._hear()
        self.rates.append(told["targets"] / told["seconds"])
        self.steps.append(told["seconds"])

    def _hear(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            assert self.log is not None
            sys.exit(f"{self.name} stopped:\n{self.log.read_text()[-2000:]}")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def race(
    title: str, task: Task, documents: Sequence[np.ndarray], contestants: Sequence[Contestant], rounds: int
) -> list[float]:
    """Let all take turns and print a table; ratios are to the first one. Return the rates."""
    flops = task.flops_per_token()
    print(f"\n{title}: {task.size.name}, vocabulary {task.vocab:,}, {task.rows} rows of {task.context}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "documents.npz"
        np.savez(file, flat=np.concatenate(documents), borders=np.cumsum([len(d) for d in documents])[:-1])
        for contestant in contestants:
            contestant.start(task, file, folder)
        params = {contestant.params for contestant in contestants}
        assert len(params) == 1, f"models of {params} parameters"
        for number in range(rounds):
            for place in range(len(contestants)):
                contestants[(place + number) % len(contestants)].step()
        for contestant in contestants:
            contestant.stop()
    print(f"  {params.pop():,} parameters, {rounds} rounds, load {os.getloadavg()[0]:.1f}")
    for contestant in contestants:
        rate = statistics.median(contestant.rates)
        ratios = np.array(contestant.rates) / np.array(contestants[0].rates)
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        peak = measured_peak(task.device, contestant.precision).flops_per_s  # type: ignore[arg-type]
        print(
            f"  {contestant.name:34s} {rate:9,.0f} targets/s  {middle:5.2f} x [{low:.2f}, {high:.2f}]"
            f"  step {statistics.median(contestant.steps) * 1e3:8,.1f} ms  MFU {rate * flops / peak:6.1%}"
        )
    return [statistics.median(contestant.rates) for contestant in contestants]


def mixed_documents(count: int, units: int, scale: float = 1.0, seed: int = 0) -> list[np.ndarray]:
    """Utterances of 2 to 30 s, median 11 s, 25 Hz, 0.83 units a frame, with <eos> around them."""
    rng = np.random.default_rng(seed)
    seconds = np.clip(rng.lognormal(np.log(11.0), 0.45, count), 2.0, 30.0)
    lengths = (seconds * RATE_HZ / 1.21 * scale).astype(int)
    return [document_of(rng.integers(FIRST_UNIT, FIRST_UNIT + units, length)) for length in lengths]


def full_documents(count: int, units: int, context: int, seed: int = 0) -> list[np.ndarray]:
    """Documents that fill a row each."""
    rng = np.random.default_rng(seed)
    return [document_of(rng.integers(FIRST_UNIT, FIRST_UNIT + units, context - 2)) for _ in range(count)]


def document_of(body: np.ndarray) -> np.ndarray:
    return np.concatenate([[EOS], body, [EOS]]).astype(np.int64)


def ours(precision: str, **options: bool) -> Contestant:
    words = ", ".join([precision, *(name for name, wanted in options.items() if wanted)])
    return Contestant(name=f"ours {words}", script=["ours.py"], precision=precision, **options)


def huggingface(precision: str, **options: bool) -> Contestant:
    words = ", ".join([precision, *(name for name, wanted in options.items() if wanted)])
    return Contestant(name=f"HF Trainer {words}", script=["trainer.py", "hf"], precision=precision, **options)


def slamkit(given: argparse.Namespace, precision: str) -> list[Contestant]:
    if given.peer_python is None:
        return []
    return [
        Contestant(
            name=f"slamkit {precision}",
            script=["trainer.py", "slamkit"],
            precision=precision,
            python=given.peer_python,
            path=given.peer_path,
        )
    ]


def full(given: argparse.Namespace) -> None:
    task = Task(size=FIVE_M, vocab=FIRST_UNIT + UNITS, context=512, rows=8)
    contestants = [*slamkit(given, "fp32"), huggingface("fp32"), ours("fp32"), ours("fp32", compile=True)]
    contestants += [*slamkit(given, "bf16"), huggingface("bf16"), ours("bf16"), ours("bf16", compile=True)]
    race("full rows", task, full_documents(400, UNITS, 512), contestants, given.rounds)


def padded(given: argparse.Namespace) -> None:
    task = Task(size=FIVE_M, vocab=FIRST_UNIT + UNITS, context=512, rows=8)
    contestants = [*slamkit(given, "fp32"), huggingface("fp32"), ours("fp32")]
    contestants += [*slamkit(given, "bf16"), huggingface("bf16"), ours("bf16"), ours("bf16", compile=True)]
    race("mixed lengths, padded | packed", task, mixed_documents(1000, UNITS), contestants, given.rounds)


def small(given: argparse.Namespace) -> None:
    task = Task(size=SIZES["0.2M"], vocab=450, context=256, rows=8)
    units = task.vocab - FIRST_UNIT
    both = full_documents(2000, units, 256), mixed_documents(2000, units, scale=0.5)
    for title, documents in zip(("full rows", "mixed lengths, padded | packed"), both, strict=True):
        sides = [side(precision) for precision in ("fp32", "bf16") for side in (huggingface, ours)]
        compiled = [side("fp32", compile=True) for side in (huggingface, ours)]
        contestants = [*sides, *compiled, ours("bf16", compile=True)]
        race(title, task, documents, contestants, 4 * given.rounds)


def gpu(given: argparse.Namespace) -> None:
    """Full rows of the same tokens for both; then mixed lengths, which the HF Trainer pads."""
    task = Task(size=SIZES[given.size], vocab=152_167, context=2048, rows=given.rows, device="cuda", threads=8)
    both = full_documents(200, UNITS, 2048), mixed_documents(4000, UNITS, scale=3.0)
    for title, documents in zip(("full rows", "mixed lengths, padded | packed"), both, strict=True):
        for compiled in (False, True):
            sides = [side("bf16", compile=compiled, recompute=given.recompute) for side in (huggingface, ours)]
            theirs, mine = (race(title, task, documents, [side], given.rounds)[0] for side in sides)  # memory for one
            print(f"  ours {mine / theirs:.2f} x of HF Trainer")


def unit_table(rows: int) -> UnitTable:
    """The utterances of `mixed_documents` as a table."""
    builder = UnitTableBuilder(frame_rate_hz=RATE_HZ, num_units=UNITS)
    for number, document in enumerate(mixed_documents(rows, UNITS)):
        units = document[1:-1] - FIRST_UNIT
        builder.add(
            id=f"utterance-{number}",
            speaker="a",
            split="train",
            text="",
            units=units,
            durations_frames=np.ones(len(units), np.int64),
            words=[],
            word_frames=np.zeros((0, 2), np.int64),
        )
    return builder.build()


class Clock:
    """Processor seconds by part of a step."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = {}
        self.step: dict[str, float] = {}

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            began = time.process_time()
            try:
                return function(*args, **options)
            finally:
                self.step[part] = self.step.get(part, 0.0) + time.process_time() - began

        return call

    @contextmanager
    def on(self, part: str, owner: Any, name: str) -> Iterator[None]:
        with mock.patch.object(owner, name, self.timed(part, getattr(owner, name))):
            yield

    def end_step(self, whole: float) -> None:
        self.step["rest of the loop"] = whole - sum(self.step.values())
        for part, seconds in self.step.items():
            self.parts.setdefault(part, []).append(seconds)
        self.step = {}


class Enough(Exception):
    """Ends a measured run."""


def loop(given: argparse.Namespace) -> None:
    """Shares of a step of a run as the command line makes it: data from a store, a line of the log every step."""
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Vocabulary.textless(UNITS)
        store = build_store(Path(folder) / "store", vocabulary, table=unit_table(2000))
        for size, context, precision in ((FIVE_M, 512, "bf16"), (FIVE_M, 512, "fp32"), (SIZES["0.2M"], 256, "bf16")):
            mixture = MixtureSampler.of_store(store, {"speech": 1}, context, 0)
            task = Task(size=size, vocab=vocabulary.size, context=context, rows=8)
            shares_of_a_step(
                task, precision, mixture, vocabulary, Path(folder), given.rounds * (4 if context < 512 else 1)
            )


def shares_of_a_step(
    task: Task, precision: Any, mixture: MixtureSampler, vocabulary: Vocabulary, folder: Path, steps: int
) -> None:
    clock, steps_seen, began = Clock(), 0, time.process_time()
    config = TrainConfig(
        tokens=10**12,
        batch_rows=task.rows,
        context=task.context,
        learning_rate=LEARNING_RATE,
        warmup_fraction=0.0,
        precision=precision,
    )
    peak = measured_peak("cpu", precision)
    meter = Meter(tokens=config.tokens, every=1, flops_per_token=task.flops_per_token(), peak=peak, world=1)
    batches = iter(feed(mixture, task.rows, SOLO))
    with ExitStack() as stack:
        log = stack.enter_context(RunLog.open(folder / f"run-{task.size.name}-{precision}"))

        def write(report: StepReport) -> None:
            event = meter.add(report)
            assert event is not None
            log.step(event)

        write_timed = clock.timed("log", write)

        def on_step(report: StepReport) -> None:
            nonlocal began, steps_seen
            write_timed(report)
            now, steps_seen = time.process_time(), steps_seen + 1
            clock.end_step(now - began)
            began = now
            if steps_seen == WARM_UP + steps:
                raise Enough

        for part, owner, name in (
            ("forward", Objective, "forward"),
            ("backward", torch.Tensor, "backward"),
            ("optimizer", speechscale.train.step, "clip_gradients"),
            ("optimizer", torch.optim.AdamW, "step"),
            ("optimizer", torch.optim.Optimizer, "zero_grad"),
        ):
            stack.enter_context(clock.on(part, owner, name))
        with suppress(Enough):
            train(
                new_model(task.size, task.vocab, task.context, seed=0),
                iter(clock.timed("data", batches.__next__), object()),
                config,
                modality=vocabulary.modality_table(),
                validation={},
                hooks=Hooks(on_step=on_step),
            )
    medians = {part: statistics.median(seconds[WARM_UP:]) for part, seconds in clock.parts.items()}
    whole = sum(medians.values())
    outside = medians["data"] + medians["log"] + medians["rest of the loop"]
    print(f"\na step of {task.size.name}, {precision}, {task.rows} x {task.context}: {whole * 1e3:,.1f} ms")
    print("  " + ", ".join(f"{part} {seconds / whole:.2%}" for part, seconds in medians.items()))
    print(
        f"  outside of forward, backward and optimizer {outside / whole:.2%} (aim 3 %), "
        f"data {medians['data'] / whole:.2%} (aim 1 %)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="full,padded,small,loop")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--peer-python", help="Python of an environment with what slamkit needs")
    parser.add_argument("--peer-path", default="", help="folders for its PYTHONPATH: slamkit's checkout, stand-ins")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", default="qwen2.5-0.5B", help="with --device cuda")
    parser.add_argument("--rows", type=int, default=8, help="rows of a step, with --device cuda")
    parser.add_argument("--recompute", action="store_true", help="gradient checkpointing, with --device cuda")
    given = parser.parse_args()
    if given.device == "cuda":
        gpu(given)
        return
    torch.set_num_threads(1)
    wanted = given.only.split(",")
    for name, section in {"full": full, "padded": padded, "small": small, "loop": loop}.items():
        if name in wanted:
            section(given)


if __name__ == "__main__":
    main()
