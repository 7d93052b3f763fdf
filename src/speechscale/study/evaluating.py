"""`speechscale eval run`: one model, any benchmarks, one results folder.

Enters: a located model, benchmarks. Leaves: a results folder. The one decision worth knowing: the recordings of a
benchmark are encoded once per speech tokenizer, beside the benchmark, so the next checkpoint costs its forward passes
only.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from speechscale.errors import DataError
from speechscale.evals.benchmarks.benchmark import Benchmark
from speechscale.evals.choices import Choice
from speechscale.evals.evaluate import How, evaluate
from speechscale.evals.layouts import Direction, item_directions
from speechscale.evals.protocols import DEFAULT, Protocol, get_protocol
from speechscale.evals.results import (
    RESULTS,
    SKIPS,
    Results,
    Stamp,
    Tested,
    read_results,
    write_results,
)
from speechscale.evals.score_journal import Journal, require_same
from speechscale.evals.weights import weights_sha256
from speechscale.files import held_alone, write_json
from speechscale.model.anatomy import is_tied
from speechscale.model.slm import load_model
from speechscale.progress import Watch
from speechscale.records import Item
from speechscale.skips import SkipLog
from speechscale.speech.units import SpeechTokenizer
from speechscale.study.devices import resolved
from speechscale.study.drawing import drawn
from speechscale.study.located import Located
from speechscale.tokens.vocabulary import Vocabulary

RECIPE = "recipe.json"
WatchOf = Callable[[str], AbstractContextManager[Watch]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be scored.

    Args:
        directions: None: all that exist. protocols: names (see `get_protocol`); none: each benchmark's own and ours.
        limit: pairs per set, drawn with the seed; None: all.
    """

    directions: tuple[Direction, ...] | None = None
    protocols: tuple[str, ...] = ()
    limit: int | None = None
    seed: int = 0
    how: How = field(default_factory=How)
    device: str = "auto"
    workers: int = 1


def run_benchmarks(
    located: Located, benchmarks: Mapping[str, Benchmark], out: Path, wanted: Wanted, *, watch_of: WatchOf
) -> Results:
    """Score a model on benchmarks and write a results folder; the same call goes on after a kill.

    Args:
        benchmarks: by the name they get in the results. watch_of: makes a watcher for a piece of work by its name.

    Raises:
        DataError: see `evaluate`; no item at all could be scored. StaleStep: `out` holds results of another recipe.
    """
    vocabulary = located.load_vocabulary()
    protocols = {name: _protocols(wanted, benchmark, vocabulary) for name, benchmark in benchmarks.items()}
    model, stamp = _loaded(located, vocabulary, wanted)
    recipe = _recipe(stamp, benchmarks, protocols, wanted)
    with held_alone(out, "is scoring into it"):
        if (out / RESULTS).is_file():
            require_same(out / RECIPE, recipe, "choose another output or delete it")
            return read_results(out)
        journal = Journal(out / ".journal", recipe)
        scored: list[Choice] = []
        skips, tested = SkipLog(), dict[str, Tested]()
        try:
            for name, benchmark in benchmarks.items():
                before, own = len(skips), protocols[name]
                found = _one(model, vocabulary, located, name, benchmark, own, wanted, skips, journal, watch_of)
                tested[name] = Tested.of(benchmark.facts, benchmark.sha256, found, len(skips) - before)
                scored += found
        finally:
            journal.close()
        skips.write(out / SKIPS)
        if not scored:
            raise DataError(f"not one item could be scored: {skips.first() or 'no direction exists for these items'}")
        write_json(out / RECIPE, recipe)
        write_results(out, scored, protocols, stamp=stamp, benchmarks=tested)
        shutil.rmtree(out / ".journal")
        return read_results(out)


