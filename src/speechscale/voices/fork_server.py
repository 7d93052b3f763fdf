"""The loop of a voice worker: one fork of a pristine process answers each request.

Enters: one JSON request per line of stdin, and two open files. Leaves: one line of JSON per request on `out`; what the
fork wrote lies at the start of the files. The one decision worth knowing: engines keep state that no call resets, so
nothing is ever said in the process itself: equal requests give equal bytes, whatever was said before.
Standard library only; worker programs load it without site packages.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any, BinaryIO

FAILURES = {2: "it has no such voice", 3: "it could not synthesize", 4: "its output could not be kept"}
"""Exit statuses of a fork."""


def serve(
    prepare: Callable[[dict[str, Any]], Callable[[], int]], requests: BinaryIO, out: int, files: tuple[int, int]
) -> int:
    """Answer every request from a fork; return the exit status (1 when a fork died, so that nobody waits for it).

    Everything is made ready before the fork, and its results are read off the positions of the files after it.

    Args:
        prepare: turns a request into what the fork does, which returns its exit status.
        files: for audio and events.
    """
    for line in requests:
        request = json.loads(line)
        action, limit_s = prepare(request), int(request["limit_s"]) + 5
        for file in files:
            os.lseek(file, 0, os.SEEK_SET)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                signal.alarm(limit_s)  # A fork that hangs does not outlive everybody.
                status = action()
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status in FAILURES:
            send(out, json.dumps({"error": FAILURES[status]}))
        elif status != 0:
            return 1
        else:
            sizes = [os.lseek(file, 0, os.SEEK_CUR) for file in files]
            send(out, json.dumps({"audio_bytes": sizes[0], "event_bytes": sizes[1]}))
    return 0


def send(out: int, message: str) -> None:
    """Write one line to a file descriptor."""
    rest = message.encode() + b"\n"
    while rest:
        rest = rest[os.write(out, rest) :]


def keep(file: int, data: bytes) -> int:
    """Append data to a file; return the exit status."""
    while data:
        written = os.write(file, data)
        if written <= 0:
            return 4
        data = data[written:]
    return 0
