"""Catches rules that drop prose, keep rubbish, or give another measure than the text has."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechscale.corpus.text_quality import (
    QualityRules,
    duplicate_ngram_chars,
    gopher_rules,
    normalized_words,
    quality_rules,
    sims_rules,
    top_ngram_chars,
)
from speechscale.errors import DataError

PROSE = """On a cold morning the old baker opened his small shop and found that all of the bread was gone. He looked
behind the oven, under the table and in every basket, but there was nothing to be seen. Then he heard a quiet noise from
the cellar, where three mice had made a home with crumbs, straw and a torn flour bag. The baker laughed, gave them a
warm roll, and baked twice as much that day. Since then people say his loaves taste better than those of other towns."""


def test_prose_passes_all_rules() -> None:
    assert list(sims_rules().problems(PROSE)) == []
    assert list(gopher_rules().problems(PROSE)) == []
    assert QualityRules().problem("") == ""


@pytest.mark.parametrize(
    ("limits", "text", "wanted"),
    [
        ({"min_words": 50}, "a b c", "3 words, at least 50"),
        ({"max_words": 2}, "a b c", "3 words, at most 2"),
        ({"min_mean_word_length": 3}, "ab abc", "mean word length 2.5, at least 3"),
        ({"max_mean_word_length": 10}, "a" * 12 + " " + "b" * 10, "mean word length 11, at most 10"),
        ({"max_symbol_word_ratio": 0.1}, "#a b... c\u2026 d", "0.75 symbols per word, at most 0.1"),
        ({"max_bullet_lines": 0.4}, "- a\n\u2022 b\n\n  * c\nd", "0.75 of the lines begin with a bullet, at most 0.4"),
        ({"max_ellipsis_lines": 0.3}, "a...\nb\u2026\nc\nd", "0.5 of the lines end in an ellipsis, at most 0.3"),
        ({"min_alphabetic_words": 0.8}, "a b, 1 ++", "0.5 of the words have a letter, at least 0.8"),
        ({"min_stop_words": 2}, "The the cat", "1 different stop words, at least 2"),
        ({"max_duplicate_lines": 0.3}, "a\nbb\na\na", "0.5 of the lines came before, at most 0.3"),
        (
            {"max_duplicate_line_chars": 0.2},
            "a\nbb\na",
            "0.25 of the characters are lines that came before, at most 0.2",
        ),
        ({"max_duplicate_paragraphs": 0.3}, "a\n\nb\n\na", "0.3333 of the paragraphs came before, at most 0.3"),
        (
            {"max_duplicate_paragraph_chars": 0.2},
            "a\n\nbb\n\na",
            "0.25 of the characters are paragraphs that came before, at most 0.2",
        ),
        (
            {"max_top_ngram_chars": ((2, 0.2),)},
            "Ab, cd x ab cd y",
            "the top 2-gram has 0.8 of the characters, at most 0.2",
        ),
        (
            {"max_duplicate_ngram_chars": ((2, 0.3),)},
            "ab cd x ab cd y",
            "0.4 of the characters are in repeated 2-grams, at most 0.3",
        ),
    ],
)
def test_each_rule_measures_and_says_so(limits: dict[str, object], text: str, wanted: str) -> None:
    rules = QualityRules(**limits)  # type: ignore[arg-type]
    assert rules.problem(text) == wanted
    reason, remedy = rules.fault(text)
    ((name, limit),) = limits.items()
    number = limit[0][1] if isinstance(limit, tuple) else limit
    named = f"{name} ({limit[0][0]})" if isinstance(limit, tuple) else name
    assert (reason, remedy) == (wanted, f"leave it out, or change the limit {named} = {number} of QualityRules")
    assert rules.fault(PROSE) == ("", "") or limits == {"max_words": 2}
    assert rules.problem(PROSE) == "" or limits in ({"max_words": 2},)


def test_every_rule_is_tried() -> None:
    tried = test_each_rule_measures_and_says_so.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {name for limits, *_ in tried for name in limits} == {entry.name for entry in fields(QualityRules)}


def test_limits_are_inclusive_and_sims_keeps_its_own() -> None:
    words = " ".join(["some"] * 25 + ["other"] * 25)
    assert QualityRules(min_words=50, max_words=50).problem(words) == ""
    assert QualityRules(max_symbol_word_ratio=0.5).problem("#a b") == ""
    assert "49 words, at least 50" in list(sims_rules().problems(words.rsplit(" ", 1)[0]))
    assert "the top 2-gram" in sims_rules().problem(words)
    assert sims_rules().problem("buy now " * 40) == "the top 2-gram has 1 of the characters, at most 0.2"
    assert gopher_rules().problem("- item of the list that goes on\n" * 10).startswith("1 of the lines begin")
    with pytest.raises(DataError, match="quality 'best': allowed: none, sims, gopher"):
        quality_rules("best")


def slow_top(words: list[str], n: int) -> int:
    grams = [tuple(words[k : k + n]) for k in range(len(words) - n + 1)]
    most = max(map(grams.count, grams), default=0)
    return most * max(len("".join(gram)) for gram in grams if grams.count(gram) == most) if most > 1 else 0


@given(st.lists(st.sampled_from(["a", "bb", "ccc"]), max_size=30), st.integers(1, 4), st.sampled_from([0.1, 0.5, 1.0]))
def test_ngrams_by_definition_and_the_shortcut_never_lies(words: list[str], n: int, limit: float) -> None:
    assert top_ngram_chars(words, n) == slow_top(words, n)
    total = max(len("".join(words)), 1)
    covers = bool(QualityRules(max_top_ngram_chars=((n, limit),)).problem(" ".join(words)))
    assert covers == (slow_top(words, n) / total > limit)
    assert 0 <= duplicate_ngram_chars(words, n) <= len("".join(words))


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert normalized_words("The CAT, (the cat)! \u00c4rger") == ["the", "cat", "the", "cat", "\u00e4rger"]
    assert normalized_words("\ud800 x") == ["x"]
