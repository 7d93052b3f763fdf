"""What an item must be before it may enter a benchmark, as far as its texts and ids tell.

Enters: `RawItem`s as a task read them. Leaves: those that can be used, word times spelled as the text is, and a reason
for every other one. The one decision worth knowing: items are judged one by one; a broken recording of one voice does
not take the other voices with it, unless pairs are asked to leave together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import RawItem
from speechscale.evals.benchmarks.splitting import split_at_ending, split_last_sentence, words_of_text
from speechscale.evals.cuts import SIDES
from speechscale.records import Item, Word
from speechscale.skips import SkipLog

Split = Literal["given", "last-sentence"]
"""Prompt and candidates as the task gives them, or each text's last sentence as the candidate."""


def check_texts(raws: Sequence[RawItem], skips: SkipLog, *, split: Split = "given") -> list[RawItem]:
    """Drop what no model could answer, and settle words and cuts of the rest."""
    kept, seen, before = [], set[str](), len(skips)
    for raw in raws:
        try:
            if raw.item.id in seen:
                raise DataError("an earlier item has the same id; give every item its own id")
            seen.add(raw.item.id)
            kept.append(_settled(raw, split))
        except DataError as error:
            file_skip(skips, raw.item.id, str(error))
    skips.check(read=len(raws), kept=len(kept), since=before)
    return kept


def with_cuts(raw: RawItem) -> RawItem:
    """Write the second of the cut into the item where its words alone do not say it.

    Raises:
        DataError: word times that do not fit the text, or none at the cut.
    """
    item = raw.item
    if not item.prompt.strip():
        return raw
    changes: dict[str, Any] = {}
    for side in SIDES:
        words = words_on(raw, side)
        if words and getattr(item, f"{side}_cut_s") is None:
            cut_s, last = split_at_ending(words, item.prompt), len(item.prompt.split())
            # The words at all four edges have times: then they are the cut, and spans of words can be taken.
            if any(words[edge].start_s is None for edge in (0, last - 1, last, -1)):
                changes[f"{side}_cut_s"] = cut_s
    return replace(raw, item=replace(item, **changes)) if changes else raw


def cut_of(raw: RawItem, side: str) -> float | None:
    """The second where a candidate begins in its joined recording; None without prompt, or where it is not known."""
    found: float | None = getattr(raw.item, f"{side}_cut_s")
    words = words_on(raw, side)
    if found is None and words and raw.item.prompt.strip():
        return split_at_ending(words, raw.item.prompt)
    return found


def words_on(raw: RawItem, side: str) -> tuple[Word, ...]:
    """Word times of the joined recording of one side."""
    return raw.good_words if side == "good" else raw.bad_words


def text_of(item: Item, side: str) -> str:
    """Prompt and candidate as one text; "" where only sound is known."""
    return f"{item.prompt} {getattr(item, side)}".strip() if item.has_text else ""


def leave_together(raws: Sequence[RawItem], kept: Sequence[RawItem], skips: SkipLog) -> list[RawItem]:
    """Drop also the partners, in the same voice, of what is not in `kept`."""
    ids = {raw.item.id for raw in kept}
    broken = {(raw.item.pair, raw.item.speaker): raw.item.id for raw in reversed(raws) if raw.item.id not in ids}
    staying = []
    for raw in kept:
        partner = broken.get((raw.item.pair, raw.item.speaker))
        if partner is None:
            staying.append(raw)
        else:
            skips.add(raw.item.id, f"its partner {partner} was dropped", "mend its partner")
    return staying


def file_skip(skips: SkipLog, id: str, message: str) -> None:
    """File a message of the form 'what is wrong; remedy'."""
    reason, _, remedy = message.rpartition("; ")
    skips.add(id, reason or remedy, remedy if reason else "correct or drop the item")


def _settled(raw: RawItem, split: Split) -> RawItem:
    """An item that can be used. Raises DataError: 'what is wrong; remedy'."""
    item = raw.item
    if not item.id.strip():
        raise DataError("its id is empty; give every item an id")
    if not item.pair.strip():
        raise DataError("it is unpaired, it names no pair; give partners a common one, a lone item its own id")
    if split == "last-sentence" and item.has_text:
        item = split_last_sentence(item)
    _check_candidates(raw, item)
    words: dict[str, Any] = {}
    if item.has_text:
        words = {
            f"{side}_words": words_of_text(text_of(item, side), words_on(raw, side))
            for side in SIDES
            if words_on(raw, side)
        }
    return with_cuts(replace(raw, item=item, **words))


def _check_candidates(raw: RawItem, item: Item) -> None:
    good, bad = item.good.split(), item.bad.split()
    recorded = any((raw.good, raw.bad, raw.good_ending, raw.bad_ending))
    if not good and not bad and (item.prompt.strip() or not recorded):
        raise DataError("the ending is empty, it has no candidate; give both candidates")
    if bool(good) != bool(bad):
        which = "bad" if good else "good"
        raise DataError(f"the ending is empty, the {which} candidate has no words; give both candidates")
    if good and good == bad:
        raise DataError(f"identical candidates, both are '{item.good}'; give two that differ, or no text at all")
