"""Two models on the same documents of lm-eval: differences with errors.

Enters: what `runs.run_tasks` found for each. Leaves: a `Difference` per task, metric and filter. The one decision worth
knowing: any metric will do. Decisions (0 to 1) and tasks of our own have the errors of `eval compare`, other means
theirs in closed form; whatever else lm-eval computes (perplexity, F1) is computed anew on every replicate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from speechscale.evals.harness.exported_utils import decided
from speechscale.evals.harness.runs import Ran, Tasks
from speechscale.evals.intervals import LEVEL, REPLICATES, Clusters, bootstrap, standard_error
from speechscale.evals.paired import paired_difference
from speechscale.evals.protocols import Aggregate


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    """How intervals are drawn."""

    replicates: int = REPLICATES
    seed: int = 0
    level: float = LEVEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One metric of one task, or of a group that lm-eval averages.

    Args:
        text_lm, slm: the metric. difference: slm - text_lm.
        se, low, high: of the difference, over documents ("pair"s of ours, within their phenomenon where the mean is
            over phenomena); NaN below two. Where no decision changed the interval is an exact bound, see `paired`.
        documents: of ours, the items. changed: those whose value differs.
        tasks: how many the number is the mean of.
    """

    task: str
    metric: str
    filter: str
    higher_is_better: bool | None
    text_lm: float
    slm: float
    difference: float
    se: float
    low: float
    high: float
    documents: int
    changed: int
    tasks: int = 1


def compare(tasks: Tasks, before: Ran, after: Ran, sampling: Resampling) -> list[Difference]:
    """Differences of every task, then of the groups that lm-eval averages itself."""
    rows = [row for name in tasks.tasks for row in _differences(name, tasks.tasks[name], before, after, sampling)]
    return rows + [row for name in tasks.groups for row in _group(name, tasks.groups[name], rows, sampling)]


def _differences(name: str, task: Any, before: Ran, after: Ran, sampling: Resampling) -> list[Difference]:
    old, new = before.samples[name], after.samples[name]
    for one, other in zip(old, new, strict=True):
        assert (one["doc_hash"], one["filter"]) == (other["doc_hash"], other["filter"]), f"{name}: other documents"
    found = []
    metadata = task.config.metadata or {}
    for filter_name in dict.fromkeys(sample["filter"] for sample in old):
        pairs = [(a, b) for a, b in zip(old, new, strict=True) if a["filter"] == filter_name]
        for metric in pairs[0][0]["metrics"]:
            aggregate = task.aggregation().get(metric)
            key = f"{metric},{filter_name}"
            text_lm, slm = float(before.results[name][key]), float(after.results[name][key])
            values = _values(pairs, metric, metadata)
            se, low, high = _spread(values, aggregate, sampling)
            found.append(
                Difference(
                    task=name,
                    metric=metric,
                    filter=filter_name,
                    higher_is_better=task.higher_is_better().get(metric),
                    text_lm=text_lm,
                    slm=slm,
                    difference=slm - text_lm,
                    se=se,
                    low=low,
                    high=high,
                    documents=len(values.old),
                    changed=sum(str(a) != str(b) for a, b in zip(values.old, values.new, strict=True)),
                )
            )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Values:
    """A metric's values of both models, document by document. aggregate: of our own protocol; "" for others."""

    old: Sequence[Any]
    new: Sequence[Any]
    clusters: Sequence[str]
    phenomena: Sequence[str]
    aggregate: Aggregate | Literal[""]


def _values(
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], metric: str, metadata: Mapping[str, Any]
) -> _Values:
    """What lm-eval holds of a metric; candidates of our own tasks become the decisions on their items."""
    old, new = [a[metric] for a, _ in pairs], [b[metric] for _, b in pairs]
    aggregate: Aggregate | Literal[""] = metadata.get("aggregate", "")
    if aggregate and not _numbers(old):
        sides = [decided(side) for side in (old, new)]
        clusters, phenomena = ([str(row[place]) for row in sides[0]] for place in (1, 2))
        assert clusters == [str(row[1]) for row in sides[1]], "both models answered the same items"
        old, new = ([row[0] for row in side] for side in sides)
        return _Values(old=old, new=new, clusters=clusters, phenomena=phenomena, aggregate=aggregate)
    name = metadata.get("cluster")
    clusters = [str(a["doc"][name]) if name else str(i) for i, (a, _) in enumerate(pairs)]
    return _Values(old=old, new=new, clusters=clusters, phenomena=[""] * len(old), aggregate=aggregate)


