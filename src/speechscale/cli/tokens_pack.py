"""`speechscale tokens pack|slamkit`: rows on disk for other trainers, and token files for slamkit."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--stream", default="interleaved", show_default=True, help="speech, text or interleaved.")
@click.option("--context", type=click.IntRange(min=4), default=2048, show_default=True, help="Tokens in a row.")
@click.option(
    "--pack",
    type=click.Choice(["best_fit", "stream"]),
    default="best_fit",
    show_default=True,
    help="best_fit: whole documents, apart. stream: one chain, cut where a row is full.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Interleaving, e.g. speech_share=0.5.")
@click.option("--vocabulary", type=click.Path(path_type=Path), help="Vocabulary folder [found beside the store].")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes of one thread.")
def pack(
    store: Path,
    out: Path,
    stream: str,
    context: int,
    pack: str,
    epochs: int,
    seed: int,
    settings: tuple[str, ...],
    vocabulary: Path | None,
    workers: int,
) -> None:
    """Pack one stream of STORE into rows and write them to OUT; run it again to go on after an interruption."""
    from speechscale.cli.tokens_places import interleaving, open_tokens
    from speechscale.progress import ProgressLine
    from speechscale.tokens.shards import write_packed

    opened = open_tokens(store, vocabulary)
    interleave, source = interleaving(store, settings, None)
    if stream == "interleaved":
        click.echo(f"interleaving: {source}")
    with ProgressLine("packed parts") as watch:
        rows = write_packed(
            opened,
            stream,
            out,
            context=context,
            seed=seed,
            pack="stream" if pack == "stream" else "best_fit",
            interleave=interleave,
            epochs=epochs,
            workers=workers,
            watch=watch,
        )
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in rows.meta["kinds"].items())
    click.echo(
        f"{out}: {len(rows):,} rows of {context}, {rows.fill:.2%} full, {rows.tokens:,} tokens ({kinds}), "
        f"{rows.bytes / max(rows.tokens, 1):.2f} bytes a token"
    )


@click.command()
@click.argument("features", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--meta", type=click.Path(path_type=Path), help="Folder of the JSON files with aligned_text.")
@click.option(
    "--method",
    type=click.Choice(["units", "poisson", "span", "random"]),
    default="units",
    show_default=True,
    help="units: speech only. The others choose the words that are speech, as slamkit does.",
)
@click.option("--span-words", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--share", type=click.FloatRange(min=0, max=1, min_open=True), default=0.3, show_default=True)
@click.option("--unit-seconds", type=click.FloatRange(min=0, min_open=True), default=0.04, show_default=True)
@click.option("--allow-glued", is_flag=True, help="Also take words without a blank in front of them.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def slamkit(
    features: Path,
    out: Path,
    meta: Path | None,
    method: str,
    span_words: int,
    share: float,
    unit_seconds: float,
    allow_glued: bool,
    seed: int,
) -> None:
    """Write slamkit's tokens.jsonl (OUT, a file) from its FEATURES, by its rules but seeded."""
    from speechscale.errors import DataError
    from speechscale.tokens.slamkit import SlamkitSettings, write_slamkit_tokens

    if out.exists():
        raise DataError(f"{out}: exists; choose another output or delete it")
    if method == "units" and (meta is not None or share != 0.3 or span_words != 10):
        raise DataError(
            "--meta, --share and --span-words choose words that are speech; give --method poisson, span or random"
        )
    wanted = SlamkitSettings(
        method=method,  # type: ignore[arg-type]
        span_words=span_words,
        share=share,
        unit_duration_s=unit_seconds,
        allow_glued=allow_glued,
        seed=seed,
    )
    report = write_slamkit_tokens(features, out, wanted, meta=meta)
    report.skips.write(out.with_name(f"{out.name}.skips.jsonl"))
    click.echo(f"{out}: {report.written:,} of {report.read:,} lines written, {len(report.skips)} dropped")
    for remedy, count in report.skips.remedies().items():
        click.echo(f"  {count} dropped: {remedy} ({out.name}.skips.jsonl)")
