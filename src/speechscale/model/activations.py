"""What autograd keeps between the forward and the backward pass, operation by operation.

Enters: a `Size` and how a step runs. Leaves: bytes by the operation that keeps them, for one layer and for the rest.
The one decision worth knowing: nothing is fitted. Each term is a tensor that some operation of the stock transformers
classes saves; tests hold their sum to what is alive after a real forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from speechscale.errors import DataError
from speechscale.model.families import TRAITS
from speechscale.model.shape import Size

Precision = Literal["fp32", "bf16"]
Kernel = Literal["mask", "varlen", "flex"]
Device = Literal["cpu", "cuda"]
Trains = Literal["all", "rows", "lora"]
FP32, BF16, INT64 = 4, 2, 8
FLEX_BLOCK = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How the layers of a family differ, as far as saved tensors see it; the rest is in `families.TRAITS`.

    Args:
        activation: "silu" and "gelu" keep their input, "relu" its output, which is also the next matrix' input.
        fused_qkv: one matrix makes queries, keys and values. parallel: attention and MLP read the same input.
    """

    activation: Literal["silu", "gelu", "relu"] = "silu"
    fused_qkv: bool = False
    parallel: bool = False


KEPT: dict[str, Kept] = {
    "llama": Kept(),
    "qwen2": Kept(),
    "qwen3": Kept(),
    "gpt_neox": Kept(activation="gelu", fused_qkv=True, parallel=True),
    "opt": Kept(activation="relu"),
}
"""The families whose saved tensors were measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How the body runs.

    Args:
        rows, context: of one micro-batch. kernel: of attention, as in `train.attention`.
        cast: "autocast" keeps the residual stream in fp32 and casts what matrices multiply; "sharded" is FSDP2's mixed
            precision, a body wholly in bf16; "none" is fp32.
        trains: as in `train.adapt`: everything, the rows of embedding and head alone, or these and adapters of
            `lora_rank` beside every matrix of the body.
        fp32_attention: attend in fp32 whatever the matrices multiply.
        checkpointing: keep the input of each layer only and compute the layer again.
    """

    rows: int
    context: int
    kernel: Kernel
    device: Device
    cast: Literal["none", "autocast", "sharded"]
    trains: Trains = "all"
    lora_rank: int = 0
    fp32_attention: bool = False
    checkpointing: bool = False

    @property
    def tokens(self) -> int:
        return self.rows * self.context

    @property
    def stream(self) -> int:
        """Bytes of a number in the residual stream."""
        return BF16 if self.cast == "sharded" else FP32

    @property
    def compute(self) -> int:
        """Bytes of a number that matrices multiply."""
        return FP32 if self.cast == "none" else BF16

    @property
    def attention(self) -> int:
        """Bytes of a number in attention."""
        return FP32 if self.fp32_attention else self.compute

    def casts(self, readers: int, shared: bool = False) -> int:
        """Copies kept of an input that `readers` matrices multiply: autocast makes one for each reader."""
        if self.trains == "rows":
            return 0  # a frozen matrix needs no input to differentiate; what passes the gradient on is the matrix
        return readers if self.cast == "autocast" and not shared else 1


def kept_of(size: Size) -> Kept:
    """Look up what the layers of a size's family keep.

    Raises:
        DataError: a family whose memory was not measured.
    """
    if size.family not in KEPT:
        raise DataError(
            f"size '{size.name}': the memory of family '{size.family}' is not known; known: {', '.join(KEPT)}; take "
            "one of these, or watch the first steps of a short run"
        )
    return KEPT[size.family]


def layer_bytes(size: Size, setup: Setup) -> dict[str, int]:
    """Count what one layer keeps when it is not checkpointed, by operation."""
    kept, n, d = kept_of(size), setup.tokens, size.dim
    first = 1 if kept.fused_qkv else 3  # matrices behind the first norm
    second = 2 if TRAITS[size.family].gated else 1
    terms = {
        "attention norm": _norm(size, setup, d),
        "inputs of q, k, v": n * d * setup.compute * setup.casts(first),
        **_attention(size, setup),
        "mlp norm": _norm(size, setup, d, shares_input=kept.parallel),
        "inputs of gate and up": n * d * setup.compute * setup.casts(second),
        "mlp": n * size.ffn * setup.compute * _mlp_tensors(size, setup),
    }
    if setup.trains == "lora":
        terms["adapters"] = n * setup.lora_rank * setup.compute * (first + second + 2)
    return terms


