"""What stock tools read beside the weights: tokenizer_config.json, generation_config.json.

Enters: a vocabulary, a config. Leaves: the content of these files. The one decision worth knowing: our tokenizer.json
is used as it is, and nothing is put around a text.
"""

from __future__ import annotations

from typing import Any

from speechscale.tokens.vocabulary import Vocabulary

TEMPERATURE, TOP_K = 0.8, 25
"""How our own generation samples where nothing is said."""


def context_of(config: Any) -> int | None:
    """Tokens that the config allows; None where it does not say."""
    context = getattr(config, "max_position_embeddings", None)
    return context if isinstance(context, int) and context > 0 else None


def tokenizer_settings(vocabulary: Vocabulary, context: int | None) -> dict[str, Any]:
    """tokenizer_config.json: our tokenizer.json as it is; nothing is put around a text.

    Without it transformers takes the tokenizer of the model's family and cuts text by rules of its own.
    """
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "add_eos_token": False,
        "eos_token": vocabulary.spelled[vocabulary.eos_id],
        "pad_token": vocabulary.spelled[vocabulary.eos_id],
    }
    if vocabulary.unk_id is not None:
        settings["unk_token"] = vocabulary.spelled[vocabulary.unk_id]
    if context is not None:
        settings["model_max_length"] = context
    return settings


def generation_settings(vocabulary: Vocabulary) -> dict[str, Any]:
    """generation_config.json: how our own generation samples, and that `<unk>` is never said."""
    settings: dict[str, Any] = {
        "bos_token_id": vocabulary.eos_id,
        "eos_token_id": vocabulary.eos_id,
        "pad_token_id": vocabulary.eos_id,
        "do_sample": True,
        "temperature": TEMPERATURE,
        "top_k": TOP_K,
    }
    if vocabulary.unk_id is not None:
        settings["suppress_tokens"] = [vocabulary.unk_id]
    return settings
