"""`speechscale speak RUN --prompt x.wav | --text "..."`: let a trained model speak."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--prompt", type=click.Path(path_type=Path), help="Audio file to continue.")
@click.option("--text", help="Words to continue in speech.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("spoken.wav"), show_default=True, help="wav or flac."
)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=4.0, show_default=True, help="How much new speech.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.8, show_default=True)
@click.option("--top-k", type=click.IntRange(min=1), default=25, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--vocoder", type=click.Path(path_type=Path), help="Folder or checkpoint of another vocoder.")
@click.option("--speaker", help="One of the vocoder's voices [the first].")
def speak(
    run: Path,
    prompt: Path | None,
    text: str | None,
    out: Path,
    seconds: float,
    temperature: float,
    top_k: int,
    seed: int,
    vocoder: Path | None,
    speaker: str | None,
) -> None:
    """Continue a recording or a text in speech, with the model of a study's RUN folder."""
    from speechscale.speech.audio import write_audio
    from speechscale.study.voice_box import say

    said = say(
        run,
        prompt=prompt,
        text=text,
        seconds=seconds,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
        vocoder=vocoder,
        speaker=speaker,
    )
    write_audio(out, said.audio, said.rate_hz)
    click.echo(
        f"{out}: {len(said.audio) / said.rate_hz:.1f} s, {len(said.prompt_units)} units of prompt, "
        f"{len(said.new_units)} generated"
    )
