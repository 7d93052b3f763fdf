"""Which GPU a worker sees, and which device a command means.

Enters: numbers of jobs and of workers per GPU; the name of a device. Leaves: a device for each worker; its own name.
The one decision worth knowing: several small models share a GPU as processes, not as one batched step: each keeps its
own data, budget and fate, a run that diverges or dies takes nothing along, and a run's code is the same anywhere.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from speechscale.errors import DataError

DRIVERS = ("/dev/nvidiactl", "/dev/kfd")
"""There where a machine has GPUs of Nvidia or AMD."""


def visible_gpus() -> list[str]:
    """GPUs this process may use, by what CUDA_VISIBLE_DEVICES calls them; without a driver torch is not asked."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    if not any(Path(driver).exists() for driver in DRIVERS):
        return []
    import torch  # seconds, and only where there may be a GPU

    return [str(number) for number in range(torch.cuda.device_count())]


def resolved(device: str) -> str:
    """Example: "auto" -> "cuda" where there is one, else "cpu"; "cuda:1" stays.

    Raises:
        DataError: another name, or a GPU that is not there.
    """
    if device == "cpu":
        return device
    if device != "auto" and not re.fullmatch(r"cuda(:\d+)?", device):
        raise DataError(f"device '{device}' is not known; allowed: cpu, cuda, cuda:NUMBER, auto")
    import torch  # as above

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if there else "cpu"
    if int(device.partition(":")[2] or 0) >= there:
        raise DataError(f"device '{device}': {there} GPUs are visible here; give cpu or auto")
    return device


def share_out(
    jobs: int | None, per_gpu: int | None, cores: int, gpus: list[str] | None = None
) -> tuple[int, list[str]]:
    """How many workers, and the GPU of each (none where there is none).

    Args:
        jobs, per_gpu: as asked for; None for the usual. gpus: None for those that are visible.

    Raises:
        DataError: more workers than places on GPUs, or places without a GPU.

    Example: None, 3, 16 cores, GPUs 0 and 1 -> 6, ["0", "1", "0", "1", "0", "1"]
    """
    gpus = visible_gpus() if gpus is None else gpus
    if not gpus:
        if per_gpu is not None:
            raise DataError(f"--per-gpu {per_gpu}: there is no GPU here; leave it out to run on {cores} cores")
        return jobs or cores, []
    places = gpus * (per_gpu or 1)
    if jobs is not None and jobs > len(places):
        needed = -(-jobs // len(gpus))
        raise DataError(
            f"--jobs {jobs}: {len(gpus)} GPUs with --per-gpu {per_gpu or 1} have {len(places)} places; take "
            f"--per-gpu {needed}, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to run on {cores} cores"
        )
    return jobs or len(places), places
