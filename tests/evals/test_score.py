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
from speechscale.evals import reading as module
from speechscale.evals.score import Scores, score, score_stream
from speechscale.model.families import TRAITS
from speechscale.tokens.vocabulary import Vocabulary
from tests.model.test_anatomy import rough

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
    ending, ending_tokens, whole, whole_tokens = (np.array(column) for column in zip(*parts, strict=True))
    found = Scores.empty(len(ids))
    for name, values in (("full", (ending, whole)), ("own", (ending, whole))):
        getattr(found, f"ending_{name}")[:], getattr(found, f"whole_{name}")[:] = values
    found.ending_tokens[:], found.whole_tokens[:] = ending_tokens, whole_tokens
    return found


def assert_equal(a: Scores, b: Scores, tolerance: float = 1e-5) -> None:
    """Counts are equal, means per token within the tolerance."""
    np.testing.assert_array_equal(a.ending_tokens, b.ending_tokens)
    np.testing.assert_array_equal(a.whole_tokens, b.whole_tokens)
    np.testing.assert_allclose(a.ending_full / a.ending_tokens, b.ending_full / b.ending_tokens, rtol=0, atol=tolerance)
    np.testing.assert_allclose(a.whole_full / a.whole_tokens, b.whole_full / b.whole_tokens, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("kind", "attention"), [("llama", "sdpa"), ("llama", "eager"), ("qwen2", "sdpa")])
@pytest.mark.parametrize("share", [True, False])
def test_equals_direct_computation(make_model: Callable[..., Any], kind: str, attention: str, share: bool) -> None:
    model = make_model(kind, attention=attention)
    ids, prompts = sequences()
    found = score(model, ids, prompts, share_opening=share)
    assert_equal(found, direct(model, ids, prompts))
    assert found.ending_full.std() > 1


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
    np.testing.assert_allclose(mixed.ending_full, straight.ending_full[order], atol=1e-4)


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
    assert np.abs(exact.whole_full - rough.whole_full).max() > 1e-4  # bf16 was really used


def test_a_stream_left_early_leaves_gradients_on(make_model: Callable[..., Any]) -> None:
    # An interrupt while items are written must not leave the process, which may train on, in inference mode.
    model = make_model().train()
    ids, prompts = sequences()
    stream = score_stream(model, ids, prompts, batch_tokens=1)
    next(stream)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert model.training


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
    assert len(score(make_model(), [], []).ending_full) == 0


