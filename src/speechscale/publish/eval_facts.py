"""Evaluations for a card, from results folders of `eval run` and `eval generate`.

Enters: metrics as results.json holds them. Leaves: `MetricFacts`, definitions of protocols, measures of generated
speech. The one decision worth knowing: a results folder says which weights it scored, and one of other weights is
refused: a card never borrows a score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.evals.generation.measures import FORMAT as GENERATED
from speechscale.evals.generation.measures import FORMAT_VERSION as GENERATED_VERSION
from speechscale.evals.results import FORMAT as SCORED
from speechscale.evals.results import FORMAT_VERSION as SCORED_VERSION
from speechscale.evals.results import RESULTS
from speechscale.evals.weights import weights_sha256
from speechscale.files import read_json, read_versioned
from speechscale.model.folders import load_model
from speechscale.report.card_facts import Lines, MetricFacts

REMEDY = "give a folder that eval run or eval generate wrote"
PROTOCOL_FIELDS = ("span", "start", "markers", "end", "normalization", "softmax", "aggregate", "ties")
MEASURES = (
    ("word error rate of the vocoder's speech", ("resynthesis", "wer")),
    ("word error rate of the recordings themselves", ("resynthesis", "wer_original")),
    ("perplexity of the transcripts", ("perplexity", "perplexity")),
    ("Auto-BLEU of words", ("auto_bleu_words",)),
    ("Auto-BLEU of units", ("auto_bleu_units",)),
    ("grade of the judge", ("judge", "grade")),
    ("new units per sample", ("new_units",)),
)
"""What a card shows of `eval generate`, and where results.json holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What results folders hold of one model."""

    metrics: tuple[MetricFacts, ...] = ()
    protocols: Lines = ()
    generation: tuple[tuple[str, str, str], ...] = ()


def metric_facts(
    metrics: Iterable[Mapping[str, Any]], benchmarks: Mapping[str, Mapping[str, Any]]
) -> tuple[MetricFacts, ...]:
    """Metrics of results.json; `benchmarks` tells titles, versions and licences."""
    facts = []
    for metric in metrics:
        about = benchmarks.get(metric["benchmark"], {})
        keys = ("benchmark", "set", "tag", "direction", "protocol", "low", "high", "n_items", "n_pairs", "chance")
        facts.append(
            MetricFacts(
                **{key: metric[key] for key in keys},
                estimate=float(metric["estimate"]),
                title=str(about.get("title", "")),
                version=str(about.get("sha256", ""))[:16],
                licence=str(about.get("licence", "")),
            )
        )
    return tuple(facts)


def protocol_lines(protocols: Mapping[str, Mapping[str, Any]]) -> Lines:
    """Each protocol in one line."""
    return tuple(
        (
            name,
            ", ".join(f"{key} {_said(stamp[key])}" for key in PROTOCOL_FIELDS if key in stamp)
            + f" ({stamp['source']})",
        )
        for name, stamp in sorted(protocols.items())
    )


def _said(value: Any) -> str:
    return ("scored" if value else "not scored") if isinstance(value, bool) else str(value)


def read_results_folders(folders: Sequence[Path], model: Path) -> Evaluated:
    """Read results that were made with the weights in `model`.

    Raises:
        DataError: not a results folder, or one of other weights.
    """
    if not folders:
        return Evaluated()
    sha256 = weights_sha256(load_model(model))
    metrics: list[MetricFacts] = []
    protocols: dict[str, str] = {}
    generation: list[tuple[str, str, str]] = []
    for folder in folders:
        saved = read_json(Path(folder) / RESULTS, "evaluation results", REMEDY)
        if saved.get("format") == GENERATED:
            saved = read_versioned(
                Path(folder) / RESULTS, "generation results", REMEDY, format=GENERATED, version=GENERATED_VERSION
            )
            require_same_weights(saved["stamp"]["recipe"]["model"], sha256, folder)
            generation += generation_facts(saved)
            continue
        saved = read_versioned(
            Path(folder) / RESULTS, "evaluation results", REMEDY, format=SCORED, version=SCORED_VERSION
        )
        require_same_weights(saved["stamp"]["model"], sha256, folder)
        metrics += metric_facts(saved["metrics"], saved["benchmarks"])
        protocols |= dict(protocol_lines(saved["protocols"]))
    return Evaluated(metrics=tuple(metrics), protocols=tuple(sorted(protocols.items())), generation=tuple(generation))


def generation_facts(saved: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and how, of each measure that is there."""
    stamp = saved["stamp"]
    sampling = stamp["recipe"]["sampling"]
    asr = stamp.get("asr")
    how = (
        f"direction {sampling['direction']}, prompts of {sampling['prompt_s']:g} s, temperature "
        f"{sampling['temperature']:g}, top-k {sampling['top_k']}, seed {sampling['seed']}, span {stamp['span']}"
        + (f", recognizer {asr['asr']}" if isinstance(asr, Mapping) else "")
    )
    facts = []
    for name, path in MEASURES:
        found: Any = saved["metrics"]
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(found, Mapping) and found.get("estimate") is not None:
            bounds = "" if found.get("low") is None else f" [{found['low']:.3g}, {found['high']:.3g}]"
            facts.append((name, f"{found['estimate']:.3g}{bounds} (n = {found.get('n', '?')})", how))
    return facts


def require_same_weights(model: Any, sha256: str, folder: Path) -> None:
    """Hold what a folder says of its model to the weights at hand. Raises DataError: it says nothing, or others."""
    if not isinstance(model, Mapping) or not model.get("sha256"):
        raise DataError(f"results {folder}: they do not say which weights made them; make them again")
    if model["sha256"] != sha256:
        raise DataError(
            f"results {folder}: they are of '{model.get('name', '')}' with weights {model['sha256'][:12]}, this model "
            f"has {sha256[:12]}; make them with this model"
        )
