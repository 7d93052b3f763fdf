"""Read corpora of every common form: a table of formats, and which one a source looks like.

Enters: a file, a folder or a dataset's name. Leaves: a `Format` whose reader streams `Entry`. The one decision worth
knowing: a format is recognized by names and first lines only; when two fit, the more specific one comes first in the
table, and the user is told which was taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from speechscale.corpus.readers.base import AUDIO_SUFFIXES, Entry, Found, OnSkip, Reader, Source
from speechscale.corpus.readers.folder import folder_entries, read_folder
from speechscale.corpus.readers.kaldi import kaldi_entries
from speechscale.corpus.readers.lhotse import first_row, lhotse_entries
from speechscale.corpus.readers.manifests import fairseq_entries, json_entries, jsonl_entries, table_entries
from speechscale.corpus.readers.parquet import hub_entries, parquet_entries
from speechscale.corpus.readers.slamkit import slamkit_entries
from speechscale.corpus.readers.tars import tar_entries
from speechscale.corpus.readers.trees import (
    audio_entries,
    is_audio,
    librilight_entries,
    librispeech_entries,
    ljspeech_entries,
    vctk_entries,
)
from speechscale.corpus.splits import SPLITS, assign_splits
from speechscale.errors import DataError

__all__ = [
    "AUDIO_SUFFIXES",
    "FORMATS",
    "SPLITS",
    "Entry",
    "Format",
    "Found",
    "OnSkip",
    "Reader",
    "Source",
    "assign_splits",
    "manifest_in",
    "read_folder",
    "sniff",
]
_JSONL_INSIDE = ("metadata.jsonl", "manifest.jsonl", "manifest.json")
_TABLE_INSIDE = ("metadata.csv", "metadata.tsv")
LOOKED_AT = 2000
"""Files of a folder tree that are looked at to recognize it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One kind of source.

    Args:
        what: one line for the help.
        text: "required" where items without transcript are faulty, "optional" where the format has none.
        looks: whether a path looks like it (never raises).
        inside: for formats that are one file: its name where a folder is given instead.
        path_exists: whether a source is a path on this machine.
    """

    what: str
    read: Reader
    looks: Callable[[Path], bool]
    text: Literal["required", "optional"] = "required"
    inside: tuple[str, ...] = ()
    path_exists: bool = True


def _tree(path: Path, fits: Callable[[str, list[str]], bool]) -> bool:
    """Whether any of the first folders of a tree fits."""
    if not path.is_dir():
        return False
    return any(fits(folder, files) for folder, _, files in islice(os.walk(path), LOOKED_AT))


def _holds(path: Path, *endings: str) -> bool:
    return _tree(path, lambda _, files: any(name.endswith(endings) for name in files))


def _librilight(folder: str, files: list[str]) -> bool:
    names = set(files)
    for name in files:
        stem = Path(name).stem
        if name.endswith(".flac") and f"{stem}.json" in names:
            row = first_row(Path(folder) / f"{stem}.json")
            return row is not None and "voice_activity" in row
    return False


def _first_line(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as stream:
        return stream.readline(1 << 16).removeprefix(b"\xef\xbb\xbf")


def _named(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.is_file() and path.name.casefold().endswith(suffixes)


def _lhotse(path: Path) -> bool:
    if path.is_dir():
        names = [p.name for p in path.iterdir()]
        return any(n.startswith(("recordings", "cuts")) and ".json" in n for n in names) or any(
            n.endswith(".jsonl.gz") and ("recordings" in n or "cuts" in n) for n in names
        )
    if not _named(".jsonl", ".jsonl.gz", ".json", ".json.gz")(path):
        return False
    row = first_row(path) or {}
    return "sources" in row or "recording_id" in row or ("recording" in row and "duration" in row) or "tracks" in row


def _slamkit(path: Path) -> bool:
    path = path / "features.jsonl" if path.is_dir() else path
    row = (first_row(path) if _named(".jsonl")(path) else None) or {}
    return "file_name" in row and ("units" in row or "audio_repr" in row)


def _json_lines(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in _JSONL_INSIDE)
    if _named(".jsonl", ".ndjson", ".jsonl.gz")(path):
        return True
    line = _first_line(path).strip() if _named(".json", ".manifest")(path) else b""
    return line.startswith(b"{") and line.endswith(b"}") and len(line) > 2


def _table(path: Path) -> bool:
    if path.is_dir():
        return any(b"file_name" in _first_line(path / name) for name in _TABLE_INSIDE)
    return _named(".csv", ".tsv", ".csv.gz", ".tsv.gz", ".txt")(path)


def _fairseq(path: Path) -> bool:
    line = _first_line(path) if _named(".tsv")(path) else b""
    return bool(line.strip()) and b"\t" not in line


FORMATS: dict[str, Format] = {
    "hf": Format(
        what="dataset of the Hugging Face hub, streamed: hf:NAME (extra hf)",
        read=hub_entries,
        looks=lambda path: str(path).startswith("hf:"),
        path_exists=False,
    ),
    "kaldi": Format(
        what="Kaldi data directory (wav.scp, text, utt2spk, segments)",
        read=kaldi_entries,
        looks=lambda path: (path / "wav.scp").is_file(),
    ),
    "lhotse": Format(
        what="lhotse recordings and supervisions, or cuts", read=lhotse_entries, looks=_lhotse
    ),
    "slamkit": Format(
        what="slamkit's features.jsonl, words from aligned_text", read=slamkit_entries, looks=_slamkit, text="optional",
        inside=("features.jsonl",),
    ),
    "jsonl": Format(
        what="JSON lines, one item per line (also NeMo)", read=jsonl_entries, looks=_json_lines, inside=_JSONL_INSIDE
    ),
    "json": Format(what="one JSON object or list (speechbrain)", read=json_entries, looks=_named(".json", ".json.gz")),
    "fairseq": Format(
        what="fairseq's wav2vec manifest, texts from .wrd", read=fairseq_entries, looks=_fairseq, text="optional"
    ),
    "table": Format(
        what="CSV or TSV with a header (also speechbrain, Common Voice)",
        read=table_entries,
        looks=_table,
        inside=_TABLE_INSIDE,
    ),
    "webdataset": Format(
        what="tars of key.flac with key.json or key.txt, read in place",
        read=tar_entries,
        looks=lambda path: _named(".tar", ".tar.gz", ".tgz")(path)
        or ("{" in path.name and path.suffix == ".tar")
        or (path.is_dir() and any(path.glob("*.tar*"))),
    ),
    "parquet": Format(
        what="Parquet files with audio bytes, as datasets are stored",
        read=parquet_entries,
        looks=lambda path: _named(".parquet")(path) or _holds(path, ".parquet"),
    ),
    "librispeech": Format(
        what="LibriSpeech's tree (SPEAKER/CHAPTER/*.trans.txt)",
        read=librispeech_entries,
        looks=lambda path: _holds(path, ".trans.txt"),
    ),
    "librilight": Format(
        what="LibriLight's tree (flac with a JSON of its speech)",
        read=librilight_entries,
        looks=lambda path: _tree(path, _librilight),
        text="optional",
    ),
    "ljspeech": Format(
        what="LJSpeech's folder (metadata.csv, wavs/LJ*)",
        read=ljspeech_entries,
        looks=lambda path: _first_line(path / "metadata.csv").startswith(b"LJ0") and (path / "wavs").is_dir(),
    ),
    "vctk": Format(
        what="VCTK's folder (wav48*, txt)",
        read=vctk_entries,
        looks=lambda path: (path / "txt").is_dir() and any(path.glob("wav48*")),
    ),
    "folder": Format(
        what="recordings with STEM.txt, STEM.lab or metadata.csv, word times from TextGrid or JSON",
        read=folder_entries,
        looks=lambda path: _holds(path, ".txt", ".lab", "metadata.csv"),
    ),
    "audio": Format(
        what="recordings without any text",
        read=audio_entries,
        looks=lambda path: _tree(path, lambda _, names: any(map(is_audio, names))),
        text="optional",
    ),
}  # fmt: skip
"""Name -> format, the most specific first."""


def manifest_in(path: Path, name: str) -> Path:
    """The manifest of a folder, for formats that are one file; otherwise the path itself."""
    inside = [path / file for file in FORMATS[name].inside if (path / file).is_file()] if path.is_dir() else []
    return inside[0] if inside else path


def sniff(path: Path) -> str:
    """The name of the first format that a source looks like.

    Raises:
        DataError: nothing there, or nothing known; lists the formats.
    """
    if not str(path).startswith("hf:") and "{" not in path.name and not path.exists():
        raise DataError(f"source {path}: no such file or folder; correct the path")
    for name, kind in FORMATS.items():
        if kind.looks(path):
            return name
    raise DataError(f"source {path}: looks like none of {', '.join(FORMATS)}; name one with --format")
