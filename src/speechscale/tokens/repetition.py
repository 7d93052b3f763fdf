"""How much a sequence repeats itself: Auto-BLEU.

Enters: words, units or token ids. Leaves: the share of n-grams that stand elsewhere in the same sequence too. The one
decision worth knowing: n-grams are counted once in a table, so the time is linear; the result is that of comparing all
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


def auto_bleu(sequence: Sequence[Hashable], n: int) -> float:
    """Share of n-grams that occur elsewhere in the same sequence as well; 0 where there is none.

    Example: "a b a b c", 2 -> 0.5: "a b" occurs twice, "b a" and "b c" once each.

    Source: Lakhotia et al. 2021 (GSLM, arXiv 2102.01192), for one n.
    """
    counts = Counter(zip(*(sequence[i:] for i in range(n)), strict=False))
    total = sum(counts.values())
    return sum(count for count in counts.values() if count > 1) / total if total else 0.0
