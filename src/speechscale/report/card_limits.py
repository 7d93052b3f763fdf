"""What a model cannot do, said from its own facts.

Enters: `ModelFacts`. Leaves: sentences for the card. The one decision worth knowing: no sentence is general; each is
there because a number or a missing number calls for it, and says which.
"""

from __future__ import annotations

from collections.abc import Iterator

from speechscale.report.card_facts import MetricFacts, ModelFacts
from speechscale.report.numbers import short_count

SMALL_PARAMS = 50_000_000
SMALL_HOURS = 100.0
FEW_VOICES = 20
MANY_PASSES = 4.0
DIRECTIONS = {
    "ss": "speech to speech",
    "st": "speech to text",
    "ts": "text to speech",
    "tt": "text to text",
}


def limits(facts: ModelFacts) -> list[str]:
    """Sentences about size, data, voices, tasks at chance, and what was not measured."""
    return [*_size(facts), *_data(facts), *_units(facts), *_tasks(facts), *_missing(facts), *facts.notes]


def _size(facts: ModelFacts) -> Iterator[str]:
    if facts.params_total < SMALL_PARAMS:
        count = short_count(facts.params_total)
        yield f"It is small: {count} parameters, for studying how such models scale rather than for use."
    context, rate = facts.context_tokens, facts.units.per_second
    if context and rate:
        yield f"It sees {context:,} tokens at once, which is about {context / rate:.0f} s of speech."
    elif context:
        yield f"It sees {context:,} tokens at once."


def _data(facts: ModelFacts) -> Iterator[str]:
    speech = [source for source in facts.data if source.what == "speech"]
    hours = facts.speech_hours
    if hours is not None and hours < SMALL_HOURS:
        yield f"This training gave it {_hours(hours)} of different speech."
    voices = {voice for source in speech for voice in source.voices}
    if speech and all(source.synthetic for source in speech):
        yield (
            f"Every voice of this training is synthetic ({len(voices)}: {', '.join(sorted(voices)[:12])}"
            f"{', ...' if len(voices) > 12 else ''})."
        )
    elif 0 < len(voices) < FEW_VOICES:
        heard = f"{len(voices)} speaker{'s' if len(voices) > 1 else ''}"
        yield f"This training had {heard}; others may be encoded and continued badly."
    if not facts.start.foreign and any(source.synthetic and source.made.startswith("stories") for source in speech):
        yield (
            "Its texts are made from templates about invented people: it knows nothing of the world, and its words are "
            "those of the templates."
        )
    if len(facts.languages) == 1:
        yield f"This training had one language: {facts.languages[0]}."
    unnamed = sum(amount for source in speech for name, amount in source.licences if not name)
    if unnamed or any(not source.licences for source in speech):
        yield (
            f"{_hours(unnamed) if unnamed else 'Training speech'} without a licence in any record went into it; ask "
            "the source before giving it on."
        )
    yield from _training(facts)


def _training(facts: ModelFacts) -> Iterator[str]:
    """What stands between the data and what it says; nothing is said for the trainings of others."""
    if any(label.startswith("preference") for label, _ in facts.recipe):
        yield "This training was preference tuning; no record tells of any safety training."
    elif facts.recipe:
        yield (
            "This training taught it to predict the next token and nothing else: no preference tuning and no safety "
            "training stand between its data and what it says."
        )
    else:
        yield "How it was trained is not recorded, and neither is what it might say."
    if facts.start.foreign:
        yield f"What {facts.start.base} was trained on, and how, is not recorded here; its biases may remain."


def _units(facts: ModelFacts) -> Iterator[str]:
    if facts.units.count == 0:
        yield "It has no speech units: it reads and writes text alone."
        return
    if facts.units.oracle:
        yield (
            "Its units are the phones that a speech engine reported, not learned from audio: no recording can be "
            "turned into them, and its losses compare with no model of learned units."
        )
    if facts.units.supervised:
        yield "Its units were learned with labels of a speech engine, so it is not trained from audio alone."
    if facts.units.voices is None:
        yield "No vocoder comes with it: what it generates are units, which cannot be heard without one."
    elif len(facts.units.voices) == 1:
        yield f"All it says sounds like one voice ({facts.units.voices[0]}), whoever speaks the prompt."


def _tasks(facts: ModelFacts) -> Iterator[str]:
    whole = [metric for metric in facts.metrics if not metric.tag]
    chance = [_named(metric) for metric in whole if metric.at_chance]
    if chance:
        yield f"Not told from guessing (the 95 % interval holds chance): {'; '.join(chance)}."
    if facts.rate_at_edge:
        yield "The best learning rate was at the edge of those tried, so a better one may lie beyond."
    if facts.seed is not None:
        yield "Intervals say how sure a score is for this one model, not how much another seed would differ."


def _missing(facts: ModelFacts) -> Iterator[str]:
    if not facts.metrics:
        yield "No score on any task is recorded" + ("; only losses are known." if facts.losses else ".")
    if facts.units.count and not facts.generation:
        yield "What it generates was not measured (intelligibility, naturalness, content)."


def _named(metric: MetricFacts) -> str:
    return f"{metric.set}, {DIRECTIONS.get(metric.direction, metric.direction)} ({metric.protocol})"


def _hours(hours: float) -> str:
    return f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:.1f} h"
