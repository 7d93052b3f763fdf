"""Draw train, select and test so that nothing leaks.

Enters: who speaks and what is said, utterance by utterance. Leaves: a split for each, the same whatever the order they
came in. The one decision worth knowing: what must stay together is found first (union-find over speakers and texts),
and whole groups are dealt out; a corpus that hangs together is refused with what to do, never divided by force.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Int, UInt64

from speechscale.align.spelling import tokens_of
from speechscale.errors import DataError
from speechscale.records import Utterance

SPLITS = ("train", "select", "test")
"""Training; choosing checkpoints and learning rates; the final numbers."""
TOLERANCE = 0.05
"""How far the largest group may push a share away from what was asked for."""

By = Literal["speaker", "text", "speaker+text"]


def text_key(utterance: Utterance) -> str:
    """What makes two texts equal: their words, whatever case and punctuation; without text, the audio file."""
    words = " ".join(tokens_of(utterance.text))
    return f"text {words}" if words else f"audio {utterance.audio}"


def key_hash(key: str) -> int:
    """64 bits of SHA-256; two of 20 million keys collide with a chance of 1 in 100,000."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


@dataclass(slots=True)
class Groups:
    """Find what must stay together, one utterance at a time; 8 bytes per utterance and about 150 per key.

    Example: with by="speaker+text", ann says A, bob says A and B, eve says C: {ann, bob} are one group, {eve} another.
    """

    by: By
    _nodes: dict[int, int] = field(default_factory=dict)
    _parents: array[int] = field(default_factory=lambda: array("q"))
    _names: array[int] = field(default_factory=lambda: array("Q"))
    _rows: array[int] = field(default_factory=lambda: array("q"))

    def add(self, utterance: Utterance) -> None:
        """Add the next utterance. Raises DataError: by speaker, and it has none."""
        keys = []
        if self.by != "text":
            if not utterance.speaker:
                raise DataError(
                    f"utterance {utterance.id} has no speaker, so it cannot be split by {self.by}; split by text"
                )
            keys.append(f"speaker {utterance.speaker}")
        if self.by != "speaker":
            keys.append(text_key(utterance))
        nodes = [self._node(key_hash(key)) for key in keys]
        for other in nodes[1:]:
            self._join(nodes[0], other)
        self._rows.append(nodes[0])

    def __len__(self) -> int:
        return len(self._rows)

    def labels(self) -> UInt64[np.ndarray, " utterances"]:
        """The group of each utterance, in the order added; its name is the smallest hash of its keys."""
        smallest: dict[int, int] = {}
        for node in range(len(self._parents)):
            root = self._find(node)
            smallest[root] = min(smallest.get(root, 1 << 64), self._names[node])
        return np.fromiter((smallest[self._find(node)] for node in self._rows), np.uint64, len(self._rows))

    def _node(self, name: int) -> int:
        node = self._nodes.setdefault(name, len(self._parents))
        if node == len(self._parents):
            self._parents.append(node)
            self._names.append(name)
        return node

    def _find(self, node: int) -> int:
        parents = self._parents
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    def _join(self, one: int, other: int) -> None:
        one, other = self._find(one), self._find(other)
        self._parents[max(one, other)] = min(one, other)


