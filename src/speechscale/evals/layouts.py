"""Items become spoken utterances, and spoken utterances become token sequences in four directions.

Enters: `Item`s, the `UnitTable` of their spoken candidates, a vocabulary. Leaves: `Candidate`s ready to score.
The one decision worth knowing: prompt and ending are cut apart on the frame timeline, where the first word of the
candidate starts, and an item that cannot be cut is dropped from every direction together with its symmetric
partner, so that all directions are measured on the same items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError
from speechscale.records import NO_TIME, Item, UnitTable, Utterance, Word, dedup, expand
from speechscale.tokens.interleave import word_unit_ranges
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.vocabulary import Vocabulary

Direction = Literal["ss", "st", "ts", "tt"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
"""Modality of the prompt, then of the candidate: s speech, t text."""
SIDES = ("good", "bad")
SPEECH_ONLY_SETS = frozenset({"words"})
"""Sets whose bad candidates are not words, so that text says nothing about them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One candidate behind its prompt as token ids; `ids[prompt_tokens:]` is the ending.

    Without a prompt `prompt_tokens` is 1 (the document start), so ending and whole sequence are the same.
    """

    item: Item
    side: str
    direction: Direction
    ids: Int[np.ndarray, " tokens"]
    prompt_tokens: int

    @property
    def name(self) -> str:
        return f"{candidate_id(self.item, self.side)} ({self.direction})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Units of one spoken candidate, apart where its first word starts; a unit lasting across the cut is in both parts.

    Args:
        prompt, ending: everything before and after the cut.
        prompt_words, ending_words: the same from the start of the first to the end of the last word, without the
            silence around, as a spoken span is cut out for interleaving.
    """

    prompt: Int[np.ndarray, " prompt"]
    ending: Int[np.ndarray, " ending"]
    prompt_words: Int[np.ndarray, " spoken_prompt"]
    ending_words: Int[np.ndarray, " spoken_ending"]

    @property
    def continuation(self) -> Int[np.ndarray, " rest"]:
        """The ending as it continues the prompt in one stream: without a first unit that merely goes on.

        Example: prompt [4, 5], ending [5, 7] -> [7]
        """
        return self.ending[int(len(self.prompt) > 0 and self.prompt[-1] == self.ending[0]) :]


def candidate_id(item: Item, side: str) -> str:
    """Id of the utterance that speaks one candidate. Example: "story-3/good"."""
    return f"{item.id}/{side}"


def item_utterances(items: Sequence[Item], split_sentences: Callable[[str], Sequence[str]]) -> list[Utterance]:
    """Make the two utterances of every item: prompt and candidate, spoken sentence by sentence.

    Args:
        split_sentences: text -> its sentences, as the training stories were split; not called for the single words
            of "words".

    Raises:
        DataError: an empty or repeated candidate, or an id that occurs twice.
    """
    _check_items(items)
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


def _check_items(items: Sequence[Item]) -> None:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DataError(f"item {item.id}: the id occurs twice; ids must be unique")
        seen.add(item.id)
        if not item.pair:
            raise DataError(f"item {item.id}: it names no pair; give partners a common one, a lone item its own id")
        if not item.good.split() or not item.bad.split():
            raise DataError(f"item {item.id}: a candidate is empty; both need at least one word")
        if item.good.split() == item.bad.split():
            raise DataError(f"item {item.id}: both candidates are '{item.good}'; they must differ")


def item_directions(items: Sequence[Item], vocabulary: Vocabulary | None = None) -> tuple[Direction, ...]:
    """List the directions all these items exist in (and the vocabulary can write).

    Without a prompt there is nothing to cross: speech alone and text alone remain; "words" exists as speech only.
    """
    allowed: tuple[Direction, ...] = DIRECTIONS
    if any(not item.prompt.strip() for item in items):
        allowed = ("ss", "tt")
    if any(item.set in SPEECH_ONLY_SETS for item in items):
        allowed = ("ss",)
    return tuple(d for d in allowed if vocabulary is None or not _missing(vocabulary, d))


