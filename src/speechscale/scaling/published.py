"""Constants printed by others, each with its source and how it counts N, D and C.

Enters: nothing. Leaves: plain dicts from name to constants.
The one decision worth knowing: constants are kept exactly as printed; where a printed row is not an optimum of the
objective it is attributed to, `caveat` says so and the converged fit stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from speechscale.scaling.laws import LossLaw, PowerLaw


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedLaw:
    """A published L(N, D).

    Args:
        convention: what N, D and the loss count. compute_range_flops: (lowest, highest) C of the runs behind it, None
            where the source does not give it. repeat_constants: (R_N*, R_D*) of the data-constrained form.
    """

    name: str
    law: LossLaw
    source: str
    convention: str
    compute_range_flops: tuple[float, float] | None = None
    repeat_constants: tuple[float, float] | None = None
    caveat: str = ""


_CUERVO_UNITS = (
    "N parameters (with or without embeddings: not stated, they differ by <= 1.3 %); C = 6 N D; loss in nats "
)

LAWS: dict[str, PublishedLaw] = {
    law.name: law
    for law in (
        PublishedLaw(
            name="cuervo-speech",
            law=LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24),
            source="Cuervo & Marxer 2024, Table 5",
            convention=_CUERVO_UNITS + "per HuBERT unit (25 Hz, 500 clusters); D counts units",
            compute_range_flops=(8.2e16, 5.4e20),
            repeat_constants=(31.0, 25.0),
            caveat="no run table is public, so A, B and alpha carry no published interval",
        ),
        PublishedLaw(
            name="cuervo-unigram",
            law=LossLaw(E=1.42, A=3.85, B=8.90, alpha=0.15, beta=0.16),
            source="Cuervo & Marxer 2024, Table 5",
            convention=_CUERVO_UNITS + "per SentencePiece unigram token (5,000 pieces over units)",
        ),
        PublishedLaw(
            name="cuervo-text",
            law=LossLaw(E=1.87, A=521.0, B=1488.0, alpha=0.35, beta=0.35),
            source="Cuervo & Marxer 2024, Table 5, taken from Muennighoff et al. 2023",
            convention="C = 6 N D; loss in nats per GPT-2 token of C4",
            repeat_constants=(5.31, 15.4),
            caveat="R_N*, R_D* are a local optimum of a flat valley",
        ),
        PublishedLaw(
            name="hoffmann",
            law=LossLaw(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28),
            source="Hoffmann et al. 2022, equation 10 (rounded as printed)",
            convention="C = 6 N D; loss in nats per token of MassiveText",
            caveat="not an optimum of its own objective: log-Huber sum 0.00412 on the 240 digitised runs",
        ),
        PublishedLaw(
            name="epoch-published",
            law=LossLaw(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658),
            source="Besiroglu et al. 2024 (Epoch AI), Table 1",
            convention="as hoffmann; 240 of 245 runs read from a figure",
            caveat="two optima in one row: E is the log-Huber value, the rest are least absolute deviations",
        ),
        PublishedLaw(
            name="epoch-log-huber",
            law=LossLaw(E=1.81722, A=477.826, B=2143.42, alpha=0.347310, beta=0.367172),
            source="converged log-Huber fit (delta 1e-3, sum 0.0010182740178) of Epoch AI's 240 runs",
            convention="as hoffmann",
        ),
    )
}


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
