"""Every benchmark we read, by name: what it is, where it comes from, which files it needs.

Enters: the name of a task, a path, options. Leaves: a `Source`, read but not checked. The one decision worth knowing:
a task fixes which candidate is right and which items are one observation (`pair`), and says where that stands in the
original data; how scores are compared is a protocol's matter, and `Facts.protocol` only names the usual one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import Source, Task
from speechscale.evals.benchmarks.readers.facts import FACTS, LAYOUTS
from speechscale.evals.benchmarks.readers.labelled import apart_items
from speechscale.evals.benchmarks.readers.numbered import SALMON_PARTS, salmon_items, slamkit_items
from speechscale.evals.benchmarks.readers.pairing import at_least_one, folders_with_recordings
from speechscale.evals.benchmarks.readers.pairs import pair_items
from speechscale.evals.benchmarks.readers.stories import read_stories, with_foreign_endings
from speechscale.evals.benchmarks.readers.storycloze import multi_speaker_items, storycloze_items
from speechscale.evals.benchmarks.readers.tables import TextFile
from speechscale.evals.benchmarks.readers.texts import blimp_items, hellaswag_items, story_items, swag_items
from speechscale.evals.benchmarks.readers.words import WordTimes
from speechscale.evals.benchmarks.readers.worlds import (
    DEFAULT_SETS,
    WORLD_OPTIONS,
    item_sets,
    names,
    number,
    world_config,
    world_items,
)
from speechscale.evals.benchmarks.readers.zerospeech import gold_folder, lexical_items, syntactic_items
from speechscale.skips import SkipLog


def swuggy(path: Path, *, split: str = "dev") -> Source:
    """sWUGGY: spoken word against spoken non-word; tag in_vocab or oov; voices of a pair share `pair`.

    Verified in zerospeech/benchmarks: `lexical/{dev,test}/gold.csv`, its columns, words and non-words joined on id and
    voice, frequency 0 is out of vocabulary. Not verified: the rows themselves.
    """
    facts, skips = replace(FACTS["swuggy"], version=f"ZeroSpeech 2021, {split}"), SkipLog()
    folder = gold_folder(Path(path), "lexical", split, facts)
    return Source(facts=facts, root=folder, items=lexical_items(folder, facts, skips), skips=skips)


def sblimp(path: Path, *, split: str = "dev") -> Source:
    """sBLIMP: grammatical against ungrammatical sentence, spoken; 12 phenomena, text from `transcription`.

    Verified in zerospeech/zerospeech2021: `syntactic/{dev,test}/gold.csv`, its columns, pairs grouped by type, subtype
    and id, mean over voices first. Not verified: the rows themselves.
    """
    facts, skips = replace(FACTS["sblimp"], version=f"ZeroSpeech 2021, {split}"), SkipLog()
    folder = gold_folder(Path(path), "syntactic", split, facts)
    return Source(facts=facts, root=folder, items=syntactic_items(folder, facts, skips), skips=skips)


def sstorycloze(path: Path, *, stories: str = "", word_times: str = "") -> Source:
    """Spoken StoryCloze in its original layout: joined recordings, scored whole unless text and word times are given.

    Verified: the stories are joined (its README). Not verified: names of the files; ID_correct / ID_incorrect and
    slamkit's numbers are read, anything else is refused.
    """
    return _storycloze("sstorycloze", Path(path), stories, word_times)


def tstorycloze(path: Path, *, stories: str = "", word_times: str = "") -> Source:
    """Topic StoryCloze in its original layout; `stories` must hold the foreign endings (pair_id, text, type, ...)."""
    return _storycloze("tstorycloze", Path(path), stories, word_times)


def _storycloze(name: str, path: Path, stories: str, word_times: str) -> Source:
    facts, skips = FACTS[name], SkipLog()
    if word_times and not stories:
        raise DataError(f"{name}: word_times alone do not say where the ending starts; give stories=TABLE as well")
    texts = read_stories(Path(stories)) if stories else None
    if name == "tstorycloze" and texts and not all(story.topical is not False for story in texts):
        raise DataError(
            f"{name}: {stories} has the wrong endings of StoryCloze itself; give the table of the topic set, with "
            "columns pair_id, text, type, correctness"
        )
    times = WordTimes(Path(word_times)) if word_times else None
    items = storycloze_items(path, texts, times, facts, skips)
    return Source(facts=facts, root=path, items=items, skips=skips)


def sstorycloze_ms(path: Path, *, word_times: str = "", unpack: str = "") -> Source:
    """Spoken StoryCloze in several voices: folders sSC/VOICE of Parquet, JSON lines or recordings.

    Verified: its card's subfolders and a public loader's fields (id, correct_text, correct_audio, negative_text,
    negative_audio). Not verified: that the texts are the whole stories; with word times, a text that is not what is
    said is skipped.
    """
    return _multi_speaker("sstorycloze_ms", "sSC", Path(path), word_times, unpack)


def tstorycloze_ms(path: Path, *, word_times: str = "", unpack: str = "") -> Source:
    """Topic StoryCloze in several voices: folders tSC/VOICE, as `sstorycloze_ms`."""
    return _multi_speaker("tstorycloze_ms", "tSC", Path(path), word_times, unpack)


def _multi_speaker(name: str, part: str, path: Path, word_times: str, unpack: str) -> Source:
    facts, skips = FACTS[name], SkipLog()
    data = path / part if (path / part).is_dir() else path
    if not data.is_dir():
        raise DataError(f"{path}: no such folder; {facts.origin}")
    voices = [child.name for child in sorted(data.iterdir()) if child.is_dir() and child.name != "audio"]
    if any(data.glob("*.parquet")) or any(data.glob("*.jsonl")) or folders_with_recordings(data) == [""]:
        voices = [""]
    if not voices:
        raise DataError(f"{data}: no folder of a voice in it; {facts.origin}")
    if unpack and not any(data.rglob("*.parquet")):
        raise DataError(f"{name}: unpack is for Parquet files, {data} has none; leave it away")
    root = Path(unpack) if unpack else data
    times = WordTimes(Path(word_times), by_name=len(voices) == 1) if word_times else None
    items = multi_speaker_items(data, voices, root, times, facts, skips)
    return Source(facts=facts, root=root, items=items, skips=skips)


def cross_modal(path: Path) -> Source:
    """Cross-modal StoryCloze: prompt and endings recorded apart, with their texts; folders are voices.

    Verified in slp-rl/slamkit (metric/cross_modal_metric.py): ID_mutual, ID_correct, ID_incorrect as .wav and .txt.
    """
    facts, skips = FACTS["cross_modal"], SkipLog()
    heard, items = apart_items(Path(path), facts, skips)
    return Source(facts=facts, root=Path(path) if heard else None, items=items, skips=skips)


def slamkit_pairs(path: Path, *, sep: str = "_") -> Source:
    """Any folder that slamkit reads: NUMBER_ANYTHING, the right recording first; '+' for its sBLIMP.

    Verified in slp-rl/slamkit (metric/modelling_metric.py): sorted by the leading number, files 2i right, 2i + 1 wrong.
    """
    if not sep:
        raise DataError("slamkit_pairs: sep is empty; give what stands behind the number, such as _ or +")
    facts, skips = FACTS["slamkit_pairs"], SkipLog()
    return Source(facts=facts, root=Path(path), items=slamkit_items(Path(path), sep, facts, skips), skips=skips)


def salmon(path: Path, *, parts: str = "all") -> Source:
    """SALMon: acoustic consistency and alignment; eight sets, no text.

    Verified in slp-rl/salmon (salmon.py): its folders, sample_<i>_<k>.wav, the first of each i is right.
    """
    facts, skips = FACTS["salmon"], SkipLog()
    chosen = SALMON_PARTS if parts == "all" else names(parts)
    return Source(facts=facts, root=Path(path), items=salmon_items(Path(path), chosen, facts, skips), skips=skips)


def blimp(path: Path) -> Source:
    """BLiMP: minimal pairs as text, out of a folder, a file or a zip of JSON lines; a voice makes sBLIMP-like sets.

    Verified on six of its paradigms: fields, 1,000 pairs each.
    """
    facts, skips = FACTS["blimp"], SkipLog()
    return Source(facts=facts, root=None, items=at_least_one(blimp_items(Path(path), facts), facts, skips), skips=skips)


def cloze(path: Path, *, topic: str = "false", seed: str = "0") -> Source:
    """StoryCloze as text; topic=true takes each wrong ending from another story, as TWIST did for its topic set.

    Verified: columns of the 2016 table in several public readers of it.
    """
    if topic not in ("true", "false"):
        raise DataError(f"cloze: topic = '{topic}', allowed are true and false")
    facts, skips, stories = FACTS["cloze"], SkipLog(), read_stories(Path(path))
    if topic == "true":
        drawn = int(number("seed", seed))
        if drawn < 0:
            raise DataError(f"cloze: seed = {drawn}, a whole number of at least 0 is needed")
        stories = with_foreign_endings(stories, drawn)
        facts = replace(facts, title="Topic StoryCloze, text", version=f"{facts.version}, topic endings of seed {seed}")
    return Source(facts=facts, root=None, items=story_items(stories, facts), skips=skips)


def swag(path: Path) -> Source:
    """SWAG as text: the right ending against each of the three wrong ones; the question is `pair`.

    Verified: fields of config "regular" on its card.
    """
    facts, skips = FACTS["swag"], SkipLog()
    return Source(facts=facts, root=None, items=at_least_one(swag_items(Path(path), facts), facts, skips), skips=skips)


def hellaswag(path: Path) -> Source:
    """HellaSwag as text, as `swag`. Verified in slp-rl/slamkit (metric/textual_metric.py): its fields."""
    facts, skips, items = FACTS["hellaswag"], SkipLog(), hellaswag_items(Path(path), FACTS["hellaswag"])
    return Source(facts=facts, root=None, items=at_least_one(items, facts, skips), skips=skips)


def pairs(path: Path, *, audio_root: str = "") -> Source:
    """Your own pairs, one JSON object per line; see docs/tasks.md for the fields."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"pairs: {path} is not a file; give a .jsonl file with one pair per line")
    facts, skips = replace(FACTS["pairs"], title=f"Pairs of {path.name}"), SkipLog()
    root = Path(audio_root) if audio_root else path.parent
    items = pair_items(TextFile(path=path, name=path.name), root, facts, skips)
    return Source(facts=facts, root=root, items=items, skips=skips)


