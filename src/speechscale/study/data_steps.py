"""The steps of a study that make data: corpus, text side, speech tokenizer, units, token stores, items.

Enters: a resolved `Part`. Leaves: steps. The one decision worth knowing: steps are named after corpus and units, not
after the part, so parts that share these share the work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from speechscale.study.benchmarks import benchmark_inputs, benchmark_steps
from speechscale.study.corpora_spec import InventoryCorpus, StoryworldCorpus
from speechscale.study.plan import SPEAK_SPEED
from speechscale.study.spec import Part, Study
from speechscale.study.steps import Step

STAGES = "speechscale.study.stages"


def spoken_name(part: Part) -> str:
    """Name of a part's speech in its units."""
    return f"{part.corpus.name}-{part.units.name}"


def tokenizer_step(part: Part) -> str:
    """Step that makes the tokenizer of a part's speech; maybe that of another part."""
    return f"tokenizer/{part.units.fitted_on or part.corpus.name}-{part.units.name}"


def data_steps(part: Part, study: Study) -> list[Step]:
    """Corpus, text side, speech tokenizer, units, token stores, items."""
    corpus, units = part.corpus, part.units
    base = {"corpus": corpus.model_dump(mode="json"), "seed": part.seed}
    corpus_step, text_step = f"corpus/{corpus.name}", f"text/{corpus.name}"
    spoken, tokenizer = spoken_name(part), tokenizer_step(part)
    shards = _shards(part)
    hours = corpus.speech_hours if isinstance(corpus, StoryworldCorpus) else 1.0
    speak = 3600 * hours / SPEAK_SPEED / shards + 2
    steps = [
        Step(name=corpus_step, function=f"{STAGES}:make_corpus", config=base, seconds=3),
        Step(
            name=text_step,
            function=f"{STAGES}:make_text",
            config={"text": part.text.model_dump(mode="json")},
            inputs=(corpus_step,),
            seconds=4,
        ),
    ]
    if not units.fitted_on:
        spec = {**base, "units": units.model_dump(mode="json")}
        function = f"{STAGES}:make_tokenizer"
        steps.append(Step(name=tokenizer, function=function, config=spec, inputs=(corpus_step,), seconds=18))
    unit_steps = [f"units/{spoken}/{shard:03d}" for shard in range(shards)]
    for shard, unit_step in enumerate(unit_steps):
        config = {"corpus": base["corpus"], "shard": shard, "shards": shards}
        inputs = (corpus_step, tokenizer)
        steps.append(Step(name=unit_step, function=f"{STAGES}:make_units", config=config, inputs=inputs, seconds=speak))
    steps.append(
        Step(
            name=f"tokens/{spoken}",
            function=f"{STAGES}:make_tokens",
            config={"subwords": _subwords(part), "seed": part.seed},
            inputs=(corpus_step, text_step, tokenizer, *unit_steps),
            seconds=4,
        )
    )
    return steps + _item_steps(part, study, base) + benchmark_steps(part, spoken, tokenizer)


def _subwords(part: Part) -> dict[str, Any] | None:
    if part.units.subwords is None or not any(arm.subwords for arm in part.arms.values()):
        return None
    return part.units.subwords.model_dump(mode="json")


def _shards(part: Part) -> int:
    if isinstance(part.corpus, StoryworldCorpus):
        return max(1, math.ceil(part.corpus.speech_hours * 3600 / 6.6 / part.corpus.shard_stories))
    assert not isinstance(part.corpus, InventoryCorpus)
    return part.corpus.shards


def _item_steps(part: Part, study: Study, base: Mapping[str, Any]) -> list[Step]:
    """Items of a corpus: all sets that any part with this corpus asks for."""
    sharing = [other for other in study.parts.values() if other.corpus == part.corpus and other.seed == part.seed]
    sets = {name: max(p.evals.pairs for p in sharing if name in p.evals.sets) for p in sharing for name in p.evals.sets}
    if not sets:
        return []
    items = f"items/{part.corpus.name}"
    count = 4 * sum(sets.values())
    return [
        Step(
            name=items, function=f"{STAGES}:make_items", config={**base, "sets": dict(sorted(sets.items()))}, seconds=2
        ),
        Step(
            name=f"item-units/{spoken_name(part)}",
            function=f"{STAGES}:make_item_units",
            config={},
            inputs=(items, tokenizer_step(part)),
            seconds=2 + count * 5 / SPEAK_SPEED,
        ),
    ]


def item_inputs(part: Part) -> tuple[str, ...]:
    """What scoring a part's models reads."""
    benchmarks = benchmark_inputs(part, spoken_name(part))
    if not part.evals.sets:
        return benchmarks
    return (f"items/{part.corpus.name}", f"item-units/{spoken_name(part)}", *benchmarks)
