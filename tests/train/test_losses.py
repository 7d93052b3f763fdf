"""Catches attention across documents, targets of another document, and losses filed under the wrong modality."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from speechscale.model.anatomy import Head
from speechscale.model.sizes import SIZES, Size
from speechscale.model.slm import new_model
from speechscale.tokens.packing import Batch, pack_documents
from speechscale.train import objective as objectives
from speechscale.train.attention import Kernel, Rows, document_mask, lay_out
from speechscale.train.losses import (
    Rates,
    loss_by_modality,
    predicting_places,
    ratio_standard_error,
    target_losses,
)
from speechscale.train.objective import Objective, Precision
from tests.train.conftest import CONTEXT, VOCAB, documents

GROUPED = Size(name="grouped", layers=2, dim=32, heads=2, kv_heads=1, ffn=64, family="qwen2", tied=False)


@pytest.fixture(scope="module", params=[SIZES["0.05M"], GROUPED], ids=["llama", "qwen2"])
def model(request: pytest.FixtureRequest) -> Any:
    """Weights large enough that every attended token matters."""
    made = new_model(request.param, VOCAB, CONTEXT, seed=0)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return made


def rows(batch: Batch, kernel: Kernel = "varlen") -> Rows:
    places = predicting_places(batch.segments)
    return lay_out(batch, places, 1 / len(places), kernel=kernel, device=torch.device("cpu"))


def training_loss(model: Any, packed: Rows, precision: Precision) -> torch.Tensor:
    return Objective(model, precision=precision)(packed).total


def hidden_states(model: Any, packed: Rows, precision: Precision) -> torch.Tensor:
    return Objective(model, precision=precision).hidden_states(packed, precision)


def test_places_example() -> None:
    assert predicting_places(np.array([[0, 0, 1, 1, -1], [0, 0, 0, -1, -1]])).tolist() == [0, 2, 5, 6]


def test_mask_is_causal_inside_documents_and_never_empty() -> None:
    segments = torch.tensor([[0, 0, 1, -1, -1]])
    seen = document_mask(segments)[0, 0]
    expected = torch.tensor(
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1]], dtype=torch.bool
    )
    assert torch.equal(seen, expected)


@pytest.mark.filterwarnings("ignore:flex_attention called without")  # on a CPU it is here to be compared only
@pytest.mark.parametrize("kernel", ["varlen", "mask", "flex"])
def test_packed_rows_equal_documents_alone(model: Any, kernel: Kernel) -> None:
    bodies, streams = documents(20, seed=3)
    (batch,) = pack_documents(bodies, streams, CONTEXT, batch_rows=64)
    assert (batch.segments < 0).any(), "the test needs padding"
    packed = rows(batch, kernel)
    with torch.no_grad():
        logits = model.get_output_embeddings()(hidden_states(model, packed, "fp32"))
        place = 0
        for row in range(len(batch.tokens)):
            for segment in range(int(batch.segments[row].max()) + 1):
                own = batch.segments[row] == segment
                tokens = torch.from_numpy(batch.tokens[row, own])
                alone = model(tokens[None]).logits[0, :-1]
                got = logits[place : place + len(alone)]
                assert torch.allclose(got, alone, atol=1e-5, rtol=1e-5)
                assert torch.equal(packed.targets[place : place + len(alone)], tokens[1:])
                place += len(alone)
    assert place == len(logits) == sum(len(body) + 1 for body in bodies)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("chunk", [16, 10_000])
def test_chunked_loss_and_gradients_equal_torch(
    model: Any, batches: list[Batch], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectives, "MIN_CHUNK_TARGETS", chunk)
    monkeypatch.setattr(objectives, "CHUNK_LOGITS", 1)
    packed = rows(batches[0])

    def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
        made = torch.autograd.grad(loss * 3, list(model.parameters()))
        return list(made)

    head = model.get_output_embeddings()
    stock = torch.nn.functional.cross_entropy(head(hidden_states(model, packed, "fp32")), packed.targets)
    ours = training_loss(model, packed, "fp32")
    torch.testing.assert_close(ours, stock)
    for got, expected in zip(gradients(ours), gradients(stock), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_bf16_is_close_and_leaves_the_model_as_it_was(batches: list[Batch]) -> None:
    model = new_model(SIZES["0.05M"], VOCAB, CONTEXT, seed=0)
    packed = rows(batches[0])
    values = {}
    precision: Precision
    for precision in ("fp32", "bf16"):
        model.zero_grad()
        loss = training_loss(model, packed, precision)
        loss.backward()
        values[precision] = (loss.item(), model.lm_head.weight.grad.clone())
    assert values["bf16"][0] == pytest.approx(values["fp32"][0], abs=0.01)
    assert torch.cosine_similarity(values["bf16"][1].flatten(), values["fp32"][1].flatten(), dim=0) > 0.99
    assert model.lm_head.weight.dtype == torch.float32
    assert model.config._attn_implementation == "sdpa"


def test_speech_loss_is_per_unit_that_a_token_spells(model: Any, batches: list[Batch], modality: np.ndarray) -> None:
    """Would catch losses of subwords that are per piece and so cannot be compared with those of units."""
    plain = loss_by_modality(model, batches[:2], modality)
    two = loss_by_modality(model, batches[:2], modality, np.where(modality == 1, 2, 0))
    mixed = np.where(modality == 1, 1 + np.arange(VOCAB) % 3, 0)
    got = loss_by_modality(model, batches[:2], modality, mixed)
    assert plain.speech is not None
    assert plain.speech_se is not None
    assert two.speech == pytest.approx(plain.speech / 2)
    assert two.speech_se == pytest.approx(plain.speech_se / 2)
    assert (two.text, two.mean, two.speech_targets) == (plain.text, plain.mean, plain.speech_targets)
    spelled = sum(int(mixed[b.tokens.reshape(-1)[predicting_places(b.segments) + 1]].sum()) for b in batches[:2])
    assert got.units == spelled
    assert got.speech == pytest.approx(plain.speech * plain.speech_targets / spelled)


def test_losses_by_modality_are_means_of_their_targets(model: Any, batches: list[Batch], modality: np.ndarray) -> None:
    chosen = batches[:3]
    got = loss_by_modality(model, chosen, modality)
    every = [target_losses(model, b, predicting_places(b.segments)) for b in chosen]
    kinds = np.concatenate([modality[b.tokens.reshape(-1)[predicting_places(b.segments) + 1]] for b in chosen])
    flat = np.concatenate(every)
    assert got.text == pytest.approx(flat[kinds == 0].mean())
    assert got.speech == pytest.approx(flat[kinds == 1].mean())
    assert got.marker == pytest.approx(flat[kinds == 2].mean())
    assert got.mean == pytest.approx(flat.mean())
    assert got.text_targets + got.speech_targets + got.marker_targets == len(flat)
    assert got.documents == sum(int(row.max()) + 1 for b in chosen for row in b.segments)


def test_validation_without_text_says_none(model: Any, speech: list[Batch], modality: np.ndarray) -> None:
    got = loss_by_modality(model, speech, modality)
    assert got.text is None
    assert got.text_targets == 0
    assert got.documents == got.marker_targets == 30  # each document closes with one <eos>
    again = loss_by_modality(model, speech, modality)
    assert got == again


def test_standard_error_of_a_ratio_covers_the_truth() -> None:
    """Documents of different length and difficulty: the spread of the estimate over repetitions equals its s.e."""
    rng = np.random.default_rng(0)
    estimates, errors = [], []
    for _ in range(400):
        counts = rng.integers(5, 50, 60).astype(float)
        sums = counts * rng.normal(2.0, 0.3, 60) + rng.normal(0, 1, 60) * np.sqrt(counts)
        estimates.append(sums.sum() / counts.sum())
        errors.append(ratio_standard_error(sums, counts))
    assert np.mean(np.array(errors, float)) == pytest.approx(np.std(estimates), rel=0.1)
    assert ratio_standard_error(np.ones(1), np.ones(1)) is None


def test_speech_error_is_over_documents(model: Any, speech: list[Batch], modality: np.ndarray) -> None:
    got = loss_by_modality(model, speech, modality)
    sums, counts = [], []
    for batch in speech:
        places = predicting_places(batch.segments)
        values = target_losses(model, batch, places)
        kinds = modality[batch.tokens.reshape(-1)[places + 1]]
        key = places // CONTEXT * 100 + batch.segments.reshape(-1)[places]
        for document in np.unique(key):
            own = (key == document) & (kinds == 1)
            sums.append(values[own].sum())
            counts.append(float(own.sum()))
    assert got.speech_se == pytest.approx(ratio_standard_error(np.array(sums), np.array(counts)))


@pytest.mark.parametrize("chunk", [1, 10_000])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("scale", "softcap", "z_loss"), [(1.0, None, 0.0), (0.5, 3.0, 0.1), (1.0, 2.0, 0.0)])
def test_head_of_any_kind_equals_torch(
    monkeypatch: pytest.MonkeyPatch, chunk: int, bias: bool, scale: float, softcap: float | None, z_loss: float
) -> None:
    """Weights per target, a bias, scaled and capped logits, the z-loss: value and gradients as autograd makes them."""
    monkeypatch.setattr(objectives, "CHUNK_LOGITS", chunk)
    monkeypatch.setattr(objectives, "MIN_CHUNK_TARGETS", 7)
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 8, generator=generator).requires_grad_() for n in (20, 30))
    shift = torch.randn(30, generator=generator).requires_grad_() if bias else None
    targets = torch.randint(30, (20,), generator=generator)
    weights = torch.rand(20, generator=generator)
    head = Head(weight, shift, scale, softcap)
    total, nats, denominator = objectives._HeadCrossEntropy.apply(
        hidden, weight, shift, targets, weights, head, z_loss, "fp32"
    )
    logits = head.logits(hidden)
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(nats, expected)
    torch.testing.assert_close(denominator, logits.logsumexp(1))
    stock = (weights * (expected + z_loss * logits.logsumexp(1).square())).sum()
    torch.testing.assert_close(total, stock)
    inputs = [tensor for tensor in (hidden, weight, shift) if tensor is not None]
    for got, wanted in zip(torch.autograd.grad(total, inputs), torch.autograd.grad(stock, inputs), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_z_loss_holds_the_denominator_near_one(batches: list[Batch]) -> None:
    """Would catch a z-loss that is reported but not learned from."""
    ends = {}
    for z_loss in (0.0, 1.0):
        model = new_model(SIZES["0.02M"], VOCAB, CONTEXT, seed=0)
        objective = Objective(model, precision="fp32", z_loss=z_loss)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for batch in batches[:30]:
            outcome = objective(rows(batch))
            optimizer.zero_grad()
            outcome.total.backward()
            optimizer.step()
        ends[z_loss] = float(outcome.log_denominator.square().mean())
    assert ends[1.0] < ends[0.0] / 4


def test_losses_per_second_and_word_are_the_loss_per_unit_times_the_rate(
    model: Any, batches: list[Batch], modality: np.ndarray
) -> None:
    found = loss_by_modality(model, batches[:2], modality)
    per = found.per(Rates(units_per_second=19.4, units_per_word=7.1, text_tokens_per_word=1.3))
    assert found.speech is not None
    assert found.text is not None
    assert per["speech_per_second"] == found.speech * 19.4
    assert per["speech_per_word"] == found.speech * 7.1
    assert per["text_per_word"] == found.text * 1.3
    assert found.per(Rates())["speech_per_word"] is None


def test_documents_of_one_length_attend_like_others(model: Any) -> None:
    """Full rows take a shorter way through attention; it must be the same attention."""
    equal = [np.arange(1, CONTEXT - 1) % 30 + k for k in range(1, 5)]
    (batch,) = pack_documents(equal, ["text"] * 4, CONTEXT, batch_rows=4)
    assert (batch.segments == 0).all()
    with torch.no_grad():
        short, long = (hidden_states(model, rows(batch, kernel), "fp32") for kernel in ("varlen", "mask"))
    torch.testing.assert_close(short, long, rtol=1e-5, atol=1e-5)
