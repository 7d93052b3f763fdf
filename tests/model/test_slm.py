"""Catches an SLM whose text side moved, whose unit rows start far from uniform, or that uses global randomness."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from speechscale.errors import DataError
from speechscale.model.rows import POLICIES
from speechscale.model.shape import Size
from speechscale.model.sizes import SIZES
from speechscale.model.slm import drop_speech, drop_text, extend, new_model
from speechscale.tokens.packing import Batch, pack_documents
from speechscale.train.loop import TrainConfig, train
from speechscale.train.losses import loss_by_modality

TEXT, UNITS, CONTEXT = 120, 60, 64
JOINT = TEXT + UNITS + 2
UNTIED = Size(name="untied", layers=2, dim=32, heads=2, kv_heads=1, ffn=64, family="qwen2", tied=False)
SHAPES = [SIZES["0.02M"], UNTIED]


def table(vocab: int) -> np.ndarray:
    kinds = np.full(vocab, 2, np.int8)
    kinds[1:TEXT] = 0
    kinds[TEXT : TEXT + UNITS] = 1
    return kinds


def markov(first: int, states: int, branches: int, documents: int, stream: str, seed: int) -> list[Batch]:
    """Documents of a random chain: each id is followed by one of a few others."""
    rng = np.random.default_rng(seed)
    successors = rng.integers(0, states, (states, branches))
    bodies = []
    for _ in range(documents):
        walk = [int(rng.integers(states))]
        for _ in range(int(rng.integers(15, 31))):
            walk.append(int(successors[walk[-1], rng.integers(branches)]))
        bodies.append(np.array(walk) + first)
    return pack_documents(bodies, [stream] * documents, CONTEXT, batch_rows=8)


def trained_on_text(size: Size, vocab: int, order: int | None = None) -> Any:
    batches = [b for b in markov(1, TEXT - 1, 3, 1500, "text", seed=0) if len(b.tokens) == 8]
    if order is not None:
        random.Random(order).shuffle(batches)
    model = new_model(size, vocab, CONTEXT, seed=0)
    config = TrainConfig(
        tokens=60_000, batch_rows=8, context=CONTEXT, learning_rate=1e-2, precision="fp32", select_on="text"
    )
    train(model, iter(batches * 8), config, modality=table(JOINT)[:vocab], validation={})
    return model


@pytest.fixture(scope="module")
def text_lm() -> Any:
    return trained_on_text(SIZES["0.2M"], TEXT)


@pytest.fixture(scope="module")
def speech() -> list[Batch]:
    return markov(TEXT, UNITS, 3, 60, "speech", seed=1)


def unit_loss(model: Any, speech: list[Batch]) -> float:
    loss = loss_by_modality(model, speech, table(JOINT)).speech
    assert loss is not None
    return loss


@pytest.mark.parametrize("size", SHAPES, ids=["tied", "untied"])
def test_same_seed_same_weights_and_no_global_randomness(size: Size) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two, other = (new_model(size, 50, CONTEXT, seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, two.state_dict()[name])
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    assert one.model.layers[0].mlp.up_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(one.model.norm.weight, torch.ones(size.dim))


@pytest.mark.parametrize("policy", list(POLICIES))
@pytest.mark.parametrize("size", SHAPES, ids=["tied", "untied"])
def test_extension_keeps_text_bit_for_bit(size: Size, policy: str) -> None:
    lm = new_model(size, TEXT + 8, CONTEXT, seed=0)  # eight rows of padding behind the text
    original = copy.deepcopy(lm.state_dict())
    centroids = np.random.default_rng(0).normal(size=(UNITS, 8)) if policy == "centroid" else None
    slm = extend(lm, TEXT, JOINT, seed=1, policy=policy, centroids=centroids)
    for name, weight in lm.state_dict().items():
        assert torch.equal(weight, original[name]), "the TextLM was changed"
        kept = TEXT if name.endswith(("embed_tokens.weight", "lm_head.weight")) else len(weight)
        assert torch.equal(slm.state_dict()[name][:kept], weight[:kept])
    assert not torch.equal(slm.lm_head.weight[TEXT : TEXT + 8], lm.lm_head.weight[TEXT:])
    assert (slm.lm_head.weight is slm.model.embed_tokens.weight) == size.tied
    tokens = torch.randint(0, TEXT, (4, CONTEXT), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(slm(tokens).logits[..., :TEXT], lm(tokens).logits[..., :TEXT])
        assert slm(tokens).logits.shape[-1] == JOINT == slm.config.vocab_size
    again = extend(lm, TEXT, JOINT, seed=1, policy=policy, centroids=centroids)
    assert torch.equal(again.lm_head.weight, slm.lm_head.weight)


def margins_of_policies(order: int, speech: list[Batch]) -> tuple[float, float]:
    """Nats by which gaussian rows, and rows that stood unused in the training on text, start worse than fresh ones."""
    lm = trained_on_text(SIZES["0.2M"], TEXT, order)
    unused = unit_loss(trained_on_text(SIZES["0.2M"], JOINT, order), speech)
    fresh = unit_loss(extend(lm, TEXT, JOINT, seed=1), speech)
    return unit_loss(extend(lm, TEXT, JOINT, seed=1, policy="gaussian"), speech) - fresh, unused - fresh


@pytest.mark.timeout(600)  # fifteen small models: a minute alone, four on a busy core
@pytest.mark.slow
def test_fresh_rows_start_near_uniform_and_unused_rows_do_not_learn(text_lm: Any, speech: list[Batch]) -> None:
    """The trap: rows trained in the softmax without a target, or drawn as small as those of a new model."""
    fresh = extend(text_lm, TEXT, JOINT, seed=1)
    assert abs(unit_loss(fresh, speech) - math.log(JOINT)) < 1
    small = extend(text_lm, TEXT, JOINT, seed=1, policy="gaussian")
    unused = trained_on_text(SIZES["0.2M"], JOINT)
    margins = [margins_of_policies(order, speech) for order in range(6)]  # one order alone: .3 to 1.5, 2.4 to 5.2
    gaussian, untrained = np.mean(margins, axis=0)
    assert gaussian > 0.7, margins
    assert untrained > 3, margins
    batches = [b for b in markov(TEXT, UNITS, 3, 900, "speech", seed=1) if len(b.tokens) == 8]
    config = TrainConfig(tokens=15_000, batch_rows=8, context=CONTEXT, learning_rate=1e-2, precision="fp32", checks=1)
    after = []
    for model in (fresh, small, unused):
        result = train(model, iter(batches), config, modality=table(JOINT), validation={"test": speech})
        after.append(result.final["test"].speech or math.nan)
    assert after[0] < after[1] - 0.5
    assert after[0] < after[2] - 0.5


def test_calibration_leaves_text_usable(text_lm: Any) -> None:
    text = markov(1, TEXT - 1, 3, 60, "text", seed=0)
    before = loss_by_modality(text_lm, text, table(TEXT)).text
    after = loss_by_modality(extend(text_lm, TEXT, JOINT, seed=1), text, table(JOINT)).text
    assert before is not None
    assert after == pytest.approx(before, abs=0.5)


def test_textless_warm_keeps_the_body_only(text_lm: Any) -> None:
    slm = drop_text(text_lm, 1 + UNITS, seed=0)
    assert slm.lm_head.weight.shape == (1 + UNITS, 64)
    assert slm.config.vocab_size == 1 + UNITS
    kept = [n for n in slm.state_dict() if "embed" not in n and "lm_head" not in n]
    assert all(torch.equal(slm.state_dict()[n], text_lm.state_dict()[n]) for n in kept)
    assert not torch.equal(slm.lm_head.weight, text_lm.lm_head.weight[: 1 + UNITS])
    rows = [np.random.default_rng(0).integers(1, 1 + UNITS, 30) for _ in range(40)]
    kinds = np.full(1 + UNITS, 1, np.int8)
    loss = loss_by_modality(slm, pack_documents(rows, ["speech"] * 40, CONTEXT), kinds).speech
    assert loss == pytest.approx(math.log(1 + UNITS), abs=1.5)


@pytest.mark.parametrize("size", SHAPES)
def test_drop_speech_undoes_extend(size: Size) -> None:
    """Would catch a text side whose rows, head or config are not the TextLM's."""
    text_lm = new_model(size, TEXT, CONTEXT, seed=0)
    slm = extend(text_lm, TEXT, JOINT, seed=1)
    back = drop_speech(slm, TEXT)
    expected, found = text_lm.state_dict(), back.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (back.config.vocab_size, slm.config.vocab_size) == (TEXT, JOINT)
    tokens = torch.arange(1, 9)[None]
    assert torch.equal(back(input_ids=tokens).logits, text_lm(input_ids=tokens).logits)
    with torch.no_grad():  # a copy: the SLM stays as it was
        back.get_input_embeddings().weight.zero_()
    assert slm.get_input_embeddings().weight[:TEXT].abs().sum() > 0
    for wrong in (0, JOINT + 1):
        with pytest.raises(DataError, match=f"text vocabulary of {wrong}: this SLM has {JOINT} rows"):
            drop_speech(slm, wrong)


@pytest.mark.parametrize(
    ("text", "new", "policy", "message"),
    [
        (TEXT + 1, JOINT, "mean", "this TextLM has 120 rows"),
        (TEXT, TEXT, "mean", "does not go beyond"),
        (TEXT, JOINT, "fancy", "allowed: calibrated, gaussian, mean, mean_cov, centroid"),
    ],
)
def test_impossible_extensions_are_refused(text_lm: Any, text: int, new: int, policy: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        extend(text_lm, text, new, seed=0, policy=policy)
    with pytest.raises(DataError, match="at least one unit"):
        drop_text(text_lm, 1, seed=0)
