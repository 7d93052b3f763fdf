"""Catches a damaged, mixed up or unsafe checkpoint that is taken all the same; nothing may be left behind then."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from speechscale.errors import DataError
from speechscale.model.interop import Wanted, import_model
from speechscale.model.slm import load_model, save_model
from speechscale.tokens.vocabulary import Vocabulary
from tests.model.peers import INDEX, SHARD, slamkit, small, state_of

ONE, TWO = SHARD.format(1, 2), SHARD.format(2, 2)


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    return slamkit(small(22), tmp_path / "peer")


def refused(folder: Path, message: str, **wanted: object) -> None:
    out = folder.parent / "out"
    with pytest.raises(DataError, match=message):
        import_model(folder, out, wanted=Wanted(**wanted))  # type: ignore[arg-type]
    assert not list(folder.parent.glob("*out*"))


def change(path: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> str:
    """Edit the weights of a shard; returns the name of its first one."""
    weights = load_file(path)
    first = sorted(weights)[0]
    edit(weights)
    save_file(weights, path)
    return first


def test_a_broken_or_missing_shard_is_named(peer: Path) -> None:
    good = (peer / TWO).read_bytes()
    (peer / TWO).write_bytes(good[:-100])
    refused(peer, "00002-of-00002.* cannot be read")
    (peer / TWO).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(peer, "git lfs pull")
    (peer / TWO).unlink()
    refused(peer, "00002-of-00002.* is not there")


def test_index_and_shards_must_agree(peer: Path) -> None:
    index = json.loads((peer / INDEX).read_text())
    first = sorted(load_file(peer / TWO))[0]
    change(peer / TWO, lambda weights: weights.pop(first))
    refused(peer, f"no weight '{first}', which")
    del index["weight_map"][first]
    (peer / INDEX).write_text(json.dumps(index))
    refused(peer, f"no weight '{first.removeprefix('lm.')}' \\(1 missing")
    change(peer / TWO, lambda weights: weights.update({"lm.extra": torch.zeros(2)}))
    refused(peer, "does not know its weight 'lm.extra'")


@pytest.mark.parametrize(
    "text", ['{"weight_map": {"a": "../x.safetensors"}}', '{"weight_map": {"a": "/x.safetensors"}}']
)
def test_paths_do_not_leave_the_folder(peer: Path, text: str) -> None:
    (peer / INDEX).write_text(text)
    refused(peer, "no safetensors file of this folder")


@pytest.mark.parametrize("name", [INDEX, "config.json"])
def test_json_that_is_cut_off_is_named(peer: Path, name: str) -> None:
    text = (peer / name).read_text()
    (peer / name).write_text(text[: len(text) // 2])
    refused(peer, f"{name}: not readable as JSON")


def test_a_weight_with_two_values_is_refused_and_an_equal_copy_is_named(peer: Path) -> None:
    """The one that is read last would win, silently."""
    name = sorted(load_file(peer / ONE))[0]
    twin = load_file(peer / ONE)[name]
    change(peer / TWO, lambda weights: weights.update({name: twin + 1}))
    refused(peer, f"'{name}' stands in '{ONE}' and in '{TWO}' with other values")
    change(peer / TWO, lambda weights: weights.update({name: twin}))
    done = import_model(peer, peer.parent / "out")
    assert done.notes == (f"{name} stands in {ONE} and, equal, in {TWO}; written once",)
    files = [load_file(file) for file in (peer.parent / "out").glob("*.safetensors")]
    assert sum(name.removeprefix("lm.") in file for file in files) == 1


def test_one_weight_under_two_names_is_refused(peer: Path) -> None:
    table = json.loads((peer / INDEX).read_text())
    name = sorted(load_file(peer / TWO))[0]
    bare = name.removeprefix("lm.")
    change(peer / TWO, lambda weights: weights.update({bare: weights[name] + 1}))
    table["weight_map"][bare] = TWO
    (peer / INDEX).write_text(json.dumps(table))
    refused(peer, "are the same weight")


def test_shards_that_the_index_does_not_name_are_not_passed_over(peer: Path) -> None:
    """Left from another save of the model: nobody can say which of the two is meant."""
    save_file({"a": torch.zeros(1)}, peer / "model.safetensors")
    refused(peer, "'model.safetensors' lies beside the shards")
    (peer / "model.safetensors").rename(peer / "consolidated.safetensors")
    done = import_model(peer, peer.parent / "out")
    assert done.notes == ("consolidated.safetensors is no shard of the model; not read",)


def test_a_tied_head_that_differs_is_refused(tmp_path: Path) -> None:
    """The stock model reads one table for both, and a head of its own would be lost."""
    model = small(22)
    peer = slamkit(model, tmp_path / "peer", shards=1)
    table = state_of(model)["model.embed_tokens.weight"]
    change(peer / "model.safetensors", lambda weights: weights.update({"lm.lm_head.weight": table + 1}))
    refused(peer, "ties 'lm.lm_head.weight'")
    change(peer / "model.safetensors", lambda weights: weights.update({"lm.lm_head.weight": table}))
    import_model(peer, tmp_path / "out", wanted=Wanted(units=20))
    assert torch.equal(load_model(tmp_path / "out").lm_head.weight, table[1:])


def test_buffers_of_old_releases_are_left_out_and_named(peer: Path) -> None:
    name = "lm.model.layers.0.self_attn.rotary_emb.inv_freq"
    table = json.loads((peer / INDEX).read_text())
    table["weight_map"][name] = ONE
    (peer / INDEX).write_text(json.dumps(table))
    change(peer / ONE, lambda weights: weights.update({name: torch.ones(4)}))
    assert import_model(peer, peer.parent / "out").notes == (f"{name}: worked out from the config; left out",)


def test_quantized_weights_are_refused(peer: Path) -> None:
    name = sorted(load_file(peer / ONE))[0]
    change(peer / ONE, lambda weights: weights.update({name: weights[name].to(torch.int8)}))
    refused(peer, f"'{name}' is I8")
    config = json.loads((peer / "config.json").read_text())
    config["base_config"]["quantization_config"] = {"bits": 4}
    (peer / "config.json").write_text(json.dumps(config))
    refused(peer, "is quantized")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "checkpoint.pth", "pytorch_model.bin.index.json"])
def test_pickles_are_refused_with_the_safe_way(peer: Path, name: str) -> None:
    for file in [INDEX, ONE, TWO]:
        (peer / file).unlink()
    (peer / name).write_bytes(b"not a pickle, and never opened")
    refused(peer, "pickled.*weights_only=True.*save_file")
    if not name.endswith("json"):
        with pytest.raises(DataError, match="is a pickled file"):
            import_model(peer / name, peer.parent / "out")


def test_the_script_of_the_docs_converts_pickles(tmp_path: Path) -> None:
    """What the refusal sends people to must work as it stands, shards and tied tables included."""
    page = (Path(__file__).parents[2] / "docs" / "interop.md").read_text()
    script = page.split("## Pickled weights", 1)[1].split("```python\n", 1)[1].split("```", 1)[0]
    model = small(22)
    peer = slamkit(model, tmp_path / "peer")
    state = {f"lm.{name}": weight for name, weight in model.state_dict().items()}  # with the tied head
    for file in [INDEX, ONE, TWO]:
        (peer / file).unlink()
    half = len(state) // 2
    for number, names in enumerate((list(state)[:half], list(state)[half:]), 1):
        torch.save({name: state[name] for name in names}, peer / f"pytorch_model-{number:05}-of-00002.bin")
    exec(compile(script.replace('"FOLDER"', repr(str(peer))), "docs/interop.md", "exec"), {})
    import_model(peer, tmp_path / "out")
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "out").eval()(ids).logits, model(ids).logits)


def test_what_is_ours_or_unknown_is_said(tmp_path: Path, peer: Path) -> None:
    save_model(small(21), tmp_path / "ours")
    Vocabulary.textless(20).save(tmp_path / "ours")
    refused(tmp_path / "ours", "has our vocabulary")
    (tmp_path / "ours" / "tokenizer.json").write_text("{")
    refused(tmp_path / "ours", "differs from its lock")
    config = json.loads((peer / "config.json").read_text())
    (peer / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    refused(peer, "model_type is 'mamba'; this reads speech_language_model, slm, and stock models")
    (peer / "config.json").unlink()
    refused(peer, "config.json: the file is missing")


JUNK: list[object] = [None, -1, 0, "x", "", [], {}, 1.5, True, 10**9, float("nan"), [1], {"a": 1}, "../x"]


def places(value: object, at: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Where something stands in a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, part in inside for place in [(*at, key), *places(part, (*at, key))]]


@pytest.mark.parametrize("name", [INDEX, "config.json"])
def test_json_with_something_else_in_it_is_read_or_refused(peer: Path, name: str) -> None:
    """Never another error, a hang, or a folder left behind: what stands in these files is not ours."""
    text, out = (peer / name).read_text(), peer.parent / "out"
    rng, refusals = random.Random(0), 0
    for _ in range(60):
        value = json.loads(text)
        *path, last = rng.choice(places(value))
        inside = value
        for key in path:
            inside = inside[key]
        inside[last] = rng.choice(JUNK)
        (peer / name).write_text(json.dumps(value))
        try:
            import_model(peer, out)
            shutil.rmtree(out)
        except DataError:
            refusals += 1
            assert not list(peer.parent.glob("*out*"))
    assert refusals > 5


def test_a_write_that_fails_leaves_nothing(peer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr("speechscale.model.interop_weights.save_file", full)
    with pytest.raises(OSError, match="No space"):
        import_model(peer, peer.parent / "out")
    assert not list(peer.parent.glob("*out*"))
