"""Stories with a right and a wrong ending, as text.

Enters: a StoryCloze table. Leaves: `Story`s. The one decision worth knowing: the same reader serves the text tasks and
the recordings, whose texts stand in these tables; a table without answers is refused.

Source: columns of the ROCStories Cloze Test (Mostafazadeh et al. 2016: InputStoryid, InputSentence1..4,
RandomFifthSentenceQuiz1, RandomFifthSentenceQuiz2, AnswerRightEnding), of its copy on the Hub (story_id,
input_sentence_1.., sentence_quiz1, sentence_quiz2, answer_right_ending) as loaders of lighteval name them, and the
three rows per story (pair_id, text, type, correctness) that tiagoCuervo/interleaved_lm (storycloze_data.py) reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.evals.benchmarks.readers.tables import Rows, table_rows, text_field, text_files

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
_REMEDY = "give a StoryCloze table with InputSentence1..4, RandomFifthSentenceQuiz1/2 and AnswerRightEnding"
_NAMES = {
    "id": ("inputstoryid", "storyid", "id"),
    "1": ("inputsentence1",),
    "2": ("inputsentence2",),
    "3": ("inputsentence3",),
    "4": ("inputsentence4",),
    "first": ("randomfifthsentencequiz1", "sentencequiz1"),
    "second": ("randomfifthsentencequiz2", "sentencequiz2"),
    "answer": ("answerrightending",),
}
_PARTS = ("pairid", "text", "type", "correctness")


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Four sentences, the right and a wrong ending. topical: whether the wrong one is of another story."""

    id: str
    prompt: str
    good: str
    bad: str
    topical: bool | None = None


def read_stories(path: Path) -> list[Story]:
    """All stories of a file, a folder or a zip, in order.

    Raises:
        DataError: columns missing, no answers (a test split), a field without text, or an id that comes twice.
    """
    stories: dict[str, Story] = {}
    for file in text_files(path, SUFFIXES, remedy=_REMEDY):
        rows = table_rows(file, columns=(), remedy=_REMEDY)
        for where, story in _stories(rows, file.name):
            if story.id in stories:
                raise DataError(f"{where}: story '{story.id}' comes twice; ids must be unique")
            stories[story.id] = story
    if not stories:
        raise DataError(f"{path}: no story in it; {_REMEDY}")
    return list(stories.values())


def _stories(rows: Rows, name: str) -> Iterator[tuple[str, Story]]:
    parts: dict[str, dict[str, str]] = {}
    for line, row in rows:
        where = f"{name}, line {line}"
        if all(column in row for column in _PARTS):
            _add_part(parts, row, where)
        else:
            yield where, _story(row, where)
    for id, texts in parts.items():
        lacking = [part for part in ("prompt", "correct", "incorrect") if part not in texts]
        if lacking:
            raise DataError(f"{name}: story '{id}' has no row for {', '.join(lacking)}; correct the table")
        yield name, Story(id=id, prompt=texts["prompt"], good=texts["correct"], bad=texts["incorrect"])


def _add_part(parts: dict[str, dict[str, str]], row: dict[str, Any], where: str) -> None:
    part = "prompt" if row["type"] == "prompt" else row["correctness"]
    if part not in ("prompt", "correct", "incorrect"):
        raise DataError(
            f"{where}: type '{row['type']}', correctness '{row['correctness']}'; allowed are type prompt, or "
            "correctness correct or incorrect"
        )
    texts = parts.setdefault(text_field(row, "pairid", where), {})
    if part in texts:
        raise DataError(f"{where}: story '{row['pairid']}' has a second {part} row; correct the table")
    texts[part] = text_field(row, "text", where)


def _story(row: dict[str, Any], where: str) -> Story:
    found = {key: next((name for name in names if name in row), "") for key, names in _NAMES.items()}
    lacking = [names[0] for key, names in _NAMES.items() if not found[key]]
    if lacking == ["answerrightending"]:
        raise DataError(f"{where}: no column AnswerRightEnding: a test split without answers; take the labelled split")
    if lacking:
        raise DataError(f"{where}: no column {', '.join(lacking)}; it has {', '.join(row)}; {_REMEDY}")
    answer = str(row[found["answer"]]).strip()
    if answer not in ("1", "2"):
        raise DataError(f"{where}: AnswerRightEnding = '{answer}', allowed are 1 and 2; take the labelled split")
    endings = [text_field(row, found[key], where) for key in ("first", "second")]
    right = int(answer) - 1
    return Story(
        id=str(row[found["id"]]).strip() or where,
        prompt=" ".join(text_field(row, found[key], where) for key in "1234"),
        good=endings[right],
        bad=endings[1 - right],
        topical=False,
    )


def with_foreign_endings(stories: list[Story], seed: int) -> list[Story]:
    """Topic StoryCloze: the wrong ending of each story is the right one of another, every ending used once.

    The others are drawn as one random cycle through all stories, so none keeps its own. Where the next story of the
    cycle ends in the same words, the one after it lends its ending.

    Raises:
        DataError: all endings are alike, or there is one story only.
    """
    if len({story.good for story in stories}) < 2:
        raise DataError(f"topic: {len(stories)} stories with one ending; at least two different ones are needed")
    order = np.random.default_rng([seed, len(stories)]).permutation(len(stories))
    made = list(stories)
    for place, index in enumerate(order):
        own = stories[index]
        others = (stories[order[(place + step) % len(order)]].good for step in range(1, len(order)))
        made[index] = replace(own, bad=next(ending for ending in others if ending != own.good), topical=True)
    return made
