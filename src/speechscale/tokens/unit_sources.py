"""Where the units of a token store come from: folders of `units encode`, or single unit files.

Enters: a path and a split. Leaves: what defines the utterances, their verified files, their tables. The one decision
worth knowing: everything that a build must know before it works (kind of folder, splits, hashes) is found on opening.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from speechscale.corpus.hub_texts import file_sha256
from speechscale.errors import DataError
from speechscale.files import canonical_sha256
from speechscale.records import UnitTable
from speechscale.speech.unit_files import iter_units, unit_file_header


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSource:
    """Where units come from.

    Args:
        path: a folder that `encode_folder` wrote, or a units.parquet. name: for the record; "" takes that of the path.
        split: of the utterances, or "all".
    """

    path: Path
    name: str = ""
    split: str = "all"

    @property
    def label(self) -> str:
        """The name, or that of the path."""
        return self.name or self.path.name

    def open(self) -> tuple[dict[str, Any], tuple[Path, ...]]:
        """What defines the utterances, and the verified files in order.

        Raises:
            DataError: not units, a damaged file, or no utterance in the split.
        """
        recipe = {"kind": "units", "name": self.label, "split": self.split}
        if self.path.is_dir():
            self._check_folder()
            from speechscale.corpus.unit_corpus import open_units  # loads torch, which the workers do not need

            opened = open_units(self.path)
            tokenizer, files = opened.tokenizer.fingerprint, tuple(self.path / "parts" / name for name in opened.parts)
        elif self.path.exists():
            tokenizer, files = unit_file_header(self.path)["tokenizer_sha256"], (self.path,)
            recipe["file_sha256"] = file_sha256(self.path)
        else:
            raise DataError(f"units {self.path}: no such file or folder; give what 'speechscale units encode' wrote")
        self._check_split(files)
        content = {file.name: unit_file_header(file)["content_sha256"] for file in files}
        return {**recipe, "speech_tokenizer": tokenizer, "content_sha256": canonical_sha256(content)}, files

    def tables(self, files: Sequence[Path]) -> Iterator[tuple[UnitTable, int]]:
        """The utterances of the split, table by table, and how many of other splits each table held."""
        for file in files:
            for table in iter_units(file):
                whole = self.split == "all" or all(found == self.split for found in table.splits)
                chosen = table if whole else table.split(self.split)
                yield chosen, len(table) - len(chosen)

    def _check_folder(self) -> None:
        if (self.path / "units.json").is_file():
            return
        if (self.path / "utterances.parquet").is_file():
            raise DataError(
                f"units {self.path}: a corpus, not yet units; "
                f"run 'speechscale units encode {self.path} TOKENIZER UNITS' first and give UNITS"
            )
        raise DataError(
            f"units {self.path}: no units.json in it; give a folder that 'speechscale units encode' finished, or a file"
        )

    def _check_split(self, files: Sequence[Path]) -> None:
        if self.split == "all":
            return
        there: set[str] = set()
        for file in files:
            if unit_file_header(file)["rows"]:
                there.update(pq.read_table(file, columns=["split"]).column("split").unique().to_pylist())
        if self.split not in there:
            raise DataError(
                f"units {self.path}: no utterance in split '{self.split}'; "
                f"splits: {', '.join(sorted(there)) or 'none'}; choose one, or all"
            )
