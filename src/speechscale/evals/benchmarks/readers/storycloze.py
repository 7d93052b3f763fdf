"""Spoken StoryCloze: recordings in which prompt and ending are one, in one voice or several.

Enters: the released folders, or the Parquet files of the multi-speaker set. Leaves: `RawItem`s of joined recordings.
The one decision worth knowing: a joined recording cannot be cut without word times, so its item has no prompt and is
scored whole, as its papers do; with word times and the story's text, prompt and ending part.

Source: slp-rl/SpokenStoryCloze says that the stories are joined; how its archives name the files is not documented.
slamkit reads them by leading number, tiagoCuervo/slm_scaling by _correct and _incorrect; both are read here. Fields and
folders of slprl/multispeaker-storycloze (sSC/bm, ...; id, correct_text, correct_audio, negative_text, negative_audio):
its card and a public loader.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from speechscale.corpus.sentences import split_sentences
from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import Clip, Facts, RawItem
from speechscale.evals.benchmarks.readers.labelled import labelled_recordings, role_of
from speechscale.evals.benchmarks.readers.numbered import numbered_pairs
from speechscale.evals.benchmarks.readers.pairing import at_least_one, list_recordings
from speechscale.evals.benchmarks.readers.stored import stored_stories
from speechscale.evals.benchmarks.readers.stories import Story
from speechscale.evals.benchmarks.readers.words import WordTimes, spoken_story
from speechscale.records import Item
from speechscale.skips import SkipLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A story with two recordings below the root; its text is None where it is not known."""

    id: str
    good: str
    bad: str
    story: Story | None = None


def recorded_items(
    recorded: Iterator[Recorded], voice: str, times: WordTimes | None, facts: Facts, skips: SkipLog
) -> Iterator[RawItem]:
    """Items of one voice: cut by words where times and text are known, whole otherwise."""
    for entry in recorded:
        name = f"{voice}-{entry.id}" if voice else entry.id
        item = Item(id=name, set=facts.task, pair=entry.id, speaker=voice)
        raw = RawItem(item=item, good=Clip(path=entry.good), bad=Clip(path=entry.bad))
        if entry.story is None:
            yield raw
        elif times is None or not entry.story.prompt:
            yield replace(raw, item=replace(item, good=_whole(entry.story, "good"), bad=_whole(entry.story, "bad")))
        else:
            timed = _timed(raw, entry, entry.story, times)
            if isinstance(timed, str):
                skips.add(name, timed, "align its recording with the story's text")
            else:
                yield timed


def _timed(raw: RawItem, entry: Recorded, story: Story, times: WordTimes) -> RawItem | str:
    """The item with prompt, endings and word times, or why that cannot be."""
    good = spoken_story(story.prompt, story.good, times.of(entry.good))
    bad = spoken_story(story.prompt, story.bad, times.of(entry.bad))
    if isinstance(good, str) or isinstance(bad, str):
        return f"good candidate: {good}" if isinstance(good, str) else f"bad candidate: {bad}"
    item = replace(raw.item, prompt=story.prompt, good=story.good, bad=story.bad)
    return replace(raw, item=item, good_words=good, bad_words=bad)


def _whole(story: Story, side: str) -> str:
    return f"{story.prompt} {getattr(story, side)}".strip()


def folder_stories(
    root: Path, folder: str, stories: list[Story] | None, facts: Facts, skips: SkipLog
) -> Iterator[Recorded]:
    """Pairs of one folder: by ID_correct / ID_incorrect where names have such words, else by number.

    Raises:
        DataError: no recording, numbers that pair nothing, or stories that do not fit the recordings.
    """
    stems = list_recordings(root, folder)
    roles = {path: found[1] for stem, path in stems.items() if (found := role_of(stem))}
    if stems and not roles:
        pairs = numbered_pairs(root, folder, "_", facts)
    else:
        alone = SkipLog()
        pairs = _labelled_pairs(root, folder, facts, alone)
        if roles and not pairs and (numbered := _numbered_with_labels(root, folder, roles, facts)):
            pairs, alone = numbered, SkipLog()
        skips.skips.extend(alone)
    texts = _by_recording([id for id, _, _ in pairs], stories) if stories else {}
    for id, good, bad in pairs:
        yield Recorded(id=id, good=good, bad=bad, story=texts.get(id))


