"""`speechscale model import SOURCE OUT`: checkpoints of others into stock folders with our vocabulary."""

from __future__ import annotations

from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command("import")
@click.argument("source")
@click.argument("out", type=_PATH)
@click.option("--revision", help="Branch, tag or commit of a SOURCE on the hub.")
@click.option("--units", type=click.IntRange(min=1), help="Speech units it has, where its files do not say.")
@click.option("--tokenizer", help="Folder or hub name of the base model's tokenizer, for text without tokenizer files.")
@click.option(
    "--spelling", help="Of the units in its tokenizer: 'unit speech-marker text-marker', e.g. '<a{}> <s> <t>'."
)
@click.option("--eos", help="Token that ends a document, where its files do not say; for TWIST its id.")
@click.option("--base-config", type=_PATH, help="config.json of the base model, where SOURCE does not hold it.")
def import_model(
    source: str,
    out: Path,
    revision: str | None,
    units: int | None,
    tokenizer: str | None,
    spelling: str | None,
    eos: str | None,
    base_config: Path | None,
) -> None:
    """Write the stock model of a checkpoint to OUT. SOURCE is a folder, or OWNER/NAME on the hub.

    It reads slamkit's checkpoints (SIMS, Slam), Cuervo and Marxer's suite, and stock models whose tokenizer spells
    units (Spirit-LM, SpeechGPT) or whose config has an offset (TWIST). docs/interop.md has the table.

    \b
    speechscale model import slprl/SIMS-7B sims7b --units 500 --tokenizer Qwen/Qwen2.5-7B
    speechscale model import slam slam-stock --units 500
    speechscale model import tiagoCuervo/gslm-scaling-85m-108p9b cuervo-85m --revision main
    speechscale model import spirit-lm-base-7b spirit
    """
    from speechscale.model.interop import Wanted, import_model

    done = import_model(
        source,
        out,
        revision=revision,
        wanted=Wanted(base_config=base_config, units=units, tokenizer=tokenizer, spelling=spelling, eos=eos),
    )
    if done.commit is not None:
        click.echo(f"{source}: commit {done.commit}")
    for note in done.notes:
        click.echo(f"note: {note}")
    if done.vocabulary is None:
        click.echo(
            f"{out}: a stock model folder without a vocabulary of ours: ids are the checkpoint's own, "
            "in its own order, and eval, generate and training here cannot read it; import it with --units for that"
        )
        return
    vocabulary = done.vocabulary
    click.echo(
        f"{out}: a stock model folder ({done.layout}) with its vocabulary: {vocabulary.size} ids, "
        f"{vocabulary.num_units} of them units, {vocabulary.text_size} text"
    )
