"""Catches ranges that are no slices, streams that differ from the whole, wrong tar members, memory without bounds."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.speech import audio_files
from speechscale.speech.audio import (
    AudioInfo,
    audio_duration_s,
    audio_info,
    audio_sha256,
    load_audio,
    samples_sha256,
    stream_audio,
)
from speechscale.speech.audio_stream import even_blocks, resampled_samples

RATE = 16_000
EXACT = [
    ("a.wav", "WAV", "PCM_16"),
    ("b.wav", "WAVEX", "PCM_24"),
    ("c.flac", "FLAC", "PCM_24"),
    ("d.w64", "W64", "FLOAT"),
]
LOSSY = [("a.mp3", "MP3", None), ("b.ogg", "OGG", "VORBIS"), ("c.opus", "OGG", "OPUS")]
FORMATS = [*EXACT, ("e.rf64", "RF64", "PCM_16"), ("f.wav", "WAV", "ULAW"), ("g.aiff", "AIFF", "PCM_16"), *LOSSY]


def noise(seconds: float, rate: int = RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise that swells, so that every place of it is different."""
    count = round(seconds * rate)
    swell = 0.2 + 0.1 * np.sin(np.arange(count) / rate * 3)
    return (np.random.default_rng(seed).standard_normal((count, channels)) * swell[:, None] * 0.5).astype(np.float32)


def put(path: Path, audio: np.ndarray, rate: int, container: str, subtype: str | None) -> Path:
    audio = audio.reshape(len(audio), -1)
    with soundfile.SoundFile(path, "w", rate, audio.shape[1], subtype, format=container) as file:
        for start in range(0, len(audio), 8000):  # libsndfile's Vorbis writer dies of large blocks.
            file.write(audio[start : start + 8000])
    return path


@pytest.mark.parametrize(("name", "container", "subtype"), FORMATS)
def test_ranges_are_slices_in_every_format(tmp_path: Path, name: str, container: str, subtype: str | None) -> None:
    path = put(tmp_path / name, noise(9.0), RATE, container, subtype)
    whole = load_audio(path).audio
    assert abs(len(whole) - 9 * RATE) <= (2400 if name.endswith("mp3") else 0)
    for start_s, end_s in [(0.0, 0.5), (0.7, 1.9), (1 / 16_000, 3.0), (4.1, 4.1001), (8.2, None), (5.0, 9.0)]:
        part = load_audio(path, start_s=start_s, end_s=end_s).audio
        stop = None if end_s is None else round(end_s * RATE)
        assert np.array_equal(part, whole[round(start_s * RATE) : stop]), (start_s, end_s)


@pytest.mark.parametrize(("name", "container", "subtype"), LOSSY)
def test_ranges_in_order_decode_once_and_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, container: str, subtype: str | None
) -> None:
    path = put(tmp_path / name, noise(18.0), RATE, container, subtype)
    other = put(tmp_path / f"other-{name}", noise(9.0, seed=1), RATE, container, subtype)
    opened: list[Path] = []
    plain = audio_files.Source.open

    def counted(source: audio_files.Source) -> object:
        opened.append(source.path)
        return plain(source)

    monkeypatch.setattr(audio_files.Source, "open", counted)
    whole = {rate: load_audio(path, sample_rate_hz=rate).audio for rate in (RATE, 11_025)}
    opened.clear()
    # In order with overlaps, then backwards, then in order again.
    places = [(0.5, 1.0), (0.9, 6.0), (5.8, 5.9), (6.0, 14.0), (13.9, 14.5), (3.0, 4.0), (4.0, 7.0)]
    for start_s, end_s in places:
        for rate in (RATE, 11_025):
            part = load_audio(path, sample_rate_hz=rate, start_s=start_s, end_s=end_s).audio
            wanted = whole[rate][round(start_s * rate) : round(end_s * rate)]
            assert np.abs(part - wanted).max() <= (0 if rate == RATE else 5e-7)
    assert opened.count(path) <= 4
    load_audio(other, start_s=1.0, end_s=2.0)
    put(path, noise(5.0, seed=2), RATE, container, subtype)
    os.utime(path, ns=(1, 1))
    part = load_audio(path, start_s=1.0, end_s=2.0).audio
    assert np.array_equal(part, load_audio(path).audio[RATE : 2 * RATE])


