"""Catches streams whose sound is not that of the whole, that change their mind, wait too long or keep everything."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.speech.griffin_lim import AHEAD_FRAMES, BLOCK_FRAMES
from speechscale.speech.hifigan import UnitHifigan
from speechscale.speech.hifigan_network import Generator, HifiganShape
from speechscale.speech.unit_to_mel import MEL_REACH, UNIT_REACH, VocoderShape, empty_network
from speechscale.speech.vocoder import Vocoder
from speechscale.speech.vocoders import UnitVocoder, open_vocoder

UNITS = 12
HOP = 640
"""Samples per frame of both."""


def small_vocoder(frame_rate_hz: float = 25.0) -> Vocoder:
    """Random weights under which units sound and last differently."""
    shape = VocoderShape(
        num_units=UNITS, frame_rate_hz=frame_rate_hz, unit_channels=16, mel_channels=16, speakers=("a", "b")
    )
    network = empty_network(shape).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = 0.1 if parameter.ndim == 1 else 1.2 / parameter[0].numel() ** 0.5
            parameter.normal_(0, scale, generator=generator)
        network.embedding.weight.normal_(0, 1, generator=generator)
        network.duration_head.weight.mul_(0.2)  # durations of one to a few frames
        network.mel_mean.fill_(-3.0)
        network.mel_spread.fill_(1.0)
        network.gain.copy_(torch.tensor([0.5, 0.8]))
    return Vocoder(shape=shape, network=network, training={})


def small_hifigan(**changes: object) -> UnitHifigan:
    shape = HifiganShape(
        num_units=UNITS,
        upsample_rates=(8, 8, 10),
        upsample_kernel_sizes=(16, 16, 20),
        upsample_initial_channel=16,
        resblock_kernel_sizes=(3, 7),
        resblock_dilation_sizes=((1, 3), (1, 3)),
        embedding_dim=8,
        speakers=("a", "b"),
        duration_channels=8,
    )
    shape = dataclasses.replace(shape, **changes)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    network = Generator(shape).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            scale = 0.5 if parameter.ndim < 3 else 1.2 / parameter[0].numel() ** 0.5
            parameter.normal_(0, scale, generator=generator)
        if network.dur_predictor is not None:
            network.dur_predictor.proj.bias.fill_(1.2)
    return UnitHifigan(shape=shape, network=network, training={})


VOCODER, HIFIGAN = small_vocoder(), small_hifigan()
LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=6)


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(UNITS, size=count), rng.integers(1, 6, size=count)


def streamed(
    vocoder: UnitVocoder,
    units: np.ndarray,
    durations: np.ndarray | None,
    pushes: list[int],
    speaker: str | None = None,
) -> np.ndarray:
    """The sound of units pushed in turns of these sizes."""
    stream, parts, place, turn = vocoder.stream(speaker), [], 0, 0
    while place < len(units):
        stop = place + (pushes[turn % len(pushes)] if any(pushes) else 1)
        parts.append(stream.push(units[place:stop], None if durations is None else durations[place:stop]))
        place, turn = stop, turn + 1
    parts.append(stream.finish())
    assert all(part.dtype == np.float32 and part.ndim == 1 for part in parts)
    return np.concatenate(parts)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 30), st.integers(0, 1000), LENGTHS, st.booleans(), st.sampled_from([None, "a", "b"]))
def test_a_stream_is_the_whole_bit_for_bit(
    count: int, seed: int, pushes: list[int], timed: bool, speaker: str | None
) -> None:
    units, durations = drawn(count, seed)
    given_durations = durations if timed else None
    whole = VOCODER.synthesize(units, given_durations, speaker)
    assert streamed(VOCODER, units, given_durations, pushes, speaker).tobytes() == whole.tobytes()
    frames = durations.sum() if timed else VOCODER.predict_durations(units, speaker).sum()
    assert len(whole) == frames * HOP


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 80), st.integers(0, 1000), LENGTHS, st.booleans(), st.sampled_from([None, "a", "b"]))
def test_a_stream_of_hifigan_is_the_whole_below_16_bits(
    count: int, seed: int, pushes: list[int], timed: bool, speaker: str | None
) -> None:
    units, durations = drawn(count, seed)
    given_durations = durations if timed else None
    whole = HIFIGAN.synthesize(units, given_durations, speaker)
    made = streamed(HIFIGAN, units, given_durations, pushes, speaker)
    assert len(made) == len(whole) == (durations.sum() if timed else HIFIGAN.predict_durations(units).sum()) * HOP
    assert not len(made) or np.abs(made - whole).max() < 1e-5


def test_the_random_vocoders_tell_units_and_voices_apart() -> None:
    """Without this the tests above could compare silence with silence."""
    for vocoder in (VOCODER, HIFIGAN):
        units, durations = drawn(20, 0)
        first = vocoder.synthesize(units, durations)
        assert first.std() > 1e-3
        for other in (vocoder.synthesize(units, durations, "b"), vocoder.synthesize((units + 1) % UNITS, durations)):
            assert np.abs(first - other).max() > 1e-3
        assert len(set(vocoder.predict_durations(np.arange(UNITS)).tolist())) > 1


@pytest.mark.parametrize("frame_rate_hz", [12.5, 75.0, 100.0])
def test_other_rates_stream_too(frame_rate_hz: float) -> None:
    vocoder = small_vocoder(frame_rate_hz)
    units, durations = drawn(20, 5)
    whole = vocoder.synthesize(units, durations)
    assert len(whole) == round(durations.sum() * 16_000 / frame_rate_hz)
    assert streamed(vocoder, units, durations, [1, 3]).tobytes() == whole.tobytes()
    assert streamed(vocoder, units, None, [2]).tobytes() == vocoder.synthesize(units).tobytes()


def test_seeds_and_iterations_reach_the_stream() -> None:
    units, durations = drawn(20, 2)
    for seed, iterations in ((0, 3), (7, 2)):
        stream = VOCODER.stream(seed=seed, iterations=iterations)
        made = np.concatenate([stream.push(units, durations), stream.finish()])
        assert made.tobytes() == VOCODER.synthesize(units, durations, seed=seed, iterations=iterations).tobytes()
    assert VOCODER.synthesize(units, seed=1).tobytes() != VOCODER.synthesize(units, seed=2).tobytes()


@pytest.mark.parametrize("vocoder", [VOCODER, HIFIGAN])
def test_no_later_unit_changes_what_came_out(vocoder: UnitVocoder) -> None:
    units, _ = drawn(40, 3)
    for kept in (10, 25):
        one, other = vocoder.stream(), vocoder.stream()
        before = [one.push(units[:kept]), other.push(units[:kept])]
        assert np.array_equal(*before)
        rest = [one.push(units[kept:]), other.push((units[kept:] + 1) % UNITS)]
        assert not np.array_equal(rest[0][: len(rest[1])], rest[1][: len(rest[0])])
        whole = vocoder.synthesize(units)
        assert np.abs(np.concatenate([before[0], rest[0]]) - whole[: len(before[0]) + len(rest[0])]).max() < 1e-5


def test_sound_comes_as_early_as_its_look_ahead_allows() -> None:
    """One unit per frame of 40 ms: the first block needs its frames, those ahead, and the reach of the network."""
    needed = (BLOCK_FRAMES + AHEAD_FRAMES + MEL_REACH - 1) * 200 // HOP + 1 + UNIT_REACH
    units = np.arange(60) % UNITS
    stream, given, first = VOCODER.stream(), 0, None
    for count, unit in enumerate(units, start=1):
        given += len(stream.push(np.array([unit]), np.array([1])))
        if given and first is None:
            first = count
        if first is not None:
            assert count * HOP - given <= needed * HOP + BLOCK_FRAMES * 200 + 400, "it must not fall behind"
    assert first == needed
    assert needed * 0.04 <= 0.45
    hifigan, first_s = HIFIGAN.stream(), 0.0
    while not len(hifigan.push(np.array([1]), np.array([1]))):
        first_s += 0.04
    assert first_s < 0.25 + (HIFIGAN.shape.reach_frames + 1) * 0.04


def test_endless_streams_keep_little() -> None:
    units, durations = drawn(240, 4)
    small, large = VOCODER.stream(iterations=1), HIFIGAN.stream()
    for start in range(0, 240, 4):
        small.push(units[start : start + 4], durations[start : start + 4])
        large.push(units[start : start + 4])
        assert len(small._blocks._ends) < 30
        assert len(small._blocks._contexts) == len(small._blocks._ends)
        assert len(small._lim._waiting) + len(small._lim._wanted) < BLOCK_FRAMES + AHEAD_FRAMES
        assert len(large._frames) < 2 * HIFIGAN.shape.reach_frames + 60
        assert len(large._reader._units) < 8


@pytest.mark.parametrize("vocoder", [VOCODER, HIFIGAN])
def test_what_a_stream_refuses(vocoder: UnitVocoder) -> None:
    stream = vocoder.stream()
    with pytest.raises(DataError, match=r"unit ids run 3\.\.12, allowed 0\.\.11"):
        stream.push(np.array([3, 12]))
    with pytest.raises(DataError, match="2 units need as many durations of at least one frame"):
        stream.push(np.array([3, 4]), np.array([1, 0]))
    stream.push(np.array([3, 4]))
    with pytest.raises(DataError, match="durations came with some units of this stream, not with others"):
        stream.push(np.array([3]), np.array([1]))
    stream.push(np.zeros(0, np.int64))
    made = stream.finish()
    assert np.abs(made - vocoder.synthesize(np.array([3, 4]))).max() < 1e-5, "a refused push leaves no trace"
    for call in (lambda: stream.push(np.array([1])), stream.finish):
        with pytest.raises(DataError, match="this stream is finished; begin another one"):
            call()
    with pytest.raises(DataError, match="no voice 'c' among 2"):
        vocoder.stream("c")
    assert len(vocoder.stream().finish()) == 0


def test_a_generator_without_durations_says_so_at_once() -> None:
    silent = small_hifigan(duration_channels=0)
    with pytest.raises(DataError, match="cannot predict durations; give durations_frames"):
        silent.stream().push(np.array([1]))
    units, durations = drawn(20, 6)
    assert len(streamed(silent, units, durations, [3])) == durations.sum() * HOP


def test_a_vocoder_of_other_units_is_named(tmp_path: Path) -> None:
    VOCODER.save(tmp_path / "v")
    HIFIGAN.save(tmp_path / "h")
    for name in ("v", "h"):
        assert open_vocoder(tmp_path / name, num_units=UNITS).num_units == UNITS
        with pytest.raises(DataError, match=rf"{name}: speaks 12 units, the vocabulary has 500; use the vocoder of"):
            open_vocoder(tmp_path / name, num_units=500)
