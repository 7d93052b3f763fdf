"""Texts to train on, as a stream: files of any kind, folders of them, Hugging Face datasets.

Enters: a path or the name of a dataset, which field and split, which quality. Leaves: (id, text) in order, and a reason
for every document that is left out. The one decision worth knowing: a source is cut into slices that are read on their
own (bytes of a plain file, row groups of a Parquet file, else whole files), so that workers share it and nobody holds
more than a slice; ids name file and line, whoever reads. Documents of stories and paragraph files lose the white space
at their ends: the line break of the separator is not part of the story.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from speechscale.corpus.hub_texts import file_sha256, hub_fingerprint, load_hub
from speechscale.corpus.text_formats import (
    FORMATS,
    MAX_DOCUMENT_BYTES,
    STORY_END,
    TEXT_FIELDS,
    RawDocument,
    TextOptions,
    kind_of,
    read_file,
)
from speechscale.corpus.text_quality import QualityRules
from speechscale.corpus.texts import text_files
from speechscale.errors import DataError

SLICE_BYTES = 8 << 20
HELD_OUT_PERCENT = 1
HUB = "hf:"
TRIMMED = ("text", "stories", "paragraphs")
"""Formats whose documents are cut out of a running text."""
NO_RULES = QualityRules()
NO_DOCUMENTS = "the file has no documents"
Split = Literal["all", "train", "select", "test"]
OnSkip = Callable[[str, str, str], None]
"""Called with (id, reason, remedy) of a document that is left out."""
OnOther = Callable[[], None]
"""Called for each document of another split."""
BORDERS: dict[str, Callable[[bytes], bool]] = {
    "jsonl": lambda line: True,
    "lines": lambda line: True,
    "stories": lambda line: line.rstrip().endswith(STORY_END),
    "paragraphs": lambda line: not line.strip(),
}
"""Formats of plain files that can be cut, and the lines behind which they can."""


@dataclass(frozen=True, slots=True)
class TextSlice:
    """A part of a source that is read on its own.

    Args:
        file: number of the file, -1 for all; 0 for a hub dataset.
        first, last: bytes of a plain file, row groups of a Parquet file, shards of a hub dataset; last 0: all of it.
        line: lines or rows in front of it. format: of the slice. bytes: its size, roughly.
    """

    file: int = -1
    first: int = 0
    last: int = 0
    line: int = 0
    format: str = "auto"
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSource:
    """Where texts come from.

    Args:
        path: a file, a folder of files, or "hf:NAME" for a dataset of the hub, a folder that the `datasets` library
            saved, or any folder that it loads.
        name: begins the ids; "" takes the name of the path.
        field, id_field: column or key of the text and of its id; "" takes the first known name, and numbers documents.
        format: as in `TextOptions`. config: configuration of a hub dataset.
        split: of a hub dataset its split, "all" for "train". Of files "all", or "train", "select", "test": one in a
            hundred texts each is held out for the latter two, by a hash of the text.
        quality: rules that a document must keep.
        max_documents: read no more than so many; the source is then one slice.
    """

    path: Path | str
    name: str = ""
    field: str = ""
    id_field: str = ""
    format: str = "auto"
    config: str = ""
    split: str = "all"
    quality: QualityRules = NO_RULES
    max_documents: int | None = None

    def __post_init__(self) -> None:
        if self.format not in ("auto", *FORMATS):
            raise DataError(f"texts {self.path}: format '{self.format}', allowed: auto, {', '.join(FORMATS)}")
        if not self.hub_name and self.split not in get_args(Split):
            raise DataError(f"texts {self.path}: split '{self.split}', allowed: {', '.join(get_args(Split))}")
        if self.max_documents is not None and self.max_documents < 1:
            raise DataError(f"texts {self.path}: at most {self.max_documents} documents; give at least 1, or no limit")

    @property
    def hub_name(self) -> str:
        """What the `datasets` library is to load; "" for files."""
        return str(self.path)[len(HUB) :] if str(self.path).startswith(HUB) else ""

    @property
    def label(self) -> str:
        """The name, or that of the path."""
        return self.name or Path(self.hub_name or self.path).name

    def recipe(self) -> dict[str, Any]:
        """What defines the documents: the options, and names and SHA-256 of the files, or a hub dataset's revision."""
        files = {} if self.hub_name else {name: file_sha256(file) for name, file in self._files().items()}
        limits = {name: getattr(self.quality, name) for name in QualityRules.__dataclass_fields__}
        recipe: dict[str, Any] = {"kind": "text", "name": self.label, "hub": self.hub_name, "files": files}
        if self.hub_name:
            recipe["revision"] = hub_fingerprint(self.hub_name, self.config, self.split)
        recipe |= {name: getattr(self, name) for name in ("field", "id_field", "format", "config", "split")}
        recipe["quality"] = {name: limit for name, limit in limits.items() if limit not in (None, ())}
        return recipe | {"max_documents": self.max_documents}

    def slices(self) -> list[TextSlice]:
        """Cut the source: passes over plain files once to find borders, and reads the footers of Parquet files."""
        if self.max_documents is not None:
            return [TextSlice()]
        if self.hub_name:
            return [TextSlice(0, shard, shard + 1) for shard in range(self._load_hub().num_shards)]
        files = self._files().values()
        return [part for number, file in enumerate(files) for part in _cut(number, file, self.format)]

    def documents(
        self, on_skip: OnSkip, part: TextSlice | None = None, on_other: OnOther | None = None
    ) -> Iterator[tuple[str, str]]:
        """Stream (id, text) of the source, or of one slice of it. Documents of another split are passed over.

        A file without documents is left out with that reason, as its line 0.

        Raises:
            DataError: a file that cannot be read. MissingExtra: a hub dataset, and no `datasets` library.
        """
        part = part or TextSlice()
        for number, (prefix, raw) in enumerate(self._hub_rows(part) if self.hub_name else self._file_rows(part)):
            if number == self.max_documents:
                return
            if not self.hub_name and raw.line and self.split not in ("all", drawn_split(raw.data)):
                if on_other:
                    on_other()
                continue
            id = f"{prefix}/{raw.id or raw.line + part.line}"
            reason, remedy, text = _checked(raw)
            if not reason:
                reason, remedy = self.quality.fault(text)
            if reason:
                on_skip(id, reason, remedy)
            else:
                yield id, text

    def _files(self) -> dict[str, Path]:
        """The files by the names that begin their documents' ids, in order."""
        root = Path(self.path)
        found = text_files(root)
        return {self.label if root.is_file() else f"{self.label}/{file.relative_to(root)}": file for file in found}

    def _file_rows(self, part: TextSlice) -> Iterator[tuple[str, RawDocument]]:
        options = TextOptions(format=self.format, text_field=self.field, id_field=self.id_field)
        for number, (prefix, file) in enumerate(self._files().items()):
            if part.file not in (-1, number):
                continue
            trim, empty = (kind_of(file) if self.format == "auto" else self.format) in TRIMMED, not part.last
            for raw in _slice_rows(file, part, options) if part.last else read_file(file, options):
                empty = False
                yield prefix, replace(raw, data=raw.data.strip()) if trim else raw
            if empty:
                yield prefix, RawDocument(0, b"", fault=NO_DOCUMENTS, remedy="write texts into it or leave it out")

    def _load_hub(self) -> Any:
        return load_hub(self.hub_name, self.config, self.split)

    def _hub_rows(self, part: TextSlice) -> Iterator[tuple[str, RawDocument]]:
        dataset, prefix = self._load_hub(), self.label
        if dataset.num_shards > 1 and part.last:
            dataset, prefix = dataset.shard(num_shards=dataset.num_shards, index=part.first), f"{prefix}/{part.first}"
        for number, row in enumerate(dataset, 1):
            yield prefix, _row_document(number, row, self.field or _known_field(row), self.id_field)


