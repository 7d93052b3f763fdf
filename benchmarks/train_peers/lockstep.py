"""One side of a race in lockstep: take a step, tell what it took, wait for the word to go on.

Contestants are processes of their own, in environments of their own, of which one runs at a time, so that all of them
meet the same machine. This file needs nothing but Python, and torch on a GPU.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


class Lockstep:
    """Speaks with benchmarks/train.py. What libraries print goes to stderr.

    Args:
        device: "cpu": processor seconds of this process are told. "cuda": wall seconds.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.began = self.now()

    def now(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    def pause(self, **told: Any) -> None:
        """A step is done; returns when the next may begin, leaves the program when none shall."""
        seconds = self.now() - self.began
        print(json.dumps({"seconds": seconds, **told}), file=self.out, flush=True)
        if sys.stdin.readline().strip() != "go":
            raise SystemExit
        self.began = self.now()
