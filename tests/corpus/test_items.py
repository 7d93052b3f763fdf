"""Catches: item sets that frequency, length or a context-free n-gram solves, wrong answers, training material."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from math import log, sqrt

import pytest

from speechscale.corpus.grammar import PHENOMENA
from speechscale.corpus.items import ITEM_SETS, fact_pairs, items
from speechscale.corpus.lexicon import LEXICONS
from speechscale.corpus.stories import split_sentences, stories, story_text
from speechscale.corpus.world import World, WorldConfig, build_world, opening_class, world_words
from speechscale.errors import DataError
from speechscale.records import Item

PAIRS = 150
Scorer = Callable[[str, str], float]  # prompt, candidate -> score


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(WorldConfig())


@pytest.fixture(scope="module")
def texts(world: World) -> list[str]:
    return [story_text(story) for story in stories(world, 10_000, split="train", channel="text", seed=0)]


@pytest.fixture(scope="module")
def sets(world: World) -> dict[str, list[Item]]:
    return {name: items(world, name, PAIRS, seed=0) for name in ITEM_SETS}


def _accuracy(chosen: list[Item], scorer: Scorer) -> tuple[float, float]:
    """Accuracy (ties count half) and its standard error, clustered on pairs."""
    pairs: dict[str, list[float]] = defaultdict(list)
    for item in chosen:
        good, bad = scorer(item.prompt, item.good), scorer(item.prompt, item.bad)
        pairs[item.pair].append(0.5 if abs(good - bad) < 1e-9 else float(good > bad))
    means = [sum(right) / len(right) for right in pairs.values()]
    mean = sum(means) / len(means)
    return mean, sqrt(sum((m - mean) ** 2 for m in means) / (len(means) - 1) / len(means))


def _at_chance(chosen: list[Item], scorer: Scorer) -> bool:
    mean, error = _accuracy(chosen, scorer)
    return abs(mean - 0.5) <= 2 * error + 1e-9


def _unigram(texts: list[str]) -> Scorer:
    counts = Counter(word for text in texts for word in text.split())
    total = counts.total() + len(counts) + 1
    return lambda _, candidate: sum(log((counts[word] + 1) / total) for word in candidate.split())


def _bigram(texts: list[str], *, context: bool = False) -> Scorer:
    """Add-one bigram model of the training sentences; without context each ending starts a sentence."""
    pairs: Counter[tuple[str, str]] = Counter()
    for text in texts:
        for sentence in split_sentences(text):
            words = ["<s>", *sentence.split()]
            pairs.update(pairwise(words))
    firsts: Counter[str] = Counter()
    for (first, _), count in pairs.items():
        firsts[first] += count
    size = len({second for _, second in pairs})

    def score(_: str, candidate: str) -> float:
        words = ["<s>", *candidate.split()]
        logs = [log((pairs[pair] + 1) / (firsts[pair[0]] + size)) for pair in pairwise(words)]
        return sum(logs)

    return score


def _letters(world: World) -> Scorer:
    counts = Counter(letter for word in world_words(world) for letter in word)
    return lambda _, candidate: sum(log(counts[letter] / counts.total()) for letter in candidate)


def _per_word(scorer: Scorer) -> Scorer:
    return lambda prompt, candidate: scorer(prompt, candidate) / len(candidate.split())


def _per_letter(scorer: Scorer) -> Scorer:
    return lambda prompt, candidate: scorer(prompt, candidate) / len(candidate)


def _characters(_: str, candidate: str) -> float:
    return float(len(candidate))


def _word_count(_: str, candidate: str) -> float:
    return float(len(candidate.split()))


@pytest.mark.parametrize("name", ["story_cloze", "topic_cloze", "facts", "grammar"])
def test_baselines_are_at_chance(sets: dict[str, list[Item]], texts: list[str], name: str) -> None:
    unigram = _unigram(texts)
    scorers = [unigram, _per_word(unigram), _characters, _word_count]
    if sets[name][0].prompt:
        scorers += [_bigram(texts), _per_word(_bigram(texts))]
    groups = defaultdict(list)
    for item in sets[name]:
        groups["all"].append(item)
        groups[f"tag {item.tag}"].append(item)
        groups[f"phenomenon {item.phenomenon}"].append(item)
    for chosen in groups.values():
        if len(chosen) > 2:
            for scorer in scorers:
                assert _at_chance(chosen, scorer)
                assert _at_chance(chosen, lambda prompt, candidate, s=scorer: -s(prompt, candidate))


def test_word_baselines_are_at_chance(sets: dict[str, list[Item]], world: World) -> None:
    letters = _letters(world)
    for scorer in (letters, _per_letter(letters), _characters):
        assert _at_chance(sets["words"], scorer)


def test_the_chance_check_can_fail(sets: dict[str, list[Item]], texts: list[str]) -> None:
    """Endings that are easier than their rivals, or pairs torn apart, must be noticed by the same check."""
    unigram, bigram = _unigram(texts), _bigram(texts)
    halves = [item for item in sets["grammar"] if unigram("", item.good) > unigram("", item.bad)]
    assert len(halves) > PAIRS / 2
    assert not _at_chance(halves, unigram)
    rare = [replace(item, bad=item.bad.replace(".", " garchen.")) for item in sets["facts"]]
    for scorer in (unigram, bigram, _characters, _word_count):
        assert not _at_chance(rare, scorer)
    torn = [item for item in sets["topic_cloze"] if len(item.good) >= len(item.bad)]
    assert not _at_chance(torn, _characters)
    asked_grammar = _accuracy(sets["grammar"], bigram)
    assert asked_grammar[0] > 0.7, "word order and agreement are learnable from neighbors, so this set is not at chance"


def _sides(chosen: list[Item]) -> tuple[list[Item], list[Item]]:
    return chosen[::2], chosen[1::2]


def test_someone_who_knows_the_facts_is_always_right(sets: dict[str, list[Item]], world: World) -> None:
    names = {character.name: i for i, character in enumerate(world.characters)}

    def oracle(prompt: str, candidate: str) -> float:
        who = next(names[word] for word in prompt.replace(".", "").split() if word in names)
        words = candidate.strip(".").split()
        return float(any(world.value(who, r) in words for r in range(len(world.relations))))

    assert _accuracy(sets["facts"], oracle) == (1.0, 0.0)
    for item in sets["facts"]:
        who = next(names[word] for word in item.prompt.replace(".", "").split() if word in names)
        relation = world.relations.index(item.phenomenon)
        assert bool(world.read_only[who, relation]) == (item.tag == "read")
    told = [item for item in sets["story_cloze"] if item.phenomenon != "event"]
    assert len(told) == PAIRS
    assert _accuracy(told, oracle) == (1.0, 0.0)


def test_heard_and_read_pairs_are_half_each(world: World, sets: dict[str, list[Item]]) -> None:
    assert Counter(item.tag for item in sets["facts"]) == {"heard": PAIRS, "read": PAIRS}
    heard = items(build_world(WorldConfig(read_only_share=0)), "facts", 40, seed=0)
    assert {item.tag for item in heard} == {"heard"}


def test_someone_who_knows_causes_and_topics_is_always_right(sets: dict[str, list[Item]], world: World) -> None:
    effects = defaultdict(set)
    topic_of = {}
    for who in range(len(world.characters)):
        for event in range(len(world.lexicon.events)):
            cause, effect, _ = world.event_sentences(who, event)
            effects[cause].add(effect)
        for topic in range(len(world.lexicon.topics)):
            for action in world.topic_sentences(who, topic):
                topic_of.update((sentence, topic) for sentence in action)

    def follows(prompt: str, candidate: str) -> float:
        return float(any(candidate in effects[sentence] for sentence in split_sentences(prompt)))

    def same_topic(prompt: str, candidate: str) -> float:
        sentences = split_sentences(prompt)
        assert candidate not in sentences
        return float(all(topic_of[sentence] == topic_of[candidate] for sentence in sentences[1:]))

    events = [item for item in sets["story_cloze"] if item.phenomenon == "event"]
    assert len(events) == PAIRS
    assert _accuracy(events, follows) == (1.0, 0.0)
    assert _accuracy(sets["topic_cloze"], same_topic) == (1.0, 0.0)


@pytest.mark.parametrize("name", ["story_cloze", "topic_cloze", "facts"])
def test_pairs_swap_endings_between_contexts(sets: dict[str, list[Item]], name: str) -> None:
    for a, b in zip(*_sides(sets[name]), strict=True):
        assert (a.pair, a.good, a.bad) == (b.pair, b.bad, b.good)
        assert a.prompt != b.prompt
        words = [item.prompt.replace(".", " .").split() for item in (a, b)]
        if name != "topic_cloze" and a.phenomenon != "event":
            assert len(words[0]) == len(words[1])
            assert sum(x != y for x, y in zip(*words, strict=True)) == 1
        if name == "story_cloze":
            different = [x != y for x, y in zip(split_sentences(a.prompt), split_sentences(b.prompt), strict=True)]
            assert sorted(different) == [False, False, True]


def test_prompts_are_held_out(sets: dict[str, list[Item]], texts: list[str]) -> None:
    for name in ("story_cloze", "topic_cloze", "facts"):
        openings = {split_sentences(item.prompt)[0] for item in sets[name]}
        assert {opening_class(opening) for opening in openings} == {"test"}
        assert not openings & {split_sentences(text)[0] for text in texts}


@pytest.mark.parametrize("lexicon", ["small", "large"])
def test_minimal_pairs_are_in_no_story_but_their_words_are(lexicon: str) -> None:
    world = build_world(WorldConfig(lexicon=lexicon, neutral_share=1.0, event_share=0, topic_share=0))
    pairs = [pair for group in world.minimal_pairs.values() for pair in group]
    sentences = {sentence for pair in pairs for sentence in (*pair.good, *pair.bad)}
    told = [s for story in stories(world, 10_000, split="train", channel="speech", seed=0) for s in story.segments]
    assert not sentences & set(told)
    used = {word.strip(".") for sentence in told for word in sentence.split()}
    assert {word.strip(".") for sentence in sentences for word in sentence.split()} <= used
    assert len(world.minimal_pairs) == len(PHENOMENA) >= 8
    assert min(len(group) for group in world.minimal_pairs.values()) >= 20
    good = {sentence for group in world.scenery.values() for sentence in group}
    assert not good & {sentence for pair in pairs for sentence in pair.bad}


def test_minimal_pairs_balance_every_word(world: World) -> None:
    for group in world.minimal_pairs.values():
        for pair in group:
            good, bad = (Counter(" ".join(side).replace(".", "").split()) for side in (pair.good, pair.bad))
            assert good == bad
            assert [len(s.split()) for s in pair.good] == [len(s.split()) for s in pair.bad]


def test_grammar_items_cover_all_phenomena_evenly(sets: dict[str, list[Item]]) -> None:
    counts = Counter(item.phenomenon for item in sets["grammar"])
    assert set(counts) == set(PHENOMENA)
    assert max(counts.values()) - min(counts.values()) <= 2


def test_non_words_are_made_of_words(sets: dict[str, list[Item]], world: World) -> None:
    words = set(world_words(world))
    for a, b in zip(*_sides(sets["words"]), strict=True):
        assert {a.good, b.good} <= words
        assert not {a.bad, b.bad} & words
        assert sorted(a.good + b.good) == sorted(a.bad + b.bad)
        assert len({len(word) for word in (a.good, b.good, a.bad, b.bad)}) == 1
        assert a.prompt == b.prompt == ""


@pytest.mark.parametrize("name", ITEM_SETS)
def test_items_are_deterministic_unique_and_in_the_vocabulary(
    sets: dict[str, list[Item]], world: World, name: str
) -> None:
    chosen = sets[name]
    assert len(chosen) == 2 * PAIRS
    assert chosen == items(build_world(WorldConfig()), name, PAIRS, seed=0)
    assert chosen != items(world, name, PAIRS, seed=1)
    assert (len({item.id for item in chosen}), len({item.pair for item in chosen})) == (2 * PAIRS, PAIRS)
    assert len({(item.prompt, item.good, item.bad) for item in chosen}) == 2 * PAIRS
    assert {(item.speaker, item.set) for item in chosen} == {("", name)}
    words = set(world_words(world))
    for item in chosen:
        told = [item.prompt, item.good] + ([item.bad] if name != "words" else [])
        assert {word.strip(".") for text in told for word in text.split()} <= words


@pytest.mark.parametrize("name", ITEM_SETS)
def test_all_possible_pairs_can_be_had_and_not_one_more(name: str) -> None:
    world = build_world(WorldConfig(characters=12, relations=3, values_per_relation=3))
    with pytest.raises(DataError, match="this world has") as caught:
        items(world, name, 10**7, seed=0)
    possible = int(str(caught.value).split("this world has ")[1].split(";")[0])
    chosen = items(world, name, possible, seed=0)
    assert len(chosen) == 2 * possible > 0
    with pytest.raises(DataError, match=str(possible)):
        items(world, name, possible + 1, seed=0)


def test_fact_pairs_give_no_answer_away(world: World) -> None:
    for read_only in (False, True):
        for relation, a, b in fact_pairs(world, read_only=read_only):
            names = {world.characters[who].name for who in (a, b)}
            assert world.characters[a].pronoun == world.characters[b].pronoun
            assert not names & {world.value(a, relation), world.value(b, relation)}


def test_every_two_characters_have_a_held_out_opening() -> None:
    world = build_world(WorldConfig(characters=96))
    parts = [(head, tail) for head in world.heads() for tail in world.tails()]
    held = {
        who.name: {(h, t) for h, t in parts if opening_class(f"{h} {who.name} {t}") == "test"}
        for who in world.characters
    }
    assert len(held) == len(set(LEXICONS["small"].women + LEXICONS["small"].men))
    assert all(held[a] & held[b] for a, b in combinations(held, 2))


@pytest.mark.parametrize("wrong", [{"set_name": "riddles"}, {"pairs": 0}, {"seed": -1}])
def test_unknown_sets_are_refused(world: World, wrong: dict) -> None:
    asked = {"set_name": "facts", "pairs": 2, "seed": 0, **wrong}
    with pytest.raises(DataError, match="allowed"):
        items(world, asked["set_name"], asked["pairs"], seed=asked["seed"])
