"""Batches for a run: from sources and shares to this process' rows, made ahead where that pays.

Enters: a `TrainJob`'s data. Leaves: a mixture, validation batches, an iterator of batches with the state behind each.
The one decision worth knowing: loader processes take every n-th batch and are read in turn, so their number changes
neither order nor content, and a run may go on with another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from speechscale.errors import DataError
from speechscale.tokens.interleave import InterleaveConfig
from speechscale.tokens.interleave_config import interleave_settings
from speechscale.tokens.mixture import MixtureSampler, block_rows
from speechscale.tokens.packed_rows import PackedRows, PackedSource
from speechscale.tokens.packing import Batch
from speechscale.tokens.sources import BLOCK_ROWS, Source, StoreSource, pack_store
from speechscale.tokens.store import TokenStore
from speechscale.tokens.store_index import read_meta
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.tokens.vocabulary_files import first_vocabulary, places_beside
from speechscale.train.job import Data, ValidationSet
from speechscale.train.job import Source as Wanted
from speechscale.train.losses import Rates
from speechscale.train.parallel import Group

VALIDATION_ROWS = 16

Item = tuple[Batch, dict[str, Any]]


def find_vocabulary(data: Data) -> Path:
    """The vocabulary folder of a job: the named one, or the one beside the first store."""
    if data.vocabulary:
        return Path(data.vocabulary)
    first = next(iter(data.sources.values()))
    folder = Path(first.store or first.rows)
    found = first_vocabulary(places_beside(folder))
    if found is None:
        raise DataError(f"{folder}: no vocabulary beside it; name its folder: data.vocabulary")
    return found


def unit_makers(data: Data) -> frozenset[str]:
    """Fingerprints of the speech tokenizers whose units the stores of a job hold; packed rows tell none."""
    stores = {source.store for source in data.sources.values() if source.store}
    return frozenset(read_meta(Path(store))["speech_tokenizer"] for store in stores) - {""}


def interleaving(data: Data) -> InterleaveConfig:
    """How interleaved documents are drawn. Raises DataError: an unknown setting."""
    return InterleaveConfig(**interleave_settings(data.interleave))


def open_mixture(data: Data, vocabulary: Vocabulary, context: int, total_targets: int) -> MixtureSampler:
    """The mixture of a job.

    Raises:
        DataError: a store or rows that do not fit the vocabulary or the context, or too few data for max_epochs.
    """
    interleave = interleaving(data)
    sources: list[Source] = []
    together = sum(wanted.share for wanted in data.sources.values())
    for name, wanted in data.sources.items():
        if wanted.rows:
            source = PackedSource(PackedRows.open(Path(wanted.rows), vocabulary), name=name, seed=data.seed)
            if "stream" in wanted.model_fields_set and wanted.stream != source.stream:
                raise DataError(
                    f"data.sources.{name}: stream '{wanted.stream}', the rows in {wanted.rows} are '{source.stream}'; "
                    "say so, or leave stream out"
                )
            sources.append(source)
        else:
            store = TokenStore.open(Path(wanted.store), vocabulary)
            sources.append(
                StoreSource(
                    store,
                    wanted.stream,
                    context,
                    data.seed,
                    name=name,
                    pack=wanted.pack,
                    interleave=interleave,
                    block_rows=_block_rows(wanted, interleave, total_targets, wanted.share / together, context),
                )
            )
    shares = {name: wanted.share for name, wanted in data.sources.items()}
    limits = {name: wanted.max_epochs for name, wanted in data.sources.items() if wanted.max_epochs is not None}
    mixture = MixtureSampler(sources, shares, max_epochs=limits or None, total_targets=total_targets)
    mixture.require(total_targets)
    return mixture


def _block_rows(wanted: Wanted, interleave: InterleaveConfig, targets: int, share: float, context: int) -> int:
    return block_rows(interleave, targets, share, context) if wanted.stream == "interleaved" else BLOCK_ROWS


def open_validation(
    sets: Mapping[str, ValidationSet], data: Data, vocabulary: Vocabulary, context: int
) -> tuple[dict[str, list[Batch]], dict[str, Rates]]:
    """Batches of every validation set, each document once, and the rates of its store.

    Raises:
        DataError: a store without the stream.
    """
    interleave = interleaving(data)
    batches, rates = {}, {}
    for name, wanted in sets.items():
        store = TokenStore.open(Path(wanted.store), vocabulary)
        if reason := store.why_none(wanted.stream, interleave):
            raise DataError(f"validation.{name}: {store.folder} has no '{wanted.stream}' documents: {reason}")
        packed = pack_store(store, [wanted.stream], context, interleave=interleave, batch_rows=VALIDATION_ROWS)
        batches[name] = packed if wanted.documents is None else _first(packed, wanted.documents)
        rates[name] = Rates.of(store)
    return batches, rates


def _first(batches: list[Batch], documents: int) -> list[Batch]:
    """Whole batches until so many documents are in."""
    kept, seen = [], 0
    for batch in batches:
        if seen >= documents:
            break
        kept.append(batch)
        seen += int((batch.segments.max(1) + 1).sum())
    return kept


class _Batches(torch.utils.data.IterableDataset[Item]):
    """What a loader process runs."""

    def __init__(self, mixture: MixtureSampler, rows: int, state: Mapping[str, Any] | None, rank: int, world: int):
        self.mixture, self.rows, self.state, self.rank, self.world = mixture, rows, state, rank, world

    def __iter__(self) -> Iterator[Item]:
        worker = torch.utils.data.get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return self.mixture.checkpointed(
            self.rows, state=self.state, rank=self.rank, world=self.world, worker=number, workers=count
        )


def feed(
    mixture: MixtureSampler, batch_rows: int, group: Group, *, state: Mapping[str, Any] | None = None, workers: int = 0
) -> Iterator[Item]:
    """This process' rows of each batch, with the state behind it.

    Args:
        state: go on behind it. workers: loader processes; 0 makes batches between steps.
    """
    batches = _Batches(mixture, batch_rows, state, group.rank, group.world)
    if not workers:
        return iter(batches)
    # A fork would copy the locks of the parent's threads, so workers start afresh.
    loader = torch.utils.data.DataLoader(
        batches, batch_size=None, num_workers=workers, collate_fn=_as_it_is, multiprocessing_context="spawn"
    )
    return iter(loader)


def _as_it_is(item: Any) -> Any:
    return item
