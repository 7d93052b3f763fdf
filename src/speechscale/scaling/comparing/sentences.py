"""What a comparison says, in sentences and in a text for the terminal.

Enters: a `Comparison`. Leaves: strings.
The one decision worth knowing: an interval that holds 1 gets no verdict, however far its middle is from 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from speechscale.scaling.analysis.multiplier import Multiplier, show_interval
from speechscale.scaling.analysis.multiplier_words import ruling, where
from speechscale.scaling.comparing.law_multiplier import LawMultiplier, Support
from speechscale.scaling.comparing.metric_comparison import MetricComparison
from speechscale.scaling.intervals import Estimate

if TYPE_CHECKING:
    from speechscale.scaling.comparing.comparison import Comparison


def answer(found: Comparison) -> str:
    """Answer in one sentence: what compute does B need, where was that measured, do the exponents differ?"""
    parts = []
    if found.multiplier is not None:
        parts.append(multiplier_sentence(found.multiplier))
        if found.charged is not None:
            parts.append(f"with the TextLM's training charged {_factor(found.charged.value)} times")
        else:
            parts += [f"{text} (measured envelopes)" for text in _charged_envelope(found)]
    elif found.envelope is not None and found.envelope.status != "too_few_points":
        parts += [envelope_sentence(found.envelope), *_charged_envelope(found)]
    elif found.metrics and found.metrics[0].multiplier is not None:
        parts.append(metric_sentence(found, found.metrics[0]))
    elif found.fits is None:
        parts.append(f"{found.b} and {found.a} were compared by metrics only")
    else:
        parts.append(f"the losses of {found.b} and {found.a} are not on one scale, no compute multiplier")
    if found.equal is not None:
        parts.append(found.equal.message)
    return "; ".join(parts)


def envelope_sentence(m: Multiplier) -> str:
    """Word the multiplier of the measured envelopes, which no law stands behind."""
    return (
        f"by the measured envelopes {m.arm} needs {_share(m)} times the compute of {m.baseline} for the same loss"
        f"{where(m)}: {ruling(m)}"
    )


def _charged_envelope(found: Comparison) -> list[str]:
    m = found.envelope_charged
    if m is None or m.status == "too_few_points":
        return []
    return [f"with the TextLM's training charged {_share(m)} times: {ruling(m)}"]


def _share(m: Multiplier) -> str:
    """Example: "1.81 [1.19, 2.21 or more]", "less than 0.4" """
    if m.value is None:
        return f"{m.bound} {m.bound_value:.3g}"
    return f"{m.value.value:.3g}{show_interval(m.value, m.open_low, m.open_high)}"


def multiplier_sentence(m: LawMultiplier) -> str:
    """Word the law-based multiplier, with care where its interval holds 1 or nothing was measured."""
    where = f"between {_flops(m.flops_a[0])} and {_flops(m.flops_a[1])} FLOPs of {m.a} (measured)"
    if m.status == "extrapolated":
        return (
            f"no loss was reached by both {m.a} and {m.b}; halfway between them {m.b} would need {_factor(m.value)} "
            f"times the compute of {m.a}, by extrapolation x{m.extrapolation:.3g} beyond the runs"
        )
    text = f"{m.b} needs {_factor(m.value)} times the compute of {m.a} for the same loss, {where}"
    if m.turn_supported:
        text = f"which of {m.b} and {m.a} is cheaper depends on the loss: on average {text}"
    elif not m.value.excludes(1.0):
        text = f"{m.b} and {m.a} are not told apart: {text}, and the interval holds 1"
    whole = len(m.supported) == 1 and (m.supported[0].flops_low, m.supported[0].flops_high) == m.flops_a
    if m.supported and not (whole and m.value.excludes(1.0)):
        text += f"; loss by loss it is {', '.join(map(_stretch, m.supported))} FLOPs"
    if m.turn_supported and m.turns_at is not None:
        text += f"; it turns around near {_flops(m.turns_at)} FLOPs"
    if m.unreached > 0.0:
        text += f"; in {100 * m.unreached:.2g} % of the replicates one law never reaches these losses"
    return text


def _stretch(part: Support) -> str:
    """Word one stretch. Example: "cheaper from 3e18 to 1e20" """
    word = "cheaper" if part.cheaper else "dearer"
    if part.flops_low == part.flops_high:
        return f"{word} at {_flops(part.flops_low)}"
    return f"{word} from {_flops(part.flops_low)} to {_flops(part.flops_high)}"


def metric_sentence(found: Comparison, row: MetricComparison) -> str:
    """Word the multiplier at matched metric."""
    if row.multiplier is None or row.flops_a is None:
        return row.reason
    low, high = row.flops_a
    text = (
        f"{found.b} needs {_factor(row.multiplier)} times the compute of {found.a} for the same {row.metric}, between "
        f"{_flops(low)} and {_flops(high)} FLOPs of {found.a} (measured)"
    )
    text += "" if row.multiplier.excludes(1.0) else "; the interval holds 1, so neither is shown to be cheaper"
    if row.unreached > 0:
        text += f"; in {100 * row.unreached:.2g} % of the replicates a slope is not above 0"
    return text


def methods_disagree(found: Comparison) -> tuple[str, ...]:
    """Say where the laws and the measured envelopes give different multipliers."""
    notes = []
    pairs = (("", found.multiplier, found.envelope), (" (TextLM charged)", found.charged, found.envelope_charged))
    for label, law, envelope in pairs:
        if law is None or envelope is None or envelope.value is None or law.status != "measured":
            continue
        if not _holds(law.value, envelope.value.value) and not _holds(envelope.value, law.value.value):
            notes.append(
                f"the laws give the multiplier {_factor(law.value)}, the measured envelopes {_factor(envelope.value)}"
                f"{label}: neither interval holds the other's value; look at the fits' residuals before quoting either"
            )
    return tuple(notes)


def comparison_text(found: Comparison) -> str:
    """Lay out a comparison for the terminal."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Comparison) -> Iterator[str]:
    yield f"A = {found.a} ({found.runs[0]} runs), B = {found.b} ({found.runs[1]} runs)"
    yield found.sentence
    if found.no_law:
        yield f"no law is quoted: {found.no_law}"
    if found.exponents:
        yield ""
        yield f"{'exponent':<12}{'A':<26}{'B':<26}B - A"
        for row in found.exponents:
            yield f"{row.name:<12}{_plain(row.a):<26}{_plain(row.b):<26}{_plain(row.difference)}"
        yield f"({found.exponents[0].difference.method}; the widest of: by {', by '.join(found.exponents[0].by)})"
    for title, m in (("compute multiplier", found.multiplier), ("the same, TextLM charged", found.charged)):
        if m is not None:
            yield from _multiplier_lines(title, m)
    leads = found.multiplier is None and found.envelope is not None and found.envelope.status != "too_few_points"
    for title, envelope in (("measured envelopes", found.envelope), ("TextLM charged", found.envelope_charged)):
        if envelope is not None and not leads:
            yield f"{title}, no law: {envelope.message}"
    for metric in found.metrics:
        yield ""
        yield metric_sentence(found, metric)
        yield f"  exponent of {metric.metric}: A {_plain(metric.a)}, B {_plain(metric.b)}"
        for at in metric.at_compute:
            yield f"  at {_flops(at.flops)} FLOPs: A {at.a:.4g}, B {at.b:.4g}, B - A {_plain(at.difference)}"
    for title, sentences in (("not compared", found.refused), ("note", found.notes)):
        for sentence in sentences:
            yield f"{title}: {sentence}"


