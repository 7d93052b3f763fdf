"""The loss of packed rows: a module from rows to one number to differentiate, and the loss of every target.

Enters: a causal LM and `Rows`. Leaves: `Outcome`. The one decision worth knowing: the logits are never held as a whole.
Head, softmax and their gradients run on chunks of targets, which bounds memory for vocabularies of 150,000 rows; and
body, head and loss are one forward pass of one module, because that is what DDP and FSDP2 hook into.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn

from speechscale.errors import DataError
from speechscale.model.anatomy import Head, blocks_of, body_of, causal_lm, head_of, window_of
from speechscale.train.attention import Rows, attention_of_documents

Precision = Literal["fp32", "bf16"]

CHUNK_LOGITS = 2**18
"""Logits per chunk on a CPU (1 MiB of fp32): they stay in cache."""
GPU_CHUNK_LOGITS = 2**28
"""On a GPU (1 GiB of fp32): launches are few, and memory stays bounded."""
MIN_CHUNK_TARGETS = 128


class Outcome(NamedTuple):
    """What a forward pass says: the weighted sum to differentiate, and of each target its cross-entropy in nats and the
    logarithm of its softmax's denominator."""

    total: Float32[Tensor, ""]
    nats: Float32[Tensor, " targets"]
    log_denominator: Float32[Tensor, " targets"]


class Objective(nn.Module):
    """sum_i w_i (cross-entropy_i + z log_denominator_i^2) over the targets of some rows.

    Args:
        model: a causal LM of a tested family, perhaps wrapped by peft. precision: of the matrix products.
        autocast: off where FSDP2 casts the parameters itself.
        z_loss: z; keeps the softmax's denominator near 1 (Chowdhery et al. 2022, section 5).

    Raises:
        DataError: an architecture that is not known, or a row longer than the window of its layers.
    """

    def __init__(self, model: Any, *, precision: Precision, z_loss: float = 0.0, autocast: bool = True) -> None:
        super().__init__()
        head_of(model)
        self.model = model
        self.precision, self.z_loss, self.autocast = precision, z_loss, autocast

    def forward(self, rows: Rows, precision: Precision | None = None) -> Outcome:
        """Args: rows: see `lay_out`. precision: other than the one of training, for validation."""
        precision = precision or self.precision
        return self.cross_entropy(self.hidden_states(rows, precision), rows, precision)

    def hidden_states(self, rows: Rows, precision: Precision) -> Float[Tensor, "targets d"]:
        """Last hidden states at the places that predict."""
        bf16 = precision == "bf16" and self.autocast
        with (
            attention_of_documents(self.model),
            torch.autocast(rows.tokens.device.type, torch.bfloat16) if bf16 else nullcontext(),
        ):
            output = body_of(self.model)(
                input_ids=rows.tokens, position_ids=rows.positions, use_cache=False, documents=rows.documents
            )
        states = output.last_hidden_state  # (rows, length, d)
        return states.reshape(-1, states.shape[-1]).index_select(0, rows.source)

    def cross_entropy(self, hidden: Float[Tensor, "targets d"], rows: Rows, precision: Precision) -> Outcome:
        """What follows from `hidden_states`; a loss may call it twice, the second time with other weights."""
        head = head_of(self.model)
        weight, bias = head.weight, head.bias
        if not torch.is_grad_enabled():  # a Function sees requires_grad all the same, and would make gradients
            weight, bias = weight.detach(), None if bias is None else bias.detach()
        total, nats, denominator = _HeadCrossEntropy.apply(
            hidden, weight, bias, rows.targets, rows.weights, head, self.z_loss, precision
        )
        return Outcome(total, nats, denominator)

    def require_context(self, context: int) -> None:
        """Raise DataError where rows of `context` tokens would be attended to otherwise than the model does."""
        window = window_of(self.model)
        if window is not None and context > window:
            raise DataError(
                f"train: some layers of this model look back {window} tokens only, rows of {context} are longer; set "
                f"context to {window} or less"
            )


def recompute_blocks(model: Any) -> None:
    """Let each block keep no activations and compute them again in the backward pass, with the attention it had."""
    lm = causal_lm(model)
    again = partial(attention_of_documents, model)  # the backward pass runs outside of `hidden_states`
    options = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), again())}
    # transformers 5.23 renamed it and warns of the old name.
    enable = getattr(lm, "activation_checkpointing_enable", None) or lm.gradient_checkpointing_enable
    enable(options)


