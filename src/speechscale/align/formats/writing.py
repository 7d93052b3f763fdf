"""Write words and segments in the formats that have a writer.

Enters: words in order, the length of the audio, a format. Leaves: a file, complete or absent. The one decision worth
knowing: words out of order or past the end are refused, words without time go where the format has a place for them and
are counted where it has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechscale.align.formats.entries import Segment
from speechscale.align.formats.registry import FORMATS
from speechscale.align.formats.settle import Losses
from speechscale.errors import DataError
from speechscale.records import Word


def write_alignment(
    path: Path,
    words: Sequence[Word],
    *,
    duration_s: float,
    format: str = "auto",
    recording: str | None = None,
    channel: str | None = None,
    speaker: str | None = None,
    losses: Losses | None = None,
) -> None:
    """Write the words of one recording; the file is complete or absent.

    Args:
        duration_s: length of the audio.
        format: textgrid, ctm, rttm, lhotse, whisperx or slamkit; "auto" goes by the suffix (.json is ambiguous).
        recording: its name in formats that have one; the file's stem by default.
        losses: counts the words the format has no place for (`unwritten`).

    Raises:
        DataError: a format that is not written, or words out of order or past the end.
    """
    name = recording or _stem(Path(path))
    segment = Segment(recording=name, words=tuple(words), channel=channel, speaker=speaker)
    write_segments(path, [segment], duration_s=duration_s, format=format, losses=losses)


def write_segments(
    path: Path,
    segments: Sequence[Segment],
    *,
    duration_s: float,
    format: str = "auto",
    losses: Losses | None = None,
) -> None:
    """Write many segments into one file; arguments and errors as in `write_alignment`."""
    path = Path(path)
    written = {name: entry for name, entry in FORMATS.items() if entry.writer is not None}
    if format == "auto":
        fitting = [name for name, entry in written.items() if path.name.endswith(entry.suffixes)]
        if len(fitting) != 1:
            raise DataError(
                f"{path}: the suffix does not tell the format; name it with format=... ({', '.join(written)})"
            )
        format = fitting[0]
    if format not in written:
        raise DataError(f"format '{format}' is not written; take one of {', '.join(written)}")
    for segment in segments:
        _check_writable(segment, duration_s, path)
    writer = written[format].writer
    assert writer is not None
    writer(path, segments, float(duration_s), losses if losses is not None else Losses())


def _check_writable(segment: Segment, duration_s: float, path: Path) -> None:
    reached = 0.0
    for index, word in enumerate(segment.words, start=1):
        if word.start_s is None or word.end_s is None:
            continue
        if not (reached <= word.start_s <= word.end_s <= duration_s):
            raise DataError(
                f"{path}, word {index} ('{word.text}', {word.start_s:g}..{word.end_s:g} s): overlaps the word before "
                f"({reached:g} s) or ends past the audio ({duration_s:g} s); correct the times"
            )
        reached = word.end_s


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name
