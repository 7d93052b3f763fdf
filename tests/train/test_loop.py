"""Catches a budget missed by a token, a run that does not repeat, a wrong best checkpoint, and silent divergence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechscale.errors import DataError
from speechscale.model.sizes import SIZES
from speechscale.model.slm import new_model
from speechscale.tokens.packing import Batch
from speechscale.train.config import make_optimizer, resolve_precision
from speechscale.train.loop import (
    Check,
    Hooks,
    Runtime,
    StepReport,
    TrainConfig,
    TrainResult,
    train,
)
from speechscale.train.losses import loss_by_modality, predicting_places
from speechscale.train.objective import Objective
from speechscale.train.parallel import SOLO, restore_local
from speechscale.train.step import Stepper, Tokens
from tests.train.conftest import CONTEXT, ROWS, VOCAB

GOLDEN = Path(__file__).parents[1] / "golden" / "train_20_steps.txt"
CONFIG = TrainConfig(tokens=2_000, batch_rows=ROWS, context=CONTEXT, learning_rate=1e-2, precision="fp32", checks=4)


def fresh(name: str = "0.02M") -> Any:
    return new_model(SIZES[name], VOCAB, CONTEXT, seed=0)


def run(
    batches: Sequence[Batch], modality: np.ndarray, config: TrainConfig = CONFIG, model: Any = None, **validation: Any
) -> TrainResult:
    return train(model or fresh(), iter(batches), config, modality=modality, validation=validation)


def targets(batches: Sequence[Batch]) -> int:
    return sum(len(predicting_places(batch.segments)) for batch in batches)


def test_twenty_steps_equal_the_golden_file(batches: list[Batch], modality: np.ndarray) -> None:
    """To write the file anew after a deliberate change: delete it, run this test, and say why in the commit."""
    config = replace(CONFIG, tokens=targets(batches[:20]))
    result = run(batches, modality, config)
    lines = [f"{report.step} {report.loss:.6f}" for report in result.history]
    if not GOLDEN.exists():
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text("\n".join(lines) + "\n")
        pytest.fail(f"{GOLDEN.name} was missing and has been written; read it, then run again")
    golden = [float(line.split()[1]) for line in GOLDEN.read_text().splitlines()]
    assert [report.loss for report in result.history] == pytest.approx(golden, rel=1e-4)
    assert len(golden) == 20
    assert golden[-1] < golden[0] - 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_same_seed_same_losses_bit_for_bit(batches: list[Batch], modality: np.ndarray, precision: Any) -> None:
    config = replace(CONFIG, precision=precision)
    torch.manual_seed(0)
    one = run(batches, modality, config)
    torch.manual_seed(1)
    two = run(batches, modality, config)
    assert one.history == two.history
    assert all(torch.equal(weight, two.best_state[name]) for name, weight in one.best_state.items())


def test_bf16_learns_like_fp32(batches: list[Batch], modality: np.ndarray) -> None:
    last = {}
    for precision in ("fp32", "bf16"):
        config = replace(CONFIG, tokens=targets(batches), precision="bf16" if precision == "bf16" else "fp32")
        last[precision] = run(batches, modality, config, test=batches[:20]).final["test"].mean
    assert last["bf16"] == pytest.approx(last["fp32"], abs=0.03)


def test_budget_is_met_to_the_token(batches: list[Batch], modality: np.ndarray) -> None:
    stream = iter(batches)
    result = train(fresh(), stream, CONFIG, modality=modality, validation={})
    assert result.tokens_seen == CONFIG.tokens == result.history[-1].tokens_seen
    assert sum(sum(kinds.values()) for kinds in result.targets.values()) == CONFIG.tokens
    steps = len(result.history)
    assert targets(batches[: steps - 1]) < CONFIG.tokens <= targets(batches[:steps])
    assert next(stream) is batches[steps], "more batches were read than used"
    assert result.history[-1].learning_rate == pytest.approx(CONFIG.learning_rate * CONFIG.final_lr_fraction)
    assert result.history[0].learning_rate > 0


def test_targets_are_counted_by_stream_and_modality(batches: list[Batch], modality: np.ndarray) -> None:
    config = replace(CONFIG, tokens=targets(batches[:20]))
    counts = run(batches, modality, config).targets
    expected = np.zeros((3, 3), int)
    for batch in batches[:20]:
        for place in predicting_places(batch.segments):
            kind = modality[batch.tokens.reshape(-1)[place + 1]]
            expected[batch.stream.reshape(-1)[place], kind] += 1
    got = [[counts[s][m] for m in ("text", "speech", "marker")] for s in ("speech", "text", "interleaved")]
    assert got == expected.tolist()
    assert counts["speech"]["text"] == counts["text"]["speech"] == 0
    assert counts["interleaved"]["marker"] > counts["speech"]["marker"]


def test_loss_is_the_one_of_the_batch_before_the_step(batches: list[Batch], modality: np.ndarray) -> None:
    result = run(batches, modality)
    assert result.history[0].loss == pytest.approx(loss_by_modality(fresh(), batches[:1], modality).mean, rel=1e-6)


def test_validations_run_evenly_and_at_the_end(batches: list[Batch], speech: list[Batch], modality: np.ndarray) -> None:
    seen: list[Check] = []
    steps: list[StepReport] = []

    def look(model: Any, check: Check) -> None:
        model.eval()
        seen.append(check)

    result = train(
        fresh(),
        iter(batches),
        CONFIG,
        modality=modality,
        validation={"select": speech, "test": speech[:1]},
        hooks=Hooks(on_check=look, on_step=steps.append),
    )
    assert list(result.checks) == seen
    assert steps == list(result.history)
    assert len(seen) == 4
    largest = targets(batches[:1]) * 2
    for i, check in enumerate(seen):
        assert 0 <= check.tokens_seen - 500 * (i + 1) < largest
    assert seen[-1].tokens_seen == 2_000
    assert result.final["select"] == seen[-1].losses["select"]
    assert set(result.final) == set(result.best) == {"select", "test"}


def test_best_checkpoint_is_the_one_lowest_on_select(
    batches: list[Batch], speech: list[Batch], modality: np.ndarray
) -> None:
    """A model trained on eight rows over and over gets worse on others: the best is early, the model is the last."""
    few = batches[:2] * 200
    config = replace(CONFIG, tokens=20_000, checks=10, learning_rate=2e-2, weight_decay=0.0)
    model = fresh("0.05M")
    result = run(few, modality, config, model, select=speech, test=speech)
    curve = [check.losses["select"].speech or math.nan for check in result.checks]
    best = int(np.argmin(curve))
    assert best < 9, "the run did not over-fit, the test shows nothing"
    assert result.best_tokens_seen == result.checks[best].tokens_seen
    assert result.best["test"].speech == curve[best]
    assert result.final["test"].speech == curve[-1] == loss_by_modality(model, speech, modality).speech
    restore_local(model, result.best_state)
    assert loss_by_modality(model, speech, modality).speech == curve[best]


def test_without_select_the_last_weights_are_the_best(batches: list[Batch], modality: np.ndarray) -> None:
    model = fresh()
    result = run(batches, modality, CONFIG, model, test=batches[:2])
    assert result.best_tokens_seen == CONFIG.tokens
    assert result.best == result.final
    assert all(torch.equal(weight, result.best_state[name]) for name, weight in model.named_parameters())


def test_decay_spares_norms_and_biases() -> None:
    decayed, spared = make_optimizer(fresh(), CONFIG).param_groups
    assert decayed["weight_decay"] == CONFIG.weight_decay
    assert spared["weight_decay"] == 0
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in spared["params"]} == {1}


def test_gradient_is_clipped(batches: list[Batch], modality: np.ndarray) -> None:
    """The reported norm is the one before; the gradient that reaches the optimizer is no longer than allowed."""
    objective = Objective(fresh(), precision="fp32")
    stepper = Stepper(
        objective=objective,
        call=objective,
        config=replace(CONFIG, clip_norm=1e-3),
        runtime=Runtime(),
        group=SOLO,
        parts=1,
        tokens=Tokens(modality, None),
        optimizer=make_optimizer(fresh(), CONFIG),
    )  # the optimizer holds another model, so the clipped gradient stays readable
    places = predicting_places(batches[0].segments)
    report = stepper.step(batches[0], places, np.array([len(places)]), 1)
    length = math.sqrt(sum(float(p.grad.square().sum()) for p in objective.parameters()))
    assert report.grad_norm > 1e-2
    assert length == pytest.approx(1e-3, rel=1e-3)


def test_divergence_stops_with_step_rate_and_remedy(batches: list[Batch], modality: np.ndarray) -> None:
    model = fresh()
    with torch.no_grad():
        model.lm_head.weight[5, 0] = math.nan
    with pytest.raises(FloatingPointError, match=r"step 1 \(\d+ tokens\): loss nan.*learning rate.*lower"):
        run(batches, modality, CONFIG, model)


def test_unusable_input_is_refused(batches: list[Batch], modality: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"ended after \d+ of 2000 tokens"):
        run(batches[:2], modality)
    with pytest.raises(DataError, match=r"4 x 48 tokens, the config says 4 x 32"):
        run(batches, modality, replace(CONFIG, context=32))
    with pytest.raises(DataError, match=r"a model of 72 ids and a vocabulary of 71"):
        run(batches, modality[:-1])
    without_speech = np.where(modality == 1, 0, modality).astype(np.int8)
    with pytest.raises(DataError, match="has no speech to choose a checkpoint by"):
        run(batches, without_speech, select=batches[:1])
    with pytest.raises(DataError, match=r"learning_rate = 0; it must be above 0"):
        replace(CONFIG, learning_rate=0)
    with pytest.raises(DataError, match=r"warmup_fraction = 2; it must lie in 0..1"):
        replace(CONFIG, warmup_fraction=2)


def test_auto_precision_follows_size_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large, larger = fresh("0.05M"), fresh("0.2M"), fresh("0.5M")
    assert resolve_precision("bf16", small) == "bf16"
    expected = {
        (False, False): ["fp32"] * 3,
        (True, False): ["fp32", "bf16", "bf16"],
        (True, True): ["fp32", "fp32", "bf16"],
    }
    for (native, amx), precisions in expected.items():
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx, raising=False)
        assert [resolve_precision("auto", model) for model in (small, large, larger)] == precisions
