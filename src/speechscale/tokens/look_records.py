"""What there is to see of a document: plain records of its words, units and spans.

Enters: what `tokens.look` finds. Leaves: the same for terminals and pages. The one decision worth knowing: standard
library only, so that a page can be made without loading a tokenizer, and seconds are worked out here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Modality = Literal["speech", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenUnit:
    """One unit of the utterance.

    Args:
        unit: its number. start_frame, stop_frame: half-open; both 0 where durations are not known.
        spans: how many speech spans hold it; 0 is sound that the model does not get, 2 a doubled unit.
    """

    unit: int
    start_frame: int
    stop_frame: int
    spans: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenWord:
    """One word of the utterance.

    Args:
        text: as the vocabulary spells it. spoken: as the corpus has it, "" where that is not known or the same.
        timed: it has a time. start_s, end_s: that time, None also where durations are not known.
        exact: the time is exact, not only known to the unit that holds it.
        heard, read: it lies in a speech span, in a text span.
        demoted: drawn as speech, but its span got no unit, so it became text.
    """

    text: str
    timed: bool
    start_s: float | None
    end_s: float | None
    exact: bool
    heard: bool
    read: bool
    demoted: bool
    spoken: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A word of a span with its tokens, the sound between two words ("pause"), or all of it where words are not known.

    Args:
        word: index among the words of the utterance, None unless `kind` is "word".
        ids: its tokens, in order. names: what each spells: "12", "3+49" (a subword of two units), "cat".
        start_frame, stop_frame: of its own sound; both 0 for text and where it has none.
    """

    kind: Literal["word", "pause", "run"]
    word: int | None
    text: str
    ids: tuple[int, ...]
    names: tuple[str, ...]
    start_frame: int = 0
    stop_frame: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSpan:
    """Consecutive tokens of one modality.

    Args:
        marker: spelling of the marker in front, "" without one. marker_id: its id.
        first_unit, stop_unit: half-open, 0 and 0 for text. start_frame, stop_frame: of its sound.
        doubled: how many of its units another span has as well.
    """

    modality: Modality
    parts: tuple[Part, ...]
    marker: str = ""
    marker_id: int | None = None
    first_unit: int = 0
    stop_unit: int = 0
    start_frame: int = 0
    stop_frame: int = 0
    doubled: int = 0

    @property
    def text(self) -> str:
        """Its words, joined by blanks."""
        return " ".join(part.text for part in self.parts if part.text)

    @property
    def ids(self) -> tuple[int, ...]:
        """Its tokens without the marker."""
        return tuple(token for part in self.parts for token in part.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One document as a model reads it.

    Args:
        id: of the utterance, "" for a text. number: of the utterance or text.
        stream: "speech", "text" or "interleaved".
        drawn: how the interleaving was drawn, in words; "" for the other streams.
        frame_rate_hz: None without durations: nothing can be drawn on a time axis then.
        ids: all tokens, without `<eos>`.
        notes: what is missing or worth knowing, as sentences.
    """

    id: str
    stream: str
    number: int
    drawn: str
    frame_rate_hz: float | None
    words: tuple[SeenWord, ...]
    units: tuple[SeenUnit, ...]
    spans: tuple[SeenSpan, ...]
    ids: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def seconds(self, frame: int) -> float:
        """Time of a frame border. Only where `frame_rate_hz` is known."""
        assert self.frame_rate_hz is not None, f"{self.id}: no durations"
        return frame / self.frame_rate_hz

    @property
    def duration_s(self) -> float | None:
        """Length of the sound behind the units."""
        return self.seconds(self.units[-1].stop_frame) if self.units and self.frame_rate_hz else None

    def count(self, modality: Modality) -> int:
        """Tokens of one modality."""
        return sum(len(span.ids) for span in self.spans if span.modality == modality)

    @property
    def markers(self) -> int:
        return sum(span.marker_id is not None for span in self.spans)

    @property
    def title(self) -> str:
        return self.id or f"text {self.number}"

    @property
    def facts(self) -> tuple[str, ...]:
        """What to know about it, in short pieces."""
        heard = sum(word.heard for word in self.words)
        untimed = sum(not word.timed for word in self.words)
        demoted = sum(word.demoted for word in self.words)
        doubled = sum(unit.spans > 1 for unit in self.units)
        unheard = sum(unit.spans == 0 for unit in self.units)
        found = [f"{self.duration_s:.2f} s"] if self.duration_s is not None else []
        found += [f"{plural(len(self.ids), 'token')}: {self.count('speech'):,} speech, {self.count('text'):,} text"]
        found[-1] += f", {plural(self.markers, 'marker')}" if self.markers else ""
        if self.words:
            found.append(f"{plural(len(self.words), 'word')}, {heard / len(self.words):.0%} heard")
        if self.units:
            found.append(plural(len(self.units), "unit") + (f", {unheard:,} in no span" if unheard else ""))
        if untimed:
            found.append(f"{plural(untimed, 'word')} without time")
        counted = ((demoted, "demoted word"), (doubled, "doubled unit"))
        return (*found, *(plural(count, what) for count, what in counted if count))


def plural(count: int, what: str) -> str:
    """Example: (1200, "word") -> "1,200 words"; one has no s."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
