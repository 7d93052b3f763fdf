"""`speechscale model export FOLDER OUT [--to stock|slamkit]`; the import is in `model_import`."""

from __future__ import annotations

from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command("export")
@click.argument("source", metavar="FOLDER", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--to", "layout", type=click.Choice(["stock", "slamkit"]), default="stock", show_default=True)
@click.option("--tokenizer", type=_PATH, help="stock: speech tokenizer to go along; a study's run knows its own.")
@click.option("--vocoder", type=_PATH, help="stock: vocoder to go along; a study's run knows its own.")
@click.option("--dtype", type=click.Choice(["fp32", "bf16", "fp16"]), help="stock: cast the weights [as they are].")
@click.option("--shard-gb", type=click.FloatRange(min=0.001), default=5.0, show_default=True, help="stock: of a file.")
@click.option("--base-name", help="slamkit: name or path of the base model, by which slamkit finds a config.")
@click.option(
    "--ids-are-theirs", is_flag=True, help="slamkit: FOLDER has no vocabulary.json, and its ids are slamkit's already."
)
def export_model(
    source: Path,
    out: Path,
    layout: str,
    tokenizer: Path | None,
    vocoder: Path | None,
    dtype: str | None,
    shard_gb: float,
    base_name: str | None,
    ids_are_theirs: bool,
) -> None:
    """Write a model FOLDER for other tools.

    stock: FOLDER (a study's run, a training job, a model with vocabulary.json) becomes a folder that transformers and
    vLLM load, with its speech tokenizer and vocoder beside it.

    slamkit: a model folder becomes a checkpoint of type speech_language_model; units alone get slamkit's order of ids.
    """
    if layout == "slamkit":
        if base_name is None:
            raise click.UsageError("--to slamkit needs --base-name")
        if tokenizer or vocoder or dtype:
            raise click.UsageError("--tokenizer, --vocoder and --dtype belong to --to stock")
        from speechscale.model.interop import export_slamkit

        export_slamkit(source, out, base_name, ids_are_theirs=ids_are_theirs)
        click.echo(f"{out}: a checkpoint of type speech_language_model")
        return
    if base_name or ids_are_theirs:
        raise click.UsageError("--base-name and --ids-are-theirs belong to --to slamkit")
    from speechscale.model.stock import export_stock
    from speechscale.study.located import locate

    found = locate(source, tokenizer=tokenizer, vocoder=vocoder)
    made = export_stock(
        found.folder,
        out,
        speech_tokenizer=found.speech_tokenizer,
        vocoder=found.vocoder,
        dtype=dtype,
        units_per_second=found.units_per_second,
        max_shard_bytes=round(shard_gb * 1e9),
    )
    click.echo(f"{out}: {len(made.shards)} file(s) of {', '.join(made.dtypes)} weights, {made.vocabulary.size} ids")
    for note in made.notes:
        click.echo(f"  {note}")
