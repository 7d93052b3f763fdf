"""Grammatical minimal pairs, and the scenery sentences of stories made of the same patterns.

Enters: a `Lexicon`. Leaves: `MinimalPair`s by phenomenon, split into held-out ones (for the item set) and scenery
(the correct sentences of all others, told in stories).
The one decision worth knowing: a minimal pair is a pair of pairs whose wrong words swap roles ("the boy runs" / "the
boy run" with "the boys run" / "the boys runs"), so word frequency and length are right exactly once in each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from speechscale.corpus.lexicon import Lexicon

HELD_OUT_OF_16 = 4
"""Sixteenths of the minimal pairs kept out of all stories."""

_COUNTS = (
    ("there are two", "there is one"),
    ("we see three", "we see just one"),
    ("they hear four", "they hear one"),
    ("people follow two", "people follow just one"),
    ("we hear four", "we hear one"),
    ("they see three", "they see just one"),
)
_SHOWN = ("we see", "they hear", "people follow", "they follow", "we hear", "people see")
_REFLEXIVES = (("boy", "girl"), ("man", "woman"), ("king", "queen"))
_FRAMES = (
    ("listens to", "listens at", "laughs at", "laughs to"),
    ("thinks of", "thinks at", "looks at", "looks of"),
    ("agrees with", "agrees for", "cares for", "cares with"),
)
_HELPS = ("helps", "follows", "sees")
_CASES = (("he", "him"), ("she", "her"))
_ARTICLES = (("old", "young"), ("angry", "happy"), ("ugly", "brown"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MinimalPair:
    """Two right sentences and their wrong partners; over the four, each word is right as often as it is wrong."""

    phenomenon: str
    good: tuple[str, str]
    bad: tuple[str, str]


Sentences = tuple[str, str, str, str]  # good, bad, good, bad


def _agreement(lexicon: Lexicon) -> Iterator[Sentences]:
    for (one, many), (base, third, _), where in _scenes(lexicon):
        yield (
            f"the {one} {third} {where}.",
            f"the {one} {base} {where}.",
            f"the {many} {base} {where}.",
            f"the {many} {third} {where}.",
        )


def _attractor(lexicon: Lexicon) -> Iterator[Sentences]:
    """Agreement across a noun of the other number."""
    for i, (one, many) in enumerate(lexicon.nouns):
        other, others = lexicon.nouns[(i + 1) % len(lexicon.nouns)]
        for base, third, _ in lexicon.verbs:
            for link in ("behind", "near", "beside"):
                yield (
                    f"the {one} {link} the {others} {third}.",
                    f"the {one} {link} the {others} {base}.",
                    f"the {many} {link} the {other} {base}.",
                    f"the {many} {link} the {other} {third}.",
                )


def _determiner(lexicon: Lexicon) -> Iterator[Sentences]:
    for one, many in lexicon.nouns:
        for shown in _SHOWN:
            for where in lexicon.settings:
                yield (
                    f"{shown} this {one} {where}.",
                    f"{shown} this {many} {where}.",
                    f"{shown} these {many} {where}.",
                    f"{shown} these {one} {where}.",
                )


def _numeral(lexicon: Lexicon) -> Iterator[Sentences]:
    for one, many in lexicon.nouns:
        for several, single in _COUNTS:
            for where in lexicon.settings:
                yield (
                    f"{several} {many} {where}.",
                    f"{several} {one} {where}.",
                    f"{single} {one} {where}.",
                    f"{single} {many} {where}.",
                )


def _article(lexicon: Lexicon) -> Iterator[Sentences]:
    for one, _ in lexicon.nouns:
        for _, third, _ in lexicon.verbs:
            for vowel, consonant in _ARTICLES:
                yield (
                    f"an {vowel} {one} {third}.",
                    f"a {vowel} {one} {third}.",
                    f"a {consonant} {one} {third}.",
                    f"an {consonant} {one} {third}.",
                )


def _word_order(lexicon: Lexicon) -> Iterator[Sentences]:
    for (one, many), (base, third, _), where in _scenes(lexicon):
        for adjective in lexicon.adjectives[:2]:
            yield (
                f"the {adjective} {one} {third} {where}.",
                f"the {one} {adjective} {third} {where}.",
                f"the {adjective} {many} {base} {where}.",
                f"the {adjective} {base} {many} {where}.",
            )


def _tense(lexicon: Lexicon) -> Iterator[Sentences]:
    for (one, _), (_, third, past), where in _scenes(lexicon):
        yield (
            f"yesterday the {one} {past} {where}.",
            f"yesterday the {one} {third} {where}.",
            f"now the {one} {third} {where}.",
            f"now the {one} {past} {where}.",
        )


def _auxiliary(lexicon: Lexicon) -> Iterator[Sentences]:
    for (one, _), (base, third, _), where in _scenes(lexicon):
        yield (
            f"the {one} does not {base} {where}.",
            f"the {one} does not {third} {where}.",
            f"the {one} often {third} {where}.",
            f"the {one} often {base} {where}.",
        )


def _case(lexicon: Lexicon) -> Iterator[Sentences]:
    for one, _ in lexicon.nouns:
        for helps in _HELPS:
            for subject, object_ in _CASES:
                for where in lexicon.settings:
                    yield (
                        f"the {one} {helps} {object_} {where}.",
                        f"the {one} {helps} {subject} {where}.",
                        f"{subject} {helps} the {one} {where}.",
                        f"{object_} {helps} the {one} {where}.",
                    )


def _reflexive(lexicon: Lexicon) -> Iterator[Sentences]:
    for he, she in _REFLEXIVES:
        for adjective in lexicon.adjectives:
            for helps in _HELPS:
                for where in lexicon.settings:
                    yield (
                        f"the {adjective} {he} {helps} himself {where}.",
                        f"the {adjective} {he} {helps} herself {where}.",
                        f"the {adjective} {she} {helps} herself {where}.",
                        f"the {adjective} {she} {helps} himself {where}.",
                    )


def _preposition(lexicon: Lexicon) -> Iterator[Sentences]:
    for one, _ in lexicon.nouns:
        for other, _ in lexicon.nouns:
            for first, first_wrong, second, second_wrong in _FRAMES:
                if one != other:
                    yield (
                        f"the {one} {first} the {other}.",
                        f"the {one} {first_wrong} the {other}.",
                        f"the {one} {second} the {other}.",
                        f"the {one} {second_wrong} the {other}.",
                    )


PHENOMENA: dict[str, Callable[[Lexicon], Iterator[Sentences]]] = {
    "agreement": _agreement,
    "agreement_attractor": _attractor,
    "determiner_noun": _determiner,
    "numeral_plural": _numeral,
    "article": _article,
    "word_order": _word_order,
    "tense": _tense,
    "auxiliary": _auxiliary,
    "pronoun_case": _case,
    "reflexive": _reflexive,
    "preposition": _preposition,
}
"""What makes the sentences of each phenomenon."""


def grammar(lexicon: Lexicon) -> tuple[dict[str, tuple[MinimalPair, ...]], dict[str, tuple[str, ...]]]:
    """Split all minimal pairs into held-out pairs and scenery sentences, by phenomenon.

    A pair is held out by a hash of its sentences, so the division is the same in every world. No scenery sentence is
    a sentence of a held-out pair, right or wrong.
    """
    pairs = {name: list(_pairs(name, lexicon)) for name in PHENOMENA}
    held = {name: tuple(pair for pair in group if _is_held(pair)) for name, group in pairs.items()}
    hidden = {sentence for group in held.values() for pair in group for sentence in (*pair.good, *pair.bad)}
    scenery = {
        name: tuple(sentence for pair in group for sentence in pair.good if sentence not in hidden)
        for name, group in pairs.items()
    }
    return held, scenery


def _pairs(phenomenon: str, lexicon: Lexicon) -> Iterator[MinimalPair]:
    for good1, bad1, good2, bad2 in PHENOMENA[phenomenon](lexicon):
        yield MinimalPair(phenomenon=phenomenon, good=(good1, good2), bad=(bad1, bad2))


def _is_held(pair: MinimalPair) -> bool:
    digest = blake2b(" ".join(pair.good).encode(), digest_size=1).digest()
    return digest[0] % 16 < HELD_OUT_OF_16


def _scenes(lexicon: Lexicon) -> Iterator[tuple[tuple[str, str], tuple[str, str, str], str]]:
    """Every noun, verb and setting."""
    for noun in lexicon.nouns:
        for verb in lexicon.verbs:
            for setting in lexicon.settings:
                yield noun, verb, setting
