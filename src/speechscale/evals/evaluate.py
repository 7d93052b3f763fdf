"""Score a model on items: every direction, every layout, item by item, going on where an earlier run was stopped.

Enters: a model with its vocabulary, items, the units of their recordings. Leaves: `Choice`s, and a reason for every
item that has none. The one decision worth knowing: every direction is scored on the same items, and a set is scored in
whatever directions exist for it and its model; what was left out is counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from speechscale.errors import DataError
from speechscale.evals.choices import Choice
from speechscale.evals.cuts import Cut, cut_items
from speechscale.evals.layouts import Candidate, Direction, candidates, item_directions, require_spellable
from speechscale.evals.protocols import DEFAULT, LIKELIHOOD_FIELDS, PROTOCOLS, Layout, Likelihood, Protocol, layouts_of
from speechscale.evals.reading import Reader
from speechscale.evals.score import BATCH_TOKENS, Long, Precision, score_stream
from speechscale.evals.score_journal import Journal
from speechscale.progress import Progress, Watch
from speechscale.records import Item, UnitTable
from speechscale.skips import SkipLog
from speechscale.tokens.vocabulary import Vocabulary

_COUNTS = ("ending_words", "whole_words", "ending_s", "whole_s")
REMEDY = "speak or cut the item again, or use a longer context"


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How to score; nothing in it changes a decision but by rounding, except `long`.

    Args:
        precision: "bf16" runs the body in bf16. long: items beyond the context are dropped with a reason ("refuse") or
            scored by windows. batch_tokens: of a forward pass. context: longest item, if less than the model's.
        compiled: torch.compile each block, for long evaluations.
    """

    precision: Precision = "fp32"
    long: Long = "refuse"
    batch_tokens: int = BATCH_TOKENS
    context: int | None = None
    compiled: bool = False


