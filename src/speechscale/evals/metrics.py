"""From log-likelihoods per candidate to accuracies with honest standard errors.

Enters: candidates and their `Scores`. Leaves: `Choice`s (one per item, also as Parquet), `Metric`s,
columns of runs.csv.
The one decision worth knowing: the two items of a symmetric pair share their texts, so they are one observation:
standard errors cluster on pairs. Needs no torch.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.evals.layouts import Candidate

if TYPE_CHECKING:
    from speechscale.evals.score import Scores

TIE_NATS = 1e-5
"""Margins per token up to this size are rounding, not preference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One scored item. Sums are log-likelihoods in nats, over the ending and over the whole sequence."""

    id: str
    set: str
    direction: str
    pair: str
    tag: str
    phenomenon: str
    speaker: str
    good_sum: float
    good_tokens: int
    bad_sum: float
    bad_tokens: int
    good_whole_sum: float
    good_whole_tokens: int
    bad_whole_sum: float
    bad_whole_tokens: int

    @property
    def margin(self) -> float:
        """Mean log-likelihood per token of the good ending minus that of the bad one, in nats."""
        return self.good_sum / self.good_tokens - self.bad_sum / self.bad_tokens

    @property
    def correct(self) -> float:
        """1 if the good ending is likelier per token, 0.5 on a tie, else 0."""
        return _sign(self.margin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Choice accuracy of one set in one direction, for one tag ("" = all items). Chance is 0.5.

    Args:
        se: standard error of `accuracy`, clustered on pairs; NaN with fewer than two pairs.
        pair_accuracy: share of pairs whose margins sum to more than zero.
        macro_accuracy: mean over phenomena of their accuracies, each phenomenon with the same weight.
    """

    set: str
    direction: str
    tag: str
    accuracy: float
    se: float
    n_items: int
    n_pairs: int
    pair_accuracy: float
    pair_se: float
    macro_accuracy: float
    macro_se: float
    n_phenomena: int


_SPEECH_PROMPT = {
    "ss": "from the start of the audio to the first word of the ending, each candidate its own",
    "st": "from the first to the end of the last word, spoken with the candidate that sorts first, for both",
    "ts": "none",
    "tt": "none",
}
_SPEECH_ENDING = {
    "ss": "from its first word to the end of the audio; a unit that began in the prompt is not scored",
    "st": "none",
    "ts": "from the first to the end of the last word",
    "tt": "none",
}


def protocol(direction: str) -> dict[str, str | float]:
    """State every choice that changes an accuracy; two metrics compare only if their protocols are equal."""
    crossing = direction in ("st", "ts")
    return {
        "direction": direction,
        "normalization": "mean over tokens",
        "span": "ending (whole sequence where an item has no prompt)",
        "softmax": "full vocabulary",
        "document_start": "<eos>, not scored",
        "document_end": "no <eos> scored",
        "markers": "before prompt and ending, not scored" if crossing else "none",
        "speech_prompt": _SPEECH_PROMPT[direction],
        "speech_ending": _SPEECH_ENDING[direction],
        "ties": 0.5,
        "tie_nats_per_token": TIE_NATS,
        "standard_error": "clustered on symmetric pairs",
    }


def choices(candidates: Sequence[Candidate], scores: Scores) -> list[Choice]:
    """Join candidates (good, bad, good, bad, ...) with their scores, item by item."""
    assert len(candidates) == len(scores.ending_sum)
    assert len(candidates) % 2 == 0
    joined = []
    for i in range(0, len(candidates), 2):
        good, bad = candidates[i], candidates[i + 1]
        assert (good.item.id, good.side, bad.side) == (bad.item.id, "good", "bad")
        item, j = good.item, i + 1
        joined.append(
            Choice(
                id=item.id,
                set=item.set,
                direction=good.direction,
                pair=item.pair,
                tag=item.tag,
                phenomenon=item.phenomenon,
                speaker=item.speaker,
                good_sum=float(scores.ending_sum[i]),
                good_tokens=int(scores.ending_tokens[i]),
                bad_sum=float(scores.ending_sum[j]),
                bad_tokens=int(scores.ending_tokens[j]),
                good_whole_sum=float(scores.whole_sum[i]),
                good_whole_tokens=int(scores.whole_tokens[i]),
                bad_whole_sum=float(scores.whole_sum[j]),
                bad_whole_tokens=int(scores.whole_tokens[j]),
            )
        )
    return joined


def measure(scored: Iterable[Choice]) -> list[Metric]:
    """Compute a metric per set and direction: first over all items, then per tag, in the order of appearance."""
    groups: dict[tuple[str, str, str], list[Choice]] = defaultdict(list)
    for choice in scored:
        groups[choice.set, choice.direction, ""].append(choice)
        if choice.tag:
            groups[choice.set, choice.direction, choice.tag].append(choice)
    order = {key[:2]: None for key in groups}
    keys = [key for cell in order for key in sorted(groups) if key[:2] == cell]
    return [_metric(*key, groups[key]) for key in keys]


