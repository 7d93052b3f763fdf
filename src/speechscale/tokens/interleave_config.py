"""Settings of interleaving, and how they move along a training.

Enters: plain values. Leaves: `InterleaveConfig`, checked.
The one decision worth knowing: a curriculum is part of the settings and `at(progress)` is a pure function, so that
where a training stands is all one needs to know to draw what it drew.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from speechscale.errors import DataError
from speechscale.tokens.cuts import Boundary, Gap
from speechscale.tokens.laws import blend_laws, parse_law
from speechscale.tokens.spans import First, Share, SpanRule, span_rule

CURRICULUM_STEPS = 64
"""Settings change at most this often along a training, so that few of them have to be worked out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knot:
    """Settings at one point of a training, `at` of it done (0 to 1); None leaves a setting to the other knots."""

    at: float
    speech_share: float | None = None
    speech_span: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InterleaveConfig:
    """How speech and text alternate inside one sequence.

    Args:
        level: what spans count. "word"; "sentence" (of words that end in . ! ? and their like; speech if its first and
            last word have times); "utterance": no spans, the whole utterance as speech and then as text or the other
            way round.
        speech_span: law of the lengths of speech spans: poisson(10), uniform(5,15), fixed(4), geometric(3), or
            bernoulli for each word on its own.
        text_span: law of text spans, from which the share follows (give speech_share None); "" derives it.
        speech_share: share of the words that are speech.
        share: "floor": spans until at least the share is reached, as SIMS; "expectation": each word with that
            probability.
        first: modality of the first word: "drawn" as the spans fall, "speech", "text", or "even" (a coin).
        markers: open the sequence and every switch with `<speech>` or `<text>`.
        gap, boundary: which sound a span gets, see `cuts.unit_ranges`. A span that gets no unit becomes text.
        redraw_each_epoch: new spans in each epoch; otherwise every epoch repeats those of epoch 0.
        curriculum: knots in order; between two, the share and the numbers of one law move in a line.

    Raises:
        DataError: a setting that is not allowed, or two that contradict each other.
    """

    level: Literal["word", "sentence", "utterance"] = "word"
    speech_span: str = "poisson(10)"
    text_span: str = ""
    speech_share: float | None = 0.3
    share: Share = "floor"
    first: First = "drawn"
    markers: bool = True
    gap: Gap = "drop"
    boundary: Boundary = "overlap"
    redraw_each_epoch: bool = True
    curriculum: tuple[Knot, ...] = ()

    def __post_init__(self) -> None:
        self._check_types()
        for name, allowed in (
            ("level", ("word", "sentence", "utterance")),
            ("gap", ("drop", "attach", "keep")),
            ("boundary", ("overlap", "start", "majority", "slamkit")),
        ):
            if getattr(self, name) not in allowed:
                raise DataError(f"interleave.{name} '{getattr(self, name)}': allowed: {', '.join(map(repr, allowed))}")
        places = [knot.at for knot in self.curriculum]
        if places != sorted(set(places)) or not all(0 <= place <= 1 for place in places):
            raise DataError(f"interleave.curriculum: knots at {places}; give places from 0 to 1, each above the last")
        if not self.curriculum:
            _ = self.rule
        for step in range(CURRICULUM_STEPS + 1 if self.curriculum else 0):
            self.at(step / CURRICULUM_STEPS)

    def _check_types(self) -> None:
        for name in ("markers", "redraw_each_epoch"):
            if not isinstance(getattr(self, name), bool):
                raise DataError(f"interleave.{name} {getattr(self, name)!r}: give true or false")
        for name in ("level", "speech_span", "text_span", "share", "first", "gap", "boundary"):
            if not isinstance(getattr(self, name), str):
                raise DataError(f"interleave.{name} {getattr(self, name)!r}: give a text")
        for place, share in (("", self.speech_share), *((f" at {k.at}", k.speech_share) for k in self.curriculum)):
            if share is not None and (isinstance(share, bool) or not isinstance(share, int | float)):
                raise DataError(f"interleave.speech_share {share!r}{place}: give a number from 0 to 1, or none")

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that are not the usual ones, as plain values: what a record keeps."""
        return {f.name: value for f in fields(self) if (value := asdict(self)[f.name]) != f.default}

    @property
    def rule(self) -> SpanRule:
        """The laws of the spans."""
        return span_rule(self.speech_span, self.text_span, self.speech_share, self.share, self.first)

    def at(self, progress: float) -> InterleaveConfig:
        """The settings when `progress` (0 to 1) of a training is done; they change in 64 steps.

        Example: knots at 0 (share .1) and 1 (share .5): .at(0.25).speech_share is 0.2.
        """
        if not 0 <= progress <= 1:
            raise DataError(f"interleave.curriculum: progress {progress}; give the part that is done, from 0 to 1")
        return _at_step(self, math.floor(progress * CURRICULUM_STEPS)) if self.curriculum else self


@lru_cache(maxsize=4096)
def _at_step(config: InterleaveConfig, step: int) -> InterleaveConfig:
    place = step / CURRICULUM_STEPS
    shares = [(knot.at, knot.speech_share) for knot in config.curriculum if knot.speech_share is not None]
    spans = [(knot.at, knot.speech_span) for knot in config.curriculum if knot.speech_span is not None]
    share, span = config.speech_share, config.speech_span
    if shares:
        share = float(np.interp(place, [at for at, _ in shares], [value for _, value in shares]))
    if spans:
        behind = next((index for index, (at, _) in enumerate(spans) if at > place), len(spans))
        before_at, before = spans[max(behind - 1, 0)]
        behind_at, after = spans[min(behind, len(spans) - 1)]
        part = (place - before_at) / (behind_at - before_at) if behind_at > before_at else 0.0
        laws = [parse_law(text, "interleave.curriculum.speech_span") for text in (before, after)]
        span = str(blend_laws(laws[0], laws[1], part))
    return replace(config, speech_share=share, speech_span=span, curriculum=())


def interleave_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values, e.g. of a command line, as fields of `InterleaveConfig`; "none" stands for no share.

    Raises:
        DataError: an unknown name, with the nearest known one, or knots that are no tables.
    """
    known = [field.name for field in fields(InterleaveConfig)]
    found = dict(settings)
    for name in found:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise DataError(f"interleave.{name}: unknown; {hint}allowed: {', '.join(known)}")
    if found.get("speech_share") == "none":
        found["speech_share"] = None
    if "curriculum" in found:
        try:
            knots = [knot if isinstance(knot, Knot) else Knot(**knot) for knot in found["curriculum"]]
        except TypeError as error:
            raise DataError(
                f"interleave.curriculum {found['curriculum']!r}: give a list of tables with at, speech_share and "
                "speech_span"
            ) from error
        found["curriculum"] = tuple(knots)
    return found
