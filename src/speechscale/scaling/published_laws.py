"""The loss laws that others printed, each with its source and what its N, D, C and loss count.

Enters: nothing. Leaves: `LAWS`. The one decision worth knowing: constants are kept exactly as printed; where a printed
row is not an optimum of the objective it is attributed to, `caveat` says so and the converged fit stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from speechscale.scaling.laws import LossLaw
from speechscale.scaling.repeat import RepeatLaw

Modality = Literal["speech", "text", "mixed"]
Verified = Literal["read", "measured", "secondary"]

SPEECH_UNITS = "25 Hz HuBERT units (TWIST, 500 clusters), runs collapsed"
UNIGRAM_PIECES = "SentencePiece pieces (5,000) over 25 Hz HuBERT units"
PIECES_PER_UNIT = 6.31e9 / 10.89e9
"""Cuervo & Marxer 2024, Table 2: the same audio in unigram pieces and in units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedLaw:
    """A published L(N, D).

    Args:
        units: what a token is; losses of laws with different units are never compared.
        convention: what N, D and the loss count. compute_range_flops: (lowest, highest) C of the runs behind it, None
            where the source does not give it. repeat_constants: (R_N*, R_D*) of the data-constrained form.
        tokens_per_unit: tokens of D per collapsed 25 Hz unit of the same audio; None where D is no such speech.
        printed_exponents: (a, b) of N_opt and D_opt where the source prints them apart from its loss law.
        verified: "read" in the source or its authors' own output, "measured" here on public runs, or "secondary".
    """

    name: str
    law: LossLaw
    source: str
    convention: str
    modality: Modality
    units: str
    verified: Verified
    compute_range_flops: tuple[float, float] | None = None
    repeat_constants: tuple[float, float] | None = None
    tokens_per_unit: float | None = None
    printed_exponents: tuple[float, float] | None = None
    caveat: str = ""

    @property
    def repeat_law(self) -> RepeatLaw | None:
        """The law where tokens repeat, None where the source fitted no repeats."""
        if self.repeat_constants is None:
            return None
        return RepeatLaw(base=self.law, R_N=self.repeat_constants[0], R_D=self.repeat_constants[1])


_CUERVO_COUNTS = (
    "N parameters (with or without embeddings: not stated, they differ by <= 1.3 %); C = 6 N D; loss in nats "
)
_HOFFMANN_COUNTS = "C = 6 N D; loss in nats per token of MassiveText"
_EPOCH_RANGE = (1.4e18, 1.3e22)
_FLAT_VALLEY = "R_N*, R_D* are one of two optima of a flat valley (the other: 1.71, 95.4); carry the profile"
_MUENNIGHOFF_BASE = LossLaw(
    E=float(np.exp(0.6254804)), A=float(np.exp(6.255414)), B=float(np.exp(7.3049974)), alpha=0.3526596, beta=0.3526596
)

_SPEECH = (
    PublishedLaw(
        name="cuervo-speech",
        law=LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24),
        source="Cuervo & Marxer 2024, Table 5",
        convention=_CUERVO_COUNTS + "per HuBERT unit (25 Hz, 500 clusters); D counts units",
        modality="speech",
        units=SPEECH_UNITS,
        verified="read",
        compute_range_flops=(8.2e16, 4.1e20),
        repeat_constants=(31.0, 25.0),
        tokens_per_unit=1.0,
        caveat=(
            "no run table is public, so no constant carries an interval; the range is that of the released models, of "
            "which those with one epoch, behind E, A, B, alpha and beta, end at 4.1e19 FLOPs"
        ),
    ),
    PublishedLaw(
        name="cuervo-unigram",
        law=LossLaw(E=1.42, A=3.85, B=8.90, alpha=0.15, beta=0.16),
        source="Cuervo & Marxer 2024, Table 5",
        convention=_CUERVO_COUNTS + "per SentencePiece unigram token (5,000 pieces over units)",
        modality="speech",
        units=UNIGRAM_PIECES,
        verified="read",
        compute_range_flops=(8.9e16, 1.2e19),
        tokens_per_unit=PIECES_PER_UNIT,
        caveat="no run table is public; the range is that of its sizes (20M to 309M) times its pieces (.74B to 6.31B)",
    ),
)

_MIXED = (
    PublishedLaw(
        name="soda",
        law=LossLaw(E=3.169, A=216e3, B=4750.0, alpha=0.684, beta=0.439),
        source="SODA (2026), 64 iso-FLOP runs on audio and text, through a note that quotes it",
        convention="C = 6 N D; D counts Mimi codes (8 codebooks, 100 per second) and text tokens together",
        modality="mixed",
        units="Mimi codes and text tokens",
        verified="secondary",
        compute_range_flops=(3e18, 3e20),
        printed_exponents=(0.367, 0.579),
        caveat="its printed exponents sum to .946 and differ from those of its own loss law, .391 and .609",
    ),
)

