"""Audio of some utterances of a corpus folder, by their ids.

Enters: a corpus folder (imported, or the step of a study), ids. Leaves: `Spoken` by id, and why others have none. The
one decision worth knowing: whatever the folder holds, files or texts that a voice speaks again, the audio is the one
that its units were made of.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechscale.corpus.imported import open_corpus
from speechscale.corpus.loaders import FileLoader, Loader, VoiceLoader
from speechscale.corpus.tables import count_utterances, pick_utterances
from speechscale.errors import DataError
from speechscale.files import read_json
from speechscale.records import Utterance
from speechscale.voices.spoken import Spoken

TABLE, STEP_RECORD = "utterances.parquet", "record.json"


class Sound(NamedTuple):
    """An utterance as its corpus has it, and its audio."""

    utterance: Utterance
    spoken: Spoken


@dataclass(frozen=True, slots=True, kw_only=True)
class Sounds:
    """Where the audio of a corpus folder comes from."""

    folder: Path
    loader: Loader

    def load(self, ids: Iterable[str]) -> tuple[dict[str, Sound], dict[str, str]]:
        """Load some utterances.

        Returns:
            Sounds by id, and for each id without one the reason.

        Raises:
            DataError: no readable table of utterances.
            MissingExtra: the voice that speaks them again is not installed.
        """
        wanted = list(dict.fromkeys(ids))
        utterances = {u.id: u for u in pick_utterances(self.folder / TABLE, self._rows(wanted))}
        missing = {id: f"{self.folder} has no utterance '{id}'" for id in wanted if id not in utterances}
        found: dict[str, Sound] = {}
        chosen = [utterances[id] for id in wanted if id in utterances]
        if chosen:
            for spoken in self.loader(chosen, missing.__setitem__):
                found[spoken.id] = Sound(utterances[spoken.id], spoken)
        return found, missing

    def _rows(self, ids: list[str]) -> list[int]:
        """Rows that have these ids; one row group of the id column at a time."""
        path, start, rows = self.folder / TABLE, 0, list[int]()
        count_utterances(path)  # Refuses another kind of file.
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                column = file.read_row_group(group, columns=["id"]).column("id")
                hits = pc.indices_nonzero(pc.is_in(column, value_set=pa.array(ids, pa.string())))
                rows += [start + row for row in hits.to_pylist()]
                start += len(column)
        return rows


def open_sounds(folder: Path) -> Sounds:
    """Open a corpus folder: made by `corpus import` and its like, or the corpus step of a study.

    Raises:
        DataError: neither of the two.
    """
    folder = Path(folder)
    if (folder / "corpus.json").is_file():
        return Sounds(folder=folder, loader=open_corpus(folder).loader())
    corpus = _step_corpus(folder)
    match corpus.get("kind"):
        case "storyworld":
            return Sounds(folder=folder, loader=VoiceLoader())
        case "corpus":
            return Sounds(folder=folder, loader=open_corpus(Path(corpus["path"])).loader())
        case "folder":
            return Sounds(folder=folder, loader=FileLoader(root=Path(corpus["path"])))
    raise DataError(
        f"corpus {folder}: neither a corpus folder (corpus.json) nor a study's corpus step ({STEP_RECORD}, {TABLE}); "
        "give the folder that the units were encoded from"
    )


def _step_corpus(folder: Path) -> dict[str, str]:
    """The corpus section of a study's step; empty where the folder is none."""
    if not ((folder / STEP_RECORD).is_file() and (folder / TABLE).is_file()):
        return {}
    record = read_json(folder / STEP_RECORD, "record", "run the study again")
    found = record.get("config", {}).get("corpus", {})
    return found if isinstance(found, dict) else {}
