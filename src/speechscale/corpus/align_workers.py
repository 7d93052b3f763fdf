"""Align utterances on worker processes, with a watchdog and a journal.

Enters: utterances and how to align them. Leaves: one journal entry per utterance, in the order of finishing. The one
decision worth knowing: aligners may be C code, so an utterance that kills or hangs its worker fails alone; the worker
is replaced and the rest goes on. Workers end with their parent, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from speechscale.align.aligner import Aligner, build_aligner
from speechscale.corpus.loaders import FileLoader
from speechscale.errors import DataError
from speechscale.records import Utterance
from speechscale.speech.audio import audio_duration_s, load_audio

PATIENCE_S, PATIENCE_FACTOR = 60.0, 2.0
"""A worker is stopped when an utterance takes PATIENCE_S plus PATIENCE_FACTOR times its length."""
AHEAD = 4
"""Utterances handed to each worker ahead of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker needs to know; hashable, so that a worker builds its aligner once."""

    aligner: str
    settings: tuple[tuple[str, Any], ...]
    audio_root: str
    timeout_s: float | None = None


class Journal:
    """Finished utterances, one JSON line each; the first line names the job they belong to.

    Raises:
        DataError: the file is the journal of another job.
    """

    def __init__(self, path: Path, job: str) -> None:
        self.path = path
        self.places: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            end = self._read(job)
        except DataError:
            self._file.close()
            raise
        self._file.truncate(end)  # A kill may have torn the last line.
        if end == 0:
            self._append({"job": job})

    def _read(self, job: str) -> int:
        """Note where each complete line starts; return where they end."""
        self._file.seek(0)
        end = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            entry = json.loads(line)
            if end == 0 and entry.get("job") != job:
                raise DataError(
                    f"aligning: {self.path.parent} holds the unfinished work of another corpus or other settings; "
                    f"repeat the earlier command, or remove the folder"
                )
            if end:
                self.places[entry["id"]] = end
            end += len(line)
        return end

    def add(self, entry: dict[str, Any]) -> None:
        """Write down a finished utterance; a kill after this does not lose it."""
        self.places[entry["id"]] = self._append(entry)

    def _append(self, entry: dict[str, Any]) -> int:
        place = self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        return place

    def get(self, id: str) -> dict[str, Any] | None:
        """The entry of an utterance, or None."""
        if id not in self.places:
            return None
        self._file.seek(self.places[id])
        entry: dict[str, Any] = json.loads(self._file.readline())
        return entry

    def close(self) -> None:
        self._file.close()


def run_alignment(
    utterances: Iterator[Utterance], job: Job, *, workers: int, finished: Callable[[dict[str, Any]], None]
) -> None:
    """Align every utterance; `finished` gets its entry. What it raises stops the work."""
    with _pool(workers) as pool:
        running: dict[Future[dict[str, Any]], Utterance] = {}
        while True:
            while len(running) < workers * AHEAD and (utterance := next(utterances, None)) is not None:
                limit_s = patience_s(job, utterance)
                running[pool.schedule(align_one, args=(job, utterance), timeout=limit_s)] = utterance
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                finished(_result(job, running.pop(future), future))


def _result(job: Job, utterance: Utterance, future: Future[dict[str, Any]]) -> dict[str, Any]:
    """What a worker found, or what became of it."""
    try:
        return future.result()
    except ProcessExpired as error:
        failed = f"the aligner died (exit code {error.exitcode}); check the audio, or use another aligner"
    except TimeoutError:
        limit_s = patience_s(job, utterance)
        failed = f"no answer within {limit_s:.0f} s; check that the transcript is its own, or cut the recording"
    return new_entry(utterance, failed=failed)


def patience_s(job: Job, utterance: Utterance) -> float:
    """How long an utterance may take."""
    if job.timeout_s is not None:
        return job.timeout_s
    length_s = 0.0
    if utterance.end_s is not None:
        length_s = utterance.end_s - utterance.start_s
    else:
        with contextlib.suppress(DataError):  # The worker tells what is wrong with the file.
            length_s = audio_duration_s(FileLoader(root=Path(job.audio_root)).path(utterance))
    return PATIENCE_S + PATIENCE_FACTOR * length_s


def new_entry(utterance: Utterance, **changes: Any) -> dict[str, Any]:
    """A journal entry: words as [text, start, end, score], the failure or "", counts and seconds."""
    entry: dict[str, Any] = {"id": utterance.id, "words": [], "failed": "", "flagged": [], "guessed": []}
    return entry | {"how": "", "score": None, "audio_s": 0.0, "work_s": 0.0} | changes


@lru_cache(1)
def _aligner(name: str, settings: tuple[tuple[str, Any], ...]) -> Aligner:
    return build_aligner(name, **dict(settings))


def align_one(job: Job, utterance: Utterance) -> dict[str, Any]:
    """Align one utterance, in a worker."""
    aligner = _aligner(job.aligner, job.settings)
    began = time.perf_counter()
    try:
        audio = load_audio(
            FileLoader(root=Path(job.audio_root)).path(utterance),
            start_s=utterance.start_s,
            end_s=utterance.end_s,
            channel=utterance.channel,
        )
        aligned = aligner.align(audio.audio, audio.sample_rate_hz, utterance.text)
    except DataError as error:
        # Relative paths, so that the same corpus gives the same skips wherever it lies.
        return new_entry(utterance, failed=str(error).replace(f"{job.audio_root}/", ""))
    return new_entry(
        utterance,
        words=[[word.text, word.start_s, word.end_s, word.score] for word in aligned.words],
        failed=aligned.failed,
        flagged=list(aligned.flagged),
        guessed=list(aligned.guessed),
        how=aligned.how,
        score=aligned.score,
        audio_s=round(len(audio.audio) / audio.sample_rate_hz, 3),
        work_s=round(time.perf_counter() - began, 3),
    )


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPool]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(max_workers=workers, context=context, initializer=_start, initargs=(os.getpid(),))
    try:
        yield pool
        pool.close()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.join()


def _start(parent: int) -> None:
    """One thread; Ctrl-C is the parent's business; end when the parent does."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
