"""`speechscale model import SOURCE OUT` and `speechscale model export FOLDER OUT --base-name NAME`."""

from __future__ import annotations

from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command("import")
@click.argument("source", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--base-config", type=_PATH, help="config.json of the base model, where SOURCE does not hold it.")
def import_model(source: Path, out: Path, base_config: Path | None) -> None:
    """Write the stock model inside a slamkit checkpoint (speech_language_model), a local folder, to OUT."""
    from speechscale.model.interop import import_slamkit

    import_slamkit(source, out, base_config)
    click.echo(f"{out}: a stock model folder; ids are those of {source}")


@click.command("export")
@click.argument("source", metavar="FOLDER", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--base-name", required=True, help="Name or path of the base model, by which slamkit finds a config.")
def export_model(source: Path, out: Path, base_name: str) -> None:
    """Write a stock model FOLDER as a slamkit checkpoint (speech_language_model) to OUT."""
    from speechscale.model.interop import export_slamkit

    export_slamkit(source, out, base_name)
    click.echo(f"{out}: a checkpoint of type speech_language_model")
