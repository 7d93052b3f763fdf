"""Catches a model folder that is believed although it is damaged, foreign, unsafe, or not to be trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, OPTConfig

from speechscale.errors import DataError
from speechscale.model.folders import load_model, load_text_lm, save_model
from speechscale.model.sizes import SIZES, get_size
from speechscale.model.slm import new_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(new_model(get_size("gpt_neox:0.02M"), 50, 64, seed=0), tmp_path / "model")
    return tmp_path / "model"


def change_config(folder: Path, **options: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **options}))


def test_folder_holds_no_pickle(folder: Path) -> None:
    assert {p.suffix for p in folder.iterdir()} == {".json", ".safetensors"}


def test_unusable_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no config"):
        load_model(tmp_path / "nothing")
    folder = tmp_path / "model"
    save_model(new_model(SIZES["0.02M"], 50, 64, seed=0), folder)
    change_config(folder, num_hidden_layers=3)
    for load in (load_model, load_text_lm):
        with pytest.raises(DataError, match=r"disagree at model\.layers\.2"):
            load(folder)
    (folder / "model.safetensors").write_bytes(b"not a tensor file")
    for load in (load_model, load_text_lm):
        with pytest.raises(DataError, match="cannot be read"):
            load(folder)


def test_text_lm_comes_in_fp32_or_as_asked(folder: Path) -> None:
    stored = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    save_model(stored, folder)
    assert {p.dtype for p in load_text_lm(folder).parameters()} == {torch.float32}
    assert {p.dtype for p in load_text_lm(folder, dtype=torch.bfloat16).parameters()} == {torch.bfloat16}


def test_dropout_is_switched_off(tmp_path: Path) -> None:
    config = OPTConfig(
        vocab_size=50, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, attention_dropout=0.2
    )
    assert config.dropout == 0.1, "as OPT was released"
    save_model(AutoModelForCausalLM.from_config(config), tmp_path)
    model = load_text_lm(tmp_path).train()
    ids = torch.arange(20)[None]
    assert torch.equal(model(ids).logits, model(ids).logits)


def test_buffers_of_old_transformers_are_no_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    old = {
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(2),
        "gpt_neox.layers.0.attention.bias": torch.ones(1),
    }
    save_file({**weights, **old}, folder / "model.safetensors", metadata={"format": "pt"})
    load_text_lm(folder)
    save_file(
        {**weights, "gpt_neox.layers.0.gate.weight": torch.ones(2)}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(DataError, match=r"disagree at gpt_neox\.layers\.0\.gate\.weight"):
        load_text_lm(folder)


def test_unknown_architectures_and_quantized_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    save_model(
        AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=20)), tmp_path / "gpt2"
    )
    with pytest.raises(DataError, match="'gpt2' are not known here; tested: llama, qwen2"):
        load_text_lm(tmp_path / "gpt2")
    change_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(DataError, match="is quantized"):
        load_text_lm(folder)


def test_code_in_a_folder_is_not_run(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    change_config(folder, model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})
    with pytest.raises(DataError, match=r"config\.json cannot be read"):
        load_text_lm(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"safetensors only.*give a folder with config\.json and \*\.safetensors"):
        load_text_lm(folder)


def test_without_network_the_message_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as caught:
        load_text_lm("nobody/no-such-model", revision="v1")
    message = str(caught.value)
    assert "'nobody/no-such-model' at revision 'v1'" in message
    assert "no such folder here, and the hub did not give it" in message
    assert "`hf download nobody/no-such-model --revision v1`" in message
    with pytest.raises(DataError, match=r"'\./models/none': .*no such folder; give one"):
        load_text_lm("./models/none")
