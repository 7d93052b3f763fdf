"""Streams of short stories told from a storyworld.

Enters: a `World`, a split, a channel and a seed. Leaves: `Story` objects, one by one, any number of them.
The one decision worth knowing: a story is a pure function of (world, split, channel, seed, index): random numbers come
in blocks keyed by these, so asking for more stories never changes the first ones, and a story belongs to a split by a
hash of its first sentence, so splits cannot overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, factorial, perm

import numpy as np

from speechscale.corpus.world import World, opening_class
from speechscale.errors import DataError

SPLITS = ("train", "select", "test")
CHANNELS = ("speech", "text")
_BLOCK = 1024
_SCALE = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One story.

    Args:
        segments: sentences, each ending in a period; the voice speaks them one by one.
        facts: (character, relation) names of the facts it states, in order.
        kind: "facts", "event" or "topic".
    """

    id: str
    split: str
    channel: str
    segments: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    kind: str


def story_text(story: Story) -> str:
    """The sentences joined by blanks."""
    return " ".join(story.segments)


def split_sentences(text: str) -> tuple[str, ...]:
    """Undo `story_text`, also for prompts of items. Example: "a b. c d." -> ("a b.", "c d.")"""
    return tuple(f"{part}." for part in text.removesuffix(".").split(". ")) if text else ()


def stories(world: World, count: int, *, split: str, channel: str, seed: int) -> Iterator[Story]:
    """Tell `count` stories of a split; the speech channel never states a read-only fact.

    Raises:
        DataError: unknown split or channel, negative count or seed.
    """
    if split not in SPLITS or channel not in CHANNELS or count < 0 or seed < 0:
        raise DataError(
            f"stories: split = '{split}', channel = '{channel}', count = {count}, seed = {seed}; allowed are {SPLITS}, "
            f"{CHANNELS} and numbers of at least 0"
        )
    return _stream(world, count, split, channel, seed)


def _stream(world: World, count: int, split: str, channel: str, seed: int) -> Iterator[Story]:
    teller = _Teller(world, channel)
    told = block = 0
    while told < count:
        key = [world.config.seed, seed, SPLITS.index(split), CHANNELS.index(channel), block]
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        for draws in rng.integers(0, _SCALE, size=(_BLOCK, teller.draws)).tolist():
            kind, who, topic, opening = teller.open(draws)
            if opening_class(opening) != split:
                continue
            body, relations = teller.tell(kind, who, topic, draws)
            name = world.characters[who].name
            yield Story(
                id=f"{split}-{channel}-{seed}-{told:07d}",
                split=split,
                channel=channel,
                segments=(opening, *body),
                facts=tuple([(name, world.relations[relation]) for relation in relations]),
                kind=kind,
            )
            told += 1
            if told == count:
                return
        block += 1


