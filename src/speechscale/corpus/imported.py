"""A corpus on disk: utterances.parquet, corpus.json, skips.jsonl.

Enters: utterances of any reader, aligner or voice. Leaves: a folder that every later step opens, whatever the source
was. The one decision worth knowing: audio stays where it is; the folder holds its root, and utterances hold paths
below it, so that a corpus of terabytes is imported without copying a byte. Writers that make audio put it in `audio/`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechscale.corpus.loaders import FileLoader
from speechscale.corpus.tables import read_utterances, write_utterances
from speechscale.errors import DataError
from speechscale.files import read_versioned, write_json
from speechscale.records import Utterance
from speechscale.skips import SkipLog

FORMAT = "speechscale corpus"
FORMAT_VERSION = 1
_AGAIN = "import the corpus again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """An opened corpus folder.

    Args:
        folder: where corpus.json lies. audio_root: where the audio paths start.
        info: source, options and counts, as written by `write_corpus`.
        sha256: checksum of the utterance table.
    """

    folder: Path
    audio_root: Path
    info: dict[str, Any]
    sha256: str

    def utterances(self, *, split: str | None = None) -> Iterator[Utterance]:
        """Stream the utterances in the order written, of one split if named."""
        for utterance in read_utterances(self.folder / "utterances.parquet"):
            if split is None or utterance.split == split:
                yield utterance

    def loader(self) -> FileLoader:
        """What turns the utterances into audio."""
        return FileLoader(root=self.audio_root)


def write_corpus(
    folder: Path, utterances: Iterable[Utterance], *, audio_root: Path, info: dict[str, Any], skips: SkipLog
) -> Corpus:
    """Write a corpus folder; corpus.json comes last, so that a folder that has it is complete.

    Args:
        audio_root: stored relative to `folder` where it lies inside it, absolute otherwise.
        info: JSON-like facts about the source ("source", "options", ...); counts are added.

    Raises:
        DataError: no utterance came (with the first reasons).
    """
    begin_corpus(folder)
    count = write_utterances(Path(folder) / "utterances.parquet", utterances)
    return finish_corpus(folder, count=count, audio_root=audio_root, info=info, skips=skips)


def begin_corpus(folder: Path) -> None:
    """Make the folder, and no corpus yet of what is in it."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "corpus.json").unlink(missing_ok=True)


def finish_corpus(folder: Path, *, count: int, audio_root: Path, info: dict[str, Any], skips: SkipLog) -> Corpus:
    """Write skips.jsonl and corpus.json around a finished table of `count` utterances; see `write_corpus`."""
    folder = Path(folder)
    skips.write(folder / "skips.jsonl")
    if count == 0:
        raise DataError(f"corpus {folder}: not one utterance can be used: {skips.first() or 'the source is empty'}")
    root, home = Path(audio_root).resolve(), folder.resolve()
    inside = root.is_relative_to(home)
    info = {**info, "utterances": count, "dropped": len(skips)}
    sha256 = _sha256(folder / "utterances.parquet")
    write_json(
        folder / "corpus.json",
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "audio_root": root.relative_to(home).as_posix() if inside else str(root),
            "utterances_sha256": sha256,
            "info": info,
        },
    )
    return Corpus(folder=folder, audio_root=root, info=info, sha256=sha256)


def open_corpus(folder: Path) -> Corpus:
    """Open a folder written by `write_corpus`.

    Raises:
        DataError: no corpus there, another format, or a table that was altered; the message names the file.
    """
    folder = Path(folder)
    path = folder / "corpus.json"
    if not path.is_file():
        raise DataError(
            f"corpus {folder}: no corpus.json in it; make one with: speechscale corpus import SOURCE {folder}"
        )
    saved = read_versioned(path, "corpus", _AGAIN, format=FORMAT, version=FORMAT_VERSION)
    missing = [key for key in ("audio_root", "utterances_sha256", "info") if key not in saved]
    if missing:
        raise DataError(f"corpus {path}: field '{missing[0]}' is missing; {_AGAIN}")
    table = folder / "utterances.parquet"
    if not table.is_file() or _sha256(table) != saved["utterances_sha256"]:
        raise DataError(f"corpus {table}: not the table that corpus.json names; {_AGAIN}")
    return Corpus(
        folder=folder,
        audio_root=folder / saved["audio_root"],
        info=saved["info"],
        sha256=saved["utterances_sha256"],
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
