"""Read label files: lines of start, end and label, as Audacity writes them.

Enters: "0.20<tab>0.37<tab>and". Leaves: words in order. The one decision worth knowing: a file whose labels are only
speech and silence is voice activity, holds no words, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speechscale.align.formats.entries import Entry, Found, read_text, seconds
from speechscale.errors import DataError

ACTIVITY = frozenset({"speech", "silence", "nonspeech", "non-speech", "noise", "music"})


def find_labels(path: Path, tier: str | None = None) -> Iterator[Found]:
    """Words of a label file; a label of several words is a sentence, whose words have no times. Raises DataError."""
    path = Path(path)
    entries = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("\\"):  # Audacity puts frequencies on lines of their own
            continue
        fields = line.split(None, 2)
        where = f"{path}, line {number}"
        if len(fields) < 2:
            raise DataError(f"{where}: expected start, end and label, found {line[:40]!r}; export the labels again")
        start_s, end_s = seconds(fields[0], where), seconds(fields[1], where)
        entries.append(Entry(fields[2].strip() if len(fields) > 2 else "", start_s, end_s, None, number))
    if entries and all(entry.text.lower() in ACTIVITY for entry in entries):
        raise DataError(f"{path}: its labels are speech and silence only; it holds no words, align the recording")
    yield Found(recording=path.stem, entries=entries, where=str(path), unit="line", phrases=True)
