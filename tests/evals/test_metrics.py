"""Would catch: wrong ties, standard errors that treat the items of a pair as independent, columns named otherwise."""

from __future__ import annotations

import math
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
from speechscale.evals import metrics as module
from speechscale.evals.metrics import (
    Choice,
    accuracy,
    by_phenomenon,
    choices,
    flat_columns,
    measure,
    metric_records,
    protocol,
    read_choices,
    write_choices,
)
from speechscale.evals.score import score_candidates
from speechscale.evals.layouts import candidates, item_directions, item_utterances
from speechscale.records import Item, UnitTableBuilder
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer


def choice(
    pair: str, good: float, bad: float, *, tag: str = "", phenomenon: str = "", tokens: tuple[int, int] = (2, 2)
) -> Choice:
    """A choice with these mean log-likelihoods per token."""
    return Choice(
        id=f"{pair}-{good}-{bad}",
        set="facts",
        direction="st",
        pair=pair,
        tag=tag,
        phenomenon=phenomenon,
        speaker="anna",
        good_sum=good * tokens[0],
        good_tokens=tokens[0],
        bad_sum=bad * tokens[1],
        bad_tokens=tokens[1],
        good_whole_sum=-9.0,
        good_whole_tokens=9,
        bad_whole_sum=-9.0,
        bad_whole_tokens=9,
    )


def test_mean_per_token_decides() -> None:
    # Sums: -6 against -4; means: -2 against -4.
    longer = choice("p", -2.0, -4.0, tokens=(3, 1))
    assert longer.margin == pytest.approx(2.0)
    assert longer.correct == 1.0


def test_ties_count_half() -> None:
    assert choice("p", -1.0, -1.0).correct == 0.5
    assert choice("p", -1.0, -1.0 - 5e-6).correct == 0.5
    assert choice("p", -1.0, -1.0 - 1e-4).correct == 1.0
    assert choice("p", -1.0, -1.0 + 1e-4).correct == 0.0


def test_accuracy_and_clustered_error_by_hand() -> None:
    scored = [
        *(choice("a", -1, -2), choice("a", -1, -3)),  # 1, 1
        *(choice("b", -2, -1), choice("b", -3, -1)),  # 0, 0
        *(choice("c", -1, -2), choice("c", -5, -1)),  # 1, 0, margins +1 and -4
    ]
    (metric,) = measure(scored)
    assert (metric.accuracy, metric.n_items, metric.n_pairs) == (0.5, 6, 3)
    # Pair means 1, 0, 0.5: standard deviation 0.5, over the root of 3 pairs.
    assert metric.se == pytest.approx(0.5 / math.sqrt(3))
    assert metric.pair_accuracy == pytest.approx(1 / 3)
    assert metric.pair_se == pytest.approx(math.sqrt(1 / 3) / math.sqrt(3))


def test_pairs_of_unequal_size_by_hand() -> None:
    mean, se = accuracy([choice("a", -1, -2), choice("a", -1, -2), choice("b", -2, -1)])
    # Errors: +1/3 +1/3 | -2/3: sums 2/3 and -2/3, variance 2 / 1 * (8 / 9) / 9.
    assert mean == pytest.approx(2 / 3)
    assert se == pytest.approx(math.sqrt(2 * (8 / 9)) / 3)


def test_one_pair_has_no_error_and_no_column() -> None:
    metrics = measure([choice("a", -1, -2), choice("a", -1, -2)])
    assert math.isnan(metrics[0].se)
    assert flat_columns(metrics) == {"acc_facts_st": 1.0, "acc_facts_st_n": 2}
    assert metric_records(metrics)[0]["se"] is None


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


def test_tags_and_phenomena() -> None:
    scored = [
        choice("a", -1, -2, tag="heard", phenomenon="home"),
        choice("b", -1, -2, tag="heard", phenomenon="home"),
        choice("c", -1, -2, tag="heard", phenomenon="home"),
        choice("d", -2, -1, tag="read", phenomenon="food"),
    ]
    metrics = measure(scored)
    assert [metric.tag for metric in metrics] == ["", "heard", "read"]
    assert metrics[0].accuracy == 0.75
    assert (metrics[0].macro_accuracy, metrics[0].n_phenomena) == (0.5, 2)
    columns = flat_columns(metrics)
    assert columns["acc_facts_st"] == 0.75
    assert columns["acc_facts_st_heard"] == 1.0
    assert columns["acc_facts_st_read"] == 0.0
    assert columns["acc_facts_st_read_n"] == 1
    assert columns["acc_facts_st_heard_se"] == 0.0
    parts = by_phenomenon(scored)
    assert parts["facts", "st", "home"] == (1.0, 0.0, 3)
    assert parts["facts", "st", "food"][0] == 0.0


def test_protocols_differ_by_direction() -> None:
    assert protocol("ss") != protocol("st")
    assert protocol("ss")["normalization"] == "mean over tokens"
    assert protocol("ts")["markers"] != protocol("tt")["markers"]
    assert metric_records(measure([choice("a", -1, -2)]))[0]["protocol"] == protocol("st")


def test_scores_survive_the_disk(tmp_path: Path) -> None:
    scored = [choice("a", -1, -2, tag="read"), replace(choice("b", -2, -1.5), direction="tt")]
    path = tmp_path / "new" / "scores.parquet"
    write_choices(path, scored, {"model": "abc"})
    back, stamp = read_choices(path)
    assert back == scored
    assert stamp["model"] == "abc"
    assert stamp["protocols"] == {"st": protocol("st"), "tt": protocol("tt")}
    assert [p.name for p in path.parent.iterdir()] == ["scores.parquet"]


def test_a_failed_write_leaves_the_old_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.parquet"
    write_choices(path, [choice("a", -1, -2)])

    def full_disk(_table: Any, where: Path) -> None:
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
    with pytest.raises(DataError, match=r"not a table of scored items \(columns \['id'\]\)"):
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
    laid_out = candidates(pairs, builder.build(), vocabulary, direction)  # type: ignore[arg-type]
    assert len(laid_out) == 2 * len(pairs)
    return choices(laid_out, score_candidates(model, laid_out))


@pytest.mark.parametrize("direction", ["ss", "st", "ts", "tt"])
def test_a_context_free_model_gets_exactly_half(vocabulary: Vocabulary, direction: str) -> None:
    row = torch.randn(vocabulary.size, generator=torch.Generator().manual_seed(1)) * 3
    (metric,) = measure(symmetric_choices(Stub(row.expand(vocabulary.size, -1)), vocabulary, direction))
    assert metric.accuracy == 0.5
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
        laid_out = candidates(drawn, table, joint, direction)
        assert len(laid_out) == len(utterances)
        model = Stub(row.expand(joint.size, -1))
        (metric, *_) = measure(choices(laid_out, score_candidates(model, laid_out)))
        assert metric.n_pairs == 8
        assert metric.accuracy == 0.5, direction


def test_an_oracle_gets_everything(vocabulary: Vocabulary) -> None:
    copying = Stub(10 * torch.eye(vocabulary.size))
    (metric,) = measure(symmetric_choices(copying, vocabulary, "tt"))
    assert (metric.accuracy, metric.pair_accuracy, metric.se) == (1.0, 1.0, 0.0)
    (reverse,) = measure(symmetric_choices(Stub(-10 * torch.eye(vocabulary.size)), vocabulary, "tt"))
    assert reverse.accuracy == 0.0