def compile_blocks(model: Any) -> None:
    """Let torch compile each block. On a CPU rows differ in length from step to step; a GPU's keep their padding."""
    for block in blocks_of(model):
        block.compile(dynamic=True if model.device.type == "cpu" else None)


def chunk_targets(vocab: int, device: torch.device) -> int:
    """Targets whose logits are made at once."""
    logits = CHUNK_LOGITS if device.type == "cpu" else GPU_CHUNK_LOGITS
    return max(MIN_CHUNK_TARGETS, logits // vocab)


class _HeadCrossEntropy(torch.autograd.Function):
    """Weighted cross-entropy of the head's softmax; the gradients are made in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "n d"],
        weight: Float[Tensor, "V d"],
        bias: Float[Tensor, " V"] | None,
        targets: Int[Tensor, " n"],
        weights: Float[Tensor, " n"],
        head: Head,
        z_loss: float,
        precision: Precision,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype = torch.bfloat16 if precision == "bf16" else weight.dtype
        table, states = weight.to(dtype), hidden.to(dtype)
        grads = _Gradients(ctx.needs_input_grad[:3], states, weight, bias)
        nats, denominator = (torch.empty(len(targets), device=weight.device) for _ in range(2))
        size = chunk_targets(weight.shape[0], weight.device)
        for start in range(0, len(targets), size):
            chunk = slice(start, start + size)
            part, wanted = states[chunk], targets[chunk, None]
            raw = _logits(part, table, bias, head.scale)
            capped = None if head.softcap is None else torch.tanh(raw / head.softcap)
            logits = raw if capped is None else capped * (head.softcap or 1)  # (chunk, V)
            log_total = logits.logsumexp(1, keepdim=True)
            nats[chunk] = (log_total - logits.gather(1, wanted))[:, 0]
            denominator[chunk] = log_total[:, 0]
            if not grads.wanted:
                continue
            grad = logits.sub_(log_total).exp_()
            share = weights[chunk, None]
            if z_loss:
                grad *= 1 + 2 * z_loss * log_total
            grad.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=grad.dtype))
            grad *= share * head.scale if capped is None else share * head.scale * (1 - capped.square_())
            grads.add(chunk, grad, part, table)
            del raw, logits, grad  # or they would lie beside those of the next chunk
        ctx.save_for_backward(*grads.finish(hidden.dtype, weight.dtype))
        ctx.mark_non_differentiable(nats, denominator)
        total = (weights * (nats + z_loss * denominator.square())).sum()
        return total, nats, denominator

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if grad is None else grad * grad_outputs[0] for grad in ctx.saved_tensors]
        return (*scaled, None, None, None, None, None)


def _logits(part: Tensor, table: Tensor, bias: Tensor | None, scale: float) -> Float32[Tensor, "chunk V"]:
    logits = (part @ table.T).float()
    if bias is not None:
        logits += bias
    return logits if scale == 1 else logits.mul_(scale)


class _Gradients:
    """Gradients of hidden states, weight and bias, as far as they are wanted; the sums over chunks are fp32."""

    def __init__(self, needed: tuple[bool, ...], states: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self.wanted = any(needed)
        self.states = torch.empty_like(states) if needed[0] else None
        self.weight = torch.zeros(weight.shape, device=weight.device) if needed[1] else None
        self.bias = torch.zeros(bias.shape, device=bias.device) if needed[2] and bias is not None else None

    def add(self, chunk: slice, grad: Tensor, part: Tensor, table: Tensor) -> None:
        if self.bias is not None:
            self.bias += grad.sum(0)
        grad = grad.to(table.dtype)
        if self.states is not None:
            torch.mm(grad, table, out=self.states[chunk])
        if self.weight is not None:
            self.weight += grad.T @ part

    def finish(self, hidden: torch.dtype, weight: torch.dtype) -> tuple[Tensor | None, ...]:
        return tuple(
            None if grad is None else grad.to(dtype)
            for grad, dtype in ((self.states, hidden), (self.weight, weight), (self.bias, weight))
        )
