"""Would catch: tokens of the other modality, results that depend on the batch, decoding unlike transformers' own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LogitsProcessor

from speechscale.decode.generate import continuations, continue_units, generate, steps
from speechscale.decode.grammar import allowed_ids
from speechscale.decode.settings import Decoding
from speechscale.errors import DataError
from speechscale.tokens.vocabulary import Vocabulary

PROMPTS = [[0, 12, 13, 14], [0, 3], [0, 5, 6, 7, 8, 2, 9], [0, 15]]


class SpanRule(LogitsProcessor):
    """Our grammar said anew, token by token: a span keeps to its modality and is not empty."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for row, last in enumerate(input_ids[:, -1].tolist()):
            text, units, speech, other = set(range(2, 10)), set(range(10, 20)), {20}, {21}
            allowed = {20: units, 21: text, 0: text | units | speech | other}.get(last)
            if allowed is None:
                allowed = units | other if last in units else text | speech
            scores[row, sorted(set(range(22)) - allowed)] = -torch.inf
        return scores


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "granite"])
@pytest.mark.parametrize("modality", ["free", "speech", "text"])
@pytest.mark.parametrize("prompts", [PROMPTS, [PROMPTS[0]] * 2])
def test_greedy_equals_transformers(
    make_model: Callable[..., Any], vocabulary: Vocabulary, kind: str, modality: Any, prompts: list[list[int]]
) -> None:
    model = make_model(kind)
    width = max(map(len, prompts))
    padded = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    allowed = set(allowed_ids(vocabulary, modality, stop_at_eos=False).tolist())
    expected = model.generate(
        padded,
        attention_mask=mask,
        max_new_tokens=40,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        suppress_tokens=sorted(set(range(vocabulary.size)) - allowed),
        logits_processor=[SpanRule()] if modality == "free" else [],
    )[:, width:]
    found = generate(model, vocabulary, prompts, max_new_tokens=40, modality=modality, temperature=0, stop_at_eos=False)
    assert found == expected.tolist()
    assert len({tuple(row) for row in found}) == len({tuple(p) for p in prompts})


@pytest.mark.parametrize("settings", [{"temperature": 5.0}, {"top_k": 8, "top_p": 0.95}])
@pytest.mark.parametrize(("modality", "low", "high"), [("speech", 10, 20), ("text", 2, 10)])
def test_constrained_decoding_never_leaves_the_modality(
    make_model: Callable[..., Any], vocabulary: Vocabulary, settings: dict[str, Any], modality: Any, low: int, high: int
) -> None:
    new = generate(
        make_model(),
        vocabulary,
        PROMPTS * 125,
        max_new_tokens=200,
        modality=modality,
        stop_at_eos=False,
        **settings,
    )
    ids = np.array(new)
    assert ids.size == 100_000
    assert ids.min() >= low
    assert ids.max() < high


def test_allowed_ids(vocabulary: Vocabulary) -> None:
    assert allowed_ids(vocabulary, "speech", stop_at_eos=True).tolist() == [0, *range(10, 20)]
    assert allowed_ids(vocabulary, "text", stop_at_eos=False).tolist() == list(range(2, 10))
    assert allowed_ids(vocabulary, "free", stop_at_eos=True).tolist() == [0, *range(2, 22)]
    textless = Vocabulary.textless(3)
    assert allowed_ids(textless, "speech", stop_at_eos=False).tolist() == [1, 2, 3]
    with pytest.raises(DataError, match="cannot generate text"):
        allowed_ids(textless, "text", stop_at_eos=True)
    with pytest.raises(ValueError, match="allowed are speech, text, free"):
        allowed_ids(vocabulary, "song", stop_at_eos=True)  # type: ignore[arg-type]


