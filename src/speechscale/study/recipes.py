"""From a study to its graph of steps.

Enters: a resolved `Study`. Leaves: steps, and the verbs run, status and clean on them.
The one decision worth knowing: a learning rate is chosen inside the run that uses it, from the records of the sweep
runs among its inputs, so the graph is static and `show`, `status` and the runner all see the same steps.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.study.plan import SPEAK_SPEED, Cell, plan_part, text_lm_cells
from speechscale.study.runners import Outcome, locked, run_graph, with_inputs
from speechscale.study.spec import InventoryCorpus, Part, StoryworldCorpus, Study
from speechscale.study.steps import RECORD, Step, write_json

STAGES = "speechscale.study.stages"
TRAINING = "speechscale.study.training"
SUMMARY = "speechscale.study.summary"
MARKER = "study.json"
"""The resolved study in the output folder; also what tells `clean` that the folder is ours."""


def study_steps(study: Study) -> list[Step]:
    """All steps of a study, each once, in an order a reader can follow.

    Raises:
        DataError: an impossible grid, or a corpus that can only be planned.
    """
    steps: dict[str, Step] = {}
    for name, part in study.parts.items():
        for step in _part_steps(name, part, study):
            steps.setdefault(step.name, step)
    report = Step(
        name="report",
        function=f"{SUMMARY}:make_report",
        config={"study": study.model_dump(mode="json")},
        inputs=tuple(steps),
        seconds=8.0,
        summary=True,
    )
    return [*steps.values(), report]


def _part_steps(name: str, part: Part, study: Study) -> list[Step]:
    if part.corpus.kind == "inventory":
        raise DataError(
            f"part '{name}': corpus '{part.corpus.name}' lists sizes for planning only (study show); to run it "
            "give the audio: [corpus] kind = 'folder', path = '...'"
        )
    data = _data_steps(part, study)
    trained = _text_lm_steps(name, part) + _run_steps(name, part)
    return [*data, *trained, *_voice_steps(name, part)]


def _data_steps(part: Part, study: Study) -> list[Step]:
    """Corpus, text side, speech tokenizer, units, token stores, items."""
    corpus, units = part.corpus, part.units
    base = {"corpus": corpus.model_dump(mode="json"), "seed": part.seed}
    corpus_step, text_step = f"corpus/{corpus.name}", f"text/{corpus.name}"
    spoken = f"{corpus.name}-{units.name}"
    spec = {**base, "units": units.model_dump(mode="json")}
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
        Step(
            name=f"tokenizer/{spoken}",
            function=f"{STAGES}:make_tokenizer",
            config=spec,
            inputs=(corpus_step,),
            seconds=18,
        ),
    ]
    unit_steps = [f"units/{spoken}/{shard:03d}" for shard in range(shards)]
    for shard, unit_step in enumerate(unit_steps):
        config = {"corpus": base["corpus"], "shard": shard, "shards": shards}
        inputs = (corpus_step, f"tokenizer/{spoken}")
        steps.append(Step(name=unit_step, function=f"{STAGES}:make_units", config=config, inputs=inputs, seconds=speak))
    steps.append(
        Step(
            name=f"tokens/{spoken}",
            function=f"{STAGES}:make_tokens",
            config={"subwords": _subwords(part), "seed": part.seed},
            inputs=(corpus_step, text_step, f"tokenizer/{spoken}", *unit_steps),
            seconds=4,
        )
    )
    return steps + _item_steps(part, study, base)


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
    items, spoken = f"items/{part.corpus.name}", f"{part.corpus.name}-{part.units.name}"
    count = 4 * sum(sets.values())
    return [
        Step(
            name=items, function=f"{STAGES}:make_items", config={**base, "sets": dict(sorted(sets.items()))}, seconds=2
        ),
        Step(
            name=f"item-units/{spoken}",
            function=f"{STAGES}:make_item_units",
            config={},
            inputs=(items, f"tokenizer/{spoken}"),
            seconds=2 + count * 5 / SPEAK_SPEED,
        ),
    ]


def _item_inputs(part: Part) -> tuple[str, ...]:
    if not part.evals.sets:
        return ()
    return (f"items/{part.corpus.name}", f"item-units/{part.corpus.name}-{part.units.name}")


def _text_lm_name(part: Part, cell: Cell) -> str:
    return f"text_lm/{part.corpus.name}/{cell.size}-lr{cell.learning_rates[0]:g}"


def _text_lm_steps(name: str, part: Part) -> list[Step]:
    """The TextLM of each size, and its own text cloze."""
    steps: list[Step] = []
    by_size: dict[str, list[str]] = {}
    for cell in text_lm_cells(name, part):
        config = {
            "size": cell.size,
            "tokens": part.text_lm.tokens,
            "learning_rate": cell.learning_rates[0],
            "train": part.train.model_dump(mode="json"),
            "seed": part.seed,
        }
        step = Step(
            name=_text_lm_name(part, cell),
            function=f"{TRAINING}:train_text_lm",
            config=config,
            inputs=(f"text/{part.corpus.name}",),
            seconds=cell.seconds + 3,
        )
        steps.append(step)
        by_size.setdefault(cell.size, []).append(step.name)
    if not part.evals.sets:
        return steps
    for size, names in by_size.items():
        steps.append(
            Step(
                name=f"text_lm_eval/{name}/{size}",
                function=f"{TRAINING}:score_text_lm",
                config={"evals": part.evals.model_dump(mode="json"), "context": part.train.context},
                inputs=(*names, f"text/{part.corpus.name}", *_item_inputs(part)),
                seconds=3,
            )
        )
    return steps


def run_name(cell: Cell) -> str:
    """Folder of a run below `steps/`; a run of the sweep says its rate."""
    axis = f"{cell.budget_flops:.3g}".replace("e+", "e")
    rate = f"-lr{cell.learning_rates[0]:g}" if cell.sweep else ""
    return f"run/{cell.part}/{cell.arm}-{cell.size}-{axis}{rate}-s{cell.seed}"


def _run_steps(name: str, part: Part) -> list[Step]:
    cells = plan_part(name, part)
    sweeps: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        if cell.sweep:
            sweeps.setdefault((cell.arm, cell.size), []).append(run_name(cell))
    lms: dict[str, list[str]] = {}
    for cell in text_lm_cells(name, part):
        lms.setdefault(cell.size, []).append(_text_lm_name(part, cell))
    steps = []
    for cell in cells:
        arm = part.arms[cell.arm]
        scored = part.evals.sets and (cell.largest or not part.evals.largest_budget_only)
        data = (
            (f"text/{part.corpus.name}",)
            if arm.vocabulary == "text"
            else (f"tokens/{part.corpus.name}-{part.units.name}",)
        )
        inputs = data + (tuple(lms.get(cell.size, ())) if arm.start == "warm" else ())
        inputs += _item_inputs(part) if scored else ()
        inputs += () if cell.sweep else tuple(sweeps[cell.arm, cell.size])
        steps.append(
            Step(
                name=run_name(cell),
                function=f"{TRAINING}:train_run",
                config=_run_config(part, cell, bool(scored)),
                inputs=inputs,
                seconds=cell.seconds + (4 if scored else 2),
            )
        )
    return steps


def _run_config(part: Part, cell: Cell, scored: bool) -> dict[str, Any]:
    arm = part.arms[cell.arm]
    return {
        "part": cell.part,
        "arm": cell.arm,
        "start": arm.start,
        "vocabulary": arm.vocabulary,
        "mixture": arm.mixture,
        "max_epochs": arm.max_epochs,
        "size": cell.size,
        "budget": cell.budget_flops,
        "flops": part.grid.flops,
        "learning_rates": list(cell.learning_rates),
        "sweep": cell.sweep,
        "seed": cell.seed,
        "units": part.units.name,
        "oracle_units": part.units.oracle,
        "supervised_units": part.units.supervised,
        "interleave": part.interleave.model_dump(mode="json"),
        "train": part.train.model_dump(mode="json"),
        "pretrained": part.text_lm.pretrained.get(cell.size, "") if arm.start == "warm" else "",
        "pretrained_flops": part.text_lm.pretrained_flops.get(cell.size, 0.0) if arm.start == "warm" else 0.0,
        "evals": part.evals.model_dump(mode="json") if scored else None,
        "min_steps": part.grid.min_steps,
    }


def _voice_steps(name: str, part: Part) -> list[Step]:
    """A vocoder for the part's units, and samples from its runs at the largest budget."""
    if not part.vocoder.enabled:
        return []
    spoken = f"{part.corpus.name}-{part.units.name}"
    data = (f"corpus/{part.corpus.name}", f"tokenizer/{spoken}")
    cells = plan_part(name, part)
    final = [run_name(c) for c in cells if c.largest and part.arms[c.arm].vocabulary != "text"]
    config = {
        "corpus": part.corpus.model_dump(mode="json"),
        "vocoder": part.vocoder.model_dump(mode="json"),
        "seed": part.seed,
    }
    return [
        Step(
            name=f"vocoder/{spoken}",
            function="speechscale.study.speaking:make_vocoder",
            config=config,
            inputs=data,
            seconds=25,
        ),
        Step(
            name=f"samples/{name}",
            function="speechscale.study.speaking:make_samples",
            config=config,
            inputs=(*data, f"vocoder/{spoken}", *final),
            seconds=6,
            summary=True,
        ),
    ]


