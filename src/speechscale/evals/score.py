"""Log-likelihoods of token sequences under a causal language model.

Enters: a model, sequences of token ids and how many of each are prompt. Leaves: `Scores`, for every sequence the
summed log-likelihood (nats) and the token count of its ending and of the whole sequence.
The one decision worth knowing: two consecutive sequences that open alike (the candidates of one item) become one row,
their common opening first and both endings behind it, masked from each other, so the opening is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from speechscale.errors import DataError
from speechscale.evals.layouts import Candidate

Precision = Literal["fp32", "bf16"]

SHARE_FROM = 0.25
"""Common opening over the summed length of both sequences, from which one masked row beats two plain rows."""
LOGIT_ELEMENTS = 2**22
"""Logits held at once (16 MiB of fp32)."""


class CausalLM(Protocol):
    """What scoring needs of a model; every transformers `*ForCausalLM` has it."""

    training: bool

    @property
    def device(self) -> torch.device: ...

    @property
    def base_model(self) -> Any:
        """Callable with input_ids (B, T); its result has `last_hidden_state` (B, T, d)."""

    def get_output_embeddings(self) -> Any:
        """Callable from hidden states (n, d) to logits (n, V)."""

    def train(self, mode: bool = True) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Log-likelihoods in nats, one entry per sequence.

    Args:
        ending_sum, ending_tokens: over the tokens after the prompt.
        whole_sum, whole_tokens: over every token but the first, which nothing predicts.
    """

    ending_sum: Float[np.ndarray, " sequences"]
    ending_tokens: Int[np.ndarray, " sequences"]
    whole_sum: Float[np.ndarray, " sequences"]
    whole_tokens: Int[np.ndarray, " sequences"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One row of a batch: one sequence, or the common opening of two followed by both endings.

    `source` is the position in the row whose output predicts each token; `branch` is 0 for the opening (and for a
    lone sequence), 1 and 2 for the endings.
    """

    first: int
    lengths: tuple[int, ...]
    shared: int
    tokens: Int[np.ndarray, " tokens"]
    positions: Int[np.ndarray, " tokens"]
    source: Int[np.ndarray, " tokens"]
    branch: Int[np.ndarray, " tokens"]

    def split(self, logprobs: Float[np.ndarray, " tokens"]) -> Iterator[tuple[int, Float[np.ndarray, " predicted"]]]:
        """Hand each sequence of the row (its index) the log-probabilities of its tokens from the second on."""
        start = self.shared
        for offset, length in enumerate(self.lengths):
            end = start + length - self.shared
            yield self.first + offset, np.concatenate([logprobs[1 : self.shared], logprobs[start:end]])
            start = end


def score(
    model: CausalLM,
    sequences: Sequence[Sequence[int] | Int[np.ndarray, " tokens"]],
    prompt_lengths: Sequence[int],
    *,
    batch_tokens: int = 2048,
    precision: Precision = "fp32",
    names: Sequence[str] | None = None,
    share_opening: bool = True,
) -> Scores:
    """Score sequences under a causal language model.

    Rows of like length share a batch and are padded on the right, where causal attention cannot see the padding.
    Logits and log-softmax are fp32 (or the parameters' own type, if that is lower); sums are float64.

    Args:
        sequences: token ids, at least two each, the document start first.
        prompt_lengths: tokens of each sequence before its ending, in [1, length).
        batch_tokens: upper bound of rows x padded length; a single longer row is a batch of its own.
        precision: "bf16" runs the body of the model under autocast.
        names: what to call each sequence in a message.
        share_opening: compute a common opening of two consecutive sequences once.

    Raises:
        DataError: no ending, an id outside the vocabulary, a sequence longer than the model's context, or a
            log-likelihood that is not finite; the message names the sequence.
    """
    arrays = [np.asarray(sequence, np.int64) for sequence in sequences]
    names = [f"sequence {i}" for i in range(len(arrays))] if names is None else names
    _check(model, arrays, prompt_lengths, names)
    head = model.get_output_embeddings()
    mask_kind = getattr(getattr(model, "config", None), "_attn_implementation", "")
    rows = _rows(arrays, share=share_opening and mask_kind in ("sdpa", "eager"))
    scores = Scores(
        ending_sum=np.zeros(len(arrays)),
        ending_tokens=np.zeros(len(arrays), np.int64),
        whole_sum=np.zeros(len(arrays)),
        whole_tokens=np.zeros(len(arrays), np.int64),
    )
    with evaluating(model), torch.inference_mode():
        for batch in _batches(rows, batch_tokens):
            for row, logprobs in zip(batch, _logprobs(model, head, batch, precision, mask_kind), strict=True):
                for i, predicted in row.split(logprobs):
                    if not np.isfinite(predicted).all():
                        raise DataError(
                            f"{names[i]}: the model gives a log-likelihood that is not finite; "
                            "its weights have diverged: use an earlier checkpoint or a lower learning rate"
                        )
                    ending = predicted[prompt_lengths[i] - 1 :]
                    scores.ending_sum[i], scores.ending_tokens[i] = ending.sum(), len(ending)
                    scores.whole_sum[i], scores.whole_tokens[i] = predicted.sum(), len(predicted)
    assert (scores.whole_tokens == [len(a) - 1 for a in arrays]).all()
    return scores


def score_candidates(
    model: CausalLM,
    candidates: Sequence[Candidate],
    *,
    batch_tokens: int = 2048,
    precision: Precision = "fp32",
) -> Scores:
    """Score the candidates of items, in their order; see `score`."""
    return score(
        model,
        [candidate.ids for candidate in candidates],
        [candidate.prompt_tokens for candidate in candidates],
        batch_tokens=batch_tokens,
        precision=precision,
        names=[candidate.name for candidate in candidates],
    )


def _check(
    model: CausalLM, sequences: Sequence[Int[np.ndarray, " tokens"]], prompts: Sequence[int], names: Sequence[str]
) -> None:
    if not len(sequences) == len(prompts) == len(names):
        raise ValueError(
            f"{len(sequences)} sequences need as many prompt lengths and names; got {len(prompts)}, {len(names)}"
        )
    config = getattr(model, "config", None)
    context = getattr(config, "max_position_embeddings", None)
    vocabulary = getattr(config, "vocab_size", None)
    for ids, prompt, name in zip(sequences, prompts, names, strict=True):
        if not 1 <= prompt < len(ids):
            raise DataError(
                f"{name}: {len(ids)} tokens with a prompt of {prompt}; a prompt and an ending need one each"
            )
        if context is not None and len(ids) > context:
            raise DataError(f"{name}: {len(ids)} tokens, the model's context holds {context}; drop or shorten the item")
        if ids.min() < 0 or (vocabulary is not None and ids.max() >= vocabulary):
            raise DataError(
                f"{name}: token ids run {ids.min()}..{ids.max()}, the model has {vocabulary} ids; "
                "use the vocabulary saved with this model"
            )


@contextmanager
def evaluating(model: CausalLM) -> Iterator[None]:
    """Switch dropout off inside the block, then restore the mode."""
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)


def _opening(a: Int[np.ndarray, " a"], b: Int[np.ndarray, " b"]) -> int:
    """Length of the common opening. Example: [0, 4, 5], [0, 4, 6, 7] -> 2"""
    shorter = min(len(a), len(b))
    differ = np.flatnonzero(a[:shorter] != b[:shorter])
    return int(differ[0]) if len(differ) else shorter


def _rows(sequences: Sequence[Int[np.ndarray, " tokens"]], *, share: bool) -> list[_Row]:
    rows, i = [], 0
    while i < len(sequences):
        pair = sequences[i : i + 2]
        shared = _opening(*pair) if share and len(pair) == 2 else 0
        if len(pair) == 2 and shared >= SHARE_FROM * (len(pair[0]) + len(pair[1])):
            rows.append(_shared_row(i, pair, shared))
            i += 2
            continue
        length = len(sequences[i])
        positions = np.arange(length)
        rows.append(
            _Row(
                first=i,
                lengths=(length,),
                shared=1,
                tokens=sequences[i],
                positions=positions,
                source=positions - 1,
                branch=np.zeros(length, np.int64),
            )
        )
        i += 1
    return rows


def _shared_row(first: int, pair: Sequence[Int[np.ndarray, " tokens"]], shared: int) -> _Row:
    ends = [len(ids) - shared for ids in pair]
    branch = np.repeat([0, 1, 2], [shared, *ends])
    source = np.arange(len(branch)) - 1
    if ends[1]:
        source[shared + ends[0]] = shared - 1
    return _Row(
        first=first,
        lengths=(len(pair[0]), len(pair[1])),
        shared=shared,
        tokens=np.concatenate([pair[0], pair[1][shared:]]),
        positions=np.concatenate([np.arange(len(pair[0])), np.arange(shared, len(pair[1]))]),
        source=source,
        branch=branch,
    )


def _batches(rows: Sequence[_Row], batch_tokens: int) -> Iterator[list[_Row]]:
    """Group rows of like length; rows that need a mask stay apart from rows that do not. Longest first."""
    order = sorted(rows, key=lambda row: (len(row.lengths), len(row.tokens), row.first), reverse=True)
    batch: list[_Row] = []
    for row in order:
        widest = len(batch[0].tokens) if batch else 0
        if batch and (len(batch[0].lengths) != len(row.lengths) or (len(batch) + 1) * widest > batch_tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _pad(rows: Sequence[_Row], name: str, fill: int, device: torch.device) -> Int[torch.Tensor, "B T"]:
    padded = np.full((len(rows), len(rows[0].tokens)), fill, np.int64)
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


def _logprobs(
    model: CausalLM, head: Any, rows: Sequence[_Row], precision: Precision, mask_kind: str
) -> list[Float[np.ndarray, " tokens"]]:
    """Log-probability of every token of each row (entry 0, the document start, is 0)."""
    device = model.device
    tokens = _pad(rows, "tokens", 0, device)  # (B, T)
    extra: dict[str, Any] = {}
    if len(rows[0].lengths) > 1:
        mask = _mask(_pad(rows, "branch", -1, device))
        if mask_kind == "eager":  # eager attention adds its mask to the attention logits
            lowest = torch.finfo(torch.bfloat16 if precision == "bf16" else torch.float32).min
            mask = torch.zeros(mask.shape, device=device).masked_fill(~mask, lowest)
        extra = {"attention_mask": mask, "position_ids": _pad(rows, "positions", 0, device)}
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        hidden = model.base_model(input_ids=tokens, use_cache=False, **extra).last_hidden_state  # (B, T, d)
    lengths = [len(row.tokens) for row in rows]
    row_of = np.repeat(np.arange(len(rows)), [length - 1 for length in lengths])
    source = torch.from_numpy(np.concatenate([row.source[1:] for row in rows])).to(device)
    targets = torch.from_numpy(np.concatenate([row.tokens[1:] for row in rows])).to(device)
    chosen = hidden[torch.from_numpy(row_of).to(device), source]  # (n, d)
    flat = _target_logprobs(head, chosen, targets).double().cpu().numpy()
    return [np.concatenate(([0.0], part)) for part in np.split(flat, np.cumsum([n - 1 for n in lengths])[:-1])]


def _target_logprobs(
    head: Any, hidden: Float[torch.Tensor, "n d"], targets: Int[torch.Tensor, " n"]
) -> Float[torch.Tensor, " n"]:
    """log softmax(head(hidden))[target] in fp32, a chunk of rows at a time so that the logits stay bounded."""
    weight = getattr(head, "weight", None)
    hidden = hidden.to(hidden.dtype if weight is None else weight.dtype)
    chunk = max(1, LOGIT_ELEMENTS // (hidden.shape[1] if weight is None else weight.shape[0]))
    parts = []
    for states, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        logits = head(states).float()  # (chunk, V)
        parts.append(logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(1))
    return torch.cat(parts)
