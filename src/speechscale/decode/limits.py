"""How many tokens a row may hold.

Enters: a model, prompts, settings. Leaves: the room that each row needs. The one decision worth knowing: without a
window prompt and continuation must fit the context, with one only the prompt must fit the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from speechscale.decode.settings import Decoding
from speechscale.errors import DataError
from speechscale.model.anatomy import context_limit


def token_limit(model: Any, prompts: Sequence[Int[np.ndarray, " tokens"]], settings: Decoding) -> int:
    """Tokens that a row may hold. Raises DataError for prompts that do not fit or are none of this model's."""
    context, vocabulary = context_limit(model).tokens, model.config.vocab_size
    limit = context if settings.window is None else settings.window
    if limit > context:
        raise DataError(f"window {limit}: the model's context holds {context} tokens; give at most as many")
    longest = 0
    for i, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise DataError(f"prompt {i} is empty; open it at least with the document start <eos>")
        if prompt.min() < 0 or prompt.max() >= vocabulary:
            raise DataError(
                f"prompt {i}: token ids run {prompt.min()}..{prompt.max()}, the model has {vocabulary} ids; "
                "use the vocabulary saved with this model"
            )
        longest = max(longest, len(prompt) + (settings.max_new_tokens if settings.window is None else 1))
        if longest > limit:
            wanted = f" and {settings.max_new_tokens} new ones" if settings.window is None else ""
            raise DataError(
                f"prompt {i}: {len(prompt)} tokens{wanted}, the model's context holds {limit}; shorten one of them"
                + ("" if settings.window is not None else ", or let a window slide over them")
            )
    return (
        longest if settings.window is None else min(limit, max(map(len, prompts), default=0) + settings.max_new_tokens)
    )
