"""Processes that train one model: who is here, and how parameters are spread over them.

Enters: torchrun's environment, an `Objective`. Leaves: a `Group` to talk to the others, and the module to call.
The one decision worth knowing: decisions (how many targets, stop or go) are exchanged over gloo on the CPU, so a step
never waits for the GPU to be told something that the CPU knows. Names of parameters stay those of transformers, which
is what its tensor-parallel plans are written in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from speechscale.errors import DataError
from speechscale.model.anatomy import blocks_of, causal_lm
from speechscale.model.folders import save_model
from speechscale.train.adapt import is_adapted, stock_state

Parallel = Literal["ddp", "fsdp"]
T = TypeVar("T")
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The processes of one run. Example: 8 GPUs of one machine: rank 0..7, world 8.

    Args:
        device: of this process. control: gloo group of small messages between CPUs; None when alone.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = CPU
    control: Any = None

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def exchange(self, numbers: Sequence[int]) -> Int[np.ndarray, "world k"]:
        """Tell everybody a few whole numbers and hear theirs."""
        own = torch.tensor(numbers, dtype=torch.int64)
        if self.world == 1:
            return own.numpy()[None]
        heard = [torch.empty_like(own) for _ in range(self.world)]
        with self._listening():
            dist.all_gather(heard, own, group=self.control)
        return torch.stack(heard).numpy()

    def gather(self, thing: T) -> list[T]:
        """What every process has, in the order of ranks, on every process."""
        if self.world == 1:
            return [thing]
        heard: list[Any] = [None] * self.world
        with self._listening():
            dist.all_gather_object(heard, thing, group=self.control)
        return heard

    def sum(self, values: Tensor) -> Tensor:
        """Add a tensor of this device over all processes, in place."""
        if self.world > 1:
            with self._listening():
                dist.all_reduce(values)
        return values

    @contextmanager
    def _listening(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # gloo and NCCL report a peer that is gone this way
            raise ConnectionError(
                f"process {self.rank} of {self.world}: another process of this run is gone ({_first_line(error)}); its "
                "own message says why. Start again with the same command to go on from the last checkpoint"
            ) from error


SOLO = Group()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:120]


@contextmanager
def open_group(device: str = "auto", *, timeout_s: float = 600.0) -> Iterator[Group]:
    """Join the processes that torchrun started; alone without torchrun.

    Args:
        device: "auto", "cpu" or "cuda". timeout_s: silence after which a peer counts as gone.

    Raises:
        DataError: a GPU is asked for where there is none, or more processes than GPUs.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind == "cuda" and local >= torch.cuda.device_count():
        raise DataError(
            f"process {local} of this machine wants GPU {local}, there are {torch.cuda.device_count()}; start at most "
            "one process per GPU (torchrun --nproc-per-node), or give --device cpu"
        )
    place = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(place)
    if "RANK" not in os.environ or world == 1:
        yield Group(device=place)
        return
    wait = timedelta(seconds=timeout_s)
    dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo", timeout=wait)
    try:
        control = dist.new_group(backend="gloo", timeout=wait)
        yield Group(rank=dist.get_rank(), world=dist.get_world_size(), device=place, control=control)
    finally:
        dist.destroy_process_group()


def spread(objective: Any, group: Group, parallel: Parallel) -> Any:
    """Make the module to call of an objective: itself, or wrapped for several processes.

    DDP keeps the whole model on each; FSDP2 shards blocks and the rest. Rows must have been added before.
    """
    if group.world == 1:
        return objective
    if parallel == "ddp":
        return DistributedDataParallel(objective, gradient_as_bucket_view=True)
    mesh = init_device_mesh(group.device.type, (group.world,))
    bf16 = objective.precision == "bf16"
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    objective.autocast = False  # the parameters come as bf16 already
    for block in blocks_of(objective.model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(objective, mesh=mesh, mp_policy=policy)
    return objective


def is_sharded(module: Any) -> bool:
    """Whether FSDP2 holds the parameters."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


@contextmanager
def accumulating(call: Any, last: bool) -> Iterator[None]:
    """Hold back the exchange of gradients until the last part of a batch."""
    if isinstance(call, DistributedDataParallel):
        with nullcontext() if last else call.no_sync():
            yield
        return
    if is_sharded(call):
        call.set_requires_gradient_sync(last)
    yield


def clip_gradients(module: Any, longest: float) -> float:
    """Clip the gradient of all parameters together; return its norm before."""
    norm = torch.nn.utils.clip_grad_norm_(module.parameters(), longest, foreach=True)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


@contextmanager
def whole_outside_blocks(objective: Any) -> Iterator[None]:
    """Inside, the parameters of embedding, final norm and head are whole on each process; blocks gather their own."""
    if not is_sharded(objective):
        yield
        return
    objective.unshard()
    try:
        yield
    finally:
        objective.reshard()


def local_copy(module: Any) -> dict[str, Tensor]:
    """This process' part of the parameters that are trained, in host memory; tied ones once."""
    return {name: _local(p).detach().to("cpu", copy=True) for name, p in module.named_parameters() if p.requires_grad}


@torch.no_grad()
def restore_local(module: Any, copy: Mapping[str, Tensor]) -> None:
    """Put a `local_copy` back."""
    for name, parameter in module.named_parameters():
        if name in copy:
            _local(parameter).copy_(copy[name])


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def full_state(model: Any) -> dict[str, Tensor]:
    """The whole state dict, on the CPU of rank 0; elsewhere empty if the model is sharded. Called by all processes."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: Any = get_model_state_dict(model, options=options) if is_sharded(model) else model.state_dict()
    return dict(state)


def load_full_state(model: Any, state: Mapping[str, Tensor], group: Group) -> None:
    """Put a whole state dict, given on rank 0, into a model of any layout. Called by all processes."""
    if group.world == 1:
        model.load_state_dict(state)
        return
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, dict(state) if group.leads else {}, options=options)


def save_stock(model: Any, folder: Path, group: Group) -> None:
    """Write the stock Hugging Face folder of a model of any layout, adapters merged. By all, written by rank 0."""
    plain = not is_sharded(model) and not is_adapted(model)
    state = None if plain else full_state(model)
    if group.leads:
        save_model(causal_lm(model), folder, None if state is None else stock_state(model, state))
    group.gather(None)
