"""Mixture: rows of several sources by token share, as batches that depend on nothing but seed and step.

Enters: sources and their shares, a seed. Leaves: `Batch`es, counts, and a small state to go on from.
The one decision worth knowing: a row holds documents of one source, and rows are dealt out by quota and deadline over
delivered tokens: over any prefix each source is within one row of its share, above and below. Nothing waits in a
buffer, and a position is a handful of numbers.

Source: Balinski and Young 1975, "The quota method of apportionment"; Tijdeman 1980, "The chairman assignment problem".
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from speechscale.errors import DataError
from speechscale.files import canonical_sha256
from speechscale.tokens.interleave import InterleaveConfig
from speechscale.tokens.mixture_counts import MixtureStats, SourceStats, Tally
from speechscale.tokens.packing import STREAMS, Batch, Pack, PackedBlock, Row, assemble
from speechscale.tokens.sources import BLOCK_ROWS, Position, Source, StoreSource, unique_speech
from speechscale.tokens.store import TokenStore

__all__ = ["MixtureSampler", "MixtureStats", "SourceStats"]

STATE_FORMAT = "speechscale.mixture.1"
CURRICULUM_BLOCKS = 64
"""Blocks that a training with a curriculum is made of, at least, per interleaved source."""
SMALLEST_BLOCK_ROWS = 8


class MixtureSampler:
    """Endless batches of packed rows, mixed by token share.

    Args:
        sources: of one context and one vocabulary. shares: source name -> share of the tokens; normalized.
        max_epochs: most passes over each source, or over the named ones; None for no limit.
        total_targets: predicted tokens of the training, for the progress of a curriculum.

    Raises:
        DataError: sources that do not fit each other or their shares, or a share that is not above 0.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        shares: Mapping[str, float],
        *,
        max_epochs: int | Mapping[str, int] | None = None,
        total_targets: int | None = None,
    ) -> None:
        names = [source.name for source in sources]
        if sorted(names) != sorted(shares) or len(set(names)) != len(names):
            raise DataError(f"mixture: shares for {sorted(shares)}, sources {sorted(names)}; name each source once")
        if not shares or any(not 0 < share < math.inf for share in shares.values()):
            raise DataError(f"mixture {dict(shares)}: give each stream that is used a share above 0")
        self.sources = tuple(sorted(sources, key=lambda source: source.name))
        _check_alike(self.sources)
        self.context, self.eos_id = self.sources[0].context, self.sources[0].vocabulary.eos_id
        self.max_epochs, self.total_targets = _limits(max_epochs, names), total_targets
        wanted = [Fraction(shares[source.name]) for source in self.sources]
        self.shares = [share / sum(wanted) for share in wanted]
        self._latest = _Deal(self, [Tally() for _ in self.sources])

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
        max_epochs: int | Mapping[str, int] | None = None,
        total_targets: int | None = None,
    ) -> MixtureSampler:
        """Mix the streams of one store. Example: of_store(store, {"speech": 1, "interleaved": 2}, 2048, seed=0)"""
        if unknown := [stream for stream in mixture if stream not in STREAMS]:
            raise DataError(f"mixture: stream '{unknown[0]}': allowed: {', '.join(STREAMS)}")
        interleave, rows = interleave or InterleaveConfig(), BLOCK_ROWS
        if "interleaved" in mixture:
            rows = block_rows(interleave, total_targets, mixture["interleaved"] / sum(mixture.values()), context)
        sources = [
            StoreSource(
                store,
                stream,
                context,
                seed,
                pack=pack,
                interleave=interleave,
                block_rows=rows if stream == "interleaved" else BLOCK_ROWS,
            )
            for stream in STREAMS
            if stream in mixture
        ]
        return cls(sources, mixture, max_epochs=max_epochs, total_targets=total_targets)

    def require(self, targets: float) -> None:
        """Make sure that so many predicted tokens can be had within `max_epochs`, before anything is spent.

        Raises:
            DataError: a source is too small for its share; the message lists all that are.
        """
        limited = [source for source in self.sources if self.max_epochs[source.name] is not None]
        if not limited:
            return
        sizes = {source.name: source.epoch_size() for source in self.sources}
        predicted = sum(
            float(share) * sizes[source.name].targets / max(sizes[source.name].tokens, 1)
            for source, share in zip(self.sources, self.shares, strict=True)
        )
        tokens, short = targets / max(predicted, 1e-9), []
        for source, share in zip(self.sources, self.shares, strict=True):
            limit, epoch, wanted = self.max_epochs[source.name], sizes[source.name].tokens, float(share) * tokens
            if limit is not None and wanted > limit * epoch:
                short.append(
                    f"'{source.name}' has {epoch:,.0f} tokens, its share of {float(share):.3g} asks for {wanted:,.0f} "
                    f"({wanted / max(epoch, 1):.1f} epochs, max_epochs {limit})"
                )
        if short:
            raise DataError(
                f"mixture: {targets:,.0f} predicted tokens cannot be had: {'; '.join(short)}; lower the share or the "
                "tokens, raise max_epochs or add data"
            )

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
            first_batch: go on here; what lies between it and the start (or `state`) is drawn and counted again, but
                not yielded.
            state: of the batch before; going on behind it costs nothing.
            rank, world: yield rows [B rank / world, B (rank + 1) / world) of each batch.
            worker, workers: yield batches worker, worker + workers, ... only; of all of them together none is lost.

        Raises:
            DataError: a state of another mixture or of a later batch, or a source at its limit of epochs. Rows that
                do not fill a batch by then are neither delivered nor counted.
        """
        for batch, _ in self.checkpointed(
            batch_rows,
            max_tokens=max_tokens,
            first_batch=first_batch,
            state=state,
            rank=rank,
            world=world,
            worker=worker,
            workers=workers,
            states=False,
        ):
            yield batch

    def checkpointed(
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
        states: bool = True,
    ) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """Yield each batch with the state behind it, so that batches may wait in a queue; arguments as `batches`."""
        if not (0 <= rank < world and 0 <= worker < workers):
            raise DataError(f"mixture: rank {rank} of {world}, worker {worker} of {workers}; count both from 0")
        if batch_rows < world:
            raise DataError(f"mixture: {batch_rows} rows a batch for {world} ranks; give at least one row to each")
        deal = self._latest = self._begin(state)
        if state is not None and 0 < first_batch < deal.batch:
            raise DataError(f"mixture: batch {first_batch} lies before the state of batch {deal.batch}; go on later")
        first, last = (batch_rows * (rank + k) // world for k in (0, 1))
        while deal.tokens < max_tokens:
            number = deal.batch
            rows = deal.next_batch(batch_rows)
            if number >= first_batch and number % workers == worker:
                yield assemble(rows[first:last], self.context, self.eos_id), deal.state() if states else {}

    def _begin(self, state: Mapping[str, Any] | None) -> _Deal:
        if state is None:
            return _Deal(self, [Tally() for _ in self.sources])
        if state.get("format") != STATE_FORMAT:
            raise DataError(f"mixture state: format {state.get('format')!r}, this version reads '{STATE_FORMAT}'")
        if state.get("mixture") != self.fingerprint:
            raise DataError(
                f"mixture state: made with another mixture ({str(state.get('mixture'))[:12]}, here "
                f"{self.fingerprint[:12]}): other data, shares, context, interleaving or length of training; go on "
                "with those it was made with"
            )
        tallies = [Tally.from_json(state["sources"][source.name]) for source in self.sources]
        return _Deal(self, tallies, int(state["batch"]))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over sources, shares and context: what a state belongs to. Limits of epochs may change."""
        recipe = {
            "sources": [[s.name, s.recipe, str(share)] for s, share in zip(self.sources, self.shares, strict=True)],
            "context": self.context,
            "total_targets": self.total_targets,
        }
        return canonical_sha256(recipe)

    @property
    def tokens_seen(self) -> int:
        """Tokens of all batches that the latest `batches` has delivered, padding excluded."""
        return self._latest.tokens

    @property
    def tallies(self) -> list[Tally]:
        """What the latest `batches` has delivered, by source in the order of `sources`."""
        return self._latest.tallies

    def state(self) -> dict[str, Any]:
        """Where the latest `batches` stands, as JSON: enough to go on with the next batch at once."""
        return self._latest.state()

    def stats(self) -> MixtureStats:
        """Count what the latest `batches` call has delivered (on all ranks)."""
        return self._latest.stats()


