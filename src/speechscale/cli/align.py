"""`speechscale align CORPUS OUT` or `speechscale align AUDIO OUT.TextGrid --text ...`: give words their times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("source", metavar="CORPUS|AUDIO", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path), required=False)
@click.option("--aligner", default="pocketsphinx", show_default=True, metavar="NAME", help="pocketsphinx or ctc.")
@click.option("--model", help="CTC model: folder or hub id (weights as safetensors).")
@click.option("--device", help="ctc: auto, cpu or cuda [auto].")
@click.option("--dtype", type=click.Choice(["fp32", "bf16"]), help="ctc [fp32].")
@click.option("--language", help="ctc: language of the texts, for writing out numbers [en].")
@click.option("--dictionary", help="Pronunciations in Sphinx form [the CMU dictionary of pocketsphinx].")
@click.option("--low-score", type=click.FloatRange(0, 1), help="Flag words, fail utterances below it.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option("--on-error", type=click.Choice(["skip", "stop"]), default="skip", show_default=True)
@click.option("--timeout-s", type=click.FloatRange(min=1), help="Patience per utterance [60 + twice its length].")
@click.option("--again", is_flag=True, help="Also align utterances that have word times.")
@click.option("--write", nargs=2, metavar="FORMAT DIR", help="Also write a file per utterance, e.g. textgrid grids.")
@click.option("--text", help="AUDIO only: the transcript, or a file that holds it.")
def align(
    source: Path,
    out: Path | None,
    aligner: str,
    workers: int,
    on_error: str,
    timeout_s: float | None,
    again: bool,
    write: tuple[str, str] | None,
    text: str | None,
    **options: Any,
) -> None:
    """Give the words of CORPUS times, as a new corpus OUT; or align one AUDIO file with its --text.

    Numbers and symbols are read out; the words keep the spelling of the transcript. Utterances that cannot be aligned
    are listed in OUT/skips.jsonl. After a kill, the same command goes on.
    """
    from speechscale.corpus.aligning import align_corpus, write_alignments
    from speechscale.corpus.imported import open_corpus
    from speechscale.progress import ProgressLine

    settings = {key: value for key, value in options.items() if value is not None}
    if text is not None or source.is_file():
        _one(source, out, text, aligner, settings, timeout_s)
        return
    if out is None:
        raise click.UsageError("where to? give the folder of the aligned corpus: speechscale align CORPUS OUT")
    with ProgressLine("aligned") as watch:
        stats = align_corpus(
            source,
            out,
            aligner=aligner,
            settings=settings,
            workers=workers,
            on_error=on_error,
            again=again,
            timeout_s=timeout_s,
            watch=watch,
        )
    for line in stats.lines():
        click.echo(line)
    if stats.failed:
        click.echo(f"what failed, and why: {out / 'skips.jsonl'}")
    if write:
        count = write_alignments(open_corpus(out), Path(write[1]), write[0])
        click.echo(f"{count:,} files in {write[1]}")


def _one(
    audio: Path, out: Path | None, text: str | None, aligner: str, settings: dict[str, Any], timeout_s: float | None
) -> None:
    """Align one file and write its words; a transcript that does not fit is told, and its words are written too."""
    from speechscale.align.formats import write_alignment
    from speechscale.corpus.aligning import align_file
    from speechscale.corpus.transcripts import clean_text, decode_text
    from speechscale.speech.audio import audio_duration_s

    if text is None:
        raise click.UsageError(f"what is said in {audio}? give --text 'the words' or --text FILE")
    if len(text) < 256 and Path(text).is_file():
        text = decode_text(Path(text).read_bytes(), text)
    target = out or audio.with_suffix(".TextGrid")
    aligned = align_file(audio, clean_text(text, "--text"), aligner=aligner, settings=settings, timeout_s=timeout_s)
    reached_s = max((word.end_s for word in aligned.words if word.end_s is not None), default=0.0)
    write_alignment(target, aligned.words, duration_s=max(audio_duration_s(audio), reached_s))
    timed = sum(word.start_s is not None for word in aligned.words)
    score = f", score {aligned.score:.2f}" if aligned.score is not None else ""
    click.echo(f"{target}: {timed} of {len(aligned.words)} words with a time{score} ({aligned.how})")
    if aligned.flagged:
        flagged = ", ".join(aligned.words[index].text for index in aligned.flagged[:10])
        click.echo(f"low scores: {len(aligned.flagged)} words: {flagged}{', ...' * (len(aligned.flagged) > 10)}")
    if aligned.guessed:
        click.echo(f"guessed: {', '.join(aligned.guessed[:10])}")
    if aligned.failed:
        click.echo(f"failed: {aligned.failed}", err=True)
        raise SystemExit(1)
