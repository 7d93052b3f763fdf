"""`speechscale eval compare|table`: results beside each other, and beside published ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from speechscale.evals.results import Results

PUBLISHED = "published:"
_ALSO_PUBLISHED = ("a", "b", "protocols", "out")
_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("a", type=_FOLDER)
@click.argument("b", metavar="B|published:SYSTEM")
@click.option("--protocol", "protocols", multiple=True, help="Any whose layout was scored [each benchmark's own].")
@click.option("--allow-unlike", is_flag=True, help="Compare what both have, though data, protocol or items differ.")
@click.option("--tags", is_flag=True, help="Also per tag; counts as further comparisons.")
@click.option("--replicates", type=click.IntRange(min=100), default=2000, show_default=True, help="Of the bootstrap.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--level", type=click.FloatRange(0.5, 0.999), default=0.95, show_default=True, help="Of the intervals.")
@click.option("--out", type=_FILE, help="Write everything as JSON.")
@click.option("--html", "page", type=_FILE, help="Write a page with a picture of the differences.")
def compare(
    a: Path,
    b: str,
    protocols: tuple[str, ...],
    allow_unlike: bool,
    tags: bool,
    replicates: int,
    seed: int,
    level: float,
    out: Path | None,
    page: Path | None,
) -> None:
    """Compare the results folders A and B item by item: paired differences with intervals.

    B may be a published system, e.g. "published:SIMS 7B"; then only A has an interval.
    """
    from speechscale.evals.compare import compare as compare_scored
    from speechscale.evals.likeness import Scored, shared_protocols
    from speechscale.files import write_json
    from speechscale.report.eval_page import comparison_page, comparison_text
    from speechscale.report.html_parts import write_page

    if b.startswith(PUBLISHED):
        _refuse_paired_options()
        _beside(a, b.removeprefix(PUBLISHED), protocols, out)
        return
    left, right = (
        Scored(name=name, results=results, choices=results.scores())
        for name, results in _read_named([a, Path(b)]).items()
    )
    found = compare_scored(
        left,
        right,
        protocols=shared_protocols(left, right, protocols) if protocols else None,
        allow_unlike=allow_unlike,
        tags=tags,
        replicates=replicates,
        seed=seed,
        level=level,
    )
    click.echo(comparison_text(found), nl=False)
    if out is not None:
        write_json(out, found.record())
        click.echo(f"written: {out}")
    if page is not None:
        write_page(page, comparison_page(found, f"{found.b} against {found.a}"))
        click.echo(f"written: {page}")


def _refuse_paired_options() -> None:
    """Raises click.UsageError if an option was given that a published system, known only by its figure, cannot use."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = str(parameter.name)
        if name not in _ALSO_PUBLISHED and context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(
                f"{parameter.opts[0]} is of paired differences, which a published system does not have; leave it out"
            )


def _beside(folder: Path, system: str, protocols: tuple[str, ...], out: Path | None) -> None:
    from dataclasses import asdict

    from speechscale.evals.protocols import get_protocol
    from speechscale.evals.results import measured_under, read_results
    from speechscale.files import write_json
    from speechscale.report.eval_published import beside_published, beside_text

    results = read_results(folder)
    for protocol in protocols:
        results = measured_under(results, get_protocol(protocol))
    found = beside_published(results, system, protocols)
    click.echo(beside_text(results.name, system, found), nl=False)
    if out is not None:
        content = {"format": "speechscale eval beside published", "format_version": 1, "system": system}
        write_json(out, {**content, "rows": [asdict(row) for row in found]})
        click.echo(f"written: {out}")


@click.command()
@click.argument("results", metavar="RESULTS...", nargs=-1, required=True, type=_FOLDER)
@click.option("--format", "form", type=click.Choice(["text", "md", "latex", "html"]), default="text", show_default=True)
@click.option("--protocol", help="Any whose layout was scored [speechscale, or the first all share].")
@click.option("--intervals", is_flag=True, help="[low, high] instead of the standard error.")
@click.option("--tags", is_flag=True, help="Also a column per tag.")
@click.option("--published", "others", metavar="METRIC,...", default="", help="Also published scores, e.g. sBLIMP,tSC.")
@click.option("--system", "systems", multiple=True, metavar="TEXT", help="Of those only systems named like this.")
@click.option("--unverified", is_flag=True, help="Also published scores nobody here saw in print, marked so.")
@click.option("--title", default="Evaluation", show_default=True, help="Of the html page.")
@click.option("--out", type=_FILE, help="Write to a file instead of the terminal.")
def table(
    results: tuple[Path, ...],
    form: str,
    protocol: str | None,
    intervals: bool,
    tags: bool,
    others: str,
    systems: tuple[str, ...],
    unverified: bool,
    title: str,
    out: Path | None,
) -> None:
    """Lay out the accuracies of one or more results folders, one row per system."""
    from speechscale.evals.protocols import get_protocol
    from speechscale.evals.results import measured_under
    from speechscale.report.eval_formats import FORMATS
    from speechscale.report.eval_page import table_page
    from speechscale.report.eval_table import eval_table
    from speechscale.report.html_parts import write_page
    from speechscale.scaling.published_slms import SEEN, VERIFIED

    metrics = [name.strip() for name in others.split(",") if name.strip()]
    if systems and not metrics:
        raise click.UsageError("--system chooses among published scores; name some with --published")
    read = _read_named(results)
    if protocol is not None:
        read = {name: measured_under(found, get_protocol(protocol)) for name, found in read.items()}
    laid = eval_table(
        read,
        protocol=protocol,
        tags=tags,
        intervals=intervals,
        others=metrics,
        systems=systems,
        verified=tuple(VERIFIED) if unverified else SEEN,
    )
    text = table_page(laid, title) if form == "html" else FORMATS[form](laid)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_page(out, text)
        click.echo(f"written: {out}")


def _read_named(folders: Sequence[Path]) -> dict[str, Results]:
    """Read results folders; named by their models where these differ, else by their folders.

    Raises:
        DataError: not a results folder, or one folder twice.
    """
    from speechscale.errors import DataError
    from speechscale.evals.results import read_results
    from speechscale.report.run_files import distinct_names

    places = [folder.resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise DataError("a results folder is named twice; name each once")
    read = [read_results(folder) for folder in folders]
    names = [results.name for results in read]
    return dict(zip(names if len(set(names)) == len(names) else distinct_names(places), read, strict=True))
