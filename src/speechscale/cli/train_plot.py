"""`speechscale train plot`: training runs beside each other."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="runs.html", show_default=True)
@click.option(
    "--by",
    type=click.Choice(["tokens", "steps", "flops", "seconds"]),
    default="tokens",
    show_default=True,
    help="Axis of the curves.",
)
def plot(runs: tuple[Path, ...], out: Path, by: str) -> None:
    """Compare RUN... (folders with a metrics.jsonl, finished or not) in a table and a page with curves."""
    from speechscale.report.run_files import read_runs
    from speechscale.report.runs_page import summary_rows, write_runs_page
    from speechscale.report.tokens_stats_page import table_lines

    found = read_runs(runs)
    title = f"Training of {found[0].name}" if len(found) == 1 else f"{len(found)} training runs"
    write_runs_page(out, found, by=by, title=title)
    for line in table_lines(summary_rows(found)):
        click.echo(line.rstrip())
    click.echo(f"written: {out}")
