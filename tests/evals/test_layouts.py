"""Would catch: a layout unlike training's, a cut at the wrong frame, an item kept without its symmetric partner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from speechscale.errors import DataError
from speechscale.evals.cuts import cut_items, cut_units
from speechscale.evals.layouts import (
    Candidate,
    Direction,
    candidates,
    item_directions,
    item_utterances,
    prompt_ids,
    require_spellable,
)
from speechscale.evals.protocols import Layout
from speechscale.records import NO_TIME, Item, UnitTable, UnitTableBuilder, dedup, expand
from speechscale.tokens.interleave import InterleaveConfig, interleave_batch, make_source
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

FIRST = Item(id="i1", set="facts", prompt="Tom ran.", good="he won.", bad="he lost.", pair="p", speaker="anna")
SECOND = replace(FIRST, id="i2", prompt="Ann ran.", good="he lost.", bad="he won.")
# Silence 9 9, tom 1 1 2, ran 3 3 4, he 4 5, then won 6 6 or lost 7, silence 9; unit 4 lasts from "ran" into "he".
WON = [9, 9, 1, 1, 2, 3, 3, 4, 4, 5, 6, 6, 9]
LOST = [9, 9, 1, 1, 2, 3, 3, 4, 4, 5, 7, 9]


def sentences(text: str) -> list[str]:
    return [part.strip() + "." for part in text.split(".") if part.strip()]


def spoken(entries: Sequence[tuple[str, str, list[int], list[tuple[int, int]]]]) -> UnitTable:
    """A table of (id, text, frames, word frames)."""
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=10)
    for id, text, frames, words in entries:
        units, durations = dedup(np.array(frames))
        builder.add(
            id=id,
            speaker="anna",
            split="items",
            text=text,
            units=units,
            durations_frames=durations,
            words=text.split(),
            word_frames=np.array(words),
        )
    return builder.build()


def entry(id: str, text: str, frames: list[int]) -> tuple[str, str, list[int], list[tuple[int, int]]]:
    return id, text, frames, [(2, 5), (5, 8), (8, 10), (10, len(frames) - 1)]


@pytest.fixture
def table() -> UnitTable:
    return spoken(
        [
            entry("i1/good", "Tom ran. he won.", WON),
            entry("i1/bad", "Tom ran. he lost.", LOST),
            entry("i2/good", "Ann ran. he lost.", LOST),
            entry("i2/bad", "Ann ran. he won.", WON),
        ]
    )


def spell(vocabulary: Vocabulary, candidate: Candidate) -> tuple[str, str]:
    cut = candidate.prompt_tokens
    return vocabulary.decode(candidate.ids[:cut]), vocabulary.decode(candidate.ids[cut:])


def test_utterances_are_prompt_and_candidate_by_sentence() -> None:
    item = replace(FIRST, prompt="Tom ran. Tom sat.")
    good, bad = item_utterances([item], sentences)
    assert (good.id, bad.id) == ("i1/good", "i1/bad")
    assert good.text == "Tom ran. Tom sat. he won."
    assert good.segments == ("Tom ran.", "Tom sat.", "he won.")
    assert [word.text for word in good.words] == good.text.split()
    assert (good.split, good.speaker) == ("items", "anna")
    assert good.segments[:2] == bad.segments[:2]
    alone, _ = item_utterances([replace(FIRST, prompt="")], sentences)
    assert (alone.text, alone.segments) == ("he won.", ("he won.",))


@pytest.mark.parametrize(
    ("direction", "prompt", "good", "bad"),
    [
        ("ss", "<eos> <Un9> <Un1> <Un2> <Un3> <Un4>", "<Un5> <Un6> <Un9>", "<Un5> <Un7> <Un9>"),
        ("st", "<eos> <speech> <Un1> <Un2> <Un3> <Un4> <text>", "he won .", "he lost ."),
        ("ts", "<eos> <text> tom ran . <speech>", "<Un4> <Un5> <Un6>", "<Un4> <Un5> <Un7>"),
        ("tt", "<eos> tom ran .", "he won .", "he lost ."),
    ],
)
def test_layout_of_one_item(
    table: UnitTable, vocabulary: Vocabulary, direction: Direction, prompt: str, good: str, bad: str
) -> None:
    laid_out = candidates([FIRST, SECOND], cut_items([FIRST, SECOND], table), vocabulary, direction)
    assert [c.name for c in laid_out[:2]] == [f"i1/good ({direction})", f"i1/bad ({direction})"]
    assert spell(vocabulary, laid_out[0]) == (prompt, good)
    assert spell(vocabulary, laid_out[1]) == (prompt, bad)
    assert [(c.item.id, c.side) for c in laid_out[2:]] == [("i2", "good"), ("i2", "bad")]


@pytest.mark.parametrize("direction", ["st", "ts"])
def test_crossing_layouts_occur_in_training(table: UnitTable, vocabulary: Vocabulary, direction: Direction) -> None:
    # Among many draws of the interleaver, one must be exactly the item's sequence.
    source = make_source(table, vocabulary)
    config = InterleaveConfig(speech_span="poisson(2)", speech_share=0.3)
    row = np.array([table.ids.index("i1/good")])
    drawn = {tuple(interleave_batch(source, row, epoch, config, 0).flat.tolist()) for epoch in range(200)}
    good = candidates([FIRST, SECOND], cut_items([FIRST, SECOND], table), vocabulary, direction)[0]
    assert tuple(good.ids[1:].tolist()) in drawn


def test_spoken_prompt_before_text_is_one_for_both(vocabulary: Vocabulary) -> None:
    # Units of a prompt may depend on the ending it was spoken with; here the first unit tells which one it was.
    frames = {"he won.": [9, 8, *WON[2:]], "he lost.": [9, 7, *LOST[2:]]}
    words = [(1, 5), (5, 8), (8, 10), (10, 11)]
    whole = spoken(
        [
            (f"{item.id}/{side}", f"{item.prompt} {getattr(item, side)}", frames[getattr(item, side)], words)
            for item in (FIRST, SECOND)
            for side in ("good", "bad")
        ]
    )
    for candidate in candidates([FIRST, SECOND], cut_items([FIRST, SECOND], whole), vocabulary, "st"):
        prompt, ending = spell(vocabulary, candidate)
        assert prompt == "<eos> <speech> <Un7> <Un1> <Un2> <Un3> <Un4> <text>"
        assert ending == getattr(candidate.item, candidate.side).replace(".", " .")


def test_speech_alone_is_the_whole_stream(table: UnitTable, vocabulary: Vocabulary) -> None:
    for candidate in candidates([FIRST, SECOND], cut_items([FIRST, SECOND], table), vocabulary, "ss"):
        row = table.ids.index(f"{candidate.item.id}/{candidate.side}")
        np.testing.assert_array_equal(candidate.ids[1:], vocabulary.unit_ids(table.row_units(row)))


def byte_tokenizer(add_prefix_space: bool) -> Tokenizer:
    """Byte-level BPE; without the prefix blank a text's first word differs from the same word inside it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<eos>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["Tom ran. he won. he lost. Ann ran."] * 3, trainer)
    return tokenizer