def draw_splits(
    labels: UInt64[np.ndarray, " utterances"],
    shares: Sequence[float],
    *,
    seed: int,
    by: By,
    tolerance: float = TOLERANCE,
) -> Int[np.ndarray, " utterances"]:
    """Deal whole groups out to train, select and test; return 0, 1 or 2 per utterance.

    Groups above the smallest wanted split come first, largest first; the others in the order of a hash of the seed.
    Each goes where most utterances are missing. With at least as many groups as wanted splits, none stays empty.

    Args:
        shares: of utterances, three numbers.
        tolerance: how far above the largest share one single group may be.

    Raises:
        DataError: impossible shares, fewer groups than wanted splits, or one group above the tolerance; says what to
            do instead.
    """
    check_shares(shares)
    names, sizes = np.unique(labels, return_counts=True)
    total, wanted = len(labels), [index for index, share in enumerate(shares) if share > 0]
    _check_possible(sizes, total, shares, wanted, by, tolerance)
    digests = [hashlib.sha256(f"{seed}\0{name}".encode()).digest() for name in names.tolist()]
    smallest = min(shares[index] for index in wanted) * total
    order = sorted(range(len(names)), key=lambda g: (-sizes[g] if sizes[g] > smallest else 0, digests[g]))
    missing = {index: shares[index] * total for index in wanted}
    chosen = np.zeros(len(names), np.int64)
    for group in order:
        split = max(missing, key=lambda index: (missing[index], -index))
        chosen[group] = split
        missing[split] -= int(sizes[group])
    for index in wanted:
        if not (chosen == index).any():
            counts = np.bincount(chosen, minlength=3)
            donors = np.flatnonzero(chosen == counts.argmax())
            chosen[min(donors, key=lambda g: (sizes[g], digests[g]))] = index
    return chosen[np.searchsorted(names, labels)]


def _check_possible(
    sizes: Int[np.ndarray, " groups"], total: int, shares: Sequence[float], wanted: Sequence[int], by: By, slack: float
) -> None:
    if total == 0:
        raise DataError("no utterances to split; check the corpus")
    largest = float(sizes.max()) / total
    if len(sizes) >= len(wanted) and largest <= max(shares) + slack:
        return
    what = {"speaker": "speaker", "text": "text", "speaker+text": "group of speakers joined by shared texts"}[by]
    other = {
        "speaker": "split by text",
        "text": "split by speaker",
        "speaker+text": "split by speaker with --drop-shared, which drops the training utterances whose text is held "
        "out, or split by speaker or text alone",
    }[by]
    raise DataError(
        f"cannot split by {by}: {len(sizes)} {what}{'s' if len(sizes) != 1 else ''} for {len(wanted)} splits, the "
        f"largest holds {largest:.1%} of {total} utterances and the largest share is {max(shares):.0%} (tolerance "
        f"{slack:.0%}); {other}, or change --shares or --tolerance"
    )


def check_shares(shares: Sequence[float]) -> None:
    """Raise DataError unless there are three shares that make sense."""
    if len(shares) != 3 or min(shares) < 0 or shares[0] <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise DataError(
            f"splits {tuple(shares)}: give three shares (train, select, test) that are not negative, add up to 1, "
            f"and leave something to train on, such as (0.8, 0.1, 0.1)"
        )


def canonical_split(name: str) -> str:
    """Our name of a corpus' own split; a name that says nothing is kept.

    Example: "train-clean-100" -> "train"; "dev-other", "validation" -> "select"; "test.clean" -> "test"
    """
    lower = name.strip().casefold()
    for ours, starts in {"train": ("train",), "select": ("select", "dev", "val"), "test": ("test", "eval")}.items():
        if lower.startswith(starts):
            return ours
    return lower


def assign_splits(digests: Sequence[bytes], splits: Sequence[float]) -> dict[bytes, str]:
    """Assign each distinct digest to "train", "select" or "test" by its value, so that order never matters.

    If a wanted split came out empty and there are enough digests, the smallest group (then the lowest digest) of the
    split with the most groups moves there.

    Example: three digests always land in three splits.
    """
    sizes = Counter(digests)
    bounds = [splits[0], splits[0] + splits[1]]
    chosen = {}
    for digest in sizes:
        point = int.from_bytes(digest[:8], "big") / 2**64
        wanted = 0 if point < bounds[0] else 1 if point < bounds[1] or splits[2] == 0 else 2
        chosen[digest] = SPLITS[wanted]
    names = [name for name, share in zip(SPLITS, splits, strict=True) if share > 0]
    if len(sizes) >= len(names):
        for name in names:
            counts = Counter(chosen.values())
            if counts[name] == 0:
                donor = max(names, key=lambda n: (counts[n], n))
                moved = min((d for d in sizes if chosen[d] == donor), key=lambda d: (sizes[d], d))
                chosen[moved] = name
    return chosen
