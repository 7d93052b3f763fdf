"""Catches ids that move: between save and load, between TextLM and SLM, between us and stock transformers."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from speechscale.errors import DataError
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

TEXTS = ["The cat sat on the mat.", "A dog, don't ask!", "Tom likes the jam."] * 3
KINDS = ("words", "bpe")


def joint(kind: str = "words", units: int = 30) -> Vocabulary:
    return Vocabulary.joint(build_text_tokenizer(TEXTS, kind, 300), units)


WORDS_VOCABULARY = joint()


def test_layout() -> None:
    tokenizer = build_text_tokenizer(["b b a"], "words", 10)
    vocabulary = Vocabulary.joint(tokenizer, 3)
    assert tokenizer.get_vocab() == {"<eos>": 0, "<unk>": 1, "b": 2, "a": 3}
    assert (vocabulary.text_size, vocabulary.unit_start, vocabulary.size) == (4, 4, 9)
    assert (vocabulary.SPEECH, vocabulary.TEXT, vocabulary.eos_id, vocabulary.unk_id) == (7, 8, 0, 1)
    assert vocabulary.modality_table().tolist() == [2, 0, 0, 0, 1, 1, 1, 2, 2]
    assert vocabulary.unit_ids(np.array([0, 2])).tolist() == [4, 6]
    textless = Vocabulary.textless(3)
    assert (textless.size, textless.unit_start, textless.SPEECH, textless.TEXT, textless.unk_id) == (
        4,
        1,
        None,
        None,
        None,
    )
    assert textless.modality_table().tolist() == [2, 1, 1, 1]
    text = Vocabulary.text_only(tokenizer)
    assert (text.size, text.SPEECH, text.num_units) == (4, None, 0)
    with pytest.raises(DataError, match=r"units run 0\.\.3, the vocabulary has 0\.\.2"):
        vocabulary.unit_ids(np.array([0, 3]))


def test_words_are_lower_cased_and_punctuation_split() -> None:
    vocabulary = WORDS_VOCABULARY
    flat, offsets = vocabulary.encode_text(["The cat, don't sit!", "", "the"])
    assert vocabulary.decode(flat[: offsets[1]]) == "the cat , don't <unk> !"
    assert np.diff(offsets).tolist() == [6, 0, 1]
    assert flat.dtype == np.int32


@pytest.mark.parametrize("kind", KINDS)
def test_words_one_by_one_equal_the_sentence(kind: str) -> None:
    vocabulary = joint(kind)
    sentence = "Tom likes the cat, don't ask the dog."
    flat, offsets = vocabulary.encode_words(sentence.split())
    assert np.array_equal(flat, vocabulary.encode_text([sentence]).flat)
    assert len(offsets) == len(sentence.split()) + 1
    assert offsets[-1] == len(flat)


def test_word_without_token_becomes_unknown() -> None:
    flat, offsets = WORDS_VOCABULARY.encode_words(["cat", "", "dog", ""])
    assert offsets.tolist() == [0, 1, 2, 3, 4]
    assert flat[1] == flat[3] == WORDS_VOCABULARY.unk_id
    assert WORDS_VOCABULARY.decode(flat) == "cat <unk> dog <unk>"


@pytest.mark.parametrize("kind", KINDS)
def test_specials_inside_a_text_stay_text(kind: str) -> None:
    vocabulary = joint(kind)
    for copy in (vocabulary, pickle.loads(pickle.dumps(vocabulary))):
        flat = copy.encode_text(["the <eos> cat <Un3> <speech>"]).flat
        assert (vocabulary.modality_table()[flat] == 0).all()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, WORDS_VOCABULARY.size - 1), max_size=30))
def test_readable_text_is_a_bijection(ids: list[int]) -> None:
    assert WORDS_VOCABULARY.parse(WORDS_VOCABULARY.decode(ids)).tolist() == ids


@pytest.mark.parametrize("kind", KINDS)
def test_readable_example(kind: str) -> None:
    vocabulary = joint(kind)
    readable = "<speech> <Un12> <Un7> <text> the cat"
    ids = vocabulary.parse(readable)
    words = vocabulary.encode_words(["the", "cat"]).flat.tolist()
    start = vocabulary.unit_start
    assert ids.tolist() == [vocabulary.SPEECH, start + 12, start + 7, vocabulary.TEXT, *words]
    assert vocabulary.decode(ids) == readable
    with pytest.raises(DataError, match="'<Un30>' is not in this vocabulary of 30 units"):
        vocabulary.parse("<Un30>")
    with pytest.raises(DataError, match="outside the vocabulary"):
        vocabulary.decode([vocabulary.size])


def test_text_ids_mean_the_same_in_joint_and_text_only() -> None:
    for kind in KINDS:
        tokenizer = build_text_tokenizer(TEXTS, kind, 300)
        both, text = Vocabulary.joint(tokenizer, 7), Vocabulary.text_only(tokenizer)
        assert both.text_subset() == text
        assert both.text_fingerprint == text.text_fingerprint
        assert both.fingerprint != text.fingerprint
        assert np.array_equal(both.encode_text(TEXTS).flat, text.encode_text(TEXTS).flat)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_tokenizer_loads_in_stock_transformers(kind: str, tmp_path: Path) -> None:
    vocabulary = joint(kind)
    vocabulary.save(tmp_path)
    assert Vocabulary.load(tmp_path) == vocabulary
    stock = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert len(stock) == vocabulary.size
    ids = vocabulary.parse("<text> the cat <speech> <Un0> <Un29> <text> sat").tolist()
    assert stock("<text> the cat<speech><Un0><Un29><text> sat", add_special_tokens=False)["input_ids"] == ids
    names = [f"<Un{unit}>" for unit in range(30)] + ["<speech>", "<text>"]
    assert stock.convert_tokens_to_ids(names) == list(range(vocabulary.unit_start, vocabulary.size))


def test_textless_and_text_only_survive_the_disk(tmp_path: Path) -> None:
    for name, vocabulary in (("a", Vocabulary.textless(5)), ("b", WORDS_VOCABULARY.text_subset())):
        vocabulary.save(tmp_path / name)
        assert Vocabulary.load(tmp_path / name) == vocabulary
        stock = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / name / "tokenizer.json"))
        assert len(stock) == vocabulary.size
    assert Vocabulary.textless(5).decode([0, 1, 5, 0]) == "<eos> <Un0> <Un4> <eos>"
    assert Vocabulary.textless(5).parse("<eos> <Un0> <Un4> <eos>").tolist() == [0, 1, 5, 0]
    with pytest.raises(DataError, match="textless vocabulary cannot encode text"):
        Vocabulary.textless(5).encode_text(["a"])


def test_other_tokenizer_with_its_own_eos(tmp_path: Path) -> None:
    """A Hugging Face tokenizer keeps its ids; its end token need not be 0."""
    data = json.loads(build_text_tokenizer(TEXTS, "bpe", 300).to_str())
    last = max(data["model"]["vocab"].values()) + 1
    data["added_tokens"].append({**data["added_tokens"][0], "id": last, "content": "<|endoftext|>"})
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data))
    tokenizer = build_text_tokenizer([], str(path))
    vocabulary = Vocabulary.joint(tokenizer, 4, eos_token="<|endoftext|>")
    assert (vocabulary.eos_id, vocabulary.unit_start) == (last, last + 1)
    assert vocabulary.modality_table()[[0, last]].tolist() == [0, 2]
    vocabulary.save(tmp_path / "saved")
    assert Vocabulary.load(tmp_path / "saved") == vocabulary
    readable = "<|endoftext|> <speech> <Un3> <text> the cat <|endoftext|>"
    assert vocabulary.decode(vocabulary.parse(readable)) == readable
    with pytest.raises(DataError, match="no end-of-document token '</s>'"):
        Vocabulary.joint(tokenizer, 4, eos_token="</s>")


def test_bad_input() -> None:
    with pytest.raises(DataError, match="no such file"):
        build_text_tokenizer(["a"], "nowhere/tokenizer.json")
    with pytest.raises(DataError, match="too small"):
        build_text_tokenizer(["a"], "bpe", 100)
    with pytest.raises(DataError, match="contain no word"):
        build_text_tokenizer(["  "], "words", 100)
    with pytest.raises(DataError, match="give at least 1"):
        Vocabulary.textless(0)
    with_units = build_text_tokenizer(["a"], "words", 10)
    with_units.add_tokens(["<Un0>"])
    with pytest.raises(DataError, match="already has a token '<Un0>'"):
        Vocabulary.joint(with_units, 2)


def test_damage_is_named(tmp_path: Path) -> None:
    joint().save(tmp_path)
    path = tmp_path / "tokenizer.json"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"cat", b"cot", 1))
    with pytest.raises(DataError, match=r"tokenizer\.json: differs from its lock"):
        Vocabulary.load(tmp_path)
    path.write_bytes(good)
    lock = tmp_path / "vocabulary.json"
    data = json.loads(lock.read_text())
    lock.write_text(json.dumps({**data, "num_units": 29}))
    with pytest.raises(DataError, match=r"vocabulary\.json: does not fit .*size: 48 -> 49"):
        Vocabulary.load(tmp_path)
    lock.write_text("{}")
    with pytest.raises(DataError, match=r"vocabulary\.json: not a vocabulary lock"):
        Vocabulary.load(tmp_path)
    lock.unlink()
    with pytest.raises(DataError, match=r"vocabulary\.json: missing"):
        Vocabulary.load(tmp_path)


@pytest.mark.slow
def test_training_gives_the_same_ids_in_every_process() -> None:
    code = (
        "from speechscale.tokens.vocabulary import *\n"
        "texts = [' '.join(f'w{i * j % 97}' for j in range(9)) for i in range(300)]\n"
        "print([Vocabulary.joint(build_text_tokenizer(texts, k, 300), 9).fingerprint for k in ('words', 'bpe')])"
    )
    seen = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    assert len(seen) == 1
