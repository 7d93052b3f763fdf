"""What a study would do and cost: the table of planned runs and the bill."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from speechscale.report.numbers import short_count
from speechscale.study.plan import (
    GPU_DOLLARS_PER_HOUR,
    GPU_FLOPS,
    Cell,
    plan_part,
    text_lm_cells,
    trunk_cells,
    unique_units,
    vocabulary_size,
)
from speechscale.study.spec import Evals, Part, Study


def print_plan(study: Study) -> None:
    """Print every planned run and the bill; spends nothing."""
    console = Console(width=None if os.isatty(1) else 150)
    header = study.study
    console.print(f"[bold]{header.name}[/]: {header.question}", highlight=False)
    for label, value in (("paper", header.paper), ("expected", header.expect), ("seed", str(header.seed))):
        if value:
            console.print(f"  {label}: {value}", highlight=False)
    cells: list[Cell] = []
    text_lms: dict[tuple[str, str, tuple[float, ...]], Cell] = {}
    for name, part in study.parts.items():
        lms, runs = text_lm_cells(name, part), plan_part(name, part)
        console.print(f"\n[bold]part {name}[/]: {part.title}", highlight=False)
        console.print("  " + describe_data(part), highlight=False)
        trunks = trunk_cells(runs)
        console.print(_table([*lms, *trunks, *runs], part))
        console.print("  " + describe_schedule(part, runs), highlight=False)
        if part.evals.scores:
            console.print("  " + describe_evals(part.evals), highlight=False, soft_wrap=True)
        for lm in lms:  # parts of one corpus share them
            text_lms.setdefault((part.corpus.name, lm.size, lm.learning_rates), lm)
        cells += trunks + runs
    console.print(bill([*text_lms.values(), *cells]), highlight=False)


def describe_data(part: Part) -> str:
    """One line about the speech, the units and the vocabulary."""
    units = unique_units(part)
    amount = (
        "as much speech as the folder holds" if math.isnan(units) else f"{short_count(units)} unique units (estimate)"
    )
    sizes = ", ".join(f"{name} {vocabulary_size(part, arm, part.grid.sizes[0])}" for name, arm in part.arms.items())
    oracle = " (oracle: the engine's own phones)" if part.units.oracle else ""
    return f"corpus {part.corpus.name} ({part.corpus.kind}), {amount}; units {part.units.name}{oracle}; ids: {sizes}"


def describe_evals(evals: Evals) -> str:
    """One line: what every run is asked, in which directions, under which protocols."""
    waiting = [folder for folder in evals.benchmarks.values() if not (Path(folder) / "benchmark.json").is_file()]
    asked = [*evals.sets, *evals.benchmarks]
    missing = f"; to be made by `speechscale eval prepare`: {', '.join(waiting)}" if waiting else ""
    which = "at the largest budget" if evals.largest_budget_only else "at the end of every run"
    return f"scored {which}: {', '.join(asked)} ({' '.join(evals.directions)}; {', '.join(evals.protocols)}){missing}"


def describe_schedule(part: Part, runs: Sequence[Cell]) -> str:
    """One line: which schedule, and what trunks and branches save."""
    train, trunks = part.train, trunk_cells(runs)
    if not trunks:
        return f"schedule: {train.schedule}, one run per point"
    branches = [cell for cell in runs if cell.kind == "branch"]
    spent = sum(cell.flops_spent for cell in [*trunks, *branches])
    whole = sum(cell.flops_exact for cell in branches)
    tokens = sum(cell.tokens for cell in trunks) + sum(cell.tokens - cell.branch_from for cell in branches)
    apart = sum(cell.kind == "run" for cell in runs)
    return (
        f"schedule: wsd, trunk and branches: {len(trunks)} trunks and {len(branches)} cool-downs of "
        f"{train.decay_fraction:.0%} take {short_count(tokens)} tokens, {spent:.3g} FLOPs; as full runs "
        f"{short_count(sum(cell.tokens for cell in branches))} tokens, {whole:.3g} FLOPs: {1 - spent / whole:.0%} saved"
        + (f" ({apart} full runs apart, of the sweep or alone)" if apart else "")
    )


def _table(cells: Sequence[Cell], part: Part) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("arm", "size", "seed"):
        table.add_column(name, no_wrap=True)
    for name in ("N total", "N non-emb.", "C budget", "D tokens", "speech epochs", "steps", "batch tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("learning rate", "memory GB", "disk GB", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    labels = {"run": "", "branch": " branch", "trunk": " trunk"}
    for cell in cells:
        rates = " ".join(f"{rate:.2g}" for rate in cell.learning_rates)
        table.add_row(
            cell.arm + labels[cell.kind],
            cell.size,
            str(cell.seed),
            short_count(cell.params_total),
            short_count(cell.params_non_embedding),
            f"{cell.budget_flops:.3g}",
            short_count(cell.tokens),
            "-" if math.isnan(cell.epochs_speech) else f"{cell.epochs_speech:.2g}",
            f"{cell.steps:,.0f}",
            short_count(cell.batch_tokens),
            rates if len(cell.learning_rates) == 1 else f"of {rates}",
            f"{cell.memory_gb:.2g}",
            f"{cell.disk_gb:.2g}",
            _time(cell.seconds) + (" GPU" if cell.on_gpu else ""),
        )
    return table


def bill(cells: Iterable[Cell]) -> str:
    """Runs, FLOPs, time and money, with the assumptions said."""
    cells = list(cells)
    flops = sum(cell.flops_spent for cell in cells)
    cpu = sum(cell.seconds for cell in cells if not cell.on_gpu)
    gpu = sum(cell.seconds for cell in cells if cell.on_gpu) / 3600
    disk = sum(cell.disk_gb for cell in cells)
    lines = [f"\nbill: {len(cells)} runs, {flops:.3g} FLOPs (exact count), {disk:.2g} GB of checkpoints"]
    if cpu:
        lines.append(f"  {cpu:,.0f} core-seconds of training: {_time(cpu / 2)} on two idle cores")
    if gpu:
        lines.append(
            f"  {gpu:,.0f} GPU-hours, about ${gpu * GPU_DOLLARS_PER_HOUR:,.0f} if an H100 does {GPU_FLOPS:.3g} FLOP/s, "
            f"40 % of its bf16 peak, at ${GPU_DOLLARS_PER_HOUR:.2f} an hour: assumptions, not measurements"
        )
    return "\n".join(lines)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
