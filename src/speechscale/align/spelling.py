"""Put the transcript's spelling on aligned words.

Enters: a transcript and the words an aligner timed, usually lower case and without punctuation. Leaves: one list of
words, spelled as in the transcript, timed as in the alignment. The one decision worth knowing: a word that cannot be
matched never breaks its utterance; it stays without time, or keeps the alignment's spelling.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

from speechscale.align.normalize import normalize
from speechscale.errors import DataError, MissingExtra
from speechscale.records import Word


def tokens_of(word: str) -> list[str]:
    """The comparable pieces of a written word: casefolded runs of letters and digits, apostrophes dropped.

    Example: "Wood-cutters'," -> ["wood", "cutters"]; "don't" -> ["dont"]; "--" -> []
    """
    return re.findall(r"[^\W_]+", re.sub(r"['\u2019\u02bc`]", "", word.casefold()))


def spell(text: str, aligned: Sequence[Word], *, language: str = "en") -> tuple[tuple[Word, ...], float]:
    """Give aligned words the spelling and punctuation of the transcript.

    Transcript words whose tokens match take the aligned times, one to one or as a group ("wood-cutters" = wood +
    cutters; "1455" = fourteen + fifty + five). Transcript words the alignment lacks stay without time; what differs
    keeps the alignment's text and time. Where the letters differ, both sides are compared as they are spoken.

    Args:
        language: of both, for `normalize`; without num2words, or in a language it does not know, letters alone count.

    Returns:
        words in order, and the share of tokens that matched, in [0, 1] (of the longer side).

    Example: "Good day, Ann." with good 0-1, day 1-2 -> Good 0-1, day, 1-2, Ann. (no time); 2/3
    """
    written = _attach_punctuation(text.split())
    ours = [(token, index) for index, word in enumerate(written) for token in tokens_of(word)]
    theirs = [(token, index) for index, word in enumerate(aligned) for token in tokens_of(word.text) or [word.text]]
    words, share = _matched(written, ours, aligned, theirs)
    if share == 1 or not aligned:
        return words, share
    try:
        spoken = normalize(text, language)
        ours = [
            (token, i) for said, i in zip(spoken.spoken, spoken.raw_index, strict=True) for token in tokens_of(said)
        ]
        theirs = [(token, i) for i, word in enumerate(aligned) for token in _spoken(word.text, language)]
    except (MissingExtra, DataError):
        return words, share
    other = _matched(spoken.raw, ours, aligned, theirs)
    return other if other[1] > share else (words, share)


def _spoken(text: str, language: str) -> list[str]:
    return [token for said in normalize(text, language).spoken for token in tokens_of(said)] or [text]


def _matched(
    written: Sequence[str],
    ours: Sequence[tuple[str, int]],
    aligned: Sequence[Word],
    theirs: Sequence[tuple[str, int]],
) -> tuple[tuple[Word, ...], float]:
    """Words in order and the share of matching tokens; `ours` and `theirs` are tokens and the words they are of."""
    matcher = SequenceMatcher(None, [t for t, _ in ours], [t for t, _ in theirs], autojunk=False)
    blocks = matcher.get_matching_blocks()
    links = [(ours[b.a + k][1], theirs[b.b + k][1]) for b in blocks for k in range(b.size)]
    complete = _complete_groups(links, ours, theirs)
    words: list[Word] = []
    at_ours = at_theirs = 0
    for mine, their in [*complete, (range(len(written), len(written)), range(len(aligned), len(aligned)))]:
        heard = list(aligned[at_theirs : their.start])
        words += heard or [Word(text=word) for word in written[at_ours : mine.start]]
        if mine:
            words.append(_grouped(" ".join(written[mine.start : mine.stop]), [aligned[index] for index in their]))
        at_ours, at_theirs = mine.stop, their.stop
    return tuple(words), len(links) / max(len(ours), len(theirs), 1)


def _grouped(text: str, part: Sequence[Word]) -> Word:
    """One word for several aligned ones: from the start of the first to the end of the last, if both are known."""
    scores = [word.score for word in part if word.score is not None]
    start_s, end_s = part[0].start_s, part[-1].end_s
    if start_s is None or end_s is None:
        start_s = end_s = None
    return Word(text=text, start_s=start_s, end_s=end_s, score=min(scores) if scores else None)


def _complete_groups(
    links: Sequence[tuple[int, int]], ours: Sequence[tuple[str, int]], theirs: Sequence[tuple[str, int]]
) -> list[tuple[range, range]]:
    """Smallest groups of words (written, aligned) all of whose tokens are linked to each other, in order."""
    need_ours, need_theirs = Counter(index for _, index in ours), Counter(index for _, index in theirs)
    groups: list[list[tuple[int, int]]] = []
    for link in links:
        if groups and (groups[-1][-1][0] == link[0] or groups[-1][-1][1] == link[1]):
            groups[-1].append(link)
        else:
            groups.append([link])
    complete = []
    for group in groups:
        mine = range(group[0][0], group[-1][0] + 1)
        their = range(group[0][1], group[-1][1] + 1)
        if sum(need_ours[i] for i in mine) == len(group) == sum(need_theirs[i] for i in their):
            complete.append((mine, their))
    return complete


def _attach_punctuation(words: Sequence[str]) -> list[str]:
    """Join free-standing punctuation to the word before it, at the start to the word after it.

    Example: ["-", "so", "--", "he"] -> ["- so --", "he"]
    """
    joined: list[str] = []
    for word in words:
        if joined and (not tokens_of(word) or not tokens_of(joined[-1])):
            joined[-1] += " " + word
        else:
            joined.append(word)
    return joined
