"""Where a measured multiplier holds, and what it decides.

Enters: a `Multiplier`. Leaves: phrases, the same in the report of a study and in `speechscale compare`.
The one decision worth knowing: an interval that spans 1 decides nothing, however far its middle is from 1.
"""

from __future__ import annotations

from speechscale.scaling.analysis.multiplier import Multiplier


def where(m: Multiplier) -> str:
    """Word the losses and the compute it was measured over. Example: " (measured for losses 1.82 to 1.74 nats ...)" """
    if m.loss_range is None or m.baseline_flops is None:
        return ""
    high, low = m.loss_range
    return (
        f" (measured for losses {high:.3g} to {low:.3g} nats per unit, "
        f"{m.baseline_flops[0]:.2g} to {m.baseline_flops[1]:.2g} FLOPs of {m.baseline})"
    )


def ruling(m: Multiplier) -> str:
    """Say which arm is cheaper, or that these runs cannot tell. Example: "interleaved is dearer" """
    if m.status == "too_few_points":
        return f"cannot tell, {m.message}"
    if not m.noise_measured:
        return "cannot tell, the noise of these runs was not measured"
    if m.status == "no_overlap":
        assert m.bound_value is not None
        if m.bound == "less than" and m.bound_value < 1:
            return f"{m.arm} is cheaper; every loss of it lies below every loss of {m.baseline}"
        if m.bound == "more than" and m.bound_value > 1:
            return f"{m.arm} is dearer; every loss of it lies above every loss of {m.baseline}"
        return "cannot tell which is cheaper, the bound does not exclude 1"
    assert m.value is not None
    if not m.value.excludes(1.0):
        return "cannot tell which is cheaper, the interval spans 1"
    return f"{m.arm} is cheaper" if m.value.value < 1 else f"{m.arm} is dearer"
