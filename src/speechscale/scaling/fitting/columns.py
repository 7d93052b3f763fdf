"""What every form of law is: a prediction from named columns.

Enters: nothing. Leaves: the `Form` protocol. The one decision worth knowing: columns have short names (N, D, U unique
tokens, T text tokens of the TextLM, warm, D_speech, D_text, D_interleaved), the same in every form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from jaxtyping import Float

Columns = Mapping[str, Float[np.ndarray, " runs"]]
Theta = Float[np.ndarray, "replicates parameters"]
MOST_STARTS = 64


class Form(Protocol):
    """One form of law on the table it was centered on.

    Attributes: names: of the constants. columns: it reads. low, high: box of theta. base: parameters of the five-term
    law at the front of theta (0 or 5).
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    base: int

    @property
    def low(self) -> Float[np.ndarray, " parameters"]: ...

    @property
    def high(self) -> Float[np.ndarray, " parameters"]: ...

    def log_law(self, theta: Theta, x: Columns) -> Float[np.ndarray, "replicates runs"]:
        """Log loss of every replicate's law for every run."""

    def constants(self, theta: Theta) -> dict[str, Float[np.ndarray, " replicates"]]:
        """The law's constants by name, one entry per replicate."""

    def starts(self, x: Columns, loss: np.ndarray, w: np.ndarray) -> Theta:
        """Where to begin, best guesses of a global grid."""
