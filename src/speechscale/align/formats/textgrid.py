"""Read word times: Praat TextGrids and pocketsphinx JSON.

Enters: an alignment file. Leaves: its words in order with start and end seconds; silence is left out. The one decision
worth knowing: a TextGrid is read as Praat does it, as a sequence of free-standing strings, numbers and flags (Praat
manual, "TextGrid file formats"), so that the long, the short and other programs' layouts are one case, and a sign or an
exponent is never lost. (praatio 6.2 reads a start of -0.5 in the long format as 0.5.)
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.records import Word

END_TOLERANCE_S = 0.05
"""How far a word may reach past the end of the audio; it is clipped. Aligners round to frames of 10 ms and windows."""
OVERLAP_TOLERANCE_S = 0.001
"""Overlap of neighbors that counts as rounding; the later word is moved to start where the earlier one ends."""
SILENCE_LABELS = frozenset({"", "sil", "sp", "spn", "silence", "pau", "{sl}", "#", "(null)"})
_REALIGN = "correct it in Praat or realign the utterance"
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(<\w+>)|(?<!\S)([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?!\S)|(![^\n]*)')
_VARIANT = re.compile(r"\(\d+\)$")
_NOISE = re.compile(r"(<.*>|\[.*\]|\+\+.*\+\+)", re.DOTALL)


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


def read_alignment(path: Path, *, tier: str | None = None) -> list[Word]:
    """Read word times from a .TextGrid or .json file, by its suffix. Raises DataError."""
    return read_pocketsphinx(path) if Path(path).suffix.lower() == ".json" else read_textgrid(path, tier=tier)


def read_textgrid(path: Path, *, tier: str | None = None) -> list[Word]:
    """Read the words of one tier of a TextGrid.

    Args:
        tier: name of the tier; by default the one named "words" or "word" (or "SPEAKER - words", if only one is).

    Raises:
        DataError: not a TextGrid, no such tier, or an interval that is negative, overlapping or out of order.
    """
    chosen = _choose(textgrid_tiers(path), tier, Path(path))
    where = f"{path}, tier '{chosen.name}'"
    return _words(
        (Word(text=" ".join(i.label.split()), start_s=i.start_s, end_s=i.end_s) for i in chosen.intervals), where
    )


def textgrid_tiers(path: Path) -> list[Tier]:
    """Read all interval tiers of a TextGrid, times unchecked, without point tiers. Raises DataError when malformed."""
    data = Path(path).read_bytes()
    if data.startswith(b"ooBinaryFile"):
        raise DataError(f"{path}: binary TextGrid; save it from Praat with 'Save as text file'")
    tokens = _Tokens(_decode(data), str(path))
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


def read_pocketsphinx(path: Path) -> list[Word]:
    """Read word times as pocketsphinx writes them: {"b": begin, "d": duration, "p": score, "t": text, "w": [words]}.

    Several objects on lines of their own (one per stretch of speech) are read one after the other. Pronunciation
    numbers "(2)" are cut; <sil>, [NOISE] and the like are left out. Raises DataError.
    """
    words: list[Word] = []
    for number, line in enumerate(_json_lines(Path(path)), start=1):
        entries = line.get("w") if isinstance(line, dict) else None
        if not isinstance(entries, list):
            raise DataError(
                f"{path}: object {number} has no word list 'w'; expected pocketsphinx JSON with keys b, d, p, t, w "
                f"(a .json of another kind beside the audio: move it away, or read with alignments='none')"
            )
        words += [
            _pocketsphinx_word(entry, f"{path}, entry {index} of 'w'") for index, entry in enumerate(entries, start=1)
        ]
    return _words(words, str(path))


def clip_words(words: Sequence[Word], duration_s: float) -> tuple[Word, ...]:
    """Clip words that reach up to 50 ms past the end of the audio.

    Raises:
        DataError: a word ends later than that; names it.
    """
    clipped = []
    for index, word in enumerate(words):
        if word.end_s is not None and word.start_s is not None and word.end_s > duration_s:
            if word.end_s > duration_s + END_TOLERANCE_S or word.start_s > duration_s:
                raise DataError(
                    f"word {index} ('{word.text}') spans {word.start_s:.3f}..{word.end_s:.3f} s, "
                    f"the audio lasts {duration_s:.3f} s"
                )
            word = replace(word, end_s=duration_s)
        clipped.append(word)
    return tuple(clipped)


def _words(entries: Iterable[Word], where: str) -> list[Word]:
    """Check times in order, snap rounding overlaps, leave silence out."""
    words: list[Word] = []
    before = 0.0
    for index, entry in enumerate(entries, start=1):
        start, end = entry.start_s, entry.end_s
        assert start is not None
        assert end is not None
        item = f"{where}, interval {index} ('{entry.text}', {start:g}..{end:g} s)"
        if not (math.isfinite(start) and math.isfinite(end)):
            raise DataError(f"{item}: its times are not numbers; {_REALIGN}")
        if start < 0:
            raise DataError(f"{item}: starts before the audio; {_REALIGN}")
        if end < start:
            raise DataError(f"{item}: ends before it starts; {_REALIGN}")
        if start < before - OVERLAP_TOLERANCE_S:
            problem = "is out of order" if end <= before - OVERLAP_TOLERANCE_S else "overlaps the one before"
            raise DataError(f"{item}: {problem}, which ends at {before:g} s; {_REALIGN}")
        start = max(start, before)
        before = end = max(end, start)
        if entry.text.casefold() not in SILENCE_LABELS and not _NOISE.fullmatch(entry.text):
            words.append(replace(entry, start_s=start, end_s=end))
    return words


def _choose(tiers: Sequence[Tier], name: str | None, path: Path) -> Tier:
    def clean(text: str) -> str:
        return text.strip().strip('"').casefold()

    if name is not None:
        found = [tier for tier in tiers if clean(tier.name) == clean(name)]
    else:
        found = [tier for tier in tiers if clean(tier.name) in ("words", "word")]
        found = found or [tier for tier in tiers if clean(tier.name).endswith("- words")]
    if len(found) == 1:
        return found[0]
    wanted = f"named '{name}'" if name is not None else "named 'words' or 'word'"
    names = ", ".join(f"'{tier.name}'" for tier in tiers) or "none"
    amount = "no tier" if not found else f"{len(found)} tiers"
    raise DataError(
        f"{path}: {amount} {wanted}; interval tiers: {names}; rename the word tier, or name it with tier=..."
    )


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
            raise DataError(f"{self._where(what)}: expected {kind}, found {match.group()[:40]!r}; {_REALIGN}")
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


def _decode(data: bytes) -> str:
    """Decode as Praat does: byte order mark, else UTF-8, else UTF-16 (half of the bytes are zero), else Latin-1."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    if data[:200].count(0) > len(data[:200]) // 4:
        return data.decode("utf-16-be" if data[:1] == b"\0" else "utf-16-le", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _json_lines(path: Path) -> Iterator[Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        try:
            yield json.loads(text)
            return
        except json.JSONDecodeError:
            if len(lines := [line for line in text.splitlines() if line.strip()]) < 2:
                raise
        yield from [json.loads(line) for line in lines]
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); write it again with pocketsphinx") from error


def _pocketsphinx_word(entry: Any, where: str) -> Word:
    if not isinstance(entry, dict):
        raise DataError(f"{where}: expected an object with b, d and t, found {str(entry)[:40]!r}")
    times = [entry.get("b"), entry.get("d")]
    if not all(isinstance(t, int | float) and not isinstance(t, bool) for t in times) or not isinstance(
        entry.get("t"), str
    ):
        raise DataError(f"{where}: needs numbers b and d and a text t, found {str(entry)[:80]}; {_REALIGN}")
    score = entry.get("p")
    # Begin and duration are decimal with three places; their float sum is not, hence the rounding.
    return Word(
        text=_VARIANT.sub("", entry["t"]).strip(),
        start_s=float(entry["b"]),
        end_s=round(float(entry["b"]) + float(entry["d"]), 6),
        score=float(score) if isinstance(score, int | float) else None,
    )