def storyworld(
    path: Path | None = None, *, sets: str = ",".join(DEFAULT_SETS), pairs: str = "200", **world: str
) -> Source:
    """The storyworld's own sets, as symmetric pairs; `path` is not read, options are those of the world."""
    item_seed = int(number("item_seed", world.pop("item_seed", world.get("seed", "0"))))
    config, chosen, count = world_config(world), item_sets(sets), int(number("pairs", pairs))
    settings = ", ".join(f"{name} {getattr(config, name)}" for name in WORLD_OPTIONS)
    facts, skips = replace(FACTS["storyworld"], version=f"1: {settings}; items of seed {item_seed}"), SkipLog()
    return Source(facts=facts, root=None, items=world_items(config, chosen, count, item_seed), skips=skips)


def _task(read: Callable[..., Source], about: str, **options: str) -> Task:
    name = read.__name__
    return Task(
        name=name,
        about=about,
        paper=FACTS[name].paper,
        read=read,
        options=options,
        example_layout=f"{LAYOUTS[name]}. {FACTS[name].origin[0].upper()}{FACTS[name].origin[1:]}.",
        chance=FACTS[name].chance,
    )


_SPLIT = "dev (default) or test, if its gold.csv is there"
_TIMES = "folder (or file) with word times of the recordings, in any format we read; parts prompt and ending"
_TIMES_MS = f"{_TIMES}; named VOICE/... as the recordings are"
_STORIES = "table with the stories' texts, see task cloze, or pair_id, text, type, correctness"
_UNPACK = "where sound out of Parquet is written; default: beside the data"
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _task(swuggy, "spoken words against non-words", split=_SPLIT),
        _task(sblimp, "spoken grammar, 12 phenomena", split=_SPLIT),
        _task(sstorycloze, "spoken stories, right or wrong ending", stories=_STORIES, word_times=_TIMES),
        _task(tstorycloze, "spoken stories, ending on topic or not", stories=_STORIES, word_times=_TIMES),
        _task(sstorycloze_ms, "sstorycloze in several voices", word_times=_TIMES_MS, unpack=_UNPACK),
        _task(tstorycloze_ms, "tstorycloze in several voices", word_times=_TIMES_MS, unpack=_UNPACK),
        _task(cross_modal, "stories as prompt and ending, each spoken and written"),
        _task(slamkit_pairs, "numbered pairs of recordings, as slamkit reads them", sep="behind the number: _ or +"),
        _task(salmon, "sound: speaker, gender, room, background, sentiment", parts="all, or names with + between them"),
        _task(blimp, "written grammar, 67 paradigms; any voice can speak it"),
        _task(
            cloze,
            "written stories; any voice can speak them",
            topic="true: wrong endings come from other stories",
            seed="of the draw of other stories; default 0",
        ),
        _task(swag, "written situations, four endings as three pairs"),
        _task(hellaswag, "written situations and instructions, four endings as three pairs"),
        _task(
            pairs, "any pairs, text or sound or both", audio_root="folder of the recordings; default: that of the file"
        ),
        _task(
            storyworld,
            "the storyworld's own sets, in symmetric pairs",
            sets=f"names with + between them; default {'+'.join(DEFAULT_SETS)}; also words",
            pairs="of each set; default 200",
            item_seed="of the draw of items; default: seed",
            **dict.fromkeys(WORLD_OPTIONS, "of the world, see docs/storyworld.md"),
        ),
    )
}
