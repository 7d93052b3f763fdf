"""From a study to its planned runs: N, D, C, epochs, steps, memory, time. Spends nothing.

Enters: a resolved `Part`. Leaves: `Cell`s, in the order of the file.
The one decision worth knowing: a vocabulary is not known before the corpus is made, so the plan estimates its size; the
run itself turns its budget into tokens with the real one and records both.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from speechscale.corpus.world import build_world, world_words
from speechscale.errors import DataError
from speechscale.model.flops import Convention, Flops, flops_per_token, tokens_for_budget
from speechscale.model.sizes import Size, get_size, params
from speechscale.study.corpora_spec import StoryworldCorpus
from speechscale.study.spec import (
    Arm,
    Axis,
    Part,
    Study,
)
from speechscale.study.worlds import world_config
from speechscale.train.schedule import decay_start

UNITS_PER_SECOND = {"adapted": 20.0, "mfcc": 19.0, "phones": 12.5}
"""Deduplicated units per second of speech, as measured on the voices here; other encoders at 25 Hz: 19.4 (SIMS)."""
UNITS_PER_SUBWORD = 1.73
"""10.89 billion units in 6.31 billion pieces (Cuervo & Marxer 2024, Table 2)."""
UNITS_PER_WORD, TEXT_TOKENS_PER_WORD, FLOOR_OVERSHOOT = 7.1, 1.3, 0.06
"""Of SIMS's data; the overshoot is that of "floor" over its share on texts of 80 words, where 0.3 becomes 0.36."""
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
        size: name of the shape, with the family of the arm. point: on the grid's axis.
        tokens: D. steps: optimizer steps. epochs_speech: passes over the unique speech, NaN when it has none.
        seconds: on one core (small models) or on one GPU (`on_gpu`).
        sweep: it helps to choose the learning rate. largest: at the last point of the grid's axis.
        kind: a run of its own, a branch that begins at `branch_from` tokens, or the trunk of branches.
            A branch has the tokens and FLOPs of its whole path, but the seconds of its cool-down.
    """

    part: str
    arm: str
    size: str
    seed: int
    point: float
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
    kind: Literal["run", "branch", "trunk"] = "run"
    branch_from: float = 0.0

    @property
    def flops_spent(self) -> float:
        """FLOPs of this training itself, exact count."""
        return self.flops_exact * (1 - self.branch_from / self.tokens)


@lru_cache(maxsize=256)
def shape_of(name: str) -> Size:
    """A shape by name; one made by rule takes a search."""
    return get_size(name)


def tokens_at(axis: Axis, point: float, per_token: Flops, convention: Convention, params_total: int) -> int:
    """Tokens at a point of the grid's axis. Example: tokens_per_param, 20, N = 1M -> 20M"""
    if axis == "budgets_flops":
        return tokens_for_budget(point, per_token.of(convention))
    return round(point * params_total if axis == "tokens_per_param" else point)


def vocabulary_size(part: Part, arm: Arm, size: str) -> int:
    """Expected ids of the vocabulary of an arm's model of that size."""
    units = 60 if part.units.oracle else part.units.clusters
    if arm.subwords and part.units.subwords is not None:
        units = part.units.subwords.size
    if arm.vocabulary.startswith("textless"):
        return units + 1
    text = text_size(part, arm.shape(size))
    return text if arm.vocabulary == "text" else text + units + 2


def text_size(part: Part, shape: str) -> int:
    """Expected ids of the text block; of a released TextLM those of its tokenizer, or the rows of its table."""
    if part.text_lm.pretrained:
        size = shape_of(shape)
        return {"qwen2": 151_665}.get(size.family, size.text_vocab)
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


def scaled_rates(part: Part, rates: tuple[float, ...], shape: str) -> tuple[float, ...]:
    """Rates times sqrt(64 / dim), if the study says so."""
    factor = math.sqrt(64 / shape_of(shape).dim) if part.train.learning_rate_scaling == "sqrt_dim" else 1.0
    return tuple(float(f"{rate * factor:.4g}") for rate in rates)


def speech_fraction(part: Part, arm: Arm) -> float:
    """Share of an arm's tokens that are units, with the words, units and text tokens of SIMS's data."""
    rule = part.interleave_of(arm).config.at(0.5).rule
    words = rule.share if rule.kind == "expectation" else min(1.0, rule.share + FLOOR_OVERSHOOT)
    spoken = words * UNITS_PER_WORD
    interleaved = spoken / (spoken + (1 - words) * TEXT_TOKENS_PER_WORD)
    return arm.mixture.get("speech", 0.0) + interleaved * arm.mixture.get("interleaved", 0.0)


def units_per_token(arm: Arm) -> float:
    """Units that a speech token spells."""
    return UNITS_PER_SUBWORD if arm.subwords else 1.0


