"""`speechscale eval run MODEL BENCHMARK...`: score a model on benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("benchmarks", nargs=-1, required=True, metavar="BENCHMARK...")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the results.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Speech tokenizer; a study's run knows its own.")
@click.option("--direction", "directions", multiple=True, type=click.Choice(["ss", "st", "ts", "tt"]), help="[all]")
@click.option(
    "--protocol", "protocols", multiple=True, help="Names, or NAME:FIELD=VALUE,... [the benchmark's and ours]"
)
@click.option("--limit", type=click.IntRange(min=1), help="Pairs per set, drawn with --seed [all].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of --limit and the intervals.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option(
    "--long",
    "long_",
    type=click.Choice(["refuse", "windows"]),
    default="refuse",
    show_default=True,
    help="Items beyond the model's context: leave them out with a reason, or score them by windows.",
)
@click.option("--compile", "compiled", is_flag=True, help="torch.compile each block; for many items.")
@click.option("--batch-tokens", type=click.IntRange(min=1), default=4096, show_default=True)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@click.option(
    "--workers", type=click.IntRange(min=0), default=1, show_default=True, help="Processes that encode audio."
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=Path("runs/benchmarks"),
    show_default=True,
    help="Where benchmarks made of original data (TASK=PATH) are kept.",
)
def run(
    model: Path, benchmarks: tuple[str, ...], out: Path, tokenizer: Path | None, cache: Path, **options: Any
) -> None:
    """Score MODEL (a study's run, or a folder with model and vocabulary.json) on benchmarks.

    A BENCHMARK is a folder made by `eval prepare`, or original data as TASK=PATH (`eval list` names the tasks). The
    same command goes on after an interruption.
    """
    from speechscale.evals.benchmarks.prepare import prepared
    from speechscale.evals.evaluate import How
    from speechscale.progress import ProgressLine
    from speechscale.study.evaluating import Wanted, run_benchmarks
    from speechscale.study.located import locate

    located = locate(model, tokenizer=tokenizer)
    opened = {}
    for spec in benchmarks:
        with ProgressLine(f"{spec}: prepared") as watch:
            benchmark = prepared(spec, cache, workers=options["workers"], watch=watch)
        name = spec.partition("=")[0].partition(":")[0] if "=" in spec else benchmark.folder.resolve().name
        if name in opened:
            raise click.UsageError(f"benchmark '{name}' is named twice")
        opened[name] = benchmark
    results = run_benchmarks(
        located,
        opened,
        out,
        Wanted(
            directions=options["directions"] or None,
            protocols=options["protocols"],
            limit=options["limit"],
            seed=options["seed"],
            how=How(
                precision=options["precision"],
                long=options["long_"],
                batch_tokens=options["batch_tokens"],
                compiled=options["compiled"],
            ),
            device=options["device"],
            workers=options["workers"],
        ),
        watch_of=ProgressLine,
    )
    show(results)


def show(results: Any) -> None:
    """Print every metric over all items, and where the rest is."""
    click.echo(f"{'benchmark / set':<36} {'':<3} {'protocol':<14} {'accuracy':>8}  95 % interval     items  ties")
    for metric in results.metrics:
        if metric["tag"]:
            continue
        bounds = "-" if metric["low"] is None else f"[{metric['low']:.3f}, {metric['high']:.3f}]"
        name = (
            metric["benchmark"] if metric["set"] == metric["benchmark"] else f"{metric['benchmark']} / {metric['set']}"
        )
        click.echo(
            f"{name:<36} {metric['direction']:<3} {metric['protocol']:<14} {metric['estimate']:>8.4f}  {bounds:<16} "
            f"{metric['n_items']:>6}  {metric['n_ties']:>4}"
        )
    for name, tested in results.benchmarks.items():
        if tested["dropped"]:
            click.echo(f"{name}: {tested['dropped']} item scorings left out; {results.folder}/skips.jsonl says why")
    click.echo(f"{results.folder}: results.json (stamped), scores.parquet (per item)")
