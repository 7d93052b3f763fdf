"""Catches a first step without a learning rate, a last one off the floor, and a check that is missed at the end."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechscale.train.schedule import Schedule, check_points, decay_start, learning_rate_share


def test_examples() -> None:
    share = partial(learning_rate_share, tokens=100)
    assert share(50, schedule="cosine", warmup_tokens=0, final_fraction=0.1) == pytest.approx(0.55)
    assert share(5, schedule="linear", warmup_tokens=10, final_fraction=0.1) == 0.5
    assert share(55, schedule="linear", warmup_tokens=10, final_fraction=0) == 0.5
    wsd = partial(share, schedule="wsd", warmup_tokens=10, final_fraction=0, decay_fraction=0.2)
    assert [wsd(seen) for seen in (5, 10, 79, 80, 90, 100)] == [0.5, 1, 1, 1, 0.5, 0]
    assert check_points(100, 4) == [25, 50, 75, 100]


@given(tokens=st.integers(10, 10**6), longer=st.integers(1, 10**6), decay=st.floats(0, 0.9), seen=st.floats(0, 1))
def test_wsd_runs_of_any_length_are_one_run_until_they_fall(
    tokens: int, longer: int, decay: float, seen: float
) -> None:
    """Would catch a schedule whose stable part depends on the budget: branches of a trunk would then not be runs."""
    place = round(seen * decay_start(tokens, decay))
    share = partial(
        learning_rate_share, place, schedule="wsd", warmup_tokens=5, final_fraction=0.1, decay_fraction=decay
    )
    assert share(tokens) == share(tokens + longer)


@given(
    tokens=st.integers(1, 10**12),
    seen=st.floats(0, 1),
    schedule=st.sampled_from(["cosine", "linear", "wsd"]),
    warmup=st.floats(0, 1),
    final=st.floats(0, 1),
)
def test_rate_stays_in_range_and_ends_on_the_floor(
    tokens: int, seen: float, schedule: Schedule, warmup: float, final: float
) -> None:
    share = partial(
        learning_rate_share,
        tokens=tokens,
        schedule=schedule,
        warmup_tokens=int(warmup * tokens),
        final_fraction=final,
        decay_fraction=1 - warmup,
    )
    assert 0 <= share(max(1, round(seen * tokens))) <= 1
    assert share(tokens) == pytest.approx(final)


@given(tokens=st.integers(1, 10**9), checks=st.integers(1, 50))
def test_checks_never_decrease_and_end_with_the_run(tokens: int, checks: int) -> None:
    points = check_points(tokens, checks)
    assert points == sorted(points)
    assert points[-1] == tokens
    assert len(points) == checks
