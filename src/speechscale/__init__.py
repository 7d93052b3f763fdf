"""speechscale: scaling studies of interleaved speech-text language models.

Exceptions: see `speechscale.errors`. Nouns: see `speechscale.records`.
"""

from __future__ import annotations

import importlib
from typing import Any

from speechscale.errors import DataError, MissingExtra, StaleStep

__all__ = ["DataError", "MissingExtra", "SpeechLM", "StaleStep", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`SpeechLM` loads torch and transformers, so it is loaded when it is asked for."""
    if name == "SpeechLM":
        return importlib.import_module("speechscale.speak.speech_lm").SpeechLM
    raise AttributeError(f"module 'speechscale' has no attribute '{name}'")
