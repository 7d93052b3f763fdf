"""`speechscale tokens stats`: what token stores hold, and what their mixture delivers."""

from __future__ import annotations

from pathlib import Path

import click

from speechscale.cli.tokens_places import drawing, interleaving, open_tokens, store_folder

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("stores", metavar="STORE...", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--mixture", "asked", default="", help="speech=1,text=1,interleaved=2 [equal shares of all streams].")
@click.option("--context", type=click.IntRange(min=4), default=2048, show_default=True, help="Tokens of a row.")
@click.option("--batch-rows", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--batches", type=click.IntRange(min=0), default=50, show_default=True, help="0: no mixture.")
@click.option(
    "--documents", type=click.IntRange(min=1), default=20_000, show_default=True, help="Look at so many of each stream."
)
@click.option("--html", "page", type=_FILE, help="Write a page with pictures.")
@click.option("--json", "data", type=_FILE, help="Write all figures for machines.")
@drawing
def stats(
    stores: tuple[Path, ...],
    asked: str,
    context: int,
    batch_rows: int,
    batches: int,
    documents: int,
    page: Path | None,
    data: Path | None,
    epoch: int,
    seed: int,
    settings: tuple[str, ...],
    progress: float,
    vocabulary: Path | None,
) -> None:
    """Count the documents and tokens of STORE, and draw a mixture of its streams by token share."""
    from speechscale.errors import DataError
    from speechscale.files import write_json
    from speechscale.report.tokens_stats_page import stats_notes, stats_tables, table_lines, write_stats_page
    from speechscale.tokens.overview import make_sampler, mix_shares, mixture_overview, store_names, store_overview

    wanted = parse_mixture(asked)
    config, source = interleaving(stores[0], settings, progress)
    folders = [store_folder(folder).resolve() for folder in stores]
    if len(set(folders)) < len(folders):
        raise DataError("a store is named twice; name each once")
    names = store_names([(folder.parent.name, folder.name) for folder in folders])
    opened = {name: open_tokens(folder, vocabulary) for name, folder in zip(names, stores, strict=True)}
    overviews = {
        name: store_overview(store, name, config, epoch=epoch, seed=seed, most=documents)
        for name, store in opened.items()
    }
    mixture = None
    if batches:
        sampler = make_sampler(opened, mix_shares(overviews, wanted), context, seed, config)
        mixture = mixture_overview(sampler, batch_rows, batches)
    drawn = next((found["interleaving"] for found in overviews.values() if found["interleaving"]), "")
    facts = {"stores": ", ".join(map(str, folders))}
    facts |= {"interleaving": f"{drawn} ({source})"} if drawn else {}
    report = {"facts": facts, "stores": list(overviews.values()), "mixture": mixture}
    for title, rows in stats_tables(report):
        click.echo("\n".join([f"{title}", *(f"  {line.rstrip()}" for line in table_lines(rows)), ""]))
    for label, text in facts.items():
        click.echo(f"{label}: {text}")
    for note in stats_notes(report):
        click.echo(f"note: {note}")
    if data is not None:
        write_json(data, {"format": "speechscale.token_stats.1", **report})
        click.echo(f"written: {data}")
    if page is not None:
        write_stats_page(page, report, title=f"Tokens of {', '.join(names)}")
        click.echo(f"written: {page}")


def parse_mixture(text: str) -> dict[str, float]:
    """Read NAME=SHARE pairs. Raises DataError: not such pairs."""
    from speechscale.errors import DataError

    found: dict[str, float] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, mark, share = entry.partition("=")
        if name.strip() in found:
            raise DataError(f"--mixture: '{name.strip()}' is given twice")
        try:
            found[name.strip()] = float(share)
        except ValueError:
            mark = ""
        if not mark or not 0 < found[name.strip()] < float("inf"):
            raise DataError(f"--mixture '{entry}': give NAME=SHARE with a share above 0, e.g. speech=1,text=1")
    return found
