"""Plan a spoken corpus: which words, cut how, in whose voice.

Enters: texts and options. Leaves: utterances in order, each with its speaker and segments. The one decision worth
knowing: the plan is a pure function of texts, options and seed, computed again whenever it is needed and never stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from speechscale.corpus.sentences import cut_long, group_sentences, split_sentences
from speechscale.corpus.spoken_shards import AUDIO_FORMATS
from speechscale.corpus.texts import Document, TextOptions, read_documents
from speechscale.errors import DataError
from speechscale.records import Utterance
from speechscale.skips import SkipLog
from speechscale.voices.engines import VoiceOptions

VOICE_PER = ("document", "round-robin", "random")
JUDGES = ("none", "pocketsphinx")
MAX_SEGMENT_WORDS = 60
"""Longer sentences are cut at a comma: engines lose words of very long ones."""
WORDS_PER_S = 2.5
"""Usual reading speed, to turn a limit in seconds into words before anything is spoken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakOptions:
    """How a text corpus is spoken.

    Args:
        voices: addresses, see `voices.engines`. voice: what engines need to know besides.
        voice_per: "document" (drawn for each), "round-robin" (utterance by utterance) or "random" (drawn for each).
        texts: how to read. max_words: longer documents become several utterances, cut between sentences.
        hours: stop with the utterance that reaches them. documents: read only the first ones. None: all.
        seed: of the draws of voices.
        judge: "none" or "pocketsphinx"; max_wer: drop what the judge understands worse.
        on_error: "skip" or "stop". retry_skipped: try again what an earlier run had to drop.
        text_licence: terms of the texts, kept with every utterance.
    """

    voices: tuple[str, ...]
    voice: VoiceOptions = field(default_factory=VoiceOptions)
    voice_per: str = "document"
    texts: TextOptions = field(default_factory=TextOptions)
    max_words: int = 300
    hours: float | None = None
    documents: int | None = None
    seed: int = 0
    audio_format: str = "flac"
    judge: str = "none"
    max_wer: float | None = None
    on_error: str = "skip"
    retry_skipped: bool = False
    text_licence: str = ""

    def __post_init__(self) -> None:
        choices = (
            ("voice_per", self.voice_per, VOICE_PER),
            ("audio_format", self.audio_format, AUDIO_FORMATS),
            ("judge", self.judge, JUDGES),
            ("on_error", self.on_error, ("skip", "stop")),
        )
        for name, given, allowed in choices:
            if given not in allowed:
                raise DataError(f"{name} = '{given}'; allowed are {', '.join(allowed)}")
        if (self.hours is not None and self.hours <= 0) or (self.documents is not None and self.documents < 1):
            raise DataError(f"hours = {self.hours}, documents = {self.documents}; give positive numbers")
        if self.max_words < 1 or self.seed < 0:
            raise DataError(f"max_words = {self.max_words}, seed = {self.seed}; give at least 1 and 0")


def plan_utterances(
    texts: Path, options: SpeakOptions, labels: Sequence[str], skips: SkipLog
) -> Iterator[tuple[Utterance, int]]:
    """Decide, from texts and seed alone, who says what; with each utterance the bytes of text read so far.

    Every word of a document is said, in order: segments are its sentences, cut where they are very long.
    """
    read = count = 0
    documents = islice(_documents(texts, options, skips), options.documents)
    for document in documents:
        if document is None:
            continue
        read += document.size_bytes
        segments = [
            part
            for sentence in split_sentences(document.text)
            for part in cut_long(sentence, min(MAX_SEGMENT_WORDS, options.max_words))
        ]
        groups = list(group_sentences(segments, options.max_words))
        for part, group in enumerate(groups):
            id = document.id if len(groups) == 1 else f"{document.id}-p{part:03d}"
            if options.voice_per == "round-robin":
                label = labels[count % len(labels)]
            else:
                label = labels[_draw(options.seed, document.id if options.voice_per == "document" else id, len(labels))]
            count += 1
            yield Utterance(id=id, text=" ".join(group), speaker=label, split="", segments=group), read


def _documents(texts: Path, options: SpeakOptions, skips: SkipLog) -> Iterator[Document | None]:
    """Documents, and None for each that was dropped, so that a limit counts both."""
    found = SkipLog()
    taken = 0
    for document in read_documents(texts, options=options.texts, skips=found):
        for skip in islice(found, taken, None):
            skips.skips.append(skip)
            yield None
        taken = len(found)
        yield document
    for skip in islice(found, taken, None):
        skips.skips.append(skip)
        yield None


def _draw(seed: int, key: str, count: int) -> int:
    """A number below `count` that depends on seed and key alone."""
    digest = hashlib.blake2b(f"{seed}|{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % count
