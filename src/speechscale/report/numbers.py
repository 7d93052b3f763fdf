"""Numbers as short text, for tables, ticks and terminals."""

from __future__ import annotations

import math


def short_flops(value: float) -> str:
    """Example: 4e11 -> '4e11', 2.13e18 -> '2.13e18', 500 -> '500'"""
    if value < 9995:
        return f"{value:.3g}"
    if not math.isfinite(value):
        return f"{value:g}"
    digits, exponent = f"{value:.2e}".split("e")
    return f"{float(digits):.3g}e{int(exponent)}"


def short_count(value: float) -> str:
    """Example: 203520 -> '204k', 7.6e9 -> '7.6B', 12 -> '12', 2e15 -> '2e15'"""
    if abs(value) >= 0.9995e15:
        return short_flops(value)
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:  # 999.6 million is 1B, not 1e+03M
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
