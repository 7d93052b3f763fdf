"""`speechscale tokens show|play`: documents of a token store for the eye and for the ear."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from speechscale.cli.tokens_places import CORPUS, STREAM, batches, drawing, find_sounds, interleaving, open_tokens

if TYPE_CHECKING:
    import numpy as np

    from speechscale.corpus.sounds import Sound, Sounds
    from speechscale.report.tokens_page import PageDocument
    from speechscale.tokens.look_records import Seen, SeenSpan
    from speechscale.tokens.look_words import WordTime
    from speechscale.tokens.store import TokenStore

AT_ONCE = 16
"""Documents whose audio is in memory together."""
PLAYERS = (("aplay", "-q"), ("paplay",), ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"))
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("store", type=click.Path(path_type=Path, file_okay=False))
@click.argument("names", metavar="[ID_OR_NUMBER]...", nargs=-1)
@STREAM
@click.option("--first", type=click.IntRange(min=1), default=3, show_default=True, help="So many, where none is named.")
@click.option("--ids", is_flag=True, help="Write token ids behind what they spell.")
@click.option("--html", "page", type=_FILE, help="Write one page that needs no network, with sound and waveform.")
@CORPUS
@drawing
def show(
    store: Path,
    names: tuple[str, ...],
    stream: str,
    first: int,
    ids: bool,
    page: Path | None,
    corpus: Path | None,
    epoch: int,
    seed: int,
    settings: tuple[str, ...],
    progress: float,
    vocabulary: Path | None,
) -> None:
    """Show documents of STORE as a model reads them: which words are speech, which text, and their units."""
    from functools import partial

    from rich.console import Console

    from speechscale.report.tokens_page import write_tokens_page
    from speechscale.report.tokens_text import legend, plain_document, rich_document
    from speechscale.tokens.look import describe, find_document, first_documents, look
    from speechscale.tokens.look_records import plural

    opened = open_tokens(store, vocabulary)
    config, source = interleaving(store, settings, progress)
    view = partial(look, opened, stream, interleave=config, epoch=epoch, seed=seed)
    if names:
        numbers = [find_document(opened, stream, name, config) for name in names]
    else:
        numbers = first_documents(opened, stream, first, config)
    if page is not None:
        sounds = find_sounds(store, corpus) if stream != "text" else None
        drawn = f"{describe(config, epoch, seed)} ({source})" if stream == "interleaved" else ""
        facts = _facts(opened, f"{opened.documents(stream, config):,} in the stream {stream}", drawn, sounds)
        ids_of = {number: opened.utterance_id(number) if stream != "text" else "" for number in numbers}
        documents = _page_documents(view, ids_of, sounds, named=corpus is not None)
        title = f"{stream.capitalize()} documents of {opened.folder.parent.name}/{opened.folder.name}"
        left_out = write_tokens_page(page, documents, title=title, facts=facts)
        for line in left_out[:5]:
            click.echo(f"note: {line}", err=True)
        click.echo(f"{page}: {plural(len(numbers), 'document')}, {page.stat().st_size / 1e6:.1f} MB")
        return
    console = Console(highlight=False)
    color = console.is_terminal and not console.no_color
    for number in numbers:
        seen = view(number)
        if color:
            console.print(rich_document(seen, ids=ids), "", sep="\n")
        else:
            click.echo(plain_document(seen, ids=ids) + "\n")
    total = opened.documents(stream, config)
    told = f"{len(numbers)} of {total:,} documents; {source if stream == 'interleaved' else f'stream {stream}'}"
    console.print(legend(color=color), soft_wrap=True)
    click.echo(told)


@click.command()
@click.argument("store", type=click.Path(path_type=Path, file_okay=False))
@click.argument("name", metavar="ID_OR_NUMBER")
@click.option("--out", type=_FILE, required=True, help="wav or flac.")
@click.option(
    "--text",
    "fill",
    type=click.Choice(["tone", "silence", "voice"]),
    default="tone",
    show_default=True,
    help="What stands for a text span.",
)
@click.option("--voice", default="us-f2", show_default=True, help="Who reads text spans (--text voice).")
@click.option("--play", "aloud", is_flag=True, help="Also play it, where aplay, paplay or ffplay is there.")
@STREAM
@CORPUS
@drawing
def play(
    store: Path,
    name: str,
    out: Path,
    fill: str,
    voice: str,
    aloud: bool,
    stream: str,
    corpus: Path | None,
    epoch: int,
    seed: int,
    settings: tuple[str, ...],
    progress: float,
    vocabulary: Path | None,
) -> None:
    """Write what a model reads as sound: speech cut from the recording, a tone, silence or a voice for text."""
    from speechscale.errors import DataError
    from speechscale.speech.audio import TARGET_RATE_HZ, write_audio
    from speechscale.tokens.look import find_document, look
    from speechscale.tokens.look_sound import as_sound

    opened = open_tokens(store, vocabulary)
    config, _ = interleaving(store, settings, progress)
    number = find_document(opened, stream, name, config)
    recording, rate_hz, times = None, TARGET_RATE_HZ, None
    if stream != "text":
        sounds = find_sounds(store, corpus)
        if sounds is None:
            raise DataError(f"{store}: this store's audio is not known; name its corpus with --corpus FOLDER")
        id = opened.utterance_id(number)
        found, missing = sounds.load([id])
        if id not in found:
            raise DataError(f"utterance {id}: no audio: {missing.get(id, 'not in the corpus')}")
        recording, rate_hz = found[id].spoken.audio, found[id].spoken.sample_rate_hz
        times = _times(found[id])
    seen = look(opened, stream, number, interleave=config, epoch=epoch, seed=seed, times=times)
    audio, lines = as_sound(seen, recording, rate_hz, _filler(seen, fill, voice, rate_hz))
    write_audio(out, audio, rate_hz)
    click.echo(f"{'at':>9} {'to':>9}  {'what':<7} {'in the recording':<19} words")
    for line in lines:
        place = ""
        if line.source_start is not None and line.source_stop is not None:
            place = f"{line.source_start / rate_hz:.3f}..{line.source_stop / rate_hz:.3f}"
        what = "speech" if line.span.modality == "speech" else fill
        click.echo(
            f"{line.start / rate_hz:9.3f} {line.stop / rate_hz:9.3f}  {what:<7} {place:<19} {_said(line.span.text)}"
        )
    click.echo(f"{out}: {len(audio) / rate_hz:.2f} s of {seen.title}; {'; '.join(seen.facts)}")
    if aloud:
        _play(out)


def _said(text: str) -> str:
    from speechscale.report.tokens_text import printable

    return printable(text)


def _times(sound: Sound) -> list[WordTime]:
    """Words of an utterance in seconds."""
    from speechscale.records import NO_TIME
    from speechscale.tokens.look_words import WordTime

    rate_hz = sound.spoken.sample_rate_hz
    return [
        WordTime(text, None, None) if NO_TIME in (start, end) else WordTime(text, start / rate_hz, end / rate_hz)
        for text, start, end in sound.spoken.words
    ]


def _facts(store: TokenStore, documents: str, drawn: str, sounds: Sounds | None) -> dict[str, str]:
    """What the top of the page says."""
    vocabulary = store.vocabulary
    facts = {"store": str(store.folder), "documents": documents, "interleaving": drawn}
    facts["vocabulary"] = f"{vocabulary.text_size:,} text ids, {vocabulary.num_units:,} units" + (
        f", {vocabulary.num_speech - vocabulary.num_units:,} merged subwords of units" if vocabulary.subwords else ""
    )
    if vocabulary.num_units:
        facts["audio"] = str(sounds.folder) if sounds else "none; name the corpus with --corpus to see and hear it"
        facts["word times"] = "of the corpus" if sounds else "known to the unit that holds them"
    return {label: value for label, value in facts.items() if value}


def _page_documents(
    view: Callable[..., Seen], ids_of: Mapping[int, str], sounds: Sounds | None, *, named: bool
) -> Iterator[PageDocument]:
    """Documents with their audio, a few at a time.

    Args:
        view: looks at a number. ids_of: number -> id of its utterance.
        named: the corpus was asked for, so that a voice that is missing is an error.
    """
    from speechscale.errors import DataError, MissingExtra
    from speechscale.report.tokens_page import PageDocument
    from speechscale.tokens.look_sound import check_length

    for part in batches(list(ids_of), AT_ONCE):
        found: dict[str, Sound] = {}
        missing: dict[str, str] = {}
        if sounds is not None:
            try:
                found, missing = sounds.load(ids_of[number] for number in part)
            except MissingExtra as error:
                if named:
                    raise
                missing = {ids_of[number]: str(error) for number in part}
        for number in part:
            sound, silence = found.get(ids_of[number]), missing.get(ids_of[number], "")
            if sound is None:
                yield PageDocument(seen=view(number), silence=silence)
                continue
            seen = view(number, times=_times(sound))
            audio, rate_hz = sound.spoken.audio, sound.spoken.sample_rate_hz
            try:
                check_length(seen, len(audio), rate_hz)
            except DataError as error:
                yield PageDocument(seen=view(number), silence=str(error))
            else:
                yield PageDocument(seen=seen, audio=audio, sample_rate_hz=rate_hz)


def _filler(seen: Seen, fill: str, voice: str, rate_hz: int) -> Callable[[SeenSpan], np.ndarray]:
    """What text spans sound like."""
    from speechscale.tokens.look_sound import silence, tone

    if fill != "voice":
        made = tone(rate_hz) if fill == "tone" else silence(rate_hz)
        return lambda span: made
    spoken = _read_aloud(seen, voice, rate_hz)
    return lambda span: spoken.get(id(span), silence(rate_hz))


def _read_aloud(seen: Seen, voice: str, rate_hz: int) -> dict[int, Any]:
    """Waveforms of the text spans, all spoken at once; a span that cannot be spoken is left out."""
    from speechscale.records import Utterance
    from speechscale.speech.audio import resample
    from speechscale.voices.engines import Cast, parse_voice

    label = parse_voice(voice).label
    spans = {str(number): span for number, span in enumerate(seen.spans) if span.modality == "text"}

    def words(span: SeenSpan) -> str:
        names = (seen.words[part.word].spoken if part.word is not None else "" for part in span.parts)
        return " ".join(name or part.text for name, part in zip(names, span.parts, strict=True))

    utterances = [
        Utterance(id=number, text=words(span), speaker=label, split="", segments=(words(span),))
        for number, span in spans.items()
    ]
    failed: list[str] = []
    spoken = {
        id(spans[made.id]): resample(made.audio, made.sample_rate_hz, rate_hz)
        for made in Cast([voice]).speak(utterances, lambda number, message: failed.append(message))
    }
    if failed:
        click.echo(f"note: {len(failed)} text spans are silent: {failed[0]}", err=True)
    return spoken


def _play(path: Path) -> None:
    import shutil
    import subprocess

    for player in PLAYERS:
        if shutil.which(player[0]):
            subprocess.run([*player, str(path)], check=False)
            return
    click.echo(f"not played: none of {', '.join(player[0] for player in PLAYERS)} is installed", err=True)
