"""The sounds that ABX compares: words, or phones among their neighbors.

Enters: a unit table, or utterances with word or phone times. Leaves: `Token`s.
The one decision worth knowing: frames are cut as word retrieval cuts them (`speech.retrieval`), so a frame belongs to
what holds its center.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Int

from speechscale.records import NO_TIME, UnitTable, expand
from speechscale.speech.labeled import SILENCE, Labeled, plain_phone
from speechscale.speech.retrieval import cut_frames, spoken_words


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Token:
    """One sound to compare.

    Args:
        category: what it is. context: only tokens of one context are compared ("" for words).
        frames: its units, one per frame.
    """

    category: str
    context: str
    speaker: str
    frames: Int[np.ndarray, " frames"]


def labeled(table: UnitTable) -> list[Labeled]:
    """Rows of a unit table as utterances with word times; words without a time are left out."""
    rows = []
    for row, id in enumerate(table.ids):
        spans = table.row_word_frames(row)
        words = tuple(
            (word, float(start) / table.frame_rate_hz, float(end) / table.frame_rate_hz)
            for word, (start, end) in zip(table.row_words(row), spans, strict=True)
            if NO_TIME not in (start, end)
        )
        units = expand(table.row_units(row), table.row_durations(row))
        rows.append(Labeled(id=id, speaker=table.speakers[row], units=units, words=words))
    return rows


def word_instances(utterances: Sequence[Labeled], frame_rate_hz: float) -> list[Token]:
    """Every spoken word as a token; its category is the word, casefolded, letters and digits only."""
    return [
        Token(category=word, context="", speaker=utterance.speaker, frames=frames)
        for word, utterance, frames in spoken_words(utterances, frame_rate_hz)
    ]


def phone_instances(utterances: Sequence[Labeled], frame_rate_hz: float, *, neighbors: int = 1) -> list[Token]:
    """Every phone with its neighbors (1: triphones) as a token: category the phone, context the neighbors.

    Groups with a silence or a gap in them are left out, and such without a frame.
    """
    tokens = []
    width = 2 * neighbors + 1
    for utterance in utterances:
        phones = [(plain_phone(label), start, end) for label, start, end in utterance.phones]
        for first in range(len(phones) - width + 1):
            group = phones[first : first + width]
            names = [name for name, _, _ in group]
            apart = any(b[1] - a[2] > 1e-3 for a, b in pairwise(group))
            frames = cut_frames(utterance.units, group[0][1], group[-1][2], frame_rate_hz)
            if SILENCE in names or apart or not len(frames):
                continue
            context = " ".join([*names[:neighbors], "_", *names[neighbors + 1 :]])
            tokens.append(Token(category=names[neighbors], context=context, speaker=utterance.speaker, frames=frames))
    return tokens
