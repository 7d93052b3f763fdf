"""Read and write Praat TextGrids.

Enters: a TextGrid, long or short, in any of Praat's encodings. Leaves: the words of its tiers; or a long TextGrid in
UTF-8. The one decision worth knowing: a TextGrid is read as Praat does it, as a sequence of free-standing strings,
numbers and flags (Praat manual, "TextGrid file formats"), so that the long, the short and other programs' layouts are
one case, and a sign or an exponent is never lost. (praatio 6.2 reads a start of -0.5 in the long format as 0.5.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from speechscale.align.formats.entries import (
    REALIGN,
    Entry,
    Found,
    Segment,
    decimal,
    is_silence,
    read_bytes,
    read_text,
)
from speechscale.align.formats.settle import Losses
from speechscale.errors import DataError
from speechscale.files import complete_file

_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(<\w+>)|(?<!\S)([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?!\S)|(![^\n]*)')
_WORD_TIERS = ("words", "word")
_PHONE_TIERS = ("phones", "phone", "phonemes", "phoneme", "segments", "syllables", "syllable")


@dataclass(frozen=True, slots=True)
class Interval:
    """One labeled stretch of a tier, seconds."""

    start_s: float
    end_s: float
    label: str


@dataclass(frozen=True, slots=True)
class Tier:
    """One interval tier of a TextGrid."""

    name: str
    intervals: tuple[Interval, ...]


def find_textgrid(path: Path, tier: str | None = None) -> Iterator[Found]:
    """Words of the tier `tier`, or of every speaker's word tier; see `choose_tiers`. Raises DataError."""
    yield from found_in_tiers(textgrid_tiers(path), tier, Path(path))


def found_in_tiers(tiers: Sequence[Tier], name: str | None, path: Path) -> Iterator[Found]:
    """Entries of the chosen tiers; one speaker each if there are several."""
    chosen = choose_tiers(tiers, name, path)
    for tier in chosen:
        kind = _kind(tier)
        yield Found(
            recording=path.stem,
            channel=_speaker(tier) if len(chosen) > 1 else None,
            speaker=_speaker(tier) if kind == "speaker" or _speaker(tier) != tier.name else None,
            entries=[Entry(i.label, i.start_s, i.end_s, None, n) for n, i in enumerate(tier.intervals, start=1)],
            where=f"{path}, tier '{tier.name}'",
            unit="interval",
            phrases=kind == "speaker",
        )


def choose_tiers(tiers: Sequence[Tier], name: str | None, path: Path) -> list[Tier]:
    """Tiers to read words from.

    With a name: the tier of that name, "NAME - words" of the speaker NAME, or NAME#2 for the second tier of one name.
    Without: the tiers named "words", "word" or "... - words"; if there is none, all tiers that do not hold phones,
    which are taken for sentences.

    Raises:
        DataError: no such tier, or several tiers of one name; lists the tiers.
    """

    def clean(text: str) -> str:
        return text.strip().strip('"').strip().casefold()

    if name is None:
        found = [tier for tier in tiers if clean(tier.name) in _WORD_TIERS]
        found = found or [tier for tier in tiers if clean(tier.name).endswith(("- words", "- word"))]
        found = found or [
            tier for tier in tiers if _kind(tier) == "speaker" and any(i.label.strip() for i in tier.intervals)
        ]
        names = [clean(tier.name) for tier in found]
        if found and len(set(names)) == len(names):
            return found
    else:
        base, _, place = name.rpartition("#")
        found = [tier for tier in tiers if clean(tier.name) == clean(name)]
        if not found and base and place.isdecimal():
            found = [tier for tier in tiers if clean(tier.name) == clean(base)][int(place) - 1 : int(place)]
        found = found or [
            tier for tier in tiers if clean(tier.name) in (f"{clean(name)} - words", f"{clean(name)} - word")
        ]
        if len(found) == 1:
            return found
    wanted = f"named '{name}'" if name is not None else "named 'words' or 'word'"
    names_ = ", ".join(f"'{tier.name}'" for tier in tiers) or "none"
    amount = "no tier" if not found else f"{len(found)} tiers"
    hint = f", such as tier='{found[0].name}#2'" if len(found) > 1 else ""
    raise DataError(
        f"{path}: {amount} {wanted}; interval tiers: {names_}; rename the word tier, or name it with tier=...{hint}"
    )


def _kind(tier: Tier) -> str:
    """What a tier holds by its name: "words", "phones", or "speaker" (sentences of one)."""
    name = tier.name.strip().strip('"').strip().casefold().rpartition("- ")[2]
    return "words" if name in _WORD_TIERS else "phones" if name in _PHONE_TIERS else "speaker"


