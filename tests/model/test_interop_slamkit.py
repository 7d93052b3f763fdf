"""Catches a weight that is lost, renamed wrongly or rounded on the way from a slamkit checkpoint to ours and back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from speechscale.cli import cli
from speechscale.errors import DataError
from speechscale.model.interop import INDEX, export_slamkit, import_slamkit
from speechscale.model.shape import Size
from speechscale.model.slm import load_model, new_model, save_model

IDS = torch.arange(20).reshape(2, 10)


def small(family: Any, tied: bool) -> Any:
    size = Size(name="t", layers=2, dim=32, heads=4, kv_heads=4, ffn=128, family=family, tied=tied)
    return new_model(size, 502, 64, seed=0)


def peer(model: Any, folder: Path, shards: int = 2) -> Path:
    """A checkpoint as slamkit's description has it, written without the code under test."""
    folder.mkdir()
    tied = model.config.tie_word_embeddings
    state = {"lm." + k: v.clone() for k, v in model.state_dict().items() if not (tied and k == "lm_head.weight")}
    base = model.config.to_dict() | {"vocab_size": 999}
    outer = {"model_type": "speech_language_model", "base_model_name": "x/y", "base_config": base, "vocab_size": 502}
    (folder / "config.json").write_text(json.dumps(outer))
    table = {}
    for index in range(shards):
        name = f"model-{index + 1:05}-of-{shards:05}.safetensors"
        part = {key: state[key] for key in list(state)[index::shards]}
        save_file(part, folder / name, metadata={"format": "pt"})
        table |= dict.fromkeys(part, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return folder


FAMILIES = [("qwen2", True), ("qwen2", False), ("llama", True), ("llama", False), ("gpt_neox", False)]


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_logits_are_equal_there_and_back(tmp_path: Path, family: str, tied: bool) -> None:
    model = small(family, tied).eval()
    import_slamkit(peer(model, tmp_path / "peer"), tmp_path / "stock")
    export_slamkit(tmp_path / "stock", tmp_path / "back", "x/y")
    import_slamkit(tmp_path / "back", tmp_path / "again")
    with torch.no_grad():
        want = model(IDS).logits
        for folder in ("stock", "again"):
            assert torch.equal(load_model(tmp_path / folder).eval()(IDS).logits, want)
    for file in (tmp_path / "peer").glob("*.safetensors"):
        there, back = load_file(file), load_file(tmp_path / "back" / file.name)
        assert there.keys() == back.keys()
        assert all(torch.equal(there[k], back[k]) for k in there)


def test_bf16_stays_bf16(tmp_path: Path) -> None:
    folder = peer(small("qwen2", True).bfloat16(), tmp_path / "peer")
    import_slamkit(folder, tmp_path / "stock")
    for file in folder.glob("*.safetensors"):
        there, stock = load_file(file), load_file(tmp_path / "stock" / file.name)
        assert {weight.dtype for weight in stock.values()} == {torch.bfloat16}
        assert all(torch.equal(there["lm." + name], stock[name]) for name in stock)


def test_our_own_folder_becomes_a_checkpoint(tmp_path: Path) -> None:
    model = small("llama", True).eval()
    save_model(model, tmp_path / "ours")
    export_slamkit(tmp_path / "ours", tmp_path / "peer", "x/y")
    import_slamkit(tmp_path / "peer", tmp_path / "stock")
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "stock").eval()(IDS).logits, model(IDS).logits)


def test_faults_are_named_and_leave_nothing(tmp_path: Path) -> None:
    folder = peer(small("llama", True), tmp_path / "peer")
    second = folder / "model-00002-of-00002.safetensors"
    good = second.read_bytes()
    second.write_bytes(good[:-100])
    with pytest.raises(DataError, match="00002-of-00002"):
        import_slamkit(folder, tmp_path / "out")
    second.write_bytes(good)
    weights = load_file(second)
    lost = sorted(weights)[0]
    save_file({key: weights[key] for key in weights if key != lost}, second)
    with pytest.raises(DataError, match=lost.removeprefix("lm.")):
        import_slamkit(folder, tmp_path / "out")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    with pytest.raises(DataError, match="no safetensors file of this folder"):
        import_slamkit(folder, tmp_path / "out")
    (folder / INDEX).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(DataError, match="pickled"):
        import_slamkit(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_base_config_has_to_be_given(tmp_path: Path) -> None:
    model = small("qwen2", True)
    folder = peer(model, tmp_path / "peer")
    values = json.loads((folder / "config.json").read_text())
    base = values.pop("base_config")
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match="--base-config"):
        import_slamkit(folder, tmp_path / "out")
    (tmp_path / "base.json").write_text(json.dumps(base))
    import_slamkit(folder, tmp_path / "out", tmp_path / "base.json")
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "out").eval()(IDS).logits, model.eval()(IDS).logits)


STOCK = """
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = torch.arange(8)[None]
print(*model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=501)[0].tolist())
"""


def test_the_commands_and_stock_transformers_in_a_fresh_process(tmp_path: Path) -> None:
    """The exported weights must go on as ours do where nothing of this package is loaded."""
    model = small("qwen2", True).eval()
    source = peer(model, tmp_path / "peer")
    for arguments in (
        ["model", "import", source, tmp_path / "stock"],
        ["model", "export", tmp_path / "stock", tmp_path / "back", "--base-name", "x/y"],
    ):
        done = CliRunner().invoke(cli, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "back" / "config.json").read_text())["model_type"] == "speech_language_model"
    again = CliRunner().invoke(cli, ["model", "import", str(source), str(tmp_path / "stock")])
    assert again.exit_code == 2
    assert "exists; give a new folder" in again.output
    ids = torch.arange(8)[None]
    want = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=501)[0].tolist()
    shown = subprocess.run([sys.executable, "-c", STOCK, str(tmp_path / "stock")], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert list(map(int, shown.stdout.split())) == want