@pytest.mark.parametrize("prefix", [True, False])
def test_text_alone_is_the_text_document(table: UnitTable, prefix: bool) -> None:
    vocabulary = Vocabulary.joint(byte_tokenizer(prefix), 10)
    for candidate in candidates([FIRST, SECOND], cut_items([FIRST, SECOND], table), vocabulary, "tt"):
        text = f"{candidate.item.prompt} {getattr(candidate.item, candidate.side)}"
        assert candidate.ids[1:].tolist() == vocabulary.encode_text([text]).flat.tolist()
        assert vocabulary.decode(candidate.ids[1 : candidate.prompt_tokens]) == candidate.item.prompt
    alone = replace(FIRST, prompt="", id="g")
    spoken_alone = spoken(
        [(f"g/{s}", t, [1, 2], [(0, 1), (1, 2)]) for s, t in (("good", "he won."), ("bad", "he lost."))]
    )
    good, _ = candidates([alone], cut_items([alone], spoken_alone), vocabulary, "tt")
    assert good.ids[1:].tolist() == vocabulary.encode_text(["he won."]).flat.tolist()


@given(frames=st.lists(st.integers(0, 3), min_size=2, max_size=30), data=st.data())
def test_cut_splits_the_timeline(frames: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(frames) - 1))
    units, durations = dedup(np.array(frames))
    before, after = cut_units(units, durations, cut)
    np.testing.assert_array_equal(before, dedup(expand(units, durations)[:cut])[0])
    crosses = frames[cut - 1] == frames[cut]
    assert len(before) + len(after) == len(units) + crosses
    np.testing.assert_array_equal(np.concatenate([before, after[int(crosses) :]]), units)