def candidates(
    items: Sequence[Item],
    table: UnitTable,
    vocabulary: Vocabulary,
    direction: Direction,
    *,
    on_drop: Callable[[str, str], None] | None = None,
    max_tokens: int | None = None,
) -> list[Candidate]:
    """Lay out both candidates of every usable item in one direction: good, bad, good, bad, ...

    Args:
        table: spoken candidates, rows named by `candidate_id`; also text alone (tt) keeps only items spoken here.
        on_drop: called with (item id, reason) for each item left out; partners of a symmetric pair leave together.
        max_tokens: the model's context; an item with a longer candidate is dropped, never cut.

    Raises:
        DataError: a direction these items or this vocabulary do not have, or a row that speaks other words.
    """
    _check_items(items)
    allowed = item_directions(items)
    if direction not in allowed:
        raise DataError(
            f"direction '{direction}' does not exist for these items (set '{items[0].set}'); allowed: {allowed}"
        )
    if lack := _missing(vocabulary, direction):
        raise DataError(
            f"direction '{direction}' needs {lack}, which this vocabulary has not; use 'ss' for a textless model"
        )
    cuts = cut_items(items, table)
    reasons: dict[str, str] = {}
    laid_out: dict[str, list[Candidate]] = {}
    for item in items:
        good, bad = (cuts[candidate_id(item, side)] for side in SIDES)
        if isinstance(good, str) or isinstance(bad, str):
            reasons[item.id] = good if isinstance(good, str) else str(bad)
            continue
        carrier = good if item.good <= item.bad else bad
        pair = [
            _lay_out(item, side, cut, carrier, vocabulary, direction)
            for side, cut in zip(SIDES, (good, bad), strict=True)
        ]
        laid_out[item.id] = pair
        longest = max(len(candidate.ids) for candidate in pair)
        if any(candidate.prompt_tokens == len(candidate.ids) for candidate in pair):
            reasons[item.id] = "a candidate has no token in this vocabulary"
        elif max_tokens is not None and longest > max_tokens:
            reasons[item.id] = f"{longest} tokens, the model's context holds {max_tokens}"
    broken = {item.pair: item.id for item in items if item.id in reasons}
    for item in items:
        if item.pair in broken and on_drop is not None:
            on_drop(item.id, reasons.get(item.id, f"its symmetric partner {broken[item.pair]} was dropped"))
    return [candidate for item in items if item.pair not in broken for candidate in laid_out[item.id]]


def _missing(vocabulary: Vocabulary, direction: str) -> str:
    if "t" in direction and not vocabulary.has_text:
        return "text tokens"
    if "s" in direction and vocabulary.num_units == 0:
        return "speech units"
    return ""


def cut_items(items: Sequence[Item], table: UnitTable) -> dict[str, Cut | str]:
    """Cut every spoken candidate; maps its `candidate_id` to the cut, or to the reason why there is none."""
    rows = {id: row for row, id in enumerate(table.ids)}
    first_units, last_units = word_unit_ranges(table)
    cuts: dict[str, Cut | str] = {}
    for item in items:
        for side in SIDES:
            name = candidate_id(item, side)
            if name not in rows:
                cuts[name] = f"{name} was not spoken"
                continue
            row = rows[name]
            prompt, candidate = item.prompt.split(), getattr(item, side).split()
            if table.row_words(row) != prompt + candidate:
                raise DataError(
                    f"{name}: the unit table has the words '{' '.join(table.row_words(row))}', the item "
                    f"'{' '.join(prompt + candidate)}'; speak the items again"
                )
            part = slice(int(table.word_offsets[row]), int(table.word_offsets[row + 1]))
            cut = cut_row(table, row, len(prompt), first_units[part], last_units[part])
            cuts[name] = f"{name}: {cut}" if isinstance(cut, str) else cut
    return cuts


def cut_row(
    table: UnitTable,
    row: int,
    prompt_words: int,
    first_units: Int[np.ndarray, " words"],
    last_units: Int[np.ndarray, " words"],
) -> Cut | str:
    """Cut one row in front of the word numbered `prompt_words`, or say why that is not possible.

    Args:
        first_units, last_units: half-open unit range of each word of the row (see `word_unit_ranges`).
    """
    units, durations = table.row_units(row), table.row_durations(row)
    edges = [0, prompt_words - 1, prompt_words, -1] if prompt_words else [0, -1]
    if (first_units[edges] == NO_TIME).any():
        return "a word at the edge of prompt or candidate has no time"
    ending_words = units[first_units[prompt_words] : last_units[-1]]
    if prompt_words == 0:
        return Cut(prompt=units[:0], ending=units, prompt_words=units[:0], ending_words=ending_words)
    cut_frame, frames = int(table.row_word_frames(row)[prompt_words, 0]), int(durations.sum())
    if not 0 < cut_frame < frames:
        return f"the candidate starts at frame {cut_frame} of {frames}, one side has no audio"
    prompt, ending = cut_units(units, durations, cut_frame)
    cut = Cut(
        prompt=prompt,
        ending=ending,
        prompt_words=units[first_units[0] : last_units[prompt_words - 1]],
        ending_words=ending_words,
    )
    return cut if len(cut.continuation) else "the candidate adds no unit to the prompt"


