"""What all unit formats share: the record, the stream, the checks, and dedup and expand of a record.

Enters: what a reader parsed. Leaves: `UnitRecord`s that keep every rule, or a `DataError` that names the line. The one
decision worth knowing: a record without durations does not tell whether its units are frames or collapsed runs, so the
stream says it, and nothing guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError
from speechscale.records import dedup
from speechscale.skips import SkipLog

Content = Literal["frames", "collapsed", "unknown"]
OnError = Literal["skip", "stop"]
MAX_UNITS = int(np.iinfo(np.int16).max) + 1
MAX_DURATION = int(np.iinfo(np.int32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRecord:
    """Units of one utterance.

    Args:
        units: int16. durations_frames: int32, frames each unit lasted; None when the file does not say.
        extras: what else the file knows (speaker, text, ...), JSON values.
        where: file and line it came from.
    """

    id: str
    units: Int[np.ndarray, " units"]
    durations_frames: Int[np.ndarray, " units"] | None = None
    extras: dict[str, Any] = field(default_factory=dict)
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitInfo:
    """What a file says about all its records.

    Args:
        has_durations: every record has them. content: what records without durations are: one unit per frame, runs
            collapsed to one unit, or not said.
        num_units, frame_rate_hz: None when the file does not say.
        details: the format's own header. notes: what a person should know.
    """

    has_durations: bool
    content: Content = "unknown"
    num_units: int | None = None
    frame_rate_hz: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What the caller knows and the file may not.

    Args:
        durations: file of durations (textless, GSLM). manifest: fairseq .tsv. lengths: fairseq .len.
        merge_equal: neighbors that should differ but do not are accepted, because they are about to be merged.
    """

    num_units: int | None = None
    frame_rate_hz: float | None = None
    durations: Path | None = None
    manifest: Path | None = None
    lengths: Path | None = None
    merge_equal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """What a writer needs beside the records. `tokenizer_sha256`: fingerprint for our Parquet."""

    tokenizer_sha256: str = "unknown"


@dataclass(slots=True)
class Problems:
    """Records read, and what became of the bad ones: dropped by name, or the first one raised."""

    on_error: OnError = "stop"
    read: int = 0
    log: SkipLog = field(default_factory=SkipLog)

    def add(self, where: str, error: DataError) -> None:
        if self.on_error == "stop":
            raise error
        reason, _, remedy = str(error).rpartition("; ")
        self.log.add(where, reason, remedy)


@dataclass(frozen=True, slots=True)
class UnitStream:
    info: UnitInfo
    records: Iterator[UnitRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFormat:
    """One format: how to read and write it, and what it can hold.

    Args:
        read: (path, options, problems) -> stream. write: (path, info, records, options); complete or absent.
        durations: "needed", "held" (may be absent) or "none". extras: the other fields it holds; None is any.
    """

    title: str
    read: Callable[[Path, ReadOptions, Problems], UnitStream]
    write: Callable[[Path, UnitInfo, Iterator[UnitRecord], WriteOptions], None]
    durations: Literal["needed", "held", "none"]
    extras: frozenset[str] | None


def make_record(
    where: str,
    id: str,
    units: Any,
    durations: Any = None,
    *,
    info: UnitInfo,
    differ: bool = False,
    extras: dict[str, Any] | None = None,
) -> UnitRecord:
    """Check one record.

    Args:
        where: file and line, for messages. differ: neighbors must differ, the format says it is deduplicated.

    Raises:
        DataError: no id, no units, not whole numbers, out of range, durations that do not fit, equal neighbors.
    """
    if not id:
        raise DataError(f"{where}: the id is empty; name the utterance")
    found = _whole_numbers(where, "units", units)
    if len(found) == 0:
        raise DataError(f"{where}: utterance {id} has no units; drop it or encode it again")
    limit = min(info.num_units or MAX_UNITS, MAX_UNITS)
    wrong = np.flatnonzero((found < 0) | (found >= limit))
    if len(wrong):
        raise DataError(
            f"{where}: unit {wrong[0]} of utterance {id} is {found[wrong[0]]}, allowed 0..{limit - 1}; "
            "check which tokenizer made it"
        )
    lasting = None if durations is None else _whole_numbers(where, "durations", durations)
    if lasting is not None and len(lasting) != len(found):
        raise DataError(f"{where}: utterance {id} has {len(found)} units and {len(lasting)} durations; encode it again")
    short = np.flatnonzero(lasting < 1) if lasting is not None else np.zeros(0, np.int64)
    if lasting is not None and (len(short) or lasting.max() > MAX_DURATION or lasting.sum() > MAX_DURATION):
        bad = int(short[0]) if len(short) else int(lasting.argmax())
        raise DataError(
            f"{where}: duration {bad} of utterance {id} is {lasting[bad]} frames, allowed 1..{MAX_DURATION} in all; "
            "encode it again"
        )
    equal = np.flatnonzero(found[1:] == found[:-1])
    if differ and len(equal):
        raise DataError(
            f"{where}: units {equal[0]} and {equal[0] + 1} of utterance {id} are both {found[equal[0]]}, the format "
            "holds deduplicated units; convert with --dedup"
        )
    return UnitRecord(
        id=id,
        units=found.astype(np.int16),
        durations_frames=None if lasting is None else lasting.astype(np.int32),
        extras=extras or {},
        where=where,
    )


def parse_numbers(where: str, what: str, text: str) -> Int[np.ndarray, " numbers"]:
    """Whole numbers between blanks. Raises DataError naming the first that is none."""
    words = text.split()
    try:
        if not set(text) <= _NUMBER_CHARACTERS:
            raise ValueError
        return np.array(words, np.int64) if words else np.zeros(0, np.int64)
    except (ValueError, OverflowError):
        bad = next((word for word in words if not _is_number(word)), words[0])
        raise DataError(f"{where}: '{bad[:40]}' among the {what} is no whole number; repair the line") from None


_NUMBER_CHARACTERS = set("0123456789- ")


def _is_number(word: str) -> bool:
    digits = word.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19


def _whole_numbers(where: str, what: str, values: Any) -> Int[np.ndarray, " numbers"]:
    if isinstance(values, list) and not values:
        return np.zeros(0, np.int64)
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        array = np.zeros(1, np.object_)
    if array.ndim != 1 or array.dtype.kind != "i":
        raise DataError(f"{where}: the {what} must be a list of whole numbers; repair the line")
    return array.astype(np.int64, copy=False)


def dedup_record(record: UnitRecord) -> UnitRecord:
    """Collapse runs; without durations each unit counts as one frame. Frames in = frames out."""
    units, runs = dedup(record.units)
    if record.durations_frames is not None:
        starts = np.cumsum(runs) - runs
        runs = np.add.reduceat(record.durations_frames, starts).astype(np.int32)
    return replace(record, units=units, durations_frames=runs)


def expand_record(record: UnitRecord) -> UnitRecord:
    """One unit per frame, no durations; a record without durations stays as it is."""
    if record.durations_frames is None:
        return record
    return replace(record, units=np.repeat(record.units, record.durations_frames), durations_frames=None)


def text_lines(path: Path) -> Iterator[tuple[str, int, str]]:
    """(where, number from 1, line without its end); bytes that are not UTF-8 stay in it for `check_utf8` to find.

    Empty lines are given as they are; each caller knows whether they mean something.
    """
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                yield f"{path}, line {number}", number, raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
    except OSError as error:
        raise DataError(f"units {path}: not readable ({error.strerror}); check the path") from error


def check_utf8(where: str, text: str) -> None:
    """Raise DataError if the line held bytes that are not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{where}: not UTF-8; save the file as UTF-8") from None
