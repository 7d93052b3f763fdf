"""Would catch: a difference aggregated unlike its protocol, an interval that ignores pairing or pairs, one that covers
too rarely, a test that is not the exact one where an exact one exists, p values not adjusted for their number."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from speechscale.evals.intervals import Clusters, estimate
from speechscale.evals.paired import contributions, holm, paired_difference, sign_flip_test

PAIRS = ["p", "p", "q", "r", "r", "s"]
PHENOMENA = ["x", "x", "x", "y", "y", "y"]
DIFFERENCE = np.array([1.0, 0.0, -1.0, 1.0, 1.0, 0.0])


@pytest.mark.parametrize(("aggregate", "expected"), [("item", 1 / 3), ("pair", 0.125), ("macro", 0.125)])
def test_estimate_by_hand(aggregate: str, expected: float) -> None:
    found = paired_difference(DIFFERENCE, PAIRS, PHENOMENA, aggregate)  # type: ignore[arg-type]
    assert found.estimate == pytest.approx(expected)
    assert (found.n_items, found.n_pairs) == (6, 4)
    assert (found.items_better, found.items_worse, found.pairs_better, found.pairs_worse) == (3, 1, 2, 1)


def test_macro_weighs_phenomena_and_not_pairs() -> None:
    # x: two pairs, mean 1; y: three pairs, mean 0: macro .5, over pairs .4
    values, pairs, kinds = np.array([1.0, 1, 0, 0, 0]), list("abcde"), list("xxyyy")
    assert paired_difference(values, pairs, kinds, "macro").estimate == pytest.approx(0.5)
    assert paired_difference(values, pairs, kinds, "pair").estimate == pytest.approx(0.4)


def test_standard_error_by_hand() -> None:
    found = paired_difference(np.array([1.0, 0, 0, -1, 1, 1]), list("ppqqrr"), [""] * 6, "item")
    assert found.estimate == pytest.approx(1 / 3)
    assert found.se == pytest.approx(math.sqrt(7) / 6)  # errors of the sums 1/3, -5/3, 4/3


def test_pairing_makes_the_interval_narrow() -> None:
    """Two systems that decide alike but for a few items: separate intervals are far wider than the paired one."""
    generator = np.random.default_rng(0)
    a = generator.integers(0, 2, 200).astype(float)
    b = a.copy()
    b[np.flatnonzero(a == 0)[:12]] = 1
    pairs = [str(i) for i in range(200)]
    found = paired_difference(b - a, pairs, pairs, "item")
    assert found.low is not None
    assert found.high is not None
    assert 0.02 < found.low < 0.06 < found.high < 0.10
    assert found.p == pytest.approx(2 * 0.5**12)
    alone = math.sqrt(2 * 0.25 / 200)
    assert found.se is not None
    assert found.se < 0.4 * alone


def test_agreement_of_all_pairs_is_no_certainty() -> None:
    alike = paired_difference(np.zeros(40), [str(i) for i in range(40)], [""] * 40, "item")
    assert (alike.estimate, alike.p) == (0.0, 1.0)
    assert alike.high == pytest.approx(1 - 0.025 ** (1 / 40))  # at most 8.8 % of such pairs can differ
    assert alike.low == -alike.high


def test_no_interval_below_two_pairs() -> None:
    one = paired_difference(np.array([1.0, 1.0]), ["p", "p"], ["x", "x"], "item")
    assert (one.se, one.low, one.high, one.p) == (None, None, None, 1.0)
    lonely = paired_difference(np.array([1.0, 0.0, 1.0]), list("pqr"), list("xxy"), "macro")
    assert lonely.se is None


@pytest.mark.parametrize("aggregate", ["item", "pair", "macro"])
def test_interval_covers_the_true_difference(aggregate: str) -> None:
    """40 pairs of one to three items with a shared luck; the true difference is .12 in every aggregate."""
    generator, inside, draws = np.random.default_rng(5), 0, 300
    sizes = np.tile([1, 2, 3, 2], 10)
    pairs = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    phenomena = ["xy"[int(pair) % 2] for pair in pairs]
    for draw in range(draws):
        luck = np.repeat(generator.uniform(-0.3, 0.3, len(sizes)), sizes)
        values = 1.0 * (generator.random(len(pairs)) < 0.31 + luck) - (generator.random(len(pairs)) < 0.19)
        found = paired_difference(values, pairs, phenomena, aggregate, replicates=400, seed=draw)  # type: ignore[arg-type]
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.12 <= found.high
    assert 0.90 <= inside / draws <= 0.98


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Systems without a difference: p <= .05 in at most about 5 % of the draws, weights unequal."""
    generator = np.random.default_rng(1)
    alarms = 0
    for draw in range(400):
        parts = generator.choice([-1.0, 1.0], 12) * generator.choice([0.0, 1.0, 2.0, 3.0], 12)
        alarms += sign_flip_test(parts, seed=draw)[0] <= 0.05
    assert 4 <= alarms <= 30


def test_exact_where_an_exact_test_exists() -> None:
    assert sign_flip_test(np.array([1.0] * 6 + [-1.0])) == (0.125, "exact McNemar test on pairs")
    assert sign_flip_test(np.zeros(4)) == (1.0, "no discordant pair")
    assert sign_flip_test(np.array([3.0, 1.0, 1.0])) == (0.25, "all sign flips of pairs")
    assert sign_flip_test(np.array([3.0, 1.0, -1.0, 0.0])) == (0.75, "all sign flips of pairs")


def test_random_flips_come_near_the_exact_value_and_repeat() -> None:
    parts = np.array([1.0, 2, 1, 2, 1, 2, 1, -2, 1, 2, -1, 2, 1, -2, 1])
    signs = np.array(list(product((1, -1), repeat=len(parts))))
    exact = float((np.abs(signs @ parts) >= parts.sum()).mean())
    p, how = sign_flip_test(parts, seed=3)
    assert how == "9,999 random sign flips of pairs"
    assert p == pytest.approx(exact, abs=4 * math.sqrt(exact / 9999))
    assert sign_flip_test(parts, seed=3)[0] == p
    assert sign_flip_test(np.tile([1.0, 2.0], 40))[0] == 1e-4  # never zero


def test_contributions_sum_to_the_estimate() -> None:
    # unequal pairs and phenomena: x has pairs p and q, y has r alone
    clusters = Clusters.of(DIFFERENCE.tolist(), ["p", "p", "q", "r", "r", "r"], PHENOMENA)
    for aggregate in ("item", "pair", "macro"):
        assert contributions(clusters, aggregate).sum() == pytest.approx(estimate(clusters, aggregate))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
