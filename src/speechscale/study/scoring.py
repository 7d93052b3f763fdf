"""Score a model on the forced choices of a part.

Enters: a model with its vocabulary, the folders of items and of their units. Leaves: a results folder (docs/evals.md),
columns of runs.csv. The one decision worth knowing: runs.csv holds the first protocol of the study; the scores on disk
serve every other one, and `speechscale eval compare` reads a run's folder as it reads any evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechscale.evals.choices import Choice
from speechscale.evals.evaluate import How, evaluate
from speechscale.evals.metrics import flat_columns, metric_records
from speechscale.evals.protocols import get_protocol
from speechscale.evals.results import Stamp, Tested, write_results
from speechscale.evals.weights import weights_sha256
from speechscale.skips import SkipLog
from speechscale.speech.unit_files import unit_file_header
from speechscale.study.benchmarks import PREFIX, asked_of, columns_of
from speechscale.study.spec import Evals
from speechscale.tokens.vocabulary import Vocabulary


def evaluate_sets(
    model: Any, vocabulary: Vocabulary, evals: Evals, inputs: Mapping[str, Path], *, context: int, out: Path
) -> dict[str, Any]:
    """Score all sets and benchmarks in all directions; write a results folder to `out`.

    Args:
        inputs: of the step: items and item units of a storyworld, and steps of `benchmarks.make_benchmark`.

    Returns:
        `columns` (runs.csv names), `metrics` and `items_dropped`.
    """
    protocols = [get_protocol(name) for name in evals.protocols]
    scored: list[Choice] = []
    skips, tested = SkipLog(), dict[str, Tested]()
    for asked in asked_of(evals, inputs):
        before = len(skips)
        own = evaluate(
            model,
            vocabulary,
            asked.items,
            asked.table,
            directions=evals.directions,
            strict=False,
            protocols=protocols,
            benchmark=asked.name,
            how=How(context=context),
            skips=skips,
        )
        scored += own
        tested[asked.name] = Tested.of(asked.facts, asked.sha256, own, len(skips) - before)
    if len(skips):
        skips.write(out / "skips.jsonl")
    if not scored:
        return {"columns": {}, "metrics": [], "items_dropped": len(skips)}
    stamp = Stamp(
        model=out.name,
        model_sha256=weights_sha256(model),
        params_total=sum(p.numel() for p in model.parameters()),
        vocabulary=vocabulary.fingerprint,
        speech_tokenizer=_tokenizer(inputs),
    )
    metrics = write_results(out, scored, dict.fromkeys(tested, protocols), stamp=stamp, benchmarks=tested)
    first = columns_of(metric for metric in metrics if metric.protocol == protocols[0].name)
    return {"columns": flat_columns(first), "metrics": metric_records(metrics), "items_dropped": len(skips)}


def _tokenizer(inputs: Mapping[str, Path]) -> str | None:
    """Fingerprint of the speech tokenizer that made what was heard."""
    for name, path in inputs.items():
        if name.startswith(("item-units/", PREFIX)) and (path / "units.parquet").is_file():
            return str(unit_file_header(path / "units.parquet")["tokenizer_sha256"])
    return None
