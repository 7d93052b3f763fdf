"""The bytes of documents out of each kind of text file.

Enters: a file. Leaves: `RawDocument` objects, not yet decoded, or what is wrong with one. The one decision worth
knowing: bytes stay bytes up to the border of a document, so that a wrong encoding is found, and named, where it is.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from speechscale.errors import DataError

STORY_END = b"<|endoftext|>"
MAX_DOCUMENT_BYTES = 8 << 20
"""Longest document; more is a file without separators, and is dropped with that reason."""
SUFFIXES = {
    ".txt": "text",
    ".text": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
TEXT_FIELDS = ("text", "story", "content", "sentence", "transcript")
"""Where the text is looked for when no field is named, in this order."""
_LONG = f"longer than {MAX_DOCUMENT_BYTES >> 20} MB"
_SPLIT_IT = "separate the documents (blank lines, <|endoftext|> or --text-format lines)"


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A document before it is checked. Bytes that are not UTF-8, or `fault`, make it unusable."""

    line: int
    data: bytes
    id: str = ""
    fault: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions:
    """How to read.

    Args:
        format: "auto" (by suffix; text with <|endoftext|> is "stories", other text "paragraphs"), "stories",
            "paragraphs" (blank lines separate), "lines", "jsonl", "csv" (comma or tab), "parquet".
        text_field, id_field: column or key; "" takes the first of TEXT_FIELDS, and numbers documents.
    """

    format: str = "auto"
    text_field: str = ""
    id_field: str = ""


def stem(path: Path) -> str:
    """The name of a file without its suffixes."""
    return Path(path.name.removesuffix(".gz")).stem


def kind_of(path: Path) -> str:
    """The format that a file's name stands for; "" for none."""
    return SUFFIXES.get(Path(path.name.removesuffix(".gz")).suffix.lower(), "")


