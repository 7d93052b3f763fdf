"""A fixed part of a benchmark.

Enters: items, how many, a seed. Leaves: whole pairs of them, in their order.
The one decision worth knowing: pairs are drawn, because they are the observations; a larger draw contains a smaller one
of the same seed, and that of one set does not depend on the others.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from speechscale.records import Item


def drawn(items: Sequence[Item], pairs: int | None, seed: int) -> list[Item]:
    """So many pairs of each set; all if None."""
    if pairs is None:
        return list(items)
    names = dict.fromkeys(item.set for item in items)
    kept = {id(item) for name in names for item in draw_items([i for i in items if i.set == name], seed, pairs=pairs)}
    return [item for item in items if id(item) in kept]


def draw_items(items: Sequence[Item], seed: int, *, least: int = 0, pairs: int = 0) -> list[Item]:
    """A fixed subset of one set, whole pairs in their order: `pairs` of them, or until there are `least` items."""
    names = list(dict.fromkeys(item.pair for item in items))
    rng = np.random.default_rng([seed, zlib.crc32(items[0].set.encode())])
    order = [names[i] for i in rng.permutation(len(names))]
    sizes = dict.fromkeys(names, 0)
    for item in items:
        sizes[item.pair] += 1
    if not pairs:
        before = np.cumsum([0, *(sizes[name] for name in order)])[:-1]
        pairs = int((before < least).sum())
    chosen = set(order[:pairs])
    return [item for item in items if item.pair in chosen]
