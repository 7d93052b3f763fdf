"""Item sets of a storyworld: forced choices in symmetric pairs.

Enters: a `World`, the name of a set, how many pairs, a seed. Leaves: `Item`s, two per pair.
The one decision worth knowing: the two items of a pair share their candidates (or the words of them) with roles
swapped, so anything that does not use the context, or the grammar, is right exactly once per pair.
Openings of prompts belong to the "test" split and minimal pairs are kept out of stories: items are held-out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, zip_longest

import numpy as np

from speechscale.corpus.lexicon import NOT_MADE_UP
from speechscale.corpus.world import World, opening_class, world_words
from speechscale.errors import DataError
from speechscale.records import Item

ITEM_SETS = ("story_cloze", "topic_cloze", "facts", "grammar", "words")
_SHORTEST_WORD = 6
_VOWELS = frozenset("aeiouy")

Choice = tuple[str, str, str]  # prompt, good, bad
Pair = tuple[Choice, Choice, str, str]  # two choices, tag, phenomenon
FactPair = tuple[int, int, int]  # relation, two characters


def items(world: World, set_name: str, pairs: int, *, seed: int) -> list[Item]:
    """Draw `pairs` different symmetric pairs of an item set: 2 * pairs items.

    "facts" has as many heard as read pairs (heard ones only when nothing is read-only), "story_cloze" as many fact as
    event endings, "grammar" as many of each phenomenon as there are. "words" is for speech only: non-words have no
    text tokens of their own.

    Raises:
        DataError: unknown set, no pairs or a negative seed, or more pairs than exist (the message gives the number).
    """
    if set_name not in ITEM_SETS or pairs < 1 or seed < 0:
        raise DataError(
            f"items: set_name = '{set_name}', pairs = {pairs}, seed = {seed}; allowed are {ITEM_SETS}, at least 1 pair "
            "and a seed of at least 0"
        )
    rng = np.random.default_rng([world.config.seed, seed, 1 + ITEM_SETS.index(set_name)])
    drawn = list(_DRAW[set_name](world, pairs, rng))
    assert len(drawn) == pairs, (set_name, len(drawn), pairs)
    return [
        Item(
            id=f"{set_name}-{seed}-{number:05d}-{side}",
            set=set_name,
            prompt=prompt,
            good=good,
            bad=bad,
            pair=f"{set_name}-{seed}-{number:05d}",
            tag=tag,
            phenomenon=phenomenon,
        )
        for number, (first, second, tag, phenomenon) in enumerate(drawn)
        for side, (prompt, good, bad) in zip("ab", (first, second), strict=True)
    ]


def _check(set_name: str, pairs: int, possible: int) -> None:
    if pairs > possible:
        raise DataError(
            f"items: '{set_name}' was asked for {pairs} pairs, this world has {possible}; ask for fewer or make the "
            "world larger (characters, relations, lexicon)"
        )


def _alternate(set_name: str, pairs: int, first: list, second: list) -> list:
    """Take pairs from two lists in turn, half each (the first gives one more of an odd number)."""
    _check(set_name, pairs, max(0, min(2 * len(first), 2 * len(second) + 1)))
    return [entry for both in zip_longest(first, second) for entry in both][:pairs]


def _swapped(contexts: tuple[str, str], endings: tuple[str, str], tag: str, phenomenon: str) -> Pair:
    """A symmetric pair: each context goes with its own ending, the other ending is wrong."""
    choices = tuple((contexts[i], endings[i], endings[1 - i]) for i in range(2))
    return choices[0], choices[1], tag, phenomenon


# --- facts


def fact_pairs(world: World, *, read_only: bool) -> list[FactPair]:
    """All (relation, character, character) with the same pronoun and other values, both facts heard or both read."""
    found = []
    people = world.characters
    for relation in range(len(world.relations)):
        for a, b in combinations(range(len(people)), 2):
            values = {world.value(a, relation), world.value(b, relation)}
            if (
                people[a].pronoun == people[b].pronoun
                and len(values) == 2
                and bool(world.read_only[a, relation]) == bool(world.read_only[b, relation]) == read_only
                and not values & {people[a].name, people[b].name}
            ):
                found.append((relation, a, b))
    return found


def _facts(world: World, pairs: int, rng: np.random.Generator) -> Iterator[Pair]:
    heard = _shuffled(fact_pairs(world, read_only=False), rng)
    if world.config.read_only_share > 0:
        chosen = _alternate("facts", pairs, heard, _shuffled(fact_pairs(world, read_only=True), rng))
    else:
        _check("facts", pairs, len(heard))
        chosen = heard[:pairs]
    for relation, a, b in chosen:
        tag = "read" if world.read_only[a, relation] else "heard"
        yield _swapped(
            _openings(world, a, b, rng), _fact_endings(world, relation, a, b, rng), tag, world.relations[relation]
        )


def _fact_endings(world: World, relation: int, a: int, b: int, rng: np.random.Generator) -> tuple[str, str]:
    """The two facts in the same words, without the name (the context has it)."""
    named = world.characters[a].name, world.characters[b].name
    sentences = zip(world.fact_sentences(a, relation), world.fact_sentences(b, relation), strict=True)
    nameless = [both for both in sentences if both[0].split()[0] != named[0]]
    return nameless[rng.integers(len(nameless))]


def _openings(world: World, a: int, b: int, rng: np.random.Generator) -> tuple[str, str]:
    """The same opening with either character, of the test split with both."""
    heads, tails = world.heads(), world.tails()
    for place in rng.permutation(len(heads) * len(tails)):
        head, tail = heads[place // len(tails)], tails[place % len(tails)]
        first, second = (f"{head} {world.characters[who].name} {tail}" for who in (a, b))
        if opening_class(first) == opening_class(second) == "test":
            return first, second
    raise AssertionError(f"no held-out opening for {world.characters[a].name} and {world.characters[b].name}")


# --- story cloze


def _story_cloze(world: World, pairs: int, rng: np.random.Generator) -> Iterator[Pair]:
    facts = _shuffled(fact_pairs(world, read_only=False), rng)
    events = combinations(range(len(world.lexicon.events)), 2)
    causes = _shuffled([(a, b, who) for a, b in events for who in range(len(world.characters))], rng)
    for number, (x, y, z) in enumerate(_alternate("story_cloze", pairs, facts, causes)):
        if number % 2 == 0:
            mood, scene = _mood(world, y, rng), _scene(world, rng)
            middle = f"{mood} {scene}" if rng.integers(2) else f"{scene} {mood}"
            first, second = (f"{opening} {middle}" for opening in _openings(world, y, z, rng))
            yield _swapped((first, second), _fact_endings(world, x, y, z, rng), "", world.relations[x])
        else:
            opening, scene = _openings(world, z, z, rng)[0], _scene(world, rng)
            parts = [world.event_sentences(z, event) for event in (x, y)]
            cause_first = rng.integers(2)
            first, second = (
                f"{opening} {cause} {scene}" if cause_first else f"{opening} {scene} {cause}" for cause, _, _ in parts
            )
            yield _swapped((first, second), (parts[0][1], parts[1][1]), "", "event")


def _mood(world: World, who: int, rng: np.random.Generator) -> str:
    moods = world.lexicon.moods
    return world.about(who, moods[rng.integers(len(moods))])


def _scene(world: World, rng: np.random.Generator) -> str:
    groups = tuple(world.scenery.values())
    group = groups[rng.integers(len(groups))]
    return group[rng.integers(len(group))]


# --- topic cloze


def _topic_cloze(world: World, pairs: int, rng: np.random.Generator) -> Iterator[Pair]:
    couples = list(combinations(range(len(world.lexicon.topics)), 2))
    actions = len(world.lexicon.topics[0].actions)
    subjects = len(world.lexicon.topics[0].people) + 1
    endings = actions * subjects
    total = len(couples) * endings**2
    _check("topic_cloze", pairs, total)
    for code in rng.choice(total, pairs, replace=False):
        topics = couples[code // endings**2]
        chosen = (code // endings % endings, code % endings)
        opening = _topic_openings(world, topics, rng)
        who, told = opening[0], []
        for side in range(2):
            context, ending = _topic_body(world, who, topics[side], divmod(int(chosen[side]), subjects), rng)
            told.append((f"{opening[1][side]} {context}", ending))
        names = "-".join(world.lexicon.topics[topic].name for topic in topics)
        yield _swapped((told[0][0], told[1][0]), (told[0][1], told[1][1]), "", names)


def _topic_openings(world: World, topics: tuple[int, int], rng: np.random.Generator) -> tuple[int, tuple[str, str]]:
    """A character and an opening of the test split for each topic."""
    heads = world.heads()
    for who in rng.permutation(len(world.characters)):
        found = []
        for topic in topics:
            ends = f"{world.characters[who].name} {world.topic_tail(topic)}"
            openings = (f"{heads[i]} {ends}" for i in rng.permutation(len(heads)))
            found += [opening for opening in openings if opening_class(opening) == "test"][:1]
        if len(found) == 2:
            return int(who), (found[0], found[1])
    raise AssertionError(f"no held-out openings for topics {topics}")


def _topic_body(
    world: World, who: int, topic: int, ending: tuple[int, int], rng: np.random.Generator
) -> tuple[str, str]:
    """Two sentences of the topic, and the ending given as (action, subject)."""
    groups = world.topic_sentences(who, topic)
    others = rng.permutation([i for i in range(len(groups)) if i != ending[0]])[:2]
    return " ".join(groups[i][rng.integers(len(groups[i]))] for i in others), groups[ending[0]][ending[1]]


# --- grammar and words


def _grammar(world: World, pairs: int, rng: np.random.Generator) -> Iterator[Pair]:
    groups = [_shuffled(list(group), rng) for group in world.minimal_pairs.values()]
    _check("grammar", pairs, sum(len(group) for group in groups))
    rounds = [pair for turn in zip_longest(*groups) for pair in turn if pair is not None]
    for pair in rounds[:pairs]:
        first, second = (("", good, bad) for good, bad in zip(pair.good, pair.bad, strict=True))
        yield first, second, "", pair.phenomenon


def non_words(words: list[str], *, avoid: frozenset[str] = frozenset()) -> Iterator[tuple[str, str, str, str]]:
    """Word pairs and the non-words that swap their ends. Example: "harbor", "market" -> "harket", "marbor"

    Both words are equally long and cut at the same letter (vowels on both sides, a consonant right after the cut), so
    all four strings have the same length and words and non-words have the same letters. No non-word comes twice.
    """
    known = set(avoid.union(words))
    long = [word for word in words if len(word) >= _SHORTEST_WORD]
    cuts = {word: {i for i in range(2, len(word) - 1) if _cuts_syllables(word, i)} for word in long}
    for a, b in combinations(long, 2):
        if len(a) != len(b):
            continue
        for cut in sorted(cuts[a] & cuts[b]):
            made = a[:cut] + b[cut:], b[:cut] + a[cut:]
            if not known & set(made):
                known |= set(made)
                yield a, b, *made
                break


def _cuts_syllables(word: str, cut: int) -> bool:
    return bool(_VOWELS & set(word[:cut])) and word[cut] not in _VOWELS and word[cut + 1] in _VOWELS


def _non_words(world: World, pairs: int, rng: np.random.Generator) -> Iterator[Pair]:
    names = {who.name for who in world.characters}
    values = {value for relation in world.lexicon.relations for value in relation.values}
    words = [word for word in world_words(world) if word not in names]
    found = list(non_words(words, avoid=frozenset(names | values | NOT_MADE_UP)))
    _check("words", pairs, len(found))
    for place in rng.permutation(len(found))[:pairs]:
        a, b, made_a, made_b = found[place]
        yield ("", a, made_a), ("", b, made_b), "", "non-word"


def _shuffled(entries: list, rng: np.random.Generator) -> list:
    return [entries[i] for i in rng.permutation(len(entries))]


_DRAW: dict[str, Callable[[World, int, np.random.Generator], Iterator[Pair]]] = {
    "story_cloze": _story_cloze,
    "topic_cloze": _topic_cloze,
    "facts": _facts,
    "grammar": _grammar,
    "words": _non_words,
}
