"""What a mixture has delivered: running tallies, and the counts that are made from them.

Enters: rows as they are dealt. Leaves: `SourceStats` and `MixtureStats`.
The one decision worth knowing: a tally is integers only, so that it is the state of its source as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from speechscale.tokens.packing import PackedBlock
from speechscale.tokens.sources import Source

KINDS = ("text", "speech", "marker")
Count = Literal["share", "tokens_seen", "tokens_unique", "targets_unique", "documents", "split_documents", "rows"]


@dataclass(slots=True)
class Tally:
    """What one source has delivered.

    Args:
        block, row: the next row. opened_at: predicted tokens of the whole mixture when the block was opened.
        kinds: tokens that are text, speech, markers. unique, unique_targets: tokens, and predicted ones, of the first
            pass. pieces: segments.
    """

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
    unique_targets: int = 0
    rows: int = 0

    def add(self, block: PackedBlock, row: int, first_epoch: bool) -> None:
        """Count a row; the next one follows it."""
        tokens, pieces = int(block.tokens[row]), int(block.pieces[row])
        self.tokens += tokens
        self.kinds = [seen + int(new) for seen, new in zip(self.kinds, block.kinds[row], strict=True)]
        self.units += int(block.units[row])
        self.pieces += pieces
        self.documents += int(block.closed.offsets[row + 1] - block.closed.offsets[row])
        self.split += int(block.split[row])
        if first_epoch:
            self.unique += tokens
            self.unique_targets += tokens - pieces
        self.rows += 1
        self.row = row + 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Tally:
        return cls(**{**saved, "kinds": list(saved["kinds"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStats:
    """What one source delivered. Tokens exclude padding; each document counts its `<eos>`.

    Args:
        share: asked for. tokens_seen, tokens_unique: all, and those of the first pass. targets_unique: of these, those
            that are predicted. epochs: passes over its documents, documents_per_epoch.
        kinds: tokens that are "text", "speech", "marker" (markers and `<eos>`).
        split_documents: documents that were cut because they are longer than the context (or by stream packing).
    """

    stream: str
    share: float
    tokens_seen: int
    tokens_unique: int
    targets_unique: int
    epochs: float
    documents: int
    documents_per_epoch: int
    split_documents: int
    rows: int
    kinds: dict[str, int]

    @classmethod
    def of(cls, source: Source, share: float, tally: Tally) -> SourceStats:
        return cls(
            stream=source.stream,
            share=share,
            tokens_seen=tally.tokens,
            tokens_unique=tally.unique,
            targets_unique=tally.unique_targets,
            epochs=tally.documents / source.documents,
            documents=tally.documents,
            documents_per_epoch=source.documents,
            split_documents=tally.split,
            rows=tally.rows,
            kinds=dict(zip(KINDS, tally.kinds, strict=True)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureStats:
    """Counts of all delivered batches, by source name.

    Args:
        target_tokens: tokens that are predicted (all but the first of each segment). fill: places that are no padding.
        speech_units_unique, speech_hours_unique: of all utterances delivered at least once, heard or interleaved; None
            where rows come from packed shards, which do not know their utterances.
    """

    sources: dict[str, SourceStats]
    target_tokens: int
    rows: int
    fill: float
    speech_units_seen: int
    speech_units_unique: int | None
    speech_hours_unique: float | None

    def by_stream(self, name: Count) -> dict[str, Any]:
        """Sum a count over the sources of each stream. Example: by_stream("tokens_seen")"""
        found: dict[str, Any] = {}
        for source in self.sources.values():
            found[source.stream] = found.get(source.stream, 0) + getattr(source, name)
        return found

    def epochs_of(self, stream: str) -> float | None:
        """Passes over all documents of a stream; None if it is not in the mixture."""
        own = [source for source in self.sources.values() if source.stream == stream]
        if not own:
            return None
        return sum(source.documents for source in own) / sum(source.documents_per_epoch for source in own)
