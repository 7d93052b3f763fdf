"""Would catch: distances that are no edit distances, wrong ties, cells averaged by size, speakers mixed up, a token
compared with itself, durations that help, an interval that does not cover, caps that lose tokens silently."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.cli.eval_abx import abx as abx_command
from speechscale.errors import DataError
from speechscale.evals.analysis import abx_distance
from speechscale.evals.analysis.abx import AbxConfig, AbxError, abx
from speechscale.evals.analysis.abx_distance import dtw_matrix, edit_matrix
from speechscale.evals.analysis.abx_tokens import Token, labeled, phone_instances, word_instances
from speechscale.records import NO_TIME, UnitTable, UnitTableBuilder
from speechscale.speech.labeled import Labeled
from speechscale.speech.unit_files import write_units


def token(category: str, units: list[int], speaker: str = "s", context: str = "") -> Token:
    return Token(category=category, context=context, speaker=speaker, frames=np.array(units, np.int16))


def within(tokens: list[Token], **settings: object) -> AbxError:
    (figure,) = abx(tokens, AbxConfig(**settings), conditions=["within"]).figures  # type: ignore[arg-type]
    return figure


def slow_edit(a: list[int], b: list[int]) -> int:
    row = list(range(len(b) + 1))
    for i, unit in enumerate(a, 1):
        new = [i]
        for j, other in enumerate(b, 1):
            new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (unit != other)))
        row = new
    return row[-1]


def slow_dtw(a: list[int], b: list[int]) -> float:
    table = np.full((len(a) + 1, len(b) + 1), np.inf)
    table[0, 0] = 0
    for i, unit in enumerate(a, 1):
        for j, other in enumerate(b, 1):
            table[i, j] = (unit != other) + min(table[i - 1, j], table[i, j - 1], table[i - 1, j - 1])
    return float(table[-1, -1])


SEQUENCES = st.lists(st.lists(st.integers(0, 3), max_size=9), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(a=SEQUENCES, b=SEQUENCES)
def test_distances_equal_the_textbook(a: list[list[int]], b: list[list[int]]) -> None:
    found = edit_matrix([np.array(x, int) for x in a], [np.array(x, int) for x in b])
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            assert found[i, j] == pytest.approx(slow_edit(x, y) / max(len(x), len(y), 1))
    filled = [x for x in a if x], [y for y in b if y]
    if all(filled):
        warped = dtw_matrix([np.array(x) for x in filled[0]], [np.array(y) for y in filled[1]])
        for i, x in enumerate(filled[0]):
            for j, y in enumerate(filled[1]):
                assert warped[i, j] == pytest.approx(slow_dtw(x, y) / max(len(x), len(y)))


def test_distances_of_long_words_and_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """63, 64 and 65 units lie around the border of a machine word."""
    rng = np.random.default_rng(0)
    a = [rng.integers(0, 4, n) for n in (1, 62, 63, 64, 65, 90)]
    b = [rng.integers(0, 4, n) for n in (64, 3, 70, 65, 1)]
    expected = [[slow_edit(x.tolist(), y.tolist()) / max(len(x), len(y)) for y in b] for x in a]
    assert edit_matrix(a, b).tolist() == expected
    monkeypatch.setattr(abx_distance, "BLOCK_PAIRS", 7)
    assert edit_matrix(a, b).tolist() == expected


def test_error_by_hand() -> None:
    # cat: [1 2 3], [1 2 9]; dog: [4 5 6], [1 2 9 9] (collapsed [1 2 9]).
    tokens = [token("cat", [1, 2, 3]), token("cat", [1, 2, 9]), token("dog", [4, 5, 6]), token("dog", [1, 2, 9, 9])]
    # X = cat1: A = cat2 at 1/3; dogs at 1 and 1/3 -> 0, tie .5. X = cat2: A = cat1 at 1/3; dogs at 1, 0 -> 0, 1.
    # (cat, dog) = 1.5 / 4. X = dog1: A = dog2 at 1; cats at 1, 1 -> .5, .5. X = dog2: A at 1; cats at 1/3, 0 -> 1, 1.
    # (dog, cat) = 3 / 4. The pair: 9 / 16.
    figure = within(tokens)
    assert figure.error == pytest.approx(9 / 16)
    assert (figure.pairs, figure.cells, figure.triples, figure.ties) == (1, 2, 8, 3 / 8)
    assert (figure.low, figure.high) == (None, None)


def test_durations_cannot_help_edit_but_frames_can_warp() -> None:
    # "long" and "short" differ by duration alone.
    tokens = [token("long", [1, 2, 2, 2, 2]), token("long", [1, 1, 1, 2, 2, 2])]
    tokens += [token("short", [1, 2]), token("short", [1, 2, 2])]
    assert within(tokens).error == 0.5
    assert within(tokens).ties == 1


def test_cells_count_alike_whatever_their_size() -> None:
    """Speaker s says everything right ten times, t wrong twice: 0.25 of the cells' mean, not the triples' mean."""
    right = [token(c, [u] * 3, "s") for c, u in (("cat", 1), ("dog", 2)) for _ in range(10)]
    # t: both words sound alike in pairs across words: cat 1, cat 2; dog 1, dog 2 -> A never nearer, B nearer in half.
    # X = cat [1]: A at 1; dogs at 0, 1 -> 1, .5. All X alike: 0.75.
    wrong = [token(c, [u], "t") for c in ("cat", "dog") for u in (1, 2)]
    assert within(right + wrong, max_tokens=100).error == pytest.approx((0 + 0.75) / 2)


def test_speakers_by_hand() -> None:
    # s: cat [1], dog [2]; t: cat [1], dog [1]; A and B by one, X by the other.
    tokens = [token("cat", [1], "s"), token("dog", [2], "s"), token("cat", [1], "t"), token("dog", [1], "t")]
    (figure,) = abx(tokens, AbxConfig(), conditions=["across"]).figures
    # A, B of s; X = t's cat [1]: A 0, B 1 -> 0; X = t's dog [1]: A = [2] 1, B = [1] 0 -> 1.
    # A, B of t; X = s's cat: A 0, B 0 -> .5; X = s's dog: A 1, B 1 -> .5.
    # (cat, dog): mean(0, .5) = .25; (dog, cat): mean(1, .5) = .75.
    assert figure.error == pytest.approx(0.5)
    assert (figure.cells, figure.triples) == (4, 4)
    with pytest.raises(DataError, match="4 tokens of 2 categories and 2 speakers give nothing to compare"):
        abx(tokens, conditions=["within"])  # no word twice by one speaker
    # With a third speaker who only says "cat", both cells of (cat, dog) with X by that one are [s: 0], [t: .5].
    (more,) = abx([*tokens, token("cat", [1], "u")], conditions=["across"]).figures
    assert more.error == pytest.approx(0.5)
    assert more.cells == 6


def test_contexts_are_not_mixed() -> None:
    tokens = [token(c, [u, v], context=x) for x, v in (("l", 7), ("r", 8)) for c, u in (("a", 1), ("b", 2))] * 2
    figure = within(tokens)
    assert figure.error == 0
    assert figure.triples == 2 * 2 * 2 * 2  # contexts, categories, X, B


def test_identical_units_of_a_word_give_no_error_and_random_ones_chance() -> None:
    rng = np.random.default_rng(1)
    spelled = {f"w{n}": rng.integers(0, 50, 8).tolist() for n in range(20)}
    same = [token(word, units, speaker) for word, units in spelled.items() for speaker in "st" for _ in range(3)]
    assert [figure.error for figure in abx(same).figures] == [0, 0]
    errors, covered = [], 0
    for _ in range(10):
        noise = [token(t.category, rng.integers(0, 50, 8).tolist(), t.speaker) for t in same]
        for figure in abx(noise, AbxConfig(replicates=200)).figures:
            assert figure.low is not None
            assert figure.high is not None
            errors.append(figure.error)
            covered += figure.low < 0.5 < figure.high
    assert np.mean(errors) == pytest.approx(0.5, abs=0.015)
    assert 15 <= covered < 21


def test_interval_covers_other_words() -> None:
    """Words of a language of 400, of which every study draws 25: the interval should hold the value of all."""
    rng = np.random.default_rng(0)
    language = {}
    for n in range(400):
        base = rng.integers(0, 3, 4)
        noisy = [np.where(rng.random(4) < 0.45, rng.integers(0, 3, 4), base).tolist() for _ in range(3)]
        language[f"w{n}"] = [token(f"w{n}", units) for units in noisy]
    everything = [t for tokens in language.values() for t in tokens]
    truth = within(everything, max_categories=400, replicates=2).error
    covered = 0
    for seed in range(40):
        words = np.random.default_rng(seed).choice(sorted(language), 25, replace=False)
        figure = within([t for word in words for t in language[word]], replicates=300)
        assert figure.low is not None
        assert figure.high is not None
        covered += figure.low <= truth <= figure.high
    assert 33 <= covered <= 40
    assert 0.1 < truth < 0.4


def utterance(id: str, speaker: str, phones: str, seed: int, words: list[tuple[str, float, float]]) -> Labeled:
    """One phone a frame-pair of 20 ms frames; its units are noise."""
    timed = tuple((phone, 0.04 * i, 0.04 * (i + 1)) for i, phone in enumerate(phones.split()))
    units = np.random.default_rng(seed).integers(0, 9, 2 * len(timed))
    return Labeled(id=id, speaker=speaker, units=units, phones=timed, words=tuple(words))


def test_phones_as_units_beat_shuffled_ones() -> None:
    """Units that are the phones make no error; the same units in random order make it chance."""
    rng = np.random.default_rng(0)
    # No phone twice in a row: "a a b" and "a b b" are the same units once durations are gone.
    phones = [" ".join("abcde"[i] for i in rng.integers(1, 5, 60).cumsum() % 5) for _ in range(6)]
    spoken = [utterance(f"u{i}", "st"[i % 2], p, i, []) for i, p in enumerate(phones)]
    code = {phone: i for i, phone in enumerate("abcde")}

    def with_units(units: list[list[int]]) -> list[Token]:
        made = [
            Labeled(id=u.id, speaker=u.speaker, units=np.repeat(row, 2), phones=u.phones)
            for u, row in zip(spoken, units, strict=True)
        ]
        return phone_instances(made, 50.0)

    oracle = [[code[p] for p in row.split()] for row in phones]
    assert [figure.error for figure in abx(with_units(oracle)).figures] == [0, 0]
    shuffled = [rng.permutation(row).tolist() for row in oracle]
    for figure in abx(with_units(shuffled)).figures:
        assert figure.error == pytest.approx(0.5, abs=0.05)


def test_phone_instances() -> None:
    made = phone_instances([utterance("u", "s", "a b c sil a b c", 0, [])], 50.0)
    assert [(t.category, t.context) for t in made] == [("b", "a _ c"), ("b", "a _ c")]
    assert [len(t.frames) for t in made] == [6, 6]
    alone = phone_instances([utterance("u", "s", "AH0 sil B", 0, [])], 50.0, neighbors=0)
    assert [(t.category, t.context, len(t.frames)) for t in alone] == [("AH", "_", 2), ("B", "_", 2)]
    gap = Labeled(
        id="g", speaker="s", units=np.zeros(20, int), phones=(("a", 0, 0.1), ("b", 0.2, 0.3), ("c", 0.3, 0.4))
    )
    assert phone_instances([gap], 50.0) == []


def table() -> UnitTable:
    builder = UnitTableBuilder(frame_rate_hz=50.0, num_units=10)
    for number, speaker in enumerate("stst"):
        builder.add(
            id=f"u{number}", speaker=speaker, split="test", text="Cat, dog cow",
            units=np.array([1, 2, 3, 4]), durations_frames=np.array([2, 1 + number, 2, 1]),
            words=["Cat,", "dog", "cow"],
            word_frames=np.array([[0, 2], [3 + number, 5 + number], [NO_TIME, NO_TIME]]),
        )  # fmt: skip
    return builder.build()


def test_words_are_cut_at_their_frames() -> None:
    made = word_instances(labeled(table()), 50.0)
    assert [(t.category, t.speaker, t.frames.tolist()) for t in made[:4]] == [
        ("cat", "s", [1, 1]), ("dog", "s", [3, 3]), ("cat", "t", [1, 1]), ("dog", "t", [3, 3])]  # fmt: skip
    assert len(made) == 8


def test_caps_are_counted_and_repeatable() -> None:
    rng = np.random.default_rng(0)
    tokens = [
        token(f"w{n}", rng.integers(0, 5, 4).tolist(), speaker)
        for n in range(12) for speaker in "abc" for _ in range(4)
    ]  # fmt: skip
    tokens.append(token("once", [1]))
    config = AbxConfig(max_categories=5, max_tokens=3, max_speakers=2, seed=3, replicates=50)
    first, again = abx(tokens, config), abx(tokens, config)
    assert first == again
    assert first.taken == {"categories": (5, 13), "speakers": (2, 4), "contexts": (1, 1), "tokens": (30, 145)}
    others = abx(tokens, AbxConfig(max_categories=5, max_tokens=3, max_speakers=2, seed=4, replicates=50))
    assert others.figures != first.figures
    assert not any(a is b for a, b in permutations(first.figures, 2))


def test_bad_input() -> None:
    for wrong in ({"min_count": 1}, {"max_categories": 1}, {"max_tokens": 1}):
        with pytest.raises(DataError, match="allowed is 2 or more"):
            AbxConfig(**wrong)
    with pytest.raises(DataError, match="0 tokens of 0 categories and 0 speakers give nothing to compare"):
        abx([])


def test_command(tmp_path: Path) -> None:
    path, out = tmp_path / "units.parquet", tmp_path / "abx.json"
    write_units(path, table(), "f" * 64)
    result = CliRunner().invoke(abx_command, ["--units", str(path), "--durations", "--out", str(out)])
    assert result.exit_code == 0, result.output
    saved = json.loads(out.read_text())
    assert [(f["condition"], f["distance"], f["error"]) for f in saved["figures"]] == [
        ("within", "edit", 0.0), ("across", "edit", 0.0), ("within", "dtw", 0.0), ("across", "dtw", 0.0)]  # fmt: skip
    assert (saved["format"], saved["format_version"]) == ("speechscale abx", 1)
    assert saved["words"] == {"cut": 8, "left out": 4}
    assert saved["config"]["seed"] == 0
    assert "within speakers" in result.output
    missing = CliRunner().invoke(abx_command, ["--units", str(tmp_path / "none")])
    assert missing.exit_code != 0
    assert isinstance(missing.exception, DataError)
