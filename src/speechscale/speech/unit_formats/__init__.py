"""Unit files of other tools, read and written one utterance at a time.

Enters: a path and the name of its format. Leaves: `UnitRecord`s, or a file of another format. The one decision worth
knowing: nothing is lost silently. Durations a format cannot hold are refused unless the caller drops them, fields it
cannot hold are listed, and kept + dropped = read.

A new format is a reader, a writer and a line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from speechscale.errors import DataError
from speechscale.skips import SkipLog
from speechscale.speech.unit_formats import cuervo, parquet, slamkit, text
from speechscale.speech.unit_formats.base import (
    OnError,
    Problems,
    ReadOptions,
    UnitFormat,
    UnitInfo,
    UnitRecord,
    UnitStream,
    WriteOptions,
    dedup_record,
    expand_record,
)
from speechscale.speech.unit_formats.text import read_features

__all__ = [
    "FORMATS",
    "Conversion",
    "Problems",
    "ReadOptions",
    "UnitFormat",
    "UnitInfo",
    "UnitRecord",
    "UnitStream",
    "WriteOptions",
    "convert_units",
    "dedup_record",
    "expand_record",
    "open_units",
    "read_features",
]

FORMATS: dict[str, UnitFormat] = {
    "parquet": UnitFormat(
        title="speechscale units.parquet",
        read=parquet.read_parquet,
        write=parquet.write_parquet,
        durations="needed",
        extras=frozenset(("speaker", "split", "text", "words", "word_frames")),
    ),
    "slamkit": UnitFormat(
        title="slamkit features.jsonl",
        read=slamkit.read_features,
        write=slamkit.write_features,
        durations="needed",
        extras=None,
    ),
    "slamkit-tokens": UnitFormat(
        title="slamkit tokens.jsonl",
        read=slamkit.read_tokens,
        write=slamkit.write_tokens,
        durations="none",
        extras=None,
    ),
    "gslm": text.named_lines("GSLM name|units", "|"),
    "textless": text.named_lines("textless-lib name<TAB>units", "\t"),
    "fairseq": UnitFormat(
        title="fairseq .km", read=text.read_km, write=text.write_km, durations="none", extras=frozenset(("samples",))
    ),
    "cuervo": UnitFormat(
        title="slm_scaling shard", read=cuervo.read_shards, write=cuervo.write_shard, durations="none", extras=None
    ),
}
"""Every unit format by name."""


@dataclass(slots=True, kw_only=True)
class Conversion:
    """What a conversion did: kept + dropped = read, and frames where they are known.

    Args:
        lost_fields: fields of the records that the target does not hold.
    """

    read: int = 0
    kept: int = 0
    units: int = 0
    frames: int | None = None
    skips: SkipLog = field(default_factory=SkipLog)
    lost_fields: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        return len(self.skips)


def unit_format(name: str) -> UnitFormat:
    """The format of that name. Raises DataError listing the names."""
    if name not in FORMATS:
        raise DataError(f"unit format '{name}' is unknown; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def open_units(
    path: str | Path, format: str, *, options: ReadOptions | None = None, problems: Problems | None = None
) -> UnitStream:
    """Open a unit file; its records are parsed as they are taken.

    Example: for record in open_units("features.jsonl", "slamkit").records: ...

    Args:
        problems: collects bad records; without it the first one is raised.

    Raises:
        DataError: unknown format, a file that is not of it; while reading, a bad record, named by line.
    """
    return unit_format(format).read(Path(path), options or ReadOptions(), problems or Problems())


def convert_units(
    source: str | Path,
    target: str | Path,
    *,
    source_format: str,
    target_format: str,
    dedup: bool = False,
    expand: bool = False,
    drop_durations: bool = False,
    options: ReadOptions | None = None,
    write_options: WriteOptions | None = None,
    on_error: OnError = "stop",
    progress: Callable[[int], None] | None = None,
) -> Conversion:
    """Convert a unit file, one utterance at a time; the target is complete or absent.

    Args:
        dedup: collapse runs, with durations. expand: one unit per frame. drop_durations: lose them knowingly.
        on_error: "skip" drops bad records by name, "stop" raises the first.
        progress: called with the number of records read.

    Raises:
        DataError: formats or settings that do not fit, or (on_error "stop") the first bad record.
    """
    writer = unit_format(target_format)
    if dedup and expand:
        raise DataError("units: dedup and expand undo each other; choose one")
    if Path(source).resolve() == Path(target).resolve():
        raise DataError(f"units {target}: source and target are the same file; choose another target")
    problems = Problems(on_error=on_error)
    settings = replace(options or ReadOptions(), merge_equal=dedup)
    stream = open_units(source, source_format, options=settings, problems=problems)
    info = _converted_info(stream.info, dedup, expand)
    if info.has_durations and writer.durations == "none":
        if not drop_durations:
            raise DataError(
                f"units {target}: the format '{target_format}' cannot hold durations; expand to frames (--expand) or "
                "lose them (--drop-durations)"
            )
    elif not info.has_durations and writer.durations == "needed":
        raise DataError(
            f"units {target}: the format '{target_format}' needs durations, '{source_format}' gave none; if its units "
            "are frames use --dedup, else give their durations"
        )
    drop = info.has_durations and drop_durations and writer.durations != "needed"
    if drop:
        info = replace(info, has_durations=False, content="collapsed")
    done = Conversion(skips=problems.log, notes=list(info.notes), frames=0 if _frames_known(info, drop) else None)
    records = _converted(stream.records, dedup, expand, drop, writer, done, problems, progress)
    writer.write(Path(target), info, records, write_options or WriteOptions())
    done.read = problems.read
    done.skips.check(read=done.read, kept=done.kept)
    return done


def _converted_info(info: UnitInfo, dedup: bool, expand: bool) -> UnitInfo:
    if (dedup or expand) and not info.has_durations and info.content == "collapsed":
        what = "--dedup would call each unit one frame" if dedup else "--expand has nothing to go by"
        raise DataError(f"units: the source holds collapsed units without durations, {what}; leave it out")
    if dedup:
        return replace(info, has_durations=True)
    if expand:
        return replace(info, has_durations=False, content="frames" if info.has_durations else info.content)
    return info


def _frames_known(info: UnitInfo, dropped: bool) -> bool:
    return info.has_durations or dropped or info.content == "frames"


def _converted(
    records: Iterator[UnitRecord],
    dedup: bool,
    expand: bool,
    drop: bool,
    writer: UnitFormat,
    done: Conversion,
    problems: Problems,
    progress: Callable[[int], None] | None,
) -> Iterator[UnitRecord]:
    for record in records:
        if dedup:
            record = dedup_record(record)
        elif expand:
            record = expand_record(record)
        if done.frames is not None:
            lasting = record.durations_frames
            done.frames += len(record.units) if lasting is None else int(lasting.sum(dtype="int64"))
        if drop:
            record = replace(record, durations_frames=None)
        if writer.extras is not None:
            done.lost_fields.update(record.extras.keys() - writer.extras)
        done.kept += 1
        done.units += len(record.units)
        yield record
        if progress is not None:
            progress(problems.read)
