"""Would catch: markers that training never showed, pairs lost without a reason, a prompt that is scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechscale.errors import DataError
from speechscale.skips import read_skips
from speechscale.tokens.repetition import auto_bleu
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from speechscale.train.preference_data import Pair, PairRules, ReadPairs, read_pairs

WORDS = ("the", "cat", "dog", "sat", "ran", "home")
UNITS = 60
RULES = PairRules(context=32)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.joint(build_text_tokenizer([" ".join(WORDS) + "."], "words", 100), UNITS)


def read(folder: Path, vocabulary: Vocabulary, *lines: Any, rules: PairRules = RULES) -> ReadPairs:
    path = folder / "pairs.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return read_pairs(path, vocabulary, rules, skips_to=folder / "skips.jsonl")


def spelled(pair: Pair, vocabulary: Vocabulary) -> tuple[str, str, str]:
    return vocabulary.decode(pair.prompt), vocabulary.decode(pair.chosen), vocabulary.decode(pair.rejected)


def test_the_four_ways_to_write_a_speech_pair_are_equal_and_unmarked(tmp_path: Path, vocabulary: Vocabulary) -> None:
    sides = {"prompt": [3, 49], "chosen": [7], "rejected": [8, 9]}
    first = vocabulary.unit_start
    lines = [
        {side: "".join(f"<Un{unit}>" for unit in units) for side, units in sides.items()},
        {side: [first + unit for unit in units] for side, units in sides.items()},
        {side: {"units": units, "duration": [1] * len(units)} for side, units in sides.items()},
        {side: [{"speech": units}] for side, units in sides.items()},
        {side: {"audio_repr": " ".join(f"<Un{unit}>" for unit in units)} for side, units in sides.items()},
    ]
    pairs, skips, count = read(tmp_path, vocabulary, *lines)
    assert (len(pairs), len(skips), count) == (5, 0, 5)
    assert {spelled(pair, vocabulary) for pair in pairs} == {("<Un3> <Un49>", "<Un7>", "<Un8> <Un9>")}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # A marker in front of each span; the one that opens both completions is given, not scored.
        (
            {"prompt": [{"text": "the cat"}], "chosen": [{"speech": [1]}], "rejected": [{"speech": [2]}]},
            ("<text> the cat <speech>", "<Un1>", "<Un2>"),
        ),
        # The completion goes on in the modality of the prompt: no marker between.
        (
            {
                "prompt": [{"text": "the"}, {"speech": [5]}],
                "chosen": [{"speech": [1]}, {"text": "sat"}],
                "rejected": [{"speech": [2]}],
            },
            ("<text> the <speech> <Un5>", "<Un1> <text> sat", "<Un2>"),
        ),
        # Which modality to open is itself preferred.
        (
            {"prompt": "<text> the cat", "chosen": [{"speech": [1]}], "rejected": [{"text": "sat"}]},
            ("<text> the cat", "<speech> <Un1>", "sat"),
        ),
        ({"chosen": [{"speech": [1]}], "rejected": [{"text": "sat"}]}, ("", "<speech> <Un1>", "<text> sat")),
        ({"prompt": "the", "chosen": "cat", "rejected": "dog"}, ("the", "cat", "dog")),
    ],
)
def test_markers_follow_the_rows_of_training(
    tmp_path: Path, vocabulary: Vocabulary, line: Any, expected: tuple[str, str, str]
) -> None:
    (pair,) = read(tmp_path, vocabulary, line).pairs
    assert spelled(pair, vocabulary) == expected


def test_transcripts_make_mixed_pairs_of_slamkit_features(tmp_path: Path, vocabulary: Vocabulary) -> None:
    line = {
        "prompt": {"units": [3], "duration": [1]},
        "chosen": {"units": [4], "duration": [1]},
        "rejected": {"units": [5], "duration": [1]},
        "prompt_text": "the cat",
        "chosen_text": "sat",
        "rejected_text": "ran",
    }
    (asked,) = read(tmp_path, vocabulary, line, rules=PairRules(context=32, prompt_as="text")).pairs
    assert spelled(asked, vocabulary) == ("<text> the cat <speech>", "<Un4>", "<Un5>")
    (told,) = read(tmp_path, vocabulary, line, rules=PairRules(context=32, completion_as="text")).pairs
    assert spelled(told, vocabulary) == ("<speech> <Un3> <text>", "sat", "ran")


BROKEN = {
    "not JSON": "{",
    "not an object": "[1]",
    "has no chosen": {"prompt": "<Un1>", "rejected": "<Un2>"},
    "'<Un60>' is not in": {"prompt": "<Un60>", "chosen": "<Un1>", "rejected": "<Un2>"},
    "units run": {"chosen": {"units": [60]}, "rejected": {"units": [1]}},
    "has the id 999": {"chosen": [999], "rejected": "<Un2>"},
    "are equal": {"chosen": "<Un2>", "rejected": [{"speech": [2]}]},
    "end of document": {"prompt": "<eos>", "chosen": "<Un1>", "rejected": "<Un2>"},
    "without the marker": {"prompt": "the cat", "chosen": "<Un1>", "rejected": "<Un2>"},
    "has the span": {"chosen": [{"sound": [1]}], "rejected": "<Un2>"},
    "its chosen is": {"chosen": [1.5], "rejected": "<Un2>"},
    "the context is 32": {"prompt": {"units": [1, 2] * 15}, "chosen": "<Un1>", "rejected": "<Un2>"},
}


def test_every_bad_line_is_skipped_with_its_reason(tmp_path: Path, vocabulary: Vocabulary) -> None:
    good = {"id": "good", "chosen": "<Un1>", "rejected": "<Un2>"}
    pairs, skips, count = read(tmp_path, vocabulary, *BROKEN.values(), good)
    assert [pair.id for pair in pairs] == ["good"]
    assert count == len(BROKEN) + 1
    reasons = {"has no chosen": "its chosen completion is empty", "not an object": "a JSON list, not an object"}
    for skip, what in zip(skips, BROKEN, strict=True):
        assert reasons.get(what, what) in skip.reason
        assert skip.remedy
    assert read_skips(tmp_path / "skips.jsonl").ids == skips.ids


def test_a_textless_vocabulary_refuses_text_and_markers(tmp_path: Path) -> None:
    textless = Vocabulary.textless(UNITS)
    marked = {"prompt": "<speech> <Un1>", "chosen": "<Un2>", "rejected": "<Un3>"}
    written = {"chosen": [{"text": "cat"}], "rejected": [{"text": "dog"}]}
    with pytest.raises(DataError, match=r"no pairs are left of 2 lines .*'<speech>' is not in.*cannot encode text"):
        read(tmp_path, textless, marked, written)
    assert len(read_skips(tmp_path / "skips.jsonl")) == 2
    with pytest.raises(DataError, match="is missing"):
        read_pairs(tmp_path / "nothing.jsonl", textless, RULES)


def test_auto_bleu_is_that_of_slamkit(tmp_path: Path, vocabulary: Vocabulary) -> None:
    """slamkit counts every n-gram that stands elsewhere too, its quadratic way."""
    rng = np.random.default_rng(0)
    for length in (0, 1, 2, 5, 40):
        words = rng.integers(0, 6, length).tolist()
        grams = [tuple(words[i : i + 2]) for i in range(length - 1)]
        theirs = sum(gram in grams[:i] or gram in grams[i + 1 :] for i, gram in enumerate(grams)) / max(1, len(grams))
        assert auto_bleu(words, 2) == pytest.approx(theirs)
    assert auto_bleu(["a", "b", "a", "b", "c"], 2) == 0.5
    line = {"prompt": "<Un1>", "chosen": "<Un2>", "rejected": "<Un3>", "prompt_text": "the cat."}
    again = {**line, "chosen_text": "the cat. the cat."}
    fine = {**line, "chosen_text": "the dog ran."}
    rules = PairRules(context=32, max_auto_bleu=0.3)
    pairs, skips, _ = read(tmp_path, vocabulary, again, fine, line, rules=rules)
    assert [pair.id for pair in pairs] == ["pairs.jsonl:2"]
    assert [skip.reason for skip in skips] == ["it repeats itself, auto-BLEU 1.00", "its chosen_text is null"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_auto_bleu": 3}, "max_auto_bleu = 3"),
        ({"auto_bleu_n": 0}, "auto_bleu_n = 0"),
        ({"prompt_as": "sound"}, "prompt_as = 'sound'; allowed: given, text"),
    ],
)
def test_rules_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        PairRules(**{"context": 32, **values})
