"""Where sound lies: a file, or a member of an uncompressed tar; what its header says; whether it was cut.

Enters: a path, or "some.tar::member.flac". Leaves: `Source`, which opens as a seekable stream of exactly those bytes,
and `AudioInfo`. The one decision worth knowing: libsndfile always reads through our own view of the bytes, so that
content decides and not the suffix, and nothing is ever unpacked.
"""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import soundfile

from speechscale.errors import DataError

MEMBER = "::"
"""What stands between a tar and its member."""
UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)
"""Data sizes that streaming writers leave in a wav header because they cannot go back and fill it in."""
OGG_PAGE_BYTES = 27 + 255 + 255 * 255
"""The largest Ogg page (RFC 3533, section 6)."""
W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInfo:
    """What a header says. frames: samples per channel. container: wav, flac, mp3, ogg (Vorbis), opus, rf64, w64, ..."""

    duration_s: float
    sample_rate_hz: int
    channels: int
    container: str
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Bytes of one recording: `size` bytes of the file `path` from `offset` on. name: as the user wrote it."""

    name: str
    path: Path
    offset: int
    size: int
    changed_ns: int

    def same_bytes(self, other: Source) -> bool:
        """Whether both are the same part of the same version of a file."""
        own, its = ((s.path, s.offset, s.size, s.changed_ns) for s in (self, other))
        return own == its

    def open(self) -> BinaryIO:
        """Open the bytes as a seekable stream that starts at 0 and ends at `size`."""
        return cast(BinaryIO, _Window(self.path.open("rb"), self.offset, self.size))


def find_source(path: str | Path) -> Source:
    """Find a file, or a member of a tar by its offset.

    Raises:
        DataError: missing, a folder, zero bytes, not an uncompressed tar, or no such member.
    """
    file, member, name = Path(path), "", str(path)
    if MEMBER in name and not file.is_file():
        before, _, member = name.partition(MEMBER)
        file = Path(before)
    if not file.is_file():
        kind = "it is a folder" if file.is_dir() else "no such file"
        raise DataError(f"audio {name}: {kind}; correct the path or drop the utterance")
    status = file.stat()
    offset, size = 0, status.st_size
    if member:
        offset, size = _find_member(name, file, member, status.st_mtime_ns, status.st_size)
    if size == 0:
        raise DataError(f"audio {name}: the file has zero bytes; copy it again or drop the utterance")
    return Source(name=name, path=file, offset=offset, size=size, changed_ns=status.st_mtime_ns)


@contextmanager
def decode_errors(source: Source) -> Iterator[None]:
    """Whatever libsndfile finds wrong is a `DataError`."""
    try:
        yield
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(
            f"audio {source.name}: cannot be decoded, it is truncated or not audio "
            f"({_reason(error)}); copy it again or drop it"
        ) from error


def audio_info(path: str | Path) -> AudioInfo:
    """Read the header only.

    Raises:
        DataError: missing, zero bytes, not audio, or without samples.
    """
    source = find_source(path)
    with source.open() as stream, decode_errors(source), soundfile.SoundFile(stream) as file:
        return info_of(source, file)


def info_of(source: Source, file: soundfile.SoundFile) -> AudioInfo:
    """What the header of an open recording says. Raises DataError if it has no samples."""
    container = {"WAVEX": "wav", "OGG": "opus" if file.subtype == "OPUS" else "ogg"}.get(file.format)
    container = container or file.format.lower()
    if not file.frames:
        if is_cut(source, container):
            raise truncated(source, 0)
        raise DataError(f"audio {source.name}: no samples behind the header; record it again or drop the utterance")
    return AudioInfo(
        duration_s=file.frames / file.samplerate,
        sample_rate_hz=file.samplerate,
        channels=file.channels,
        container=container,
        frames=file.frames,
    )


def truncated(source: Source, samples: int) -> DataError:
    return DataError(
        f"audio {source.name}: truncated, it ends after {samples} samples and its header promises more; "
        "copy it again or drop it"
    )


def is_cut(source: Source, container: str) -> bool:
    """Tell whether bytes are missing at the end that the header (wav, rf64, w64) or the last page (ogg) promises.

    libsndfile reports what it finds of such a file as the whole. A cut flac shows while decoding; a cut mp3 cannot be
    told from a short one.
    """
    with source.open() as stream:
        if container in ("wav", "rf64"):
            return _riff_is_cut(stream, source.size)
        if container == "w64":
            return _w64_is_cut(stream, source.size)
        return container in ("ogg", "opus") and _ogg_is_cut(stream, source.size)


def _riff_is_cut(stream: BinaryIO, size: int) -> bool:
    """Walk the chunks of RIFF or RF64 (EBU Tech 3306) to the data chunk."""
    if stream.read(4) not in (b"RIFF", b"RF64"):
        return False
    stream.seek(12)
    long_size = None
    while len(head := stream.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        if name == b"data":
            if length == 0xFFFFFFFF and long_size is not None:
                length = long_size
            return length not in UNKNOWN_SIZES and stream.tell() + length > size
        if name == b"ds64" and length >= 16:
            _, long_size = struct.unpack("<QQ", stream.read(16))
            length -= 16
        stream.seek(length + length % 2, 1)
    return False


def _w64_is_cut(stream: BinaryIO, size: int) -> bool:
    """Walk the chunks of a Sony Wave64 file; lengths count their 24-byte head and are padded to 8."""
    stream.seek(40)
    while len(head := stream.read(24)) == 24:
        length = int.from_bytes(head[16:], "little")
        if head[:16] == W64_DATA:
            return stream.tell() + length - 24 > size
        if length < 24:
            return False
        stream.seek(stream.tell() - 24 + (length + 7) // 8 * 8)
    return False


def _ogg_is_cut(stream: BinaryIO, size: int) -> bool:
    """Tell whether the last Ogg page lacks the end-of-stream flag or its own tail (RFC 3533, section 6)."""
    stream.seek(max(0, size - 2 * OGG_PAGE_BYTES))
    data = stream.read()
    last = len(data)
    while (last := data.rfind(b"OggS\x00", 0, last)) >= 0:
        page = data[last:]
        if len(page) > 5 and page[5] > 7:  # The letters by chance, inside a packet.
            continue
        if len(page) < 27 or not page[5] & 4:
            return True
        lacing = page[27 : 27 + page[26]]
        return len(page) < 27 + page[26] + sum(lacing)
    return True


def _find_member(name: str, tar: Path, member: str, mtime_ns: int, size: int) -> tuple[int, int]:
    try:
        members = _tar_index(str(tar), mtime_ns, size)
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"audio {name}: {tar} is not an uncompressed tar ({error}); unpack it or pack it again without compression"
        ) from error
    if (place := members.get(_plain(member))) is None:
        raise DataError(f"audio {name}: the tar has no file '{member}' among {len(members)}; correct the name")
    if sum(place) > size:
        raise DataError(f"audio {name}: the tar is truncated inside this file; copy the tar again")
    return place


@lru_cache(maxsize=8)
def _tar_index(path: str, mtime_ns: int, size: int) -> dict[str, tuple[int, int]]:
    """Offset and size of every plain file of a tar; headers are read once per version of the tar."""
    del mtime_ns, size
    with tarfile.open(path, "r:") as tar:
        return {_plain(m.name): (m.offset_data, m.size) for m in tar if m.isreg() and not m.issparse()}


def _plain(member: str) -> str:
    return member.removeprefix("./")


def _reason(error: Exception) -> str:
    """libsndfile's words without the name of our stream object."""
    text = getattr(error, "error_string", None) or str(error)
    return str(text).strip().replace("\n", " ")


class _Window(io.RawIOBase):
    """`size` bytes of an open file from `offset` on, as a file of their own, without a name to guess a format from."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size = file, offset, size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = max(0, offset + (0, self._place, self._size)[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: max(0, self._size - self._place)]
        self._file.seek(self._offset + self._place)
        count = self._file.readinto(view) if len(view) else 0  # type: ignore[attr-defined]
        self._place += count
        return int(count)

    def close(self) -> None:
        self._file.close()
        super().close()
