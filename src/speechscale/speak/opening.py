"""How a prompt opens a document.

Enters: what a prompt says (units, or a text), the modality that is to follow. Leaves: token ids. The one decision worth
knowing: a prompt is written as training wrote its like: a single modality without markers, two modalities with a marker
in front of each, text behind a marker word by word.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Int

from speechscale.decode.settings import Modality
from speechscale.errors import DataError
from speechscale.records import offsets
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.vocabulary import Vocabulary

Kind = Literal["speech", "text"]
Ids = Int[np.ndarray, " tokens"]
SHOWN_WORDS = 5


def speech_ids(vocabulary: Vocabulary, units: Int[np.ndarray, " units"]) -> Ids:
    """Token ids of deduplicated units."""
    return vocabulary.speech_ids(Ragged(np.asarray(units, np.int64), offsets([len(units)]))).flat


def text_ids(vocabulary: Vocabulary, text: str, *, inside: bool) -> Ids:
    """Token ids of a text; a marker or `<eos>` inside it is text.

    Args:
        inside: it stands behind a marker, word by word; otherwise it opens a document of text alone.

    Raises:
        DataError: no text vocabulary, nothing to say, or words that a vocabulary of words does not have.
    """
    if not vocabulary.has_text:
        raise DataError("this model knows no text (a textless arm); give a recording, or take a model that has both")
    known_case = text.lower() if vocabulary.unk_id is not None else text
    words = known_case.split()
    ids = vocabulary.encode_words(words).flat if inside else vocabulary.encode_text([known_case]).flat
    if vocabulary.unk_id is not None and (ids == vocabulary.unk_id).any():
        rows = vocabulary.encode_words(words).rows()
        unknown = [word for word, row in zip(words, rows, strict=True) if (row == vocabulary.unk_id).any()]
        shown = ", ".join(f"'{word}'" for word in unknown[:SHOWN_WORDS]) + (
            " ..." if len(unknown) > SHOWN_WORDS else ""
        )
        raise DataError(
            f"'{text[:60]}': this model does not know {shown}; use words it was trained on (punctuation apart, as in "
            "its texts)"
        )
    if not len(ids):
        raise DataError(f"'{text[:60]}': the text has no token; give words")
    return ids


def following_ids(
    vocabulary: Vocabulary, content: Int[np.ndarray, " units"] | str, opening: Int[np.ndarray, " ids"]
) -> Ids:
    """Ids of what comes behind an opening: text word by word, a unit that went on across the seam only once.

    Raises:
        DataError: nothing is left, or see `text_ids`.
    """
    if isinstance(content, str):
        return text_ids(vocabulary, content, inside=True)
    last = int(opening[-1])
    if vocabulary.unit_start <= last < vocabulary.speech_stop and len(content):
        before = vocabulary.units_of(np.array([last]))
        content = content[int(before[-1] == content[0]) :]
    if not len(content):
        raise DataError("the recording only holds on the last unit of the prompt; give a longer one")
    return speech_ids(vocabulary, content)


def opening_ids(vocabulary: Vocabulary, kind: Kind, content: Int[np.ndarray, " units"] | str, into: Modality) -> Ids:
    """Ids that `into` is to follow.

    Args:
        content: units of speech, or a text. into: "speech", "text", or "free" for a span of the prompt's own kind that
            may switch.

    Raises:
        DataError: a modality that this vocabulary does not have; or see `text_ids`.
    """
    if kind == "speech" and not vocabulary.num_units:
        raise DataError("this model knows no speech (a text arm); give a text, or take a model that has both")
    marked = vocabulary.SPEECH is not None and into != kind
    ids = text_ids(vocabulary, content, inside=marked) if isinstance(content, str) else speech_ids(vocabulary, content)
    parts = [np.array([vocabulary.eos_id])]
    if marked:
        own = vocabulary.SPEECH if kind == "speech" else vocabulary.TEXT
        other = vocabulary.TEXT if kind == "speech" else vocabulary.SPEECH
        parts += [np.array([own]), ids, np.array([] if into == "free" else [other])]
    elif into not in (kind, "free"):
        raise DataError(f"this model knows no {into}; ask for {kind}, or take a model that has both")
    else:
        parts += [ids]
    return np.concatenate(parts).astype(np.int64)
