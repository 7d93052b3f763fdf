"""Packed rows, opened: any row at once, as a batch or as a source of a mixture.

Enters: a folder written by `shards.write_packed`. Leaves: `PackedBlock`s and `Batch`es of its rows.
The one decision worth knowing: a row is a slice of one memory map, so reading row 10^7 costs what reading row 0 costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError
from speechscale.files import canonical_sha256, read_json
from speechscale.records import offsets
from speechscale.tokens.columns import INDEX_FILE, ColumnIndex, column_path, damage, open_column, verify_column
from speechscale.tokens.packing import STREAMS, Batch, IdTables, PackedBlock, Row, Slices, assemble
from speechscale.tokens.ragged import Ragged, Shuffle, ragged_arange
from speechscale.tokens.sources import BLOCK_ROWS, EpochSize, name_key
from speechscale.tokens.vocabulary import Vocabulary

ROWS_FORMAT = "speechscale.rows.1"
VERIFY_BYTES = 1 << 30
_AGAIN = "pack it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRows:
    """Opened rows.

    Args:
        arrays: column -> memory map. meta: format, recipe, counts, checksums.
    """

    folder: Path
    vocabulary: Vocabulary
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def open(cls, folder: Path | str, vocabulary: Vocabulary, *, verify: bool | None = None) -> PackedRows:
        """Map rows into memory.

        Args:
            verify: hash every file; None: only up to 1 GiB, sizes beyond.

        Raises:
            DataError: no complete rows, a changed or truncated file (named), or another vocabulary.
        """
        folder = Path(folder)
        meta = read_rows_meta(folder)
        if meta["vocabulary"] != vocabulary.fingerprint:
            raise DataError(
                f"{folder}: packed with the vocabulary {meta['vocabulary'][:12]}, this one is "
                f"{vocabulary.fingerprint[:12]}; use the vocabulary it was made with or {_AGAIN}"
            )
        index = {n: ColumnIndex.from_json(n, saved, folder / INDEX_FILE) for n, saved in meta["columns"].items()}
        if verify is None:
            verify = sum(column.bytes for column in index.values()) <= VERIFY_BYTES
        arrays = {name: open_column(column_path(folder, name), column) for name, column in index.items()}
        if verify:
            for name, column in index.items():
                verify_column(column_path(folder, name), column)
        return cls(folder=folder, vocabulary=vocabulary, meta=meta, arrays=arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.folder, self.vocabulary)  # not the bytes behind the maps

    def __len__(self) -> int:
        return len(self.arrays["closed"])

    @property
    def context(self) -> int:
        """Tokens that a row can hold."""
        return int(self.meta["recipe"]["context"])

    @property
    def tokens(self) -> int:
        """Tokens of all rows, padding excluded."""
        return len(self.arrays["tokens"])

    @property
    def bytes(self) -> int:
        """Size of the columns on disk."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def fill(self) -> float:
        """Share of places that are no padding."""
        return self.tokens / (len(self) * self.context)

    def block(self, rows: Int[np.ndarray, " chosen"], ids: IdTables | None = None) -> PackedBlock:
        """The chosen rows, in the given order; `ids` saves making its tables again."""
        ids = ids or IdTables.of(self.vocabulary)
        begins, lengths = _ranges(self.arrays["row_offsets"], rows)
        flat = np.asarray(self.arrays["tokens"][ragged_arange(begins, lengths)]).astype(np.int32)
        first, pieces = _ranges(self.arrays["piece_offsets"], rows)
        starts = self.arrays["piece_starts"][ragged_arange(first, pieces)].astype(np.int64)
        base = offsets(lengths)
        starts += np.repeat(base[:-1], pieces)
        borders = offsets(pieces)
        kind = ids.modality[flat]
        counts = [np.add.reduceat(kind == code, base[:-1], dtype=np.int64) for code in range(3)]
        closed = np.asarray(self.arrays["closed"][rows], np.int64)
        return PackedBlock(
            flat=flat,
            slices=Slices(starts, np.diff(np.append(starts, len(flat))), borders),
            tokens=lengths,
            pieces=pieces,
            closed=Ragged(np.zeros(int(closed.sum()), np.int64), offsets(closed)),
            split=np.asarray(self.arrays["split"][rows], np.int64),
            kinds=np.stack(counts, axis=1),
            units=counts[1] if ids.units is None else np.add.reduceat(ids.units[flat], base[:-1], dtype=np.int64),
        )

    def batch(self, rows: Int[np.ndarray, " chosen"]) -> Batch:
        """The chosen rows as arrays."""
        block, code = self.block(rows), STREAMS.index(self.meta["recipe"]["stream"])
        chosen = [Row(block, number, code) for number in range(len(block))]
        return assemble(chosen, self.context, self.vocabulary.eos_id)


