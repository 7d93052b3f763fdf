"""`speechscale corpus validate|stats|split CORPUS`: what is wrong with a corpus, what is in it, how it is divided."""

from __future__ import annotations

from pathlib import Path

import click

CORPUS = click.argument("corpus", type=click.Path(path_type=Path, file_okay=False))
WORKERS = click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Threads.")


@click.command()
@CORPUS
@click.option("--decode", is_flag=True, help="Decode all audio: silence, clipping, truncation, equal sound.")
@click.option("--warn", "demoted", multiple=True, metavar="KIND", help="Count problems of this kind as warnings.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="List of problems [CORPUS/problems.jsonl]."
)
@WORKERS
def validate(corpus: Path, decode: bool, demoted: tuple[str, ...], out: Path | None, workers: int) -> None:
    """List every problem of CORPUS with its item; exit code 1 when there are errors."""
    from speechscale.corpus.checking import KINDS, validate_corpus
    from speechscale.corpus.imported import open_corpus
    from speechscale.progress import ProgressLine

    unknown = [kind for kind in demoted if kind not in KINDS]
    if unknown:
        raise click.BadParameter(f"'{unknown[0]}' is not one of {', '.join(KINDS)}", param_hint="--warn")
    with ProgressLine("checked") as watch:
        found = validate_corpus(
            open_corpus(corpus),
            decode=decode,
            workers=workers,
            demoted=frozenset(demoted),
            out=out,
            watch=watch,
        )
    for kind, count in found.counts.items():
        severity = found.first[kind][0].severity
        click.echo(f"{severity:8}{count:>8,}  {kind}: {KINDS[kind].remedy}")
        for problem in found.first[kind]:
            click.echo(f"{'':18}{problem.id}: {problem.detail}")
    click.echo(
        f"{found.utterances:,} utterances, {found.hours:.2f} hours: {found.errors:,} errors, "
        f"{found.warnings:,} warnings"
        + (f"; all of them in {out or corpus / 'problems.jsonl'}" if found.counts else "")
    )
    if found.errors:
        raise SystemExit(1)


@click.command()
@CORPUS
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Also write a page.")
@WORKERS
def stats(corpus: Path, page: Path | None, workers: int) -> None:
    """Count CORPUS: hours, words, speakers, rates; writes CORPUS/stats.json."""
    from speechscale.corpus.imported import open_corpus
    from speechscale.corpus.statistics import corpus_stats, stats_lines, stats_page
    from speechscale.files import complete_file, write_json

    found = corpus_stats(open_corpus(corpus), workers=workers)
    write_json(corpus / "stats.json", found)
    for line in stats_lines(found):
        click.echo(line)
    if page is not None:
        with complete_file(page) as draft:
            draft.write_text(stats_page(found), encoding="utf-8")


@click.command()
@CORPUS
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--by", type=click.Choice(["speaker", "text", "speaker+text"]), default="speaker", show_default=True,
              help="What is never divided.")  # fmt: skip
@click.option("--shares", default=".8,.1,.1", show_default=True, help="Of train, select and test.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--tolerance", type=click.FloatRange(min=0, max=1), default=0.05, show_default=True,
              help="How far above the largest share one group may be.")  # fmt: skip
@click.option("--drop-shared", is_flag=True, help="By speaker: drop what says a text of a later split.")
def split(corpus: Path, out: Path, by: str, shares: str, seed: int, tolerance: float, drop_shared: bool) -> None:
    """Write OUT: CORPUS with new splits, so that no speaker, no text, or neither leaks."""
    from speechscale.cli.corpus_import import parse_shares
    from speechscale.corpus.imported import open_corpus
    from speechscale.corpus.splitting import split_corpus

    done = split_corpus(
        open_corpus(corpus),
        out,
        by=by,  # type: ignore[arg-type]
        shares=parse_shares(shares, "--shares"),
        seed=seed,
        tolerance=tolerance,
        drop_shared=drop_shared,
    )
    total = sum(done.utterances.values())
    for name, count in done.utterances.items():
        click.echo(f"{name:8}{count:>9,} utterances {count / total:6.1%}  {done.groups[name]:,} groups")
    click.echo(f"{out}: {total:,} utterances by {by}; the largest group holds {done.largest:.1%}")
    if len(done.skips):
        click.echo(f"{len(done.skips)} dropped, see {out / 'skips.jsonl'}", err=True)
