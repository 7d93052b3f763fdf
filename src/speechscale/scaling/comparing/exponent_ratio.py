"""Text against speech: by how many decades must compute grow for speech where text needs one?

Enters: exponents of a metric against compute, measured or published. Leaves: `ExponentRatio` with sentences.
The one decision worth knowing: the ratio says decades PER DECADE. "Speech needs three orders of magnitude more" holds
for one decade of text compute, it is not a factor between two models.

Source: Cuervo & Marxer 2024, Table 4 and the abstract.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from speechscale.errors import DataError
from speechscale.scaling.intervals import LEVEL, Estimate
from speechscale.scaling.links.metric_slopes import MetricExponent
from speechscale.scaling.published import SLOPES, PublishedSlope

Gamma = float | str | PublishedSlope | MetricExponent


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentRatio:
    """gamma_text / gamma_speech. text, speech: the exponents, as given. sentences: what it means, and what not."""

    ratio: Estimate
    text: Estimate
    speech: Estimate
    sentences: tuple[str, ...]


def exponent_ratio(gamma_text: Gamma, gamma_speech: Gamma) -> ExponentRatio:
    """Divide the exponent of text by that of speech.

    Example: exponent_ratio(.066, .021).ratio.value -> 3.14
    Example: exponent_ratio("cuervo-text-tstorycloze", metric_exponent(runs, "tSC"))

    Args:
        gamma_text, gamma_speech: a number, a name in `published.SLOPES` (neither has an interval), or a
            `MetricExponent` measured on runs.

    Raises:
        DataError: an unknown name, or an exponent that is not above 0.
    """
    (text, text_drawn, text_said), (speech, speech_drawn, speech_said) = map(_exponent, (gamma_text, gamma_speech))
    for label, gamma in (("text", text), ("speech", speech)):
        if not (np.isfinite(gamma.value) and gamma.value > 0):
            raise DataError(f"{label} exponent {gamma.value:g}: must be above 0; a metric at chance has no ratio")
    value = text.value / speech.value
    ratio = Estimate(value=value, low=None, high=None, method="printed exponents carry no interval")
    if text_drawn is not None or speech_drawn is not None:
        ratio = _ratio(value, text, text_drawn, speech, speech_drawn)
    return ExponentRatio(
        ratio=ratio, text=text, speech=speech, sentences=_sentences(ratio, text_said, speech_said, text, speech)
    )


def _exponent(given: Gamma) -> tuple[Estimate, np.ndarray | None, str]:
    """Return the exponent, its replicates where it was measured, and where it comes from."""
    if isinstance(given, MetricExponent):
        return given.gamma, np.asarray(given.replicates.gamma), f"{given.metric} of {given.name}"
    if isinstance(given, str):
        if given not in SLOPES:
            raise DataError(f"no published slope '{given}'; there are {', '.join(SLOPES)}")
        given = SLOPES[given]
    if isinstance(given, PublishedSlope):
        method = f"printed in {given.source}, no interval"
        return Estimate(value=given.gamma, low=None, high=None, method=method), None, given.name
    return Estimate(value=float(given), low=None, high=None, method="given, no interval"), None, "as given"


def _ratio(
    value: float, text: Estimate, text_drawn: np.ndarray | None, speech: Estimate, speech_drawn: np.ndarray | None
) -> Estimate:
    """Push replicates through the ratio; a speech exponent at or below 0 needs infinitely many decades."""
    above = np.asarray(text.value if text_drawn is None else text_drawn, float)
    below = np.asarray(speech.value if speech_drawn is None else speech_drawn, float)
    if above.ndim and below.ndim:
        count = min(len(above), len(below))
        above, below = above[:count], below[:count]
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.where(below > 0, above / below, np.inf)
    drawn = drawn[np.isfinite(above + np.zeros_like(below)) & np.isfinite(below + np.zeros_like(above))]
    fixed = "" if text_drawn is not None and speech_drawn is not None else "; the printed exponent is taken as exact"
    if len(drawn) < 20:
        return Estimate(value=value, low=None, high=None, method="no interval: resamples hold too few runs")
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    method = f"{len(drawn)} bootstrap replicates by runs, percentiles{fixed}"
    return Estimate(value=value, low=float(low), high=float(high), method=method)


def _sentences(ratio: Estimate, text_said: str, speech_said: str, text: Estimate, speech: Estimate) -> tuple[str, ...]:
    interval = "" if ratio.low is None else f" [{ratio.low:.3g}, {ratio.high:.3g}]"
    tenfold = "" if ratio.low is None else f" [{_power(ratio.low)}, {_power(ratio.high or np.inf)}]"
    faster = ratio.value > 1
    pythia = (
        "the printed text exponents rest on Pythia models, all trained on one number of tokens and the small ones far "
        "past their optimum: their exponent is not that of compute-optimal text models",
    )
    return (
        f"text ({text_said}) has exponent {text.value:.3g}, speech ({speech_said}) {speech.value:.3g}: "
        f"ratio {ratio.value:.3g}{interval} decades per decade",
        f"a relative gain that text reaches with 10 times its compute takes speech {_power(ratio.value)}{tenfold} "
        f"times its own",
        "this compares growth, each modality from its own start: it is no factor between two models, and "
        + (
            f"over n decades of text compute the speech factor is 10^({ratio.value:.3g} n), so a single "
            f'"{_power(ratio.value)} times" holds for one decade only'
            if faster
            else "speech does not grow more slowly than text here"
        ),
        "exponents of raw accuracy depend on the chance level and the ceiling of the metric: a task that starts nearer "
        "to either has a smaller exponent for the same learning",
        *(pythia if text_said.startswith("cuervo-text") else ()),
    )


def _power(decades: float) -> str:
    """Word 10^decades. Example: 3.14 -> "1,380" """
    if not np.isfinite(decades):
        return "unboundedly many"
    return f"{float(f'{10**decades:.3g}'):,.6g}" if decades < 6 else f"10^{decades:.3g}"
