"""Choices scored while a model is trained: a fixed subset of a task at each check, on every process of the run.

Enters: benchmark folders or a study's own sets, the vocabulary that is trained. Leaves: a `Probes`, which a run calls
with its model; numbers per task, set and direction, each with its standard error.
The one decision worth knowing: a probe only reads. It draws no random number once the subset is drawn, and whatever
goes wrong in it is a note in the log, never the end of a training.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.evals.benchmarks.benchmark import Benchmark, open_benchmark
from speechscale.evals.choices import Choice
from speechscale.evals.evaluate import How, evaluate
from speechscale.evals.intervals import estimate, standard_error
from speechscale.evals.layouts import item_directions
from speechscale.evals.metrics import chance_level, clusters_of
from speechscale.evals.protocols import Protocol, get_protocol
from speechscale.records import Item, UnitTable
from speechscale.settings import nearest
from speechscale.skips import SkipLog
from speechscale.speech.units import SpeechTokenizer
from speechscale.study.benchmarks import Asked, column_name
from speechscale.study.drawing import draw_items
from speechscale.study.spec import Evals
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.train.job import ProbeTask
from speechscale.train.parallel import SOLO, Group, is_sharded

Numbers = dict[str, Any]
"""{"estimate", "se" (None below two pairs), "n" (items), "chance"}, and mappings of them by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSet:
    """One set of one task as it is scored.

    Args:
        task: its name in the log, "" for a study's own sets. directions: those it has, of those that are wanted.
        table: units of its recordings; None for text alone. every: checks from one scoring to the next.
    """

    task: str
    name: str
    items: Sequence[Item]
    table: UnitTable | None
    directions: Sequence[Any]
    protocol: Protocol
    how: How
    chance: float = 0.5
    every: int = 1


@dataclass(slots=True, kw_only=True)
class Probes:
    """Scores its sets when a run asks; see `train.selection.ProbeHook`."""

    sets: Sequence[ProbeSet]
    vocabulary: Vocabulary
    group: Group = SOLO
    _notes: dict[str, bool] = field(default_factory=dict)

    def __call__(self, model: Any, number: int, last: bool) -> Mapping[str, Any]:
        """Score what is due at this check; the last one has everything.

        The processes share the items of each set. Of a model that is itself shared out every process scores all, in
        the same order, because each of its blocks needs them all.
        """
        found: Numbers = {}
        for entry in self.sets:
            if number % entry.every and not last:
                continue
            for direction, numbers in self._score(model, entry).items():
                level = found.setdefault(entry.task, {}) if entry.task else found
                level.setdefault(entry.name, {})[direction] = numbers
        return found

    def notes(self) -> list[str]:
        """What went wrong or was left out, each once."""
        fresh = [text for text, told in self._notes.items() if not told]
        self._notes.update(dict.fromkeys(fresh, True))
        return fresh

    def _score(self, model: Any, entry: ProbeSet) -> dict[str, Numbers]:
        alone = self.group.world == 1 or is_sharded(model)
        own = entry.items if alone else shared_out(entry.items, self.group)
        choices, notes = self._choices(model, entry, own)
        heard = [(choices, notes)] if alone else self.group.gather((choices, notes))
        for _, told in heard:
            for text in told:
                self._notes.setdefault(f"probe {entry.task or 'of the study'}, {entry.name}: {text}", False)
        scored = [choice for part, _ in heard for choice in part]
        measured = {}
        for direction in entry.directions:
            chosen = [choice for choice in scored if choice.direction == direction]
            if chosen:
                measured[direction] = _measured(chosen, entry)
        return measured

    def _choices(self, model: Any, entry: ProbeSet, items: Sequence[Item]) -> tuple[list[Choice], list[str]]:
        skips = SkipLog()
        try:
            scored = evaluate(
                model,
                self.vocabulary,
                items,
                entry.table,
                directions=entry.directions,
                protocols=(entry.protocol,),
                how=entry.how,
                skips=skips,
            )
        except DataError as error:
            return [], [f"not scored ({error})"]
        return scored, [f"left out {skip.id}: {skip.reason}" for skip in skips]


def _measured(chosen: Sequence[Choice], entry: ProbeSet) -> Numbers:
    clusters = clusters_of(chosen, entry.protocol)
    se = standard_error(clusters, entry.protocol.aggregate)
    return {
        "estimate": estimate(clusters, entry.protocol.aggregate),
        "se": None if math.isnan(se) else se,
        "n": len(chosen),
        "chance": chance_level(chosen, entry.protocol, entry.chance),
    }


def shared_out(items: Sequence[Item], group: Group) -> list[Item]:
    """This process' whole pairs. Example: pairs a b c on two processes -> a c on the first, b on the second"""
    pairs = {pair: i for i, pair in enumerate(dict.fromkeys(item.pair for item in items))}
    return [item for item in items if pairs[item.pair] % group.world == group.rank]


