"""Catches imported ids that mean something else here: a unit off by one, a lost row, markers in the wrong place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from transformers import AutoTokenizer

from speechscale.cli import cli
from speechscale.errors import DataError
from speechscale.evals.generate import continue_units
from speechscale.evals.score import score
from speechscale.model.interop import import_slamkit
from speechscale.model.interop_vocabulary import give_vocabulary
from speechscale.model.shape import Size
from speechscale.model.slm import load_model, new_model
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

UNITS = 20


def peer(folder: Path, rows: int, *, family: str = "qwen2", tied: bool = True) -> torch.nn.Module:
    """A checkpoint of random weights as slamkit's description has it, in one file; returns the model in it."""
    size = Size(name="t", layers=2, dim=32, heads=4, kv_heads=4, ffn=64, family=family, tied=tied)  # type: ignore[arg-type]
    model = new_model(size, rows, 64, seed=3)
    folder.mkdir()
    state = {"lm." + k: v.clone() for k, v in model.state_dict().items() if not (tied and k == "lm_head.weight")}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    outer = {"model_type": "speech_language_model", "base_model_name": "x/y", "vocab_size": rows}
    (folder / "config.json").write_text(json.dumps(outer | {"base_config": model.config.to_dict()}))
    return model.eval()


@pytest.mark.parametrize("tied", [True, False])
def test_units_alone_keep_their_logits_under_our_ids(tmp_path: Path, tied: bool) -> None:
    """Peer: PAD 0, S 1, unit i at i + 2. Ours: <eos> 0, unit i at i + 1."""
    model = peer(tmp_path / "peer", UNITS + 2, tied=tied)
    import_slamkit(tmp_path / "peer", tmp_path / "out")
    vocabulary = give_vocabulary(tmp_path / "out", UNITS)
    ours = load_model(tmp_path / "out").eval()
    units = np.array([3, 19, 0, 7, 7, 12])
    theirs = torch.tensor([[1, *(units + 2)]])
    mine = torch.tensor([[vocabulary.eos_id, *vocabulary.unit_ids(units)]])
    with torch.no_grad():
        want = model(theirs).logits[..., 1:]
        assert torch.equal(ours(mine).logits, want)
    assert ours.config.vocab_size == vocabulary.size == UNITS + 1
    assert ours.config.eos_token_id == 0
    (new,) = continue_units(ours, vocabulary, [units], max_new_units=5, temperature=0)
    assert len(new) <= 5
    assert np.all(new < UNITS)


def test_their_likelihood_of_a_unit_sequence_is_ours(tmp_path: Path) -> None:
    """Their log-softmax runs over PAD, too; what PAD has is what both differ by, and nothing else."""
    model = peer(tmp_path / "peer", UNITS + 2)
    import_slamkit(tmp_path / "peer", tmp_path / "out")
    vocabulary = give_vocabulary(tmp_path / "out", UNITS)
    units = np.array([5, 1, 18, 4])
    ids = torch.tensor([1, *(units + 2)])
    with torch.no_grad():
        logits = model(ids[None]).logits[0, :-1].clone()
        logits[:, 0] = -torch.inf  # PAD
        want = float(torch.log_softmax(logits, -1).gather(1, ids[1:, None]).sum())
    sequence = np.concatenate([[vocabulary.eos_id], vocabulary.unit_ids(units)])
    found = score(load_model(tmp_path / "out"), [sequence], [1])
    assert found.ending_full[0] == pytest.approx(want, abs=1e-4)


def test_text_and_units_have_the_peers_ids_and_stock_tokenizers_spell_them(tmp_path: Path) -> None:
    texts = ["the cat sat on the mat", "a dog ran to the cat"]
    tokenizer = build_text_tokenizer(texts, "bpe", 300)
    base = tmp_path / "base"
    base.mkdir()
    tokenizer.save(str(base / "tokenizer.json"))
    (base / "config.json").write_text(json.dumps({"model_type": "qwen2", "eos_token_id": 0}))
    size = tokenizer.get_vocab_size()
    model = peer(tmp_path / "peer", size + UNITS + 2)
    done = CliRunner().invoke(
        cli,
        ["model", "import", str(tmp_path / "peer"), str(tmp_path / "out"), "--units", "20", "--tokenizer", str(base)],
    )
    assert done.exit_code == 0, done.output
    vocabulary = Vocabulary.load(tmp_path / "out")
    assert list(vocabulary.unit_ids(np.array([0, 19]))) == [size, size + 19]
    assert (size + UNITS, size + UNITS + 1) == (vocabulary.SPEECH, vocabulary.TEXT)
    ours = load_model(tmp_path / "out").eval()
    ids = torch.tensor([[size + UNITS, size + 3, size + 7, size + UNITS + 1, 5, 9]])
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, model(ids).logits)
    stock = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert stock("<speech><Un3><Un7><text>", add_special_tokens=False)["input_ids"] == ids[0, :4].tolist()


def test_wrong_numbers_are_refused(tmp_path: Path) -> None:
    peer(tmp_path / "peer", UNITS + 2)
    import_slamkit(tmp_path / "peer", tmp_path / "out")
    with pytest.raises(DataError, match="22 ids, 500 units alone are 502"):
        give_vocabulary(tmp_path / "out", 500)
    base = tmp_path / "tokenizer.json"
    build_text_tokenizer(["a b c"], "bpe", 300).save(str(base))
    with pytest.raises(DataError, match="give the base model's own tokenizer"):
        give_vocabulary(tmp_path / "out", UNITS, tokenizer=base)
    done = CliRunner().invoke(cli, ["model", "import", str(tmp_path / "peer"), str(tmp_path / "x"), "--tokenizer", "y"])
    assert done.exit_code == 2
    assert "--units" in done.output
