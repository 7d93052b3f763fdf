"""A compute budget in FLOPs, from what one has: FLOPs, GPUs and hours, processors, or money.

Enters: numbers and the name of an accelerator. Leaves: `Budget`, with every assumption as a sentence.
The one decision worth knowing: peaks are those of dense bf16 products with fp32 sums (fp16 where there is no bf16);
vendors print twice as much for sparse products, which training cannot use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite

from speechscale.errors import DataError

SECONDS_PER_HOUR = 3600.0
MFU = 0.4
"""Share of the peak that a training run uses. Cuervo & Marxer's runs on one A100: .32 (20M) to .63 (823M)."""
MFU_SOURCE = "Cuervo & Marxer 2024 measured .32 to .63 on one A100, smallest to largest model"
_SHEET = "NVIDIA data sheet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """peak_flops: dense bf16 FLOP/s of one. source: in words."""

    name: str
    peak_flops: float
    source: str


ACCELERATORS: dict[str, Accelerator] = {
    name.lower(): Accelerator(name=name, peak_flops=peak, source=source)
    for name, peak, source in (
        ("A100", 312e12, _SHEET),
        ("H100", 989e12, f"{_SHEET}, SXM"),
        ("H100-PCIe", 756e12, _SHEET),
        ("H200", 989e12, f"{_SHEET}, SXM"),
        ("B200", 2250e12, _SHEET),
        ("V100", 125e12, f"{_SHEET}, fp16: it has no bf16"),
        ("T4", 65e12, f"{_SHEET}, fp16: it has no bf16"),
        ("L40S", 362e12, _SHEET),
        ("RTX-A5000", 111e12, f"{_SHEET}, half of its sparse figure"),
        ("RTX-A6000", 155e12, f"{_SHEET}, half of its sparse figure"),
        ("RTX-3090", 71e12, "NVIDIA GA102 white paper, fp32 sums"),
        ("RTX-4090", 165e12, "NVIDIA Ada white paper, fp32 sums"),
        ("TPU-v4", 275e12, "Google Cloud documentation"),
        ("TPU-v5e", 197e12, "Google Cloud documentation"),
        ("TPU-v5p", 459e12, "Google Cloud documentation"),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """flops: C, training FLOPs. echoes: what was assumed, sentences."""

    flops: float
    echoes: tuple[str, ...]

    def __post_init__(self) -> None:
        _positive("budget", self.flops, "FLOPs")


def get_accelerator(name: str) -> Accelerator:
    """Look up an accelerator; "A5000", "rtx a5000" and "RTX-A5000" are one.

    Raises:
        DataError: not in the table.
    """
    key = re.sub(r"[\s_]+", "-", name.strip().lower())
    for candidate in (key, f"rtx-{key}", f"tpu-{key}"):
        if candidate in ACCELERATORS:
            return ACCELERATORS[candidate]
    near = get_close_matches(key, ACCELERATORS, n=1)
    meant = f"did you mean {ACCELERATORS[near[0]].name}? " if near else ""
    names = ", ".join(known.name for known in ACCELERATORS.values())
    raise DataError(f"accelerator '{name}': unknown; {meant}known are {names}; for another give its peak FLOP/s")


def parse_devices(text: str) -> tuple[int, str]:
    """Read how many of what. Example: "8xH100" -> (8, "H100"); "A5000" -> (1, "A5000"); "cpu:2" -> (2, "cpu")

    Raises:
        DataError: not of these forms, or none of them.
    """
    text = text.strip()
    found = re.fullmatch(r"(?i)(\d+)\s*[x×*]\s*(.+)", text)
    if cores := re.fullmatch(r"(?i)cpu(?::(\d+))?", text):
        count, name = int(cores[1] or 1), "cpu"
    elif found:
        count, name = int(found[1]), found[2].strip()
    else:
        count, name = 1, text
    if count < 1 or not name:
        raise DataError(f"devices '{text}': write e.g. 8xH100, A5000 or cpu:2, at least one")
    return count, name


def from_flops(flops: float) -> Budget:
    """A budget that is known in FLOPs."""
    return Budget(flops=float(flops), echoes=(f"budget given: {flops:.3g} FLOPs",))


def from_devices(
    devices: str, hours: float, *, mfu: float | None = None, flops_per_second: float | None = None
) -> Budget:
    """A budget from devices and hours of wall-clock time.

    Example: from_devices("8xH100", 24).flops -> 2.73e20

    Args:
        devices: see `parse_devices`. mfu: share of the peak, default MFU.
        flops_per_second: measured FLOP/s of one device or core under training; replaces peak times mfu.

    Raises:
        DataError: an unknown device without `flops_per_second`, both `mfu` and `flops_per_second`, or numbers out of
            range.
    """
    count, name = parse_devices(devices)
    _positive("hours", hours, "hours")
    if flops_per_second is not None:
        if mfu is not None:
            raise DataError("give either a measured speed or a utilization (MFU), not both")
        speed = _positive("speed", flops_per_second, "FLOP/s per device")
        how = f"{count} x {name} at a given {speed:.3g} FLOP/s each"
    elif name == "cpu":
        raise DataError(
            "processors: peaks say little about them; give the measured FLOP/s of one core (--flops-per-second), "
            "e.g. from a short training run: 6 x parameters x tokens per second"
        )
    else:
        accelerator = get_accelerator(name)
        share = MFU if mfu is None else mfu
        if not 0 < share <= 1:
            raise DataError(f"utilization (MFU) {share}: must be above 0 and at most 1")
        speed = accelerator.peak_flops * share
        origin = f"assumed; {MFU_SOURCE}" if mfu is None else "given"
        how = (
            f"{count} x {accelerator.name}, peak {accelerator.peak_flops / 1e12:.0f} TFLOP/s each "
            f"({accelerator.source}), utilization {share:g} ({origin})"
        )
    flops = count * hours * SECONDS_PER_HOUR * speed
    return Budget(flops=flops, echoes=(f"{how}, {hours:g} h: {flops:.3g} FLOPs",))


def from_money(
    money: float,
    price_per_hour: float,
    devices: str,
    *,
    mfu: float | None = None,
    flops_per_second: float | None = None,
) -> Budget:
    """A budget from money and the price of one device for one hour.

    Example: from_money(500, 2.5, "H100").flops -> 2.85e20

    Raises:
        DataError: as `from_devices`, or money or price not above 0.
    """
    _positive("money", money, "")
    _positive("price", price_per_hour, "per device and hour")
    count, _ = parse_devices(devices)
    device_hours = money / price_per_hour
    found = from_devices(devices, device_hours / count, mfu=mfu, flops_per_second=flops_per_second)
    bought = f"{money:g} buys {device_hours:.4g} device hours at {price_per_hour:g} each, data preparation not paid"
    return Budget(flops=found.flops, echoes=(bought, *found.echoes))


def chosen_budget(
    *,
    flops: float | None = None,
    devices: str | None = None,
    hours: float | None = None,
    money: float | None = None,
    price_per_hour: float | None = None,
    mfu: float | None = None,
    flops_per_second: float | None = None,
) -> Budget:
    """The one budget that the given arguments describe.

    Raises:
        DataError: none or more than one is described, or a part of one is missing.
    """
    ways: Sequence[tuple[str, bool]] = (
        ("FLOPs", flops is not None),
        ("hours", hours is not None),
        ("money", money is not None),
    )
    given = [name for name, is_given in ways if is_given]
    if len(given) != 1:
        raise DataError(
            f"budget: {' and '.join(given) or 'nothing'} given; give exactly one of FLOPs, devices with hours, "
            "or devices with money and a price"
        )
    if flops is not None:
        if devices is not None:
            raise DataError("budget: devices and FLOPs given; the FLOPs are the budget, leave the devices out")
        return from_flops(flops)
    if devices is None:
        raise DataError(f"budget: {given[0]} of what? Name the devices, e.g. 8xH100")
    if hours is not None:
        return from_devices(devices, hours, mfu=mfu, flops_per_second=flops_per_second)
    if money is None or price_per_hour is None:
        raise DataError("budget: money needs the price of one device for one hour")
    return from_money(money, price_per_hour, devices, mfu=mfu, flops_per_second=flops_per_second)


def _positive(what: str, value: float, unit: str) -> float:
    if not (isfinite(value) and value > 0):
        raise DataError(f"{what} {value} {unit}".rstrip() + ": must be finite and above 0")
    return value
