"""Catches an exported folder whose weights, ids or settings are not those trained, or that stock tools misread."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer

from speechscale.cli import cli
from speechscale.decode.generate import generate
from speechscale.errors import DataError
from speechscale.model.folders import load_model, save_model
from speechscale.model.interop_weights import INDEX, same_bits
from speechscale.model.stock import export_stock
from speechscale.model.stock_units import FORMAT, bundle_rate
from speechscale.speech.units import SpeechTokenizer, fit_tokenizer, phone_tokenizer
from speechscale.tokens.subwords import Subwords
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from tests.model.peers import small

UNITS = 10
TEXTS = ["tom ann ran he won lost rome .", "isn't it 7 o'clock?"]
FAMILIES = [("llama", True), ("qwen2", False), ("gpt_neox", False), ("opt", True), ("qwen3", True)]


def joint(kind: str = "words") -> Vocabulary:
    return Vocabulary.joint(build_text_tokenizer(TEXTS, kind, 300), UNITS)


def trained(folder: Path, vocabulary: Vocabulary, family: str = "llama", tied: bool = True) -> Any:
    """A folder as training leaves it."""
    model = small(vocabulary.size, family, tied)
    save_model(model, folder)
    vocabulary.save(folder)
    return model


def logits(model: Any, vocabulary: Vocabulary) -> torch.Tensor:
    ids = torch.arange(vocabulary.size)[None]
    with torch.inference_mode():
        return model.eval()(ids).logits


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("units")
    noise = [np.random.default_rng(i).standard_normal(16_000).astype(np.float32) for i in range(4)]
    fit_tokenizer(iter(noise), encoder="mfcc", clusters=UNITS, seed=0).save(folder)
    return folder


@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_weights_and_logits_are_those_that_were_trained(tmp_path: Path, family: str, tied: bool) -> None:
    vocabulary = joint()
    trained(tmp_path / "model", vocabulary, family, tied)
    made = export_stock(tmp_path / "model", tmp_path / "out")
    old, new = load_file(tmp_path / "model/model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    assert old.keys() == new.keys()
    assert all(same_bits(old[name], new[name]) for name in old)
    assert Vocabulary.load(tmp_path / "out").fingerprint == made.vocabulary.fingerprint == vocabulary.fingerprint
    before, after = load_model(tmp_path / "model"), load_model(tmp_path / "out")
    assert torch.equal(logits(before, vocabulary), logits(after, vocabulary))
    rope = (before.config.rope_parameters, after.config.rope_parameters) if family != "opt" else (0, 0)
    assert rope[0] == rope[1], "names of transformers 4 beside them change nothing"
    again = export_stock(tmp_path / "out", tmp_path / "again")
    assert again.dtypes == ("float32",)
    for file in sorted((tmp_path / "out").rglob("*.*")):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(tmp_path / "out")).read_bytes(), file.name


def test_shards_and_index_hold_every_weight_once(tmp_path: Path) -> None:
    vocabulary = joint()
    model = trained(tmp_path / "model", vocabulary)
    made = export_stock(tmp_path / "model", tmp_path / "out", max_shard_bytes=8_000)
    assert len(made.shards) > 3
    held: dict[str, torch.Tensor] = {}
    for shard in made.shards:
        part = load_file(tmp_path / "out" / shard)
        assert len(part) == 1 or sum(weight.nbytes for weight in part.values()) <= 8_000
        assert not held.keys() & part.keys()
        held |= part
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert set(index["weight_map"]) == set(held)
    assert index["metadata"]["total_size"] == sum(weight.nbytes for weight in held.values())
    assert torch.equal(logits(load_model(tmp_path / "out"), vocabulary), logits(model, vocabulary))


def test_cast_is_said_and_kept_where_not_asked(tmp_path: Path) -> None:
    vocabulary = joint()
    trained(tmp_path / "model", vocabulary)
    made = export_stock(tmp_path / "model", tmp_path / "bf16", dtype="bf16")
    assert made.dtypes == ("bfloat16",)
    assert "weights were cast to bf16" in made.notes
    assert AutoConfig.from_pretrained(tmp_path / "bf16").dtype == torch.bfloat16
    kept = export_stock(tmp_path / "bf16", tmp_path / "kept")
    assert kept.dtypes == ("bfloat16",), "half precision stays what it was"
    weights = load_file(tmp_path / "bf16/model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], 1e30)
    save_file(weights, tmp_path / "bf16/model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"model\.norm\.weight.*fp16 cannot"):
        export_stock(tmp_path / "bf16", tmp_path / "fp16", dtype="fp16")
    assert not (tmp_path / "fp16").exists()


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_stock_tokenizer_has_our_ids(tmp_path: Path, kind: str) -> None:
    vocabulary = joint(kind)
    trained(tmp_path / "model", vocabulary)
    export_stock(tmp_path / "model", tmp_path / "out")
    stock = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (stock.eos_token_id, stock.model_max_length, len(stock)) == (vocabulary.eos_id, 64, vocabulary.size)
    assert stock("<Un3><Un4>")["input_ids"] == vocabulary.unit_ids(np.array([3, 4])).tolist()
    assert stock("tom ran")["input_ids"] == vocabulary.encode_text(["tom ran"]).flat.tolist()
    mixed = "<eos><speech><Un3><Un4><text> tom ran"
    assert stock(mixed)["input_ids"] == vocabulary.parse(mixed).tolist()
    ids = stock(mixed)["input_ids"]
    assert stock.decode(ids).replace(" ", "") == mixed.replace(" ", "")
    assert stock.decode(ids, skip_special_tokens=True).strip() == "tom ran", "units are special: keep them to see them"


def test_units_alone_and_text_alone_are_exported_too(tmp_path: Path) -> None:
    merged = Subwords(kind="unigram", num_units=UNITS, pieces=((1, 2), (3, 4, 5)), scores=(-1.0,) * 12)
    for name, vocabulary in {
        "units": Vocabulary.textless(UNITS),
        "merged": Vocabulary.textless(UNITS, subwords=merged),
        "text": joint().text_subset(),
        "spelled": Vocabulary.joint(build_text_tokenizer(TEXTS), UNITS, spelling="spiritlm"),
    }.items():
        trained(tmp_path / name, vocabulary)
        export_stock(tmp_path / name, tmp_path / f"{name}-out")
        assert Vocabulary.load(tmp_path / f"{name}-out").fingerprint == vocabulary.fingerprint
        stock = AutoTokenizer.from_pretrained(tmp_path / f"{name}-out")
        assert stock("".join(vocabulary.names))["input_ids"] == list(range(vocabulary.text_size, vocabulary.size))
        ids = json.loads((tmp_path / f"{name}-out/speech_tokenizer.json").read_text())["ids"]
        assert ids["size"] == vocabulary.size
        assert ids["units"][1] - ids["units"][0] == vocabulary.num_units


def test_tokenizer_goes_along_and_is_summed_up(tmp_path: Path, tokenizer: Path) -> None:
    trained(tmp_path / "model", joint())
    (tokenizer / "record.json").write_text("{}")
    export_stock(tmp_path / "model", tmp_path / "out", speech_tokenizer=tokenizer, units_per_second=20.5)
    copied, original = SpeechTokenizer.load(tmp_path / "out/speech_tokenizer"), SpeechTokenizer.load(tokenizer)
    assert copied.fingerprint == original.fingerprint
    assert not (tmp_path / "out/speech_tokenizer/record.json").exists()
    summary = json.loads((tmp_path / "out/speech_tokenizer.json").read_text())
    expected = {"format": FORMAT, "encoder": "mfcc", "num_units": UNITS, "deduplicated": True, "vocoder": None}
    assert summary | expected == summary
    saved = json.loads((tokenizer / "speech_tokenizer.json").read_text())
    assert summary["kmeans_sha256"] == saved["centroids_sha256"]
    assert bundle_rate(tmp_path / "out") == 20.5
    assert bundle_rate(tokenizer) is None, "a tokenizer's own file of that name is another thing"
    vocabulary = joint()
    assert summary["ids"]["units"] == [vocabulary.unit_start, vocabulary.speech_stop]
    assert summary["ids"]["speech_marker"] == vocabulary.SPEECH


def test_what_does_not_belong_together_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    vocabulary = joint()
    trained(tmp_path / "model", vocabulary)
    others = tmp_path / "others"
    phone_tokenizer(["a", "b"]).save(others)
    with pytest.raises(DataError, match="3 units, the model 10"):
        export_stock(tmp_path / "model", tmp_path / "out", speech_tokenizer=others)
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled/vocoder.pt").write_bytes(b"\x80")
    with pytest.raises(DataError, match="neither JSON nor safetensors"):
        export_stock(tmp_path / "model", tmp_path / "out", vocoder=tmp_path / "pickled")
    with pytest.raises(DataError, match=r"fp8.*allowed: fp32"):
        export_stock(tmp_path / "model", tmp_path / "out", dtype="fp8")
    Vocabulary.textless(UNITS).save(tmp_path / "model")
    with pytest.raises(DataError, match="rows, its vocabulary has 11 ids"):
        export_stock(tmp_path / "model", tmp_path / "out")
    (tmp_path / "model/vocabulary.json").unlink()
    with pytest.raises(DataError, match="missing"):
        export_stock(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.glob(".*")] == [], "and no draft is left"


def test_older_tools_find_the_rotary_base(tmp_path: Path) -> None:
    trained(tmp_path / "model", joint())
    config = json.loads((tmp_path / "model/config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 500_000.0}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    export_stock(tmp_path / "model", tmp_path / "out")
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert (written["rope_theta"], written["torch_dtype"], written["dtype"]) == (500_000.0, "float32", "float32")
    assert AutoConfig.from_pretrained(tmp_path / "out").rope_parameters["rope_theta"] == 500_000.0


def test_code_of_others_does_not_travel(tmp_path: Path) -> None:
    trained(tmp_path / "model", joint())
    config = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))
    (tmp_path / "model/evil.py").write_text("raise SystemExit")
    export_stock(tmp_path / "model", tmp_path / "out")
    assert "auto_map" not in json.loads((tmp_path / "out/config.json").read_text())
    assert {path.suffix for path in (tmp_path / "out").rglob("*.*")} == {".json", ".safetensors"}


def test_links_to_what_lies_elsewhere_are_not_followed(tmp_path: Path, tokenizer: Path) -> None:
    trained(tmp_path / "model", joint())
    (tmp_path / "secret.json").write_text('{"password": "x"}')
    shutil.copytree(tokenizer, tmp_path / "units")
    (tmp_path / "units/notes.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(DataError, match=r"notes\.json' is a link that leaves"):
        export_stock(tmp_path / "model", tmp_path / "out", speech_tokenizer=tmp_path / "units")
    (tmp_path / "model/import.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(DataError, match=r"import\.json' is a link that leaves"):
        export_stock(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_exports_and_tells_layouts_apart(tmp_path: Path) -> None:
    trained(tmp_path / "model", joint())
    run = CliRunner().invoke
    result = run(cli, ["model", "export", str(tmp_path / "model"), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "float32 weights" in result.output
    assert "no speech tokenizer beside it" in result.output
    wrong = run(cli, ["model", "export", str(tmp_path / "model"), str(tmp_path / "x"), "--base-name", "a/b"])
    assert wrong.exit_code == 2
    back = run(
        cli, ["model", "export", str(tmp_path / "model"), str(tmp_path / "p"), "--to", "slamkit", "--base-name", "a/b"]
    )
    assert back.exit_code == 0, back.output


FRESH = """
import sys, json, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, prompt, forbidden = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder).eval()
ids = torch.tensor([prompt])
with torch.inference_mode():
    logits = model(ids).logits
