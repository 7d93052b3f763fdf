"""Protocols: every silent choice between log-likelihoods and a decision, with a name.

Enters: log-likelihoods of the two candidates of an item. Leaves: which one is preferred, by how much.
The one decision worth knowing: a protocol has two halves. `Layout` changes the tokens the model reads, so each layout
is a forward pass of its own; everything else only reads the same numbers differently and is free.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from speechscale.errors import DataError
from speechscale.settings import nearest

Normalization = Literal["mean", "sum", "per_word", "per_second"]
Span = Literal["whole", "ending"]
Softmax = Literal["full", "own"]
Start = Literal["eos", "none"]
Markers = Literal["crossing", "always"]
Aggregate = Literal["item", "pair", "macro", "all"]

TIE_NATS = 1e-5
"""Margins up to this size (in the protocol's own unit) are rounding, not preference."""


@dataclass(frozen=True, slots=True, order=True)
class Layout:
    """How an item is written as tokens.

    Args:
        start: "eos" opens each sequence with `<eos>`, which no token predicts; with "none" the first token of the item
            stands there unscored.
        markers: "crossing" announces a modality only where the prompt has the other one; "always" also opens sequences
            of one modality by their marker.
    """

    start: Start = "eos"
    markers: Markers = "crossing"

    def __str__(self) -> str:
        return f"{self.start}-{self.markers}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How two candidates are compared and items are averaged.

    Args:
        normalization: of the log-likelihood: mean over tokens, sum, per word of the text, per second of the audio.
        span: all tokens ("whole"), or those behind the prompt ("ending"; the whole where an item has no prompt).
        softmax: over the full vocabulary, or among the ids of each token's "own" modality (`<eos>` and markers: full).
        end: whether `<eos>` behind the last token is scored, as one more token.
        ties: what an undecided item counts.
        aggregate: mean over items; mean over pairs of the mean in each; "macro", the mean over phenomena of that; or
            "all", the share of pairs whose items are all right (a question of four is three items of one pair).
        source: where the choices come from, and which of them are ours.
    """

    name: str
    normalization: Normalization = "mean"
    span: Span = "whole"
    softmax: Softmax = "full"
    layout: Layout = field(default_factory=Layout)
    end: bool = False
    ties: float = 0.5
    tie_nats: float = TIE_NATS
    aggregate: Aggregate = "item"
    source: str = ""

    def stamp(self) -> dict[str, Any]:
        """Every choice as plain JSON, without the name: equal stamps are equal protocols."""
        return {
            **{key: value for key, value in asdict(self).items() if key not in ("name", "source", "layout")},
            "start": self.layout.start,
            "markers": self.layout.markers,
        }


DEFAULT = "speechscale"
PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name=DEFAULT,
            span="ending",
            source="ours: mean log-likelihood per token of the ending alone, so the prompt's own likelihood cancels",
        ),
        Protocol(
            name="sims",
            layout=Layout("none", "crossing"),
            source="SIMS (Maimon et al. 2025), its code: mean over the whole sequence, no start token, first token not "
            "scored, no end token, plain mean over pairs; speech-only sets without markers",
        ),
        Protocol(
            name="sims-cross",
            layout=Layout("none", "always"),
            source="SIMS, its code for cross-modal sets (its Table 2): as sims, each sequence opens with its marker, "
            "and the marker in front of the ending is scored",
        ),
        Protocol(
            name="slam",
            end=True,
            source="Slam (Maimon et al. 2025), its code: mean over the whole sequence, start and end token around it, "
            "the end token scored",
        ),
        Protocol(
            name="cuervo",
            aggregate="macro",
            source="Cuervo & Marxer 2024, their code: mean per unit of the whole utterance, starts at <eos>, end not "
            "scored, ties .5; voices averaged in each pair, then mean over phenomena (sBLIMP)",
        ),
        Protocol(
            name="cuervo-cloze",
            ties=0.0,
            source="Cuervo & Marxer 2024, their code for StoryCloze: as cuervo, a tie counts as wrong",
        ),
        Protocol(
            name="twist",
            aggregate="pair",
            source="TWIST (Hassid et al. 2023): geometric mean of the token probabilities of the whole sequence; the "
            "paper does not state the start, end and tie rules, which are ours here",
        ),
    )
}


def get_protocol(text: str) -> Protocol:
    """A protocol by name, or one with fields changed.

    Example: "sims"; "cuervo:normalization=sum,end=true" -> the same with a name that says so

    Raises:
        DataError: unknown name, field or value; the message lists what is allowed.
    """
    base, colon, changes = text.partition(":")
    if base not in PROTOCOLS:
        raise DataError(f"protocol '{base}' is not known{nearest(base, list(PROTOCOLS))}")
    found = PROTOCOLS[base]
    if not colon:
        return found
    values: dict[str, Any] = {}
    for change in changes.split(","):
        key, equals, value = change.partition("=")
        if not equals or key not in _FIELDS:
            raise DataError(f"protocol '{text}': '{change}' is not FIELD=VALUE{nearest(key, list(_FIELDS))}")
        values[key] = _value(text, key, value)
    start, markers = values.pop("start", found.layout.start), values.pop("markers", found.layout.markers)
    return replace(found, name=text, layout=Layout(start, markers), source=f"changed from {base}", **values)


_FIELDS: dict[str, tuple[str, ...]] = {
    "normalization": get_args(Normalization),
    "span": get_args(Span),
    "softmax": get_args(Softmax),
    "start": get_args(Start),
    "markers": get_args(Markers),
    "aggregate": get_args(Aggregate),
    "end": ("true", "false"),
    "ties": ("0", "0.5", "1"),
}


def _value(text: str, key: str, value: str) -> Any:
    allowed = _FIELDS[key]
    if value not in allowed:
        raise DataError(f"protocol '{text}': {key}={value}; allowed: {', '.join(allowed)}")
    return value == "true" if key == "end" else float(value) if key == "ties" else value


def layouts_of(protocols: Iterable[Protocol]) -> list[Layout]:
    """The layouts these protocols need, each once: as many forward passes."""
    return sorted({protocol.layout for protocol in protocols})


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """What a model says of one candidate: log-likelihoods (nats) and what they may be divided by.

    Args:
        ending_tokens, whole_tokens: tokens scored in each span.
        ending_words, whole_words: of the text; 0 when it is not known. ending_s, whole_s: seconds of audio; 0 for text.
        ending_full, whole_full, ending_own, whole_own: sums over span and softmax.
        end_full, end_own: log-probability of `<eos>` behind the last token.
    """

    ending_tokens: int
    whole_tokens: int
    ending_words: int = 0
    whole_words: int = 0
    ending_s: float = 0.0
    whole_s: float = 0.0
    ending_full: float
    whole_full: float
    ending_own: float
    whole_own: float
    end_full: float
    end_own: float

    def value(self, protocol: Protocol) -> float:
        """The candidate's value under a protocol; NaN where it cannot be divided (no words, no audio)."""
        total: float = getattr(self, f"{protocol.span}_{protocol.softmax}")
        tokens: int = getattr(self, f"{protocol.span}_tokens")
        if protocol.end:
            total += self.end_full if protocol.softmax == "full" else self.end_own
            tokens += 1
        divisor = {
            "mean": tokens,
            "sum": 1,
            "per_word": getattr(self, f"{protocol.span}_words"),
            "per_second": getattr(self, f"{protocol.span}_s"),
        }[protocol.normalization]
        return total / divisor if divisor else math.nan


LIKELIHOOD_FIELDS = tuple(entry.name for entry in fields(Likelihood))
