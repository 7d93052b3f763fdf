"""What a reader finds in a file, and helpers that readers share.

Enters: files of any format. Leaves: `Found`: entries of one recording, channel and speaker, times unchecked. The one
decision worth knowing: readers only find and name; every check of times happens once, in `settle`.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from speechscale.errors import DataError
from speechscale.records import Word

SILENCE_LABELS = frozenset(
    {"", "sil", "sp", "spn", "silence", "pau", "{sl}", "#", "(null)", "<s>", "</s>", "<eps>", "!sil"}
)
REALIGN = "correct it or realign the utterance"
ROUNDING_S = 0.001
"""Overlap of neighbors that counts as rounding; the later word is moved to start where the earlier one ends."""
_NOISE = re.compile(r"(<.*>|\[.*\]|\+\+.*\+\+)", re.DOTALL)


class Entry(NamedTuple):
    """One labeled stretch as it stands in a file; `number` names it in messages."""

    text: str
    start_s: float | None
    end_s: float | None
    score: float | None
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Entries of one recording, channel and speaker, as a reader found them.

    Args:
        where, unit: for messages: "FILE, tier 'words'" and what an entry is called: "interval", "line".
        phrases: an entry of several words is a sentence: its words have no times of their own.
        alternatives: entries that other readings of the same stretch held; the first reading is used.
        rounding_s: how far neighbors may overlap because the format rounds.
        merged: pieces of words that were joined to the piece before ("forty" + "-two").
    """

    recording: str
    entries: Sequence[Entry]
    where: str
    unit: str = "entry"
    id: str = ""
    channel: str | None = None
    speaker: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    text: str = ""
    phrases: bool = False
    alternatives: int = 0
    merged: int = 0
    rounding_s: float = ROUNDING_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of a recording with its text, speaker and words; word times count from the start of the recording."""

    recording: str
    words: tuple[Word, ...] = ()
    id: str = ""
    channel: str | None = None
    speaker: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    text: str = ""


def is_silence(label: str) -> bool:
    """Whether a label stands for silence or noise: "", sil, sp, <...>, [...], ++...++."""
    return label.casefold() in SILENCE_LABELS or _NOISE.fullmatch(label) is not None


def join_pieces(entries: Sequence[Entry]) -> tuple[list[Entry], int]:
    """Join pieces without a leading blank to the word before, if later pieces of the text have blanks at all.

    Example: " forty", "-two", " lines" -> "forty-two", "lines"; "forty", "two" (no blanks) stay as they are

    Returns:
        words without outer blanks, and how many pieces were joined.
    """
    if not any(entry.text[:1].isspace() for entry in entries[1:]):
        return [entry._replace(text=entry.text.strip()) for entry in entries], 0
    words: list[Entry] = []
    for index, entry in enumerate(entries):
        if index == 0 or entry.text[:1].isspace() or words[-1].text[-1:].isspace() or not words[-1].text:
            words.append(entry._replace(text=entry.text.lstrip()))
        else:
            words[-1] = joined(words[-1], entry)
    return [word._replace(text=word.text.strip()) for word in words], len(entries) - len(words)


def joined(word: Entry, piece: Entry) -> Entry:
    """One word of two pieces: texts together, from the first known start to the last known end, lower score."""
    start_s = piece.start_s if word.start_s is None else word.start_s
    end_s = word.end_s if piece.end_s is None else piece.end_s
    scores = [score for score in (word.score, piece.score) if score is not None]
    return Entry(word.text + piece.text, start_s, end_s, min(scores) if scores else None, word.number)


def with_text(entries: Sequence[Entry], text: str) -> list[Entry]:
    """Give the entries' times to the words of the text; words of the text without entry have no time.

    "he said he went" with entries he, went can mean either "he": then neither has a time. When the entries are no part
    of the text, they stay as they are.

    Example: entries good, ann with the text "good day ann" -> good, day (no time), ann
    """
    written = text.split()
    labels = [" ".join(entry.text.split()) for entry in entries]
    first = _places(labels, written)
    last = _places(labels[::-1], written[::-1])
    if first is None or last is None:
        return list(entries)
    sure = [len(written) - 1 - place for place in last[::-1]]
    timed = {place: entry for place, other, entry in zip(first, sure, entries, strict=True) if place == other}
    return [timed.get(index, Entry(word, None, None, None, index + 1)) for index, word in enumerate(written)]


def _places(labels: Sequence[str], written: Sequence[str]) -> list[int] | None:
    """Leftmost places of the labels among the written words, in order; None when they do not all occur."""
    places, at = [], 0
    for label in labels:
        while at < len(written) and written[at] != label:
            at += 1
        if at == len(written):
            return None
        places.append(at)
        at += 1
    return places


def read_text(path: Path) -> str:
    """Read a text file (.gz too) as Praat does: byte order mark, else UTF-8, else UTF-16, else Latin-1."""
    return decoded(read_bytes(path))


def decoded(data: bytes) -> str:
    """Decode text as Praat does; see `read_text`."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    if data[:200].count(0) > len(data[:200]) // 4:
        return data.decode("utf-16-be" if data[:1] == b"\0" else "utf-16-le", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_bytes(path: Path, limit: int = -1) -> bytes:
    """Read a file or its first `limit` bytes, unpacking .gz.

    Raises:
        DataError: it is missing, a folder, or a broken archive.
    """
    try:
        with _opened(Path(path)) as stream:
            return stream.read(limit)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def _opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return DataError(f"{path}: cannot be read ({reason}); give an alignment file")


def read_json_objects(path: Path, maker: str = "the program that made it") -> Iterator[Any]:
    """The JSON values of a file: one, or one per line; .jsonl and .jsonl.gz line by line. Raises DataError."""
    path = Path(path)
    try:
        if path.name.endswith((".jsonl", ".jsonl.gz")):
            with _opened(path) as stream:
                yield from (json.loads(line.decode("utf-8-sig")) for line in stream if line.strip())
            return
        text = read_bytes(path).decode("utf-8-sig")
        try:
            yield json.loads(text)
            return
        except json.JSONDecodeError:
            if len(lines := [line for line in text.splitlines() if line.strip()]) < 2:
                raise
        yield from [json.loads(line) for line in lines]
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); write it again with {maker}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def list_of(value: Any, where: str, what: str) -> list[Any]:
    """`value` if it is a list, an empty list for nothing. Raises DataError naming `where` and `what`."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError(f"{where}: {what} is a list, found {str(value)[:40]!r}; write the file again")
    return value


def object_of(value: Any, where: str, what: str) -> dict[str, Any]:
    """`value` if it is an object, an empty one for nothing. Raises DataError naming `where` and `what`."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DataError(f"{where}: {what} is an object, found {str(value)[:40]!r}; write the file again")
    return value


def name_of(value: Any) -> str | None:
    """A speaker or an id as text, None for nothing."""
    return None if value is None or value == "" else str(value)


def seconds(value: Any, where: str) -> float | None:
    """A time in a file: a number, a number as text, or nothing. Raises DataError naming `where`."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise DataError(f"{where}: a time is a number of seconds, found {str(value)[:40]!r}; {REALIGN}")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise DataError(f"{where}: a time is a number of seconds, found {str(value)[:40]!r}; {REALIGN}") from None


def decimal(value: float) -> str:
    """A number as text without exponent that reads back equally. Example: 1e-05 -> "0.00001" """
    return format(Decimal(repr(float(value))), "f")


def end_of(start_s: float | None, duration_s: float | None) -> float | None:
    """Start + duration. Both are decimals of few places; their float sum is not, hence the rounding."""
    return None if start_s is None or duration_s is None else round(start_s + duration_s, 6)
