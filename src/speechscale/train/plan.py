"""What a training would be: parameters, tokens, compute and memory, before anything is spent.

Enters: a prepared job and where it would run. Leaves: lines to print.
The one decision worth knowing: the plan is made from the shape in the config alone; no weights are read.
"""

from __future__ import annotations

from typing import Literal

import torch

from speechscale.model.fitting import advise, largest_micro_rows
from speechscale.model.memory import Job, gib, plan_memory
from speechscale.model.shape import params
from speechscale.train.attention import Attention, choose_kernel
from speechscale.train.config import Runtime, bf16_from_params
from speechscale.train.objective import CHUNK_LOGITS, GPU_CHUNK_LOGITS, Precision
from speechscale.train.parallel import Group, Parallel
from speechscale.train.run import Prepared


def plan_lines(
    prepared: Prepared,
    *,
    world: int,
    device: Literal["auto", "cpu", "cuda"],
    parallel: Parallel,
    micro_rows: int | None,
    recompute: bool,
    attention: Attention,
    memory_bytes: int | None,
) -> list[str]:
    """Describe a job.

    Args:
        world: processes. memory_bytes: of a device; None asks the GPU at hand.

    Raises:
        DataError: rows that cannot be shared out.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    job = _memory_job(prepared, world, kind, parallel, micro_rows, recompute, attention)
    lines = [*_recipe(prepared, world, kind), *plan_memory(job).lines()]
    have = memory_bytes
    if have is None and kind == "cuda" and torch.cuda.is_available():
        have = torch.cuda.get_device_properties(0).total_memory
    if have is None:
        return lines
    need = plan_memory(job).need
    lines.append(
        f"device: {gib(have)} GiB; {'fits' if need <= have else 'DOES NOT FIT'}; at most "
        f"{largest_micro_rows(job, have)} micro_rows"
    )
    return lines + ([] if need <= have else [f"  it would fit with {way}" for way in advise(job, have)])


def _memory_job(
    prepared: Prepared,
    world: int,
    kind: Literal["cpu", "cuda"],
    parallel: Parallel,
    micro_rows: int | None,
    recompute: bool,
    attention: Attention,
) -> Job:
    config, adapt = prepared.config, prepared.job.adapt
    parts = Runtime(micro_rows=micro_rows).parts(config, Group(world=world))
    precision = _precision(prepared, kind)
    return Job(
        size=prepared.size,
        vocab=prepared.vocabulary.size,
        micro_rows=config.batch_rows // world // parts,
        context=config.context,
        precision=precision,
        kernel=choose_kernel(attention, torch.device(kind), precision),
        device=kind,
        chunk_logits=CHUNK_LOGITS if kind == "cpu" else GPU_CHUNK_LOGITS,
        world=world,
        parallel=parallel,
        parts=parts,
        checkpointing=recompute,
        trains=adapt.trains,
        lora_rank=adapt.rank if adapt.trains == "lora" else 0,
        fp32_attention=kind == "cpu",
    )


def _precision(prepared: Prepared, kind: str) -> Precision:
    if prepared.config.precision != "auto":
        return prepared.config.precision
    body = params(prepared.size, prepared.vocabulary.size).non_embedding
    return "bf16" if kind == "cuda" or body >= bf16_from_params() else "fp32"


def _recipe(prepared: Prepared, world: int, kind: str) -> list[str]:
    config, count = prepared.config, params(prepared.size, prepared.vocabulary.size)
    flops = prepared.flops.times(config.tokens)
    batch = config.batch_rows * config.context
    warmup = f"warm-up {config.warmup:,.0f} tokens"
    return [
        f"model: {prepared.size.name} ({prepared.size.family}), {prepared.vocabulary.size:,} ids; start "
        f"{prepared.job.model.start}; {count.total:,} parameters, {count.non_embedding:,} without embeddings",
        f"budget: {config.tokens:,} tokens = {flops.flops_exact:.3g} FLOPs exact, {flops.flops_6nd_total:.3g} by 6ND, "
        f"{flops.flops_6nd_non_embedding:.3g} by 6ND without embeddings, {flops.flops_6nd_head:.3g} with the head, "
        f"{flops.flops_6nd_attention:.3g} by 6ND with embeddings and full attention",
        f"batch: {config.batch_rows} rows of {config.context} = {batch:,} places, at least "
        f"{-(-config.tokens // batch):,} steps; {config.schedule}, peak {config.learning_rate:g}, {warmup}",
        f"processes: {world} on {kind}",
    ]