def by_hand(model: Any, vocabulary: Vocabulary, ids: list[int]) -> tuple[list[float], float, float]:
    """Log-probabilities among each token's own modality, and of the end token: full and own."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    kinds = vocabulary.modality_table()
    own = []
    for place in range(1, len(ids)):
        rivals = np.flatnonzero(kinds == kinds[ids[place]]) if kinds[ids[place]] != 2 else np.arange(len(kinds))
        own.append(float(logits[place - 1, ids[place]] - logits[place - 1, rivals].logsumexp(0)))
    rivals = np.append(np.flatnonzero(kinds == kinds[ids[-1]]), vocabulary.eos_id)
    eos = logits[-1, vocabulary.eos_id]
    return own, float(eos - logits[-1].logsumexp(0)), float(eos - logits[-1, rivals].logsumexp(0))


@pytest.mark.parametrize("share", [True, False])
def test_softmax_of_one_modality_and_end(make_model: Callable[..., Any], vocabulary: Vocabulary, share: bool) -> None:
    # Text 2..9, units 10..19, markers 20, 21, <eos> 0. Would catch: <eos> among the rivals, a marker among units.
    model = make_model()
    ids = [[0, 20, 11, 12, 21, 3, 4], [0, 20, 11, 12, 21, 5], [0, 12, 13, 14]]
    found = score(model, ids, [5, 5, 1], vocabulary=vocabulary, share_opening=share)
    for number, sequence in enumerate(ids):
        own, end_full, end_own = by_hand(model, vocabulary, sequence)
        assert found.whole_own[number] == pytest.approx(sum(own), abs=1e-4)
        assert found.ending_own[number] == pytest.approx(sum(own[4:] if number < 2 else own), abs=1e-4)
        assert found.end_full[number] == pytest.approx(end_full, abs=1e-4)
        assert found.end_own[number] == pytest.approx(end_own, abs=1e-4)
    assert (found.whole_own > found.whole_full + 0.1).all()


def test_without_a_vocabulary_there_is_one_softmax(make_model: Callable[..., Any]) -> None:
    found = score(make_model(), [[0, 1, 2]], [1])
    assert found.whole_own == found.whole_full
    assert np.isnan(found.end_full).all()


def test_long_sequences_are_scored_by_windows(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    # Context 256: 600 tokens are windows 0..256, 128..384, 256..512, 384..600, each scoring what is new.
    model = make_model()
    ids = [0, *np.random.default_rng(0).integers(1, 22, 599).tolist()]
    found = score(model, [ids, ids[:200]], [500, 1], vocabulary=vocabulary, long="windows")
    total, ending = 0.0, 0.0
    for start, scored, stop in ((0, 1, 256), (128, 256, 384), (256, 384, 512), (384, 512, 600)):
        with torch.inference_mode():
            logprobs = model(input_ids=torch.tensor([ids[start:stop]])).logits[0].log_softmax(-1)
        for place in range(scored, stop):
            value = float(logprobs[place - 1 - start, ids[place]])
            total, ending = total + value, ending + value * (place >= 500)
    assert found.whole_full[0] == pytest.approx(total, abs=1e-3)
    assert found.ending_full[0] == pytest.approx(ending, abs=1e-3)
    assert (found.whole_tokens[0], found.ending_tokens[0]) == (599, 100)
    assert found.end_full[0] == pytest.approx(float(logprobs_at_end(model, ids[384:600])), abs=1e-4)
    assert found.whole_full[1] == pytest.approx(float(score(model, [ids[:200]], [1]).whole_full[0]), abs=1e-4)


def logprobs_at_end(model: Any, ids: list[int]) -> float:
    with torch.inference_mode():
        return float(model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)[0])


def test_equal_sequences_and_many_endings_are_read_once(make_model: Callable[..., Any]) -> None:
    # One right ending against three wrong ones: prompt once, four endings, as one row.
    model = make_model()
    seen: list[int] = []
    model.base_model.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    prompt = [0, *[5] * 40]
    right, wrong = [*prompt, 3, 4], [[*prompt, i, 7, 8] for i in (6, 9, 10)]
    ids = [sequence for other in wrong for sequence in (right, other)]
    found = score(model, ids, [41] * 6)
    assert seen == [41 + 2 + 3 * 3]
    assert_equal(found, direct(model, ids, [41] * 6))


@pytest.mark.parametrize("family", ["granite", "gemma2"])
def test_the_head_of_the_family_counts(family: str, vocabulary: Vocabulary) -> None:
    # Granite divides its logits, Gemma 2 caps them: a head that is only multiplied would be wrong and silent.
    from transformers import AutoConfig, AutoModelForCausalLM

    more: dict[str, Any] = {"logits_scaling": 4.0} if family == "granite" else {"final_logit_softcapping": 2.0}
    config = AutoConfig.for_model(
        family,
        vocab_size=vocabulary.size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        initializer_range=0.5,
        **more,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    ids, prompts = [[0, 5, 6, 7, 8], [0, 5, 6, 9]], [3, 3]
    assert_equal(score(model, ids, prompts, vocabulary=vocabulary), direct(model, ids, prompts))


@pytest.mark.parametrize("name", [*TRAITS, "projected", "granite"])
@pytest.mark.parametrize("joined", [True, False])
def test_endings_behind_one_opening_in_every_family(name: str, joined: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Would catch: positions that go on from one ending to the next, an ending that sees another, a model whose own
    # attention is left changed. `joined`: branches without a mask, as on a CPU; else the mask, as on a GPU.
    model = rough(name)
    rng = np.random.default_rng(0)
    ids: list[list[int]] = []
    for count in (2, 3):
        opening = [0, *rng.integers(1, 90, 12).tolist()]
        ids += [opening + rng.integers(1, 90, int(rng.integers(1, 6))).tolist() for _ in range(count)]
    ids += [ids[-1][:13], [0, 5, 6]]  # the opening itself, and a lone sequence
    if not joined:
        monkeypatch.setattr(module, "JOINED_ON", ())
    before = model.config._attn_implementation
    found = score(model, ids, [1] * len(ids))
    assert model.config._attn_implementation == before
    assert_equal(found, direct(model, ids, [1] * len(ids)), tolerance=1e-4)
