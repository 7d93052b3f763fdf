"""Stories whose recordings stand in tables: Parquet with the sound in it, JSON lines with paths.

Enters: a folder of one voice. Leaves: id, both texts, paths of both recordings below a root. The one decision worth
knowing: sound out of Parquet is written once, byte for byte, under a name of our own making; the path that the table
gives it is not used.

Source: fields of slprl/multispeaker-storycloze (id, correct_text, correct_audio, negative_text, negative_audio; audio
as {bytes, path}).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speechscale.errors import DataError
from speechscale.evals.benchmarks.readers.pairing import below
from speechscale.evals.benchmarks.readers.tables import TextFile, json_rows
from speechscale.files import complete_file
from speechscale.skips import SkipLog

COLUMNS = ("id", "correct_text", "correct_audio", "negative_text", "negative_audio")
BATCH_ROWS = 16
_MAGIC = ((b"RIFF", ".wav"), (b"fLaC", ".flac"), (b"OggS", ".ogg"), (b"ID3", ".mp3"))
_MP3_FRAMES = (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2")
"""Layer III without tags, MPEG-1 (44.1 kHz and below) or MPEG-2 (24 kHz and below), with checksum or without."""
_UNPACK = "give a folder that can be written with unpack=DIR"

Stored = tuple[str, str, str, str, str]  # id, correct text, negative text, correct recording, negative recording


def stored_stories(data: Path, voice: str, root: Path, skips: SkipLog) -> Iterator[Stored]:
    """Stories of one voice's folder, in order.

    Args:
        root: what the recordings' paths start from; sound out of Parquet is written below it.

    Raises:
        DataError: a file that cannot be read, a field missing, an id that comes twice, a path that leaves the root.
    """
    folder = data / voice
    seen: set[str] = set()
    for where, row in _rows(folder):
        lacking = [name for name in COLUMNS if row.get(name) is None]
        if lacking:
            raise DataError(f"{where}: no {', '.join(lacking)}; a row has {', '.join(COLUMNS)}")
        id = re.sub(r"[^\w.-]+", "_", str(row["id"]))
        if id in seen:
            raise DataError(f"{where}: story '{id}' comes twice in this voice; remove one of the files")
        seen.add(id)
        try:
            paths = [
                _recording(row[f"{side}_audio"], f"{id}-{side}", voice, root, where) for side in ("correct", "negative")
            ]
        except _NoSound as error:
            skips.add(f"{voice}-{id}" if voice else id, str(error), "download the file again")
            continue
        texts = [" ".join(str(row[f"{side}_text"]).split()) for side in ("correct", "negative")]
        yield id, texts[0], texts[1], paths[0], paths[1]


class _NoSound(Exception):
    """The bytes of one row are no recording."""


def _rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(folder.glob("*.parquet")):
        try:
            with pq.ParquetFile(file) as table:
                lacking = [name for name in COLUMNS if name not in table.schema_arrow.names]
                if lacking:
                    raise DataError(
                        f"{file}: no column {', '.join(lacking)}; it has {', '.join(table.schema_arrow.names)}"
                    )
                number = 0
                for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=list(COLUMNS)):
                    for row in batch.to_pylist():
                        yield f"{file.name}, row {number}", row
                        number += 1
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{file}: not a readable Parquet file ({error}); download it again") from error
    for file in sorted(folder.glob("*.jsonl")):
        for line, row in json_rows(TextFile(path=file, name=file.name)):
            yield f"{file.name}, line {line}", row


def _recording(value: Any, name: str, voice: str, root: Path, where: str) -> str:
    if isinstance(value, dict) and not value.get("bytes"):
        value = value.get("path")
    if isinstance(value, str):
        return below(root, f"{voice}/{value}" if voice else value, where)
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise DataError(f"{where}: its audio is a {type(value).__name__}; a path or {{bytes, path}} is needed")
    suffix = next((suffix for magic, suffix in _MAGIC if content.startswith(magic)), "")
    suffix = suffix or (".mp3" if content.startswith(_MP3_FRAMES) else "")
    if not suffix:
        raise _NoSound(f"{where}: its audio begins with {content[:4]!r}, which is not wav, flac, ogg or mp3")
    place = f"{voice}/audio/{name}{suffix}" if voice else f"audio/{name}{suffix}"
    _write_once(root / below(root, place, where), content)
    return place


def _write_once(target: Path, content: bytes) -> None:
    """Write a file unless these very bytes are there."""
    try:
        if target.is_file() and hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(content).digest():
            return
        with complete_file(target) as draft:
            draft.write_bytes(content)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror}); {_UNPACK}") from error
