"""Catches units of a stock checkpoint that become other units or text here, and rows that are lost on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer

from speechscale.cli import cli
from speechscale.errors import DataError
from speechscale.model.interop import Wanted, import_model
from speechscale.model.slm import load_model
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from tests.model.peers import small, stock

TEXT = "the cat sat on the mat"
SPIRIT = ["[Text]", "[Speech]", *(f"[Hu{unit}]" for unit in range(501))]
STYLE = [*(f"[Pi{index}]" for index in range(64)), *(f"[St{index}]" for index in range(100))]
GPT = ["<sosp>", *(f"<{unit}>" for unit in range(12)), "<eosp>"]


def llama_tokenizer(added: list[str], first: tuple[str, ...] = ()) -> Tokenizer:
    """Text with `<unk>`, `<s>` and `</s>` in front, as Llama's, that opens a text with `<s>`; then other tokens."""
    text = build_text_tokenizer(["the cat sat on the mat", "a dog ran to the cat"], "bpe", 300)
    model = json.loads(text.to_str())["model"]
    pieces = [piece for piece in model["vocab"] if piece != "<eos>"]
    vocab = {name: index for index, name in enumerate([*first, "<unk>", "<s>", "</s>", *pieces])}
    tokenizer = Tokenizer(models.BPE(vocab, [tuple(pair) for pair in model["merges"]], unk_token="<unk>"))
    tokenizer.pre_tokenizer = text.pre_tokenizer
    tokenizer.decoder = text.decoder
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.add_tokens([AddedToken(name, normalized=False, special=False) for name in (*first, *added)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


def write(folder: Path, tokenizer: Tokenizer, rows: int, model: Any = None, **config: Any) -> Any:
    model = small(rows) if model is None else model
    stock(model, folder, shards=2, eos_token_id=tokenizer.token_to_id("</s>"), **config)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"})
    )
    return model


def hold_against(model: Any, tokenizer: Tokenizer, out: Path, texts: list[str]) -> Vocabulary:
    """Spelled alike, both must compute the same; returns our vocabulary."""
    vocabulary, ours = Vocabulary.load(out), load_model(out).eval()
    mine = AutoTokenizer.from_pretrained(out)
    for text in texts:
        theirs = tokenizer.encode(text, add_special_tokens=False)
        ids = mine(text, add_special_tokens=False)["input_ids"]
        assert mine.convert_ids_to_tokens(ids) == [tokenizer.id_to_token(index) for index in theirs.ids]
        with torch.no_grad():
            want = model(torch.tensor([theirs.ids])).logits[0]
            got = ours(torch.tensor([ids])).logits[0]
        assert got.shape == want.shape  # no row is lost
        names = tokenizer.get_vocab()
        order = mine.convert_tokens_to_ids(list(names))
        assert torch.equal(got[:, order], want[:, list(names.values())])
        # The others are rows without a token: the same numbers, whatever their order.
        assert torch.equal(got.sort(-1).values, want.sort(-1).values)
    return vocabulary


@pytest.mark.parametrize("expressive", [False, True])
def test_spirit_lm(tmp_path: Path, expressive: bool) -> None:
    """Released order: text, [Text], [Speech], units, pitch, style, padding of the table."""
    tokenizer = llama_tokenizer(SPIRIT + (STYLE if expressive else []))
    size, used = tokenizer.token_to_id("[Text]"), tokenizer.get_vocab_size()
    model = write(tmp_path / "peer", tokenizer, used + 9)
    done = CliRunner().invoke(cli, ["model", "import", str(tmp_path / "peer"), str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert ("[Pi{}] (64), [St{}] (100)" in done.output) == expressive
    assert f"9 rows without a token (from {used} on)" in done.output
    texts = ["[Speech][Hu3][Hu500][Text] the cat sat", "[Text] a dog[Speech][Hu0][Hu31]"]
    texts += ["[Speech][Hu3][Pi9][Hu4][St99][Hu5]"] if expressive else []
    vocabulary = hold_against(model, tokenizer, tmp_path / "out", texts)
    assert (vocabulary.num_units, vocabulary.spelling) == (501, "spiritlm")
    assert vocabulary.text_size == size + (164 if expressive else 0) + 9
    assert vocabulary.size == used + 9
    assert vocabulary.parse("[Speech] [Hu7] [Text]").tolist() == [
        vocabulary.SPEECH,
        vocabulary.unit_start + 7,
        vocabulary.TEXT,
    ]
    assert vocabulary.eos_id == tokenizer.token_to_id("</s>")


def test_fewer_units_leave_the_others_as_text(tmp_path: Path) -> None:
    """Spirit-LM spells 501 units for 500 clusters."""
    tokenizer = llama_tokenizer(SPIRIT)
    model = write(tmp_path / "peer", tokenizer, tokenizer.get_vocab_size())
    done = import_model(tmp_path / "peer", tmp_path / "out", wanted=Wanted(units=500))
    assert any("[Hu{}]" in note for note in done.notes)
    vocabulary = hold_against(model, tokenizer, tmp_path / "out", ["[Speech][Hu3][Hu499]", "[Hu500][Hu499]"])
    assert vocabulary.num_units == 500
    with pytest.raises(DataError, match="has 501 units, not 502"):
        import_model(tmp_path / "peer", tmp_path / "other", wanted=Wanted(units=502))


@pytest.mark.parametrize("tied", [True, False])
def test_units_before_the_text_and_in_any_order(tmp_path: Path, tied: bool) -> None:
    """All text ids move, and with them the `<s>` that stock tokenizers put in front."""
    mixed = tuple(np.random.default_rng(0).permutation(GPT).tolist())
    tokenizer = llama_tokenizer(["<image>"], first=mixed)
    model = small(tokenizer.get_vocab_size(), "llama", tied)
    write(tmp_path / "peer", tokenizer, 0, model)
    done = import_model(tmp_path / "peer", tmp_path / "out")
    assert any("text ids moved down" in note for note in done.notes)
    texts = ["<sosp><3><11><eosp> the cat", "the cat<sosp><0>", "<image> the"]
    vocabulary = hold_against(model, tokenizer, tmp_path / "out", texts)
    assert (vocabulary.num_units, vocabulary.spelling, vocabulary.unk_id) == (12, "speechgpt", 0)
    mine = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert mine.convert_ids_to_tokens(mine("the cat")["input_ids"])[0] == "<s>"


def test_a_unigram_model_keeps_its_pieces(tmp_path: Path) -> None:
    """Sentencepiece: a piece's id is its place in a list, and the unknown one is named by number."""
    pieces = [("<3>", 0.0), ("<unk>", 0.0), ("</s>", 0.0), ("▁the", -1.0), ("▁cat", -2.0), ("▁", -3.0)]
    pieces += [(letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_tokens(
        [AddedToken(name, normalized=False) for name in ("<0>", "<1>", "<2>", "<3>", "<sosp>", "<eosp>")]
    )
    model = write(tmp_path / "peer", tokenizer, tokenizer.get_vocab_size())
    import_model(tmp_path / "peer", tmp_path / "out")
    vocabulary = hold_against(model, tokenizer, tmp_path / "out", ["the cat<sosp><3><0>", "dog ?"])
    assert vocabulary.num_units == 4


def test_units_alone(tmp_path: Path) -> None:
    """A tokenizer of units with PAD, `<s>` and `</s>`: our textless order, and what has no place is named."""
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>"))
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>"])
    tokenizer.add_tokens([f"[Hu{unit}]" for unit in (2, 0, 1, 3)])
    model = write(tmp_path / "peer", tokenizer, 8)
    done = import_model(tmp_path / "peer", tmp_path / "out")
    assert done.notes == (
        "no place here for <pad>, <s>, row 7; a likelihood under the full softmax loses what they had",
    )
    vocabulary = Vocabulary.load(tmp_path / "out")
    assert vocabulary == Vocabulary.textless(4, spelling="spiritlm")
    with torch.no_grad():
        want = model(torch.tensor([[2, 3, 6, 4]])).logits[..., [2, 4, 5, 3, 6]]
        assert torch.equal(load_model(tmp_path / "out").eval()(torch.tensor([[0, 3, 4, 1]])).logits, want)


def test_a_spelling_of_its_own(tmp_path: Path) -> None:
    tokenizer = llama_tokenizer(["<|t|>", *(f"<|u{unit}|>" for unit in range(5)), "<|s|>"])
    model = write(tmp_path / "peer", tokenizer, tokenizer.get_vocab_size())
    with pytest.raises(DataError, match=r"name their spelling \(--spelling\)"):
        import_model(tmp_path / "peer", tmp_path / "out")
    import_model(tmp_path / "peer", tmp_path / "out", wanted=Wanted(spelling="<|u{}|> <|s|> <|t|>"))
    hold_against(model, tokenizer, tmp_path / "out", ["<|s|><|u3|><|u0|><|t|> the cat"])


@pytest.mark.parametrize(
    ("added", "wanted", "message"),
    [
        (["[Hu0]", "[Hu1]", "[Speech]"], {}, r"no marker '\[Text\]'; name the markers"),
        (["[Hu0]", "[Hu1]"], {}, r"no marker '\[Speech\]'"),
        (["[Hu0]", "[Hu2]", "[Speech]", "[Text]"], {}, r"has '\[Hu2\]' and no '\[Hu1\]'"),
        ([*SPIRIT, *GPT], {}, "two spellings, 501 'spiritlm' and 12 'speechgpt'"),
        (SPIRIT, {"spelling": "speechgpt"}, "has no '<0>'"),
        (SPIRIT, {"eos": "[Hu3]"}, r"no token '\[Hu3\]', besides units"),
        (SPIRIT, {"eos": "<end>"}, "no token '<end>'"),
        (SPIRIT, {"tokenizer": "x"}, "--tokenizer is of no use"),
    ],
)
def test_tokenizers_that_leave_a_doubt_are_refused(
    tmp_path: Path, added: list[str], wanted: dict[str, Any], message: str
) -> None:
    tokenizer = llama_tokenizer(added)
    write(tmp_path / "peer", tokenizer, tokenizer.get_vocab_size())
    with pytest.raises(DataError, match=message):
        import_model(tmp_path / "peer", tmp_path / "out", wanted=Wanted(**wanted))
    assert not list(tmp_path.glob("*out*"))


def test_tokens_and_tables_must_belong_together(tmp_path: Path) -> None:
    tokenizer = llama_tokenizer(SPIRIT)
    write(tmp_path / "peer", tokenizer, tokenizer.get_vocab_size() - 1)
    with pytest.raises(DataError, match="ids up to"):
        import_model(tmp_path / "peer", tmp_path / "out")
    text = (tmp_path / "peer" / "tokenizer.json").read_text()
    far = json.loads(text)
    far["added_tokens"][-1]["id"] = 10**12  # filling the holes below it would take all memory
    (tmp_path / "peer" / "tokenizer.json").write_text(json.dumps(far))
    with pytest.raises(DataError, match="ids up to 1000000000000"):
        import_model(tmp_path / "peer", tmp_path / "out")
    (tmp_path / "peer" / "tokenizer.json").write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match=r"tokenizer\.json: not readable as JSON"):
        import_model(tmp_path / "peer", tmp_path / "out")


def test_units_that_the_text_model_knows(tmp_path: Path) -> None:
    """Sentencepiece lists user symbols among its pieces, and its conversion may write merges into them."""
    vocab = ["</s>", "<", "0", ">", "1", "<0", "<0>", "<1", "<1>", "<sosp>", "<eosp>", "a"]
    merges = [("<", "0"), ("<0", ">"), ("<", "1"), ("<1", ">")]
    tokenizer = Tokenizer(models.BPE({name: index for index, name in enumerate(vocab)}, merges))
    model = write(tmp_path / "peer", tokenizer, len(vocab))
    import_model(tmp_path / "peer", tmp_path / "out")
    vocabulary = Vocabulary.load(tmp_path / "out")
    typed = vocabulary.encode_text(["<0>a"]).flat
    assert [vocabulary.text_tokenizer.id_to_token(int(index)) for index in typed] == ["<0", ">", "a"]
    hold_against(model, tokenizer, tmp_path / "out", ["<0><1>a"])
    vocab, merges = [*vocab, "<0>a"], [*merges, ("<0>", "a")]
    tokenizer = Tokenizer(models.BPE({name: index for index, name in enumerate(vocab)}, merges))
    write(tmp_path / "other", tokenizer, len(vocab))
    with pytest.raises(DataError, match="'<0>a' of the text is made of a unit"):
        import_model(tmp_path / "other", tmp_path / "out2")


def test_typed_markers_stay_text(tmp_path: Path) -> None:
    """`[Speech]` in a prompt is text, never control."""
    tokenizer = llama_tokenizer(SPIRIT)
    write(tmp_path / "peer", tokenizer, tokenizer.get_vocab_size())
    import_model(tmp_path / "peer", tmp_path / "out")
    vocabulary = Vocabulary.load(tmp_path / "out")
    ids = vocabulary.encode_text(["[Speech][Hu3] </s> " + TEXT]).flat
    assert ids.max() < vocabulary.text_size
    assert vocabulary.eos_id not in ids
