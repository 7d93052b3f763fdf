"""Catches a wrong word border: a merged word without time, a closure or link on the wrong side, a lost phone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.voices.word_events import (
    PHONE,
    WORD,
    Event,
    best_cuts,
    merged_groups,
    phone_distance,
    phone_spans,
    plain_label,
    rescale,
    split_merged,
    tile,
)


def test_labels_lose_stress_and_pauses_become_one() -> None:
    assert [plain_label(name) for name in ("'aU", ",O2", "_:", "_", "t[", "''i:", "")] == [
        *["aU", "O2", "_", "_", "t[", "i:", "_"]
    ]


def test_closure_belongs_to_the_consonant_behind_it() -> None:
    events = [
        (WORD, 1, 0, ""),
        (PHONE, 1, 0, "a#"),
        (WORD, 3, 1000, ""),
        (PHONE, 3, 1500, "k"),
        (PHONE, 3, 2000, "'i:"),
    ]
    spans = [(p.label, p.start, p.end, p.word) for p in phone_spans(["a", "key"], events, 3000)]
    assert spans == [("a#", 0, 1000, 0), ("k", 1000, 2000, 1), ("i:", 2000, 3000, 1)]


def test_linking_sound_belongs_to_the_word_before() -> None:
    events = [
        *[(WORD, 1, 0, ""), (PHONE, 1, 0, "O2"), (PHONE, 1, 2000, "n")],
        *[(WORD, 4, 2000, ""), (PHONE, 4, 3000, "a#"), (PHONE, 4, 4000, "_:")],
    ]
    spans = [(p.label, p.start, p.end, p.word) for p in phone_spans(["on", "a"], events, 5000)]
    assert spans == [("O2", 0, 2000, 0), ("n", 2000, 3000, 0), ("a#", 3000, 4000, 1)]


def test_phone_without_time_of_its_own_gets_a_third_of_its_neighbor() -> None:
    events = [
        (WORD, 1, 0, ""),
        (PHONE, 1, 0, "w"),
        (PHONE, 1, 1000, "I"),
        (PHONE, 1, 4000, "l"),
        (PHONE, 1, 4000, "_:"),
    ]
    spans = [(p.label, p.start, p.end) for p in phone_spans(["will"], events, 5000)]
    assert spans == [("w", 0, 1000), ("I", 1000, 3000), ("l", 3000, 4000)]


def test_merged_words_are_cut_where_they_differ_least_from_the_words_alone() -> None:
    words = ["there", "was", "-", "in"]
    names = [("D", 0), ("e@", 100), ("w", 300), ("V", 500), ("z", 700)]
    events: list[Event] = [(WORD, 1, 0, ""), *((PHONE, 1, at, name) for name, at in names)]
    phones = phone_spans(words[:2], events, 900)
    assert merged_groups(words[:2], phones) == [[0, 1]]
    split_merged(words[:2], phones, [0, 1], [["D", "'e@"], ["w", "'0", "z"]])
    assert tile(words[:2], phones, 16_000, 16_000, 900).words == [(0, 300), (300, 900)]
    assert merged_groups(words, phones) == [[1, 3]]


@pytest.mark.parametrize(
    ("labels", "alone", "cuts"),
    [
        (["O2", "n", "D", "@2"], [["O2", "n"], ["D", "@"]], [2]),
        (["h", "a#", "v", "b", "I", "n"], [["h", "a", "v"], ["b", "i:", "n"]], [3]),
        (["n", "oU", "m", "o@"], [["n", "oU"], ["m", "O@"]], [2]),
        (["D", "E", "n"], [[], ["D", "E", "n"]], [0]),
        (["a"], [["a"], ["b"]], [1]),
        (["a", "b"], [["x", "y"], ["a", "b"]], [1]),
    ],
)
def test_best_cuts(labels: list[str], alone: list[list[str]], cuts: list[int]) -> None:
    assert best_cuts(labels, alone) == cuts


def test_phone_distance_prefers_similar_phones() -> None:
    assert phone_distance(["t"], ["t"]) == 0
    assert phone_distance(["@"], ["@2"]) < phone_distance(["@"], ["V"]) < phone_distance(["@"], ["t"])
    assert phone_distance([], ["a", "b"]) == 2


def test_rescale_rounds_halves_up_and_keeps_order() -> None:
    assert [rescale(n, 22_050, 16_000) for n in (0, 441, 882, 22_050)] == [0, 320, 640, 16_000]
    assert rescale(1, 2, 1) == 1
    converted = [rescale(n, 22_050, 16_000) for n in range(3000)]
    assert converted == sorted(converted)


@st.composite
def _segments(draw: st.DrawFn) -> tuple[list[str], list[Event], int]:
    words = draw(st.lists(st.sampled_from(["a", "be", "cat", "--", "x1"]), min_size=1, max_size=6))
    length = sum(map(len, words)) + len(words)
    step = st.tuples(
        st.sampled_from([WORD, PHONE]),
        st.integers(0, length + 2),
        st.integers(0, 900),
        st.sampled_from(["n", "'a", "_:", "t"]),
    )
    sample, events = 0, []
    for kind, character, gap, name in draw(st.lists(step, max_size=20)):
        sample += gap
        events.append((kind, character, sample, name if kind == PHONE else ""))
    return words, events, draw(st.integers(1, 12_000))


@settings(max_examples=150, deadline=None)
@given(_segments())
def test_whatever_the_engine_reports_words_are_ordered_and_phones_tile(
    segment: tuple[list[str], list[Event], int],
) -> None:
    words, events, samples = segment
    phones = phone_spans(words, events, samples)
    for group in merged_groups(words, phones):
        split_merged(words, phones, group, [["n", "a"]] * len(group))
    length = rescale(samples, 22_050, 16_000)
    timed = tile(words, phones, 22_050, 16_000, length)
    borders = [0] + [end for _, _, end in timed.phones]
    assert [start for _, start, _ in timed.phones] == borders[:-1]
    assert borders[-1] == length
    assert borders == sorted(set(borders))
    assert len(timed.words) == len(words)
    flat = [sample for span in timed.words for sample in span]
    assert flat == sorted(flat)
    assert set(flat) <= set(borders)