def test_a_forked_process_does_not_move_its_parents_decoder(tmp_path: Path) -> None:
    path = put(tmp_path / "a.ogg", noise(25.0), RATE, "OGG", "VORBIS")
    whole = load_audio(path).audio
    load_audio(path, start_s=1.0, end_s=2.0)
    child = os.fork()
    if child == 0:
        same = np.array_equal(load_audio(path, start_s=15.0, end_s=20.0).audio, whole[15 * RATE : 20 * RATE])
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(load_audio(path, start_s=9.0, end_s=14.0).audio, whole[9 * RATE : 14 * RATE])


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 15_999])
def test_resampled_ranges_are_slices_with_their_context(tmp_path: Path, rate: int) -> None:
    path = put(tmp_path / "a.wav", noise(6.0, rate), rate, "WAV", "FLOAT")
    whole = load_audio(path).audio
    assert len(whole) == resampled_samples(6 * rate, rate, RATE) == 6 * RATE
    for start_s, end_s in [(0.0, 1.0), (0.0001, 0.3), (1.23456, 2.5), (3.0, 5.99999), (5.9, None), (5.95, 6.0)]:
        part = load_audio(path, start_s=start_s, end_s=end_s).audio
        first, last = round(start_s * RATE), len(whole) if end_s is None else round(end_s * RATE)
        assert len(part) == last - first
        assert np.abs(part - whole[first:last]).max() < 5e-7


@pytest.mark.parametrize(("name", "container", "subtype"), [EXACT[0], EXACT[2], *LOSSY])
@pytest.mark.parametrize("rate", [RATE, 24_000])
def test_streamed_blocks_are_the_whole(
    tmp_path: Path, name: str, container: str, subtype: str | None, rate: int
) -> None:
    path = put(tmp_path / name, noise(7.0, rate, channels=2), rate, container, subtype)
    whole = load_audio(path).audio
    part = load_audio(path, start_s=1.3, end_s=5.7, channel=1).audio
    for block_s in (0.01, 0.5, 2.5, 100.0):
        blocks = list(stream_audio(path, block_s=block_s))
        assert {len(block) for block in blocks[:-1]} <= {round(block_s * RATE)}
        assert 0 < len(blocks[-1]) <= round(block_s * RATE)
        assert np.array_equal(np.concatenate(blocks), whole)
        ranged = stream_audio(path, block_s=block_s, start_s=1.3, end_s=5.7, channel=1)
        assert np.array_equal(np.concatenate(list(ranged)), part)
    with pytest.raises(DataError, match="blocks must be longer than 0 s"):
        next(stream_audio(path, block_s=0))


def test_one_channel_of_many(tmp_path: Path) -> None:
    audio = noise(1.0, channels=7)
    path = put(tmp_path / "a.wav", audio, RATE, "WAVEX", "FLOAT")
    for channel in (0, 6):
        loaded = load_audio(path, channel=channel)
        assert np.array_equal(loaded.audio, audio[:, channel])
        assert loaded.notes == (f"channel {channel} of 7",)
    assert np.array_equal(load_audio(path).audio, audio.mean(axis=1))
    for channel in (7, -1):
        with pytest.raises(DataError, match=rf"channel {channel} was asked for, it has channels 0\.\.6; "):
            load_audio(path, channel=channel)


@pytest.mark.parametrize(
    ("start_s", "end_s", "message"),
    [
        (-0.1, None, "the range -0.1 s to the end is not inside its 2 s"),
        (0.5, 0.5, "the range 0.5 s to 0.5 s is not inside"),
        (1.5, 1.0, "is not inside"),
        (float("nan"), 1.0, "is not inside"),
        (0.0, float("inf"), "is not inside"),
        (2.0, None, "is not inside"),
        (1.0, 2.02, "the range 1 s to 2.02 s reaches beyond its 2 s"),
        (3.0, 4.0, "reaches beyond"),
        (1.0, 1.00001, "holds no sample"),
    ],
)
def test_impossible_ranges_are_named(tmp_path: Path, start_s: float, end_s: float | None, message: str) -> None:
    path = put(tmp_path / "a.wav", noise(2.0), RATE, "WAV", "PCM_16")
    with pytest.raises(DataError, match=message) as caught:
        load_audio(path, start_s=start_s, end_s=end_s)
    assert str(path) in str(caught.value)
    assert "; correct the times" in str(caught.value)


def test_mp3_range_beyond_the_decoded_end_is_named(tmp_path: Path) -> None:
    path = put(tmp_path / "a.mp3", noise(2.0), RATE, "MP3", None)
    for start_s, end_s in [(1.0, 4.0), (3.0, 4.0), (3.0, None)]:
        with pytest.raises(DataError, match=r"beyond|not inside"):
            load_audio(path, start_s=start_s, end_s=end_s)