def drawn_split(data: bytes) -> Split:
    """The split of a text: a hash of it, so that equal texts are always together."""
    percent = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") % 100
    return "select" if percent < HELD_OUT_PERCENT else "test" if percent < 2 * HELD_OUT_PERCENT else "train"


def _checked(raw: RawDocument) -> tuple[str, str, str]:
    """(what is wrong, remedy, text) of a document; the first two are empty when it can be read."""
    if raw.fault:
        return raw.fault, raw.remedy, ""
    try:
        return "", "", raw.data.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start} is 0x{raw.data[error.start]:02x})"
        return reason, "convert it (iconv -f latin1 -t utf-8, if it is Latin-1)", ""


def _cut(number: int, file: Path, format: str) -> Iterator[TextSlice]:
    """Slices of one file; one whose borders cannot be found without unpacking it stays whole."""
    format = kind_of(file) if format == "auto" else format
    if format == "parquet":
        yield from _cut_parquet(number, file)
        return
    if format == "text":
        with file.open("rb") as stream:
            format = "stories" if STORY_END in stream.read(1 << 20) else "paragraphs"
    size = file.stat().st_size
    if file.suffix == ".gz" or format not in BORDERS or size <= SLICE_BYTES:
        yield TextSlice(file=number, bytes=size)
        return
    begin = line = 0
    with file.open("rb") as stream:
        while begin < size:
            data = stream.read(SLICE_BYTES)
            lines, last = data.count(b"\n"), data[data.rfind(b"\n") + 1 :]
            while True:
                rest = stream.readline()
                lines, last = lines + rest.count(b"\n"), last + rest
                if not rest or BORDERS[format](last):
                    break
                last = b""
            end = stream.tell()
            yield TextSlice(number, begin, end, line, format, end - begin)
            begin, line = end, line + lines


