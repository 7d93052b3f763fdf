"""Is one system better than another, on the same items?

Enters: two systems' choices and what their results folders say of them. Leaves: a `Comparison`: per set, direction and
protocol the difference in accuracy with a paired interval, a test, and a sentence.
The one decision worth knowing: what differs besides the model is looked for first. Other data, protocols, precision or
items are named and refused; only who allows them gets numbers, and then every number carries the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.evals.choices import Choice
from speechscale.evals.intervals import LEVEL, REPLICATES, Clusters, estimate
from speechscale.evals.likeness import Key, Scored, join, measured_by_both, notes, shared_protocols, title_of, unlike
from speechscale.evals.paired import PairedDifference, holm, paired_difference
from speechscale.evals.protocols import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One accuracy of both systems on the items they share.

    Args:
        difference: b minus a. p_holm: its p, adjusted for all comparisons made.
        better: "a", "b", or "" for cannot tell.
    """

    benchmark: str
    set: str
    direction: str
    tag: str
    protocol: str
    a: float
    b: float
    difference: PairedDifference
    p_holm: float = 1.0
    better: str = ""
    verdict: str = ""

    @property
    def title(self) -> str:
        """Example: 'sblimp dev ss'"""
        return title_of(self.benchmark, self.set, self.direction, self.tag)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All that was compared.

    Args:
        unlike: what differs though it should not; empty unless it was allowed. notes: what else a reader must know.
    """

    a: str
    b: str
    rows: tuple[Compared, ...]
    protocols: Mapping[str, Mapping[str, Any]]
    unlike: tuple[str, ...]
    notes: tuple[str, ...]
    replicates: int
    seed: int
    level: float

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        content = asdict(self)
        return {"format": "speechscale eval comparison", "format_version": 1, **content, "rows": list(content["rows"])}


def compare(
    a: Scored,
    b: Scored,
    *,
    protocols: Sequence[Protocol] | None = None,
    allow_unlike: bool = False,
    tags: bool = False,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = LEVEL,
) -> Comparison:
    """Compare two systems item by item.

    Args:
        protocols: to decide by; each reads the choices of its layout. None: all that both were measured under, each on
            the benchmarks it was used for.
        allow_unlike: go on where data, protocol definitions, precision, the rule for long items or the items differ, on
            the items both have.
        tags: also per tag; counts as further comparisons.

    Raises:
        DataError: unlike and not allowed (names all fields), nothing in common, an item twice.

    Example: compare(a, b).rows[0].verdict
        -> "b is better by 2.1 [0.8, 3.4] points"
    """
    joined, used = join(a, b), None
    if protocols is None:
        protocols, used = shared_protocols(a, b), measured_by_both(a, b)
    faults = unlike(a, b, protocols, joined)
    if faults and not allow_unlike:
        raise DataError(
            f"{a.name} and {b.name} were not measured alike: {'; '.join(faults)}; evaluate them alike, or allow it "
            "(--allow-unlike) to compare on the items both have"
        )
    rows = [
        _compared(pairs, key, tag, protocol, replicates=replicates, seed=seed, level=level)
        for protocol in protocols
        for key, tag, pairs in _groups(joined.pairs, tags)
        if key[3] == protocol.layout and (used is None or (key[0], protocol.name) in used)
    ]
    if not rows:
        raise DataError(
            f"{a.name} and {b.name} have no scored item in common under {', '.join(p.name for p in protocols)}; "
            "evaluate both on one benchmark with these protocols"
        )
    adjusted = holm([row.difference.p for row in rows])
    judged = []
    for row, p in zip(rows, adjusted, strict=True):
        better, sentence = verdict(a.name, b.name, row.difference, p, len(rows), 1 - level)
        judged.append(replace(row, p_holm=p, better=better, verdict=sentence))
    return Comparison(
        a=a.name,
        b=b.name,
        rows=tuple(judged),
        protocols={protocol.name: protocol.stamp() for protocol in protocols},
        unlike=tuple(faults),
        notes=tuple(notes(a, b, joined)),
        replicates=replicates,
        seed=seed,
        level=level,
    )


def verdict(a: str, b: str, found: PairedDifference, p_holm: float, made: int, alpha: float) -> tuple[str, str]:
    """Who is better ("a", "b" or ""), and one sentence.

    Better is said only where the interval leaves out zero and the adjusted p is at most alpha.
    """
    points = f"{b} minus {a} is {100 * found.estimate:+.1f}"
    if found.pairs_better + found.pairs_worse == 0:
        same = "decide alike on every item" if not found.items_better + found.items_worse else "are equal on every pair"
        return "", f"cannot tell: {a} and {b} {same}"
    if found.low is None or found.high is None:
        return "", f"cannot tell: {points} points; a single pair (of a phenomenon) has no interval"
    interval = f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"
    if found.low <= 0 <= found.high:
        return "", f"cannot tell: {points} {interval} points"
    if p_holm > alpha:
        among = f", adjusted for {made} comparisons" if made > 1 else ""
        return "", f"cannot tell: {points} {interval} points, but p = {p_holm:.2g}{among}"
    if found.estimate > 0:
        return "b", f"{b} is better by {100 * found.estimate:.1f} {interval} points"
    interval = f"[{-100 * found.high:.1f}, {-100 * found.low:.1f}]"
    return "a", f"{a} is better by {-100 * found.estimate:.1f} {interval} points"


def beside_value(estimate: float, low: float | None, high: float | None, value: float) -> str:
    """A measured accuracy held against a printed one (both shares): the interval is of our side alone.

    Example: beside_value(0.62, 0.60, 0.64, 0.613) -> '+0.7 [-1.3, 2.7] points (interval of our side alone)'
    """
    difference = f"{100 * (estimate - value):+.1f}"
    if low is None or high is None:
        return f"{difference} points (no interval)"
    return f"{difference} [{100 * (low - value):.1f}, {100 * (high - value):.1f}] points (interval of our side alone)"


def _groups(
    joined: Mapping[Key, Sequence[tuple[Choice, Choice]]], tags: bool
) -> Iterator[tuple[Key, str, Sequence[tuple[Choice, Choice]]]]:
    for key, pairs in joined.items():
        yield key, "", pairs
        for tag in sorted({choice.tag for choice, _ in pairs} - {""}) if tags else ():
            yield key, tag, [pair for pair in pairs if pair[0].tag == tag]


def _compared(
    pairs: Sequence[tuple[Choice, Choice]], key: Key, tag: str, protocol: Protocol, **settings: Any
) -> Compared:
    decided = [np.array([pair[side].correct(protocol) for pair in pairs]) for side in (0, 1)]
    clusters, phenomena = [pair[0].pair for pair in pairs], [pair[0].phenomenon for pair in pairs]
    aggregate = protocol.aggregate
    items = decided[1] - decided[0]
    if aggregate == "all":
        # The lowest of differences is not the difference of the lowest: whole pairs are decided first.
        decided = [Clusters.of(values.tolist(), clusters, phenomena).lowest for values in decided]
        first = dict(reversed(list(zip(clusters, phenomena, strict=True))))
        clusters, aggregate = list(dict.fromkeys(clusters)), "pair"
        phenomena = [first[pair] for pair in clusters]
    means = [estimate(Clusters.of(values.tolist(), clusters, phenomena), aggregate) for values in decided]
    found = paired_difference(decided[1] - decided[0], clusters, phenomena, aggregate, **settings)
    better, worse = int((items > 0).sum()), int((items < 0).sum())
    found = replace(found, n_items=len(items), items_better=better, items_worse=worse)
    return Compared(
        benchmark=key[0],
        set=key[1],
        direction=key[2],
        tag=tag,
        protocol=protocol.name,
        a=means[0],
        b=means[1],
        difference=found,
    )
