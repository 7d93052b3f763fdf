"""Would catch: scores that depend on batch, padding or shared prompts, or differ from a plain transformers forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from speechscale.errors import DataError
from speechscale.evals import score as module
from speechscale.evals.score import Scores, score

Ids = list[list[int]]


def sequences(seed: int = 0, items: int = 20, vocab_size: int = 22) -> tuple[Ids, list[int]]:
    """Pairs with a common prompt (every fifth pair has none) and endings of different lengths."""
    rng = np.random.default_rng(seed)
    ids: Ids = []
    prompts: list[int] = []
    for i in range(items):
        prompt = [0, *rng.integers(1, vocab_size, 0 if i % 5 == 0 else int(rng.integers(3, 60))).tolist()]
        for _ in range(2):
            ids.append(prompt + rng.integers(1, vocab_size, int(rng.integers(1, 25))).tolist())
            prompts.append(len(prompt))
    return ids, prompts


def direct(model: Any, ids: Ids, prompts: list[int]) -> Scores:
    """One sequence at a time through the whole model, as a reader of the definition would write it."""
    parts = []
    for sequence, prompt in zip(ids, prompts, strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([sequence])).logits[0]
        logprobs = functional.log_softmax(logits.double(), dim=-1)
        predicted = [float(logprobs[t - 1, sequence[t]]) for t in range(1, len(sequence))]
        parts.append((sum(predicted[prompt - 1 :]), len(sequence) - prompt, sum(predicted), len(sequence) - 1))
    columns = [np.array(column) for column in zip(*parts, strict=True)]
    return Scores(ending_sum=columns[0], ending_tokens=columns[1], whole_sum=columns[2], whole_tokens=columns[3])


def assert_equal(a: Scores, b: Scores, tolerance: float = 1e-5) -> None:
    """Counts are equal, means per token within the tolerance."""
    np.testing.assert_array_equal(a.ending_tokens, b.ending_tokens)
    np.testing.assert_array_equal(a.whole_tokens, b.whole_tokens)
    np.testing.assert_allclose(a.ending_sum / a.ending_tokens, b.ending_sum / b.ending_tokens, rtol=0, atol=tolerance)
    np.testing.assert_allclose(a.whole_sum / a.whole_tokens, b.whole_sum / b.whole_tokens, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("kind", "attention"), [("llama", "sdpa"), ("llama", "eager"), ("qwen2", "sdpa")])
@pytest.mark.parametrize("share", [True, False])
def test_equals_direct_computation(make_model: Callable[..., Any], kind: str, attention: str, share: bool) -> None:
    model = make_model(kind, attention=attention)
    ids, prompts = sequences()
    found = score(model, ids, prompts, share_opening=share)
    assert_equal(found, direct(model, ids, prompts))
    assert found.ending_sum.std() > 1


def test_batch_of_one_equals_batch_of_64(make_model: Callable[..., Any]) -> None:
    model = make_model()
    ids, prompts = sequences(items=64)
    longest = max(len(sequence) for sequence in ids) * 2
    alone = score(model, ids, prompts, batch_tokens=1)
    for batch_tokens in (16 * longest, 64 * longest):
        assert_equal(alone, score(model, ids, prompts, batch_tokens=batch_tokens))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_sequences_score_as_alone(make_model: Callable[..., Any], data: st.DataObject) -> None:
    # Few different ids, so that common openings, prefixes of each other and equal neighbors occur often.
    ids = data.draw(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=8), min_size=1, max_size=6))
    ids = [[0, *sequence] for sequence in ids]
    prompts = [data.draw(st.integers(1, len(sequence) - 1)) for sequence in ids]
    model = make_model()
    assert_equal(score(model, ids, prompts), direct(model, ids, prompts))


def test_openings_are_computed_once_where_it_pays(make_model: Callable[..., Any]) -> None:
    model = make_model()
    seen: list[int] = []
    model.base_model.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    prompt = [0, *[5] * 50]
    ids = [[*prompt, 3, 4, 5], [*prompt, 7], [0, 1, 2, 3], [0, 9, 9, 9]]
    score(model, ids, [51, 51, 1, 1])
    assert sorted(seen) == [8, 51 + 3 + 1]


def test_rows_that_share_and_order_of_sequences_do_not_matter(make_model: Callable[..., Any]) -> None:
    model = make_model()
    ids, prompts = sequences(items=10)
    order = np.random.default_rng(1).permutation(len(ids))
    mixed = score(model, [ids[i] for i in order], [prompts[i] for i in order])
    straight = score(model, ids, prompts)
    np.testing.assert_allclose(mixed.ending_sum, straight.ending_sum[order], atol=1e-4)


def test_small_logit_chunks_change_nothing(make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    ids, prompts = sequences()
    expected = score(model, ids, prompts)
    monkeypatch.setattr(module, "LOGIT_ELEMENTS", 50)
    assert_equal(score(model, ids, prompts), expected)


def test_bf16_is_near_fp32(make_model: Callable[..., Any]) -> None:
    model = make_model()
    ids, prompts = sequences()
    exact, rough = score(model, ids, prompts), score(model, ids, prompts, precision="bf16")
    assert_equal(exact, rough, tolerance=0.2)
    assert np.abs(exact.whole_sum - rough.whole_sum).max() > 1e-4  # bf16 was really used


def test_dropout_is_off_and_mode_restored(make_model: Callable[..., Any]) -> None:
    model = make_model(attention_dropout=0.5)
    ids, prompts = sequences()
    expected = score(model, ids, prompts)
    model.train()
    assert_equal(score(model, ids, prompts), expected, tolerance=0)
    assert model.training


def test_nan_names_the_item(make_model: Callable[..., Any]) -> None:
    model = make_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = float("nan")
    with pytest.raises(DataError, match=r"story-1/bad.*not finite.*learning rate"):
        score(model, [[0, 1, 2, 3], [0, 2, 7, 3]], [1, 1], names=["story-1/good", "story-1/bad"])
    with pytest.raises(DataError, match=r"story-2/.*not finite"):  # in a shared row both candidates are hit
        score(
            model,
            [[0, 1], [0, 1], [0, 1, 2, 3], [0, 1, 7, 3]],
            [1] * 4,
            names=["a", "b", "story-2/good", "story-2/bad"],
        )


@pytest.mark.parametrize(
    ("ids", "prompt", "message"),
    [
        ([0, 1, 2], 3, "3 tokens with a prompt of 3"),
        ([0, 1, 2], 0, "3 tokens with a prompt of 0"),
        ([0, 99], 1, r"token ids run 0\.\.99, the model has 22 ids"),
        ([0] * 257, 1, "257 tokens, the model's context holds 256"),
    ],
)
def test_bad_sequences_are_refused(make_model: Callable[..., Any], ids: list[int], prompt: int, message: str) -> None:
    with pytest.raises(DataError, match=f"sequence 1: {message}"):
        score(make_model(), [[0, 1], ids], [1, prompt])
    with pytest.raises(ValueError, match="as many prompt lengths"):
        score(make_model(), [[0, 1]], [])


def test_no_sequences_no_scores(make_model: Callable[..., Any]) -> None:
    assert len(score(make_model(), [], []).ending_sum) == 0
