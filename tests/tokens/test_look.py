"""Would catch: a view that shows other tokens than training reads, times a unit off, words without their marks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.records import NO_TIME, UnitTable, UnitTableBuilder
from speechscale.tokens.interleave import InterleaveConfig, plan_interleave
from speechscale.tokens.look import describe, find_document, first_documents, look
from speechscale.tokens.look_records import Seen
from speechscale.tokens.look_sound import as_sound, check_length, sample_of, silence, tone
from speechscale.tokens.look_words import WordTime
from speechscale.tokens.store import TokenStore, build_store
from speechscale.tokens.subwords_training import train_subwords
from speechscale.tokens.vocabulary import Vocabulary

WORDS = ("the", "cat", "dog", "sat")


def small_table(words: list[tuple[str, int, int]], units: list[int], durations: list[int]) -> UnitTable:
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=20)
    builder.add(
        id="one",
        speaker="a",
        split="train",
        text=" ".join(word for word, _, _ in words),
        units=np.array(units),
        durations_frames=np.array(durations),
        words=[word for word, _, _ in words],
        word_frames=np.array([(start, end) for _, start, end in words]).reshape(-1, 2),
    )
    return builder.build()


@pytest.fixture(scope="module")
def stores(
    make_table: Callable[..., UnitTable], vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TokenStore]:
    """One store under three vocabularies: plain, with subwords of units, textless."""
    table = make_table(12, seed=3, most_words=25, untimed=0.1, zero_length=0.1)
    folder = tmp_path_factory.mktemp("look") / "store"
    plain = build_store(folder, vocabulary, table=table, texts=["the cat sat.", "zebra tom"])
    subwords = train_subwords([table.row_units(row) for row in range(len(table))], "bpe", 40, 20)
    textless = Vocabulary.textless(20)
    return {
        "plain": plain,
        "pieces": TokenStore.open(folder, vocabulary.text_subset().with_units(20, subwords)),
        "textless": TokenStore.open(folder, textless),
    }


def parts_ids(seen: Seen) -> list[int]:
    ids = []
    for span in seen.spans:
        ids += [*([] if span.marker_id is None else [span.marker_id]), *span.ids]
    return ids


@given(
    kind=st.sampled_from(["plain", "pieces"]),
    level=st.sampled_from(["word", "sentence", "utterance"]),
    span=st.sampled_from(["poisson(2)", "fixed(1)", "uniform(2,5)"]),
    gap=st.sampled_from(["drop", "attach", "keep"]),
    boundary=st.sampled_from(["overlap", "start", "majority", "slamkit"]),
    markers=st.booleans(),
    row=st.integers(0, 11),
    epoch=st.integers(0, 3),
)
@settings(max_examples=120, deadline=None)
def test_what_is_shown_is_what_training_reads(
    stores: dict[str, TokenStore],
    kind: str,
    level: str,
    span: str,
    gap: str,
    boundary: str,
    markers: bool,
    row: int,
    epoch: int,
) -> None:
    store = stores[kind]
    config = InterleaveConfig(level=level, speech_span=span, gap=gap, boundary=boundary, markers=markers)  # type: ignore[arg-type]
    rows = store.speech_rows("interleaved", np.arange(store.documents("interleaved", config)), config)
    document = np.flatnonzero(rows == row)
    if not len(document):
        with pytest.raises(DataError, match="look at it with --stream speech"):
            look(store, "interleaved", row, interleave=config, epoch=epoch)
        return
    seen = look(store, "interleaved", row, interleave=config, epoch=epoch, seed=5)
    read = store.read("interleaved", document, epoch=epoch, interleave=config, seed=5).flat
    assert list(seen.ids) == parts_ids(seen) == read.tolist()

    shown = [part.word for s in seen.spans for part in s.parts if part.word is not None]
    times = 2 if level == "utterance" else 1
    assert sorted(shown) == sorted(list(range(len(seen.words))) * times)
    uses = np.zeros(len(seen.units), int)
    for s in seen.spans:
        if s.modality == "speech":
            units = [int(unit) for part in s.parts for name in part.names for unit in name.split("+")]
            assert units == [unit.unit for unit in seen.units[s.first_unit : s.stop_unit]]
            uses[s.first_unit : s.stop_unit] += 1
            timed = [part for part in s.parts if part.ids]
            if timed:
                assert (timed[0].start_frame, timed[-1].stop_frame) == (s.start_frame, s.stop_frame)
            assert all(a.stop_frame == b.start_frame for a, b in pairwise(timed))
    assert [unit.spans for unit in seen.units] == uses.tolist()
    plan = plan_interleave(store.source, np.array([row]), epoch, config, 5)
    assert sum(word.demoted for word in seen.words) == plan.demoted_words
    assert not any(word.demoted and word.heard for word in seen.words)


def test_units_stand_behind_the_word_that_has_more_of_them(vocabulary: Vocabulary, tmp_path: Path) -> None:
    words = [("the", 0, 4), ("cat", 4, 10), ("dog", 16, 20), ("sat", NO_TIME, NO_TIME)]
    table = small_table(words, [1, 2, 3, 4, 5], [3, 4, 5, 4, 8])
    store = build_store(tmp_path / "store", vocabulary, table=table)
    seen = look(store, "speech", 0)
    kinds = [(part.kind, part.text, part.names) for part in seen.spans[0].parts]
    # Unit 2 (frames 3..7) lies 1 frame in "the", 3 in "cat"; unit 3 (7..12) 3 frames in "cat"; unit 4 in no word.
    assert kinds == [
        ("word", "the", ("1",)),
        ("word", "cat", ("2", "3")),
        ("pause", "", ("4",)),
        ("word", "dog", ("5",)),
        ("word", "sat", ()),
    ]
    pause = seen.spans[0].parts[2]
    assert (pause.start_frame, pause.stop_frame) == (12, 16)
    assert [(w.timed, w.exact) for w in seen.words] == [(True, False), (True, False), (True, False), (False, True)]
    the, cat, dog, sat = seen.words
    assert (the.start_s, dog.start_s) == (0.0, 0.64)
    assert 3 / 25 < the.end_s < 7 / 25, "inside its unit"  # type: ignore[operator]
    assert 7 / 25 < cat.end_s < 12 / 25  # type: ignore[operator]
    assert sat.start_s is None
    assert "1 word without time" in seen.facts
    assert seen.duration_s == 24 / 25


@pytest.mark.parametrize(
    ("border", "names"), [(4, [("1",), ("2", "3")]), (5, [("1", "2"), ("3",)]), (6, [("1", "2"), ("3",)])]
)
def test_a_border_inside_a_unit(
    vocabulary: Vocabulary, tmp_path: Path, border: int, names: list[tuple[str, ...]]
) -> None:
    """Unit 2 is frames 3..7; a half goes to the left."""
    table = small_table([("the", 0, border), ("cat", border, 10)], [1, 2, 3], [3, 4, 3])
    store = build_store(tmp_path / "store", vocabulary, table=table)
    assert [part.names for part in look(store, "speech", 0).spans[0].parts] == names


def test_times_of_the_corpus_are_taken_when_they_fit(vocabulary: Vocabulary, tmp_path: Path) -> None:
    table = small_table([("the", 0, 4), ("cat", 4, 10)], [1, 2], [5, 5])
    store = build_store(tmp_path / "store", vocabulary, table=table)
    times = [WordTime("The", 0.013, 0.171), WordTime("cat,", 0.171, 0.402)]
    seen = look(store, "speech", 0, times=times)
    assert [(w.start_s, w.end_s, w.exact, w.spoken) for w in seen.words] == [
        (0.013, 0.171, True, "The"),
        (0.171, 0.402, True, "cat,"),
    ]
    other = look(store, "speech", 0, times=times[:1])
    assert other.words[0].start_s == 0.0
    assert "1 words here, the store 2" in other.notes[0]


def test_demoted_words_and_doubled_units_are_marked(vocabulary: Vocabulary, tmp_path: Path) -> None:
    """One unit sounds in four words: with "start" only the span at its start has it, with "overlap" every span does."""
    words = [(word, 2 * i, 2 * i + 2) for i, word in enumerate(WORDS)]
    store = build_store(tmp_path / "store", vocabulary, table=small_table(words, [7], [8]))
    config = InterleaveConfig(speech_span="bernoulli", speech_share=0.5, share="expectation", boundary="start")
    demoted = doubled = 0
    for seed in range(40):
        drawn = look(store, "interleaved", 0, interleave=replace(config, boundary="overlap"), seed=seed)
        seen = look(store, "interleaved", 0, interleave=config, seed=seed)
        heard = [word.heard for word in drawn.words]
        opening = [*heard, False].index(False)  # words of a span that begins with the unit
        assert [word.demoted for word in seen.words] == [False] * opening + heard[opening:]
        assert [word.heard for word in seen.words] == [True] * opening + [False] * (4 - opening)
        spans = sum(span.modality == "speech" for span in drawn.spans)
        assert drawn.units[0].spans == spans
        assert [s.doubled for s in drawn.spans if s.modality == "speech"] == [int(spans > 1)] * spans
        demoted += sum(word.demoted for word in seen.words)
        doubled += spans > 1
    assert (demoted > 5, doubled > 2) == (True, True)


def test_without_durations_order_is_all_there_is(stores: dict[str, TokenStore]) -> None:
    store = stores["plain"]
    bare = replace(store, arrays={name: a for name, a in store.arrays.items() if name != "durations"})
    seen = look(bare, "speech", 2)
    assert seen.ids == look(store, "speech", 2).ids
    assert (seen.frame_rate_hz, seen.duration_s) == (None, None)
    assert "no durations" in seen.notes[0]
    assert {word.start_s for word in seen.words} == {None}
    assert [w.timed for w in seen.words] == [w.timed for w in look(store, "speech", 2).words]


def test_textless_and_text_documents(stores: dict[str, TokenStore]) -> None:
    speech = look(stores["textless"], "speech", 1)
    assert speech.words == ()
    (span,) = speech.spans
    assert [part.kind for part in span.parts] == ["run"]
    assert len(span.ids) == len(speech.units)
    text = look(stores["plain"], "text", 1)
    assert (text.title, text.spans[0].parts[0].text) == ("text 1", "<unk> tom")
    assert text.notes == ("1 token is unknown to the vocabulary.",)


def test_documents_are_found_by_id_and_number(stores: dict[str, TokenStore]) -> None:
    store = stores["plain"]
    assert find_document(store, "interleaved", "utterance-7") == find_document(store, "speech", "7") == 7
    assert find_document(store, "text", "1") == 1
    with pytest.raises(DataError, match=r"nearest are 'utterance-7'.*a number from 0 to 11"):
        find_document(store, "speech", "uterance-7")
    with pytest.raises(DataError, match="no id is like it"):
        find_document(store, "speech", "zzz")
    with pytest.raises(DataError, match="no utterance '12'"):
        find_document(store, "speech", "12")
    with pytest.raises(DataError, match=r"numbers, 0\.\.1, not"):
        find_document(store, "text", "utterance-7")
    with pytest.raises(DataError, match="allowed here: speech, text, interleaved"):
        find_document(store, "spech", "1")
    with pytest.raises(DataError, match=r"no stream 'text': the vocabulary cannot spell it .*allowed here: speech"):
        first_documents(stores["textless"], "text", 3)
    assert first_documents(store, "speech", 50) == list(range(12))


def test_settings_are_told_in_one_line() -> None:
    assert describe(InterleaveConfig(), 2, 3) == "spans poisson(10), share 0.3 (floor), epoch 2, seed 3"
    config = InterleaveConfig(level="utterance", gap="keep", markers=False)
    assert describe(config, 0, 0) == "level utterance, markers False, gap keep, epoch 0, seed 0"


@pytest.mark.parametrize("rate", [25.0, 12.5, 50.0, 75.0, 49.95])
def test_frames_tile_the_samples(rate: float) -> None:
    borders = [sample_of(frame, rate, 16_000) for frame in range(2000)]
    assert borders[0] == 0
    assert np.allclose(borders, np.arange(2000) * 16_000 / rate, atol=1)
    assert all(b > a for a, b in pairwise(borders))


def test_sound_is_the_recording_cut_at_the_frames(stores: dict[str, TokenStore]) -> None:
    config = InterleaveConfig(speech_span="poisson(2)")
    for row in (0, 1, 4, 6):
        seen = look(stores["plain"], "interleaved", row, interleave=config)
        samples = seen.units[-1].stop_frame * 640 + 300
        recording = np.random.default_rng(row).standard_normal(samples).astype(np.float32)
        audio, lines = as_sound(seen, recording, 16_000, lambda span: silence(16_000))
        assert lines[0].start == 0
        assert lines[-1].stop == len(audio)
        for line, span in zip(lines, seen.spans, strict=True):
            part = audio[line.start : line.stop]
            if span.modality == "speech":
                wanted = recording[span.start_frame * 640 : span.stop_frame * 640]
                assert (line.source_start, line.source_stop) == (span.start_frame * 640, span.stop_frame * 640)
            else:
                wanted = np.zeros(4000, np.float32)
            assert np.array_equal(part, wanted)
        with pytest.raises(DataError, match="--corpus"):
            as_sound(seen, None, 16_000, lambda span: silence(16_000))
        for wrong in (samples - 2000, samples + 16_000):
            with pytest.raises(DataError, match="give the corpus that the units were encoded from"):
                check_length(seen, wrong, 16_000)
    assert len(tone(16_000)) == len(silence(16_000))
    assert 0.05 < np.abs(tone(16_000)).max() <= 0.1
