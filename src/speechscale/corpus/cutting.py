"""Cut long utterances into pieces.

Enters: an utterance longer than wanted. Leaves: pieces of it, each a range of the same file with the words that sound
in it. The one decision worth knowing: with word times, cuts fall into gaps between words and words go with their piece;
without text, into silences; text without times cannot be cut and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from speechscale.corpus.timing import shifted_words
from speechscale.errors import DataError
from speechscale.records import Utterance, Word
from speechscale.speech.audio import stream_audio
from speechscale.speech.vad import split_at_silence

MARGIN_S = 0.5
"""Silence kept around the words of a piece, at most."""
SCAN_RATE_HZ = 16_000


@dataclass(frozen=True, slots=True)
class _Block:
    """Words that have to stay together: a timed word, with untimed ones up to the next timed word."""

    first: int
    last: int
    start_s: float
    end_s: float


def cut_long(utterance: Utterance, *, duration_s: float, max_s: float, path: Path) -> list[Utterance]:
    """Cut an utterance of `duration_s` seconds into pieces of at most `max_s`; ids get -p0000, -p0001, ...

    Args:
        path: its audio file, listened to only when there is no text.

    Raises:
        DataError: it has text and no word times, or words that cannot be parted, or no speech at all.
    """
    if duration_s <= max_s:
        return [utterance]
    timed = any(word.start_s is not None for word in utterance.words)
    if utterance.text and not timed:
        raise DataError(
            f"{duration_s:.1f} s, above the {max_s:g} s of --split-long, and its words have no times to cut at; align "
            "it first, or import with --text none"
        )
    if timed:
        return _cut_words(utterance, duration_s, max_s)
    blocks = stream_audio(
        path,
        sample_rate_hz=SCAN_RATE_HZ,
        start_s=utterance.start_s,
        end_s=utterance.end_s,
        channel=utterance.channel,
    )
    found = split_at_silence(blocks, sample_rate_hz=SCAN_RATE_HZ, max_s=max_s)
    if not len(found):
        raise DataError(f"{found.note or 'no speech was found'} in {duration_s:.1f} s; drop it")
    return [_piece(utterance, number, part.start_s, part.end_s, ()) for number, part in enumerate(found)]


def _cut_words(utterance: Utterance, duration_s: float, max_s: float) -> list[Utterance]:
    blocks = _blocks(utterance.words, duration_s)
    pieces: list[Utterance] = []
    first = 0
    start_s = max(0.0, blocks[0].start_s - MARGIN_S)
    while first < len(blocks):
        reach = [i for i in range(first, len(blocks)) if blocks[i].end_s - start_s <= max_s] or [first]
        if blocks[reach[-1]].end_s - start_s > max_s:
            length_s = blocks[first].end_s - start_s
            raise DataError(
                f"word {blocks[first].first} to {blocks[first].last} span {length_s:.1f} s without a gap between timed "
                f"words, above the {max_s:g} s of --split-long; align it again, or raise the limit"
            )
        last = reach[-1]
        if last < len(blocks) - 1:
            late = [i for i in reach if blocks[i].end_s - start_s >= max_s / 2] or [last]
            last = max(late, key=lambda i: (blocks[i + 1].start_s - blocks[i].end_s, i))
        following = blocks[last + 1].start_s if last + 1 < len(blocks) else 2 * duration_s - blocks[last].end_s
        middle = (blocks[last].end_s + following) / 2
        end_s = min(middle, blocks[last].end_s + MARGIN_S, start_s + max_s)
        words = utterance.words[blocks[first].first : blocks[last].last + 1]
        pieces.append(_piece(utterance, len(pieces), round(start_s, 6), round(end_s, 6), words))
        first = last + 1
        start_s = max(middle, following - MARGIN_S)
    return pieces


def _blocks(words: Sequence[Word], duration_s: float) -> list[_Block]:
    """Runs of words that a cut must not part; together they are all words, in order."""
    blocks: list[_Block] = []
    open_end = True  # Untimed words stand between this block and the next timed word.
    for index, word in enumerate(words):
        if word.start_s is None or word.end_s is None:
            if blocks:
                blocks[-1] = replace(blocks[-1], last=index)
            open_end = True
        elif blocks and open_end:
            blocks[-1] = replace(blocks[-1], last=index, end_s=word.end_s)
            open_end = False
        else:
            blocks.append(
                _Block(0 if not blocks else index, index, 0.0 if index and not blocks else word.start_s, word.end_s)
            )
            open_end = False
    if open_end:
        blocks[-1] = replace(blocks[-1], end_s=duration_s)
    return blocks


def _piece(whole: Utterance, number: int, start_s: float, end_s: float, words: Sequence[Word]) -> Utterance:
    """A part of an utterance; times count from the utterance's own start."""
    moved = shifted_words(words, -start_s)
    return replace(
        whole,
        id=f"{whole.id}-p{number:04d}",
        text=" ".join(word.text for word in words),
        words=tuple(word if word.start_s is None else replace(word, start_s=max(0.0, word.start_s)) for word in moved),
        segments=(),
        start_s=round(whole.start_s + start_s, 6),
        end_s=round(whole.start_s + end_s, 6),
    )
