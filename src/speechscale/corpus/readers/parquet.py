"""Read Hugging Face datasets: from the hub (extra `hf`, streamed), or Parquet files with audio inside.

Enters: rows with an audio column of {bytes, path}. Leaves: an `Entry` per row, its bytes as a file below the download
folder. The one decision worth knowing: audio is never decoded by datasets; the bytes are kept as they are and read by
our own decoder, so that no torchcodec is needed and a corpus sounds the same wherever it came from.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from speechscale.corpus.readers.base import Found, Source, fault
from speechscale.corpus.readers.columns import check_mapping, entry_of
from speechscale.corpus.splits import canonical_split
from speechscale.errors import DataError, MissingExtra
from speechscale.files import complete_file

_MAGIC = ((b"RIFF", ".wav"), (b"fLaC", ".flac"), (b"ID3", ".mp3"), (b"\xff\xfb", ".mp3"), (b"\xff\xf3", ".mp3"),
          (b"\xff\xf2", ".mp3"), (b"OggS", ".ogg"))  # fmt: skip


def hub_entries(source: Source) -> Iterator[Found]:
    """Stream a dataset of the Hugging Face hub; nothing of it is run, only data files are read.

    Raises:
        MissingExtra: without the package datasets.
        DataError: no such dataset, configuration or split, or no audio column.
    """
    check_mapping(source.columns)
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("reading datasets of the Hugging Face hub", "hf") from error
    name = str(source.path).removeprefix("hf:")
    try:
        parts = datasets.load_dataset(name, source.subset or None, split=source.part or None, streaming=True)
    except (ValueError, OSError, RuntimeError) as error:
        raise DataError(f"hf:{name}: {str(error)[:300]}; correct the name, --hf-config or --hf-split") from error
    if source.part:
        parts = {source.part: parts}
    for part, rows in parts.items():
        features = rows.features or {}
        for column, feature in features.items():
            if isinstance(feature, datasets.Audio):
                rows = rows.cast_column(column, datasets.Audio(decode=False))
        yield from row_entries(rows, f"{name}, {part}", source, split=part)


def parquet_entries(source: Source) -> Iterator[Found]:
    """Read Parquet files with audio bytes inside (a downloaded dataset); memory holds a few rows. Needs no extra.

    The split is the first part of a file's name (train-00000-of-00010.parquet), unless a column says it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_mapping(source.columns)
    path = source.path
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not files:
        raise DataError(f"{path}: no .parquet file in it; give the folder of a downloaded dataset")
    for file in files:
        name = file.name if path.is_file() else file.relative_to(path).as_posix()
        split = canonical_split(re.split(r"[-_.]", file.stem)[0])
        try:
            with pq.ParquetFile(file) as table:
                source.meter.total += table.metadata.num_rows
                rows = (row for batch in table.iter_batches(batch_size=16) for row in batch.to_pylist())
                yield from row_entries(rows, name, source, split=split if split in ("train", "select", "test") else "")
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path}: {name} is not a readable Parquet file ({error}); download it again") from error


def row_entries(rows: Iterable[dict[str, Any]], name: str, source: Source, *, split: str) -> Iterator[Found]:
    """Entries of rows; {bytes, path} of the audio column becomes a file in `source.download`."""
    for number, row in enumerate(rows):
        where = f"{name}, row {number}"
        source.meter.done += 1
        try:
            if (column := _audio_column(row, source)) is None:
                raise DataError(f"no column with audio bytes or paths among {', '.join(row)}; use --map audio=NAME")
            row = {**row, column: _stored(row[column], name, number, source)}
            entry = entry_of({"split": split, **row}, where, {"audio": column, **source.columns})
        except DataError as error:
            yield fault(f"{name}:{number}", where, str(error))
            continue
        yield entry


def _audio_column(row: dict[str, Any], source: Source) -> str | None:
    if "audio" in source.columns:
        return source.columns["audio"]
    with_bytes = [name for name, value in row.items() if isinstance(value, dict) and "bytes" in value]
    return with_bytes[0] if with_bytes else "audio" if "audio" in row else None


def _stored(value: Any, name: str, number: int, source: Source) -> str:
    """Write the bytes under a name of our own making; the dataset's path is only a hint in it."""
    if isinstance(value, bytes):
        value = {"bytes": value}
    if not isinstance(value, dict) or not value.get("bytes"):
        path = value.get("path") if isinstance(value, dict) else value
        raise DataError(f"the audio is not in the dataset (path {str(path)[:60]!r}); download it with its audio files")
    data = value["bytes"]
    suffix = next((suffix for magic, suffix in _MAGIC if data.startswith(magic)), "")
    if not suffix:
        raise DataError(f"its audio bytes begin with {data[:4]!r}, not wav, flac, mp3 or ogg; export the item again")
    assert source.download is not None
    folder = re.sub(r"[^\w.-]+", "_", name).strip("._")[:80]
    hint = re.sub(r"[^\w.-]+", "_", Path(str(value.get("path") or "")).stem).strip(".")[:60]
    digest = hashlib.sha256(data).hexdigest()[:8]
    relative = Path(folder) / f"{number // 10_000:04d}" / f"{number:08d}{'-' + hint if hint else ''}-{digest}{suffix}"
    target = source.download / relative
    if not (target.is_file() and target.stat().st_size == len(data)):
        with complete_file(target) as draft:
            draft.write_bytes(data)
    return relative.as_posix()