def by_phenomenon(scored: Iterable[Choice]) -> dict[tuple[str, str, str], tuple[float, float, int]]:
    """Map (set, direction, phenomenon) to accuracy, clustered standard error and number of items."""
    groups: dict[tuple[str, str, str], list[Choice]] = defaultdict(list)
    for choice in scored:
        groups[choice.set, choice.direction, choice.phenomenon].append(choice)
    return {key: (*accuracy(group), len(group)) for key, group in groups.items()}


def accuracy(scored: Sequence[Choice]) -> tuple[float, float]:
    """Share of correct items and its standard error, clustered on pairs.

    With item errors e_i = x_i - mean, the variance is G / (G - 1) * sum over the G pairs of (sum of e_i in the pair)^2
    / n^2; for pairs of equal size this is the standard error of the mean of pair means. NaN below two pairs; 0 when
    all pairs agree, which is a statement about this sample only.

    Source: Liang and Zeger 1986 (cluster-robust variance of a mean).
    """
    correct = np.array([choice.correct for choice in scored])
    return _clustered(correct, [choice.pair for choice in scored])


def flat_columns(metrics: Iterable[Metric]) -> dict[str, float | int]:
    """Name metrics as in runs.csv: acc_{set}_{direction}[_{tag}], with _se and _n (items).

    A standard error that does not exist (one pair) has no column.
    """
    columns: dict[str, float | int] = {}
    for metric in metrics:
        name = "_".join(part for part in ("acc", metric.set, metric.direction, metric.tag) if part)
        columns[name] = metric.accuracy
        if math.isfinite(metric.se):
            columns[f"{name}_se"] = metric.se
        columns[f"{name}_n"] = metric.n_items
    return columns


def write_choices(path: Path, scored: Sequence[Choice], extra: dict[str, Any] | None = None) -> None:
    """Write one row per item as Parquet, all at once or not at all, stamped with the protocol of each direction.

    Args:
        extra: further facts for the stamp, e.g. hashes of model and vocabulary; must be JSON.
    """
    names = [field.name for field in fields(Choice)]
    columns = {name: [getattr(choice, name) for choice in scored] for name in names}
    directions = sorted({choice.direction for choice in scored})
    stamp = {"protocols": {direction: protocol(direction) for direction in directions}, **(extra or {})}
    table = pa.table(columns, schema=_schema().with_metadata({"speechscale.scores": json.dumps(stamp)}))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        pq.write_table(table, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_choices(path: Path) -> tuple[list[Choice], dict[str, Any]]:
    """Read what `write_choices` wrote: the items and the stamp. Raises DataError for any other file."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: not readable as Parquet ({error}); score the items again") from error
    stamp = (table.schema.metadata or {}).get(b"speechscale.scores")
    if stamp is None or not table.schema.equals(_schema()):
        raise DataError(f"{path}: not a table of scored items (columns {table.column_names}); score the items again")
    return [Choice(**row) for row in table.to_pylist()], json.loads(stamp)


def metric_records(metrics: Iterable[Metric]) -> list[dict[str, Any]]:
    """Metrics as plain dictionaries with their protocol, for a record; a value that does not exist is None."""
    return [
        {
            **{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(metric).items()},
            "protocol": protocol(metric.direction),
        }
        for metric in metrics
    ]


def _schema() -> pa.Schema:
    types = {"str": pa.string(), "float": pa.float64(), "int": pa.int32()}
    return pa.schema([pa.field(field.name, types[str(field.type)], nullable=False) for field in fields(Choice)])


def _sign(margin: float) -> float:
    return 0.5 if abs(margin) <= TIE_NATS else float(margin > 0)


def _clustered(values: Float[np.ndarray, " items"], clusters: Sequence[str]) -> tuple[float, float]:
    mean = float(values.mean())
    sums: dict[str, float] = defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += float(value) - mean
    if len(sums) < 2:
        return mean, math.nan
    squares = sum(s * s for s in sums.values())
    return mean, math.sqrt(len(sums) / (len(sums) - 1) * squares) / len(values)


def _metric(set: str, direction: str, tag: str, scored: Sequence[Choice]) -> Metric:
    mean, se = accuracy(scored)
    margins: dict[str, float] = defaultdict(float)
    phenomena: dict[str, list[Choice]] = defaultdict(list)
    for choice in scored:
        margins[choice.pair] += choice.margin
        phenomena[choice.phenomenon].append(choice)
    pair_mean, pair_se = _clustered(np.array([_sign(m) for m in margins.values()]), list(margins))
    parts = [accuracy(group) for group in phenomena.values()]
    return Metric(
        set=set,
        direction=direction,
        tag=tag,
        accuracy=mean,
        se=se,
        n_items=len(scored),
        n_pairs=len(margins),
        pair_accuracy=pair_mean,
        pair_se=pair_se,
        macro_accuracy=math.fsum(part[0] for part in parts) / len(parts),
        macro_se=math.sqrt(math.fsum(part[1] ** 2 for part in parts)) / len(parts),
        n_phenomena=len(parts),
    )
