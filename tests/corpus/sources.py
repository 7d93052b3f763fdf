"""Small corpora of every form, made for tests."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from speechscale.corpus.readers import FORMATS, Source
from speechscale.corpus.readers.base import Entry, Found
from speechscale.skips import Skip


def sound(path: Path, seconds: float = 1.0, rate_hz: int = 16_000, channels: int = 1, seed: int = 0) -> Path:
    """A quiet noise; the same seed gives the same samples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal((round(rate_hz * seconds), channels))
    soundfile.write(path, samples.astype(np.float32), rate_hz)
    return path


def sound_bytes(seconds: float = 1.0, format: str = "FLAC") -> bytes:
    stream = io.BytesIO()
    samples = 0.1 * np.random.default_rng(1).standard_normal(round(16_000 * seconds))
    soundfile.write(stream, samples.astype(np.float32), 16_000, format=format)
    return stream.getvalue()


def write_lines(path: Path, rows: list[Any]) -> Path:
    """JSON lines; .gz is packed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def read_all(format: str, path: Path, **options: Any) -> list[Found]:
    """Whatever a reader says, unchecked."""
    return list(FORMATS[format].read(Source(path=path, **options)))


def entries(found: list[Found]) -> list[Entry]:
    return [entry for entry in found if isinstance(entry, Entry)]


def faults(found: list[Found]) -> dict[str, str]:
    """Id -> reason."""
    return {skip.id: skip.reason for skip in found if isinstance(skip, Skip)}
