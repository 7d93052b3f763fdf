"""Speak one shard of a text corpus: audio files, and a journal of what is done.

Enters: the utterances of a shard. Leaves: AUDIO/<shard>/ID.flac and JOURNAL/<shard>.jsonl, one line per utterance. The
one decision worth knowing: an utterance is done when its line is in the journal, and the line is written after its
audio is complete; whoever is killed at any moment leaves at most one utterance to be spoken again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from speechscale.errors import DataError
from speechscale.files import complete_file
from speechscale.records import NO_TIME, Utterance, Word
from speechscale.speech.audio import TARGET_RATE_HZ, write_audio
from speechscale.voices.engines import Cast, VoiceOptions
from speechscale.voices.segments import OnError
from speechscale.voices.spoken import Spoken

Judge = Callable[[np.ndarray, str], float]
"""judge(audio at 16 kHz, text) -> word error rate. Instances travel to worker processes, so they can be pickled."""
AUDIO_FORMATS = ("flac", "wav")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardJob:
    """What every shard of a run has in common; sent to the workers.

    Args:
        audio, journal: folders. addresses, options: the cast. max_wer: None keeps everything.
        on_error: "skip" or "stop". retry_skipped: speak again what an earlier run could not.
    """

    audio: Path
    journal: Path
    addresses: tuple[str, ...]
    options: VoiceOptions
    audio_format: str = "flac"
    judge: Judge | None = None
    max_wer: float | None = None
    on_error: str = "skip"
    retry_skipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A journal line: a spoken utterance (samples at 16 kHz, one time pair per word) or one that was dropped."""

    id: str
    samples: int = 0
    times: tuple[tuple[int, int], ...] = ()
    wer: float | None = None
    reason: str = ""
    remedy: str = ""

    @property
    def kept(self) -> bool:
        return not self.reason

    def dump(self) -> str:
        row: dict[str, Any] = {"id": self.id}
        if self.kept:
            row |= {"samples": self.samples, "times": [sample for pair in self.times for sample in pair]}
            if self.wer is not None:
                row["wer"] = self.wer
        else:
            row |= {"reason": self.reason, "remedy": self.remedy}
        return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"

    @classmethod
    def load(cls, text: str) -> Line:
        row = json.loads(text)
        flat = row.pop("times", [])
        return cls(**row, times=tuple(zip(flat[::2], flat[1::2], strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """Counts of one finished shard; `new_samples` were spoken in this run."""

    number: int
    samples: int
    new_samples: int
    kept: int
    dropped: int


def shard_name(number: int) -> str:
    return f"{number:06d}"


def audio_path(number: int, id: str, audio_format: str) -> str:
    """Path of an utterance below the audio folder."""
    return f"{shard_name(number)}/{id}.{audio_format}"


def speak_shard_job(cast: Cast, job: ShardJob, number: int, utterances: Sequence[Utterance]) -> ShardResult:
    """Speak what is missing of a shard, in order, and leave a complete journal.

    Raises:
        DataError: an engine is gone; with `on_error` "stop" also the first utterance that cannot be spoken.
    """
    path = job.journal / f"{shard_name(number)}.jsonl"
    with _locked(path) as file:
        done = _recover(file, utterances, job, number)
        pending = [utterance for utterance in utterances if utterance.id not in done]
        new_samples = 0
        for line in _spoken_lines(cast, job, number, pending):
            file.write(line.dump().encode())
            file.flush()
            done[line.id] = line
            new_samples += line.samples
        os.fsync(file.fileno())
    lines = [done[utterance.id] for utterance in utterances]
    if pending and len(done) > len(pending):
        _write_journal(path, lines)  # Lines of another run may stand in another order.
    return ShardResult(
        number=number,
        samples=sum(line.samples for line in lines),
        new_samples=new_samples,
        kept=sum(line.kept for line in lines),
        dropped=sum(not line.kept for line in lines),
    )


def read_journal(journal: Path, number: int) -> list[Line]:
    """The lines of a finished shard. Raises DataError if there are none or one is damaged."""
    path = journal / f"{shard_name(number)}.jsonl"
    try:
        return [Line.load(text) for text in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"journal {path}: not readable ({error}); delete it and run the same command again") from error


def trim_shards(job: ShardJob, max_samples: float) -> None:
    """Drop every utterance behind the one that reaches `max_samples`, counted from the first shard."""
    samples = 0
    for path in sorted(job.journal.glob("[0-9]*.jsonl")):
        number = int(path.stem)
        folder = job.audio / shard_name(number)
        if samples >= max_samples:
            # Perhaps a shard that a stopped worker left unfinished, so its journal is not read.
            for file in folder.iterdir() if folder.is_dir() else ():
                file.unlink()
            if folder.is_dir():
                folder.rmdir()
            path.unlink()
            continue
        lines = read_journal(job.journal, number)
        for index, line in enumerate(lines):
            samples += line.samples
            if samples >= max_samples and index + 1 < len(lines):
                for surplus in lines[index + 1 :]:
                    (job.audio / audio_path(number, surplus.id, job.audio_format)).unlink(missing_ok=True)
                _write_journal(path, lines[: index + 1])
                break


def timed_words(words: Sequence[str], line: Line) -> tuple[Word, ...]:
    """Words with seconds from the samples of a line."""
    assert len(words) == len(line.times), f"{line.id}: {len(words)} words, {len(line.times)} times"
    return tuple(
        Word(text=word)
        if start == NO_TIME
        else Word(text=word, start_s=start / TARGET_RATE_HZ, end_s=end / TARGET_RATE_HZ)
        for word, (start, end) in zip(words, line.times, strict=True)
    )


def _spoken_lines(cast: Cast, job: ShardJob, number: int, pending: Sequence[Utterance]) -> Iterator[Line]:
    """Speak, judge and write audio; yield each utterance's line in order, when its audio is complete."""
    failed: dict[str, Line] = {}

    def fail(id: str, message: str) -> None:
        if job.on_error == "stop":
            raise DataError(f"utterance {id}: {message}")
        reason, _, remedy = message.rpartition("; ")
        failed[id] = Line(id=id, reason=reason or remedy, remedy=remedy if reason else "correct or drop the utterance")

    waiting = iter(pending)
    for spoken in cast.speak(pending, fail):
        for utterance in waiting:
            if utterance.id == spoken.id:
                yield _kept(job, number, utterance, spoken, fail, failed)
                break
            yield failed.pop(utterance.id)
    for utterance in waiting:
        yield failed.pop(utterance.id)


def _kept(
    job: ShardJob, number: int, utterance: Utterance, spoken: Spoken, fail: OnError, failed: dict[str, Line]
) -> Line:
    """Judge a spoken utterance and write it."""
    wer = None
    if job.judge is not None:
        wer = round(float(job.judge(spoken.audio, utterance.text)), 4)
        if job.max_wer is not None and wer > job.max_wer:
            fail(
                utterance.id, f"word error rate {wer:g} is above {job.max_wer:g}; use another voice or raise --max-wer"
            )
            return failed.pop(utterance.id)
    write_audio(job.audio / audio_path(number, spoken.id, job.audio_format), spoken.audio, TARGET_RATE_HZ)
    times = tuple((start, end) for _, start, end in spoken.words)
    return Line(id=spoken.id, samples=len(spoken.audio), times=times, wer=wer)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Open a journal for one process alone: a worker of a killed run ends before its journal is taken over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for draft in path.parent.glob(f".{path.name}.*.tmp"):
        draft.unlink()  # What a killed `complete_file` left.
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _recover(file: BinaryIO, utterances: Sequence[Utterance], job: ShardJob, number: int) -> dict[str, Line]:
    """Read what an earlier run finished, cut a torn last line off, and delete drafts and audio without a line."""
    file.seek(0)
    wanted = {utterance.id for utterance in utterances}
    done: dict[str, Line] = {}
    whole, found = bytearray(), file.read()
    for data in found.splitlines(keepends=True):
        try:
            line = Line.load(data.decode())
        except (ValueError, TypeError):
            break
        if not data.endswith(b"\n"):
            break
        is_there = line.kept and (job.audio / audio_path(number, line.id, job.audio_format)).is_file()
        if line.id in wanted and (is_there or (not line.kept and not job.retry_skipped)):
            done[line.id] = line
            whole += data
    if found.startswith(whole):
        file.truncate(len(whole))  # Opened for appending: writes go to the new end.
    else:
        file.truncate(0)
        file.write(whole)
        file.flush()
    folder = job.audio / shard_name(number)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {f"{id}.{job.audio_format}" for id in done}
    for stray in (path for path in folder.iterdir() if path.name not in kept):
        stray.unlink()
    return done


def _write_journal(path: Path, lines: Sequence[Line]) -> None:
    with complete_file(path) as draft:
        draft.write_text("".join(line.dump() for line in lines), encoding="utf-8")
