"""Readable text and spans: ids for people, and back.

Enters: token ids, or text such as `<speech> <Un12> <Un7> <text> the cat`, or `Span`s. Leaves: the others.
The one decision worth knowing: a span says what its ids say by text and units alone; only ids that no text gives (a
model wrote half a character, or another cutting of a word) are kept beside them, so that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.spelling import Spelling
from speechscale.tokens.text_tokenizer import UNK

if TYPE_CHECKING:
    from speechscale.tokens.vocabulary import Vocabulary

Modality = Literal["speech", "text", "end"]


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive ids of one modality.

    Args:
        modality: "speech", "text", or "end" for one `<eos>`.
        text: what a text span says, blanks as they are. units: what a speech span says.
        marked: a marker of this modality opens it.
        ids: given only where encoding `text` or `units` anew would give other ids.
    """

    modality: Modality
    text: str = ""
    units: tuple[int, ...] = ()
    marked: bool = False
    ids: tuple[int, ...] = ()


def decode(vocabulary: Vocabulary, ids: Iterable[int]) -> str:
    """See `Vocabulary.decode`."""
    pieces: list[str] = []
    text: list[int] = []
    for index in _checked(vocabulary, ids).tolist():
        name = vocabulary.spelled.get(index)
        if name is None:
            text.append(index)
            continue
        pieces += [*_decode_text(vocabulary, text), name]
        text = []
    return " ".join([*pieces, *_decode_text(vocabulary, text)])


def _decode_text(vocabulary: Vocabulary, ids: list[int]) -> list[str]:
    text = vocabulary.text_tokenizer.decode(ids, skip_special_tokens=False).strip() if ids else ""
    return [text] if text else []


def parse(vocabulary: Vocabulary, readable: str) -> Int[np.ndarray, " ids"]:
    """See `Vocabulary.parse`."""
    ids = {name: index for index, name in vocabulary.spelled.items()}
    pattern = Spelling.of(vocabulary.spelling).pattern([UNK, vocabulary.spelled[vocabulary.eos_id]])
    parts: list[np.ndarray] = []
    for number, piece in enumerate(pattern.split(readable)):
        if piece in ids:
            parts.append(np.array([ids[piece]], np.int32))
        elif number % 2:  # split puts what matched at the odd places
            raise DataError(f"'{piece}' is not in this vocabulary of {vocabulary.num_units} units")
        elif words := piece.split():
            parts.append(vocabulary.encode_words(words).flat)
    return np.concatenate([np.zeros(0, np.int32), *parts])


def to_spans(vocabulary: Vocabulary, ids: Iterable[int]) -> list[Span]:
    """See `Vocabulary.to_spans`."""
    spans: list[Span] = []
    opened: Modality | None = None
    for modality, run in _runs(vocabulary, _checked(vocabulary, ids)):
        if opened is not None and (run is None or modality != opened):
            spans.append(Span(opened, marked=True))
            opened = None
        if run is None and modality != "end":
            opened = modality
        elif run is None:
            spans.append(Span("end"))
        else:
            spans.append(_span(vocabulary, modality, run, marked=opened is not None))
            opened = None
    return spans if opened is None else [*spans, Span(opened, marked=True)]


def from_spans(vocabulary: Vocabulary, spans: Iterable[Span]) -> Int[np.ndarray, " ids"]:
    """See `Vocabulary.from_spans`."""
    parts = [np.zeros(0, np.int32)]
    for span in spans:
        if span.modality == "end":
            parts.append(np.array([vocabulary.eos_id], np.int32))
            continue
        marker = vocabulary.SPEECH if span.modality == "speech" else vocabulary.TEXT
        if span.marked and marker is None:
            raise DataError(f"a {span.modality} span has a marker, this vocabulary has none; use a joint vocabulary")
        parts += [np.array([marker] if span.marked else [], np.int32), _span_ids(vocabulary, span)]
    return np.concatenate(parts)


def _runs(vocabulary: Vocabulary, ids: np.ndarray) -> Iterator[tuple[Modality, np.ndarray | None]]:
    """Runs of text or speech ids; a marker or `<eos>` is a modality without a run."""
    kinds = vocabulary.modality_table()[ids]
    modalities: dict[int, Modality] = {0: "text", 1: "speech"}
    single: dict[int | None, Modality] = {
        vocabulary.SPEECH: "speech",
        vocabulary.TEXT: "text",
        vocabulary.eos_id: "end",
    }
    borders = np.flatnonzero((kinds[1:] != kinds[:-1]) | (kinds[1:] == 2)) + 1
    for run in np.split(ids, borders) if len(ids) else []:
        first = int(run[0])
        yield (single[first], None) if first in single else (modalities[int(first >= vocabulary.unit_start)], run)


def _span(vocabulary: Vocabulary, modality: Modality, run: np.ndarray, *, marked: bool) -> Span:
    if modality == "speech":
        made = Span("speech", units=tuple(vocabulary.units_of(run).tolist()), marked=marked)
    else:
        text = vocabulary.text_tokenizer.decode(run.tolist(), skip_special_tokens=False)
        made = Span("text", text=text, marked=marked)
    if np.array_equal(_span_ids(vocabulary, made), run):
        return made
    return Span(made.modality, made.text, made.units, marked, tuple(run.tolist()))


def _span_ids(vocabulary: Vocabulary, span: Span) -> np.ndarray:
    if span.ids:
        return _checked(vocabulary, span.ids)
    if span.modality == "speech":
        units = np.array(span.units, np.int64)
        return vocabulary.speech_ids(Ragged(units, np.array([0, len(units)]))).flat
    if not span.text:
        return np.zeros(0, np.int32)
    parts = [span.text] if vocabulary.unk_id is None else span.text.split(UNK)
    encoded = vocabulary.encode_text(parts).rows()
    unknown = np.array([vocabulary.unk_id], np.int32) if len(parts) > 1 else np.zeros(0, np.int32)
    return np.concatenate([encoded[0], *(piece for row in encoded[1:] for piece in (unknown, row))])


def _checked(vocabulary: Vocabulary, ids: Iterable[int]) -> np.ndarray:
    array = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64)
    wrong = array[(array < 0) | (array >= vocabulary.size)]
    if len(wrong):
        raise DataError(f"id {wrong[0]} is outside the vocabulary, which has 0..{vocabulary.size - 1}")
    return array.astype(np.int32)
