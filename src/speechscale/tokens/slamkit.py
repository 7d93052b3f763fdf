"""slamkit's own files: features.jsonl (+ one meta JSON per utterance) to tokens.jsonl, in its format and by its rules.

Enters: lines {"units", "duration", "file_name"}; for interleaving also `<stem>.json` with "aligned_text", a list of
[" word", start_s, end_s]. Leaves: lines {"file_name", "audio_repr"} that slamkit trains on, and a `SkipLog`.
The one decision worth knowing: here, and only here, times stay float seconds and are compared by slamkit's own rule,
so that its files come out byte for byte; its samplers are kept too, but seeded per utterance instead of drawn from
global state by threads. `InterleaveConfig(boundary="slamkit")` is the same cutting on whole frames.

Source: slamkit (github.com/slp-rl/slamkit), tokenisation of interleaved samples; file formats as of May 2025.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from speechscale.errors import DataError
from speechscale.files import complete_file
from speechscale.skips import SkipLog
from speechscale.tokens.interleave import utterance_keys

Method = Literal["units", "poisson", "span", "random"]
TimedWord = tuple[str, float, float]

SPEECH, TEXT = "<speech>", "<text>"
DROPPED_FIELDS = ("units", "duration", "text", "aligned_text", "split_sentence")
"""What slamkit leaves out of tokens.jsonl; every other field of the line and of the meta file is passed on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlamkitSettings:
    """How slamkit prepares tokens.

    Args:
        method: "units" writes speech only; the others choose the words that are speech. "poisson": spans of
            Poisson(span_words) until `share` of the words are speech. "span": each word starts a span of span_words
            with probability `share`. "random": each word with one half.
        unit_duration_s: seconds per frame; 0.04 for mHuBERT 25 Hz, 0.02 for HuBERT 50 Hz.
        num_units: refuse units from here on; None takes any.
        allow_glued: also write utterances with words that have no blank in front, which run into the one before.
        seed: the words that are speech depend on it and on the file name only.
    """

    method: Method = "units"
    span_words: int = 10
    share: float = 0.3
    unit_duration_s: float = 0.04
    num_units: int | None = None
    allow_glued: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in ("units", "poisson", "span", "random"):
            raise DataError(f"slamkit method '{self.method}': allowed: 'units', 'poisson', 'span', 'random'")
        if not (self.span_words >= 1 and 0 < self.share <= 1 and self.unit_duration_s > 0):
            raise DataError(
                f"slamkit: span_words {self.span_words}, share {self.share}, unit_duration_s {self.unit_duration_s}; "
                "give at least 1, a share above 0 and at most 1, and seconds above 0"
            )


@dataclass(slots=True, kw_only=True)
class SlamkitReport:
    """What became of the lines: read = written + skipped."""

    read: int = 0
    written: int = 0
    skips: SkipLog = field(default_factory=SkipLog)


class _Unusable(Exception):
    """One line cannot be written: reason and remedy."""


def write_slamkit_tokens(
    features: Path | str, out: Path | str, settings: SlamkitSettings, *, meta: Path | str | None = None
) -> SlamkitReport:
    """Write tokens.jsonl from features.jsonl; a line that cannot be used is skipped with its reason.

    Args:
        out: a file (slamkit takes a folder); complete or not written at all.
        meta: folder of the meta files, found by the stem of "file_name"; None looks beside the audio.

    Raises:
        DataError: no features, or not one usable line.
    """
    features, out = Path(features), Path(out)
    if not features.is_file():
        raise DataError(f"{features}: missing; give slamkit's features.jsonl")
    if out.resolve() == features.resolve():
        raise DataError(f"{out}: is the features file itself; write the tokens elsewhere")
    report = SlamkitReport()
    owners: dict[str, str] = {}
    with complete_file(out) as draft:
        with draft.open("w", encoding="utf-8", newline="\n") as stream:
            for number, line in _lines(features):
                report.read += 1
                name = f"{features.name}:{number}"
                try:
                    name, text = _token_line(line, name, settings, None if meta is None else Path(meta), owners)
                except _Unusable as problem:
                    where, reason, remedy = problem.args
                    report.skips.add(where, reason, remedy)
                else:
                    stream.write(text + "\n")
                    report.written += 1
        report.skips.check(read=report.read, kept=report.written)
        if not report.written:
            raise DataError(f"{features}: none of {report.read} lines can be used ({report.skips.first()})")
    return report


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, line


