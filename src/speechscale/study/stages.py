"""The steps before training: a corpus, its text side, a tokenizer of speech, units, token stores, a vocoder.

Enters: a step's config and the folders of its inputs. Leaves: files in `out` and a small result for the record.
The one decision worth knowing: audio of a storyworld is never stored; every step that needs it speaks it again, which
is some 400 times faster than real time and bit-identical.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from speechscale.corpus.encode import FileLoader, Loader, VoiceLoader, encode_corpus
from speechscale.corpus.imported import open_corpus
from speechscale.corpus.items import items
from speechscale.corpus.readers import read_folder
from speechscale.corpus.stories import Story, split_sentences, stories, story_text
from speechscale.corpus.tables import read_items, read_utterances, write_items, write_utterances
from speechscale.corpus.unit_corpus import fit_units
from speechscale.corpus.world import build_world
from speechscale.errors import DataError
from speechscale.evals.layouts import item_utterances
from speechscale.records import Item, UnitTable, Utterance, concat_tables
from speechscale.skips import SkipLog
from speechscale.speech.encoders.presets import encoder_of
from speechscale.speech.units import (
    SpeechTokenizer,
    phone_tokenizer,
    read_units,
    write_units,
)
from speechscale.study.corpora_spec import Corpus, FolderCorpus, ImportedCorpus, StoryworldCorpus
from speechscale.study.spec import (
    Subwords,
    Text,
    Units,
)
from speechscale.study.worlds import unseen_voices, voice_at, voices_of, world_config
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.store import build_store
from speechscale.tokens.subwords_training import train_subwords
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from speechscale.voices.espeak import phone_inventory

SPLITS = ("train", "select", "test")
RunnableCorpus = StoryworldCorpus | FolderCorpus | ImportedCorpus
SECONDS_PER_STORY = 6.6
"""Mean length of a spoken story; only turns hours into a number of stories, the hours reported are measured."""


def corpus_of(config: dict[str, Any]) -> RunnableCorpus:
    """The corpus section of a step's config. Raises DataError for one that can only be planned."""
    corpus: Any = TypeAdapter(Corpus).validate_python(config["corpus"])
    if corpus.kind == "inventory":
        raise DataError(
            f"corpus '{corpus.name}' lists sizes for planning only; to run this study give it audio: "
            "[corpus] kind = 'folder', path = '...'"
        )
    return corpus