def test_equal_seeds_give_equal_results(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    model = make_model()
    state = torch.get_rng_state()
    first = generate(model, vocabulary, [[0]] * 4, max_new_tokens=20, seed=5)
    torch.rand(7)
    assert generate(model, vocabulary, [[0]] * 4, max_new_tokens=20, seed=5) == first
    assert generate(model, vocabulary, [[0]] * 4, max_new_tokens=20, seed=6) != first
    assert len({tuple(row) for row in first}) == 4  # equal prompts are different samples
    torch.set_rng_state(state)
    generate(model, vocabulary, [[0]], max_new_tokens=5)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_prompt_does_not_feel_its_neighbors(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    # Prompts end at different steps, so rows leave the batch on the way.
    model = make_model()
    together = generate(model, vocabulary, PROMPTS, max_new_tokens=60, seed=1)
    lengths = [len(row) for row in together]
    assert len(set(lengths)) > 1
    assert max(lengths) > min(lengths) + 3
    for i in range(1, len(PROMPTS) + 1):
        assert generate(model, vocabulary, PROMPTS[:i], max_new_tokens=60, seed=1) == together[:i]


def test_eos_ends_and_is_not_returned(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    model = make_model()
    ended = generate(model, vocabulary, [[0]] * 50, max_new_tokens=100)
    assert all(0 not in row for row in ended)
    assert min(map(len, ended)) < 100
    endless = generate(model, vocabulary, [[0]] * 50, max_new_tokens=100, stop_at_eos=False)
    assert {len(row) for row in endless} == {100}
    assert all(0 not in row for row in endless)


def test_narrow_settings_are_greedy(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    model = make_model()
    greedy = generate(model, vocabulary, PROMPTS, max_new_tokens=20, temperature=0)
    for settings in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-4}):
        assert generate(model, vocabulary, PROMPTS, max_new_tokens=20, **settings) == greedy  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {}),
        ("llama", {"temperature": 2.0}),
        ("llama", {"top_k": 4}),
        ("llama", {"top_p": 0.7}),
        ("gemma2", {}),  # caps its logits
        ("granite", {}),  # scales them
    ],
)
def test_frequencies_follow_the_model(
    make_model: Callable[..., Any], vocabulary: Vocabulary, kind: str, settings: dict[str, Any]
) -> None:
    more: dict[str, dict[str, Any]] = {
        "llama": {},
        "gemma2": {"final_logit_softcapping": 1.0, "head_dim": 8, "attention": "eager"},
        "granite": {"logits_scaling": 8.0},
    }
    model = make_model(kind, **more[kind])
    samples = 4000
    new = generate(
        model, vocabulary, [[0]] * samples, max_new_tokens=1, modality="speech", stop_at_eos=False, **settings
    )
    counts = np.bincount([row[0] for row in new], minlength=vocabulary.size)[10:20]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[0]])).logits[0, 0, 10:20].double() / settings.get("temperature", 1.0)
    expected = torch.softmax(logits, 0).numpy()
    order = np.argsort(-expected)
    keep = settings.get("top_k", 10)
    if "top_p" in settings:
        keep = 1 + int((np.cumsum(expected[order]) < settings["top_p"]).sum())
    expected[order[keep:]] = 0
    expected /= expected.sum()
    assert (counts[expected == 0] == 0).all()
    spread = np.sqrt(samples * expected * (1 - expected))
    assert (np.abs(counts - samples * expected) <= 4 * spread + 1e-9).all()


def test_units_in_units_out(make_model: Callable[..., Any]) -> None:
    vocabulary = Vocabulary.textless(6)
    model = make_model(vocab_size=vocabulary.size)
    new = continue_units(model, vocabulary, [np.array([1, 2], np.int16), np.array([5], np.int16)], max_new_units=30)
    assert len(new) == 2
    assert all(((row >= 0) & (row < 6)).all() for row in new)
    expected = generate(model, vocabulary, [[0, 2, 3], [0, 6]], max_new_tokens=30, modality="speech")
    assert [row.tolist() for row in new] == [[i - 1 for i in row] for row in expected]


