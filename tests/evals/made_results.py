"""Results made by hand, for tests of comparing and of tables: every item is right, wrong or undecided as told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from speechscale.evals.choices import Choice, write_choices
from speechscale.evals.likeness import Scored
from speechscale.evals.metrics import measure, metric_records
from speechscale.evals.protocols import PROTOCOLS, Likelihood, Protocol
from speechscale.evals.results import FORMAT, FORMAT_VERSION, RESULTS, SCORES, Results
from speechscale.files import write_json


def likelihood(mean: float, tokens: int = 4) -> Likelihood:
    """Every span and softmax has this mean per token."""
    return Likelihood(
        ending_tokens=tokens,
        whole_tokens=tokens,
        ending_full=mean * tokens,
        whole_full=mean * tokens,
        ending_own=mean * tokens,
        whole_own=mean * tokens,
        end_full=mean,
        end_own=mean,
    )


def choices(
    decisions: str,
    *,
    set: str = "dev",
    benchmark: str = "sblimp",
    direction: str = "ss",
    per_pair: int = 1,
    phenomena: Sequence[str] = ("",),
    protocol: Protocol = PROTOCOLS["speechscale"],
    tag: str = "",
) -> list[Choice]:
    """One item per letter: + right, - wrong, = undecided. Example: "++-" with per_pair=2 -> pairs 0, 0, 1"""
    margins = {"+": 1.0, "-": -1.0, "=": 0.0}
    return [
        Choice(
            benchmark=benchmark,
            id=f"i{number}",
            set=set,
            direction=direction,
            layout=protocol.layout,
            pair=str(number // per_pair),
            tag=tag,
            phenomenon=phenomena[number // per_pair % len(phenomena)],
            good=likelihood(-3 + margins[letter]),
            bad=likelihood(-3.0),
        )
        for number, letter in enumerate(decisions)
    ]


def scored(
    name: str,
    items: Sequence[Choice],
    protocols: Sequence[str] = ("speechscale",),
    *,
    data: str = "d" * 64,
    about: dict[str, Any] | None = None,
    **stamp: Any,
) -> Scored:
    """What a results folder holds. data: checksum of every benchmark; about: more of it; stamp: fields to replace."""
    used = [PROTOCOLS[protocol] for protocol in protocols]
    names = dict.fromkeys(choice.benchmark for choice in items)
    facts = {"task": "sblimp", "title": "sBLIMP", "version": "2021", "paper": "Nguyen 2020", "licence": "CC BY 4.0"}
    results = Results(
        folder=Path(name),
        stamp={
            "model": {"name": name, "sha256": name, "params_total": 1000},
            "vocabulary": "v",
            "speech_tokenizer": "t",
            "precision": "fp32",
            "long": "refuse",
            "bootstrap": {"replicates": 200, "seed": 0, "level": 0.95},
            "versions": {"speechscale": "0.1.0"},
            **stamp,
        },
        benchmarks={
            name: {**facts, "sha256": data, "items": len(items), "dropped": 0, "chance": 0.5, **(about or {})}
            for name in names
        },
        protocols={p.name: {**p.stamp(), "source": p.source} for p in used},
        metrics=metric_records(measure(items, used, replicates=200)),
    )
    return Scored(name=name, results=results, choices=list(items))


def write(folder: Path, side: Scored) -> Path:
    """The same as a folder."""
    named = ("stamp", "benchmarks", "protocols", "metrics")
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **{n: getattr(side.results, n) for n in named}}
    write_json(folder / RESULTS, content)
    write_choices(folder / SCORES, side.choices)
    return folder


def without(side: Scored, *ids: str) -> Scored:
    """The same results without some items."""
    return replace(side, choices=[choice for choice in side.choices if choice.id not in ids])
