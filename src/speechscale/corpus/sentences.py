"""Cut running English text into sentences, and long texts into utterances.

Enters: the text of a document. Leaves: sentences that joined by blanks are the text again, word for word. The one
decision worth knowing: nothing is ever lost here; what has no letters (a line of stars) sticks to a neighbor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_TITLES = (
    "Mr Mrs Ms Dr Prof St Gen Sen Rep Gov Capt Lt Col Sgt Rev Hon Mt Ft Messrs Mme Mlle Adm Maj Pvt Pres Supt Sra Sr"
)
_BEFORE = "vs e.g i.e eg ie cf viz approx ca"
_BEFORE_NUMBERS = "No Nos Fig Figs Vol Vols Ch Sec p pp Art"
_SOMETIMES = (
    "etc Inc Ltd Co Corp Jr Esq Ave Blvd Rd Dept a.m p.m Ph.D M.D B.A M.A "
    "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec Mon Tue Tues Wed Thu Thur Thurs Fri Sat Sun"
)
_OPEN = (
    "the a an he she it they we you i this that these those there then but and so when if in on at as for his her its "
    "their my our your one once after before while what who why how where not no yes"
)
NEVER_LAST = frozenset(f"{_TITLES} {_BEFORE}".split())
"""Abbreviations that are followed by what they announce, spelled as they are ("Sat." is a day, "sat." is not)."""
BEFORE_NUMBERS = frozenset(_BEFORE_NUMBERS.split())
"""Abbreviations only when a number follows ("No. 5")."""
SELDOM_LAST = frozenset(_SOMETIMES.split())
"""Abbreviations that end a sentence only when the next word is one that opens sentences."""
OPENERS = frozenset(_OPEN.split())

_BLANK_LINE = re.compile(r"\n\s*\n")
_BORDER = re.compile(r"([.!?…]+)([\"'”’»)\]]*)(\s+)(?=[\"'“‘«(\[]*[\w])")
_SOFT = (";", ":", ",", "—", "–")


def split_sentences(text: str) -> list[str]:
    """Split English text at sentence ends; white space collapses to single blanks.

    A blank line always ends a sentence, a single line break does not. A period ends none behind a title ("Mr. Fox"),
    an initial ("J. R. Hartley") or before a small letter.

    Example: 'Dr. Fox ran. "Stop!" she said.' -> ['Dr. Fox ran.', '"Stop!" she said.']
    """
    sentences: list[str] = []
    for block in _BLANK_LINE.split(text):
        start = 0
        for border in _BORDER.finditer(block):
            if _ends(block[start : border.start()], border.group(1), block[border.end() :]):
                sentences.append(" ".join(block[start : border.end(2)].split()))
                start = border.end()
        sentences.append(" ".join(block[start:].split()))
    return _with_letters([sentence for sentence in sentences if sentence])


def cut_long(sentence: str, max_words: int) -> list[str]:
    """Cut a sentence of more than `max_words` behind the last comma, colon or dash that fits, or else between words.

    Example: "a b, c d e f", 3 -> ["a b,", "c d e", "f"]
    """
    words, parts = sentence.split(), []
    while len(words) > max_words:
        soft = [i + 1 for i, word in enumerate(words[:max_words]) if word.endswith(_SOFT)]
        cut = soft[-1] if soft and soft[-1] * 3 >= max_words else max_words
        parts.append(" ".join(words[:cut]))
        words = words[cut:]
    return _with_letters([*parts, " ".join(words)])


def group_sentences(sentences: Sequence[str], max_words: int) -> Iterator[tuple[str, ...]]:
    """Put sentences into utterances of at most `max_words` (a longer one stands alone), cutting between sentences."""
    group: list[str] = []
    count = 0
    for sentence in sentences:
        words = len(sentence.split())
        if group and count + words > max_words:
            yield tuple(group)
            group, count = [], 0
        group.append(sentence)
        count += words
    if group:
        yield tuple(group)


def has_speech(text: str) -> bool:
    """Whether there is a letter or digit to say."""
    return any(character.isalnum() for character in text)


def _ends(before: str, marks: str, rest: str) -> bool:
    """Whether marks such as "." between `before` and `rest` end a sentence."""
    following = rest.lstrip("\"'“‘«([")
    if following[:1].islower():
        return False
    if marks != ".":
        return True
    last = before.split()[-1].lstrip("\"'“‘«([") if before.split() else ""
    if (len(last) == 1 and last.isupper() and last != "I") or last in NEVER_LAST:
        return False
    if last in BEFORE_NUMBERS and following[:1].isdigit():
        return False
    if last in SELDOM_LAST or re.fullmatch(r"(?:[A-Za-z]\.)+[A-Za-z]", last):
        opener = re.match(r"[\w']*", following)
        return opener is not None and opener.group().casefold() in OPENERS
    return True


def _with_letters(sentences: Sequence[str]) -> list[str]:
    """Join what has nothing to say to the sentence before it, or else behind it."""
    kept: list[str] = []
    waiting = ""
    for sentence in sentences:
        sentence = f"{waiting} {sentence}".strip()
        waiting = ""
        if has_speech(sentence):
            kept.append(sentence)
        elif kept:
            kept[-1] = f"{kept[-1]} {sentence}"
        else:
            waiting = sentence
    return kept
