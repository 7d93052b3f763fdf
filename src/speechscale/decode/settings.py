"""How a continuation is drawn.

Enters: what a user asks for. Leaves: checked `Decoding`. The one decision worth knowing: the order is that of
transformers (repetition penalty, temperature, top-k, top-p, min-p), so settings carry over from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, get_args

from speechscale.errors import DataError

Modality = Literal["speech", "text", "free"]
Stop = Literal["eos", "switch", "never"]
WHOLE = ("max_new_tokens", "min_new_tokens", "top_k", "seed", "samples", "window")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """Settings of `generate`.

    Args:
        max_new_tokens, min_new_tokens: of each continuation; before `min_new_tokens` nothing ends it.
        modality: "speech" allows units, "text" text tokens, "free" both: markers then switch between them, and inside
            a span nothing of the other modality comes out. `<unk>` never does.
        temperature: 0 takes the likeliest token; seed, top_k, top_p, min_p then have no effect.
        top_k: keep the k likeliest. top_p: of these the smallest set with at least this probability.
        min_p: of these those at least this fraction as likely as the likeliest.
        repetition_penalty: above 1 makes what was in prompt or continuation less likely; 1 is off.
        seed: continuation j of prompt i draws from its own generator (seed, i, j).
        samples: continuations of each prompt.
        stop: "eos" ends at `<eos>`; "switch" also where the model would switch to the other modality, which is the end
            of an utterance (in free output it may switch: there it is "eos"); "never" goes on to `max_new_tokens`.
        window: context in tokens for continuations without end: when it is full, the older half is forgotten (all but
            the opening). None: prompt and continuation must fit the model's context.

    Raises:
        DataError: a value that is not allowed; the message names it.

    Source: Keskar et al. 2019 (repetition penalty), Holtzman et al. 2020 (top-p), Nguyen et al. 2024 (min-p).
    """

    max_new_tokens: int
    min_new_tokens: int = 0
    modality: Modality = "free"
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0
    samples: int = 1
    stop: Stop = "eos"
    window: int | None = None

    def __post_init__(self) -> None:
        self._among("modality", Modality)
        self._among("stop", Stop)
        self._within("max_new_tokens", 0, math.inf, "0 or more")
        self._within("min_new_tokens", 0, self.max_new_tokens, "0 to max_new_tokens")
        self._within("temperature", 0, math.inf, "0 (greedy) or a positive number", below=True)
        self._within("top_k", 1, math.inf, "at least 1, or None for no limit")
        self._within("top_p", 0, 1, "a probability above 0 and at most 1, or None", above=True)
        self._within("min_p", 0, 1, "a fraction from 0 to 1, or None")
        self._within("repetition_penalty", 0, math.inf, "a positive number; 1 is off", above=True, below=True)
        self._within("seed", 0, math.inf, "0 or more")
        self._within("samples", 1, math.inf, "at least 1")
        self._within("window", 16, math.inf, "at least 16 tokens, or None")

    def _among(self, name: str, kind: Any) -> None:
        value, allowed = getattr(self, name), get_args(kind)
        if value not in allowed:
            raise DataError(f"{name} '{value}': allowed are {', '.join(allowed)}")

    def _within(
        self, name: str, low: float, high: float, remedy: str, *, above: bool = False, below: bool = False
    ) -> None:
        """above, below: the bound itself is not allowed."""
        value = getattr(self, name)
        if value is None:
            return
        if name in WHOLE and not isinstance(value, Integral):
            raise DataError(f"{name} {value!r}: a whole number is needed; give {remedy}")
        if not low <= value <= high or (above and value == low) or (below and value == high):
            raise DataError(f"{name} {value}: give {remedy}")
