"""Options that say which columns of a table are what, shared by every verb that reads runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from speechscale.scaling.tables.run_table import RunTable

F = TypeVar("F", bound=Callable[..., Any])
_OPTIONS = (
    click.option("--n", "n", metavar="COLUMN", help="Parameters N."),
    click.option("--d", "d", metavar="COLUMN", help="Training tokens D."),
    click.option("--c", "c", metavar="COLUMN", help="Training FLOPs C. Two of N, D and C are enough."),
    click.option("--loss", metavar="COLUMN", help="Final loss, nats per token."),
    click.option("--metric", "metrics", multiple=True, metavar="COLUMN", help="A score, higher is better. Repeatable."),
    click.option("--group", metavar="COLUMN", help="Arm, corpus or study of a run."),
    click.option("--col", "columns", multiple=True, metavar="ROLE=COLUMN", help="Further columns, e.g. epochs=passes."),
    click.option("--unit", "units", multiple=True, metavar="NAME=UNIT", help="Of a column, e.g. N=M, D=B or C=1e18."),
    click.option("--flops", metavar="CONVENTION", help="Count N and C this way: 6nd_total, 6nd_non_embedding, ..."),
    click.option("--drop-highest", type=click.IntRange(min=0), default=0, help="Keep losses below the K-th highest."),
    click.option("--checkpoints", is_flag=True, help="Of logs with steps: keep every row, not only the last of a run."),
)
TABLE_OPTIONS = ("n", "d", "c", "loss", "metrics", "group", "columns", "units", "flops", "drop_highest", "checkpoints")


def column_options(command: F) -> F:
    """Add --n, --d, --c, --loss, --metric, --group, --col, --unit, --flops, --drop-highest, --checkpoints."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def table_options(command: F) -> F:
    """Add the argument TABLE and the options of `column_options`; give the command's options to `table_from`."""
    argument = click.argument("table_path", metavar="TABLE", type=click.Path(path_type=Path))
    return argument(column_options(command))


def table_from(options: Mapping[str, Any], path: Path | None = None, *, quiet: bool = False) -> RunTable:
    """Read the table that the options describe and print how it was understood.

    Args:
        options: of the command. path: another file than its TABLE. quiet: print nothing.

    Raises:
        DataError: see `read_runs`. click.UsageError: --col or --unit is not NAME=VALUE.
    """
    from speechscale.scaling.tables.reading import read_runs

    given = {name: options[name] for name in TABLE_OPTIONS if name in options}
    for name, option in (("columns", "--col"), ("units", "--unit")):
        given[name] = _pairs(given.get(name, ()), option)
    table = read_runs(path or options["table_path"], **given)
    if not quiet:
        for line in table.echoes:
            click.echo(f"{table.name}: {line}")
    return table


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise click.UsageError(f"{option} {text}: expected NAME=VALUE")
        pairs[name] = value
    return pairs
