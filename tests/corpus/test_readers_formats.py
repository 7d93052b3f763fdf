"""Catches formats that are misread: wrong text, speaker, range or word times, lost lines, commands that are run."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from speechscale.corpus.readers import FORMATS, sniff
from speechscale.corpus.readers.columns import entry_of, words_of
from speechscale.corpus.readers.kaldi import readable_file
from speechscale.corpus.readers.trees import join_stretches
from speechscale.errors import DataError, MissingExtra
from speechscale.records import Word
from tests.corpus.sources import entries, faults, read_all, sound, sound_bytes, write_lines, write_tar


def test_librispeech_tree_names_ids_splits_and_what_has_no_partner(tmp_path: Path) -> None:
    root = tmp_path / "LibriSpeech"
    for split, speaker in [("train-clean-100", "84"), ("dev-other", "99")]:
        folder = root / split / speaker / "7"
        for index in range(2):
            sound(folder / f"{speaker}-7-000{index}.flac")
        (folder / f"{speaker}-7.trans.txt").write_text(f"{speaker}-7-0000 GO ON\n{speaker}-7-0009 LOST\n")
    assert sniff(root) == "librispeech"
    found = read_all("librispeech", root)
    assert [(e.id, e.text, e.speaker, e.split) for e in entries(found)] == [
        ("99-7-0000", "GO ON", "99", "select"),
        ("84-7-0000", "GO ON", "84", "train"),
    ]
    assert entries(found)[0].audio == "dev-other/99/7/99-7-0000.flac"
    reasons = faults(found)
    assert reasons.keys() == {"84-7-0009", "84-7-0001", "99-7-0009", "99-7-0001"}
    assert "no audio 84-7-0009.flac" in reasons["84-7-0009"]
    assert "no line in a .trans.txt" in reasons["84-7-0001"]
    (tmp_path / "out.trans.txt").write_text("84-7-0001 OUTSIDE\n")
    (root / "train-clean-100/84/7/x.trans.txt").symlink_to(tmp_path / "out.trans.txt")
    reasons = faults(read_all("librispeech", root))
    assert "leads out" in reasons["train-clean-100/84/7/x.trans.txt"]
    assert "84-7-0001" in reasons
    one = read_all("librispeech", root / "dev-other")
    assert {e.split for e in entries(one)} == {"select"}


def test_librilight_is_cut_by_its_list_of_speech(tmp_path: Path) -> None:
    book = tmp_path / "small/100/some_book"
    sound(book / "a.flac", 40)
    meta = {
        "speaker": "100",
        "book_meta": {"title": "T"},
        "voice_activity": [[0.5, 8], [8.5, 12], [20, 21], [30, 30.2]],
    }
    (book / "a.json").write_text(json.dumps(meta))
    sound(book / "b.flac", 2)
    sound(book / "c.flac", 2)
    (book / "c.json").write_text(json.dumps({"voice_activity": [[3, 2]]}))
    assert sniff(tmp_path) == "librilight"
    found = read_all("librilight", tmp_path, piece_s=15.0)
    assert [(e.id, e.start_s, e.end_s, e.speaker, e.text) for e in entries(found)] == [
        ("a-00000500-00012000", 0.5, 12.0, "100", None),
        ("a-00020000-00021000", 20.0, 21.0, "100", None),
    ]
    reasons = faults(found)
    assert reasons.keys() == {"a-00030000-00030200", "b", "c"}
    assert "voice_activity 3..2 s is out of order" in reasons["c"]


@given(st.lists(st.tuples(st.floats(0.01, 5), st.floats(0.05, 20)), max_size=30), st.floats(1, 30))
def test_joined_stretches_hold_all_speech_once_in_order(steps: list[tuple[float, float]], piece_s: float) -> None:
    stretches, at = [], 0.0
    for gap, length in steps:
        stretches.append((at + gap, at + gap + length))
        at += gap + length
    pieces = join_stretches(stretches, piece_s)
    for start, end in stretches:
        assert sum(a <= start and end <= b for a, b in pieces) == 1
    assert all(a[1] <= b[0] for a, b in pairwise(pieces))
    assert all(b - a <= piece_s or (a, b) in stretches for a, b in pieces)


def test_vctk_reads_one_microphone(tmp_path: Path) -> None:
    for mic in (1, 2):
        sound(tmp_path / f"wav48_silence_trimmed/p225/p225_001_mic{mic}.flac")
    sound(tmp_path / "wav48_silence_trimmed/p225/p225_002_mic1.flac")
    (tmp_path / "txt/p225").mkdir(parents=True)
    (tmp_path / "txt/p225/p225_001.txt").write_text("Please call Stella.\n")
    assert sniff(tmp_path) == "vctk"
    found = read_all("vctk", tmp_path)
    assert [(e.id, e.speaker, e.text) for e in entries(found)] == [("p225_001", "p225", "Please call Stella.\n")]
    assert faults(found).keys() == {"p225_002"}


def test_audio_names_tell_text_and_speaker(tmp_path: Path) -> None:
    sound(tmp_path / "7_theo_3.wav")
    sound(tmp_path / "test/odd.wav")
    found = read_all("audio", tmp_path, names="{text}_{speaker}_{take}")
    assert [(e.text, e.speaker) for e in entries(found)] == [("7", "theo")]
    assert "not of the form {text}_{speaker}_{take}" in faults(found)["odd"]
    plain = entries(read_all("audio", tmp_path))
    assert [(e.speaker, e.split, e.text) for e in plain] == [(tmp_path.name, "", None), ("test", "test", None)]
    with pytest.raises(DataError, match="--names abc"):
        read_all("audio", tmp_path, names="abc")


def test_jsonl_in_nemo_and_other_spellings(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"audio_filepath": "a.wav", "offset": 1.5, "duration": 2, "text": "go on", "lang": "en"},
        {"wav": "b.wav", "sentence": "yes", "client_id": "ann", "id": 7, "split": "validation", "channel": "1"},
        {"audio": {"path": "c.wav"}, "aligned_text": [[" good", 0.1, 0.4], [" day", None, None]], "license": "CC0"},
        {"audio": {"file": "d.wav", "start": 16000, "stop": 32000}, "text": "cut", "speaker_id": 3},
        {"audio": "e.wav", "duration": "long"},
        {"text": "no audio"},
        ["list"],
        {"audio": "f.wav", "text": 5},
        {"audio": "g.wav", "duration": float("nan")},
    ]
    path = write_lines(tmp_path / "train.json", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b'\n{"audio": "h.wav", "text": "caf\xe9"}\n{broken\n')
    assert sniff(path) == "jsonl"
    found = read_all("jsonl", path)
    a, b, c, d = entries(found)
    assert (a.audio, a.start_s, a.end_s, a.text, a.language) == ("a.wav", 1.5, 3.5, "go on", "en")
    assert (b.id, b.speaker, b.split, b.channel) == ("7", "ann", "select", 1)
    assert c.words == (Word(text="good", start_s=0.1, end_s=0.4), Word(text="day"))
    assert c.licence == "CC0"
    assert (d.start_sample, d.end_sample, d.speaker, d.end_s) == (16000, 32000, "3", None)
    reasons = list(faults(found).values())
    for reason, sign in zip(
        reasons,
        [
            "duration is 'long'",
            "no audio column",
            "a JSON list",
            "transcript is a int",
            "finite",
            "UTF-8 at byte",
            "not JSON",
        ],
        strict=True,
    ):
        assert sign in reason
    assert reasons[0].startswith("train.json, line 5: ")
    assert len(found) == 11


def test_columns_are_mapped_and_unknown_ones_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "m.jsonl", [{"audio": "a.wav", "text": "raw", "clean": "good", "who": "ann"}])
    entry = entries(read_all("jsonl", path, columns={"text": "clean", "speaker": "who"}))[0]
    assert (entry.text, entry.speaker) == ("good", "ann")
    missing = faults(read_all("jsonl", path, columns={"text": "gone"}))
    assert "no column 'gone' for text" in "".join(missing.values())
    with pytest.raises(DataError, match="'txt' is not one of audio, text"):
        read_all("jsonl", path, columns={"txt": "clean"})


def test_words_count_from_the_utterance_whatever_the_manifest_counts_from() -> None:
    from_file = [["go", 10.2, 10.5], ["on", 10.5, 11.0]]
    from_item = [["go", 0.2, 0.5], ["on", 0.5, 1.0]]
    for times in (from_file, from_item):
        row = {"audio": "a.wav", "offset": 10.0, "duration": 1.2, "text": "go on", "aligned_text": times}
        assert [(w.start_s, w.end_s) for w in entry_of(row, "x", {}).words] == [(0.2, 0.5), (0.5, 1.0)]
    with pytest.raises(DataError, match="word 0 is"):
        words_of([5])


def test_tables_of_all_delimiters(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('path,sentence,speaker\na.wav,"Yes, ""no""\nor so",ann\nb.wav,only two\n')
    found = read_all("table", tmp_path / "a.csv")
    assert [(e.audio, e.text, e.speaker) for e in entries(found)] == [("a.wav", 'Yes, "no"\nor so', "ann")]
    assert "2 cells, the header has 3" in "".join(faults(found).values())
    clips = tmp_path / "cv"
    (clips / "clips").mkdir(parents=True)
    (clips / "train.tsv").write_text('client_id\tpath\tsentence\tlocale\nx1\tc.mp3\tSay "yes.\ten\n')
    entry = entries(read_all("table", clips / "train.tsv"))[0]
    assert (entry.audio, entry.text, entry.language, entry.speaker) == ("clips/c.mp3", 'Say "yes.', "en", "x1")
    (tmp_path / "p.txt").write_bytes(b"file_name|transcription\nq.wav|caf\xe9\n")
    assert entries(read_all("table", tmp_path / "p.txt"))[0].text == "caf\udce9"
    (tmp_path / "n.csv").write_text("a.wav,hello\n")
    with pytest.raises(DataError, match=r"n\.csv: its first line is no header"):
        read_all("table", tmp_path / "n.csv")
    folder = tmp_path / "audiofolder"
    folder.mkdir()
    (folder / "metadata.csv").write_text("file_name,transcription\nb.wav,two\n")
    assert sniff(folder) == "table"


def test_fairseq_manifest_with_words(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("/data\nx/a.flac\t16000\nb.flac\t32000\nc.flac\tmany\n")
    (tmp_path / "t.wrd").write_text("GO ON\nYES\nNO\n")
    assert sniff(tmp_path / "t.tsv") == "fairseq"
    found = read_all("fairseq", tmp_path / "t.tsv")
    assert [(e.audio, e.text) for e in entries(found)] == [("x/a.flac", "GO ON"), ("b.flac", "YES")]
    assert faults(found).keys() == {"c.flac"}


KALDI_PIPES = {
    "a b/c.wav": ("a b/c.wav", None),
    "cat a.wav |": ("a.wav", None),
    "flac -c -d -s x/b.flac |": ("x/b.flac", None),
    "/usr/bin/flac -cds 'with space.flac' |": ("with space.flac", None),
    "sph2pipe -f wav -p -c 2 c.sph |": ("c.sph", 1),
    "sox d.mp3 -r 16000 -t wav - |": ("d.mp3", None),
}
KALDI_REFUSED = [
    "sox -r 16000 -b16 -c 1 --null -t wav - synth 100s sine 300 |",
    "sox a.wav -t wav - speed 1.1 |",
    "cat a.wav b.wav |",
    "cat a.wav; rm -rf b |",
    "cat $(ls) |",
    "cat a.wav | sox - - |",
    "cat *.wav |",
    "flac -s b.flac |",
    "flac -d --skip=10 -c b.flac |",
    "python evil.py |",
    "cat 'open |",
    "|",
    "-",
    "raw.ark:1234",
]


def test_kaldi_pipes_are_parsed_and_never_run(tmp_path: Path) -> None:
    for value, (file, channel) in KALDI_PIPES.items():
        assert readable_file(value) == (file, channel, "")
    for value in [*KALDI_REFUSED, f"touch {tmp_path}/pwned |"]:
        file, _, refused = readable_file(value)
        assert not file, value
        assert "; " in refused
    assert not (tmp_path / "pwned").exists()


def test_kaldi_directory_with_segments_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("r1 a.wav\nr2 flac -c -d -s b.flac |\nlonely\n")
    (tmp_path / "segments").write_text("u1 r1 0 1.5\nu2 r2 2 -1\nu3 r9 0 1\nu4 r1 x 1\nu5 r1 0\n")
    (tmp_path / "text").write_bytes(b"u2 GO ON\nu1 caf\xe9\nu7 NOBODY\n")
    (tmp_path / "utt2spk").write_text("u1 ann\nu2 bob\n")
    (tmp_path / "utt2lang").write_text("u1 en\n")
    assert sniff(tmp_path) == "kaldi"
    found = read_all("kaldi", tmp_path)
    assert [(e.id, e.audio, e.text, e.speaker, e.start_s, e.end_s, e.language) for e in entries(found)] == [
        ("u1", "a.wav", "caf\udce9", "ann", 0.0, 1.5, "en"),
        ("u2", "b.flac", "GO ON", "bob", 2.0, None, ""),
    ]
    reasons = faults(found)
    assert reasons.keys() == {"lonely", "u3", "u4", "u5", "u7"}
    assert "no recording 'r9'" in reasons["u3"]
    assert "no line 'u7' in segments" in reasons["u7"]


RECORDING = {
    "id": "r",
    "sources": [{"type": "file", "channels": [0, 1], "source": "r.wav"}],
    "sampling_rate": 16000,
    "num_samples": 320000,
    "duration": 20.0,
}


def test_lhotse_recordings_and_supervisions(tmp_path: Path) -> None:
    rows = [
        {
            "id": "s1", "recording_id": "r", "start": 1.0, "duration": 2.0, "channel": 1, "text": "GO ON",
            "speaker": "ann", "language": "en", "alignment": {"word": [["GO", 1.1, 0.4, 0.9], ["ON", 1.5, 0.5]]},
        },
        {"id": "s2", "recording_id": "none", "start": 0, "duration": 1},
        {"id": "s3", "recording_id": "r", "start": 0, "duration": 1, "channel": 5},
    ]  # fmt: skip
    command = {"id": "c", "sources": [{"type": "command", "channels": [0], "source": "touch pwned"}], "duration": 1}
    fast = {**RECORDING, "id": "f", "transforms": [{"name": "Speed", "kwargs": {"factor": 1.1}}]}
    rows += [{"id": f"s-{id}", "recording_id": id, "start": 0, "duration": 1, "channel": 0} for id in "cf"]
    write_lines(tmp_path / "recordings.jsonl.gz", [RECORDING, command, fast])
    write_lines(tmp_path / "supervisions.jsonl.gz", rows)
    assert sniff(tmp_path) == "lhotse"
    found = read_all("lhotse", tmp_path)
    good, run, sped = entries(found)
    assert (good.id, good.audio, good.start_s, good.end_s, good.channel) == ("s1", "r.wav", 1.0, 3.0, 1)
    assert (good.text, good.speaker, good.language) == ("GO ON", "ann", "en")
    assert good.words == (
        Word(text="GO", start_s=0.1, end_s=0.5, score=0.9),
        Word(text="ON", start_s=0.5, end_s=1.0),
    )
    assert "a command 'touch pwned', commands are never run" in run.refused
    assert "is transformed" in sped.refused
    assert faults(found).keys() == {"s2", "s3"}
    assert [e.id for e in entries(read_all("lhotse", tmp_path / "supervisions.jsonl.gz"))] == ["s1", "s-c", "s-f"]


def test_lhotse_cuts(tmp_path: Path) -> None:
    inside = {"id": "s", "start": 0.5, "duration": 1.0, "text": "GO", "alignment": {"word": [["GO", 0.6, 0.2]]}}
    cuts = [
        {"id": "c1", "start": 10.0, "duration": 2.0, "channel": 0, "recording": RECORDING, "supervisions": [inside]},
        {"id": "c2", "start": 3.0, "duration": 2.0, "channel": [0, 1], "recording": RECORDING, "supervisions": []},
        {"id": "c3", "start": 3.0, "duration": 1.0, "channel": 0, "recording": RECORDING, "supervisions": [inside]},
        {"id": "c4", "tracks": [], "type": "MixedCut"},
        {"id": "c5", "start": 0, "duration": 1, "features": {}},
    ]
    found = read_all("lhotse", write_lines(tmp_path / "cuts.jsonl", cuts))
    first, second = entries(found)
    assert (first.id, first.start_s, first.end_s, first.channel) == ("s", 10.5, 11.5, 0)
    assert [(w.start_s, w.end_s) for w in first.words] == [(0.1, 0.3)]
    assert (second.id, second.start_s, second.end_s, second.channel) == ("c2", 3.0, 5.0, None)
    assert list(faults(found)) == ["s", "c4", "c5"]
    assert "MixedCut" in faults(found)["c4"]


def test_lhotse_itself_reads_the_same(tmp_path: Path) -> None:
    """The oracle: what lhotse makes of a manifest that it wrote itself."""
    lhotse = pytest.importorskip("lhotse")
    sound(tmp_path / "r.wav", 4)
    recording = lhotse.Recording.from_file(str(tmp_path / "r.wav"))
    supervision = lhotse.SupervisionSegment(
        id="u", recording_id=recording.id, start=0.5, duration=2, text="GO ON", speaker="ann", channel=0
    )
    cuts = lhotse.CutSet.from_manifests(
        recordings=lhotse.RecordingSet.from_recordings([recording]),
        supervisions=lhotse.SupervisionSet.from_segments([supervision]),
    ).trim_to_supervisions()
    cuts.to_file(tmp_path / "cuts.jsonl.gz")
    entry = entries(read_all("lhotse", tmp_path / "cuts.jsonl.gz"))[0]
    cut = next(iter(cuts))
    assert (entry.start_s, entry.end_s) == (cut.start, cut.end)
    assert (entry.text, entry.speaker, entry.audio) == ("GO ON", "ann", str(tmp_path / "r.wav"))


def test_webdataset_is_read_in_place(tmp_path: Path) -> None:
    row = json.dumps({"text": "from json", "speaker": "ann", "offset": 100.0, "duration": 3.0}).encode()
    flac = sound_bytes()
    write_tar(
        tmp_path / "s-000.tar",
        [
            ("a/k1.flac", flac),
            ("a/k1.json", row),
            ("../../k2.flac", flac),
            ("../../k2.txt", b"go on\n"),
            ("k3.txt", b"x"),
        ],
    )
    write_tar(tmp_path / "s-001.tar", [("k4.flac", flac), ("k4.json", b"{broken"), ("k1.flac", flac), ("k1.wav", flac)])
    assert sniff(tmp_path) == "webdataset"
    assert sniff(tmp_path / "s-{000..001}.tar") == "webdataset"
    found = read_all("webdataset", tmp_path)
    assert [(e.id, e.audio, e.text, e.speaker, e.start_s, e.end_s) for e in entries(found)] == [
        ("k1", "s-000.tar::a/k1.flac", "from json", "ann", 0.0, None),
        ("k2", "s-000.tar::../../k2.flac", "go on\n", "", 0.0, None),
    ]
    assert list(faults(found)) == ["k3", "k4", "k1"]
    assert faults(found)["k1"] == "s-001.tar, key k1: 2 audio members"
    assert len(read_all("webdataset", tmp_path / "s-{000..001}.tar")) == 5
    with pytest.raises(DataError, match="1 of 3 shards are missing"):
        read_all("webdataset", tmp_path / "s-{000..002}.tar")
    (tmp_path / "s-000.tar").write_bytes((tmp_path / "s-000.tar").read_bytes()[:700])
    assert any("not a readable tar" in reason for reason in faults(read_all("webdataset", tmp_path)).values())


def test_parquet_bytes_become_files_once(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wav, out = sound_bytes(format="WAV"), tmp_path / "out"
    rows = [
        {"audio": {"bytes": wav, "path": "../../evil name.wav"}, "sentence": "go on", "speaker_id": 3},
        {"audio": {"bytes": b"not audio", "path": None}, "sentence": "x", "speaker_id": 4},
        {"audio": {"bytes": None, "path": "gone.wav"}, "sentence": "x", "speaker_id": 4},
    ]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data/test-00000-of-00001.parquet")
    assert sniff(tmp_path / "data") == "parquet"
    for _ in range(2):
        found = read_all("parquet", tmp_path / "data", download=out)
        entry = entries(found)[0]
        assert (entry.text, entry.speaker, entry.split) == ("go on", "3", "test")
        assert [p.read_bytes() for p in out.rglob("*.wav")] == [wav]
        assert (out / entry.audio).is_file()
        assert ".." not in entry.audio
        assert len(faults(found)) == 2


def test_hub_datasets_without_the_package_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"speechscale\[hf\]"):
        read_all("hf", Path("hf:org/name"))
    assert sniff(Path("hf:org/name")) == "hf"


def test_hub_rows_are_not_decoded_by_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream of the real package, over a local Parquet file with an Audio column; torchcodec is not installed."""
    datasets = pytest.importorskip("datasets")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.Table.from_pylist([{"audio": {"bytes": sound_bytes(), "path": "a.flac"}, "text": "go on"}]),
        tmp_path / "a.parquet",
    )
    load = datasets.load_dataset

    def local(name: str, subset: str | None, *, split: str | None, streaming: bool) -> Any:
        assert (name, streaming) == ("org/name", True)
        made = load("parquet", data_files={"validation": str(tmp_path / "a.parquet")}, streaming=True)
        made = made.cast_column("audio", datasets.Audio(16_000))
        return made if split is None else made[split]

    monkeypatch.setattr(datasets, "load_dataset", local)
    for part in ("", "validation"):
        found = read_all("hf", Path("hf:org/name"), download=tmp_path / "out", part=part)
        assert [(e.text, e.split) for e in entries(found)] == [("go on", "select")]
        assert (tmp_path / "out" / entries(found)[0].audio).read_bytes() == sound_bytes()


