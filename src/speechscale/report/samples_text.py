"""One generated sample for a terminal.

Enters: a record of a sample. Leaves: a few lines. The one decision worth knowing: text is shown, never obeyed: control
characters are spelled out, as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speechscale.report.samples_records import ShownPrompt, ShownSpan, said_in, shown_sample
from speechscale.report.samples_strip import time_range
from speechscale.report.tokens_text import printable

FIRST_UNITS = 16


def samples_text(record: Mapping[str, Any]) -> str:
    """Prompt, continuation by spans, words with times, files and notes, in a few lines.

    Example:
        p0-0: speech into speech, seed 0, 4.04 s, cut at the limit
          prompt 2.50 s of x.wav: on a sunny evening
          speech 2.00-4.04 s, 42 units: the old runs
          audio: audio/p0-0.wav
          note: no vocoder: units and text only

    Raises:
        DataError: a record of another format.
    """
    sample = shown_sample(record)
    ended = "ended by itself" if sample.ended else "cut at the limit"
    seconds = f"{sample.seconds:.2f} s, " if sample.seconds else ""
    into = "speech and text" if sample.into == "free" else sample.into
    lines = [f"{sample.id}: {sample.prompt.kind} into {into}, seed {sample.seed}, {seconds}{ended}"]
    lines.append("  " + _prompt(sample.prompt))
    spans = [f"  {_span(span, said)}" for span, said in zip(sample.spans, said_in(sample), strict=True)]
    lines += spans or ["  nothing was generated"]
    times = " ".join(
        f"{word.text}@{word.start_s:.2f}"
        for word in sample.words
        if word.start_s is not None and word.end_s is not None and word.start_s + word.end_s >= 2 * sample.prompt_s
    )
    if times:
        lines.append(f"  words by {sample.words_by or 'a recognizer'}, start in s: {times}")
    if sample.audio:
        lines.append(f"  audio: {sample.audio}")
    lines += [f"  note: {note}" for note in sample.notes]
    return "\n".join(map(printable, lines))


def _prompt(prompt: ShownPrompt) -> str:
    about = f"prompt {prompt.seconds:.2f} s" if prompt.seconds else "prompt"
    source = f" of {prompt.source}" if prompt.source else ""
    return f"{about}{source}: {prompt.text or _units(prompt.units)}"


def _span(span: ShownSpan, said: str) -> str:
    if span.modality == "text":
        return f"text: {span.text}"
    known = span.start_s is not None and span.end_s is not None
    where = f" {time_range(span.start_s or 0.0, span.end_s or 0.0)}" if known else ""
    return f"speech{where}, {len(span.units)} units: {said or _units(span.units)}"


def _units(units: Sequence[int]) -> str:
    more = f" ... ({len(units)} in all)" if len(units) > FIRST_UNITS else ""
    return f"units {' '.join(map(str, units[:FIRST_UNITS]))}{more}" if units else "nothing"
