"""Where the utterances of a study come from: the variants of its section [corpus].

Enters: a plain table. Leaves: one of four frozen sections. The one decision worth knowing: `kind` tells them apart, so
each has only the keys that mean something to it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from speechscale.settings import Section


class StoryworldCorpus(Section):
    """Stories made and spoken on the spot; every fact is known, so knowledge can be placed."""

    kind: Literal["storyworld"] = "storyworld"
    name: str = "main"
    characters: int = Field(60, ge=8)
    relations: int = Field(6, ge=2)
    values_per_relation: int = Field(6, ge=2)
    read_only_share: float = Field(0.0, ge=0, lt=1, description="share of the facts that occur in text only")
    lexicon: Literal["small", "large"] = "small"
    event_share: float = Field(0.1, ge=0, le=1, description="share of the stories about an event with its consequence")
    topic_share: float = Field(0.05, ge=0, le=1, description="share about a topic; the others tell facts")
    neutral_share: float = Field(0.1, ge=0, le=1, description="chance of scenery instead of a fact in a fact story")
    speech_hours: float = Field(0.5, gt=0)
    text_stories: int = Field(20_000, ge=1)
    select_stories: int = Field(60, ge=1)
    test_stories: int = Field(100, ge=1)
    voices: int = Field(8, ge=1, description="training voices, in the order of the list of voices")
    one_voice_share: float = Field(
        0.0, ge=0, le=1, description="of the training stories, that the first voice speaks; the others share the rest"
    )
    test_voices: int | None = Field(
        None, ge=1, description="voices that speak select and test, in the same order; absent: the training voices"
    )
    item_voices: int = Field(2, ge=1, description="held-out voices that speak the items")
    shard_stories: int = Field(500, ge=1)


class FolderCorpus(Section):
    """Recordings with transcripts and word times in a folder of your own."""

    kind: Literal["folder"] = "folder"
    name: str = "folder"
    path: str
    alignments: Literal["auto", "textgrid", "json", "none"] = "auto"
    tier: str = Field("", description="word tier of the TextGrids; empty looks for 'words' or 'word'")
    ids: Literal["stem", "path"] = Field("stem", description="'path' where file names repeat in other folders")
    splits: tuple[float, float, float] = (0.8, 0.1, 0.1)
    shards: int = Field(1, ge=1)


class ImportedCorpus(Section):
    """A corpus folder made by `speechscale corpus import`, `align`, `corpus speak` or `corpus split`."""

    kind: Literal["corpus"] = "corpus"
    name: str = "corpus"
    path: str
    shards: int = Field(1, ge=1)


class InventoryItem(Section):
    """One corpus of a planned study: what a paper says it holds."""

    name: str
    hours: float = Field(ge=0)
    units: float = Field(ge=0, description="deduplicated units")
    text_tokens: float = Field(0, ge=0)


class InventoryCorpus(Section):
    """A list of corpora by size only: enough to plan and to bill, not to run."""

    kind: Literal["inventory"] = "inventory"
    name: str = "inventory"
    sources: tuple[InventoryItem, ...]


Corpus = Annotated[StoryworldCorpus | FolderCorpus | ImportedCorpus | InventoryCorpus, Field(discriminator="kind")]
