"""What every reader speaks: where a source lies, what one of its items says, what is wrong with it.

Enters: files of other programs. Leaves: a stream of `Entry`, as the source says it, and of `Skip` for what is not even
an item. The one decision worth knowing: readers only parse; whether an entry can be used (paths, ranges, texts, times)
is decided in one place, `Admission`, so that every format is as strict as every other.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from speechscale.errors import DataError
from speechscale.records import Word
from speechscale.skips import Skip

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")
TAR_MARK = "::"
"""Between a tar's path and a member's name."""
MAX_LINE_BYTES = 16 << 20
"""A longer line is no manifest line; it is refused before it fills the memory."""

Ids = Literal["stem", "path"]
OnSkip = Callable[[str, str, str], None]
"""Called with (id, reason, remedy); `SkipLog.add` fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One item as its source says it, unchecked.

    Args:
        id: its name; "" takes the audio's.
        where: the place in the source, for messages. Example: "train.jsonl, line 7"
        audio: path as the source writes it, or "TAR::MEMBER".
        text: None when the source has none.
        words: times in seconds from the start of the utterance.
        start_s, end_s: its part of the file. `duration_s`: of the whole file, where a reader has looked already.
        start_sample, end_sample: the same part in samples of the file's own rate, for sources that count so.
        refused: "reason; remedy" when the reader knows that it cannot be used.
    """

    id: str
    where: str
    audio: str
    text: str | None = None
    speaker: str = ""
    split: str = ""
    language: str = ""
    licence: str = ""
    words: tuple[Word, ...] = ()
    start_s: float = 0.0
    end_s: float | None = None
    duration_s: float | None = None
    start_sample: int | None = None
    end_sample: int | None = None
    channel: int | None = None
    refused: str = ""


@dataclass(slots=True)
class Meter:
    """How far a reader is, in bytes or files; `total` 0 when nobody knows."""

    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What to read and how.

    Args:
        path: file or folder; for "hf" the dataset's name.
        columns: our column name -> theirs, before the known names are tried.
        ids: how to name items that have no id: "stem" by file name, "path" by path.
        alignments, tier: for folders: which word times, which TextGrid tier.
        piece_s: longest piece that LibriLight's speech list is joined to.
        names: for "audio": what file names say.
        subset, part: for "hf": configuration and split.
        download: where "hf" and "parquet" put audio bytes.
    """

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    ids: Ids = "stem"
    alignments: Literal["auto", "textgrid", "json", "none"] = "auto"
    tier: str | None = None
    piece_s: float = 30.0
    names: str = ""
    subset: str = ""
    part: str = ""
    download: Path | None = None
    meter: Meter = field(default_factory=Meter)


Found = Entry | Skip
Reader = Callable[[Source], Iterator[Found]]


def lines_of(path: Path, name: str, meter: Meter | None = None) -> Iterator[tuple[int, bytes | Skip]]:
    """Yield (number from 1, bytes) of every line that is not blank; .gz is unpacked on the way.

    A line above 16 MiB comes as a `Skip`. Memory holds one line.

    Raises:
        DataError: a gzip file that is damaged; names it.
    """
    with opened(path, name, meter) as stream:
        for number in range(1, 1 << 62):
            try:
                line = stream.readline(MAX_LINE_BYTES)
                long = len(line) == MAX_LINE_BYTES and not line.endswith(b"\n")
                while long and (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
            except (OSError, EOFError) as error:
                raise DataError(f"{name}: damaged after line {number - 1} ({error}); copy it again") from error
            if not line:
                return
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if long:
                yield (
                    number,
                    fault(f"{name}:{number}", f"{name}, line {number}", "longer than 16 MiB; split the manifest"),
                )
            elif line.strip():
                yield number, line


@contextmanager
def opened(path: Path, name: str, meter: Meter | None = None) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked when its name ends in .gz; `meter` follows the bytes on disk."""
    try:
        raw = _Metered(path, meter)
    except OSError as error:
        raise DataError(f"{name}: cannot be opened ({error.strerror}); correct the path") from error
    with raw:
        if path.suffix == ".gz":
            with gzip.open(raw, "rb") as stream:
                yield stream  # type: ignore[misc]
        else:
            yield raw  # type: ignore[misc]


class _Metered:
    """A binary file that tells a meter how many bytes were read."""

    def __init__(self, path: Path, meter: Meter | None) -> None:
        self._file = path.open("rb")
        self._meter = meter or Meter()
        self._meter.total += path.stat().st_size

    def __enter__(self) -> _Metered:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._meter.done += len(data)
        return data

    def readline(self, size: int = -1) -> bytes:
        data = self._file.readline(size)
        self._meter.done += len(data)
        return data


def fault(id: str, where: str, problem: str) -> Skip:
    """A skip from 'what is wrong; remedy'; characters that no file can hold are replaced."""
    reason, _, remedy = problem.rpartition("; ")
    return Skip(
        id=printable(id),
        reason=printable(f"{where}: {reason or remedy}"),
        remedy=printable(remedy) if reason else "correct it or delete it",
    )


def printable(text: str) -> str:
    """The text with undecodable bytes (lone surrogates) shown as '?'."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def json_line(line: bytes) -> Any:
    """Parse one line of JSON. Raises DataError 'what is wrong; remedy'."""
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}; convert it (iconv -f latin1 -t utf-8, if it is)") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({str(error)[:80]}); write one object per line") from error


def number(value: Any, what: str) -> float | None:
    """A finite number from a number or its text; None for nothing. Raises DataError naming what it is of."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool):
            raise ValueError
        result = float(value)
    except (TypeError, ValueError):
        raise DataError(f"{what} is {str(value)[:40]!r}, a number of seconds is needed; correct it") from None
    if not math.isfinite(result):
        raise DataError(f"{what} is {value}, a finite number is needed; correct it")
    return result


def required_file(path: Path, name: str, remedy: str) -> Path:
    """The path, if it is a file. Raises DataError with the remedy."""
    if not path.is_file():
        raise DataError(f"{name}: no such file; {remedy}")
    return path
