"""Catches: facts that leak through word lists, unheard values, names that sound alike, process-dependent worlds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from speechscale.corpus.lexicon import LEXICONS, RELATIONS
from speechscale.corpus.world import WorldConfig, build_world, opening_class, world_words
from speechscale.errors import DataError

_DIGEST = """
import hashlib
from speechscale.corpus.items import ITEM_SETS, items
from speechscale.corpus.stories import stories
from speechscale.corpus.world import WorldConfig, build_world
world = build_world(WorldConfig(seed=3))
made = [repr(story) for story in stories(world, 300, split="test", channel="speech", seed=1)]
made += [repr(item) for name in ITEM_SETS for item in items(world, name, 20, seed=1)]
print(hashlib.sha256("".join(made).encode()).hexdigest())
"""

_PHONES = """
import ctypes, json, sys
import espeakng_loader
engine = ctypes.CDLL(espeakng_loader.get_library_path())
engine.espeak_Initialize(2, 0, espeakng_loader.get_data_path().encode(), 0)
engine.espeak_SetVoiceByName(b"en-us")
engine.espeak_TextToPhonemes.restype = ctypes.c_char_p
def phones(word):
    text = ctypes.c_char_p(word.encode())
    return engine.espeak_TextToPhonemes(ctypes.byref(text), 1, ord("_") << 8).decode()
json.dump({word: phones(word) for word in json.load(sys.stdin)}, sys.stdout)
"""


def _edits(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def test_values_of_facts_occur_in_no_other_sentence() -> None:
    for size, lexicon in LEXICONS.items():
        world = build_world(WorldConfig(lexicon=size, characters=96, relations=10, values_per_relation=24))
        facts = {
            word
            for character in range(96)
            for relation in range(10)
            for sentence in world.fact_sentences(character, relation)
            for word in sentence.strip(".").split()
        }
        values = [value for relation in RELATIONS for value in relation.values]
        names = set(lexicon.women + lexicon.men)
        assert len(values) == len(set(values))
        assert not names & set(values)
        other = set()
        for group in world.neutral(0):
            other.update(word for sentence in group for word in sentence.strip(".").split())
        for topic in range(len(lexicon.topics)):
            actions = world.topic_sentences(0, topic)
            other.update(word for action in actions for sentence in action for word in sentence.strip(".").split())
            other.update(world.topic_tail(topic).strip(".").split())
        for event in range(len(lexicon.events)):
            other.update(word for part in world.event_sentences(0, event) for word in part.strip(".").split())
        other.update(word for part in (*world.heads(), *world.tails()) for word in part.strip(".").split())
        assert not other & (set(values) | names)
        assert facts >= set(values)
        templates = {word for relation in RELATIONS for template in relation.templates for word in template.split()}
        assert not {word.strip(".") for word in templates} & (set(values) | names)


def test_topics_and_events_share_no_sentence() -> None:
    lexicon = LEXICONS["large"]
    actions = [action for topic in lexicon.topics for action in topic.actions]
    assert len(actions) == len(set(actions))
    assert len({topic.place for topic in lexicon.topics}) == len(lexicon.topics) == 30
    assert {len(topic.actions) for topic in lexicon.topics} == {10}
    assert {len(topic.people) for topic in lexicon.topics} == {3}
    assert len({event.effect for event in lexicon.events}) == len({event.cause for event in lexicon.events}) == 38


@pytest.mark.parametrize(("size", "least", "most"), [("small", 250, 400), ("large", 1000, 5000)])
def test_number_of_word_types(size: str, least: int, most: int) -> None:
    words = world_words(build_world(WorldConfig(lexicon=size)))
    assert least <= len(words) <= most
    assert words == sorted(set(words))
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)


def test_names_and_values_are_spoken_distinctly() -> None:
    pytest.importorskip("espeakng_loader", reason="needs the extra 'voices'")
    lexicon = LEXICONS["large"]
    groups = [lexicon.women + lexicon.men] + [relation.values for relation in RELATIONS]
    every = [word for group in groups for word in group]
    done = subprocess.run(
        [sys.executable, "-c", _PHONES], input=json.dumps(every), capture_output=True, text=True, check=True, timeout=60
    )
    phones = {w: [p.strip("',") for p in made.split("_")] for w, made in json.loads(done.stdout).items()}
    for group in groups:
        close = [(a, b) for a, b in combinations(group, 2) if _edits(phones[a], phones[b]) < 2]
        assert not close


def test_values_are_shared_evenly_and_nobody_befriends_himself() -> None:
    for seed in range(20):
        world = build_world(WorldConfig(seed=seed))
        for relation in range(6):
            assert np.bincount(world.table[:, relation]).tolist() == [10] * 6
        friend = world.relations.index("friend")
        names = [character.name for character in world.characters]
        assert all(world.value(i, friend) != name for i, name in enumerate(names))
        assert len(set(names)) == 60


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    characters=st.integers(4, 96),
    relations=st.integers(1, 10),
    values=st.integers(2, 6),
    share=st.floats(0, 0.9),
)
def test_read_only_share_is_met_and_every_value_heard(
    seed: int, characters: int, relations: int, values: int, share: float
) -> None:
    values = min(values, characters // 2)
    config = WorldConfig(
        seed=seed, characters=characters, relations=relations, values_per_relation=values, read_only_share=share
    )
    heard_facts = round((1 - share) * characters * relations) - 1
    assume(heard_facts >= 3 * values * relations)  # fewer may be refused: see the test below
    world = build_world(config)
    assert abs(int(world.read_only.sum()) - share * characters * relations) <= 1
    for relation in range(relations):
        heard = world.table[~world.read_only[:, relation], relation]
        assert set(heard.tolist()) == set(range(values))
    per_character = world.read_only.sum(axis=1)
    assert per_character.max() - per_character.min() <= 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"characters": 3},
        {"characters": 97},
        {"relations": 11},
        {"values_per_relation": 25},
        {"characters": 10, "values_per_relation": 6},
        {"read_only_share": 1.0},
        {"read_only_share": float("nan")},
        {"lexicon": "huge"},
        {"sentences": 1},
        {"event_share": 0.6, "topic_share": 0.6},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_named(wrong: dict) -> None:
    with pytest.raises(DataError, match=list(wrong)[-1]):
        WorldConfig(**wrong)


def test_a_share_that_leaves_a_value_unheard_is_refused() -> None:
    with pytest.raises(DataError, match="unheard"):
        build_world(WorldConfig(characters=8, values_per_relation=4, read_only_share=0.9))


def test_opening_classes_have_their_shares() -> None:
    world = build_world(WorldConfig())
    classes = [
        opening_class(f"{head} {who.name} {tail}")
        for head in world.heads()
        for tail in world.tails()[::8]
        for who in world.characters
    ]
    for split, share in (("train", 0.8), ("select", 0.1), ("test", 0.1)):
        assert abs(classes.count(split) / len(classes) - share) < 4 * (share * (1 - share) / len(classes)) ** 0.5


def test_stories_and_items_are_the_same_in_every_process() -> None:
    digests = set()
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", _DIGEST], capture_output=True, text=True, check=True, env=env, timeout=60
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1
