"""The models a plan may choose from, and what each counts as N.

Enters: names of sizes, a mixture, a FLOP convention. Leaves: `Available`s.
The one decision worth knowing: a mixture with text keeps the TextLM's vocabulary, which at half a billion parameters
costs a third more FLOPs per token; units alone need 502 rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speechscale.errors import DataError
from speechscale.model.flops import flops_per_token
from speechscale.model.sizes import get_size, params
from speechscale.scaling.laws import FLOPS_PER_PARAM_TOKEN
from speechscale.scaling.planning.inventory import Mixture

UNIT_ROWS = 502
"""500 units and two specials, as Cuervo & Marxer."""
CONTEXT = 2048
DEFAULT_SIZES = (
    "20M",
    "85M",
    "155M",
    "309M",
    "823M",
    "qwen2.5-0.5B",
    "qwen2.5-1.5B",
    "qwen2.5-3B",
    "qwen2.5-7B",
)
"""Cuervo & Marxer's shapes and the TextLMs of SIMS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Available:
    """A model. params: N so that C = 6 N D under the asked convention. warm: a pretrained TextLM exists."""

    name: str
    params: float
    params_total: int
    warm: bool


def available(names: Sequence[str], mixture: Mixture, flops_name: str) -> tuple[Available, ...]:
    """Count the sizes for a mixture; those without a text vocabulary are left out where it has text.

    Raises:
        DataError: an unknown size, or none is left.
    """
    found = []
    for name in names:
        size = get_size(name)
        if mixture.has_text and not size.text_vocab:
            continue
        rows = UNIT_ROWS + (size.text_vocab if mixture.has_text else 0)
        per_token = flops_per_token(size, rows, CONTEXT).of(flops_name)  # type: ignore[arg-type]
        found.append(
            Available(
                name=name,
                params=per_token / FLOPS_PER_PARAM_TOKEN,
                params_total=params(size, rows).total,
                warm=size.text_vocab > 0,
            )
        )
    if not found:
        raise DataError(f"mixture {mixture.name} has text, and none of {', '.join(names)} has a text vocabulary")
    return tuple(sorted(found, key=lambda one: one.params))
