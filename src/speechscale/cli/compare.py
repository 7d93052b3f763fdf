"""`speechscale compare`: two arms of one table, or two tables of runs, against each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from speechscale.cli.table_options import table_from, table_options

if TYPE_CHECKING:
    from speechscale.scaling.tables.run_table import RunTable

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@table_options
@click.argument("other", metavar="[TABLE2]", required=False, type=click.Path(path_type=Path))
@click.option("--arms", metavar="A,B", help="Groups to compare; with two tables, one of each.")
@click.option("--baseline", metavar="A", help="The arm that the factors refer to [the first].")
@click.option(
    "--by",
    type=click.Choice(["auto", "run", "budget", "size"]),
    default="auto",
    show_default=True,
    help="What is resampled; auto: runs and budgets, the wider interval is quoted.",
)
@click.option("--replicates", type=click.IntRange(min=100), default=2000, show_default=True, help="Of the bootstrap.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--charge-text-lm/--no-charge-text-lm", default=None, help="Add the TextLM's compute [where it is known]."
)
@click.option("--unlike-units/--alike-units", default=None, help="Whether losses count different units [by tokenizer].")
@click.option(
    "--text-slope",
    metavar="NAME|GAMMA",
    help="Also this text exponent over that of the one --metric, e.g. cuervo-text-tstorycloze.",
)
@click.option("--json", "json_file", type=_FILE, help="Write everything as JSON.")
@click.option("--html", "page", type=_FILE, help="A page with pictures.")
def compare(
    other: Path | None,
    arms: str | None,
    baseline: str | None,
    by: Any,
    replicates: int,
    seed: int,
    charge_text_lm: bool | None,
    unlike_units: bool | None,
    text_slope: str | None,
    json_file: Path | None,
    page: Path | None,
    **options: Any,
) -> None:
    """Compare two arms of TABLE, or TABLE with TABLE2: exponents, compute for the same loss or score, with intervals.

    \b
    speechscale compare runs.csv --arms textless,interleaved
    speechscale compare textless.csv interleaved.csv --c flops --loss val_loss
    """
    from speechscale.files import write_json
    from speechscale.scaling.comparing.compare_runs import compare_runs
    from speechscale.scaling.comparing.sentences import comparison_text

    if text_slope is not None and len(options["metrics"]) != 1:
        raise click.UsageError("--text-slope compares one metric; name it with --metric")
    table = table_from(options)
    pair = _pair(table, None if other is None else table_from(options, other), arms, baseline, text_slope is not None)
    record: dict[str, Any] = {}
    if len(pair) == 2:
        found = compare_runs(
            *pair,
            replicates=replicates,
            seed=seed,
            by=by,
            charge_text_lm=charge_text_lm,
            unlike_units=unlike_units,
        )
        text = comparison_text(found)
        click.echo(text, nl=False)
        record = found.record()
        if page is not None:
            from speechscale.report.decision_pages import comparison_page
            from speechscale.report.html_parts import write_page

            write_page(page, comparison_page(found, text))
            click.echo(f"written: {page}")
    if text_slope is not None:
        record["exponent_ratios"] = _ratios(pair, text_slope, options["metrics"][0], replicates, seed)
    if json_file is not None:
        write_json(json_file, record)
        click.echo(f"written: {json_file}")


def _pair(
    table: RunTable, other: RunTable | None, arms: str | None, baseline: str | None, one_is_enough: bool
) -> list[RunTable]:
    """Choose the two arms, the baseline first.

    Raises:
        click.UsageError: it is not clear which two are meant.
    """
    names = [] if arms is None else [name.strip() for name in arms.split(",")]
    if names and len(names) != 2:
        raise click.UsageError(f"--arms {arms}: name two groups, e.g. textless,interleaved")
    if other is not None:
        if not names and (several := [side for side in (table, other) if len(side.arms) > 1]):
            arms_found = ", ".join(name or "(no name)" for name in several[0].arms)
            raise click.UsageError(
                f"{several[0].name} has several groups ({arms_found}), which are not one arm; use --arms A,B, one of "
                "each table"
            )
        pair = [side.arm(name) for side, name in zip((table, other), names, strict=True)] if names else [table, other]
        shown = names or [table.name, other.name]
    elif names:
        pair, shown = [table.arm(name) for name in names], names
    elif len(table.arms) == 2:
        pair, shown = [table.arm(name) for name in table.arms], list(table.arms)
    elif one_is_enough and len(table.arms) == 1:
        return [table]
    else:
        found = ", ".join(name for name in table.arms if name) or "none"
        raise click.UsageError(
            f"two groups are compared, {table.name} has {found}; use --arms A,B, --group, or a TABLE2"
        )
    if baseline is None:
        return pair
    if baseline not in shown:
        raise click.UsageError(f"--baseline {baseline}: compared are {' and '.join(shown)}")
    return pair if baseline == shown[0] else pair[::-1]


def _ratios(pair: list[RunTable], text_slope: str, metric: str, replicates: int, seed: int) -> dict[str, Any]:
    """Print and return the ratio of a text exponent to that of each arm."""
    from speechscale.scaling.as_json import to_json
    from speechscale.scaling.comparing.exponent_ratio import exponent_ratio
    from speechscale.scaling.links.metric_slopes import metric_exponent

    try:
        gamma: float | str = float(text_slope)
    except ValueError:
        gamma = text_slope
    ratios = {}
    for table in pair:
        found = exponent_ratio(gamma, metric_exponent(table, metric, replicates=replicates, seed=seed))
        click.echo("\n" + "\n".join(found.sentences))
        ratios[table.name] = to_json(found)
    return ratios