def _loaded(located: Located, vocabulary: Vocabulary, wanted: Wanted) -> tuple[Any, Stamp]:
    """The model on its device, and what is said of it in every result."""
    tokenizer = None
    if located.speech_tokenizer is not None and vocabulary.num_units:
        tokenizer = SpeechTokenizer.load(located.speech_tokenizer)
        require_same_units(tokenizer, vocabulary, located)
    model = load_model(located.folder)
    stamp = Stamp(
        model=located.name,
        model_sha256=weights_sha256(model),
        params_total=sum(p.numel() for p in model.parameters()),
        vocabulary=vocabulary.fingerprint,
        speech_tokenizer=None if tokenizer is None else tokenizer.fingerprint,
        precision=wanted.how.precision,
        long=wanted.how.long,
        seed=wanted.seed,
    )
    if wanted.how.precision == "bf16" and not is_tied(model):
        model.base_model.to(torch.bfloat16)  # no second copy on the device; a tied head needs its rows in fp32
    return model.to(resolved(wanted.device)), stamp


def _one(
    model: Any,
    vocabulary: Vocabulary,
    located: Located,
    name: str,
    benchmark: Benchmark,
    protocols: Sequence[Protocol],
    wanted: Wanted,
    skips: SkipLog,
    journal: Journal,
    watch_of: WatchOf,
) -> list[Choice]:
    table = None
    speech = wanted.directions is None or any("s" in direction for direction in wanted.directions)
    items = drawn(benchmark.items(), wanted.limit, wanted.seed)
    if benchmark.has_audio and vocabulary.num_units and speech:
        chosen = None if wanted.limit is None else items
        with watch_of(f"{name}: encoded") as watch:
            table = benchmark.units(located.need_tokenizer(), items=chosen, workers=wanted.workers, watch=watch)
    _tell_lacking(name, items, vocabulary, wanted, skips, spoken=table is not None)
    with watch_of(f"{name}: scored") as watch:
        return evaluate(
            model,
            vocabulary,
            items,
            table,
            directions=wanted.directions,
            protocols=protocols,
            benchmark=name,
            how=wanted.how,
            skips=skips,
            journal=journal,
            watch=watch,
        )


def _tell_lacking(
    name: str, items: Sequence[Item], vocabulary: Vocabulary, wanted: Wanted, skips: SkipLog, *, spoken: bool
) -> None:
    """Note the directions that were asked for and that a set does not have."""
    for group in dict.fromkeys(item.set for item in items):
        own = [item for item in items if item.set == group]
        possible = item_directions(own, vocabulary, spoken=spoken)
        for direction in wanted.directions or ():
            if direction not in possible:
                there = ", ".join(possible) or "none"
                reason = f"no item has this direction with this model; there are: {there}"
                skips.add(f"{name}: set '{group}' ({direction})", reason, "ask for one of these, or another model")


def _protocols(wanted: Wanted, benchmark: Benchmark, vocabulary: Vocabulary) -> list[Protocol]:
    """Those asked for; else ours and the benchmark's, where the vocabulary has the markers it wants."""
    if wanted.protocols:
        return [get_protocol(name) for name in dict.fromkeys(wanted.protocols)]
    usual = [get_protocol(name) for name in dict.fromkeys((DEFAULT, benchmark.facts.protocol))]
    return [p for p in usual if p.layout.markers == "crossing" or vocabulary.SPEECH is not None]


def require_same_units(tokenizer: SpeechTokenizer, vocabulary: Vocabulary, located: Located) -> None:
    """Raise DataError for a tokenizer of another number of units than the model's."""
    if tokenizer.num_units != vocabulary.num_units:
        raise DataError(
            f"{located.speech_tokenizer} makes {tokenizer.num_units} units, the model {located.folder} was trained on "
            f"{vocabulary.num_units}; give the tokenizer that made its units"
        )


def _recipe(
    stamp: Stamp, benchmarks: Mapping[str, Benchmark], protocols: Mapping[str, Sequence[Protocol]], wanted: Wanted
) -> dict[str, Any]:
    """What decides the numbers; not devices, workers, batches and versions."""
    return {
        "stamp": {key: value for key, value in stamp.record().items() if key != "versions"},
        "benchmarks": {name: benchmark.sha256 for name, benchmark in benchmarks.items()},
        "protocols": {name: {p.name: p.stamp() for p in own} for name, own in protocols.items()},
        "directions": wanted.directions,
        "limit": wanted.limit,
    }
