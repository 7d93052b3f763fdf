"""A benchmark as its source has it, before anything is checked.

Enters: what the authors of a benchmark publish. Leaves: `RawItem`s whose recordings are clips of files below one root.
The one decision worth knowing: a task only reads. It says which files belong to which candidate and leaves listening,
joining, speaking, dropping and hashing to `prepare`, so that every benchmark passes the same checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from speechscale.records import Item, Word
from speechscale.skips import SkipLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A recording, or a part of one, below the source's root; seconds. `channel` None averages all."""

    path: str
    start_s: float = 0.0
    end_s: float | None = None
    channel: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RawItem:
    """An item as its source has it.

    Args:
        good, bad: recordings of prompt and candidate in one, or of the candidate where the item has no prompt.
        prompt, good_ending, bad_ending: recorded apart.
        good_words, bad_words: word times in the joined recordings, seconds from the clip's start; () when unknown.
    """

    item: Item
    good: Clip | None = None
    bad: Clip | None = None
    prompt: Clip | None = None
    good_ending: Clip | None = None
    bad_ending: Clip | None = None
    good_words: tuple[Word, ...] = ()
    bad_words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a benchmark says of itself; goes into benchmark.json and every stamp.

    Args:
        task: name in `tasks.TASKS`. version: of the data, as its authors count. origin: where the files come from,
            said to whoever lacks one ("download X from Y").
        protocol: the paper's usual protocol, a name in `evals/protocols.py`.
    """

    task: str
    title: str
    version: str
    paper: str
    licence: str
    origin: str
    chance: float = 0.5
    protocol: str = "speechscale"
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a task function returns.

    Args:
        root: folder of the recordings; None for a benchmark of texts alone.
        items: read once, in order. skips: fills while items are read.
    """

    facts: Facts
    root: Path | None
    items: Iterable[RawItem]
    skips: SkipLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An entry of `tasks.TASKS`.

    Args:
        about: one line. paper: who to cite.
        read: called with the folder or file of the original data and the options, all as text.
        options: name -> what it does.
        example_layout: which files are expected below the root, and where they come from.
        chance: accuracy of a coin.
    """

    name: str
    about: str
    paper: str
    read: Callable[..., Source]
    options: Mapping[str, str] = field(default_factory=dict)
    example_layout: str = ""
    chance: float = 0.5
