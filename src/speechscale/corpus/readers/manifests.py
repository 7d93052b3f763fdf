"""Read manifests: JSON lines, JSON, CSV and TSV, as NeMo, speechbrain, Common Voice, fairseq and people write them.

Enters: one file of one row per utterance. Leaves: an `Entry` per row, a skip per row that is none. The one decision
worth knowing: JSON lines, CSV and TSV are streamed, so that a manifest of any length needs the memory of one row; a
JSON file that is one object or list has to be read whole and may have 1 GiB.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from speechscale.corpus.readers.base import Entry, Found, Source, fault, json_line, lines_of, opened, required_file
from speechscale.corpus.readers.columns import check_mapping, entry_of
from speechscale.errors import DataError
from speechscale.skips import Skip

MAX_JSON_BYTES = 1 << 30
_MAKE_LINES = "write one JSON object per line"


def jsonl_entries(source: Source) -> Iterator[Found]:
    """JSON lines with the columns of `columns.COLUMNS`; NeMo's manifests are such files."""
    check_mapping(source.columns)
    name = required_file(source.path, str(source.path), "give the manifest").name
    for number, line in lines_of(source.path, name, source.meter):
        if isinstance(line, Skip):
            yield line
            continue
        where = f"{name}, line {number}"
        try:
            row = json_line(line)
            if not isinstance(row, dict):
                raise DataError(f"a JSON {type(row).__name__}, an object is needed; {_MAKE_LINES}")
            yield entry_of(row, where, source.columns)
        except DataError as error:
            yield fault(f"{name}:{number}", where, str(error))


def json_entries(source: Source) -> Iterator[Found]:
    """One JSON object {id: row} (speechbrain) or one list of rows."""
    check_mapping(source.columns)
    name = source.path.name
    content = read_whole_json(source.path, name)
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    rows = list(content.items()) if isinstance(content, dict) else [("", row) for row in content]
    for number, (id, row) in enumerate(rows, start=1):
        where = f"{name}, item {number}" + (f" ('{id}')" if id else "")
        try:
            if not isinstance(row, dict):
                raise DataError(f"a JSON {type(row).__name__}, an object is needed; correct it")
            yield entry_of(row, where, source.columns, id=id)
        except DataError as error:
            yield fault(id or f"{name}:{number}", where, str(error))


def read_whole_json(path: Path, name: str) -> Any:
    """Parse a JSON object or list, unpacked when it is .gz. Raises DataError."""
    try:
        with opened(path, name) as stream:
            data = stream.read(MAX_JSON_BYTES + 1)
        if len(data) > MAX_JSON_BYTES:
            raise DataError(f"{name}: above 1 GiB of JSON in one piece; {_MAKE_LINES}")
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, OSError, EOFError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name}: not readable as JSON ({str(error)[:80]}); correct it") from error
    if not isinstance(content, dict | list):
        raise DataError(f"{name}: holds a JSON {type(content).__name__}, an object or a list is needed; correct it")
    return content


def table_entries(source: Source) -> Iterator[Found]:
    """CSV or TSV with a header; the delimiter is the tab for .tsv, else the first of tab ; | , in the header.

    Common Voice's `path` is looked for in clips/ beside the table. Rows may span lines inside quotes (CSV only).
    """
    check_mapping(source.columns)
    name = required_file(source.path, str(source.path), "give the manifest").name
    with opened(source.path, name, source.meter) as raw:
        stream = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
        head = stream.readline(1 << 20)
        tabs = source.path.name.removesuffix(".gz").endswith(".tsv") or "\t" in head
        delimiter = "\t" if tabs else next((sign for sign in ";|," if sign in head), ",")
        quoting: Literal[0, 3] = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
        header = next(csv.reader([head], delimiter=delimiter, quoting=quoting), [])
        names = [column.strip() for column in header]
        _check_header(names, name, source)
        common_voice = "client_id" in names and "path" in names and (source.path.parent / "clips").is_dir()
        reader = csv.reader(stream, delimiter=delimiter, quoting=quoting)
        rows = iter(reader)
        while True:
            try:
                cells = next(rows)
            except StopIteration:
                break
            except csv.Error as error:
                yield fault(
                    f"{name}:{reader.line_num + 1}", f"{name}, line {reader.line_num + 1}", f"{error}; quote it"
                )
                continue
            if any(cells):
                yield _table_row(names, cells, name, reader.line_num + 1, source, common_voice)


def _table_row(names: list[str], cells: list[str], name: str, line: int, source: Source, clips: bool) -> Found:
    where = f"{name}, line {line}"
    if len(cells) != len(names):
        problem = f"{len(cells)} cells, the header has {len(names)}; quote cells that hold the delimiter"
        return fault(f"{name}:{line}", where, problem)
    row = dict(zip(names, cells, strict=True))
    if clips:
        row["path"] = f"clips/{row['path']}"
    if row.get("words", "").startswith("["):
        try:
            row["words"] = json.loads(row["words"])
        except ValueError:
            return fault(f"{name}:{line}", where, "its words are not JSON; write [[word, start, end], ...]")
    try:
        return entry_of(row, where, source.columns)
    except DataError as error:
        return fault(f"{name}:{line}", where, str(error))


def _check_header(names: list[str], name: str, source: Source) -> None:
    """Refuse a table whose first line names no audio column, before every row is refused for it."""
    try:
        entry_of(dict.fromkeys(names, "0"), name, source.columns)
    except DataError as error:
        raise DataError(f"{name}: its first line is no header that we can use: {error}") from error
    if len(set(names)) != len(names):
        raise DataError(f"{name}: its header repeats a column ({', '.join(names)[:200]}); rename one")


def fairseq_entries(source: Source) -> Iterator[Found]:
    """fairseq's wav2vec manifests: a folder on the first line, then "path<tab>samples"; .wrd beside it has the texts.

    The folder of the first line is ignored unless it is the audio root: paths are taken below the root.
    """
    name = source.path.name
    texts = source.path.with_suffix(".wrd")
    said = lines_of(texts, texts.name) if texts.is_file() else None
    for number, line in lines_of(source.path, name, source.meter):
        if isinstance(line, Skip):
            yield line
        elif number > 1:
            path, _, samples = line.decode("utf-8", errors="surrogateescape").strip().partition("\t")
            row = next(said, (0, b"")) if said else None
            text = None
            if row is not None:
                text = "" if isinstance(row[1], Skip) else row[1].decode("utf-8", errors="surrogateescape").strip()
            if row is not None and row[0] != number - 1:
                yield fault(path, f"{name}, line {number}", f"no line {number - 1} in {texts.name}; write it")
            elif not samples.isdigit():
                yield fault(path, f"{name}, line {number}", "no number of samples behind a tab; write path<tab>samples")
            else:
                yield Entry(id="", where=f"{name}, line {number}", audio=path, text=text)
