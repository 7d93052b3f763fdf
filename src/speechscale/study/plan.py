"""From a study to its planned runs: N, D, C, epochs, steps, memory, time. Spends nothing.

Enters: a resolved `Part`. Leaves: `Cell`s, in the order of the file.
The one decision worth knowing: a vocabulary is not known before the corpus is made, so the plan estimates its size; the
run itself turns its budget into tokens with the real one and records both.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

from speechscale.corpus.world import build_world, world_words
from speechscale.errors import DataError
from speechscale.model.flops import flops_per_token
from speechscale.model.sizes import get_size, params
from speechscale.study.spec import Arm, Part, StoryworldCorpus, Study
from speechscale.study.worlds import world_config

UNITS_PER_SECOND = {"adapted": 20.0, "mfcc": 19.0, "phones": 12.5}
"""Deduplicated units per second of speech, as measured on the voices here; other encoders at 25 Hz: 19.4 (SIMS)."""
UNITS_PER_SUBWORD = 1.73
"""10.89 billion units in 6.31 billion pieces (Cuervo & Marxer 2024, Table 2)."""
SPEAK_SPEED = 300.0
"""Seconds of speech spoken and encoded per core-second; a cautious round figure."""
CPU_FLOPS = {32: 1.4e10, 48: 2.0e10, 64: 2.9e10, 96: 4.5e10, 128: 5.5e10}
"""FLOP/s of one core by model width while a second run keeps the other core busy; between, the next smaller width."""
GPU_FLOPS = 0.4 * 989e12
"""One H100 at 40 % of its dense bf16 peak: an assumption of the bill, not a measurement."""
GPU_DOLLARS_PER_HOUR = 2.5
"""An assumption of the bill."""
BYTES_PER_PARAMETER = 16
"""fp32 weights, gradients and two Adam moments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One planned run of the grid (or one rate of its learning-rate sweep).

    Args:
        tokens: D. steps: optimizer steps. epochs_speech: passes over the unique speech, NaN when it has none.
        seconds: on one core (small models) or on one GPU (`on_gpu`).
        sweep: it helps to choose the learning rate. largest: at the last point of the grid's axis.
    """

    part: str
    arm: str
    size: str
    seed: int
    budget_flops: float
    learning_rates: tuple[float, ...]
    sweep: bool
    largest: bool
    params_total: int
    params_non_embedding: int
    tokens: float
    steps: float
    batch_tokens: int
    flops_exact: float
    epochs_speech: float
    memory_gb: float
    disk_gb: float
    seconds: float
    on_gpu: bool


def vocabulary_size(part: Part, arm: Arm) -> int:
    """Expected ids of an arm's vocabulary."""
    units = 60 if part.units.oracle else part.units.clusters
    if arm.subwords and part.units.subwords is not None:
        units = part.units.subwords.size
    if arm.vocabulary.startswith("textless"):
        return units + 1
    text = text_size(part)
    return text if arm.vocabulary == "text" else text + units + 2


def text_size(part: Part) -> int:
    """Expected ids of the text block."""
    if part.text_lm.pretrained:
        return 151_665  # Qwen2.5's tokenizer, the only family of the shipped recipes
    if isinstance(part.corpus, StoryworldCorpus) and part.text.tokenizer == "words":
        return _world_types(part.corpus, part.seed) + 3
    return part.text.size


@lru_cache(maxsize=16)
def _world_types(corpus: StoryworldCorpus, seed: int) -> int:
    return len(world_words(build_world(world_config(corpus, seed))))


def unique_units(part: Part) -> float:
    """Expected deduplicated units of the training speech; NaN when the corpus does not say."""
    if isinstance(part.corpus, StoryworldCorpus):
        return part.corpus.speech_hours * 3600 * UNITS_PER_SECOND.get(part.units.encoder, 19.4)
    if part.corpus.kind == "inventory":
        return sum(source.units for source in part.corpus.sources)
    return math.nan


def scaled_rates(part: Part, rates: tuple[float, ...], size: str) -> tuple[float, ...]:
    """Rates times sqrt(64 / dim), if the study says so."""
    factor = math.sqrt(64 / get_size(size).dim) if part.train.learning_rate_scaling == "sqrt_dim" else 1.0
    return tuple(float(f"{rate * factor:.4g}") for rate in rates)


def speech_fraction(arm: Arm) -> float:
    """Share of an arm's tokens that are units; an interleaved token is speech three times in four (SIMS's data)."""
    return arm.mixture.get("speech", 0.0) + 0.75 * arm.mixture.get("interleaved", 0.0)


def units_per_token(arm: Arm) -> float:
    """Units that a speech token spells."""
    return UNITS_PER_SUBWORD if arm.subwords else 1.0


