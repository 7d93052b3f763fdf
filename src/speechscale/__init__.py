"""speechscale: scaling studies of interleaved speech-text language models.

Exceptions: see `speechscale.errors`. Nouns: see `speechscale.records`.
"""

from __future__ import annotations

from speechscale.errors import DataError, MissingExtra, StaleStep

__all__ = ["DataError", "MissingExtra", "StaleStep", "__version__"]

__version__ = "0.1.0"
