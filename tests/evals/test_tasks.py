"""Would catch: a task without paper, licence or origin, an option the help does not name, a protocol that is not there,
storyworld items that are not those of the study's world."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from speechscale.corpus.items import items
from speechscale.corpus.world import WorldConfig, build_world
from speechscale.errors import DataError
from speechscale.evals.benchmarks.readers.facts import FACTS, LAYOUTS
from speechscale.evals.protocols import get_protocol
from speechscale.evals.tasks import TASKS, storyworld

SMALL = {"characters": "12", "relations": "4", "values_per_relation": "3", "seed": "5"}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_says_where_it_comes_from(name: str) -> None:
    task, facts = TASKS[name], FACTS[name]
    assert (task.name, facts.task) == (name, name)
    assert get_protocol(facts.protocol).aggregate
    assert facts.chance == task.chance == 0.5
    assert all((facts.title, facts.version, facts.paper, facts.licence, facts.origin, task.about, LAYOUTS[name]))
    assert facts.origin[1:] in task.example_layout


@pytest.mark.parametrize("name", TASKS)
def test_options_are_those_of_the_function_and_are_texts(name: str) -> None:
    signature = inspect.signature(TASKS[name].read)
    options = {key: value for key, value in signature.parameters.items() if value.kind is value.KEYWORD_ONLY}
    extra = any(value.kind is value.VAR_KEYWORD for value in signature.parameters.values())
    assert set(options) <= set(TASKS[name].options)
    assert extra == (name == "storyworld")
    assert extra or set(options) == set(TASKS[name].options)
    assert all(isinstance(value.default, str) for value in options.values())


def test_tasks_and_facts_are_the_same_names() -> None:
    assert set(TASKS) == set(FACTS) == set(LAYOUTS)


def test_storyworld_items_are_those_of_its_world_in_symmetric_pairs() -> None:
    source = storyworld(Path(), sets="facts+grammar", pairs="4", **SMALL)
    found = [raw.item for raw in source.items]
    world = build_world(WorldConfig(characters=12, relations=4, values_per_relation=3, seed=5))
    assert found == items(world, "facts", 4, seed=5) + items(world, "grammar", 4, seed=5)
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert first.pair == second.pair
        if first.set == "facts":
            assert (first.good, first.bad) == (second.bad, second.good)
    assert "seed 5" in source.facts.version
    other = [raw.item for raw in storyworld(sets="facts", pairs="4", item_seed="6", **SMALL).items]
    assert other == items(world, "facts", 4, seed=6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sets": "fact"}, "no set 'fact'; did you mean 'facts'"),
        ({"sets": "facts+facts"}, "name each set once"),
        ({"sets": ""}, "name each set once"),
        ({"pairs": "many"}, "option pairs = 'many': a whole number is needed"),
        ({"characters": "1.5"}, "option characters = '1.5': a whole number is needed"),
        ({"caracters": "5"}, "no option 'caracters'; did you mean 'characters'"),
        ({"characters": "1"}, "storyworld: characters = 1, allowed 4 to 96"),
    ],
)
def test_worlds_that_cannot_be_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        storyworld(Path(), **options)
