"""Would catch a multiplier that is upside down, an interval that is too sure, an extrapolation sold as measured."""

from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.scaling.comparing import by_loss
from speechscale.scaling.comparing.compare_runs import compare_runs
from speechscale.scaling.comparing.comparison import Comparison
from speechscale.scaling.comparing.reach import kappa, log_compute, log_params, log_prefactor, text_lm_flops
from speechscale.scaling.comparing.sentences import comparison_text
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.tables.run_table import RunTable, run_table

SPEECH = LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24)


def cheaper(law: LossLaw, factor: float) -> LossLaw:
    """The law that needs `factor` times the compute for every loss: K becomes K factor^kappa."""
    scale = factor ** kappa(law)
    return LossLaw(E=law.E, A=law.A * scale, B=law.B * scale, alpha=law.alpha, beta=law.beta)


def grid(
    law: LossLaw,
    *,
    name: str = "runs",
    seed: int = 0,
    noise: float = 0.005,
    budgets: int = 5,
    sizes: int = 8,
    span: tuple[float, float] = (1e18, 1e20),
    gamma: float | None = None,
    metric_factor: float = 1.0,
    **extras,
) -> RunTable:
    C = np.repeat(np.geomspace(*span, budgets), sizes)
    N = law.optimum(C).params_opt * np.tile(np.geomspace(1 / 8, 8, sizes), budgets)
    rng = np.random.default_rng(seed)
    loss = law.predict(N, C / 6 / N) * np.exp(noise * rng.standard_normal(len(C)))
    metrics = {}
    if gamma is not None:
        off = 1 - 0.01 * np.tile(np.log(np.geomspace(1 / 8, 8, sizes)) ** 2, budgets)
        metrics["acc"] = 0.3 * (C / metric_factor / 1e18) ** gamma * off * np.exp(0.003 * rng.standard_normal(len(C)))
    return run_table(N, C / 6 / N, loss, name=name, metrics=metrics, extras=extras)


@pytest.fixture(scope="module")
def planted() -> Comparison:
    return compare_runs(
        grid(SPEECH, name="textless", seed=1, gamma=0.03),
        grid(cheaper(SPEECH, 0.3), name="interleaved", seed=2, gamma=0.03, metric_factor=0.3),
        replicates=400,
        test_replicates=99,
    )


@settings(max_examples=60, deadline=None)
@given(
    E=st.floats(0.1, 4),
    A=st.floats(1, 1e4),
    B=st.floats(1, 1e4),
    alpha=st.floats(0.05, 0.8),
    beta=st.floats(0.05, 0.8),
    C=st.floats(1e16, 1e25),
)
def test_the_closed_form_is_the_optimum(E, A, B, alpha, beta, C) -> None:
    law = LossLaw(E=E, A=A, B=B, alpha=alpha, beta=beta)
    best = law.optimum(C)
    assert np.exp(log_prefactor(law)) * C ** -kappa(law) == pytest.approx(best.loss - E, rel=1e-9)
    if best.loss - E > 1e-6 * E:
        assert log_compute(law, best.loss) == pytest.approx(np.log(C), abs=1e-6)
        assert np.exp(log_params(law, np.log(C))) == pytest.approx(best.params_opt, rel=1e-9)


def test_a_loss_at_or_below_the_floor_costs_infinite_compute() -> None:
    assert list(log_compute(SPEECH, np.array([1.73, 1.0]))) == [np.inf, np.inf]


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_exact_tables_return_the_planted_multiplier(factor) -> None:
    found = compare_runs(
        grid(SPEECH, noise=1e-6, seed=1),
        grid(cheaper(SPEECH, factor), noise=1e-6, seed=2),
        replicates=100,
        test_replicates=0,
    )
    assert found.multiplier.value.value == pytest.approx(factor, rel=1e-3)
    assert all(level.ratio.value == pytest.approx(factor, rel=5e-3) for level in found.multiplier.curve)


