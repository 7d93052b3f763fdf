"""Read what is said: text files and LJSpeech's metadata.csv.

Enters: bytes of a transcript. Leaves: one line of clean text, or a `DataError` that says what is wrong with it. The one
decision worth knowing: text in an unknown encoding is refused, not guessed, because a wrong guess is learned as words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from speechscale.align.spelling import tokens_of
from speechscale.errors import DataError
from speechscale.skips import Skip

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of metadata.csv: its line number and its text, not yet decoded."""

    line: int
    text: bytes


@dataclass(slots=True)
class Metadata:
    """The rows of one metadata.csv in LJSpeech's form: id|raw or id|raw|normalized, no header, no quotes."""

    rows: dict[str, Row]
    faults: list[Skip]

    @classmethod
    def read(cls, path: Path, name: str) -> Metadata:
        """Read the table; `name` is how messages call it. Lines that do not fit become faults."""
        rows: dict[str, Row] = {}
        faults = []
        for line, data in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
            if not data.strip():
                continue
            cells = data.split(b"|")
            id = cells[0].strip().decode("utf-8", errors="replace")
            problem = "has no second column" if len(cells) < 2 else f"repeats '{id}'" if id in rows else ""
            if problem and not rows:
                remedy = "write lines 'id|text' or 'id|raw text|normalized text'"
                return cls({}, [Skip(id=name, reason=f"{name}, line {line}: {problem}; not read", remedy=remedy)])
            if problem:
                faults.append(Skip(id=f"{name}:{line}", reason=f"{name}, line {line}: {problem}", remedy="correct it"))
                continue
            rows[id] = Row(line, cells[2] if len(cells) > 2 and cells[2].strip() else cells[1])
        return cls(rows, faults)

    def row(self, path: Path) -> Row | None:
        """The row of an audio file, by its stem or its name."""
        return self.rows.get(path.stem) or self.rows.get(path.name)

    def leftovers(self, names: set[str], name: str) -> Iterator[Skip]:
        """Rows that could not be read, and rows without audio."""
        yield from self.faults
        for id, row in self.rows.items():
            if id not in names:
                reason = f"{name}, line {row.line}: no audio named '{id}' in the corpus folder"
                yield Skip(id=id, reason=reason, remedy="add the audio file or delete the row")


def decode_text(data: bytes, name: str) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark. Raises DataError for anything else."""
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: not UTF-8 at byte {error.start}; convert it (iconv -f latin1 -t utf-8, if it is Latin-1)"
        ) from error


def clean_text(text: str, name: str) -> str:
    """Collapse white space. Raises DataError for an empty, wordless or binary text."""
    text = " ".join(text.split())
    if not text:
        raise DataError(f"{name}: the transcript is empty; write what is said, or delete the recording")
    if _CONTROL.search(text):
        raise DataError(f"{name}: control characters, not a text file; write what is said as UTF-8 text")
    if not tokens_of(text):
        raise DataError(f"{name}: the transcript has no words ('{text[:40]}'); write what is said, or delete it")
    return text


def is_label_file(text: str) -> bool:
    """Whether every line starts with a number: segment times, not a transcript."""
    lines = [line for line in text.splitlines() if line.strip()]
    return bool(lines) and all(re.match(r"\s*[\d.]+\s", line + " ") for line in lines)
