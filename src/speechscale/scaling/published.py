"""What others printed: laws of the loss by name, slopes of accuracies, and the measured points of SIMS.

Enters: names. Leaves: `PublishedLaw`s and plain tables.
The one decision worth knowing: SIMS has points and metric slopes but no loss law, so none is made up for it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite

from speechscale.errors import DataError
from speechscale.scaling.laws import LossLaw, PowerLaw
from speechscale.scaling.published_laws import LAWS, PublishedLaw

__all__ = [
    "LAWS",
    "SIMS_AT_2E20",
    "SIMS_ENVELOPE",
    "SLOPES",
    "PublishedLaw",
    "PublishedSlope",
    "get_law",
    "law_of",
]


def get_law(name: str) -> PublishedLaw:
    """Look up a published law. Example: get_law("cuervo-speech").law.optimum(1e18)

    Raises:
        DataError: no such law.
    """
    if name not in LAWS:
        near = get_close_matches(name, LAWS, n=1, cutoff=0.3)
        meant = f"; did you mean '{near[0]}'?" if near else ""
        raise DataError(f"published law '{name}': there is none{meant} Allowed: {', '.join(LAWS)}")
    return LAWS[name]


def law_of(text: str) -> LossLaw:
    """A law by its published name, or from five numbers. Example: law_of("1.73,13.9,39.8,.25,.24")

    Raises:
        DataError: neither a name nor five finite numbers E,A,B,alpha,beta.
    """
    if "," not in text:
        return get_law(text.strip()).law
    try:
        constants = [float(part) for part in text.split(",")]
    except ValueError:
        constants = []
    if len(constants) != 5 or not all(map(isfinite, constants)):
        raise DataError(f"law '{text}': give a published name or five numbers E,A,B,alpha,beta")
    return LossLaw(**dict(zip(("E", "A", "B", "alpha", "beta"), constants, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSlope:
    """A published accuracy law Q = k C^gamma; k is None where only gamma is printed."""

    name: str
    gamma: float
    k: float | None
    source: str

    @property
    def law(self) -> PowerLaw | None:
        return None if self.k is None else PowerLaw(k=self.k, gamma=self.gamma)


def _slopes(modality: str, gammas: tuple[float, float, float]) -> list[PublishedSlope]:
    names = ("blimp", "tstorycloze", "sstorycloze")
    source = "Cuervo & Marxer 2024, Table 4"
    return [
        PublishedSlope(name=f"cuervo-{modality}-{n}", gamma=g, k=None, source=source)
        for n, g in zip(names, gammas, strict=True)
    ]


SLOPES: dict[str, PublishedSlope] = {
    slope.name: slope
    for slope in (
        *_slopes("text", (0.066, 0.039, 0.046)),
        *_slopes("speech", (0.021, 0.025, 0.017)),
        PublishedSlope(name="sims-sstorycloze", gamma=0.026, k=0.19, source="Maimon et al. 2025 (SIMS), Figure 1"),
        PublishedSlope(name="sims-tstorycloze", gamma=0.018, k=0.37, source="Maimon et al. 2025 (SIMS), Figure 1"),
    )
}

SIMS_ENVELOPE: tuple[tuple[float, float, float], ...] = (
    (2.13e18, 57.56, 79.85),
    (5.0e18, 58.96, 81.14),
    (2.0e19, 61.15, 82.52),
    (6.0e19, 63.27, 84.56),
    (2.0e20, 65.37, 87.17),
    (6.86e20, 66.70, 88.31),
)
"""(C in FLOPs = 6 N_total D with embeddings, sStoryCloze %, tStoryCloze %) of the best model per budget.

Source: SIMS (Maimon et al. 2025), Figure 1, read from the plot; the last point equals its Table 3.
"""

SIMS_AT_2E20: tuple[tuple[float, float, float, float], ...] = (
    (7.6e9, 4.4e9, 58.73, 87.67),
    (3e9, 10.8e9, 57.00, 85.36),
    (1.5e9, 21.6e9, 55.80, 83.87),
)
"""(N with embeddings, D over all streams, multi-speaker sStoryCloze %, tStoryCloze %) of SIMS models at 2e20 FLOPs.

Source: SIMS (Maimon et al. 2025), Table 2; D = C / 6 N. The largest model is the best: the optimum is not bracketed.
"""
