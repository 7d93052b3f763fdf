"""Would catch: a gradient that is not that of the DPO loss, log-probabilities that depend on the packing, a reference
that is not the model before tuning, and results that change with parts, processes or a restart.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from speechscale.errors import DataError
from speechscale.model.sizes import SIZES
from speechscale.model.slm import new_model
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from speechscale.train.adapt import Adaptation, adapt
from speechscale.train.attention import lay_out
from speechscale.train.checkpoints import Checkpoints
from speechscale.train.config import Runtime
from speechscale.train.objective import Objective
from speechscale.train.parallel import SOLO, open_group
from speechscale.train.preference import PreferenceConfig, PreferenceHooks, PreferenceResult, tune
from speechscale.train.preference_data import Pair
from speechscale.train.preference_loss import PairTargets, PreferenceObjective
from speechscale.train.preference_reference import Sequences, log_probs
from tests.train.processes import run_processes

UNITS, CONTEXT = 24, 48
WORDS = "the cat dog sat ran home jam likes tom ann"
CPU = torch.device("cpu")
CONFIG = PreferenceConfig(
    epochs=3, batch_pairs=16, context=CONTEXT, learning_rate=3e-3, precision="fp32", checks=2, beta=0.1
)


def vocabulary() -> Vocabulary:
    return Vocabulary.joint(build_text_tokenizer([WORDS], "words", 100), UNITS)


def make_pairs(count: int, *, seed: int = 0, mixed: bool = False) -> list[Pair]:
    """The chosen completion follows the chain u -> u + 3; the rejected one leaves it at every other step."""
    rng, ids = np.random.default_rng(seed), vocabulary()
    pairs = []
    for number in range(count):
        length = int(rng.integers(4, 10))
        chain = (int(rng.integers(UNITS)) + 3 * np.arange(length + 4)) % UNITS
        wrong = chain[4:] + rng.integers(1, UNITS, length) * (np.arange(length) % 2)
        prompt = ids.unit_ids(chain[:4])
        if mixed:
            words = ids.encode_words(rng.choice(WORDS.split(), 3).tolist()).flat
            prompt = np.concatenate([[ids.TEXT], words, [ids.SPEECH], prompt])
        pairs.append(Pair(str(number), prompt, ids.unit_ids(chain[4:]), ids.unit_ids(wrong % UNITS)))
    return pairs


def fresh(seed: int = 0, scale: float = 1.0) -> Any:
    model = new_model(SIZES["0.02M"], vocabulary().size, CONTEXT, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    return model


def run(model: Any, pairs: list[Pair], config: PreferenceConfig = CONFIG, **more: Any) -> PreferenceResult:
    return tune(model, pairs, config, vocabulary=vocabulary(), **more)


def completion_log_probs(model: Any, pair: Pair, *, score_end: bool = True) -> list[torch.Tensor]:
    """The textbook: one document, no packing, stock transformers."""
    eos, sums = vocabulary().eos_id, []
    for completion in (pair.chosen, pair.rejected):
        tokens = torch.from_numpy(np.concatenate([[eos], pair.prompt, completion, [eos]]).astype(np.int64))
        each = model(tokens[None]).logits[0, :-1].double().log_softmax(-1).gather(1, tokens[1:, None])[:, 0]
        sums.append(each[len(pair.prompt) : None if score_end else -1].sum())
    return sums


@pytest.mark.parametrize("score_end", [True, False])
def test_packed_log_probs_are_those_of_each_document_alone(score_end: bool) -> None:
    model, pairs = fresh(scale=8), make_pairs(12) + make_pairs(8, mixed=True)
    pairs.append(replace(pairs[0], prompt=pairs[0].prompt[:0]))
    sequences = Sequences.of(pairs, vocabulary().eos_id, score_end)
    assert len(sequences.pack(CONTEXT)[0].batch.tokens) > 2, "the test needs several rows"
    with torch.no_grad():
        alone = [float(value) for pair in pairs for value in completion_log_probs(model, pair, score_end=score_end)]
    for rows_at_once, context in ((16, CONTEXT), (1, CONTEXT), (4, 200)):
        packed = log_probs(
            Objective(model, precision="fp32"), sequences, context, precision="fp32", rows_at_once=rows_at_once
        )
        np.testing.assert_allclose(packed, alone, rtol=1e-5, atol=1e-5)


LOSSES = {
    "plain": {},
    "label smoothing": {"label_smoothing": 0.2},
    "per token": {"length_normalized": True, "beta": 2.0},
    "with likelihood": {"sft_weight": 0.7, "score_end": False},
    "all": {"label_smoothing": 0.1, "length_normalized": True, "sft_weight": 0.5},
}


def textbook_loss(model: Any, reference: Any, pairs: list[Pair], config: PreferenceConfig) -> torch.Tensor:
    """Rafailov et al. 2023, eq. 7, written out with two models."""
    losses = []
    for pair in pairs:
        chosen, rejected = completion_log_probs(model, pair, score_end=config.score_end)
        with torch.no_grad():
            was_chosen, was_rejected = completion_log_probs(reference, pair, score_end=config.score_end)
        n_chosen, n_rejected = (len(ids) + config.score_end for ids in (pair.chosen, pair.rejected))
        a, b = (n_chosen, n_rejected) if config.length_normalized else (1, 1)
        h = config.beta * ((chosen - was_chosen) / a - (rejected - was_rejected) / b)
        loss = -(1 - config.label_smoothing) * logsigmoid(h) - config.label_smoothing * logsigmoid(-h)
        losses.append(loss - config.sft_weight * chosen / n_chosen)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_that_of_the_textbook_loss(name: str) -> None:
    config = replace(CONFIG, **LOSSES[name])
    model, reference = fresh(seed=1, scale=4), fresh(seed=2, scale=4)
    pairs = make_pairs(5) + make_pairs(3, mixed=True)
    expected = textbook_loss(model, reference, pairs, config)
    wanted = torch.autograd.grad(expected, list(model.parameters()))

    sequences = Sequences.of(pairs, vocabulary().eos_id, config.score_end)
    theirs = log_probs(Objective(reference, precision="fp32"), sequences, CONTEXT, precision="fp32")
    (packed,) = sequences.pack(CONTEXT)
    targets = PairTargets(
        owners=torch.from_numpy(packed.owners),
        reference=torch.from_numpy(theirs),
        targets=torch.from_numpy(sequences.targets),
        share=1 / len(pairs),
    )
    rows = lay_out(packed.batch, packed.places, 1.0, kernel="varlen", device=CPU)
    outcome = PreferenceObjective(model, config, precision="fp32")(rows, None, targets)
    got = torch.autograd.grad(outcome.surrogate, list(model.parameters()))
    assert max(float(grad.abs().max()) for grad in wanted) > 1e-3, "the test needs a gradient"
    for ours, theirs_grad in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs_grad, rtol=1e-4, atol=1e-5)

    # And the loop reports that loss: with the tuned model as its own reference it is ln 2 (and the likelihood).
    report = run(copy.deepcopy(model), pairs, replace(config, epochs=1, batch_pairs=8)).history[0]
    assert report.loss == pytest.approx(textbook_loss(model, model, pairs, config).item(), rel=1e-5)
    assert (report.accuracy, report.margin) == (0.5, pytest.approx(0, abs=1e-5))


@pytest.mark.parametrize("mixed", [False, True], ids=["speech", "mixed"])
def test_tuning_raises_margin_and_accuracy_of_held_out_pairs(mixed: bool) -> None:
    """A rule that generalizes: accuracy 1/2 by construction before, and here above it by 5 standard errors."""
    held_out = make_pairs(60, seed=1, mixed=mixed)
    result = run(fresh(), make_pairs(200, mixed=mixed), replace(CONFIG, learning_rate=1e-2), validation=held_out)
    before, after = result.checks[0], result.checks[-1]
    assert (before.mean["margin"], before.mean["accuracy"], before.step) == (0, 0.5, 0)
    assert after.pairs_seen == result.pairs_seen == 600
    assert after.mean["accuracy"] - 5 * (after.se["accuracy"] or 0) > 0.5
    assert after.mean["margin"] - 5 * (after.se["margin"] or 0) > 0
    assert after.mean["likelier"] > before.mean["likelier"] + 0.2
    assert after.mean["reward_chosen"] - after.mean["reward_rejected"] == pytest.approx(after.mean["margin"])
    assert result.history[-1].loss < result.history[0].loss
    assert [check.pairs_seen for check in result.checks] == [0, 304, 600]


def test_standard_errors_are_over_pairs() -> None:
    held_out = make_pairs(9, seed=1)
    check = run(fresh(), make_pairs(32), replace(CONFIG, epochs=1), validation=held_out).checks[-1]
    model = fresh()
    run(model, make_pairs(32), replace(CONFIG, epochs=1))
    with torch.no_grad():
        now = torch.tensor([completion_log_probs(model, pair) for pair in held_out])
        was = torch.tensor([completion_log_probs(fresh(), pair) for pair in held_out])
    margins = 0.1 * ((now - was)[:, 0] - (now - was)[:, 1]).numpy()
    assert check.mean["margin"] == pytest.approx(margins.mean(), abs=1e-5)
    assert check.se["margin"] == pytest.approx(margins.std(ddof=1) / 3, rel=1e-3)
    assert check.mean["log_prob_chosen"] == pytest.approx(float(now[:, 0].mean()), rel=1e-5)
    assert run(fresh(), make_pairs(16), validation=held_out[:1]).checks[0].se["margin"] is None


def curve_of(result: PreferenceResult) -> list[float]:
    return [value for report in result.history for value in (report.loss, report.margin, report.grad_norm)]


def test_same_seed_same_bytes_and_parts_change_nothing() -> None:
    pairs, models = make_pairs(40), [fresh() for _ in range(4)]
    first, again = run(models[0], pairs), run(models[1], pairs)
    assert curve_of(first) == curve_of(again)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    parts = run(models[2], pairs, runtime=Runtime(micro_rows=2, recompute=True, attention="mask"))
    np.testing.assert_allclose(curve_of(parts), curve_of(first), rtol=1e-4, atol=1e-5)
    other = run(models[3], pairs, replace(CONFIG, seed=1))
    assert curve_of(other) != pytest.approx(curve_of(first), rel=1e-3)
    assert first.pairs_seen == 120
    assert first.tokens_seen == 3 * sum(len(pair.chosen) + len(pair.rejected) + 2 for pair in pairs)


def test_recompute_runs_each_block_twice_and_dropout_stays_off() -> None:
    passes: list[bool] = []
    for recompute in (False, True):
        model = fresh()
        model.model.layers[0].mlp.register_forward_pre_hook(lambda module, *_: passes.append(module.training))
        run(model, make_pairs(16), replace(CONFIG, epochs=1), runtime=Runtime(recompute=recompute))
    reference, step = 1, 1
    assert len(passes) == (reference + step) + (reference + 2 * step)
    assert not any(passes)


def test_every_epoch_sees_every_pair_once() -> None:
    from speechscale.train.preference_step import PairStepper

    seen: list[int] = []
    original: Callable[[Any], np.ndarray] = PairStepper._next_pairs
    with pytest.MonkeyPatch.context() as patch:

        def listen(stepper: PairStepper) -> np.ndarray:
            chosen = original(stepper)
            seen.extend(chosen.tolist())
            return chosen

        patch.setattr(PairStepper, "_next_pairs", listen)
        run(fresh(), make_pairs(20))  # batches of 16 run across the borders of epochs
    epochs = [seen[i : i + 20] for i in (0, 20, 40)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(20))] * 3
    assert epochs[0] != epochs[1]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # inside peft
def test_adapters_are_tuned_and_the_rest_stays() -> None:
    model = fresh()
    before = copy.deepcopy(model).state_dict()
    tuned = adapt(model, Adaptation(trains="lora", rank=4, alpha=8), seed=0)
    result = run(tuned, make_pairs(64), validation=make_pairs(16, seed=1))
    assert result.checks[-1].mean["margin"] > 0
    block = "model.layers.0.mlp.up_proj"
    after = tuned.state_dict()
    assert torch.equal(after[f"base_model.model.{block}.base_layer.weight"], before[f"{block}.weight"])
    assert after[f"base_model.model.{block}.lora_B.default.weight"].abs().max() > 0


def test_reference_file_equals_recomputation_and_spares_it(tmp_path: Path) -> None:
    pairs, held_out, file = make_pairs(40), make_pairs(10, seed=1), tmp_path / "reference.safetensors"
    seen: list[int] = []
    hooks = PreferenceHooks(watch=lambda progress: seen.append(progress.items_done))
    first = run(fresh(), pairs, validation=held_out, reference_file=file, hooks=hooks)
    assert seen[-1] == 20  # the last set, both sides of each pair
    assert 80 in seen
    seen.clear()
    again = run(fresh(), pairs, validation=held_out, reference_file=file, hooks=hooks)
    assert not seen
    assert (curve_of(again), again.checks) == (curve_of(first), first.checks)


def test_reference_file_of_another_model_is_refused_and_a_damaged_one_made_anew(tmp_path: Path) -> None:
    pairs, file = make_pairs(16), tmp_path / "reference.safetensors"
    first = run(fresh(), pairs, reference_file=file)
    with pytest.raises(DataError, match=r"log-probabilities of another model, .* nats per token apart"):
        run(fresh(scale=4), pairs, reference_file=file)
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.warns(UserWarning, match="differs from its checksum; the reference is computed anew"):
        assert curve_of(run(fresh(), pairs, reference_file=file)) == curve_of(first)
    file.write_bytes(b"nonsense")
    with pytest.warns(UserWarning, match="not readable"):
        run(fresh(), pairs, reference_file=file)
    run(fresh(scale=4), make_pairs(16, seed=5), reference_file=file)  # other pairs: simply another reference


def test_interrupted_and_resumed_equals_one_go(tmp_path: Path) -> None:
    pairs, held_out = make_pairs(40), make_pairs(10, seed=1)
    model = fresh()
    whole = run(model, pairs, validation=held_out)
    asked = iter(["", "", "", "the user asked for it"])
    with Checkpoints(tmp_path / "checkpoints", SOLO) as checkpoints:
        half = run(
            fresh(),
            pairs,
            validation=held_out,
            checkpoints=checkpoints,
            hooks=PreferenceHooks(stop=lambda: next(asked)),
        )
        assert (half.stopped, half.interrupted, half.steps) == ("the user asked for it", True, 3)
        start, resumed = checkpoints.latest(), fresh()
        assert start is not None
        rest = run(resumed, pairs, validation=held_out, checkpoints=checkpoints, start=start)
        assert [*half.history, *rest.history] == whole.history
        assert rest.checks == whole.checks
        assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), model.parameters(), strict=True))
        with pytest.raises(DataError, match="belongs to another tuning"):
            run(fresh(), pairs, replace(CONFIG, beta=0.2), validation=held_out, start=start)


def test_wall_time_ends_a_tuning_with_its_check() -> None:
    result = run(fresh(), make_pairs(40), validation=make_pairs(8, seed=1), runtime=Runtime(max_s=1e-9))
    assert (result.steps, result.interrupted) == (1, False)
    assert "wall time" in result.stopped
    assert result.checks[-1].step == 1


def test_divergence_names_the_pairs_and_spares_the_weights(tmp_path: Path) -> None:
    pairs, model = make_pairs(16), fresh()
    last: list[torch.Tensor] = []

    def poison(report: Any) -> None:
        with torch.no_grad():
            model.model.norm.weight[0] = float("nan")
        last.append(model.model.layers[0].mlp.up_proj.weight.clone())

    with pytest.raises(FloatingPointError, match=r"step 2 \(pairs \d+, \d+, \d+, ...\).*its rows are in"):
        run(model, pairs, runtime=Runtime(dump=tmp_path), hooks=PreferenceHooks(on_step=poison))
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, last[0])
    assert np.load(tmp_path / "diverged-step-2-rank-0.npz")["tokens"].shape[1] == CONTEXT


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "there are no pairs"),
        ([Pair("long", np.ones(40, int), np.ones(9, int), np.ones(2, int))], "pair long has 51 tokens, the context"),
        ([Pair("foreign", np.ones(0, int), np.array([999]), np.ones(2, int))], "pair foreign has the id 999"),
        ([Pair("empty", np.ones(2, int), np.ones(0, int), np.ones(2, int))], "pair empty has an empty completion"),
    ],
)
def test_pairs_that_cannot_be_used(pairs: list[Pair], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(fresh(), pairs)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta": 0.0}, "beta = 0.0"),
        ({"batch_pairs": 0}, "batch_pairs = 0"),
        ({"label_smoothing": 0.5}, "label_smoothing = 0.5"),
        ({"sft_weight": -1.0}, "sft_weight = -1.0"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0"),
        ({"warmup_fraction": 2.0}, "warmup_fraction = 2.0"),
    ],
)
def test_recipes_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(CONFIG, **values)


def tune_in_processes(checkpoint: str) -> dict[str, Any]:
    """For torchrun: DDP in parts and FSDP2; then a checkpoint of FSDP2 after two steps."""
    pairs, held_out = make_pairs(37), make_pairs(7, seed=1)
    with open_group("cpu") as group:
        found: dict[str, Any] = {}
        for parallel in ("ddp", "fsdp"):
            runtime = Runtime(parallel=parallel, micro_rows=2 if parallel == "ddp" else None)  # type: ignore[arg-type]
            result = run(fresh(), pairs, validation=held_out, group=group, runtime=runtime)
            found[parallel] = [curve_of(result), [asdict(check) for check in result.checks]]
        asked = iter(["", "", "enough"])
        with Checkpoints(Path(checkpoint), group) as checkpoints:
            hooks = PreferenceHooks(stop=lambda: next(asked) if group.leads else "")
            file = Path(checkpoint) / "reference.safetensors"
            run(
                fresh(),
                pairs,
                validation=held_out,
                group=group,
                runtime=Runtime(parallel="fsdp"),
                hooks=hooks,
                checkpoints=checkpoints,
                reference_file=file,
            )
    return found


@pytest.mark.slow
def test_two_processes_equal_one_and_go_on_as_one(tmp_path: Path) -> None:
    """37 pairs: the last batches cannot be shared out evenly, and one process has fewer parts than the other."""
    alone = run(fresh(), make_pairs(37), validation=make_pairs(7, seed=1))
    first, second = run_processes(
        "tests.train.test_preference:tune_in_processes", tmp_path, checkpoint=str(tmp_path / "checkpoints")
    )
    assert first == second
    for parallel in ("ddp", "fsdp"):
        curve, checks = first[parallel]
        np.testing.assert_allclose(curve, curve_of(alone), rtol=1e-3, atol=1e-5)
        margins = [check["mean"]["margin"] for check in checks]
        np.testing.assert_allclose(margins, [check.mean["margin"] for check in alone.checks], rtol=1e-3, atol=1e-5)
    with Checkpoints(tmp_path / "checkpoints", SOLO) as checkpoints:
        rest = run(
            fresh(),
            make_pairs(37),
            validation=make_pairs(7, seed=1),
            start=checkpoints.latest(),
            reference_file=tmp_path / "checkpoints" / "reference.safetensors",
        )
    np.testing.assert_allclose(curve_of(rest), curve_of(alone)[3 * 2 :], rtol=1e-3, atol=1e-5)