def make_cell(
    name: str, part: Part, arm_name: str, size: str, point: float, seed: int, rates: tuple[float, ...]
) -> Cell:
    """Work out one run at a point of the grid's axis; `size` is one of the grid."""
    arm, train, shape = part.arms[arm_name], part.train, shape_of(part.arms[arm_name].shape(size))
    vocabulary = vocabulary_size(part, arm, size)
    count = params(shape, vocabulary)
    per_token = flops_per_token(shape, vocabulary, train.context)
    tokens = tokens_at(part.grid.axis, point, per_token, part.grid.flops, count.total)
    flops = tokens * per_token.flops_exact
    batch = train.batch_rows * train.context
    on_gpu = count.total > 15e6
    speed = GPU_FLOPS if on_gpu else CPU_FLOPS[max(w for w in CPU_FLOPS if w <= max(32, shape.dim))]
    fraction = speech_fraction(part, arm)
    return Cell(
        part=name,
        arm=arm_name,
        size=shape.name,
        seed=seed,
        point=point,
        budget_flops=point if part.grid.axis == "budgets_flops" else tokens * per_token.of(part.grid.flops),
        learning_rates=rates,
        sweep=is_sweep(part, arm, point, seed),
        largest=point == part.grid.points[-1],
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


def is_sweep(part: Part, arm: Arm, point: float, seed: int) -> bool:
    """Whether this cell tries every learning rate: the (lower) middle of the grid's axis, first seed only.

    A rate chosen at the smallest budget would be too high for the largest, where data repeat most.
    """
    middle = part.grid.points[(len(part.grid.points) - 1) // 2]
    return len(arm.learning_rates) > 1 and point == middle and seed == part.grid.seeds[0]


def plan_part(name: str, part: Part) -> list[Cell]:
    """All runs of a part; refuses cells with fewer than `grid.min_steps` steps.

    Raises:
        DataError: an unknown size, or a grid with impossible cells (all of them named).
    """
    cells = []
    grid = part.grid
    for arm_name, size, point, seed in itertools.product(part.arms, grid.sizes, grid.points, grid.seeds):
        arm = part.arms[arm_name]
        rates = scaled_rates(part, arm.learning_rates, arm.shape(size))
        for choice in [(rate,) for rate in rates] if is_sweep(part, arm, point, seed) else [rates]:
            cells.append(make_cell(name, part, arm_name, size, point, seed, choice))
    _refuse_impossible(name, part, cells)
    return _branched(part, cells) if part.train.branches else cells


def _refuse_impossible(name: str, part: Part, cells: list[Cell]) -> None:
    short = [cell for cell in cells if cell.steps < part.grid.min_steps]
    if short:
        worst = min(short, key=lambda cell: cell.steps)
        raise DataError(
            f"part {name}: {len(short)} of {len(cells)} runs would have fewer than grid.min_steps = "
            f"{part.grid.min_steps} steps; the shortest is {worst.arm} {worst.size} at {worst.budget_flops:.3g} FLOPs "
            f"with {worst.steps:.1f} steps of {worst.batch_tokens} tokens; raise "
            "budgets_flops, drop large sizes or make train.batch_rows smaller"
        )
    train, least = part.train, min(cells, key=lambda cell: cell.tokens)
    stable = decay_start(int(least.tokens), train.decay_fraction) if train.schedule == "wsd" else least.tokens
    if train.warmup_tokens is not None and train.warmup_tokens > stable:
        raise DataError(
            f"part {name}: train.warmup_tokens = {train.warmup_tokens:,.0f} is more than the {stable:,.0f} tokens that "
            f"the shortest run ({least.arm} {least.size}) has before its rate falls; lower it or raise the budgets"
        )


def trunk_key(cell: Cell) -> tuple[str, str, int]:
    """Which trunk a run may branch from."""
    return cell.arm, cell.size, cell.seed


def _branched(part: Part, cells: list[Cell]) -> list[Cell]:
    """Turn runs of one arm, size and seed into branches where there are two or more; the sweep stays apart."""
    count = Counter(trunk_key(cell) for cell in cells if not cell.sweep)
    made = []
    for cell in cells:
        if not cell.sweep and count[trunk_key(cell)] > 1:
            start = decay_start(int(cell.tokens), part.train.decay_fraction)
            own = 1 - start / cell.tokens
            cell = replace(cell, kind="branch", branch_from=start, seconds=cell.seconds * own)
        made.append(cell)
    return made


def trunk_cells(cells: Iterable[Cell]) -> list[Cell]:
    """The trunks that the branches among these runs leave: as long as the beginning of the longest branch."""
    longest: dict[tuple[str, str, int], Cell] = {}
    for cell in cells:
        if cell.kind == "branch" and cell.tokens >= longest.get(trunk_key(cell), cell).tokens:
            longest[trunk_key(cell)] = cell
    trunks = []
    for cell in longest.values():
        share = cell.branch_from / cell.tokens
        trunks.append(
            replace(
                cell,
                kind="trunk",
                tokens=cell.branch_from,
                steps=cell.steps * share,
                budget_flops=cell.budget_flops * share,
                flops_exact=cell.flops_exact * share,
                epochs_speech=cell.epochs_speech * share,
                seconds=cell.seconds / (1 - share) * share,
                branch_from=0.0,
            )
        )
    return trunks


def plan_study(study: Study) -> dict[str, list[Cell]]:
    """Planned runs of every part."""
    return {name: plan_part(name, part) for name, part in study.parts.items()}


def text_lm_cells(name: str, part: Part) -> list[Cell]:
    """The TextLMs that warm arms of this part start from, one per shape and rate; none if they are released models."""
    if part.text_lm.pretrained:
        return []
    warm = [arm for arm in part.arms.values() if arm.start == "warm"]
    wanted = dict.fromkeys((arm.family, size) for arm in warm for size in part.grid.sizes)
    cells = []
    for family, size in wanted:
        arm = Arm(start="scratch", mixture={"text": 1.0}, learning_rates=part.text_lm.learning_rates, family=family)
        axis = {"budgets_flops": (), "tokens_per_param": (), "tokens": (part.text_lm.tokens,)}
        grid = part.grid.model_copy(update=axis)
        train = part.train.model_copy(update={"branches": False})
        host = part.model_copy(update={"arms": {"text_lm": arm}, "grid": grid, "train": train})
        for rate in scaled_rates(host, arm.learning_rates, arm.shape(size)):
            cells.append(make_cell(name, host, "text_lm", size, part.text_lm.tokens, part.seed, (rate,)))
    return cells