def block_rows(interleave: InterleaveConfig, total_targets: int | None, share: float, context: int) -> int:
    """Rows of a block of an interleaved source: few where a curriculum moves on within a short training."""
    if not (interleave.curriculum and total_targets):
        return BLOCK_ROWS
    own = total_targets * share / context
    return min(BLOCK_ROWS, max(SMALLEST_BLOCK_ROWS, int(own / CURRICULUM_BLOCKS)))


class _Deal:
    """One run over a mixture: where it stands, and the rows that come next."""

    def __init__(self, mixture: MixtureSampler, tallies: list[Tally], batch: int = 0) -> None:
        self.mixture, self.tallies, self.batch = mixture, tallies, batch
        self._blocks: list[PackedBlock | None] = [None] * len(tallies)

    @property
    def tokens(self) -> int:
        return sum(tally.tokens for tally in self.tallies)

    def next_batch(self, batch_rows: int) -> list[Row]:
        """Deal the rows of a batch; nothing counts unless all of them can be had."""
        before, blocks = [copy.copy(tally) for tally in self.tallies], list(self._blocks)
        try:
            rows = [self._next_row() for _ in range(batch_rows)]
        except BaseException:
            self.tallies, self._blocks = before, blocks
            raise
        self.batch += 1
        return rows

    def _next_row(self) -> Row:
        """Of the sources that a full row would leave within their quota, the one whose deadline comes first."""
        total, context = self.tokens, self.mixture.context
        chosen, earliest = -1, math.inf
        for number, (share, tally) in enumerate(zip(self.mixture.shares, self.tallies, strict=True)):
            deadline = (tally.tokens + context) * share.denominator / share.numerator
            within = tally.tokens * share.denominator < share.numerator * (total + context)
            if within and deadline < earliest:
                chosen, earliest = number, deadline
        assert chosen >= 0, "shares add up to 1, so some source is within its quota"
        source, tally, block = self.mixture.sources[chosen], self.tallies[chosen], self._blocks[chosen]
        while block is None or tally.row == len(block):
            if block is not None:
                targets = self.tokens - sum(other.pieces for other in self.tallies)
                tally.block, tally.row, tally.opened_at = tally.block + 1, 0, targets
            block = self._open(chosen)
        row = Row(block, tally.row, STREAMS.index(source.stream))
        tally.add(block, tally.row, first_epoch=source.epoch_of(tally.block) == 0)
        return row

    def _open(self, number: int) -> PackedBlock:
        source, tally = self.mixture.sources[number], self.tallies[number]
        limit = self.mixture.max_epochs[source.name]
        if limit is not None and source.epoch_of(tally.block) >= limit:
            raise DataError(
                f"mixture: source '{source.name}' was read {limit} times (max_epochs), {tally.tokens:,} tokens of it, "
                f"after {self.tokens:,} tokens in all; its share of {float(self.mixture.shares[number]):.3g} cannot be "
                "met: lower the share, raise max_epochs or add data"
            )
        block = self._blocks[number] = source.block(tally.block, self._progress(tally))
        return block

    def _progress(self, tally: Tally) -> float:
        total = self.mixture.total_targets
        return min(tally.opened_at / total, 1.0) if total else 0.0

    def state(self) -> dict[str, Any]:
        names = [source.name for source in self.mixture.sources]
        tallies = {name: tally.to_json() for name, tally in zip(names, self.tallies, strict=True)}
        return {
            "format": STATE_FORMAT,
            "mixture": self.mixture.fingerprint,
            "batch": self.batch,
            "sources": tallies,
        }

    def stats(self) -> MixtureStats:
        sources = {
            source.name: SourceStats.of(source, float(share), tally)
            for source, share, tally in zip(self.mixture.sources, self.mixture.shares, self.tallies, strict=True)
        }
        positions = [
            (source, Position(tally.block, tally.row, self._progress(tally)))
            for source, tally in zip(self.mixture.sources, self.tallies, strict=True)
        ]
        units, hours = unique_speech(positions)
        rows = sum(tally.rows for tally in self.tallies)
        return MixtureStats(
            sources=sources,
            target_tokens=self.tokens - sum(tally.pieces for tally in self.tallies),
            rows=rows,
            fill=self.tokens / (rows * self.mixture.context) if rows else math.nan,
            speech_units_seen=sum(tally.units for tally in self.tallies),
            speech_units_unique=units,
            speech_hours_unique=hours,
        )