def test_nothing_to_do(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    assert generate(make_model(), vocabulary, [], max_new_tokens=5) == []
    assert generate(make_model(), vocabulary, [[0]], max_new_tokens=0) == [[]]


@pytest.mark.parametrize(
    ("prompts", "new_tokens", "message"),
    [
        ([[0], []], 5, "prompt 1 is empty"),
        ([[0], [0, 22]], 5, r"prompt 1: token ids run 0\.\.22, the model has 22 ids"),
        ([[0] * 200], 57, "prompt 0: 200 tokens and 57 new ones, the model's context holds 256"),
    ],
)
def test_bad_prompts_are_refused(
    make_model: Callable[..., Any], vocabulary: Vocabulary, prompts: list[list[int]], new_tokens: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        generate(make_model(), vocabulary, prompts, max_new_tokens=new_tokens)


@pytest.mark.parametrize(
    "settings", [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}]
)
def test_bad_settings_are_refused(
    make_model: Callable[..., Any], vocabulary: Vocabulary, settings: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        generate(make_model(), vocabulary, [[0]], max_new_tokens=2, **settings)


def test_counts_are_whole_numbers() -> None:
    for name in ("max_new_tokens", "top_k", "samples", "window", "seed"):
        with pytest.raises(DataError, match=rf"{name} 20\.5: a whole number"):
            Decoding(**({"max_new_tokens": 5} | {name: 20.5}))  # type: ignore[arg-type]
        Decoding(**({"max_new_tokens": 5} | {name: np.int64(20)}))  # type: ignore[arg-type]


def test_a_model_in_training_is_left_so(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    model = make_model().train()
    next(coming := steps(model, vocabulary, PROMPTS, Decoding(max_new_tokens=5)))
    assert not model.training
    coming.close()
    assert model.training


def test_diverged_weights_are_reported(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    model = make_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = float("nan")
    with pytest.raises(DataError, match=r"prompt 1: the model gives logits that are not finite"):
        generate(model, vocabulary, [[0, 3], [0, 7]], max_new_tokens=2)


def test_a_stream_leaves_its_caller_alone(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    # An inference mode held across a yield is the caller's too, and two streams at once end in each other's.
    for kind in ("llama", "granite"):
        model, settings = make_model(kind), Decoding(max_new_tokens=12, stop="never")
        pairs = []
        for first, second in zip(
            steps(model, vocabulary, PROMPTS, settings), steps(model, vocabulary, PROMPTS[:2], settings), strict=True
        ):
            assert not torch.is_inference_mode_enabled()
            assert (torch.ones(1, requires_grad=True) * 2).requires_grad
            pairs.append((first.tokens[:2].tolist(), second.tokens.tolist()))
        assert len(pairs) == 12
        assert all(a == b for a, b in pairs)
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1e-308},
        {"temperature": 1e-308, "top_k": 3},
        {"temperature": 1e300},
        {"repetition_penalty": 1e-300},
        {"repetition_penalty": 1e300},
    ],
)
def test_far_settings_still_draw(
    make_model: Callable[..., Any], vocabulary: Vocabulary, settings: dict[str, Any]
) -> None:
    asked = Decoding(max_new_tokens=12, modality="speech", stop="never", **settings)
    rows = [one.ids for (one,) in continuations(make_model(), vocabulary, PROMPTS, asked)]
    assert {len(row) for row in rows} == {12}
    assert all(10 <= id < 20 for row in rows for id in row)
    if "temperature" in settings and settings["temperature"] < 1:
        asked = Decoding(max_new_tokens=12, modality="speech", stop="never", temperature=0)
        assert [one.ids for (one,) in continuations(make_model(), vocabulary, PROMPTS, asked)] == rows


def test_output_without_end_asks_for_no_memory_without_end(
    make_model: Callable[..., Any], vocabulary: Vocabulary
) -> None:
    endless = Decoding(max_new_tokens=10**13, modality="speech", stop="never", window=32, seed=2)
    coming = steps(make_model(), vocabulary, [[0, 12]], endless)
    first = [int(next(coming).tokens[0]) for _ in range(600)]
    whole = Decoding(max_new_tokens=600, modality="speech", stop="never", window=32, seed=2)
    ((one,),) = continuations(make_model(), vocabulary, [[0, 12]], whole)
    assert list(one.ids) == first


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks for it
def test_an_adapter_is_read(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(make_model(), config)
    found = generate(wrapped, vocabulary, PROMPTS, max_new_tokens=20, temperature=0, stop_at_eos=False)
    plain = generate(make_model(), vocabulary, PROMPTS, max_new_tokens=20, temperature=0, stop_at_eos=False)
    merged = wrapped.merge_and_unload()
    assert generate(merged, vocabulary, PROMPTS, max_new_tokens=20, temperature=0, stop_at_eos=False) == found != plain
