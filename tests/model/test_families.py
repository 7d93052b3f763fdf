"""Catches a family that an SLM cannot be made of: text that moves, units that start far from uniform, a folder that
stock transformers reads as another model."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from speechscale.model.anatomy import body_of, embedding_of, head_of, is_tied, output_layer_of
from speechscale.model.families import TRAITS
from speechscale.model.folders import load_model, load_text_lm, save_model
from speechscale.model.shape import Size
from speechscale.model.sizes import get_size
from speechscale.model.slm import drop_text, extend, new_model

TEXT, PADDING, UNITS, CONTEXT = 60, 12, 40, 32
JOINT = TEXT + UNITS + 2
PROJECTED = dataclasses.replace(get_size("opt:0.02M"), name="projected", own_row_dim=24, post_norm=True)
SHAPES = [
    *(
        dataclasses.replace(get_size(f"{f}:0.02M"), tied=tied, name=f"{f}-{tied}")
        for f in TRAITS
        for tied in (True, False)
    ),
    PROJECTED,
]


def text_rows(count: int, generator: torch.Generator) -> Tensor:
    """Rows in which each id is followed by one of two others."""
    ids = torch.randint(1, TEXT, (count, 1), generator=generator)
    for _ in range(CONTEXT - 1):
        step = torch.randint(2, (count, 1), generator=generator) + 1
        ids = torch.cat([ids, (ids[:, -1:] * 7 + step) % (TEXT - 1) + 1], dim=1)
    return ids


def mean_loss(model: Any, ids: Tensor) -> Tensor:
    logits = model(ids, use_cache=False).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


@pytest.fixture(scope="module", params=SHAPES, ids=lambda size: size.name)
def text_lm(request: pytest.FixtureRequest) -> Any:
    """A TextLM with rows of padding, trained until it knows something and has pushed them away."""
    size: Size = request.param
    model = new_model(size, TEXT + PADDING, CONTEXT, seed=0)
    assert is_tied(model) == size.tied
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.95), fused=True)
    for _ in range(40):
        loss = mean_loss(model, text_rows(8, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def test_text_stays_bit_for_bit_and_units_start_uniform(text_lm: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    text = text_rows(8, generator)
    before = copy.deepcopy(text_lm.state_dict())
    slm = extend(text_lm, TEXT, JOINT, seed=1)
    assert type(slm) is type(text_lm)
    tables = {"embed_tokens.weight", "embed_in.weight", "lm_head.weight", "lm_head.bias"}
    for name, weight in text_lm.state_dict().items():
        assert torch.equal(weight, before[name]), "the TextLM was changed"
        is_table = any(name.endswith(table) for table in tables)
        assert torch.equal(slm.state_dict()[name][: TEXT if is_table else None], weight[: TEXT if is_table else None])
    units = torch.randint(TEXT, JOINT, (16, CONTEXT), generator=generator)
    with torch.no_grad():
        logits = text_lm(text, use_cache=False).logits
        assert logits.softmax(-1)[..., TEXT:].sum(-1).mean() < 0.05, "padding was not pushed away: no trap to avoid"
        assert torch.equal(slm(text, use_cache=False).logits[..., :TEXT], logits[..., :TEXT])
        assert mean_loss(slm, units).item() == pytest.approx(math.log(JOINT), abs=0.8)
        assert mean_loss(slm, text) < mean_loss(text_lm, text) + 0.6
    assert slm.config.vocab_size == JOINT == embedding_of(slm).weight.shape[0] == output_layer_of(slm).weight.shape[0]
    assert is_tied(slm) == is_tied(text_lm)


def test_units_alone_start_uniform_and_all_learn(text_lm: Any) -> None:
    """OPT's and Gemma's padding id would be a unit here, whose row nn.Embedding never trains."""
    text_lm = copy.deepcopy(text_lm)
    text_lm.config.pad_token_id = embedding_of(text_lm).padding_idx = 1
    slm = drop_text(text_lm, 1 + UNITS, seed=0)
    ids = torch.arange(1 + UNITS)[None, :CONTEXT].expand(2, CONTEXT)
    units = torch.randint(1, 1 + UNITS, (16, CONTEXT), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert mean_loss(slm, units).item() == pytest.approx(math.log(1 + UNITS), abs=1)
    hidden = body_of(slm)(input_ids=ids, use_cache=False).last_hidden_state
    (gradient,) = torch.autograd.grad(hidden.square().sum() + hidden.sum(), embedding_of(slm).weight)
    assert (gradient[:CONTEXT].abs().sum(1) > 0).all()
    assert (slm.config.pad_token_id, slm.config.eos_token_id, slm.config.vocab_size) == (None, 0, 1 + UNITS)
    body = [n for n in slm.state_dict() if "embed_tokens" not in n and "embed_in" not in n and "lm_head" not in n]
    assert body
    assert all(torch.equal(slm.state_dict()[name], text_lm.state_dict()[name]) for name in body)


def test_stock_transformers_reads_the_same_model(text_lm: Any, tmp_path: Path) -> None:
    slm = extend(text_lm, TEXT, JOINT, seed=1).eval()
    save_model(slm, tmp_path / "model")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert type(stock) is type(slm)
    assert type(stock).__module__.startswith("transformers.")
    ids = torch.randint(0, JOINT, (4, CONTEXT), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = slm(ids, use_cache=False).logits
        for model in (stock, load_model(tmp_path / "model"), load_text_lm(tmp_path / "model")):
            assert torch.equal(model.eval()(ids, use_cache=False).logits, expected)
    assert is_tied(stock) == is_tied(slm)
    assert head_of(stock).weight.shape[0] == JOINT