def _check_alike(sources: Sequence[Source]) -> None:
    """Raise DataError unless all rows have one length and one meaning of ids."""
    one = sources[0]
    for source in sources:
        if source.context != one.context:
            raise DataError(
                f"mixture: rows of '{one.name}' have {one.context} tokens, those of '{source.name}' {source.context}; "
                "pack both with one context"
            )
        if source.vocabulary.fingerprint != one.vocabulary.fingerprint:
            raise DataError(
                f"mixture: '{one.name}' has the vocabulary {one.vocabulary.fingerprint[:12]}, '{source.name}' "
                f"{source.vocabulary.fingerprint[:12]}; open both with one vocabulary"
            )


def _limits(max_epochs: int | Mapping[str, int] | None, names: Sequence[str]) -> dict[str, int | None]:
    limits: dict[str, int | None] = dict.fromkeys(names)
    if isinstance(max_epochs, Mapping):
        if unknown := sorted(set(max_epochs) - set(names)):
            raise DataError(f"mixture: max_epochs for '{unknown[0]}', sources are {', '.join(sorted(names))}")
        limits |= max_epochs
    else:
        limits = dict.fromkeys(names, max_epochs)
    if bad := [limit for limit in limits.values() if limit is not None and limit < 1]:
        raise DataError(f"mixture: max_epochs {bad[0]}; give at least 1, or none for no limit")
    return limits
