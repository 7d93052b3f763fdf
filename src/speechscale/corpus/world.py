"""A storyworld: who exists, what is true of whom, and which facts are only ever read.

Enters: a `WorldConfig`. Leaves: a `World`: characters, the fact table, every sentence a story can contain.
The one decision worth knowing: values are shared by many characters (characters / values_per_relation of them), because
knowledge read in text was carried into speech only where values act as categories; and a read-only fact is missing from
the list of sentences that speech may use, instead of being filtered out later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool, Int

from speechscale.corpus.grammar import MinimalPair, grammar
from speechscale.corpus.lexicon import LEXICONS, RELATIONS, Lexicon
from speechscale.errors import DataError

_PRONOUNS = {"she": ("she", "her", "her"), "he": ("he", "him", "his")}
_TRIES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldConfig:
    """What a storyworld is made from.

    Args:
        seed: draws characters, values and the fact table; at least 0.
        characters: 4 to 96.
        relations: 1 to 10, taken in the order home, food, job, toy, wear, friend, pet, sport, music, travel.
        values_per_relation: 2 to 24 and at most half of the characters.
        read_only_share: share of (character, relation) facts that occur in text stories only, in [0, 1).
        lexicon: "small" (about 350 word types) or "large" (about 1 200).
        sentences: sentences of a story after its opening, 2 to 12.
        event_share, topic_share: shares of stories about an event or a topic; the others tell facts.
        neutral_share: chance that a sentence of a fact story is scenery instead of a fact.

    Raises:
        DataError: a value outside its range.
    """

    seed: int = 0
    characters: int = 60
    relations: int = 6
    values_per_relation: int = 6
    read_only_share: float = 0.5
    lexicon: str = "small"
    sentences: int = 3
    event_share: float = 0.1
    topic_share: float = 0.05
    neutral_share: float = 0.1

    def __post_init__(self) -> None:
        names = len(LEXICONS["small"].women) + len(LEXICONS["small"].men)
        _in_range("seed", self.seed, 0, 2**63 - 1)
        _in_range("characters", self.characters, 4, names)
        _in_range("relations", self.relations, 1, len(RELATIONS))
        _in_range("values_per_relation", self.values_per_relation, 2, min(24, self.characters // 2))
        _in_range("sentences", self.sentences, 2, 12)
        for name in ("event_share", "topic_share", "neutral_share"):
            _in_range(name, getattr(self, name), 0.0, 1.0)
        _in_range("event_share + topic_share", self.event_share + self.topic_share, 0.0, 1.0)
        if not 0 <= self.read_only_share < 1:
            raise DataError(f"storyworld: read_only_share = {self.read_only_share}, allowed 0 to below 1; change it")
        if self.lexicon not in LEXICONS:
            raise DataError(f"storyworld: lexicon = '{self.lexicon}', allowed {sorted(LEXICONS)}; choose one of them")


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise DataError(f"storyworld: {name} = {value}, allowed {low} to {high}; change it in the world's settings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Character:
    """A character; `pronoun` is "she" or "he"."""

    name: str
    pronoun: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class World:
    """The fact table and the sentences of a storyworld; made by `build_world`.

    Args:
        relations: relation names. values: the values of each relation.
        table: value index of each fact, (characters, relations).
        read_only: True where a fact occurs in text only, (characters, relations).
        scenery: correct sentences of each grammatical phenomenon that stories may use.
        minimal_pairs: held-out minimal pairs of each phenomenon; their sentences occur in no story.
    """

    config: WorldConfig
    lexicon: Lexicon
    characters: tuple[Character, ...]
    relations: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    table: Int[np.ndarray, "characters relations"]
    read_only: Bool[np.ndarray, "characters relations"]
    scenery: dict[str, tuple[str, ...]]
    minimal_pairs: dict[str, tuple[MinimalPair, ...]]

    def value(self, character: int, relation: int) -> str:
        """The true value. Example: world.value(0, 0) -> "harbor" """
        return self.values[relation][self.table[character, relation]]

    def told(self, character: int, channel: str) -> tuple[int, ...]:
        """Relations of a character that a channel ("speech" or "text") may tell."""
        assert channel in ("speech", "text"), channel
        return tuple(r for r in range(len(self.relations)) if channel == "text" or not self.read_only[character, r])

    def fact_sentences(self, character: int, relation: int) -> tuple[str, ...]:
        """All sentences that state one fact: first with the pronoun, in template order, then with the name."""
        value = self.value(character, relation)
        templates = RELATIONS[relation].templates
        named = [t for t in templates if "{s}" in t]
        return tuple(
            [self.about(character, t.replace("{v}", value)) for t in templates]
            + [self.about(character, t.replace("{v}", value), named=True) for t in named]
        )

    def about(self, character: int, template: str, *, named: bool = False) -> str:
        """Fill {s}, {o}, {p} with a character's pronouns (or its name as {s})."""
        who = self.characters[character]
        subject, object_, possessive = _PRONOUNS[who.pronoun]
        return template.format(s=who.name if named else subject, o=object_, p=possessive)

    def neutral(self, character: int) -> tuple[tuple[str, ...], ...]:
        """Groups of sentences that fit every story: one group per phenomenon, and the moods of a character thrice."""
        moods = tuple(self.about(character, mood) for mood in self.lexicon.moods)
        return (*self.scenery.values(), moods, moods, moods)

    def heads(self) -> tuple[str, ...]:
        """Beginnings of openings. Example: "on a sunny morning" """
        return tuple(f"on a {weather} {time}" for weather in self.lexicon.weathers for time in self.lexicon.times)

    def tails(self) -> tuple[str, ...]:
        """Ends of openings of fact and event stories. Example: "walks to the park." """
        return tuple(f"{walk} {way}." for walk in self.lexicon.walks for way in self.lexicon.ways)

    def topic_tail(self, topic: int) -> str:
        """End of the opening of a topic story. Example: "is at the market." """
        return f"is {self.lexicon.topics[topic].place}."

    def topic_sentences(self, character: int, topic: int) -> tuple[tuple[str, ...], ...]:
        """Sentences of a topic by action: each person of the topic or the character does it."""
        spec = self.lexicon.topics[topic]
        subjects = [f"the {person}" for person in spec.people] + [self.characters[character].pronoun]
        return tuple(tuple(f"{subject} {action}." for subject in subjects) for action in spec.actions)

    def event_sentences(self, character: int, event: int) -> tuple[str, str, str]:
        """Cause, effect and remedy of an event."""
        spec = self.lexicon.events[event]
        cause, effect, remedy = (self.about(character, part) for part in (spec.cause, spec.effect, spec.remedy))
        return cause, effect, remedy


