"""Packed shards: rows on disk, ready to be trained on by anything that reads an array.

Enters: one stream of a store, packed for some epochs. Leaves: a folder of columns + meta.json: ids of all rows end to
end, where each row and each document in it begins, counts per modality. The one decision worth knowing: the rows are
those that `StoreSource` makes on the fly, block by block; blocks are made on any number of workers and joined in order,
so the bytes depend on the recipe only, and a run that was killed goes on at its next part.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.files import canonical_sha256, write_json
from speechscale.journal import Row as JournalRow
from speechscale.journal import read_part, run_parts
from speechscale.progress import Watch
from speechscale.records import offsets
from speechscale.tokens.columns import INDEX_FILE, ColumnIndex, ColumnSetWriter, FolderLock
from speechscale.tokens.interleave import InterleaveConfig
from speechscale.tokens.packed_rows import ROWS_FORMAT, PackedRows
from speechscale.tokens.packing import Pack, PackedBlock
from speechscale.tokens.ragged import ragged_arange
from speechscale.tokens.sources import BLOCK_ROWS, StoreSource
from speechscale.tokens.store import TokenStore
from speechscale.tokens.vocabulary import Vocabulary

PART_TOKENS = 1 << 25
"""Tokens that a part is made for: what a kill can cost, and what a worker takes at a time."""
OFFSETS = ("row_offsets", "piece_offsets")
WORK = ".work"


def _types(vocabulary: Vocabulary) -> dict[str, np.dtype[Any]]:
    """Columns: ids of all rows; borders of rows; for each row the beginnings of its documents, how many end in it and
    how many of these began in another row."""
    types = {"tokens": vocabulary.id_dtype.newbyteorder("<"), "row_offsets": np.dtype("<i8")}
    types |= {"piece_starts": np.dtype("<u4"), "piece_offsets": np.dtype("<i8")}
    return types | {"closed": np.dtype("<u4"), "split": np.dtype("<u4")}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackWork:
    """Packing as journaled work: an item is a range of blocks, its rows lie in a folder beside the journal."""

    store: Path
    vocabulary: Vocabulary
    stream: str
    context: int
    seed: int
    pack: Pack
    interleave: InterleaveConfig
    parts: tuple[tuple[int, int], ...]
    folder: Path

    def source(self) -> StoreSource:
        store = TokenStore.open(self.store, self.vocabulary, verify=False)
        return StoreSource(store, self.stream, self.context, self.seed, pack=self.pack, interleave=self.interleave)

    def start(self) -> None: ...

    def items(self, part: int) -> Sequence[_Range]:
        return [_Range(f"part-{part:05d}", *self.parts[part])]

    def rows(self, items: Sequence[_Range]) -> Iterator[JournalRow]:
        source = self.source()
        for item in items:
            lock = FolderLock(self.folder / item.id)
            writer = ColumnSetWriter(lock, _types(self.vocabulary), offsets=OFFSETS, sync=False)
            kinds, rows = np.zeros(3, np.int64), []
            for number in range(item.first, item.last):
                block = source.block(number, 0.0)
                _append(writer, block)
                kinds += block.kinds.sum(axis=0)
                rows.append(len(block))
            columns = writer.close()
            lock.close()
            yield {
                "id": item.id,
                "kinds": kinds.tolist(),
                "rows": rows,
                "columns": {name: index.to_json() for name, index in columns.items()},
            }


@dataclass(frozen=True, slots=True)
class _Range:
    id: str
    first: int
    last: int


def _append(writer: ColumnSetWriter, block: PackedBlock) -> None:
    """Write the rows of a block end to end."""
    slices = block.slices
    writer.append("tokens", block.flat[ragged_arange(slices.begins, slices.lengths)])
    writer.append_offsets("row_offsets", offsets(block.tokens))
    before = np.cumsum(slices.lengths) - slices.lengths
    row_begins = np.repeat(offsets(block.tokens)[:-1], block.pieces)
    writer.append("piece_starts", before - row_begins)
    writer.append_offsets("piece_offsets", slices.rows)
    writer.append("closed", block.closed.lengths)
    writer.append("split", block.split)


def write_packed(
    store: TokenStore,
    stream: str,
    folder: Path | str,
    *,
    context: int,
    seed: int = 0,
    pack: Pack = "best_fit",
    interleave: InterleaveConfig | None = None,
    epochs: int = 1,
    workers: int = 0,
    watch: Watch | None = None,
) -> PackedRows:
    """Pack one stream for some epochs; the same call goes on after any interruption.

    Args:
        interleave: without a curriculum, which only a training can have.
        workers: processes; 0 works in this one. They change no byte.

    Raises:
        DataError: a folder with other rows, nothing to pack, a curriculum. StaleStep: begun with another recipe.
    """
    folder, interleave = Path(folder), interleave or InterleaveConfig()
    if interleave.curriculum:
        raise DataError(f"{folder}: a curriculum moves with the training; pack without one, or mix on the fly")
    source = StoreSource(store, stream, context, seed, pack=pack, interleave=interleave)
    recipe = {**source.recipe, "epochs": epochs}
    if (folder / INDEX_FILE).is_file():
        done = PackedRows.open(folder, store.vocabulary)
        if done.meta["recipe"] != recipe:
            raise DataError(f"{folder}: holds rows of another recipe; choose another output or delete it")
        shutil.rmtree(folder / WORK, ignore_errors=True)
        return done
    if folder.is_dir() and not (folder / WORK).is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder}: holds other files; choose an empty or a new folder")
    blocks = source.blocks * epochs
    per_part = max(1, PART_TOKENS // (BLOCK_ROWS * context))
    parts = tuple((first, min(first + per_part, blocks)) for first in range(0, blocks, per_part))
    work = PackWork(
        store=store.folder,
        vocabulary=store.vocabulary,
        stream=stream,
        context=context,
        seed=seed,
        pack=pack,
        interleave=interleave,
        parts=parts,
        folder=folder / WORK,
    )
    run_parts(work, [1] * len(parts), folder / WORK, recipe=recipe, workers=workers, watch=watch)
    _join(folder, store.vocabulary, len(parts), recipe, source.blocks)
    return PackedRows.open(folder, store.vocabulary, verify=False)


def _join(folder: Path, vocabulary: Vocabulary, parts: int, recipe: dict[str, Any], blocks_per_epoch: int) -> None:
    """Copy the parts behind one another, verified, and write the index last."""
    lock = FolderLock(folder)
    kinds, rows = np.zeros(3, np.int64), list[int]()
    writer = ColumnSetWriter(lock, _types(vocabulary), offsets=OFFSETS)
    try:
        for part in range(parts):
            (row,) = read_part(folder / WORK, part)
            place = folder / WORK / row["id"]
            index = {n: ColumnIndex.from_json(n, saved, place / INDEX_FILE) for n, saved in row["columns"].items()}
            writer.copy(place, index, shifts={})
            kinds += row["kinds"]
            rows += row["rows"]
    except BaseException:
        writer.abort()
        lock.close()
        raise
    columns = writer.close()
    meta: dict[str, Any] = {
        "format": ROWS_FORMAT,
        "vocabulary": vocabulary.fingerprint,
        "recipe": recipe,
        "epoch_rows": np.cumsum(rows)[blocks_per_epoch - 1 :: blocks_per_epoch].tolist(),
        "kinds": dict(zip(("text", "speech", "marker"), kinds.tolist(), strict=True)),
        "columns": {name: index.to_json() for name, index in columns.items()},
    }
    write_json(folder / INDEX_FILE, {**meta, "meta_sha256": canonical_sha256(meta)})
    lock.close()
    shutil.rmtree(folder / WORK)
