"""How much a sequence repeats itself: Auto-BLEU.

Enters: words, units or token ids. Leaves: the share of n-grams that stand elsewhere in the same sequence too. The one
decision worth knowing: n-grams are looked up in a table, so the time is linear; the result is that of comparing all
with all. It lives here because both preference data (a filter) and evals (a metric) need it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence

WORDS = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def split_words(text: str) -> list[str]:
    """Words and punctuation marks as written. Example: "Don't go." -> ["Don't", "go", "."]"""
    return WORDS.findall(text)


def auto_bleu(sequence: Sequence[Hashable], n: int, *, overlapping: bool = True) -> float:
    """Share of n-grams that occur elsewhere in the same sequence as well; 0 where there is none.

    Args:
        overlapping: an occurrence that shares entries with the n-gram itself counts (the formula of GSLM's paper, and
            slamkit's code); GSLM's code leaves those out.

    Example: "a b a b c", 2 -> 0.5: "a b" occurs twice, "b a" and "b c" once each. "no no no", 2 -> 1, else 0

    Source: Lakhotia et al. 2021 (GSLM, arXiv 2102.01192), for one n; not overlapping: self_auto_bleu.py of its code.
    """
    grams = list(zip(*(sequence[i:] for i in range(n)), strict=False))
    if not grams:
        return 0.0
    if overlapping:
        return sum(count for count in Counter(grams).values() if count > 1) / len(grams)
    first: dict[tuple[Hashable, ...], int] = {}
    last = {gram: place for place, gram in enumerate(grams)}
    for place, gram in enumerate(grams):
        first.setdefault(gram, place)
    return sum(first[gram] <= place - n or last[gram] >= place + n for place, gram in enumerate(grams)) / len(grams)
