"""Catches ids of other people's tokenizers that move, a BOS that slips in, and an end of document that is guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from speechscale.errors import DataError
from speechscale.tokens.text_tokenizer import build_text_tokenizer, find_eos, load_text_tokenizer, unknown_ids
from speechscale.tokens.vocabulary import Vocabulary

WORDS = [
    "the",
    "cat",
    "dog",
    "sat",
    "ran",
    "home",
    "jam",
    "likes",
    "tom",
    "ann",
    "isn't",
    "we'll",
    "2024",
    "naïve",
    "mat",
]
TEXTS = [" ".join(WORDS[(i * j + i) % len(WORDS)] for j in range(1, 13)) for i in range(1, 60)]
SENTENCES = ["the cat isn't home", "Tom likes  2024 naïve jam\nhome", "<Un3> <speech> 🙂 zq", " the  dog", ""]
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(pattern: str, specials: list[str], *, ignore_merges: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(specials)
    return tokenizer


def qwen() -> Tokenizer:
    tokenizer = byte_level(QWEN, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    return tokenizer


def llama3() -> Tokenizer:
    tokenizer = byte_level(QWEN, ["<|begin_of_text|>", "<|end_of_text|>"], ignore_merges=True)
    bos = "<|begin_of_text|>"
    template = processors.TemplateProcessing(f"{bos} $A", None, [(bos, tokenizer.token_to_id(bos))])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def gemma() -> Tokenizer:
    """BPE on whole texts with blanks as U+2581 and bytes for what it does not know."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def llama2() -> Tokenizer:
    """As `gemma`, and a blank is put in front of every text."""
    tokenizer = gemma()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


FAMILIES = {
    "qwen": (qwen, "<|endoftext|>"),
    "llama3": (llama3, "<|end_of_text|>"),
    "gemma": (gemma, "<eos>"),
    "llama2": (llama2, "<eos>"),
    "unigram": (unigram, "</s>"),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Tokenizer, str, Path]:
    """A tokenizer of each make, its end token, and its folder as a hub would have it."""
    make, eos = FAMILIES[request.param]
    tokenizer = make()
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": eos, "special": True}}))
    return tokenizer, eos, folder


def test_text_keeps_its_ids(family: tuple[Tokenizer, str, Path], tmp_path: Path) -> None:
    tokenizer, eos, folder = family
    vocabulary = Vocabulary.from_pretrained(folder, 30)
    assert vocabulary.eos_id == tokenizer.token_to_id(eos)
    assert vocabulary.text_size == tokenizer.get_vocab_size()
    plain = [tokenizer.encode(text, add_special_tokens=False).ids for text in SENTENCES]
    assert [row.tolist() for row in vocabulary.encode_text(SENTENCES).rows()] == plain
    vocabulary.save(tmp_path / "saved")
    loaded = Vocabulary.load(tmp_path / "saved")
    assert loaded == vocabulary
    assert [row.tolist() for row in loaded.encode_text(SENTENCES).rows()] == plain
    stock = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "saved" / "tokenizer.json"))
    assert len(stock) == vocabulary.size
    assert stock(SENTENCES[0], add_special_tokens=False)["input_ids"] == plain[0]
    assert stock.convert_tokens_to_ids(vocabulary.names) == list(range(vocabulary.unit_start, vocabulary.size))
    ids = stock("the cat<speech><Un0><Un29><text>", add_special_tokens=False)["input_ids"]
    start = vocabulary.unit_start
    assert ids[-4:] == [vocabulary.SPEECH, start, start + 29, vocabulary.TEXT]


def test_words_one_by_one_equal_the_inside_of_a_sentence(family: tuple[Tokenizer, str, Path]) -> None:
    tokenizer, _, folder = family
    vocabulary = Vocabulary.from_pretrained(folder, 30)
    words = ["tom", "likes", "the", "naïve", "cat"]
    first = len(tokenizer.encode("home", add_special_tokens=False).ids)
    sentence = tokenizer.encode(" ".join(["home", *words]), add_special_tokens=False).ids
    assert vocabulary.encode_words(words).flat.tolist() == sentence[first:]
    document = np.concatenate(
        [
            [vocabulary.eos_id, vocabulary.TEXT],
            vocabulary.encode_words(words).flat,
            [vocabulary.SPEECH],
            vocabulary.unit_ids(np.array([3, 1, 29])),
            [vocabulary.eos_id],
        ]
    )
    spans = vocabulary.to_spans(document)
    assert [span.modality for span in spans] == ["end", "text", "speech", "end"]
    assert not any(span.ids for span in spans), "text and units alone must say it"
    assert np.array_equal(vocabulary.from_spans(spans), document)
    assert np.array_equal(vocabulary.parse(vocabulary.decode(document)), document)