def _reopen(folder: Path, vocabulary: Vocabulary) -> PackedRows:
    return PackedRows.open(folder, vocabulary, verify=False)


def _ranges(borders: np.ndarray, rows: Int[np.ndarray, " chosen"]) -> tuple[np.ndarray, np.ndarray]:
    """Begins and lengths of ragged rows."""
    begins = np.asarray(borders[rows], np.int64)
    return begins, np.asarray(borders[rows + 1], np.int64) - begins


def read_rows_meta(folder: Path) -> dict[str, Any]:
    """The index of packed rows. Raises DataError: none there, another format, or altered."""
    meta = read_json(folder / INDEX_FILE, "packed rows", _AGAIN)
    sealed = {key: value for key, value in meta.items() if key != "meta_sha256"}
    if meta.get("format") != ROWS_FORMAT:
        raise DataError(f"{folder}: format {meta.get('format')!r}, this version reads '{ROWS_FORMAT}'; {_AGAIN}")
    if meta.get("meta_sha256") != canonical_sha256(sealed):
        raise DataError(f"{folder / INDEX_FILE}: its content differs from its checksum (damaged?); {_AGAIN}")
    return meta


def packed_damage(folder: Path | str) -> Iterator[str]:
    """Hash packed rows; yield what is wrong, one message per file or chunk."""
    folder = Path(folder)
    meta = read_rows_meta(folder)
    for name, saved in meta["columns"].items():
        yield from damage(column_path(folder, name), ColumnIndex.from_json(name, saved, folder / INDEX_FILE))


@dataclass(frozen=True, slots=True)
class PackedSource:
    """Rows on disk as a source of a mixture: in their order the first time, shuffled by blocks of rows afterwards.

    Rows packed for several epochs are as many passes over the documents.
    """

    rows: PackedRows
    seed: int
    name: str = ""
    stream: str = field(init=False)
    documents: int = field(init=False)
    recipe: dict[str, Any] = field(init=False)
    _ids: IdTables = field(init=False, repr=False)
    _spans: tuple[tuple[int, int, int], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        recipe = self.rows.meta["recipe"]
        spans, first = [], 0
        for epoch, end in enumerate(self.rows.meta["epoch_rows"]):
            spans += [(epoch, begin, min(begin + BLOCK_ROWS, end)) for begin in range(first, end, BLOCK_ROWS)]
            first = end
        for name, value in (
            ("name", self.name or recipe["stream"]),
            ("stream", recipe["stream"]),
            ("documents", int(self.rows.arrays["closed"].sum(dtype=np.int64)) // recipe["epochs"]),
            ("recipe", {"rows": self.rows.meta["meta_sha256"], "seed": self.seed}),
            ("_ids", IdTables.of(self.rows.vocabulary)),
            ("_spans", tuple(spans)),
        ):
            object.__setattr__(self, name, value)

    @property
    def context(self) -> int:
        return self.rows.context

    @property
    def vocabulary(self) -> Vocabulary:
        return self.rows.vocabulary

    def epoch_of(self, block: int) -> int:
        again, block = divmod(block, len(self._spans))
        return again * int(self.rows.meta["recipe"]["epochs"]) + self._spans[block][0]

    def epoch_size(self) -> EpochSize:
        tokens, epochs = self.rows.tokens, self.rows.meta["recipe"]["epochs"]
        return EpochSize(tokens / epochs, (tokens - len(self.rows.arrays["piece_starts"])) / epochs)

    def block(self, number: int, progress: float) -> PackedBlock:
        again, block = divmod(number, len(self._spans))
        _, first, last = self._spans[block]
        if not again:
            return self.rows.block(np.arange(first, last), self._ids)
        key, blocks = name_key(self.name), np.array([block])
        _, first, last = self._spans[int(Shuffle(len(self._spans), self.seed, key, again, -1).at(blocks)[0])]
        order = Shuffle(last - first, self.seed, key, number, -2).at(np.arange(last - first))
        return self.rows.block(first + order, self._ids)
