"""How a model was trained, as lines of a card.

Enters: the settings that a study's record or a training job holds. Leaves: label and value. The one decision worth
knowing: both are written by the same function from the same names, so that cards of both can be read side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechscale.report.card_facts import Lines
from speechscale.report.cards import hours
from speechscale.report.numbers import short_flops


def interleave_line(settings: Mapping[str, Any]) -> str:
    """Example: "by word, speech spans poisson(2), at least 0.3 of the words are speech, markers at every switch" """
    share = settings.get("speech_share")
    least = "at least" if settings.get("share") == "floor" else "about"
    parts = [
        f"by {settings['level']}" if "level" in settings else "",
        f"speech spans {settings['speech_span']}" if settings.get("speech_span") else "",
        f"text spans {settings['text_span']}" if settings.get("text_span") else "",
        f"{least} {share:g} of the words are speech" if isinstance(share, int | float) else "",
        "markers at every switch" if settings.get("markers") else "no markers" if "markers" in settings else "",
        "drawn anew each pass" if settings.get("redraw_each_epoch") else "",
    ]
    return ", ".join(filter(None, parts))


def mixture_line(mixture: Mapping[str, float]) -> str:
    """Shares of the tokens. Example: {"speech": 0.4, "text": 0.1} -> "speech 0.8, text 0.2" """
    total = sum(mixture.values())
    return ", ".join(f"{name} {share / total:.3g}" for name, share in mixture.items())


def recipe_lines(
    train: Mapping[str, Any],
    *,
    mixture: Mapping[str, float],
    interleave: Mapping[str, Any] | None,
    learning_rate: float | None,
    precision: str | None,
    tokens: int | None,
    steps: int | None,
    seed: int | None,
    budget_flops: float | None = None,
    passes: Mapping[str, float | None] | None = None,
) -> Lines:
    """Everything that a reader would need to train it again; what is not known is left out.

    Args:
        train: batch_rows, context, betas, weight_decay, clip_norm, schedule, warmup_fraction, ... as in `[train]`.
        passes: "speech" or "text" -> how often the training data was read.
    """
    rows, context = train.get("batch_rows"), train.get("context")
    batch = train.get("batch_tokens") or (rows * context if rows and context else None)
    optimizer = ["AdamW"]
    if train.get("betas"):
        optimizer.append(f"betas {train['betas'][0]:g} and {train['betas'][1]:g}")
    optimizer += [
        f"{label} {train[key]:g}"
        for label, key in (
            ("weight decay", "weight_decay"),
            ("gradients clipped at", "clip_norm"),
            ("z-loss", "z_loss"),
        )
        if train.get(key)
    ]
    lines = {
        "mixture, by tokens": mixture_line(mixture) if mixture else "",
        "interleaving": interleave_line(interleave) if interleave and "interleaved" in mixture else "",
        "budget": f"{short_flops(budget_flops)} FLOPs" if budget_flops else "",
        "tokens": f"{tokens:,} predicted" + (f", {steps:,} steps" if steps else "") if tokens else "",
        "passes": ", ".join(f"{name} {hours(value)}" for name, value in (passes or {}).items() if value is not None),
        "batch": f"{batch:,} tokens" + (f" ({rows} rows of {context})" if rows and context else "") if batch else "",
        "packing": _packing(train.get("pack")),
        "optimizer": ", ".join(optimizer),
        "learning rate": f"{learning_rate:g}, {_schedule(train)}" if learning_rate else "",
        "rows of new ids": str(train.get("new_rows") or ""),
        "precision": precision or "",
        "seed": "" if seed is None else str(seed),
    }
    return tuple((label, value) for label, value in lines.items() if value)


def _packing(pack: Any) -> str:
    names = {
        "best_fit": "whole documents, best fit, no attention across them",
        "stream": "documents chained and cut, no attention across them",
    }
    return names.get(str(pack), "")


def _schedule(train: Mapping[str, Any]) -> str:
    parts = [str(train.get("schedule") or "")]
    if train.get("final_lr_fraction") is not None:
        parts.append(f"to {train['final_lr_fraction']:g} of it")
    if train.get("schedule") == "wsd" and train.get("decay_fraction"):
        parts.append(f"falling over the last {train['decay_fraction']:g}")
    if train.get("warmup_tokens"):
        parts.append(f"warm-up {train['warmup_tokens']:,} tokens")
    elif train.get("warmup_fraction"):
        parts.append(f"warm-up {train['warmup_fraction']:g} of the tokens")
    return ", ".join(filter(None, parts))
