"""Read documents of text, one by one: stories, plain text, JSONL, CSV, Parquet.

Enters: a file or a folder of files. Leaves: `Document` objects in file order, and a reason for every document that
cannot be used. The one decision worth knowing: files are streams of bytes and decoded document by document, so memory
holds one document, and one bad byte costs one document, named, and never the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from speechscale.corpus.sentences import has_speech
from speechscale.corpus.text_formats import FORMATS, SUFFIXES, RawDocument, TextOptions, kind_of, read_file, stem
from speechscale.errors import DataError
from speechscale.skips import SkipLog

__all__ = ["Document", "TextOptions", "read_documents", "safe_id", "text_files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text to speak.

    Args:
        id: of letters, digits, "-", "_" and "."; usable as a file name, unique in its corpus.
        place: file and line, for messages. size_bytes: how much of the file it took, roughly.
    """

    id: str
    text: str
    place: str
    size_bytes: int


def read_documents(source: Path, *, options: TextOptions | None = None, skips: SkipLog) -> Iterator[Document]:
    """Read every document of a file, or of the text files of a folder in the order of their names.

    Dropped with a reason: not UTF-8, broken JSON, no text field, nothing to speak, too long, an id twice.

    Raises:
        DataError: no such file, nothing readable in the folder, unknown format, a field no row has, UTF-16.
    """
    options = options or TextOptions()
    if options.format != "auto" and options.format not in FORMATS:
        raise DataError(f"text format '{options.format}': allowed are auto, {', '.join(FORMATS)}; choose one of them")
    files = text_files(source)
    seen: set[str] = set()
    for file, name in files.items():
        for index, raw in enumerate(read_file(file, options)):
            place = f"{file.name}, line {raw.line}"
            id = safe_id(raw.id) if raw.id else f"{name}-{index:07d}"
            problem, remedy, text = _checked(raw)
            if options.id_field and not problem:
                if id in seen:
                    problem, remedy = f"the id '{id}' came before", "give every document its own id"
                seen.add(id)
            if problem:
                skips.add(id, f"{place}: {problem}", remedy)
            else:
                yield Document(id=id, text=text, place=place, size_bytes=len(raw.data))


def text_files(source: Path) -> dict[Path, str]:
    """The files that are read, in order, with the name that begins the ids of their documents.

    Raises:
        DataError: nothing there, two files with one name, a link out of the folder.
    """
    source = Path(source)
    if source.is_file():
        return {source: safe_id(stem(source))}
    if not source.is_dir():
        raise DataError(f"texts {source}: no such file or folder; give a text, JSONL, CSV or Parquet file")
    root = source.resolve()
    files: dict[Path, str] = {}
    for file in sorted(path for path in source.rglob("*") if path.is_file() and kind_of(path)):
        if not file.resolve().is_relative_to(root):
            raise DataError(f"texts {file}: a link that leaves the folder; copy the file into it or remove the link")
        name = safe_id(str(file.relative_to(source).with_name(stem(file))))
        if name in files.values():
            raise DataError(f"texts {file}: another file is called '{name}' as well; rename one of them")
        files[file] = name
    if not files:
        raise DataError(f"texts {source}: no file ends in {', '.join(SUFFIXES)}; name one file and --text-format")
    return files


def safe_id(name: str) -> str:
    """A name that can be a file name on any system. Example: "a/b c" -> "a-b-c" """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:120] or "text"


def _checked(raw: RawDocument) -> tuple[str, str, str]:
    """(what is wrong, remedy, text) of a document; the first two are empty when it can be spoken."""
    if raw.fault:
        return raw.fault, raw.remedy, ""
    try:
        text = raw.data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"0x{raw.data[error.start]:02x}"
        return (
            f"not UTF-8 (byte {error.start} is {byte})",
            "convert it (iconv -f latin1 -t utf-8, if it is Latin-1)",
            "",
        )
    text = "".join(letter if letter.isprintable() or letter.isspace() else " " for letter in text)
    if not has_speech(text):
        return "nothing to speak (no letter, no digit)", "write words or delete it", ""
    return "", "", text