def test_bos_of_a_post_processor_stays_out(tmp_path: Path) -> None:
    tokenizer = llama3()
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    assert tokenizer.encode("the cat").ids[0] == bos, "the test's tokenizer does not do what it is for"
    vocabulary = Vocabulary.joint(tokenizer, 3, eos_token="<|end_of_text|>")
    assert bos not in vocabulary.encode_text(["the cat"]).flat
    assert bos not in vocabulary.encode_words(["the", "cat"]).flat


def test_batch_settings_of_a_tokenizer_cut_and_pad_nothing() -> None:
    tokenizer = qwen()
    plain = tokenizer.encode("the cat sat", add_special_tokens=False).ids
    tokenizer.enable_truncation(1)
    tokenizer.enable_padding(length=64)
    vocabulary = Vocabulary.joint(tokenizer, 3, eos_token="<|endoftext|>")
    assert vocabulary.encode_text(["the cat sat", "the"]).rows()[0].tolist() == plain


def with_holes(data: dict[str, Any]) -> dict[str, Any]:
    """Raise ids from the middle on by 3, and those of added tokens by 5."""
    vocab = data["model"]["vocab"]
    middle = len(vocab) // 2
    data["model"]["vocab"] = {token: index + 3 * (index >= middle) for token, index in vocab.items()}
    for token in data["added_tokens"]:
        token["id"] += 5
    return data


def test_holes_are_filled_and_ids_stay(tmp_path: Path) -> None:
    data = with_holes(json.loads(qwen().to_str()))
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data))
    tokenizer = load_text_tokenizer(path)
    vocab = data["model"]["vocab"]
    assert all(tokenizer.token_to_id(token) == index for token, index in vocab.items())
    assert all(tokenizer.token_to_id(token["content"]) == token["id"] for token in data["added_tokens"])
    vocabulary = Vocabulary.joint(tokenizer, 7, eos_token="<|endoftext|>")
    assert vocabulary.text_size == max(token["id"] for token in data["added_tokens"]) + 1
    ids = vocabulary.encode_text(["the cat sat <|hole 171|> 2024"]).flat
    holes = [index for token, index in tokenizer.get_vocab().items() if token.startswith("<|hole ")]
    assert len(holes) == 5
    assert not set(ids.tolist()) & set(holes)
    assert [tokenizer.id_to_token(index) for index in vocabulary.encode_text(["the"]).flat] == [
        qwen().id_to_token(index) for index in qwen().encode("the", add_special_tokens=False).ids
    ]
    vocabulary.save(tmp_path / "saved")
    assert Vocabulary.load(tmp_path / "saved") == vocabulary
    stock = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "saved" / "tokenizer.json"))
    assert (
        stock("the cat sat", add_special_tokens=False)["input_ids"]
        == vocabulary.encode_text(["the cat sat"]).flat.tolist()
    )


def test_added_tokens_inside_the_holes_of_a_model_stay(tmp_path: Path) -> None:
    """The tokenizers library alone would give the added token the id of a model token."""
    data = json.loads(Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 3}, unk_token="a")).to_str())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    data["added_tokens"] = [{"id": 2, "content": "<eos>", **flags}, {"id": 6, "content": "<x>", **flags}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    tokenizer = load_text_tokenizer(tmp_path)
    assert [tokenizer.token_to_id(token) for token in ("a", "b", "<eos>", "c", "<x>")] == [0, 1, 2, 3, 6]
    assert Vocabulary.joint(tokenizer, 2).unit_start == 7


def test_ids_that_cannot_stay_are_refused(tmp_path: Path) -> None:
    data = json.loads(unigram().to_str())
    extra = {**data["added_tokens"][0], "content": "<extra>", "id": 5}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**data, "added_tokens": [*data["added_tokens"], extra]}))
    with pytest.raises(DataError, match=r"tokenizer\.json.*'<extra>' has id 5, which the model also uses"):
        load_text_tokenizer(path)
    data = json.loads(qwen().to_str())
    data["added_tokens"][1]["id"] = data["added_tokens"][0]["id"]
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"has id \d+ in the file and \d+ when loaded"):
        load_text_tokenizer(path)


def test_unigram_hole_behind_the_model_is_filled(tmp_path: Path) -> None:
    data = json.loads(unigram().to_str())
    size = len(data["model"]["vocab"])
    data["added_tokens"].append({**data["added_tokens"][0], "content": "<extra>", "id": size + 2})
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    vocabulary = Vocabulary.from_pretrained(tmp_path, 4, eos_token="</s>")
    assert (vocabulary.text_size, vocabulary.unit_start) == (size + 3, size + 3)


