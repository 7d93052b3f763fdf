"""Would catch: a lean reading unlike transformers, rows that disturb each other, a window that forgets wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from speechscale.decode.generate import continuations
from speechscale.decode.lean import LeanStepper, is_lean
from speechscale.decode.settings import Decoding
from speechscale.decode.steppers import StockStepper, stepper_of
from speechscale.errors import DataError
from speechscale.tokens.vocabulary import Vocabulary

ROPE = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}  # fmt: skip
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "rope_parameters": ROPE}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen3", {"head_dim": 16}),
]


@pytest.mark.parametrize(("kind", "more"), VARIANTS)
@pytest.mark.parametrize("join", [True, False])
@pytest.mark.parametrize("prompts", [[[0, 12, 13], [0, 4, 15]], [[0], [0, 5, 6, 7, 8, 2, 9], [0, 15, 3]]])
def test_the_lean_reading_is_that_of_transformers(
    make_model: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    more: dict[str, Any],
    join: bool,
    prompts: list[list[int]],
) -> None:
    if not join:
        monkeypatch.setattr("speechscale.decode.lean.JOIN_BELOW", 0)
    model = make_model(kind, **more)
    with torch.no_grad():  # as released ones have them: norms that are not 1, biases that are not 0
        for name, weight in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    assert is_lean(model)
    lean = LeanStepper(model, 40)
    rows = [list(prompt) for prompt in prompts]
    with torch.inference_mode():
        hidden = lean.prefill([np.array(row) for row in rows])
        for step in range(20):
            for row, state in zip(rows, hidden, strict=True):
                expected = model.base_model(input_ids=torch.tensor([row])).last_hidden_state[0, -1]
                torch.testing.assert_close(state, expected, atol=2e-5, rtol=2e-5)
            if step == 8:
                lean.refill(1, np.array(rows[1][-5:]))  # shorter than the others now
                rows[1] = rows[1][-5:]
            if step == 12:
                lean.keep(torch.tensor([1, 0, 1]))
                rows = [rows[1].copy(), rows[0], rows[1]]
            tokens = [(7 * step + 5 * i + 2) % 22 for i in range(len(rows))]
            hidden = lean.advance(torch.tensor(tokens))
            for row, token in zip(rows, tokens, strict=True):
                row.append(token)


def test_other_kinds_run_through_transformers(make_model: Callable[..., Any]) -> None:
    assert isinstance(stepper_of(make_model("granite"), 8), StockStepper)
    windowed = make_model("qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=0)
    assert not is_lean(windowed)
    stepper = StockStepper(make_model("granite"))
    stepper.prefill([np.array([0]), np.array([0, 2])])
    with pytest.raises(DataError, match="one prompt at a time"):
        stepper.refill(0, np.array([0]))


@pytest.mark.parametrize("kind", ["llama", "granite"])
def test_a_full_window_keeps_its_opening_and_newer_half(
    make_model: Callable[..., Any], vocabulary: Vocabulary, kind: str
) -> None:
    # Said anew without a cache: every token from a whole pass over what the window holds.
    model = make_model(kind)
    prompts = [[0, 20, 12, 13, 14], [0, 21, 3]]
    asked = Decoding(max_new_tokens=90, modality="speech", temperature=0, stop="never", window=32)
    found = [list(one.ids) for (one,) in continuations(model, vocabulary, prompts, asked)]
    for prompt, new in zip(prompts, found, strict=True):
        held, said = list(prompt), []
        with torch.inference_mode():
            for _ in range(90):
                logits = model(input_ids=torch.tensor([held])).logits[0, -1, 10:20]
                token = 10 + int(logits.argmax())
                said.append(token)
                if len(held) == 32:
                    held = [0, prompt[1], *held[-14:]]
                held.append(token)
        assert new == said
    assert found[0] != found[1]


def test_a_window_lets_neighbors_be(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    model = make_model()
    asked = Decoding(max_new_tokens=120, temperature=0.7, window=40, stop="never", modality="free", seed=4)
    prompts = [[0, 20, 12, 13, 14], [0, 21, 3], [0, 20, *range(10, 20)]]
    together = continuations(model, vocabulary, prompts, asked)
    assert together[:1] == continuations(model, vocabulary, prompts[:1], asked)
    assert together[:2] == continuations(model, vocabulary, prompts[:2], asked)
    with pytest.raises(DataError, match="window 257: the model's context holds 256"):
        continuations(model, vocabulary, prompts, Decoding(max_new_tokens=1, window=257))
    with pytest.raises(DataError, match="let a window slide"):
        continuations(model, vocabulary, prompts, Decoding(max_new_tokens=300))