def evaluate(
    model: Any,
    vocabulary: Vocabulary,
    items: Sequence[Item],
    table: UnitTable | None,
    *,
    directions: Iterable[Direction] | None = None,
    strict: bool = True,
    protocols: Iterable[Protocol] = (PROTOCOLS[DEFAULT],),
    benchmark: str = "",
    how: How | None = None,
    skips: SkipLog | None = None,
    journal: Journal | None = None,
    watch: Watch | None = None,
) -> list[Choice]:
    """Score items in every wanted direction that exists for them and that the vocabulary can write.

    Args:
        table: units of the recordings, rows named as `cuts.candidate_id`; None: nothing was spoken.
        directions: None: all that exist.
        strict: text in a language that the model's tokenizer does not know is refused in directions that were asked
            for; otherwise, and where all were, it is left out with a reason.
        protocols: their layouts are scored, one forward pass each.
        skips: told of each item and direction that is left out.
        journal: where finished items are kept.

    Raises:
        DataError: an item that cannot be used, a text tokenizer of another language, weights that have diverged.
    """
    how, skips = how or How(), SkipLog() if skips is None else skips
    cuts = None if table is None else cut_items(items, table)
    wanted = None if directions is None else set(directions)
    plan: list[tuple[Direction, Layout, list[Candidate]]] = []
    for name in dict.fromkeys(item.set for item in items):
        own = [item for item in items if item.set == name]
        for direction in item_directions(own, vocabulary, spoken=table is not None):
            if wanted is None or direction in wanted:
                if "t" in direction and not _spellable(
                    own, vocabulary, direction, skips, must=strict and wanted is not None
                ):
                    continue
                plan += _planned(own, cuts, vocabulary, direction, protocols, model, how, skips)
    tally = _Tally(total=sum(len(laid_out) // 2 for _, _, laid_out in plan), watch=watch)
    scored: list[Choice] = []
    reader = Reader(model, vocabulary, how.precision, compiled=how.compiled)
    for direction, layout, laid_out in plan:
        done = {} if journal is None else journal.read(benchmark, direction, layout)
        fresh = {c.id: c for c in _score(model, reader, laid_out, done, benchmark, how, journal, tally)}
        scored += [done.get(c.item.id) or fresh[c.item.id] for c in laid_out[::2]]
    return scored


def _spellable(items: Sequence[Item], vocabulary: Vocabulary, direction: str, skips: SkipLog, *, must: bool) -> bool:
    """Whether the model knows the language of the items; if it `must`, not knowing it is an error."""
    try:
        require_spellable(items, vocabulary)
    except DataError as error:
        if must:
            raise
        reason, _, remedy = str(error).rpartition("; ")
        for item in items:
            skips.add(f"{item.id} ({direction})", reason, remedy)
        return False
    return True


def _planned(
    items: Sequence[Item],
    cuts: Mapping[str, Cut | str] | None,
    vocabulary: Vocabulary,
    direction: Direction,
    protocols: Iterable[Protocol],
    model: Any,
    how: How,
    skips: SkipLog,
) -> Iterator[tuple[Direction, Layout, list[Candidate]]]:
    context = None if how.long == "windows" else how.context or model.config.max_position_embeddings
    for layout in layouts_of(protocols):

        def drop(id: str, reason: str, layout: Layout = layout) -> None:
            skips.add(f"{id} ({direction}, {layout})", reason, REMEDY)

        laid_out = candidates(items, cuts, vocabulary, direction, layout=layout, on_drop=drop, max_tokens=context)
        if laid_out:
            yield direction, layout, laid_out


def _score(
    model: Any,
    reader: Reader,
    laid_out: Sequence[Candidate],
    done: Mapping[str, Choice],
    benchmark: str,
    how: How,
    journal: Journal | None,
    tally: _Tally,
) -> Iterator[Choice]:
    """Choices of the items that are not done, as they finish."""
    todo = [candidate for candidate in laid_out if candidate.item.id not in done]
    tally.kept += (len(laid_out) - len(todo)) // 2
    stream = score_stream(
        model,
        [candidate.ids for candidate in todo],
        [candidate.prompt_tokens for candidate in todo],
        batch_tokens=how.batch_tokens,
        long=how.long,
        names=[candidate.name for candidate in todo],
        reader=reader,
    )
    halves: dict[int, dict[str, float]] = {}
    for number, values in stream:
        halves[number] = values
        good, bad = number - number % 2, number - number % 2 + 1
        if good in halves and bad in halves:
            choice = join(todo[good], halves.pop(good), todo[bad], halves.pop(bad), benchmark)
            if journal is not None:
                journal.add(choice)
            tally.tell()
            yield choice
    assert not halves, "an item has one candidate only"


def join(
    good: Candidate, good_values: Mapping[str, float], bad: Candidate, bad_values: Mapping[str, float], benchmark: str
) -> Choice:
    """One choice of both candidates and the fields of `Scores` of each."""
    assert (good.item.id, good.side, bad.side) == (bad.item.id, "good", "bad")
    item = good.item
    return Choice(
        benchmark=benchmark,
        id=item.id,
        set=item.set,
        direction=good.direction,
        layout=good.layout,
        pair=item.pair,
        tag=item.tag,
        phenomenon=item.phenomenon,
        speaker=item.speaker,
        identical=good.ids.tolist() == bad.ids.tolist(),
        good=_likelihood(good, good_values),
        bad=_likelihood(bad, bad_values),
    )


def _likelihood(candidate: Candidate, values: Mapping[str, float]) -> Likelihood:
    numbers: dict[str, Any] = {name: values[name] for name in LIKELIHOOD_FIELDS if name in values}
    return Likelihood(**numbers, **{name: getattr(candidate, name) for name in _COUNTS})


@dataclass(slots=True)
class _Tally:
    """Progress over all directions and layouts."""

    total: int
    watch: Watch | None
    done: int = 0
    kept: int = 0
    began: float = field(default_factory=time.monotonic)

    def tell(self) -> None:
        self.done += 1
        if self.watch is not None:
            self.watch(
                Progress(
                    items_done=self.done,
                    items_kept=self.kept,
                    items_total=self.total,
                    wall_s=time.monotonic() - self.began,
                )
            )
