"""Rows of tables (CSV, TSV, JSON lines) in files, folders and zips, each with its line number.

Enters: a path. Leaves: `(line, row)`, one at a time. The one decision worth knowing: nothing is unpacked, a member of a
zip is read as a stream, and a row that does not fit its header is refused by file and line, because a shifted column
is a wrong label.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from speechscale.errors import DataError

MAX_LINE_CHARS = 1 << 20
"""A longer line is no row of a benchmark but a damaged or foreign file."""
MAX_MEMBER_BYTES = 1 << 30
"""Unpacked size of the largest member of a zip that is read."""

Rows = Iterator[tuple[int, dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFile:
    """A text file, or a member of a zip. name: how messages call it."""

    path: Path
    name: str
    member: str = ""

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.member or self.path.name).suffix.lower()

    def lines(self) -> Iterator[str]:
        """Its lines with their ends. Raises DataError: not readable, not UTF-8, or a line above 1 MiB."""
        try:
            if self.member:
                with zipfile.ZipFile(self.path) as packed, packed.open(self.member) as raw:
                    yield from self._checked(io.TextIOWrapper(raw, encoding="utf-8-sig", newline=""))
            else:
                with self.path.open(encoding="utf-8-sig", newline="") as stream:
                    yield from self._checked(stream)
        except (OSError, zipfile.BadZipFile, RuntimeError, EOFError) as error:
            raise DataError(f"{self.name}: cannot be read ({error}); copy it again") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{self.name}: not UTF-8 ({error.reason}); convert it to UTF-8") from error

    def _checked(self, stream: io.TextIOBase | io.TextIOWrapper) -> Iterator[str]:
        number = 0
        while line := stream.readline(MAX_LINE_CHARS):
            number += 1
            if len(line) == MAX_LINE_CHARS:
                raise DataError(f"{self.name}, line {number}: longer than 1 MiB; this is not a table of items")
            yield line


def text_files(path: Path, suffixes: tuple[str, ...], *, remedy: str) -> list[TextFile]:
    """The text files of a file, a folder and what lies below it, or a zip, sorted by name; hidden ones are left out.

    Raises:
        DataError: nothing there or nothing with these suffixes; a zip that is damaged, that has a member of more than
            1 GiB, or a member whose path leads out of it.
    """
    if path.is_dir():
        found = [
            TextFile(path=file, name=file.relative_to(path).as_posix())
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in suffixes and file.is_file() and not _hidden(file.relative_to(path).as_posix())
        ]
    elif path.is_file() and path.suffix.lower() == ".zip":
        found = [member for member in _members(path) if member.suffix in suffixes]
    elif path.is_file() and path.suffix.lower() in suffixes:
        found = [TextFile(path=path, name=path.name)]
    elif path.exists():
        raise DataError(f"{path}: neither a folder, a .zip nor a file ending in {', '.join(suffixes)}; {remedy}")
    else:
        raise DataError(f"{path}: no such file or folder; {remedy}")
    if not found:
        raise DataError(f"{path}: no file ending in {', '.join(suffixes)} in it; {remedy}")
    return found


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _members(path: Path) -> list[TextFile]:
    try:
        with zipfile.ZipFile(path) as packed:
            entries = [entry for entry in packed.infolist() if not entry.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable zip ({error}); copy it again") from error
    for entry in entries:
        place = PurePosixPath(entry.filename.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts:
            raise DataError(f"{path}: its member '{entry.filename}' leads out of the zip; do not trust this file")
        if entry.file_size > MAX_MEMBER_BYTES:
            raise DataError(f"{path}: its member '{entry.filename}' unpacks to {entry.file_size} bytes; allowed 1 GiB")
    return [
        TextFile(path=path, name=f"{path.name}/{entry.filename}", member=entry.filename)
        for entry in sorted(entries, key=lambda entry: entry.filename)
        if not _hidden(entry.filename)
    ]


def table_rows(file: TextFile, *, columns: Iterable[str] = (), remedy: str = "") -> Rows:
    """Rows of a CSV, TSV or JSON-lines file, by its suffix; names of columns are compared as `column_key` says.

    The header of a CSV or TSV is read at once, rows when they are asked for.

    Raises:
        DataError: a column of `columns` is missing (at once), or a row cannot be read (when it comes).
    """
    if file.suffix in (".jsonl", ".ndjson", ".json"):
        return _with_columns(file, tuple(columns), remedy)
    return _csv_rows(file, tuple(columns), remedy)


def column_key(name: str) -> str:
    """A column's name as compared: small letters, no blanks, '_' or '-'. Example: "Input_StoryId" -> "inputstoryid"."""
    return name.strip().casefold().replace("_", "").replace("-", "").replace(" ", "")


def _csv_rows(file: TextFile, columns: tuple[str, ...], remedy: str) -> Rows:
    delimiter = "\t" if file.suffix == ".tsv" else ","
    reader = csv.reader(file.lines(), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise DataError(f"{file.name}, line 1: not a table ({error}); {remedy}") from error
    keys = [column_key(name) for name in header]
    missing = [name for name in columns if column_key(name) not in keys]
    if missing:
        raise DataError(
            f"{file.name}: column{'s' if len(missing) > 1 else ''} {', '.join(missing)} missing; the header has "
            f"{', '.join(header) or 'nothing'}; {remedy}"
        )
    if len(set(keys)) != len(keys):
        raise DataError(f"{file.name}: a column stands twice in the header {', '.join(header)}; {remedy}")

    def rows() -> Rows:
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise DataError(f"{file.name}, line {line}: not a row of a table ({error}); copy it again") from error
            if cells is None:
                return
            if not cells:
                continue
            if len(cells) != len(keys):
                raise DataError(
                    f"{file.name}, line {line}: {len(cells)} fields, the header has {len(keys)}; correct the line"
                )
            yield line, dict(zip(keys, cells, strict=True))

    return rows()


def _with_columns(file: TextFile, columns: tuple[str, ...], remedy: str) -> Rows:
    for line, row in json_rows(file):
        keyed = {column_key(name): value for name, value in row.items()}
        missing = [name for name in columns if column_key(name) not in keyed]
        if missing:
            raise DataError(f"{file.name}, line {line}: no field {', '.join(missing)}; {remedy}")
        yield line, keyed


def json_rows(file: TextFile) -> Rows:
    """Objects of a JSON-lines file, with their keys as they are. Raises DataError when a line is none."""
    for line, text in enumerate(file.lines(), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file.name}, line {line}: not JSON ({error}); write one object per line") from error
        if not isinstance(row, dict):
            raise DataError(f"{file.name}, line {line}: holds a {type(row).__name__}; write one object per line")
        yield line, row


def text_field(row: dict[str, Any], name: str, where: str) -> str:
    """A field that must be a text with something in it; white space collapses to single blanks.

    Raises:
        DataError: missing, of another type, or empty; `where` names file and line.
    """
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        came = "is missing" if value is None else "is empty" if value == "" else f"is {value!r}"
        raise DataError(f"{where}: '{name}' {came}, a text is needed; correct the line")
    return " ".join(value.split())
