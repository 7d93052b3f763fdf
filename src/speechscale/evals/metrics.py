"""From log-likelihoods per item to accuracies with honest intervals.

Enters: `Choice`s and the protocols to read them by. Leaves: `Metric`s, columns of runs.csv.
The one decision worth knowing: an accuracy is never a number alone; it carries its protocol's name, how many items and
pairs it is a mean of, how many of them nothing could decide, a standard error and an interval. Needs no torch.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from speechscale.evals.choices import Choice
from speechscale.evals.intervals import LEVEL, REPLICATES, Clusters, estimate, share_interval, standard_error
from speechscale.evals.protocols import DEFAULT, PROTOCOLS, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Choice accuracy of one set in one direction under one protocol, for one tag ("" = all items).

    Args:
        se: standard error of `estimate`, clustered on pairs; NaN with fewer than two pairs.
        low, high: bootstrap interval, drawn over pairs.
        n_ties: items the protocol could not decide. n_identical: of these, items whose candidates are the same tokens.
        chance: what guessing gets.
    """

    benchmark: str
    set: str
    direction: str
    tag: str
    protocol: str
    estimate: float
    se: float
    low: float
    high: float
    n_items: int
    n_pairs: int
    n_phenomena: int
    n_ties: int
    n_identical: int
    chance: float = 0.5


def measure(
    scored: Iterable[Choice],
    protocols: Sequence[Protocol] = (PROTOCOLS[DEFAULT],),
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = LEVEL,
    chance: float = 0.5,
) -> list[Metric]:
    """A metric per benchmark, set, direction and protocol: first over all items, then per tag.

    A protocol reads the choices of its own layout; a set that was not scored in it has no metric.

    Raises:
        DataError: a protocol that divides by words or seconds where there are none.
    """
    groups: dict[tuple[str, str, str], dict[str, list[Choice]]] = defaultdict(lambda: defaultdict(list))
    for choice in scored:
        tags = groups[choice.benchmark, choice.set, choice.direction]
        tags[""].append(choice)
        if choice.tag:
            tags[choice.tag].append(choice)
    metrics = []
    for (benchmark, name, direction), tags in groups.items():
        for tag in sorted(tags):
            for protocol in protocols:
                chosen = [choice for choice in tags[tag] if choice.layout == protocol.layout]
                if chosen:
                    facts = {"benchmark": benchmark, "set": name, "direction": direction, "tag": tag}
                    settings = {"replicates": replicates, "seed": seed, "level": level}
                    metrics.append(_metric(facts, chosen, protocol, settings, chance))
    return metrics


def _metric(
    facts: dict[str, str], chosen: Sequence[Choice], protocol: Protocol, settings: dict[str, Any], chance: float
) -> Metric:
    clusters = clusters_of(chosen, protocol)
    low, high = share_interval(clusters, protocol.aggregate, **settings)
    return Metric(
        **facts,
        protocol=protocol.name,
        estimate=estimate(clusters, protocol.aggregate),
        se=standard_error(clusters, protocol.aggregate),
        low=low,
        high=high,
        n_items=len(chosen),
        n_pairs=len(clusters),
        n_phenomena=len({choice.phenomenon for choice in chosen}),
        n_ties=int(sum(abs(choice.margin(protocol)) <= protocol.tie_nats for choice in chosen)),
        n_identical=sum(choice.identical for choice in chosen),
        chance=chance_level(chosen, protocol, chance),
    )


def chance_level(chosen: Sequence[Choice], protocol: Protocol, of_items: float) -> float:
    """What guessing gets under a protocol, given what it gets item by item.

    Of pairs whose items are all right: one in (items + 1), the right ending among all of a question.
    """
    if protocol.aggregate != "all":
        return of_items
    sizes = Counter(choice.pair for choice in chosen)
    return math.fsum(1 / (1 + size) for size in sizes.values()) / len(sizes)


def clusters_of(chosen: Sequence[Choice], protocol: Protocol) -> Clusters:
    """Which items are right under a protocol, clustered on pairs."""
    return Clusters.of(
        [choice.correct(protocol) for choice in chosen],
        [choice.pair for choice in chosen],
        [choice.phenomenon for choice in chosen],
    )


def by_phenomenon(scored: Iterable[Choice], protocol: Protocol = PROTOCOLS[DEFAULT]) -> list[dict[str, Any]]:
    """Accuracy of each phenomenon of the sets that have several, as plain dictionaries: estimate, se, n_items.

    What a macro average is a mean of: voices are averaged in each pair first.
    """
    groups: dict[tuple[str, str, str], dict[str, list[Choice]]] = defaultdict(lambda: defaultdict(list))
    for choice in scored:
        if choice.layout == protocol.layout:
            groups[choice.benchmark, choice.set, choice.direction][choice.phenomenon].append(choice)
    aggregate = "pair" if protocol.aggregate == "macro" else protocol.aggregate
    found = []
    for (benchmark, name, direction), phenomena in groups.items():
        for phenomenon, group in phenomena.items() if len(phenomena) > 1 else ():
            clusters = clusters_of(group, protocol)
            se = standard_error(clusters, aggregate)
            found.append(
                {
                    "benchmark": benchmark,
                    "set": name,
                    "direction": direction,
                    "protocol": protocol.name,
                    "phenomenon": phenomenon,
                    "estimate": estimate(clusters, aggregate),
                    "se": None if math.isnan(se) else se,
                    "n_items": len(group),
                }
            )
    return found


def flat_columns(metrics: Iterable[Metric]) -> dict[str, float | int]:
    """Name metrics as in runs.csv: acc_{set}_{direction}[_{tag}], with _se and _n (items).

    A standard error that does not exist (one pair) has no column.
    """
    columns: dict[str, float | int] = {}
    for metric in metrics:
        name = "_".join(part for part in ("acc", metric.set, metric.direction, metric.tag) if part)
        columns[name] = metric.estimate
        if math.isfinite(metric.se):
            columns[f"{name}_se"] = metric.se
        columns[f"{name}_n"] = metric.n_items
    return columns


def metric_records(metrics: Iterable[Metric]) -> list[dict[str, Any]]:
    """Metrics as plain dictionaries, for a record; a value that does not exist is None."""
    return [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(metric).items()}
        for metric in metrics
    ]
