"""The storyworld's own item sets as a benchmark.

Enters: what a world is made from, names of sets, how many pairs. Leaves: text items in symmetric pairs. The one
decision worth knowing: a world is its settings and seed, so a model trained on a world is only asked about that world
when they are equal; they stand in the benchmark's version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields

from speechscale.corpus.items import ITEM_SETS, items
from speechscale.corpus.world import WorldConfig, build_world
from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import RawItem
from speechscale.settings import nearest

WORLD_OPTIONS = tuple(entry.name for entry in fields(WorldConfig))
DEFAULT_SETS = ("story_cloze", "topic_cloze", "facts", "grammar")


def world_config(options: Mapping[str, str]) -> WorldConfig:
    """Settings of a world out of texts. Raises DataError: unknown, or not a number where one is needed."""
    kinds = {entry.name: str(entry.type) for entry in fields(WorldConfig)}
    values: dict[str, str | int | float] = {}
    for name, text in options.items():
        if name not in kinds:
            raise DataError(f"storyworld: no option '{name}'{nearest(name, WORLD_OPTIONS)}")
        values[name] = text if kinds[name] == "str" else number(name, text, whole=kinds[name] == "int")
    return WorldConfig(**values)  # type: ignore[arg-type]


def number(name: str, text: str | float, *, whole: bool = True) -> int | float:
    """A number out of a text. Raises DataError naming the option. Example: "pairs", "200" -> 200"""
    try:
        return int(text) if whole else float(text)
    except ValueError:
        kind = "a whole number" if whole else "a number"
        raise DataError(f"option {name} = '{text}': {kind} is needed") from None


def names(text: str) -> tuple[str, ...]:
    """Names with ',' or '+' between them. Example: "facts+grammar" -> ("facts", "grammar")"""
    return tuple(name.strip() for name in text.replace("+", ",").split(",") if name.strip())


def item_sets(text: str) -> tuple[str, ...]:
    """Names of the storyworld's sets. Raises DataError: unknown, repeated, or none."""
    sets = names(text)
    for name in sets:
        if name not in ITEM_SETS:
            raise DataError(f"storyworld: no set '{name}'{nearest(name, ITEM_SETS)}")
    if not sets or len(set(sets)) != len(sets):
        raise DataError(f"storyworld: sets = '{text}': name each set once; there are {', '.join(ITEM_SETS)}")
    return sets


def world_items(config: WorldConfig, sets: tuple[str, ...], pairs: int, seed: int) -> Iterator[RawItem]:
    """`pairs` symmetric pairs of each set."""
    world = build_world(config)
    for name in sets:
        for item in items(world, name, pairs, seed=seed):
            yield RawItem(item=item)
