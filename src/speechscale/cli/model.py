"""`speechscale model export FOLDER OUT --base-name NAME`; the import is in `model_import`."""

from __future__ import annotations

from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command("export")
@click.argument("source", metavar="FOLDER", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--base-name", required=True, help="Name or path of the base model, by which slamkit finds a config.")
@click.option(
    "--ids-are-theirs", is_flag=True, help="FOLDER has no vocabulary.json, and its ids are slamkit's already."
)
def export_model(source: Path, out: Path, base_name: str, ids_are_theirs: bool) -> None:
    """Write a stock model FOLDER as a slamkit checkpoint (speech_language_model) to OUT.

    FOLDER holds our vocabulary.json, as training writes it: a model of units alone gets slamkit's order of ids.
    """
    from speechscale.model.interop import export_slamkit

    export_slamkit(source, out, base_name, ids_are_theirs=ids_are_theirs)
    click.echo(f"{out}: a checkpoint of type speech_language_model")
