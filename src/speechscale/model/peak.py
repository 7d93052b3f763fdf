"""How fast a device multiplies, what share of that a run reaches, and what it costs.

Enters: a device, a precision; tokens, seconds, prices. Leaves: `Peak`, `Mfu`, `Bill`.
The one decision worth knowing: MFU is said against two peaks. The datasheet's is what others quote; the measured one is
what large matrix products reach on this device, today, and so what a loop could hope for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from speechscale.errors import DataError
from speechscale.model.activations import Precision

CPU_SIDE, CUDA_SIDE = 1024, 8192
"""Sides of the square matrices: large enough that launching and memory no longer matter."""
TRIALS = 20
SECONDS = 1.0
"""Trials end after this, at least two were made."""

KNOWN_PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "GH200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIE": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "A10": 125e12,
    "A30": 165e12,
    "A40": 149.7e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
    "MI300X": 1307e12,
}
"""Part of the device's name -> dense bf16 FLOP/s with fp32 accumulation as published, without sparsity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """A rate to measure against. `how`: in words, for the log."""

    flops_per_s: float
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mfu:
    """Model FLOPs utilization: exact FLOPs of the tokens (`model.flops`) per second, per device, over a peak.

    Padding, masked-out pairs beyond the formula and recomputation are no use, so they are not counted.

    Args:
        measured: against `measured_peak`. datasheet: against `known_peak`; None where the device is not in the table.

    Source: Chowdhery et al. 2022 (PaLM), section 4.1, with the exact count of `model.flops`.
    """

    flops_per_s: float
    measured: float
    datasheet: float | None

    def line(self) -> str:
        """In words. Example: 312.4 TFLOP/s per device: 45.1 % of the measured peak, 31.6 % of the datasheet's"""
        sheet = "" if self.datasheet is None else f", {100 * self.datasheet:.1f} % of the datasheet's"
        rate = self.flops_per_s
        words = f"{rate / 1e12:.1f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.1f} GFLOP/s"
        return f"{words} per device: {100 * self.measured:.1f} % of the measured peak{sheet}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a run costs. `dollars`: None where no price is known."""

    device_hours: float
    dollars: float | None

    def line(self) -> str:
        """In words. Example: 16.0 device-hours, $40.00"""
        money = "" if self.dollars is None else f", ${self.dollars:,.2f}"
        return f"{self.device_hours:,.1f} device-hours{money}"


def device_name(device: torch.device | str) -> str:
    """What a GPU calls itself; "cpu" elsewhere."""
    place = torch.device(device)
    return torch.cuda.get_device_name(place) if place.type == "cuda" else place.type


def known_peak(device_name: str) -> Peak | None:
    """Look up the published dense bf16 rate of a GPU; None where the name is not in the table.

    Example: "NVIDIA H100 80GB HBM3" -> 989e12
    """
    words = device_name.upper().replace("-", " ").split()
    found = [name for name in KNOWN_PEAKS if _names(name.split(), words)]
    if not found:
        return None
    best = max(found, key=len)
    return Peak(flops_per_s=KNOWN_PEAKS[best], how=f"published for {best}, dense bf16")


def _names(part: list[str], words: list[str]) -> bool:
    """Whether all words of `part` are among the name's; "A10" is not "A100"."""
    return all(word in words for word in part)


def measured_peak(device: torch.device | str, precision: Precision) -> Peak:
    """Measure the rate of large square matrix products: the best of up to TRIALS.

    About a second, once per process, device, precision and number of threads. On a shared machine it is what the
    moment gave; the best of several trials is the least disturbed one.

    Raises:
        DataError: a device that cannot be measured.
    """
    place = torch.device(device)
    if place.type not in ("cpu", "cuda"):
        raise DataError(f"peak: device '{place}' cannot be measured; allowed: cpu, cuda")
    return _measure(place, precision, torch.get_num_threads() if place.type == "cpu" else 0)


@cache
def _measure(device: torch.device, precision: Precision, threads: int) -> Peak:
    side = CPU_SIDE if device.type == "cpu" else CUDA_SIDE
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    # Random numbers: a GPU multiplies constants at a higher clock than it ever trains at.
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator, device=device).to(dtype) for _ in range(2))
    product = torch.empty(side, side, dtype=dtype, device=device)
    seconds = _best_seconds(lambda: torch.mm(left, right, out=product), device)
    where = f"{threads} thread{'s' * (threads != 1)}" if device.type == "cpu" else torch.cuda.get_device_name(device)
    return Peak(flops_per_s=2 * side**3 / seconds, how=f"measured: {precision} products of {side} x {side}, {where}")


def _best_seconds(multiply: Callable[[], Tensor], device: torch.device) -> float:
    clock = _cuda_seconds if device.type == "cuda" else _cpu_seconds
    clock(multiply)  # the first one also loads kernels
    best, spent = float("inf"), 0.0
    for trial in range(TRIALS):
        seconds = clock(multiply)
        best, spent = min(best, seconds), spent + seconds
        if spent > SECONDS and trial:
            break
    return best


def _cpu_seconds(multiply: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    multiply()
    return time.perf_counter() - start


def _cuda_seconds(multiply: Callable[[], Tensor]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    multiply()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def utilization(
    tokens: float, seconds: float, flops_exact_per_token: float, *, world: int, measured: Peak, datasheet: Peak | None
) -> Mfu:
    """Say what share of its peak each of `world` devices reached.

    Args:
        tokens: target tokens of all devices together. flops_exact_per_token: of `model.flops.flops_per_token`.
    """
    if seconds <= 0 or world < 1:
        raise DataError(f"utilization: {seconds} s on {world} devices; both must be above 0")
    rate = tokens * flops_exact_per_token / seconds / world
    return Mfu(
        flops_per_s=rate,
        measured=rate / measured.flops_per_s,
        datasheet=None if datasheet is None else rate / datasheet.flops_per_s,
    )


def gpu_hours_and_money(seconds: float, world: int, dollars_per_hour: float | None) -> Bill:
    """Price a run. Example: 7,200 s on 8 devices at $2.50 an hour -> 16 device-hours, $40"""
    hours = seconds * world / 3600
    return Bill(device_hours=hours, dollars=None if dollars_per_hour is None else hours * dollars_per_hour)
