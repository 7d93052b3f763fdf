"""Printed scores beside measured ones: which of them measure the same thing, and by how much they differ.

Enters: what a results folder says of a benchmark; names of published metrics and systems. Leaves: published scores.
The one decision worth knowing: a printed score belongs to a column only if metric, direction and the version of the
recordings are the same; how it was averaged and decided is mostly not printed, so a footnote says what is known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from speechscale.errors import DataError
from speechscale.evals.compare import beside_value
from speechscale.evals.likeness import title_of
from speechscale.evals.results import Results
from speechscale.report.tokens_text import printable
from speechscale.scaling.published_slms import SEEN, PublishedScore, Verified, published, published_system


@dataclass(frozen=True, slots=True)
class Measures:
    """What a set measures, in the words of `published_slms`. version "": any."""

    metric: str
    version: str = ""

    def same(self, score: PublishedScore, direction: str) -> bool:
        """Whether a published score measures this in that direction."""
        version = "text" if direction == "tt" else self.version
        return (score.metric, score.direction) == (self.metric, direction) and score.version in ("", version)


_TASKS: dict[str, tuple[str, str, str]] = {
    "sblimp": ("sBLIMP", "ss", ""),
    "blimp": ("BLiMP", "tt", ""),
    "sstorycloze": ("sSC", "", "original"),
    "tstorycloze": ("tSC", "", "original"),
    "sstorycloze_ms": ("sSC", "", "multi-speaker"),
    "tstorycloze_ms": ("tSC", "", "multi-speaker"),
}
"""Task -> metric, its only direction ("" for all), version."""


def measures(facts: Mapping[str, Any], direction: str, tag: str = "") -> Measures | None:
    """What a benchmark measures that others have printed; None for nothing.

    Args:
        facts: of the benchmark, from results.json.

    Example: of task sstorycloze_ms in "st" -> sSC, multi-speaker; of task swuggy, tag in_vocab -> sWUGGY
    """
    task = facts.get("task", "")
    if task == "swuggy" and direction == "ss" and tag in ("", "in_vocab"):
        return Measures("sWUGGY" if tag else "sWUGGY all")
    if task == "cloze" and direction == "tt" and not tag:
        return Measures("tSC" if str(facts.get("title", "")).startswith("Topic") else "sSC", "text")
    metric, only, version = _TASKS.get(task, ("", "", ""))
    return Measures(metric, version) if metric and not tag and only in ("", direction) else None


def printed(
    metrics: Sequence[str], systems: Sequence[str] = (), verified: Collection[Verified] = SEEN
) -> list[PublishedScore]:
    """Published scores of speech models, of text toplines and of people.

    Args:
        metrics: keys of `published_slms.METRICS`. systems: only those whose name holds one of these; none for all.

    Raises:
        DataError: an unknown metric, or nothing left.
    """
    found = [
        score
        for metric in metrics
        for score in published(metric, verified=verified, kinds=("model", "topline", "human"))
        if not systems or any(part.casefold() in score.system.casefold() for part in systems)
    ]
    if metrics and not found:
        raise DataError(
            f"nobody published {', '.join(metrics)} of a system named like {', '.join(systems)}; "
            "name others with --system, or none for all"
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A measured accuracy and a printed one; `difference` says in words that only ours has an interval."""

    benchmark: str
    set: str
    direction: str
    tag: str
    protocol: str
    estimate: float
    low: float | None
    high: float | None
    printed: float
    difference: str
    label: str
    caveat: str

    @property
    def title(self) -> str:
        """Example: 'sblimp ss'"""
        return title_of(self.benchmark, self.set, self.direction, self.tag)


def beside_published(results: Results, system: str, protocols: Sequence[str] = ()) -> list[Beside]:
    """Every metric of a results folder that a published system has too.

    Args:
        protocols: only these; by default all of the folder.

    Raises:
        DataError: an unknown system, or nothing in common.
    """
    scores = published_system(system)
    found = []
    for metric in results.metrics:
        what = measures(results.benchmarks.get(metric["benchmark"], {}), metric["direction"], metric["tag"])
        if what is None or metric["estimate"] is None or (protocols and metric["protocol"] not in protocols):
            continue
        for score in scores:
            if what.same(score, metric["direction"]):
                value = score.value / 100
                bounds = (metric["low"], metric["high"])
                names = ("benchmark", "set", "direction", "tag", "protocol", "estimate", "low", "high")
                found.append(
                    Beside(
                        **{name: metric[name] for name in names},
                        printed=value,
                        difference=beside_value(metric["estimate"], *bounds, value),
                        label=score.label,
                        caveat=score.caveat,
                    )
                )
    if not found:
        has = ", ".join(dict.fromkeys(f"{s.metric} {s.direction} {s.version}".strip() for s in scores))
        raise DataError(f"{results.name} and the published {scores[0].system} have no metric in common; it has {has}")
    return found


def beside_text(name: str, system: str, found: Sequence[Beside]) -> str:
    """For a terminal: a difference per line, then where the printed number comes from."""
    lines = [f"{name} beside the printed scores of {system}: not paired, perhaps not the same items", ""]
    for row in found:
        ours, theirs = f"{100 * row.estimate:.1f}", f"{100 * row.printed:g}"
        lines.append(f"{row.title}, {row.protocol}: {ours}, printed {theirs}: {row.difference}")
        lines.append(f"    {row.label}" + (f"; {row.caveat}" if row.caveat else ""))
    return "\n".join(map(printable, lines)) + "\n"
