"""Benchmarks in a study: encoded once per speech tokenizer, scored by every run.

Enters: a folder made by `eval prepare`, the study's speech tokenizer. Leaves: a step that holds the chosen items and
their units. The one decision worth knowing: the step copies what is asked, so that runs read the study's own folders
only, and its recipe holds the benchmark's checksum, so that other questions under the old name are noticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from speechscale.corpus.tables import read_items, write_items
from speechscale.errors import DataError
from speechscale.evals.benchmarks.benchmark import Benchmark, items_sha256, open_benchmark
from speechscale.evals.benchmarks.raw import Facts
from speechscale.evals.cuts import SIDES
from speechscale.evals.layouts import Direction, require_spellable
from speechscale.evals.metrics import Metric
from speechscale.files import read_json, write_json
from speechscale.records import Item, UnitTable
from speechscale.speech.unit_files import read_units, write_units
from speechscale.speech.units import SpeechTokenizer
from speechscale.study.drawing import drawn
from speechscale.study.spec import Evals, Part
from speechscale.study.steps import Step
from speechscale.tokens.vocabulary import Vocabulary

PREFIX = "benchmark/"
MOST_TAGS = 3
STORYWORLD = Facts(
    task="storyworld",
    title="forced choices of the study's own storyworld",
    version="of the study",
    paper="this package, docs/storyworld.md",
    licence="Apache-2.0",
    origin="made by the study",
)
PARTS = ("prompt", *(f"{side}-ending" for side in SIDES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A benchmark as a run is asked it. `sha256`: of the whole benchmark. `table`: None where nothing was spoken."""

    name: str
    facts: Facts
    sha256: str
    items: list[Item]
    table: UnitTable | None

    def directions(self, evals: Evals, vocabulary: Vocabulary) -> list[Direction]:
        """The directions asked for; of items in a language that a text tokenizer does not know only speech."""
        try:
            require_spellable(self.items, vocabulary)
        except DataError:
            return [direction for direction in evals.directions if direction == "ss"]
        return list(evals.directions)


def benchmark_steps(part: Part, spoken: str, tokenizer: str) -> list[Step]:
    """One step per benchmark of a part.

    Raises:
        DataError: a benchmark called like the study's own sets together.
    """
    if STORYWORLD.task in part.evals.benchmarks:
        raise DataError(f"evals.benchmarks.{STORYWORLD.task}: the study's own sets have this name; take another")
    return [
        Step(
            name=f"{PREFIX}{name}/{spoken}",
            function="speechscale.study.benchmarks:make_benchmark",
            config={
                "folder": folder,
                "sha256": _sha256(Path(folder)),
                "pairs": part.evals.benchmark_pairs,
                "seed": part.seed,
            },
            inputs=(tokenizer,),
            seconds=20,
        )
        for name, folder in part.evals.benchmarks.items()
    ]


def benchmark_inputs(part: Part, spoken: str) -> tuple[str, ...]:
    """Their names, as inputs of runs."""
    return tuple(f"{PREFIX}{name}/{spoken}" for name in part.evals.benchmarks)


def _sha256(folder: Path) -> str:
    """Checksum of a benchmark; "" while it is not prepared, so that a study can be planned before."""
    return open_benchmark(folder).sha256 if (folder / "benchmark.json").is_file() else ""


def make_benchmark(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Draw items of a benchmark and encode their recordings with the study's tokenizer."""
    benchmark = open_benchmark(Path(config["folder"]))
    if benchmark.sha256 != config["sha256"]:
        raise DataError(f"benchmark {benchmark.folder}: it was prepared anew since the study began; start it again")
    (folder,) = inputs.values()
    items = drawn(benchmark.items(), config["pairs"], config["seed"])
    write_items(out / "items.parquet", items)
    units = 0
    if benchmark.has_audio:
        table = _rows_of(benchmark, folder, items, whole=config["pairs"] is None)
        write_units(out / "units.parquet", table, SpeechTokenizer.load(folder).fingerprint)
        units = len(table.units)
    write_json(out / "facts.json", {"facts": asdict(benchmark.facts), "sha256": benchmark.sha256})
    return {"items": len(items), "units": units, "note": f"{benchmark.facts.title}, {len(items)} items"}


def _rows_of(benchmark: Benchmark, tokenizer: Path, items: Sequence[Item], *, whole: bool) -> UnitTable:
    """The recordings of these items; others stay unencoded."""
    table = benchmark.units(tokenizer, items=None if whole else items, workers=0)
    wanted = {f"{item.id}/{part}" for item in items for part in (*SIDES, *PARTS)}
    return table.take(row for row, id in enumerate(table.ids) if id in wanted)


def asked_of(evals: Evals, inputs: Mapping[str, Path]) -> list[Asked]:
    """What a run is asked: the study's own sets, then the benchmarks among its inputs."""
    found = []
    folders = {name.partition("/")[0]: folder for name, folder in inputs.items()}
    if evals.sets and "items" in folders and "item-units" in folders:
        items = chosen_items(evals, folders["items"])
        table = read_units(folders["item-units"] / "units.parquet")
        sha256 = items_sha256(items)
        found.append(Asked(name=STORYWORLD.task, facts=STORYWORLD, sha256=sha256, items=items, table=table))
    for name, folder in sorted(inputs.items()):
        if name.startswith(PREFIX):
            saved = read_json(folder / "facts.json", "benchmark of a study", "run its step again")
            units = folder / "units.parquet"
            found.append(
                Asked(
                    name=name.removeprefix(PREFIX).partition("/")[0],
                    facts=Facts(**saved["facts"]),
                    sha256=saved["sha256"],
                    items=read_items(folder / "items.parquet"),
                    table=read_units(units) if units.is_file() else None,
                )
            )
    return found


def chosen_items(evals: Evals, folder: Path) -> list[Item]:
    """The items of the study's own world that a part asks, set by set: the first `pairs` of each."""
    everything = read_items(folder / "items.parquet")
    return [
        item
        for name in evals.sets
        for item in _first_pairs([item for item in everything if item.set == name], evals.pairs)
    ]


def _first_pairs(items: Sequence[Item], pairs: int) -> list[Item]:
    chosen = set(list(dict.fromkeys(item.pair for item in items))[:pairs])
    return [item for item in items if item.pair in chosen]


def columns_of(metrics: Iterable[Metric]) -> list[Metric]:
    """Metrics that become columns of runs.csv, their sets named so that the benchmark is told.

    A set with more than MOST_TAGS tags (63 subtypes of sBLIMP) has columns of the whole only; results.json has all.

    Example: benchmark "sblimp" with set "sblimp" -> "sblimp"; "mine" with set "gender-consistency" ->
    "mine_gender_consistency"; the study's own sets keep their names
    """
    metrics = list(metrics)
    tags: dict[tuple[str, str], set[str]] = {}
    for metric in metrics:
        tags.setdefault((metric.benchmark, metric.set), set()).add(metric.tag)
    return [
        replace(metric, set=column_name(metric.benchmark, metric.set), tag=_word(metric.tag))
        for metric in metrics
        if not metric.tag or len(tags[metric.benchmark, metric.set] - {""}) <= MOST_TAGS
    ]


def column_name(benchmark: str, name: str) -> str:
    """What a set is called in runs.csv and along runs; the study's own sets keep their names."""
    return _word(name if benchmark in (name, STORYWORLD.task) else f"{benchmark}_{name}")


def _word(text: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in text)
