"""Speak shards on one or several processes.

Enters: shards in order. Leaves: a call for every finished one. The one decision worth knowing: workers watch their
parent and end with it, however it ends, so that a killed run leaves nobody behind who still writes.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from speechscale.corpus.spoken_shards import ShardJob, ShardResult, speak_shard_job
from speechscale.errors import DataError
from speechscale.records import Utterance
from speechscale.voices.engines import Cast
from speechscale.workers import behave, one_thread_environment

Shard = tuple[int, list[Utterance]]
_HERE: list[tuple[Cast, ShardJob]] = []
"""The cast and job of this worker process: models are loaded once."""


def run_shards(
    shards: Iterator[Shard], job: ShardJob, cast: Cast, *, workers: int, finished: Callable[[ShardResult], bool]
) -> None:
    """Speak every shard until `finished(result)` says that it is enough; with one worker, in this process.

    At most two shards per worker are waiting, so that memory does not grow with the corpus.

    Raises:
        DataError: from an engine, or a worker that was killed.
    """
    if workers < 1:
        raise DataError(f"workers = {workers}; give at least 1")
    if workers == 1:
        for number, utterances in shards:
            if finished(speak_shard_job(cast, job, number, utterances)):
                return
        return
    # Spawned, because engines may use threads; they do not survive a fork.
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_enter, initargs=(os.getpid(), job)
    )
    going: set[Future[ShardResult]] = set()
    try:
        with one_thread_environment():
            while True:
                for number, utterances in islice(shards, 2 * workers - len(going)):
                    going.add(pool.submit(_speak, number, utterances))
                if not going:
                    return
                done, going = wait(going, return_when=FIRST_COMPLETED)
                enough = False
                for future in done:
                    enough = finished(future.result()) or enough
                if enough:
                    return
    except BrokenProcessPool as error:
        raise DataError(
            "a worker was killed (out of memory?); run the same command again, with fewer workers"
        ) from error
    finally:
        _stop(pool)


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the workers now: what they have not finished is either not wanted, or spoken again by the next run."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _speak(number: int, utterances: list[Utterance]) -> ShardResult:
    cast, job = _HERE[0]
    return speak_shard_job(cast, job, number, utterances)


def _enter(parent: int, job: ShardJob) -> None:
    behave(parent)
    _HERE.append((Cast(job.addresses, job.options), job))
