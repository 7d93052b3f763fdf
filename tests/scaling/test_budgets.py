"""Budgets: would catch a sparse peak taken for a dense one, hours mistaken for device hours, and silent assumptions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.scaling.planning.budgets import (
    ACCELERATORS,
    chosen_budget,
    from_devices,
    from_money,
    get_accelerator,
    parse_devices,
)


def test_eight_gpus_for_a_day() -> None:
    budget = from_devices("8xH100", 24)
    assert budget.flops == pytest.approx(8 * 24 * 3600 * 989e12 * 0.4)
    assert "989 TFLOP/s" in budget.echoes[0]
    assert "utilization 0.4 (assumed" in budget.echoes[0]


def test_slam_day_on_one_gpu() -> None:
    """Slam's 24 h on one A5000 cost 3.0e18 FLOPs by its tokens and 5.0e18 by its steps: ours must lie between."""
    assert 3.0e18 < from_devices("A5000", 24).flops < 5.0e18


def test_money_buys_device_hours_whatever_their_number() -> None:
    one, eight = from_money(500, 2.5, "H100"), from_money(500, 2.5, "8xH100")
    assert one.flops == pytest.approx(eight.flops)
    assert one.flops == pytest.approx(from_devices("H100", 200).flops)
    assert "200 device hours" in eight.echoes[0]


@given(count=st.integers(1, 4096), hours=st.floats(0.01, 1e4), speed=st.floats(1e9, 1e15))
def test_measured_speed_replaces_peak(count: int, hours: float, speed: float) -> None:
    budget = from_devices(f"cpu:{count}", hours, flops_per_second=speed)
    assert budget.flops == pytest.approx(count * hours * 3600 * speed)


def test_names() -> None:
    assert parse_devices("8 x H100") == (8, "H100")
    assert parse_devices("cpu") == (1, "cpu")
    assert get_accelerator("rtx a5000") is get_accelerator("A5000")
    assert get_accelerator("v5e").name == "TPU-v5e"
    with pytest.raises(DataError, match="did you mean H100"):
        get_accelerator("H10")
    assert all(5e13 < a.peak_flops < 3e15 for a in ACCELERATORS.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing given"),
        ({"flops": 1e18, "hours": 3, "devices": "A100"}, "FLOPs and hours"),
        ({"flops": 1e18, "devices": "A100"}, "leave the devices out"),
        ({"flops": -1e18}, "above 0"),
        ({"flops": float("nan")}, "above 0"),
        ({"hours": 3}, "of what"),
        ({"money": 3, "devices": "A100"}, "price"),
        ({"hours": 0, "devices": "A100"}, "above 0"),
        ({"hours": 3, "devices": "A100", "mfu": 1.2}, "at most 1"),
        ({"hours": 3, "devices": "A100", "mfu": 0.3, "flops_per_second": 1e12}, "not both"),
        ({"hours": 3, "devices": "cpu:2"}, "measured FLOP/s"),
        ({"hours": 3, "devices": "0xA100"}, "at least one"),
        ({"hours": 3, "devices": "toaster"}, "unknown"),
    ],
)
def test_refuses_half_a_budget(options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        chosen_budget(**options)
