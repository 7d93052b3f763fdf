"""Catches a weight that is lost, renamed wrongly or rounded on the way from a slamkit checkpoint to ours and back, and
ids that mean something else to slamkit after an export."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import AutoTokenizer

from speechscale.cli import cli
from speechscale.errors import DataError
from speechscale.model.interop import Wanted, export_slamkit, import_model
from speechscale.model.slm import load_model, save_model
from speechscale.tokens.subwords import Subwords
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from tests.model.peers import slamkit, small, state_of

IDS = torch.arange(20).reshape(2, 10)
UNITS = 20
FAMILIES = [("qwen2", True), ("qwen2", False), ("llama", True), ("llama", False), ("gpt_neox", False), ("phi", False)]


def logits(model: object, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids).logits  # type: ignore[operator, no-any-return]


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, ["model", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def files_equal(one: Path, other: Path) -> bool:
    names = sorted(file.name for file in one.glob("*.safetensors"))
    assert names == sorted(file.name for file in other.glob("*.safetensors"))
    pairs = [(load_file(one / name), load_file(other / name)) for name in names]
    return all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in pairs)


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_logits_are_equal_there_and_back(tmp_path: Path, family: str, tied: bool) -> None:
    model = small(502, family, tied)
    import_model(slamkit(model, tmp_path / "peer"), tmp_path / "stock")
    export_slamkit(tmp_path / "stock", tmp_path / "back", "x/y", ids_are_theirs=True)
    import_model(tmp_path / "back", tmp_path / "again")
    want = logits(model, IDS)
    for folder in ("stock", "again"):
        assert torch.equal(logits(load_model(tmp_path / folder).eval(), IDS), want)
    assert files_equal(tmp_path / "peer", tmp_path / "back")


def test_bf16_stays_bf16(tmp_path: Path) -> None:
    folder = slamkit(small(502, "qwen2").bfloat16(), tmp_path / "peer")
    import_model(folder, tmp_path / "stock")
    for file in folder.glob("*.safetensors"):
        there, here = load_file(file), load_file(tmp_path / "stock" / file.name)
        assert {weight.dtype for weight in here.values()} == {torch.bfloat16}
        assert all(torch.equal(there["lm." + name], here[name]) for name in here)


# -- our order of ids into theirs


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_units_alone_get_the_peers_ids(tmp_path: Path, family: str, tied: bool) -> None:
    """Ours: <eos> 0, unit i at i + 1. Theirs: PAD 0, S 1, unit i at i + 2; one off, all would be wrong."""
    model, vocabulary = small(UNITS + 1, family, tied), Vocabulary.textless(UNITS)
    save_model(model, tmp_path / "ours")
    vocabulary.save(tmp_path / "ours")
    export_slamkit(tmp_path / "ours", tmp_path / "peer", "x/y")
    outer = json.loads((tmp_path / "peer" / "config.json").read_text())
    assert outer["vocab_size"] == outer["base_config"]["vocab_size"] == UNITS + 2
    for values in (outer, outer["base_config"]):
        assert [values[f"{name}_token_id"] for name in ("pad", "bos", "eos")] == [0, 1, 1]
    # Theirs, without our import: weights under `lm.` into the class of the base model.
    theirs = small(UNITS + 2, family, tied, seed=1)
    state = {name.removeprefix("lm."): w for name, w in load_file(tmp_path / "peer" / "model.safetensors").items()}
    state = {name.replace("embed_out", "lm_head"): w for name, w in state.items()}
    missing = theirs.load_state_dict(state, strict=False).missing_keys
    assert set(missing) <= set(theirs._tied_weights_keys or ())
    units = np.array([3, 19, 0, 7, 7, 12])
    got = logits(theirs, torch.tensor([[1, *(units + 2)]]))
    want = logits(model, torch.tensor([[0, *vocabulary.unit_ids(units)]]))
    assert torch.equal(got[..., 1:], want)
    # PAD: never the largest, and rarer than one in all.
    assert torch.all(got[..., 0] < want.max(-1).values)
    assert torch.all(got.softmax(-1)[..., 0] <= 1 / (UNITS + 2) * (1 + 1e-5))


def test_zeros_for_pad_would_win_where_logits_are_negative(tmp_path: Path) -> None:
    """A head whose rows all point away from the hidden states: a row of zeros would take nearly all the probability."""
    model = small(UNITS + 1, "llama", tied=False)
    with torch.no_grad():
        states = model.model(torch.arange(10)[None]).last_hidden_state
        model.lm_head.weight -= 5 * states.mean((0, 1)) / states.mean((0, 1)).norm()
    save_model(model, tmp_path / "ours")
    Vocabulary.textless(UNITS).save(tmp_path / "ours")
    export_slamkit(tmp_path / "ours", tmp_path / "peer", "x/y")
    state = load_file(tmp_path / "peer" / "model.safetensors")
    here = logits(model, torch.arange(10)[None])[0, -1]
    pad = state["lm.lm_head.weight"][0] @ model.model(torch.arange(10)[None]).last_hidden_state[0, -1]
    assert here.max() < 0
    assert pad < here.max()
    assert not state["lm.model.embed_tokens.weight"][0].any()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("text", [True, False])
def test_exported_and_imported_again_it_is_the_same_model(tmp_path: Path, tied: bool, text: bool) -> None:
    tokenizer = build_text_tokenizer(["the cat sat on the mat"], "bpe", 300)
    vocabulary = Vocabulary.joint(tokenizer, UNITS) if text else Vocabulary.textless(UNITS)
    save_model(small(vocabulary.size, "qwen2", tied), tmp_path / "ours")
    vocabulary.save(tmp_path / "ours")
    export_slamkit(tmp_path / "ours", tmp_path / "peer", "x/y")
    # A model with text brings its tokenizer along; one of units alone needs the number.
    run("import", tmp_path / "peer", tmp_path / "again", *([] if text else ["--units", UNITS]))
    assert files_equal(tmp_path / "ours", tmp_path / "again")
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours", "again")]
    special = [{key: config.pop(key) for key in list(config) if key.endswith("_token_id")} for config in configs]
    configs[1] = {key: value for key, value in configs[1].items() if key not in ("rope_theta", "rope_scaling")}
    assert configs[0] == configs[1]
    assert (special[1]["eos_token_id"], special[1]["bos_token_id"]) == (vocabulary.eos_id, vocabulary.eos_id)
    assert Vocabulary.load(tmp_path / "again") == vocabulary
    if text:
        stock = AutoTokenizer.from_pretrained(tmp_path / "peer")
        ids = stock("<speech><Un3><Un7><text>", add_special_tokens=False)["input_ids"]
        size = vocabulary.text_size
        assert ids == [size + UNITS, size + 3, size + 7, size + UNITS + 1]


LLAMA3 = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 32,
    "rope_type": "llama3",
}
ROTARY = [  # family, as transformers 5 has them, as transformers 4 reads them
    ("llama", {"rope_theta": 5e3}, {"rope_theta": 5e3, "rope_scaling": None}),
    ("llama", LLAMA3 | {"rope_theta": 5e3}, {"rope_theta": 5e3, "rope_scaling": LLAMA3}),
    ("phi", {"rope_theta": 5e3, "partial_rotary_factor": 0.25}, {"rope_theta": 5e3, "partial_rotary_factor": 0.25}),
    (
        "gpt_neox",
        {"rope_theta": 5e3, "partial_rotary_factor": 0.5},
        {"rotary_emb_base": 5e3, "rotary_pct": 0.5, "rope_theta": 5e3, "partial_rotary_factor": 0.5},
    ),
]


@pytest.mark.parametrize(("family", "rotary", "said"), ROTARY)
def test_rotary_numbers_are_said_as_transformers_4_reads_them(
    tmp_path: Path, family: str, rotary: dict[str, Any], said: dict[str, Any]
) -> None:
    """slamkit takes what it does not find in base_config from the base model's name: positions would turn otherwise."""
    model = small(502, family, tied=family == "llama")
    model.config.rope_parameters = {"rope_type": "default"} | rotary
    save_model(model, tmp_path / "ours")
    export_slamkit(tmp_path / "ours", tmp_path / "peer", "x/y", ids_are_theirs=True)
    values = json.loads((tmp_path / "peer" / "config.json").read_text())
    assert {key: values["base_config"][key] for key in said} == said
    del values["base_config"]["rope_parameters"]
    (tmp_path / "peer" / "config.json").write_text(json.dumps(values))
    import_model(tmp_path / "peer", tmp_path / "again")
    found = load_model(tmp_path / "again").config.rope_parameters
    assert found == {"rope_type": "default"} | rotary
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {key: written[key] for key in said} == said


