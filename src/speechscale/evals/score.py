"""Log-likelihoods of token sequences under a causal language model.

Enters: a model, sequences of token ids and how many of each are prompt. Leaves: `Scores`: for every sequence sums of
log-likelihoods (nats) of its ending and of the whole, under the full softmax and under that of each token's own
modality, and of an end token behind it.
The one decision worth knowing: whatever any protocol wants of a layout is read off one forward pass; the parts of the
softmax are one pass over the logits, which are never held for more than a few rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int

from speechscale.errors import DataError
from speechscale.evals.reading import Found, Reader, can_mask
from speechscale.evals.rows import Piece, Row, alone, cut_pieces, make_batches, make_rows
from speechscale.model.anatomy import evaluating
from speechscale.tokens.vocabulary import Vocabulary

Precision = Literal["fp32", "bf16"]
Long = Literal["refuse", "windows"]

BATCH_TOKENS = 4096
"""Of a forward pass."""


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


Numbers = Float[np.ndarray, " sequences"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Log-likelihoods in nats, one entry per sequence.

    Args:
        ending_tokens, whole_tokens: tokens after the prompt; all but the first, which nothing predicts.
        ending_full, whole_full: sums over them under the full softmax. ending_own, whole_own: among the ids of each
            token's own modality (markers and `<eos>`: full).
        end_full, end_own: of `<eos>` behind the last token; `own`: among the last token's modality and `<eos>`. NaN
            without a vocabulary.
    """

    ending_tokens: Int[np.ndarray, " sequences"]
    whole_tokens: Int[np.ndarray, " sequences"]
    ending_full: Numbers
    whole_full: Numbers
    ending_own: Numbers
    whole_own: Numbers
    end_full: Numbers
    end_own: Numbers

    @classmethod
    def empty(cls, size: int) -> Scores:
        counts = ("ending_tokens", "whole_tokens")
        return cls(**{e.name: np.zeros(size, np.int64 if e.name in counts else np.float64) for e in fields(cls)})


def score(
    model: CausalLM,
    sequences: Sequence[Sequence[int] | Int[np.ndarray, " tokens"]],
    prompt_lengths: Sequence[int],
    *,
    vocabulary: Vocabulary | None = None,
    batch_tokens: int = BATCH_TOKENS,
    precision: Precision = "fp32",
    long: Long = "refuse",
    names: Sequence[str] | None = None,
    share_opening: bool = True,
) -> Scores:
    """Score sequences under a causal language model.

    Rows of like length share a batch and are padded on the right, where causal attention cannot see the padding.
    Logits and log-softmax are fp32, sums are float64.

    Args:
        sequences: token ids, at least two each.
        prompt_lengths: tokens of each sequence before its ending, in [1, length).
        vocabulary: for the softmax of one modality and for `<eos>`; without it `own` equals `full`.
        batch_tokens: upper bound of rows x padded length; a single longer row is a batch of its own.
        precision: "bf16" runs the body of the model in bf16.
        long: a sequence beyond the model's context is refused, or scored in windows that overlap by half.
        names: what to call each sequence in a message.
        share_opening: compute the common opening of neighboring sequences once.

    Raises:
        DataError: no ending, an id outside the vocabulary, a sequence longer than the model's context, or a
            log-likelihood that is not finite; the message names the sequence.
    """
    scores = Scores.empty(len(sequences))
    stream = score_stream(
        model,
        sequences,
        prompt_lengths,
        vocabulary=vocabulary,
        batch_tokens=batch_tokens,
        precision=precision,
        long=long,
        names=names,
        share_opening=share_opening,
    )
    for number, values in stream:
        for name, value in values.items():
            getattr(scores, name)[number] = value
    return scores