@pytest.mark.parametrize("factor", [0.3, 1.0])
def test_the_interval_holds_the_planted_multiplier(factor) -> None:
    """40 studies of 40 runs per arm, noise 0.5 %. By run alone, the bolder choice; all of them held when written."""
    held, called = 0, 0
    for seed in range(40):
        found = compare_runs(
            grid(SPEECH, seed=2 * seed),
            grid(cheaper(SPEECH, factor), seed=2 * seed + 1),
            replicates=100,
            seed=seed,
            by="run",
            test_replicates=0,
        )
        value = found.multiplier.value
        held += value.low <= factor <= value.high
        called += value.excludes(1.0)
    assert held >= 0.85 * 40
    assert called <= 4 if factor == 1 else called >= 36


def test_both_resamplings_are_reported_and_the_wider_one_is_quoted(planted) -> None:
    m = planted.multiplier
    assert set(m.by) == {"run", "budget"}
    widths = {way: np.log(x.high / x.low) for way, x in m.by.items()}
    assert m.quoted == max(widths, key=widths.get)
    assert m.value == m.by[m.quoted]
    for row in planted.exponents:
        spans = [x.high - x.low for x in row.by.values()]
        assert row.difference.high - row.difference.low == max(spans)


def test_exponents_are_compared_arm_by_arm(planted) -> None:
    rows = {row.name: row for row in planted.exponents}
    assert set(rows) == {"exp_params", "exp_tokens", "alpha", "beta", "kappa"}
    for row in rows.values():
        assert row.difference.value == pytest.approx(row.b.value - row.a.value)
        assert row.difference.low < 0 < row.difference.high
    assert rows["exp_tokens"].difference.value == pytest.approx(-rows["exp_params"].difference.value)


def test_the_curve_marks_what_was_not_measured(planted) -> None:
    m = planted.multiplier
    inside = [level for level in m.curve if level.extrapolation == 1]
    outside = [level for level in m.curve if level.extrapolation > 1]
    assert (len(inside), len(outside)) == (9, 4)
    assert all(m.loss_range[1] - 1e-9 <= level.loss <= m.loss_range[0] + 1e-9 for level in inside)
    assert max(level.extrapolation for level in outside) == pytest.approx(100, rel=0.3)
    furthest = min(m.curve, key=lambda level: level.loss)
    assert furthest.ratio.high / furthest.ratio.low > m.value.high / m.value.low


def test_the_envelopes_agree_and_the_sentence_has_the_numbers(planted) -> None:
    assert planted.envelope.value.value == pytest.approx(planted.multiplier.value.value, rel=0.3)
    assert not any("neither interval" in note for note in planted.notes)
    m = planted.multiplier.value
    assert f"interleaved needs {m.value:.3g} [{m.low:.3g}, {m.high:.3g}] times the compute of textless" in (
        planted.sentence
    )
    assert "(measured)" in planted.sentence
    assert m.high < 1


def test_a_metric_gives_its_own_multiplier_and_differences(planted) -> None:
    row = planted.metrics[0]
    assert row.metric == "acc"
    assert row.multiplier.low <= 0.3 <= row.multiplier.high
    assert row.multiplier.high / row.multiplier.low < 4
    for at in row.at_compute:
        assert at.difference.value == pytest.approx(at.b - at.a)
        assert at.difference.low > 0


def test_equal_arms_get_cautious_words() -> None:
    found = compare_runs(
        grid(SPEECH, name="A", seed=3), grid(SPEECH, name="B", seed=4), replicates=200, test_replicates=0
    )
    assert "A are not told apart" in found.sentence
    assert "holds 1" in found.sentence
    assert "turns around" not in found.sentence


def test_arms_that_share_no_loss_are_extrapolated_and_it_is_said() -> None:
    far = grid(SPEECH, name="late", seed=5, span=(1e21, 1e23))
    found = compare_runs(grid(SPEECH, name="early", seed=6, noise=0.001), far, replicates=200, test_replicates=0)
    assert found.multiplier.status == "extrapolated"
    assert found.multiplier.extrapolation > 2
    assert found.multiplier.supported == ()
    assert "no loss was reached by both" in found.sentence
    assert "by extrapolation" in found.sentence