def open_probes(
    tasks: Mapping[str, ProbeTask],
    vocabulary: Vocabulary,
    group: Group = SOLO,
    *,
    context: int | None = None,
    trained_on: Collection[str] = (),
) -> Probes | None:
    """The probes of a job; None where there are none. Called by all processes.

    Recordings that were never encoded with the tokenizer are encoded here, by the first process.

    Args:
        context: longest item, in tokens. trained_on: fingerprints of the speech tokenizers whose units are trained on,
            where they are known.

    Raises:
        DataError: no such benchmark, set, direction or protocol, or units of another tokenizer.
    """
    if not tasks:
        return None
    problem: DataError | None = None
    if group.leads:  # encodes and checks; the others then read what is there
        try:
            for name, task in tasks.items():
                _require_trained_on(name, task, trained_on)
            sets = [entry for name, task in tasks.items() for entry in _sets_of(name, task, vocabulary, context)]
        except DataError as error:
            problem = error
    problem = group.gather(problem)[0]
    if problem is not None:
        raise problem
    if not group.leads:
        sets = [entry for name, task in tasks.items() for entry in _sets_of(name, task, vocabulary, context)]
    return Probes(sets=sets, vocabulary=vocabulary, group=group)


def _require_trained_on(name: str, task: ProbeTask, trained_on: Collection[str]) -> None:
    """Two tokenizers of equally many units pass for each other; their fingerprints do not."""
    if not (task.speech_tokenizer and trained_on):
        return
    made = SpeechTokenizer.load(Path(task.speech_tokenizer)).fingerprint
    if made not in trained_on:
        stores = ", ".join(sorted(other[:12] for other in trained_on))
        raise DataError(
            f"probes.{name}: tokenizer {task.speech_tokenizer} is {made[:12]}, the units that are trained on are of "
            f"{stores}; give the tokenizer that the token store was made with"
        )


def _sets_of(name: str, task: ProbeTask, vocabulary: Vocabulary, context: int | None) -> Iterable[ProbeSet]:
    benchmark = open_benchmark(Path(task.benchmark))
    everything = benchmark.items()
    known = list(dict.fromkeys(item.set for item in everything))
    for wanted in task.sets:
        if wanted not in known:
            raise DataError(f"probes.{name}: {benchmark.folder} has no set '{wanted}'{nearest(wanted, known)}")
    table = _units_of(name, task, benchmark, vocabulary)
    protocol = get_protocol(task.protocol)
    how = How(precision=task.precision, context=context)
    for set_name in task.sets or known:
        items = draw_items([item for item in everything if item.set == set_name], task.seed, least=task.items)
        possible = item_directions(items, vocabulary, spoken=table is not None)
        chosen = [d for d in possible if not task.directions or d in task.directions]
        if not chosen:
            raise DataError(
                f"probes.{name}: set '{set_name}' has no direction of {', '.join(task.directions) or 'any'} for this "
                f"vocabulary; it has: {', '.join(possible) or 'none'}; change probes.{name}.directions or sets"
            )
        yield ProbeSet(
            task=name,
            name=set_name,
            items=items,
            table=None if table is None else _rows_of(table, items),
            directions=chosen,
            protocol=protocol,
            chance=benchmark.facts.chance,
            every=task.every,
            how=how,
        )


def _units_of(name: str, task: ProbeTask, benchmark: Benchmark, vocabulary: Vocabulary) -> UnitTable | None:
    """Units of the recordings; None where no direction needs them."""
    if not benchmark.has_audio or not vocabulary.num_units or set(task.directions) == {"tt"}:
        return None
    if not task.speech_tokenizer:
        raise DataError(
            f"probes.{name}: {benchmark.folder} holds recordings; give probes.{name}.speech_tokenizer, the folder of "
            "the tokenizer whose units are trained on, or directions = ['tt']"
        )
    table = benchmark.units(Path(task.speech_tokenizer), workers=0)
    if table.num_units != vocabulary.num_units:
        raise DataError(
            f"probes.{name}: tokenizer {task.speech_tokenizer} has {table.num_units} units, the vocabulary that is "
            f"trained {vocabulary.num_units}; give the tokenizer that the token store was made with"
        )
    return table


def _rows_of(table: UnitTable, items: Sequence[Item]) -> UnitTable:
    """The rows of these items; a row is called ITEM/PART."""
    wanted = {item.id for item in items}
    return table.take(row for row, id in enumerate(table.ids) if id.rpartition("/")[0] in wanted)


def study_probes(evals: Evals, vocabulary: Vocabulary, asked: Sequence[Asked], *, context: int) -> Probes | None:
    """The probes of a study's run: what it is asked at its end, in the first of its protocols; None where they are off.

    All runs of a part are probed on the same items.
    """
    if not evals.probe_pairs:
        return None
    sets = []
    for one in asked:
        for name in dict.fromkeys(item.set for item in one.items):
            own = [item for item in one.items if item.set == name]
            items = draw_items(own, 0, pairs=evals.probe_pairs)
            possible = item_directions(items, vocabulary, spoken=one.table is not None)
            directions = [d for d in one.directions(evals, vocabulary) if d in possible]
            if directions:
                sets.append(
                    ProbeSet(
                        task="",
                        name=column_name(one.name, name),
                        items=items,
                        table=None if one.table is None else _rows_of(one.table, items),
                        directions=directions,
                        protocol=get_protocol(evals.protocols[0]),
                        chance=one.facts.chance,
                        how=How(context=context),
                    )
                )
    return Probes(sets=sets, vocabulary=vocabulary) if sets else None
