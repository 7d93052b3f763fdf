"""From what a task read to a benchmark folder: check, speak, join, hash.

Enters: a `Source` (texts, recordings, word times) and perhaps voices; or a word that names one. Leaves: a `Benchmark`.
The one decision worth knowing: everything follows from the source and the recipe; the same call goes on after any
interruption, returns a finished folder as it is, and refuses a folder of another recipe.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechscale.errors import DataError, StaleStep
from speechscale.evals.benchmarks.benchmark import Benchmark, file_sizes, lines_sha256, open_benchmark
from speechscale.evals.benchmarks.checks import Split
from speechscale.evals.benchmarks.making import WORK, Job, make
from speechscale.evals.benchmarks.raw import RawItem, Source, Task
from speechscale.evals.benchmarks.recordings import ROLES
from speechscale.evals.tasks import TASKS
from speechscale.files import canonical_sha256, held_alone, read_json, write_json
from speechscale.progress import Watch
from speechscale.settings import nearest
from speechscale.voices.engines import Cast, VoiceOptions

if TYPE_CHECKING:
    from speechscale.speech.encoders import Runtime

_SPEC = re.compile(r"([\w-]+)(?::([\w-]+=[^,=]*(?:,[\w-]+=[^,=]*)*))?=(.+)")


def prepare(
    source: Source,
    out: Path,
    *,
    voices: Sequence[str] = (),
    each_voice: bool = False,
    seed: int = 0,
    split: Split = "given",
    pause_s: float = 0.0,
    pairs_together: bool = False,
    voice: VoiceOptions | None = None,
    tokenizer: Path | None = None,
    workers: int = 1,
    runtime: Runtime | None = None,
    watch: Watch | None = None,
) -> Benchmark:
    """Make a benchmark folder, or go on where an earlier call was stopped.

    Args:
        voices: addresses such as "us-f2" or "flite:slt"; they speak the texts, and recordings of the source are not
            used. seed: the voice that begins. each_voice: every voice speaks every item.
        split: "last-sentence" makes prompt and candidate of whole stories.
        pause_s: silence between prompt and ending that were recorded apart; at least 0.15 s where voices spoke them.
        pairs_together: partners of a dropped item in the same voice leave too, as symmetric pairs must.
        tokenizer: folder of a speech tokenizer to encode the recordings with, see `Benchmark.units`.
        workers: processes; they never change a byte.

    Raises:
        DataError: nothing usable (with the first reasons), unusable voices, other files in `out`.
        StaleStep: `out` holds a benchmark of another recipe; the message lists the differences.
    """
    out = Path(out)
    if not 0 <= pause_s < 60:
        raise DataError(f"pause_s = {pause_s}; give seconds from 0 to 60")
    raws = list(source.items)
    cast = Cast(voices, voice) if voices else None
    spoken_by = cast.check() if cast else {}
    recipe = _recipe(source, raws, spoken_by, each_voice, seed, split, pause_s, pairs_together)
    job = Job(
        source=source, raws=raws, out=out, cast=cast, voices=spoken_by, recipe=recipe, workers=workers, watch=watch
    )
    with held_alone(out, "is preparing it"):
        made = _claim(out, recipe) or make(job)
    if tokenizer is not None:
        made.units(tokenizer, workers=job.processes, runtime=runtime, watch=job.told("encoding"))
    return made


def prepared(
    spec: str, cache: Path, *, workers: int = 1, watch: Watch | None = None, tasks: Mapping[str, Task] = TASKS
) -> Benchmark:
    """Open a prepared folder, or prepare original data once.

    Example: "bench/sblimp", "sblimp=/data/zr2021", "sblimp:split=test=/data/zr2021"

    Args:
        cache: where benchmarks made here are kept, as TASK-<checksum of path and options>.

    Raises:
        DataError: neither a prepared folder nor a known task, or data that cannot be used.
    """
    if (Path(spec) / "benchmark.json").is_file():
        return open_benchmark(Path(spec))
    match = _SPEC.fullmatch(spec)
    if match is None:
        if Path(spec).is_dir():
            return open_benchmark(Path(spec))
        raise DataError(f"benchmark '{spec}': no such folder; give a prepared one, or original data as TASK=PATH")
    name, pairs, path = match.groups()
    options = dict(pair.split("=", 1) for pair in pairs.split(",")) if pairs else {}
    source = read_source(name, Path(path), options, tasks)
    made_of = canonical_sha256({"path": str(Path(path).resolve()), "options": options})[:12]
    return prepare(source, cache / f"{name}-{made_of}", workers=workers, watch=watch)


def read_source(name: str, path: Path, options: Mapping[str, str], tasks: Mapping[str, Task] = TASKS) -> Source:
    """Let a task read original data.

    Raises:
        DataError: an unknown task or option, data that is missing; the message says what is expected.
    """
    if name not in tasks:
        raise DataError(f"task '{name}' is not known{nearest(name, list(tasks))}; see: speechscale eval list")
    task = tasks[name]
    for option in options:
        if option not in task.options:
            allowed = ", ".join(task.options) or "none"
            raise DataError(f"task '{name}': no option '{option}'; it has: {allowed}")
    if not path.exists():
        raise DataError(f"task '{name}': {path} does not exist; it needs {task.example_layout or 'its original data'}")
    return task.read(path, **options)


def _recipe(
    source: Source,
    raws: Sequence[RawItem],
    voices: Mapping[str, Mapping[str, object]],
    each_voice: bool,
    seed: int,
    split: Split,
    pause_s: float,
    pairs_together: bool,
) -> dict[str, Any]:
    """Everything that decides the folder's bytes, as plain JSON; not how many workers."""
    recorded = not voices and any(getattr(raw, role) is not None for raw in raws for role in ROLES)
    clips = [getattr(raw, role).path for raw in raws for role in ROLES if getattr(raw, role)] if recorded else []
    recipe = {
        "task": source.facts.task,  # what else is said of it may be worded anew
        "version": source.facts.version,
        "items": lines_sha256(asdict(raw) for raw in raws),
        # A mended source is another source.
        "recordings": canonical_sha256({"sizes": file_sizes(source.root or Path(), clips)}) if clips else None,
        "root": str(source.root.resolve()) if clips and source.root is not None else None,
        "voices": {label: facts["version"] for label, facts in voices.items()},
        "voice_order": list(voices),
        "each_voice": each_voice,
        "seed": seed if voices else 0,
        "split": split,
        "pause_s": pause_s,
        "pairs_together": pairs_together,
    }
    plain: dict[str, Any] = json.loads(json.dumps(recipe))
    return plain


def _claim(out: Path, recipe: dict[str, Any]) -> Benchmark | None:
    """The finished benchmark of this recipe, or None once the folder is ours to work in.

    Raises:
        StaleStep: another recipe. DataError: other files.
    """
    state = out / WORK / "recipe.json"
    if (out / "benchmark.json").is_file():
        done = open_benchmark(out)
        _same_recipe(out, done.info["recipe"], recipe)
        shutil.rmtree(out / WORK, ignore_errors=True)  # What a kill at the very end left.
        return done
    if state.is_file():
        _same_recipe(out, read_json(state, "benchmark", "delete the folder and run again"), recipe)
        return None
    strangers = sorted(path.name for path in out.iterdir() if path.name not in (WORK, "skips.jsonl"))
    if strangers:
        raise DataError(f"{out} has other files in it ({', '.join(strangers[:3])}); name an empty or new folder")
    write_json(state, recipe)
    return None


def _same_recipe(out: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    changed = [
        f"{key}: {old.get(key)!r} -> {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if changed:
        raise StaleStep(
            f"{out} holds a benchmark of another recipe: {'; '.join(changed)[:2000]}; "
            "use another folder or delete this one"
        )
