"""Mixture: rows of several sources by token share, as batches that depend on nothing but seed and step.

Enters: sources and their shares, a seed. Leaves: `Batch`es, counts, and a small state to go on from.
The one decision worth knowing: a row holds documents of one source, and the next row comes from the source that is
furthest below its token share. Shares are kept in integers over delivered tokens, so over any prefix no source is more
than one row above its share; nothing waits in a buffer, and a position is a handful of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

from speechscale.errors import DataError
from speechscale.files import canonical_sha256
from speechscale.tokens.interleave import InterleaveConfig
from speechscale.tokens.packing import STREAMS, Batch, Pack, PackedBlock, Row, assemble
from speechscale.tokens.sources import Position, Source, StoreSource, unique_speech
from speechscale.tokens.store import TokenStore

STATE_FORMAT = "speechscale.mixture.1"
KINDS = ("text", "speech", "marker")


@dataclass(slots=True)
class Tally:
    """What one source has delivered; integers only, so that it is part of the state."""

    block: int = 0
    row: int = 0
    opened_at: int = 0
    tokens: int = 0
    kinds: list[int] = field(default_factory=lambda: [0, 0, 0])
    units: int = 0
    pieces: int = 0
    documents: int = 0
    split: int = 0
    unique: int = 0
    rows: int = 0

    def add(self, block: PackedBlock, row: int, first_epoch: bool) -> None:
        tokens = int(block.tokens[row])
        self.tokens += tokens
        self.kinds = [seen + int(new) for seen, new in zip(self.kinds, block.kinds[row], strict=True)]
        self.units += int(block.units[row])
        self.pieces += int(block.pieces[row])
        self.documents += int(block.closed.offsets[row + 1] - block.closed.offsets[row])
        self.split += int(block.split[row])
        self.unique += tokens if first_epoch else 0
        self.rows += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStats:
    """What one source delivered. Tokens exclude padding; each document counts its `<eos>`.

    Args:
        share: asked for. tokens_seen, tokens_unique: all, and those of the first pass. epochs: passes over it.
        kinds: tokens that are "text", "speech", "marker" (markers and `<eos>`).
        split_documents: documents that were cut because they are longer than the context (or by stream packing).
    """

    stream: str
    share: float
    tokens_seen: int
    tokens_unique: int
    epochs: float
    documents: int
    split_documents: int
    rows: int
    kinds: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureStats:
    """Counts of all delivered batches, by source name.

    Args:
        target_tokens: tokens that are predicted (all but the first of each segment). fill: places that are no padding.
        speech_units_unique, speech_hours_unique: of all utterances delivered at least once, heard or interleaved.
    """

    sources: dict[str, SourceStats]
    target_tokens: int
    rows: int
    fill: float
    speech_units_seen: int
    speech_units_unique: int
    speech_hours_unique: float

    def by_stream(self, name: str) -> dict[str, Any]:
        """Sum a count of `SourceStats` over the sources of each stream. Example: by_stream("tokens_seen")."""
        found: dict[str, Any] = {}
        for source in self.sources.values():
            found[source.stream] = found.get(source.stream, 0) + getattr(source, name)
        return found


class MixtureSampler:
    """Endless batches of packed rows, mixed by token share.

    Args:
        sources: name -> source. shares: name -> share of the tokens; normalized.
        max_epochs: largest number of passes over every source, None for no limit.
        total_tokens: length of the training, for the progress of a curriculum.

    Raises:
        DataError: shares that do not fit the sources, or are not above 0.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        shares: Mapping[str, float],
        context: int,
        eos_id: int,
        *,
        max_epochs: int | None = None,
        total_tokens: int | None = None,
    ) -> None:
        names = [source.name for source in sources]
        if sorted(names) != sorted(shares) or len(set(names)) != len(names):
            raise DataError(f"mixture: shares for {sorted(shares)}, sources {sorted(names)}; name each source once")
        if not shares or any(not 0 < share < math.inf for share in shares.values()):
            raise DataError(f"mixture {dict(shares)}: give each stream that is used a share above 0")
        if max_epochs is not None and max_epochs < 1:
            raise DataError(f"mixture: max_epochs {max_epochs}; give at least 1, or none for no limit")
        self.sources, self.context, self.eos_id = tuple(sources), context, eos_id
        self.max_epochs, self.total_tokens = max_epochs, total_tokens
        wanted = [Fraction(shares[name]).limit_denominator(10**9) for name in names]
        self.shares = [share / sum(wanted) for share in wanted]
        denominator = math.lcm(*(share.denominator for share in self.shares))
        self._weights = [int(share * denominator) for share in self.shares]
        self._scale = denominator
        self._start()

    @classmethod
    def of_store(
        cls,
        store: TokenStore,
        mixture: Mapping[str, float],
        context: int,
        seed: int,
        interleave: InterleaveConfig | None = None,
        *,
        pack: Pack = "best_fit",
        max_epochs: int | None = None,
        total_tokens: int | None = None,
    ) -> MixtureSampler:
        """Mix the streams of one store. Example: of_store(store, {"speech": 1, "interleaved": 2}, 2048, seed=0)"""
        if unknown := [stream for stream in mixture if stream not in STREAMS]:
            raise DataError(f"mixture: stream '{unknown[0]}': allowed: {', '.join(STREAMS)}")
        sources = [
            StoreSource(store, stream, context, seed, pack=pack, interleave=interleave or InterleaveConfig())
            for stream in STREAMS
            if stream in mixture
        ]
        eos_id = store.vocabulary.eos_id
        return cls(sources, mixture, context, eos_id, max_epochs=max_epochs, total_tokens=total_tokens)

    def require(self, tokens: float) -> None:
        """Make sure that `tokens` tokens can be had within `max_epochs`, before anything is spent.

        Raises:
            DataError: a source is too small for its share; the message lists all that are.
        """
        if self.max_epochs is None:
            return
        short = []
        for source, share in zip(self.sources, self.shares, strict=True):
            epoch, wanted = source.epoch_tokens(), float(share) * tokens
            if wanted > self.max_epochs * epoch:
                short.append(
                    f"'{source.name}' has {epoch:,.0f} tokens, its share of {float(share):.3g} asks for {wanted:,.0f} "
                    f"({wanted / epoch:.1f} epochs)"
                )
        if short:
            raise DataError(
                f"mixture: {tokens:,.0f} tokens cannot be had with max_epochs {self.max_epochs}: {'; '.join(short)}; "
                "lower the share or the tokens, raise max_epochs or add data"
            )

    def _start(self) -> None:
        self.tallies = [Tally() for _ in self.sources]
        self.batch = 0
        self._blocks: list[PackedBlock | None] = [None] * len(self.sources)

    @property
    def tokens_seen(self) -> int:
        """Tokens of all delivered batches, padding excluded."""
        return sum(tally.tokens for tally in self.tallies)

    def _next_row(self) -> Row:
        total = self.tokens_seen
        missing = [
            weight * total - self._scale * tally.tokens
            for weight, tally in zip(self._weights, self.tallies, strict=True)
        ]
        furthest = missing.index(max(missing))
        source, tally = self.sources[furthest], self.tallies[furthest]
        block = self._blocks[furthest]
        while block is None or tally.row == len(block):
            if block is not None:
                tally.block, tally.row, tally.opened_at = tally.block + 1, 0, total
            block = self._open(furthest)
        row = Row(block, tally.row, STREAMS.index(source.stream))
        tally.add(block, tally.row, first_epoch=tally.block < source.blocks)
        tally.row += 1
        return row

    def _open(self, number: int) -> PackedBlock:
        source, tally = self.sources[number], self.tallies[number]
        if self.max_epochs is not None and tally.block >= source.blocks * self.max_epochs:
            raise DataError(
                f"mixture: source '{source.name}' was read {self.max_epochs} times (max_epochs), {tally.tokens:,} "
                f"tokens of it, {tally.unique:,} of them unique, after {self.tokens_seen:,} tokens in all; its share "
                f"of {float(self.shares[number]):.3g} cannot be met: lower the share, raise max_epochs or add data"
            )
        block = source.block(tally.block, self._progress(tally.opened_at))
        self._blocks[number] = block
        return block

    def _progress(self, tokens: int) -> float:
        return min(tokens / self.total_tokens, 1.0) if self.total_tokens else 0.0

    def batches(
        self,
        batch_rows: int,
        *,
        max_tokens: float = math.inf,
        first_batch: int = 0,
        state: Mapping[str, Any] | None = None,
        rank: int = 0,
        world: int = 1,
        worker: int = 0,
        workers: int = 1,
    ) -> Iterator[Batch]:
        """Yield batches of `batch_rows` rows in all, this rank's part of each.

        Args:
            max_tokens: stop with the batch that reaches this many tokens (of all ranks, padding excluded).
            first_batch: go on here; without `state` what came before is drawn and counted again, but not yielded.
            state: what `state()` said after the batch before `first_batch`: the start then costs nothing.
            rank, world: yield rows [B rank / world, B (rank + 1) / world) of each batch.
            worker, workers: yield batches worker, worker + workers, ... only; of all of them together none is lost.

        Raises:
            DataError: a state of another mixture, or a source at its limit of epochs.
        """
        self._check_split(batch_rows, rank, world, worker, workers)
        self._start()
        if state is not None:
            self._load(state)
            first_batch = max(first_batch, self.batch)
        first, last = (batch_rows * (rank + k) // world for k in (0, 1))
        while self.tokens_seen < max_tokens:
            rows = [self._next_row() for _ in range(batch_rows)]
            number = self.batch
            self.batch += 1
            if number >= first_batch and number % workers == worker:
                yield assemble(rows[first:last], self.context, self.eos_id)

    @staticmethod
    def _check_split(batch_rows: int, rank: int, world: int, worker: int, workers: int) -> None:
        if not (0 <= rank < world and 0 <= worker < workers):
            raise DataError(f"mixture: rank {rank} of {world}, worker {worker} of {workers}; count both from 0")
        if batch_rows < world:
            raise DataError(f"mixture: {batch_rows} rows a batch for {world} ranks; give at least one row to each")

    @property
    def fingerprint(self) -> str:
        """SHA-256 over sources, shares and context: what a state belongs to."""
        recipe = {
            "sources": {source.name: source.recipe for source in self.sources},
            "shares": [str(share) for share in self.shares],
            "context": self.context,
            "total_tokens": self.total_tokens,
        }
        return canonical_sha256(recipe)

    def state(self) -> dict[str, Any]:
        """Where the latest `batches` stands, as JSON: enough to go on with the next batch at once."""
        tallies = {source.name: asdict(tally) for source, tally in zip(self.sources, self.tallies, strict=True)}
        return {"format": STATE_FORMAT, "mixture": self.fingerprint, "batch": self.batch, "sources": tallies}

    def _load(self, state: Mapping[str, Any]) -> None:
        if state.get("format") != STATE_FORMAT:
            raise DataError(f"mixture state: format {state.get('format')!r}, this version reads '{STATE_FORMAT}'")
        if state.get("mixture") != self.fingerprint:
            raise DataError(
                f"mixture state: made with another mixture ({str(state.get('mixture'))[:12]}, here "
                f"{self.fingerprint[:12]}): other data, shares, context, interleaving or length of training; go on "
                "with those it was made with"
            )
        self.batch = int(state["batch"])
        self.tallies = [Tally(**state["sources"][source.name]) for source in self.sources]

    def _positions(self) -> list[tuple[Source, Position]]:
        return [
            (source, Position(tally.block, tally.row, self._progress(tally.opened_at)))
            for source, tally in zip(self.sources, self.tallies, strict=True)
        ]

    def stats(self) -> MixtureStats:
        """Count what the latest `batches` call has delivered (on all ranks)."""
        sources = {}
        for source, share, tally in zip(self.sources, self.shares, self.tallies, strict=True):
            sources[source.name] = SourceStats(
                stream=source.stream,
                share=float(share),
                tokens_seen=tally.tokens,
                tokens_unique=tally.unique,
                epochs=tally.documents / source.documents,
                documents=tally.documents,
                split_documents=tally.split,
                rows=tally.rows,
                kinds=dict(zip(KINDS, tally.kinds, strict=True)),
            )
        rows = sum(tally.rows for tally in self.tallies)
        units, hours = unique_speech(self._positions())
        return MixtureStats(
            sources=sources,
            target_tokens=self.tokens_seen - sum(tally.pieces for tally in self.tallies),
            rows=rows,
            fill=self.tokens_seen / (rows * self.context) if rows else math.nan,
            speech_units_seen=sum(tally.units for tally in self.tallies),
            speech_units_unique=units,
            speech_hours_unique=hours,
        )