def build_world(config: WorldConfig) -> World:
    """Draw characters and a fact table.

    Raises:
        DataError: so many facts are read-only that some value could not be heard with any character.
    """
    rng = np.random.default_rng([config.seed, 0])
    lexicon = LEXICONS[config.lexicon]
    characters = _draw_characters(config, lexicon, rng)
    names = [character.name for character in characters]
    values = tuple(
        tuple(str(v) for v in rng.permutation(relation.values or names)[: config.values_per_relation])
        for relation in RELATIONS[: config.relations]
    )
    table = np.stack([_draw_facts(names, pool, rng) for pool in values], axis=1)
    read_only = _draw_read_only(config, table, rng)
    for array in (table, read_only):
        array.setflags(write=False)
    held, scenery = grammar(lexicon)
    return World(
        config=config,
        lexicon=lexicon,
        characters=characters,
        relations=tuple(relation.name for relation in RELATIONS[: config.relations]),
        values=values,
        table=table,
        read_only=read_only,
        scenery=scenery,
        minimal_pairs=held,
    )


def opening_class(opening: str) -> str:
    """Split a story belongs to, by its first sentence: 8 of 10 "train", 1 "select", 1 "test".

    Stories of different splits cannot share a text, not even a first sentence, whatever the seed, world or channel.
    """
    digest = blake2b(opening.encode(), digest_size=4).digest()
    return ("select", "test")[rest] if (rest := int.from_bytes(digest, "little") % 10) < 2 else "train"