_TEXT = (
    PublishedLaw(
        name="cuervo-text",
        law=LossLaw(E=1.87, A=521.0, B=1488.0, alpha=0.35, beta=0.35),
        source="Cuervo & Marxer 2024, Table 5, taken from Muennighoff et al. 2023",
        convention="C = 6 N D; loss in nats per GPT-2 token of C4",
        modality="text",
        units="GPT-2 tokens of C4",
        verified="read",
        repeat_constants=(5.31, 15.4),
        caveat="R_N*, R_D* are a local optimum of a flat valley",
    ),
    PublishedLaw(
        name="muennighoff",
        law=_MUENNIGHOFF_BASE,
        source="Muennighoff et al. 2023, unrounded constants of the authors' notebook",
        convention="C = 6 N D; loss in nats per GPT-2 token of C4; alpha and beta tied",
        modality="text",
        units="GPT-2 tokens of C4",
        verified="read",
        compute_range_flops=(4.3e15, 9.3e21),
        repeat_constants=(5.309743, 15.387756),
        caveat="the base law is fitted to points read off another paper's figure; " + _FLAT_VALLEY,
    ),
    PublishedLaw(
        name="muennighoff-second",
        law=_MUENNIGHOFF_BASE,
        source="the lower optimum of the same objective on the same 182 runs (0.0158046647 against 0.0158259)",
        convention="as muennighoff",
        modality="text",
        units="GPT-2 tokens of C4",
        verified="measured",
        compute_range_flops=(4.3e15, 9.3e21),
        repeat_constants=(1.71, 95.4),
        caveat="0.13 % lower in a flat valley: neither pair of R_N*, R_D* is determined by these runs",
    ),
    PublishedLaw(
        name="hoffmann",
        law=LossLaw(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28),
        source="Hoffmann et al. 2022, equation 10 (rounded as printed)",
        convention=_HOFFMANN_COUNTS,
        modality="text",
        units="tokens of MassiveText",
        verified="secondary",
        compute_range_flops=_EPOCH_RANGE,
        caveat="not an optimum of its own objective: log-Huber sum 0.00412 on 240 digitised runs (range theirs)",
    ),
    PublishedLaw(
        name="hoffmann-unrounded",
        law=LossLaw(
            E=float(np.exp(0.5267228)),
            A=float(np.exp(6.0073404)),
            B=float(np.exp(6.0179186)),
            alpha=0.33917084,
            beta=0.2849083,
        ),
        source="Hoffmann et al. 2022, TeX source of the paper, quoted by Epoch AI",
        convention=_HOFFMANN_COUNTS,
        modality="text",
        units="tokens of MassiveText",
        verified="secondary",
        compute_range_flops=_EPOCH_RANGE,
        caveat="log-Huber sum 0.0012312 on the 240 digitised runs: the fit stopped early",
    ),
    PublishedLaw(
        name="epoch-published",
        law=LossLaw(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658),
        source="Besiroglu et al. 2024 (Epoch AI), Table 1",
        convention="as hoffmann; 240 of 245 runs read from a figure",
        modality="text",
        units="tokens of MassiveText",
        verified="read",
        compute_range_flops=_EPOCH_RANGE,
        caveat="two optima in one row: E is the log-Huber value, the rest are least absolute deviations",
    ),
    PublishedLaw(
        name="epoch-log-huber",
        law=LossLaw(E=1.81722, A=477.826, B=2143.42, alpha=0.347310, beta=0.367172),
        source="converged log-Huber fit (delta 1e-3, sum 0.0010182740178) of Epoch AI's 240 runs",
        convention="as hoffmann",
        modality="text",
        units="tokens of MassiveText",
        verified="measured",
        compute_range_flops=_EPOCH_RANGE,
    ),
    PublishedLaw(
        name="epoch-lad",
        law=LossLaw(E=1.81686, A=482.006, B=2085.43, alpha=0.347813, beta=0.365854),
        source="converged least-absolute-deviations fit of Epoch AI's 240 runs",
        convention="as hoffmann",
        modality="text",
        units="tokens of MassiveText",
        verified="measured",
        compute_range_flops=_EPOCH_RANGE,
    ),
)

LAWS: dict[str, PublishedLaw] = {law.name: law for law in (*_SPEECH, *_MIXED, *_TEXT)}