def test_rounded_ends_of_manifests_are_cut_with_a_note(tmp_path: Path) -> None:
    path = put(tmp_path / "a.wav", noise(2.0), RATE, "WAV", "PCM_16")
    loaded = load_audio(path, start_s=1.0, end_s=2.004)
    assert len(loaded.audio) == RATE
    assert loaded.notes == ("range ends 4.0 ms beyond the audio, cut to it",)
    assert load_audio(path, end_s=2.0).notes == ()


def test_cut_file_gives_the_ranges_before_its_end_only(tmp_path: Path) -> None:
    for name, container in [("a.wav", "WAV"), ("b.flac", "FLAC"), ("c.w64", "W64"), ("d.rf64", "RF64")]:
        path = put(tmp_path / name, noise(4.0), RATE, container, "PCM_16")
        whole = load_audio(path).audio
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
        assert np.array_equal(
            load_audio(path, start_s=0.3, end_s=1.9).audio, whole[round(0.3 * RATE) : round(1.9 * RATE)]
        )
        for start_s, end_s in [(0.0, None), (0.5, None), (2.0, 3.5), (3.0, 3.5)]:
            with pytest.raises(DataError, match=r"truncated|beyond"):
                load_audio(path, start_s=start_s, end_s=end_s)
        with pytest.raises(DataError, match="truncated"):
            load_audio(path)


def test_cut_stream_fails_before_or_at_the_cut(tmp_path: Path) -> None:
    wav = put(tmp_path / "a.wav", noise(4.0), RATE, "WAV", "PCM_16")
    wav.write_bytes(wav.read_bytes()[:-1000])
    with pytest.raises(DataError, match="truncated, it ends after 63500 samples"):
        next(stream_audio(wav, block_s=0.1))
    bad = noise(4.0)[:, 0]
    bad[50_000] = np.nan
    path = put(tmp_path / "b.wav", bad, RATE, "WAV", "FLOAT")
    with pytest.raises(DataError, match=r"b\.wav: 1 of \d+ samples are NaN"):
        list(stream_audio(path, block_s=0.5))
    assert len(load_audio(path, end_s=3.0).audio) == 3 * RATE
    with pytest.raises(DataError, match="1 of 64000 samples are NaN or infinite"):
        load_audio(path)


def test_last_ogg_page_is_found_without_reading_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a.ogg", noise(30.0), RATE, "OGG", "VORBIS")
    content = path.read_bytes()
    monkeypatch.setattr(audio_files, "OGG_PAGE_BYTES", 5000)
    source = audio_files.find_source(path)
    assert not audio_files.is_cut(source, "ogg")
    for cut in (1, 3000):
        path.write_bytes(content[:-cut])
        assert audio_files.is_cut(audio_files.find_source(path), "ogg")
    # The letters OggS inside a packet of the last page are no page.
    path.write_bytes(content[:-20] + b"OggS\0\xff" + content[-14:])
    assert not audio_files.is_cut(audio_files.find_source(path), "ogg")


def test_one_sample_and_odd_rates(tmp_path: Path) -> None:
    one = put(tmp_path / "one.wav", np.float32([0.25]), RATE, "WAV", "FLOAT")
    assert load_audio(one).audio.tolist() == [0.25]
    assert [block.tolist() for block in stream_audio(one)] == [[0.25]]
    fast = put(tmp_path / "fast.wav", np.float32([0.25]), 192_000, "WAV", "FLOAT")
    with pytest.raises(DataError, match="1 samples at 192000 Hz give none at 16000 Hz; drop"):
        load_audio(fast)
    loaded = load_audio(put(tmp_path / "b.flac", noise(1.0, 192_000), 192_000, "FLAC", "PCM_24"))
    assert len(loaded.audio) == RATE
    assert loaded.notes == ("downsampled from 192000 Hz",)
    with pytest.raises(DataError, match="rate must be positive"):
        load_audio(one, sample_rate_hz=0)


@pytest.mark.parametrize(("name", "container", "subtype"), FORMATS)
def test_header_tells_length_and_container(tmp_path: Path, name: str, container: str, subtype: str | None) -> None:
    path = put(tmp_path / name, noise(1.5, 24_000, channels=2), 24_000, container, subtype)
    info = audio_info(path)
    kind = {"WAVEX": "wav", "OGG": path.suffix[1:]}.get(container, container.lower())
    assert info == AudioInfo(duration_s=1.5, sample_rate_hz=24_000, channels=2, container=kind, frames=36_000)
    assert audio_duration_s(path) == 1.5