def test_a_law_that_stops_above_the_losses_opens_the_interval() -> None:
    high_floor = LossLaw(E=1.9, A=60.0, B=200.0, alpha=0.35, beta=0.35)
    found = compare_runs(
        grid(SPEECH, name="A", seed=7, span=(1e18, 1e21)),
        grid(high_floor, name="B", seed=8, span=(1e18, 1e20), noise=0.001),
        replicates=200,
        test_replicates=0,
    )
    beyond = min(found.multiplier.curve, key=lambda level: level.loss)
    assert beyond.ratio.high == np.inf
    assert not np.isfinite(beyond.extrapolation)
    assert "never" in comparison_text(found)
    assert json.loads(json.dumps(found.record()))["multiplier"]["curve"][-1]["ratio"]["high"] == "inf"


def test_crossing_laws_turn_around_inside_the_range() -> None:
    """B falls more steeply: dearer at first, cheaper later; the laws cross at 1e19 FLOPs."""
    steep = LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.35, beta=0.34)
    scale = (SPEECH.loss_at(1e19) - 1.73) / (steep.loss_at(1e19) - 1.73)
    steep = LossLaw(E=1.73, A=13.9 * scale, B=39.8 * scale, alpha=0.35, beta=0.34)
    found = compare_runs(
        grid(SPEECH, name="A", seed=9, noise=1e-4),
        grid(steep, name="B", seed=10, noise=1e-4),
        replicates=200,
        test_replicates=0,
    )
    m = found.multiplier
    assert m.turn_measured
    assert m.turns_at == pytest.approx(1e19, rel=0.1)
    assert m.turns_share == 1
    assert m.curve[1].ratio.value > 1 > m.curve[9].ratio.value
    assert "turns around near" in found.sentence
    assert [part.cheaper for part in m.supported] == [False, True]
    assert m.supported[0].flops_high < m.turns_at < m.supported[1].flops_low
    assert "depends on the loss" in found.sentence
    assert "dearer from 1e18" in found.sentence


def test_a_supported_range_is_named(planted) -> None:
    (part,) = planted.multiplier.supported
    assert part.cheaper
    assert (part.flops_low, part.flops_high) == planted.multiplier.flops_a


def test_a_warm_start_is_counted_both_ways() -> None:
    cold = grid(SPEECH, name="cold", seed=11)
    warm = grid(cheaper(SPEECH, 0.3), name="warm", seed=12)
    tokens = np.full(len(warm), 2e10)
    warm = run_table(
        warm.params,
        warm.tokens,
        warm.loss,
        name="warm",
        extras={"text_lm_tokens": tokens, "warm": np.ones(len(warm))},
    )
    assert text_lm_flops(warm) == pytest.approx(6 * warm.params * 2e10)
    found = compare_runs(cold, warm, replicates=200, test_replicates=0)
    plain, full = found.multiplier.curve[1], found.charged.curve[1]
    N = np.exp(log_params(found.fits[1].law, np.log(plain.flops_b)))
    assert full.flops_b == pytest.approx(plain.flops_b + 6 * N * 2e10)
    assert full.flops_a == plain.flops_a
    assert found.envelope_charged.value is None or found.envelope_charged.value.value > found.envelope.value.value
    assert "TextLM's training charged" in found.sentence
    assert compare_runs(cold, warm, replicates=100, test_replicates=0, charge_text_lm=False).charged is None


def test_a_warm_run_without_its_text_lm_is_named() -> None:
    table = grid(SPEECH, seed=13)
    tokens = np.full(len(table), 2e10)
    tokens[3] = np.nan
    warm = run_table(
        table.params, table.tokens, table.loss, name="w", extras={"text_lm_tokens": tokens, "warm": np.ones(len(table))}
    )
    with pytest.raises(DataError, match="run 3 is warm"):
        compare_runs(table, warm, replicates=100, test_replicates=0)
    with pytest.raises(DataError, match="no TextLM can be charged"):
        compare_runs(table, table, replicates=100, test_replicates=0, charge_text_lm=True)


