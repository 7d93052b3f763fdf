"""Score a model on the forced choices of a part.

Enters: a model with its vocabulary, the folders of items and of their units. Leaves: a results folder (docs/evals.md),
columns of runs.csv. The one decision worth knowing: runs.csv holds the first protocol of the study; the scores on disk
serve every other one, and `speechscale eval compare` reads a run's folder as it reads any evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechscale.corpus.tables import read_items
from speechscale.evals.benchmarks.benchmark import items_sha256
from speechscale.evals.evaluate import How, evaluate
from speechscale.evals.metrics import flat_columns, metric_records
from speechscale.evals.protocols import get_protocol
from speechscale.evals.results import Stamp, Tested, write_results
from speechscale.evals.weights import weights_sha256
from speechscale.records import Item
from speechscale.skips import SkipLog
from speechscale.speech.unit_files import unit_file_header
from speechscale.speech.units import read_units
from speechscale.study.spec import Evals
from speechscale.tokens.vocabulary import Vocabulary

BENCHMARK = "storyworld"


def take_pairs(items: Sequence[Item], pairs: int) -> list[Item]:
    """The items of the first `pairs` symmetric pairs, in order."""
    chosen = set(list(dict.fromkeys(item.pair for item in items))[:pairs])
    return [item for item in items if item.pair in chosen]


def chosen_items(evals: Evals, items_folder: Path, pairs: int | None = None) -> list[Item]:
    """The items a part asks for, set by set."""
    everything = read_items(items_folder / "items.parquet")
    return [
        item
        for name in evals.sets
        for item in take_pairs([item for item in everything if item.set == name], pairs or evals.pairs)
    ]


def evaluate_sets(
    model: Any,
    vocabulary: Vocabulary,
    evals: Evals,
    *,
    items_folder: Path,
    units_folder: Path,
    context: int,
    out: Path,
) -> dict[str, Any]:
    """Score all sets and directions; write a results folder to `out`.

    Returns:
        `columns` (runs.csv names), `metrics` and `items_dropped`.
    """
    units = units_folder / "units.parquet"
    items, skips = chosen_items(evals, items_folder), SkipLog()
    protocols = [get_protocol(name) for name in evals.protocols]
    scored = evaluate(
        model,
        vocabulary,
        items,
        read_units(units),
        directions=evals.directions,
        protocols=protocols,
        benchmark=BENCHMARK,
        how=How(context=context),
        skips=skips,
    )
    if len(skips):
        skips.write(out / "skips.jsonl")
    if not scored:
        return {"columns": {}, "metrics": [], "items_dropped": len(skips)}
    stamp = Stamp(
        model=out.name,
        model_sha256=weights_sha256(model),
        params_total=sum(p.numel() for p in model.parameters()),
        vocabulary=vocabulary.fingerprint,
        speech_tokenizer=unit_file_header(units)["tokenizer_sha256"],
    )
    tested = Tested(
        task=BENCHMARK,
        title="forced choices of a storyworld",
        sha256=items_sha256(items),
        items=len({(choice.set, choice.id) for choice in scored}),
        dropped=len(skips),
    )
    metrics = write_results(out, scored, {BENCHMARK: protocols}, stamp=stamp, benchmarks={BENCHMARK: tested})
    first = [metric for metric in metrics if metric.protocol == protocols[0].name]
    return {"columns": flat_columns(first), "metrics": metric_records(metrics), "items_dropped": len(skips)}
