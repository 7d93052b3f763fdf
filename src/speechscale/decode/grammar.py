"""Which tokens may come next.

Enters: a vocabulary, the modality asked for, when to stop. Leaves: a `Grammar`: the candidate ids, and for each state
which of them are allowed and where they lead. The one decision worth knowing: a step looks two rows up in tables, for
all sequences at once; nothing loops over the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from speechscale.decode.settings import Modality, Stop
from speechscale.errors import DataError
from speechscale.tokens.vocabulary import MODALITY_MARKER, MODALITY_SPEECH, MODALITY_TEXT, Vocabulary

START, IN_SPEECH, IN_TEXT, OPENED_SPEECH, OPENED_TEXT = range(5)
"""States of free output: where nothing came yet, inside a span, right behind its marker."""
KINDS: dict[Modality, tuple[int, ...]] = {
    "speech": (MODALITY_SPEECH,),
    "text": (MODALITY_TEXT,),
    "free": (MODALITY_SPEECH, MODALITY_TEXT, MODALITY_MARKER),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """Candidates and what may follow what.

    Args:
        ids: candidates, ascending. ends: which of them end a continuation.
        allowed: per state and candidate; None: all are, always. leads: the state behind each candidate.
    """

    ids: Int[np.ndarray, " candidates"]
    ends: Bool[np.ndarray, " candidates"]
    allowed: Bool[np.ndarray, "states candidates"] | None = None
    leads: Int[np.ndarray, " candidates"] | None = None

    @classmethod
    def of(cls, vocabulary: Vocabulary, modality: Modality, stop: Stop = "eos") -> Grammar:
        """Tables of a vocabulary. Raises DataError for a modality that it does not have."""
        ids = allowed_ids(vocabulary, modality, stop_at_eos=stop != "never")
        markers = [marker for marker in (vocabulary.SPEECH, vocabulary.TEXT) if marker is not None]
        if modality != "free":
            closing = [m for m in markers if stop == "switch" and m != _marker_of(vocabulary, modality)]
            ids = np.union1d(ids, np.array(closing, ids.dtype))
            return cls(ids=ids, ends=np.isin(ids, [*closing, vocabulary.eos_id]))
        ends = ids == vocabulary.eos_id
        if not markers:  # one modality only: nothing to switch between
            return cls(ids=ids, ends=ends)
        return cls(ids=ids, ends=ends, **_spans(vocabulary, ids, ends))

    def start(self, prompts: Sequence[Int[np.ndarray, " tokens"]], vocabulary: Vocabulary) -> Int[np.ndarray, " B"]:
        """State behind each prompt."""
        if self.allowed is None:
            return np.zeros(len(prompts), np.int64)
        return np.array([_state_behind(int(prompt[-1]), vocabulary) for prompt in prompts], np.int64)


def allowed_ids(vocabulary: Vocabulary, modality: Modality, *, stop_at_eos: bool) -> Int[np.ndarray, " allowed"]:
    """Ids that may be chosen, ascending: the modality without `<unk>`, and `<eos>` if it may end the sequence."""
    if modality not in KINDS:
        raise ValueError(f"modality '{modality}': allowed are {', '.join(KINDS)}")
    mask = np.isin(vocabulary.modality_table(), KINDS[modality])
    mask[[vocabulary.eos_id] if vocabulary.unk_id is None else [vocabulary.eos_id, vocabulary.unk_id]] = False
    if not mask.any():
        raise DataError(
            f"cannot generate {modality}: this vocabulary has no such tokens; ask for "
            f"{'text' if modality == 'speech' else 'speech'}, or take a model that has both"
        )
    mask[vocabulary.eos_id] = stop_at_eos
    return np.flatnonzero(mask)


def _marker_of(vocabulary: Vocabulary, modality: Modality) -> int | None:
    return vocabulary.SPEECH if modality == "speech" else vocabulary.TEXT


def _spans(vocabulary: Vocabulary, ids: np.ndarray, ends: np.ndarray) -> dict[str, np.ndarray]:
    """Tables of free output: a span holds one modality, is never empty, and ends at the other's marker or `<eos>`."""
    kinds = vocabulary.modality_table()[ids]
    to_speech, to_text = ids == vocabulary.SPEECH, ids == vocabulary.TEXT
    speech, text = (kinds == MODALITY_SPEECH) & ~ends, (kinds == MODALITY_TEXT) & ~ends
    allowed = np.stack(
        [
            speech | text | to_speech | to_text | ends,
            speech | to_text | ends,
            text | to_speech | ends,
            speech,
            text,
        ]
    )
    leads = np.select([to_speech, to_text, speech, text], [OPENED_SPEECH, OPENED_TEXT, IN_SPEECH, IN_TEXT], START)
    return {"allowed": allowed, "leads": leads}


def _state_behind(last: int, vocabulary: Vocabulary) -> int:
    if last == vocabulary.eos_id:
        return START
    if last == vocabulary.SPEECH:
        return OPENED_SPEECH
    if last == vocabulary.TEXT:
        return OPENED_TEXT
    return IN_SPEECH if vocabulary.modality_table()[last] == MODALITY_SPEECH else IN_TEXT
