"""`speechscale eval list|prepare`: the benchmarks we read, and their folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from speechscale.cli.units import DEVICE, MODELS

if TYPE_CHECKING:
    from speechscale.evals.benchmarks.benchmark import Benchmark
    from speechscale.evals.benchmarks.raw import Task
    from speechscale.voices.engines import VoiceOptions


@click.command("list")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON, for programs.")
def list_tasks(names: tuple[str, ...], as_json: bool) -> None:
    """List the benchmarks: chance, paper, what files are expected; of the NAMES given, or all."""
    import json

    from speechscale.errors import DataError
    from speechscale.evals.tasks import TASKS
    from speechscale.settings import nearest

    for name in names:
        if name not in TASKS:
            raise DataError(f"task '{name}' is not known{nearest(name, list(TASKS))}")
    chosen = [TASKS[name] for name in names or TASKS]
    if as_json:
        click.echo(json.dumps({task.name: _facts(task) for task in chosen}, indent=2))
        return
    width = max(len(task.name) for task in chosen)
    for task in chosen:
        click.echo(f"{task.name:<{width}}  chance {task.chance:.0%}  {task.about}")
        margin = " " * (width + 2)
        _wrapped(f"paper: {task.paper}", margin)
        _wrapped(f"needs: {task.example_layout}", margin)
        for option, what in task.options.items() if names else ():
            _wrapped(f"--option {option}=...  {what}", margin)
    if not names:
        click.echo("\noptions of a task: speechscale eval list TASK; next: speechscale eval prepare TASK SOURCE OUT")


@click.command()
@click.argument("task")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--voice", "voices", multiple=True, help="Speak the texts: us-f2, flite:slt, piper:V.onnx, kokoro:af_heart."
)
@click.option("--each-voice", is_flag=True, help="Every voice speaks every item; else pairs take turns.")
@click.option(
    "--voice-option", "voice_options", multiple=True, metavar="KEY=VALUE", help="Of engines; see docs/voices.md."
)
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="Of the task; see: eval list TASK.")
@click.option(
    "--split",
    type=click.Choice(["given", "last-sentence"]),
    default="given",
    show_default=True,
    help="What is the candidate: as the task says, or the last sentence of whole stories.",
)
@click.option("--pause", "pause_s", type=float, default=0.0, show_default=True, help="Seconds between parts apart.")
@click.option("--together", is_flag=True, help="Partners of a dropped item leave too, as symmetric pairs must.")
@click.option("--units", "tokenizer", type=click.Path(path_type=Path), help="Speech tokenizer to encode with, at once.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Never changes a byte.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The voice that begins.")
@DEVICE
@MODELS
def prepare(
    task: str,
    source: Path,
    out: Path,
    voices: tuple[str, ...],
    each_voice: bool,
    voice_options: tuple[str, ...],
    options: tuple[str, ...],
    split: str,
    pause_s: float,
    together: bool,
    tokenizer: Path | None,
    workers: int,
    seed: int,
    device: str,
    models: tuple[Path, ...],
) -> None:
    """Check the original data SOURCE of TASK and write the benchmark folder OUT.

    Nothing is copied unless it has to be made. With --voice texts are spoken. The same command goes on after a stop.
    """
    from speechscale.evals.benchmarks.prepare import prepare as make
    from speechscale.evals.benchmarks.prepare import read_source
    from speechscale.progress import ProgressLine
    from speechscale.speech.encoders.base import Runtime

    with ProgressLine("prepared") as watch:
        made = make(
            read_source(task, source, _pairs(options)),
            out,
            voices=voices,
            each_voice=each_voice,
            seed=seed,
            split="last-sentence" if split == "last-sentence" else "given",
            pause_s=pause_s,
            pairs_together=together,
            voice=_engine_options(voice_options),
            tokenizer=tokenizer,
            workers=workers,
            runtime=Runtime(device=device, model_folders=models),
            watch=watch,
        )
    click.echo(_closing(made, tokenizer))


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE as text, whatever the values look like."""
    found: dict[str, str] = {}
    for setting in given:
        key, mark, value = setting.partition("=")
        if not mark or not key or key in found:
            raise click.BadParameter(f"'{setting}' is not KEY=VALUE, or the key is given twice")
        found[key] = value
    return found


def _engine_options(given: tuple[str, ...]) -> VoiceOptions:
    from dataclasses import asdict

    from speechscale.errors import DataError
    from speechscale.evals.benchmarks.readers.worlds import number
    from speechscale.settings import nearest
    from speechscale.voices.engines import VoiceOptions

    defaults, values = asdict(VoiceOptions()), dict[str, Any]()
    for key, text in _pairs(given).items():
        if key not in defaults:
            raise DataError(f"voice option '{key}' is not known{nearest(key, list(defaults))}")
        if isinstance(defaults[key], bool):
            if text not in ("true", "false"):
                raise DataError(f"option {key} = '{text}': true or false is needed")
            values[key] = text == "true"
        elif isinstance(defaults[key], str):
            values[key] = text
        else:
            values[key] = number(key, text, whole=isinstance(defaults[key], int))
    return VoiceOptions(**values)


def _closing(made: Benchmark, tokenizer: Path | None) -> str:
    """What was made, what was dropped, what to do next."""
    info = made.info
    hours = f", {info['hours']:.2f} h in {info['recordings']:,} recordings" if made.has_audio else ", text alone"
    lines = [
        f"{made.folder}: {info['kept']:,} items kept, {info['dropped']:,} dropped{hours}; sha256 {made.sha256[:16]}"
    ]
    for name, counts in info["sets"].items():
        more = [f"{counts[key]:,} {key}" for key in ("speakers", "phenomena") if counts[key]]
        lines.append("  " + ", ".join([f"{name}: {counts['items']:,} items in {counts['pairs']:,} pairs", *more]))
    lines += [f"  {count:,} dropped: {remedy} (skips.jsonl)" for remedy, count in info["remedies"].items()]
    if info["without_cut"]:
        lines.append(
            f"  {info['without_cut']:,} items do not say where the candidate begins and cannot be scored as speech; "
            "give word times or cut times"
        )
    if info["clipped"]:
        lines.append(f"  {info['clipped']:,} items were beyond full scale and are clipped in the files written here")
    given = f" --tokenizer {tokenizer}" if tokenizer else ""
    lines.append(f"next: speechscale eval run MODEL {made.folder} --out RESULTS{given}")
    return "\n".join(lines)


def _facts(task: Task) -> dict[str, Any]:
    return {
        "about": task.about,
        "paper": task.paper,
        "chance": task.chance,
        "options": dict(task.options),
        "layout": task.example_layout,
    }


def _wrapped(text: str, margin: str) -> None:
    import shutil
    import textwrap

    width = min(max(shutil.get_terminal_size((100, 24)).columns, 60), 120)
    for line in textwrap.wrap(text, width - len(margin), subsequent_indent="  ", break_on_hyphens=False):
        click.echo(margin + line)
