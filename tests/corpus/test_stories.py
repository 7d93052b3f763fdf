"""Catches: a read-only fact that is spoken, splits that overlap, stories that change with the number asked for."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from speechscale.corpus.stories import Story, event_places, split_sentences, stories, story_count, story_text
from speechscale.corpus.world import World, WorldConfig, build_world, opening_class, world_words
from speechscale.errors import DataError


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(WorldConfig())


def _stated(world: World, text: str) -> set[tuple[str, str]]:
    """Facts that the words of a story state: the value stands in a story about the character."""
    words = text.replace(".", "").split()
    names = {character.name: i for i, character in enumerate(world.characters)}
    who = next(names[word] for word in words if word in names)
    return {
        (world.characters[who].name, name)
        for relation, name in enumerate(world.relations)
        if world.value(who, relation) in words
    }


def test_speech_never_states_a_read_only_fact(world: World) -> None:
    read_only = {
        (world.characters[who].name, relation)
        for who, relations in enumerate(world.read_only)
        for relation, only_read in zip(world.relations, relations, strict=True)
        if only_read
    }
    assert len(read_only) == 180
    sentences = {
        sentence: fact
        for who, character in enumerate(world.characters)
        for relation, name in enumerate(world.relations)
        for sentence in world.fact_sentences(who, relation)
        if character.name in sentence.split()[:1] and (fact := (character.name, name)) in read_only
    }
    spoken = list(stories(world, 20_000, split="train", channel="speech", seed=0))
    for story in spoken:
        text = story_text(story)
        assert not read_only & set(story.facts)
        assert not read_only & _stated(world, text), text
        assert not set(story.segments) & set(sentences)
    read = list(stories(world, 20_000, split="train", channel="text", seed=0))
    assert {fact for story in read for fact in story.facts} >= read_only
    assert {fact for story in read for fact in _stated(world, story_text(story))} >= read_only
    heard = {fact for story in spoken for fact in story.facts}
    assert len(heard) == 180
    values = {(name, _value(world, who, name)) for who, name in heard}
    assert len(values) == 36


def _value(world: World, name: str, relation: str) -> str:
    who = next(i for i, character in enumerate(world.characters) if character.name == name)
    return world.value(who, world.relations.index(relation))


@pytest.mark.parametrize("channel", ["speech", "text"])
def test_facts_recorded_are_the_facts_in_the_words(world: World, channel: str) -> None:
    for story in stories(world, 3000, split="train", channel=channel, seed=5):
        assert set(story.facts) == _stated(world, story_text(story))
        assert len(story.facts) == len(set(story.facts))


def test_more_stories_do_not_change_the_first(world: World) -> None:
    few = list(stories(world, 7, split="test", channel="text", seed=2))
    many = list(stories(world, 3000, split="test", channel="text", seed=2))
    assert (len(few), len(many)) == (7, 3000)
    assert many[:7] == few
    assert len({story.id for story in many}) == 3000
    assert many != list(stories(world, 3000, split="test", channel="text", seed=3))
    stream = stories(world, 10**9, split="train", channel="text", seed=2)
    assert len(list(islice(stream, 5))) == 5
    assert list(stories(world, 0, split="train", channel="text", seed=2)) == []


def test_splits_share_no_story_and_no_opening(world: World) -> None:
    told: dict[str, list[Story]] = {
        split: [s for c in ("speech", "text") for s in stories(world, 4000, split=split, channel=c, seed=0)]
        for split in ("train", "select", "test")
    }
    for split, group in told.items():
        assert {opening_class(story.segments[0]) for story in group} == {split}
        assert {story.split for story in group} == {split}
    texts = [{story_text(story) for story in group} for group in told.values()]
    assert sum(len(group) for group in texts) == len(set().union(*texts))


def test_shape_of_stories(world: World) -> None:
    told = list(stories(world, 5000, split="train", channel="text", seed=0))
    assert all(len(story.segments) == 4 for story in told)
    sentences = {sentence for story in told for sentence in story.segments}
    assert all(s.endswith(".") and s.count(".") == 1 and "," not in s and s == s.lower() for s in sentences)
    words = [len(story_text(story).split()) for story in told]
    assert 23 < sum(words) / len(words) < 28
    kinds = Counter(story.kind for story in told)
    for kind, share in (("facts", 0.85), ("event", 0.1), ("topic", 0.05)):
        assert abs(kinds[kind] / 5000 - share) < 4 * (share * (1 - share) / 5000) ** 0.5
    assert all(split_sentences(story_text(story)) == story.segments for story in told)
    pure = build_world(WorldConfig(event_share=0, topic_share=0, neutral_share=0, sentences=4))
    assert all(len(story.facts) == 4 for story in stories(pure, 200, split="train", channel="text", seed=0))
    assert all(len(story.facts) == 3 for story in stories(pure, 200, split="train", channel="speech", seed=0))


@pytest.mark.parametrize("lexicon", ["small", "large"])
def test_world_words_are_complete_and_all_used(lexicon: str) -> None:
    world = build_world(WorldConfig(lexicon=lexicon))
    words = set(world_words(world))
    used: set[str] = set()
    for story in stories(world, 30_000, split="train", channel="text", seed=0):
        used.update(story_text(story).replace(".", "").split())
    assert used == words


@pytest.mark.parametrize("sentences", [2, 3, 5])
@pytest.mark.parametrize("channel", ["speech", "text"])
def test_story_count_is_the_number_of_texts(sentences: int, channel: str) -> None:
    """A world small enough to see all bodies of its fact stories."""
    config = WorldConfig(
        characters=4,
        relations=3,
        values_per_relation=2,
        read_only_share=1 / 3,
        event_share=0,
        topic_share=0,
        neutral_share=0,
        sentences=sentences,
    )
    world = build_world(config)
    forced = max(0, sentences - (2 if channel == "speech" else 3))
    neutral = len({s for group in world.neutral(0) for s in group}) ** forced
    told = stories(world, 50_000, split="train", channel=channel, seed=0)
    bodies = {
        (story.facts[0][0], *(s for s, fact in zip(story.segments[1:], story.facts, strict=False) if fact))
        for story in told
    }
    openings = len(world.heads()) * len(world.tails())
    assert len(bodies) * openings * neutral == story_count(world, channel)


@pytest.mark.parametrize("channel", ["speech", "text"])
def test_there_are_a_billion_stories(world: World, channel: str) -> None:
    assert story_count(world, channel) >= 10**9
    plain = build_world(WorldConfig(event_share=0, topic_share=0))
    topics = build_world(WorldConfig(event_share=0, topic_share=1))
    events = build_world(WorldConfig(event_share=1, topic_share=0))
    assert sum(story_count(w, channel) for w in (plain, topics, events)) == story_count(world, channel)


def test_factors_of_the_story_count_hold_no_sentence_twice(world: World) -> None:
    for who in (0, 1):
        facts = [s for relation in range(6) for s in world.fact_sentences(who, relation)]
        neutral = {s for group in world.neutral(who) for s in group}
        topics = [s for t in range(6) for action in world.topic_sentences(who, t) for s in action]
        events = [s for e in range(len(world.lexicon.events)) for s in world.event_sentences(who, e)]
        every = [*facts, *neutral, *topics, *events]
        assert len(every) == len(set(every))
    for parts in (world.heads(), world.tails()):
        assert len(parts) == len(set(parts))


def test_an_effect_follows_its_cause(world: World) -> None:
    assert event_places(3) == [(0, 1), (0, 2), (1, 2), (0, 1, 2)]
    parts = {}
    for who in (world.characters.index(c) for c in world.characters):
        for event in range(len(world.lexicon.events)):
            cause, effect, remedy = world.event_sentences(who, event)
            parts[cause], parts[effect], parts[remedy] = (event, 0), (event, 1), (event, 2)
    seen = 0
    for story in stories(world, 3000, split="train", channel="speech", seed=0):
        order = [parts[segment] for segment in story.segments if segment in parts]
        if story.kind == "event":
            seen += 1
            assert order in [[(order[0][0], i) for i in range(n)] for n in (2, 3)]
        else:
            assert order == []
    assert seen > 200


@pytest.mark.parametrize("wrong", [{"split": "dev"}, {"channel": "video"}, {"count": -1}, {"seed": -1}])
def test_unknown_streams_are_refused(world: World, wrong: dict) -> None:
    asked = {"count": 1, "split": "train", "channel": "text", "seed": 0, **wrong}
    with pytest.raises(DataError, match="allowed"):
        stories(world, asked.pop("count"), **asked)
