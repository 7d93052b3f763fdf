"""Count a corpus: hours, utterances, words, speakers, rates, per split, language and licence.

Enters: an imported corpus. Leaves: a plain dict of numbers, for stats.json and a page. The one decision worth knowing:
what could not be measured (audio that cannot be opened) is counted as such and left out of every sum.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from speechscale.align.spelling import tokens_of
from speechscale.corpus.imported import Corpus
from speechscale.corpus.listening import Heard, listen
from speechscale.corpus.readers.admit import AudioFiles
from speechscale.corpus.splits import key_hash, text_key
from speechscale.records import Utterance

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
EDGES_S = (0.0, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 60.0, 300.0, 3600.0, float("inf"))
"""Borders of the histogram of durations, seconds."""
BAR_WIDTH = 40


def corpus_stats(corpus: Corpus, *, workers: int = 1) -> dict[str, Any]:
    """Measure a corpus by the headers of its audio, in one pass.

    Returns:
        {"utterances", "hours", "unreadable", "speakers", "texts" (different ones), "words", "words_timed_share",
        "duration_s" and "words_per_s" (quantiles), "histogram_s" [[from, to, utterances], ...], "splits", "languages",
        "licences" (each name -> {"utterances", "hours", ...})}
    """
    total, splits = _Sums(), dict[str, _Sums]()
    languages, licences = dict[str, _Sums](), dict[str, _Sums]()
    files = AudioFiles(root=corpus.audio_root)
    for utterance, heard in listen(corpus.utterances(), files, heads=False, workers=workers):
        groups = [
            splits.setdefault(utterance.split or "none", _Sums()),
            languages.setdefault(utterance.language or "not said", _Sums()),
            licences.setdefault(utterance.licence or "not said", _Sums()),
        ]
        facts = _facts(utterance, heard)
        for sums in (total, *groups):
            sums.add(utterance, facts)
    return {
        "corpus": str(corpus.folder),
        **total.summary(),
        "histogram_s": total.histogram(),
        "splits": {name: splits[name].summary() for name in sorted(splits)},
        "languages": {name: languages[name].brief() for name in sorted(languages)},
        "licences": {name: licences[name].brief() for name in sorted(licences)},
    }


@dataclass(frozen=True, slots=True)
class _Facts:
    duration_s: float | None
    tokens: int
    timed: int
    text: int


def _facts(utterance: Utterance, heard: Heard) -> _Facts:
    return _Facts(
        duration_s=None if heard.problem else heard.duration_s,
        tokens=len(tokens_of(utterance.text)),
        timed=sum(word.start_s is not None for word in utterance.words),
        text=key_hash(text_key(utterance)) if utterance.text else 0,
    )


@dataclass(slots=True)
class _Sums:
    """Running sums of one group of utterances; 8 bytes per utterance, and one entry per speaker and text."""

    utterances: int = 0
    unreadable: int = 0
    words: int = 0
    listed: int = 0
    timed: int = 0
    speakers: Counter[str] = field(default_factory=Counter)
    texts: set[int] = field(default_factory=set)
    durations: array[float] = field(default_factory=lambda: array("f"))
    rates: array[float] = field(default_factory=lambda: array("f"))

    def add(self, utterance: Utterance, facts: _Facts) -> None:
        self.utterances += 1
        self.words += facts.tokens
        self.listed += len(utterance.words)
        self.timed += facts.timed
        if utterance.speaker:
            self.speakers[utterance.speaker] += 1
        if facts.text:
            self.texts.add(facts.text)
        if facts.duration_s is None:
            self.unreadable += 1
            return
        self.durations.append(facts.duration_s)
        if facts.tokens and facts.duration_s > 0:
            self.rates.append(facts.tokens / facts.duration_s)

    def brief(self) -> dict[str, Any]:
        hours = float(np.frombuffer(self.durations, np.float32).sum(dtype=np.float64)) / 3600 if self.durations else 0.0
        return {"utterances": self.utterances, "hours": hours, "unreadable": self.unreadable}

    def summary(self) -> dict[str, Any]:
        return {
            **self.brief(),
            "speakers": len(self.speakers),
            "texts": len(self.texts),
            "words": self.words,
            "words_timed_share": self.timed / self.listed if self.listed else None,
            "duration_s": _quantiles(self.durations),
            "words_per_s": _quantiles(self.rates),
        }

    def histogram(self) -> list[list[float | int | None]]:
        counts = np.histogram(np.asarray(self.durations), EDGES_S)[0] if self.durations else np.zeros(len(EDGES_S) - 1)
        edges = [None if edge == float("inf") else edge for edge in EDGES_S]
        return [[edges[i], edges[i + 1], int(count)] for i, count in enumerate(counts)]


def _quantiles(values: array[float]) -> dict[str, float] | None:
    """Mean and quantiles, None without values."""
    if not values:
        return None
    numbers = np.frombuffer(values, np.float32).astype(np.float64)
    found = {
        f"q{round(q * 100):02d}": float(value)
        for q, value in zip(QUANTILES, np.quantile(numbers, QUANTILES), strict=True)
    }
    return {"mean": float(numbers.mean()), **found}


def stats_lines(stats: dict[str, Any]) -> list[str]:
    """The numbers as lines of text, with a histogram of durations."""
    lines = [
        f"{stats['hours']:.2f} hours, {stats['utterances']:,} utterances, {stats['words']:,} words, "
        f"{stats['speakers']:,} speakers, {stats['texts']:,} different texts"
    ]
    if stats["unreadable"]:
        lines.append(f"{stats['unreadable']:,} utterances have unreadable audio and are not in the hours")
    share = stats["words_timed_share"]
    lines.append(f"words with times: {'no words' if share is None else f'{share:.1%}'}")
    for key, what in (("duration_s", "seconds per utterance"), ("words_per_s", "words per second")):
        if (q := stats[key]) is not None:
            lines.append(
                f"{what}: median {q['q50']:.2f}, 5% to 95% {q['q05']:.2f} to {q['q95']:.2f}, "
                f"range {q['q00']:.2f} to {q['q100']:.2f}"
            )
    most = max((row[2] for row in stats["histogram_s"]), default=0)
    for low, high, count in stats["histogram_s"]:
        if count:
            label = f"{low:g} s and more" if high is None else f"{low:g} to {high:g} s"
            lines.append(f"{label:>16} {count:>9,} {'#' * max(1, round(BAR_WIDTH * count / most))}")
    for name, part in stats["splits"].items():
        lines.append(
            f"split {name}: {part['hours']:.2f} hours, {part['utterances']:,} utterances, "
            f"{part['speakers']:,} speakers, {part['texts']:,} texts"
        )
    for title in ("languages", "licences"):
        parts = [f"{name} {part['hours']:.2f} hours" for name, part in stats[title].items()]
        lines.append(f"{title}: {', '.join(parts)}")
    return lines


def stats_page(stats: dict[str, Any]) -> str:
    """One self-contained HTML page: durations, hours per split, and the lines of `stats_lines`."""
    import html

    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2, subplot_titles=("utterances by seconds", "hours per split"))
    rows = [row for row in stats["histogram_s"] if row[2]]
    labels = [f"{low:g}+" if high is None else f"{low:g} to {high:g}" for low, high, _ in rows]
    figure.add_trace(go.Bar(x=labels, y=[row[2] for row in rows], name="utterances"), row=1, col=1)
    hours = [part["hours"] for part in stats["splits"].values()]
    figure.add_trace(go.Bar(x=list(stats["splits"]), y=hours, name="hours"), row=1, col=2)
    figure.update_layout(showlegend=False, height=420, margin={"t": 40, "l": 40, "r": 20, "b": 40})
    body = figure.to_html(full_html=False, include_plotlyjs="inline")
    text = html.escape("\n".join(stats_lines(stats)))
    name = html.escape(str(stats["corpus"]))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        f'<body style="font-family: system-ui; margin: 2em"><h1>{name}</h1><pre>{text}</pre>{body}</body></html>\n'
    )
