"""Which documents are prose: the rules of Gopher, and the part of them that SIMS used.

Enters: a text. Leaves: "" or what is wrong with it, with the measured value, the limit and its name. The one decision
worth knowing: each rule is one function behind one limit of `QualityRules`, None switches it off, and the cheap ones
come first, so that most documents cost a few passes of string methods and no per-word Python.

Source: Rae et al. 2021 (Gopher, arXiv 2112.11446) appendix A1, table A1; Weber et al. 2024 (RedPajama, arXiv
2411.12372) for how the measures are taken; Maimon et al. 2025 (SIMS, arXiv 2504.02398) for the limits that they used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from speechscale.errors import DataError

BULLETS = ("\u2022", "\u2023", "\u25b6", "\u25c0", "\u25e6", "\u25a0", "\u25a1", "\u25aa", "\u25ab", "\u2013", "-", "*")
ELLIPSES = ("...", "\u2026")
STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
Broken = tuple[str, str]
"""(what is wrong, the limit as 'name = value')"""
_PUNCTUATION = b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRules:
    """Limits of a document; None switches a rule off. Words are what blanks separate.

    Args:
        min_words, max_words: words of the document.
        min_mean_word_length, max_mean_word_length: characters per word.
        max_symbol_word_ratio: of "#" and of ellipses, together, per word.
        max_bullet_lines, max_ellipsis_lines: share of the lines that begin with a bullet, end in an ellipsis.
        min_alphabetic_words: share of the words that have a letter. min_stop_words: different ones of STOP_WORDS.
        max_duplicate_lines, max_duplicate_paragraphs: share of them that came before.
        max_duplicate_line_chars, max_duplicate_paragraph_chars: the same, share of the characters.
        max_top_ngram_chars: (n, share of the characters of all words that the most frequent n-gram covers).
        max_duplicate_ngram_chars: (n, share of the characters of all words that lie in an n-gram that came before).
    """

    min_words: int | None = None
    max_words: int | None = None
    min_mean_word_length: float | None = None
    max_mean_word_length: float | None = None
    max_symbol_word_ratio: float | None = None
    max_bullet_lines: float | None = None
    max_ellipsis_lines: float | None = None
    min_alphabetic_words: float | None = None
    min_stop_words: int | None = None
    max_duplicate_lines: float | None = None
    max_duplicate_paragraphs: float | None = None
    max_duplicate_line_chars: float | None = None
    max_duplicate_paragraph_chars: float | None = None
    max_top_ngram_chars: tuple[tuple[int, float], ...] = ()
    max_duplicate_ngram_chars: tuple[tuple[int, float], ...] = ()

    def problem(self, text: str) -> str:
        """What is wrong with a text, by the first rule that it breaks. Example: '12 words, at least 50'"""
        return next(self.problems(text), "")

    def problems(self, text: str) -> Iterator[str]:
        """What is wrong with a text, by every rule that it breaks."""
        return (problem for problem, _ in self._broken(text))

    def fault(self, text: str) -> tuple[str, str]:
        """(what is wrong, remedy) by the first rule that a text breaks; the remedy names the limit. Both "" if fine.

        Example: ('12 words, at least 50', 'leave it out, or change the limit min_words = 50 of QualityRules')
        """
        for problem, limit in self._broken(text):
            return problem, f"leave it out, or change the limit {limit} of QualityRules"
        return "", ""

    def _broken(self, text: str) -> Iterator[Broken]:
        words = text.split()
        yield from self._words(text, words)
        if self.max_bullet_lines is not None or self.max_ellipsis_lines is not None:
            yield from self._lines([line for line in map(str.strip, text.splitlines()) if line])
        yield from self._repetition(text)
        if self.max_top_ngram_chars or self.max_duplicate_ngram_chars:
            yield from self._ngrams(normalized_words(text))

    def _words(self, text: str, words: Sequence[str]) -> Iterator[Broken]:
        count = len(words)
        yield from _within(count, "{:,} words", "words", self.min_words, self.max_words)
        mean = len("".join(words)) / max(count, 1)
        limits = self.min_mean_word_length, self.max_mean_word_length
        yield from _within(mean, "mean word length {:.4g}", "mean_word_length", *limits)
        if self.max_symbol_word_ratio is not None:
            symbols = text.count("#") + sum(map(text.count, ELLIPSES))
            ratio, limit = symbols / max(count, 1), self.max_symbol_word_ratio
            yield from _within(ratio, "{:.4g} symbols per word", "symbol_word_ratio", None, limit)
        if self.min_alphabetic_words is not None:
            alphabetic = sum(map(str.isalpha, words))
            if alphabetic < self.min_alphabetic_words * count:  # only then look at "don't" and "end."
                alphabetic = sum(word.isalpha() or any(map(str.isalpha, word)) for word in words)
            share = alphabetic / max(count, 1)
            limit = self.min_alphabetic_words
            yield from _within(share, "{:.4g} of the words have a letter", "alphabetic_words", limit, None)
        if self.min_stop_words is not None:
            found = len(STOP_WORDS.intersection(map(str.lower, words)))
            yield from _within(found, "{} different stop words", "stop_words", self.min_stop_words, None)

    def _lines(self, lines: Sequence[str]) -> Iterator[Broken]:
        for name, limit, hits, what in (
            (
                "bullet_lines",
                self.max_bullet_lines,
                (line.startswith(BULLETS) for line in lines),
                "begin with a bullet",
            ),
            (
                "ellipsis_lines",
                self.max_ellipsis_lines,
                (line.endswith(ELLIPSES) for line in lines),
                "end in an ellipsis",
            ),
        ):
            if limit is not None:
                yield from _within(sum(hits) / max(len(lines), 1), "{:.4g} of the lines " + what, name, None, limit)

    def _repetition(self, text: str) -> Iterator[Broken]:
        for what, separator, share_limit, chars_limit in (
            ("lines", "\n", self.max_duplicate_lines, self.max_duplicate_line_chars),
            ("paragraphs", "\n\n", self.max_duplicate_paragraphs, self.max_duplicate_paragraph_chars),
        ):
            if share_limit is None and chars_limit is None:
                continue
            pieces = [piece for piece in map(str.strip, text.split(separator)) if piece]
            distinct = set(pieces)
            share = 1 - len(distinct) / max(len(pieces), 1)
            total = len("".join(pieces))
            chars = (total - len("".join(distinct))) / max(total, 1)
            name, said = f"duplicate_{what[:-1]}", "{:.4g} of the characters are " + what + " that came before"
            yield from _within(share, "{:.4g} of the " + what + " came before", f"{name}s", None, share_limit)
            yield from _within(chars, said, f"{name}_chars", None, chars_limit)

    def _ngrams(self, words: Sequence[str]) -> Iterator[Broken]:
        total = len("".join(words))
        most = max((count * len(word) for word, count in Counter(words).items()), default=0)
        for n, limit in self.max_top_ngram_chars:
            if n * most > limit * total:  # no n-gram covers more than n times what its words cover at most
                share, what = (
                    top_ngram_chars(words, n) / max(total, 1),
                    f"the top {n}-gram has {{:.4g}} of the characters",
                )
                yield from _within(share, what, f"top_ngram_chars ({n})", None, limit)
        for n, limit in self.max_duplicate_ngram_chars:
            share, what = (
                duplicate_ngram_chars(words, n) / max(total, 1),
                f"of the characters are in repeated {n}-grams",
            )
            yield from _within(share, "{:.4g} " + what, f"duplicate_ngram_chars ({n})", None, limit)


def normalized_words(text: str) -> list[str]:
    """Words in lower case, without ASCII punctuation."""
    plain = text.lower().encode("utf-8", "replace").translate(None, _PUNCTUATION)
    return plain.decode().split()


def top_ngram_chars(words: Sequence[str], n: int) -> int:
    """Characters that all places of the most frequent n-gram have; 0 if none comes twice. Ties: the longest."""
    counts = Counter(_ngrams(words, n))
    most = max(counts.values(), default=0)
    return 0 if most < 2 else most * max(sum(map(len, gram)) for gram, count in counts.items() if count == most)


def duplicate_ngram_chars(words: Sequence[str], n: int) -> int:
    """Characters of the words that lie in an n-gram that came before; each word counts once."""
    seen: set[tuple[str, ...]] = set()
    repeated, covered = 0, 0
    for place, gram in enumerate(_ngrams(words, n)):
        if gram in seen:
            first = max(place, covered)
            repeated += sum(map(len, words[first : place + n]))
            covered = place + n
        else:
            seen.add(gram)
    return repeated


def _ngrams(words: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(islice(words, first, None) for first in range(n)), strict=False)


def _within(value: float, what: str, name: str, low: float | None, high: float | None) -> Iterator[Broken]:
    if low is not None and value < low:
        yield f"{what.format(value)}, at least {low:,g}", f"min_{name} = {low:,g}"
    if high is not None and value > high:
        yield f"{what.format(value)}, at most {high:,g}", f"max_{name} = {high:,g}"


def sims_rules() -> QualityRules:
    """The part of Gopher's rules that SIMS applied to RedPajama."""
    return QualityRules(
        min_words=50,
        max_words=100_000,
        min_mean_word_length=3,
        max_mean_word_length=10,
        max_symbol_word_ratio=0.1,
        max_bullet_lines=0.9,
        max_top_ngram_chars=((2, 0.2),),
    )


def gopher_rules() -> QualityRules:
    """All of Gopher's rules of quality and of repetition (table A1)."""
    return QualityRules(
        min_words=50,
        max_words=100_000,
        min_mean_word_length=3,
        max_mean_word_length=10,
        max_symbol_word_ratio=0.1,
        max_bullet_lines=0.9,
        max_ellipsis_lines=0.3,
        min_alphabetic_words=0.8,
        min_stop_words=2,
        max_duplicate_lines=0.3,
        max_duplicate_paragraphs=0.3,
        max_duplicate_line_chars=0.2,
        max_duplicate_paragraph_chars=0.2,
        max_top_ngram_chars=((2, 0.2), (3, 0.18), (4, 0.16)),
        max_duplicate_ngram_chars=((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1)),
    )


QUALITY: dict[str, Callable[[], QualityRules]] = {"none": QualityRules, "sims": sims_rules, "gopher": gopher_rules}


def quality_rules(name: str) -> QualityRules:
    """The rules of that name. Raises DataError: no such rules."""
    if name not in QUALITY:
        raise DataError(f"quality '{name}': allowed: {', '.join(QUALITY)}, or your own QualityRules")
    return QUALITY[name]()
