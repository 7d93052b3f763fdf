"""Worker processes: one thread each, and none that outlives its parent.

Enters: a pool about to start. Leaves: workers that behave. The one decision worth knowing: thread counts are in the
environment before a worker starts, because libraries read them when they are loaded: set inside the worker they came
too late, and two idle BLAS threads doubled the processor time of encoding.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
WATCH_S = 0.25


@contextmanager
def one_thread_environment() -> Iterator[None]:
    """Let processes started inside the block use one thread per library; the caller's own threads stay as they are."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def behave(parent: int) -> None:
    """In a worker: Ctrl-C is the parent's business, and when the parent (its process id) is gone, so is the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)
