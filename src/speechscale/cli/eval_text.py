"""`speechscale eval export|retention`: benchmarks as tasks of lm-evaluation-harness; what an SLM keeps of its text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from speechscale.evals.harness.text_retention import Retention

MODEL = click.argument("model", type=click.Path(path_type=Path))


@click.command()
@MODEL
@click.argument("benchmark", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Speech tokenizer; a study's run knows its own.")
@click.option("--direction", "directions", multiple=True, type=click.Choice(["ss", "st", "ts", "tt"]), help="[all]")
@click.option(
    "--protocol", "protocols", multiple=True, help="Names, or NAME:FIELD=VALUE,... [the benchmark's and ours]"
)
@click.option("--limit", type=click.IntRange(min=1), help="Pairs per set, drawn with --seed [all].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of --limit.")
@click.option(
    "--workers", type=click.IntRange(min=0), default=1, show_default=True, help="Processes that encode audio."
)
def export(model: Path, benchmark: Path, out: Path, tokenizer: Path | None, **options: Any) -> None:
    """Write BENCHMARK in the tokens of MODEL as text-only tasks of lm-evaluation-harness to OUT.

    BENCHMARK is a folder made by `eval prepare`. OUT/README.md says how to run the tasks; they need lm-eval and a model
    with this vocabulary, nothing of speechscale.
    """
    from speechscale.evals.benchmarks.benchmark import open_benchmark
    from speechscale.progress import ProgressLine
    from speechscale.study.located import locate
    from speechscale.study.text_tasks import export_benchmark

    located = locate(model, tokenizer=tokenizer)
    tasks = export_benchmark(located, open_benchmark(benchmark), out, watch_of=ProgressLine, **options)
    for task in tasks:
        left_out = f", {task.dropped} left out (skips.jsonl)" if task.dropped else ""
        click.echo(f"{task.name}: {task.items} items{left_out}")
    click.echo(f"{out}: {sum(task.items > 0 for task in tasks)} tasks; README.md says how to run them")


@click.command()
@MODEL
@click.option("--text-lm", required=True, metavar="BASE", help="The TextLM it was made of: a folder, or a hub name.")
@click.option("--revision", help="Of a TextLM on the hub [main].")
@click.option("--tasks", required=True, metavar="A,B", help="Tasks and groups of lm-eval.")
@click.option("--include-path", type=click.Path(path_type=Path), help="Folder with YAML files of own tasks.")
@click.option("--limit", type=click.IntRange(min=1), help="Documents per task, from the first [all].")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--max-length", type=click.IntRange(min=2), help="Tokens per document [the model's context].")
@click.option("--text-rows", is_flag=True, help="Drop the rows of units: softmax over text alone, as the TextLM's.")
@click.option(
    "--start",
    type=click.Choice(["tokenizer", "eos"]),
    default="tokenizer",
    show_default=True,
    help="In front of a text: what its tokenizer puts there, or the end-of-document token, as in training here.",
)
@click.option("--replicates", type=click.IntRange(min=2), default=2000, show_default=True, help="Of the bootstrap.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the differences as JSON.")
def retention(
    model: Path,
    text_lm: str,
    revision: str | None,
    tasks: str,
    include_path: Path | None,
    device: str,
    out: Path | None,
    **how: Any,
) -> None:
    """Compare the text side of MODEL with its TextLM on tasks of lm-evaluation-harness, document by document.

    Released tasks take their data from the Hugging Face hub; own ones (--include-path), also exported ones of texts,
    need no network.
    """
    from speechscale.evals.harness.text_retention import How
    from speechscale.files import write_json
    from speechscale.study.located import locate
    from speechscale.study.text_tasks import retain

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    found = retain(
        locate(model), text_lm, names, revision=revision, include_path=include_path, device=device, how=How(**how)
    )
    show(found)
    if out is not None:
        write_json(out, found.record())
        click.echo(f"{out}: differences and everything they depend on")


def show(found: Retention) -> None:
    """Print a line per task and metric."""
    click.echo(f"{'task':<40} {'metric':<18} {'TextLM':>9} {'SLM':>9} {'difference':>11}  95 % interval        changed")
    for row in found.differences:
        interval = f"[{row.low:+.4f}, {row.high:+.4f}]"
        click.echo(
            f"{row.task:<40} {row.metric:<18} {row.text_lm:>9.4f} {row.slm:>9.4f} {row.difference:>+11.4f}  "
            f"{interval:<20} {row.changed}/{row.documents}"
        )
    cut = found.stamp["truncated"]
    if any(cut.values()):
        click.echo(f"{cut['slm']} sequences were cut on the left to {found.stamp['max_length']} tokens, in both models")
