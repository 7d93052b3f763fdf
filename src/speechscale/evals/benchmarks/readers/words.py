"""Word times of a benchmark's recordings, in any alignment format.

Enters: a folder with one alignment per recording, or one file for all. Leaves: the words of a story with their times,
in the spelling of its text. The one decision worth knowing: times are only used where the aligned words are the text's
words, one by one, because the first word of the ending is where the candidate is cut off.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from speechscale.align.formats import read_alignment, read_alignments
from speechscale.align.spelling import spell
from speechscale.errors import DataError
from speechscale.records import Word


class WordTimes:
    """Alignments by the path of their recording below the root, or by its name alone.

    Args:
        by_name: whether a name alone will do; not where voices share names, or one would get the times of another.
    """

    def __init__(self, path: Path, *, by_name: bool = True) -> None:
        self.path, self.by_name = path, by_name
        self._files: dict[str, Path] = {}
        self._words: dict[str, list[Word]] = {}
        if path.is_dir():
            named: dict[str, list[Path]] = {}
            for file in sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")):
                self._files[file.relative_to(path).with_suffix("").as_posix()] = file
                named.setdefault(file.stem, []).append(file)
            self._files |= {name: files[0] for name, files in named.items() if len(files) == 1 and by_name}
        elif path.is_file():
            self._words = read_alignments(path)
        else:
            raise DataError(f"word_times {path}: no such file or folder; give alignments of the recordings")
        if not self._files and not self._words:
            raise DataError(f"word_times {path}: no alignment in it; align the recordings first")

    def of(self, recording: str) -> list[Word] | None:
        """Words of a recording, None if it has no alignment. Raises DataError for an alignment that cannot be read."""
        place = PurePosixPath(recording).with_suffix("")
        for name in (place.as_posix(), *([place.name] if self.by_name else [])):
            if name in self._words:
                return self._words[name]
            if name in self._files:
                return read_alignment(self._files[name])
        return None


def spoken_story(prompt: str, ending: str, words: list[Word] | None) -> tuple[Word, ...] | str:
    """The words of prompt and ending with their times, or why that cannot be.

    Example: "he ran.", "he won.", times of he ran he won -> Word("he", ...), Word("ran.", ...), ...
    """
    if words is None:
        return "its recording has no word times"
    text = f"{prompt} {ending}"
    spelled, share = spell(text, words)
    if [word.text for word in spelled] != text.split():
        return f"its word times belong to another text ({share:.0%} of the words match)"
    if spelled[len(prompt.split())].start_s is None:
        return "the first word of the ending has no time"
    return spelled
