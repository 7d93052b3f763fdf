"""Run a function of a test under torchrun, several processes on this machine, and hear what each returned.

Example: run_processes("tests.train.test_preference:curve", tmp_path, parallel="ddp") -> [of rank 0, of rank 1]
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TAIL = 4_000


def run_processes(
    function: str, folder: Path, *, processes: int = 2, timeout_s: float = 110, **arguments: Any
) -> list[Any]:
    """Call `module:name` with JSON arguments on every process.

    The function joins the others itself (`open_group("cpu")`) and returns something that JSON can hold.

    Raises:
        AssertionError: a process failed; the message ends with what it said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "arguments.json").write_text(json.dumps(arguments))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*torchrun, "-m", "tests.train.processes", function, str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{function} on {processes} processes:\n{done.stderr[-TAIL:]}"
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(processes)]


def main(function: str, folder: str) -> None:
    """One process."""
    import torch

    torch.set_num_threads(1)
    module, name = function.split(":")
    arguments = json.loads((Path(folder) / "arguments.json").read_text())
    result = getattr(importlib.import_module(module), name)(**arguments)
    (Path(folder) / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