def score_stream(
    model: CausalLM,
    sequences: Sequence[Sequence[int] | Int[np.ndarray, " tokens"]],
    prompt_lengths: Sequence[int],
    *,
    vocabulary: Vocabulary | None = None,
    batch_tokens: int = BATCH_TOKENS,
    precision: Precision = "fp32",
    long: Long = "refuse",
    names: Sequence[str] | None = None,
    share_opening: bool = True,
    reader: Reader | None = None,
) -> Iterator[tuple[int, dict[str, float]]]:
    """As `score`, one sequence after the other as batches finish: its number and the fields of `Scores`.

    Args:
        reader: made by the caller for several calls; `precision` and `vocabulary` are then its own.
    """
    arrays = [np.asarray(sequence, np.int64) for sequence in sequences]
    names = [f"sequence {i}" for i in range(len(arrays))] if names is None else names
    context = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    _check(model, arrays, prompt_lengths, names, context if long == "refuse" else None)
    owners: dict[bytes, list[int]] = {}
    for number, ids in enumerate(arrays):
        owners.setdefault(ids.tobytes(), []).append(number)
    same = list(owners.values())  # equal sequences (the right ending against each wrong one) are read once
    pieces = cut_pieces([arrays[numbers[0]] for numbers in same], context)
    rows = make_rows(pieces, share=share_opening and can_mask(model), longest=batch_tokens)
    reader = reader or Reader(model, vocabulary, precision)
    waiting: dict[int, _Sum] = {}
    for batch in make_batches(rows, batch_tokens):
        for piece, found, places, end in _parts(reader, batch):
            numbers = same[piece.sequence]
            entry = waiting.setdefault(piece.sequence, _Sum(len(arrays[numbers[0]])))
            entry.take(piece, found, places, end)
            if entry.complete:
                del waiting[piece.sequence]
                for number in numbers:
                    yield number, entry.result(prompt_lengths[number], names[number])
    assert not waiting


def _parts(reader: Reader, batch: Sequence[Row]) -> list[tuple[Piece, Found, Int[np.ndarray, " n"], int]]:
    """Each piece of a batch with the log-probabilities of its row, its places there and its last one."""
    parts = []
    # Not around the caller's loop: a generator that is left early would leave the process without gradients.
    with evaluating(reader.model), torch.inference_mode():
        for row, found in zip(batch, reader.read(batch), strict=True):
            # NaN goes through a mask (0 x NaN): read the pieces one by one, to blame the right one.
            spoilt = row.masked and not np.isfinite(found.full).all()
            for part in alone(row) if spoilt else [row]:
                values = reader.read([part])[0] if spoilt else found
                for piece, places, end in zip(part.pieces, part.places(), part.ends(), strict=True):
                    parts.append((piece, values, places, end))
    return parts


def _check(
    model: CausalLM,
    sequences: Sequence[Int[np.ndarray, " tokens"]],
    prompts: Sequence[int],
    names: Sequence[str],
    context: int | None,
) -> None:
    if not len(sequences) == len(prompts) == len(names):
        raise ValueError(
            f"{len(sequences)} sequences need as many prompt lengths and names; got {len(prompts)}, {len(names)}"
        )
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", None)
    for ids, prompt, name in zip(sequences, prompts, names, strict=True):
        if not 1 <= prompt < len(ids):
            raise DataError(
                f"{name}: {len(ids)} tokens with a prompt of {prompt}; a prompt and an ending need one each"
            )
        if context is not None and len(ids) > context:
            raise DataError(
                f"{name}: {len(ids)} tokens, the model's context holds {context}; drop or shorten the item, or score "
                "it by windows"
            )
        if ids.min() < 0 or (vocabulary is not None and ids.max() >= vocabulary):
            raise DataError(
                f"{name}: token ids run {ids.min()}..{ids.max()}, the model has {vocabulary} ids; "
                "use the vocabulary saved with this model"
            )


@dataclass(slots=True)
class _Sum:
    """What is known so far of one sequence; windows come in any order."""

    length: int
    full: Float[np.ndarray, " tokens"] = field(init=False)
    own: Float[np.ndarray, " tokens"] = field(init=False)
    end: tuple[float, float] = (np.nan, np.nan)
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.full, self.own = np.zeros(self.length), np.zeros(self.length)
        self.left = self.length - 1

    def take(self, piece: Piece, found: Found, places: Int[np.ndarray, " n"], end: int) -> None:
        into = slice(piece.start + piece.scored, piece.start + len(piece.ids))
        self.full[into], self.own[into] = found.full[places], found.own[places]
        self.left -= len(places)
        if piece.last:
            self.end = found.ends.get(end, self.end)

    @property
    def complete(self) -> bool:
        return self.left == 0

    def result(self, prompt: int, name: str) -> dict[str, float]:
        full, own = self.full[1:], self.own[1:]
        if not (np.isfinite(full).all() and np.isfinite(own).all()):
            raise DataError(
                f"{name}: the model gives a log-likelihood that is not finite; "
                "its weights have diverged: use an earlier checkpoint or a lower learning rate"
            )
        return {
            "ending_tokens": self.length - prompt,
            "whole_tokens": self.length - 1,
            "ending_full": full[prompt - 1 :].sum(),
            "whole_full": full.sum(),
            "ending_own": own[prompt - 1 :].sum(),
            "whole_own": own.sum(),
            "end_full": self.end[0],
            "end_own": self.end[1],
        }