def _labelled_pairs(root: Path, folder: str, facts: Facts, skips: SkipLog) -> list[tuple[str, str, str]]:
    pairs = []
    for id, roles in labelled_recordings(root, folder, skips).items():
        if lost := [role for role in ("good", "bad") if role not in roles]:
            skips.add(id, f"there is no {lost[0]} recording ({', '.join(roles.values())} is alone)", facts.origin)
        else:
            pairs.append((id, roles["good"], roles["bad"]))
    return pairs


def _numbered_with_labels(root: Path, folder: str, roles: dict[str, str], facts: Facts) -> list[tuple[str, str, str]]:
    """0_correct, 1_incorrect, 2_correct, ...: every number once, so numbers pair and labels must agree with them."""
    try:
        pairs = numbered_pairs(root, folder, "_", facts)
    except DataError:
        return []
    for _, good, bad in pairs:
        if (roles.get(good), roles.get(bad)) != ("good", "bad"):
            raise DataError(f"{root / folder}: {good} and {bad} are a pair by number, their labels say otherwise")
    return pairs


def _by_recording(ids: list[str], stories: list[Story]) -> dict[str, Story]:
    """Stories by the id in their recordings' names: the story's own, or its row counted from 0."""
    by_id = {story.id: story for story in stories}
    if all(id in by_id for id in ids):
        return by_id
    if all(id.isdigit() and int(id) < len(stories) for id in ids):
        return {id: stories[int(id)] for id in ids}
    stray = next(id for id in ids if id not in by_id)
    raise DataError(
        f"stories: recording '{stray}' is neither the id of one of {len(stories)} stories nor a row from 0 to "
        f"{len(stories) - 1}; give the table these recordings were spoken from"
    )


def voice_stories(data: Path, voice: str, root: Path, facts: Facts, skips: SkipLog) -> Iterator[Recorded]:
    """One voice of the multi-speaker set: Parquet or JSON lines with texts, or recordings alone."""
    if any((data / voice).glob("*.parquet")) or any((data / voice).glob("*.jsonl")):
        for id, good_text, bad_text, good, bad in stored_stories(data, voice, root, skips):
            yield Recorded(id=id, good=good, bad=bad, story=parted(id, good_text, bad_text))
    else:
        yield from folder_stories(data, voice, None, facts, skips)


def parted(id: str, good: str, bad: str) -> Story | None:
    """Two whole stories as one prompt and two endings: they part at the first sentence that differs.

    Example: "He ran. He won.", "He ran. He lost." -> prompt "He ran.", good "He won.", bad "He lost."
    """
    if not good or not bad:
        return None
    sides = split_sentences(good), split_sentences(bad)
    shared = 0
    while shared < min(map(len, sides)) - 1 and sides[0][shared] == sides[1][shared]:
        shared += 1
    return Story(
        id=id,
        prompt=" ".join(sides[0][:shared]),
        good=" ".join(sides[0][shared:]),
        bad=" ".join(sides[1][shared:]),
    )


def storycloze_items(
    root: Path, stories: list[Story] | None, times: WordTimes | None, facts: Facts, skips: SkipLog
) -> Iterator[RawItem]:
    """The original set: one voice, one folder."""
    return at_least_one(
        recorded_items(folder_stories(root, "", stories, facts, skips), "", times, facts, skips), facts, skips
    )


def multi_speaker_items(
    data: Path, voices: list[str], root: Path, times: WordTimes | None, facts: Facts, skips: SkipLog
) -> Iterator[RawItem]:
    """The multi-speaker set: a folder per voice; the voices of a story share `pair`."""

    def items() -> Iterator[RawItem]:
        for voice in voices:
            yield from recorded_items(voice_stories(data, voice, root, facts, skips), voice, times, facts, skips)

    return at_least_one(items(), facts, skips)
