"""How much speech of which licence, language and voice a study's units hold.

Enters: unit tables and the utterances they were made of. Leaves: hours by split, licence, language and speaker. The one
decision worth knowing: hours are frames of units over their rate, so that they are of what was encoded, and synthesized
speech, which has no file, is counted too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from speechscale.corpus.tables import read_utterances
from speechscale.records import UnitTable
from speechscale.speech.unit_files import iter_units


@dataclass(slots=True, kw_only=True)
class SpeechHours:
    """Hours by split, and of the training split by licence; speakers and languages of the training split."""

    splits: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    licences: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    languages: set[str] = field(default_factory=set)
    speakers: set[str] = field(default_factory=set)


def speech_hours(corpus: Path, unit_files: Iterable[Path]) -> SpeechHours:
    """Join units with their utterances; units whose utterance is gone count without licence.

    Args:
        corpus: folder with utterances.parquet. unit_files: Parquet files of units.
    """
    known = {u.id: (u.licence, u.language) for u in read_utterances(corpus / "utterances.parquet")}
    found = SpeechHours()
    for path in unit_files:
        for table in iter_units(path):
            _add(found, table, known)
    return found


def _add(found: SpeechHours, table: UnitTable, known: dict[str, tuple[str, str]]) -> None:
    seconds = table.frames / table.frame_rate_hz
    for row in range(len(table)):
        hours = float(seconds[row]) / 3600
        split = table.splits[row]
        found.splits[split] += hours
        if split != "train":
            continue
        licence, language = known.get(table.ids[row], ("", ""))
        found.licences[licence] += hours
        if language:
            found.languages.add(language)
        if table.speakers[row]:
            found.speakers.add(table.speakers[row])