class _Teller:
    """Sentence tables of one world and channel, and how draws (integers below 2**30) choose from them."""

    def __init__(self, world: World, channel: str) -> None:
        config = world.config
        people = range(len(world.characters))
        self.world = world
        self.sentences = config.sentences
        self.draws = 6 + 3 * self.sentences
        self.heads, self.tails = world.heads(), world.tails()
        self.topic_tails = [world.topic_tail(topic) for topic in range(len(world.lexicon.topics))]
        self.told = [world.told(person, channel) for person in people]
        self.facts = [[world.fact_sentences(p, r) for r in range(config.relations)] for p in people]
        self.neutral = [world.neutral(person) for person in people]
        self.events = [[world.event_sentences(p, e) for e in range(len(world.lexicon.events))] for p in people]
        pronouns = {who.pronoun: i for i, who in enumerate(world.characters)}
        topics = range(len(world.lexicon.topics))
        self.topics = {p: [world.topic_sentences(i, topic) for topic in topics] for p, i in pronouns.items()}
        self.places = event_places(self.sentences)
        self.below_event = int(config.event_share * _SCALE)
        self.below_topic = int((config.event_share + config.topic_share) * _SCALE)
        self.below_neutral = int(config.neutral_share * _SCALE)

    def open(self, draws: Sequence[int]) -> tuple[str, int, int, str]:
        """Kind, character, topic (of a topic story) and first sentence."""
        who = draws[1] % len(self.told)
        topic = draws[3] % len(self.topic_tails)
        kind = "event" if draws[0] < self.below_event else "topic" if draws[0] < self.below_topic else "facts"
        tail = self.topic_tails[topic] if kind == "topic" else self.tails[draws[3] % len(self.tails)]
        head = self.heads[draws[2] % len(self.heads)]
        return kind, who, topic, f"{head} {self.world.characters[who].name} {tail}"

    def tell(self, kind: str, who: int, topic: int, draws: Sequence[int]) -> tuple[list[str], list[int]]:
        """Sentences after the opening and the relations they state."""
        if kind == "facts":
            return self._facts(who, draws)
        if kind == "topic":
            actions = self.topics[self.world.characters[who].pronoun][topic]
            told = min(self.sentences, len(actions))
            body = [group[draws[8 + 3 * i] % len(group)] for i, group in enumerate(_shuffled(actions, told, draws))]
            return body + [self._neutral(who, draws, i) for i in range(told, self.sentences)], []
        places = self.places[draws[5] % len(self.places)]
        event = self.events[who][draws[4] % len(self.events[who])]
        body = [self._neutral(who, draws, i) for i in range(self.sentences)]
        for place, sentence in zip(places, event, strict=False):
            body[place] = sentence
        return body, []

    def _facts(self, who: int, draws: Sequence[int]) -> tuple[list[str], list[int]]:
        left = list(self.told[who])
        body: list[str] = []
        relations: list[int] = []
        for i in range(self.sentences):
            place = 6 + 3 * i
            if not left or draws[place] < self.below_neutral:
                body.append(self._neutral(who, draws, i))
            else:
                relation = left.pop(draws[place + 1] % len(left))
                variants = self.facts[who][relation]
                body.append(variants[draws[place + 2] % len(variants)])
                relations.append(relation)
        return body, relations

    def _neutral(self, who: int, draws: Sequence[int], i: int) -> str:
        groups = self.neutral[who]
        group = groups[draws[7 + 3 * i] % len(groups)]
        return group[draws[8 + 3 * i] % len(group)]


def _shuffled(groups: Sequence[Sequence[str]], count: int, draws: Sequence[int]) -> list[Sequence[str]]:
    """`count` of the groups in a drawn order, without repeats."""
    left = list(groups)
    return [left.pop(draws[7 + 3 * i] % len(left)) for i in range(count)]


def event_places(sentences: int) -> list[tuple[int, ...]]:
    """Where cause and effect (and, if it fits, the remedy) stand among the sentences; the rest is neutral."""
    places: list[tuple[int, ...]] = list(combinations(range(sentences), 2))
    return places + list(combinations(range(sentences), 3))


def story_count(world: World, channel: str) -> int:
    """How many distinct stories of a channel exist over all splits, from the combinatorics; nothing is enumerated.

    Texts differ because openings, fact sentences, neutral sentences, event and topic sentences are lists without
    repeats that share no sentence.
    """
    teller, config = _Teller(world, channel), world.config
    n = config.sentences
    total = 0
    for who, character in enumerate(world.characters):
        neutral = len({sentence for group in teller.neutral[who] for sentence in group})
        if config.event_share + config.topic_share < 1:
            variants = [len(teller.facts[who][relation]) for relation in teller.told[who]]
            most = min(n, len(variants))
            if config.neutral_share == 0:  # neutral sentences only fill up, at the end
                bodies = neutral ** (n - most) * _arrangements(variants, most)
            else:
                facts = range(1 if config.neutral_share == 1 else most + 1)
                bodies = sum(comb(n, k) * neutral ** (n - k) * _arrangements(variants, k) for k in facts)
            total += len(teller.heads) * len(teller.tails) * bodies
        if config.event_share > 0:
            bodies = len(teller.events[who]) * sum(neutral ** (n - len(places)) for places in teller.places)
            total += len(teller.heads) * len(teller.tails) * bodies
        for actions in teller.topics[character.pronoun] if config.topic_share > 0 else ():
            told = min(n, len(actions))
            total += len(teller.heads) * perm(len(actions), told) * len(actions[0]) ** told * neutral ** (n - told)
    return total


def _arrangements(variants: Sequence[int], chosen: int) -> int:
    """Ordered choices of different facts, each in one of its variants: chosen! times an elementary symmetric sum."""
    sums = [1] + [0] * chosen
    for count in variants:
        for size in range(chosen, 0, -1):
            sums[size] += sums[size - 1] * count
    return factorial(chosen) * sums[chosen]
