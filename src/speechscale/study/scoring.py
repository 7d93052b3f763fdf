"""Score a model on the forced choices of a part.

Enters: a model with its vocabulary, the folders of items and of their units. Leaves: a results folder (docs/evals.md),
columns of runs.csv. The one decision worth knowing: runs.csv holds the first protocol of the study; the scores on disk
serve every other one, and `speechscale eval compare` reads a run's folder as it reads any evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechscale.corpus.tables import read_items
from speechscale.errors import DataError
from speechscale.evals.benchmarks.benchmark import items_sha256
from speechscale.evals.choices import Choice
from speechscale.evals.evaluate import How, evaluate
from speechscale.evals.layouts import Direction, require_spellable
from speechscale.evals.metrics import flat_columns, metric_records
from speechscale.evals.protocols import get_protocol
from speechscale.evals.results import Stamp, Tested, write_results
from speechscale.evals.weights import weights_sha256
from speechscale.records import Item
from speechscale.skips import SkipLog
from speechscale.speech.unit_files import unit_file_header
from speechscale.speech.units import read_units
from speechscale.study.benchmarks import PREFIX, STORYWORLD, Asked, asked_of, columns_of
from speechscale.study.spec import Evals
from speechscale.tokens.vocabulary import Vocabulary


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
    model: Any, vocabulary: Vocabulary, evals: Evals, inputs: Mapping[str, Path], *, context: int, out: Path
) -> dict[str, Any]:
    """Score all sets and benchmarks in all directions; write a results folder to `out`.

    Args:
        inputs: of the step: items and item units of a storyworld, and steps of `benchmarks.make_benchmark`.

    Returns:
        `columns` (runs.csv names), `metrics` and `items_dropped`.
    """
    protocols = [get_protocol(name) for name in evals.protocols]
    scored: list[Choice] = []
    skips, tested = SkipLog(), dict[str, Tested]()
    world = _storyworld(evals, inputs)
    for asked in [*([] if world is None else [world]), *asked_of(inputs)]:
        before = len(skips)
        own = evaluate(
            model,
            vocabulary,
            asked.items,
            asked.table,
            directions=_possible(evals, asked, vocabulary),
            protocols=protocols,
            benchmark=asked.name,
            how=How(context=context),
            skips=skips,
        )
        scored += own
        tested[asked.name] = Tested.of(asked.facts, asked.sha256, own, len(skips) - before)
    if len(skips):
        skips.write(out / "skips.jsonl")
    if not scored:
        return {"columns": {}, "metrics": [], "items_dropped": len(skips)}
    stamp = Stamp(
        model=out.name,
        model_sha256=weights_sha256(model),
        params_total=sum(p.numel() for p in model.parameters()),
        vocabulary=vocabulary.fingerprint,
        speech_tokenizer=_tokenizer(inputs),
    )
    metrics = write_results(out, scored, dict.fromkeys(tested, protocols), stamp=stamp, benchmarks=tested)
    first = columns_of(metric for metric in metrics if metric.protocol == protocols[0].name)
    return {"columns": flat_columns(first), "metrics": metric_records(metrics), "items_dropped": len(skips)}


def _storyworld(evals: Evals, inputs: Mapping[str, Path]) -> Asked | None:
    """The study's own sets, as a benchmark."""
    items = next((path for name, path in inputs.items() if name.startswith("items/")), None)
    units = next((path for name, path in inputs.items() if name.startswith("item-units/")), None)
    if items is None or units is None:
        return None
    chosen = chosen_items(evals, items)
    return Asked(
        name=STORYWORLD.task,
        facts=STORYWORLD,
        sha256=items_sha256(chosen),
        items=chosen,
        table=read_units(units / "units.parquet"),
    )


def _possible(evals: Evals, asked: Asked, vocabulary: Vocabulary) -> list[Direction]:
    """The directions asked for; of a benchmark in a language that a text tokenizer does not know only speech."""
    try:
        require_spellable(asked.items, vocabulary)
    except DataError:
        return [direction for direction in evals.directions if direction == "ss"]
    return list(evals.directions)


def _tokenizer(inputs: Mapping[str, Path]) -> str | None:
    """Fingerprint of the speech tokenizer that made what was heard."""
    for name, path in inputs.items():
        if name.startswith(("item-units/", PREFIX)) and (path / "units.parquet").is_file():
            return str(unit_file_header(path / "units.parquet")["tokenizer_sha256"])
    return None
