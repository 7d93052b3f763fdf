"""Losses of packed rows: in training as one number, in validation per modality with a standard error.

Enters: a model and `Batch`es of packed documents. Leaves: a loss to differentiate, or `Losses`.
The one decision worth knowing: the logits are never held as a whole. The output head, softmax and their gradients run
on chunks of targets that stay in cache, which also bounds memory for vocabularies of 150,000 rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int8
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from speechscale.tokens.packing import Batch
from speechscale.tokens.vocabulary import MODALITY_MARKER, MODALITY_SPEECH, MODALITY_TEXT

Precision = Literal["fp32", "bf16"]

CHUNK_LOGITS = 2**18
"""Logits per chunk (1 MiB of fp32)."""
MIN_CHUNK_TARGETS = 128


FP32_ATTENTION = "speechscale_fp32_attention"


def _fp32_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attend in fp32 under autocast: the bf16 CPU kernel's backward pass takes twice the time of the fp32 one."""
    with torch.autocast(query.device.type, enabled=False):
        output, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **options)
    return output, None


AttentionInterface.register(FP32_ATTENTION, _fp32_attention)


@contextmanager
def _fast_attention(model: Any, device: torch.device, precision: Precision) -> Iterator[torch.dtype]:
    """Pick the attention that is faster here for as long as the context lasts; yield the dtype of its mask."""
    chosen = model.config._attn_implementation
    if precision == "fp32" or device.type != "cpu" or chosen != "sdpa":
        yield torch.bfloat16 if precision == "bf16" else torch.float32
        return
    model.config._attn_implementation = FP32_ATTENTION
    try:
        yield torch.float32
    finally:
        model.config._attn_implementation = chosen


class Rows(NamedTuple):
    """A batch on the device of the model. `source`: flat places that predict; `targets`: the ids they predict."""

    tokens: Int[Tensor, "B T"]
    positions: Int[Tensor, "B T"]
    segments: Int[Tensor, "B T"]
    source: Int[Tensor, " targets"]
    targets: Int[Tensor, " targets"]


def predicting_places(segments: Int[np.ndarray, "B T"]) -> Int[np.ndarray, " targets"]:
    """Flat places whose next token belongs to the same document, in row order. Example: [[0, 0, 1, 1, -1]] -> [0, 2]"""
    same = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] >= 0)
    row, column = np.nonzero(same)
    return row * segments.shape[1] + column


def document_mask(segments: Int[Tensor, "B T"], dtype: torch.dtype) -> Float[Tensor, "B 1 T T"]:
    """Additive mask: 0 where a token may look (back, inside its own document), -inf elsewhere.

    Padding looks back at padding, so that no row of the softmax is empty.
    """
    length = segments.shape[1]
    later = torch.ones(length, length, dtype=torch.bool, device=segments.device).triu_(1)
    hidden = (segments[:, :, None] != segments[:, None, :]) | later
    mask = torch.zeros(hidden.shape, dtype=dtype, device=segments.device)
    return mask.masked_fill_(hidden, -math.inf)[:, None]


def to_device(batch: Batch, device: torch.device, places: Int[np.ndarray, " targets"]) -> Rows:
    """Move a batch to a device and add the targets of `places`."""
    targets = batch.tokens.reshape(-1)[places + 1]
    return Rows(
        tokens=torch.from_numpy(batch.tokens).to(device),
        positions=torch.from_numpy(batch.positions).to(device, torch.int64),
        segments=torch.from_numpy(batch.segments).to(device),
        source=torch.from_numpy(places).to(device),
        targets=torch.from_numpy(targets).to(device),
    )


def hidden_states(model: Any, rows: Rows, precision: Precision) -> Float[Tensor, "targets d"]:
    """Last hidden states at the places that predict."""
    device = rows.tokens.device
    with (
        _fast_attention(model, device, precision) as dtype,
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        output = model.base_model(
            input_ids=rows.tokens,
            attention_mask=document_mask(rows.segments, dtype),
            position_ids=rows.positions,
            use_cache=False,
        )
    states = output.last_hidden_state  # (B, T, d)
    return states.reshape(-1, states.shape[-1]).index_select(0, rows.source)


def training_loss(model: Any, rows: Rows, precision: Precision) -> Float32[Tensor, ""]:
    """Mean cross-entropy over the targets of a batch, in nats."""
    head = model.get_output_embeddings()
    assert head.bias is None, "an output head with a bias"
    loss: Tensor = _HeadCrossEntropy.apply(hidden_states(model, rows, precision), head.weight, rows.targets, precision)
    return loss


def _chunk_targets(vocab: int) -> int:
    return max(MIN_CHUNK_TARGETS, CHUNK_LOGITS // vocab)


class _HeadCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of softmax(hidden weight^T); the gradients are made in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "n d"],
        weight: Float[Tensor, "V d"],
        targets: Int[Tensor, " n"],
        precision: Precision,
    ) -> Float32[Tensor, ""]:
        dtype = torch.bfloat16 if precision == "bf16" else weight.dtype
        table, states = weight.to(dtype), hidden.to(dtype)
        grad_states, grad_weight = torch.empty_like(states), torch.zeros_like(weight)
        total = torch.zeros((), dtype=torch.float32, device=weight.device)
        size = _chunk_targets(weight.shape[0])
        for start in range(0, len(targets), size):
            part, wanted = states[start : start + size], targets[start : start + size, None]
            logits = (part @ table.T).float()  # (chunk, V)
            log_total = logits.logsumexp(1, keepdim=True)
            total += (log_total - logits.gather(1, wanted)).sum()
            grad = logits.sub_(log_total).exp_()
            grad.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=grad.dtype))
            grad = grad.mul_(1 / len(targets)).to(dtype)
            torch.mm(grad, table, out=grad_states[start : start + size])
            grad_weight += grad.T @ part
        ctx.save_for_backward(grad_states.to(hidden.dtype), grad_weight)
        return total / len(targets)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad_outputs[0], grad_weight * grad_outputs[0], None, None


