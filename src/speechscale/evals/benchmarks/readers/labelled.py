"""Recordings that are told apart by words in their names: ID_correct, ID_incorrect, ID_mutual.

Enters: folders of recordings. Leaves: paths by id and role, and `RawItem`s of prompts and endings recorded apart.
The one decision worth knowing: the role is the last word of the name, or the name of the folder, out of a fixed list; a
name without one is skipped and written down.

Source: slp-rl/slamkit (metric/cross_modal_metric.py): ID_mutual, ID_correct and ID_incorrect, each as .wav and .txt.
tiagoCuervo/slm_scaling (slm/evaluate.py) names candidates ID_correct and ID_incorrect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import Clip, Facts, RawItem
from speechscale.evals.benchmarks.readers.pairing import at_least_one, folders_with_recordings, list_recordings
from speechscale.records import Item
from speechscale.skips import SkipLog

GOOD = ("correct", "positive", "pos", "good", "right")
BAD = ("incorrect", "negative", "neg", "bad", "wrong")
ROLES = {"mutual": "prompt", "prompt": "prompt", **dict.fromkeys(GOOD, "good"), **dict.fromkeys(BAD, "bad")}
_NAME = re.compile(r"(.+)[_+-]([^_+-]+)")
_PARTS = ("prompt", "good", "bad")


def role_of(stem: str) -> tuple[str, str] | None:
    """Id and role out of a name. Example: "17_incorrect" -> ("17", "bad"); "17" -> None"""
    match = _NAME.fullmatch(stem)
    if match is None or match[2].casefold() not in ROLES:
        return None
    return match[1], ROLES[match[2].casefold()]


def labelled_recordings(root: Path, folder: str, skips: SkipLog) -> dict[str, dict[str, str]]:
    """Id -> role -> path of the recordings of one folder.

    A folder without recordings but with folders named by a role (correct/17.wav, incorrect/17.wav) is read as well.

    Raises:
        DataError: two recordings have the same id and role.
    """
    named: list[tuple[str, str, str]] = []
    for stem, path in list_recordings(root, folder).items():
        if (found := role_of(stem)) is None:
            skips.add(path, "its name does not say whether it is right or wrong", "name it ID_correct or ID_incorrect")
        else:
            named.append((*found, path))
    if not named:
        for inner in sorted(child.name for child in (root / folder).iterdir() if child.is_dir()):
            if role := ROLES.get(inner.casefold()):
                below = list_recordings(root, f"{folder}/{inner}" if folder else inner)
                named += [(stem, role, path) for stem, path in below.items()]
    items: dict[str, dict[str, str]] = {}
    for id, role, path in named:
        roles = items.setdefault(id, {})
        if role in roles:
            raise DataError(f"{path}: {roles[role]} is the {role} recording of '{id}' already; remove one")
        roles[role] = path
    return items


@dataclass(slots=True)
class _Apart:
    sounds: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def apart_items(root: Path, facts: Facts, skips: SkipLog) -> tuple[bool, Iterator[RawItem]]:
    """Prompt and endings recorded apart, with their texts; whether there are recordings, and the items.

    Without any recording the texts alone are items, to be spoken by a voice.

    Raises:
        DataError: neither recordings nor texts with these names.
    """
    folders = folders_with_recordings(root) or [""]
    heard = any(list_recordings(root, folder) for folder in folders)

    def items() -> Iterator[RawItem]:
        for folder in folders:
            for id, parts in _parts(root, folder, skips).items():
                name = f"{folder}-{id}" if folder else id
                if problem := _problem(parts, heard=heard):
                    skips.add(name, problem, facts.origin)
                    continue
                clips = {role: Clip(path=path) for role, path in parts.sounds.items()}
                prompt, good, bad = (parts.texts.get(role, "") for role in _PARTS)
                yield RawItem(
                    item=Item(id=name, set=facts.task, prompt=prompt, good=good, bad=bad, pair=id, speaker=folder),
                    prompt=clips.get("prompt"),
                    good_ending=clips.get("good"),
                    bad_ending=clips.get("bad"),
                )

    return heard, at_least_one(items(), facts, skips)


def _parts(root: Path, folder: str, skips: SkipLog) -> dict[str, _Apart]:
    parts: dict[str, _Apart] = {}
    for id, roles in labelled_recordings(root, folder, skips).items():
        parts.setdefault(id, _Apart()).sounds = roles
    for file in sorted((root / folder).glob("*.txt")):
        if found := role_of(file.stem):
            parts.setdefault(found[0], _Apart()).texts[found[1]] = _text(file)
    return parts


def _problem(parts: _Apart, *, heard: bool) -> str:
    """Why the parts make no item, or ""."""
    lost = [f"{role}.wav" for role in _PARTS if heard and role not in parts.sounds]
    lost += [f"{role}.txt" for role in _PARTS if (parts.texts or not heard) and role not in parts.texts]
    empty = [f"{role}.txt" for role, text in parts.texts.items() if not text]
    if lost:
        return f"{', '.join(lost)} missing (mutual is the prompt, correct the good ending, incorrect the bad one)"
    return f"{', '.join(empty)} empty" if empty else ""


def _text(file: Path) -> str:
    try:
        return " ".join(file.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 ({error.reason}); convert it to UTF-8") from error
