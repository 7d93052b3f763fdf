"""From a study's corpus section to the storyworld and voices behind it."""

from __future__ import annotations

from speechscale.corpus.world import WorldConfig
from speechscale.errors import DataError
from speechscale.study.spec import StoryworldCorpus
from speechscale.voices.espeak import VOICES


def world_config(corpus: StoryworldCorpus, seed: int) -> WorldConfig:
    """The settings of the fact table; the corpus and its items are told from the same world."""
    return WorldConfig(
        seed=seed,
        characters=corpus.characters,
        relations=corpus.relations,
        values_per_relation=corpus.values_per_relation,
        read_only_share=corpus.read_only_share,
        lexicon=corpus.lexicon,
        event_share=corpus.event_share,
        topic_share=corpus.topic_share,
        neutral_share=corpus.neutral_share,
    )


def training_voices(count: int) -> list[str]:
    """The first `count` voices of the list that are not held out."""
    return _voices(count, held_out=False)


def unseen_voices(count: int) -> list[str]:
    """The first `count` voices that never speak in training."""
    return _voices(count, held_out=True)


def _voices(count: int, held_out: bool) -> list[str]:
    names = [name for name, voice in VOICES.items() if voice.held_out == held_out]
    if count > len(names):
        raise DataError(f"{count} voices asked for, there are {len(names)}: {', '.join(names)}")
    return names[:count]