def _token_line(
    line: bytes, where: str, settings: SlamkitSettings, meta: Path | None, owners: dict[str, str]
) -> tuple[str, str]:
    """Name of the utterance and its line of tokens.jsonl."""
    try:
        sample: dict[str, Any] = json.loads(line)
        name = sample["file_name"]
        units, durations = (np.array(sample[key]) for key in ("units", "duration"))
    except (ValueError, KeyError, TypeError) as error:
        remedy = 'extract the features again: {"units", "duration", "file_name"}'
        raise _Unusable(where, f"not a line of features ({error!r})", remedy) from None
    if not isinstance(name, str) or not Path(name).stem:
        raise _Unusable(where, f"its file_name is {name!r}", "name the audio file")
    _check_units(name, units, durations, settings.num_units)
    if settings.method == "units":
        text = spell_units(units)
    else:
        key = utterance_keys([name])
        sample |= _read_meta(name, meta, owners)
        words = _timed_words(name, sample.get("aligned_text"), settings.allow_glued)
        mask = draw_words(len(words), settings, np.random.default_rng([settings.seed, int(key[0])]))
        text = interleave_text(units, durations, words, mask, settings.unit_duration_s)
    for key_name in DROPPED_FIELDS:
        sample.pop(key_name, None)
    return name, json.dumps({**sample, "audio_repr": text})


def _check_units(name: str, units: np.ndarray, durations: np.ndarray, num_units: int | None) -> None:
    remedy = "extract its features again"
    for what, found in (("units", units), ("duration", durations)):
        if found.ndim != 1 or len(found) == 0 or found.dtype.kind != "i":
            raise _Unusable(name, f"its {what} are not a list of whole numbers", remedy)
    if len(units) != len(durations) or durations.min() < 1:
        raise _Unusable(name, f"{len(units)} units need as many durations of at least one frame", remedy)
    if units.min() < 0 or (num_units is not None and units.max() >= num_units):
        top = "..." if num_units is None else num_units - 1
        raise _Unusable(name, f"units run {units.min()}..{units.max()}, allowed 0..{top}", "wrong speech tokenizer?")


def _read_meta(name: str, folder: Path | None, owners: dict[str, str]) -> dict[str, Any]:
    """The meta file of an utterance; two utterances that share one by their stems are not both right."""
    path = Path(name).with_suffix(".json") if folder is None else folder / f"{Path(name).stem}.json"
    if owners.setdefault(str(path), name) != name:
        reason = f"its meta file {path.name} is already that of {owners[str(path)]}"
        raise _Unusable(name, reason, "give files of different folders different names")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _Unusable(
            name, f"its meta file {path} is missing", "align it, or give the folder of the meta files"
        ) from None
    except (OSError, ValueError) as error:
        raise _Unusable(name, f"its meta file {path} is not readable as JSON ({error})", "write it again") from None
    if not isinstance(content, dict):
        raise _Unusable(name, f"its meta file {path} holds no object", 'write {"aligned_text": [...]}')
    return content


def _timed_words(name: str, aligned: object, allow_glued: bool) -> list[TimedWord]:
    """Check the aligned words; fields behind the third (a score) are ignored."""
    remedy = 'write aligned_text as [[" word", start_s, end_s], ...]'
    if not isinstance(aligned, list) or not aligned:
        raise _Unusable(name, "its aligned_text has no words", remedy)
    words: list[TimedWord] = []
    for number, entry in enumerate(aligned):
        if not (isinstance(entry, list) and len(entry) >= 3 and isinstance(entry[0], str)):
            raise _Unusable(name, f"word {number} of aligned_text is {json.dumps(entry)[:60]}", remedy)
        times = entry[1:3]
        if not all(isinstance(at, (int, float)) and math.isfinite(at) for at in times) or times[0] > times[1]:
            raise _Unusable(name, f"word {number} ({entry[0]!r}) has the times {times}", remedy)
        words.append((entry[0], *times))
    glued = [word for word, _, _ in words if not word.startswith(" ")]
    if glued and not allow_glued:
        reason = f"word {glued[0]!r} has no blank in front and would run into the one before"
        raise _Unusable(name, reason, 'write words as " word", or set allow_glued for a script without blanks')
    return words


