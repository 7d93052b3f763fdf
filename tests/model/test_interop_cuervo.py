"""Catches a model of Cuervo's suite that computes something else as a stock Llama: positions turned in other pairs,
gate and up swapped, another width of the feed-forward network, EOS and units in each other's rows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional
from click.testing import CliRunner
from torch import Tensor

from speechscale.cli import cli
from speechscale.errors import DataError
from speechscale.model.interop import Wanted, import_model
from speechscale.model.interop_cuervo import cuervo_config
from speechscale.model.interop_stock import empty_model
from speechscale.model.slm import load_model
from speechscale.tokens.vocabulary import Vocabulary
from tests.model.peers import INDEX, write_shards

SMALL = {"dim": 48, "n_layers": 2, "n_heads": 4, "vocab_size": 22, "multiple_of": 16, "block_size": 64}
RELEASED = [  # layers, width, heads, parameters with tied tables of 502 rows
    (6, 512, 8, 20_710_912),
    (12, 768, 12, 85_339_392),
    (12, 1024, 16, 154_680_320),
    (24, 1024, 16, 308_845_568),
    (16, 2048, 32, 823_179_264),
]


def draw(args: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the names of the released files; the tied output comes only once."""
    generator = torch.Generator().manual_seed(seed)
    dim, head = args["dim"], args["dim"] // args["n_heads"]
    keys = (args.get("n_kv_heads") or args["n_heads"]) * head
    step = args.get("multiple_of", 256)
    wide = args.get("hidden_dim") or math.ceil(int(8 * dim / 3) / step) * step
    block = {
        "attention.wq": (dim, dim),
        "attention.wk": (keys, dim),
        "attention.wv": (keys, dim),
        "attention.wo": (dim, dim),
        "feed_forward.w1": (wide, dim),
        "feed_forward.w2": (dim, wide),
        "feed_forward.w3": (wide, dim),
        "attention_norm": (dim,),
        "ffn_norm": (dim,),
    }
    shapes = {"tok_embeddings": (args["vocab_size"], dim)}
    for layer in range(args["n_layers"]):
        shapes |= {f"layers.{layer}.{name}": shape for name, shape in block.items()}
    shapes["norm"] = (dim,)
    return {
        f"{name}.weight": torch.randn(shape, generator=generator) * (0.1 if len(shape) == 2 else 0.3)
        + (len(shape) == 1)
        for name, shape in shapes.items()
    }


def write(folder: Path, args: dict[str, Any], state: dict[str, Tensor], shards: int = 1, **outer: Any) -> Path:
    folder.mkdir()
    config = {
        "format_version": 1,
        "model_type": "slm",
        "architectures": ["TransformerLM"],
        "model_args": args,
        "torch_dtype": "float32",
        "tied_weights": ["tok_embeddings.weight", "output.weight"],
    }
    (folder / "config.json").write_text(json.dumps(config | outer))
    write_shards(folder, state, shards)
    return folder


