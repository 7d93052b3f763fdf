"""The nouns of generation: how prompts are continued, what continues them, what came of one.

Enters: settings, a model and what lets it hear and speak. Leaves: checked `Sampling`, `Speaker` and `Sample`. The one
decision worth knowing: a `Sample` is plain JSON with paths below its output folder, so that it outlives the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from speechscale.errors import DataError
from speechscale.evals.generation.prompts import Cut
from speechscale.speech.units import SpeechTokenizer
from speechscale.speech.vocoders import UnitVocoder
from speechscale.tokens.vocabulary import Vocabulary

GenerateDirection = Literal["ss", "st", "ts"]
DIRECTIONS: tuple[GenerateDirection, ...] = ("ss", "st", "ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How prompts are continued.

    Args:
        direction: modality of the prompt, then of the continuation. prompt_s, cut: see `prompts.cut_prompt`.
        max_new: tokens at most. temperature: 0 takes the likeliest token. top_k, top_p: None for no limit.
        batch: prompts generated at once; part of the recipe, as padding may change the last bits of a logit.
    """

    direction: GenerateDirection = "ss"
    prompt_s: float = 3.0
    cut: Cut = "seconds"
    max_new: int = 150
    temperature: float = 0.8
    top_k: int | None = 25
    top_p: float | None = None
    seed: int = 0
    batch: int = 16

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS or self.cut not in ("seconds", "word"):
            raise DataError(
                f"generate: direction '{self.direction}', cut '{self.cut}'; allowed: ss, st, ts; seconds, word"
            )
        if not (self.prompt_s > 0 and self.max_new >= 1 and self.batch >= 1):
            raise DataError(
                f"generate: prompt_s {self.prompt_s}, max_new {self.max_new}, batch {self.batch}; all must be positive"
            )
        if not 0 <= self.temperature < math.inf or (self.top_p is not None and not 0 < self.top_p <= 1):
            raise DataError(
                f"generate: temperature {self.temperature}, top_p {self.top_p}; give a temperature of 0 or more, and "
                "a top_p above 0 and at most 1"
            )
        if self.top_k is not None and self.top_k < 1:
            raise DataError(f"generate: top_k {self.top_k}; give at least 1, or None for no limit")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Speaker:
    """A model with everything that lets it hear and speak.

    Args:
        tokenizer: needed for spoken prompts. vocoder: None: units only. voice: one of the vocoder's.
        vocoder_sha256: checksum of its files, for the recipe.
    """

    model: Any
    vocabulary: Vocabulary
    tokenizer: SpeechTokenizer | None
    vocoder: UnitVocoder | None
    voice: str | None = None
    vocoder_sha256: str = ""
    name: str = ""

    def check(self, direction: GenerateDirection) -> None:
        """Raise DataError where something the direction needs is missing."""
        if "t" in direction and (not self.vocabulary.has_text or self.vocabulary.SPEECH is None):
            raise DataError(f"direction '{direction}' needs a model of speech and text; this one has no text: use ss")
        if self.vocabulary.num_units == 0:
            raise DataError("generate: this model has no speech units; give a speech or interleaved model")
        if direction[0] == "s" and self.tokenizer is None:
            raise DataError("spoken prompts need the speech tokenizer of the model's units; give --tokenizer DIR")
        if direction[0] == "s" and self.tokenizer is not None and self.tokenizer.oracle:
            raise DataError("this model's units are phones of a speech engine, which no recording has; use ts")
        if self.tokenizer is not None and self.tokenizer.num_units != self.vocabulary.num_units:
            raise DataError(
                f"tokenizer of {self.tokenizer.num_units} units, model of {self.vocabulary.num_units}; "
                "give the tokenizer that the model was trained with"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One prompt and what became of it.

    Args:
        prompt_units: of a spoken prompt, deduplicated. prompt_text: its words; "" where they are not known.
        units: the new units. text: the new text (direction st).
        ended: the model ended by itself.
        audio: of prompt and continuation (ss) or of the continuation (ts), below the output folder; "" without vocoder
            or without units. continuation_audio: of the new units alone. seconds, continuation_s: of them.
        reference_units, reference_rest_units: of the recording, and of what follows the cut.
        reference_s: length of the recording; cut_s: where the prompt ended. reference_text: what is said in it.
    """

    id: str
    number: int
    cut_s: float
    prompt_units: tuple[int, ...]
    prompt_text: str
    units: tuple[int, ...]
    text: str
    ended: bool
    audio: str = ""
    continuation_audio: str = ""
    seconds: float = 0.0
    continuation_s: float = 0.0
    reference_units: tuple[int, ...] = ()
    reference_rest_units: tuple[int, ...] = ()
    reference_s: float = 0.0
    reference_text: str = ""

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Sample:
        """The inverse of `asdict` through JSON."""
        values: dict[str, Any] = {entry.name: record[entry.name] for entry in fields(cls)}
        values |= {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**values)
