"""`speechscale plan`: how large a model on how much data, for a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from speechscale.cli.table_options import TABLE_OPTIONS, column_options, table_from

if TYPE_CHECKING:
    from speechscale.scaling.planning.candidates import Candidate

_FILE = click.Path(path_type=Path, dir_okay=False)
_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command()
@click.option("--budget", metavar="FLOPS", help="The budget itself, e.g. 1e20.")
@click.option("--gpus", metavar="COUNTxNAME", help="Devices, e.g. 8xH100, A5000 or cpu:2.")
@click.option("--hours", type=_POSITIVE, help="Wall-clock hours of all these devices.")
@click.option("--money", type=_POSITIVE, help="Instead of hours.")
@click.option("--price-per-gpu-hour", "price", type=_POSITIVE, help="Of one device, same currency.")
@click.option("--mfu", type=click.FloatRange(0, 1, min_open=True), help="Utilization, share of the peak [0.4].")
@click.option("--flops-per-second", metavar="FLOPS", help="Measured, of one device or core; replaces peak and --mfu.")
@click.option("--data", "corpora", multiple=True, metavar="NAME[:HOURS[:UNITS/S]]", help="Speech there is. Repeatable.")
@click.option("--text-tokens", metavar="COUNT", help="Unique text tokens, e.g. 10B.")
@click.option("--interleaved-tokens", metavar="COUNT", help="Unique interleaved tokens [as many as speech units].")
@click.option("--max-epochs", type=click.FloatRange(min=1), default=4.0, show_default=True, help="Over each stream.")
@click.option(
    "--mixture", "mixtures", multiple=True, metavar="MIXTURE", help="speech, sims or text:1,speech:2. Repeat."
)
@click.option("--size", "sizes", multiple=True, metavar="NAME", help="A model to consider. Repeatable.")
@click.option("--law", "laws", multiple=True, metavar="NAME", help="Published law [all of speech]. Repeatable.")
@click.option("--from", "files", multiple=True, type=_FILE, help="Own laws, by `speechscale fit --json`. Repeatable.")
@click.option("--table", type=click.Path(path_type=Path), help="Own runs, fitted on the spot; columns as in `fit`.")
@column_options
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the fit of --table.")
@click.option("--json", "json_file", type=_FILE, help="Everything.")
@click.option("--html", "page", type=_FILE, help="A page with pictures.")
def plan(
    budget: str | None,
    gpus: str | None,
    hours: float | None,
    money: float | None,
    price: float | None,
    mfu: float | None,
    flops_per_second: str | None,
    corpora: tuple[str, ...],
    text_tokens: str | None,
    interleaved_tokens: str | None,
    max_epochs: float,
    mixtures: tuple[str, ...],
    sizes: tuple[str, ...],
    laws: tuple[str, ...],
    files: tuple[Path, ...],
    table: Path | None,
    seed: int,
    json_file: Path | None,
    page: Path | None,
    **columns: Any,
) -> None:
    """Plan a run: model size, tokens, hours of audio and epochs for a budget, and which law says so.

    \b
    speechscale plan --gpus 8xH100 --hours 24
    speechscale plan --budget 1e19 --data LibriLight --data mine:2000 --from laws.json
    speechscale plan --gpus A5000 --money 50 --price-per-gpu-hour .4 --mixture sims
    """
    from speechscale.files import write_json
    from speechscale.report.plan_text import plan_text
    from speechscale.scaling.planning.budgets import chosen_budget
    from speechscale.scaling.planning.inventory import SPEECH_ONLY, make_inventory, parse_mixture
    from speechscale.scaling.planning.plan import SPEECH_LAWS, plan_record
    from speechscale.scaling.planning.plan import plan as make_plan
    from speechscale.scaling.planning.sizes import DEFAULT_SIZES

    chosen = chosen_budget(
        flops=_quantity(budget),
        devices=gpus,
        hours=hours,
        money=money,
        price_per_hour=price,
        mfu=mfu,
        flops_per_second=_quantity(flops_per_second),
    )
    inventory = None
    if corpora or text_tokens is not None or interleaved_tokens is not None:
        inventory = make_inventory(
            corpora, text_tokens=_quantity(text_tokens) or 0.0, interleaved_tokens=_quantity(interleaved_tokens)
        )
    found = make_plan(
        chosen,
        laws=laws or SPEECH_LAWS,
        fits=_own(files, table, columns, seed),
        inventory=inventory,
        sizes=sizes or DEFAULT_SIZES,
        mixtures=[parse_mixture(text) for text in mixtures] or [SPEECH_ONLY],
        max_epochs=max_epochs,
    )
    text = plan_text(found)
    click.echo(text, nl=False)
    if page is not None:
        from speechscale.report.decision_pages import plan_page
        from speechscale.report.html_parts import write_page

        write_page(page, plan_page(found, text))
        click.echo(f"written: {page}")
    if json_file is not None:
        write_json(json_file, plan_record(found))
        click.echo(f"written: {json_file}")


def _quantity(text: str | None) -> float | None:
    from speechscale.scaling.tables.quantities import read_quantity

    return None if text is None else read_quantity(text)


def _own(files: tuple[Path, ...], table: Path | None, columns: dict[str, Any], seed: int) -> list[Candidate]:
    """Own laws from files and from a table, which is fitted now.

    Raises:
        click.UsageError: options of columns without a table.
    """
    from speechscale.scaling.planning.candidates import from_table, own_laws

    found: list[Candidate] = []
    read = [own_laws(path) for path in files]
    if table is not None:
        read.append(from_table(table_from(columns, table), seed=seed))
    elif given := [name for name in TABLE_OPTIONS if columns.get(name)]:
        raise click.UsageError(f"--{given[0]} describes columns of a table; name it with --table")
    for laws, left_out in read:
        found += laws
        for sentence in left_out:
            click.echo(f"left out: {sentence}")
    return found
