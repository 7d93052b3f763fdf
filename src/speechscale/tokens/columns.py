"""Columns on disk: raw little-endian files that grow at the end, hashed chunk by chunk.

Enters: numpy arrays, block by block. Leaves: NAME.bin files and the index (`ColumnIndex`) that says how much of each
counts; the same opened as read-only memory maps. The one decision worth knowing: bytes behind the indexed length do not
exist. A writer adds them first and the caller replaces the index last, so that readers of the old index go on reading
the old columns, a killed writer leaves nothing that is believed, and the next one cuts what it left.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError

CHUNK_BYTES = 64 << 20
BLOCK_BYTES = 4 << 20
"""Read at once where a column is hashed or copied."""
INDEX_FILE = "meta.json"
LOCK_FILE = ".lock"
DTYPES = ("|u1", "<u2", "<u4", "<u8", "<i4", "<i8")
REMEDY = "build the store anew (packed rows: pack them again)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnIndex:
    """What counts of a column file.

    Args:
        dtype: one of DTYPES. length: entries. chunks: SHA-256 of every `chunk_bytes` bytes, the last may be shorter.
    """

    dtype: str
    length: int
    chunk_bytes: int
    chunks: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return self.length * np.dtype(self.dtype).itemsize

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, name: str, saved: dict[str, Any], index: Path) -> ColumnIndex:
        """Raises DataError: an entry that no writer of this package makes; `index` is the file it stands in."""
        try:
            found = cls(**{**saved, "chunks": tuple(saved["chunks"])})
            sane = min(found.length, found.chunk_bytes - 1) >= 0 and all(isinstance(c, str) for c in found.chunks)
        except (KeyError, TypeError) as error:
            raise DataError(f"{index}: column '{name}' is not described ({error!r}); {REMEDY}") from error
        if not name.isidentifier() or found.dtype not in DTYPES or not sane:
            raise DataError(
                f"{index}: column '{name}' has dtype '{found.dtype}', allowed: {', '.join(DTYPES)}; {REMEDY}"
            )
        if len(found.chunks) != -(-found.bytes // found.chunk_bytes):
            raise DataError(
                f"{index}: column '{name}' has {len(found.chunks)} checksums for {found.bytes} bytes; {REMEDY}"
            )
        return found


def column_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"


def open_column(path: Path, index: ColumnIndex) -> np.ndarray:
    """Map the indexed entries, read-only; bytes behind them are ignored. Raises DataError: missing or too short."""
    _check_size(path, index)
    if not index.length:
        return np.zeros(0, index.dtype)
    return np.memmap(path, index.dtype, mode="r", shape=(index.length,))


def damage(path: Path, index: ColumnIndex) -> Iterator[str]:
    """Hash a column; yield one message per thing that is wrong, each naming the file and the chunk."""
    try:
        _check_size(path, index)
    except DataError as error:
        yield str(error)
        return
    with path.open("rb", buffering=0) as file:
        for number, wanted in enumerate(index.chunks):
            begin = number * index.chunk_bytes
            end = min(begin + index.chunk_bytes, index.bytes)
            if _hash_next(file, end - begin).hexdigest() != wanted:
                yield (
                    f"{path}: chunk {number} (bytes {begin}..{end}): its SHA-256 differs from {INDEX_FILE} (damaged?); "
                    f"{REMEDY}"
                )


def verify_column(path: Path, index: ColumnIndex) -> None:
    """Hash a column. Raises DataError: missing, truncated or altered; the message names the file and the chunk."""
    for message in damage(path, index):
        raise DataError(message)


class ColumnWriter:
    """Write one column, or go on behind the indexed end of one. `length`, `last`: entries, and the last of them."""

    def __init__(
        self,
        path: Path,
        dtype: np.dtype[Any] | str,
        known: ColumnIndex | None = None,
        *,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.path, self.dtype = path, np.dtype(dtype).newbyteorder("<")
        self.length, self.last = 0, 0
        self._chunk_bytes = chunk_bytes if known is None else known.chunk_bytes
        self._chunks: list[str] = []
        self._digest, self._in_chunk = hashlib.sha256(), 0
        if known is None:
            self._file = path.open("w+b", buffering=1 << 20)
        else:
            self._go_on(known)

    def _go_on(self, known: ColumnIndex) -> None:
        """Cut what is behind the index and hash the last, unfinished chunk again."""
        if known.dtype != self.dtype.str:
            raise DataError(f"{self.path}: holds {known.dtype}, {self.dtype.str} is to be added; {REMEDY}")
        _check_size(self.path, known)
        self._file = self.path.open("r+b", buffering=1 << 20)
        try:
            self._file.truncate(known.bytes)
            if known.length:
                self._file.seek(-self.dtype.itemsize, os.SEEK_END)
                self.last = int(np.frombuffer(self._file.read(), self.dtype)[0])
            full, self._in_chunk = divmod(known.bytes, known.chunk_bytes)
            self._file.seek(full * known.chunk_bytes)
            self._digest = _hash_next(self._file, self._in_chunk)
            if self._in_chunk and self._digest.hexdigest() != known.chunks[-1]:
                raise DataError(
                    f"{self.path}: chunk {full}: its SHA-256 differs from {INDEX_FILE} (damaged?); {REMEDY}"
                )
        except BaseException:
            self._file.close()
            raise
        self.length, self._chunks = known.length, list(known.chunks[:full])

    def append(self, values: np.ndarray) -> None:
        """Add entries. They must fit the type of the column."""
        array = np.asarray(values)
        if array.dtype != self.dtype and len(array) and not np.can_cast(array.dtype, self.dtype):
            limits = np.iinfo(self.dtype)
            low, high = int(array.min()), int(array.max())
            if not limits.min <= low <= high <= limits.max:
                raise OverflowError(f"{self.path}: {low}..{high} do not fit {self.dtype}")
        if not len(array):
            return
        array = np.ascontiguousarray(array, self.dtype)
        data = array.data.cast("B")
        self._file.write(data)
        self.length, self.last = self.length + len(array), int(array[-1])
        while data:
            piece = data[: self._chunk_bytes - self._in_chunk]
            self._digest.update(piece)
            self._in_chunk += len(piece)
            data = data[len(piece) :]
            if self._in_chunk == self._chunk_bytes:
                self._chunks.append(self._digest.hexdigest())
                self._digest, self._in_chunk = hashlib.sha256(), 0

    def close(self, *, sync: bool = True) -> ColumnIndex:
        """Bring everything to the disk; return what counts from now on, once the caller has written it down."""
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())
        self._file.close()
        chunks = (*self._chunks, self._digest.hexdigest()) if self._in_chunk else tuple(self._chunks)
        return ColumnIndex(dtype=self.dtype.str, length=self.length, chunk_bytes=self._chunk_bytes, chunks=chunks)

    def abort(self) -> None:
        """Give up; what was added stays behind the index, where nobody reads it."""
        self._file.close()


class FolderLock:
    """Hold a folder for one writer; the system lets go of it when the process dies. Raises DataError: it is held."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, path = folder, folder / LOCK_FILE
        self._file = path.open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino != os.fstat(self._file.fileno()).st_ino:
                raise BlockingIOError("the folder was replaced meanwhile")
        except OSError as error:
            self._file.close()
            raise DataError(
                f"{folder} is being written by another run; wait for it, or choose another output"
            ) from error

    def close(self) -> None:
        self._file.close()


