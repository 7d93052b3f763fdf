"""Recordings of prompt and endings that were made apart become one recording each.

Enters: clips. Leaves: 16-bit mono FLAC files below the benchmark's own audio folder: the parts as they are, and prompt
and ending behind each other. The one decision worth knowing: where the rates of two parts differ, the lower one is
resampled to the higher, and nothing else touches the sound; the cut is the exact length of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from speechscale.evals.benchmarks.hearing import clip_path
from speechscale.evals.benchmarks.raw import Clip
from speechscale.files import canonical_sha256
from speechscale.journal import Row, read_part, run_parts
from speechscale.progress import Watch
from speechscale.speech.audio import load_audio, write_audio

PART_FILES = 128
FOLDER_FILES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """One file to write: these clips behind each other, with `pause_s` of silence between them."""

    clips: tuple[Clip, ...]
    rate_hz: int
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A file below the audio folder, its length, and where its last clip begins."""

    path: str
    seconds: float
    cut_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbered:
    id: str
    path: str
    sheet: Sheet


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinWork:
    """Write files part by part (a `journal.Work`)."""

    root: Path
    audio: Path
    files: tuple[_Numbered, ...]

    def start(self) -> None: ...

    def items(self, part: int) -> Sequence[_Numbered]:
        return self.files[part * PART_FILES : (part + 1) * PART_FILES]

    def rows(self, items: Sequence[_Numbered]) -> Iterator[Row]:
        for file in items:
            audio, cut_s = join(self.root, file.sheet)
            write_audio(self.audio / file.path, audio, file.sheet.rate_hz)
            yield {"id": file.id, "seconds": len(audio) / file.sheet.rate_hz, "cut_s": cut_s}


def join(root: Path, sheet: Sheet) -> tuple[np.ndarray, float]:
    """Samples of all clips behind each other, and the second where the last one begins.

    Example: 0.5 s and 0.25 s with a pause of 0.1 s -> 0.85 s of samples, 0.6
    """
    pause = np.zeros(round(sheet.pause_s * sheet.rate_hz), np.float32)
    parts: list[np.ndarray] = []
    for clip in sheet.clips:
        loaded = load_audio(
            clip_path(root, clip),
            sample_rate_hz=sheet.rate_hz,
            start_s=clip.start_s,
            end_s=clip.end_s,
            channel=clip.channel,
        )
        parts += [pause, loaded.audio] if parts else [loaded.audio]
    return np.concatenate(parts), sum(len(part) for part in parts[:-1]) / sheet.rate_hz


def write_sheets(
    root: Path, sheets: Sequence[Sheet], audio: Path, journal: Path, *, workers: int = 0, watch: Watch | None = None
) -> dict[Sheet, Written]:
    """Write each distinct sheet once; the same call goes on after an interruption.

    Args:
        journal: folder of what is done; delete it when all is used. workers: processes; 0 works in this one.

    Raises:
        DataError: a clip that cannot be read; they are heard before.
    """
    distinct = tuple(dict.fromkeys(sheets))
    files = tuple(
        _Numbered(id=f"{number:07d}", path=f"joined/{number // FOLDER_FILES:06d}/{number:07d}.flac", sheet=sheet)
        for number, sheet in enumerate(distinct)
    )
    parts = [len(files[first : first + PART_FILES]) for first in range(0, len(files), PART_FILES)]
    recipe = {"sheets": canonical_sha256({"sheets": [asdict(sheet) for sheet in distinct]})}
    work = JoinWork(root=root, audio=audio, files=files)
    run_parts(work, parts, journal, recipe=recipe, workers=workers, watch=watch)
    rows = [row for part in range(len(parts)) for row in read_part(journal, part)]
    return {
        file.sheet: Written(path=file.path, seconds=row["seconds"], cut_s=row["cut_s"])
        for file, row in zip(files, rows, strict=True)
    }
