"""Which recordings lie where, and which of them belong together.

Enters: folders of recordings and their names. Leaves: paths below one root, pairs of a right and a wrong candidate, and
a skip for everything without partner or file. The one decision worth knowing: a folder is listed once and asked many
times, so 160 000 names cost one listing, and nothing outside the root is ever named.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

from speechscale.corpus.readers.base import AUDIO_SUFFIXES
from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import Facts, RawItem
from speechscale.skips import SkipLog

T = TypeVar("T")
Side = str
"""'good' or 'bad'."""
FIRST_NAMES = 3
LONGEST_NAME_BYTES = 255
"""Of a file or folder; a longer one is an error of the system and not a missing file."""


def list_recordings(root: Path, folder: str = "") -> dict[str, str]:
    """Recordings of one folder: name without suffix -> path below the root, sorted; of two suffixes .wav wins.

    Raises:
        DataError: no such folder, or a recording that is a link out of the root.
    """
    place = root / folder
    home = root.resolve()
    if not place.is_dir():
        raise DataError(f"{place}: no such folder; correct the path")
    if not place.resolve().is_relative_to(home):
        raise DataError(f"{place}: leads out of {root}; copy the files there")
    found: dict[str, tuple[int, str]] = {}
    with os.scandir(place) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - runs for every file of a benchmark
            if suffix.lower() not in AUDIO_SUFFIXES or stem.startswith("."):
                continue
            if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(home):
                raise DataError(f"{entry.path}: a link that leads out of {root}; copy the file there")
            rank = AUDIO_SUFFIXES.index(suffix.lower()), entry.name
            if stem not in found or rank < found[stem]:
                found[stem] = rank
    prefix = f"{PurePosixPath(folder)}/" if folder else ""
    return {stem: prefix + found[stem][1] for stem in sorted(found)}


def inner_name(name: str, where: str) -> str:
    """A recording's name out of a table, without suffix. Raises DataError for one with a path in it."""
    plain = name.strip()
    if plain in ("", ".", "..") or "/" in plain or "\\" in plain:
        raise DataError(f"{where}: '{name}' is not the name of a recording in this folder; correct the line")
    stem, suffix = os.path.splitext(plain)  # noqa: PTH122 - runs for every row; pathlib keeps each name for good
    return stem if suffix.lower() in AUDIO_SUFFIXES else plain


def below(root: Path, name: str, where: str) -> str:
    """A path out of a table, below the root, with folders. Raises DataError if it leaves the root."""
    place = PurePosixPath(name.replace("\\", "/"))
    home = root.resolve()
    parts = place.parts
    if not name.strip() or "\0" in name or not parts or place.is_absolute() or ".." in parts or ":" in parts[0]:
        raise DataError(f"{where}: '{name}' is not a path below {root}; write it from there on")
    if max(len(part.encode()) for part in parts) > LONGEST_NAME_BYTES:
        raise DataError(f"{where}: '{name[:40]}...' is longer than a file's name can be; correct the line")
    if not (home / place).resolve().is_relative_to(home):
        raise DataError(f"{where}: '{name}' is a link that leads out of {root}; copy the file there")
    return place.as_posix()


def folders_with_recordings(root: Path) -> list[str]:
    """'' if the root itself has recordings, else the folders right below it that have, sorted.

    Raises:
        DataError: the root is no folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; correct the path")
    if any(PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES for name in os.listdir(root)):  # noqa: PTH208
        return [""]
    return [
        folder.name
        for folder in sorted(root.iterdir())
        if folder.is_dir() and any(child.suffix.lower() in AUDIO_SUFFIXES for child in folder.iterdir())
    ]


@dataclass(frozen=True, slots=True)
class Half:
    """One candidate: item it belongs to, side, what is known of it, and where that stands."""

    item: str
    side: Side
    value: tuple[str, ...]
    where: str


def pair_up(halves: Iterable[Half], skips: SkipLog, remedy: str) -> Iterator[tuple[str, Half, Half]]:
    """Bring good and bad candidates of an item together, in whatever order they come: (item, good, bad).

    Memory holds the halves that still wait and the names of complete items. What stays alone, or comes a second time,
    is skipped with its place.
    """
    waiting: dict[str, Half] = {}
    complete: set[str] = set()
    for half in halves:
        other = waiting.get(half.item)
        if half.item in complete or (other is not None and other.side == half.side):
            skips.add(f"{half.item} ({half.where})", f"one more {half.side} candidate of this item", remedy)
        elif other is None:
            waiting[half.item] = half
        else:
            del waiting[half.item]
            complete.add(half.item)
            good, bad = (half, other) if half.side == "good" else (other, half)
            yield half.item, good, bad
    for half in waiting.values():
        lacks = "bad" if half.side == "good" else "good"
        skips.add(half.item, f"{half.where} has a {half.side} candidate, there is no {lacks} one", remedy)


@dataclass(slots=True)
class Missing:
    """Counts recordings that a table names and the folder has not."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.names) < FIRST_NAMES:
            self.names.append(name)

    def __str__(self) -> str:
        more = f" and {self.count - len(self.names)} more" if self.count > len(self.names) else ""
        return f"{', '.join(self.names)}{more}"


def found_or_skipped(
    names: Iterable[str], present: dict[str, str], item: str, missing: Missing, skips: SkipLog, facts: Facts
) -> list[str] | None:
    """Paths of an item's recordings, or None if one is missing, which is written down."""
    names = list(names)
    lost = [name for name in names if name not in present]
    for name in lost:
        missing.add(name)
    if lost:
        skips.add(item, f"recording {' and '.join(lost)} is missing", f"get it: {facts.origin}")
        return None
    return [present[name] for name in names]


def at_least_one(
    items: Iterable[RawItem], facts: Facts, skips: SkipLog, missing: Missing | None = None
) -> Iterator[RawItem]:
    """The same items. Raises DataError at the end if there was none; names missing files and where they come from."""
    kept = 0
    for item in items:
        kept += 1
        yield item
    if not kept and missing is not None and missing.count:
        raise DataError(
            f"{facts.task}: all {len(skips)} items lack a recording; {missing.count} are missing: {missing}; "
            f"get them: {facts.origin}"
        )
    if not kept:
        raise DataError(f"{facts.task}: no item can be used ({skips.first() or 'the source is empty'}); {facts.origin}")