def test_a_run_across_the_cut_is_in_both_parts() -> None:
    before, after = cut_units(np.array([5, 7]), np.array([2, 3]), 3)
    assert (before.tolist(), after.tolist()) == ([5, 7], [7])
    before, after = cut_units(np.array([5, 7]), np.array([2, 3]), 2)
    assert (before.tolist(), after.tolist()) == ([5], [7])


def test_partners_leave_together_and_are_counted(table: UnitTable, vocabulary: Vocabulary) -> None:
    third = replace(FIRST, id="i3", pair="q")
    whole = spoken(
        [
            *(entry(f"i3/{side}", f"Tom ran. {getattr(third, side)}", WON) for side in ("good", "bad")),
            *(entry(id, f"Tom ran. he {word}.", WON) for id, word in (("i1/good", "won"), ("i1/bad", "lost"))),
            entry("i2/good", "Ann ran. he lost.", LOST),
        ]
    )
    for direction in ("ss", "st", "ts", "tt"):
        dropped: dict[str, str] = {}
        kept = candidates(
            [FIRST, SECOND, third],
            cut_items([FIRST, SECOND, third], whole),
            vocabulary,
            direction,
            on_drop=dropped.__setitem__,
        )  # type: ignore[arg-type]
        assert [c.item.id for c in kept] == ["i3", "i3"]
        assert dropped == {"i1": "its symmetric partner i2 was dropped", "i2": "i2/bad: it was not spoken"}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([(2, 5), (5, 8), (NO_TIME, NO_TIME), (10, 12)], "no time"),
        ([(0, 0), (0, 0), (0, 10), (10, 12)], "starts at frame 0 of 13"),
        ([(2, 5), (5, 8), (12, 13), (13, 13)], "adds no unit"),
    ],
)
def test_what_cannot_be_cut_is_dropped(vocabulary: Vocabulary, words: list[tuple[int, int]], reason: str) -> None:
    frames = [*WON[:11], 9, 9]
    whole = spoken([("i1/good", "Tom ran. he won.", frames, words), entry("i1/bad", "Tom ran. he lost.", LOST)])
    dropped: dict[str, str] = {}
    assert candidates([FIRST], cut_items([FIRST], whole), vocabulary, "tt", on_drop=dropped.__setitem__) == []
    assert dropped["i1"].startswith("i1/good: ")
    assert reason in dropped["i1"]


def test_too_long_for_the_context_is_dropped(table: UnitTable, vocabulary: Vocabulary) -> None:
    dropped: dict[str, str] = {}
    assert len(candidates([FIRST, SECOND], cut_items([FIRST, SECOND], table), vocabulary, "ss", max_tokens=9)) == 4
    kept = candidates(
        [FIRST, SECOND], cut_items([FIRST, SECOND], table), vocabulary, "ss", max_tokens=8, on_drop=dropped.__setitem__
    )
    assert kept == []
    assert dropped["i1"] == "9 tokens, the model's context holds 8"


def test_directions_that_do_not_exist(table: UnitTable, vocabulary: Vocabulary) -> None:
    grammar = replace(FIRST, set="grammar", prompt="")
    word = replace(grammar, set="words")
    textless = Vocabulary.textless(10)
    text_only = Vocabulary.text_only(build_text_tokenizer(["tom ran"]))
    assert item_directions([FIRST, SECOND]) == ("ss", "st", "ts", "tt")
    assert item_directions([grammar]) == ("ss", "tt")
    assert item_directions([word]) == ("ss",)
    assert item_directions([FIRST], textless) == ("ss",)
    assert item_directions([FIRST], text_only) == ("tt",)
    with pytest.raises(DataError, match=r"'st' does not exist for these items \(set 'grammar'\)"):
        candidates([grammar], cut_items([FIRST], table), vocabulary, "st")
    with pytest.raises(DataError, match="needs text tokens"):
        candidates([FIRST], cut_items([FIRST], table), textless, "ts")
    with pytest.raises(DataError, match="needs speech units"):
        candidates([FIRST], cut_items([FIRST], table), text_only, "ss")


