"""`speechscale study show|run|status|clean`: plan a study, run it, see where it stands, remove results."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import click

NAME = click.argument("name_or_file", metavar="NAME_OR_FILE")
OUT = click.option("--out", type=click.Path(path_type=Path), help="Folder of the results [runs/NAME].")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key, e.g. corpus.path=my/dir."
)


@click.group()
def study() -> None:
    """Plan, run and inspect studies."""


@study.command("list")
def list_() -> None:
    """List the studies that come with speechscale."""
    from speechscale.study.loading import load_study, shipped_studies

    names = shipped_studies()
    width = max(map(len, names)) + 1
    for name in names:
        header = load_study(name).study
        click.echo(f"{name:{width}} {header.question}\n{'':{width}} cost: {header.cost}")


@study.command()
@NAME
@SET
@click.option("--resolved", is_flag=True, help="Print the resolved study as JSON instead of the table.")
def show(name_or_file: str, overrides: tuple[str, ...], resolved: bool) -> None:
    """Print the planned runs and the bill; spends nothing."""
    loaded = _load(name_or_file, overrides)
    if resolved:
        click.echo(json.dumps(loaded.model_dump(mode="json"), indent=1))
        return
    from speechscale.study.show import print_plan

    print_plan(loaded)


@study.command()
@NAME
@OUT
@SET
@click.option("--only", metavar="STEP", help="Run this step (or all steps of this folder) and what it needs.")
@click.option("--jobs", type=click.IntRange(min=1), help="Worker processes [one per core, or per place on a GPU].")
@click.option("--per-gpu", type=click.IntRange(min=1), help="Workers that share one GPU [1].")
def run(
    name_or_file: str,
    out: Path | None,
    overrides: tuple[str, ...],
    only: str | None,
    jobs: int | None,
    per_gpu: int | None,
) -> None:
    """Run a study, or go on where it was; the second run of a finished study does no work."""
    from speechscale.study.devices import share_out
    from speechscale.study.recipes import run_study

    loaded = _load(name_or_file, overrides)
    folder = out or Path("runs") / loaded.study.name
    jobs, devices = share_out(jobs, per_gpu, usable_cores())
    outcome = run_study(loaded, folder, only=only, jobs=jobs, say=click.echo, devices=devices)
    click.echo(f"{len(outcome.done)} steps done, {len(outcome.kept)} kept, in {outcome.seconds:.0f} s")
    for name, reason in outcome.failed.items():
        click.echo(f"failed: {name}: {reason}", err=True)
    if outcome.blocked:
        click.echo(f"not done because of that: {len(outcome.blocked)} steps", err=True)
    if (folder / "report.html").is_file() and only is None:
        click.echo(f"report: {folder / 'report.html'}")
    if outcome.failed:
        raise SystemExit(1)


@study.command()
@NAME
@OUT
@SET
def status(name_or_file: str, out: Path | None, overrides: tuple[str, ...]) -> None:
    """Tell which steps are done, missing or made with another recipe."""
    from speechscale.study.recipes import study_steps
    from speechscale.study.runners import step_states

    loaded = _load(name_or_file, overrides)
    folder = out or Path("runs") / loaded.study.name
    steps = study_steps(loaded)
    states = step_states(steps, folder / "steps")
    for step in steps:
        click.echo(f"{states[step.name]:8} {step.name}")
    click.echo(", ".join(f"{count} {state}" for state, count in sorted(Counter(states.values()).items())))


@study.command()
@NAME
@OUT
@click.option("--step", metavar="STEP", help="Remove only this step (or all steps of this folder).")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(name_or_file: str, out: Path | None, step: str | None, yes: bool) -> None:
    """Remove a study's results, or those of one step."""
    from speechscale.study.recipes import clean_study

    folder = out or Path("runs") / _load(name_or_file, ()).study.name
    what = f"step '{step}' of {folder}" if step else f"all results in {folder}"
    if yes or click.confirm(f"remove {what}?"):
        click.echo(f"removed {clean_study(folder, step)} steps")


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load(name_or_file: str, overrides: tuple[str, ...]) -> Any:
    from speechscale.study.loading import load_study, parse_override

    return load_study(name_or_file, dict(parse_override(entry) for entry in overrides))