def make_corpus(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Write utterances.parquet (what is said) and texts.parquet (what is only read)."""
    corpus = corpus_of(config)
    skips = SkipLog()
    texts: Iterable[tuple[str, str, str]]
    spoken: Iterable[Utterance]
    if isinstance(corpus, StoryworldCorpus):
        spoken, texts = _storyworld(corpus, config["seed"])
    else:
        spoken = _recorded(corpus, config["seed"], skips)
        texts = ((u.id, u.text, u.split) for u in read_utterances(out / "utterances.parquet"))
    write_utterances(out / "utterances.parquet", spoken)
    count = _write_texts(out / "texts.parquet", texts)
    skips.write(out / "skips.jsonl")
    found = Counter(u.split for u in read_utterances(out / "utterances.parquet"))
    splits = {name: found.pop(name, 0) for name in SPLITS}
    missing = [name for name, utterances in splits.items() if not utterances]
    if missing or found:
        raise DataError(
            f"corpus '{corpus.name}': splits {dict(splits)}, others {dict(found)}; a study needs utterances in train, "
            "select and test: speechscale corpus split"
        )
    return {
        "utterances": splits,
        "texts": count,
        "dropped": len(skips),
        "note": f"{splits['train']} spoken, {count} read",
    }


def _recorded(corpus: FolderCorpus | ImportedCorpus, seed: int, skips: SkipLog) -> Iterator[Utterance]:
    if isinstance(corpus, ImportedCorpus):
        return open_corpus(Path(corpus.path)).utterances()
    return read_folder(
        Path(corpus.path),
        alignments=corpus.alignments,
        tier=corpus.tier or None,
        ids=corpus.ids,
        splits=corpus.splits,
        seed=seed,
        on_skip=skips.add,
    )


def _storyworld(corpus: StoryworldCorpus, seed: int) -> tuple[list[Utterance], Iterator[tuple[str, str, str]]]:
    world = build_world(world_config(corpus, seed))
    counts = {
        "train": max(1, round(corpus.speech_hours * 3600 / SECONDS_PER_STORY)),
        "select": corpus.select_stories,
        "test": corpus.test_stories,
    }

    def told(split: str, channel: str, count: int) -> Iterator[Story]:
        return stories(world, count, split=split, channel=channel, seed=seed)

    spoken = [
        Utterance(
            id=f"speech-{split}-{index:06d}",
            text=story_text(story),
            speaker=voice_at(corpus, split, index),
            split=split,
            segments=story.segments,
        )
        for split, count in counts.items()
        for index, story in enumerate(told(split, "speech", count))
    ]
    read = (
        (f"text-{split}-{index:06d}", story_text(story), split)
        for split, count in {**counts, "train": corpus.text_stories}.items()
        for index, story in enumerate(told(split, "text", count))
    )
    return spoken, read


def _write_texts(path: Path, texts: Iterable[tuple[str, str, str]]) -> int:
    """Stream (id, text, split) rows to Parquet, a block at a time; return their number."""
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("split", pa.string())])
    count, rows = 0, iter(texts)
    with pq.ParquetWriter(path, schema) as writer:
        while block := list(islice(rows, 10_000)):
            columns = dict(zip(schema.names, map(list, zip(*block, strict=True)), strict=True))
            writer.write_table(pa.table(columns, schema=schema))
            count += len(block)
    return count


def read_texts(path: Path, split: str) -> Iterator[str]:
    """Texts of one split, streamed."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["text", "split"]):
            columns = batch.to_pydict()
            yield from (t for t, s in zip(columns["text"], columns["split"], strict=True) if s == split)


def make_items(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Write items.parquet: the forced choices, each pair given to one unseen voice."""
    corpus = corpus_of(config)
    assert isinstance(corpus, StoryworldCorpus)
    world = build_world(world_config(corpus, config["seed"]))
    voices = unseen_voices(corpus.item_voices)
    made: list[Item] = []
    for name, count in config["sets"].items():
        made += items(world, name, count, seed=config["seed"])
    pairs = {pair: index for index, pair in enumerate(dict.fromkeys(item.pair for item in made))}
    write_items(out / "items.parquet", [replace(item, speaker=voices[pairs[item.pair] % len(voices)]) for item in made])
    return {"items": len(made), "voices": voices}


def make_tokenizer(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Fit the speech tokenizer on the first hours of training speech, or write the oracle's label list."""
    units, corpus = Units.model_validate(config["units"]), corpus_of(config)
    if units.oracle:
        assert isinstance(corpus, StoryworldCorpus)
        names = voices_of(corpus) + unseen_voices(corpus.item_voices)
        tokenizer = phone_tokenizer(phone_inventory(names))
    elif units.tokenizer:
        tokenizer = SpeechTokenizer.load(units.tokenizer)
    else:
        train = [u for u in read_utterances(_only(inputs) / "utterances.parquet") if u.split == "train"]
        tokenizer = fit_units(
            _spread(train),
            loader=loader_of(corpus),
            encoder=units.encoder,
            clusters=units.clusters,
            hours=units.fit_hours,
            seed=config["seed"],
            encoder_config=units.settings,
        )
    if not units.oracle:
        _check_tokenizer(units, tokenizer)
    tokenizer.save(out)
    return {"num_units": tokenizer.num_units, "frame_rate_hz": tokenizer.frame_rate_hz, "oracle": tokenizer.oracle}


def _check_tokenizer(units: Units, tokenizer: SpeechTokenizer) -> None:
    """Hold a tokenizer to what the study file says. Raises DataError naming the field."""
    for field, stated, found in (
        ("encoder", encoder_of(units.encoder, {})[0], tokenizer.encoder_name),
        ("clusters", units.clusters, tokenizer.num_units),
        ("frame_rate_hz", units.frame_rate_hz, tokenizer.frame_rate_hz),
    ):
        if stated != found:
            raise DataError(f"units.{field} is {stated}, but the tokenizer has {found}; correct the study file")


def _spread(utterances: Sequence[Utterance]) -> list[Utterance]:
    """A fixed shuffle, so that the first hours hold every speaker."""
    order = np.random.default_rng(0).permutation(len(utterances))
    return [utterances[i] for i in order]


def _only(inputs: dict[str, Path], prefix: str = "") -> Path:
    found = [path for name, path in inputs.items() if name.startswith(prefix)]
    assert len(found) == 1, (prefix, list(inputs))
    return found[0]


def make_units(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Speak or read one shard of a corpus and write its units.parquet; bad utterances go to skips.jsonl."""
    total = pq.read_metadata(_only(inputs, "corpus/") / "utterances.parquet").num_rows
    first, last = (total * (config["shard"] + k) // config["shards"] for k in (0, 1))
    utterances = islice(read_utterances(_only(inputs, "corpus/") / "utterances.parquet"), first, last)
    return _encode(list(utterances), inputs, loader_of(corpus_of(config)), out)


def make_item_units(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Speak both candidates of every item and write their units."""
    chosen = read_items(_only(inputs, "items/") / "items.parquet")
    return _encode(item_utterances(chosen, split_sentences), inputs, VoiceLoader(), out)


def loader_of(corpus: RunnableCorpus) -> Loader:
    """Where the audio of a corpus comes from."""
    if isinstance(corpus, StoryworldCorpus):
        return VoiceLoader()
    if isinstance(corpus, ImportedCorpus):
        return open_corpus(Path(corpus.path)).loader()
    return FileLoader(root=Path(corpus.path))


def _encode(utterances: Sequence[Utterance], inputs: dict[str, Path], loader: Loader, out: Path) -> dict[str, Any]:
    tokenizer = SpeechTokenizer.load(_only(inputs, "tokenizer/"))
    skips = SkipLog()
    table = encode_corpus(utterances, tokenizer, loader=loader, skips=skips)
    skips.write(out / "skips.jsonl")
    write_units(out / "units.parquet", table, tokenizer.fingerprint)
    return {
        "read": len(utterances),
        "kept": len(table),
        "dropped": len(skips),
        "hours": table.hours,
        "units": len(table.units),
        "note": f"{table.hours:.2f} h, {len(skips)} dropped",
    }


def make_text(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Build the text tokenizer and the token stores of the text that is read, one per split."""
    text = Text.model_validate(config["text"])
    source = _only(inputs) / "texts.parquet"
    tokenizer = build_text_tokenizer(read_texts(source, "train"), kind=text.tokenizer, size=text.size)
    vocabulary = Vocabulary.text_only(tokenizer)
    vocabulary.save(out / "vocabulary")
    stores = {split: build_store(out / split, vocabulary, texts=read_texts(source, split)) for split in SPLITS}
    return {"text_size": vocabulary.text_size, "text_tokens": stores["train"].counts["text_tokens"]}


def load_tables(inputs: dict[str, Path], tokenizer: SpeechTokenizer) -> UnitTable:
    """All unit shards among the inputs, joined in order."""
    shards = sorted((name, path) for name, path in inputs.items() if name.startswith("units/"))
    return concat_tables([read_units(path / "units.parquet", tokenizer.fingerprint) for _, path in shards])


def make_tokens(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Build the vocabularies of all arms, and per split one token store that serves them all."""
    tokenizer = SpeechTokenizer.load(_only(inputs, "tokenizer/"))
    table = load_tables(inputs, tokenizer)
    text_only = Vocabulary.load(_only(inputs, "text/") / "vocabulary")
    joint = text_only.with_units(tokenizer.num_units)
    textless = Vocabulary.textless(tokenizer.num_units)
    joint.save(out / "joint")
    textless.save(out / "textless")
    texts = _only(inputs, "corpus/") / "texts.parquet"
    tables = {split: table.split(split) for split in SPLITS}
    empty = [split for split, part in tables.items() if not len(part)]
    if empty:
        raise DataError(
            f"no utterance is left in split '{empty[0]}' after dropping the bad ones (the unit steps' skips.jsonl "
            "says why); give more recordings or other corpus.splits"
        )
    for split, part in tables.items():
        build_store(out / split, joint, table=part, texts=read_texts(texts, split))
    train = tables["train"]
    subwords = _make_subwords(config, train, text_only, out) if config["subwords"] else {}
    return {
        **subwords,
        "speech_units": len(train.units),
        "speech_hours": train.hours,
        "units_per_second": len(train.units) / (train.hours * 3600),
        "words": len(train.words),
        "joint_size": joint.size,
        "textless_size": textless.size,
    }


def _make_subwords(config: dict[str, Any], train: UnitTable, text_only: Vocabulary, out: Path) -> dict[str, Any]:
    """Learn subwords on the training speech and save the vocabularies that have them; the stores hold units anyway."""
    section = Subwords.model_validate(config["subwords"])
    sequences = [train.row_units(row) for row in range(len(train))]
    subwords = train_subwords(
        sequences,
        section.kind,
        section.size,
        train.num_units,
        seed=config["seed"],
        max_units=section.max_units,
    )
    text_only.with_units(train.num_units, subwords=subwords).save(out / "joint-subwords")
    Vocabulary.textless(train.num_units, subwords=subwords).save(out / "textless-subwords")
    pieces = subwords.encode(Ragged(train.units, train.unit_offsets))
    return {"subword_pieces": len(pieces.flat), "units_per_piece": len(train.units) / len(pieces.flat)}