def _spread(values: _Values, aggregate: Any, sampling: Resampling) -> tuple[float, float, float]:
    """Standard error and interval of a difference; NaN where there are too few documents."""
    from lm_eval.api.metrics import mean

    numbers = _numbers([*values.old, *values.new])
    if numbers and (values.aggregate or aggregate in (mean, None)):
        decisions = all(0 <= value <= 1 for side in (values.old, values.new) for value in side)
        return (_of_decisions if decisions and values.old else _of_means)(values, sampling)
    return _of_samples(values, aggregate, sampling)


def _numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float | np.number) for value in values)


def _of_decisions(values: _Values, sampling: Resampling) -> tuple[float, float, float]:
    """As `eval compare` has them: whole pairs, of each phenomenon, and the exact bound where nothing changed."""
    old, new, clusters, phenomena = values.old, values.new, values.clusters, values.phenomena
    aggregate: Aggregate = values.aggregate or "item"
    if aggregate == "all":  # the lowest of differences is not the difference of the lowest
        old, new = (Clusters.of(side, clusters, phenomena).lowest.tolist() for side in (old, new))
        clusters, aggregate = list(dict.fromkeys(clusters)), "pair"
        phenomena = [""] * len(clusters)
    found = paired_difference(
        np.subtract(new, old, dtype=np.float64),
        clusters,
        phenomena,
        aggregate,
        replicates=sampling.replicates,
        seed=sampling.seed,
        level=sampling.level,
    )
    se, low, high = (math.nan if number is None else number for number in (found.se, found.low, found.high))
    return se, low, high


def _of_means(values: _Values, sampling: Resampling) -> tuple[float, float, float]:
    """Cluster-robust standard error and percentile interval of a mean of differences."""
    differences = [b - a for a, b in zip(values.old, values.new, strict=True)]
    groups = Clusters.of(differences, values.clusters, values.phenomena)
    if len(groups) < 2:
        return math.nan, math.nan, math.nan
    low, high = _interval(bootstrap(groups, "item", replicates=sampling.replicates, seed=sampling.seed), sampling)
    return standard_error(groups, "item"), low, high


def _of_samples(values: _Values, aggregate: Any, sampling: Resampling) -> tuple[float, float, float]:
    """The same for any metric of lm-eval (perplexity, F1): it is computed anew on each replicate."""
    members: dict[str, list[int]] = {}
    for place, cluster in enumerate(values.clusters):
        members.setdefault(cluster, []).append(place)
    groups = list(members.values())
    if len(groups) < 2:
        return math.nan, math.nan, math.nan
    rng = np.random.default_rng(sampling.seed)
    replicates = np.zeros(sampling.replicates)
    for number in range(sampling.replicates):
        drawn = [place for group in rng.integers(len(groups), size=len(groups)) for place in groups[group]]
        replicates[number] = aggregate([values.new[i] for i in drawn]) - aggregate([values.old[i] for i in drawn])
    low, high = _interval(replicates, sampling)
    return float(replicates.std(ddof=1)), low, high


def _interval(replicates: np.ndarray, sampling: Resampling) -> tuple[float, float]:
    tail = (1 - sampling.level) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return float(low), float(high)


def _group(name: str, group: Any, rows: Sequence[Difference], sampling: Resampling) -> Iterator[Difference]:
    """Means over the tasks of a group, weighted as lm-eval does; tasks are independent, their intervals normal."""
    names = {task.task_name for task in group.get_all_tasks()}
    for config in group.aggregate_metric_list or ():
        own = [row for row in rows if row.task in names and row.metric == config.metric and row.tasks == 1]
        for filter_name in dict.fromkeys(row.filter for row in own):
            if config.filter_list is not None and filter_name not in config.filter_list:
                continue
            chosen = [row for row in own if row.filter == filter_name]
            weights = np.array([row.documents if config.weight_by_size else 1.0 for row in chosen])
            weights /= weights.sum()
            se = math.sqrt(float((weights**2 * np.array([row.se for row in chosen]) ** 2).sum()))
            text_lm, slm = (float(weights @ [getattr(row, side) for row in chosen]) for side in ("text_lm", "slm"))
            reach = NormalDist().inv_cdf((1 + sampling.level) / 2) * se
            yield Difference(
                task=name,
                metric=config.metric,
                filter=filter_name,
                higher_is_better=chosen[0].higher_is_better,
                text_lm=text_lm,
                slm=slm,
                difference=slm - text_lm,
                se=se,
                low=slm - text_lm - reach,
                high=slm - text_lm + reach,
                documents=sum(row.documents for row in chosen),
                changed=sum(row.changed for row in chosen),
                tasks=len(chosen),
            )
