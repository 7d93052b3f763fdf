"""Catches a peak of the wrong device or unit, one measured for every step anew, an MFU of all devices for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from speechscale.errors import DataError
from speechscale.model import peak
from speechscale.model.peak import Peak, gpu_hours_and_money, known_peak, measured_peak, utilization


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    peak._measure.cache_clear()
    yield
    peak._measure.cache_clear()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_this_machine_has_a_peak(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "CPU_SIDE", 256)
    monkeypatch.setattr(peak, "SECONDS", 0.1)
    measured = measured_peak("cpu", precision)  # type: ignore[arg-type]
    assert 1e8 < measured.flops_per_s < 1e14
    assert measured.how.startswith(f"measured: {precision} products of 256 x 256")


def test_best_trial_counts_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9.0, 0.5, 0.25, 0.5])  # the first one loads kernels
    monkeypatch.setattr(peak, "CPU_SIDE", 8)
    monkeypatch.setattr(peak, "_cpu_seconds", lambda multiply: next(times))
    first = measured_peak("cpu", "fp32")
    assert first.flops_per_s == 2 * 8**3 / 0.25
    assert measured_peak(torch.device("cpu"), "fp32") is first, "a second call reads no clock"


def test_other_devices_are_refused() -> None:
    with pytest.raises(DataError, match="'meta' cannot be measured"):
        measured_peak("meta", "fp32")


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("AMD Instinct MI300X", 1307),
    ],
)
def test_published_peaks(name: str, tera: float) -> None:
    found = known_peak(name)
    assert found is not None
    assert found.flops_per_s == pytest.approx(tera * 1e12)


def test_unknown_devices_have_none() -> None:
    assert known_peak("NVIDIA A1000 Laptop GPU") is None
    assert known_peak("Intel(R) Xeon(R)") is None


def test_utilization_is_per_device() -> None:
    measured, sheet = (Peak(flops_per_s=rate, how="") for rate in (500e12, 1000e12))
    mfu = utilization(8e6, 10.0, 1e9, world=4, measured=measured, datasheet=sheet)
    assert mfu.flops_per_s == pytest.approx(200e12)
    assert (mfu.measured, mfu.datasheet) == pytest.approx((0.4, 0.2))
    assert mfu.line() == "200.0 TFLOP/s per device: 40.0 % of the measured peak, 20.0 % of the datasheet's"
    assert "datasheet" not in utilization(1e3, 1.0, 1e6, world=1, measured=measured, datasheet=None).line()
    with pytest.raises(DataError, match="above 0"):
        utilization(1.0, 0.0, 1.0, world=1, measured=measured, datasheet=None)


def test_bill() -> None:
    bill = gpu_hours_and_money(7200, 8, 2.5)
    assert (bill.device_hours, bill.dollars) == (16.0, 40.0)
    assert bill.line() == "16.0 device-hours, $40.00"
    assert gpu_hours_and_money(3600, 1, None).line() == "1.0 device-hours"