def test_without_prompt_everything_is_scored(vocabulary: Vocabulary) -> None:
    word = Item(id="w", set="words", prompt="", good="won", bad="wun", pair="w")
    whole = spoken([("w/good", "won", [9, 6, 6, 9], [(1, 3)]), ("w/bad", "wun", [9, 7, 9], [(1, 2)])])
    good, bad = candidates([word], cut_items([word], whole), vocabulary, "ss")
    assert spell(vocabulary, good) == ("<eos>", "<Un9> <Un6> <Un9>")
    assert spell(vocabulary, bad) == ("<eos>", "<Un9> <Un7> <Un9>")


def test_textless_vocabulary_writes_speech(table: UnitTable) -> None:
    good, _ = candidates([FIRST], cut_items([FIRST], table), Vocabulary.textless(10), "ss")
    assert good.ids.tolist() == [0, *(1 + unit for unit in (9, 1, 2, 3, 4, 5, 6, 9))]
    assert prompt_ids(Vocabulary.textless(10), "ss", np.array([3])) == [0, 3]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([FIRST, FIRST], "item i1: the id occurs twice"),
        ([replace(FIRST, bad=" ")], "item i1: a candidate is empty"),
        ([replace(FIRST, bad="he  won.")], "item i1: both candidates are 'he won.'"),
        ([replace(FIRST, pair="")], "item i1: it names no pair"),
    ],
)
def test_bad_items_are_refused(table: UnitTable, vocabulary: Vocabulary, items: list[Item], message: str) -> None:
    with pytest.raises(DataError, match=message):
        item_utterances(items, sentences)
    with pytest.raises(DataError, match=message):
        candidates(items, cut_items(items, table), vocabulary, "tt")


def test_rows_that_speak_other_words_are_refused(table: UnitTable, vocabulary: Vocabulary) -> None:
    with pytest.raises(DataError, match=r"i1/good: the unit table has the words 'Tom ran. he won.'"):
        candidates(
            [replace(FIRST, good="she won.")], cut_items([replace(FIRST, good="she won.")], table), vocabulary, "ss"
        )
    with pytest.raises(DataError, match="may only split"):
        item_utterances([FIRST], lambda text: [text.lower()])


@pytest.mark.parametrize(
    ("direction", "layout", "before", "after"),
    [
        ("ss", Layout("none", "crossing"), "<Un9><Un1><Un2><Un3><Un4>", "<Un5><Un6><Un9>"),
        ("ss", Layout("none", "always"), "<speech><Un9><Un1><Un2><Un3><Un4>", "<Un5><Un6><Un9>"),
        ("tt", Layout("none", "always"), "<text> tom ran .", "he won ."),
        ("st", Layout("none", "always"), "<speech><Un1><Un2><Un3><Un4><text>", "he won ."),
        ("ts", Layout("eos", "always"), "<eos><text> tom ran .<speech>", "<Un4><Un5><Un6>"),
    ],
)
def test_start_and_markers(
    table: UnitTable, vocabulary: Vocabulary, direction: Direction, layout: Layout, before: str, after: str
) -> None:
    # Would catch: markers of a protocol left out or scored where they should not be.
    good = candidates([FIRST], cut_items([FIRST], table), vocabulary, direction, layout=layout)[0]
    found = [part.replace(" ", "") for part in spell(vocabulary, good)]
    assert found == [before.replace(" ", ""), after.replace(" ", "")]


def test_without_start_the_first_token_is_context(vocabulary: Vocabulary) -> None:
    item = Item(id="a", set="swuggy", pair="a")
    whole = spoken([("a/good", "", [1, 1, 2, 3], []), ("a/bad", "", [4, 4], [])])
    dropped: dict[str, str] = {}
    cuts = cut_items([item], whole)
    assert candidates([item], cuts, vocabulary, "ss", layout=Layout("none"), on_drop=dropped.__setitem__) == []
    assert "no token to score" in dropped["a"]  # one unit, which nothing predicts
    good, bad = candidates([item], cuts, vocabulary, "ss")
    assert (good.prompt_tokens, len(good.ids), len(bad.ids)) == (1, 4, 2)
    assert good.whole_s == pytest.approx(4 / 25)
    assert (good.whole_words, item_directions([item])) == (0, ("ss",))


