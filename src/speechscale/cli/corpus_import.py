"""`speechscale corpus import SOURCE OUT`: make a corpus folder from recordings of any common form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--format", default="auto", show_default=True, help="See --formats; auto looks at names and first lines.")
@click.option("--formats", is_flag=True, is_eager=True, expose_value=False, callback=lambda *a: _list_formats(*a),
              help="List the formats and exit.")  # fmt: skip
@click.option("--audio-root", type=click.Path(path_type=Path), help="Where audio paths start [the source's folder].")
@click.option("--strip", default="", help="Cut this from the front of the source's audio paths.")
@click.option("--map", "columns", multiple=True, metavar="OURS=THEIRS", help="Name a column, e.g. text=sentence.")
@click.option("--ids", type=click.Choice(["stem", "path"]), default="stem", show_default=True,
              help="Name items without id by file name or by path.")  # fmt: skip
@click.option("--text", type=click.Choice(["auto", "required", "optional", "none"]), default="auto", show_default=True,
              help="none imports speech alone.")  # fmt: skip
@click.option("--words", type=click.Choice(["auto", "none"]), default="auto", show_default=True,
              help="none drops the source's word times.")  # fmt: skip
@click.option("--check", type=click.Choice(["header", "decode", "none"]), default="header", show_default=True,
              help="How well to look at each audio file.")  # fmt: skip
@click.option("--alignments", type=click.Choice(["auto", "textgrid", "json", "none"]), default="auto",
              show_default=True, help="Word times of folders.")  # fmt: skip
@click.option("--times", type=click.Path(path_type=Path),
              help="Word times for items without: a file of many (CTM) or a folder of one per item.")  # fmt: skip
@click.option("--tier", help="Word tier of TextGrids [words].")
@click.option("--split-long", type=click.FloatRange(min=1), metavar="SECONDS",
              help="Cut longer recordings in gaps between words, or in silence where there is no text.")  # fmt: skip
@click.option("--splits", default="auto", show_default=True, metavar="auto|source|none|.8,.1,.1",
              help="auto: the source's if it has them, else .8,.1,.1.")  # fmt: skip
@click.option("--by", type=click.Choice(["text", "speaker", "speaker+text"]), default="text", show_default=True,
              help="What is never divided by the draw.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--licence", default="", help="For items that name none.")
@click.option("--language", default="", help="For items that name none.")
@click.option("--speaker", default="", help="For items that name none.")
@click.option("--on-error", type=click.Choice(["skip", "stop"]), default="skip", show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many utterances.")
@click.option("--overwrite", is_flag=True, help="Replace a corpus made from another source.")
@click.option("--names", default="", metavar="PATTERN",
              help="What file names of format audio say, e.g. {text}_{speaker}_{take}.")  # fmt: skip
@click.option("--hf-config", "subset", default="", help="Configuration of a hub dataset.")
@click.option("--hf-split", "part", default="", help="Split of a hub dataset [all].")
def import_corpus(
    source: Path, out: Path, columns: tuple[str, ...], splits: str, split_long: float | None, **options: Any
) -> None:
    """Read SOURCE, write the corpus folder OUT; audio stays where it is."""
    from speechscale.corpus.importing import ImportOptions
    from speechscale.corpus.importing import import_corpus as run
    from speechscale.progress import ProgressLine

    with ProgressLine("imported") as watch:
        done = run(
            source,
            out,
            options=ImportOptions(
                columns=parse_mapping(columns), splits=parse_splits(splits), split_long_s=split_long, **options
            ),
            watch=watch,
        )
    print_drops(done.skips)
    split = ", ".join(f"{count} {name or 'without split'}" for name, count in sorted(done.splits.items()))
    click.echo(
        f"{out}: {sum(done.splits.values())} utterances ({split}) from {done.read} items of format {done.format}"
        + (f", {done.pieces} more by cutting" if done.pieces else "")
        + (f"; {len(done.skips)} dropped, see {out / 'skips.jsonl'}" if done.skips.skips else "")
    )


def parse_mapping(columns: tuple[str, ...]) -> dict[str, str]:
    """Columns from OURS=THEIRS. Raises click.BadParameter."""
    wrong = next((entry for entry in columns if "=" not in entry), None)
    if wrong is not None:
        raise click.BadParameter(f"'{wrong}' is not OURS=THEIRS, such as text=sentence", param_hint="--map")
    return dict(entry.split("=", 1) for entry in columns)


def parse_splits(text: str) -> Any:
    """A word, or shares from ".8,.1,.1". Raises click.BadParameter."""
    if text in ("auto", "source", "none"):
        return text
    return parse_shares(text, "--splits")


def parse_shares(text: str, option: str) -> tuple[float, ...]:
    """Three shares from ".8,.1,.1". Raises click.BadParameter."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"'{text}' is not three shares such as .8,.1,.1", param_hint=option) from None


def print_drops(skips: Any) -> None:
    """Say what was dropped: per remedy how many, then the first five."""
    if not len(skips):
        return
    for remedy, count in list(skips.remedies().items())[:8]:
        click.echo(f"dropped {count}: to use them, {remedy}", err=True)
    for skip in list(skips)[:5]:
        click.echo(f"  {skip.id}: {skip.reason}", err=True)


def _list_formats(context: click.Context, _: Any, value: bool) -> None:
    if value:
        from speechscale.corpus.readers import FORMATS

        for name, kind in FORMATS.items():
            click.echo(f"{name:12} {kind.what}")
        context.exit()
