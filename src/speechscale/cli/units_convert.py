"""`speechscale units convert IN OUT --from F --to G` and `speechscale units import-kmeans FILE OUT --encoder NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from speechscale.speech.units import SpeechTokenizer

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("source", metavar="IN", type=_PATH)
@click.argument("target", metavar="OUT", type=_PATH)
@click.option(
    "--from",
    "source_format",
    required=True,
    help="parquet, slamkit, slamkit-tokens, gslm, textless, fairseq or cuervo.",
)
@click.option("--to", "target_format", required=True, help="One of the same.")
@click.option("--dedup", is_flag=True, help="Collapse runs of equal units; durations say how long they lasted.")
@click.option("--expand", is_flag=True, help="One unit per frame.")
@click.option("--drop-durations", is_flag=True, help="Lose the durations when OUT cannot hold them.")
@click.option("--durations", type=_PATH, help="gslm, textless: file of durations [default: the one beside IN].")
@click.option("--manifest", type=_PATH, help="fairseq: .tsv with names and samples [default: the one beside IN].")
@click.option("--lengths", type=_PATH, help="fairseq: .len to check the frames against.")
@click.option(
    "--num-units", type=click.IntRange(min=1, max=32_767), help="Units of the tokenizer, when IN does not say."
)
@click.option("--frame-rate-hz", type=click.FloatRange(min=0, min_open=True), help="When IN does not say.")
@click.option("--tokenizer", type=_PATH, help="Tokenizer folder that made the units: gives the two above and its hash.")
@click.option(
    "--on-error",
    type=click.Choice(["skip", "stop"]),
    default="stop",
    show_default=True,
    help="skip writes OUT.skips.jsonl.",
)
def convert(
    source: Path,
    target: Path,
    source_format: str,
    target_format: str,
    dedup: bool,
    expand: bool,
    drop_durations: bool,
    durations: Path | None,
    manifest: Path | None,
    lengths: Path | None,
    num_units: int | None,
    frame_rate_hz: float | None,
    tokenizer: Path | None,
    on_error: str,
) -> None:
    """Convert unit files between formats; nothing is lost without being named."""
    import time

    from speechscale.progress import Progress, ProgressLine
    from speechscale.speech.unit_formats import ReadOptions, WriteOptions, convert_units

    sha = "unknown"
    if tokenizer is not None:
        num_units, frame_rate_hz, sha = _tokenizer_says(tokenizer, num_units, frame_rate_hz)
    began = time.monotonic()
    with ProgressLine("converted") as watch:
        done = convert_units(
            source,
            target,
            source_format=source_format,
            target_format=target_format,
            dedup=dedup,
            expand=expand,
            drop_durations=drop_durations,
            options=ReadOptions(
                num_units=num_units,
                frame_rate_hz=frame_rate_hz,
                durations=durations,
                manifest=manifest,
                lengths=lengths,
            ),
            write_options=WriteOptions(tokenizer_sha256=sha),
            on_error="skip" if on_error == "skip" else "stop",
            progress=lambda read: watch(Progress(items_done=read, wall_s=time.monotonic() - began)),
        )
    if on_error == "skip":
        done.skips.write(target.with_name(f"{target.name}.skips.jsonl"))
    frames = "frames not known" if done.frames is None else f"{done.frames} frames"
    click.echo(f"{target}: {done.read} read, {done.kept} kept, {done.dropped} dropped; {done.units} units, {frames}")
    if done.dropped:
        click.echo(f"dropped: {done.skips.first()}")
    if done.lost_fields:
        click.echo(f"fields that '{target_format}' does not hold: {', '.join(sorted(done.lost_fields))}")
    for note in done.notes:
        click.echo(f"note: {note}")


@click.command("import-kmeans")
@click.argument("file", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--encoder", required=True, help="Encoder whose features were clustered, or a preset (docs/encoders.md).")
@click.option("--encoder-config", default="{}", show_default=True, help="Its settings, as JSON.")
@click.option("--sha256", help="Expected hash of FILE; another file is refused.")
@click.option("--frame-rate-hz", type=click.FloatRange(min=0, min_open=True), help="[default: the encoder's]")
@click.option("--sample-rate-hz", type=click.IntRange(min=1), help="[default: the encoder's]")
def import_kmeans(
    file: Path,
    out: Path,
    encoder: str,
    encoder_config: str,
    sha256: str | None,
    frame_rate_hz: float | None,
    sample_rate_hz: int | None,
) -> None:
    """Make a tokenizer folder OUT of another tool's k-means FILE, without running anything in it.

    Reads joblib and pickle files of scikit-learn (fairseq, textless), faiss IndexFlatL2, .npy, .pt and .safetensors.
    """
    import json

    from speechscale.errors import DataError
    from speechscale.speech.encoders.presets import PRESETS
    from speechscale.speech.pretrained import preset_tokenizer
    from speechscale.speech.quantizers import quantizer_tokenizer, read_quantizer

    try:
        config = json.loads(encoder_config)
    except ValueError as error:
        raise DataError(f"--encoder-config: not JSON ({error}); give an object such as '{{}}'") from None
    if not isinstance(config, dict):
        raise DataError("--encoder-config: an object is needed; give for example '{\"layer\": 11}'")
    if encoder in PRESETS:
        made = preset_tokenizer(encoder, file, settings=config)
        _save(made, out, encoder)
        click.echo(f"{out}: {made.num_units} units of preset '{encoder}'\nfingerprint {made.fingerprint}")
        return
    quantizer = read_quantizer(file, sha256=sha256)
    if frame_rate_hz is None or sample_rate_hz is None:
        frame_rate_hz, sample_rate_hz, config = _encoder_says(
            encoder, config, quantizer.dim, frame_rate_hz, sample_rate_hz
        )
    made = quantizer_tokenizer(
        quantizer,
        encoder=encoder,
        encoder_config=config,
        frame_rate_hz=frame_rate_hz,
        sample_rate_hz=sample_rate_hz,
    )
    _save(made, out, quantizer.cache_name)
    click.echo(f"{out}: {quantizer.statement}")
    click.echo(f"fingerprint {made.fingerprint}")


def _save(made: SpeechTokenizer, out: Path, example: str) -> None:
    from speechscale.errors import DataError
    from speechscale.speech.units import SpeechTokenizer

    if (out / "speech_tokenizer.json").exists() and SpeechTokenizer.load(out).fingerprint != made.fingerprint:
        raise DataError(f"tokenizer {out}: holds another tokenizer; choose another folder, e.g. {example}")
    made.save(out)


def _tokenizer_says(folder: Path, num_units: int | None, frame_rate_hz: float | None) -> tuple[int, float, str]:
    from speechscale.errors import DataError
    from speechscale.speech.units import SpeechTokenizer

    known = SpeechTokenizer.load(folder)
    for name, given, own in (
        ("--num-units", num_units, known.num_units),
        ("--frame-rate-hz", frame_rate_hz, known.frame_rate_hz),
    ):
        if given is not None and given != own:
            raise DataError(f"{name} {given}: the tokenizer {folder} has {own}; leave {name} out")
    return known.num_units, known.frame_rate_hz, known.fingerprint


def _encoder_says(
    name: str, config: dict[str, Any], dim: int, frame_rate_hz: float | None, sample_rate_hz: int | None
) -> tuple[float, int, dict[str, Any]]:
    """Rates and full settings of an encoder that can be built; its width must be that of the centroids."""
    from speechscale.errors import DataError
    from speechscale.speech.encoders import build_encoder

    try:
        encoder = build_encoder(name, config)
    except DataError as error:
        raise DataError(f"{error}, or give --frame-rate-hz and --sample-rate-hz") from error
    if encoder.dim != dim:
        raise DataError(
            f"encoder '{name}': makes {encoder.dim} features per frame, the centroids have {dim}; name the encoder "
            "and layer that the quantizer was fitted on"
        )
    return frame_rate_hz or encoder.frame_rate_hz, sample_rate_hz or encoder.sample_rate_hz, encoder.config()
