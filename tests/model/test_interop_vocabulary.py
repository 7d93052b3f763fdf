"""Catches imported ids that mean something else here: a unit off by one, a lost row, markers in the wrong place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

from speechscale.cli import cli
from speechscale.errors import DataError
from speechscale.evals.score import score
from speechscale.model.interop import Wanted, import_model
from speechscale.model.slm import load_model
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from tests.model.peers import slamkit, small, state_of, stock

UNITS = 20
ALONE = Wanted(units=UNITS)


@pytest.mark.parametrize("tied", [True, False])
def test_units_alone_keep_their_logits_under_our_ids(tmp_path: Path, tied: bool) -> None:
    """Peer: PAD 0, S 1, unit i at i + 2. Ours: <eos> 0, unit i at i + 1."""
    model = small(UNITS + 2, "qwen2", tied)
    done = import_model(slamkit(model, tmp_path / "peer"), tmp_path / "out", wanted=ALONE)
    vocabulary = Vocabulary.load(tmp_path / "out")
    assert done.vocabulary == vocabulary
    ours = load_model(tmp_path / "out").eval()
    units = np.array([3, 19, 0, 7, 7, 12])
    theirs = torch.tensor([[1, *(units + 2)]])
    mine = torch.tensor([[vocabulary.eos_id, *vocabulary.unit_ids(units)]])
    with torch.no_grad():
        assert torch.equal(ours(mine).logits, model(theirs).logits[..., 1:])
    assert ours.config.vocab_size == vocabulary.size == UNITS + 1
    assert ours.config.eos_token_id == 0


def test_their_likelihood_of_a_unit_sequence_is_ours(tmp_path: Path) -> None:
    """Their log-softmax runs over PAD, too; what PAD has is what both differ by, and nothing else."""
    model = small(UNITS + 2, "qwen2")
    import_model(slamkit(model, tmp_path / "peer", shards=1), tmp_path / "out", wanted=ALONE)
    vocabulary = Vocabulary.load(tmp_path / "out")
    units = np.array([5, 1, 18, 4])
    ids = torch.tensor([1, *(units + 2)])
    with torch.no_grad():
        logits = model(ids[None]).logits[0, :-1].clone()
        logits[:, 0] = -torch.inf  # PAD
        want = float(torch.log_softmax(logits, -1).gather(1, ids[1:, None]).sum())
    sequence = np.concatenate([[vocabulary.eos_id], vocabulary.unit_ids(units)])
    found = score(load_model(tmp_path / "out"), [sequence], [1])
    assert found.ending_full[0] == pytest.approx(want, abs=1e-4)


def base_tokenizer(folder: Path) -> int:
    """The files of a text tokenizer; returns its number of ids."""
    folder.mkdir()
    tokenizer = build_text_tokenizer(["the cat sat on the mat", "a dog ran to the cat"], "bpe", 300)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "eos_token_id": 0}))
    return tokenizer.get_vocab_size()


def test_text_and_units_have_the_peers_ids_and_stock_tokenizers_spell_them(tmp_path: Path) -> None:
    size = base_tokenizer(tmp_path / "base")
    model = small(size + UNITS + 2, "qwen2")
    peer = slamkit(model, tmp_path / "peer")
    arguments = [peer, tmp_path / "out", "--units", UNITS, "--tokenizer", tmp_path / "base"]
    done = CliRunner().invoke(cli, ["model", "import", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    vocabulary = Vocabulary.load(tmp_path / "out")
    assert list(vocabulary.unit_ids(np.array([0, 19]))) == [size, size + 19]
    assert (size + UNITS, size + UNITS + 1) == (vocabulary.SPEECH, vocabulary.TEXT)
    ours = load_model(tmp_path / "out").eval()
    ids = torch.tensor([[size + UNITS, size + 3, size + 7, size + UNITS + 1, 5, 9]])
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, model(ids).logits)
    spelled = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert spelled("<speech><Un3><Un7><text>", add_special_tokens=False)["input_ids"] == ids[0, :4].tolist()


def test_wrong_numbers_and_useless_arguments_are_refused(tmp_path: Path) -> None:
    base_tokenizer(tmp_path / "base")
    peer, out = slamkit(small(UNITS + 2), tmp_path / "peer"), tmp_path / "out"
    cases = [
        (Wanted(units=500), "22 ids, 500 units alone are 502"),
        (Wanted(units=UNITS, tokenizer=tmp_path / "base"), "give the base model's own tokenizer"),
        (Wanted(tokenizer="y"), "--tokenizer needs --units"),
        (Wanted(units=UNITS, spelling="spiritlm"), "--spelling is of no use"),
    ]
    for wanted, message in cases:
        with pytest.raises(DataError, match=message):
            import_model(peer, out, wanted=wanted)
    assert not list(tmp_path.glob("*out*"))


def test_a_tokenizer_of_slamkits_units_does_not_stand_in_the_way(tmp_path: Path) -> None:
    """slamkit's own unit tokenizer marks neither PAD nor S as special; the number of units says the same ids."""
    peer = slamkit(small(UNITS + 2), tmp_path / "peer")
    names = {"PAD": 0, "S": 1} | {f"<Un{unit}>": unit + 2 for unit in range(UNITS)}
    Tokenizer(models.WordLevel(names, unk_token="PAD")).save(str(peer / "tokenizer.json"))
    import_model(peer, tmp_path / "out", wanted=ALONE)
    assert Vocabulary.load(tmp_path / "out") == Vocabulary.textless(UNITS)


