"""How likely a continuation is.

Enters: a model, ids of an opening and of what follows. Leaves: `Likelihood`. The one decision worth knowing: the number
is that of the full softmax, what other protocols make of it is theirs (evals/score.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from speechscale.evals.score import score
from speechscale.tokens.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """log_likelihood_nats: of `tokens` tokens, the opening not among them. units: those that are speech."""

    log_likelihood_nats: float
    tokens: int
    units: int

    @property
    def nats_per_token(self) -> float:
        return -self.log_likelihood_nats / self.tokens


def likelihood(
    model: Any,
    vocabulary: Vocabulary,
    opening: Int[np.ndarray, " opening"],
    ending: Int[np.ndarray, " ending"],
    *,
    name: str,
) -> Likelihood:
    """Score an ending behind its opening. Raises DataError if there is none, or both are longer than the context."""
    whole = np.concatenate([opening, ending])
    scores = score(model, [whole], [len(opening)], vocabulary=vocabulary, names=[name])
    return Likelihood(
        log_likelihood_nats=float(scores.ending_full[0]),
        tokens=int(scores.ending_tokens[0]),
        units=int(((ending >= vocabulary.unit_start) & (ending < vocabulary.speech_stop)).sum()),
    )
