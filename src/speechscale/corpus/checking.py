"""Find everything that is wrong with a corpus.

Enters: an imported corpus. Leaves: one `Problem` per item and fault, in `problems.jsonl`, and how many of each kind.
The one decision worth knowing: nothing is repaired and nothing stops the search; errors are what spoils a study (leaks,
unreadable audio, times that cannot be), warnings what a person should look at.
"""

from __future__ import annotations

import json
import math
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from speechscale.align.formats import END_TOLERANCE_S
from speechscale.align.spelling import tokens_of
from speechscale.corpus.imported import Corpus
from speechscale.corpus.listening import Heard, listen
from speechscale.corpus.readers.admit import MIN_DURATION_S, AudioFiles
from speechscale.corpus.splits import SPLITS, key_hash, text_key
from speechscale.corpus.tables import count_utterances
from speechscale.corpus.timing import word_faults
from speechscale.files import complete_file
from speechscale.progress import Progress, Watch
from speechscale.records import Utterance

MAX_WORDS_PER_S = 10.0
MAX_LETTERS_PER_S = 50.0
"""Nobody speaks faster; the transcript belongs to another recording, or the range is wrong."""
OUTLIER_MADS = 6.0
"""Distance from the corpus' own median log rate, in robust standard deviations, that is worth a look."""
MIN_RATED_S, MIN_RATED_WORDS = 1.0, 3
CLIPPED_SHARE = 0.001

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Kind:
    """How bad a kind of problem is and what undoes it."""

    severity: Severity
    remedy: str