def run_study(study: Study, folder: Path, *, only: str | None, jobs: int, say: Callable[[str], None]) -> Outcome:
    """Run what is not done yet and put runs.csv, laws.json, report.html and skips.jsonl into `folder`.

    Raises:
        DataError: an impossible study, another study's folder, or one in use.
        StaleStep: results of another recipe are in the folder.
    """
    steps = study_steps(study)
    chosen = with_inputs(steps, only) if only else steps
    _claim(folder, study)
    outcome = run_graph(chosen, folder / "steps", jobs=jobs, say=say)
    if "report" in {*outcome.done, *outcome.kept}:
        for name in ("runs.csv", "laws.json", "report.html", "skips.jsonl"):
            shutil.copyfile(folder / "steps" / "report" / name, folder / f".{name}.tmp")
            (folder / f".{name}.tmp").replace(folder / name)
    return outcome


def _claim(folder: Path, study: Study) -> None:
    marker = folder / MARKER
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; choose another --out")
    if folder.is_dir() and not marker.is_file() and any(folder.iterdir()):
        raise DataError(f"{folder} holds other files and no {MARKER}; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(marker, study.model_dump(mode="json"))


def clean_study(folder: Path, step: str | None) -> int:
    """Remove all results, or those of one step (or folder of steps); return how many steps went.

    Raises:
        DataError: the folder is not a study's, or has no such step.
    """
    if not (folder / MARKER).is_file():
        raise DataError(f"{folder} is not the folder of a study ({MARKER} is missing); nothing was removed")
    root = folder / "steps"
    target = (root / step).resolve() if step else root.resolve()
    if not target.is_relative_to(root.resolve()) or (step and not target.is_dir()):
        raise DataError(f"no step '{step}' in {root}; see speechscale study status")
    with locked(root):
        count = sum(1 for _ in target.rglob(RECORD)) if target.is_dir() else 0
        shutil.rmtree(target if step else folder, ignore_errors=True)
    return count