def test_an_mp3_named_wav_is_what_it_is(tmp_path: Path) -> None:
    path = put(tmp_path / "a.mp3", noise(2.0), RATE, "MP3", None)
    wanted = load_audio(path).audio
    assert np.array_equal(load_audio(path.rename(tmp_path / "a.wav")).audio, wanted)
    assert audio_info(tmp_path / "a.wav").container == "mp3"


@pytest.mark.parametrize("suffix", [".raw", ".mp3", ".txt", ""])
def test_any_suffix_is_sniffed(tmp_path: Path, suffix: str) -> None:
    path = put(tmp_path / "a.flac", noise(0.5), RATE, "FLAC", "PCM_16").rename(tmp_path / f"a{suffix}")
    assert audio_info(path).container == "flac"
    assert len(load_audio(path).audio) == 8000
    (tmp_path / f"b{suffix}").write_bytes(b"no sound at all " * 100)
    with pytest.raises(DataError, match="not audio"):
        audio_info(tmp_path / f"b{suffix}")


def pack(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_members_of_a_tar_are_read_in_place(tmp_path: Path) -> None:
    members, wholes = {}, {}
    for name, container, subtype in [*EXACT, *LOSSY]:
        path = put(tmp_path / name, noise(3.0, seed=len(members)), RATE, container, subtype)
        members[f"deep/{name}"], wholes[name] = path.read_bytes(), load_audio(path).audio
    members["text.txt"] = b"not sound"
    tar = pack(tmp_path / "some.tar", members)
    listing = sorted(tmp_path.iterdir())
    for name, whole in wholes.items():
        member = f"{tar}::deep/{name}"
        assert np.array_equal(load_audio(member).audio, whole)
        assert np.array_equal(load_audio(Path(member), start_s=1.0, end_s=2.0).audio, whole[RATE : 2 * RATE])
        assert audio_info(member).duration_s == pytest.approx(3.0, abs=0.16)
        assert audio_sha256(member) == audio_sha256(tmp_path / name) == samples_sha256(whole)
    assert sorted(tmp_path.iterdir()) == listing
    with pytest.raises(DataError, match=r"some\.tar::text\.txt: cannot be decoded"):
        load_audio(f"{tar}::text.txt")
    for missing in ("deep/none.wav", "../a.wav", "deep"):
        with pytest.raises(DataError, match=f"the tar has no file '{missing}' among 8; correct the name"):
            load_audio(f"{tar}::{missing}")


def test_a_tar_that_changed_is_read_anew(tmp_path: Path) -> None:
    content = put(tmp_path / "a.wav", noise(1.0), RATE, "WAV", "PCM_16").read_bytes()
    tar = pack(tmp_path / "s.tar", {"a.wav": content})
    first = load_audio(f"{tar}::a.wav").audio
    pack(tar, {"filler": bytes(3000), "./a.wav": content})
    assert np.array_equal(load_audio(f"{tar}::a.wav").audio, first)


def test_unusable_tars_are_named(tmp_path: Path) -> None:
    content = put(tmp_path / "a.wav", noise(1.0), RATE, "WAV", "PCM_16").read_bytes()
    packed = pack(tmp_path / "s.tar.gz", {"a.wav": content}, "w:gz")
    with pytest.raises(DataError, match=r"is not an uncompressed tar .*; unpack it or pack it again"):
        load_audio(f"{packed}::a.wav")
    with pytest.raises(DataError, match=r"none\.tar::a\.wav: no such file"):
        load_audio(f"{tmp_path}/none.tar::a.wav")
    tar = pack(tmp_path / "s.tar", {"a.wav": content, "empty.wav": b""})
    with pytest.raises(DataError, match="zero bytes"):
        load_audio(f"{tar}::empty.wav")
    tar.write_bytes(tar.read_bytes()[:9000])
    with pytest.raises(DataError, match=r"s\.tar.*(truncated|not an uncompressed tar)"):
        load_audio(f"{tar}::a.wav")
    with tarfile.open(tmp_path / "link.tar", "w") as out:
        link = tarfile.TarInfo("a.wav")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "a.wav")
        out.addfile(link)
    with pytest.raises(DataError, match="the tar has no file"):
        load_audio(f"{tmp_path}/link.tar::a.wav")


