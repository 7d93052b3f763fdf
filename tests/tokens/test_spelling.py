"""Catches spellings that can be confused, that cannot be read back, or that a text could smuggle in."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from speechscale.errors import DataError
from speechscale.tokens.spelling import SPELLINGS, Spelling
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

TEXTS = ["The cat sat on the mat.", "A dog, don't ask!"]
CUSTOM = "<|u{}|> <|speech|> <|text|>"
EXAMPLES = {
    "slamkit": "<eos> <speech> <Un12> <Un7> <text> the cat <eos>",
    "spiritlm": "<eos> [Speech] [Hu12] [Hu7] [Text] the cat <eos>",
    "speechgpt": "<eos> <sosp> <12> <7> <eosp> the cat <eos>",
    CUSTOM: "<eos> <|speech|> <|u12|> <|u7|> <|text|> the cat <eos>",
}


@pytest.mark.parametrize("kind", ["words", "bpe"])
@pytest.mark.parametrize("spelling", EXAMPLES)
def test_every_convention_round_trips(spelling: str, kind: str, tmp_path: Path) -> None:
    vocabulary = Vocabulary.joint(build_text_tokenizer(TEXTS, kind, 300), 30, spelling=spelling)
    ids = vocabulary.parse(EXAMPLES[spelling])
    words = vocabulary.encode_words(["the", "cat"]).flat.tolist()
    start, eos = vocabulary.unit_start, vocabulary.eos_id
    assert ids.tolist() == [eos, vocabulary.SPEECH, start + 12, start + 7, vocabulary.TEXT, *words, eos]
    assert vocabulary.decode(ids) == EXAMPLES[spelling]
    vocabulary.save(tmp_path)
    assert Vocabulary.load(tmp_path) == vocabulary
    stock = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    tight = re.sub(r" (?=[<\[])|(?<=[>\]]) ", "", EXAMPLES[spelling])
    assert stock(tight, add_special_tokens=False)["input_ids"] == ids.tolist()
    inside = vocabulary.encode_text([f"the cat {EXAMPLES[spelling]}"]).flat
    assert (vocabulary.modality_table()[inside] == 0).all()


def test_spelling_is_part_of_the_identity() -> None:
    tokenizer = build_text_tokenizer(TEXTS, "words", 100)
    made = {spelling: Vocabulary.joint(tokenizer, 30, spelling=spelling) for spelling in EXAMPLES}
    assert len({vocabulary.fingerprint for vocabulary in made.values()}) == len(EXAMPLES)
    assert len({vocabulary.text_fingerprint for vocabulary in made.values()}) == 1
    with pytest.raises(DataError, match="'<Un30>' is not in this vocabulary of 30 units"):
        made["slamkit"].parse("<Un30>")
    assert (made["spiritlm"].modality_table()[made["spiritlm"].parse("<Un3>")] == 0).all()


@given(st.lists(st.integers(0, 99_999), min_size=1, max_size=5), st.sampled_from(sorted(EXAMPLES)))
def test_names_are_found_whole_and_are_unique(units: list[int], spelling: str) -> None:
    made = Spelling.of(spelling)
    name = made.piece(units)
    assert made.pattern([]).split(f"a{name}b{made.speech}") == ["a", name, "b", made.speech, ""]
    assert [int(unit) for unit in name[len(made.before) : -len(made.after)].split(".")] == units
    assert made.piece(units[:1]) == made.unit(units[0])


@pytest.mark.parametrize(
    ("spelling", "problem"),
    [
        ("slam", "allowed are slamkit, spiritlm, speechgpt"),
        ("<u{}> <speech>", "three names"),
        ("<u> <speech> <text>", "three names"),
        ("<u{}{}> <speech> <text>", "three names"),
        ("u{} <speech> <text>", "must stand between"),
        ("{}u <speech> <text>", "must stand between"),
        ("<u1{}> <speech> <text>", "must stand between"),
        ("<u{}.> <speech> <text>", "must stand between"),
        ("<u{}> <m> <m>", "both markers are '<m>'"),
        ("<u{}> <u7> <text>", "'<u7>' reads like a unit"),
        ("<u{}> <speech> <u7.3>", "'<u7.3>' reads like a unit"),
    ],
)
def test_spellings_that_could_be_confused_are_refused(spelling: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        Spelling.of(spelling)
    with pytest.raises(DataError, match=problem):
        Vocabulary.textless(5, spelling=spelling)


def test_known_spellings_are_sound() -> None:
    for spelling in SPELLINGS:
        assert Spelling.of(spelling) == Spelling.of(SPELLINGS[spelling])


def test_textless_spelling(tmp_path: Path) -> None:
    vocabulary = Vocabulary.textless(5, spelling="spiritlm")
    vocabulary.save(tmp_path)
    assert Vocabulary.load(tmp_path) == vocabulary
    assert vocabulary.decode([0, 1, 5, 0]) == "<eos> [Hu0] [Hu4] <eos>"
    assert np.array_equal(vocabulary.parse("<eos>[Hu0][Hu4]<eos>"), [0, 1, 5, 0])
