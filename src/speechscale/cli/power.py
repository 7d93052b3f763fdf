"""`speechscale power`: what a planned sweep can measure, before it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from speechscale.cli.table_options import column_options, table_from

if TYPE_CHECKING:
    from speechscale.scaling.laws import LossLaw
    from speechscale.scaling.planning.simulate import Grid

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--law", "law_text", metavar="NAME|E,A,B,alpha,beta", help="Assumed to be true, e.g. cuervo-speech.")
@click.option("--from", "laws_file", type=_FILE, help="Instead: a law that `fit --json` wrote; also gives the noise.")
@click.option("--arm", help="Of --from, where it holds several laws.")
@click.option(
    "--budgets",
    default="1e18:1e20:5",
    show_default=True,
    metavar="LOW:HIGH:COUNT",
    help="FLOPs; or a list with --sizes a list.",
)
@click.option("--sizes", default="8", show_default=True, metavar="COUNT|N,N,...", help="Per budget, or parameters.")
@click.option("--spread", type=float, default=8.0, show_default=True, help="Sizes reach from N_opt/x to x N_opt.")
@click.option("--redo", type=_FILE, metavar="TABLE", help="Instead of a grid: repeat the runs of a table.")
@column_options
@click.option("--noise", type=float, help="Standard deviation of log loss [0.005, or that of --from].")
@click.option("--want", "wants", multiple=True, metavar="NAME=WIDTH", help="Search the smallest grid. Repeatable.")
@click.option("--max-budgets", type=click.IntRange(min=2), default=16, show_default=True, help="Of the search.")
@click.option("--max-sizes", type=click.IntRange(min=5), default=16, show_default=True, help="Of the search.")
@click.option("--target-flops", metavar="FLOPS", help="Compute of N_opt, D_opt and loss [100 x the highest budget].")
@click.option("--gpu-flops", metavar="FLOPS", help="Useful FLOPs per second of one GPU, to print GPU-hours.")
@click.option("--sweeps", type=click.IntRange(min=20), default=100, show_default=True, help="Simulated.")
@click.option("--replicates", type=click.IntRange(min=20), default=300, show_default=True, help="Of each bootstrap.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "json_file", type=_FILE, help="Write everything.")
@click.option("--html", "page", type=_FILE, help="A page with a picture.")
def power(
    law_text: str | None,
    laws_file: Path | None,
    arm: str | None,
    budgets: str,
    sizes: str,
    spread: float,
    redo: Path | None,
    noise: float | None,
    wants: tuple[str, ...],
    max_budgets: int,
    max_sizes: int,
    target_flops: str | None,
    gpu_flops: str | None,
    sweeps: int,
    replicates: int,
    seed: int,
    json_file: Path | None,
    page: Path | None,
    **options: Any,
) -> None:
    """Simulate a planned sweep under a law: expected intervals, bias, coverage, price; or search the smallest grid.

    \b
    speechscale power --law cuervo-speech --budgets 1e18:1e20:5 --sizes 8
    speechscale power --law cuervo-speech --budgets 1e18:1e20:5 --want exp_params=0.15 --gpu-flops 4e14
    """
    from speechscale.files import write_json
    from speechscale.progress import ProgressLine
    from speechscale.scaling.as_json import to_json
    from speechscale.scaling.planning.power import NOISE
    from speechscale.scaling.planning.power import power as simulate_power
    from speechscale.scaling.planning.power_text import power_text, smallest_text
    from speechscale.scaling.planning.smallest import smallest_grid
    from speechscale.scaling.tables.quantities import read_quantity

    law, own_noise = _law(law_text, laws_file, arm)
    settings: dict[str, Any] = {
        "noise": noise if noise is not None else own_noise or NOISE,
        "sweeps": sweeps,
        "replicates": replicates,
        "target_flops": None if target_flops is None else read_quantity(target_flops),
        "seed": seed,
    }
    speed = None if gpu_flops is None else read_quantity(gpu_flops)
    if wants:
        if redo is not None or "," in sizes:
            raise click.UsageError("--want searches grids around N_opt; leave out --redo and lists of sizes")
        low, high, _ = _budget_range(budgets)
        limits = {"max_budgets": max_budgets, "max_sizes": max_sizes}
        with ProgressLine("simulated sweeps") as watch:
            found = smallest_grid(
                law, wanted=_wanted(wants), between=(low, high), spread=spread, watch=watch, **limits, **settings
            )
        record, text, shown = to_json(found), smallest_text(found, gpu_flops=speed), found.power
    else:
        grid = _grid(law, budgets, sizes, spread, redo, options)
        with ProgressLine("simulated sweeps") as watch:
            simulated = simulate_power(law, grid=grid, watch=watch, **settings)
        record, text, shown = to_json(simulated), power_text(simulated, gpu_flops=speed), simulated
    click.echo(text, nl=False)
    if page is not None:
        from speechscale.report.decision_pages import power_page
        from speechscale.report.html_parts import write_page

        write_page(page, power_page(shown, text))
        click.echo(f"written: {page}")
    if json_file is not None:
        write_json(json_file, {"format": "speechscale power", "format_version": 1, **record})
        click.echo(f"written: {json_file}")


def _law(text: str | None, file: Path | None, arm: str | None) -> tuple[LossLaw, float | None]:
    """The law, and the noise that its own runs showed."""
    from speechscale.errors import DataError
    from speechscale.scaling.planning.candidates import own_laws
    from speechscale.scaling.published import law_of

    if (text is None) == (file is None):
        raise click.UsageError("give either --law or --from")
    if text is not None:
        return law_of(text), None
    assert file is not None
    found, left_out = own_laws(file)
    laws = {one.name: one for one in found}
    if arm is None and len(laws) == 1:
        arm = next(iter(laws))
    if arm not in laws:
        without = f"; without a law: {'; '.join(left_out)}" if left_out else ""
        raise DataError(f"{file}: no law '{arm or ''}'; name one with --arm: {', '.join(laws)}{without}")
    return laws[arm].base, laws[arm].noise


def _grid(law: LossLaw, budgets: str, sizes: str, spread: float, redo: Path | None, options: dict[str, Any]) -> Grid:
    from speechscale.scaling.planning.simulate import crossed_grid, spread_grid, table_grid
    from speechscale.scaling.tables.quantities import read_quantity

    if redo is not None:
        return table_grid(table_from(options, redo))
    if "," in sizes:
        return crossed_grid([read_quantity(x) for x in sizes.split(",")], _budget_list(budgets))
    if not sizes.isdecimal():
        raise click.UsageError(f"--sizes {sizes}: give a number of sizes, or parameters separated by commas")
    return spread_grid(law, _budget_range(budgets), int(sizes), spread=spread)


def _budget_range(text: str) -> tuple[float, float, int]:
    from speechscale.scaling.tables.quantities import read_quantity

    low, *rest = text.split(":")
    if len(rest) != 2 or not rest[1].isdecimal():
        raise click.UsageError(f"--budgets {text}: expected LOW:HIGH:COUNT, e.g. 1e18:1e20:5")
    return read_quantity(low), read_quantity(rest[0]), int(rest[1])


def _budget_list(text: str) -> list[float]:
    import numpy as np

    from speechscale.scaling.tables.quantities import read_quantity

    if ":" in text:
        low, high, count = _budget_range(text)
        return [float(x) for x in np.geomspace(low, high, count)]
    return [read_quantity(x) for x in text.split(",")]


def _wanted(wants: tuple[str, ...]) -> dict[str, float]:
    wanted = {}
    for text in wants:
        name, _, width = text.partition("=")
        try:
            wanted[name] = float(width.removeprefix("x"))
        except ValueError:
            raise click.UsageError(f"--want {text}: expected NAME=WIDTH, e.g. exp_params=0.1 or params_opt=2") from None
    return wanted