made = model.generate(ids, do_sample=False, max_new_tokens=20, suppress_tokens=forbidden)
sampled = model.generate(ids, max_new_tokens=20)
torch.save({"logits": logits, "made": made[0, len(prompt):].tolist()}, sys.argv[4])
assert model.generation_config.do_sample and model.generation_config.top_k == 25
assert not any("speechscale" in name for name in sys.modules)
"""


@pytest.mark.slow
def test_stock_transformers_in_a_fresh_process_says_the_same(tmp_path: Path) -> None:
    vocabulary = joint()
    model = trained(tmp_path / "model", vocabulary, "qwen2", tied=False)
    export_stock(tmp_path / "model", tmp_path / "out", max_shard_bytes=8_000)
    units = vocabulary.unit_ids(np.array([3, 4, 7])).tolist()
    prompt = [vocabulary.eos_id, vocabulary.SPEECH, *units]
    speech = {vocabulary.eos_id, *range(vocabulary.unit_start, vocabulary.speech_stop)}
    forbidden = json.dumps(sorted(set(range(vocabulary.size)) - speech))
    said = tmp_path / "said.pt"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path / "out"), json.dumps(prompt), forbidden, str(said)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    found = torch.load(said, weights_only=True)
    with torch.inference_mode():
        assert torch.equal(found["logits"], model(torch.tensor([prompt])).logits)
    (mine,) = generate(model, vocabulary, [prompt], max_new_tokens=20, modality="speech", temperature=0.0)
    ended = found["made"][: found["made"].index(vocabulary.eos_id)] if vocabulary.eos_id in found["made"] else None
    assert mine == (found["made"] if ended is None else ended)
    assert len(mine) > 5, "a model that ends at once shows nothing"
