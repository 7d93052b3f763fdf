"""SLMs from nothing, from a TextLM, or from a folder; always stock transformers models.

Enters: a `Size`, or a TextLM and a larger vocabulary. Leaves: a `*ForCausalLM` that plain transformers loads.
The one decision worth knowing: rows of units are drawn after the TextLM was trained, at the scale its rows have by
then. Rows that sat unused in its softmax, or as small as a new model's, cost much of a small budget (docs/model.md).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers import logging as transformers_logging

from speechscale.errors import DataError
from speechscale.model.sizes import Size

INIT_STD = 0.02
MEAN_NOISE = 0.1
"""Noise of the "mean" policy, as a share of the spread of the text rows."""
TRAINED_SHARE = 0.75
"""Spread of "calibrated" rows, as a share of the spread of the text rows."""
PROBE_ROWS, PROBE_TOKENS, CALIBRATION_ROUNDS = 16, 32, 4
Policy = Literal["calibrated", "gaussian", "mean"]


def model_config(size: Size, vocab_size: int, context: int) -> LlamaConfig | Qwen2Config:
    """Describe a size to transformers; `<eos>` is id 0 and also opens a document."""
    kind = Qwen2Config if size.family == "qwen2" else LlamaConfig
    return kind(
        vocab_size=vocab_size,
        hidden_size=size.dim,
        intermediate_size=size.ffn,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=context,
        rope_parameters={"rope_type": "default", "rope_theta": size.rope_theta},
        tie_word_embeddings=size.tied,
        initializer_range=INIT_STD,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
        attention_dropout=0.0,
    )


def new_model(size: Size, vocab_size: int, context: int, seed: int) -> Any:
    """Make a model from scratch: matrices N(0, 0.02), norms 1, biases 0.

    Same seed, same weights; the global random state is left alone.

    Args:
        context: longest row the model will see.

    Returns:
        A LlamaForCausalLM or Qwen2ForCausalLM in fp32.
    """
    kind = Qwen2ForCausalLM if size.family == "qwen2" else LlamaForCausalLM
    with torch.random.fork_rng(devices=[]):
        model = kind(model_config(size, vocab_size, context)).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():  # tied rows come once
            if parameter.ndim > 1:
                parameter.normal_(0.0, INIT_STD, generator=generator)
    return model


def _gaussian(text: Float[Tensor, "V d"], rows: int, generator: torch.Generator) -> Float[Tensor, "rows d"]:
    return torch.randn(rows, text.shape[1], generator=generator) * INIT_STD


def _mean(text: Float[Tensor, "V d"], rows: int, generator: torch.Generator) -> Float[Tensor, "rows d"]:
    noise = torch.randn(rows, text.shape[1], generator=generator)
    return text.mean(0) + noise * text.std() * MEAN_NOISE


def _trained_scale(text: Float[Tensor, "V d"], rows: int, generator: torch.Generator) -> Float[Tensor, "rows d"]:
    return torch.randn(rows, text.shape[1], generator=generator) * text.std() * TRAINED_SHARE


POLICIES: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "calibrated": _trained_scale,
    "gaussian": _gaussian,
    "mean": _mean,
}
"""How new rows are drawn: at the scale of trained rows and then shifted by `calibrate`; like the rows of a new model;
around the mean of the text rows."""


@torch.no_grad()
def calibrate(model: Any, text_vocab_size: int, generator: torch.Generator) -> None:
    """Shift the new rows of the head together so that, in speech, text holds about its share of the probability.

    A TextLM is sure of itself: on units that mean nothing to it yet, its text logits lie several nats above those of
    fresh rows. The shift goes along the mean hidden state over random new ids and closes that gap. It takes rounds,
    because shifted rows of a tied table also change what the model reads.
    """
    head = model.get_output_embeddings().weight
    shape = (PROBE_ROWS, PROBE_TOKENS)
    probe = torch.randint(text_vocab_size, head.shape[0], shape, generator=generator).to(head.device)
    for _ in range(CALIBRATION_ROUNDS):
        hidden = model.base_model(input_ids=probe, use_cache=False).last_hidden_state.flatten(0, 1).to(head)  # (n, d)
        logits = hidden @ head.T
        text_level = logits[:, :text_vocab_size].logsumexp(1).mean() - math.log(text_vocab_size)
        direction = hidden.mean(0)
        shift = (text_level - logits[:, text_vocab_size:].mean()) * direction / direction.dot(direction)
        head[text_vocab_size:] += shift


def extend(
    text_lm: Any, text_vocab_size: int, new_vocab_size: int, seed: int, policy: Policy | str = "calibrated"
) -> Any:
    """Turn a TextLM into an SLM: keep everything, draw new rows for the ids behind the text.

    Rows of the TextLM at or above `text_vocab_size` (padding of the table) are drawn anew as well: its softmax has
    pushed them away.

    Args:
        text_vocab_size: ids that the TextLM was trained on. new_vocab_size: those, units and markers.
        policy: a key of POLICIES.

    Returns:
        A new model; text rows and all other weights equal the TextLM's bit for bit.

    Raises:
        DataError: unknown policy, more text ids than rows, nothing to add.
    """
    rows = text_lm.get_input_embeddings().weight.shape[0]
    if policy not in POLICIES:
        raise DataError(f"policy '{policy}' for new rows is unknown; allowed: {', '.join(POLICIES)}")
    if not 0 < text_vocab_size <= rows:
        raise DataError(f"text vocabulary of {text_vocab_size}: this TextLM has {rows} rows; give the tokenizer it had")
    if new_vocab_size <= text_vocab_size:
        raise DataError(
            f"new vocabulary of {new_vocab_size} ids does not go beyond the {text_vocab_size} of text; add units"
        )
    generator = torch.Generator().manual_seed(seed)

    def grow(old: Tensor) -> Tensor:
        text = old.detach()[:text_vocab_size]
        fresh = POLICIES[policy](text.float().cpu(), new_vocab_size - text_vocab_size, generator)
        return torch.cat([text, fresh.to(text)])

    model = _with_rows(text_lm, grow)
    if policy == "calibrated":
        calibrate(model, text_vocab_size, generator)
    return model


def drop_text(text_lm: Any, vocab_size: int, seed: int) -> Any:
    """Keep the body of a TextLM and draw all rows anew, at the scale of its own, for a model of units only.

    Args:
        vocab_size: `<eos>` and the units.

    Source: Hassid et al. 2023 (TWIST), section 3.
    """
    if vocab_size < 2:
        raise DataError(f"vocabulary of {vocab_size} ids; give <eos> and at least one unit")
    generator = torch.Generator().manual_seed(seed)

    def replace(old: Tensor) -> Tensor:
        return _trained_scale(old.detach().float().cpu(), vocab_size, generator).to(old)

    return _with_rows(text_lm, replace)


def _with_rows(text_lm: Any, make: Callable[[Tensor], Tensor]) -> Any:
    """Copy a model and replace the rows of its embedding and, if it is untied, of its head by `make(old rows)`."""
    model = copy.deepcopy(text_lm)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert head.bias is None, "an output head with a bias"
    tied = head.weight is embedding.weight
    embedding.weight = nn.Parameter(make(embedding.weight))
    head.weight = embedding.weight if tied else nn.Parameter(make(head.weight))
    rows = embedding.weight.shape[0]
    embedding.num_embeddings = head.out_features = rows
    model.config.vocab_size = model.vocab_size = model.base_model.vocab_size = rows
    return model


def save_model(model: Any, folder: Path | str) -> None:
    """Write a stock Hugging Face folder: config.json, generation_config.json, model.safetensors."""
    with _quiet():
        model.save_pretrained(Path(folder))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and warnings off the terminal; every fault is raised by us."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def load_model(folder: Path | str) -> Any:
    """Read a model folder in fp32, without network and without code from the folder.

    Raises:
        DataError: no such folder, files missing or damaged, weights that do not belong to the config.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise DataError(f"model folder '{folder}': no config.json there; give a folder made by save_model")
    try:
        with _quiet():
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # safetensors, json, os and transformers each raise their own
        raise DataError(f"model folder '{folder}' cannot be read ({error}); make it again") from error
    wrong = sorted(report["missing_keys"]) + sorted(report["unexpected_keys"])
    if wrong or report["mismatched_keys"]:
        raise DataError(
            f"model folder '{folder}': weights and config.json disagree at {(wrong or report['mismatched_keys'])[0]}; "
            "make it again"
        )
    return model
