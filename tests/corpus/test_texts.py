"""Catches words lost between a text file and its sentences, and one bad byte that costs a whole file."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechscale.corpus import text_formats
from speechscale.corpus.sentences import cut_long, group_sentences, has_speech, split_sentences
from speechscale.corpus.texts import Document, TextOptions, read_documents, safe_id
from speechscale.errors import DataError
from speechscale.skips import SkipLog


def read(path: Path, **options: str) -> tuple[list[Document], SkipLog]:
    log = SkipLog()
    return list(read_documents(path, options=TextOptions(**options), skips=log)), log


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Dr. Fox ran. "Stop!" she said.', ["Dr. Fox ran.", '"Stop!" she said.']),
        ("She met Mr. and Mrs. Hill. They sat. Tom ran.", ["She met Mr. and Mrs. Hill.", "They sat.", "Tom ran."]),
        ("J. R. Hartley paid 3.50. Why? No! Wait...", ["J. R. Hartley paid 3.50.", "Why?", "No!", "Wait..."]),
        (
            "It was 5 p.m. The U.S. army left the U.S. They won.",
            ["It was 5 p.m.", "The U.S. army left the U.S.", "They won."],
        ),
        ("Take No. 5 now. No. I stay.", ["Take No. 5 now.", "No.", "I stay."]),
        ("he said... then left. e.g. Paris vs. Rome.", ["he said... then left. e.g. Paris vs. Rome."]),
        ('"Hi." "Ho!" (Fine.) End', ['"Hi."', '"Ho!"', "(Fine.)", "End"]),
        ("A title\n\nA line\nthat goes on. *** \n\n***", ["A title", "A line that goes on. *** ***"]),
        ("*** Start.", ["*** Start."]),
        ("", []),
        ("...", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


TEXT = st.text(st.sampled_from("aB .!?\"'\n,5-…é("), max_size=80)


@given(TEXT, st.integers(1, 9))
def test_no_word_is_lost_or_moved(text: str, max_words: int) -> None:
    sentences = split_sentences(text)
    assert " ".join(sentences).split() == (text.split() if has_speech(text) else [])
    parts = [part for sentence in sentences for part in cut_long(sentence, max_words)]
    groups = list(group_sentences(parts, max_words))
    assert " ".join(" ".join(group) for group in groups).split() == " ".join(sentences).split()
    assert all(has_speech(part) for part in parts)
    for group in groups:
        assert len(group) == 1 or sum(len(part.split()) for part in group) <= max_words


def test_a_long_sentence_is_cut_at_a_comma() -> None:
    assert cut_long("a b, c d e f", 3) == ["a b,", "c d e", "f"]
    assert cut_long("a, b c d e f g h", 6) == ["a, b c d e f", "g h"]


def test_stories_end_where_they_say(tmp_path: Path) -> None:
    path = write(tmp_path / "s.txt", "One.\nTwo.\n\nThree.\n<|endoftext|>\nFour.<|endoftext|>Five.\n<|endoftext|>\n\n")
    documents, log = read(path)
    assert [document.text.split() for document in documents] == [["One.", "Two.", "Three."], ["Four."], ["Five."]]
    assert [document.id for document in documents] == ["s-0000000", "s-0000001", "s-0000002"]
    assert documents[1].place == "s.txt, line 6"
    assert not log


def test_the_real_tinystories_sample(shared: Path) -> None:
    documents, log = read(shared / "data" / "dev-text" / "tinystories_part1.txt")
    assert (len(documents), len(log)) == (1158, 0)
    assert documents[0].text.startswith("One day, a little girl named Lily")


def test_paragraphs_and_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "p.txt", b"\xef\xbb\xbfOne\ntwo.\r\n\r\n \nThree.\n")
    assert [document.text for document in read(path)[0]] == ["One\ntwo.", "Three."]
    assert [document.text for document in read(path, format="lines")[0]] == ["One", "two.", "Three."]


def test_a_bad_byte_costs_one_document_and_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "b.txt", b"Fine.\n\nCaf\xe9 au lait.\n\n-- ** --\n\nAlso fine.")
    documents, log = read(path)
    assert [document.id for document in documents] == ["b-0000000", "b-0000003"]
    assert [(skip.id, skip.reason) for skip in log] == [
        ("b-0000001", "b.txt, line 3: not UTF-8 (byte 3 is 0xe9)"),
        ("b-0000002", "b.txt, line 5: nothing to speak (no letter, no digit)"),
    ]
    assert "iconv" in log.skips[0].remedy


def test_utf16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="UTF-16"):
        read(write(tmp_path / "u.txt", "Hello there.".encode("utf-16")))


def test_control_characters_are_no_speech(tmp_path: Path) -> None:
    (document,), _ = read(write(tmp_path / "c.txt", "go\x01 home\x07 now\x1b[0m."))
    assert document.text.isprintable()
    assert document.text.split() == ["go", "home", "now", "[0m."]


def test_jsonl_names_every_bad_row(tmp_path: Path) -> None:
    rows = ['{"id": "a/b", "text": "One."}', "{broken", "[1]", '{"id": "c"}', "", '{"id": "d", "text": "Two."}']
    rows += ['{"id": "a-b", "text": "Again."}', '{"text": "No id."}', '{"id": 7, "text": "\\ud800 lone."}']
    path = write(tmp_path / "j.jsonl", "\n".join(rows))
    documents, log = read(path, id_field="id")
    assert [(document.id, document.text) for document in documents] == [("a-b", "One."), ("d", "Two.")]
    assert [skip.reason.split(": ", 1)[1].split(" (")[0] for skip in log] == [
        "not JSON",
        "no text in field 'text'",
        "no text in field 'text'",
        "the id 'a-b' came before",
        "no id in field 'id'",
        "not UTF-8",
    ]
    assert len(documents) + len(log) == len([row for row in rows if row])


def test_csv_tsv_parquet_and_gzip_hold_the_same(tmp_path: Path) -> None:
    stories = ['One, "two".\nThree.', "Four\tfive."]
    write(tmp_path / "a.csv", 'n,story\n1,"One, ""two"".\nThree."\n2,Four\tfive.\n')
    write(tmp_path / "b.tsv", 'n\tstory\n1\t"One, ""two"".\nThree."\n2\t"Four\tfive."\n')
    pq.write_table(pa.table({"n": [1, 2], "story": stories}), tmp_path / "c.parquet")
    jsonl = "".join(json.dumps({"story": story}) + "\n" for story in stories)
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(jsonl.encode()))
    documents, log = read(tmp_path)
    assert not log
    assert [document.text for document in documents] == stories * 4
    assert [document.id for document in documents[::2]] == ["a-0000000", "b-0000000", "c-0000000", "d-0000000"]


def test_a_bad_byte_in_csv_costs_one_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"text,n\nCaf\xe9,1\nFine.,2\n")
    documents, log = read(path)
    assert [document.text for document in documents] == ["Fine."]
    assert "not UTF-8 (byte 3 is 0xe9)" in log.skips[0].reason


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_missing_column_is_named_with_those_there(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("csv"):
        write(path, "foo,bar\n1,2\n")
    else:
        pq.write_table(pa.table({"foo": [1], "bar": [2]}), path)
    with pytest.raises(DataError, match="foo, bar"):
        read(path)
    with pytest.raises(DataError, match="'body'"):
        read(path, text_field="body")


@pytest.mark.parametrize("data", [b"", b"PAR1 not parquet", b"\x1f\x8b broken"])
def test_damaged_files_are_refused_with_their_name(data: bytes, tmp_path: Path) -> None:
    for name in ("x.parquet", "x.jsonl.gz"):
        path = write(tmp_path / name, data)
        if data or name.endswith("parquet"):
            with pytest.raises(DataError, match=name):
                read(path)


def test_sources_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "none.txt")
    with pytest.raises(DataError, match="no file ends in"):
        read(tmp_path)
    with pytest.raises(DataError, match="--text-format"):
        read(write(tmp_path / "x.doc", "Hi."))
    with pytest.raises(DataError, match="allowed are auto"):
        read(tmp_path, format="word")


def test_folders_give_unique_ids_and_no_way_out(tmp_path: Path) -> None:
    """Catches two files whose documents would overwrite each other's audio, and links out of the folder."""
    for name in ("a/x.txt", "b/x.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "in" / name, "Hi.")
    assert [document.id for document in read(tmp_path / "in")[0]] == ["a-x-0000000", "b-x-0000000"]
    write(tmp_path / "in" / "a" / "x.jsonl", "{}")
    with pytest.raises(DataError, match="rename one"):
        read(tmp_path / "in")
    (tmp_path / "in" / "a" / "x.jsonl").unlink()
    (tmp_path / "in" / "out.txt").symlink_to(write(tmp_path / "secret.txt", "Hi."))
    with pytest.raises(DataError, match="leaves the folder"):
        read(tmp_path / "in")


@given(st.text(max_size=200))
def test_ids_are_safe_file_names(name: str) -> None:
    id = safe_id(name)
    assert id
    assert len(id) <= 120
    assert not set(id) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not id.startswith((".", "-"))


def test_a_file_without_separators_is_dropped_without_being_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches readers that load a file of one endless line or story."""
    monkeypatch.setattr(text_formats, "MAX_DOCUMENT_BYTES", 100_000)
    line = b"word " * 1000 + b"\n"
    endless = write(tmp_path / "e.txt", line * 2000 + b"<|endoftext|>\nFine.\n")
    one_line = write(tmp_path / "l.jsonl", b'{"text": "' + b"word " * 2_000_000 + b'"}\n{"text": "Fine."}\n')
    tracemalloc.start()
    try:
        for path in (endless, one_line):
            documents, log = read(path, format="stories" if path is endless else "auto")
            assert [document.text.strip() for document in documents] == ["Fine."]
            assert "longer than" in log.skips[0].reason
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
