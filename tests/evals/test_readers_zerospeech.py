"""Would catch: a pair made by row order, voices mixed up, a lost half or file without a word, a wrong label column."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import RawItem, Source
from speechscale.evals.tasks import sblimp, swuggy
from speechscale.speech.audio import load_audio
from tests.evals.trees import SENTENCES, VOICES, WORDS, lexical_tree, syntactic_tree, write_table, zerospeech_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zerospeech_tree(tmp_path_factory.mktemp("zr2021"))


@pytest.fixture
def copy(tree: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree, tmp_path / "copy"))


def read(source: Source) -> list[RawItem]:
    return list(source.items)


def change(gold: Path, old: str, new: str) -> None:
    text = gold.read_text()
    assert old in text
    gold.write_text(text.replace(old, new, 1))


def test_words_are_paired_by_id_and_voice(tree: Path) -> None:
    source = swuggy(tree)
    items = {raw.item.id: raw for raw in read(source)}
    assert source.root == tree / "lexical/dev"
    assert set(items) == {f"{number}-{voice}" for number in range(len(WORDS)) for voice in VOICES}
    raw = items["1-gb-m3"]
    assert (raw.item.good, raw.item.bad, raw.item.pair, raw.item.speaker) == ("market", "marbor", "1", "gb-m3")
    assert raw.good is not None
    assert raw.bad is not None
    assert (raw.good.path, raw.bad.path) == ("x1gbm31.wav", "x1gbm30.wav")
    assert [items[f"{number}-us-f2"].item.tag for number in range(3)] == ["in_vocab", "oov", "in_vocab"]
    assert len(source.skips) == 0


def test_sentences_have_phenomenon_and_subtype_and_equal_ids_of_two_types_stay_apart(tree: Path) -> None:
    items = read(sblimp(tree))
    assert len(items) == len(SENTENCES) * len(VOICES)
    assert {(raw.item.phenomenon, raw.item.tag) for raw in items} == {(row[0], row[1]) for row in SENTENCES}
    assert {(raw.item.good, raw.item.bad) for raw in items} == {(row[2], row[3]) for row in SENTENCES}
    assert len({raw.item.pair for raw in items}) == len(SENTENCES)


@given(order=st.permutations(range(12)))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pairing_survives_any_order_of_rows(tree: Path, tmp_path: Path, order: list[int]) -> None:
    for task, part in ((swuggy, "lexical"), (sblimp, "syntactic")):
        folder = tmp_path / part / "dev"
        if not folder.exists():
            shutil.copytree(tree / part / "dev", folder)
        header, *rows = (tree / part / "dev/gold.csv").read_text().splitlines()
        (folder / "gold.csv").write_text("\n".join([header, *(rows[i] for i in order)]) + "\n")
        shuffled, plain = read(task(tmp_path)), read(task(tree))
        assert sorted(shuffled, key=lambda raw: raw.item.id) == sorted(plain, key=lambda raw: raw.item.id)


def test_folders_at_any_level_are_found(tree: Path) -> None:
    assert {len(read(swuggy(place))) for place in (tree, tree / "lexical", tree / "lexical/dev")} == {6}


def test_test_split_needs_its_answers(tmp_path: Path, copy: Path) -> None:
    lexical_tree(copy, split="test")
    assert swuggy(copy, split="test").facts.version == "ZeroSpeech 2021, test"
    (copy / "lexical/test/gold.csv").unlink()
    with pytest.raises(DataError, match="keeps the answers of the test split back"):
        swuggy(copy, split="test")
    with pytest.raises(DataError, match="split = 'train', allowed are dev and test"):
        sblimp(copy, split="train")
    (copy / "lexical/dev/gold.csv").unlink()
    with pytest.raises(DataError, match=r"no gold\.csv, which says what is right; download"):
        swuggy(copy)
    with pytest.raises(DataError, match=r"no such folder; download the sLM21 data"):
        swuggy(tmp_path / "nowhere")


def test_missing_files_are_skipped_by_name_and_all_missing_is_an_error(copy: Path) -> None:
    (copy / "lexical/dev/x0usf20.wav").unlink()
    source = swuggy(copy)
    assert len(read(source)) == 5
    (skip,) = source.skips
    assert (skip.id, skip.reason) == ("0-us-f2", "recording x0usf20 is missing")
    assert "zerospeech.com" in skip.remedy
    for file in (copy / "lexical/dev").glob("*.wav"):
        file.unlink()
    with pytest.raises(
        DataError, match=r"all 6 items lack a recording; 12 are missing: x0usf21, x0usf20, .* and 9 more"
    ):
        read(swuggy(copy))


def test_a_half_without_partner_and_a_second_half_are_named_with_their_line(copy: Path) -> None:
    gold = copy / "lexical/dev/gold.csv"
    lines = gold.read_text().splitlines()
    gold.write_text("\n".join([*lines[:2], *lines[3:], lines[5]]) + "\n")
    source = swuggy(copy)
    assert len(read(source)) == 5
    reasons = {skip.id: skip.reason for skip in source.skips}
    assert reasons["0-us-f2"] == "lexical/dev/gold.csv, line 2 has a good candidate, there is no bad one"
    assert reasons["1-us-f2 (lexical/dev/gold.csv, line 13)"] == "one more good candidate of this item"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("4,1\n", "4,yes\n", "line 2: correct = 'yes', allowed are 1 and 0"),
        (",12,", ",often,", "line 2: frequency = 'often', a count is needed"),
        ("x0usf21", "../x0usf21", r"line 2: '\.\./x0usf21' is not the name of a recording"),
        ("x0usf21", "/etc/x", "line 2: '/etc/x' is not the name of a recording"),
        ("AA B,4,1", "AA B,4,1,9", "line 2: 9 fields, the header has 8"),
        ("frequency", "count", "column frequency missing; the header has id, filename, voice, count"),
        ("AA B", '"AA', "not a row of a table"),
    ],
)
def test_rows_that_cannot_be_trusted_are_refused_by_line(copy: Path, old: str, new: str, message: str) -> None:
    change(copy / "lexical/dev/gold.csv", old, new)
    with pytest.raises(DataError, match=rf"lexical/dev/gold\.csv.*{message}"):
        read(swuggy(copy))


def test_a_recording_that_leads_out_of_the_folder_is_refused(copy: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.wav"
    (copy / "lexical/dev/x0usf21.wav").rename(outside)
    (copy / "lexical/dev/x0usf21.wav").symlink_to(outside)
    with pytest.raises(DataError, match="a link that leads out of"):
        swuggy(copy)


def test_a_non_word_written_like_its_word_has_no_text_but_sound(copy: Path) -> None:
    change(copy / "lexical/dev/gold.csv", "harket", "harbor")
    raw = next(raw for raw in read(swuggy(copy)) if raw.item.id == "0-us-f2")
    assert not raw.item.has_text
    assert raw.good != raw.bad


def test_the_whole_test_split_is_read_in_a_few_megabytes(tmp_path: Path) -> None:
    folder = tmp_path / "lexical/test"
    header = ("id", "filename", "voice", "frequency", "word", "phones", "length", "correct")
    count = 10_000
    rows = ((k // 2, f"w{k}", "v", 1, f"word{k}", "A B", 2, 1 - k % 2) for k in range(count))
    write_table(folder / "gold.csv", header, rows)
    for k in range(8):
        (folder / f"w{k}.wav").touch()
    tracemalloc.start()
    source = swuggy(tmp_path, split="test")
    assert sum(1 for _ in source.items) == 4
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(source.skips) == count // 2 - 4
    assert peak < 8e6  # mostly the 4,996 skips; 160,000 rows stay far below a gigabyte


def test_our_voices_speak_such_a_tree(tmp_path: Path) -> None:
    root = syntactic_tree(tmp_path, voiced=True)
    items = read(sblimp(root))
    assert len(items) == 6
    clip = items[0].good
    assert clip is not None
    assert load_audio(root / "syntactic/dev" / clip.path).audio.std() > 0.01
