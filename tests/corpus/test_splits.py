"""Catches speakers or texts that leak between splits, draws that depend on order, and splits that end up empty."""

from __future__ import annotations

import random
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from speechscale.corpus.imported import Corpus, write_corpus
from speechscale.corpus.splits import By, Groups, canonical_split, draw_splits, text_key
from speechscale.corpus.splitting import split_corpus
from speechscale.errors import DataError
from speechscale.records import Utterance
from speechscale.skips import SkipLog, read_skips

SHARES = (0.8, 0.1, 0.1)


def say(id: object, speaker: str, text: str) -> Utterance:
    return Utterance(id=str(id), text=text, speaker=speaker, split="", audio=f"{id}.wav")


def labels(utterances: list[Utterance], by: By) -> np.ndarray:
    groups = Groups(by)
    for utterance in utterances:
        groups.add(utterance)
    return groups.labels()


def corpus(folder: Path, utterances: list[Utterance]) -> Corpus:
    return write_corpus(folder, utterances, audio_root=folder, info={"source": "test"}, skips=SkipLog())


PAIRS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=60)


@given(PAIRS, st.randoms(use_true_random=False))
def test_groups_are_the_connected_components_in_any_order(pairs: list[tuple[int, int]], rng: random.Random) -> None:
    utterances = [say(i, f"s{a}", f"text {b}") for i, (a, b) in enumerate(pairs)]
    found = labels(utterances, "speaker+text")
    # The plain definition: spread labels along shared speakers and texts until nothing changes.
    plain = list(range(len(pairs)))
    for _ in pairs:
        for i, one in enumerate(pairs):
            for j, other in enumerate(pairs):
                if one[0] == other[0] or one[1] == other[1]:
                    plain[i] = plain[j] = min(plain[i], plain[j])
    assert all((found[i] == found[j]) == (plain[i] == plain[j]) for i in range(len(pairs)) for j in range(i))
    order = list(range(len(pairs)))
    rng.shuffle(order)
    assert (labels([utterances[i] for i in order], "speaker+text") == found[order]).all()


@given(PAIRS, st.sampled_from(["speaker", "text", "speaker+text"]), st.integers(0, 3))
def test_no_speaker_and_no_text_is_divided(pairs: list[tuple[int, int]], by: By, seed: int) -> None:
    utterances = [say(i, f"s{a}", f"Text, {b}!" if i % 2 else f"text {b}") for i, (a, b) in enumerate(pairs)]
    found = labels(utterances, by)
    if len(set(found.tolist())) < 3:
        with pytest.raises(DataError, match=f"cannot split by {by}".replace("+", r"\+")):
            draw_splits(found, SHARES, seed=seed, by=by, tolerance=1.0)
        return
    chosen = draw_splits(found, SHARES, seed=seed, by=by, tolerance=1.0)
    assert set(chosen.tolist()) == {0, 1, 2}
    for part in by.split("+"):
        keys = [u.speaker if part == "speaker" else text_key(u) for u in utterances]
        assert len(set(zip(keys, chosen.tolist(), strict=True))) == len(set(keys))
    back = draw_splits(found[::-1], SHARES, seed=seed, by=by, tolerance=1.0)
    assert (back[::-1] == chosen).all()


def test_shares_are_met_to_within_the_largest_group() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 40, 200)
    found = np.repeat(rng.integers(0, 1 << 62, 200).astype(np.uint64), sizes)
    for seed in range(5):
        counts = np.bincount(draw_splits(found, SHARES, seed=seed, by="speaker"), minlength=3)
        assert np.abs(counts - np.array(SHARES) * sizes.sum()).max() <= sizes.max()
    assert (draw_splits(found, SHARES, seed=0, by="speaker") != draw_splits(found, SHARES, seed=1, by="speaker")).any()
    assert set(draw_splits(found, (0.9, 0.1, 0.0), seed=0, by="speaker").tolist()) == {0, 1}


