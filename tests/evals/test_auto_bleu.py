"""Catches a wrong share of repeats, an empty transcript that spoils a corpus, and rates without honest intervals."""

from __future__ import annotations

import json
import math
import random
import time

import numpy as np
import pytest

from speechscale.corpus.judge import word_error_rate
from speechscale.errors import DataError
from speechscale.evals.generation.auto_bleu import corpus_auto_bleu, sequence_auto_bleu
from speechscale.evals.generation.diversity import compare, diversity, longest_repeat
from speechscale.evals.generation.error_rates import character_errors, error_rate, resynthesis_errors, word_errors
from speechscale.evals.generation.estimates import estimate, mean_of, ratio_of
from speechscale.tokens.repetition import split_words


def gslm(words: list[str], orders: int, mean: str) -> float:
    """GSLM's code the slow way: every n-gram looked for in what is left of it and in what is right of it."""
    shares = []
    for n in range(1, orders + 1):
        places = range(len(words) - n + 1)
        again = [any(words[i : i + n] == words[j : j + n] for j in places if j + n <= i or j >= i + n) for i in places]
        shares.append(sum(again) / len(again))
    return math.prod(shares) ** (1 / orders) if mean == "geometric" else sum(shares) / orders


def slamkit(words: list[str], n: int) -> float:
    """slamkit's code the slow way: every n-gram looked for among all others."""
    grams = [words[i : i + n] for i in range(len(words) - n + 1)]
    return sum(g in grams[:i] + grams[i + 1 :] for i, g in enumerate(grams)) / len(grams)


def test_auto_bleu_of_one_sequence_in_all_means() -> None:
    words = ["a", "b", "a", "b", "c"]
    assert sequence_auto_bleu(words) == 0.5
    assert sequence_auto_bleu(words, 2, "geometric") == pytest.approx(math.sqrt(0.8 * 0.5))
    assert sequence_auto_bleu(words, 2, "arithmetic") == pytest.approx(0.65)
    draw = random.Random(0)
    for _ in range(60):
        words = draw.choices("abcd"[: draw.randint(1, 4)], k=draw.randint(3, 30))
        assert sequence_auto_bleu(words, 3) == pytest.approx(slamkit(words, 3))
        for mean in ("geometric", "arithmetic"):
            assert sequence_auto_bleu(words, 3, mean) == pytest.approx(gslm(words, 3, mean))  # type: ignore[arg-type]


def test_what_only_overlaps_itself_is_a_repeat_to_slamkit_and_none_to_gslm() -> None:
    words = ["no", "no", "no"]
    assert sequence_auto_bleu(words) == 1.0
    assert sequence_auto_bleu(words, 2, "arithmetic") == 0.5
    assert sequence_auto_bleu([*words, "no"], 2, "arithmetic") == pytest.approx((1 + 2 / 3) / 2)


def test_empty_and_short_transcripts_are_counted_and_never_nan() -> None:
    texts = ["the cat the cat", "", "hello", "no one speaks"]
    found = corpus_auto_bleu([split_words(text) for text in texts])
    assert (found.empty, found.short, found.mean.n) == (1, 2, 2)
    assert found.values == (2 / 3, None, None, 0.0)
    assert found.mean.estimate == pytest.approx(1 / 3)
    assert found.with_short_as_zero == pytest.approx(1 / 6)
    nothing = corpus_auto_bleu([[], []])
    assert (nothing.mean.estimate, nothing.mean.low, nothing.with_short_as_zero) == (None, None, 0.0)
    assert "NaN" not in json.dumps(nothing.record())
    with pytest.raises(DataError, match="n = 0"):
        corpus_auto_bleu([["a"]], 0)


def test_auto_bleu_takes_linear_time() -> None:
    """All pairs of 200,000 bigrams would take hours."""
    started = time.process_time()
    sequence_auto_bleu(np.random.default_rng(0).integers(0, 10**6, 200_000).tolist())
    assert time.process_time() - started < 5


def test_intervals_cover_the_true_mean_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        found = mean_of(generator.normal(3, 1, 40).tolist(), replicates=200, seed=trial)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 3 <= found.high
    assert 178 <= covered <= 198  # 95 % of 200 is 190, less a little: percentiles of 40 samples


