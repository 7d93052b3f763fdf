"""Where the text of an item ends and its candidate begins: in words, in seconds, in sentences.

Enters: texts and word times. Leaves: times per word of the text, the second of the cut, prompt and ending apart.
The one decision worth knowing: texts and alignments differ in case, punctuation and tokens ("don't", "do n't"), so
words are matched by their letters, and where the letters do not agree nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from speechscale.corpus.sentences import split_sentences
from speechscale.errors import DataError
from speechscale.records import Item, Word
from speechscale.voices.spoken import owners

AGREEMENT = 0.8
"""Share of letters that word times and text must have in common."""
_REALIGN = "align this recording with its own text"


def words_of_text(text: str, words: Sequence[Word]) -> tuple[Word, ...]:
    """The words of a text with the times of an alignment that may spell or cut them otherwise.

    Example: "I don't.", [i 0-1, do 1-2, n't 2-3] -> I 0-1, don't. 1-3. Without `words` no word has a time.

    Raises:
        DataError: the alignment is of another text.
    """
    said = text.split()
    if not words:
        return tuple(Word(text=word) for word in said)
    if [_letters(word.text) for word in words] == [_letters(word) for word in said]:
        return tuple(replace(word, text=text) for word, text in zip(words, said, strict=True))
    spoken, written = _letters("".join(word.text for word in words)), _letters(text)
    if spoken != written and SequenceMatcher(None, spoken, written, autojunk=False).ratio() < AGREEMENT:
        raise DataError(
            f"its word times are of another text ('{' '.join(w.text for w in words[:5])} ...' for "
            f"'{' '.join(said[:5])} ...'); {_REALIGN}"
        )
    home = owners([word.lower() for word in said], [word.text.lower() for word in words])
    pieces: list[list[Word]] = [[] for _ in said]
    for word, owner in zip(words, home, strict=True):
        if word.start_s is not None and word.end_s is not None:
            pieces[owner].append(word)
    return tuple(
        Word(text=text, start_s=found[0].start_s, end_s=found[-1].end_s) if found else Word(text=text)
        for text, found in zip(said, pieces, strict=True)
    )


def split_at_ending(words: Sequence[Word], prompt_text: str) -> float:
    """The second where the ending begins: at the first word behind those that spell the prompt.

    Example: [tom 0-1, ran 1-2, home 2-3], "Tom ran," -> 2.0

    Raises:
        DataError: the words do not begin with the prompt, nothing follows it, or there is no time at the cut.
    """
    prompt, spelled = _letters(prompt_text), ""
    index = 0
    while index < len(words) and len(spelled) < len(prompt):
        spelled += _letters(words[index].text)
        index += 1
    if spelled != prompt or not prompt:
        raise DataError(
            f"the recording does not begin with the words of the prompt ('...{spelled[-20:]}' for "
            f"'...{prompt[-20:]}'); {_REALIGN}"
        )
    while index < len(words) and not _letters(words[index].text):
        index += 1  # A dash between prompt and ending belongs to neither.
    if index == len(words):
        raise DataError(f"the ending is empty, no word follows the prompt; {_REALIGN} or drop the item")
    cut_s = words[index].start_s
    if cut_s is None:
        raise DataError(f"the first word of the ending, '{words[index].text}', has no time; {_REALIGN}")
    return cut_s


def split_last_sentence(item: Item) -> Item:
    """Move all but the last sentence of both candidates into the prompt; they must be the same.

    Raises:
        DataError: a prompt is there already, one sentence only, or different openings.
    """
    if item.prompt.strip():
        raise DataError("it has a prompt already; leave the split as given")
    good, bad = split_sentences(item.good), split_sentences(item.bad)
    if min(len(good), len(bad)) < 2:
        raise DataError(
            "a candidate has a single sentence, so nothing is left for the prompt; leave the split as given"
        )
    if " ".join(good[:-1]).split() != " ".join(bad[:-1]).split():
        raise DataError("the two stories differ before their last sentence; give prompt and endings apart")
    return replace(item, prompt=" ".join(good[:-1]), good=good[-1], bad=bad[-1])


def _letters(text: str) -> str:
    """What decides whether two spellings are the same words."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())