@torch.no_grad()
def target_losses(model: Any, batch: Batch, places: Int[np.ndarray, " targets"]) -> Float[np.ndarray, " targets"]:
    """Cross-entropy of each target in nats, fp32 whatever the training precision."""
    rows = to_device(batch, model.device, places)
    states = hidden_states(model, rows, "fp32")
    head = model.get_output_embeddings()
    size = _chunk_targets(head.weight.shape[0])
    parts = []
    for part, wanted in zip(states.split(size), rows.targets.split(size), strict=True):
        logits = head(part).float()
        parts.append(logits.logsumexp(1) - logits.gather(1, wanted[:, None])[:, 0])
    losses: np.ndarray = torch.cat(parts).double().cpu().numpy()
    return losses


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Mean losses in nats of one validation set; None where it has no such target.

    Args:
        speech: per unit, also where tokens are subwords of several. speech_se: its standard error over documents; None
            below two documents with units.
        text: per text token. marker: per modality marker or closing `<eos>`. mean: over all targets.
        speech_targets, text_targets, marker_targets: how many. units: that the speech targets spell.
        documents: segments that predict something.
    """

    speech: float | None
    speech_se: float | None
    text: float | None
    marker: float | None
    mean: float
    speech_targets: int
    text_targets: int
    marker_targets: int
    units: int
    documents: int


def ratio_standard_error(
    sums: Float[np.ndarray, " documents"], counts: Float[np.ndarray, " documents"]
) -> float | None:
    """Standard error of sum(sums) / sum(counts) over independent documents; None below two documents.

    Source: Cochran 1977, Sampling Techniques, eq. 2.45 (ratio estimator, without finite-population correction).
    """
    if len(sums) < 2:
        return None
    residuals = sums - sums.sum() / counts.sum() * counts
    return float(math.sqrt((residuals**2).sum() / (len(sums) * (len(sums) - 1))) / counts.mean())


def loss_by_modality(
    model: Any,
    batches: Iterable[Batch],
    modality: Int8[np.ndarray, " V"],
    units: Int[np.ndarray, " V"] | None = None,
) -> Losses:
    """Evaluate a model on batches of packed documents.

    Windows of a document longer than the context count as documents of their own.

    Args:
        modality: modality of each id (`Vocabulary.modality_table`).
        units: that each id spells (`Vocabulary.units_per_id`); None: one per speech id.
    """
    spelled = (modality == MODALITY_SPEECH).astype(np.int64) if units is None else units
    losses, kinds, counts, documents = [], [], [], []
    seen = 0
    was_training = model.training
    model.eval()
    for batch in batches:
        places = predicting_places(batch.segments)
        if not len(places):
            continue
        losses.append(target_losses(model, batch, places))
        targets = batch.tokens.reshape(-1)[places + 1]
        kinds.append(modality[targets])
        counts.append(spelled[targets])
        key = places // batch.segments.shape[1] * (int(batch.segments.max()) + 1) + batch.segments.reshape(-1)[places]
        number = np.unique(key, return_inverse=True)[1]
        documents.append(seen + number)
        seen += int(number.max()) + 1
    model.train(was_training)
    assert losses, "a validation set without targets"
    return _summarize(*(np.concatenate(part) for part in (losses, kinds, counts, documents)))


def _summarize(
    losses: Float[np.ndarray, " targets"],
    kinds: Int8[np.ndarray, " targets"],
    units: Int[np.ndarray, " targets"],
    documents: Int[np.ndarray, " targets"],
) -> Losses:
    def mean(kind: int) -> float | None:
        return float(losses[kinds == kind].mean()) if (kinds == kind).any() else None

    spoken = kinds == MODALITY_SPEECH
    counts = np.bincount(documents[spoken], weights=units[spoken])
    sums = np.bincount(documents[spoken], weights=losses[spoken])
    return Losses(
        speech=float(losses[spoken].sum() / units[spoken].sum()) if spoken.any() else None,
        speech_se=ratio_standard_error(sums[counts > 0], counts[counts > 0]),
        text=mean(MODALITY_TEXT),
        marker=mean(MODALITY_MARKER),
        mean=float(losses.mean()),
        speech_targets=int(spoken.sum()),
        text_targets=int((kinds == MODALITY_TEXT).sum()),
        marker_targets=int((kinds == MODALITY_MARKER).sum()),
        units=int(units[spoken].sum()),
        documents=int(documents.max()) + 1,
    )
