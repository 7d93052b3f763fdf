"""What data there is: hours of speech as units, text and interleaved tokens, and how often a plan repeats them.

Enters: names of corpora or hours, token counts, shares of a mixture. Leaves: `Inventory`, `Mixture`, and unique tokens.
The one decision worth knowing: in a mixture the stream that runs out first sets the unique tokens of the whole, since
its epochs are the most; a plan therefore never hides ten epochs of speech behind plenty of text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import inf, isfinite

from speechscale.errors import DataError

UNITS_PER_SECOND = 19.4
"""Collapsed 25 Hz HuBERT units per second of read speech (LibriSpeech: 67M units in 960 h)."""
MAX_EPOCHS = 4.0
"""Muennighoff et al. 2023: up to about 4 epochs, repeated tokens are nearly as good as new ones."""
STREAMS = ("speech", "interleaved", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Speech. hours: of audio. units: collapsed 25 Hz units of it. source: who counted."""

    name: str
    hours: float
    units: float
    source: str


CORPORA: dict[str, Corpus] = {
    name.lower(): Corpus(name=name, hours=hours, units=units, source=source)
    for name, hours, units, source in (
        ("LibriSpeech", 960.0, 67e6, "Cuervo & Marxer 2024, Table 2"),
        ("LibriLight", 53e3, 3.74e9, "Cuervo & Marxer 2024, Table 2; SIMS counts 50k h, 3.5B"),
        ("SWC", 750.0, 19e6, "SIMS, Table 4; Cuervo & Marxer print 1k h, 32M: both rates are odd"),
        ("TED-LIUM", 1.6e3, 0.11e9, "Cuervo & Marxer 2024, Table 2"),
        ("PeopleSpeech", 7e3, 0.48e9, "Cuervo & Marxer 2024, Table 2"),
        ("VoxPopuli", 24e3, 1.64e9, "Cuervo & Marxer 2024, Table 2, English"),
        ("sTinyStories", 72e3, 4.82e9, "Cuervo & Marxer 2024, Table 2, synthetic"),
        ("sTinyStories-SIMS", 30e3, 2.2e9, "SIMS, Table 4, synthetic"),
        ("Cuervo-mixture", 160e3, 10.89e9, "Cuervo & Marxer 2024, Table 2, total"),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """How the tokens of a run divide: shares of the streams in STREAMS, summing to 1."""

    name: str
    shares: Mapping[str, float]

    def __post_init__(self) -> None:
        if set(self.shares) - set(STREAMS):
            raise DataError(f"mixture {self.name}: streams are {', '.join(STREAMS)}, got {', '.join(self.shares)}")
        if not all(isfinite(s) and s >= 0 for s in self.shares.values()) or abs(sum(self.shares.values()) - 1) > 1e-9:
            raise DataError(f"mixture {self.name}: shares must be at least 0 and sum to 1, got {dict(self.shares)}")

    def share(self, stream: str) -> float:
        return self.shares.get(stream, 0.0)

    @property
    def has_text(self) -> bool:
        """Whether text tokens occur, so that the model needs rows for them."""
        return self.share("text") + self.share("interleaved") > 0


SPEECH_ONLY = Mixture(name="speech", shares={"speech": 1.0})
SIMS_THIRDS = Mixture(name="sims", shares=dict.fromkeys(STREAMS, 1 / 3))
"""SIMS: three streams with equal token counts."""
MIXTURES = {mixture.name: mixture for mixture in (SPEECH_ONLY, SIMS_THIRDS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Unique data.

    Args:
        text_tokens: unique tokens of text. interleaved_tokens: of the aligned stream; None assumes as many as the
            speech has units, each hour interleaved once.
    """

    corpora: tuple[Corpus, ...] = ()
    text_tokens: float = 0.0
    interleaved_tokens: float | None = None
    echoes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for name, value in (("text tokens", self.text_tokens), ("interleaved tokens", self.interleaved_tokens or 0.0)):
            if not (isfinite(value) and value >= 0):
                raise DataError(f"{name} {value}: must be finite and at least 0")

    @property
    def hours(self) -> float:
        return sum(corpus.hours for corpus in self.corpora)

    @property
    def units(self) -> float:
        return sum(corpus.units for corpus in self.corpora)

    @property
    def units_per_second(self) -> float:
        """Of the whole speech; the default where there is none."""
        return self.units / self.hours / 3600 if self.hours else UNITS_PER_SECOND

    def unique(self, stream: str, tokens_per_unit: float = 1.0) -> float:
        """Unique tokens of a stream. tokens_per_unit: of the law's speech tokens, see `PublishedLaw`."""
        if stream == "text":
            return self.text_tokens
        if stream == "interleaved" and self.interleaved_tokens is not None:
            return self.interleaved_tokens
        return self.units * tokens_per_unit

    def epochs(self, tokens: float, mixture: Mixture, tokens_per_unit: float = 1.0) -> dict[str, float]:
        """Passes over each stream that a run of `tokens` tokens makes; infinite where there is no such data."""
        found = {}
        for stream in STREAMS:
            if mixture.share(stream) > 0:
                unique = self.unique(stream, tokens_per_unit)
                found[stream] = tokens * mixture.share(stream) / unique if unique else inf
        return found

    def unique_of(self, mixture: Mixture, tokens_per_unit: float = 1.0) -> tuple[float, str]:
        """Tokens of the mixture until its first stream repeats, and which stream that is.

        Raises:
            DataError: a stream of the mixture has no data.
        """
        until = {
            stream: self.unique(stream, tokens_per_unit) / mixture.share(stream)
            for stream in STREAMS
            if mixture.share(stream) > 0
        }
        first = min(until, key=until.__getitem__)
        if until[first] <= 0:
            how = "--text-tokens" if first == "text" else "--data with a corpus or NAME:HOURS"
            raise DataError(f"mixture {mixture.name} needs {first} and the inventory has none: give {how}")
        return until[first], first


def parse_corpus(text: str) -> Corpus:
    """Read a corpus. Example: "LibriLight"; "podcasts:5000" (19.4 units/s); "calls:800:17.5"

    Raises:
        DataError: an unknown name without hours, or numbers out of range.
    """
    name, *numbers = text.split(":")
    if not numbers:
        known = CORPORA.get(name.strip().lower())
        if known is None:
            near = get_close_matches(name.lower(), CORPORA, n=1)
            meant = f"did you mean {CORPORA[near[0]].name}? " if near else ""
            names = ", ".join(corpus.name for corpus in CORPORA.values())
            raise DataError(f"corpus '{name}': unknown; {meant}Known: {names}; or give NAME:HOURS[:UNITS_PER_SECOND]")
        return known
    try:
        hours, rate = float(numbers[0]), float(numbers[1]) if len(numbers) > 1 else UNITS_PER_SECOND
    except ValueError:
        hours = rate = inf
    if len(numbers) > 2 or not (name and isfinite(hours) and hours > 0 and isfinite(rate) and rate > 0):
        raise DataError(f"corpus '{text}': write NAME:HOURS or NAME:HOURS:UNITS_PER_SECOND, numbers above 0")
    source = f"{rate:g} units/s" + ("" if len(numbers) > 1 else ", as read speech has (assumed)")
    return Corpus(name=name, hours=hours, units=hours * 3600 * rate, source=source)


def make_inventory(
    corpora: Sequence[str], *, text_tokens: float = 0.0, interleaved_tokens: float | None = None
) -> Inventory:
    """Collect an inventory, and say how each number came about.

    Example: make_inventory(["LibriLight", "podcasts:5000"], text_tokens=1e10)

    Raises:
        DataError: as `parse_corpus`, a corpus twice, or numbers out of range.
    """
    found = [parse_corpus(text) for text in corpora]
    names = [corpus.name.lower() for corpus in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"corpus {', '.join(sorted(twice))} is named twice: unique data counts once")
    if "cuervo-mixture" in names and len({*names} & {*CORPORA}) > 1:
        raise DataError("Cuervo-mixture holds the other named corpora: unique data counts once, name either")
    echoes = [f"{c.name}: {c.hours:,.0f} h, {c.units / 1e9:.3g}B units ({c.source})" for c in found]
    if text_tokens:
        echoes.append(f"text: {text_tokens / 1e9:.3g}B tokens")
    if interleaved_tokens is not None:
        echoes.append(f"interleaved: {interleaved_tokens / 1e9:.3g}B tokens")
    return Inventory(
        corpora=tuple(found),
        text_tokens=float(text_tokens),
        interleaved_tokens=interleaved_tokens,
        echoes=tuple(echoes),
    )


def parse_mixture(text: str) -> Mixture:
    """Read a mixture. Example: "sims"; "speech"; "text:1,interleaved:2,speech:1"

    Raises:
        DataError: not a known name, unknown streams, or shares that do not add up.
    """
    if text in MIXTURES:
        return MIXTURES[text]
    shares: dict[str, float] = {}
    try:
        for part in text.split(","):
            stream, _, share = part.partition(":")
            shares[stream.strip()] = float(share)
    except ValueError:
        raise DataError(
            f"mixture '{text}': write {', '.join(MIXTURES)} or parts such as text:1,interleaved:1,speech:1"
        ) from None
    total = sum(shares.values())
    if not (isfinite(total) and total > 0):
        raise DataError(f"mixture '{text}': the parts must sum to more than 0")
    return Mixture(name=text, shares={stream: share / total for stream, share in shares.items()})