def test_estimates_of_few_samples_say_so() -> None:
    assert mean_of([0.0, 1.0]).se == pytest.approx(0.5)
    assert (mean_of([]).estimate, mean_of([2.0]).estimate, mean_of([2.0]).se) == (None, 2.0, None)
    assert ratio_of([1, 1], [2, 6]).estimate == 0.25
    assert ratio_of([0.0], [0.0]).estimate is None
    rows = np.arange(20.0)[:, None]
    one, two = (estimate(rows, statistic=lambda r: float(r.mean()), seed=seed) for seed in (1, 1))
    assert one == two


def test_diversity_by_hand() -> None:
    found = diversity([[1, 2, 9, 1, 2], [3], [], [3]])
    assert found.distinct[1].estimate == pytest.approx((3 / 5 + 1 + 1) / 3)
    assert found.distinct[2].n == 1
    assert found.distinct[2].estimate == pytest.approx(3 / 4)
    assert found.pooled_distinct == {1: 4 / 7, 2: 3 / 4, 3: 1.0}
    shares = [2 / 7, 2 / 7, 1 / 7, 2 / 7]
    assert found.entropy_bits == pytest.approx(-sum(p * math.log2(p) for p in shares))
    assert (found.distinct_sequences, found.empty, found.units) == (2 / 3, 1, 7)
    assert (found.longest_repeat_most, found.longest_repeat.n) == (2, 3)
    nothing = diversity([[]])
    assert (nothing.entropy_bits, nothing.distinct_sequences) == (None, None)
    assert "NaN" not in json.dumps(nothing.record())


def test_longest_repeat_is_that_of_a_full_search() -> None:
    draw = random.Random(1)
    for _ in range(60):
        row = draw.choices(range(3), k=draw.randint(0, 25))
        lengths = [n for n in range(len(row)) for i in range(len(row) - n) if row[i : i + n] in
                   [row[j : j + n] for j in range(i + 1, len(row) - n + 1)]]  # fmt: skip
        assert longest_repeat(row) == max(lengths, default=0)


def test_a_comparison_with_reference_speech_by_hand() -> None:
    found = compare([2, 4], [1, 3])
    assert (found.generated.estimate, found.reference.estimate) == (3, 2)
    assert found.generated_sd == pytest.approx(math.sqrt(2))
    assert found.difference.estimate == pytest.approx(1 / math.sqrt(2))
    assert compare([2], [1, 3]).difference.estimate is None
    assert compare([1, 1], [1, 1]).difference.estimate is None
    shifted = compare(np.random.default_rng(0).normal(1, 1, 300), np.random.default_rng(1).normal(0, 1, 300))
    assert shifted.difference.low is not None
    assert shifted.difference.high is not None
    assert shifted.difference.low < 1 < shifted.difference.high


def test_word_errors_agree_with_the_judge_of_corpora() -> None:
    draw = random.Random(2)
    for _ in range(60):
        said, heard = (draw.choices(["tom", "ann", "ran", "won"], k=draw.randint(low, 9)) for low in (1, 0))
        found = word_errors(" ".join(said), " ".join(heard))
        assert found.total / found.reference == pytest.approx(word_error_rate(said, heard))
        assert found.reference == len(said)


def test_spelling_is_no_error_and_counts_are_by_kind() -> None:
    assert word_errors("Dr. Smith paid $5.", "doctor smith paid five dollars").total == 0
    found = word_errors("a b c d", "a x c d e")
    assert (found.substitutions, found.deletions, found.insertions, found.reference) == (1, 0, 1, 4)
    assert character_errors("ab c", "ab").total == 2
    assert error_rate([found, word_errors("one two", "")]).estimate == pytest.approx(4 / 6)
    with pytest.raises(DataError, match="no words"):
        word_errors("--", "a")


def test_resynthesis_stands_beside_the_recognizers_own_errors() -> None:
    found = resynthesis_errors(
        ["a", "b", "c"],
        ["tom ran", "Ann won!", "--"],
        ["tom ran", "ann one", "noise"],
        ["x ran", "", "noise"],
    )
    assert (found.wer_original.estimate, found.wer.estimate, found.wer_ratio.estimate) == (0.25, 0.75, 3.0)
    assert (found.without_reference, found.empty_original, found.empty) == (("c",), 0, 1)
    perfect = resynthesis_errors(["a", "b"], ["tom", "ann"], ["tom", "ann"], ["tom", "x"])
    assert (perfect.wer_ratio.estimate, perfect.wer.estimate) == (None, 0.5)
    with pytest.raises(DataError, match="none of 1 texts has words"):
        resynthesis_errors(["a"], ["..."], ["x"], ["x"])
    with pytest.raises(DataError, match="1 ids, 2 texts"):
        resynthesis_errors(["a"], ["x", "y"], ["x"], ["x"])
