"""Judge a tokenizer on a corpus, or on a folder of audio with TextGrids.

Enters: a tokenizer, utterances or files, phone tiers where they are. Leaves: a `Quality`, and what was left out with
reasons. The one decision worth knowing: phones are looked up by the name of the audio file; a file without them still
counts for everything that needs no phones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from speechscale.align.formats import Interval, textgrid_tiers
from speechscale.corpus.imported import open_corpus
from speechscale.corpus.loaders import FileLoader
from speechscale.corpus.readers.base import AUDIO_SUFFIXES
from speechscale.errors import DataError
from speechscale.records import NO_TIME, Utterance
from speechscale.skips import SkipLog
from speechscale.speech.audio import TARGET_RATE_HZ, resample
from speechscale.speech.labeled import Labeled, TimedLabel
from speechscale.speech.quality import Quality, measure
from speechscale.speech.units import SpeechTokenizer
from speechscale.voices.spoken import Spoken

_WORD_TIERS = ("words", "word")
OVERLAP_S = 0.001
"""Overlap of neighboring intervals that counts as rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The figures, and the utterances that were left out."""

    quality: Quality
    skips: SkipLog


def judge(
    tokenizer: SpeechTokenizer,
    source: Path,
    *,
    tier: str = "phones",
    alignments: Path | None = None,
    speakers: str | None = None,
    split: str | None = None,
    hours: float = 2.0,
    seed: int = 0,
) -> Judged:
    """Encode up to `hours` of a corpus folder (or of any folder with audio) and measure its units.

    Args:
        tier: phone tier of TextGrids, which lie below `alignments` (default: below the audio) and have the names of
            the audio files. speakers: pattern whose first group, found in a file's name, is the speaker; for plain
            folders only, where otherwise all files count as one speaker.

    Raises:
        DataError: nothing usable there, the oracle tokenizer, or a pattern that is none.
    """
    if tokenizer.oracle:
        raise DataError("units 'phones' are the phone labels themselves; judge an encoder's units, such as 'mfcc'")
    root, utterances = _utterances(Path(source), speakers, split)
    grids = {path.stem: path for path in sorted(Path(alignments or root).rglob("*.TextGrid"))}
    skips, labeled, seconds = SkipLog(), [], 0.0
    loader = FileLoader(root=root)
    for utterance in utterances:
        if seconds >= hours * 3600:
            break
        try:
            grid = grids.get(Path(utterance.audio.rpartition("::")[2]).stem)
            entry = _labeled(tokenizer, utterance, loader.load(utterance), grid, tier)
        except DataError as error:
            reason, _, remedy = str(error).replace(f"{root}/", "").rpartition("; ")
            skips.add(utterance.id, reason or remedy, remedy if reason else "correct or drop the utterance")
            continue
        labeled.append(entry)
        seconds += len(entry.units) / tokenizer.frame_rate_hz
    if not labeled:
        raise DataError(
            f"{source}: no audio that can be judged: {skips.first() or 'there is none; name another folder'}"
        )
    quality = measure(labeled, frame_rate_hz=tokenizer.frame_rate_hz, num_units=tokenizer.num_units, seed=seed)
    return Judged(quality=quality, skips=skips)


def _utterances(source: Path, speakers: str | None, split: str | None) -> tuple[Path, Iterator[Utterance]]:
    if (source / "corpus.json").is_file():
        corpus = open_corpus(source)
        return corpus.audio_root, corpus.utterances(split=split)
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; name a corpus or a folder with audio")
    try:
        pattern = re.compile(speakers) if speakers is not None else None
    except re.error as error:
        raise DataError(f"speakers '{speakers}' is no pattern ({error}); write for example '^([a-z]+)_'") from error
    if pattern is not None and pattern.groups < 1:
        raise DataError(f"speakers '{speakers}' has no group; put the speaker in parentheses, as in '^([a-z]+)_'")

    def files() -> Iterator[Utterance]:
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file():
                name = path.relative_to(source).as_posix()
                found = pattern.search(path.stem) if pattern is not None else None
                speaker = found[1] if found else "unknown" if pattern is not None else "all"
                yield Utterance(id=name, text="", speaker=speaker, split="test", audio=name)

    return source, files()


def _labeled(tokenizer: SpeechTokenizer, utterance: Utterance, spoken: Spoken, grid: Path | None, tier: str) -> Labeled:
    """Units of one utterance with the phones and words that are known of it."""
    (units,) = tokenizer.units([resample(spoken.audio, TARGET_RATE_HZ, tokenizer.sample_rate_hz)])
    if not len(units):
        raise DataError("shorter than one frame; drop it")
    words = tuple(
        (text, start / TARGET_RATE_HZ, end / TARGET_RATE_HZ) for text, start, end in spoken.words if start != NO_TIME
    )
    phones: tuple[TimedLabel, ...] = tuple(
        (label, start / TARGET_RATE_HZ, end / TARGET_RATE_HZ) for label, start, end in spoken.phones
    )
    if grid is not None:
        tiers = {part.name.strip().casefold(): part for part in textgrid_tiers(grid)}
        if tier.casefold() in tiers:
            phones = _timed(tiers[tier.casefold()].intervals, utterance.start_s, str(grid))
        spelled = next((tiers[name] for name in _WORD_TIERS if name in tiers), None)
        if not words and spelled is not None:
            timed = _timed(spelled.intervals, utterance.start_s, str(grid))
            words = tuple(word for word in timed if word[0].strip())
    return Labeled(id=utterance.id, speaker=utterance.speaker, units=units, phones=phones, words=words)


def _timed(intervals: Sequence[Interval], start_s: float, where: str) -> tuple[TimedLabel, ...]:
    """Intervals that last, counted from the start of the utterance. Raises DataError if they overlap."""
    kept = [(i.label, i.start_s - start_s, i.end_s - start_s) for i in intervals if i.end_s > i.start_s]
    for before, after in pairwise(kept):
        if after[1] < before[2] - OVERLAP_S:
            raise DataError(
                f"{where}: '{after[0]}' starts at {after[1] + start_s:g} s, before '{before[0]}' ends at "
                f"{before[2] + start_s:g} s; correct it in Praat or align it again"
            )
    return tuple(kept)
