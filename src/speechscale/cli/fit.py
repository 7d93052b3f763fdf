"""`speechscale fit`: the law of any table of runs, with what weakens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from speechscale.cli.table_options import table_from, table_options

_FILE = click.Path(path_type=Path, dir_okay=False)
LAWS = ("chinchilla", "repeat", "warm-data", "warm-tokens", "warm-compute", "mixture", "kaplan", "overtraining")
OBJECTIVES = ("log-huber", "lad", "mse", "raw-huber", "raw-mse")


@click.command()
@table_options
@click.option("--law", type=click.Choice(LAWS), default="chinchilla", show_default=True, help="Form of the law.")
@click.option("--base", metavar="NAME|E,A,B,alpha,beta", help="Hold the five constants inside the form where they are.")
@click.option(
    "--objective", type=click.Choice(OBJECTIVES), default="log-huber", show_default=True, help="What is summed."
)
@click.option("--delta", type=click.FloatRange(min=0, min_open=True), default=1e-3, show_default=True, help="Of Huber.")
@click.option(
    "--by",
    type=click.Choice(["run", "budget", "size", "residual"]),
    default="run",
    show_default=True,
    help="What is resampled.",
)
@click.option("--replicates", type=click.IntRange(min=100), default=1000, show_default=True, help="Of the bootstrap.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--at", "targets", multiple=True, metavar="FLOPS", help="Predict there, too. May be repeated.")
@click.option("--chance", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Of the metrics.")
@click.option(
    "--hold-out/--no-hold-out", default=True, show_default=True, help="Predict the largest budget from the rest."
)
@click.option("--json", "json_file", type=_FILE, help="Everything, with replicates: for plan, power and compare.")
@click.option("--markdown", "markdown_file", type=_FILE, help="The report as Markdown.")
@click.option("--csv", "csv_file", type=_FILE, help="One row per arm and estimate, its interval and method.")
@click.option("--latex", "latex_file", type=_FILE, help="A table for a paper.")
@click.option("--html", "page", type=_FILE, help="A page with pictures.")
@click.option("--skips", "skips_file", type=_FILE, help="Rows that were left out, with reasons, as JSON lines.")
def fit(
    law: str,
    base: str | None,
    objective: Any,
    delta: float,
    by: Any,
    replicates: int,
    seed: int,
    targets: tuple[str, ...],
    chance: float,
    hold_out: bool,
    json_file: Path | None,
    markdown_file: Path | None,
    csv_file: Path | None,
    latex_file: Path | None,
    page: Path | None,
    skips_file: Path | None,
    **options: Any,
) -> None:
    """Fit the law of each arm in TABLE: constants and exponents with intervals, and everything that weakens them.

    \b
    speechscale fit runs/quick/runs.csv
    speechscale fit runs.csv --n params_M --c flops --loss val_loss --group data --html law.html
    """
    from speechscale.files import complete_file, write_json
    from speechscale.report.html_parts import write_page
    from speechscale.report.laws_csv import csv
    from speechscale.report.laws_formats import latex, markdown
    from speechscale.report.laws_page import fit_page
    from speechscale.report.laws_text import fit_text
    from speechscale.scaling.fit_table import fit_runs
    from speechscale.scaling.published import law_of
    from speechscale.scaling.saved import laws_record
    from speechscale.scaling.tables.quantities import read_compute
    from speechscale.scaling.tables.reading import write_skips

    table = table_from(options, quiet=True)
    fitted = fit_runs(
        table,
        law=law,
        objective=objective,
        delta=delta,
        by=by,
        replicates=replicates,
        seed=seed,
        targets_flops=[read_compute(text) for text in targets],
        base=None if base is None else law_of(base),
        chance=chance,
        hold_out=hold_out,
    )
    click.echo(fit_text(fitted), nl=False)
    texts = ((markdown_file, markdown), (csv_file, csv), (latex_file, latex))
    for path, make in texts:
        if path is not None:
            with complete_file(path) as draft:
                draft.write_text(make(fitted), encoding="utf-8")
    if json_file is not None:
        write_json(json_file, laws_record(fitted))
    if page is not None:
        write_page(page, fit_page(fitted, f"Scaling law of {table.name}"))
    if skips_file is not None:
        write_skips(skips_file, table)
    for path in (json_file, markdown_file, csv_file, latex_file, page, skips_file):
        if path is not None:
            click.echo(f"written: {path}")