def _multiplier_lines(title: str, m: LawMultiplier) -> Iterator[str]:
    yield ""
    yield f"{title} at matched loss: " + ", ".join(f"by {way} {_factor(x)}" for way, x in m.by.items())
    yield f"  {'loss':<9}{'FLOPs of A':<12}{'FLOPs of B':<12}B / A (by {m.quoted})"
    for level in m.curve:
        beyond = "" if level.extrapolation == 1 else f"  extrapolated x{level.extrapolation:.3g}"
        if not np.isfinite(level.extrapolation):
            beyond = "  never reached by one law"
        yield (
            f"  {level.loss:<9.4f}{_flops(level.flops_a):<12}{_flops(level.flops_b):<12}{_factor(level.ratio)}{beyond}"
        )
    if m.turns_at is not None:
        kind = "measured" if m.turn_measured else "extrapolated"
        yield (
            f"  passes 1 near {_flops(m.turns_at)} FLOPs of A ({kind}); inside the measured range in "
            f"{100 * m.turns_share:.0f} % of the replicates"
        )


def _factor(value: Estimate) -> str:
    """Word a ratio. Example: "0.41 [0.33, 0.52]"; an infinite end reads "or more"."""
    return _plain(value) if np.isfinite(value.value) else f"infinitely many{_interval(value)}"


def _plain(value: Estimate) -> str:
    return f"{value.value:.3g}{_interval(value)}"


def _interval(value: Estimate) -> str:
    if value.low is None or value.high is None:
        return " (interval not measured)"
    return f" [{value.low:.3g}, {f'{value.high:.3g}' if np.isfinite(value.high) else 'no upper end'}]"


def _flops(value: float) -> str:
    return "never" if not np.isfinite(value) else f"{value:.2g}".replace("e+", "e")


def _holds(value: Estimate, x: float) -> bool:
    return value.low is not None and value.high is not None and value.low <= x <= value.high