def read_file(path: Path, options: TextOptions) -> Iterator[RawDocument]:
    """Read the documents of one file, in order. Raises DataError for a file that cannot be read at all."""
    format = options.format if options.format != "auto" else kind_of(path)
    if not format:
        raise DataError(
            f"texts {path}: its kind is not known by its name; say --text-format, one of {', '.join(FORMATS)}"
        )
    if format != "parquet":
        with _opened(path) as stream:
            head = stream.read(1 << 20)
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"texts {path}: UTF-16; convert it with: iconv -f utf-16 -t utf-8")
        if format == "text":
            format = "stories" if STORY_END in head else "paragraphs"
    yield from FORMATS[format](path, options)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a plain or gzipped file. Raises DataError, also for what goes wrong while it is read."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            yield cast(BinaryIO, stream)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"texts {path}: cannot be read ({error}); copy it again") from error


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without their break; one of more than the limit comes cut right behind it."""
    with _opened(path) as stream:
        number = 0
        while line := stream.readline(MAX_DOCUMENT_BYTES + 2):
            number += 1
            rest = line
            while len(rest) > MAX_DOCUMENT_BYTES and not rest.endswith(b"\n"):
                rest = stream.readline(MAX_DOCUMENT_BYTES + 2)
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield number, line.rstrip(b"\r\n")


def _document(line: int, parts: list[bytes], size: int) -> RawDocument | None:
    """Join collected lines; None when there is nothing but white space."""
    if size > MAX_DOCUMENT_BYTES:
        return RawDocument(line, b"", fault=_LONG, remedy=_SPLIT_IT)
    data = b"\n".join(parts)
    return RawDocument(line, data) if data.strip() else None


def _blocks(pieces: Iterable[tuple[int, bytes | None]]) -> Iterator[RawDocument]:
    """Collect lines up to a None into documents, without ever holding more than the limit."""
    parts: list[bytes] = []
    first = size = 0
    for line, piece in pieces:
        if piece is None:
            if parts and (document := _document(first, parts, size)):
                yield document
            parts, size = [], 0
            continue
        if not parts:
            first = line
        size += len(piece) + 1
        parts.append(piece if size <= MAX_DOCUMENT_BYTES else b"")
        if size > MAX_DOCUMENT_BYTES:
            parts = parts[:1]
    if parts and (document := _document(first, parts, size)):
        yield document


def _stories(path: Path, options: TextOptions) -> Iterator[RawDocument]:
    def pieces() -> Iterator[tuple[int, bytes | None]]:
        for number, line in _lines(path):
            story, *more = line.split(STORY_END)
            if story.strip() or not more:
                yield number, story
            for story in more:
                yield number, None
                if story.strip():
                    yield number, story

    return _blocks(pieces())


def _paragraphs(path: Path, options: TextOptions) -> Iterator[RawDocument]:
    return _blocks((number, line if line.strip() else None) for number, line in _lines(path))


def _each_line(path: Path, options: TextOptions) -> Iterator[RawDocument]:
    for number, line in _lines(path):
        document = _document(number, [line], len(line))
        if document is not None:
            yield document


def _jsonl(path: Path, options: TextOptions) -> Iterator[RawDocument]:
    field = options.text_field
    for number, line in _lines(path):
        if len(line) > MAX_DOCUMENT_BYTES:
            yield RawDocument(number, b"", fault=_LONG, remedy="write one object per line")
            continue
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad = "not UTF-8" if isinstance(error, UnicodeDecodeError) else f"not JSON ({error})"
            yield RawDocument(number, line, fault=bad, remedy="write one JSON object per line, in UTF-8")
            continue
        field = field or _field(row)
        yield _row(number, row if isinstance(row, dict) else {}, field, options.id_field)


def _csv(path: Path, options: TextOptions) -> Iterator[RawDocument]:
    separator = "\t" if ".tsv" in path.name else ","

    def decoded() -> Iterator[str]:
        for _, line in _lines(path):
            yield line.decode("utf-8", "surrogateescape") + "\n"

    reader = csv.reader(decoded(), delimiter=separator)
    try:
        head = next(reader, [])
    except csv.Error as error:
        raise DataError(f"texts {path}: no CSV ({error}); give the right --text-format") from error
    field = options.text_field or _field(dict.fromkeys(head))
    wanted = [name for name in (field, options.id_field) if name]
    if not field or any(name not in head for name in wanted):
        missing = next((name for name in wanted if name not in head), "text")
        raise DataError(f"texts {path}: no column '{missing}', it has: {', '.join(head)[:200]}; name one")
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield RawDocument(reader.line_num, b"", fault=f"no CSV row ({error})", remedy="correct the row")
            continue
        if row:
            yield _row(reader.line_num, dict(zip(head, row, strict=False)), field, options.id_field)


def _parquet(path: Path, options: TextOptions) -> Iterator[RawDocument]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            field = options.text_field or _field(dict.fromkeys(names))
            wanted = [name for name in (field, options.id_field) if name]
            if not field or any(name not in names for name in wanted):
                raise DataError(f"texts {path}: no column '{options.text_field or 'text'}', it has: {', '.join(names)}")
            number = 0
            for batch in file.iter_batches(batch_size=256, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    yield _row(number, row, field, options.id_field)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"texts {path}: not a readable Parquet file ({error}); copy it again") from error


def _field(row: Any) -> str:
    """The field that holds the text: the first known name that is there."""
    return next((name for name in TEXT_FIELDS if isinstance(row, dict) and name in row), "")


def _row(number: int, row: dict[str, Any], field: str, id_field: str) -> RawDocument:
    text, id = row.get(field), row.get(id_field) if id_field else ""
    remedy = "write the text there, or name another field with --text-field"
    if not isinstance(text, str):
        return RawDocument(number, b"", fault=f"no text in field '{field or TEXT_FIELDS[0]}'", remedy=remedy)
    if id_field and (id is None or not str(id).strip()):
        return RawDocument(number, b"", fault=f"no id in field '{id_field}'", remedy="give every document its own id")
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogateescape" if _escaped(text) else "surrogatepass")
    if len(data) > MAX_DOCUMENT_BYTES:
        return RawDocument(number, b"", id=str(id), fault=_LONG, remedy="split it")
    return RawDocument(number, data, id=str(id))


def _escaped(text: str) -> bool:
    """Whether all lone surrogates stand for undecodable bytes, as csv rows carry them."""
    return all(0xDC80 <= ord(letter) <= 0xDCFF for letter in text if 0xD800 <= ord(letter) <= 0xDFFF)


FORMATS: dict[str, Callable[[Path, TextOptions], Iterator[RawDocument]]] = {
    "stories": _stories,
    "paragraphs": _paragraphs,
    "lines": _each_line,
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
}
