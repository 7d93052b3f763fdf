"""Would catch: settings that mean something else than in transformers, spans that are empty or mixed, a wrong stop."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from speechscale.decode.generate import Continuation, continuations
from speechscale.decode.settings import Decoding
from speechscale.tokens.vocabulary import Vocabulary

SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5, "top_k": 6},
    {"temperature": 2.0, "top_p": 0.8},
    {"top_k": 12, "top_p": 0.9, "min_p": 0.2},
    {"min_p": 0.3},
    {"repetition_penalty": 3.0, "top_k": 5},
    {"repetition_penalty": 0.5},
    {"min_new_tokens": 3, "temperature": 3.0},
]


def _theirs(settings: dict[str, Any], prompt: list[int]) -> LogitsProcessorList:
    made: list[Any] = [SuppressTokensLogitsProcessor([1, 20, 21, *range(2, 10)])]
    if "repetition_penalty" in settings:
        made.append(RepetitionPenaltyLogitsProcessor(settings["repetition_penalty"]))
    if "min_new_tokens" in settings:
        made.append(MinNewTokensLengthLogitsProcessor(len(prompt), settings["min_new_tokens"], 0))
    made.append(TemperatureLogitsWarper(float(settings.get("temperature", 1.0))))
    for name, warper in (("top_k", TopKLogitsWarper), ("top_p", TopPLogitsWarper), ("min_p", MinPLogitsWarper)):
        if name in settings:
            made.append(warper(settings[name]))
    return LogitsProcessorList(made)


@pytest.mark.parametrize("settings", SETTINGS)
def test_draws_follow_the_probabilities_of_transformers(
    make_model: Callable[..., Any], vocabulary: Vocabulary, settings: dict[str, Any]
) -> None:
    model, prompt, samples = make_model(), [0, 12, 13, 12], 3000
    with torch.inference_mode():
        ids = torch.tensor([prompt])
        scores = _theirs(settings, prompt)(ids, model(input_ids=ids).logits[:, -1].float())
    expected = torch.softmax(scores[0].double(), 0).numpy()
    asked = Decoding(
        max_new_tokens=max(1, settings.get("min_new_tokens", 0)), modality="speech", samples=samples, **settings
    )
    (made,) = continuations(model, vocabulary, [prompt], asked)
    counts = np.bincount([one.ids[0] if one.ids else 0 for one in made], minlength=vocabulary.size)
    assert (counts[expected == 0] == 0).all()
    spread = np.sqrt(samples * expected * (1 - expected))
    assert (np.abs(counts - samples * expected) <= 4.5 * spread + 1e-9).all()
    assert (expected > 0).sum() > 1


def _spans(ids: tuple[int, ...]) -> list[tuple[str, int]]:
    """Modality and length of each span; a marker opens one."""
    spans: list[tuple[str, int]] = []
    for id in ids:
        kind = "speech" if 10 <= id < 20 or id == 20 else "text"
        if id in (20, 21) or not spans:
            spans.append((kind, int(id < 20)))
        else:
            assert spans[-1][0] == kind, "a token of the other modality inside a span"
            spans[-1] = (kind, spans[-1][1] + 1)
    return spans


def test_free_output_is_made_of_whole_spans(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    asked = Decoding(max_new_tokens=100, temperature=4.0, samples=100)
    (made,) = continuations(make_model(), vocabulary, [[0, 20, 12]], asked)
    switches = 0
    for one in made:
        spans = _spans((20, 12, *one.ids))
        switches += len(spans) - 1
        assert all(length for _, length in (spans if one.ended else spans[:-1]))
        assert all(a[0] != b[0] for a, b in itertools.pairwise(spans))
    assert switches > 100


def test_an_utterance_ends_where_the_model_would_switch(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    model = make_model()
    ways = {}
    for stop in ("eos", "switch", "never"):
        asked = Decoding(max_new_tokens=60, modality="speech", samples=300, stop=stop)  # type: ignore[arg-type]
        (ways[stop],) = continuations(model, vocabulary, [[0, 12]], asked)
        assert all(10 <= id < 20 for one in ways[stop] for id in one.ids)
    lengths = {stop: np.mean([len(one.ids) for one in made]) for stop, made in ways.items()}
    assert lengths["switch"] < lengths["eos"] < lengths["never"] == 60
    assert not any(one.ended for one in ways["never"])


def test_samples_are_their_own_draws(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    model = make_model()
    prompts = [[0, 12], [0, 3, 4, 5]]

    def made(prompts: list[list[int]], samples: int) -> list[list[Continuation]]:
        return continuations(model, vocabulary, prompts, Decoding(max_new_tokens=30, seed=3, samples=samples))

    many = made(prompts, 5)
    assert [row[:2] for row in many] == made(prompts, 2)
    assert [row[:1] for row in many] == made(prompts, 1)
    assert many[:1] == made(prompts[:1], 5)
    assert len({one.ids for one in many[0]}) == 5


@pytest.mark.parametrize(
    "settings",
    [
        {"min_p": 1.5},
        {"min_p": -0.1},
        {"repetition_penalty": 0.0},
        {"min_new_tokens": 6},
        {"samples": 0},
        {"window": 8},
        {"stop": "later"},
        {"modality": "song"},
        {"seed": -1},
        {"temperature": float("nan")},
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Decoding(max_new_tokens=5, **settings)
