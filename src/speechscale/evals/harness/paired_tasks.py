"""Two models on the same documents of lm-eval: differences with errors.

Enters: what `harness.run_tasks` found for each. Leaves: a `Difference` per task, metric and filter. The one decision
worth knowing: any metric will do. A mean of numbers has its error in closed form; whatever else lm-eval computes
(perplexity, F1, means over pairs) is computed anew on every replicate of the documents.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from speechscale.evals.harness.runs import Ran, Tasks
from speechscale.evals.intervals import LEVEL, REPLICATES, Clusters, bootstrap, standard_error


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
        se, low, high: of the difference, over documents ("pair"s of ours); NaN below two.
        changed: documents whose value differs.
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
    clustered = (task.config.metadata or {}).get("cluster")
    for filter_name in dict.fromkeys(sample["filter"] for sample in old):
        pairs = [(a, b) for a, b in zip(old, new, strict=True) if a["filter"] == filter_name]
        clusters = [str(a["doc"][clustered]) if clustered else str(i) for i, (a, _) in enumerate(pairs)]
        for metric in pairs[0][0]["metrics"]:
            values = [a[metric] for a, _ in pairs], [b[metric] for _, b in pairs]
            aggregate = task.aggregation().get(metric)
            key = f"{metric},{filter_name}"
            text_lm, slm = float(before.results[name][key]), float(after.results[name][key])
            spread = _of_means if _is_mean(aggregate, values) else _of_samples
            se, low, high = spread(*values, clusters, aggregate, sampling)
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
                    documents=len(pairs),
                    changed=sum(str(a) != str(b) for a, b in zip(*values, strict=True)),
                )
            )
    return found


def _is_mean(aggregate: Any, values: tuple[list[Any], list[Any]]) -> bool:
    """Whether a metric is the plain mean of numbers."""
    from lm_eval.api.metrics import mean

    return aggregate in (mean, None) and all(isinstance(v, int | float | np.number) for side in values for v in side)


def _of_means(
    old: Sequence[float], new: Sequence[float], clusters: Sequence[str], _: Any, sampling: Resampling
) -> tuple[float, float, float]:
    """Cluster-robust standard error and percentile interval of a mean of differences."""
    groups = Clusters.of([b - a for a, b in zip(old, new, strict=True)], clusters, [""] * len(old))
    if len(groups) < 2:
        return math.nan, math.nan, math.nan
    low, high = _interval(bootstrap(groups, "item", replicates=sampling.replicates, seed=sampling.seed), sampling)
    return standard_error(groups, "item"), low, high


def _of_samples(
    old: Sequence[Any], new: Sequence[Any], clusters: Sequence[str], aggregate: Any, sampling: Resampling
) -> tuple[float, float, float]:
    """The same for any metric of lm-eval (perplexity, F1, means over pairs): it is computed anew on each replicate."""
    members: dict[str, list[int]] = {}
    for place, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(place)
    groups = list(members.values())
    if len(groups) < 2:
        return math.nan, math.nan, math.nan
    rng = np.random.default_rng(sampling.seed)
    replicates = np.zeros(sampling.replicates)
    for number in range(sampling.replicates):
        drawn = [place for group in rng.integers(len(groups), size=len(groups)) for place in groups[group]]
        replicates[number] = aggregate([new[i] for i in drawn]) - aggregate([old[i] for i in drawn])
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
