"""Text retention: what an SLM still knows of its TextLM's text, by the tasks everybody uses.

Enters: an SLM, its TextLM, the vocabulary that they share a text block of, names of lm-eval tasks. Leaves: per task and
metric a `Difference` with standard error and interval. The one decision worth knowing: both models answer the same
documents from the same ids, and the difference is taken document by document, so what both find hard cancels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from speechscale import __version__
from speechscale.errors import DataError
from speechscale.evals.harness.paired_tasks import Difference, Resampling, compare
from speechscale.evals.harness.runs import Ran, Start, Tasks, load_tasks, run_tasks, text_tokenizer
from speechscale.evals.intervals import LEVEL, REPLICATES
from speechscale.evals.weights import weights_sha256
from speechscale.model.anatomy import rows_of
from speechscale.model.slm import drop_speech
from speechscale.tokens.vocabulary import Vocabulary

FORMAT, FORMAT_VERSION = "speechscale text retention", 1


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How two models are compared.

    Args:
        limit: documents of each task, from the first; None: all.
        start: see `runs.text_tokenizer`.
        text_rows: drop the SLM's rows of units and markers, so that its softmax is over text alone, as its TextLM's.
        max_length: tokens of a document; None: the SLM's context.
        replicates, seed, level: of the bootstrap; the seed is also lm-eval's (few-shot examples, generation).
    """

    limit: int | None = None
    batch_size: int = 8
    start: Start = "tokenizer"
    text_rows: bool = False
    max_length: int | None = None
    replicates: int = REPLICATES
    seed: int = 0
    level: float = LEVEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """All differences, and everything that they depend on."""

    differences: tuple[Difference, ...]
    stamp: Mapping[str, Any]

    def record(self) -> dict[str, Any]:
        """As JSON; a number that does not exist is None."""
        rows = [
            {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(row).items()}
            for row in self.differences
        ]
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "stamp": dict(self.stamp),
            "differences": rows,
        }


def retention(
    load_slm: Callable[[], Any],
    load_text_lm: Callable[[], Any],
    vocabulary: Vocabulary,
    names: Sequence[str],
    *,
    include_path: Path | None = None,
    how: How | None = None,
) -> Retention:
    """Run tasks on an SLM and on its TextLM and compare them document by document.

    Args:
        load_slm, load_text_lm: called one after the other, so that one model is in memory at a time.
        vocabulary: of the SLM; the TextLM reads its text block.
        names: tasks and groups of lm-eval. include_path: folder of own tasks.

    Raises:
        DataError: a task that cannot be had, a model without these ids, a TextLM whose context is shorter.
        MissingExtra: lm-eval is not installed.
    """
    how = how or How()
    tokenizer = text_tokenizer(vocabulary, how.start)
    tasks = load_tasks(names, include_path)
    _require_text(tasks)
    slm = load_slm()
    if rows_of(slm) < vocabulary.size:
        raise DataError(
            f"the SLM has {rows_of(slm)} rows, its vocabulary {vocabulary.size} ids; give the vocabulary saved with it"
        )
    most = int(slm.config.max_position_embeddings)
    if (how.max_length or 0) > most:
        raise DataError(f"maximum length {how.max_length}: the SLM reads up to {most} tokens; give at most as many")
    how = replace(how, max_length=how.max_length or most)
    facts = {"slm": {"sha256": weights_sha256(slm)}}
    after = _run(drop_speech(slm, vocabulary.text_size) if how.text_rows else slm, tokenizer, tasks, how)
    del slm
    text_lm = load_text_lm()
    context = int(text_lm.config.max_position_embeddings)
    if rows_of(text_lm) < vocabulary.text_size or context < (how.max_length or 0):
        raise DataError(
            f"the TextLM has {rows_of(text_lm)} rows and a context of {context}; the SLM has {vocabulary.text_size} "
            f"text ids and reads up to {how.max_length} tokens: give its own TextLM, or a smaller maximum length"
        )
    facts["text_lm"] = {"sha256": weights_sha256(text_lm)}
    before = _run(text_lm, tokenizer, tasks, how)
    sampling = Resampling(replicates=how.replicates, seed=how.seed, level=how.level)
    rows = compare(tasks, before, after, sampling)
    return Retention(differences=tuple(rows), stamp=_stamp(tasks, facts, before, after, vocabulary, how))


def _run(model: Any, tokenizer: Any, tasks: Tasks, how: How) -> Ran:
    return run_tasks(
        model,
        tokenizer,
        tasks,
        limit=how.limit,
        batch_size=how.batch_size,
        max_length=how.max_length,
        seed=how.seed,
    )


def _require_text(tasks: Tasks) -> None:
    """Our own exported tasks of speech cannot be read by a text tokenizer."""
    for name, task in tasks.tasks.items():
        direction = (task.config.metadata or {}).get("direction", "tt")
        if direction != "tt":
            raise DataError(f"task '{name}' has speech in it (direction '{direction}'); text retention takes 'tt' only")


def _stamp(
    tasks: Tasks, facts: Mapping[str, Any], before: Ran, after: Ran, vocabulary: Vocabulary, how: How
) -> dict[str, Any]:
    return {
        **facts,
        "vocabulary": vocabulary.fingerprint,
        "softmax": "text rows" if how.text_rows else "full",
        "start": how.start,
        "max_length": how.max_length,
        "truncated": {"text_lm": before.truncated, "slm": after.truncated},
        "limit": how.limit,
        "batch_size": how.batch_size,
        "seed": how.seed,
        "bootstrap": {"replicates": how.replicates, "seed": how.seed, "level": how.level},
        "tasks": {
            name: {"version": task.VERSION, "num_fewshot": task.config.num_fewshot, "output": task.OUTPUT_TYPE}
            for name, task in tasks.tasks.items()
        },
        "versions": {
            "speechscale": __version__,
            **{name: version(name) for name in ("lm_eval", "torch", "transformers", "tokenizers", "datasets")},
        },
    }
