"""Pairs that are told by numbers in their names: slamkit's folders, SALMon's parts.

Enters: folders of recordings. Leaves: `RawItem`s without text. The one decision worth knowing: slamkit sorts names by
their leading number and takes every second one as right, so that equal numbers give random labels and one missing file
shifts all later pairs; here a pair is (2i, 2i + 1) from the smallest number on, and anything else is refused.

Source: ModellingMetricDataset and SalmonDataset of slp-rl/slamkit (metric/modelling_metric.py) and slp-rl/salmon
(salmon.py): names split at '_' (sBLIMP '+'); SALMon's are sample_<i>_<k>.wav in eight folders, the first of each i is
the right one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import Clip, Facts, RawItem
from speechscale.evals.benchmarks.readers.pairing import (
    Half,
    at_least_one,
    folders_with_recordings,
    list_recordings,
    pair_up,
)
from speechscale.records import Item
from speechscale.skips import SkipLog

SALMON_PARTS = (
    "bg_alignment",
    "bg_all_consistency",
    "bg_domain_consistency",
    "gender_consistency",
    "rir_consistency",
    "sentiment_alignment",
    "sentiment_consistency",
    "speaker_consistency",
)
_SAMPLE = re.compile(r"sample_(\d+)_(\d+)")
_LABELLED = re.compile(r"(?i)(in)?correct|negative|positive|good|bad|wrong|right")


def numbered_pairs(root: Path, folder: str, separator: str, facts: Facts) -> list[tuple[str, str, str]]:
    """(pair, path of the right recording, path of the wrong one) of one folder, by number.

    Raises:
        DataError: a name without leading number, a number that comes twice, or one whose partner is missing.
    """
    by_number: dict[int, str] = {}
    for stem, path in list_recordings(root, folder).items():
        head = stem.split(separator)[0]
        if not (head.isascii() and head.isdigit()):
            raise DataError(
                f"{path}: no number in front of '{separator}'; names are NUMBER{separator}ANYTHING, the right "
                "recording first"
            )
        if (number := int(head)) in by_number:
            hint = "; the names say which is right: read them with task sstorycloze" if _LABELLED.search(stem) else ""
            raise DataError(
                f"{path}: number {number} also stands in {PurePosixPath(by_number[number]).name}; equal numbers have "
                f"no order, so the labels would be random; number them 0, 1, 2, ... with the right one first{hint}"
            )
        by_number[number] = path
    if not by_number:
        raise DataError(f"{root / folder}: no recording in it; {facts.origin}")
    first = min(by_number)
    alone = [number for number in by_number if (number - first) % 2 == 0 and number + 1 not in by_number]
    alone += [number for number in by_number if (number - first) % 2 == 1 and number - 1 not in by_number]
    if alone:
        number = min(alone)
        raise DataError(
            f"{by_number[number]}: {len(by_number)} recordings from number {first} on, and number {number} has no "
            f"partner ({len(alone)} have none); a lost file would shift every later pair; put it back or remove "
            "both of its pair"
        )
    # Counted from 0 or 1, whichever the numbers begin at: a pair that was removed does not rename those behind it.
    start = first % 2
    return [
        (str((number - start) // 2), by_number[number], by_number[number + 1])
        for number in sorted(by_number)
        if (number - first) % 2 == 0
    ]


def slamkit_items(root: Path, separator: str, facts: Facts, skips: SkipLog) -> Iterator[RawItem]:
    """Pairs of the folder, or of each folder in it (then its name is the speaker)."""
    pairs = [
        (folder, pair)
        for folder in folders_with_recordings(root)
        for pair in numbered_pairs(root, folder, separator, facts)
    ]

    def items() -> Iterator[RawItem]:
        for folder, (number, good, bad) in pairs:
            name = f"{folder}-{number}" if folder else number
            item = Item(id=name, set=facts.task, pair=number if folder else name, speaker=folder)
            yield RawItem(item=item, good=Clip(path=good), bad=Clip(path=bad))

    return at_least_one(items(), facts, skips)


def salmon_items(root: Path, parts: tuple[str, ...], facts: Facts, skips: SkipLog) -> Iterator[RawItem]:
    """SALMon: each part is a set of its own.

    Raises:
        DataError: a part is unknown or not there.
    """
    unknown = [part for part in parts if part not in SALMON_PARTS]
    if unknown:
        raise DataError(f"salmon: no part {', '.join(unknown)}; allowed are {', '.join(SALMON_PARTS)}")
    lacking = [part for part in parts if not (root / part).is_dir()]
    if lacking:
        raise DataError(
            f"{root}: {len(lacking)} of {len(parts)} parts are missing: {', '.join(lacking)}; {facts.origin}, or name "
            "the parts you have with parts=..."
        )

    def halves(part: str) -> Iterator[Half]:
        numbers: dict[str, list[tuple[int, str]]] = {}
        for stem, path in list_recordings(root, part).items():
            if (match := _SAMPLE.fullmatch(stem)) is None:
                skips.add(path, "its name is not sample_<i>_<k>", "remove it, or name it as the benchmark does")
            else:
                numbers.setdefault(match[1], []).append((int(match[2]), path))
        for sample, found in numbers.items():
            for place, (_, path) in enumerate(sorted(found)):
                yield Half(f"{part}-{sample}", "good" if place == 0 else "bad", (path,), path)

    def items() -> Iterator[RawItem]:
        for part in parts:
            for id, good, bad in pair_up(halves(part), skips, facts.origin):
                item = Item(id=id, set=part, pair=id)
                yield RawItem(item=item, good=Clip(path=good.value[0]), bad=Clip(path=bad.value[0]))

    return at_least_one(items(), facts, skips)