def make_cell(
    name: str, part: Part, arm_name: str, size: str, budget: float, seed: int, rates: tuple[float, ...]
) -> Cell:
    """Work out one run. `budget` is FLOPs, or tokens per parameter when the grid says so."""
    arm, train, shape = part.arms[arm_name], part.train, get_size(size)
    axis = sorted(part.grid.budgets_flops or part.grid.tokens_per_param)
    vocabulary = vocabulary_size(part, arm)
    count = params(shape, vocabulary)
    per_token = flops_per_token(shape, vocabulary, train.context)
    tokens = budget * count.total if part.grid.tokens_per_param else budget / per_token.of(part.grid.flops)
    flops = tokens * per_token.flops_exact
    batch = train.batch_rows * train.context
    on_gpu = count.total > 15e6
    speed = GPU_FLOPS if on_gpu else CPU_FLOPS[max(w for w in CPU_FLOPS if w <= max(32, shape.dim))]
    fraction = speech_fraction(arm)
    return Cell(
        part=name,
        arm=arm_name,
        size=size,
        seed=seed,
        budget_flops=tokens * per_token.of(part.grid.flops) if part.grid.tokens_per_param else budget,
        learning_rates=rates,
        sweep=is_sweep(part, budget, seed),
        largest=budget == axis[-1],
        params_total=count.total,
        params_non_embedding=count.non_embedding,
        tokens=tokens,
        steps=tokens / batch,
        batch_tokens=batch,
        flops_exact=flops,
        epochs_speech=tokens * units_per_token(arm) * fraction / unique_units(part) if fraction else math.nan,
        memory_gb=(count.total * BYTES_PER_PARAMETER + 34 * batch * shape.dim * shape.layers) / 1e9,
        disk_gb=count.total * 4 / 1e9,
        seconds=flops / speed,
        on_gpu=on_gpu,
    )


def is_sweep(part: Part, budget: float, seed: int) -> bool:
    """Whether this cell tries every learning rate: the (lower) middle of the grid's axis, first seed only.

    A rate chosen at the smallest budget would be too high for the largest, where data repeat most.
    """
    axis = sorted(part.grid.budgets_flops or part.grid.tokens_per_param)
    return budget == axis[(len(axis) - 1) // 2] and seed == part.grid.seeds[0]


def plan_part(name: str, part: Part) -> list[Cell]:
    """All runs of a part; refuses cells with fewer than `grid.min_steps` steps.

    Raises:
        DataError: an unknown size, or a grid with impossible cells (all of them named).
    """
    axis = sorted(part.grid.budgets_flops or part.grid.tokens_per_param)
    cells = []
    for arm_name, size, budget, seed in itertools.product(part.arms, part.grid.sizes, axis, part.grid.seeds):
        rates = scaled_rates(part, part.arms[arm_name].learning_rates, size)
        for choice in [(rate,) for rate in rates] if is_sweep(part, budget, seed) else [rates]:
            cells.append(make_cell(name, part, arm_name, size, budget, seed, choice))
    short = [cell for cell in cells if cell.steps < part.grid.min_steps]
    if short:
        worst = min(short, key=lambda cell: cell.steps)
        raise DataError(
            f"part {name}: {len(short)} of {len(cells)} runs would have fewer than grid.min_steps = "
            f"{part.grid.min_steps} steps; the shortest is {worst.arm} {worst.size} at {worst.budget_flops:.3g} FLOPs "
            f"with {worst.steps:.1f} steps of {worst.batch_tokens} tokens; raise "
            "budgets_flops, drop large sizes or make train.batch_rows smaller"
        )
    return cells


def plan_study(study: Study) -> dict[str, list[Cell]]:
    """Planned runs of every part."""
    return {name: plan_part(name, part) for name, part in study.parts.items()}


def text_lm_cells(name: str, part: Part) -> list[Cell]:
    """The TextLMs that warm arms of this part start from, one per size and rate; none when they are released models."""
    if part.text_lm.pretrained or not any(arm.start == "warm" for arm in part.arms.values()):
        return []
    arm = Arm(start="scratch", mixture={"text": 1.0}, learning_rates=part.text_lm.learning_rates)
    cells = []
    for size in part.grid.sizes:
        shape = get_size(size)
        per_token = flops_per_token(shape, text_size(part), part.train.context)
        budget = part.text_lm.tokens * per_token.flops_exact
        grid = part.grid.model_copy(update={"budgets_flops": (budget,), "tokens_per_param": (), "flops": "exact"})
        host = part.model_copy(update={"arms": {"text_lm": arm}, "grid": grid})
        for rate in scaled_rates(host, arm.learning_rates, size):
            cells.append(make_cell(name, host, "text_lm", size, budget, part.seed, (rate,)))
    return cells