def test_same_sound_has_the_same_checksum_everywhere(tmp_path: Path) -> None:
    steps = np.rint(noise(2.0, 22_050) * 32_768).astype(np.int16)
    audio = steps / np.float32(32_768)
    paths = [
        put(tmp_path / name, audio if subtype == "FLOAT" else steps, 22_050, container, subtype)
        for name, container, subtype in [EXACT[0], EXACT[1], EXACT[2], EXACT[3], ("g.aiff", "AIFF", "PCM_16")]
    ]
    assert {audio_sha256(path) for path in paths} == {samples_sha256(load_audio(paths[0], sample_rate_hz=22_050).audio)}
    part = samples_sha256(load_audio(paths[0], sample_rate_hz=22_050, start_s=0.5, end_s=1.0).audio)
    assert {audio_sha256(path, start_s=0.5, end_s=1.0) for path in paths} == {part}
    assert part != audio_sha256(paths[0])


@given(st.lists(st.integers(0, 40), max_size=20), st.integers(1, 30))
def test_even_blocks_lose_nothing(lengths: list[int], size: int) -> None:
    stream = np.arange(sum(lengths))
    blocks = list(even_blocks(np.split(stream, np.cumsum(lengths)[:-1]) if lengths else [], size))
    assert np.array_equal(np.concatenate([np.zeros(0, int), *blocks]), stream)
    assert all(len(block) == size for block in blocks[:-1])
    assert all(0 < len(block) <= size for block in blocks)


@pytest.mark.parametrize("folder", ["dev-ljspeech", "dev-fsdd", "dev-formats", "dev-librivox-aligned"])
def test_every_real_recording_loads_and_is_sliced(shared: Path, folder: str) -> None:
    files = sorted(p for p in (shared / "data" / folder).rglob("*") if p.suffix in (".wav", ".flac"))
    assert files
    for path in files[:: 1 if len(files) < 50 else 10]:
        whole, info = load_audio(path).audio, audio_info(path)
        assert len(whole) == resampled_samples(info.frames, info.sample_rate_hz, RATE)
        start_s, end_s = 0.31 * info.duration_s, 0.77 * info.duration_s
        part = load_audio(path, start_s=start_s, end_s=end_s).audio
        wanted = whole[round(start_s * RATE) : round(end_s * RATE)]
        assert len(part) == len(wanted)
        assert np.abs(part - wanted).max() <= (0 if info.sample_rate_hz == RATE else 5e-7)
        own = load_audio(path, sample_rate_hz=info.sample_rate_hz).audio
        assert audio_sha256(path) == hashlib.sha256(own.tobytes()).hexdigest()


def write_long(path: Path, hours: float) -> None:
    """A 16 kHz wav of many hours: half a minute of syllables in noise and half a minute of silence, over and over."""
    time = np.arange(30 * RATE) / RATE
    loud = (np.sin(2 * np.pi * 2.5 * time) > 0) * np.sin(2 * np.pi * 200 * time) * 8000
    minute = np.concatenate([loud + np.random.default_rng(0).normal(0, 50, len(loud)), np.zeros(30 * RATE)])
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for _ in range(round(hours * 60)):
            file.write(minute.astype(np.int16))


PROBE = """
import sys
from pathlib import Path
from speechscale.speech.audio import load_audio, stream_audio
from speechscale.speech.loudness import loudness
from speechscale.speech.vad import split_at_silence
def peak_kib():
    # Not getrusage: its figure starts at that of the process that forked us.
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
before = peak_kib()
if sys.argv[2] == "load":
    result = len(load_audio(sys.argv[1]).audio)
elif sys.argv[2] == "stream":
    result = sum(len(block) for block in stream_audio(sys.argv[1]))
elif sys.argv[2] == "split":
    split = split_at_silence(sys.argv[1])
    assert abs(split.kept_s + split.dropped_s - split.duration_s) < 1e-6
    result = round(split.duration_s * 16000)
else:
    result = round(loudness(sys.argv[1]).duration_s * 16000)
print(result, (peak_kib() - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
def test_three_hours_fit_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    write_long(path, 3.0)
    limits_mib = {"load": 900, "stream": 100, "split": 150, "loudness": 100}
    for what, limit in limits_mib.items():
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(path), what],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        samples, grown = done.stdout.split()
        assert int(samples) == 3 * 3600 * RATE
        assert float(grown) < limit, what
        print(f"{what}: {float(grown):.0f} MiB")
    assert list(tmp_path.iterdir()) == [path]
