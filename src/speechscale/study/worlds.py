"""From a study's corpus section to the storyworld and voices behind it."""

from __future__ import annotations

import math

from speechscale.corpus.world import WorldConfig
from speechscale.errors import DataError
from speechscale.study.corpora_spec import StoryworldCorpus
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


def voices_of(corpus: StoryworldCorpus) -> list[str]:
    """All voices that speak the stories of a corpus, of any split."""
    return training_voices(max(corpus.voices, corpus.test_voices or 0))


def voice_at(corpus: StoryworldCorpus, split: str, index: int) -> str:
    """Who speaks the story of this number.

    In training, whole hundreds of stories hold `one_voice_share` exactly, spread evenly.
    """
    if split != "train":
        return training_voices(corpus.test_voices or corpus.voices)[index % (corpus.test_voices or corpus.voices)]
    voices, share = training_voices(corpus.voices), corpus.one_voice_share
    before, after = (math.floor((index + k) * share + 1e-9) for k in (0, 1))
    if after > before:
        return voices[0]
    if not share:
        return voices[index % len(voices)]
    others = voices[1:] or voices
    return others[(index - before) % len(others)]


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