def _norm(size: Size, setup: Setup, width: int, shares_input: bool = False) -> int:
    """What a norm keeps of each token: its input; RMSNorm also the normed input, for its weight, and 1 / rms."""
    if TRAITS[size.family].norm_bias:
        return setup.tokens * (2 * FP32 + (0 if shares_input else width * setup.stream))
    normed = width * setup.stream if setup.trains == "all" else 0
    return setup.tokens * (width * FP32 + normed + FP32)  # computes in fp32 whatever the stream


def _attention(size: Size, setup: Setup) -> dict[str, int]:
    n, queries = setup.tokens, size.q_dim
    repeated = setup.device == "cuda" and setup.kernel == "mask"  # other kernels read grouped heads as they are
    keys = queries if repeated else size.kv_dim
    terms = {
        "q, k, v": n * (queries + 2 * keys) * setup.attention,
        "attention output": n * queries * setup.attention,
        "log-sum-exp": n * size.heads * FP32,
    }
    if kept_of(size).fused_qkv and setup.attention == setup.compute:
        terms["q, k before rotation"] = n * 2 * queries * setup.compute  # v is a view that holds all three
    if TRAITS[size.family].qk_norm:
        per_head = _norm(size, setup, size.head_dim)
        terms["norms of q and k"] = per_head * (size.heads + size.kv_heads)
        if setup.cast == "autocast" and setup.trains == "all":  # the norm's input is bf16, its upcast copy is fp32
            terms["norms of q and k"] -= n * (queries + size.kv_dim) * (FP32 - BF16)
    joined = setup.kernel == "varlen" and setup.device == "cpu"  # outputs of the documents, put together
    head_by_head = kept_of(size).fused_qkv and not (setup.kernel == "mask" and setup.device == "cuda")  # as its queries
    if joined or head_by_head or setup.attention != setup.compute:
        terms["input of o"] = n * queries * setup.compute * setup.casts(1)
    return terms


def _mlp_tensors(size: Size, setup: Setup) -> int:
    """Tensors of the inner width: inputs of activation and product, and of the last matrix if its weight trains."""
    last = 0 if setup.trains == "rows" else 1
    if TRAITS[size.family].gated:
        return 3 + last  # the gate's matrix, its activation, up, their product
    return 1 if kept_of(size).activation == "relu" else 1 + last


def outer_bytes(size: Size, setup: Setup) -> dict[str, int]:
    """Count what is kept outside of the layers: the batch, positions, the last norm; inputs of checkpointed layers."""
    n = setup.tokens
    terms = {
        "batch": n * (4 * INT64 + FP32),
        "last norm": _norm(size, setup, size.dim),
    }
    if not TRAITS[size.family].learned_positions:
        terms["cos and sin"] = 2 * n * size.head_dim * setup.stream
    if setup.kernel == "mask":
        terms["mask"] = setup.rows * setup.context**2 * (1 + setup.attention)  # as booleans, and as all layers add it
    if setup.kernel == "flex":
        blocks = -(-setup.context // FLEX_BLOCK)
        terms["block mask"] = setup.rows * blocks * blocks * 4 * 4  # four int32 tables
    if setup.checkpointing:
        terms["inputs of layers"] = size.layers * n * size.dim * setup.stream
    return terms


def backward_bytes(size: Size, setup: Setup) -> int:
    """Count what differentiating one layer adds at most to what the layer keeps: it is in the MLP, which comes first.

    Gradients of the stream, before and behind the branch; of the activation's input and output (two of the inner width
    beyond what is freed by then, one where an input of the last matrix is freed); of the last matrix.
    """
    inner = 1 if kept_of(size).activation == "gelu" else 2
    stream = size.dim * (setup.stream + setup.compute)
    matrix = size.dim * size.ffn * (FP32 + setup.compute) if setup.trains == "all" else 0
    return setup.tokens * (stream + inner * size.ffn * setup.compute) + matrix


def forward_bytes(size: Size, setup: Setup) -> int:
    """Count the widest tensors alive at once in the forward pass of one layer whose graph is not kept."""
    return setup.tokens * (3 * size.ffn * setup.compute + 2 * size.dim * setup.stream)