class ColumnSetWriter:
    """Write the columns of one folder.

    Args:
        lock: the folder, held by its only writer.
        dtypes: the columns. known: their index, to go on behind it; without it columns that are there are deleted.
        offsets: columns of ragged offsets: they begin with 0, and what is appended counts from 0 and is moved.
        sync: wait for the disk; without it a power cut may lose what `close` returned.
    """

    def __init__(
        self,
        lock: FolderLock,
        dtypes: Mapping[str, np.dtype[Any]],
        known: Mapping[str, ColumnIndex] | None = None,
        *,
        offsets: Collection[str] = (),
        chunk_bytes: int = CHUNK_BYTES,
        sync: bool = True,
    ) -> None:
        folder, self._sync = lock.folder, sync
        if known is None:
            for path in [*(column_path(folder, name) for name in dtypes), folder / INDEX_FILE]:
                path.unlink(missing_ok=True)
        elif set(known) != set(dtypes):
            raise DataError(f"{folder}: has the columns {sorted(known)}, needed are {sorted(dtypes)}; {REMEDY}")
        self._writers: dict[str, ColumnWriter] = {}
        self._ends: dict[str, int] = {}
        try:
            for name, dtype in dtypes.items():
                path, before = column_path(folder, name), known[name] if known else None
                writer = self._writers[name] = ColumnWriter(path, dtype, before, chunk_bytes=chunk_bytes)
                if name in offsets:
                    if not writer.length:
                        writer.append(np.zeros(1, np.int64))
                    self._ends[name] = writer.last
        except BaseException:
            self.abort()
            raise

    def length(self, name: str) -> int:
        return self._writers[name].length

    def append(self, name: str, values: np.ndarray) -> None:
        assert name not in self._ends, f"{name} holds offsets"
        self._writers[name].append(values)

    def append_offsets(self, name: str, values: Int[np.ndarray, " rows1"]) -> None:
        """Add rows whose offsets count from 0."""
        assert len(values), f"{name}: offsets begin with 0"
        assert values[0] == 0, f"{name}: offsets begin with {values[0]}"
        self._writers[name].append(np.asarray(values[1:], np.int64) + self._ends[name])
        self._ends[name] += int(values[-1])

    def copy(self, folder: Path, columns: Mapping[str, ColumnIndex], *, shifts: Mapping[str, int]) -> None:
        """Append the columns of a finished folder, each verified: offsets are moved, those in `shifts` by that much."""
        if set(columns) != set(self._writers):
            raise DataError(
                f"{folder}: has the columns {sorted(columns)}, needed are {sorted(self._writers)}; {REMEDY}"
            )
        for name, index in columns.items():
            path = column_path(folder, name)
            verify_column(path, index)
            values = open_column(path, index)
            step = BLOCK_BYTES // values.itemsize
            first, moved = int(name in self._ends), self._ends.get(name, shifts.get(name, 0))
            for begin in range(first, len(values), step):
                block = values[begin : begin + step]
                self._writers[name].append(block + np.int64(moved) if moved else block)
            if name in self._ends:
                self._ends[name] += int(values[-1])

    def close(self) -> dict[str, ColumnIndex]:
        """Bring everything to the disk; return the index, which counts once the caller has written it down."""
        return {name: writer.close(sync=self._sync) for name, writer in self._writers.items()}

    def abort(self) -> None:
        """Forget what was added."""
        for writer in self._writers.values():
            writer.abort()


def _check_size(path: Path, index: ColumnIndex) -> None:
    if not path.is_file():
        raise DataError(f"{path}: missing; {REMEDY}")
    size = path.stat().st_size
    if size < index.bytes:
        raise DataError(f"{path}: {size} bytes, {INDEX_FILE} says {index.bytes} (truncated?); {REMEDY}")


def _hash_next(file: Any, count: int) -> Any:
    """SHA-256 of the next bytes of a file."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(min(BLOCK_BYTES, max(count, 1))))
    while count:
        read = file.readinto(buffer[: min(count, len(buffer))])
        if not read:
            break
        digest.update(buffer[:read])
        count -= read
    return digest
