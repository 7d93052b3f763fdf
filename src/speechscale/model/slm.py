"""SLMs from nothing, or from a TextLM; always stock transformers models.

Enters: a `Size`, or a TextLM and a larger vocabulary. Leaves: a `*ForCausalLM` that plain transformers loads.
The one decision worth knowing: nothing of the TextLM moves. Its text rows and its body stay bit for bit, so an SLM that
forgot its text forgot it in training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from speechscale.errors import DataError
from speechscale.model.anatomy import embedding_of, is_tied, output_layer_of, rows_of
from speechscale.model.configs import INIT_STD, model_config
from speechscale.model.folders import load_model, save_model
from speechscale.model.rows import Centroids, calibrate, choose_policy, trained_scale
from speechscale.model.shape import Size

__all__ = ["drop_speech", "drop_text", "extend", "load_model", "new_model", "save_model"]


def new_model(size: Size, vocab_size: int, context: int, seed: int) -> Any:
    """Make a model from scratch: matrices N(0, 0.02), norms as their family starts them, biases 0.

    Same seed, same weights; the global random state is left alone.

    Args:
        context: longest row the model will see.

    Returns:
        The stock class of the family (`LlamaForCausalLM`, `GPTNeoXForCausalLM` ...) in fp32.

    Raises:
        DataError: more context than a table of learned positions has.
    """
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(model_config(size, vocab_size, context), dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():  # tied rows come once
            if parameter.ndim > 1:
                parameter.normal_(0.0, INIT_STD, generator=generator)
    return model


def extend(
    text_lm: Any,
    text_vocab_size: int,
    new_vocab_size: int,
    seed: int,
    policy: str = "calibrated",
    *,
    centroids: Centroids | None = None,
    copies: Mapping[int, int] | None = None,
) -> Any:
    """Turn a TextLM into an SLM: keep everything, draw new rows for the ids behind the text.

    Rows of the TextLM at or above `text_vocab_size` (padding of the table) are drawn anew as well: its softmax has
    pushed them away. An untied head gets rows of its own by the same policy.

    Args:
        text_vocab_size: ids that the TextLM was trained on. new_vocab_size: those, units and markers.
        policy: a key of `rows.POLICIES`.
        centroids: for "centroid": row k belongs to id `text_vocab_size + k`.
        copies: text id whose rows a new id starts with, exactly; for markers. Example: {speech_id: newline_id}

    Returns:
        A new model; text rows and all other weights equal the TextLM's bit for bit. So do fp32 logits of text ids, for
        two or more tokens at once; for a single one the CPU rounds by the number of rows (about 1e-6).

    Raises:
        DataError: unknown policy, more text ids than rows, nothing to add, copies from or to ids that are not there.
    """
    if not 0 < text_vocab_size <= rows_of(text_lm):
        raise DataError(
            f"text vocabulary of {text_vocab_size}: this TextLM has {rows_of(text_lm)} rows; give the tokenizer it had"
        )
    new = new_vocab_size - text_vocab_size
    if new <= 0:
        raise DataError(
            f"new vocabulary of {new_vocab_size} ids does not go beyond the {text_vocab_size} of text; add units"
        )
    for to, source in (copies or {}).items():
        if not (text_vocab_size <= to < new_vocab_size and 0 <= source < text_vocab_size):
            raise DataError(
                f"copies: {to} <- {source}; a new id ({text_vocab_size} to {new_vocab_size - 1}) starts as a text id "
                f"(0 to {text_vocab_size - 1})"
            )
    chosen = choose_policy(policy, new, centroids)
    generator = torch.Generator().manual_seed(seed)

    def grow(old: Tensor) -> Tensor:
        text = old.detach()[:text_vocab_size]
        fresh = chosen.draw(text.float().cpu(), new, generator)
        return torch.cat([text, fresh.to(text)])

    def grow_bias(old: Tensor) -> Tensor:
        text = old.detach()[:text_vocab_size]
        return torch.cat([text, text.mean().expand(new)])

    model = _with_rows(text_lm, grow, grow_bias)
    if chosen.calibrated:
        calibrate(model, text_vocab_size, generator)
    with torch.no_grad():
        for table in _tables(model):
            for to, source in (copies or {}).items():
                table[to] = table[source]
    return model


def drop_text(text_lm: Any, vocab_size: int, seed: int) -> Any:
    """Keep the body of a TextLM and draw all rows anew, at the scale of its own, for a model of units only.

    Id 0 is `<eos>` then, and no id is padding: OPT and Gemma would never train the row that their text padding had.

    Args:
        vocab_size: `<eos>` and the units.

    Source: Hassid et al. 2023 (TWIST), section 3.
    """
    if vocab_size < 2:
        raise DataError(f"vocabulary of {vocab_size} ids; give <eos> and at least one unit")
    generator = torch.Generator().manual_seed(seed)

    def replace(old: Tensor) -> Tensor:
        return trained_scale(old.detach().float().cpu(), vocab_size, generator).to(old)

    def replace_bias(old: Tensor) -> Tensor:
        return torch.zeros(vocab_size).to(old)

    model = _with_rows(text_lm, replace, replace_bias)
    embedding_of(model).padding_idx = None
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id, config.pad_token_id = 0, 0, None
    return model


def drop_speech(slm: Any, text_vocab_size: int) -> Any:
    """The text side of an SLM: a model with the rows of its text ids alone, which come first; the inverse of `extend`.

    Its softmax is among text ids, as that of its TextLM. Body and text rows are the SLM's, bit for bit.

    Raises:
        DataError: more text ids than rows, or none.
    """
    if not 0 < text_vocab_size <= rows_of(slm):
        raise DataError(
            f"text vocabulary of {text_vocab_size}: this SLM has {rows_of(slm)} rows; give the vocabulary saved with it"
        )

    def cut(old: Tensor) -> Tensor:
        return old.detach()[:text_vocab_size].clone()

    return _with_rows(slm, cut, cut)


def _with_rows(text_lm: Any, make: Callable[[Tensor], Tensor], make_bias: Callable[[Tensor], Tensor]) -> Any:
    """Copy a model and replace the rows of its embedding and, if it is untied, of its head by `make(old rows)`."""
    model = copy.deepcopy(text_lm)
    embedding, head, tied = embedding_of(model), output_layer_of(model), is_tied(model)
    embedding.weight = nn.Parameter(make(embedding.weight))
    head.weight = embedding.weight if tied else nn.Parameter(make(head.weight))
    if head.bias is not None:
        head.bias = nn.Parameter(make_bias(head.bias))
    rows = rows_of(model)
    embedding.num_embeddings = head.out_features = rows
    model.config.vocab_size = rows
    for module in model.modules():
        if hasattr(module, "vocab_size"):  # copies of the config's
            module.vocab_size = rows
    return model


def _tables(model: Any) -> list[Tensor]:
    """Everything that has a row for each id: embedding, untied head, bias of the head."""
    embedding, head = embedding_of(model), output_layer_of(model)
    tables = [embedding.weight] if is_tied(model) else [embedding.weight, head.weight]
    return tables if head.bias is None else [*tables, head.bias]