def test_vocabularies_that_slamkit_cannot_have_are_refused(tmp_path: Path) -> None:
    tokenizer = build_text_tokenizer(["the cat sat on the mat"], "bpe", 300)
    pieces = Subwords(kind="bpe", num_units=UNITS, pieces=((1, 2),), merges=((1, 2),))
    cases = [
        (Vocabulary.textless(UNITS, subwords=pieces), "merged subwords"),
        (Vocabulary.text_only(tokenizer), "text alone"),
        (Vocabulary.textless(UNITS, spelling="spiritlm"), "spelled 'spiritlm'"),
        (Vocabulary.textless(UNITS + 1), "ids; give the vocabulary it was trained with"),
        (None, "--ids-are-theirs"),
    ]
    for number, (vocabulary, message) in enumerate(cases):
        folder = tmp_path / str(number)
        rows = vocabulary.size if vocabulary is not None and vocabulary.num_units <= UNITS else UNITS + 1
        save_model(small(rows), folder)
        if vocabulary is not None:
            vocabulary.save(folder)
        with pytest.raises(DataError, match=message):
            export_slamkit(folder, tmp_path / "out", "x/y")
    lock = tmp_path / "2" / "vocabulary.json"
    lock.write_text(lock.read_text().replace('"eos_id": 0', '"eos_id": 1'))
    with pytest.raises(DataError, match=r"vocabulary.json: does not fit"):
        export_slamkit(tmp_path / "2", tmp_path / "out", "x/y")
    assert not list(tmp_path.glob("*out*"))


