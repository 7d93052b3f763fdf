"""`speechscale speak MODEL --prompt x.wav | --text "..." | --microphone 3`: let a trained model speak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from speechscale.cli.decode_options import LOADING, PATH, decode_options, decoding


@click.command()
@click.argument("model")
@click.option("--prompt", type=PATH, help="Audio file to continue.")
@click.option("--text", help="Words to continue in speech; markers in it are text.")
@click.option(
    "--microphone", type=click.FloatRange(min=0.1), metavar="SECONDS", help="Record a prompt (extra: devices)."
)
@click.option("--into", type=click.Choice(["speech", "free"]), default="speech", show_default=True)
@click.option(
    "--out", type=PATH, default=Path("spoken.wav"), show_default=True, help="wav or flac; - for raw 16-bit samples."
)
@click.option(
    "--prompt-sound/--no-prompt-sound",
    default=True,
    show_default=True,
    help="Hear a spoken prompt first, as units say it.",
)
@click.option("--stream", is_flag=True, help="Write the sound while it is made.")
@click.option("--play", is_flag=True, help="Play it, while it is made (extra: devices).")
@decode_options
def speak(
    model: str, prompt: Path | None, text: str | None, microphone: float | None, out: Path, **options: Any
) -> None:
    """Continue a recording or a text in speech, with MODEL: a study's run, a bundle, or a bundle's name on the hub.

    \b
    speechscale speak RUN --text "on a warm friday" --out spoken.wav
    speechscale speak RUN --prompt x.wav --stream --out - | aplay -f S16_LE -r 16000
    """
    from speechscale.errors import DataError
    from speechscale.speak.aloud import speak_aloud
    from speechscale.speak.devices import record
    from speechscale.speak.prompts import Prompt, prompt_of, prompt_of_text
    from speechscale.speak.speech_lm import SpeechLM
    from speechscale.speak.voice import Voice

    if sum(source is not None for source in (prompt, text, microphone)) != 1:
        raise DataError("give exactly one of --prompt (audio), --text and --microphone")
    slm = SpeechLM.from_pretrained(model, **{name: options[name] for name in LOADING})
    if microphone is not None:
        rate_hz = 16_000 if slm.tokenizer is None else slm.tokenizer.sample_rate_hz
        asked: Prompt = prompt_of(record(microphone, rate_hz), rate_hz=rate_hz)
    elif text is not None:
        asked = prompt_of_text(text, "p0")
    else:
        assert prompt is not None
        asked = prompt_of(prompt, prompt_s=options["prompt_s"])
    said = speak_aloud(
        slm,
        asked,
        decoding(slm, options["into"], options),
        out,
        voice=Voice(speaker=options["speaker"], prompt_sound=options["prompt_sound"]),
        stream=options["stream"],
        play=options["play"],
    )
    for note in (*asked.notes, *said.notes):
        click.echo(f"note: {note}", err=True)
    if said.text:
        click.echo(f"text: {said.text}", err=True)
    click.echo(
        f"{out}: {said.seconds:.1f} s, {said.prompt_units} units of prompt, {said.new_units} generated"
        + ("" if said.first_s is None else f", first sound {1000 * said.first_s:.0f} ms after the prompt was read"),
        err=str(out) == "-",
    )
