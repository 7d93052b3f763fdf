"""Step functions of the tests: tiny, importable by a spawned worker."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def write(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Write the sum of the inputs' numbers plus its own."""
    total = config["value"] + sum(float((path / "value.txt").read_text()) for path in inputs.values())
    (out / "value.txt").write_text(str(total))
    return {"total": total}


def name_itself(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Write down what its folder is called, as results are named."""
    (out / "value.txt").write_text(out.name)
    return {"called": out.name}


def fail(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Fail after having written half a result."""
    (out / "value.txt").write_text("half")
    raise ValueError("item 7 is broken; mend it")


def die_once(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Be killed on the first try (as by the kernel when memory is short), succeed on the second."""
    marker = Path(config["marker"])
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return write(config, inputs, out)


def disk_full(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    raise OSError(28, "No space left on device")


def disk_full_wrapped(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """As safetensors says it."""
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def slow(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    time.sleep(config["seconds"])
    return write(config, inputs, out)


def meet(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Wait until two workers are here; tell which GPU this one sees."""
    place = Path(config["place"])
    place.mkdir(exist_ok=True)
    (place / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(place.iterdir())) < 2:
        assert time.monotonic() < deadline, "nobody came"
        time.sleep(0.05)
    (out / "device.txt").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    return {}