def test_a_cut_time_needs_no_words(vocabulary: Vocabulary) -> None:
    item = Item(id="a", set="cloze", pair="a", good_cut_s=3 / 25, bad_cut_s=2 / 25)
    whole = spoken([("a/good", "", [1, 1, 2, 3, 3], []), ("a/bad", "", [1, 1, 4, 5], [])])
    good, bad = candidates([item], cut_items([item], whole), vocabulary, "ss")
    assert spell(vocabulary, good)[1].replace(" ", "") == "<Un3>"
    assert spell(vocabulary, bad)[1].replace(" ", "") == "<Un4><Un5>"
    assert (good.ending_s, bad.ending_s) == (pytest.approx(2 / 25), pytest.approx(2 / 25))
    late = replace(item, bad_cut_s=9.0)
    dropped: dict[str, str] = {}
    assert candidates([late], cut_items([late], whole), vocabulary, "ss", on_drop=dropped.__setitem__) == []
    assert "starts at frame 225 of 4" in dropped["a"]


def test_parts_recorded_apart_stand_where_modalities_cross(vocabulary: Vocabulary) -> None:
    # As released cross-modal sets are scored: the prompt's own file before text, the ending's own file behind text.
    item = replace(FIRST, good_cut_s=8 / 25, bad_cut_s=8 / 25)
    rows = [("i1/good", "", WON, []), ("i1/bad", "", LOST, []), ("i1/prompt", "", [1, 8], [])]
    rows += [("i1/good-ending", "", [6, 8], []), ("i1/bad-ending", "", [7, 8, 8], [])]
    cuts = cut_items([item], spoken(rows))
    assert "<Un1><Un8>" in spell(vocabulary, candidates([item], cuts, vocabulary, "st")[0])[0].replace(" ", "")
    good, bad = candidates([item], cuts, vocabulary, "ts")
    assert spell(vocabulary, good)[1].replace(" ", "") == "<Un6><Un8>"
    assert bad.ending_s == pytest.approx(3 / 25)
    joined = spell(vocabulary, candidates([item], cuts, vocabulary, "ss")[0])
    assert "".join(joined).replace(" ", "").endswith("<Un4><Un5><Un6><Un9>")


def test_other_voices_of_a_pair_stay(vocabulary: Vocabulary) -> None:
    # A sentence pair in two voices is not symmetric: one broken recording costs one row.
    anna, tom = (Item(id=f"1-{v}", set="sblimp", pair="1", speaker=v) for v in ("anna", "tom"))
    whole = spoken([("1-anna/good", "", [1, 2], []), ("1-anna/bad", "", [3, 2], []), ("1-tom/good", "", [1, 2], [])])
    dropped: dict[str, str] = {}
    kept = candidates([anna, tom], cut_items([anna, tom], whole), vocabulary, "ss", on_drop=dropped.__setitem__)
    assert [c.item.id for c in kept] == ["1-anna", "1-anna"]
    assert list(dropped) == ["1-tom"]


def test_text_alone_needs_no_recording(vocabulary: Vocabulary) -> None:
    assert item_directions([FIRST], vocabulary, spoken=False) == ("tt",)
    assert len(candidates([FIRST], None, vocabulary, "tt")) == 2
    with pytest.raises(DataError, match=r"'ss' does not exist"):
        candidates([FIRST], None, vocabulary, "ss")


def test_a_tokenizer_of_another_language_is_refused(vocabulary: Vocabulary) -> None:
    require_spellable([FIRST], vocabulary)
    with pytest.raises(DataError, match=r"does not know their words \(75% unknown"):
        require_spellable([replace(FIRST, prompt="der", good="Hund lief", bad="he")], vocabulary)
    latin = Vocabulary.joint(byte_tokenizer(add_prefix_space=True), 4)
    with pytest.raises(DataError, match=r"[1-3]\.\d+ tokens per letter"):
        require_spellable([replace(FIRST, prompt="", good="我们走了", bad="他们来了")], latin)


def test_markers_need_a_joint_vocabulary(table: UnitTable) -> None:
    with pytest.raises(DataError, match="opens sequences with a marker"):
        candidates([FIRST], cut_items([FIRST], table), Vocabulary.textless(10), "ss", layout=Layout("none", "always"))
