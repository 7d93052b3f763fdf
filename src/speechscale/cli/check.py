"""`speechscale check`: everything that weakens a table of runs, before a law is fitted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from speechscale.cli.table_options import table_from, table_options

if TYPE_CHECKING:
    from speechscale.scaling.checks import Caution
    from speechscale.scaling.tables.run_table import RunTable

_FILE = click.Path(path_type=Path, dir_okay=False)
REPLICATES = 200
"""Of each interval that a caution asks for."""


@click.command()
@table_options
@click.option("--no-fit", is_flag=True, help="Look at the table only.")
@click.option("--at", "targets", multiple=True, metavar="FLOPS", help="A compute you will predict. May be repeated.")
@click.option("--law", metavar="NAME", help="Hold a published law to the optimum of these runs, e.g. hoffmann.")
@click.option(
    "--exponents", metavar="A,B", help="Of N_opt and D_opt, fitted apart, e.g. .367,.579 of a paper: do they add up?"
)
@click.option("--strict", is_flag=True, help="Exit with 1 where a caution is more than a note.")
@click.option("--json", "json_file", type=_FILE, help="Write the cautions as JSON.")
@click.option("--skips", "skips_file", type=_FILE, help="Rows that were left out, with reasons, as JSON lines.")
def check(
    no_fit: bool,
    targets: tuple[str, ...],
    law: str | None,
    exponents: str | None,
    strict: bool,
    json_file: Path | None,
    skips_file: Path | None,
    **options: Any,
) -> None:
    """Check the runs in TABLE, and the law of each arm where it can be fitted.

    \b
    speechscale check runs.csv --strict
    speechscale check runs.csv --n "N (M)" --c flops --loss val_loss --at 1e22
    """
    from dataclasses import asdict

    from speechscale.files import write_json
    from speechscale.scaling.checks import check_exponents, check_table
    from speechscale.scaling.checks.training import unknowns
    from speechscale.scaling.tables.quantities import read_compute
    from speechscale.scaling.tables.reading import write_skips

    table = table_from(options)
    flops = [read_compute(text) for text in targets]
    found = list(check_table(table))
    if exponents is not None and (apart := check_exponents(*_pair(exponents))) is not None:
        found.append(apart)
    if table.loss is not None and not no_fit:
        found += _of_laws(table, flops, law)
    for one in found:
        click.echo(f"{one.severity:6} {one.name}: {one.message}\n{'':6} [{one.reference}]")
    if not found:
        click.echo("no cautions")
    missing = unknowns(table)
    if missing:
        click.echo("not checked, no column: " + "; ".join(f"{name} ({how})" for name, how in missing.items()))
    if json_file is not None:
        content = {"format": "speechscale cautions", "format_version": 1, "table": table.name, "runs": len(table)}
        write_json(json_file, {**content, "cautions": [asdict(one) for one in found], "not_checked": missing})
        click.echo(f"written: {json_file}")
    if skips_file is not None:
        write_skips(skips_file, table)
        click.echo(f"written: {skips_file}")
    if strict and any(one.severity != "note" for one in found):
        click.get_current_context().exit(1)


def _pair(text: str) -> tuple[float, float]:
    """Read "A,B".

    Raises:
        click.UsageError: these are not two finite numbers.
    """
    from math import isfinite

    try:
        a, b = (float(part) for part in text.split(","))
    except ValueError:
        a = b = float("nan")
    if not (isfinite(a) and isfinite(b)):
        raise click.UsageError(f"--exponents {text}: give two numbers, e.g. .367,.579")
    return a, b


def _of_laws(table: RunTable, flops: list[float], law: str | None) -> list[Caution]:
    """Cautions of the fit of each arm; an arm that cannot be fitted is said to be so."""
    from dataclasses import replace

    from speechscale.errors import DataError
    from speechscale.scaling.checks import check_against, check_fit
    from speechscale.scaling.fitting.bootstrap import bootstrap_law
    from speechscale.scaling.fitting.fit import fit_loss_law
    from speechscale.scaling.optima.approaches import approaches
    from speechscale.scaling.optima.held_out import held_out
    from speechscale.scaling.published import LAWS
    from speechscale.scaling.tables.budgets import runs_of
    from speechscale.settings import nearest

    if law is not None and law not in LAWS:
        raise DataError(f"--law {law}: unknown{nearest(law, list(LAWS))}")
    found: list[Caution] = []
    for name, arm in table.with_loss().each_arm():
        prefix = f"{name}: " if len(table.arms) > 1 else ""
        assert arm.loss is not None
        try:
            fit = fit_loss_law(arm.params, arm.tokens, arm.loss)
        except DataError as error:
            click.echo(f"{prefix}no law fitted: {error}")
            continue
        boot = bootstrap_law(fit, replicates=REPLICATES, clusters=runs_of(arm))
        every = approaches(arm, replicates=REPLICATES, fit=fit, boot=boot)
        held = held_out(arm, replicates=REPLICATES)
        cautions = list(check_fit(arm, fit, boot=boot, approaches=every, held_out=held, targets_flops=flops))
        against = None if law is None else check_against(LAWS[law].law, arm, name=law)
        cautions += [] if against is None else [against]
        found += [replace(one, message=prefix + one.message) for one in cautions]
    return found