def test_losses_of_different_units_are_not_multiplied_but_exponents_are_compared() -> None:
    words = {"tokenizer": np.array(["hubert 25 Hz"] * 40)}, {"tokenizer": np.array(["mimi 12.5 Hz"] * 40)}
    pair = [grid(SPEECH, name=n, seed=s, gamma=0.03, **w) for n, s, w in zip("AB", (14, 15), words, strict=True)]
    found = compare_runs(*pair, replicates=200, test_replicates=99)
    assert (found.multiplier, found.envelope) == (None, None)
    assert "A counts hubert 25 Hz, B mimi 12.5 Hz" in found.refused[0]
    assert len(found.exponents) == 5
    assert found.metrics[0].multiplier is not None
    alike = compare_runs(*pair, replicates=100, test_replicates=0, unlike_units=False)
    assert alike.multiplier is not None
    declared = compare_runs(grid(SPEECH), grid(SPEECH), replicates=100, test_replicates=0, unlike_units=True)
    assert "declared unlike" in declared.refused[0]


def test_tables_with_metrics_only_are_compared_by_metrics() -> None:
    tables = [grid(SPEECH, name=n, seed=s, gamma=0.03) for n, s in (("A", 16), ("B", 17))]
    bare = [run_table(t.params, t.tokens, name=t.name, metrics=t.metrics) for t in tables]
    found = compare_runs(*bare, replicates=200)
    assert found.multiplier is None
    assert found.metrics[0].multiplier.low < 1 < found.metrics[0].multiplier.high
    assert "A has no losses" in found.refused[0]
    assert "for the same acc" in found.sentence
    with pytest.raises(DataError, match="cannot be compared"):
        compare_runs(*(run_table(t.params, t.tokens) for t in tables), replicates=200)


def test_tables_too_small_for_a_law_keep_their_envelopes() -> None:
    """One size per budget, tokens a fixed multiple of parameters: no law, but measured losses at measured compute."""
    C = np.geomspace(1e18, 1e20, 6)
    extras = {"budget_flops": C, "loss_se": np.full(6, 0.001)}
    one, two = (
        run_table(law.optimum(C).params_opt, law.optimum(C).tokens_opt, law.loss_at(C), name=name, extras=extras)
        for name, law in (("A", LossLaw(E=1.7, A=14, B=40, alpha=0.25, beta=0.25)), ("B", SPEECH))
    )
    found = compare_runs(one, two, replicates=200)
    assert found.fits is None
    assert found.envelope.value.value > 1
    assert f"by the measured envelopes B needs {found.envelope.value.value:.3g} [" in found.sentence
    assert "B is dearer" in found.sentence
    assert "nats per unit" in found.sentence
    assert found.no_law.startswith("A: every run has the same 66.6 tokens per parameter")
    text = comparison_text(found)
    assert text.count("tokens per parameter") == 1, "not again among what is not compared"
    assert text.count("by the measured envelopes") == text.count("measured envelopes") == 1


def test_a_law_that_a_fit_would_not_quote_is_not_quoted_and_the_text_lm_is_still_charged() -> None:
    """Two sizes: sizes and tokens vary, but the exponents run into the border of the search."""
    C = np.repeat(np.geomspace(1e18, 1e20, 5), 2)
    N = SPEECH.optimum(C).params_opt * np.tile([0.7, 1.4], 5)
    rough = 1 + 0.03 * np.random.default_rng(3).standard_normal(10)
    extras = {"budget_flops": C, "loss_se": np.full(10, 0.003)}
    one, two = (
        run_table(N, C / 6 / N, SPEECH.predict(N, C / 6 / N / k) * rough, name=name, extras=extras | more)
        for name, k, more in (("A", 1.0, {}), ("B", 2.0, {"text_lm_flops": 2 * C}))
    )
    found = compare_runs(one, two, replicates=200)
    assert found.no_law
    assert (found.fits, found.multiplier, found.exponents) == (None, None, ())
    plain, full = found.envelope, found.envelope_charged
    assert full.value.value == pytest.approx(3 * plain.value.value, rel=0.05)
    assert f"the TextLM's training charged {full.value.value:.3g} [" in found.sentence
    assert found.record()["no_law"] == found.no_law


