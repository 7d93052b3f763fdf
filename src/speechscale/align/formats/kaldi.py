"""Read Kaldi's `segments` file and alignments written as lengths, and move utterance times to the recording.

Enters: `segments` (utterance, recording, start, end) and word times by utterance. Leaves: word times by recording. The
one decision worth knowing: a Kaldi CTM counts from the start of the utterance unless it was made with the segments;
nothing in the file says which, so the caller asks for the shift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from speechscale.align.formats.entries import Entry, Found, read_text, seconds
from speechscale.errors import DataError
from speechscale.records import Word

FRAME_SHIFT_S = 0.01
"""Kaldi's frame shift; a recipe with `--frame-subsampling-factor=3` has 0.03."""
_REMEDY = "correct the line or write the file again"


def find_segments(path: Path, tier: str | None = None) -> Iterator[Found]:
    """Utterances of a `segments` file as segments without words. An end of -1 is the end of the recording."""
    for number, line in enumerate(read_text(Path(path)).splitlines(), start=1):
        if not (fields := line.split()):
            continue
        where = f"{path}, line {number}"
        if len(fields) not in (4, 5):
            raise DataError(f"{where}: a row has utterance, recording, start and end, found {line[:60]!r}; {_REMEDY}")
        start_s, end_s = seconds(fields[2], where), seconds(fields[3], where)
        assert start_s is not None
        if not start_s >= 0 or (end_s != -1 and not (end_s or 0) >= start_s):
            raise DataError(f"{where}: '{fields[0]}' spans {fields[2]}..{fields[3]} s; {_REMEDY}")
        yield Found(
            id=fields[0],
            recording=fields[1],
            start_s=start_s,
            end_s=None if end_s == -1 else end_s,
            entries=(),
            where=where,
        )


def find_lengths(path: Path, tier: str | None = None) -> Iterator[Found]:
    """Labels of `ali-to-phones --write-lengths` text: "UTT LABEL FRAMES ; LABEL FRAMES ; ..." with frames of 10 ms."""
    for number, line in enumerate(read_text(Path(path)).splitlines(), start=1):
        name, _, rest = line.strip().partition(" ")
        if not name:
            continue
        entries: list[Entry] = []
        frames = 0
        for index, pair in enumerate((pair.split() for pair in rest.split(";") if pair.strip()), start=1):
            if len(pair) != 2 or not pair[1].isdecimal():
                raise DataError(f"{path}, line {number}, pair {index}: a label and its frames, found {pair}; {_REMEDY}")
            begin, frames = frames, frames + int(pair[1])
            start_s, end_s = round(begin * FRAME_SHIFT_S, 6), round(frames * FRAME_SHIFT_S, 6)
            entries.append(Entry(pair[0], start_s, end_s, None, index))
        yield Found(recording=name, entries=entries, where=f"{path}, line {number}", unit="pair")


def shift_to_recordings(
    by_utterance: Mapping[str, Sequence[Word]], segments_path: Path
) -> tuple[dict[str, list[Word]], list[str]]:
    """Move words that count from the start of their utterance to the start of the recording.

    Returns:
        words by recording in the order of time, and the utterances that `segments_path` does not have.

    Source: Kaldi, egs/wsj/s5/utils/convert_ctm.pl.
    """
    parts: dict[str, list[tuple[float, Sequence[Word]]]] = {}
    known = {found.id: (found.recording, found.start_s or 0.0) for found in find_segments(Path(segments_path))}
    for name, words in by_utterance.items():
        if name in known:
            recording, start_s = known[name]
            parts.setdefault(recording, []).append((start_s, shift(words, start_s)))
    recordings = {
        recording: [word for _, words in sorted(found, key=lambda part: part[0]) for word in words]
        for recording, found in parts.items()
    }
    return recordings, [name for name in by_utterance if name not in known]


def shift(words: Sequence[Word], offset_s: float) -> list[Word]:
    """Add `offset_s` to all times; words without time stay without."""
    return [
        word
        if word.start_s is None or word.end_s is None
        else replace(word, start_s=round(word.start_s + offset_s, 6), end_s=round(word.end_s + offset_s, 6))
        for word in words
    ]