def spell_units(units: Int[np.ndarray, " units"]) -> str:
    """Example: [3, 49] -> "<Un3><Un49>" """
    return "".join([f"<Un{unit}>" for unit in units.tolist()])


def interleave_text(
    units: Int[np.ndarray, " units"],
    durations: Int[np.ndarray, " units"],
    words: Sequence[TimedWord],
    is_speech: Bool[np.ndarray, " words"],
    unit_duration_s: float,
) -> str:
    """Spell an utterance as slamkit does. Example: "<text> were each<speech><Un3><Un49><text> window"

    A speech span takes the units from the first that ends at or behind the start of its first word up to, and without,
    the first that ends behind the end of its last word. A word shorter than that can come out with no unit.
    """
    ends = np.cumsum(durations) * unit_duration_s
    opens = np.flatnonzero(np.diff(is_speech, prepend=~is_speech[:1])).tolist()
    pieces = []
    for first, stop in zip(opens, [*opens[1:], len(words)], strict=True):
        if is_speech[first]:
            begin = np.searchsorted(ends, words[first][1], side="left")
            end = np.searchsorted(ends, words[stop - 1][2], side="right")
            pieces.append(SPEECH + spell_units(units[begin:end]))
        else:
            pieces.append(TEXT + "".join([word for word, _, _ in words[first:stop]]))
    return "".join(pieces)


def draw_words(words: int, settings: SlamkitSettings, rng: np.random.Generator) -> Bool[np.ndarray, " words"]:
    """Choose the words that are speech by one of slamkit's samplers."""
    if settings.method == "random":
        return rng.random(words) >= 0.5
    if settings.method == "span":
        starts = np.flatnonzero(rng.random(words) < settings.share)
        edges = np.zeros(words + 1, np.int64)
        np.add.at(edges, starts, 1)
        np.add.at(edges, np.minimum(starts + settings.span_words, words), -1)
        return np.cumsum(edges)[:words] > 0
    return _poisson_spans(words, settings.span_words, settings.share, rng)


@lru_cache(maxsize=1024)
def _at_most(longest: int, mean: float) -> Float[np.ndarray, " lengths"]:
    """P(length <= k) of a Poisson law for k = 0..longest."""
    lengths = np.arange(longest + 1)
    log_mass = lengths * math.log(mean) - mean - np.concatenate(([0.0], np.cumsum(np.log(lengths[1:]))))
    return np.minimum(np.cumsum(np.exp(log_mass)), 1.0)


def _poisson_spans(words: int, mean: float, share: float, rng: np.random.Generator) -> Bool[np.ndarray, " words"]:
    """slamkit's loop without its rejections: start and length are drawn from the law of what it accepts.

    A length of 0 is accepted, marks nothing and uses up its start, as there.
    """
    at_most = _at_most(words, mean)
    mask, eligible = np.zeros(words, bool), np.ones(words, bool)
    wall, place = np.full(words, words), np.arange(words)
    while mask.sum() < math.ceil(words * share) and eligible.any():
        room = wall - place
        weights = np.where(eligible, np.where(wall == words, 1.0, at_most[room]), 0.0)
        if not weights.any():  # spans far longer than any room: the loop would go on for ever
            weights = eligible.astype(float)
        total = np.cumsum(weights)
        start = min(int(np.searchsorted(total, rng.random() * total[-1], side="right")), int(eligible.nonzero()[0][-1]))
        drawn = int(np.searchsorted(at_most, rng.random() * weights[start], side="right"))
        stop = start + min(drawn, int(room[start]))
        mask[start:stop] = True
        eligible[start : stop + 1] = False
        if stop > start:
            wall[:start] = np.minimum(wall[:start], start)
    return mask
