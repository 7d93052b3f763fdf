"""`speechscale model import SOURCE OUT` and `speechscale model export FOLDER OUT --base-name NAME`."""

from __future__ import annotations

from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command("import")
@click.argument("source", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--base-config", type=_PATH, help="config.json of the base model, where SOURCE does not hold it.")
@click.option("--units", type=click.IntRange(min=1), help="Speech units it has; then OUT gets our vocabulary.")
@click.option("--tokenizer", help="Folder or hub name of the base model's tokenizer, for a model that has text.")
def import_model(source: Path, out: Path, base_config: Path | None, units: int | None, tokenizer: str | None) -> None:
    """Write the stock model inside a slamkit checkpoint (speech_language_model), a local folder, to OUT.

    \b
    speechscale model import SIMS-7B sims7b --units 500 --tokenizer Qwen2.5-7B
    speechscale model import slam slam-stock --units 500
    """
    from speechscale.model.interop import import_slamkit
    from speechscale.model.interop_vocabulary import give_vocabulary

    if tokenizer is not None and units is None:
        raise click.UsageError("--tokenizer needs --units, the number of speech units behind its ids")
    import_slamkit(source, out, base_config)
    if units is None:
        click.echo(f"{out}: a stock model folder; ids are those of {source}, without a vocabulary of ours (--units)")
        return
    vocabulary = give_vocabulary(out, units, tokenizer)
    click.echo(f"{out}: a stock model folder of {vocabulary.size} ids, {units} of them units, with its vocabulary")


@click.command("export")
@click.argument("source", metavar="FOLDER", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--base-name", required=True, help="Name or path of the base model, by which slamkit finds a config.")
def export_model(source: Path, out: Path, base_name: str) -> None:
    """Write a stock model FOLDER as a slamkit checkpoint (speech_language_model) to OUT."""
    from speechscale.model.interop import export_slamkit

    export_slamkit(source, out, base_name)
    click.echo(f"{out}: a checkpoint of type speech_language_model")
