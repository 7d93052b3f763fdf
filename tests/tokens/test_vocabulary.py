"""Catches ids that move: between save and load, between TextLM and SLM, between us and stock transformers."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from speechscale.errors import DataError
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.subwords import Subwords
from speechscale.tokens.vocabulary import Span, Vocabulary, build_text_tokenizer

TEXTS = ["The cat sat on the mat.", "A dog, don't ask!", "Tom likes the jam."] * 3
KINDS = ("words", "bpe")
OLD_JOINT = "4bc13a2a95fc3f06c6eb0650310d519fc2b7ab9f6ec6b8bcdd0f9fbaece519ac"
OLD_TEXTLESS = "60596613e37da1711dedcee3fe6027a2406c4ebb9d3048fb86deac919382cf47"


def joint(kind: str = "words", units: int = 30) -> Vocabulary:
    return Vocabulary.joint(build_text_tokenizer(TEXTS, kind, 300), units)


WORDS_VOCABULARY = joint()
PAIRS = Subwords(
    kind="bpe", num_units=30, pieces=((3, 4), (3, 4, 5), (29, 0)), merges=((3, 4), (30, 5), (29, 0)), record={"a": 1}
)
PIECES = {
    "none": WORDS_VOCABULARY,
    "words": WORDS_VOCABULARY.text_subset().with_units(30, PAIRS),
    "bpe": joint("bpe").text_subset().with_units(30, PAIRS),
    "textless": Vocabulary.textless(30, subwords=PAIRS),
}


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


def ragged(*rows: list[int]) -> Ragged:
    return Ragged(
        np.array([unit for row in rows for unit in row], np.int64), np.cumsum([0, *map(len, rows)], dtype=np.int64)
    )


def test_layout_with_subwords() -> None:
    vocabulary = PIECES["words"]
    start = vocabulary.text_size
    assert (vocabulary.unit_start, vocabulary.num_units, vocabulary.num_speech) == (start, 30, 33)
    assert (vocabulary.speech_stop, vocabulary.SPEECH, vocabulary.TEXT) == (start + 33, start + 33, start + 34)
    assert vocabulary.size == start + 35 == WORDS_VOCABULARY.size + 3
    assert np.flatnonzero(vocabulary.modality_table() == 1).tolist() == list(range(start, start + 33))
    lengths = vocabulary.units_per_id()
    assert lengths[start : start + 33].tolist() == [1] * 30 + [2, 3, 2]
    assert lengths.sum() == 37
    assert np.array_equal(vocabulary.unit_ids(np.array([3, 4])), [start + 3, start + 4])


def test_speech_ids_and_units_of() -> None:
    rows = ragged([3, 4, 5, 3, 4], [], [29, 0, 1])
    start = WORDS_VOCABULARY.unit_start
    flat, offsets = PIECES["words"].speech_ids(rows)
    assert (flat - start).tolist() == [31, 30, 32, 1]
    assert offsets.tolist() == [0, 2, 2, 4]
    assert flat.dtype == np.int32
    for vocabulary in PIECES.values():
        encoded = vocabulary.speech_ids(rows)
        assert vocabulary.units_of(encoded.flat).tolist() == rows.flat.tolist()
        assert vocabulary.units_per_id()[encoded.flat].sum() == len(rows.flat)
    assert WORDS_VOCABULARY.speech_ids(rows).offsets.tolist() == rows.offsets.tolist()
    for wrong in (start - 1, WORDS_VOCABULARY.SPEECH):
        with pytest.raises(DataError, match=f"id {wrong} is no speech; speech ids are {start}..{start + 29}"):
            WORDS_VOCABULARY.units_of(np.array([start, wrong]))
    for vocabulary in (WORDS_VOCABULARY, PIECES["words"]):
        with pytest.raises(DataError, match=r"0\.\.30"):
            vocabulary.speech_ids(ragged([0, 30]))


def test_with_units_equals_joint() -> None:
    tokenizer = build_text_tokenizer(TEXTS, "words", 300)
    assert Vocabulary.text_only(tokenizer).with_units(30) == WORDS_VOCABULARY
    assert PIECES["words"].text_subset() == WORDS_VOCABULARY.text_subset()
    assert PIECES["words"].text_fingerprint == WORDS_VOCABULARY.text_fingerprint
    assert PIECES["words"].fingerprint != WORDS_VOCABULARY.fingerprint
    with pytest.raises(DataError, match="it has 30 units"):
        WORDS_VOCABULARY.with_units(30)
    with pytest.raises(DataError, match="give at least 1"):
        WORDS_VOCABULARY.text_subset().with_units(0)
    with pytest.raises(DataError, match="subwords of 30 units and 29 units"):
        WORDS_VOCABULARY.text_subset().with_units(29, PAIRS)


def test_fingerprints_are_those_of_older_versions() -> None:
    """Runs and stores made before spelling and subwords existed name these."""
    tokenizer = build_text_tokenizer(["b b a"], "words", 10)
    assert Vocabulary.joint(tokenizer, 3).fingerprint == OLD_JOINT
    assert Vocabulary.textless(3).fingerprint == OLD_TEXTLESS


def test_lock_of_the_old_format_loads(tmp_path: Path) -> None:
    WORDS_VOCABULARY.save(tmp_path)
    path = tmp_path / "vocabulary.json"
    lock = json.loads(path.read_text())
    assert lock["format"] == "speechscale.vocabulary.2"
    old = {key: value for key, value in lock.items() if key not in ("num_speech", "subwords", "spelling")}
    path.write_text(json.dumps({**old, "format": "speechscale.vocabulary.1"}))
    assert Vocabulary.load(tmp_path) == WORDS_VOCABULARY
    path.write_text(json.dumps({**old, "format": "speechscale.vocabulary.1", "eos_id": 2}))
    with pytest.raises(DataError, match="does not fit"):
        Vocabulary.load(tmp_path)
    path.write_text(json.dumps({**lock, "format": "speechscale.vocabulary.3"}))
    with pytest.raises(DataError, match=r"format 'speechscale\.vocabulary\.3'"):
        Vocabulary.load(tmp_path)


@pytest.mark.parametrize("name", ["words", "bpe", "textless"])
def test_subwords_survive_the_disk(name: str, tmp_path: Path) -> None:
    vocabulary = PIECES[name]
    vocabulary.save(tmp_path)
    loaded = Vocabulary.load(tmp_path)
    assert loaded == vocabulary
    assert loaded.subwords is not None
    assert loaded.subwords.record == {"a": 1}
    stock = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    names = ["<Un29>", "<Un3.4>", "<Un3.4.5>", "<Un29.0>"]
    assert stock.convert_tokens_to_ids(names) == list(range(vocabulary.unit_start + 29, vocabulary.speech_stop))
    ids = [vocabulary.unit_start + piece for piece in (31, 32, 7)]
    assert vocabulary.decode(ids) == "<Un3.4.5> <Un29.0> <Un7>"
    assert vocabulary.parse("<Un3.4.5><Un29.0> <Un7>").tolist() == ids
    with pytest.raises(DataError, match=r"'<Un4\.3>' is not in this vocabulary"):
        vocabulary.parse("<Un4.3>")
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_damaged_subwords_are_named(tmp_path: Path) -> None:
    PIECES["words"].save(tmp_path)
    path = tmp_path / "subwords.json"
    good = path.read_text()
    Subwords(kind="bpe", num_units=30, pieces=((1, 2),), merges=((1, 2),)).save(path)
    with pytest.raises(DataError, match=r"subwords\.json: differs from its lock"):
        Vocabulary.load(tmp_path)
    path.write_text(good.replace("29", "28"))
    with pytest.raises(DataError, match=r"subwords .*subwords\.json: its content does not fit"):
        Vocabulary.load(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"subwords\.json: the file is missing"):
        Vocabulary.load(tmp_path)
    WORDS_VOCABULARY.save(tmp_path / "plain")
    path.write_text(good)
    WORDS_VOCABULARY.save(tmp_path)
    assert not path.exists(), "subwords of an earlier vocabulary lie beside one without"


def test_tokens_behind_the_text_are_verified(tmp_path: Path) -> None:
    """A tokenizer.json and a lock that agree with each other can still be wrong together."""
    WORDS_VOCABULARY.save(tmp_path)
    path, lock_path = tmp_path / "tokenizer.json", tmp_path / "vocabulary.json"
    content = path.read_bytes()
    swapped = content.replace(b"<Un3>", b"<Un_>").replace(b"<Un4>", b"<Un3>").replace(b"<Un_>", b"<Un4>")
    path.write_bytes(swapped)
    lock = lock_path.read_text()
    lock_path.write_text(lock.replace(hashlib.sha256(content).hexdigest(), hashlib.sha256(swapped).hexdigest()))
    with pytest.raises(DataError, match="tokens behind the text"):
        Vocabulary.load(tmp_path)


def test_spans_example() -> None:
    vocabulary = PIECES["words"]
    ids = vocabulary.parse("<eos> <speech> <Un3.4> <Un7> <text> the <unk> cat <eos> <Un1> dog")
    spans = vocabulary.to_spans(ids)
    assert spans == [
        Span("end"),
        Span("speech", units=(3, 4, 7), marked=True),
        Span("text", "the <unk> cat", marked=True),
        Span("end"),
        Span("speech", units=(1,)),
        Span("text", "dog"),
    ]
    assert vocabulary.from_spans(spans).tolist() == ids.tolist()
    assert vocabulary.to_spans([vocabulary.SPEECH, vocabulary.TEXT, vocabulary.eos_id]) == [
        Span("speech", marked=True),
        Span("text", marked=True),
        Span("end"),
    ]
    assert vocabulary.to_spans([]) == []
    # Two single units where the subwords have a piece: no encoding gives that, so the span keeps the ids.
    other = [vocabulary.unit_start + 3, vocabulary.unit_start + 4]
    assert vocabulary.to_spans(other) == [Span("speech", units=(3, 4), ids=tuple(other))]
    with pytest.raises(DataError, match="outside the vocabulary"):
        vocabulary.to_spans([vocabulary.size])
    with pytest.raises(DataError, match="has a marker, this vocabulary has none"):
        PIECES["textless"].from_spans([Span("speech", units=(1,), marked=True)])


EDGES = ["the", "cat", "dog", "don't", "sat,", "<eos>", "<Un3>", "<speech>", "zebra", "Tom", "2024", "naïve"]
PARTS = st.one_of(
    st.just("end"),
    st.tuples(st.booleans(), st.lists(st.integers(0, 29), max_size=12)),
    st.tuples(st.booleans(), st.lists(st.sampled_from(EDGES), max_size=8).map(" ".join)),
)


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(PARTS, max_size=8), name=st.sampled_from(["none", "words", "bpe"]))
def test_spans_of_encoded_documents_are_exact(parts: list[Any], name: str) -> None:
    """Text and units of a span give its ids back; no span needs to keep ids."""
    vocabulary = PIECES[name]
    ids, last = [], ""
    for part in parts:
        if part == "end":
            ids.append([vocabulary.eos_id])
            last = "end"
            continue
        kind = "text" if isinstance(part[1], str) else "speech"
        content = vocabulary.encode_words(part[1].split()) if kind == "text" else vocabulary.speech_ids(ragged(part[1]))
        # Two spans of one modality without a marker would be one, which encodes otherwise.
        marked = part[0] or kind == last
        if marked or len(content.flat):
            ids += [[vocabulary.TEXT if kind == "text" else vocabulary.SPEECH] if marked else [], content.flat]
            last = kind
    ids = [np.asarray(run, np.int64) for run in ids]
    flat = np.concatenate([np.zeros(0, np.int64), *ids])
    spans = vocabulary.to_spans(flat)
    assert not any(span.ids for span in spans)
    assert np.array_equal(vocabulary.from_spans(spans), flat)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(PIECES)))
def test_spans_of_any_ids_lose_nothing(data: st.DataObject, name: str) -> None:
    vocabulary = PIECES[name]
    ids = data.draw(st.lists(st.integers(0, vocabulary.size - 1), max_size=30))
    spans = vocabulary.to_spans(ids)
    assert vocabulary.from_spans(spans).tolist() == ids
    if name in ("none", "words"):
        assert vocabulary.to_spans(vocabulary.parse(vocabulary.decode(ids))) == spans


@pytest.mark.slow
def test_large_vocabulary_loads_fast(tmp_path: Path) -> None:
    tokenizer = build_text_tokenizer([" ".join(f"w{i}" for i in range(150_000))], "words", 152_000)
    vocabulary = Vocabulary.joint(tokenizer, 5000)
    start = time.process_time()
    vocabulary.save(tmp_path)
    assert Vocabulary.load(tmp_path) == vocabulary
    assert time.process_time() - start < 4.0


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