# -- TWIST: a stock model, units from an offset on, no tokenizer


def test_an_offset_in_the_config_is_where_units_start(tmp_path: Path) -> None:
    """TWIST feeds unit + config.offset to a stock OPT; taken for slamkit's 2, every unit would be another one."""
    model = small(UNITS + 4, "opt")
    peer = stock(model, tmp_path / "peer", offset=4, eos_token_id=2)
    done = import_model(peer, tmp_path / "out", wanted=ALONE)
    assert done.notes == (
        "no place here for row 0, row 1, row 3; a likelihood under the full softmax loses what they had",
    )
    units = np.array([3, 19, 0, 7])
    ours, vocabulary = load_model(tmp_path / "out").eval(), Vocabulary.load(tmp_path / "out")
    with torch.no_grad():
        got = ours(torch.tensor([[0, *vocabulary.unit_ids(units)]])).logits
        want = model(torch.tensor([[2, *(units + 4)]])).logits[..., [2, *range(4, 24)]]
    assert torch.equal(got, want)


def test_names_without_the_body_in_front_are_read(tmp_path: Path) -> None:
    """OPT was released so: decoder.layers..., not model.decoder.layers..."""
    model = small(UNITS + 4, "opt")
    peer = stock(model, tmp_path / "peer", offset=4, eos_token_id=2)
    state = {name.removeprefix("model."): weight for name, weight in state_of(model).items()}
    save_file(state, peer / "model.safetensors")
    import_model(peer, tmp_path / "out", wanted=ALONE)
    with torch.no_grad():
        got = load_model(tmp_path / "out").eval()(torch.tensor([[0, 4]])).logits
        assert torch.equal(got, model(torch.tensor([[2, 7]])).logits[..., [2, *range(4, 24)]])


def test_an_offset_alone_is_not_enough(tmp_path: Path) -> None:
    peer, out = stock(small(UNITS + 4, "opt"), tmp_path / "peer", offset=4, eos_token_id=9), tmp_path / "out"
    cases = [
        (Wanted(), "nothing says how many there are; give --units"),
        (Wanted(units=UNITS), "the end at row 9 do not fit"),  # inside the units
        (Wanted(units=UNITS + 1, eos="1"), "do not fit a table of 24 rows"),
    ]
    for wanted, message in cases:
        with pytest.raises(DataError, match=message):
            import_model(peer, out, wanted=wanted)
    import_model(peer, out, wanted=Wanted(units=UNITS, eos="1"))
    no_offset = stock(small(UNITS + 4), tmp_path / "plain")
    with pytest.raises(DataError, match="neither its tokenizer spells units"):
        import_model(no_offset, tmp_path / "other", wanted=ALONE)