KINDS: dict[str, Kind] = {
    "audio-unreadable": Kind("error", "copy the audio again or drop the utterance"),
    "audio-too-short": Kind("error", "record it again or drop the utterance"),
    "range-invalid": Kind("error", "correct the range in the source and import again"),
    "range-past-end": Kind("error", "correct the range in the source and import again"),
    "no-such-channel": Kind("error", "correct the channel in the source and import again"),
    "words-out-of-order": Kind("error", "align the utterance again"),
    "words-past-end": Kind("error", "align the utterance again"),
    "text-words-differ": Kind("warning", "align the utterance again, or correct the transcript"),
    "duplicate-id": Kind("error", "import again with --ids path"),
    "duplicate-audio": Kind("warning", "drop one of the two"),
    "text-in-two-splits": Kind("error", "split again with --by text or --by speaker+text"),
    "speaker-in-two-splits": Kind("warning", "split again with --by speaker, if unseen speakers are wanted"),
    "impossible-rate": Kind("error", "look whether the transcript belongs to this recording"),
    "rate-outlier": Kind("warning", "look whether the transcript belongs to this recording"),
    "no-text": Kind("warning", "transcribe it, or import with --text none for speech alone"),
    "no-split": Kind("warning", "draw splits: speechscale corpus split"),
    "silent-audio": Kind("error", "record it again or drop the utterance"),
    "clipped-audio": Kind("warning", "record it again at a lower level, or keep it"),
}
"""Every kind of problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One fault of one item."""

    id: str
    kind: str
    severity: Severity
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How many utterances were looked at, and how many problems of each kind there are; first: examples by kind."""

    utterances: int
    hours: float
    counts: dict[str, int]
    first: dict[str, list[Problem]]
    errors: int
    warnings: int


def validate_corpus(
    corpus: Corpus,
    *,
    decode: bool = False,
    workers: int = 1,
    demoted: frozenset[str] = frozenset(),
    out: Path | None = None,
    watch: Watch | None = None,
) -> Verdict:
    """List every problem of a corpus in `problems.jsonl`, in the order of the utterances, then across them.

    Args:
        decode: decode all audio too: silence, clipping, NaN, truncation, equal sound in other files.
        workers: threads; the result is the same for any number.
        demoted: kinds that count as warnings.
        out: where to write; by default in the corpus folder.

    Memory holds hashes of ids, texts and audio: about 500 bytes per utterance.
    """
    counts: Counter[str] = Counter()
    first: dict[str, list[Problem]] = defaultdict(list)
    search = _Search(files=AudioFiles(root=corpus.audio_root))
    seconds, began = 0.0, time.monotonic()
    total = count_utterances(corpus.folder / "utterances.parquet")
    with complete_file(out or corpus.folder / "problems.jsonl") as draft, draft.open("w", encoding="utf-8") as stream:

        def file(id: str, kind: str, detail: str) -> None:
            severity: Severity = "warning" if kind in demoted else KINDS[kind].severity
            problem = Problem(id=id, kind=kind, severity=severity, detail=detail, remedy=KINDS[kind].remedy)
            counts[kind] += 1
            if len(first[kind]) < 3:
                first[kind].append(problem)
            stream.write(json.dumps(asdict(problem), ensure_ascii=False) + "\n")

        heard = listen(corpus.utterances(), search.files, decode=decode, workers=workers)
        for number, (utterance, found) in enumerate(heard, start=1):
            for kind, detail in [*item_problems(utterance, found), *search.add(utterance, found)]:
                file(utterance.id, kind, detail)
            seconds += found.duration_s or 0.0
            if watch is not None:
                watch(
                    Progress(
                        items_done=number,
                        items_total=total,
                        audio_s=seconds,
                        wall_s=time.monotonic() - began,
                        note=f"{sum(counts.values()):,} problems",
                    )
                )
        for id, kind, detail in search.across(corpus.utterances()):
            file(id, kind, detail)
    errors = sum(n for kind, n in counts.items() if kind not in demoted and KINDS[kind].severity == "error")
    return Verdict(
        utterances=search.count,
        hours=seconds / 3600,
        counts={kind: counts[kind] for kind in KINDS if counts[kind]},
        first=dict(first),
        errors=errors,
        warnings=sum(counts.values()) - errors,
    )


def item_problems(utterance: Utterance, heard: Heard) -> Iterator[tuple[str, str]]:
    """(kind, detail) of whatever is wrong with one utterance by itself."""
    if heard.problem:
        yield "audio-unreadable", heard.problem
    yield from _range_problems(utterance, heard)
    for fault in word_faults(utterance.words):
        yield "words-out-of-order", fault
    if heard.duration_s is not None:
        for index, word in enumerate(utterance.words):
            if word.end_s is not None and word.end_s > heard.duration_s + END_TOLERANCE_S:
                detail = f"word {index} ('{word.text}') ends at {word.end_s:.3f} s of {heard.duration_s:.3f} s"
                yield "words-past-end", detail
    said, timed = tokens_of(utterance.text), tokens_of(" ".join(word.text for word in utterance.words))
    if utterance.words and said != timed:
        at = next((i for i, (a, b) in enumerate(zip(said, timed, strict=False)) if a != b), min(len(said), len(timed)))
        yield "text-words-differ", f"from token {at} on: text {said[at : at + 3]}, words {timed[at : at + 3]}"
    if heard.silent:
        yield "silent-audio", "all samples are zero"
    if heard.clipped_share > CLIPPED_SHARE:
        yield "clipped-audio", f"{heard.clipped_share:.2%} of the samples"
    if (rate := _rates(utterance, heard.duration_s)) is not None:
        words, letters = rate
        if words > MAX_WORDS_PER_S or letters > MAX_LETTERS_PER_S:
            detail = f"{words:.1f} words and {letters:.0f} letters per second in {heard.duration_s:.2f} s"
            yield "impossible-rate", detail


def _range_problems(utterance: Utterance, heard: Heard) -> Iterator[tuple[str, str]]:
    start, end, total = utterance.start_s, utterance.end_s, heard.file_s
    if start < 0 or (end is not None and end <= start):
        yield "range-invalid", f"{start:g}..{end} s"
    elif total is not None:
        if start >= total or (end is not None and end > total + END_TOLERANCE_S):
            yield "range-past-end", f"{start:g}..{'end' if end is None else f'{end:g}'} s of a file of {total:.3f} s"
        elif heard.duration_s is not None and heard.duration_s < MIN_DURATION_S:
            yield "audio-too-short", f"{heard.duration_s:.4f} s"
    if utterance.channel is not None and heard.channels and not 0 <= utterance.channel < heard.channels:
        yield "no-such-channel", f"channel {utterance.channel} of {heard.channels}"


def _rates(utterance: Utterance, duration_s: float | None) -> tuple[float, float] | None:
    """Words and letters per second, None where there is too little to tell."""
    tokens = tokens_of(utterance.text)
    if duration_s is None or duration_s <= 0 or len(tokens) < MIN_RATED_WORDS:
        return None
    return len(tokens) / duration_s, sum(map(len, tokens)) / duration_s


@dataclass(slots=True, kw_only=True)
class _Search:
    """What only shows across utterances."""

    files: AudioFiles
    count: int = 0
    _ids: dict[int, int] = field(default_factory=dict)
    _ranges: dict[int, str] = field(default_factory=dict)
    _sounds: dict[str, str] = field(default_factory=dict)
    _heads: dict[tuple[int, bytes], str] = field(default_factory=dict)
    _files_seen: set[int] = field(default_factory=set)
    _texts: dict[int, int] = field(default_factory=dict)
    _speakers: dict[str, int] = field(default_factory=dict)
    _letters: array[float] = field(default_factory=lambda: array("f"))
    _ranks: list[str] = field(default_factory=lambda: list(SPLITS))
    _texted: int = 0
    _splitted: int = 0

    def add(self, utterance: Utterance, heard: Heard) -> Iterator[tuple[str, str]]:
        """Remember one utterance; yield what it repeats."""
        self.count += 1
        first = self._ids.setdefault(key_hash(utterance.id), self.count)
        if first != self.count:
            yield "duplicate-id", f"utterance number {first} has the same id"
        yield from self._repeats(utterance, heard)
        if utterance.split and utterance.split not in self._ranks:
            self._ranks.append(utterance.split)
        bit = self._bit(utterance)
        if utterance.text:
            key = key_hash(text_key(utterance))
            self._texts[key] = self._texts.get(key, 0) | bit
        if utterance.speaker:
            self._speakers[utterance.speaker] = self._speakers.get(utterance.speaker, 0) | bit
        self._texted += bool(utterance.text)
        self._splitted += bool(utterance.split)
        rates = _rates(utterance, heard.duration_s)
        usable = rates is not None and (heard.duration_s or 0) >= MIN_RATED_S
        self._letters.append(math.log(rates[1]) if usable and rates is not None else math.nan)

    def across(self, utterances: Iterator[Utterance]) -> Iterator[tuple[str, str, str]]:
        """(id, kind, detail) of leaks, rates unlike the others' and what only some lack; reads the corpus again."""
        rates = np.frombuffer(self._letters, np.float32) if self.count else np.zeros(0, np.float32)
        low, high = self._usual(rates[np.isfinite(rates)])
        for utterance, rate in zip(utterances, rates, strict=True):
            earlier = self._earlier(self._texts.get(key_hash(text_key(utterance)), 0), utterance)
            if utterance.text and earlier:
                yield utterance.id, "text-in-two-splits", f"its text is also in {', '.join(earlier)}"
            if rate < low or rate > high:
                shown = (
                    f"{math.exp(rate):.1f} letters per second, usual are {math.exp(low):.1f} to {math.exp(high):.1f}"
                )
                yield utterance.id, "rate-outlier", shown
            if not utterance.text and self._texted:
                yield utterance.id, "no-text", "no transcript, though others have one"
            if not utterance.split and self._splitted:
                yield utterance.id, "no-split", "no split, though others have one"
        for speaker, mask in sorted(self._speakers.items()):
            names = [name for bit, name in enumerate(self._ranks) if mask >> bit & 1]
            if len(names) > 1:
                yield f"speaker {speaker}", "speaker-in-two-splits", f"is in {', '.join(names)}"

    def _bit(self, utterance: Utterance) -> int:
        return 1 << self._ranks.index(utterance.split) if utterance.split else 0

    def _earlier(self, mask: int, utterance: Utterance) -> list[str]:
        """The splits before this one's that hold the same key; train comes first, so leaks show on what is held out."""
        if not utterance.split:
            return []
        return [name for bit, name in enumerate(self._ranks[: self._ranks.index(utterance.split)]) if mask >> bit & 1]

    @staticmethod
    def _usual(rates: np.ndarray) -> tuple[float, float]:
        """Log rates between which nothing is remarkable; everything when there are fewer than 20."""
        if len(rates) < 20:
            return -math.inf, math.inf
        middle = float(np.median(rates))
        spread = 1.4826 * float(np.median(np.abs(rates - middle)))
        reach = max(OUTLIER_MADS * spread, math.log(1.5))
        return middle - reach, middle + reach

    def _repeats(self, utterance: Utterance, heard: Heard) -> Iterator[tuple[str, str]]:
        place = f"{utterance.audio}\0{utterance.start_s}\0{utterance.end_s}\0{utterance.channel}"
        first = self._ranges.setdefault(key_hash(place), utterance.id)
        if first is not utterance.id:
            yield "duplicate-audio", f"the same range of the same file as {first}"
            return
        if heard.sha256:
            other = self._sounds.setdefault(heard.sha256, utterance.id)
            if other is not utterance.id and not heard.silent:
                yield "duplicate-audio", f"the same samples as {other}"
        elif heard.head is not None:
            path = key_hash(utterance.audio)
            if path in self._files_seen:
                return
            self._files_seen.add(path)
            other = self._heads.setdefault(heard.head, utterance.audio)
            if other != utterance.audio and self._same_bytes(other, utterance.audio):
                yield "duplicate-audio", f"the file {utterance.audio} has the same bytes as {other}"

    def _same_bytes(self, one: str, other: str) -> bool:
        with self.files.path(one).open("rb") as first, self.files.path(other).open("rb") as second:
            while block := first.read(1 << 20):
                if block != second.read(len(block)):
                    return False
            return not second.read(1)