@pytest.mark.parametrize(
    ("files", "eos"),
    [
        ({"tokenizer_config.json": {"eos_token": "<|im_end|>"}}, "<|im_end|>"),
        ({"tokenizer_config.json": {"eos_token": None}, "special_tokens_map.json": {"eos_token": "<|endoftext|>"}}, ""),
        ({"special_tokens_map.json": {"eos_token": {"content": "<|endoftext|>"}}}, ""),
        ({"config.json": {"eos_token_id": "ID"}}, ""),
        ({"config.json": {"eos_token_id": ["ID", 3]}}, ""),
    ],
)
def test_end_of_document_is_read_from_the_files(files: dict[str, Any], eos: str, tmp_path: Path) -> None:
    tokenizer = qwen()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for name, content in files.items():
        text = json.dumps(content).replace('"ID"', str(tokenizer.token_to_id("<|endoftext|>")))
        (tmp_path / name).write_text(text)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        assert find_eos(load_text_tokenizer(path), path) == (eos or "<|endoftext|>")


def test_end_of_document_is_not_guessed(tmp_path: Path) -> None:
    tokenizer = qwen()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        DataError, match=r"nothing beside it says .* name the token \(--eos\), e\.g\. of <\|endoftext\|>, <\|im_end\|>"
    ):
        Vocabulary.from_pretrained(tmp_path, 3)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    with pytest.raises(DataError, match="does not hold '</s>'"):
        Vocabulary.from_pretrained(tmp_path, 3)
    assert Vocabulary.from_pretrained(tmp_path, 3, eos_token="<|im_end|>").num_units == 3
    build_text_tokenizer(TEXTS, "bpe", 300).save(str(tmp_path / "ours.json"))
    (tmp_path / "tokenizer_config.json").unlink()
    assert Vocabulary.from_pretrained(tmp_path / "ours.json", 0).eos_id == 0


def test_folder_without_tokenizer_json(tmp_path: Path) -> None:
    """As OPT and GPT-2 came: vocab.json and merges.txt, which transformers turns into a fast tokenizer."""
    tokenizer = byte_level(QWEN, ["<|endoftext|>"])
    tokenizer.model.save(str(tmp_path))
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps({**vocab, "<|endoftext|>": len(vocab)}))
    settings = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    vocabulary = Vocabulary.from_pretrained(tmp_path, 5)
    assert (vocabulary.eos_id, vocabulary.text_size) == (len(vocab), len(vocab) + 1)
    assert vocabulary.encode_text(["the cat"]).flat.tolist() == tokenizer.encode("the cat").ids
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text("{}")  # a model, and no tokenizer
    with pytest.raises(DataError, match=r"the folder has no tokenizer\.json and no other file of a tokenizer; give"):
        load_text_tokenizer(empty)
    (empty / "vocab.json").write_text("nonsense")
    with pytest.raises(DataError, match="transformers cannot load it"):
        load_text_tokenizer(empty)


def test_hub_names_run_no_code_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def load(name: str, **settings: Any) -> PreTrainedTokenizerFast:
        asked.append((name, settings))
        return PreTrainedTokenizerFast(tokenizer_object=qwen(), eos_token="<|im_end|>")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", load)
    vocabulary = Vocabulary.from_pretrained("owner/model", 3)
    assert vocabulary.eos_id == qwen().token_to_id("<|im_end|>")
    assert asked[0] == ("owner/model", {"revision": "main", "trust_remote_code": False, "local_files_only": False})
    asked.clear()
    Vocabulary.from_pretrained("owner/model", 3, revision="v1")
    assert [settings["revision"] for _, settings in asked] == ["v1", "v1"], "ids, and which of them ends documents"


def test_typing_errors_stay_off_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: pytest.fail("asked the hub"))
    for name in ("wrods", "nowhere/tokenizer.json", "/nowhere/model", "a/b/c"):
        with pytest.raises(DataError, match="no such file"):
            build_text_tokenizer(TEXTS, name)


def test_unknown_ids_are_those_of_the_model() -> None:
    words = build_text_tokenizer(TEXTS, "words", 50)
    assert unknown_ids(words.to_str(), 1) == (words.token_to_id("<unk>"),) == (1,)
    for tokenizer in (qwen(), build_text_tokenizer(TEXTS, "bpe", 300)):
        assert unknown_ids(tokenizer.to_str(), None) == (), "bytes spell everything"
    sentences = Tokenizer(models.WordPiece({"[UNK]": 0, "[EOS]": 1, "the": 2}, unk_token="[UNK]"))
    assert unknown_ids(sentences.to_str(), None) == (0,)
    assert unknown_ids(unigram().to_str(), None) == (2,)
    assert unknown_ids("", None) == ()
