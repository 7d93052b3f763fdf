"""`speechscale corpus speak TEXTS OUT --voices us-f2,flite:slt`: a text corpus becomes a spoken, aligned one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("speak")
@click.argument("texts", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--voices", required=True, help="Addresses joined by commas: us-f2,flite:slt,piper:V.onnx,kokoro:af_heart."
)
@click.option(
    "--voice-per",
    type=click.Choice(["document", "round-robin", "random"]),
    default="document",
    show_default=True,
    help="A voice drawn for each document, voices in turn, or one drawn for each utterance.",
)
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="Stop when this much is spoken.")
@click.option("--documents", type=click.IntRange(min=1), help="Read only the first documents.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Never changes a byte.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--audio-format", type=click.Choice(["flac", "wav"]), default="flac", show_default=True)
@click.option(
    "--text-format",
    type=click.Choice(["auto", "stories", "paragraphs", "lines", "jsonl", "csv", "parquet"]),
    default="auto",
    show_default=True,
)
@click.option("--text-field", default="", help="Key or column of the text [default: text, story, content, ...].")
@click.option("--id-field", default="", help="Key or column of ids [default: documents are numbered].")
@click.option("--max-words", type=click.IntRange(min=1), default=300, show_default=True, help="Per utterance.")
@click.option("--max-seconds", type=click.FloatRange(min=1), help="The same as words, at 2.5 words per second.")
@click.option("--judge", type=click.Choice(["none", "pocketsphinx"]), default="none", show_default=True)
@click.option("--max-wer", type=click.FloatRange(min=0), help="Drop what the judge understands worse.")
@click.option("--on-error", type=click.Choice(["skip", "stop"]), default="skip", show_default=True)
@click.option("--retry-skipped", is_flag=True, help="Speak again what an earlier run had to drop.")
@click.option("--text-licence", default="", help="Terms of the texts, kept with every utterance.")
@click.option("--voice-licence", default="", help="Terms of piper and http voices, which cannot be read off them.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=1), default=60.0, show_default=True, help="Seconds.")
@click.option("--speed", type=click.FloatRange(0.25, 4.0), default=1.0, show_default=True, help="http and kokoro.")
@click.option("--endpoint", default="http://127.0.0.1:8000", show_default=True, help="Server of http voices.")
@click.option("--endpoint-model", default="tts-1", show_default=True)
@click.option("--endpoint-format", type=click.Choice(["wav", "flac", "pcm"]), default="wav", show_default=True)
@click.option("--endpoint-key-env", default="SPEECHSCALE_TTS_KEY", show_default=True, help="Variable with the key.")
@click.option("--allow-http", is_flag=True, help="Plain http to another machine.")
@click.option("--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="Requests per worker.")
@click.option("--kokoro-folder", default="", help="config.json, kokoro-v1_0.pth and voices/ of Kokoro-82M.")
@click.option("--device", default="cpu", show_default=True, help="Of kokoro.")
def speak_texts(texts: Path, out: Path, voices: str, workers: int, **given: Any) -> None:
    """Speak TEXTS (text, JSONL, CSV, Parquet, or a folder of such) into the corpus folder OUT.

    The same command goes on after a stop; with more --hours or --documents it adds to what is there.
    """
    from speechscale.corpus.speak_plan import WORDS_PER_S, SpeakOptions
    from speechscale.corpus.speak_texts import speak_texts as speak
    from speechscale.corpus.texts import TextOptions
    from speechscale.errors import DataError
    from speechscale.progress import ProgressLine
    from speechscale.voices.engines import VoiceOptions

    if given["max_wer"] is not None and given["judge"] == "none":
        raise DataError("--max-wer needs a judge; add --judge pocketsphinx")
    max_words = given["max_words"]
    if given["max_seconds"] is not None:
        max_words = max(1, min(max_words, int(given["max_seconds"] * WORDS_PER_S)))
    shared = ("voice_per", "hours", "documents", "seed", "audio_format", "judge", "max_wer", "on_error")
    engine = ["timeout_s", "endpoint", "endpoint_model", "endpoint_format", "endpoint_key_env", "allow_http"]
    engine += ["concurrency", "speed", "kokoro_folder", "device", "voice_licence"]
    options = SpeakOptions(
        voices=tuple(name.strip() for name in voices.split(",") if name.strip()),
        voice=VoiceOptions(**{name: given[name] for name in engine}),
        texts=TextOptions(format=given["text_format"], text_field=given["text_field"], id_field=given["id_field"]),
        max_words=max_words,
        retry_skipped=given["retry_skipped"],
        text_licence=given["text_licence"],
        **{name: given[name] for name in shared},
    )
    with ProgressLine("spoke") as watch:
        corpus = speak(texts, out, options, workers=workers, watch=watch)
    click.echo(_table(corpus.info))
    click.echo(f"{out}: {corpus.info['utterances']} utterances, {corpus.info['dropped']} dropped (skips.jsonl)")
    if any(row["timed_words"] < row["words"] for row in corpus.info["by_voice"].values()):
        click.echo(f"some words have no time; next: speechscale align {out}")


def _table(info: dict[str, Any]) -> str:
    """Hours, words, words per second and drops of each voice."""
    head = f"{'voice':<24} {'hours':>9} {'words':>9} {'timed':>9} {'words/s':>8} {'kept':>7} {'dropped':>7}"
    rows = [
        f"{label:<24} {row['hours']:>9.3f} {row['words']:>9} {row['timed_words']:>9} "
        f"{row['words_per_s'] or 0:>8.2f} {row['utterances']:>7} {row['dropped']:>7}"
        + (f"  mean WER {row['mean_wer']:.3f}" if row.get("mean_wer") is not None else "")
        for label, row in info["by_voice"].items()
    ]
    return "\n".join([head, *rows, f"{'all':<24} {info['hours']:>9.3f} {info['words']:>9}"])
