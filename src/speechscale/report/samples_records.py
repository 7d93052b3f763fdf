"""Records of generated samples, checked, as the page and the terminal show them.

Enters: mappings as `speechscale generate` writes them, one per line of samples.jsonl. Leaves: `ShownSample`. The one
decision worth knowing: a record is checked whole before anything is drawn, so that a page never shows half of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from speechscale.errors import DataError
from speechscale.records import Word

FORMAT = "speechscale.sample.1"
MODALITIES = ("speech", "text")
TARGETS = ("speech", "text", "free")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPrompt:
    """What was continued. kind: "speech" or "text". source: its file. audio: below the folder of the records, or ""."""

    id: str
    kind: str
    source: str
    text: str
    units: tuple[int, ...]
    seconds: float
    audio: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSpan:
    """A stretch of one modality in a continuation; times are seconds of the sample's audio, None where it has none."""

    modality: str
    text: str
    units: tuple[int, ...]
    start_s: float | None
    end_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSample:
    """One continuation. prompt_s: where it starts in its audio. words: of the audio, recognized by `words_by`."""

    id: str
    prompt: ShownPrompt
    into: str
    number: int
    seed: int
    settings: Mapping[str, Any]
    spans: tuple[ShownSpan, ...]
    text: str
    ended: bool
    audio: str
    seconds: float
    sample_rate_hz: int | None
    prompt_s: float
    words: tuple[Word, ...]
    words_by: str
    notes: tuple[str, ...]


def shown_samples(records: Sequence[Mapping[str, Any]]) -> list[ShownSample]:
    """Check records in the order of their lines.

    Raises:
        DataError: another format or a field of another kind; the message names line and field.
    """
    return [shown_sample(record, f"sample in line {line}") for line, record in enumerate(records, start=1)]


def shown_sample(record: Mapping[str, Any], where: str = "sample") -> ShownSample:
    """Check one record; `where` names it in messages. Raises DataError."""
    if not isinstance(record, Mapping) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, Mapping) else record
        raise DataError(
            f"{where}: format {str(found)[:60]!r}; allowed is '{FORMAT}', as `speechscale generate` writes it; "
            "generate the sample again"
        )
    row = _Row(record, where)
    prompt = row.inside("prompt")
    return ShownSample(
        id=row.text("id"),
        prompt=ShownPrompt(
            id=prompt.text("id"),
            kind=prompt.one_of("kind", MODALITIES),
            source=prompt.text("source"),
            text=prompt.text("text"),
            units=prompt.units("units"),
            seconds=prompt.seconds("seconds"),
            audio=prompt.text("audio"),
        ),
        into=row.one_of("into", TARGETS),
        number=row.whole("number"),
        seed=row.whole("seed"),
        settings=row.mapping("settings"),
        spans=tuple(_span(span) for span in row.rows("spans")),
        text=row.text("text"),
        ended=row.truth("ended"),
        audio=row.text("audio"),
        seconds=row.seconds("seconds"),
        sample_rate_hz=None if row.value("sample_rate_hz") is None else row.whole("sample_rate_hz"),
        prompt_s=row.seconds("prompt_s"),
        words=tuple(_word(word) for word in row.rows("words")),
        words_by=row.text("words_by"),
        notes=tuple(row.texts("notes")),
    )


def said_in(sample: ShownSample) -> list[str]:
    """What each span says: its own text, or the words heard in it; a word between two belongs to the nearer one."""
    words: list[list[str]] = [[] for _ in sample.spans]
    timed = [
        (number, span.start_s, span.end_s)
        for number, span in enumerate(sample.spans)
        if span.modality == "speech" and span.start_s is not None and span.end_s is not None
    ]
    for word in sample.words:
        if word.start_s is None or word.end_s is None or not timed:
            continue
        middle = (word.start_s + word.end_s) / 2
        if middle >= sample.prompt_s:
            near = min(timed, key=lambda span: max(span[1] - middle, middle - span[2], 0.0))
            words[near[0]].append(word.text)
    return [span.text or " ".join(heard) for span, heard in zip(sample.spans, words, strict=True)]


def _span(row: _Row) -> ShownSpan:
    start_s, end_s = row.times()
    return ShownSpan(
        modality=row.one_of("modality", MODALITIES),
        text=row.text("text"),
        units=row.units("units"),
        start_s=start_s,
        end_s=end_s,
    )


def _word(row: _Row) -> Word:
    start_s, end_s = row.times()
    return Word(text=row.text("text"), start_s=start_s, end_s=end_s)


def _wrong(where: str, allowed: str, found: Any) -> DataError:
    return DataError(f"{where}: {allowed} belongs here, found {str(found)[:60]!r}; generate the sample again")


class _Row:
    """The fields of one mapping, each checked when it is taken."""

    def __init__(self, content: Any, where: str) -> None:
        self.where = where
        if not isinstance(content, Mapping):
            raise _wrong(where, "an object", content)
        self.content = content

    def _bad(self, key: str, allowed: str) -> DataError:
        return _wrong(f"{self.where}, '{key}'", allowed, self.content.get(key, "nothing"))

    def value(self, key: str) -> Any:
        if key not in self.content:
            raise self._bad(key, "a value")
        return self.content[key]

    def text(self, key: str) -> str:
        if not isinstance(value := self.value(key), str):
            raise self._bad(key, "a text")
        return value

    def one_of(self, key: str, allowed: Sequence[str]) -> str:
        if (value := self.text(key)) not in allowed:
            raise self._bad(key, " or ".join(allowed))
        return value

    def truth(self, key: str) -> bool:
        if not isinstance(value := self.value(key), bool):
            raise self._bad(key, "true or false")
        return value

    def whole(self, key: str) -> int:
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._bad(key, "a whole number")
        return value

    def seconds(self, key: str) -> float:
        value = self.value(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise self._bad(key, "a number of seconds from 0 on")
        return float(value)

    def times(self) -> tuple[float | None, float | None]:
        """start_s and end_s, both or none."""
        if self.value("start_s") is None and self.value("end_s") is None:
            return None, None
        start_s, end_s = self.seconds("start_s"), self.seconds("end_s")
        if end_s < start_s:
            raise self._bad("end_s", f"a time from start_s ({start_s:g}) on")
        return start_s, end_s

    def entries(self, key: str) -> Sequence[Any]:
        if not isinstance(value := self.value(key), list | tuple):
            raise self._bad(key, "a list")
        return value

    def units(self, key: str) -> tuple[int, ...]:
        values = self.entries(key)
        if any(not isinstance(unit, int) or isinstance(unit, bool) for unit in values):
            raise self._bad(key, "a list of whole numbers")
        return tuple(values)

    def texts(self, key: str) -> Sequence[str]:
        values = self.entries(key)
        if any(not isinstance(text, str) for text in values):
            raise self._bad(key, "a list of texts")
        return values

    def mapping(self, key: str) -> Mapping[str, Any]:
        return self.inside(key).content

    def inside(self, key: str) -> _Row:
        return _Row(self.value(key), f"{self.where}, '{key}'")

    def rows(self, key: str) -> list[_Row]:
        values = self.entries(key)
        return [_Row(value, f"{self.where}, '{key}' {number}") for number, value in enumerate(values, start=1)]
