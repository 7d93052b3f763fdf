"""Catches shares off the published ones or off the asked probability, position bias, laws with another mean, drift."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.records import offsets
from speechscale.tokens.interleave import utterance_keys
from speechscale.tokens.laws import (
    ONE,
    SpanLaw,
    blend_laws,
    derive_text_law,
    law_weights,
    parse_law,
    residual_weights,
    span_length_weights,
)
from speechscale.tokens.ragged import draw_bits, extend_bits
from speechscale.tokens.spans import draw_speech, span_rule

Measure = Callable[[np.ndarray], np.ndarray]


def draw(words: int, rows: int, span: str = "poisson(10)", share: float | None = 0.3, **how: str) -> np.ndarray:
    """Speech mask [rows, words] of utterances of equal length."""
    rule = span_rule(span, how.get("text_span", ""), share, how.get("kind", "floor"), how.get("first", "drawn"))
    keys = utterance_keys(str(row) for row in range(rows))
    timed = np.ones(rows * words, bool)
    mask = draw_speech(timed, np.arange(rows + 1) * words, keys, epoch=0, rule=rule, seed=0)
    return mask.reshape(rows, words)


def expected(words: int, rows: int, span: str, share: float | None, **how: str) -> np.ndarray:
    return draw(words, rows, span, share, kind="expectation", **how)


def runs_per_row(mask: np.ndarray) -> np.ndarray:
    return (np.diff(np.pad(mask, ((0, 0), (1, 0))).astype(int), axis=1) == 1).sum(axis=1)


def inner_runs(mask: np.ndarray, modality: bool) -> np.ndarray:
    """Lengths of the runs that touch neither end of their row."""
    padded = np.pad(mask == modality, ((0, 0), (1, 1))).astype(int)
    edges = np.diff(padded, axis=1)
    starts, stops = np.argwhere(edges == 1), np.argwhere(edges == -1)
    inner = (starts[:, 1] > 0) & (stops[:, 1] < mask.shape[1])
    return (stops[:, 1] - starts[:, 1])[inner]


# -- the floor


@pytest.mark.parametrize(
    ("words", "share", "runs"),
    [
        (5, 0.73, None),
        (10, 0.63, None),
        (20, 0.50, 1.3),
        (40, 0.41, 1.9),
        (80, 0.36, 3.1),
        (160, 0.33, 5.4),
        (300, 0.32, None),
    ],
)
def test_published_shares_and_runs(words: int, share: float, runs: float | None) -> None:
    """Realized speech share and speech runs of the SIMS sampler (lambda 10, share .3), measured on the original."""
    mask = draw(words, 1000)
    assert mask.mean() == pytest.approx(share, abs=0.015)
    assert (mask.sum(axis=1) >= math.ceil(0.3 * words)).all()
    if runs is not None:
        assert runs_per_row(mask).mean() == pytest.approx(runs, rel=0.05)


def by_rejection(words: int, length: Callable[[], int], share: float, rng: np.random.Generator) -> np.ndarray:
    """The sampler as its authors loop it: draw a start and a length, throw away what touches an earlier span."""
    mask = np.zeros(words, bool)
    starts = set(range(words))
    while mask.sum() < math.ceil(share * words - 1e-9) and starts:
        start = sorted(starts)[rng.integers(len(starts))]
        stop = min(start + length(), words)
        if mask[start:stop].any() or stop == start:
            continue
        mask[start:stop] = True
        starts -= set(range(start, stop + 1))
    return mask


@pytest.mark.parametrize(
    ("words", "law", "share"),
    [(35, "poisson(10)", 0.3), (12, "poisson(2)", 0.4), (30, "uniform(2,6)", 0.4), (25, "geometric(3)", 0.4)],
)
def test_same_law_as_the_rejection_loop(words: int, law: str, share: float) -> None:
    rng = np.random.default_rng(0)
    rows = 1500
    numbers = parse_law(law, "law").numbers
    lengths: dict[str, Callable[[], int]] = {
        "poisson": lambda: int(rng.poisson(numbers[0])),
        "uniform": lambda: int(rng.integers(numbers[0], numbers[1] + 1)),
        "geometric": lambda: int(rng.geometric(1 / numbers[0])),
    }
    looped = np.stack([by_rejection(words, lengths[law.split("(")[0]], share, rng) for _ in range(rows)])
    direct = draw(words, 10 * rows, law, share)
    measures: tuple[Measure, ...] = (
        lambda m: m.sum(axis=1),
        runs_per_row,
        lambda m: m[:, 0],
        lambda m: m[:, words // 2],
        lambda m: m[:, -1],
    )
    for measure in measures:
        a, b = measure(looped).astype(float), measure(direct).astype(float)
        error = math.hypot(a.std() / math.sqrt(len(a)), b.std() / math.sqrt(len(b)))
        assert abs(a.mean() - b.mean()) < 3.5 * error


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95, 1.0])
@pytest.mark.parametrize(
    "span", ["poisson(0.2)", "poisson(1.5)", "poisson(10)", "poisson(500)", "uniform(3,9)", "fixed(4)", "geometric(3)"]
)
def test_share_is_a_floor_for_any_setting(span: str, share: float) -> None:
    for words in (1, 2, 7, 50):
        for first in ("drawn", "speech"):
            mask = draw(words, 40, span, share, first=first)
            assert (mask.sum(axis=1) >= math.ceil(share * words - 1e-9)).all()


def test_first_modality_of_the_floor() -> None:
    assert draw(30, 200, first="speech")[:, 0].all()
    assert draw(1, 5, first="speech").all()
    opened_by_text = draw(30, 200, first="text")
    assert not opened_by_text[:, 0].any()
    assert (opened_by_text.sum(axis=1) >= 9).all()
    assert not draw(1, 5, first="text").any()
    assert draw(30, 4000, first="even")[:, 0].mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(4000))
    # A fresh span begins at the first word: its length follows the law.
    first_span = np.argmin(draw(60, 4000, "uniform(3,5)", 0.05, first="speech"), axis=1)
    assert np.bincount(first_span, minlength=6)[3:6] / 4000 == pytest.approx([1 / 3] * 3, abs=0.04)
    assert set(first_span.tolist()) == {3, 4, 5}


def test_long_utterances_are_quick() -> None:
    begin = time.process_time()
    assert 0.3 <= draw(10_000, 1).mean() < 0.303
    assert 0.9 <= draw(10_000, 1, "poisson(10)", 0.9).mean() < 0.91
    assert expected(10_000, 1, "geometric(1)", 0.5).mean() == 0.5
    assert expected(10_000, 1, "poisson(10)", 0.3).mean() == pytest.approx(0.3, abs=0.1)
    assert time.process_time() - begin < 5


# -- the expectation

LAWS = ["poisson(10)", "poisson(0.5)", "uniform(5,15)", "uniform(1,3)", "fixed(4)", "geometric(3)", "bernoulli"]


@pytest.mark.parametrize("span", LAWS)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
def test_every_word_is_speech_with_the_asked_probability(span: str, share: float) -> None:
    """No position bias: the first, the last and every word between have the share, within statistical error."""
    rows, words = 20_000, 30
    mask = expected(words, rows, span, share)
    error = math.sqrt(share * (1 - share) / rows)
    assert np.abs(mask.mean(axis=0) - share).max() < 4.2 * error
    # The whole: rows are independent, words of a row are not.
    assert abs(mask.mean() - share) < 4 * mask.mean(axis=1).std() / math.sqrt(rows)


@pytest.mark.parametrize("span", [law for law in LAWS if law != "bernoulli"])
def test_spans_follow_their_laws(span: str) -> None:
    """Runs in the middle of long rows have the lengths of the law, for speech and for derived text."""
    share = 0.4 if span != "poisson(0.5)" else 0.3
    speech = parse_law(span, "span")
    mask = expected(3000, 60, span, share)
    for modality, law in ((True, speech), (False, derive_text_law(speech, share))):
        lengths = inner_runs(mask, modality)
        shares = np.diff(law_weights(law)) / ONE
        found = np.bincount(lengths, minlength=len(shares) + 1)[1:]
        assert len(found) == len(shares)
        # Long runs are cut off by the end of a row a little more often; far below the error here.
        wanted = shares * len(lengths)
        usual = wanted >= 25
        assert (np.abs(found - wanted)[usual] < 4.5 * np.sqrt(wanted[usual])).all()


def test_spirit_lm_spans() -> None:
    """Speech 5-15 and text 10-30 words (Spirit LM): the share follows and is one third everywhere."""
    mask = expected(50, 6000, "uniform(5,15)", None, text_span="uniform(10,30)")
    assert np.abs(mask.mean(axis=0) - 1 / 3).max() < 4.2 * math.sqrt(2 / 9 / 6000)
    assert inner_runs(mask, True).min() == 5
    assert inner_runs(mask, True).max() == 15
    assert inner_runs(mask, False).min() == 10
    assert str(derive_text_law(parse_law("uniform(5,15)", "span"), 1 / 3)) == "uniform(10,30)"


@pytest.mark.parametrize("span", ["poisson(4)", "bernoulli"])
def test_first_modality_in_expectation(span: str) -> None:
    assert expected(20, 300, span, 0.3, first="speech")[:, 0].all()
    assert not expected(20, 300, span, 0.3, first="text")[:, 0].any()
    even = expected(300, 4000, span, 0.3, first="even")
    assert even[:, 0].mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(4000))
    assert even[:, 150:].mean() == pytest.approx(0.3, abs=0.01)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["poisson", "uniform", "fixed", "geometric"]),
    size=st.floats(1, 40),
    width=st.integers(0, 20),
    share=st.floats(0.01, 0.99),
)
def test_derived_text_law_has_the_exact_mean(kind: str, size: float, width: int, share: float) -> None:
    whole = float(int(size))
    numbers = {"uniform": (whole, whole + width), "fixed": (whole,)}.get(kind, (size,))
    speech = SpanLaw(kind, numbers)
    wanted = speech.mean * (1 - share) / share
    if wanted < 1:
        with pytest.raises(DataError, match=r"the shortest is 1; give speech spans a mean of at least"):
            derive_text_law(speech, share)
        return
    text = derive_text_law(speech, share)
    assert text.mean == pytest.approx(wanted, rel=1e-8)
    for law in (speech, text):
        weights = law_weights(law)
        assert (weights[0], weights[-1]) == (0, ONE)
        assert (np.diff(weights) >= 0).all()
        assert (ONE - weights[:-1]).sum() / ONE == pytest.approx(law.mean, rel=1e-5)
        residual = residual_weights(law)
        assert residual[1] / ONE == pytest.approx(1 / law.mean, rel=1e-5)
        assert residual[-1] == ONE


def test_poisson_law() -> None:
    law = span_length_weights(2.0)
    assert law[0] == 0
    assert law[-1] == ONE
    assert law[1] / ONE == pytest.approx(2 * math.exp(-2) / (1 - math.exp(-2)), abs=1e-8)
    assert (np.diff(law) >= 0).all()
    lengths = np.arange(1, len(span_length_weights(300.0)))
    assert (np.diff(span_length_weights(300.0)) / ONE * lengths).sum() == pytest.approx(300, rel=1e-6)


def test_words_without_time_are_never_speech_and_the_others_keep_their_share() -> None:
    rng = np.random.default_rng(3)
    rows, words = 5000, 20
    timed = np.tile(rng.random(words) < 0.7, rows)
    keys = utterance_keys(str(row) for row in range(rows))
    for span in ("poisson(3)", "bernoulli"):
        rule = span_rule(span, "", 0.3, "expectation", "drawn")
        mask = draw_speech(timed, np.arange(rows + 1) * words, keys, epoch=0, rule=rule, seed=0)
        assert not mask[~timed].any()
        shares = mask.reshape(rows, words).mean(axis=0)[timed[:words]]
        assert np.abs(shares - 0.3).max() < 4.2 * math.sqrt(0.21 / rows)
    everything = span_rule("poisson(3)", "", 1.0, "expectation", "drawn")
    assert np.array_equal(
        draw_speech(timed, np.arange(rows + 1) * words, keys, epoch=0, rule=everything, seed=0), timed
    )


# -- both


@settings(max_examples=60, deadline=None)
@given(
    span=st.sampled_from(LAWS),
    kind=st.sampled_from(["floor", "expectation"]),
    first=st.sampled_from(["drawn", "speech", "text", "even"]),
    seed=st.integers(0, 1000),
)
def test_rows_do_not_depend_on_their_company(span: str, kind: str, first: str, seed: int) -> None:
    if span == "bernoulli" and kind == "floor":
        return
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 30, 20)
    keys = utterance_keys(str(row) for row in range(20))
    timed = rng.random(lengths.sum()) < 0.8
    borders = offsets(lengths)
    rule = span_rule(span, "", 0.4, kind, first)  # type: ignore[arg-type]
    whole = draw_speech(timed, borders, keys, epoch=3, rule=rule, seed=seed)
    assert not whole[~timed].any()
    order = rng.permutation(20)
    for chosen in (order[:1], order[1:9], order[9:]):
        cells = np.concatenate([np.arange(borders[row], borders[row + 1]) for row in chosen])
        part = draw_speech(timed[cells], offsets(lengths[chosen]), keys[chosen], epoch=3, rule=rule, seed=seed)
        assert np.array_equal(part, whole[cells])


def test_draws_are_named_as_everywhere() -> None:
    keys = utterance_keys(["a", "b"])
    assert np.array_equal(extend_bits(draw_bits(7, keys, 3), 5), draw_bits(7, keys, 3, 5))


def test_blended_laws() -> None:
    def blend(before: str, behind: str, part: float) -> str:
        return str(blend_laws(parse_law(before, ""), parse_law(behind, ""), part))

    assert blend("poisson(2)", "poisson(10)", 0.25) == "poisson(4)"
    assert blend("uniform(1,3)", "uniform(5,15)", 0.5) == "uniform(3,9)"
    assert blend("fixed(1)", "fixed(4)", 0.4) == "fixed(2)"
    assert blend("fixed(1)", "geometric(4)", 0.9) == "fixed(1)"


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ("normal(3)", r"speech_span 'normal\(3\)': allowed: poisson"),
        ("poisson", "speech_span 'poisson': allowed: poisson"),
        ("uniform(5)", "allowed: poisson"),
        ("fixed(x)", "allowed: poisson"),
        ("bernoulli(3)", "allowed: poisson"),
        ("poisson(0)", "a mean above 0"),
        ("fixed(2.5)", "a whole length from 1"),
        ("uniform(7,3)", "two whole lengths from 1 to 100000, in order"),
        ("geometric(0.5)", "a mean from 1"),
    ],
)
def test_laws_that_do_not_exist(span: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        span_rule(span, "", 0.3, "floor", "drawn")


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        (("bernoulli", "", 0.3, "floor", "drawn"), "'bernoulli': needs share 'expectation'"),
        (("fixed(2)", "fixed(3)", 0.3, "expectation", "drawn"), "both set the share; leave one out"),
        (("fixed(2)", "fixed(3)", None, "floor", "drawn"), "needs share 'expectation' and no bernoulli"),
        (("fixed(2)", "bernoulli", None, "expectation", "drawn"), "needs share 'expectation' and no bernoulli"),
        (("fixed(2)", "", None, "expectation", "drawn"), "speech_share is None: give a share, or a text_span"),
        (("fixed(2)", "", 0.3, "mean", "drawn"), "share 'mean': allowed: 'floor', 'expectation'"),
        (("fixed(2)", "", 0.3, "floor", "audio"), "first 'audio': allowed"),
        (("fixed(2)", "", 1.5, "floor", "drawn"), r"speech_share 1\.5"),
        (("fixed(2)", "", 1.0, "expectation", "text"), "with speech_share 1 nothing is text"),
        (("poisson(10)", "", 0.95, "expectation", "drawn"), r"text spans of 0\.526 .* mean of at least 19, .* 0\.9091"),
    ],
)
def test_settings_that_contradict_each_other(settings_: tuple[str, str, float, str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        span_rule(*settings_)  # type: ignore[arg-type]
