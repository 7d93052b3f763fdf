"""Would catch: endings swapped, random labels from slamkit's numbers, a wrong cut, sound of another voice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from speechscale.align.formats import read_alignment, write_alignment
from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import Clip, RawItem, Source
from speechscale.evals.benchmarks.readers.labelled import role_of
from speechscale.evals.benchmarks.readers.stories import read_stories, with_foreign_endings
from speechscale.evals.benchmarks.readers.storycloze import parted
from speechscale.evals.tasks import (
    cloze,
    cross_modal,
    salmon,
    slamkit_pairs,
    sstorycloze,
    sstorycloze_ms,
    tstorycloze,
    tstorycloze_ms,
)
from speechscale.records import Word
from tests.evals.trees import (
    STORIES,
    cross_modal_tree,
    multi_speaker_tree,
    salmon_tree,
    slamkit_tree,
    story_parts_table,
    story_table,
    storycloze_tree,
    write_sounds,
    write_table,
)


def read(source: Source) -> list[RawItem]:
    return list(source.items)


def paths(raw: RawItem) -> tuple[str, str]:
    assert raw.good is not None
    assert raw.bad is not None
    return raw.good.path, raw.bad.path


# --- the original layout


def test_names_with_labels_are_read_and_scored_whole(tmp_path: Path) -> None:
    items = read(sstorycloze(storycloze_tree(tmp_path / "s")))
    assert [paths(raw) for raw in items] == [(f"{row[0]}_correct.wav", f"{row[0]}_incorrect.wav") for row in STORIES]
    assert not any(raw.item.has_prompt or raw.item.has_text for raw in items)


def test_numbers_in_order_are_read_too_and_labels_may_be_folders(tmp_path: Path) -> None:
    items = read(tstorycloze(storycloze_tree(tmp_path / "n", numbered=True)))
    assert [paths(raw) for raw in items] == [("0_a.wav", "1_b.wav"), ("2_a.wav", "3_b.wav"), ("4_a.wav", "5_b.wav")]
    write_sounds(tmp_path / "f", [("correct/7.wav", "", ""), ("incorrect/7.wav", "", "")])
    assert [paths(raw) for raw in read(sstorycloze(tmp_path / "f"))] == [("correct/7.wav", "incorrect/7.wav")]


def test_numbers_with_labels_pair_by_number_if_both_say_the_same(tmp_path: Path) -> None:
    write_sounds(tmp_path, [(f"{k}_{('in' if k % 2 else '') + 'correct'}.wav", "", "") for k in range(4)])
    source = sstorycloze(tmp_path)
    assert [paths(raw) for raw in read(source)] == [
        ("0_correct.wav", "1_incorrect.wav"),
        ("2_correct.wav", "3_incorrect.wav"),
    ]
    assert len(source.skips) == 0
    (tmp_path / "2_correct.wav").rename(tmp_path / "2_incorrect.wav")
    with pytest.raises(DataError, match=r"2_incorrect\.wav and 3_incorrect\.wav are a pair by number, their labels"):
        read(sstorycloze(tmp_path))


def test_stories_without_word_times_give_whole_texts_and_no_prompt(tmp_path: Path) -> None:
    table = story_table(tmp_path / "test.csv")
    items = read(sstorycloze(storycloze_tree(tmp_path / "s"), stories=str(table)))
    assert items[1].item.good == " ".join([*STORIES[1][1], STORIES[1][2]])
    assert items[1].item.bad == " ".join([*STORIES[1][1], STORIES[1][3]])
    assert not items[1].item.has_prompt
    by_row = read(sstorycloze(storycloze_tree(tmp_path / "n", numbered=True), stories=str(table)))
    assert [raw.item.good for raw in by_row] == [raw.item.good for raw in items]


def test_word_times_and_stories_part_prompt_and_ending_where_the_voice_starts_it(tmp_path: Path) -> None:
    root = storycloze_tree(tmp_path / "s", voiced=True)
    table = story_table(tmp_path / "test.csv")
    items = read(sstorycloze(root, stories=str(table), word_times=str(tmp_path / "times")))
    assert [raw.item.prompt for raw in items] == [" ".join(row[1]) for row in STORIES]
    assert [(raw.item.good, raw.item.bad) for raw in items] == [row[2:4] for row in STORIES]
    first = items[0].good_words[len(items[0].item.prompt.split())]
    assert first.text == "Tom"
    assert first.start_s is not None
    assert first.start_s > 2.0
    assert [word.text for word in items[0].bad_words] == f"{items[0].item.prompt} {items[0].item.bad}".split()


def test_word_times_may_be_one_file_for_all_recordings(tmp_path: Path) -> None:
    root = storycloze_tree(tmp_path / "s", voiced=True)
    table, times = str(story_table(tmp_path / "test.csv")), tmp_path / "times"
    lines = [
        f"{file.stem} 1 {word.start_s:.6f} {(word.end_s or 0) - (word.start_s or 0):.6f} {word.text}"
        for file in sorted(times.glob("*.TextGrid"))
        for word in read_alignment(file)
    ]
    (tmp_path / "all.ctm").write_text("\n".join(lines) + "\n")
    apart = read(sstorycloze(root, stories=table, word_times=str(times)))
    together = read(sstorycloze(root, stories=table, word_times=str(tmp_path / "all.ctm")))
    assert [raw.item for raw in together] == [raw.item for raw in apart]
    for one, other in zip(together, apart, strict=True):
        for mine, theirs in zip(one.good_words + one.bad_words, other.good_words + other.bad_words, strict=True):
            assert (mine.text, mine.start_s) == (theirs.text, pytest.approx(theirs.start_s, abs=1e-5))
    (tmp_path / "none").mkdir()
    for place, message in (("gone", "no such file or folder"), ("none", "no alignment in it; align the recordings")):
        with pytest.raises(DataError, match=rf"word_times .*{place}: {message}"):
            sstorycloze(root, stories=table, word_times=str(tmp_path / place))


def test_word_times_of_another_text_or_none_drop_the_item_with_its_reason(tmp_path: Path) -> None:
    root = storycloze_tree(tmp_path / "s", voiced=True)
    times = tmp_path / "times"
    (times / "s1_correct.TextGrid").unlink()
    (times / "s2_correct.TextGrid").rename(times / "s3_incorrect.TextGrid")
    table = story_table(tmp_path / "test.csv")
    source = sstorycloze(root, stories=str(table), word_times=str(times))
    with pytest.raises(DataError, match="no item can be used"):
        read(source)
    reasons = {skip.id: skip.reason for skip in source.skips}
    assert reasons["s1"] == "good candidate: its recording has no word times"
    assert reasons["s2"] == "good candidate: its recording has no word times"
    assert reasons["s3"].startswith("bad candidate: its word times belong to another text (")


def test_a_removed_pair_leaves_the_others_their_stories(tmp_path: Path) -> None:
    table = story_table(tmp_path / "test.csv")
    for first in (0, 1):
        root = tmp_path / str(first)
        write_sounds(root, [(f"{first + k}_x.wav", "", "") for k in range(2, 6)])  # The first story's pair is gone.
        items = read(sstorycloze(root, stories=str(table)))
        assert [raw.item.good for raw in items] == [" ".join([*row[1], row[2]]) for row in STORIES[1:]]


def test_word_times_alone_cannot_cut_and_the_topic_set_needs_its_own_endings(tmp_path: Path) -> None:
    root = storycloze_tree(tmp_path / "s")
    with pytest.raises(DataError, match="give stories=TABLE as well"):
        sstorycloze(root, word_times=str(tmp_path))
    with pytest.raises(DataError, match="wrong endings of StoryCloze itself"):
        tstorycloze(root, stories=str(story_table(tmp_path / "a.csv")))
    items = read(tstorycloze(root, stories=str(story_parts_table(tmp_path / "b.csv"))))
    assert items[0].item.bad.endswith(STORIES[1][2])
    rows = [("a", "He ran.", "prompt", ""), ("a", "x", "e", "correct"), ("a", "y", "e", "incorrect")]
    table = write_table(tmp_path / "c.csv", ("pair_id", "text", "type", "correctness"), rows)
    with pytest.raises(DataError, match="neither the id of one of 1 stories nor a row from 0 to 0"):
        read(sstorycloze(root, stories=str(table)))


def test_a_candidate_alone_and_a_name_without_label_are_skipped(tmp_path: Path) -> None:
    root = storycloze_tree(tmp_path / "s")
    (root / "s1_incorrect.wav").unlink()
    write_sounds(root, [("readme.wav", "", "")])
    source = sstorycloze(root)
    assert [raw.item.id for raw in read(source)] == ["s2", "s3"]
    assert [skip.id for skip in source.skips] == ["readme.wav", "s1"]
    assert "SpokenStoryCloze" in source.skips.skips[1].remedy
    with pytest.raises(DataError, match="no such folder"):
        read(sstorycloze(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("stem", "role"),
    [
        ("17_incorrect", ("17", "bad")),
        ("a_b-correct", ("a_b", "good")),
        ("3_mutual", ("3", "prompt")),
        ("correct", None),
    ],
)
def test_the_last_word_of_a_name_is_its_role(stem: str, role: tuple[str, str] | None) -> None:
    assert role_of(stem) == role


# --- several voices


@pytest.mark.parametrize("kind", ["wav", "jsonl", "parquet"])
def test_voices_share_pairs_and_keep_their_own_recordings(tmp_path: Path, kind: str) -> None:
    before = multi_speaker_tree(tmp_path / "w") / "sSC/bm/s2_negative.wav"
    source = sstorycloze_ms(multi_speaker_tree(tmp_path / "d", kind))
    items = {raw.item.id: raw for raw in read(source)}
    assert set(items) == {f"{voice}-{row[0]}" for voice in ("af", "bm") for row in STORIES}
    raw = items["bm-s2"]
    assert (raw.item.pair, raw.item.speaker) == ("s2", "bm")
    assert source.root is not None
    assert (source.root / paths(raw)[1]).read_bytes() == before.read_bytes()
    assert raw.item.good == ("" if kind == "wav" else " ".join([*STORIES[1][1], STORIES[1][2]]))


def test_sound_out_of_parquet_goes_where_it_is_told_and_is_written_once(tmp_path: Path) -> None:
    root = multi_speaker_tree(tmp_path / "d", "parquet", part="tSC", voices=("am",))
    source = tstorycloze_ms(root, unpack=str(tmp_path / "out"))
    first = read(source)
    assert paths(first[0]) == ("am/audio/s1-correct.wav", "am/audio/s1-negative.wav")
    stamp = (tmp_path / "out/am/audio/s1-correct.wav").stat().st_mtime_ns
    assert read(tstorycloze_ms(root, unpack=str(tmp_path / "out"))) == first
    assert (tmp_path / "out/am/audio/s1-correct.wav").stat().st_mtime_ns == stamp
    assert len(read(tstorycloze_ms(root / "tSC/am"))) == 3


def test_no_voice_gets_the_word_times_of_another(tmp_path: Path) -> None:
    root = multi_speaker_tree(tmp_path / "d", "jsonl")
    for id, told, good, bad in STORIES:  # Only the recordings of the second voice were aligned.
        for side, ending in (("correct", good), ("negative", bad)):
            said = f"{' '.join(told)} {ending}".split()
            words = [Word(text=text, start_s=k / 4, end_s=(k + 1) / 4) for k, text in enumerate(said)]
            place = tmp_path / f"times/bm/{id}_{side}.TextGrid"
            place.parent.mkdir(parents=True, exist_ok=True)
            write_alignment(place, words, duration_s=len(said) / 4)
    source = sstorycloze_ms(root, word_times=str(tmp_path / "times"))
    assert [raw.item.id for raw in read(source)] == ["bm-s1", "bm-s2", "bm-s3"]
    assert {skip.reason for skip in source.skips} == {"good candidate: its recording has no word times"}


def test_bad_rows_of_the_multi_speaker_set(tmp_path: Path) -> None:
    root = multi_speaker_tree(tmp_path, "parquet", voices=("am",))
    file = root / "sSC/am/train-00000-of-00001.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[0]["correct_audio"] = {"bytes": b"no sound", "path": None}
    pq.write_table(pa.Table.from_pylist(rows), file)
    source = sstorycloze_ms(root)
    assert [raw.item.id for raw in read(source)] == ["am-s2", "am-s3"]
    assert "begins with b'no s'" in source.skips.skips[0].reason
    pq.write_table(pa.Table.from_pylist([{"id": "s1"}]), file)
    with pytest.raises(DataError, match="no column correct_text, correct_audio, negative_text, negative_audio"):
        read(sstorycloze_ms(root))
    with pytest.raises(DataError, match="unpack is for Parquet files"):
        sstorycloze_ms(multi_speaker_tree(tmp_path / "w"), unpack="x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no folder of a voice in it; download the folder sSC"):
        sstorycloze_ms(tmp_path / "empty")


def test_sound_out_of_parquet_stays_in_the_root_and_may_be_mp3_at_any_rate(tmp_path: Path) -> None:
    root = multi_speaker_tree(tmp_path / "d", "parquet", voices=("am",))
    file = root / "sSC/am/train-00000-of-00001.parquet"
    rows = pq.read_table(file).to_pylist()
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 24_000)
    soundfile.write(tmp_path / "a.mp3", noise, 24_000)
    content = (tmp_path / "a.mp3").read_bytes()
    assert content[:2] == b"\xff\xf3"
    rows[0]["correct_audio"]["bytes"] = content
    pq.write_table(pa.Table.from_pylist(rows), file)
    assert paths(read(sstorycloze_ms(root))[0])[0] == "am/audio/s1-correct.mp3"
    unpack = tmp_path / "unpack"
    unpack.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (unpack / "am").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="a link that leads out of"):
        read(sstorycloze_ms(root, unpack=str(unpack)))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_path_in_a_table_cannot_leave_the_root(tmp_path: Path) -> None:
    root = multi_speaker_tree(tmp_path / "d", "jsonl", voices=("am",))
    table = root / "sSC/am/data.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    rows[1]["correct_audio"] = "../../../secret.wav"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"data\.jsonl, line 2: .*is not a path below"):
        read(sstorycloze_ms(root))


@pytest.mark.parametrize(
    ("good", "bad", "prompt"),
    [("He ran. He won.", "He ran. He lost.", "He ran."), ("He ran.", "He ran. He lost.", ""), ("Hi. A.", "Ho. A.", "")],
)
def test_stories_part_at_the_first_sentence_that_differs(good: str, bad: str, prompt: str) -> None:
    story = parted("x", good, bad)
    assert story is not None
    assert story.prompt == prompt
    assert f"{story.prompt} {story.good}".strip() == good
    assert f"{story.prompt} {story.bad}".strip() == bad


# --- recorded apart, numbers, SALMon


def test_prompt_and_endings_recorded_apart(tmp_path: Path) -> None:
    source = cross_modal(cross_modal_tree(tmp_path))
    raw = read(source)[0]
    assert (raw.prompt, raw.good_ending, raw.bad_ending) == tuple(
        Clip(path=f"s1_{role}.wav") for role in ("mutual", "correct", "incorrect")
    )
    assert (raw.item.prompt, raw.item.good, raw.item.bad) == (" ".join(STORIES[0][1]), *STORIES[0][2:4])
    assert raw.good is None


def test_texts_alone_are_items_to_be_spoken_and_holes_are_named(tmp_path: Path) -> None:
    source = cross_modal(cross_modal_tree(tmp_path / "t", sounds=False))
    assert (source.root, len(read(source))) == (None, 3)
    root = cross_modal_tree(tmp_path / "d")
    (root / "s1_mutual.wav").unlink()
    (root / "s2_incorrect.txt").unlink()
    (root / "s3_correct.txt").write_text(" \n")
    source = cross_modal(root)
    with pytest.raises(DataError, match="no item can be used"):
        read(source)
    assert [skip.reason.split(" (")[0] for skip in source.skips] == [
        "prompt.wav missing",
        "bad.txt missing",
        "good.txt empty",
    ]


@pytest.mark.parametrize(("first", "separator"), [(0, "_"), (1, "+")])
def test_slamkit_numbers_pair_from_the_first_on(tmp_path: Path, first: int, separator: str) -> None:
    items = read(slamkit_pairs(slamkit_tree(tmp_path, first=first, separator=separator), sep=separator))
    assert [paths(raw)[0].split(separator)[0] for raw in items] == [str(first + k) for k in (0, 2, 4)]
    assert [paths(raw)[1].split(separator)[0] for raw in items] == [str(first + k) for k in (1, 3, 5)]


def test_ten_comes_after_two_and_folders_are_speakers(tmp_path: Path) -> None:
    for voice in ("a", "b"):
        slamkit_tree(tmp_path / voice, count=12)
    items = read(slamkit_pairs(tmp_path))
    assert [paths(raw) for raw in items][4:7] == [
        ("a/8_word8.wav", "a/9_word9.wav"),
        ("a/10_word10.wav", "a/11_word11.wav"),
        ("b/0_word0.wav", "b/1_word1.wav"),
    ]
    assert (items[6].item.id, items[6].item.pair, items[6].item.speaker) == ("b-0", "0", "b")


def test_random_labels_odd_counts_and_shifts_are_refused(tmp_path: Path) -> None:
    labelled = tmp_path / "labelled"
    write_sounds(labelled, [("0_correct.wav", "", ""), ("0_incorrect.wav", "", "")])
    with pytest.raises(
        DataError, match=r"number 0 also stands in .* labels would be random.*read them with task sstory"
    ):
        slamkit_pairs(labelled)
    with pytest.raises(DataError, match="3 recordings from number 0 on, and number 2 has no partner"):
        slamkit_pairs(slamkit_tree(tmp_path / "odd", count=3))
    shifted = slamkit_tree(tmp_path / "shifted", count=6)
    (shifted / "1_word1.wav").unlink()
    (shifted / "5_word5.wav").unlink()
    with pytest.raises(DataError, match=r"0_word0\.wav: 4 recordings .* \(2 have none\)"):
        slamkit_pairs(shifted)
    with pytest.raises(DataError, match="sep is empty; give what stands behind the number"):
        slamkit_pairs(labelled, sep="")
    write_sounds(tmp_path / "words", [("dog.wav", "", "")])
    with pytest.raises(DataError, match="no number in front of '_'"):
        slamkit_pairs(tmp_path / "words")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no item can be used"):
        read(slamkit_pairs(tmp_path / "empty"))


def test_salmon_has_parts_as_sets_and_names_those_it_lacks(tmp_path: Path) -> None:
    root = salmon_tree(tmp_path)
    source = salmon(root, parts="bg_alignment+gender_consistency")
    items = read(source)
    assert [(raw.item.set, *paths(raw)) for raw in items][:2] == [
        ("bg_alignment", "bg_alignment/sample_0_0.wav", "bg_alignment/sample_0_1.wav"),
        ("bg_alignment", "bg_alignment/sample_1_0.wav", "bg_alignment/sample_1_1.wav"),
    ]
    assert {raw.item.set for raw in items} == {"bg_alignment", "gender_consistency"}
    with pytest.raises(DataError, match=r"6 of 8 parts are missing: bg_all_consistency, .*; download salmon_benchmark"):
        salmon(root)
    with pytest.raises(DataError, match="no part loudness; allowed are bg_alignment"):
        salmon(root, parts="loudness")
    write_sounds(root, [("bg_alignment/sample_9_1.wav", "", ""), ("bg_alignment/notes.wav", "", "")])
    source = salmon(root, parts="bg_alignment")
    assert len(read(source)) == 2
    assert [skip.id for skip in source.skips] == ["bg_alignment/notes.wav", "bg_alignment-9"]


# --- text tables


def test_stories_of_the_table_have_their_right_ending(tmp_path: Path) -> None:
    items = read(cloze(story_table(tmp_path / "t.csv")))
    assert [(raw.item.id, raw.item.prompt, raw.item.good, raw.item.bad) for raw in items] == [
        (id, " ".join(told), good, bad) for id, told, good, bad in STORIES
    ]
    hub = {
        "story_id": "s1",
        **{f"input_sentence_{k}": text for k, text in enumerate(STORIES[0][1], start=1)},
        "sentence_quiz1": STORIES[0][3],
        "sentence_quiz2": STORIES[0][2],
        "answer_right_ending": 2,
    }
    (tmp_path / "h.jsonl").write_text(json.dumps(hub) + "\n")
    assert read(cloze(tmp_path / "h.jsonl")) == items[:1]


def test_topic_endings_are_a_derangement_that_only_the_seed_decides(tmp_path: Path) -> None:
    many = [
        story
        for k in range(40)
        for story in [read_stories(story_table(tmp_path / "t.csv"))[k % 3]]
        for story in [type(story)(id=f"{k}", prompt=f"p{k}", good=f"g{k}", bad="b")]
    ]
    made = with_foreign_endings(many, 3)
    assert sorted(story.bad for story in made) == sorted(story.good for story in many)
    assert not any(story.bad == story.good for story in made)
    assert made == with_foreign_endings(many, 3) != with_foreign_endings(many, 4)
    items = read(cloze(tmp_path / "t.csv", topic="true", seed="1"))
    assert {raw.item.bad for raw in items} == {row[2] for row in STORIES}
    with pytest.raises(DataError, match="2 stories with one ending"):
        with_foreign_endings([many[0], many[0]], 0)
    with pytest.raises(DataError, match="seed = -1, a whole number of at least 0"):
        cloze(tmp_path / "t.csv", topic="true", seed="-1")
    with pytest.raises(DataError, match="topic = 'yes'"):
        cloze(tmp_path / "t.csv", topic="yes")


def test_tables_without_answers_columns_or_unique_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: no column AnswerRightEnding: a test split without answers"):
        cloze(story_table(tmp_path / "t.csv", answers=False))
    table = story_table(tmp_path / "a.csv")
    good = table.read_text()
    table.write_text(good.replace("s2,", "s1,"))
    with pytest.raises(DataError, match="line 3: story 's1' comes twice"):
        cloze(table)
    table.write_text(good.replace("Tom ate soup.,1", "Tom ate soup.,0"))
    with pytest.raises(DataError, match="line 2: AnswerRightEnding = '0', allowed are 1 and 2"):
        cloze(table)
    table.write_text(good.replace("It ran away.", " "))
    with pytest.raises(DataError, match="line 2: 'inputsentence2' is ' ', a text is needed"):
        cloze(table)
    table.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"line 2: no column inputstoryid, inputsentence1, .*; it has a, b"):
        cloze(table)
    write_table(table, ("pair_id", "text", "type", "correctness"), [("a", "x", "prompt", "")])
    with pytest.raises(DataError, match="story 'a' has no row for correct, incorrect"):
        cloze(table)
