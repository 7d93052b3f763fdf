"""An sbatch script for one training: one process per GPU, a checkpoint before the time limit, and on from there.

Enters: a job file and the size of the allocation. Leaves: the script's text.
The one decision worth knowing: srun starts the processes itself, without torchrun between, so that Slurm's warning
signal reaches each of them; a process that was asked to stop ends with 128 + SIGUSR1, and then the script requeues.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

ASKED = 128 + signal.SIGUSR1
TEMPLATE = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={tasks}
{gpus}#SBATCH --cpus-per-task={cpus}
#SBATCH --time={limit}
{more}#SBATCH --signal=USR1@{warn_s}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={log}
{setup}
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export OMP_NUM_THREADS={cpus}
srun --kill-on-bad-exit=1 bash -c '
export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
exec python -m speechscale train {arguments}'
code=$?
if [ "$code" -eq {asked} ]; then
    # Saved before the time limit: the job goes on from its checkpoint when its turn comes again.
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
"""


def sbatch_script(
    config: Path,
    out: Path,
    *,
    nodes: int = 1,
    gpus_per_node: int = 8,
    cpus_per_gpu: int = 8,
    limit: str = "24:00:00",
    warn_s: int = 300,
    partition: str | None = None,
    account: str | None = None,
    setup: str = "",
    extra: Sequence[str] = (),
) -> str:
    """Write the script.

    Args:
        gpus_per_node: 0 starts one process per node on its CPUs. warn_s: seconds before `limit` for a checkpoint.
        setup: shell line before the run. extra: further arguments of `speechscale train`.
    """
    words = [shlex.quote(str(word)) for word in (config, "--out", out, *extra)]
    more = [f"#SBATCH --{key}={value}\n" for key, value in (("partition", partition), ("account", account)) if value]
    return TEMPLATE.format(
        name=out.name,
        nodes=nodes,
        tasks=max(1, gpus_per_node),
        gpus=f"#SBATCH --gpus-per-node={gpus_per_node}\n" if gpus_per_node else "",
        cpus=cpus_per_gpu,
        limit=limit,
        more="".join(more),
        warn_s=warn_s,
        log=f"{out.name}-%j.log",
        setup=setup,
        arguments=" ".join(words).replace("'", "'\\''"),
        asked=ASKED,
    )