def _cut_parquet(number: int, file: Path) -> Iterator[TextSlice]:
    with _parquet(file) as opened:
        if not opened.metadata.num_rows:
            yield TextSlice(file=number, bytes=file.stat().st_size)
            return
        first = size = rows = before = 0
        groups = opened.num_row_groups
        for group in range(groups):
            found = opened.metadata.row_group(group)
            size, rows = size + found.total_byte_size, rows + found.num_rows
            if size >= SLICE_BYTES or group + 1 == groups:
                yield TextSlice(number, first, group + 1, before, "parquet", size)
                first, size, before = group + 1, 0, rows


def _slice_rows(file: Path, part: TextSlice, options: TextOptions) -> Iterator[RawDocument]:
    if part.format == "parquet":
        yield from _row_groups(file, part, options)
        return
    with tempfile.TemporaryDirectory(prefix="speechscale-") as folder:
        copy = Path(folder) / "slice"
        with file.open("rb") as stream:
            stream.seek(part.first)
            copy.write_bytes(stream.read(part.last - part.first))
        yield from read_file(
            copy, TextOptions(format=part.format, text_field=options.text_field, id_field=options.id_field)
        )


def _row_groups(file: Path, part: TextSlice, options: TextOptions) -> Iterator[RawDocument]:
    with _parquet(file) as opened:
        names = opened.schema_arrow.names
        field = options.text_field or _known_field(dict.fromkeys(names))
        wanted = [name for name in (field, options.id_field) if name]
        if missing := [name for name in (field or "text", *wanted) if name not in names]:
            raise DataError(f"texts {file}: no column '{missing[0]}', it has: {', '.join(names)[:200]}; name one")
        number = 0
        groups = list(range(part.first, part.last))
        for batch in opened.iter_batches(batch_size=256, row_groups=groups, columns=wanted):
            for row in batch.to_pylist():
                number += 1
                yield _row_document(number, row, field, options.id_field)


@contextmanager
def _parquet(file: Path) -> Iterator[Any]:
    try:
        with pq.ParquetFile(file) as opened:
            yield opened
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"texts {file}: not a readable Parquet file ({error}); copy it again") from error


def _known_field(row: dict[str, Any]) -> str:
    return next((name for name in TEXT_FIELDS if name in row), "")


def _row_document(number: int, row: dict[str, Any], field: str, id_field: str) -> RawDocument:
    text, id = row.get(field), row.get(id_field) if id_field else ""
    if not isinstance(text, str):
        found = f"no text in field '{field or TEXT_FIELDS[0]}'"
        return RawDocument(number, b"", fault=found, remedy="write the text there, or name another field")
    if id is None or (id_field and not str(id).strip()):
        fault = f"no id in field '{id_field}'"
        return RawDocument(number, b"", fault=fault, remedy="give every document its own id")
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > MAX_DOCUMENT_BYTES:
        return RawDocument(
            number, b"", id=str(id), fault=f"longer than {MAX_DOCUMENT_BYTES >> 20} MB", remedy="split it"
        )
    return RawDocument(number, data, id=str(id))
