"""Laws of span lengths: how many words (or sentences) a span of one modality lasts.

Enters: a law as text, such as "poisson(10)". Leaves: integer weights to draw from.
The one decision worth knowing: a law is a table of cumulative integer weights with 2^30 as probability 1, so that draws
from it do not depend on floating-point sums, and so on the batch they are formed in.

Source: Maimon et al. 2025 (SIMS) section 3 (Poisson); Nguyen et al. 2024 (Spirit LM, uniform). Equilibrium residual
life: Cox 1962, "Renewal Theory", section 5.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError

ONE = 1 << 30
"""Probability 1 as an integer weight."""
LONGEST_SPAN = 100_000
LAWS = "poisson(10), uniform(5,15), fixed(4), geometric(3) or bernoulli"


@dataclass(frozen=True, slots=True)
class SpanLaw:
    """A law of span lengths.

    Args:
        kind: "poisson" (without its zero), "uniform" (integers, ends included), "fixed", "geometric" or "bernoulli"
            (each cell on its own; no lengths).
        numbers: poisson: the mean of the law with its zero; uniform: shortest, longest; fixed: the length; geometric:
            the mean, from 1.
        longer: probability of one cell more, which makes the mean of a derived law exact.
    """

    kind: str
    numbers: tuple[float, ...] = ()
    longer: float = 0.0

    def __str__(self) -> str:
        spelled = f"{self.kind}({','.join(f'{number:.12g}' for number in self.numbers)})" if self.numbers else self.kind
        return spelled + (f"+{self.longer:.6g}" if self.longer else "")

    @property
    def mean(self) -> float:
        """Mean length in cells."""
        match self.kind:
            case "poisson":
                return self.numbers[0] / -math.expm1(-self.numbers[0]) if self.numbers[0] else 1.0
            case "uniform":
                return sum(self.numbers) / 2 + self.longer
        assert self.kind != "bernoulli", "spans of single cells have no law of lengths"
        return self.numbers[0] + self.longer


def parse_law(text: str, name: str) -> SpanLaw:
    """Read a law. Example: "uniform(5,15)" -> SpanLaw("uniform", (5.0, 15.0))

    Raises:
        DataError: no such law, or numbers that it cannot have; `name` is the field that holds it.
    """
    found = re.fullmatch(r"\s*([a-z]+)\s*(?:\(([^()]*)\))?\s*", str(text))
    kind = found[1] if found else ""
    try:
        numbers = tuple(float(part) for part in found[2].split(",")) if found and found[2] is not None else ()
    except ValueError:
        numbers = (math.nan,)
    wanted = {"poisson": 1, "uniform": 2, "fixed": 1, "geometric": 1, "bernoulli": 0}
    if wanted.get(kind) != len(numbers) or not all(math.isfinite(number) for number in numbers):
        raise DataError(f"{name} '{text}': allowed: {LAWS}, spans counted in words or sentences")
    whole = all(number == int(number) for number in numbers)
    match kind:
        case "poisson" if not 0 < numbers[0] < 1e6:
            raise DataError(f"{name} '{text}': give poisson a mean above 0 and below 1000000")
        case "geometric" if not 1 <= numbers[0] <= LONGEST_SPAN / 10:
            raise DataError(f"{name} '{text}': give geometric a mean from 1 to {LONGEST_SPAN // 10}")
        case "fixed" if not (whole and 1 <= numbers[0] <= LONGEST_SPAN):
            raise DataError(f"{name} '{text}': give fixed a whole length from 1 to {LONGEST_SPAN}")
        case "uniform" if not (whole and 1 <= numbers[0] <= numbers[1] <= LONGEST_SPAN):
            raise DataError(f"{name} '{text}': give uniform two whole lengths from 1 to {LONGEST_SPAN}, in order")
    return SpanLaw(kind, numbers)


def blend_laws(before: SpanLaw, behind: SpanLaw, part: float) -> SpanLaw:
    """The law between two knots of a curriculum: its numbers move in a line; another kind waits for its own knot."""
    if before.kind != behind.kind or part <= 0:
        return before
    numbers = [a + (b - a) * part for a, b in zip(before.numbers, behind.numbers, strict=True)]
    if before.kind in ("uniform", "fixed"):
        numbers = [float(math.floor(number + 0.5)) for number in numbers]
    return SpanLaw(before.kind, tuple(numbers))


@lru_cache(maxsize=512)
def law_weights(law: SpanLaw) -> Int[np.ndarray, " lengths"]:
    """Cumulative law: entry k is P(length <= k) * 2^30; entry 0 is 0 and the last entry exactly 2^30."""
    match law.kind:
        case "poisson" if law.numbers[0] == 0:
            weights = np.array([0, ONE])
        case "poisson":
            weights = span_length_weights(law.numbers[0])
        case "geometric":
            stay = 1 - 1 / law.numbers[0]
            longest = math.ceil(math.log(2.0**-32) / math.log(stay)) if stay else 1
            weights = np.rint((1 - stay ** np.arange(longest + 1)) * ONE).astype(np.int64)
        case "uniform":
            low, high = (int(number) for number in law.numbers)
            ranks = np.clip(np.arange(high + 1) - low + 1, 0, None)
            weights = np.rint(ranks / (high - low + 1) * ONE).astype(np.int64)
        case _:
            weights = np.where(np.arange(int(law.numbers[0]) + 1) < law.numbers[0], 0, ONE)
    if law.longer:
        weights = np.append(weights, ONE)
        shorter = np.concatenate(([0], weights[:-1]))
        weights = np.rint(weights * (1 - law.longer) + shorter * law.longer).astype(np.int64)
    weights = weights[: int(np.argmax(weights == ONE)) + 1]
    weights.setflags(write=False)
    return weights


def span_length_weights(mean_span_words: float) -> Int[np.ndarray, " lengths"]:
    """Cumulative Poisson law without its zero, as `law_weights`; longer spans have less than 2^-31 probability."""
    longest = math.ceil(mean_span_words + 12 * math.sqrt(mean_span_words) + 24)
    k = np.arange(longest + 1)
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(k[1:]))))
    mass = np.exp(k * math.log(mean_span_words) - mean_span_words - log_factorial)
    mass[0] = 0.0
    total = np.cumsum(mass)
    weights = np.rint(total / total[-1] * ONE).astype(np.int64)
    return weights[: int(np.argmax(weights == ONE)) + 1]


@lru_cache(maxsize=512)
def residual_weights(law: SpanLaw) -> Int[np.ndarray, " lengths"]:
    """Cumulative law of what is left of a span, with the cell it is seen from: P(r) = P(length >= r) / mean."""
    weights = law_weights(law)
    total = np.cumsum(np.concatenate(([0], ONE - weights[:-1])))
    residual = np.rint(total / total[-1] * ONE).astype(np.int64)
    residual.setflags(write=False)
    return residual


def derive_text_law(speech: SpanLaw, speech_share: float) -> SpanLaw:
    """The law of text spans of the kind of `speech` whose mean makes the share exact.

    Raises:
        DataError: text spans would have to be shorter than a cell.
    """
    odds = (1 - speech_share) / speech_share
    mean = speech.mean * odds
    if mean < 1 - 1e-9:
        raise DataError(
            f"interleave.speech_share {speech_share:g} in expectation with speech_span '{speech}' (mean "
            f"{speech.mean:.4g}) needs text spans of {mean:.3g} on average, but the shortest is 1; give speech spans a "
            f"mean of at least {1 / odds:.4g}, a share of at most {speech.mean / (speech.mean + 1):.4g}, or 'bernoulli'"
        )
    mean = max(mean, 1.0)
    match speech.kind:
        case "poisson":
            return SpanLaw("poisson", (_poisson_of_mean(mean),))
        case "uniform":
            low = max(1, math.floor(speech.numbers[0] * odds + 1e-9))
            high = math.floor(2 * mean + 1e-9) - low
            return SpanLaw("uniform", (float(low), float(high)), _clean(mean - (low + high) / 2))
        case "fixed":
            whole = math.floor(mean + 1e-9)
            return SpanLaw("fixed", (float(whole),), _clean(mean - whole))
    return SpanLaw("geometric", (mean,))


def _clean(part: float) -> float:
    return part if part > 1e-9 else 0.0


def _poisson_of_mean(mean: float) -> float:
    """Parameter of the Poisson law that has this mean without its zero."""
    low, high = 0.0, mean
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if SpanLaw("poisson", (middle,)).mean < mean else (low, middle)
    return high if high > 1e-9 else 0.0
