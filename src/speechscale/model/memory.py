"""Plan the memory of a training step before it runs: what each device holds at the moments that can be the fullest.

Enters: a `Job` (a size and how it is trained). Leaves: `MemoryPlan`: bytes by kind at each moment, files, advice.
The one decision worth knowing: kinds do not peak together. Gradients grow while activations are freed, so a plan is a
table of moments and its need is the fullest of them, not the sum of every kind's largest value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from speechscale.errors import DataError
from speechscale.model.activations import (
    BF16,
    FP32,
    Device,
    Kernel,
    Precision,
    Setup,
    Trains,
    backward_bytes,
    forward_bytes,
    layer_bytes,
    outer_bytes,
)
from speechscale.model.families import TRAITS
from speechscale.model.shape import OPT_EXTRA_POSITIONS, Size, params

Parallel = Literal["ddp", "fsdp"]
ADAM_BYTES = 2 * FP32
"""Two moments of each trained parameter."""
CONTEXT_BYTES = 700 * 2**20
"""Assumed: what a CUDA context with cuBLAS takes before the first tensor; 400-900 MiB are usual."""
FRAGMENTS = 0.05
"""Assumed: share that the caching allocator holds beyond what tensors need."""
GATHERED_BLOCKS = 2
"""FSDP2: blocks unsharded at once: the one in use, and the next one, fetched ahead."""
MIN_CHUNK_TARGETS = 128
KINDS = ("weights", "optimizer", "gradients", "activations", "weight copies", "working")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is trained, and how.

    Args:
        vocab: rows of embedding and head. micro_rows: rows of one forward pass on one device. context: tokens of a row.
        precision: of matrix products; weights, gradients and optimizer are fp32. kernel: of attention.
        device: where; on a CPU attention keeps other tensors. chunk_logits: logits the head makes at once.
        parts: forward passes of one step on one device; above 1, gradients stay between them.
        checkpointing: blocks are computed again in the backward pass.
        trains: as in `train.adapt`: "all", "rows" (embedding and head), "lora" (these, and adapters of `lora_rank`
            beside every matrix of the body).
        fp32_attention: attend in fp32 under bf16.
    """

    size: Size
    vocab: int
    micro_rows: int
    context: int
    precision: Precision
    kernel: Kernel
    device: Device
    chunk_logits: int
    world: int = 1
    parallel: Parallel = "ddp"
    parts: int = 1
    checkpointing: bool = False
    trains: Trains = "all"
    lora_rank: int = 0
    fp32_attention: bool = False

    def __post_init__(self) -> None:
        for name in ("vocab", "micro_rows", "context", "chunk_logits", "world", "parts"):
            if getattr(self, name) < 1:
                raise DataError(f"memory: {name} = {getattr(self, name)}; it must be at least 1")
        if (self.lora_rank > 0) != (self.trains == "lora") or self.lora_rank < 0:
            raise DataError(
                f"memory: trains = '{self.trains}' with lora_rank = {self.lora_rank}; a rank belongs to 'lora' and "
                "is at least 1 there, 0 elsewhere"
            )

    @property
    def sharded(self) -> bool:
        """Whether parameters are spread over several devices."""
        return self.parallel == "fsdp" and self.world > 1

    @property
    def setup(self) -> Setup:
        """The same, as the body sees it."""
        return Setup(
            rows=self.micro_rows,
            context=self.context,
            kernel=self.kernel,
            device=self.device,
            cast="none" if self.precision == "fp32" else "sharded" if self.sharded else "autocast",
            trains=self.trains,
            lora_rank=self.lora_rank,
            fp32_attention=self.fp32_attention,
            checkpointing=self.checkpointing,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """How many parameters a job holds. `rows`: of one table, embedding or head; `tables`: of what belongs to rows."""

    body: int
    rows: int
    tables: int
    adapters: int
    trained: int

    @property
    def total(self) -> int:
        return self.body + self.tables + self.adapters


def count_parameters(job: Job) -> Parameters:
    """Count what a job holds; without adapters `total` is that of `params(size, vocab)`."""
    count = params(job.size, job.vocab)
    adapters = _adapter_params(job.size, job.lora_rank)
    return Parameters(
        body=count.non_embedding,
        rows=job.vocab * job.size.row_dim,
        tables=count.embedding,
        adapters=adapters,
        trained=count.total if job.trains == "all" else count.embedding - _position_params(job.size) + adapters,
    )


def _position_params(size: Size) -> int:
    """Learned positions, which belong to no row of the vocabulary."""
    return (size.positions + OPT_EXTRA_POSITIONS) * size.dim if size.positions else 0


def _adapter_params(size: Size, rank: int) -> int:
    """Two thin matrices beside each matrix of the body: rank x (inputs + outputs)."""
    d, q, kv = size.dim, size.q_dim, size.kv_dim
    qkv = d + q + 2 * kv if size.family == "gpt_neox" else (d + q) + 2 * (d + kv)
    feed_forward = (3 if TRAITS[size.family].gated else 2) * (d + size.ffn)
    return size.layers * rank * (qkv + q + d + feed_forward)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """What one device needs.

    Args:
        moments: moment -> kind -> bytes of tensors. reserve: beyond tensors, assumed (see CONTEXT_BYTES, FRAGMENTS).
        checkpoint: bytes on disk to go on from, all devices together. folder: of the Hugging Face folder.
    """

    job: Job
    parameters: Parameters
    moments: Mapping[str, Mapping[str, int]]
    reserve: int
    checkpoint: int
    folder: int

    @property
    def fullest(self) -> str:
        """The moment that decides."""
        return max(self.moments, key=lambda moment: sum(self.moments[moment].values()))

    @property
    def tensors(self) -> int:
        """Bytes of tensors at the fullest moment: what `torch.cuda.max_memory_allocated` should say."""
        return sum(self.moments[self.fullest].values())

    @property
    def need(self) -> int:
        """Bytes of the device: tensors and reserve."""
        return self.tensors + self.reserve

    def lines(self) -> list[str]:
        """A table to print, a row per moment, in GiB."""
        head = " ".join(f"{kind:>13}" for kind in (*KINDS, "together"))
        rows = [f"{'GiB per device':<16} {head}"]
        for moment, kinds in self.moments.items():
            numbers = [kinds[kind] for kind in KINDS]
            cells = " ".join(f"{gib(value):>13}" for value in (*numbers, sum(numbers)))
            rows.append(f"{moment:<16} {cells}{'  <- fullest' if moment == self.fullest else ''}")
        count = self.parameters
        return [
            f"parameters: {count.total:,}, trained {count.trained:,}",
            *rows,
            f"need per device: {gib(self.tensors)} GiB of tensors + {gib(self.reserve)} assumed for CUDA and the "
            f"allocator = {gib(self.need)} GiB",
            f"on disk: a checkpoint {gib(self.checkpoint)} GiB, a model folder {gib(self.folder)} GiB",
        ]


def gib(value: int) -> str:
    """Write bytes as GiB, small ones with more digits."""
    return f"{value / 2**30:,.2f}" if value >= 2**27 or not value else f"{value / 2**30:.4f}"


def plan_memory(job: Job) -> MemoryPlan:
    """Plan one step, in the steady state (the optimizer has its moments).

    Example: Qwen2.5-1.5B at its own vocabulary, 2 rows of 2,048, bf16, checkpointing: see docs/memory.md

    Raises:
        DataError: a family whose memory was not measured.
    """
    count = count_parameters(job)
    moments = _moments(job, count)
    tensors = max(sum(kinds.values()) for kinds in moments.values())
    return MemoryPlan(
        job=job,
        parameters=count,
        moments=moments,
        reserve=CONTEXT_BYTES + round(FRAGMENTS * tensors) if job.device == "cuda" else 0,
        checkpoint=count.total * FP32 + count.trained * ADAM_BYTES,
        folder=(count.total - count.adapters) * FP32,  # adapters are merged
    )


def _moments(job: Job, count: Parameters) -> dict[str, dict[str, int]]:
    setup, size, shards = job.setup, job.size, job.world if job.sharded else 1
    weights, optimizer = -(-count.total // shards) * FP32, -(-count.trained // shards) * ADAM_BYTES
    whole = -(-count.trained // shards) * FP32  # all gradients
    # Between parts gradients stay; DDP's buckets, of which gradients are views, are never given back.
    held = whole if job.parts > 1 or (job.world > 1 and job.parallel == "ddp") else 0
    layer, outer = sum(layer_bytes(size, setup).values()), outer_bytes(size, setup)
    saved = sum(outer.values()) + (0 if job.checkpointing else size.layers * layer)
    again = layer if job.checkpointing else 0  # the layer that is computed again
    left = sum(outer.values()) - outer["last norm"]  # at the first layer: nothing of the layers behind it
    left -= outer.get("inputs of layers", 0) * (size.layers - 1) // size.layers
    copies = _copies(job, count)
    stream = setup.tokens * size.dim * setup.stream

    def moment(gradients: int, activations: int, weight_copies: int, working: int) -> dict[str, int]:
        return dict(zip(KINDS, (weights, optimizer, gradients, activations, weight_copies, working), strict=True))

    rows_gradient = count.rows * (setup.compute if job.sharded else FP32)
    block = _block_trained(job, count) // shards * FP32
    transient = forward_bytes(size, setup) if job.checkpointing else 0
    differentiating = backward_bytes(size, setup)
    exchanged = _block_trained(job, count) * FP32 if job.sharded else 0  # FSDP2: the block behind, on its way
    return {
        "end of forward": moment(held, saved, copies["forward"], max(2 * stream, transient)),
        "head": moment(held, saved, copies["head"], stream + _head_bytes(job, count)),
        "backward starts": moment(
            held,
            saved + again,
            copies["backward starts"],
            rows_gradient + max(rows_gradient + 2 * stream, differentiating),
        ),
        "backward ends": moment(
            max(held, whole - rows_gradient // shards - block),
            left + layer,
            copies["backward ends"],
            rows_gradient * (size.tied or job.sharded) + differentiating + exchanged,
        ),
        "embedding": moment(max(held, whole), 0, copies["embedding"], stream + _embedding_bytes(job, count)),
        "optimizer": moment(whole, 0, 0, 0),
    }


def _block_params(job: Job, count: Parameters) -> int:
    return (count.body + count.adapters) // job.size.layers


def _block_trained(job: Job, count: Parameters) -> int:
    return (count.body if job.trains == "all" else count.adapters) // job.size.layers


def _copies(job: Job, count: Parameters) -> dict[str, int]:
    """Copies of weights beside the fp32 ones, by moment.

    Autocast keeps a bf16 copy of each matrix until its layer is differentiated; with checkpointing until the forward
    pass ends (copies of frozen matrices only while they are used), then a layer's at a time. FSDP2 gathers blocks; the
    root (embedding, last norm, head) stays gathered.
    """
    moments = ("forward", "head", "backward starts", "backward ends", "embedding")
    if job.sharded:
        root = count.tables * job.setup.compute
        blocks = GATHERED_BLOCKS * _block_params(job, count) * job.setup.compute
        return dict(zip(moments, (root + blocks, root + blocks, root + blocks, root + blocks, root), strict=True))
    if job.precision == "fp32":
        return dict.fromkeys(moments, 0)
    every = (job.size.matmul_params + count.adapters) * BF16
    one = every // job.size.layers
    if not job.checkpointing:
        return dict(zip(moments, (every, every, every, one, 0), strict=True))
    cached = every if job.trains == "all" else one
    return dict(zip(moments, (cached, 0, one, one, 0), strict=True))


def _head_bytes(job: Job, count: Parameters) -> int:
    """What the chunked head needs: the table as multiplied, gradients of table and states, and logits of a chunk.

    The fullest line is the softmax (logits, their exponentials, and the last chunk's gradient, which a variable still
    holds) or the table's gradient (the sum, what is added to it, and a chunk's gradient in fp32 and as multiplied).
    """
    setup, n = job.setup, job.setup.tokens
    size = max(MIN_CHUNK_TARGETS, job.chunk_logits // job.vocab)
    chunk = min(n, size) * job.vocab
    cast = setup.compute if setup.compute == BF16 else 0
    table = count.rows * BF16 if setup.cast == "autocast" else 0
    states = n * job.size.row_dim * (setup.compute + (setup.compute if setup.cast == "autocast" else 0))
    total, product = count.rows * FP32, count.rows * setup.compute
    softmax = chunk * FP32 * (3 if n > size else 2)
    return table + states + total + max(softmax, chunk * (FP32 + cast) + product)


def _embedding_bytes(job: Job, count: Parameters) -> int:
    """Gradients of the table at the end: of a tied one from the head, from the embedding, and their sum.

    `gradients` already holds one of them; between parts, all three come on top. FSDP2 has them in the compute type and
    hands a fp32 copy to the exchange.
    """
    if job.sharded:
        return count.rows * ((3 if job.size.tied else 1) * job.setup.compute + FP32)
    held = job.parts > 1 or job.world > 1
    return count.rows * FP32 * ((2 + held) if job.size.tied else int(held))
