"""The results of one evaluation on disk: scores.parquet, results.json, skips.jsonl.

Enters: choices, the protocols to read them by, what scored what. Leaves: a folder that can be compared with another, or
read by protocols that nobody thought of when it was made.
The one decision worth knowing: everything that can move a score stands in the stamp beside it (data, model, tokenizers,
precision, versions), and the definition of a protocol is written out, not only its name. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from speechscale import __version__
from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import Facts
from speechscale.evals.choices import Choice, read_choices, write_choices
from speechscale.evals.intervals import LEVEL, REPLICATES
from speechscale.evals.metrics import Metric, by_phenomenon, measure, metric_records
from speechscale.evals.protocols import Protocol
from speechscale.files import read_versioned, write_json

FORMAT = "speechscale eval results"
FORMAT_VERSION = 1
SCORES, RESULTS, SKIPS = "scores.parquet", "results.json", "skips.jsonl"
_AGAIN = "score the model again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """One benchmark as it was scored. `sha256`: of its items and recordings. `items`: scored; `dropped`: not."""

    task: str
    title: str = ""
    version: str = ""
    paper: str = ""
    licence: str = ""
    sha256: str
    items: int
    dropped: int
    chance: float = 0.5

    @classmethod
    def of(cls, facts: Facts, sha256: str, scored: Sequence[Choice], dropped: int) -> Tested:
        """What a benchmark says of itself, and how many of its items were scored."""
        said = {name: getattr(facts, name) for name in ("task", "title", "version", "paper", "licence", "chance")}
        items = len({(choice.set, choice.id) for choice in scored})
        return cls(**said, sha256=sha256, items=items, dropped=dropped)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What scored.

    Args:
        model: name for people. model_sha256: of the weights. vocabulary, speech_tokenizer: fingerprints.
        long: what was done with items beyond the context.
    """

    model: str
    model_sha256: str
    params_total: int
    vocabulary: str
    speech_tokenizer: str | None
    precision: str = "fp32"
    long: str = "refuse"
    replicates: int = REPLICATES
    seed: int = 0
    level: float = LEVEL

    def record(self) -> dict[str, Any]:
        """As it stands in results.json."""
        return {
            "model": {"name": self.model, "sha256": self.model_sha256, "params_total": self.params_total},
            "vocabulary": self.vocabulary,
            "speech_tokenizer": self.speech_tokenizer,
            "precision": self.precision,
            "long": self.long,
            "bootstrap": {"replicates": self.replicates, "seed": self.seed, "level": self.level},
            "versions": {
                "speechscale": __version__,
                "torch": version("torch"),
                "transformers": version("transformers"),
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """A results folder, read. `choices` are read when first asked for, by `Results.scores()`."""

    folder: Path
    stamp: dict[str, Any]
    benchmarks: dict[str, dict[str, Any]]
    protocols: dict[str, dict[str, Any]]
    metrics: list[dict[str, Any]] = field(repr=False)

    @property
    def name(self) -> str:
        return str(self.stamp["model"]["name"])

    def scores(self) -> list[Choice]:
        """Every scored item."""
        return read_choices(self.folder / SCORES)[0]


def write_results(
    folder: Path,
    scored: Sequence[Choice],
    protocols: Mapping[str, Sequence[Protocol]],
    *,
    stamp: Stamp,
    benchmarks: Mapping[str, Tested],
) -> list[Metric]:
    """Write scores.parquet, then results.json; return the metrics.

    Args:
        protocols, benchmarks: by the name that the choices carry.
    """
    record = stamp.record()
    chances = {name: tested.chance for name, tested in benchmarks.items()}
    metrics = _measured(scored, protocols, chances, record["bootstrap"])
    write_choices(folder / SCORES, scored, {"stamp": record})
    write_json(
        folder / RESULTS,
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "stamp": record,
            "benchmarks": {name: asdict(tested) for name, tested in benchmarks.items()},
            "protocols": {p.name: {**p.stamp(), "source": p.source} for own in protocols.values() for p in own},
            "metrics": metric_records(metrics),
            "phenomena": [
                record
                for name, own in protocols.items()
                for protocol in own
                for record in by_phenomenon([c for c in scored if c.benchmark == name], protocol)
            ],
        },
    )
    return metrics


def _measured(
    scored: Sequence[Choice],
    protocols: Mapping[str, Sequence[Protocol]],
    chances: Mapping[str, float],
    bootstrap: Mapping[str, Any],
) -> list[Metric]:
    """Metrics of every benchmark under its protocols."""
    return [
        metric
        for name, own in protocols.items()
        for metric in measure([c for c in scored if c.benchmark == name], own, chance=chances[name], **bootstrap)
    ]


def read_results(folder: Path) -> Results:
    """Read a results folder. Raises DataError: not one, or of another version."""
    saved = read_versioned(Path(folder) / RESULTS, "evaluation results", _AGAIN, format=FORMAT, version=FORMAT_VERSION)
    return Results(
        folder=Path(folder),
        stamp=saved["stamp"],
        benchmarks=saved["benchmarks"],
        protocols=saved["protocols"],
        metrics=saved["metrics"],
    )


def measured_under(results: Results, protocol: Protocol) -> Results:
    """Results that also hold a protocol nobody asked for when they were made, computed from the scored items.

    Benchmarks that were not scored in its layout have no metric under it.

    Raises:
        DataError: none of them was.
    """
    if protocol.name in results.protocols:
        return results
    scored = results.scores()
    chances = {name: tested["chance"] for name, tested in results.benchmarks.items()}
    metrics = _measured(scored, {name: [protocol] for name in chances}, chances, results.stamp["bootstrap"])
    if not metrics:
        layouts = ", ".join(sorted({str(choice.layout) for choice in scored}))
        raise DataError(
            f"{results.folder}: no item was scored in the layout '{protocol.layout}' of protocol '{protocol.name}' "
            f"(scored: {layouts}); run the evaluation with --protocol {protocol.name}"
        )
    return replace(
        results,
        protocols={**results.protocols, protocol.name: {**protocol.stamp(), "source": protocol.source}},
        metrics=[*results.metrics, *metric_records(metrics)],
    )