def reference(args: dict[str, Any], state: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Logits as the architecture is described: RMS norms, pairs (2i, 2i + 1) of a head turned by position, SwiGLU."""
    heads, head = args["n_heads"], args["dim"] // args["n_heads"]
    rows, length = ids.shape
    hidden = state["tok_embeddings.weight"][ids]
    speeds = 10_000.0 ** -(torch.arange(0, head, 2, dtype=hidden.dtype) / head)
    angles = torch.outer(torch.arange(length, dtype=hidden.dtype), speeds)
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]  # (T, 1, head / 2)
    future = torch.ones(length, length, dtype=torch.bool).triu(1)

    def norm(name: str, x: Tensor) -> Tensor:
        scale = (x.square().mean(-1, keepdim=True) + args.get("norm_eps", 1e-5)).rsqrt()
        return x * scale * state[f"{name}.weight"]

    def split(x: Tensor, turned: bool) -> Tensor:
        x = x.reshape(rows, length, -1, head)
        if turned:
            pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], head // 2, 2).contiguous())
            x = torch.view_as_real(pairs * turn).flatten(-2)
        return x.repeat_interleave(heads // x.shape[2], dim=2)

    for layer in range(args["n_layers"]):
        at = f"layers.{layer}"
        x = norm(f"{at}.attention_norm", hidden)
        q, k, v = (split(x @ state[f"{at}.attention.w{n}.weight"].T, n != "v") for n in "qkv")
        scores = torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(head)
        weights = scores.masked_fill(future, -torch.inf).softmax(-1)
        mixed = torch.einsum("bhts,bshd->bthd", weights, v).reshape(rows, length, -1)
        hidden = hidden + mixed @ state[f"{at}.attention.wo.weight"].T
        x = norm(f"{at}.ffn_norm", hidden)
        gate, up = (x @ state[f"{at}.feed_forward.{name}.weight"].T for name in ("w1", "w3"))
        hidden = hidden + (torch.nn.functional.silu(gate) * up) @ state[f"{at}.feed_forward.w2.weight"].T
    return norm("norm", hidden) @ state["tok_embeddings.weight"].T


def compare(folder: Path, out: Path, args: dict[str, Any], state: dict[str, Tensor], length: int) -> None:
    """Import, and hold units and EOS against the reference, in fp32: a stock Llama computes norms and angles so."""
    import_model(folder, out)
    units = args["vocab_size"] - 2
    rng = np.random.default_rng(0)
    vocabulary, drawn = Vocabulary.load(out), rng.integers(0, units, (2, length))
    theirs = torch.from_numpy(np.column_stack([[units, units], drawn]))  # EOS in front
    ours = torch.from_numpy(np.column_stack([[0, 0], drawn + vocabulary.unit_start]))
    with torch.no_grad():
        want = reference(args, state, theirs)[..., [units, *range(units)]]
        got = load_model(out).eval()(ours).logits
    assert torch.allclose(got, want, rtol=0, atol=1e-5 * float(want.abs().max()))


@pytest.mark.parametrize("extra", [{}, {"n_kv_heads": 2}, {"hidden_dim": 80, "norm_eps": 1e-3}])
@pytest.mark.parametrize("shards", [1, 3])
def test_logits_are_those_of_the_description(tmp_path: Path, extra: dict[str, Any], shards: int) -> None:
    args = SMALL | extra
    state = draw(args)
    compare(write(tmp_path / "peer", args, state, shards), tmp_path / "out", args, state, 40)
    assert (tmp_path / "out" / INDEX).is_file() == (shards > 1)


def test_the_comparison_would_see_positions_left_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without moving rows of queries and keys a stock Llama turns other pairs; a first token alone does not show it."""
    state = draw(SMALL)
    monkeypatch.setattr("speechscale.model.interop_cuervo.halves", lambda weight, _: weight)
    with pytest.raises(AssertionError):
        compare(write(tmp_path / "peer", SMALL, state), tmp_path / "out", SMALL, state, 40)


def test_the_smallest_released_shape(tmp_path: Path) -> None:
    """20M, with the fields that its released config has."""
    args = {"dim": 512, "n_layers": 6, "n_heads": 8, "vocab_size": 502, "multiple_of": 256, "block_size": 2050}
    args |= {"n_kv_heads": None, "prefix_vocab_size": None, "hidden_dim": None, "norm_eps": 1e-5, "prefix_pad": None}
    state = draw(args)
    assert sum(weight.numel() for weight in state.values()) == RELEASED[0][3]
    folder = write(tmp_path / "peer", args, state)
    compare(folder, tmp_path / "out", args, state, 100)
    done = CliRunner().invoke(cli, ["model", "import", str(folder), str(tmp_path / "again")])
    assert done.exit_code == 0, done.output
    assert "PAD (501)" in done.output
    assert "501 ids, 500 of them units" in done.output
    config = load_model(tmp_path / "again").config
    assert (config.vocab_size, config.eos_token_id, config.max_position_embeddings) == (501, 0, 2050)


@pytest.mark.parametrize(("layers", "dim", "heads", "count"), RELEASED)
def test_the_released_sizes_have_their_parameters(layers: int, dim: int, heads: int, count: int) -> None:
    args = {"dim": dim, "n_layers": layers, "n_heads": heads, "vocab_size": 502, "block_size": 2050}
    config = cuervo_config({"format_version": 1, "model_args": args}, "x")
    assert sum(weight.numel() for weight in empty_model(config).parameters()) == count


@pytest.mark.parametrize(
    ("args", "outer", "message"),
    [
        ({"prefix_vocab_size": 8}, {}, "prefixes from a second table"),
        ({"window": 5}, {}, "model_args has 'window'"),
        ({}, {"format_version": 2}, "format_version 2"),
        ({}, {"model_args": None}, "with model_args"),
        ({"vocab_size": 30}, {}, "the config says"),
        ({"n_heads": 5}, {}, "cannot be read"),
    ],
)
def test_models_that_would_not_be_the_same_are_refused(
    tmp_path: Path, args: dict[str, Any], outer: dict[str, Any], message: str
) -> None:
    folder = write(tmp_path / "peer", SMALL | args, draw(SMALL), **outer)
    with pytest.raises(DataError, match=message):
        import_model(folder, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_arguments_of_no_use_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "peer", SMALL, draw(SMALL))
    with pytest.raises(DataError, match="22 rows of an slm checkpoint are 20 units"):
        import_model(folder, tmp_path / "out", wanted=Wanted(units=21))
    with pytest.raises(DataError, match="--tokenizer is of no use"):
        import_model(folder, tmp_path / "out", wanted=Wanted(tokenizer="x"))
    with pytest.raises(DataError, match="leave --base-config out"):
        import_model(folder, tmp_path / "out", wanted=Wanted(base_config="x"))