def cut_units(
    units: Int[np.ndarray, " units"], durations_frames: Int[np.ndarray, " units"], cut_frame: int
) -> tuple[Int[np.ndarray, " before"], Int[np.ndarray, " after"]]:
    """Cut deduplicated units at a frame. Example: [5, 7], [2, 3], frame 3 -> [5, 7], [7]"""
    frames = expand(units, durations_frames)
    return dedup(frames[:cut_frame])[0], dedup(frames[cut_frame:])[0]


def prompt_ids(vocabulary: Vocabulary, direction: Direction, content: Int[np.ndarray, " content"]) -> list[int]:
    """Open a document: start token, the prompt's token ids, and what announces a continuation in the other modality.

    Within one modality there is no marker, as in training. Example: "st" -> <eos> <speech> content <text>
    """
    content_ids = [int(i) for i in content]
    if direction[0] == direction[1]:
        return [vocabulary.eos_id, *content_ids]
    assert vocabulary.SPEECH is not None, "text and units in one vocabulary come with markers"
    assert vocabulary.TEXT is not None
    first, second = (vocabulary.SPEECH, vocabulary.TEXT) if direction == "st" else (vocabulary.TEXT, vocabulary.SPEECH)
    return [vocabulary.eos_id, first, *content_ids, second]


def _lay_out(item: Item, side: str, cut: Cut, carrier: Cut, vocabulary: Vocabulary, direction: Direction) -> Candidate:
    """Lay out one candidate.

    A spoken prompt in front of text is the one cut from the `carrier`, for both candidates. Units may depend on the
    whole utterance (mean normalization), so a prompt hints at the ending it was spoken with; the carrier is the
    candidate that sorts first, which is right in one item of a symmetric pair and wrong in the other.
    """
    candidate: str = getattr(item, side)
    if direction == "ss":
        prompt, ending = _speech_ids(vocabulary, cut.prompt), _speech_ids(vocabulary, cut.continuation)
    elif direction == "st":
        prompt, ending = _speech_ids(vocabulary, carrier.prompt_words), _word_ids(vocabulary, candidate)
    elif direction == "ts":
        prompt, ending = _word_ids(vocabulary, item.prompt), _speech_ids(vocabulary, cut.ending_words)
    else:
        prompt, ending = _text_ids(vocabulary, item.prompt, candidate)
    opening = prompt_ids(vocabulary, direction, prompt)
    return Candidate(
        item=item,
        side=side,
        direction=direction,
        ids=np.array([*opening, *(int(i) for i in ending)], np.int64),
        prompt_tokens=len(opening),
    )


def _speech_ids(vocabulary: Vocabulary, units: Int[np.ndarray, " units"]) -> Int[np.ndarray, " ids"]:
    """Ids of a stretch of speech; with subwords prompt and ending are spelled apart, no piece spans the cut."""
    return vocabulary.speech_ids(Ragged(units, np.array([0, len(units)]))).flat


def _word_ids(vocabulary: Vocabulary, text: str) -> Int[np.ndarray, " tokens"]:
    """Ids of a text span, as interleaving makes them: word by word."""
    return vocabulary.encode_words(text.split()).flat


def _text_ids(
    vocabulary: Vocabulary, prompt: str, candidate: str
) -> tuple[Int[np.ndarray, " prompt"], Int[np.ndarray, " candidate"]]:
    """Ids of prompt and candidate as parts of one text document, which has no blank in front of its first word."""
    if not prompt.strip():
        return np.zeros(0, np.int64), vocabulary.encode_text([candidate]).flat
    opening, rest = vocabulary.encode_text([prompt, f" {candidate}"]).rows()
    return opening, rest
