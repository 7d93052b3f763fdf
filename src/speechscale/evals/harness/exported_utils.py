"""What exported tasks call inside lm-evaluation-harness; `export` copies this file as utils.py beside the tasks.

Enters: lines of TASK.jsonl, and the log-likelihoods that lm-eval measured. Leaves: the dataset, decisions, means.
The one decision worth knowing: it imports nothing of speechscale, so the folder runs where only lm-eval is installed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def docs(file: str, sha256: str, **_: Any) -> dict[str, Any]:
    """Read a file beside this one as the split "test"; lm-eval calls it with the task's `dataset_kwargs`.

    Raises:
        ValueError: the file is not the one that was exported.
    """
    from datasets import Dataset

    # Not splitlines(): a text may hold U+2028, which ends no line of JSON.
    path = Path(__file__).parent / Path(file).name
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path.name}: its checksum is not the one in the task; export it again")
    return {"test": Dataset.from_list([json.loads(line) for line in content.decode("utf-8").split("\n") if line])}


def decide(doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """One item: 1 if the good choice has the higher value, `ties` if neither, else 0.

    The value is the log-likelihood over what the protocol divides by (`over`); "acc_sum" divides by nothing.
    """
    sums = [float(result[0]) for result in results]
    good, bad = doc["label"], 1 - doc["label"]
    divided = [total / over for total, over in zip(sums, doc["over"], strict=True)]
    return {
        "acc": _correct(divided[good] - divided[bad], doc["ties"], doc["tie_nats"]),
        "acc_sum": _correct(sums[good] - sums[bad], doc["ties"], doc["tie_nats"]),
    }


def decide_named(doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, list[Any]]:
    """As `decide`, each with the names that the means over pairs and phenomena need."""
    return {name: [value, doc["pair"], doc["phenomenon"]] for name, value in decide(doc, results).items()}


def values(doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, list[Any]]:
    """One candidate, where every line holds one: its value and everything that the means need."""
    total = float(results[0][0])
    rest = [doc["pair"], doc["phenomenon"], doc["id"], doc["side"], doc["ties"], doc["tie_nats"]]
    return {"acc": [total / doc["over"], *rest], "acc_sum": [total, *rest]}


def item_mean(rows: Iterable[Sequence[Any]]) -> float:
    """Mean over items."""
    return _mean([row[0] for row in decided(rows)])


def pair_mean(rows: Iterable[Sequence[Any]]) -> float:
    """Mean over pairs of the mean in each."""
    return _pair_mean(decided(rows))


def all_mean(rows: Iterable[Sequence[Any]]) -> float:
    """Share of pairs whose items are all right: mean over pairs of the lowest value in each."""
    return _mean([min(found) for found in _by_pair(decided(rows)).values()])


def macro_mean(rows: Iterable[Sequence[Any]]) -> float:
    """Mean over phenomena of `pair_mean`."""
    phenomena: dict[str, list[Sequence[Any]]] = {}
    for row in decided(rows):
        phenomena.setdefault(row[2], []).append(row)
    return _mean([_pair_mean(group) for group in phenomena.values()])


def decided(rows: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    """(value, pair, phenomenon) of each item; joins the candidates of `values`.

    An item with one candidate alone (cut off by a limit) does not count. A set of rows drawn with replacement holds an
    item as often as it was drawn.
    """
    found: list[Sequence[Any]] = []
    waiting: dict[tuple[str, str], list[Sequence[Any]]] = {}
    for row in rows:
        if len(row) == 3:
            found.append(row)
            continue
        value, pair, phenomenon, item, side, ties, tie_nats = row
        others = waiting.get((item, "bad" if side == "good" else "good"))
        if not others:
            waiting.setdefault((item, side), []).append(row)
            continue
        margin = (value - others.pop()[0]) * (1 if side == "good" else -1)
        found.append((_correct(margin, ties, tie_nats), pair, phenomenon))
    return found


def _pair_mean(items: Iterable[Sequence[Any]]) -> float:
    return _mean([_mean(found) for found in _by_pair(items).values()])


def _by_pair(items: Iterable[Sequence[Any]]) -> dict[str, list[float]]:
    pairs: dict[str, list[float]] = {}
    for value, pair, _ in items:
        pairs.setdefault(pair, []).append(value)
    return pairs


def _correct(margin: float, ties: float, tie_nats: float) -> float:
    return ties if abs(margin) <= tie_nats else float(margin > 0)


def _mean(numbers: Sequence[float]) -> float:
    return math.fsum(numbers) / len(numbers) if numbers else math.nan
