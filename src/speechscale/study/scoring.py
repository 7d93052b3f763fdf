"""Score a model on the forced choices of a part.

Enters: a model with its vocabulary, the folders of items and of their units. Leaves: metrics, per-item rows on disk.
The one decision worth knowing: a set is scored in every wanted direction that exists for it and that the vocabulary
can write; what was left out is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechscale.corpus.tables import read_items
from speechscale.evals.metrics import Choice, Metric, choices, flat_columns, measure, metric_records, write_choices
from speechscale.evals.score import score_candidates
from speechscale.evals.layouts import candidates, item_directions
from speechscale.records import Item, UnitTable
from speechscale.skips import SkipLog
from speechscale.speech.units import read_units
from speechscale.study.spec import Evals
from speechscale.tokens.vocabulary import Vocabulary


def take_pairs(items: Sequence[Item], pairs: int) -> list[Item]:
    """The items of the first `pairs` symmetric pairs, in order."""
    chosen = set(list(dict.fromkeys(item.pair for item in items))[:pairs])
    return [item for item in items if item.pair in chosen]


def evaluate(
    model: Any, vocabulary: Vocabulary, evals: Evals, *, items_folder: Path, units_folder: Path, context: int, out: Path
) -> dict[str, Any]:
    """Score all sets and directions; write scores.parquet and skips.jsonl to `out`.

    Returns:
        `columns` (runs.csv names), `metrics` (with protocols) and `items_dropped`.
    """
    table = read_units(units_folder / "units.parquet")
    everything = read_items(items_folder / "items.parquet")
    scored: list[Choice] = []
    skips = SkipLog()
    for name in evals.sets:
        wanted = take_pairs([item for item in everything if item.set == name], evals.pairs)
        scored += _score_set(model, vocabulary, wanted, table, evals, context, skips)
    metrics: list[Metric] = measure(scored)
    if scored:
        write_choices(out / "scores.parquet", scored, {"vocabulary": vocabulary.fingerprint})
    if len(skips):
        skips.write(out / "skips.jsonl")
    return {"columns": flat_columns(metrics), "metrics": metric_records(metrics), "items_dropped": len(skips)}


def _score_set(
    model: Any,
    vocabulary: Vocabulary,
    items: Sequence[Item],
    table: UnitTable,
    evals: Evals,
    context: int,
    skips: SkipLog,
) -> list[Choice]:
    scored = []
    for direction in item_directions(items, vocabulary):
        if direction not in evals.directions:
            continue

        def drop(id: str, reason: str, direction: str = direction) -> None:
            skips.add(f"{id} ({direction})", reason, "speak the item again or use a longer context")

        laid_out = candidates(items, table, vocabulary, direction, on_drop=drop, max_tokens=context)
        if laid_out:
            scored += choices(laid_out, score_candidates(model, laid_out))
    return scored
