"""Losses of a validation set: per modality, per unit, per second of speech, per word, with a standard error.

Enters: a model and `Batch`es of packed documents. Leaves: `Losses`.
The one decision worth knowing: every target's loss is kept, with its document, so that the standard error is one over
documents, and so that any number of processes that share a set say the same as one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int8

from speechscale.tokens.packing import Batch
from speechscale.tokens.store import TokenStore
from speechscale.tokens.vocabulary import MODALITY_MARKER, MODALITY_SPEECH, MODALITY_TEXT
from speechscale.train.attention import choose_kernel, lay_out, predicting_places
from speechscale.train.objective import Objective, Precision
from speechscale.train.parallel import SOLO, Group, is_sharded

__all__ = ["Losses", "Rates", "loss_by_modality", "predicting_places", "ratio_standard_error", "target_losses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What turns a loss per token into one that other tokenizers can be compared with.

    Args:
        units_per_second: deduplicated units in a second of this set's speech. units_per_word: in a spoken word.
        text_tokens_per_word: of this set's text. None: not known.
    """

    units_per_second: float | None = None
    units_per_word: float | None = None
    text_tokens_per_word: float | None = None

    @classmethod
    def of(cls, store: TokenStore) -> Rates:
        """Those of a store's spoken documents, where they are known.

        Text tokens per word are those of the transcripts; what is only read is of the same language.
        """
        counts = store.counts
        units, words = counts.get("units", 0), counts.get("words", 0)
        if not units:
            return cls()
        worded = words and not counts.get("utterances_without_words", 0)
        return cls(
            units_per_second=units / (store.speech_hours * 3600),
            units_per_word=units / words if worded else None,
            text_tokens_per_word=float(store.arrays["word_token_counts"].mean()) if worded else None,
        )


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

    def per(self, rates: Rates) -> dict[str, float | None]:
        """The losses as they are logged: per unit, per second, per spoken word, per text token, per written word.

        A loss per word or second is the loss per token times the set's own rate, so it has the same relative error.
        """

        def times(loss: float | None, rate: float | None) -> float | None:
            return None if loss is None or rate is None else loss * rate

        return {
            "speech_per_unit": self.speech,
            "speech_se": self.speech_se,
            "speech_per_second": times(self.speech, rates.units_per_second),
            "speech_per_word": times(self.speech, rates.units_per_word),
            "text_per_token": self.text,
            "text_per_word": times(self.text, rates.text_tokens_per_word),
            "marker": self.marker,
            "mean": self.mean,
        }


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


@torch.no_grad()
def target_losses(
    model: Any, batch: Batch, places: Int[np.ndarray, " targets"], precision: Precision = "fp32"
) -> Float[np.ndarray, " targets"]:
    """Cross-entropy of each target in nats; `model` is a causal LM or its `Objective`."""
    objective = model if isinstance(model, Objective) else Objective(model, precision=precision)
    device = objective.model.device
    kernel = choose_kernel("auto", device, precision)
    rows = lay_out(batch, places, 1.0, kernel=kernel, device=device)
    losses: np.ndarray = objective(rows, precision).nats.double().cpu().numpy()
    return losses


class _Measured(NamedTuple):
    """Targets of one batch: loss, modality, units they spell, number of their document in the batch."""

    losses: Float[np.ndarray, " targets"]
    kinds: Int8[np.ndarray, " targets"]
    units: Int[np.ndarray, " targets"]
    documents: Int[np.ndarray, " targets"]


def loss_by_modality(
    model: Any,
    batches: Iterable[Batch],
    modality: Int8[np.ndarray, " V"],
    units: Int[np.ndarray, " V"] | None = None,
    *,
    precision: Precision = "fp32",
    group: Group = SOLO,
) -> Losses:
    """Evaluate a model on batches of packed documents.

    Windows of a document longer than the context count as documents of their own.

    Args:
        model: a causal LM or its `Objective`, sharded or not.
        modality: modality of each id (`Vocabulary.modality_table`).
        units: that each id spells (`Vocabulary.units_per_id`); None: one per speech id.
        group: processes that share the batches; each gets the losses of all.
    """
    spelled = (modality == MODALITY_SPEECH).astype(np.int64) if units is None else units
    was_training = model.training
    model.eval()
    usable = [batch for batch in batches if len(predicting_places(batch.segments))]
    assert usable, "a validation set without targets"
    own = []
    for number in range(-(-len(usable) // group.world)):
        # Sharded parameters are gathered by all processes together, so one without a batch of its own takes the last.
        batch = usable[min(number * group.world + group.rank, len(usable) - 1)]
        places = predicting_places(batch.segments)
        losses = target_losses(model, batch, places, precision)
        targets = batch.tokens.reshape(-1)[places + 1]
        key = places // batch.segments.shape[1] * (int(batch.segments.max()) + 1) + batch.segments.reshape(-1)[places]
        document = np.unique(key, return_inverse=True)[1]
        own.append(_Measured(losses, modality[targets], spelled[targets], document))
    model.train(was_training)
    if is_sharded(model):  # without a backward pass FSDP2 leaves the root's parameters whole
        model.reshard()
    rounds = zip(*group.gather(own), strict=True)
    measured = [part for each in rounds for part in each][: len(usable)]
    before = np.cumsum([0, *(int(part.documents.max()) + 1 for part in measured)])[:-1]
    numbered = [part._replace(documents=part.documents + first) for part, first in zip(measured, before, strict=True)]
    return _summarize(*(np.concatenate(column) for column in zip(*numbered, strict=True)))


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
