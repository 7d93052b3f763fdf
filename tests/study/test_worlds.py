"""Would catch: test speech whose voices change with the part, a share of one voice that is not met."""

from __future__ import annotations

from collections import Counter

from speechscale.study.corpora_spec import StoryworldCorpus
from speechscale.study.worlds import training_voices, voice_at, voices_of


def test_voices_of_test_do_not_depend_on_those_of_training() -> None:
    one = StoryworldCorpus(voices=1, test_voices=4)
    many = StoryworldCorpus(voices=6, test_voices=4)
    spoken = [[voice_at(corpus, "test", i) for i in range(8)] for corpus in (one, many)]
    assert spoken[0] == spoken[1] == training_voices(4) * 2
    assert {voice_at(one, "train", i) for i in range(50)} == set(training_voices(1))
    assert voices_of(one) == training_voices(4)
    assert voices_of(many) == training_voices(6)


def test_one_voice_has_its_share_and_the_others_the_rest_evenly() -> None:
    corpus = StoryworldCorpus(voices=5, one_voice_share=0.4)
    first, *others = training_voices(5)
    count = Counter(voice_at(corpus, "train", i) for i in range(100))
    assert count[first] == 40
    assert {count[name] for name in others} == {15}
    assert Counter(voice_at(corpus, "train", i) for i in range(10))[first] == 4, "spread evenly"


def test_without_such_keys_voices_take_turns_as_before() -> None:
    corpus = StoryworldCorpus(voices=3)
    assert [voice_at(corpus, split, 4) for split in ("train", "select", "test")] == [training_voices(3)[1]] * 3
