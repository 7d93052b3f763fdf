"""Make a training job fit a device: the most rows, what else would help, and a refusal that says so.

Enters: a `Job` and the bytes of a device. Leaves: rows, advice, or the plan.
The one decision worth knowing: every piece of advice was planned itself and fits; nothing is said that would not help.
"""

from __future__ import annotations

import dataclasses

from speechscale.errors import DataError
from speechscale.model.memory import Job, MemoryPlan, gib, plan_memory

MAX_ROWS = 2**20
LORA_RANK = 16
"""Of the adapters that are suggested."""


def largest_micro_rows(job: Job, device_bytes: int) -> int:
    """Find the most rows that fit on a device; 0 if not even one does."""

    def fits(rows: int) -> bool:
        return plan_memory(dataclasses.replace(job, micro_rows=rows)).need <= device_bytes

    low, high = 0, 1
    while high < MAX_ROWS and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def advise(job: Job, device_bytes: int) -> list[str]:
    """Say what would make a job fit, mildest first; empty if nothing tried does."""
    smaller = max(1, largest_micro_rows(job, device_bytes))
    one: dict[str, object] = {"micro_rows": 1}
    trials: list[tuple[str, dict[str, object]]] = [
        (f"micro_rows = {smaller}", {"micro_rows": smaller}),
        ("checkpointing", {"checkpointing": True}),
        ("checkpointing and micro_rows = 1", {"checkpointing": True, **one}),
    ]
    if job.world > 1 and not job.sharded:
        trials.append((f"fsdp over the {job.world} devices", {"parallel": "fsdp"}))
        trials.append(("fsdp, checkpointing and micro_rows = 1", {"parallel": "fsdp", "checkpointing": True, **one}))
    if job.trains == "all":
        lora: dict[str, object] = {"trains": "lora", "lora_rank": LORA_RANK, "checkpointing": True, **one}
        trials.append((f"lora_rank = {LORA_RANK}, checkpointing and micro_rows = 1", lora))
    found = []
    for words, change in trials:
        trial = dataclasses.replace(job, **change)  # type: ignore[arg-type]
        need = plan_memory(trial).need
        if trial != job and need <= device_bytes:
            found.append(f"{words} ({gib(need)} GiB)")
    return found


def require_memory(job: Job, device_bytes: int) -> MemoryPlan:
    """Plan a job and refuse it where it does not fit.

    Raises:
        DataError: more bytes than the device has, with what would fit.
    """
    plan = plan_memory(job)
    if plan.need <= device_bytes:
        return plan
    ways = advise(job, device_bytes)
    remedy = f"take {'; or '.join(ways)}" if ways else "take a smaller size, more devices with fsdp, or a larger device"
    raise DataError(
        f"memory: '{job.size.name}' with {job.micro_rows} x {job.context} tokens needs {gib(plan.need)} GiB per "
        f"device (fullest: {plan.fullest}), the device has {gib(device_bytes)}; {remedy}"
    )
