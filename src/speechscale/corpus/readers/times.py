"""Join word times from elsewhere to the items of any source.

Enters: one file of many recordings (CTM, lhotse supervisions, ...), or a folder of one file per item. Leaves: the words
of an item, counted from its start. The one decision worth knowing: times named after the item count from its start,
times named after its audio file count from the file's start, and only the words inside the item's range are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from speechscale.align.formats import Losses, read_alignment, read_alignments
from speechscale.corpus.readers.base import TAR_MARK, Entry
from speechscale.corpus.timing import shifted_words
from speechscale.errors import DataError
from speechscale.records import Word

SUFFIXES = (".textgrid", ".json", ".ctm", ".rttm", ".csv", ".txt", ".lab", ".jsonl", ".gz")


@dataclass(slots=True, kw_only=True)
class WordTimes:
    """Word times by name. A bad time in a file of many leaves its word without time; in a folder, it is the item's.

    Args:
        path: a file of many recordings, or a folder of STEM.TextGrid, STEM.json, ... tier: of TextGrids.
    """

    path: Path
    tier: str | None = None
    found: int = 0
    losses: Losses = field(default_factory=Losses)
    _words: dict[str, list[Word]] | None = None
    _files: dict[str, list[Path]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.is_dir():
            home = self.path.resolve()
            for file in sorted(self.path.rglob("*")):
                if file.suffix.lower() in SUFFIXES and file.is_file() and file.resolve().is_relative_to(home):
                    self._files.setdefault(file.name.split(".")[0], []).append(file)
        elif self.path.is_file():
            self._words = read_alignments(self.path, tier=self.tier, repair="drop_times", losses=self.losses)
        else:
            raise DataError(f"word times {self.path}: no such file or folder; correct --times")

    def words_of(self, entry: Entry, name: str) -> tuple[Word, ...]:
        """The words of an item called `name`, none where nobody timed it. Raises DataError for an unusable file."""
        stem = PurePosixPath(entry.audio.rpartition(TAR_MARK)[2]).stem
        if (words := self._named(name)) is not None and (name != stem or not entry.start_s):
            self.found += 1
            return tuple(words)
        if (words := self._named(stem)) is None:
            return ()
        self.found += 1
        return _inside(words, entry.start_s, entry.end_s)

    def _named(self, name: str) -> Sequence[Word] | None:
        if self._words is not None:
            return self._words.get(name)
        files = self._files.get(name, [])
        if len(files) > 1:
            raise DataError(f"several word times named {name} ({files[0].name}, {files[1].name}); keep one of them")
        return read_alignment(files[0], tier=self.tier) if files else None


def _inside(words: Sequence[Word], start_s: float, end_s: float | None) -> tuple[Word, ...]:
    """Words whose middle lies in the range, with the untimed ones between them, counted from its start."""
    middles = [None if w.start_s is None or w.end_s is None else (w.start_s + w.end_s) / 2 for w in words]
    own = [i for i, m in enumerate(middles) if m is not None and m >= start_s and (end_s is None or m < end_s)]
    return shifted_words(words[own[0] : own[-1] + 1], -start_s) if own else ()