def _speaker(tier: Tier) -> str:
    return tier.name.rpartition(" - ")[0] or tier.name


def textgrid_tiers(path: Path) -> list[Tier]:
    """Read all interval tiers of a TextGrid, times unchecked, without point tiers. Raises DataError when malformed."""
    path = Path(path)
    if read_bytes(path).startswith(b"ooBinaryFile"):
        raise DataError(f"{path}: binary TextGrid; save it from Praat with 'Save as text file'")
    tokens = _Tokens(read_text(path), str(path))
    if not tokens.string("file header").startswith("ooTextFile") or tokens.string("file header") != "TextGrid":
        raise DataError(f"{path}: not a TextGrid text file (no ooTextFile/TextGrid header); export it again from Praat")
    tokens.number("start time of the file")
    tokens.number("end time of the file")
    if tokens.flag("tiers flag") != "<exists>":
        return []
    tiers = []
    for number in range(1, tokens.count("number of tiers") + 1):
        kind, name = tokens.string(f"class of tier {number}"), tokens.string(f"name of tier {number}")
        where = f"tier '{name}'"
        tokens.number(where, "start time")
        tokens.number(where, "end time")
        points = kind == "TextTier"
        intervals = []
        for index in range(1, tokens.count(where, "size") + 1):
            start = tokens.number(where, index, "time")
            end = start if points else tokens.number(where, index, "end time")
            intervals.append(Interval(start, end, tokens.string(where, index, "label")))
        if not points:
            tiers.append(Tier(name, tuple(intervals)))
    return tiers


def write_textgrid(path: Path, segments: Sequence[Segment], duration_s: float, losses: Losses) -> None:
    """Write one tier "words" per speaker ("SPEAKER - words" if there are several), gaps as empty intervals.

    Long format, UTF-8. Words without time have no place in a TextGrid and are counted as unwritten.
    """
    tiers = [(segment.speaker or segment.channel, _filled(segment, duration_s, losses)) for segment in segments]
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {decimal(duration_s)}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (speaker, intervals) in enumerate(tiers, start=1):
        name = f"{speaker} - words" if speaker and len(tiers) > 1 else "words"
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
        lines += [
            "        xmin = 0",
            f"        xmax = {decimal(duration_s)}",
            f"        intervals: size = {len(intervals)}",
        ]
        for index, interval in enumerate(intervals, start=1):
            lines += [f"        intervals [{index}]:", f"            xmin = {decimal(interval.start_s)}"]
            lines += [f"            xmax = {decimal(interval.end_s)}", f"            text = {_quoted(interval.label)}"]
    with complete_file(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _filled(segment: Segment, duration_s: float, losses: Losses) -> list[Interval]:
    """Intervals from 0 to the end without gaps; Praat knows no interval without length."""
    intervals: list[Interval] = []
    reached = 0.0
    for word in segment.words:
        if word.start_s is None or word.end_s is None or word.end_s <= word.start_s:
            losses.unwritten += 1
            continue
        if is_silence(word.text):
            losses.unwritten += 1
            continue
        if word.start_s > reached:
            intervals.append(Interval(reached, word.start_s, ""))
        intervals.append(Interval(float(word.start_s), float(word.end_s), word.text))
        reached = float(word.end_s)
    if reached < duration_s or not intervals:
        intervals.append(Interval(reached, duration_s, ""))
    return intervals


def _quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


class _Tokens:
    """The strings, numbers and flags of a Praat text file, one after the other."""

    def __init__(self, text: str, path: str) -> None:
        self._found = (match for match in _TOKEN.finditer(text) if match.lastindex != 4)
        self._path = path

    def _next(self, group: int, what: tuple[str | int, ...]) -> str:
        match = next(self._found, None)
        if match is None:
            raise DataError(f"{self._where(what)}: the file ends too early; export the TextGrid again")
        if match.lastindex != group:
            kind = {1: "a quoted string", 2: "<exists>", 3: "a number"}[group]
            raise DataError(f"{self._where(what)}: expected {kind}, found {match.group()[:40]!r}; {REALIGN}")
        return match[group]

    def _where(self, what: tuple[str | int, ...]) -> str:
        return ", ".join([self._path, *(f"entry {part}" if isinstance(part, int) else part for part in what)])

    def string(self, *what: str | int) -> str:
        return self._next(1, what).replace('""', '"')

    def number(self, *what: str | int) -> float:
        return float(self._next(3, what))

    def flag(self, *what: str | int) -> str:
        return self._next(2, what)

    def count(self, *what: str | int) -> int:
        value = self.number(*what)
        if value < 0 or value != int(value):
            raise DataError(f"{self._where(what)}: {value:g} is not a count; export the TextGrid again")
        return int(value)
