"""What a model said.

Enters: a prompt, new token ids, their sound. Leaves: `Spoken`, its spans with times, a line of samples.jsonl. The one
decision worth knowing: a missing voice is a note and never a failure: units and text are worth having without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from speechscale.decode.settings import Modality
from speechscale.errors import DataError
from speechscale.speak.opening import Kind
from speechscale.speak.prompts import Prompt
from speechscale.speech.audio import write_audio
from speechscale.tokens.vocabulary import Vocabulary

FORMAT = "speechscale.sample.1"
PAUSE_S = 0.2
"""Silence between stretches of speech that text parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenSpan:
    """A stretch of one modality. start_s, end_s: where it sounds; None without sound (text, or no vocoder)."""

    modality: Kind
    text: str = ""
    units: tuple[int, ...] = ()
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spoken:
    """One continuation of one prompt.

    Args:
        prompt_units: units of a spoken prompt. ids: new token ids. spans: what they say, in order.
        ended: the model came to an end by itself.
        audio: prompt (if it was spoken) and continuation as one, in [-1, 1]; empty without vocoder or speech.
        prompt_s: where in `audio` the continuation starts. notes: what is missing and why.
    """

    prompt: Prompt
    prompt_units: Int[np.ndarray, " prompt_units"]
    into: Modality
    ids: tuple[int, ...]
    spans: tuple[SpokenSpan, ...]
    ended: bool
    audio: Float[np.ndarray, " samples"]
    rate_hz: int | None
    prompt_s: float
    number: int = 0
    notes: tuple[str, ...] = ()

    @property
    def units(self) -> Int[np.ndarray, " new_units"]:
        """All new units, in order."""
        return np.array([unit for span in self.spans for unit in span.units], np.int64)

    @property
    def text(self) -> str:
        """All new text, spans joined by blanks."""
        return " ".join(span.text.strip() for span in self.spans if span.text.strip())

    @property
    def seconds(self) -> float:
        """Of `audio`."""
        return len(self.audio) / self.rate_hz if self.rate_hz else 0.0

    def save(self, path: str | Path) -> Path:
        """Write the sound (.wav or .flac). Raises DataError if there is none."""
        if not len(self.audio) or self.rate_hz is None:
            why = "; ".join(self.notes) or "the model said nothing in speech"
            raise DataError(f"'{path}': there is no sound to write ({why}); use .units or .text")
        write_audio(path, self.audio, self.rate_hz)
        return Path(path)

    def record(
        self, *, id: str, audio: str, prompt_audio: str, seed: int, settings: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A line of samples.jsonl (docs/samples.md). audio, prompt_audio: paths in the folder, "" for none."""
        return {
            "format": FORMAT,
            "id": id,
            "prompt": {
                "id": self.prompt.id,
                "kind": self.prompt.kind,
                "source": self.prompt.source,
                "text": self.prompt.text or "",
                "units": self.prompt_units.tolist(),
                "seconds": self.prompt.seconds,
                "audio": prompt_audio,
            },
            "into": self.into,
            "number": self.number,
            "seed": seed,
            "settings": dict(settings),
            "spans": [
                {
                    "modality": span.modality,
                    "text": span.text,
                    "units": list(span.units),
                    "start_s": span.start_s,
                    "end_s": span.end_s,
                }
                for span in self.spans
            ],
            "text": self.text,
            "ended": self.ended,
            "audio": audio,
            "seconds": self.seconds,
            "sample_rate_hz": self.rate_hz,
            "prompt_s": self.prompt_s,
            "words": [],
            "words_by": "",
            "notes": [*self.prompt.notes, *self.notes],
        }


def new_spans(vocabulary: Vocabulary, ids: Sequence[int]) -> list[SpokenSpan]:
    """What new ids say; markers, ends and text that spells nothing part spans."""
    spans = []
    for span in vocabulary.to_spans(ids):
        if span.modality == "speech" and span.units:
            spans.append(SpokenSpan(modality="speech", units=span.units))
        elif span.modality == "text" and (span.text or span.ids):
            spans.append(SpokenSpan(modality="text", text=span.text))
    return spans


def stretches(spans: Sequence[SpokenSpan], prompt_units: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Units that sound as one, each with the numbers of their spans: neighbors in speech, the prompt first.

    Example: prompt [4], spans speech [5], text, speech [6] -> [([4, 5], [0]), ([6], [2])]
    """
    made: list[tuple[list[int], list[int]]] = []
    joined = bool(len(prompt_units))
    if joined:
        made.append((list(prompt_units), []))
    for number, span in enumerate(spans):
        if span.modality != "speech":
            joined = False
            continue
        if not joined:
            made.append(([], []))
        made[-1][0].extend(span.units)
        made[-1][1].append(number)
        joined = True
    return made