# -- the rest of the way in


def test_a_missing_base_config_has_to_be_given(tmp_path: Path) -> None:
    model = small(502, "qwen2")
    folder = slamkit(model, tmp_path / "peer")
    values = json.loads((folder / "config.json").read_text())
    base = values.pop("base_config")
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match="--base-config"):
        import_model(folder, tmp_path / "out")
    (tmp_path / "base.json").write_text(json.dumps(base))
    import_model(folder, tmp_path / "out", wanted=Wanted(base_config=tmp_path / "base.json"))
    assert torch.equal(logits(load_model(tmp_path / "out").eval(), IDS), logits(model, IDS))


def test_code_and_paths_of_others_do_not_come_along(tmp_path: Path) -> None:
    """An auto_map in the written config would let a later load with trust_remote_code run code of the checkpoint."""
    folder = slamkit(small(502), tmp_path / "peer")
    values = json.loads((folder / "config.json").read_text())
    values["base_config"] |= {"auto_map": {"AutoModelForCausalLM": "evil.Model"}, "_name_or_path": "/home/somebody/x"}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "evil.py").write_text("raise SystemExit(3)")
    import_model(folder, tmp_path / "out")
    written = "".join(file.read_text() for file in (tmp_path / "out").glob("*.json"))
    assert "evil" not in written
    assert "somebody" not in written
    assert not list((tmp_path / "out").glob("*.py"))


STOCK = """
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = torch.arange(8)[None]
print(*model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=501)[0].tolist())
"""


def test_stock_transformers_in_a_fresh_process(tmp_path: Path) -> None:
    """The imported weights must go on as the peer's do where nothing of this package is loaded."""
    model = small(502, "qwen2")
    source = slamkit(model, tmp_path / "peer")
    shown = run("import", source, tmp_path / "stock")
    assert "ids are the checkpoint's own" in shown
    assert "--units" in shown
    again = CliRunner().invoke(cli, ["model", "import", str(source), str(tmp_path / "stock")])
    assert again.exit_code == 2
    assert "exists; give a new folder" in again.output
    ids = torch.arange(8)[None]
    want = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=501)[0].tolist()
    fresh = subprocess.run([sys.executable, "-c", STOCK, str(tmp_path / "stock")], capture_output=True, text=True)
    assert fresh.returncode == 0, fresh.stderr
    assert list(map(int, fresh.stdout.split())) == want


def test_the_record_names_what_was_left_out(tmp_path: Path) -> None:
    folder = slamkit(small(UNITS + 2), tmp_path / "peer")
    run("import", folder, tmp_path / "out", "--units", UNITS)
    record = json.loads((tmp_path / "out" / "import.json").read_text())
    assert record["source"] == {"name": "peer", "commit": None}
    assert any("PAD (0)" in note for note in record["notes"])
    assert state_of(load_model(tmp_path / "out"))["model.embed_tokens.weight"].shape[0] == UNITS + 1
