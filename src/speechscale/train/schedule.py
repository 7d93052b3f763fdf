"""Learning rate and moments of validation, as functions of tokens seen.

Enters: how far a run is, in tokens. Leaves: the learning rate as a share of its peak, token counts of the checks.
The one decision worth knowing: the schedule runs on tokens, not steps, so it does not change with the batch.
"""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "wsd"]


def learning_rate_share(
    tokens_seen: int,
    tokens: int,
    *,
    schedule: Schedule,
    warmup_tokens: float,
    final_fraction: float,
    decay_fraction: float = 0.2,
) -> float:
    """Share of the peak learning rate: a linear rise, then a fall to `final_fraction` at the last token.

    Args:
        tokens_seen: including the batch about to be used, so that the first rate is above 0 and the last one is
            `final_fraction`.
        warmup_tokens: that the rise takes.
        decay_fraction: of all tokens, that the fall takes under "wsd" (warm-up, stable, decay: Hu et al. 2024, MiniCPM,
            with a linear fall as in Hägele et al. 2024); the others fall from the end of the rise on.

    Example: half of the tokens, cosine, no warm-up, final 0.1 -> 0.55
    """
    if tokens_seen < warmup_tokens:
        return tokens_seen / warmup_tokens
    begin = decay_start(tokens, decay_fraction) if schedule == "wsd" else warmup_tokens
    fall = min(1.0, max(0.0, tokens_seen - begin) / (tokens - begin)) if begin < tokens else 1.0
    shape = (1 + math.cos(math.pi * fall)) / 2 if schedule == "cosine" else 1 - fall
    return final_fraction + (1 - final_fraction) * shape


def decay_start(tokens: int, decay_fraction: float) -> int:
    """Tokens after which a "wsd" run of `tokens` falls; up to there all longer runs are the same run."""
    return tokens - math.ceil(tokens * decay_fraction)


def check_points(tokens: int, checks: int) -> list[int]:
    """Token counts after which to validate: evenly spaced, the last at the end. Example: 100, 4 -> [25, 50, 75, 100]"""
    return [math.ceil(tokens * (i + 1) / checks) for i in range(checks)]
