"""One forward pass over a batch of rows: the log-probability of every token.

Enters: a model, rows. Leaves: per row log-probabilities under the full softmax, among the ids of each token's own
modality, and of `<eos>` behind each piece. The one decision worth knowing: only places whose output predicts something
reach the head, a few at a time; the parts of the softmax come from the same logits, so a second one costs no product.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from speechscale.evals.branches import attention_of_branches, branches_of
from speechscale.evals.rows import Row
from speechscale.model.anatomy import blocks_of, causal_lm, head_of, require_known, window_of
from speechscale.tokens.vocabulary import MODALITY_MARKER, MODALITY_SPEECH, MODALITY_TEXT, Vocabulary

LOGIT_ELEMENTS = 2**20
"""Logits held at once (4 MiB of fp32, so that they stay in the cache)."""

JOINED_ON = ("cpu",)
"""Devices where rows with branches are joined, with a call per branch; elsewhere one call with a mask is faster."""


@dataclass(frozen=True, slots=True)
class Found:
    """Log-probabilities of one row: of its tokens (the first is 0), and of `<eos>` behind each piece by its place."""

    full: Float[np.ndarray, " tokens"]
    own: Float[np.ndarray, " tokens"]
    ends: dict[int, tuple[float, float]]


def can_mask(model: Any) -> bool:
    """Whether rows with branches can be masked: plain attention over everything before, in kernels that take a mask."""
    config = getattr(model, "config", None)
    kind = getattr(config, "_attn_implementation", "")
    return kind in ("sdpa", "eager") and window_of(model) is None


def _is_transformers(model: Any) -> bool:
    return hasattr(getattr(model, "config", None), "model_type")


def logits_of(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """How the model's last hidden states become logits, with its family's scale and cap; in fp32 at least.

    bf16 logits would leave a dozen different values to a set of scores, and ties where there are none.

    Raises:
        DataError: an architecture outside `FAMILIES`, whose head is not known.
    """
    if _is_transformers(model):
        require_known(model.config.model_type)
        head = head_of(model)
        if head.weight.dtype.itemsize < 4:
            bias = None if head.bias is None else head.bias.float()
            head = head._replace(weight=head.weight.detach().float(), bias=bias)
        return lambda hidden: head.logits(hidden.to(head.weight.dtype))
    plain: Callable[[torch.Tensor], torch.Tensor] = model.get_output_embeddings()
    return plain


class Reader:
    """Reads batches of rows with one model. Call under `torch.inference_mode`.

    Args:
        precision: "fp32" takes the body as it is; "bf16" works on a bf16 copy of an fp32 body. (Autocast casts every
            weight and every residual anew: 1.35 times slower on a CPU, with errors as large.)
        compiled: torch.compile each block; pays from some ten thousand tokens on.
    """

    def __init__(
        self, model: Any, vocabulary: Vocabulary | None, precision: str = "fp32", *, compiled: bool = False
    ) -> None:
        self.model = body = model
        if _is_transformers(model):
            body = causal_lm(model)
            if compiled or (precision == "bf16" and body.dtype == torch.float32):
                body = copy.deepcopy(body)  # the caller's model stays as it is
            if precision == "bf16":
                body.base_model.to(torch.bfloat16)
            for block in blocks_of(body) if compiled else ():
                block.compile(dynamic=True)
        self.body = body.base_model
        self.logits = logits_of(model)
        self.mask_kind = getattr(getattr(model, "config", None), "_attn_implementation", "")
        config = getattr(model, "config", None)
        self.softmax = Softmax(vocabulary, model.device, width=getattr(config, "vocab_size", 1024))

    def read(self, rows: Sequence[Row]) -> list[Found]:
        """Log-probabilities of every row of a batch."""
        hidden, starts = self._hidden(rows)  # (places, d)
        ends = [row.ends() if self.softmax.eos_id is not None else [] for row in rows]
        spots = [np.array([*row.source[1:], *end], np.int64) for row, end in zip(rows, ends, strict=True)]
        source = np.concatenate([start + spot for start, spot in zip(starts, spots, strict=True)])
        before = np.concatenate([row.tokens[spot] for row, spot in zip(rows, spots, strict=True)])
        targets = np.concatenate(
            [np.concatenate([row.tokens[1:], np.full(len(end), -1)]) for row, end in zip(rows, ends, strict=True)]
        )
        chosen = hidden[torch.from_numpy(source).to(hidden.device)]
        full, own = self.softmax(self.logits, chosen, torch.from_numpy(targets), torch.from_numpy(before))
        return list(self._split(rows, ends, full, own))

    @staticmethod
    def _split(rows: Sequence[Row], ends: Sequence[Sequence[int]], full: np.ndarray, own: np.ndarray) -> list[Found]:
        found, start = [], 0
        for row, end in zip(rows, ends, strict=True):
            stop = start + len(row.tokens) - 1
            parts = [np.concatenate(([0.0], values[start:stop])) for values in (full, own)]
            tail = range(stop, stop + len(end))
            at_end = {place: (float(full[i]), float(own[i])) for place, i in zip(end, tail, strict=True)}
            found.append(Found(parts[0], parts[1], at_end))
            start = stop + len(end)
        return found

    def _hidden(self, rows: Sequence[Row]) -> tuple[Float[torch.Tensor, "places d"], Int[np.ndarray, " B"]]:
        """Outputs at all places of a batch, and where each row begins among them."""
        device = self.model.device
        if rows[0].masked and self.mask_kind == "sdpa" and device.type in JOINED_ON:
            joined = [np.concatenate([getattr(row, name) for row in rows])[None] for name in ("tokens", "positions")]
            tokens, positions = map(torch.from_numpy, joined)
            branches = branches_of(rows)
            with attention_of_branches(self.body):
                output = self.body(input_ids=tokens, position_ids=positions, use_cache=False, branches=branches)
            return output.last_hidden_state[0], np.array([row.start for row in branches])
        extra: dict[str, Any] = {}
        if rows[0].masked:
            mask = _mask(_pad(rows, "branch", -1, device))
            if self.mask_kind == "eager":  # eager attention adds its mask to the attention logits
                lowest = torch.finfo(next(self.body.parameters()).dtype).min
                mask = torch.zeros(mask.shape, device=device).masked_fill(~mask, lowest)
            extra = {"attention_mask": mask, "position_ids": _pad(rows, "positions", 0, device)}
        output = self.body(input_ids=_pad(rows, "tokens", 0, device), use_cache=False, **extra)
        hidden: torch.Tensor = output.last_hidden_state  # (B, T, d)
        return hidden.flatten(0, 1), hidden.shape[1] * np.arange(len(rows))


class Softmax:
    """Log-softmax of chosen targets, over all ids and over those of one modality.

    Args:
        vocabulary: None: one block of ids, and no `<eos>`. width: ids of the head.
    """

    def __init__(self, vocabulary: Vocabulary | None, device: torch.device, *, width: int) -> None:
        self.width = width
        self.eos_id = None if vocabulary is None else vocabulary.eos_id
        self.kind: torch.Tensor | None = None
        self.blocks: dict[int, slice] = {}
        if vocabulary is not None:
            self.kind = torch.from_numpy(vocabulary.modality_table().astype(np.int64)).to(device)
            if vocabulary.num_units and vocabulary.has_text:
                self.blocks = {
                    MODALITY_TEXT: slice(0, vocabulary.unit_start),
                    MODALITY_SPEECH: slice(vocabulary.unit_start, vocabulary.speech_stop),
                }

    def __call__(
        self,
        logits: Callable[[torch.Tensor], torch.Tensor],
        hidden: Float[torch.Tensor, "n d"],
        targets: Int[torch.Tensor, " n"],
        before: Int[torch.Tensor, " n"],
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Log-probabilities of targets, full and own; a target of -1 is `<eos>` behind the token `before`.

        An end token competes with the modality of the token before it.
        """
        chunk = max(1, LOGIT_ELEMENTS // self.width)
        targets, before = targets.to(hidden.device), before.to(hidden.device)
        parts = [
            self._chunk(logits(states).float(), wanted, last)
            for states, wanted, last in zip(hidden.split(chunk), targets.split(chunk), before.split(chunk), strict=True)
        ]
        full, own = (torch.cat([part[i] for part in parts]).double().cpu().numpy() for i in range(2))
        return full, own

    def _chunk(
        self, logits: Float[torch.Tensor, "n V"], targets: Int[torch.Tensor, " n"], before: Int[torch.Tensor, " n"]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ids = targets if self.eos_id is None else targets.where(targets >= 0, self.eos_id)
        chosen = logits.gather(1, ids[:, None])[:, 0]
        if self.kind is None or not self.blocks:
            value = chosen - logits.logsumexp(1)
            return value, value
        assert self.eos_id is not None
        eos = logits[:, self.eos_id].clone()
        logits[:, self.eos_id] = -torch.inf  # it belongs to no modality
        inside = {kind: logits[:, block].logsumexp(1) for kind, block in self.blocks.items()}
        rest = torch.cat([logits[:, self.blocks[MODALITY_SPEECH].stop :], eos[:, None]], dim=1).logsumexp(1)
        full = torch.stack([*inside.values(), rest]).logsumexp(0)
        ends = targets < 0
        kind = self.kind[torch.where(ends, before, ids)]
        own = full.clone()
        for modality, total in inside.items():
            own = torch.where(kind == modality, torch.where(ends, torch.logaddexp(total, eos), total), own)
        own = torch.where(~ends & (self.kind[ids] == MODALITY_MARKER), full, own)
        return chosen - full, chosen - own


def _pad(rows: Sequence[Row], name: str, fill: int, device: torch.device) -> Int[torch.Tensor, "B T"]:
    padded = np.full((len(rows), max(len(row.tokens) for row in rows)), fill, np.int64)
    for i, row in enumerate(rows):
        values = getattr(row, name)
        padded[i, : len(values)] = values
    return torch.from_numpy(padded).to(device)


def _mask(branch: Int[torch.Tensor, "B T"]) -> Bool[torch.Tensor, "B 1 T T"]:
    """True where a token (third axis) may look: back, and at the opening or its own branch only."""
    length = branch.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=branch.device).tril()
    keys, queries = branch[:, None, None, :], branch[:, None, :, None]
    return causal & ((keys == 0) | (keys == queries))