def test_slamkit_features_with_aligned_text(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "features.jsonl",
        [
            {"units": [1], "duration": [2], "file_name": "audio/a.flac"},
            {"units": [1], "duration": [2], "file_name": "audio/b.flac"},
            {"file_name": "audio/c.flac", "audio_repr": "<Un1>"},
        ],
    )
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio/a.json").write_text(json.dumps({"aligned_text": [[" go", 0.0, 0.5], [" on", 0.5, 1.0]]}))
    assert sniff(tmp_path / "features.jsonl") == "slamkit"
    assert sniff(tmp_path) == "slamkit"
    found = read_all("slamkit", tmp_path / "features.jsonl")
    a, b = entries(found)
    assert [w.text for w in a.words] == ["go", "on"]
    assert b.words == ()
    assert "prepared tokens" in "".join(faults(found).values())
    with pytest.raises(DataError, match="leads out"):
        read_all("slamkit", tmp_path / "features.jsonl", columns={"words": "../elsewhere"})


def test_unknown_sources_list_the_formats(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        sniff(tmp_path / "none")
    with pytest.raises(DataError, match=r"looks like none of hf, kaldi, lhotse"):
        sniff(tmp_path)
    assert all(kind.what and kind.text in ("required", "optional") for kind in FORMATS.values())