def world_words(world: World) -> list[str]:
    """Every word type of stories and items, sorted, lower case, without periods; non-words of "words" are not in it."""
    words: set[str] = set()
    for sentence in _sentences(world):
        words.update(sentence.replace(".", "").split())
    return sorted(words)


def _sentences(world: World) -> Iterator[str]:
    """Every sentence or part of an opening that a story or item can contain."""
    yield from world.heads()
    yield from world.tails()
    topics, events = range(len(world.lexicon.topics)), range(len(world.lexicon.events))
    yield from (world.topic_tail(topic) for topic in topics)
    for character, who in enumerate(world.characters):
        yield who.name
        for relation in range(len(world.relations)):
            yield from world.fact_sentences(character, relation)
    for group in world.scenery.values():
        yield from group
    for pairs in world.minimal_pairs.values():
        for pair in pairs:
            yield from (*pair.good, *pair.bad)
    for character in {who.pronoun: i for i, who in enumerate(world.characters)}.values():
        yield from (world.about(character, mood) for mood in world.lexicon.moods)
        for topic in topics:
            for action in world.topic_sentences(character, topic):
                yield from action
        for event in events:
            yield from world.event_sentences(character, event)


def _draw_characters(config: WorldConfig, lexicon: Lexicon, rng: np.random.Generator) -> tuple[Character, ...]:
    """Half women, half men, in random order."""
    women = config.characters // 2
    drawn = [Character(name=str(n), pronoun="she") for n in rng.permutation(lexicon.women)[:women]]
    drawn += [Character(name=str(n), pronoun="he") for n in rng.permutation(lexicon.men)[: config.characters - women]]
    return tuple(drawn[i] for i in rng.permutation(len(drawn)))


def _draw_facts(names: list[str], pool: tuple[str, ...], rng: np.random.Generator) -> Int[np.ndarray, " characters"]:
    """Value index of each character: all values equally often (within one), nobody is a friend of himself."""
    drawn = rng.permutation(len(names)) % len(pool)
    for i, name in enumerate(names):
        if pool[drawn[i]] == name:
            other = int(np.flatnonzero(drawn != drawn[i])[0])
            drawn[i], drawn[other] = drawn[other], drawn[i]
    return drawn.astype(np.int64)


def _draw_read_only(
    config: WorldConfig, table: Int[np.ndarray, "characters relations"], rng: np.random.Generator
) -> Bool[np.ndarray, "characters relations"]:
    """Choose the read-only facts: evenly over characters, every value still heard with some character."""
    characters, relations = table.shape
    for _ in range(_TRIES):
        bounds = np.round(np.arange(characters + 1) * config.read_only_share * relations).astype(int)
        read_only = np.zeros(table.shape, bool)
        for character, count in enumerate(rng.permutation(np.diff(bounds))):
            read_only[character, rng.permutation(relations)[:count]] = True
        if _hear_every_value(read_only, table, config.values_per_relation):
            return read_only
    raise DataError(
        f"storyworld: read_only_share = {config.read_only_share} leaves some of the {config.values_per_relation} "
        f"values of a relation unheard with {characters} characters; lower it or take more characters or fewer values"
    )


def _hear_every_value(
    read_only: Bool[np.ndarray, "characters relations"], table: Int[np.ndarray, "characters relations"], values: int
) -> bool:
    """Repair `read_only` in place by swaps within a character; return whether every value is heard now."""
    for relation in range(table.shape[1]):
        for value in range(values):
            holders = np.flatnonzero(table[:, relation] == value)
            if not read_only[holders, relation].all():
                continue
            swap = next(((c, r) for c in holders.tolist() for r in _spare(read_only, table, c)), None)
            if swap is None:
                return False
            read_only[swap[0], relation], read_only[swap] = False, True
    return True


def _spare(
    read_only: Bool[np.ndarray, "characters relations"], table: Int[np.ndarray, "characters relations"], character: int
) -> Iterator[int]:
    """Heard relations of a character whose value others are heard with too."""
    for relation in np.flatnonzero(~read_only[character]):
        same = table[:, relation] == table[character, relation]
        if (same & ~read_only[:, relation]).sum() > 1:
            yield int(relation)
