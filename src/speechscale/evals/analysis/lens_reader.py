"""Hidden states of every layer, read as distributions over text tokens.

Enters: a model and token sequences. Leaves: `Read` per layer and sequence: ranks and log-probabilities of the tokens
that are asked for. The one decision worth knowing: a layer is read by the model's own final norm and head while the
forward pass stands at it, so that the states of one layer and a chunk of logits are all that is ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from speechscale.errors import DataError
from speechscale.evals.analysis.lens_places import Spoken
from speechscale.evals.analysis.lens_records import RANKS
from speechscale.model.anatomy import blocks_of, body_of, close_hidden, evaluating, head_of
from speechscale.tokens.vocabulary import Vocabulary

LOGIT_ELEMENTS = 2**22
"""Logits held at once (16 MiB of fp32)."""


class Read(NamedTuple):
    """What one layer says while each speech token of an utterance is heard.

    Args:
        ranks: of the asked tokens, counting all text tokens that are as likely or likelier, so that a tie is no hit;
            RANKS + 1 where it is beyond RANKS.
        logprobs: nats, over the text block. best: ids of the likeliest tokens, as many as were wanted.
    """

    ranks: Int[np.ndarray, "T asked"]
    logprobs: Float[np.ndarray, "T asked"]
    best: Int[np.ndarray, "T best"]


def batches(spoken: Sequence[Spoken], batch_tokens: int) -> Iterator[list[int]]:
    """Utterances of like length, longest first."""
    order = sorted(range(len(spoken)), key=lambda i: (-len(spoken[i].ids), i))
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * len(spoken[batch[0]].ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    yield batch


def run(
    model: Any,
    vocabulary: Vocabulary,
    asked: Int[np.ndarray, " asked"],
    batch: Sequence[Spoken],
    keep: Callable[[int, int, Read], None],
    *,
    best: int = 0,
) -> None:
    """Call keep(layer, place in the batch, what was read) for every layer and utterance.

    Layer 0 is what enters the first block, layer n what leaves block n. Padding stands on the right, where causal
    attention cannot see it.

    Raises:
        DataError: a number that is not finite.
    """
    ids = np.zeros((len(batch), max(len(spoken.ids) for spoken in batch)), np.int64)
    for row, spoken in zip(ids, batch, strict=True):
        row[: len(spoken.ids)] = spoken.ids
    read = _Reader(model, vocabulary, asked)

    def visit(layer: int, hidden: Float[Tensor, "B T d"]) -> None:
        for at, spoken in enumerate(batch):
            found = read(hidden[at, spoken.opening : len(spoken.ids)], best)
            if not np.isfinite(found.logprobs).all():
                raise DataError(
                    f"layer {layer}: the model gives a number that is not finite (utterance {spoken.row}); "
                    "its weights have diverged: use an earlier checkpoint"
                )
            keep(layer, at, found)

    with evaluating(model), torch.inference_mode(), _visited(blocks_of(model), visit):
        body_of(model)(input_ids=torch.from_numpy(ids).to(read.asked.device), use_cache=False)


@contextmanager
def _visited(blocks: Any, visit: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Show what enters the first block and what leaves each block."""

    def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        visit(0, args[0] if args else kwargs["hidden_states"])

    hooks = [blocks[0].register_forward_pre_hook(enter, with_kwargs=True)]
    for number, block in enumerate(blocks, start=1):
        hooks.append(
            block.register_forward_hook(
                lambda _, __, out, number=number: visit(number, out[0] if isinstance(out, tuple) else out)
            )
        )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Reader:
    """Reads hidden states as distributions over the text block alone, `<eos>` and `<unk>` left out."""

    def __init__(self, model: Any, vocabulary: Vocabulary, asked: Int[np.ndarray, " asked"]) -> None:
        head, size = head_of(model), vocabulary.text_size
        self.model = model
        self.head = head._replace(weight=head.weight[:size], bias=None if head.bias is None else head.bias[:size])
        self.mute = [i for i in (vocabulary.eos_id, vocabulary.unk_id) if i is not None]
        self.ranks = min(RANKS, size - len(self.mute) - 1)
        self.asked = torch.from_numpy(asked).to(head.weight.device)

    def __call__(self, hidden: Float[Tensor, "T d"], best: int) -> Read:
        """Read hidden states, a chunk of logits at a time."""
        chunk = max(1, LOGIT_ELEMENTS // len(self.head.weight))
        parts = [self._read(part, best) for part in hidden.split(chunk)]
        return Read(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _read(self, hidden: Float[Tensor, "t d"], best: int) -> Read:
        logits = self.head.logits(close_hidden(self.model, hidden).to(self.head.weight.dtype)).float()
        logits[:, self.mute] = -torch.inf
        top = logits.topk(max(best, self.ranks + 1))
        asked = logits[:, self.asked]
        # How many of the top are at least as likely; beyond them all ranks are RANKS + 1 or more.
        above = torch.searchsorted(-top.values[:, : self.ranks + 1].contiguous(), -asked, right=True)
        ranks = torch.where(above > self.ranks, RANKS + 1, above)
        logprobs = asked - logits.logsumexp(1, keepdim=True)
        return Read(ranks.short().cpu().numpy(), logprobs.cpu().numpy(), top.indices[:, :best].cpu().numpy())
