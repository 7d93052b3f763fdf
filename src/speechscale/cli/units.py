"""`speechscale units fit|encode`: a speech tokenizer from a corpus, a corpus to units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

DEVICE = click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
MODELS = click.option(
    "--models", multiple=True, type=click.Path(path_type=Path), help="Folder of pretrained models; before the hub."
)


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--encoder", default="adapted", show_default=True, help="Encoder of the units; see docs/encoders.md.")
@click.option("--clusters", type=click.IntRange(min=2), default=100, show_default=True)
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), default=0.5, show_default=True, help="Of speech.")
@click.option("--split", default="train", show_default=True, help="Split of the corpus to fit on; 'all' for all.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Setting of the encoder, as JSON or text.")
@DEVICE
@MODELS
def fit(
    corpus: Path,
    out: Path,
    encoder: str,
    clusters: int,
    hours: float,
    split: str,
    seed: int,
    settings: tuple[str, ...],
    device: str,
    models: tuple[Path, ...],
) -> None:
    """Fit a speech tokenizer on the recordings of CORPUS and write it to OUT."""
    from speechscale.corpus.imported import open_corpus
    from speechscale.corpus.unit_corpus import fit_on_corpus
    from speechscale.speech.encoders.base import Runtime

    tokenizer = fit_on_corpus(
        open_corpus(corpus),
        encoder=encoder,
        clusters=clusters,
        hours=hours,
        split=None if split == "all" else split,
        seed=seed,
        encoder_config=parse_settings(settings),
        runtime=Runtime(device=device, model_folders=models),
    )
    tokenizer.save(out)
    click.echo(
        f"{out}: {tokenizer.num_units} units of '{encoder}' at {tokenizer.frame_rate_hz:g} Hz, "
        f"{tokenizer.fit.get('frames_used', 0):,} frames used"
    )
    if tokenizer.fit.get("supervised"):
        click.echo(
            "supervised: it learned from phone labels; a run on these units is not textless in the papers' sense"
        )


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@click.argument("tokenizer", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes of one thread.")
@click.option("--on-error", type=click.Choice(["skip", "stop"]), default="skip", show_default=True)
@DEVICE
@click.option(
    "--batching",
    type=click.Choice(["exact", "masked", "padded"]),
    default="exact",
    show_default=True,
    help="exact: one file at a time. masked: batches, equal to rounding. padded: as others do it, for comparison.",
)
@MODELS
def encode(
    corpus: Path,
    tokenizer: Path,
    out: Path,
    workers: int,
    on_error: str,
    device: str,
    batching: str,
    models: tuple[Path, ...],
) -> None:
    """Encode CORPUS with TOKENIZER into the folder OUT; run it again to go on after an interruption."""
    from speechscale.corpus.unit_corpus import encode_folder
    from speechscale.progress import ProgressLine
    from speechscale.speech.encoders.base import Runtime

    with ProgressLine("encoded") as watch:
        made = encode_folder(
            corpus,
            tokenizer,
            out,
            workers=workers,
            on_error="stop" if on_error == "stop" else "skip",
            runtime=Runtime(device=device, batching=batching, model_folders=models),  # type: ignore[arg-type]
            watch=watch,
        )
    info = made.info
    click.echo(
        f"{out}: {info['kept']:,} utterances, {info['hours']:.2f} h, {info['units']:,} units "
        f"({info['units_per_second']:.1f} per second), {info['dropped']} dropped"
    )
    for remedy, count in info["remedies"].items():
        click.echo(f"  {count} dropped: {remedy} (skips.jsonl)")


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """Read KEY=VALUE pairs; values are JSON where they parse as such, text otherwise."""
    import json

    found: dict[str, Any] = {}
    for setting in settings:
        key, mark, value = setting.partition("=")
        if not mark or not key:
            raise click.BadParameter(f"'{setting}' is not KEY=VALUE")
        if key in found:
            raise click.BadParameter(f"'{key}' is given twice")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
