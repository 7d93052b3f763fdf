"""Units as lines of numbers: GSLM `name|3 49`, textless-lib `name<TAB>3 49`, fairseq `.km` with its `.tsv` and `.len`.

Enters, leaves: text files. The one decision worth knowing: the `.km` of fairseq holds one unit per frame and nothing
else, so names and sample counts live in the `.tsv` beside it, which is read and written along when it is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.files import complete_file
from speechscale.speech.unit_formats.base import (
    Problems,
    ReadOptions,
    UnitFormat,
    UnitInfo,
    UnitRecord,
    UnitStream,
    WriteOptions,
    check_utf8,
    make_record,
    parse_numbers,
    text_lines,
)

DURATIONS_SUFFIX = ".durations"


def named_lines(title: str, separator: str) -> UnitFormat:
    """The format `name SEPARATOR u1 u2 u3`, durations in a second file of the same layout."""

    def read(path: Path, options: ReadOptions, problems: Problems) -> UnitStream:
        return _read_named(path, separator, options, problems)

    def write(path: Path, info: UnitInfo, records: Iterator[UnitRecord], options: WriteOptions) -> None:
        _write_named(path, separator, info, records)

    return UnitFormat(title=title, read=read, write=write, durations="held", extras=frozenset())


def durations_path(path: Path) -> Path:
    """x.units -> x.durations, as textless-lib names it; anything else gets the suffix added."""
    return path.with_suffix(DURATIONS_SUFFIX) if path.suffix == ".units" else Path(f"{path}{DURATIONS_SUFFIX}")


def _read_named(path: Path, separator: str, options: ReadOptions, problems: Problems) -> UnitStream:
    beside = options.durations or (durations_path(path) if durations_path(path).is_file() else None)
    info = UnitInfo(has_durations=beside is not None, num_units=options.num_units, frame_rate_hz=options.frame_rate_hz)

    def split(where: str, line: str) -> tuple[str, str]:
        # The units hold no separator, a name may.
        name, found, numbers = line.rpartition(separator)
        if not found:
            raise DataError(f"{where}: no '{_shown(separator)}' between name and units; is it the format you named?")
        return name, numbers

    def records() -> Iterator[UnitRecord]:
        lines = ((w, line) for w, _, line in text_lines(path) if line.strip())
        others = ((w, line) for w, _, line in text_lines(beside) if line.strip()) if beside else None
        pairs = zip_longest(lines, others) if others is not None else ((line, None) for line in lines)
        for line, other in pairs:
            if line is None or (other is None and beside is not None):
                short, long = (path, beside) if line is None else (beside, path)
                raise DataError(f"units {short}: fewer lines than {long}; give the files of one run")
            where, text = line
            problems.read += 1
            try:
                check_utf8(where, text)
                name, numbers = split(where, text)
                durations = None
                if other is not None:
                    durations_name, lasting = split(*other)
                    if durations_name != name:
                        raise DataError(
                            f"{other[0]}: durations of '{durations_name}', the units are of '{name}'; "
                            "give the files of one run"
                        )
                    durations = parse_numbers(other[0], "durations", lasting)
                record = make_record(where, name, parse_numbers(where, "units", numbers), durations, info=info)
            except DataError as error:
                problems.add(where, error)
            else:
                yield record

    return UnitStream(info, records())


def _write_named(path: Path, separator: str, info: UnitInfo, records: Iterator[UnitRecord]) -> None:
    with ExitStack() as stack:
        units = _open(stack, path)
        durations = _open(stack, durations_path(path)) if info.has_durations else None
        for record in records:
            if "\n" in record.id or "\r" in record.id:
                raise DataError(f"{record.where}: the id {record.id!r} holds a line end; rename the utterance")
            units.write(f"{record.id}{separator}{_joined(record.units)}\n")
            if durations is not None:
                assert record.durations_frames is not None
                durations.write(f"{record.id}{separator}{_joined(record.durations_frames)}\n")


def read_km(path: Path, options: ReadOptions, problems: Problems) -> UnitStream:
    """One utterance per line, one unit per frame; ids and sample counts from the .tsv, lengths checked by the .len."""
    manifest = options.manifest or (path.with_suffix(".tsv") if path.with_suffix(".tsv").is_file() else None)
    root = _manifest_root(manifest) if manifest else ""
    info = UnitInfo(
        has_durations=False,
        content="frames",
        num_units=options.num_units,
        frame_rate_hz=options.frame_rate_hz,
        details={"root": root},
        notes=() if manifest else ("no .tsv manifest: ids are file name and line",),
    )
    return UnitStream(info, _km_records(path, manifest, options.lengths, info, problems))


def _km_records(
    path: Path, manifest: Path | None, lengths: Path | None, info: UnitInfo, problems: Problems
) -> Iterator[UnitRecord]:
    ends = object()
    names = _skip_first(text_lines(manifest)) if manifest else None
    counts = text_lines(lengths) if lengths else None
    for where, number, line in text_lines(path):
        name = next(names, ends) if names else None
        count = next(counts, ends) if counts else None
        for came, file in ((name, manifest), (count, lengths)):
            if came is ends:
                raise DataError(f"units {file}: fewer lines than {path}; give the files of one run")
        problems.read += 1
        try:
            id, extras = f"{path.stem}:{number}", dict[str, object]()
            check_utf8(where, line)
            if name is not None:
                id, extras = _manifest_line(name[0], name[2], info.details["root"])  # type: ignore[index]
            units = parse_numbers(where, "units", line)
            if count is not None:
                wanted = parse_numbers(count[0], "lengths", count[2])  # type: ignore[index]
                if wanted.tolist() != [len(units)]:
                    raise DataError(
                        f"{where}: {len(units)} units, {lengths} says {count[2]} frames; give the files of one run"  # type: ignore[index]
                    )
            record = make_record(where, id, units, info=info, extras=extras)
        except DataError as error:
            problems.add(where, error)
        else:
            yield record
    for rest, file in ((names, manifest), (counts, lengths)):
        if rest is not None and next(rest, None) is not None:
            raise DataError(f"units {path}: fewer lines than {file}; give the files of one run")


def write_km(path: Path, info: UnitInfo, records: Iterator[UnitRecord], options: WriteOptions) -> None:
    """One utterance per line; the .tsv too, when every record knows its `samples`."""
    manifest = path.with_suffix(".tsv")
    with ExitStack() as stack:
        units = _open(stack, path)
        first = next(records, None)
        known = first is not None and "samples" in first.extras
        listing = _open(stack, manifest) if known else None
        if listing is not None:
            listing.write(f"{info.details.get('root', '')}\n")
        while first is not None:
            record, first = first, next(records, None)
            units.write(f"{_joined(record.units)}\n")
            if listing is not None:
                if "samples" not in record.extras or "\t" in record.id or "\n" in record.id:
                    raise DataError(
                        f"{record.where}: utterance {record.id!r} has no 'samples', or an id a .tsv cannot hold; "
                        "give all or none a 'samples' field"
                    )
                listing.write(f"{record.id}\t{record.extras['samples']}\n")


def read_features(features: str | Path, lengths: str | Path | None = None) -> Iterator[Float[np.ndarray, "frames dim"]]:
    """Features of fairseq (`.npy` [all frames, dim] and `.len`), one utterance at a time, memory-mapped.

    Example: fit_kmeans_stream(lambda: read_features("train_0_1.npy"), 500, seed=0)

    Args:
        lengths: by default the .len beside the .npy.

    Raises:
        DataError: not readable, not [frames, dim], or lengths that do not add up to the frames.
    """
    path = Path(features)
    beside = Path(lengths) if lengths else path.with_suffix(".len")
    try:
        with path.open("rb") as stream:
            if stream.read(6) != b"\x93NUMPY":
                raise DataError(f"features {path}: not a .npy file; dump the features again")
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"features {path}: not readable ({error}); dump them again") from error
    if frames.ndim != 2 or frames.dtype.kind != "f":
        raise DataError(
            f"features {path}: {frames.dtype} {list(frames.shape)}, needed floats [frames, dim]; dump again"
        )
    counts = [(where, parse_numbers(where, "lengths", line)) for where, _, line in text_lines(beside)]
    for where, count in counts:
        if len(count) != 1 or count[0] < 0:
            raise DataError(f"{where}: one length per line is needed; dump the features again")
    borders = np.cumsum([0, *(int(count[0]) for _, count in counts)])
    if borders[-1] != len(frames):
        raise DataError(f"features {path}: {len(frames)} frames, {beside} adds up to {borders[-1]}; dump them again")
    return (np.array(frames[a:b], np.float32) for a, b in pairwise(borders.tolist()))


def _manifest_root(manifest: Path) -> str:
    first = next(text_lines(manifest), None)
    if first is None or "\t" in first[2]:
        raise DataError(f"manifest {manifest}: the first line must be the audio root; make the manifest again")
    return first[2]


def _manifest_line(where: str, line: str, root: str) -> tuple[str, dict[str, object]]:
    check_utf8(where, line)
    name, _, samples = line.partition("\t")
    if not name or not samples.isascii() or not samples.isdigit():
        raise DataError(f"{where}: '{line[:60]}' is not path, tab, samples; make the manifest again")
    return name, {"samples": int(samples)}


def _skip_first(lines: Iterator[tuple[str, int, str]]) -> Iterator[tuple[str, int, str]]:
    next(lines, None)
    return lines


def _open(stack: ExitStack, path: Path) -> IO[str]:
    draft = stack.enter_context(complete_file(path))
    return stack.enter_context(draft.open("w", encoding="utf-8", newline="\n"))


def _joined(numbers: np.ndarray) -> str:
    return " ".join(map(str, numbers.tolist()))


def _shown(separator: str) -> str:
    return "<TAB>" if separator == "\t" else separator
