"""Catches a family whose logits, masks or positions are not what training takes them for."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, GraniteConfig, OPTConfig

from speechscale.errors import DataError
from speechscale.model.anatomy import (
    ContextLimit,
    blocks_of,
    body_of,
    context_limit,
    head_of,
    is_tied,
    rows_of,
    window_of,
)
from speechscale.model.families import TRAITS
from speechscale.model.shape import Size
from speechscale.model.sizes import get_size
from speechscale.model.slm import new_model

VOCAB, CONTEXT = 90, 64
LENGTHS = [13, 20, 7]
GRANITE = GraniteConfig(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    logits_scaling=8.0,
    embedding_multiplier=3.0,
    residual_multiplier=0.5,
    attention_multiplier=0.1,
    bos_token_id=0,
    eos_token_id=0,
)
OPT_350M_LIKE = Size(
    name="projected",
    layers=2,
    dim=32,
    heads=2,
    kv_heads=2,
    ffn=64,
    family="opt",
    positions=CONTEXT,
    own_row_dim=16,
    post_norm=True,
)
MODELS = [*TRAITS, "projected", "granite"]


def rough(name: str, tied: bool = True) -> Any:
    """A small model none of whose weights, norms and biases are at their idle values, with logits of several nats."""
    if name == "granite":
        with torch.random.fork_rng(devices=[]):
            model = AutoModelForCausalLM.from_config(GRANITE)
    else:
        size = OPT_350M_LIKE if name == "projected" else get_size(f"{name}:0.02M")
        model = new_model(dataclasses.replace(size, tied=tied), VOCAB, CONTEXT, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def some_ids(*shape: int) -> Tensor:
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", MODELS)
def test_head_gives_the_models_own_logits(name: str) -> None:
    """Gemma 2's cap, Granite's divisor and Phi's bias are forgotten here if anywhere."""
    model, ids = rough(name, tied=False), some_ids(2, 20)
    with torch.no_grad():
        hidden = body_of(model)(input_ids=ids, use_cache=False).last_hidden_state
        logits = model(ids, use_cache=False).logits
        assert torch.equal(head_of(model).logits(hidden), logits)
        plain = nn.functional.linear(hidden, head_of(model).weight)
    assert torch.equal(plain, logits) == (name not in ("gemma2", "granite", "phi"))


@pytest.mark.parametrize("name", MODELS)
def test_packed_documents_equal_each_alone(name: str) -> None:
    """A body that makes its own positions (OPT from the mask) or its own mask would fail."""
    model, ids = rough(name), some_ids(1, sum(LENGTHS))
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor(LENGTHS))
    hidden = (documents[:, None] != documents) | torch.ones(len(documents), len(documents)).triu(1).bool()
    mask = torch.zeros(hidden.shape).masked_fill(hidden, -math.inf)[None, None]
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    with torch.no_grad():
        packed = body_of(model)(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        alone = [
            body_of(model)(input_ids=part, attention_mask=None, use_cache=False).last_hidden_state
            for part in ids.split(LENGTHS, dim=1)
        ]
    torch.testing.assert_close(packed.last_hidden_state, torch.cat(alone, dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_parts(name: str, tied: bool) -> None:
    model = rough(name, tied)
    assert len(blocks_of(model)) == model.config.num_hidden_layers
    assert {type(block).__name__ for block in blocks_of(model)} == set(model._no_split_modules)
    assert rows_of(model) == VOCAB
    assert is_tied(model) == (model.config.tie_word_embeddings if name == "granite" else tied)


def test_limits() -> None:
    assert context_limit(rough("projected")) == ContextLimit(CONTEXT, hard=True)
    assert context_limit(rough("gpt_neox")) == ContextLimit(CONTEXT, hard=False)
    assert window_of(rough("gemma3")) == 512
    assert window_of(rough("qwen2")) is None
    with pytest.raises(IndexError):  # what "hard" means
        rough("projected")(torch.zeros(1, CONTEXT + 1, dtype=torch.int64))


def test_other_architectures_are_refused() -> None:
    model = AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=20))
    for part in (body_of, blocks_of, head_of, rows_of, is_tied, context_limit, window_of):
        with pytest.raises(DataError, match="'gpt2' are not known here; tested: llama"):
            part(model)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft asks by the old name
@pytest.mark.parametrize("name", ["llama", "gpt_neox", "opt"])
def test_adapters(name: str) -> None:
    peft = pytest.importorskip("peft")
    ids = some_ids(2, 9)

    def adapted(**options: Any) -> Any:
        config = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **options)
        return peft.get_peft_model(rough(name, tied=False), config)

    target = {"gpt_neox": "query_key_value"}.get(name, "q_proj")
    table = {"gpt_neox": "embed_in"}.get(name, "embed_tokens")
    for model in (
        adapted(target_modules=[target]),
        adapted(target_modules=[target], modules_to_save=[table, "lm_head"]),
    ):
        with torch.no_grad():
            head_of(model).weight[3] += 1  # the copy that is trained, not the one put aside
            hidden = body_of(model)(input_ids=ids, use_cache=False).last_hidden_state
            assert torch.equal(head_of(model).logits(hidden), model(ids, use_cache=False).logits)
        assert (rows_of(model), len(blocks_of(model)), is_tied(model)) == (VOCAB, 2, False)
    with pytest.raises(DataError, match="leave it out of the adapter"):
        head_of(adapted(target_modules=[target, "lm_head"]))
    with pytest.raises(DataError, match="list it under modules_to_save"):
        rows_of(adapted(target_modules=[target, table]))
    prompted = peft.get_peft_model(rough(name), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(DataError, match="cannot be trained packed"):
        body_of(prompted)


def test_opt_is_released_with_dropout() -> None:
    """Why `load_text_lm` switches it off."""
    assert OPTConfig().dropout == 0.1
