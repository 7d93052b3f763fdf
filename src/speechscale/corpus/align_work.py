"""Align part of a corpus, in a worker of the journal.

Enters: utterances of a table, the name and settings of an aligner. Leaves: a journal row per utterance: words, scores,
seconds, or why not. The one decision worth knowing: the worker makes its own aligner and reads its own rows of the
table, so only names cross between processes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechscale.align.aligner import Aligned, Aligner, build_aligner
from speechscale.corpus.loaders import FileLoader
from speechscale.corpus.tables import read_utterance_rows
from speechscale.errors import DataError
from speechscale.journal import Row, skip_row
from speechscale.records import Utterance, Word
from speechscale.speech.audio import audio_duration_s, load_audio

PATIENCE_S, PATIENCE_FACTOR = 60.0, 2.0
"""A worker is stopped when an utterance takes PATIENCE_S plus PATIENCE_FACTOR times its length."""


@dataclass(slots=True, kw_only=True)
class AlignWork:
    """Align the utterances of a table that need it, part by part (a `journal.Work`).

    Args:
        table: of utterances. rows_per_part: of the table, whether they need it or not.
        again: those with times need it too. timeout_s: patience per utterance; None: by its length.
    """

    table: Path
    loader: FileLoader
    aligner: str
    settings: dict[str, Any]
    rows_per_part: int = 1
    again: bool = False
    timeout_s: float | None = None
    _aligner: Aligner | None = field(default=None, init=False)

    def start(self) -> None:
        self._aligner = build_aligner(self.aligner, **self.settings)  # C state: every process makes its own

    def items(self, part: int) -> Sequence[Utterance]:
        first = part * self.rows_per_part
        return [u for u in read_utterance_rows(self.table, first, first + self.rows_per_part) if self.needs(u)]

    def needs(self, utterance: Utterance) -> bool:
        return self.again or not has_times(utterance)

    @property
    def patience_s(self) -> float:
        return PATIENCE_S if self.timeout_s is None else self.timeout_s

    def patience(self, item: Utterance) -> float:
        """Seconds an utterance may take."""
        if self.timeout_s is not None:
            return self.timeout_s
        length_s = 0.0
        if item.end_s is not None:
            length_s = item.end_s - item.start_s
        else:
            with contextlib.suppress(DataError):  # The worker tells what is wrong with the file.
                length_s = audio_duration_s(self.loader.path(item))
        return PATIENCE_S + PATIENCE_FACTOR * length_s

    def rows(self, items: Sequence[Utterance]) -> Iterator[Row]:
        """Words as [text, start, end, score], whatever else `Aligned` holds, seconds of audio and of work."""
        assert self._aligner is not None
        for item in items:
            began, seconds = time.perf_counter(), 0.0
            try:
                audio = load_audio(self.loader.path(item), start_s=item.start_s, end_s=item.end_s, channel=item.channel)
                found = self._aligner.align(audio.audio, audio.sample_rate_hz, item.text)
                seconds = round(len(audio.audio) / audio.sample_rate_hz, 3)
            except DataError as error:
                # Relative paths, so that the same corpus gives the same skips wherever it lies.
                found = Aligned(words=(), failed=str(error).replace(f"{self.loader.root}/", ""))
            yield {
                **(skip_row(item.id, found.failed) if found.failed else {"id": item.id}),
                "seconds": seconds,
                "work_s": round(time.perf_counter() - began, 3),
                "words": [[word.text, word.start_s, word.end_s, word.score] for word in found.words],
                "flagged": list(found.flagged),
                "guessed": list(found.guessed),
                "how": found.how,
                "score": found.score,
            }


def has_times(utterance: Utterance) -> bool:
    """Whether any word has a time."""
    return any(word.start_s is not None for word in utterance.words)


def words_of(row: Row) -> tuple[Word, ...]:
    """The words of a row."""
    return tuple(Word(text=text, start_s=start, end_s=end, score=score) for text, start, end, score in row["words"])
