"""Models and benchmarks in the hands of lm-evaluation-harness: export, and text retention.

Enters: a located model, a benchmark or a TextLM. Leaves: a folder of exported tasks, or the differences of two models.
The one decision worth knowing: a TextLM counts as the SLM's own only if its tokenizer gives every token the same id.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.evals.benchmarks.benchmark import Benchmark
from speechscale.evals.cuts import cut_items
from speechscale.evals.harness.export import ExportedTask, export_tasks
from speechscale.evals.harness.text_retention import How, Retention, retention
from speechscale.evals.layouts import DIRECTIONS, Direction
from speechscale.evals.protocols import DEFAULT, get_protocol
from speechscale.model.folders import load_model, load_text_lm, text_lm_config
from speechscale.progress import Watch
from speechscale.speech.units import SpeechTokenizer
from speechscale.study.devices import resolved
from speechscale.study.drawing import drawn
from speechscale.study.evaluating import require_same_units
from speechscale.study.located import Located, locate
from speechscale.tokens.text_tokenizer import declared_ids
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.tokens.vocabulary_files import LOCK_FILE

WatchOf = Callable[[str], AbstractContextManager[Watch]]


def export_benchmark(
    located: Located,
    benchmark: Benchmark,
    out: Path,
    *,
    directions: Sequence[Direction] = (),
    protocols: Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
    workers: int = 1,
    watch_of: WatchOf,
) -> list[ExportedTask]:
    """Write a benchmark in the tokens of a model as tasks of lm-eval.

    Args:
        directions: none: all that exist. protocols: names; none: the benchmark's own and ours.
        limit: pairs per set, drawn with the seed, as in `eval run`.

    Raises:
        DataError: see `export_tasks`; units of another number than the model's.
    """
    vocabulary = located.load_vocabulary()
    chosen = [get_protocol(name) for name in dict.fromkeys(protocols or (DEFAULT, benchmark.facts.protocol))]
    items = drawn(benchmark.items(), limit, seed)
    wanted = tuple(directions) or DIRECTIONS
    cuts, tokenizer = None, None
    if benchmark.has_audio and vocabulary.num_units and any("s" in direction for direction in wanted):
        tokenizer = SpeechTokenizer.load(located.need_tokenizer())
        require_same_units(tokenizer, vocabulary, located)
        with watch_of("encoded") as watch:
            part = None if limit is None else items
            table = benchmark.units(located.need_tokenizer(), items=part, workers=workers, watch=watch)
        cuts = cut_items(items, table)
    facts = {
        "benchmark": {"task": benchmark.facts.task, "version": benchmark.facts.version, "sha256": benchmark.sha256},
        "licence": benchmark.facts.licence,
        "limit": limit,
        "seed": seed,
        "model": located.name,
        "speech_tokenizer": None if tokenizer is None else tokenizer.fingerprint,
    }
    with watch_of("tasks") as watch:
        return export_tasks(
            out,
            items,
            cuts,
            vocabulary,
            name=benchmark.folder.resolve().name,
            directions=wanted,
            protocols=chosen,
            max_tokens=int(text_lm_config(located.folder).max_position_embeddings),
            facts=facts,
            watch=watch,
        )


def retain(
    located: Located,
    text_lm: str,
    names: Sequence[str],
    *,
    revision: str | None = None,
    include_path: Path | None = None,
    device: str = "auto",
    how: How | None = None,
) -> Retention:
    """Compare an SLM with its TextLM on tasks of lm-eval.

    Args:
        text_lm: folder of a study's run, of a model, or a name on the hub.
        revision: of weights and tokenizer on the hub.

    Raises:
        DataError: see `retention`; a TextLM that gives a token another id.
    """
    vocabulary = located.load_vocabulary()
    device = resolved(device)
    load_base = _own_text_lm(text_lm, revision, vocabulary)
    return retention(
        lambda: load_model(located.folder).to(device),
        lambda: load_base().to(device),
        vocabulary,
        names,
        include_path=include_path,
        how=how,
    )


def _own_text_lm(name: str, revision: str | None, vocabulary: Vocabulary) -> Callable[[], Any]:
    """What loads the TextLM, after its token ids were compared with the SLM's."""
    if not vocabulary.has_text:
        raise DataError("a textless model has no text side; text retention needs a vocabulary with text")
    found = _located(Path(name))
    if found is not None:
        own = found.load_vocabulary()
    else:
        eos = vocabulary.spelled[vocabulary.eos_id]
        own = Vocabulary.from_pretrained(name, 0, revision=revision, eos_token=eos)
    ids, others = (declared_ids(json.loads(v.text_json)) if v.has_text else {} for v in (vocabulary, own))
    if ids != others:
        token = next(token for token in {**others, **ids} if ids.get(token) != others.get(token))
        raise DataError(
            f"TextLM '{name}': token '{token}' has the id {others.get(token)} there and {ids.get(token)} in the SLM; "
            "give the TextLM that it was made of"
        )
    return (lambda: load_text_lm(name, revision)) if found is None else (lambda: load_model(found.folder))


def _located(path: Path) -> Located | None:
    """A model of ours, or None for one from elsewhere."""
    if not path.is_dir() or ((path / "config.json").is_file() and not (path / LOCK_FILE).is_file()):
        return None
    return locate(path)
