"""Benchmarks of texts: BLiMP, StoryCloze, SWAG, HellaSwag. Any voice can speak them.

Enters: tables as published. Leaves: `RawItem`s without recordings. The one decision worth knowing: a question of four
endings becomes three pairs, right against each wrong one, that share `pair`; the question is solved where all three
pairs are, and chance per pair is one half.

Source: BLiMP's JSON lines (Warstadt et al. 2020, alexwarstadt/blimp data/*.jsonl: sentence_good, sentence_bad, field,
linguistics_term, UID, pairID); SWAG's columns (Zellers et al. 2018, config "regular" on the Hub: video-id, fold-ind,
startphrase, sent1, sent2, gold-source, ending0..3, label); HellaSwag's JSON lines (ind, activity_label, ctx_a, ctx_b,
endings, label, split_type), its brackets taken out as evaluation harnesses do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import Facts, RawItem
from speechscale.evals.benchmarks.readers.stories import Story
from speechscale.evals.benchmarks.readers.tables import TextFile, table_rows, text_field, text_files
from speechscale.records import Item

BLIMP_COLUMNS = ("sentence_good", "sentence_bad", "UID")
SWAG_COLUMNS = ("sent1", "sent2", "ending0", "ending1", "ending2", "ending3", "label")
HELLASWAG_COLUMNS = ("ctx_a", "ctx_b", "endings", "label")
ENDINGS = 4


def blimp_items(path: Path, facts: Facts) -> Iterator[RawItem]:
    """Minimal pairs; phenomenon is `linguistics_term` (or `field`), tag is the paradigm's UID."""
    files = text_files(path, (".jsonl",), remedy=facts.origin)

    def items() -> Iterator[RawItem]:
        seen: set[str] = set()
        for file in files:
            for line, row in table_rows(file, columns=BLIMP_COLUMNS, remedy=facts.origin):
                where = f"{file.name}, line {line}"
                uid = text_field(row, "uid", where)
                id = f"{uid}-{row.get('pairid', line - 1)}"
                if id in seen:
                    raise DataError(f"{where}: pair '{id}' comes twice; remove one of the files")
                seen.add(id)
                yield RawItem(
                    item=Item(
                        id=id,
                        set=facts.task,
                        good=text_field(row, "sentencegood", where),
                        bad=text_field(row, "sentencebad", where),
                        pair=id,
                        tag=uid,
                        phenomenon=str(row.get("linguisticsterm") or row.get("field") or uid),
                    )
                )

    return items()


def story_items(stories: list[Story], facts: Facts) -> Iterator[RawItem]:
    """Stories as items: four sentences, right and wrong ending."""
    for story in stories:
        item = Item(
            id=story.id.replace("/", "_"),
            set=facts.task,
            prompt=story.prompt,
            good=story.good,
            bad=story.bad,
            pair=story.id.replace("/", "_"),
        )
        yield RawItem(item=item)


def swag_items(path: Path, facts: Facts) -> Iterator[RawItem]:
    """SWAG: context sent1 and the beginning sent2; tag is `gold-source` ("gold" found, "gen" written by a machine)."""
    for where, file, line, row in _questions(path, SWAG_COLUMNS, facts):
        prompt = " ".join(filter(None, (_maybe(row, name, where) for name in ("sent1", "sent2"))))
        endings = [text_field(row, f"ending{k}", where) for k in range(ENDINGS)]
        name = _question_id(file, line)
        yield from _right_against_wrong(name, prompt, endings, row, _maybe(row, "goldsource", where), where, facts)


def hellaswag_items(path: Path, facts: Facts) -> Iterator[RawItem]:
    """HellaSwag: activity and context; tag is `split_type`."""
    for where, file, line, row in _questions(path, HELLASWAG_COLUMNS, facts):
        raw = row["endings"]
        if not isinstance(raw, list) or len(raw) != ENDINGS or not all(isinstance(text, str) for text in raw):
            raise DataError(f"{where}: 'endings' is not a list of {ENDINGS} texts; correct the line")
        context = f"{_maybe(row, 'ctxa', where)} {_maybe(row, 'ctxb', where).capitalize()}"
        activity = _maybe(row, "activitylabel", where)
        prompt = _plain(f"{activity}: {context}" if activity else context)
        name = _question_id(file, row.get("ind", line))
        yield from _right_against_wrong(
            name, prompt, [_plain(text) for text in raw], row, _maybe(row, "splittype", where), where, facts
        )


def _maybe(row: dict[str, Any], name: str, where: str) -> str:
    """A field that may be empty or missing. Raises DataError if it is no text."""
    value = row.get(name) or ""
    if not isinstance(value, str):
        raise DataError(f"{where}: '{name}' is {value!r}, a text is needed; correct the line")
    return value.strip()


def _questions(
    path: Path, columns: tuple[str, ...], facts: Facts
) -> Iterator[tuple[str, TextFile, int, dict[str, Any]]]:
    for file in text_files(path, (".csv", ".tsv", ".jsonl"), remedy=facts.origin):
        for line, row in table_rows(file, columns=columns, remedy=facts.origin):
            yield f"{file.name}, line {line}", file, line, row


def _question_id(file: TextFile, number: object) -> str:
    """Example: "data/val.csv", 7 -> "data_val-7"."""
    return f"{file.name.removesuffix(file.suffix).replace('/', '_')}-{number}"


def _right_against_wrong(
    name: str, prompt: str, endings: list[str], row: dict[str, Any], tag: str, where: str, facts: Facts
) -> Iterator[RawItem]:
    label = str(row["label"]).strip()
    if label not in map(str, range(len(endings))):
        raise DataError(f"{where}: label = '{label}', allowed are 0 to {len(endings) - 1}; take a split with labels")
    if not prompt or not all(endings):
        raise DataError(f"{where}: the context or an ending is empty; correct the line")
    right = int(label)
    for number, ending in enumerate(endings):
        if number != right:
            yield RawItem(
                item=Item(
                    id=f"{name}-{number}",
                    set=facts.task,
                    prompt=" ".join(prompt.split()),
                    good=endings[right],
                    bad=ending,
                    pair=name,
                    tag=tag,
                )
            )


def _plain(text: str) -> str:
    """Without marks of WikiHow. Example: "Cut it. [step] Mix it." -> "Cut it. Mix it." """
    return " ".join(re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).split())