def test_large_groups_train() -> None:
    """One narrator holds half of the corpus: held-out splits are made of the others."""
    found = np.array([1] * 50 + list(range(2, 52)), np.uint64)
    for seed in range(10):
        chosen = draw_splits(found, SHARES, seed=seed, by="speaker")
        assert chosen[0] == 0
        assert np.bincount(chosen).tolist() == [80, 10, 10]


def test_one_giant_component_is_refused_with_a_way_out() -> None:
    chained = [say(i, f"s{i // 2}", f"t{(i + 1) // 2}") for i in range(90)] + [
        say(f"x{i}", f"x{i}", f"x{i}") for i in range(10)
    ]
    found = labels(chained, "speaker+text")
    message = (
        r"11 group of speakers joined by shared textss? for 3 splits, the largest holds 90\.0% of 100 .*--drop-shared"
    )
    with pytest.raises(DataError, match=message):
        draw_splits(found, SHARES, seed=0, by="speaker+text")
    assert np.bincount(draw_splits(found, SHARES, seed=0, by="speaker+text", tolerance=0.1)).tolist() == [90, 5, 5]
    assert len(draw_splits(labels(chained, "speaker"), SHARES, seed=0, by="speaker")) == 100


def test_untexted_utterances_of_a_file_stay_together_by_text() -> None:
    pieces = [Utterance(id=str(i), text="", speaker="s", split="", audio=f"{i // 3}.wav") for i in range(9)]
    assert len(set(labels(pieces, "text").tolist())) == 3
    with pytest.raises(DataError, match="has no speaker"):
        labels([Utterance(id="a", text="x", speaker="", split="")], "speaker")


def test_split_corpus_writes_another_corpus(tmp_path: Path) -> None:
    utterances = [say(i, f"s{i % 20}", f"text {i}") for i in range(100)]
    utterances += [say(f"shared{i}", f"s{i}", "the north wind and the sun") for i in range(20)]
    source = corpus(tmp_path / "a", utterances)
    by_speaker = split_corpus(source, tmp_path / "b", seed=1)
    assert by_speaker.utterances == {"train": 96, "select": 12, "test": 12}
    assert by_speaker.groups == {"train": 16, "select": 2, "test": 2}
    assert by_speaker.corpus.info["splits"]["by"] == "speaker"
    assert [u.id for u in by_speaker.corpus.utterances()] == [u.id for u in utterances]
    with pytest.raises(DataError, match="1 group of speakers"):
        split_corpus(source, tmp_path / "c", by="speaker+text")
    clean = split_corpus(source, tmp_path / "d", seed=1, drop_shared=True)
    assert clean.utterances == {"train": 80, "select": 10, "test": 12}
    assert {s.id[:6] for s in clean.skips} == {"shared"}
    assert read_skips(tmp_path / "d/skips.jsonl").skips[0].reason.startswith("its text is also in ")
    texts: dict[str, set[str]] = {}
    for utterance in clean.corpus.utterances():
        texts.setdefault(utterance.text, set()).add(utterance.split)
    assert all(len(splits) == 1 for splits in texts.values())
    with pytest.raises(DataError, match="goes with --by speaker"):
        split_corpus(source, tmp_path / "e", by="text", drop_shared=True)
    with pytest.raises(DataError, match="would overwrite"):
        split_corpus(source, tmp_path / "a")


def test_dropping_everything_is_refused(tmp_path: Path) -> None:
    source = corpus(tmp_path / "a", [say(i, f"s{i % 3}", "yes") for i in range(9)])
    with pytest.raises(DataError, match="no utterance is left in train, select"):
        split_corpus(source, tmp_path / "b", drop_shared=True)
    assert not (tmp_path / "b/corpus.json").exists()


def test_names_of_splits() -> None:
    assert [canonical_split(n) for n in ("train-clean-100", "dev_other", "Validation", "test.clean", "pool", "")] == [
        "train", "select", "select", "test", "pool", ""
    ]  # fmt: skip
