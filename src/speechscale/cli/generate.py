"""`speechscale generate MODEL PROMPTS... --out DIR`: continue many prompts, in speech, text or both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from speechscale.cli.decode_options import LOADING, PATH, decode_options, decoding


@click.command()
@click.argument("model")
@click.argument("prompts", nargs=-1, type=PATH)
@click.option("--text", "texts", multiple=True, help="A prompt of words; markers in it are text. May be repeated.")
@click.option("--out", type=PATH, required=True, help="Folder of samples.jsonl, audio/ and index.html.")
@click.option("--into", type=click.Choice(["speech", "text", "free"]), default="speech", show_default=True)
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Of each prompt.")
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True, help="Prompts at once.")
@click.option("--asr", default="", help="pocketsphinx, or a transformers recognizer: words with times. [no words]")
@click.option("--asr-texts", type=PATH, help="Sentences that pocketsphinx is to know, one per line.")
@click.option("--language", help="Of the speech, told to the recognizer.")
@click.option("--page/--no-page", default=True, show_default=True, help="Write index.html.")
@decode_options
def generate(model: str, prompts: tuple[Path, ...], texts: tuple[str, ...], out: Path, **options: Any) -> None:
    """Let MODEL (a study's run, a bundle, a model folder, or a bundle's name on the hub) go on from PROMPTS.

    PROMPTS are audio files (wav, flac, mp3, ogg ...), .txt (a prompt per line) or .jsonl ({"id", "text"} or
    {"id", "audio"}). The same command goes on after an interruption.

    \b
    speechscale generate RUN a.wav b.mp3 --into free --samples 3 --out said
    speechscale generate RUN --text "once upon a time" --into speech --out said
    """
    from speechscale.evals.generation.transcribe import open_transcriber
    from speechscale.progress import ProgressLine
    from speechscale.report.samples_text import samples_text
    from speechscale.speak.prompts import read_lines, read_prompts
    from speechscale.speak.speech_lm import SpeechLM
    from speechscale.speak.writing import Wanted, write_samples

    asked = read_prompts(prompts, texts, prompt_s=options["prompt_s"])
    slm = SpeechLM.from_pretrained(model, **{name: options[name] for name in LOADING})
    settings = decoding(slm, options["into"], options, samples=options["samples"])
    recognizer = None
    if options["asr"]:
        lines = None if options["asr_texts"] is None else read_lines(options["asr_texts"], "sentences")
        recognizer = open_transcriber(
            options["asr"], folder=out / "asr", texts=lines, device=options["device"], language=options["language"]
        )
    wanted = Wanted(speaker=options["speaker"], recognizer=recognizer, batch=options["batch"], page=options["page"])
    with ProgressLine("generated") as watch:
        records, skips = write_samples(slm, asked, settings, out, wanted, watch=watch)
    for record in records[:3]:
        click.echo(samples_text(record))
    for note in dict.fromkeys(note for record in records for note in record["notes"]):
        click.echo(f"note: {note}")
    dropped = f"; {len(skips)} of {len(asked)} prompts dropped, skips.jsonl says why" if len(skips) else ""
    page = ", index.html" if options["page"] else ""
    click.echo(f"{out}: {len(records)} samples{dropped}; samples.jsonl, audio/{page}")
