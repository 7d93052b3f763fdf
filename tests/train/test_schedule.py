"""Catches a first step without a learning rate, a last one off the floor, and a check that is missed at the end."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechscale.train.schedule import Schedule, check_points, learning_rate_share


def test_examples() -> None:
    assert learning_rate_share(50, 100, schedule="cosine", warmup_fraction=0, final_fraction=0.1) == pytest.approx(0.55)
    assert learning_rate_share(5, 100, schedule="linear", warmup_fraction=0.1, final_fraction=0.1) == 0.5
    assert learning_rate_share(55, 100, schedule="linear", warmup_fraction=0.1, final_fraction=0) == 0.5
    assert check_points(100, 4) == [25, 50, 75, 100]


@given(
    tokens=st.integers(1, 10**12),
    seen=st.floats(0, 1),
    schedule=st.sampled_from(["cosine", "linear"]),
    warmup=st.floats(0, 1),
    final=st.floats(0, 1),
)
def test_rate_stays_in_range_and_ends_on_the_floor(
    tokens: int, seen: float, schedule: Schedule, warmup: float, final: float
) -> None:
    share = partial(learning_rate_share, tokens=tokens, schedule=schedule, warmup_fraction=warmup, final_fraction=final)
    assert 0 <= share(max(1, round(seen * tokens))) <= 1
    assert share(tokens) == pytest.approx(final)


@given(tokens=st.integers(1, 10**9), checks=st.integers(1, 50))
def test_checks_never_decrease_and_end_with_the_run(tokens: int, checks: int) -> None:
    points = check_points(tokens, checks)
    assert points == sorted(points)
    assert points[-1] == tokens
    assert len(points) == checks