def test_replicates_that_stop_short_and_losses_that_are_none_give_no_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a law quoted by `compare` that `fit` calls not identified, and a factor of 1e300 between columns
    that hold no losses."""
    one, two = grid(SPEECH, name="A", seed=1), grid(SPEECH, name="B", seed=2)
    real = by_loss.bootstrap_law

    def short(fit, **options):
        return dataclasses.replace(real(fit, **options), converged=0.5)

    monkeypatch.setattr(by_loss, "bootstrap_law", short)
    found = compare_runs(one, two, replicates=100, test_replicates=0)
    assert "A: only 50% of the replicates converged" in found.no_law
    assert (found.fits, found.multiplier) == (None, None)
    assert found.envelope is not None
    wild = run_table(two.params, two.tokens, two.loss * 1e300, name="B")
    with pytest.raises(DataError, match="no loss in nats per token"):
        compare_runs(one, wild, replicates=100)


@pytest.mark.parametrize("crossed", [False, True], ids=["sizes of each budget", "sizes crossed with budgets"])
def test_a_text_lm_that_does_not_follow_size_is_charged_by_the_envelopes_only(crossed: bool) -> None:
    """TextLMs trained with a share of each budget: read off by size their cost would zigzag through the optima."""
    C = np.repeat(np.geomspace(1e18, 1e20, 5), 8)
    middle = np.full(40, 1e19) if crossed else C
    N = SPEECH.optimum(middle).params_opt * np.tile(np.geomspace(1 / 8, 8, 8), 5)

    def arm(name: str, seed: int, law: LossLaw, **extras: np.ndarray) -> RunTable:
        noise = np.exp(0.005 * np.random.default_rng(seed).standard_normal(40))
        return run_table(N, C / 6 / N, law.predict(N, C / 6 / N) * noise, name=name, extras=extras)

    one, two = arm("A", 1, SPEECH), arm("B", 2, cheaper(SPEECH, 0.3), text_lm_flops=C)
    found = compare_runs(one, two, replicates=200, test_replicates=0)
    assert found.multiplier is not None
    assert found.charged is None
    assert any("B: the tokens of its TextLMs do not follow size" in reason for reason in found.refused)
    assert found.envelope_charged.value.value == pytest.approx(2 * found.envelope.value.value, rel=0.1)
    assert "times: B is cheaper (measured envelopes)" in found.sentence
    fixed = arm("B", 2, cheaper(SPEECH, 0.3), text_lm_tokens=np.full(40, 1e9))
    assert compare_runs(one, fixed, replicates=200, test_replicates=0).charged is not None


def test_metrics_that_nobody_scored_take_one_line() -> None:
    one, two = (grid(SPEECH, name=n, seed=s, gamma=0.03) for n, s in (("A", 16), ("B", 17)))
    nothing = {f"acc_{i}": np.full(len(one), np.nan) for i in range(9)}
    one, two = (dataclasses.replace(t, metrics={**t.metrics, **nothing}) for t in (one, two))
    found = compare_runs(one, two, replicates=100, test_replicates=0)
    assert len(found.metrics) == 1
    assert found.refused == (f"no scores in both arms: {', '.join(nothing)}",)


def test_runs_without_budgets_are_resampled_by_run_and_size() -> None:
    tables = []
    for name, seed in (("A", 18), ("B", 19)):
        rng = np.random.default_rng(seed)
        N = np.repeat(np.geomspace(1e7, 1e9, 6), 7)
        D = np.exp(rng.uniform(np.log(1e9), np.log(1e11), len(N)))
        tables.append(run_table(N, D, SPEECH.predict(N, D) * np.exp(0.005 * rng.standard_normal(len(N))), name=name))
    found = compare_runs(*tables, replicates=200, test_replicates=0)
    assert set(found.multiplier.by) == {"run", "size"}
    assert found.envelope is None
    with pytest.raises(DataError, match="at least 4 budgets"):
        compare_runs(*tables, replicates=200, by="budget")
    assert set(compare_runs(*tables, replicates=100, by="run", test_replicates=0).multiplier.by) == {"run"}


def test_checkpoints_of_one_run_are_drawn_together() -> None:
    """Every run twice: as independent rows the interval shrinks, as checkpoints it does not."""

    def twice(table: RunTable, named: bool) -> RunTable:
        names = np.tile([f"run {i}" for i in range(len(table))], 2)
        return run_table(
            np.tile(table.params, 2),
            np.tile(table.tokens, 2),
            np.tile(table.loss, 2),
            name=table.name,
            extras={"run": names} if named else {},
        )

    pair = grid(SPEECH, name="A", seed=28, noise=0.003), grid(SPEECH, name="B", seed=29, noise=0.003)
    width = {}
    for label, tables in (
        ("once", pair),
        ("checkpoints", [twice(t, True) for t in pair]),
        ("rows", [twice(t, False) for t in pair]),
    ):
        value = compare_runs(*tables, replicates=400, by="run", test_replicates=0).multiplier.value
        width[label] = np.log(value.high / value.low)
    assert width["checkpoints"] == pytest.approx(width["once"], rel=0.2)
    assert width["rows"] < 0.85 * width["once"]


def test_arms_of_one_table_are_named_by_their_group() -> None:
    one, two = grid(SPEECH, seed=20), grid(cheaper(SPEECH, 3), seed=21)
    both = run_table(
        np.concatenate([one.params, two.params]),
        np.concatenate([one.tokens, two.tokens]),
        np.concatenate([one.loss, two.loss]),
        name="study",
        groups=["cold"] * 40 + ["warm"] * 40,
    )
    found = compare_runs(both.arm("cold"), both.arm("warm"), replicates=100, test_replicates=0)
    assert (found.a, found.b) == ("cold", "warm")


def test_swapping_the_arms_turns_the_ratio_over() -> None:
    one, two = grid(SPEECH, name="A", seed=22), grid(cheaper(SPEECH, 3), name="B", seed=23)
    there, back = (compare_runs(*pair, replicates=200, test_replicates=0) for pair in ((one, two), (two, one)))
    assert there.multiplier.value.value == pytest.approx(1 / back.multiplier.value.value, rel=0.02)


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not() -> None:
    pair = grid(SPEECH, name="A", seed=24), grid(SPEECH, name="B", seed=25, gamma=0.03)
    records = [json.dumps(compare_runs(*pair, replicates=100, seed=s, test_replicates=99).record()) for s in (0, 0, 1)]
    assert records[0] == records[1] != records[2]
    assert "NaN" not in records[0]


def test_bad_options_are_refused() -> None:
    table = grid(SPEECH, gamma=0.03)
    with pytest.raises(DataError, match="use auto, run, budget, size"):
        compare_runs(table, table, by="seed")
    with pytest.raises(DataError, match="at least 100"):
        compare_runs(table, table, replicates=10)
    with pytest.raises(DataError, match="no metric 'wer'"):
        compare_runs(table, table, replicates=100, test_replicates=0, metrics=("wer",))


def test_two_hundred_runs_take_seconds() -> None:
    """Measured: 1.1 s with 2,000 replicates by run and by budget and the test, on a shared core; 5 s are allowed."""
    pair = [grid(SPEECH, name=n, seed=s, budgets=10, sizes=10) for n, s in (("A", 26), ("B", 27))]
    start = time.process_time()
    compare_runs(*pair)
    assert time.process_time() - start < 5
