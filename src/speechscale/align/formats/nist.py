"""Read and write the time-marked lines of NIST's tools: CTM, STM and RTTM.

Enters: lines of blank-separated fields. Leaves: words and segments by recording and channel. The one decision worth
knowing: of alternative readings the first is taken and the others are counted, and scoring marks (";tag",
"(deletable)", "@" for nothing) are taken off, so that what is left is what was said.

Source: NIST SCTK, doc/infmts; the RTTM part of the RT-09 evaluation plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from speechscale.align.formats.entries import (
    Entry,
    Found,
    Segment,
    decimal,
    end_of,
    is_silence,
    read_text,
    seconds,
)
from speechscale.align.formats.settle import Losses
from speechscale.errors import DataError
from speechscale.files import complete_file

RTTM_TYPES = frozenset(
    (
        *("SPEAKER", "LEXEME", "NON-LEX", "NON-SPEECH", "SEGMENT", "NOSCORE", "NO_RT_METADATA", "NOEVAL"),
        *("SPKR-INFO", "FILLER", "EDIT", "IP", "SU", "CB", "A/P"),
    )
)
GRID_S = 0.02
"""Overlap that rounding explains: start and duration are each rounded to 10 ms, so ends are off by up to 10."""
_REMEDY = "correct the line or write the file again"
_NOTHING = ("", "NA", "<NA>", "N/A", "-")


def find_ctm(path: Path, tier: str | None = None) -> Iterator[Found]:
    """Words of a CTM: file, channel, start, duration, word [, confidence [, type [, speaker]]].

    "<space>" inside a word (NeMo's segment CTM) is a blank. A start or duration of "*", "NA" or -1 is no time.

    Raises:
        DataError: naming the line that is not such a row.
    """
    groups: dict[tuple[str, str], list[Entry]] = {}
    skipped: dict[tuple[str, str], int] = {}
    speakers: dict[tuple[str, str], set[str]] = {}
    reading: dict[tuple[str, str], int] = {}
    for number, fields in _rows(path):
        where = f"{path}, line {number}"
        if len(fields) < 5:
            raise DataError(
                f"{where}: a CTM row has file, channel, start, duration and word, found {' '.join(fields)!r}; {_REMEDY}"
            )
        key, mark = (fields[0], fields[1]), fields[4].upper()
        groups.setdefault(key, [])
        if mark in ("<ALT_BEGIN>", "<ALT>", "<ALT_END>"):
            reading[key] = {"<ALT_BEGIN>": 1, "<ALT>": reading.get(key, 0) + 1, "<ALT_END>": 0}[mark]
            continue
        if reading.get(key, 0) > 1:
            skipped[key] = skipped.get(key, 0) + 1
            continue
        start_s, length_s = (_time(field, where) for field in fields[2:4])
        kind = fields[6].lower() if len(fields) > 6 else "lex"
        word = "" if kind in ("non-lex", "noscore") else _plain(fields[4])
        score = None if len(fields) < 6 or fields[5] in _NOTHING else seconds(fields[5], where)
        groups[key].append(Entry(word, start_s, end_of(start_s, length_s), score, number))
        if len(fields) > 7 and fields[7] not in _NOTHING and fields[7].lower() != "unknown":
            speakers.setdefault(key, set()).add(fields[7])
    for key, entries in groups.items():
        yield Found(
            recording=key[0],
            channel=key[1],
            speaker=next(iter(speakers[key])) if len(speakers.get(key, ())) == 1 else None,
            entries=entries,
            where=f"{path}",
            unit="line",
            phrases=True,
            alternatives=skipped.get(key, 0),
            rounding_s=GRID_S,
        )


def find_stm(path: Path, tier: str | None = None) -> Iterator[Found]:
    """Segments of an STM: file, channel, speaker, start, end [, <labels>], text; its words have no times."""
    for number, fields in _rows(path):
        where = f"{path}, line {number}"
        if len(fields) < 5:
            raise DataError(f"{where}: an STM row has file, channel, speaker, start, end and text; {_REMEDY}")
        start_s, end_s = seconds(fields[3], where), seconds(fields[4], where)
        rest = fields[5:]
        if rest and re.fullmatch(r"<[^<>\s]*>", rest[0]):
            rest = rest[1:]
        if fields[2].lower() == "inter_segment_gap" or "IGNORE_TIME_SEGMENT_IN_SCORING" in map(str.upper, rest):
            rest = []
        words, skipped = _first_readings(rest)
        words = [word for word in map(_plain, words) if word]
        yield Found(
            recording=fields[0],
            channel=fields[1],
            speaker=fields[2],
            start_s=start_s,
            end_s=end_s,
            text=" ".join(word for word in words if not is_silence(word)),
            entries=[Entry(word, None, None, None, number) for word in words],
            where=f"{path}",
            unit="line",
            alternatives=skipped,
        )


def find_rttm(path: Path, tier: str | None = None) -> Iterator[Found]:
    """LEXEME lines of an RTTM as words by recording, channel and speaker; SPEAKER lines as segments without words."""
    words: dict[tuple[str, str, str | None], list[Entry]] = {}
    for number, fields in _rows(path):
        where = f"{path}, line {number}"
        if len(fields) < 8 or fields[0].upper() not in RTTM_TYPES:
            raise DataError(
                f"{where}: not an RTTM row (a type such as SPEAKER or LEXEME and 8 or more fields); {_REMEDY}"
            )
        kind, recording, channel = fields[0].upper(), fields[1], fields[2]
        start_s, length_s = (_time(field, where) for field in fields[3:5])
        speaker = None if fields[7] in _NOTHING else fields[7]
        if kind == "SPEAKER":
            yield Found(
                recording=recording,
                channel=channel,
                speaker=speaker,
                start_s=start_s,
                end_s=end_of(start_s, length_s),
                entries=(),
                where=where,
            )
        elif kind == "LEXEME":
            score = None if len(fields) < 9 or fields[8] in _NOTHING else seconds(fields[8], where)
            entry = Entry(_plain(fields[5]), start_s, end_of(start_s, length_s), score, number)
            words.setdefault((recording, channel, speaker), []).append(entry)
    for (recording, channel, speaker), entries in words.items():
        yield Found(
            recording=recording,
            channel=channel,
            speaker=speaker,
            entries=entries,
            where=f"{path}",
            unit="line",
            rounding_s=GRID_S,
        )


def write_ctm(path: Path, segments: Sequence[Segment], duration_s: float, losses: Losses) -> None:
    """Write CTM rows sorted by recording, channel and time; words without time are counted as unwritten."""
    rows = []
    for segment in segments:
        for word in segment.words:
            if word.start_s is None or word.end_s is None:
                losses.unwritten += 1
                continue
            length = round(word.end_s - word.start_s, 6)
            score = "" if word.score is None else f" {decimal(word.score)}"
            label = _escaped(word.text)
            key = (segment.recording, segment.channel or "1")
            rows.append(
                (*key, word.start_s, f"{key[0]} {key[1]} {decimal(word.start_s)} {decimal(length)} {label}{score}\n")
            )
    rows.sort(key=lambda row: row[:3])
    _write(path, [row[3] for row in rows])


def write_rttm(path: Path, segments: Sequence[Segment], duration_s: float, losses: Losses) -> None:
    """Write LEXEME rows; a word without time has <NA> for its times."""
    lines = []
    for segment in segments:
        name = segment.speaker or "<NA>"
        for word in segment.words:
            times = "<NA> <NA>"
            if word.start_s is not None and word.end_s is not None:
                times = f"{decimal(word.start_s)} {decimal(round(word.end_s - word.start_s, 6))}"
            score = "<NA>" if word.score is None else decimal(word.score)
            label = _escaped(word.text)
            lines.append(
                f"LEXEME {segment.recording} {segment.channel or '1'} {times} {label} lex {name} {score} <NA>\n"
            )
    _write(path, lines)


def _write(path: Path, lines: Sequence[str]) -> None:
    with complete_file(path) as part:
        part.write_text("".join(lines), encoding="utf-8", newline="\n")


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Fields of every line that is no comment."""
    for number, line in enumerate(read_text(Path(path)).split("\n"), start=1):
        if (fields := line.split()) and not line.lstrip().startswith((";;", "#")):
            yield number, fields


def _time(field: str, where: str) -> float | None:
    if field == "*" or field in _NOTHING:
        return None
    value = seconds(field, where)
    return None if value == -1 else value


def _plain(word: str) -> str:
    """Take scoring marks off. Example: "a\\;s;tag1" -> "a;s"; "(it)" -> "it"; "@" -> "" """
    word = re.split(r"(?<!\\);", word, maxsplit=1)[0].replace("\\;", ";").replace("<space>", " ")
    if len(word) > 2 and word.startswith("(") and word.endswith(")"):
        word = word[1:-1]
    return "" if word == "@" else word


def _escaped(word: str) -> str:
    label = word.replace(";", "\\;").replace(" ", "<space>")
    return f"({label})" if (label.startswith("(") and label.endswith(")")) or label == "@" else label


def _first_readings(words: Sequence[str]) -> tuple[list[str], int]:
    """Keep the first of alternatives { a / b }, also nested; count the words of the others."""
    kept: list[str] = []
    skipped = 0
    reading: list[int] = []
    for word in words:
        if word == "{":
            reading.append(1)
        elif word == "}" and reading:
            reading.pop()
        elif word == "/" and reading:
            reading[-1] += 1
        elif any(place > 1 for place in reading):
            skipped += 1
        else:
            kept.append(word)
    return kept, skipped
