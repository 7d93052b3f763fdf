"""Would catch: wrong ties, standard errors that treat the items of a pair as independent, columns named otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from speechscale.corpus.items import ITEM_SETS, items
from speechscale.corpus.stories import split_sentences
from speechscale.corpus.world import WorldConfig, build_world
from speechscale.errors import DataError
from speechscale.evals import choices as module
from speechscale.evals.choices import Choice, read_choices, write_choices
from speechscale.evals.cuts import cut_items
from speechscale.evals.evaluate import join
from speechscale.evals.intervals import Clusters, bootstrap, estimate, share_interval, standard_error
from speechscale.evals.layouts import Candidate, candidates, item_directions, item_utterances
from speechscale.evals.metrics import by_phenomenon, flat_columns, measure, metric_records
from speechscale.evals.protocols import DEFAULT, PROTOCOLS, Layout, Likelihood, get_protocol
from speechscale.evals.score import score_stream
from speechscale.records import Item, UnitTableBuilder
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

PROTOCOL = PROTOCOLS[DEFAULT]


def side(mean: float, tokens: int = 2, **more: float) -> Likelihood:
    """A candidate with this mean log-likelihood per token of the ending."""
    values: dict[str, Any] = {
        "ending_tokens": tokens,
        "whole_tokens": 9,
        "ending_full": mean * tokens,
        "whole_full": -9.0,
        "ending_own": mean * tokens,
        "whole_own": -9.0,
        "end_full": -1.0,
        "end_own": -1.0,
    }
    return Likelihood(**{**values, **more})


def choice(
    pair: str, good: float, bad: float, *, tag: str = "", phenomenon: str = "", tokens: tuple[int, int] = (2, 2)
) -> Choice:
    """A choice with these mean log-likelihoods per token."""
    return Choice(
        id=f"{pair}-{good}-{bad}",
        set="facts",
        direction="st",
        layout=Layout(),
        pair=pair,
        tag=tag,
        phenomenon=phenomenon,
        speaker="anna",
        good=side(good, tokens[0]),
        bad=side(bad, tokens[1]),
    )


def accuracy(scored: list[Choice], aggregate: str = "item") -> tuple[float, float]:
    clusters = Clusters.of(
        [c.correct(PROTOCOL) for c in scored], [c.pair for c in scored], [c.phenomenon for c in scored]
    )
    return estimate(clusters, aggregate), standard_error(clusters, aggregate)  # type: ignore[arg-type]


def test_mean_per_token_decides() -> None:
    # Sums: -6 against -4; means: -2 against -4.
    longer = choice("p", -2.0, -4.0, tokens=(3, 1))
    assert longer.margin(PROTOCOL) == pytest.approx(2.0)
    assert longer.correct(PROTOCOL) == 1.0
    assert longer.correct(get_protocol("speechscale:normalization=sum")) == 0.0


def test_ties_count_half_or_nothing() -> None:
    assert choice("p", -1.0, -1.0).correct(PROTOCOL) == 0.5
    assert choice("p", -1.0, -1.0 - 5e-6).correct(PROTOCOL) == 0.5
    assert choice("p", -1.0, -1.0 - 1e-4).correct(PROTOCOL) == 1.0
    assert choice("p", -1.0, -1.0 + 1e-4).correct(PROTOCOL) == 0.0
    assert choice("p", -1.0, -1.0).correct(get_protocol("speechscale:ties=0")) == 0.0


def test_accuracy_and_clustered_error_by_hand() -> None:
    scored = [
        *(choice("a", -1, -2), choice("a", -1, -3)),  # 1, 1
        *(choice("b", -2, -1), choice("b", -3, -1)),  # 0, 0
        *(choice("c", -1, -2), choice("c", -2, -1)),  # 1, 0
    ]
    mean, se = accuracy(scored)
    assert mean == pytest.approx(0.5)
    assert se == pytest.approx(math.sqrt(3 / 2 * 2) / 6)  # sums of errors per pair: 1, -1, 0


def test_aggregates_of_pairs_of_unequal_size_by_hand() -> None:
    # Pair a has three items in phenomenon x, pair b and c one each in y and x.
    scored = [
        *(choice("a", -1, -2, phenomenon="x") for _ in range(3)),
        choice("b", -2, -1, phenomenon="y"),
        choice("c", -2, -1, phenomenon="x"),
    ]
    assert accuracy(scored, "item")[0] == pytest.approx(3 / 5)
    assert accuracy(scored, "pair")[0] == pytest.approx(1 / 3)
    assert accuracy(scored, "macro")[0] == pytest.approx((1 / 2 + 0) / 2)
    # Errors summed per pair: 3 x .4, -.6, -.6.
    assert accuracy(scored, "item")[1] == pytest.approx(math.sqrt(3 / 2 * (1.44 + 0.36 + 0.36)) / 5)
    assert accuracy(scored, "pair")[1] == pytest.approx(np.std([1, 0, 0], ddof=1) / math.sqrt(3))
    assert math.isnan(accuracy(scored, "macro")[1])  # phenomenon y is one pair


def test_one_pair_has_no_error_and_no_column() -> None:
    metrics = measure([choice("a", -1, -2), choice("a", -1, -3)])
    assert math.isnan(metrics[0].se)
    assert flat_columns(metrics) == {"acc_facts_st": 1.0, "acc_facts_st_n": 2}
    assert (metric_records(metrics)[0]["se"], metric_records(metrics)[0]["low"]) == (None, None)


def test_error_covers_correlated_pairs() -> None:
    # The two items of a pair agree always, so n items carry n / 2 observations; a naive error is 0.71 of the truth.
    rng = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(300):
        wins = rng.random(40) < 0.7
        scored = [choice(str(pair), -1.0 if win else -3.0, -2.0) for pair, win in enumerate(wins) for _ in range(2)]
        mean, se = accuracy(scored)
        means.append(mean)
        errors.append(se)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.12)


@pytest.mark.parametrize(("truth", "aggregate"), [(0.55, "item"), (0.8, "pair"), (0.9, "macro"), (0.995, "item")])
def test_intervals_cover_the_truth(truth: float, aggregate: str) -> None:
    # Would catch an interval of items instead of pairs (covers 83 %), one-sided tails, an empty one at 100 %.
    rng = np.random.default_rng(0)
    covered, trials, pairs = 0, 400, 60
    for trial in range(trials):
        right = np.repeat(rng.random(pairs) < truth, 2).astype(float)
        names = [str(i // 2) for i in range(2 * pairs)]
        clusters = Clusters.of(right.tolist(), names, [str(i // 40) for i in range(2 * pairs)])
        low, high = share_interval(clusters, aggregate, replicates=400, seed=trial)  # type: ignore[arg-type]
        covered += low <= truth <= high
    assert 0.90 <= covered / trials <= 1.0 if truth > 0.99 else 0.91 <= covered / trials <= 0.985


def test_the_interval_at_the_edge_is_exact() -> None:
    clusters = Clusters.of([1.0] * 40, [str(i) for i in range(40)], [""] * 40)
    low, high = share_interval(clusters, "item")
    assert (low, high) == (pytest.approx(0.9119, abs=1e-4), 1.0)  # Clopper-Pearson, 40 of 40
    low, high = share_interval(Clusters.of([0.0] * 40, [str(i) for i in range(40)], [""] * 40), "item")
    assert (low, high) == (0.0, pytest.approx(0.0881, abs=1e-4))


def test_equal_pairs_are_drawn_alike() -> None:
    names, none = [str(i) for i in range(30)], [""] * 30
    a = Clusters.of(np.arange(30.0).tolist(), names, none)
    b = Clusters.of((np.arange(30.0) + 5).tolist(), names, none)
    np.testing.assert_allclose(bootstrap(b, "item", seed=3) - bootstrap(a, "item", seed=3), 5)
    assert not np.array_equal(bootstrap(a, "item", seed=3), bootstrap(a, "item", seed=4))


def test_tags_and_phenomena() -> None:
    scored = [
        choice("a", -1, -2, tag="heard", phenomenon="home"),
        choice("b", -1, -2, tag="heard", phenomenon="home"),
        choice("c", -1, -2, tag="heard", phenomenon="home"),
        choice("d", -2, -1, tag="read", phenomenon="food"),
    ]
    macro = get_protocol("speechscale:aggregate=macro")
    metrics = measure(scored, [PROTOCOL, macro])
    assert [(metric.tag, metric.protocol) for metric in metrics[:3]] == [
        ("", "speechscale"),
        ("", macro.name),
        ("heard", "speechscale"),
    ]
    assert (metrics[0].estimate, metrics[1].estimate, metrics[1].n_phenomena) == (0.75, 0.5, 2)
    columns = flat_columns(metric for metric in metrics if metric.protocol == DEFAULT)
    assert columns["acc_facts_st"] == 0.75
    assert columns["acc_facts_st_heard"] == 1.0
    assert columns["acc_facts_st_read"] == 0.0
    assert columns["acc_facts_st_read_n"] == 1
    assert columns["acc_facts_st_heard_se"] == 0.0
    home, food = by_phenomenon(scored)
    assert (home["phenomenon"], home["estimate"], home["se"], home["n_items"]) == ("home", 1.0, 0.0, 3)
    assert (food["phenomenon"], food["estimate"], food["se"]) == ("food", 0.0, None)
    assert by_phenomenon(scored[:3]) == [], "one phenomenon is the whole set"


def test_a_question_is_right_where_all_its_pairs_are() -> None:
    # Two questions of four endings: one loses to a wrong ending. 5 of 6 pairs, 1 of 2 questions; chance 1 in 4.
    scored = [choice("q1", -1, -2) for _ in range(3)]
    scored += [choice("q2", -1, -2), choice("q2", -1, -2), choice("q2", -2, -1)]
    pairs, questions = measure(scored, [PROTOCOL, get_protocol("speechscale:aggregate=all")])
    assert (pairs.estimate, pairs.chance) == (pytest.approx(5 / 6), 0.5)
    assert (questions.estimate, questions.chance, questions.n_pairs) == (0.5, 0.25, 2)
    assert questions.se == pytest.approx(0.5)


def test_undecided_items_are_counted() -> None:
    same = replace(choice("a", -1, -1), identical=True)
    (metric,) = measure([same, choice("b", -1, -1), choice("c", -1, -2)])
    assert (metric.n_ties, metric.n_identical, metric.estimate) == (2, 1, pytest.approx(2 / 3))


def test_scores_survive_the_disk(tmp_path: Path) -> None:
    scored = [choice("a", -1, -2, tag="read"), replace(choice("b", -2, -1.5), direction="tt", layout=Layout("none"))]
    path = tmp_path / "new" / "scores.parquet"
    write_choices(path, scored, {"model": "abc"})
    back, stamp = read_choices(path)
    assert back == scored
    assert stamp["model"] == "abc"
    assert [p.name for p in path.parent.iterdir()] == ["scores.parquet"]


def test_a_failed_write_leaves_the_old_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.parquet"
    write_choices(path, [choice("a", -1, -2)])

    def full_disk(_table: Any, where: Path, **_more: Any) -> None:
        Path(where).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(module.pq, "write_table", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_choices(path, [choice("b", -1, -2)])
    assert [c.pair for c in read_choices(path)[0]] == ["a"]
    assert [p.name for p in tmp_path.iterdir()] == ["scores.parquet"]


def test_other_files_are_not_scores(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"x\.parquet: not readable"):
        read_choices(path)
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(DataError, match=r"not a table of scored items of this version \(kind None\)"):
        read_choices(path)


class Stub:
    """Same interface as a transformers model, logits from the current token alone."""

    training = False
    device = torch.device("cpu")

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits  # (V, V): row = current token

    def base_model(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.logits[input_ids])

    def get_output_embeddings(self) -> Any:
        return lambda hidden: hidden

    def train(self, mode: bool = True) -> Stub:
        return self


def choices_of(model: Stub, laid_out: Sequence[Candidate], vocabulary: Vocabulary) -> list[Choice]:
    prompts = [candidate.prompt_tokens for candidate in laid_out]
    values = dict(score_stream(model, [c.ids for c in laid_out], prompts, vocabulary=vocabulary))
    return [join(laid_out[i], values[i], laid_out[i + 1], values[i + 1], "") for i in range(0, len(laid_out), 2)]


def symmetric_choices(model: Stub, vocabulary: Vocabulary, direction: str) -> list[Choice]:
    """Pairs 'tom ran' -> tom / ann and 'ann ran' -> ann / tom, spoken with one unit per word."""
    names = ["tom", "ann", "he", "won", "lost", "rome"]
    pairs = []
    for i, (a, b) in enumerate((a, b) for a in names for b in names if a < b):
        for good, bad in ((a, b), (b, a)):
            pairs.append(
                Item(
                    id=f"{i}-{good}",
                    set="story_cloze",
                    prompt=f"ran {good}",
                    good=good,
                    bad=f"{bad} {bad}",
                    pair=str(i),
                )
            )
    units = {name: unit for unit, name in enumerate([*names, "ran"])}
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=10)
    for utterance in item_utterances(pairs, lambda text: [text]):
        words = utterance.text.split()
        starts = 2 * np.arange(len(words))
        builder.add(
            id=utterance.id,
            speaker="",
            split="items",
            text=utterance.text,
            # Unit 8 ends every word, so that equal neighbors stay apart.
            units=np.array([u for word in words for u in (units[word], 8)]),
            durations_frames=np.ones(2 * len(words), int),
            words=words,
            word_frames=np.stack([starts, starts + 2], axis=1),
        )
    cuts = cut_items(pairs, builder.build())
    laid_out = candidates(pairs, cuts, vocabulary, direction)  # type: ignore[arg-type]
    assert len(laid_out) == 2 * len(pairs)
    return choices_of(model, laid_out, vocabulary)


@pytest.mark.parametrize("direction", ["ss", "st", "ts", "tt"])
def test_a_context_free_model_gets_exactly_half(vocabulary: Vocabulary, direction: str) -> None:
    row = torch.randn(vocabulary.size, generator=torch.Generator().manual_seed(1)) * 3
    (metric,) = measure(symmetric_choices(Stub(row.expand(vocabulary.size, -1)), vocabulary, direction))
    assert metric.estimate == 0.5
    assert metric.n_pairs == 15


@pytest.mark.parametrize("name", ITEM_SETS)
def test_a_context_free_model_gets_exactly_half_in_the_storyworld(name: str) -> None:
    # Speech is one unit per letter with a 0 behind, so that dedup joins nothing.
    drawn = items(build_world(WorldConfig(seed=0)), name, 8, seed=1)
    utterances = item_utterances(drawn, split_sentences)
    joint = Vocabulary.joint(build_text_tokenizer([utterance.text for utterance in utterances]), 128)
    builder = UnitTableBuilder(frame_rate_hz=100.0, num_units=128)
    for utterance in utterances:
        words = utterance.text.split()
        ends = np.cumsum([2 * len(word) for word in words])
        units = np.array([unit for word in words for letter in word for unit in (ord(letter), 0)])
        frames = np.stack([np.append(0, ends[:-1]), ends], axis=1)
        builder.add(
            id=utterance.id,
            speaker="",
            split="items",
            text=utterance.text,
            units=units,
            durations_frames=np.ones(len(units), int),
            words=words,
            word_frames=frames,
        )
    table, row = builder.build(), torch.randn(joint.size, generator=torch.Generator().manual_seed(1))
    for direction in item_directions(drawn):
        laid_out = candidates(drawn, cut_items(drawn, table), joint, direction)
        assert len(laid_out) == len(utterances)
        model = Stub(row.expand(joint.size, -1))
        (metric, *_) = measure(choices_of(model, laid_out, joint))
        assert metric.n_pairs == 8
        assert metric.estimate == 0.5, direction


def test_an_oracle_gets_everything(vocabulary: Vocabulary) -> None:
    copying = Stub(10 * torch.eye(vocabulary.size))
    (metric,) = measure(symmetric_choices(copying, vocabulary, "tt"))
    assert (metric.estimate, metric.se) == (1.0, 0.0)
    (reverse,) = measure(symmetric_choices(Stub(-10 * torch.eye(vocabulary.size)), vocabulary, "tt"))
    assert reverse.estimate == 0.0
