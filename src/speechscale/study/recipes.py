"""From a study to its graph of steps.

Enters: a resolved `Study`. Leaves: steps, and the verbs run, status and clean on them.
The one decision worth knowing: a learning rate is chosen inside the run that uses it, from the records of the sweep
runs among its inputs, so the graph is static and `show`, `status` and the runner all see the same steps.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.study.data_steps import data_steps, item_inputs, spoken_name, tokenizer_step
from speechscale.study.plan import Cell, plan_part, text_lm_cells, trunk_cells, trunk_key
from speechscale.study.runners import Outcome, locked, run_graph, with_inputs
from speechscale.study.spec import Part, Study
from speechscale.study.steps import RECORD, Step, write_json

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
            if steps.setdefault(step.name, step) != step:
                raise DataError(
                    f"part '{name}': step '{step.name}' is that of another part too, but with other settings; give the "
                    "part another corpus.name"
                )
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
    trained = _text_lm_steps(name, part) + _run_steps(name, part)
    return [*data_steps(part, study), *trained, *_voice_steps(name, part)]


def _file_name(shape: str) -> str:
    """A shape's name as part of a folder's. Example: opt:0.2M -> opt-0.2M"""
    return shape.replace(":", "-")


def _text_lm_name(part: Part, cell: Cell) -> str:
    return f"text_lm/{part.corpus.name}/{_file_name(cell.size)}-lr{cell.learning_rates[0]:g}"


def _text_lm_steps(name: str, part: Part) -> list[Step]:
    """The TextLM of each shape, and its own text cloze."""
    steps: list[Step] = []
    by_shape: dict[str, list[str]] = {}
    train = part.train.model_copy(
        update={"schedule": part.text_lm.schedule, "branches": False, "warmup_tokens": None}
    ).model_dump(mode="json")
    for cell in text_lm_cells(name, part):
        config = {
            "size": cell.size,
            "tokens": part.text_lm.tokens,
            "learning_rate": cell.learning_rates[0],
            "train": train,
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
        by_shape.setdefault(cell.size, []).append(step.name)
    if not part.evals.scores:
        return steps
    for shape, names in by_shape.items():
        steps.append(
            Step(
                name=f"text_lm_eval/{name}/{_file_name(shape)}",
                function=f"{TRAINING}:score_text_lm",
                config={"evals": part.evals.model_dump(mode="json"), "context": part.train.context},
                inputs=(*names, f"text/{part.corpus.name}", *item_inputs(part)),
                seconds=3,
            )
        )
    return steps


def run_name(cell: Cell) -> str:
    """Folder of a run or trunk below `steps/`; a run of the sweep says its rate."""
    what = f"{cell.part}/{cell.arm}-{_file_name(cell.size)}"
    if cell.kind == "trunk":
        return f"trunk/{what}-s{cell.seed}"
    axis = f"{cell.budget_flops:.3g}".replace("e+", "e")
    rate = f"-lr{cell.learning_rates[0]:g}" if cell.sweep else ""
    return f"run/{what}-{axis}{rate}-s{cell.seed}"


def _run_steps(name: str, part: Part) -> list[Step]:
    """Trunks and runs. A rate is chosen by whoever takes it first; a branch takes its trunk's."""
    cells = plan_part(name, part)
    sweeps: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        if cell.sweep:
            sweeps.setdefault((cell.arm, cell.size), []).append(run_name(cell))
    trunks = {trunk_key(cell): cell for cell in trunk_cells(cells)}
    text_lms = text_lm_cells(name, part)
    steps = []
    for cell in [*trunks.values(), *cells]:
        scored = part.evals.scores and (cell.largest or not part.evals.largest_budget_only) and cell.kind != "trunk"
        inputs = _model_inputs(part, cell, text_lms) + (item_inputs(part) if scored else ())
        if cell.kind == "branch":
            inputs += (run_name(trunks[trunk_key(cell)]),)
        elif not cell.sweep:
            inputs += tuple(sweeps.get((cell.arm, cell.size), ()))
        config = _run_config(part, cell, bool(scored))
        if cell.kind == "trunk":
            branches = [c for c in cells if c.kind == "branch" and trunk_key(c) == trunk_key(cell)]
            config["branch_points"] = sorted(branch.point for branch in branches)
        steps.append(
            Step(
                name=run_name(cell),
                function=f"{TRAINING}:{'train_trunk' if cell.kind == 'trunk' else 'train_run'}",
                config=config,
                inputs=inputs,
                seconds=cell.seconds + (4 if scored else 2),
            )
        )
    return steps


def _model_inputs(part: Part, cell: Cell, text_lms: Sequence[Cell]) -> tuple[str, ...]:
    """The tokens a run reads, and the TextLMs it may start from."""
    arm = part.arms[cell.arm]
    data = f"text/{part.corpus.name}" if arm.vocabulary == "text" else f"tokens/{spoken_name(part)}"
    if arm.start == "scratch":
        return (data,)
    return (data, *(_text_lm_name(part, lm) for lm in text_lms if lm.size == cell.size))


def _run_config(part: Part, cell: Cell, scored: bool) -> dict[str, Any]:
    arm, warm = part.arms[cell.arm], part.arms[cell.arm].start == "warm"
    return {
        "part": cell.part,
        "arm": cell.arm,
        "start": arm.start,
        "vocabulary": arm.vocabulary,
        "mixture": arm.mixture,
        "max_epochs": arm.max_epochs,
        "size": cell.size,
        "axis": part.grid.axis,
        "point": cell.point,
        "shortest_point": part.grid.points[0],
        "flops": part.grid.flops,
        "learning_rates": list(cell.learning_rates),
        "sweep": cell.sweep,
        "seed": cell.seed,
        "units": part.units.name,
        "oracle_units": part.units.oracle,
        "supervised_units": part.units.supervised,
        "interleave": part.interleave_of(arm).model_dump(mode="json"),
        "train": part.train.model_dump(mode="json"),
        "pretrained": part.text_lm.pretrained.get(cell.size, "") if warm else "",
        "pretrained_flops": part.text_lm.pretrained_flops.get(cell.size, 0.0) if warm else 0.0,
        "evals": part.evals.model_dump(mode="json") if scored else None,
        "min_steps": part.grid.min_steps,
    }


def _voice_steps(name: str, part: Part) -> list[Step]:
    """A vocoder for the part's units, and samples from its runs at the largest budget."""
    if not part.vocoder.enabled:
        return []
    spoken = spoken_name(part)
    data = (f"corpus/{part.corpus.name}", tokenizer_step(part))
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


def run_study(
    study: Study,
    folder: Path,
    *,
    only: str | None,
    jobs: int,
    say: Callable[[str], None],
    devices: Sequence[str] = (),
) -> Outcome:
    """Run what is not done yet and put runs.csv, laws.json, report.html and skips.jsonl into `folder`.

    Args:
        devices: of the workers, see `run_graph`.

    Raises:
        DataError: an impossible study, another study's folder, or one in use.
        StaleStep: results of another recipe are in the folder.
    """
    steps = study_steps(study)
    chosen = with_inputs(steps, only) if only else steps
    _claim(folder, study)
    outcome = run_graph(chosen, folder / "steps", jobs=jobs, say=say, devices=devices)
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
