"""Attention that stays inside documents: rows of a batch laid out for one of three kernels, equal to each other.

Enters: a `Batch` and the places that predict. Leaves: `Rows`, and an attention that transformers calls by name.
The one decision worth knowing: there is one registered implementation, "speechscale", which finds in its keyword
`documents` how the rows were laid out; so any stock model class runs it, and a saved model knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface

from speechscale.errors import DataError
from speechscale.tokens.packing import Batch

Kernel = Literal["mask", "varlen", "flex"]
Attention = Literal["auto", "mask", "varlen", "flex"]
NAME = "speechscale"


@dataclass(frozen=True, slots=True)
class Documents:
    """How documents lie in the rows that a model reads.

    Args:
        kernel: "mask": rows (B, T) and a dense mask, SDPA. "varlen": all documents in one row (1, S), FlashAttention's
            variable-length kernel on a GPU, one SDPA call per document elsewhere. "flex": rows (B, T), a block mask.
        fp32: attend in fp32 whatever the precision around.
        mask: True where a token may look (mask), or flex's block mask. borders, lengths: of the documents (varlen).
        added: the mask as it is added to scores, by dtype, so that layers share one.
    """

    kernel: Kernel
    fp32: bool
    mask: Any = None
    borders: Int32[Tensor, " documents1"] | None = None
    lengths: tuple[int, ...] = ()
    added: dict[torch.dtype, Tensor] = field(default_factory=dict)

    def additive(self, dtype: torch.dtype) -> Float[Tensor, "B 1 T T"]:
        """The mask as numbers: 0 where a token may look, -inf elsewhere. SDPA would make one in every layer."""
        if dtype not in self.added:
            zeros = torch.zeros(self.mask.shape, dtype=dtype, device=self.mask.device)
            self.added[dtype] = zeros.masked_fill_(~self.mask, -torch.inf)
        return self.added[dtype]


class Rows(NamedTuple):
    """A batch on the device of the model.

    `source`: flat places that predict; `targets`: the ids they predict; `weights`: what each counts in the loss.
    """

    tokens: Int[Tensor, "rows length"]
    positions: Int[Tensor, "rows length"]
    documents: Documents
    source: Int[Tensor, " targets"]
    targets: Int[Tensor, " targets"]
    weights: Float[Tensor, " targets"]


def predicting_places(segments: Int[np.ndarray, "B T"]) -> Int[np.ndarray, " targets"]:
    """Flat places whose next token belongs to the same document, in row order. Example: [[0, 0, 1, 1, -1]] -> [0, 2]"""
    same = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] >= 0)
    row, column = np.nonzero(same)
    return row * segments.shape[1] + column


def document_mask(segments: Int[Tensor, "B T"]) -> Bool[Tensor, "B 1 T T"]:
    """True where a token may look: back, inside its own document.

    Padding looks back at padding, so that no row of the softmax is empty.
    """
    length = segments.shape[1]
    back = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril_()
    return ((segments[:, :, None] == segments[:, None, :]) & back)[:, None]


def choose_kernel(attention: Attention, device: torch.device, precision: str) -> Kernel:
    """Turn "auto" into the kernel that suits the device: FlashAttention knows no fp32, so a GPU then takes the mask.

    Raises:
        DataError: a kernel that cannot train on this device.
    """
    if attention == "flex" and device.type == "cpu":
        raise DataError("attention 'flex': PyTorch has no backward pass of it on a CPU; use auto, mask or varlen")
    if attention == "mask" or attention == "flex":
        return attention
    return "mask" if device.type == "cuda" and precision == "fp32" else "varlen"


def lay_out(
    batch: Batch,
    places: Int[np.ndarray, " targets"],
    weights: Float[np.ndarray, " targets"] | float,
    *,
    kernel: Kernel,
    device: torch.device,
    fp32_attention: bool | None = None,
) -> Rows:
    """Move a batch to a device, in the shape its kernel wants.

    Args:
        places: flat places that predict (`predicting_places`). weights: of each target in the loss.
        fp32_attention: None: on a CPU, where SDPA's backward pass is slower in bf16 than in fp32.
    """
    fp32 = device.type == "cpu" if fp32_attention is None else fp32_attention
    targets = batch.tokens.reshape(-1)[places + 1]
    share = np.broadcast_to(np.asarray(weights, np.float32), targets.shape).copy()
    tokens, positions, source = batch.tokens, batch.positions, places
    if kernel == "varlen":
        # A GPU likes equal shapes from step to step, so padding stays; elsewhere it is only work.
        keep = np.flatnonzero(batch.segments.reshape(-1) >= 0) if device.type == "cpu" else np.arange(tokens.size)
        lengths = _document_lengths(batch.segments)
        if device.type == "cpu":
            source = np.searchsorted(keep, places)
            lengths = lengths[lengths > 0]
        tokens, positions = tokens.reshape(1, -1)[:, keep], positions.reshape(1, -1)[:, keep]
        borders = torch.from_numpy(np.concatenate([[0], np.cumsum(np.abs(lengths))]).astype(np.int32)).to(device)
        documents = Documents(kernel, fp32, None, borders, tuple(np.abs(lengths).tolist()))
    else:
        segments = torch.from_numpy(batch.segments).to(device)
        mask = document_mask(segments) if kernel == "mask" else _block_mask(segments)
        documents = Documents(kernel, fp32, mask)
    return Rows(
        tokens=torch.from_numpy(tokens).to(device),
        positions=torch.from_numpy(positions).to(device, torch.int64),
        documents=documents,
        source=torch.from_numpy(source).to(device),
        targets=torch.from_numpy(targets).to(device),
        weights=torch.from_numpy(share).to(device),
    )


def _document_lengths(segments: Int[np.ndarray, "B T"]) -> Int[np.ndarray, " runs"]:
    """Lengths of the runs of one segment, row by row; padding counts negative."""
    change = np.ones(segments.shape, np.bool_)
    change[:, 1:] = segments[:, 1:] != segments[:, :-1]
    starts = np.flatnonzero(change.reshape(-1))
    lengths = np.diff(np.append(starts, segments.size))
    return np.where(segments.reshape(-1)[starts] >= 0, lengths, -lengths)


def _block_mask(segments: Int[Tensor, "B T"]) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def allowed(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (segments[row, query] == segments[row, key]) & (query >= key)

    rows, length = segments.shape
    return create_block_mask(allowed, rows, None, length, length, device=segments.device)


def _attend(
    module: Any,
    query: Float[Tensor, "B heads T d"],
    key: Float[Tensor, "B kv T d"],
    value: Float[Tensor, "B kv T d"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    documents: Documents | None = None,
    **options: Any,
) -> tuple[Float[Tensor, "B T heads d"], None]:
    """The attention transformers calls; without `documents` (a generation, say) it is stock SDPA."""
    if documents is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    if options.get("softcap") is not None:
        raise DataError("attention with capped logits (Gemma 2) is not supported in training; take another TextLM")
    # Autocast leaves rotated queries and keys in fp32; FSDP2 in bf16 wants back what it gave.
    dtype = torch.float32 if documents.fp32 else value.dtype
    with torch.autocast(query.device.type, enabled=False):
        output = _within_documents(query.to(dtype), key.to(dtype), value.to(dtype), scaling, documents)
    return output.to(value.dtype), None


def _within_documents(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, documents: Documents
) -> Float[Tensor, "B T heads d"]:
    grouped = query.shape[1] != key.shape[1]
    if documents.kernel == "varlen" and query.device.type == "cuda":
        return _flash(query, key, value, scaling, documents)
    if documents.kernel == "flex":
        output = _flex(query.device.type)(
            query, key, value, block_mask=documents.mask, scale=scaling, enable_gqa=grouped
        )
        return output.transpose(1, 2)
    if grouped and documents.kernel == "mask" and query.device.type == "cuda":
        # With a mask and shared keys SDPA would fall back to whole score matrices.
        key, value = (tensor.repeat_interleave(query.shape[1] // key.shape[1], 1) for tensor in (key, value))
        grouped = False
    attend = partial(scaled_dot_product_attention, scale=scaling, enable_gqa=grouped)
    if documents.kernel == "mask":
        return attend(query, key, value, attn_mask=documents.additive(query.dtype)).transpose(1, 2)
    if len(set(documents.lengths)) == 1:  # full rows: one call for all of them
        shape = (len(documents.lengths), -1)
        q, k, v = (tensor[0].unflatten(1, shape).transpose(0, 1) for tensor in (query, key, value))
        return attend(q, k, v, is_causal=True).transpose(1, 2).flatten(0, 1)[None]
    parts = [
        attend(q, k, v, is_causal=True)
        for q, k, v in zip(*(tensor.split(documents.lengths, 2) for tensor in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, 2).transpose(1, 2)


def _flash(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, documents: Documents) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    assert documents.borders is not None
    longest = max(documents.lengths)
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # (S, heads, d)
    output: Any = varlen_attn(
        q,
        k,
        v,
        documents.borders,
        documents.borders,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return output[None]


_compiled: dict[str, Any] = {}


def _flex(device: str) -> Any:
    """Flex attention, compiled on a GPU; on a CPU it runs as it is and only forward."""
    from torch.nn.attention.flex_attention import flex_attention

    if device == "cpu":
        return flex_attention
    if device not in _compiled:
        _compiled[device] = torch.compile(flex_attention)
    return _compiled[device]


def _no_mask(*_: Any, **__: Any) -> None:
    """The documents say where a token may look; transformers need not make a mask of its own."""


# Lengths of documents differ from batch to batch; compiled blocks would be compiled anew for each.
AttentionInterface.register(NAME, torch.compiler.disable(_attend))
AttentionMaskInterface.register(NAME, _no_mask)


@contextmanager
def attention_of_documents(model: Any) -> Iterator[None]:
    """Let a model attend inside documents for as long as the context lasts."""
    config = model.config
    chosen = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = chosen
