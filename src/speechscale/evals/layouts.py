"""Items become spoken utterances, and spoken utterances become token sequences in four directions.

Enters: `Item`s, the `UnitTable` of their spoken candidates, a vocabulary. Leaves: `Candidate`s ready to score.
The one decision worth knowing: prompt and ending are cut apart on the frame timeline, where the candidate starts, and
an item that cannot be cut is dropped from every direction together with its symmetric partner, so that all directions
are measured on the same items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError
from speechscale.evals.cuts import SIDES, Cut, candidate_id, check_items
from speechscale.evals.protocols import Layout
from speechscale.records import Item, Utterance, Word
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.vocabulary import Vocabulary

Direction = Literal["ss", "st", "ts", "tt"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
"""Modality of the prompt, then of the candidate: s speech, t text."""
SPEECH_ONLY_SETS = frozenset({"words", "swuggy"})
"""Sets whose bad candidates are not words, so that text says nothing about them."""
UNKNOWN_LIMIT, LETTERS_LIMIT = 0.2, 1.2
"""Share of unknown tokens, and tokens per letter, above which a text tokenizer is of another language."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One candidate behind its prompt as token ids; `ids[prompt_tokens:]` is the ending.

    Without a prompt `prompt_tokens` is 1 (the document start, or the first token), so ending and whole sequence are
    the same.

    Args:
        ending_words, whole_words: words of the text; 0 where it is not known.
        ending_s, whole_s: seconds of the audio among the tokens.
    """

    item: Item
    side: str
    direction: Direction
    layout: Layout
    ids: Int[np.ndarray, " tokens"]
    prompt_tokens: int
    ending_words: int = 0
    whole_words: int = 0
    ending_s: float = 0.0
    whole_s: float = 0.0

    @property
    def name(self) -> str:
        return f"{candidate_id(self.item, self.side)} ({self.direction})"


def item_utterances(items: Sequence[Item], split_sentences: Callable[[str], Sequence[str]]) -> list[Utterance]:
    """Make the two utterances of every item: prompt and candidate, spoken sentence by sentence.

    Args:
        split_sentences: text -> its sentences, as the training stories were split; not called for the single words
            of "words".

    Raises:
        DataError: an empty or repeated candidate, or an id that occurs twice.
    """
    check_items(items)
    utterances = []
    for item in items:
        opening = tuple(split_sentences(item.prompt)) if item.prompt.strip() else ()
        for side in SIDES:
            candidate = getattr(item, side)
            pieces = [candidate] if item.set in SPEECH_ONLY_SETS else split_sentences(candidate)
            segments = (*opening, *pieces)
            text = f"{item.prompt} {candidate}".strip()
            if " ".join(segments).split() != text.split():
                raise DataError(
                    f"{candidate_id(item, side)}: split_sentences changed the words of '{text}'; it may only split"
                )
            utterances.append(
                Utterance(
                    id=candidate_id(item, side),
                    text=text,
                    speaker=item.speaker,
                    split="items",
                    words=tuple(Word(text=word) for word in text.split()),
                    segments=segments,
                )
            )
    return utterances


def item_directions(
    items: Sequence[Item], vocabulary: Vocabulary | None = None, *, spoken: bool = True
) -> tuple[Direction, ...]:
    """List the directions all these items exist in (and the vocabulary can write).

    Without a prompt there is nothing to cross: speech alone and text alone remain. Without known text only speech is
    left, and so it is for words against non-words. Not `spoken`: only text is left.
    """
    allowed: tuple[Direction, ...] = DIRECTIONS
    if any(not item.has_prompt for item in items):
        allowed = ("ss", "tt")
    if any(not item.has_text or item.set in SPEECH_ONLY_SETS for item in items):
        allowed = ("ss",)
    elif any(item.has_prompt and not item.prompt.strip() for item in items):  # a spoken prompt, its words not known
        allowed = ("ss", "st") if "st" in allowed else ("ss",)
    if not spoken:
        allowed = tuple(d for d in allowed if "s" not in d)
    return tuple(d for d in allowed if vocabulary is None or not _missing(vocabulary, d))


def candidates(
    items: Sequence[Item],
    cuts: Mapping[str, Cut | str] | None,
    vocabulary: Vocabulary,
    direction: Direction,
    *,
    layout: Layout | None = None,
    on_drop: Callable[[str, str], None] | None = None,
    max_tokens: int | None = None,
) -> list[Candidate]:
    """Lay out both candidates of every usable item in one direction: good, bad, good, bad, ...

    Args:
        cuts: of the spoken candidates, from `cuts.cut_items`; text alone (tt) then keeps only items spoken there.
            None: nothing was spoken.
        layout: start and markers; default `Layout()`.
        on_drop: called with (item id, reason) for each item left out; partners of a pair in one voice leave together.
        max_tokens: the model's context; an item with a longer candidate is dropped, never cut.

    Raises:
        DataError: a direction these items or this vocabulary do not have, markers that it has not.
    """
    layout = layout or Layout()
    check_items(items, text=False)
    allowed = item_directions(items, spoken=cuts is not None)
    if items and direction not in allowed:
        raise DataError(
            f"direction '{direction}' does not exist for these items (set '{items[0].set}'); allowed: {allowed}"
        )
    if lack := _missing(vocabulary, direction):
        raise DataError(
            f"direction '{direction}' needs {lack}, which this vocabulary has not; use 'ss' for a textless model"
        )
    if layout.markers == "always" and vocabulary.SPEECH is None:
        raise DataError(
            f"layout '{layout}' opens sequences with a marker, which this vocabulary has not; use a protocol with "
            "markers=crossing"
        )
    reasons: dict[str, str] = {}
    laid_out: dict[str, list[Candidate]] = {}
    for item in items:
        pair = _pair(item, cuts, vocabulary, direction, layout)
        if isinstance(pair, str):
            reasons[item.id] = pair
            continue
        laid_out[item.id] = pair
        longest = max(len(candidate.ids) for candidate in pair)
        if any(candidate.prompt_tokens >= len(candidate.ids) for candidate in pair):
            reasons[item.id] = "a candidate has no token to score in this vocabulary"
        elif max_tokens is not None and longest > max_tokens:
            reasons[item.id] = f"{longest} tokens, the model's context holds {max_tokens}"
    broken = {(item.pair, item.speaker): item.id for item in items if item.id in reasons}
    for item in items:
        if (item.pair, item.speaker) in broken and on_drop is not None:
            partner = broken[item.pair, item.speaker]
            on_drop(item.id, reasons.get(item.id, f"its symmetric partner {partner} was dropped"))
    kept = [item for item in items if (item.pair, item.speaker) not in broken]
    return [candidate for item in kept for candidate in laid_out[item.id]]


def _pair(
    item: Item, cuts: Mapping[str, Cut | str] | None, vocabulary: Vocabulary, direction: Direction, layout: Layout
) -> list[Candidate] | str:
    """Both candidates of an item, or why there are none."""
    both: list[Cut | None] = [None, None]
    if cuts is not None:
        found = [cuts[candidate_id(item, side)] for side in SIDES]
        for cut in found:
            if isinstance(cut, str):
                return cut
        both = [cut for cut in found if isinstance(cut, Cut)]
    carrier = both[0] if item.good <= item.bad else both[1]
    return [
        _lay_out(item, side, cut, carrier, vocabulary, direction, layout) for side, cut in zip(SIDES, both, strict=True)
    ]


def _missing(vocabulary: Vocabulary, direction: str) -> str:
    if "t" in direction and not vocabulary.has_text:
        return "text tokens"
    if "s" in direction and vocabulary.num_units == 0:
        return "speech units"
    return ""


def require_spellable(items: Sequence[Item], vocabulary: Vocabulary, *, sample: int = 200) -> None:
    """Refuse a text tokenizer of another language or script.

    Raises:
        DataError: more than a fifth of the tokens of the first items are unknown, or a letter takes more than 1.2.
    """
    words = [word for item in items[:sample] for word in f"{item.prompt} {item.good} {item.bad}".split()]
    if not words or not vocabulary.has_text:
        return
    flat = vocabulary.encode_words(words).flat
    unknown = 0.0 if vocabulary.unk_id is None else float((flat == vocabulary.unk_id).mean())
    per_letter = len(flat) / sum(map(len, words))
    if unknown > UNKNOWN_LIMIT or per_letter > LETTERS_LIMIT:
        raise DataError(
            f"items '{items[0].set}': this model's text tokenizer does not know their words ({unknown:.0%} unknown "
            f"tokens, {per_letter:.2f} tokens per letter; e.g. '{' '.join(words[:6])}'); allowed are "
            f"{UNKNOWN_LIMIT:.0%} and {LETTERS_LIMIT}; score a model of that language, or directions without text"
        )


def prompt_ids(
    vocabulary: Vocabulary, direction: Direction, content: Int[np.ndarray, " content"], layout: Layout | None = None
) -> list[int]:
    """Open a document: start token, the prompt's token ids, and what announces a continuation in the other modality.

    Within one modality there is no marker, as in training, unless the layout says "always".
    Example: "st" -> <eos> <speech> content <text>
    """
    layout = layout or Layout()
    start = [vocabulary.eos_id] if layout.start == "eos" else []
    content_ids = [int(i) for i in content]
    markers = {"s": vocabulary.SPEECH, "t": vocabulary.TEXT}
    if direction[0] == direction[1] and layout.markers == "crossing":
        return [*start, *content_ids]
    first, second = markers[direction[0]], markers[direction[1]]
    assert first is not None, "text and units in one vocabulary come with markers"
    assert second is not None
    return [*start, first, *content_ids, *([second] if first != second else [])]


def _lay_out(
    item: Item,
    side: str,
    cut: Cut | None,
    carrier: Cut | None,
    vocabulary: Vocabulary,
    direction: Direction,
    layout: Layout,
) -> Candidate:
    """Lay out one candidate.

    A spoken prompt in front of text is the one cut from the `carrier`, for both candidates. Units may depend on the
    whole utterance (mean normalization), so a prompt hints at the ending it was spoken with; the carrier is the
    candidate that sorts first, which is right in one item of a symmetric pair and wrong in the other.
    """
    candidate: str = getattr(item, side)
    ending_s = whole_s = 0.0
    if direction == "tt":
        prompt, ending = _text_ids(vocabulary, item.prompt, candidate, inside=layout.markers == "always")
    else:
        assert cut is not None, "speech needs a recording"
        assert carrier is not None
        if direction == "ss":
            prompt, ending = _speech_ids(vocabulary, cut.prompt), _speech_ids(vocabulary, cut.continuation)
            ending_s, whole_s = cut.ending_s, cut.whole_s
        elif direction == "st":
            prompt, ending = _speech_ids(vocabulary, carrier.prompt_words), _word_ids(vocabulary, candidate)
        else:
            prompt, ending = _word_ids(vocabulary, item.prompt), _speech_ids(vocabulary, cut.ending_words)
            ending_s = whole_s = cut.ending_words_s
    opening = prompt_ids(vocabulary, direction, prompt, layout)
    words = len(candidate.split())
    return Candidate(
        item=item,
        side=side,
        direction=direction,
        layout=layout,
        ids=np.array([*opening, *(int(i) for i in ending)], np.int64),
        prompt_tokens=max(1, len(opening)),
        ending_words=words,
        whole_words=words + len(item.prompt.split()) if item.has_text else 0,
        ending_s=ending_s,
        whole_s=whole_s,
    )


def _speech_ids(vocabulary: Vocabulary, units: Int[np.ndarray, " units"]) -> Int[np.ndarray, " ids"]:
    """Ids of a stretch of speech; with subwords prompt and ending are spelled apart, no piece spans the cut."""
    return vocabulary.speech_ids(Ragged(units, np.array([0, len(units)]))).flat


def _word_ids(vocabulary: Vocabulary, text: str) -> Int[np.ndarray, " tokens"]:
    """Ids of a text span, as interleaving makes them: word by word."""
    return vocabulary.encode_words(text.split()).flat


def _text_ids(
    vocabulary: Vocabulary, prompt: str, candidate: str, *, inside: bool = False
) -> tuple[Int[np.ndarray, " prompt"], Int[np.ndarray, " candidate"]]:
    """Ids of prompt and candidate as parts of one text document, which has no blank in front of its first word.

    Args:
        inside: the text stands behind a marker, word by word as in interleaving.
    """
    if inside:
        return _word_ids(vocabulary, prompt), _word_ids(vocabulary, candidate)
    if not prompt.strip():
        return np.zeros(0, np.int64), vocabulary.encode_text([candidate]).flat
    opening, rest = vocabulary.encode_text([prompt, f" {candidate}"]).rows()
    return opening, rest
