"""Listen to the clips of a benchmark once: length, loudness, checksum.

Enters: clips below a root. Leaves: `Heard` per clip, or why it cannot be used. The one decision worth knowing: files
are known by their bytes, which no decoder version can change; only audio that was made here is known by its samples,
which no encoder version can change.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import Clip
from speechscale.files import canonical_sha256
from speechscale.journal import Row, read_part, run_parts, skip_row
from speechscale.progress import Watch
from speechscale.speech.audio_files import MEMBER, find_source
from speechscale.speech.audio_stream import open_recording

PART_CLIPS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """A clip to hear; with `cut_s` what lies before and behind that second is also measured alone."""

    clip: Clip
    cut_s: float | None = None

    @property
    def id(self) -> str:
        """Its path, which names the file where something is wrong."""
        return self.clip.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What was heard.

    Args:
        peak, prompt_peak, ending_peak: shares of full scale; of a clip without cut all is prompt and ending.
        sha256: of the whole file, or of samples made here.
    """

    seconds: float
    rate_hz: int
    peak: float
    prompt_peak: float
    ending_peak: float
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unheard:
    """Why a clip cannot be used. missing: the file is not there."""

    reason: str
    remedy: str
    missing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HearWork:
    """Hear clips part by part (a `journal.Work`)."""

    root: Path
    clips: tuple[Listen, ...]
    made_here: bool

    def start(self) -> None: ...

    def items(self, part: int) -> Sequence[Listen]:
        return self.clips[part * PART_CLIPS : (part + 1) * PART_CLIPS]

    def rows(self, items: Sequence[Listen]) -> Iterator[Row]:
        for item in items:
            try:
                heard = hear(self.root, item, made_here=self.made_here)
            except DataError as error:
                row = skip_row(item.id, str(error).replace(f"{self.root}/", ""))
                yield {**row, "missing": not (self.root / item.clip.path.partition(MEMBER)[0]).is_file()}
                continue
            yield {"id": item.id, **asdict(heard)}


def hear(root: Path, item: Listen, *, made_here: bool = False) -> Heard:
    """Listen to one clip at its own rate, in bounded memory.

    Args:
        made_here: the checksum is that of the samples, else that of the file.

    Raises:
        DataError: outside the root, missing, damaged, not finite, or a range or channel it does not have.
    """
    clip = item.clip
    path = clip_path(root, clip)
    samples = hashlib.sha256()
    before = behind = 0.0
    count = 0
    with open_recording(
        path, sample_rate_hz=None, start_s=clip.start_s, end_s=clip.end_s, channel=clip.channel
    ) as recording:
        rate_hz = recording.rate_hz
        cut = math.inf if item.cut_s is None else round(item.cut_s * rate_hz)
        for block in recording.blocks():
            split = int(min(max(cut - count, 0), len(block)))
            before = max(before, float(abs(block[:split]).max(initial=0.0)))
            behind = max(behind, float(abs(block[split:]).max(initial=0.0)))
            count += len(block)
            if made_here:
                samples.update(block.astype("<f4").tobytes())
        if recording.bad:
            raise recording.not_finite()
    return Heard(
        seconds=count / rate_hz,
        rate_hz=rate_hz,
        peak=max(before, behind),
        prompt_peak=before,
        ending_peak=max(before, behind) if item.cut_s is None else behind,
        sha256=samples.hexdigest() if made_here else _file_sha256(path),
    )


def clip_path(root: Path, clip: Clip) -> str:
    """Path of a clip's file ("FILE" or "TAR::MEMBER"). Raises DataError if it leaves the root."""
    file, mark, member = clip.path.partition(MEMBER)
    if not file or not (root / file).resolve().is_relative_to(root.resolve()):
        raise DataError(f"audio '{clip.path}' is not inside the benchmark's folder; give a path below it")
    return f"{root / file}{mark}{member}"


def hear_clips(
    root: Path,
    clips: Sequence[Listen],
    journal: Path,
    *,
    made_here: bool = False,
    workers: int = 0,
    watch: Watch | None = None,
) -> dict[Listen, Heard | Unheard]:
    """Hear each distinct clip; the same call goes on after an interruption.

    Args:
        journal: folder of what is done; delete it when all is used. workers: processes; 0 works in this one.
    """
    distinct = tuple(dict.fromkeys(clips))
    work = HearWork(root=root, clips=distinct, made_here=made_here)
    parts = [len(distinct[first : first + PART_CLIPS]) for first in range(0, len(distinct), PART_CLIPS)]
    recipe = {"clips": canonical_sha256({"clips": [asdict(item) for item in distinct]}), "made_here": made_here}
    run_parts(work, parts, journal, recipe=recipe, workers=workers, watch=watch)
    rows = [row for part in range(len(parts)) for row in read_part(journal, part)]
    return {item: _heard(row) for item, row in zip(distinct, rows, strict=True)}


def _heard(row: Row) -> Heard | Unheard:
    if "skip" in row:
        return Unheard(reason=row["skip"][0], remedy=row["skip"][1], missing=row.get("missing", False))
    return Heard(**{key: value for key, value in row.items() if key != "id"})


def _file_sha256(path: str) -> str:
    source = find_source(path)
    return _bytes_sha256(path, source.changed_ns, source.size)


@lru_cache(maxsize=64)
def _bytes_sha256(path: str, changed_ns: int, size: int) -> str:
    """Once per file, as long as clips of one file follow each other."""
    del changed_ns, size
    digest = hashlib.sha256()
    with find_source(path).open() as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
